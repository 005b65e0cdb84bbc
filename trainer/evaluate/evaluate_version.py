"""Evaluates a version within a time budget: score card sections, then the gate's verdict."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import UnderstudyError
from personas.home.comparison_targets import (
    NO_COMPARISON,
    ComparisonTargets,
    read_comparison_targets,
)
from personas.home.effect_probe import write_effect_probe
from personas.models.base_model import fingerprint
from personas.prompt.renderer import Renderer, TokenizedSample
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
from trainer.evaluate.data_checks import data_checks_section, training_losses
from trainer.evaluate.effect_probe import measure_effect_probe
from trainer.evaluate.generation.reply_sections import measure_replies
from trainer.evaluate.loss_sections import general_section, heldout_section, instruction_losses
from trainer.evaluate.memorisation import add_reply_pii, memorisation_section
from trainer.evaluate.paired_losses import PairedLosses, paired_losses
from trainer.evaluate.persona_separation import (
    NO_OTHER_PERSONA,
    OtherPersona,
    load_other_personas,
    separation_section,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.gate.verdict import judge
from trainer.machine import release_memory
from trainer.process.events import StepEvent
from trainer.train.checkpoint import checkpoint_step, list_checkpoints
from trainer.train.divergence import require_finite_loss
from trainer.train.job import PreparedJob
from trainer.train.losses import TokenLosses, load_serving_model, mean_loss, measure_token_losses
from trainer.train.trainer_base import between_layers
from trainer.train.training_run import Run

log = logging.getLogger(__name__)
QUICK_TIME_SHARE = 1 / 5
GENERATION_SEEDS = (0, 1, 2)
DIALOGUE_TIME_SHARE = 0.15
INSTRUCTIONS_TIME_SHARE = 0.05
MEMORISATION_TIME_SHARE = 0.1
SEPARATION_TIME_SHARE = 0.2
"""Shares of the time that is left when each of these begins (general dialogue: on a quick card
only); the rest is for generated replies.
"""
LOSSES_ONLY_REASON = "Only losses were measured."
SECTIONS_BEYOND_LOSSES = (
    *("separation", "voice", "facts", "text", "memorised", "safety", "side_by_side"),
    *SENSE_SECTIONS,
)
MAX_SENSE_S = 480.0
"""Limit of the time for the sections on sense, which comes on top of the card's; they take no longer
than the rest of the card either.
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
        heldout = mean_loss([losses.whole for losses in self.heldout])
        general = mean_loss([losses.whole for losses in self.general])
        return heldout, general


@dataclass(frozen=True)
class EvaluationRequest:
    """A request for a score card of `new`, the adapter trained by `job`, compared with the
    `compare` targets.

    The version's effect probe is written to `probe_folder`, if there is one. `training_s` is its
    training time, which is also the evaluation's time limit. `losses` are the training losses by
    step. `tell` reports progress and `between` runs between two layers or tokens; either may raise
    to cancel. `clock` measures the time budget.
    """

    job: PreparedJob
    new: Candidate
    training_s: float
    compare: ComparisonTargets = NO_COMPARISON
    extent: EvaluationExtent = "full"
    probe_folder: Path | None = None
    known: BaseLosses | None = None
    tell: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None
    losses: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic


def measure_base(run: Run) -> BaseLosses:
    """Measure the untrained model of a run as it is served."""
    job = run.job
    control = run.control
    control.enter(Phase(name="base model", detail=f"loading {job.base.name}"))
    model = load_serving_model(job.base, job.spec.serving_precision)
    detail = f"{len(job.data.heldout)} held-out replies"
    checkpoints = list_checkpoints(run.checkpoints)
    if checkpoints:
        detail += f", then on from step {checkpoint_step(checkpoints[0])}"
    control.enter(Phase(name="measuring the base", detail=detail))
    with between_layers(model, control.between):
        losses = BaseLosses(
            heldout=measure_token_losses(model, job.data.heldout, control.between),
            general=measure_token_losses(model, job.data.general, control.between),
        )
    del model
    release_memory()
    return losses


def evaluate_trained(
    run: Run,
    adapter: Path,
    base_losses: BaseLosses,
    *,
    history: Sequence[StepEvent],
    training_s: float,
) -> ScoreCard:
    """Evaluate a run's adapter, read back from its folder and served as the engine does. Raises as
    `evaluate_version`.

    Time in which the run is paused does not count.
    """
    job = run.job
    control = run.control
    request = EvaluationRequest(
        job=job,
        new=Candidate(job.spec.version, adapter, is_sealed=False),
        training_s=training_s,
        compare=read_comparison_targets(run.folder),
        extent=control.card,
        probe_folder=adapter,
        known=base_losses,
        tell=lambda text: control.enter(Phase(name="measuring the adapter", detail=text)),
        between=control.between,
        losses=training_losses(history),
        clock=lambda: time.monotonic() - control.pause.waited_s,
    )
    card = evaluate_version(request)
    release_memory()
    return card


def evaluate_version(request: EvaluationRequest) -> ScoreCard:
    """Evaluate and judge a version. Raises `UnderstudyError` if it cannot be compared; other
    failures are left out.
    """
    started = time.monotonic()
    share = QUICK_TIME_SHARE if request.extent == "quick" else 1
    budget = TimeBudget(request.training_s * share, request.clock)
    left_out: dict[str, str] = {}
    sides = _load_candidates(request, left_out)
    try:
        with between_layers(sides.model, request.between):
            card = _VersionEvaluation(request, sides, budget, left_out).measure()
            if request.probe_folder and sides.parts:  # of losses alone, nothing speaks
                _probe_effect(request, sides, request.probe_folder)
    finally:
        sides.close()
    seconds = round(time.monotonic() - started, 1)
    card = card.model_copy(update={"left_out": left_out, "seconds": seconds})
    return card.model_copy(update={"verdict": judge(card, request.job.spec.request.recipe)})


def _load_candidates(request: EvaluationRequest, left_out: dict[str, str]) -> Candidates:
    """Load base, live and new version on one model; an incompatible live version is listed as left
    out.
    """
    job = request.job
    prompt = job.data.heldout[0]
    sides = Candidates.load(
        job.base,
        job.tokenizer,
        job.spec.serving_precision,
        probe=prompt.ids[: prompt.mask.index(True)],
        speaks=request.extent != "losses",
    )
    if request.compare.live:
        try:
            sides.add(LIVE, Candidate.sealed(Path(request.compare.live)))
        except UnderstudyError as error:
            left_out[LIVE] = error.message
    else:
        left_out[LIVE] = "No version is live: the base model is."
    sides.add(NEW, request.new)
    return sides


def _probe_effect(request: EvaluationRequest, sides: Candidates, folder: Path) -> None:
    """Write the effect probe; a version without one is served unchecked, which the log says."""
    request.tell("the effect that engines have to show")
    release_memory()
    try:
        probe = measure_effect_probe(sides, request.job)
    except (UnderstudyError, ArithmeticError) as error:
        log.warning("the version has no effect probe: %s", error)
    else:
        write_effect_probe(folder, probe)


@dataclass
class _VersionEvaluation:
    """Measures a score card section by section; `left_out` collects the reasons for missing ones."""

    request: EvaluationRequest
    sides: Candidates
    budget: TimeBudget
    left_out: dict[str, str]

    def measure(self) -> ScoreCard:
        """Measure the losses, and with them the other sections unless only losses are requested."""
        request = self.request
        data = request.job.data
        known = request.known
        is_quick = request.extent == "quick"
        self._begin(f"{len(data.heldout)} held-out replies")
        # All of them, whatever the time: the verdict rests on them.
        heldout = self._losses(data.heldout, known=known.heldout if known else None)
        new_loss = heldout.means()[NEW]
        require_finite_loss(
            new_loss, "the held-out replies, with the new adapter,", request.job.recipe
        )
        self._begin("general dialogue")
        dialogue = self._losses(
            data.general,
            budget=self.budget.part(DIALOGUE_TIME_SHARE) if is_quick else None,
            known=known.general if known else None,
        )
        stamps = {side: self.sides.stamp(side) for side in self.sides.names}
        card = ScoreCard(
            persona=request.job.spec.request.persona,
            version=request.new.version,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            base_model_hash=fingerprint(request.job.base),
            precision=self.sides.precision,
            quick=is_quick,
            seconds=0,
            seeds=GENERATION_SEEDS,
            adapters=stamps,
            heldout=heldout_section(heldout, data.heldout_prompt_replies, self._end_tokens),
            general=general_section(dialogue, data),
            learned=data_checks_section(data, request.job.recipe, request.losses),
            heard=_member_feedback(request.compare.heard, stamps.get(LIVE)),
        )
        if request.extent == "losses":
            self.left_out.update(dict.fromkeys(SECTIONS_BEYOND_LOSSES, LOSSES_ONLY_REASON))
        else:
            card = self.add_sections(card, heldout, dialogue)
        return card.model_copy(update={"base_is_base": self.sides.base_is_base()})

    def add_sections(
        self, card: ScoreCard, heldout: PairedLosses[Side], dialogue: PairedLosses[Side]
    ) -> ScoreCard:
        """Add the sections beyond losses to the card."""
        request = self.request
        data = request.job.data
        self._begin("instruction replies")
        instructions = instruction_losses(
            self.sides,
            data.language,
            self.budget.part(INSTRUCTIONS_TIME_SHARE),
            request.between,
        )
        self._begin("trained replies")
        memorised = memorisation_section(
            self.sides,
            data,
            heldout=heldout.means(),
            end_tokens=self._end_tokens,
            budget=self.budget.part(MEMORISATION_TIME_SHARE),
            between=request.between,
        )
        neighbours, missing = load_other_personas(request.job, request.compare.neighbours)
        separation = self._separation(neighbours, missing)
        # Generated replies come last: they take the time that the other sections have left.
        release_memory()
        spoken = measure_replies(
            self.sides,
            request.job,
            self.budget,
            GENERATION_SEEDS,
            report=request.tell,
            others={neighbour.persona: neighbour.data for neighbour in neighbours},
            between=request.between,
            # Time of their own, so that the sections before them keep their prompts.
            sense_s=min(MAX_SENSE_S, self.budget.seconds),
        )
        self.left_out.update(spoken.left_out)
        sections = {
            "general": general_section(dialogue, data, instructions),
            "separation": separation,
            "memorised": add_reply_pii(memorised, data, spoken.replies, self.sides.tokenizer),
            "voice": spoken.voice,
            "facts": spoken.facts,
            "text": spoken.text,
            "safety": spoken.safety,
            "side_by_side": spoken.side_by_side,
        }
        return card.model_copy(update={**sections, **spoken.sense})

    def _separation(
        self, neighbours: Sequence[OtherPersona], missing: Sequence[str]
    ) -> Separation | None:
        """Measure the separation section; return None and record the reason if it is left out."""
        budget = self.budget.part(SEPARATION_TIME_SHARE)
        persona = self.request.job.spec.request.persona
        if persona is None:
            self.left_out["separation"] = "The adapter is nobody's."
            return None
        if not neighbours:
            self.left_out["separation"] = " ".join([NO_OTHER_PERSONA, *missing])
            return None
        self._begin(f"{len(neighbours) + 1} personas' replies under each other's adapters")
        return separation_section(
            self.sides,
            persona,
            self.request.job.data,
            neighbours,
            budget=budget,
            between=self.request.between,
        )

    def _begin(self, what: str) -> None:
        """Report the next section and release memory: freed blocks do not fit the next section's
        batches.
        """
        release_memory()
        self.request.tell(what)

    def _losses(
        self,
        samples: Sequence[TokenizedSample],
        *,
        budget: TimeBudget | None = None,
        known: Sequence[TokenLosses] | None,
    ) -> PairedLosses[Side]:
        """Measure losses under all sides; `known` are those of the base model."""
        return paired_losses(
            self.sides.use,
            self.sides.names,
            samples,
            budget,
            between=self.request.between,
            known=None if known is None else {BASE: known},
        )

    @property
    def _end_tokens(self) -> int:
        return len(Renderer(self.sides.tokenizer).end_ids)


def _member_feedback(
    feedback: MemberFeedback | None, live: AdapterStamp | None
) -> MemberFeedback | None:
    """Return members' feedback if it compares with the version that is live now."""
    against = live.version if live else BASE
    if feedback is None or feedback.against != against:
        return None
    return feedback
