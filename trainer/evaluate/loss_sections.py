"""Score card sections of losses: held-out replies, general dialogue, instructions."""

import json
from collections.abc import Callable, Sequence

from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.scorecard import GeneralScores, HoldoutScores, Interval, Side
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.dataset import Dataset
from trainer.evaluate.bootstrap import bootstrap_ratio
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidates
from trainer.evaluate.paired_losses import PairedLosses, paired_losses
from trainer.evaluate.time_budget import TimeBudget
from trainer.languages import find_language_file
from trainer.schemas import PromptReply
from trainer.train.losses import ReplyLoss, mean_loss

INSTRUCTIONS_FILE = SHIPPED_DATA / "instructions" / "instructions.jsonl"
"""Short tasks and answers, which no run trains on."""


def heldout_section(
    measured: PairedLosses[Side], pairs: Sequence[PromptReply], end_tokens: int
) -> HoldoutScores:
    """Build the section from losses of held-out replies, `pairs`. `end_tokens` is the length of the end
    of turn.
    """
    talks = [pair.talk for pair in pairs]
    against_live = None
    if LIVE in measured.losses:
        against_live = loss_difference(talks, measured.whole(NEW), measured.whole(LIVE))
    loss_without_end: dict[Side, float] = {}
    for side, losses in measured.losses.items():
        loss_without_end[side] = mean_loss([reply.without(end_tokens) for reply in losses])
    return HoldoutScores(
        conversations=len(set(talks)),
        replies=len(talks),
        tokens=sum(loss.tokens for loss in measured.whole(NEW)),
        loss=measured.means(),
        loss_without_end=loss_without_end,
        against_base=loss_difference(talks, measured.whole(NEW), measured.whole(BASE)),
        against_live=against_live,
    )


def loss_difference(
    talks: Sequence[str], losses: Sequence[ReplyLoss], compared: Sequence[ReplyLoss]
) -> Interval:
    """Return the difference in loss of the same replies between two sides, in nats per token."""
    more = [loss.nll - other.nll for loss, other in zip(losses, compared, strict=True)]
    return bootstrap_ratio(talks, more, [loss.tokens for loss in losses])


def general_section(
    dialogue: PairedLosses[Side], data: Dataset, instructions: PairedLosses[Side] | None = None
) -> GeneralScores:
    """Build the section from both sets of losses; instructions are optional."""
    talks = [pair.talk for pair in dialogue.chosen(data.general_prompt_replies)]
    section = GeneralScores(
        dialogue_loss=dialogue.means(),
        dialogue_change=_relative_change(talks, dialogue),
        dialogue_replies=len(dialogue.places),
    )
    if instructions is None:
        return section
    # Instructions belong to no conversation: each is resampled alone.
    units = [str(place) for place in instructions.places]
    fields = {
        "instruction_loss": instructions.means(),
        "instruction_change": _relative_change(units, instructions),
        "instruction_replies": len(instructions.places),
    }
    return section.model_copy(update=fields)


def instruction_losses(
    sides: Candidates, language: str, budget: TimeBudget, between: Callable[[], None]
) -> PairedLosses[Side]:
    """Measure losses on instruction replies in a language, or in English if there are none."""
    # Drawn at random if time is short, and the same ones for all sides.
    samples = instruction_samples(Renderer(sides.tokenizer), language)
    return paired_losses(
        sides.use, sides.names, samples, budget, between=between, stored=sides.known_losses
    )


def instruction_samples(renderer: Renderer, language: str = "en") -> list[TokenizedSample]:
    """Render the shipped instructions with their answers."""
    file = find_language_file(INSTRUCTIONS_FILE, language) or INSTRUCTIONS_FILE
    samples = []
    for line in file.read_text(encoding="utf-8").splitlines():
        *prompt, answer = json.loads(line)["messages"]
        samples.append(renderer.sample_from_messages(prompt, answer["content"]))
    return samples


def _relative_change(talks: Sequence[str], measured: PairedLosses[Side]) -> Interval:
    """Return the increase of the new version's loss relative to the base's."""
    new = [loss.nll for loss in measured.whole(NEW)]
    base = [loss.nll for loss in measured.whole(BASE)]
    more = [loss - other for loss, other in zip(new, base, strict=True)]
    return bootstrap_ratio(talks, more, base)
