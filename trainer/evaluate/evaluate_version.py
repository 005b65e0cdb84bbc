"""Evaluates a version within a time budget: score card sections, then the gate's verdict."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from personas.errors import UnderstudyError
from personas.home.comparison_targets import (
    NO_COMPARISON,
    ComparisonTargets,
    read_comparison_targets,
)
from personas.home.effect_probe import write_effect_probe
from personas.models.base_model import fingerprint
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.formatting import model_label
from personas.schemas.scorecard import (
    HELDOUT_TASK,
    SAFETY_TASK,
    SENSE_SECTIONS,
    AdapterStamp,
    EvaluationExtent,
    MemberFeedback,
    ScoreCard,
    Separation,
    Side,
)
from personas.schemas.training_events import Phase
from trainer.dataset.written_replies import WRITTEN_SOURCE
from trainer.estimate.card_time import (
    FIRST_CARD_REPLIES,
    MIN_COMPLETE_CARD_S,
    card_limit_s,
    first_card_limit_s,
)
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidate, Candidates
from trainer.evaluate.card_outlook import (
    FIRST_REPLIES_SAMPLES,
    REPLY_SAMPLES,
    SCORING_SAMPLES,
    CardOutlook,
)
from trainer.evaluate.data_checks import (
    data_checks_section,
    read_training_losses,
    read_training_seconds,
    training_losses,
)
from trainer.evaluate.effect_probe import measure_effect_probe
from trainer.evaluate.generation.reply_sections import measure_replies
from trainer.evaluate.loss_sections import general_section, heldout_section, instruction_losses
from trainer.evaluate.measurement_cache import NO_CACHE, MeasurementCache, model_key
from trainer.evaluate.memorisation import add_reply_pii, memorisation_section
from trainer.evaluate.paired_losses import (
    REPLIES_PER_STEP,
    PairedLosses,
    drawn_places,
    paired_losses,
)
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
from trainer.process.timeline import RunTimeline
from trainer.report.scorecard_files import read_score_card
from trainer.train.checkpoint import checkpoint_step, list_checkpoints
from trainer.train.divergence import require_finite_loss
from trainer.train.job import PreparedJob
from trainer.train.losses import TokenLosses, load_serving_model, mean_loss, measure_token_losses
from trainer.train.phase_progress import CardProgress, PhaseProgress
from trainer.train.trainer_base import between_layers
from trainer.train.training_run import Run, RunControl

log = logging.getLogger(__name__)
GENERATION_SEEDS = (0, 1, 2)
HELDOUT_TIME_SHARE = 0.25
DIALOGUE_TIME_SHARE = 0.15
INSTRUCTIONS_TIME_SHARE = 0.05
MEMORISATION_TIME_SHARE = 0.1
SEPARATION_TIME_SHARE = 0.2
"""Shares of the time that is left when each of these begins (held-out replies: on a first card only;
general dialogue: on a first or quick one); the rest is for generated replies.
"""
LOSSES_ONLY_REASON = "Only losses were measured."
SECTIONS_BEYOND_LOSSES = (
    *("separation", "voice", "facts", "replies", "memorised", "safety", "side_by_side"),
    *SENSE_SECTIONS,
)
REPLIES_TIME_SHARE = 0.55
"""Share of the time then left for generated replies; the rest is for the sections on sense."""
MAX_SENSE_S = 480.0
"""Limit of the time for the sections on sense; what is left of the rest is for generated replies."""
LATER_REASON = "It is measured once the version is ready."
NO_TIME_REASON = "There was no time for it: it is measured once the version is ready."
FIRST_CARD_TASKS = (HELDOUT_TASK, SAFETY_TASK)
"""Tasks whose replies a first card has."""
FIRST_CARD_PROMPTS = 66
"""Prompts of these tasks, where there are enough held-out replies."""


@dataclass(frozen=True)
class BaseLosses:
    """Losses of the base model measured earlier, on held-out replies and general dialogue: on all
    of both, or on those of a first card.
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

    The version's effect probe is written to `probe_folder`, if there is one. `training_s` is the
    evaluation's time limit, by default its training time. `losses` are the training losses by
    step. `tell` reports progress, `expect` the seconds that the card still takes, and `between`
    runs between two layers or tokens; each may raise to cancel. `clock` measures the time budget.
    `cache` has measurements of earlier evaluations.
    """

    job: PreparedJob
    new: Candidate
    training_s: float
    compare: ComparisonTargets = NO_COMPARISON
    extent: EvaluationExtent = "full"
    probe_folder: Path | None = None
    known: BaseLosses | None = None
    tell: Callable[[str], None] = lambda text: None
    expect: Callable[[float], None] = lambda left_s: None
    between: Callable[[], None] = lambda: None
    losses: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic
    cache: MeasurementCache = NO_CACHE


def measure_base(run: Run) -> BaseLosses:
    """Return the losses of a run's untrained model as it is served: those that an earlier run has
    measured, and the others measured now.
    """
    job = run.job
    control = run.control
    cache = _measurement_cache(control)
    data = job.data
    most = FIRST_CARD_REPLIES if ends_with_first_card(run) else None
    heldout = [data.heldout[place] for place in drawn_places(len(data.heldout), most)]
    general = [data.general[place] for place in drawn_places(len(data.general), most)]
    samples = (*heldout, *general)
    # By the precision that is asked for: the model is loaded only where something is unknown.
    key = model_key(fingerprint(job.base), "", job.spec.serving_precision)
    known = cache.losses(key, samples)
    missing = [place for place in range(len(samples)) if place not in known]
    control.timeline.leave_out("measuring the base", 1 - len(missing) / max(1, len(samples)))
    detail = f"{len(heldout)} held-out replies"
    if not missing:
        detail += ", known from an earlier run"
    checkpoints = list_checkpoints(run.checkpoints)
    if checkpoints:
        detail += f", then on from step {checkpoint_step(checkpoints[0])}"
    loading = f"loading {model_label(job.base.name)}" if missing else "its losses are known"
    control.enter(Phase(name="base model", detail=loading))
    if missing:
        model = load_serving_model(job.base, job.spec.serving_precision)
        chosen = [samples[place] for place in missing]
        with between_layers(model, control.between):
            measured = _measure_with_progress(control, detail, model, chosen)
        cache.add_losses(key, chosen, measured)
        known.update(zip(missing, measured, strict=True))
        del model
        release_memory()
    else:
        control.enter(Phase(name="measuring the base", detail=detail))
    losses = [known[place] for place in range(len(samples))]
    return BaseLosses(heldout=losses[: len(heldout)], general=losses[len(heldout) :])


def _measure_with_progress(
    control: RunControl, detail: str, model: Any, samples: Sequence[TokenizedSample]
) -> list[TokenLosses]:
    tokens = sum(len(sample.ids) for sample in samples)
    progress = PhaseProgress(control, "measuring the base", detail, tokens)
    done = 0

    def report(measured: int) -> None:
        nonlocal done
        done += measured
        progress.update(done)

    return measure_token_losses(model, samples, control.between, report=report)


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

    Time in which the run is paused does not count. A recipe with a deadline gets a first card, of
    what the verdict rests on.
    """
    job = run.job
    control = run.control
    extent = control.card
    limit_s = training_s
    known: BaseLosses | None = base_losses
    if ends_with_first_card(run):
        extent = "first"
        known = None  # of those that are drawn, they are in the cache
        limit_s = first_card_limit_s(
            run.recipe.card_deadline_minutes,
            control.worked_s,
            slowness=control.timeline.left.card_slowness,
        )
    progress = CardProgress(
        control, "measuring the adapter", f"loading {model_label(job.base.name)}", 0.0
    )
    if extent in ("full", "quick"):
        progress.expect(card_limit_s(extent, limit_s))
    request = EvaluationRequest(
        job=job,
        new=Candidate(job.spec.version, adapter, is_sealed=False),
        training_s=limit_s,
        compare=read_comparison_targets(run.folder),
        extent=extent,
        probe_folder=adapter,
        known=known,
        tell=progress.describe,
        expect=progress.expect,
        between=progress.between,
        losses=training_losses(history),
        clock=lambda: time.monotonic() - control.pause.waited_s,
        cache=_measurement_cache(control),
    )
    card = evaluate_version(request)
    release_memory()
    return card


def evaluate_again(job: PreparedJob, folder: Path, adapter: Path, control: RunControl) -> ScoreCard:
    """Evaluate a sealed adapter of a job's folder once more, with all sections. Raises as
    `evaluate_version`.

    What the first card measured is taken from the cache.
    """
    new = Candidate.sealed(adapter)
    limit_s = max(read_training_seconds(adapter), MIN_COMPLETE_CARD_S)
    # The version is ready: this is no part of the run that made it.
    control = replace(control, timeline=RunTimeline({"measuring the adapter": limit_s}))
    progress = CardProgress(control, "measuring the adapter", "the rest of the score card", limit_s)
    progress.expect(limit_s)
    return evaluate_version(
        EvaluationRequest(
            job=job,
            new=new,
            training_s=limit_s,
            compare=read_comparison_targets(folder),
            tell=progress.describe,
            expect=progress.expect,
            between=progress.between,
            losses=read_training_losses(adapter),
            clock=lambda: time.monotonic() - control.pause.waited_s,
            cache=_measurement_cache(control),
        )
    )


def ends_with_first_card(run: Run) -> bool:
    """Report whether a run has a deadline, and so a first card."""
    return run.control.card == "full" and run.recipe.card_deadline_minutes > 0


def _measurement_cache(control: RunControl) -> MeasurementCache:
    return MeasurementCache.at_home(control.home) if control.home else NO_CACHE


def evaluate_version(request: EvaluationRequest) -> ScoreCard:
    """Evaluate and judge a version. Raises `UnderstudyError` if it cannot be compared; other
    failures are left out.
    """
    started = time.monotonic()
    budget = TimeBudget(card_limit_s(request.extent, request.training_s), request.clock)
    left_out: dict[str, str] = {}
    sides = _load_candidates(request, left_out)
    try:
        with between_layers(sides.model, request.between):
            outlook = CardOutlook(budget, request.expect)
            card = _VersionEvaluation(request, sides, budget, outlook, left_out).measure()
            if request.probe_folder and sides.parts:  # of losses alone, nothing speaks
                outlook.tell(0.0)
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
        cache=request.cache,
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
    outlook: CardOutlook
    left_out: dict[str, str]

    def measure(self) -> ScoreCard:
        """Measure the losses, and with them the other sections unless only losses are requested."""
        request = self.request
        data = request.job.data
        known = request.known
        is_first = request.extent == "first"
        is_quick = is_first or request.extent == "quick"
        self._begin(f"{self._wanted(data.heldout)} held-out replies")
        began_s = self.budget.clock()
        # Of a first card some, of others all, whatever the time: the verdict rests on them.
        heldout = self._losses(
            data.heldout,
            budget=self.budget.part(HELDOUT_TIME_SHARE) if is_first else None,
            known=known.heldout if known else None,
        )
        self.outlook.learn(heldout.computed, self.budget.clock() - began_s)
        new_loss = heldout.means()[NEW]
        require_finite_loss(
            new_loss, "the held-out replies, with the new adapter,", request.job.recipe
        )
        self._begin("general dialogue", self._wanted(data.general) + self._samples_beyond_losses)
        dialogue = self._losses(
            data.general,
            budget=self.budget.part(DIALOGUE_TIME_SHARE) if is_quick else None,
            known=known.general if known else None,
        )
        self._note_cut("held-out replies", len(heldout.places), self._wanted(data.heldout))
        self._note_cut("general dialogue", len(dialogue.places), self._wanted(data.general))
        stamps = {side: self.sides.stamp(side) for side in self.sides.names}
        card = ScoreCard(
            persona=request.job.spec.request.persona,
            persona_name=data.persona.name if data.persona else "",
            version=request.new.version,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            base_model_hash=fingerprint(request.job.base),
            precision=self.sides.precision,
            prompt_card=request.job.card,
            quick=is_quick,
            pending=request.extent == "first",
            seconds=0,
            seeds=self._seeds,
            adapters=stamps,
            heldout=heldout_section(
                heldout, heldout.chosen(data.heldout_prompt_replies), self._end_tokens
            ),
            general=general_section(dialogue, data),
            learned=data_checks_section(
                data,
                request.job.recipe,
                request.losses,
                written_by=_written_by(request.job),
                live_had_people=learned_from_people(request.compare.live),
            ),
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
        is_first = request.extent == "first"
        several = REPLIES_PER_STEP * len(self.sides.names)
        ahead = self._samples_beyond_losses
        # What the verdict needs least is left out first.
        instructions = None
        if not is_first or self.outlook.has_time_for(2 * several + FIRST_REPLIES_SAMPLES):
            self._begin("instruction replies", ahead)
            instructions = instruction_losses(
                self.sides,
                data.language,
                self.budget.part(INSTRUCTIONS_TIME_SHARE),
                request.between,
            )
        else:
            self.left_out["instructions"] = NO_TIME_REASON
        memorised = None
        if not is_first or self.outlook.has_time_for(several + FIRST_REPLIES_SAMPLES):
            self._begin("trained replies", ahead - several)
            memorised = memorisation_section(
                self.sides,
                data,
                heldout=heldout.means(),
                end_tokens=self._end_tokens,
                budget=self.budget.part(MEMORISATION_TIME_SHARE),
                between=request.between,
            )
        else:
            self.left_out["memorised"] = NO_TIME_REASON
        neighbours, missing = load_other_personas(request.job, request.compare.neighbours)
        separation = None
        if is_first:
            later = ("separation", "facts", *SENSE_SECTIONS)
            self.left_out.update(dict.fromkeys(later, LATER_REASON))
        else:
            separation = self._separation(neighbours, missing)
        card = card.model_copy(
            update={
                "general": general_section(dialogue, data, instructions),
                "separation": separation,
                "memorised": memorised,
            }
        )
        if is_first and not self.outlook.has_time_for(FIRST_REPLIES_SAMPLES):
            replies = ("voice", "replies", "safety", "side_by_side")
            self.left_out.update(dict.fromkeys(replies, NO_TIME_REASON))
            return card
        # Generated replies come last: they take the time that the other sections have left.
        self._begin("replies", ahead - 2 * several)
        spoken = measure_replies(
            self.sides,
            request.job,
            self._replies_budget(),
            self._seeds,
            report=request.tell,
            outlook=self.outlook,
            others={neighbour.persona: neighbour.data for neighbour in neighbours},
            between=request.between,
            tasks=FIRST_CARD_TASKS if is_first else (),
            sense=None if is_first else self.budget,
        )
        for name, reason in spoken.left_out.items():
            self.left_out.setdefault(name, reason)
        if memorised:
            memorised = add_reply_pii(memorised, data, spoken.replies, self.sides.tokenizer)
        sections = {
            "memorised": memorised,
            "voice": spoken.voice,
            "facts": spoken.facts,
            "replies": spoken.counts,
            "safety": spoken.safety,
            "side_by_side": spoken.side_by_side,
        }
        return card.model_copy(update={**sections, **spoken.sense})

    @property
    def _samples_beyond_losses(self) -> int:
        """What the sections of a first card beyond its losses take: as long as the losses of so many
        replies, if there is time.
        """
        sides = len(self.sides.names)
        replies = FIRST_CARD_PROMPTS * sides * REPLY_SAMPLES + SCORING_SAMPLES
        return 2 * REPLIES_PER_STEP * sides + replies

    def _wanted(self, samples: Sequence[TokenizedSample]) -> int:
        """Count the samples that are measured if there is time."""
        most = FIRST_CARD_REPLIES if self.request.extent == "first" else len(samples)
        return min(most, len(samples))

    def _note_cut(self, what: str, measured: int, wanted: int) -> None:
        if measured < wanted:
            self.left_out[what] = (
                f"{measured} of {wanted} were measured: there was no time for more."
            )

    @property
    def _seeds(self) -> tuple[int, ...]:
        return GENERATION_SEEDS[:1] if self.request.extent == "first" else GENERATION_SEEDS

    def _replies_budget(self) -> TimeBudget:
        """Return the time for generated replies; the rest of the card's is for sense."""
        if self.request.extent == "first":
            return self.budget
        left_s = max(self.budget.left, 1e-9)
        return self.budget.part(max(REPLIES_TIME_SHARE, 1 - MAX_SENSE_S / left_s))

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

    def _begin(self, what: str, ahead: float = 0.0) -> None:
        """Report the next section and release memory: freed blocks do not fit the next section's
        batches. What is `ahead` of a first card takes as long as the losses of so many replies.
        """
        release_memory()
        if self.request.extent == "first":
            self.outlook.tell_samples(ahead)
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
            stored=self.sides.known_losses,
            most=FIRST_CARD_REPLIES if self.request.extent == "first" else None,
        )

    @property
    def _end_tokens(self) -> int:
        return len(Renderer(self.sides.tokenizer).end_ids)


def _written_by(job: PreparedJob) -> str:
    """Return who wrote every reply of the persona's that is trained or held out; empty where people
    wrote some of them.
    """
    pairs = (*job.data.train_prompt_replies, *job.data.heldout_prompt_replies)
    own = sum(pair.by_persona for pair in pairs)
    if job.written is None or job.data.sources.get(WRITTEN_SOURCE, 0) < own:
        return ""
    return model_label(job.written.teacher)


def learned_from_people(live: str | None) -> bool:
    """Report whether a live version, if there is one, learned from people's replies, as far as its
    score card says.
    """
    if live is None:
        return False
    card = read_score_card(Path(live))
    return card is None or card.learned is None or not card.learned.written_by


def _member_feedback(
    feedback: MemberFeedback | None, live: AdapterStamp | None
) -> MemberFeedback | None:
    """Return members' feedback if it compares with the version that is live now."""
    against = live.version if live else BASE
    if feedback is None or feedback.against != against:
        return None
    return feedback
