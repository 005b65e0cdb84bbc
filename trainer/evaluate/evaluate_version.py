"""Evaluates a version within a time budget: score card sections, then the gate's verdict."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import UnderstudyError
from personas.home.comparison_targets import NO_COMPARISON, ComparisonTargets
from personas.models.base_model import fingerprint
from personas.prompt.renderer import Renderer
from personas.schemas.scorecard import (
    SENSE_SECTIONS,
    AdapterStamp,
    EvaluationExtent,
    MemberFeedback,
    ScoreCard,
    Separation,
    Side,
)
from personas.schemas.training_events import Phase
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidate, Candidates
from trainer.evaluate.generation.reply_sections import measure_replies
from trainer.evaluate.memorisation import (
    add_reply_pii,
    data_checks_section,
    memorisation_section,
    training_losses,
)
from trainer.evaluate.paired_losses import (
    PairedLosses,
    TimeBudget,
    general_section,
    heldout_section,
    instruction_losses,
    paired_losses,
)
from trainer.evaluate.persona_separation import (
    NO_OTHER_PERSONA,
    OtherPersona,
    load_other_personas,
    separation_section,
)
from trainer.gate.verdict import judge
from trainer.machine import release_memory
from trainer.process.events import StepEvent
from trainer.train.job import PreparedJob, RunContext
from trainer.train.losses import (
    TokenLosses,
    load_serving_model,
    mean_loss,
    measure_token_losses,
    require_finite_loss,
)
from trainer.train.trainer_base import between_layers

QUICK_TIME_SHARE = 1 / 5
GENERATION_SEEDS = (0, 1, 2)
DIALOGUE_TIME_SHARE, INSTRUCTIONS_TIME_SHARE, MEMORISATION_TIME_SHARE, SEPARATION_TIME_SHARE = (
    0.15,
    0.05,
    0.1,
    0.2,
)
"""Shares of the time that is left when each of these begins, of general dialogue's on a quick card;
the rest is for what is generated.
"""
LOSSES_ONLY_REASON = "Only losses were measured."
SECTIONS_BEYOND_LOSSES = (
    *("separation", "voice", "facts", "text", "memorised", "safety", "side_by_side"),
    *SENSE_SECTIONS,
)
MAX_SENSE_S = 480.0
"""Limit of the time for the sections on sense, beside that of the rest, which is a limit of theirs,
too.
"""


@dataclass(frozen=True)
class BaseLosses:
    """Losses of the base model measured earlier, on all held-out replies and all general
    dialogue.
    """

    heldout: Sequence[TokenLosses]
    general: Sequence[TokenLosses]

    @property
    def means(self) -> tuple[float, float]:
        """Both means, in nats per reply token."""
        return mean_loss([it.whole for it in self.heldout]), mean_loss(
            [it.whole for it in self.general]
        )


@dataclass(frozen=True)
class EvaluationRequest:
    """A request for a score card of `new`, the adapter trained by `job`, compared with the
    `compare` targets.

    `training_s` is its training time, which is also the evaluation's time limit. `losses` are the
    training losses by step. `tell` reports progress and `between` runs between two layers or
    tokens; either may raise to cancel. `clock` measures the time budget.
    """

    job: PreparedJob
    new: Candidate
    training_s: float
    compare: ComparisonTargets = NO_COMPARISON
    extent: EvaluationExtent = "full"
    known: BaseLosses | None = None
    tell: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None
    losses: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic
    left_out: dict[str, str] = field(default_factory=dict)


def evaluate_version(request: EvaluationRequest) -> ScoreCard:
    """Evaluate and judge a version. Raises `UnderstudyError` if it cannot be compared; other
    failures are left out.
    """
    started = time.monotonic()
    budget = TimeBudget(
        request.training_s * (QUICK_TIME_SHARE if request.extent == "quick" else 1), request.clock
    )
    sides = _load_candidates(request)
    try:
        with between_layers(sides.model, request.between):
            card = _measure_card(request, sides, budget)
    finally:
        sides.close()
    card = card.model_copy(
        update={"left_out": request.left_out, "seconds": round(time.monotonic() - started, 1)}
    )
    return card.model_copy(update={"verdict": judge(card, request.job.spec.request.recipe)})


def measure_base(job: PreparedJob, run: RunContext, then: str) -> BaseLosses:
    """Measure the untrained model as it is served; `then` says in the phase how the run goes on."""
    run.enter(Phase(name="base model", detail=f"loading {job.base.name}"))
    model = load_serving_model(job.base, job.spec.serving_precision)
    run.enter(
        Phase(name="measuring the base", detail=f"{len(job.data.heldout)} held-out replies{then}")
    )
    with between_layers(model, run.between):
        losses = BaseLosses(
            *(
                measure_token_losses(model, samples, run.between)
                for samples in (job.data.heldout, job.data.general)
            )
        )
    del model
    release_memory()
    return losses


def evaluate_trained(
    job: PreparedJob,
    adapter: Path,
    run: RunContext,
    targets: ComparisonTargets,
    base_losses: BaseLosses,
    history: Sequence[StepEvent],
    training_s: float,
) -> ScoreCard:
    """Evaluate a run's adapter, read back from its folder and served as the engine does. Raises as
    `evaluate_version`.

    Time in which the run is paused does not count.
    """
    card = evaluate_version(
        EvaluationRequest(
            job,
            Candidate(job.spec.version, adapter, is_sealed=False),
            training_s,
            targets,
            run.card,
            base_losses,
            lambda text: run.enter(Phase(name="measuring the adapter", detail=text)),
            run.between,
            training_losses(history),
            lambda: time.monotonic() - run.hold.waited_s,
        )
    )
    release_memory()
    return card


def _measure_card(request: EvaluationRequest, sides: Candidates, budget: TimeBudget) -> ScoreCard:
    data = request.job.data
    _begin(request, f"{len(data.heldout)} held-out replies")
    known = {BASE: request.known.heldout} if request.known else {}
    heldout = paired_losses(sides.use, sides.names, data.heldout, None, request.between, known)
    require_finite_loss(
        heldout.means()[NEW], "the held-out replies, with the new adapter,", request.job.recipe
    )
    end_tokens = len(Renderer(sides.tokenizer).end_ids)
    _begin(request, "general dialogue")
    known = {BASE: request.known.general} if request.known else {}
    limit = budget.part(DIALOGUE_TIME_SHARE) if request.extent == "quick" else None
    dialogue = paired_losses(sides.use, sides.names, data.general, limit, request.between, known)
    card = ScoreCard(
        persona=request.job.spec.request.persona,
        version=request.new.version,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model_hash=fingerprint(request.job.base),
        precision=sides.precision,
        quick=request.extent == "quick",
        seconds=0,
        seeds=GENERATION_SEEDS,
        adapters={side: sides.stamp(side) for side in sides.names},
        heldout=heldout_section(heldout, data.heldout_prompt_replies, end_tokens),
        general=general_section(dialogue, data),
        learned=data_checks_section(data, request.job.recipe, request.losses),
        heard=_member_feedback(
            request.compare.heard, sides.stamp(LIVE) if LIVE in sides.names else None
        ),
    )
    if request.extent == "losses":
        request.left_out.update(dict.fromkeys(SECTIONS_BEYOND_LOSSES, LOSSES_ONLY_REASON))
    else:
        card = _add_sections(card, request, sides, heldout, dialogue, budget)
    return card.model_copy(update={"base_is_base": sides.base_is_base()})


def _begin(request: EvaluationRequest, what: str) -> None:
    """Report the next section and release memory: freed blocks do not fit the next section's
    batches.
    """
    release_memory()
    request.tell(what)


def _member_feedback(
    feedback: MemberFeedback | None, live: AdapterStamp | None
) -> MemberFeedback | None:
    """Return members' feedback if it compares with the version that is live now."""
    return feedback if feedback and feedback.against == (live.version if live else BASE) else None


def _load_candidates(request: EvaluationRequest) -> Candidates:
    """Load base, live and new version on one model; an incompatible live version is listed as left
    out.
    """
    job = request.job
    live = request.compare.live
    prompt = job.data.heldout[0]
    probe = prompt.ids[: prompt.mask.index(True)]
    precision = job.spec.serving_precision
    speaks = request.extent != "losses"
    sides = Candidates.load(job.base, job.tokenizer, precision, probe, speaks=speaks)
    if live:
        try:
            sides.add(LIVE, Candidate.sealed(Path(live)))
        except UnderstudyError as error:
            request.left_out[LIVE] = error.message
    else:
        request.left_out[LIVE] = "No version is live: the base model is."
    sides.add(NEW, request.new)
    return sides


def _add_sections(
    card: ScoreCard,
    request: EvaluationRequest,
    sides: Candidates,
    heldout: PairedLosses[Side],
    dialogue: PairedLosses[Side],
    budget: TimeBudget,
) -> ScoreCard:
    """Add the sections beyond losses to the card."""
    data = request.job.data
    between = request.between
    _begin(request, "instruction replies")
    instructions = instruction_losses(
        sides, data.language, budget.part(INSTRUCTIONS_TIME_SHARE), between
    )
    _begin(request, "trained replies")
    end_tokens = len(Renderer(sides.tokenizer).end_ids)
    limit = budget.part(MEMORISATION_TIME_SHARE)
    memorised = memorisation_section(sides, data, heldout.means(), end_tokens, limit, between)
    neighbours, missing = load_other_personas(request.job, request.compare.neighbours)
    separation = _separation(
        request, sides, neighbours, missing, budget.part(SEPARATION_TIME_SHARE)
    )
    others = {it.persona: it.data for it in neighbours}
    release_memory()
    sense_s = min(MAX_SENSE_S, budget.seconds)
    spoken = measure_replies(
        sides, request.job, budget, GENERATION_SEEDS, request.tell, others, between, sense_s
    )
    request.left_out.update(spoken.left_out)
    sections = {
        "general": general_section(dialogue, data, instructions),
        "separation": separation,
        "memorised": add_reply_pii(memorised, data, spoken.replies, sides.tokenizer),
    }
    generated = {
        name: getattr(spoken, name) for name in ("voice", "facts", "text", "safety", "side_by_side")
    }
    return card.model_copy(update={**sections, **generated, **spoken.sense})


def _separation(
    request: EvaluationRequest,
    sides: Candidates,
    neighbours: Sequence[OtherPersona],
    missing: Sequence[str],
    budget: TimeBudget,
) -> Separation | None:
    """Measure the separation section; return None and record the reason if it is left out."""
    persona = request.job.spec.request.persona
    if persona is None or not neighbours:
        reason = " ".join([NO_OTHER_PERSONA, *missing]) if persona else "The adapter is nobody's."
        request.left_out["separation"] = reason
        return None
    _begin(request, f"{len(neighbours) + 1} personas' replies under each other's adapters")
    return separation_section(sides, persona, request.job.data, neighbours, budget, request.between)
