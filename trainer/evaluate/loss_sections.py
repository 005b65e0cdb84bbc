"""Score card sections from losses: held-out replies, general dialogue and instructions."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from personas.prompt import Renderer, TokenizedSample
from personas.schemas.scorecard import GeneralScores, HoldoutScores, Interval, Side
from trainer.data.dataset import Dataset
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidates
from trainer.evaluate.paired_losses import PairedLosses, TimeBudget, bootstrap_ratio, paired_losses
from trainer.schemas import PromptReply
from trainer.train.losses import ReplyLoss, mean_loss

INSTRUCTIONS_FILE = Path(__file__).parents[2] / "data" / "instructions" / "instructions.jsonl"
"""Short tasks and answers, which no run trains on."""


def heldout_section(measured: PairedLosses[Side], pairs: Sequence[PromptReply], end_tokens: int) -> HoldoutScores:
    """Build the section from losses of all held-out replies. `end_tokens` is the length of the end of turn."""
    talks, against_live = [it.talk for it in pairs], None
    if LIVE in measured.losses:
        against_live = loss_difference(talks, measured.whole(NEW), measured.whole(LIVE))
    return HoldoutScores(
        conversations=len(set(talks)),
        replies=len(talks),
        tokens=sum(loss.tokens for loss in measured.whole(NEW)),
        loss=measured.means(),
        loss_without_end={
            side: mean_loss([loss.without(end_tokens) for loss in losses]) for side, losses in measured.losses.items()
        },
        against_base=loss_difference(talks, measured.whole(NEW), measured.whole(BASE)),
        against_live=against_live,
    )


def loss_difference(talks: Sequence[str], of: Sequence[ReplyLoss], to: Sequence[ReplyLoss]) -> Interval:
    """Return the difference in loss of the same replies between two sides, in nats per token."""
    more = [one.nll - other.nll for one, other in zip(of, to, strict=True)]
    return bootstrap_ratio(talks, more, [loss.tokens for loss in of])


def general_section(
    dialogue: PairedLosses[Side], data: Dataset, instructions: PairedLosses[Side] | None = None
) -> GeneralScores:
    """Build the section from both sets of losses; instructions are optional."""
    talks = [it.talk for it in dialogue.chosen(data.general_prompt_replies)]
    section = GeneralScores(
        dialogue_loss=dialogue.means(),
        dialogue_change=_relative_change(talks, dialogue),
        dialogue_replies=len(dialogue.places),
    )
    if instructions is None:
        return section
    fields = {
        "instruction_loss": instructions.means(),
        "instruction_change": _relative_change([str(n) for n in instructions.places], instructions),
        "instruction_replies": len(instructions.places),
    }
    return section.model_copy(update=fields)


def instruction_losses(sides: Candidates, budget: TimeBudget, between: Callable[[], None]) -> PairedLosses[Side]:
    """Measure losses on instruction replies."""
    return paired_losses(sides.use, sides.names, instruction_samples(Renderer(sides.tokenizer)), budget, between)


def instruction_samples(renderer: Renderer) -> list[TokenizedSample]:
    """Render the shipped instructions with their answers."""
    lines = [json.loads(line)["messages"] for line in INSTRUCTIONS_FILE.read_text(encoding="utf-8").splitlines()]
    return [renderer.sample_from_messages(messages[:-1], messages[-1]["content"]) for messages in lines]


def _relative_change(talks: Sequence[str], measured: PairedLosses[Side]) -> Interval:
    """Return the increase of the new version's loss relative to the base's."""
    new, base = ([loss.nll for loss in measured.whole(side)] for side in (NEW, BASE))
    return bootstrap_ratio(talks, [one - other for one, other in zip(new, base, strict=True)], base)
