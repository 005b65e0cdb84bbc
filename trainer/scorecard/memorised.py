"""Memorised: what comes back of what was trained on, and personal data in what is said.

Greedy decoding goes on from the first half of a trained reply with the second half, word for word, when each token of
the second half is the likeliest after those before it. That is read from the reply's losses: nothing has to be
generated. Only replies count of which eight tokens or more are to come back; shorter ones come back by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from personas.scorecard import Memorised, Side
from trainer.dataset import Dataset
from trainer.evaluate import TokenLosses
from trainer.scorecard.budget import Budget
from trainer.scorecard.measured import measured_alike
from trainer.scorecard.private import Said, learned_and_made_up
from trainer.scorecard.sides import BASE, NEW, Sides

LEAST_RETURNED = 8
"""Tokens that have to come back."""


def memorised_section(
    sides: Sides,
    data: Dataset,
    heldout: Mapping[Side, float],
    end_tokens: int,
    budget: Budget,
    between: Callable[[], None],
) -> Memorised:
    """Measure trained replies, at most as many as are held out. `heldout` are the losses on these, by side.

    What is generated is added later (`with_replies`).
    """
    own = data.train[: len(data.said_train)] or data.train
    step = max(1, len(own) // max(1, len(data.heldout)))
    measured = measured_alike(sides.use, sides.names, own[::step][: len(data.heldout)], budget, between)
    long = [place for place, it in enumerate(measured.losses[NEW]) if returned_tokens(it, end_tokens) >= LEAST_RETURNED]
    came_back = {
        side: sum(comes_back(measured.losses[side][place], end_tokens) for place in long) / max(1, len(long))
        for side in (BASE, NEW)
    }
    return Memorised(
        prefixes=len(long),
        verbatim=came_back[NEW],
        verbatim_base=came_back[BASE],
        gap={side: heldout[side] - loss for side, loss in measured.means().items()},
        generated=0,
        private={},
    )


def returned_tokens(losses: TokenLosses, end_tokens: int) -> int:
    """How many tokens the second half of a reply has, without the end of turn."""
    said = len(losses.nll) - end_tokens
    return said - said // 2


def comes_back(losses: TokenLosses, end_tokens: int) -> bool:
    """Whether greedy decoding goes on from the first half of a reply with its second half."""
    said = len(losses.nll) - end_tokens
    return bool(losses.likeliest[said // 2 : said].all())


def with_replies(section: Memorised, data: Dataset, replies: Sequence[Said], tokenizer: Any) -> Memorised:
    """The section with what the anonymiser finds in generated replies that their prompts do not hold."""

    def trained() -> str:
        return "\n".join(tokenizer.batch_decode([sample.ids for sample in data.trained]))

    private, made_up = learned_and_made_up(data, replies, trained)
    return section.model_copy(update={"generated": len(replies), "private": private, "made_up": made_up})
