"""A score card, section by section, within the time that it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from personas.base_model import fingerprint
from personas.compare import NOTHING, Compare, Heard
from personas.errors import UnderstudyError
from personas.prompt import Renderer
from personas.scorecard import FullScoreCard, Made, Separation, Side
from trainer.evaluate import TokenLosses, mean_loss
from trainer.gate import judge
from trainer.job import Job
from trainer.loop.diverging import require_number
from trainer.loop.memory import release_memory
from trainer.scorecard.budget import Budget, Extent
from trainer.scorecard.general import dialogue_losses, general_section, instruction_losses
from trainer.scorecard.heldout import heldout_section
from trainer.scorecard.learned import learned_section
from trainer.scorecard.measured import Measured, measured_alike
from trainer.scorecard.memorised import memorised_section, with_replies
from trainer.scorecard.neighbours import Neighbour, neighbours_of
from trainer.scorecard.separation import NO_NEIGHBOUR, separation_section
from trainer.scorecard.sides import BASE, LIVE, NEW, Compared, Sides
from trainer.scorecard.spoken import measure_spoken

QUICK = 1 / 5
SEEDS = (0, 1, 2)
DIALOGUE, INSTRUCTIONS, MEMORISED, SEPARATION = 0.15, 0.05, 0.1, 0.2
"""Shares of the time that is left when each of these begins, of general dialogue's on a quick card; the rest is for
what is generated."""
LOSSES_ONLY = "Only losses were measured."
MEASURED_LATER = ("separation", "voice", "facts", "text", "memorised", "safety", "side_by_side")


@dataclass(frozen=True)
class Known:
    """What the base model's losses are, where they were measured before: on all held-out replies, on all dialogue."""

    heldout: Sequence[TokenLosses]
    general: Sequence[TokenLosses]

    @property
    def means(self) -> tuple[float, float]:
        """Both, in nats per reply token."""
        heldout, general = (mean_loss([it.whole for it in losses]) for losses in (self.heldout, self.general))
        return heldout, general


@dataclass(frozen=True)
class Order:
    """A card that is asked for: of `new`, the adapter that `job` made, beside what `compare` names.

    `training_s` is how long its training took; the card takes no longer. `losses` are those of the training's steps.
    `tell` is told what is measured now, `between` called between two batches; either may stop it. `clock` counts the
    seconds that the card may take.
    """

    job: Job
    new: Compared
    training_s: float
    compare: Compare = NOTHING
    extent: Extent = "full"
    known: Known | None = None
    tell: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None
    losses: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic
    left_out: dict[str, str] = field(default_factory=dict)


def make_card(order: Order) -> FullScoreCard:
    """Measure a version, and have the gate judge it.

    Raises `UnderstudyError` when the new version cannot be compared at all; what else cannot is left out, and said.
    """
    began = time.monotonic()
    budget = Budget(order.training_s * (QUICK if order.extent == "quick" else 1), order.clock)
    sides = sides_of(order)
    try:
        card = _measured(order, sides, budget)
    finally:
        sides.close()
    card = card.model_copy(update={"left_out": order.left_out, "seconds": round(time.monotonic() - began, 1)})
    return card.model_copy(update={"verdict": judge(card, order.job.spec.request.recipe)})


def _measured(order: Order, sides: Sides, budget: Budget) -> FullScoreCard:
    data = order.job.data
    _begin(order, f"{len(data.heldout)} held-out replies")
    known = {BASE: order.known.heldout} if order.known else {}
    heldout = measured_alike(sides.use, sides.names, data.heldout, None, order.between, known)
    require_number(heldout.means()[NEW], "the held-out replies, with the new adapter,", order.job.recipe)
    end_tokens = len(Renderer(sides.tokenizer).end_ids)
    _begin(order, "general dialogue")
    known = {BASE: order.known.general} if order.known else {}
    little = budget.part(DIALOGUE) if order.extent == "quick" else None
    dialogue = dialogue_losses(sides, data, little, known, order.between)
    card = FullScoreCard(
        persona=order.job.spec.request.persona,
        version=order.new.version,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model_hash=fingerprint(order.job.base),
        precision=sides.precision,
        quick=order.extent == "quick",
        seconds=0,
        seeds=SEEDS,
        adapters={side: sides.made(side) for side in sides.names},
        heldout=heldout_section(heldout, data.said_heldout, end_tokens),
        general=general_section(dialogue, data),
        learned=learned_section(data, order.job.recipe, order.losses),
        heard=_heard(order.compare.heard, sides.made(LIVE) if LIVE in sides.names else None),
    )
    if order.extent == "losses":
        order.left_out.update(dict.fromkeys(MEASURED_LATER, LOSSES_ONLY))
    else:
        card = _whole(card, order, sides, heldout, dialogue, budget)
    return card.model_copy(update={"base_is_base": sides.base_is_base()})


def _begin(order: Order, what: str) -> None:
    """Go on with a part of the card; what the last one left in the heap fits none of this one's batches."""
    release_memory()
    order.tell(what)


def _heard(heard: Heard | None, live: Made | None) -> Heard | None:
    """What members have said, if it was said beside the version that speaks now."""
    return heard if heard and heard.against == (live.version if live else BASE) else None


def sides_of(order: Order) -> Sides:
    """Base, live and new version over one model; a live version that cannot be compared is left out, and said."""
    job, live = order.job, order.compare.live
    prompt = job.data.heldout[0]
    probe = prompt.ids[: prompt.mask.index(True)]
    speaks = order.extent != "losses"
    sides = Sides.load(job.base, job.tokenizer, job.spec.serving_precision, probe, speaks=speaks)
    if live:
        try:
            sides.add(LIVE, Compared.sealed(Path(live)))
        except UnderstudyError as error:
            order.left_out[LIVE] = error.message
    else:
        order.left_out[LIVE] = "The base model speaks now: no version is live."
    sides.add(NEW, order.new)
    return sides


def _whole(
    card: FullScoreCard,
    order: Order,
    sides: Sides,
    heldout: Measured[Side],
    dialogue: Measured[Side],
    budget: Budget,
) -> FullScoreCard:
    """The card with the other sections."""
    data, between = order.job.data, order.between
    _begin(order, "instruction replies")
    instructions = instruction_losses(sides, budget.part(INSTRUCTIONS), between)
    _begin(order, "trained replies")
    end_tokens = len(Renderer(sides.tokenizer).end_ids)
    memorised = memorised_section(sides, data, heldout.means(), end_tokens, budget.part(MEMORISED), between)
    neighbours, missing = neighbours_of(order.job, order.compare.neighbours)
    separation = _separation(order, sides, neighbours, missing, budget.part(SEPARATION))
    others = {it.persona: it.data for it in neighbours}
    release_memory()
    spoken = measure_spoken(sides, order.job, budget, SEEDS, order.tell, others, between)
    order.left_out.update(spoken.left_out)
    return card.model_copy(
        update={
            "general": general_section(dialogue, data, instructions),
            "separation": separation,
            "memorised": with_replies(memorised, data, spoken.replies, sides.tokenizer),
            "voice": spoken.voice,
            "facts": spoken.facts,
            "text": spoken.text,
            "safety": spoken.safety,
            "side_by_side": spoken.side_by_side,
        }
    )


def _separation(
    order: Order, sides: Sides, neighbours: Sequence[Neighbour], missing: Sequence[str], budget: Budget
) -> Separation | None:
    """The section, or None and the reason why it is left out."""
    persona = order.job.spec.request.persona
    if persona is None:
        order.left_out["separation"] = "The adapter is nobody's."
        return None
    if not neighbours:
        order.left_out["separation"] = " ".join([NO_NEIGHBOUR, *missing])
        return None
    _begin(order, f"{len(neighbours) + 1} personas' replies under each other's adapters")
    return separation_section(sides, persona, order.job.data, neighbours, budget, order.between)
