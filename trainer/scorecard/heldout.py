"""Held-out replies: how well each side predicts what the persona said and was never trained on."""

from __future__ import annotations

from collections.abc import Sequence

from personas.scorecard import HeldOutReplies, Interval, Side
from trainer.evaluate import ReplyLoss, mean_loss
from trainer.exchange import Exchange
from trainer.scorecard.bootstrap import interval_of_ratio
from trainer.scorecard.measured import Measured
from trainer.scorecard.sides import BASE, LIVE, NEW


def heldout_section(measured: Measured[Side], said: Sequence[Exchange], end_tokens: int) -> HeldOutReplies:
    """The section from losses of all held-out replies under all sides. `end_tokens` are those of the end of turn."""
    talks = [it.talk for it in said]
    return HeldOutReplies(
        conversations=len(set(talks)),
        replies=len(talks),
        tokens=sum(loss.tokens for loss in measured.whole(NEW)),
        loss=measured.means(),
        loss_without_end={
            side: mean_loss([loss.without(end_tokens) for loss in losses]) for side, losses in measured.losses.items()
        },
        against_base=difference(talks, measured.whole(NEW), measured.whole(BASE)),
        against_live=difference(talks, measured.whole(NEW), measured.whole(LIVE)) if LIVE in measured.losses else None,
    )


def difference(talks: Sequence[str], of: Sequence[ReplyLoss], to: Sequence[ReplyLoss]) -> Interval:
    """How many nats per token the loss of the same replies is more under one side than under another."""
    more = [one.nll - other.nll for one, other in zip(of, to, strict=True)]
    return interval_of_ratio(talks, more, [loss.tokens for loss in of])
