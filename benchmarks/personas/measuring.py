"""Measures a persona trained in one way, by the functions of the score card."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from benchmarks.personas.cells import AskedReply, Cell
from benchmarks.personas.subjects import Subject
from personas.cli_common import LogProgress
from personas.prompt.renderer import Renderer
from personas.schemas.scorecard import HELDOUT_TASK, Interval
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.evaluate.evaluate_version import GENERATION_SEEDS
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    fact_prompts,
    heldout_prompts,
    reworded_prompts,
)
from trainer.evaluate.generation.lore_facts import measure_lore
from trainer.evaluate.generation.reply_generator import ReplyGenerator, served_sampling
from trainer.evaluate.generation.reply_tasks import (
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    select_replies,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs, SenseLimits
from trainer.evaluate.generation.talks import TalkReply, TalkRun, measure_talks
from trainer.evaluate.generation.voice_sections import (
    VoiceJudge,
    measure_pressure,
    measure_style,
    pressure_prompts,
)
from trainer.evaluate.loss_sections import general_section
from trainer.evaluate.measurement_cache import MeasurementCache
from trainer.evaluate.paired_losses import paired_losses
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.job import PreparedJob

UNLIMITED = TimeBudget(math.inf)


@dataclass(frozen=True)
class Extent:
    """How much is asked: the seeds of replies, and the limits of pressure and talks."""

    seeds: tuple[int, ...]
    limits: SenseLimits


FULL = Extent(GENERATION_SEEDS, SenseLimits())
QUICK = Extent(GENERATION_SEEDS[:1], SenseLimits(pressure=10, talks=1, probes=4, questions=2))


@dataclass(frozen=True)
class Measuring:
    """Measures cells; `cache` has what an interrupted measuring has generated. `between` is called
    after each token and may raise to stop.
    """

    extent: Extent
    cache: MeasurementCache
    report: Callable[[str], None] = lambda text: None
    between: Callable[[], None] = lambda: None

    def measure(self, cell: Cell, subject: Subject, job: PreparedJob, adapter: Path | None) -> Cell:
        """Return the cell with all that is measured of the adapter that `job` has trained (None: of
        the base model). Raises `UnderstudyError`.
        """
        started = time.monotonic()
        if adapter:
            subject.require_untrained(job.data)
        prompt = subject.data.heldout[0]
        sides = Candidates.load(
            job.base,
            job.tokenizer,
            job.spec.serving_precision,
            prompt.ids[: prompt.mask.index(True)],
            cache=self.cache,
        )
        try:
            if adapter:
                sides.add(NEW, Candidate.sealed(adapter))
            self.report("general dialogue")
            loss, change = self._general_loss(sides, job)
            measured = self._measure_replies(cell, subject, sides)
        finally:
            sides.close()
        seconds = round(time.monotonic() - started, 1)
        return replace(measured, general_loss=loss, general_change=change, measuring_s=seconds)

    def _general_loss(self, sides: Candidates, job: PreparedJob) -> tuple[float, Interval | None]:
        """Return the loss on general dialogue in nats a token, and its change from the base's."""
        data = job.data
        losses = paired_losses(
            sides.use, sides.names, data.general, between=self.between, stored=sides.known_losses
        )
        change = None
        if NEW in sides.names:
            change = general_section(losses, data).dialogue_change
        return losses.means()[sides.names[-1]], change

    def _measure_replies(self, cell: Cell, subject: Subject, sides: Candidates) -> Cell:
        inputs = self._inputs(subject, sides)
        builder = inputs.builder
        seeds = self.extent.seeds
        questions = subject.questions
        prompts = [
            *heldout_prompts(builder, subject.data, seeds),
            *fact_prompts(builder, questions),
            *reworded_prompts(builder, questions),
            *pressure_prompts(builder, self.extent.limits.pressure, seeds),
        ]
        progress = LogProgress()

        def after_token(done: int, total: int) -> None:
            self.between()
            progress.update(f"{done:,} of {total:,} replies")

        self.report("replies")
        answers = inputs.generator.answers(prompts, UNLIMITED, after_token)
        talks = TalkRun(inputs, UNLIMITED).replies()
        self.report("the replies are judged")
        decode = builder.renderer.tokenizer.decode
        sections = [
            measure_lore(questions, answers, (NEW,), decode),
            measure_voice_by_fold(subject, inputs, answers, talks),
        ]
        values: dict[str, list[ReplyValue]] = {}
        ceiling: dict[str, list[ReplyValue]] = {}
        floor: dict[str, list[ReplyValue]] = {}
        for section in filter(None, sections):
            for measure, by_side in section.values.items():
                values[measure] = mean_by_reply(by_side[NEW])
            for measure, of_texts in section.ceiling.items():
                ceiling[measure] = mean_by_reply(of_texts)
            for measure, of_texts in section.floor.items():
                floor[measure] = mean_by_reply(of_texts)
        return replace(
            cell,
            values=values,
            ceiling=ceiling,
            floor=floor,
            replies=tuple(_asked_replies(answers)),
        )

    def _inputs(self, subject: Subject, sides: Candidates) -> SenseInputs:
        data = subject.data
        assert sides.parts and data.persona  # the engine is loaded; all have a persona
        renderer = Renderer(sides.tokenizer)
        sampling = served_sampling(sides.base)
        side = sides.names[-1]
        # Whatever is measured counts as the new version: the base model is one without an adapter.
        generator = ReplyGenerator(
            sides.parts,
            renderer,
            adapters={NEW: sides.ref(side)},
            seeds=self.extent.seeds,
            sampling=sampling,
            cache=self.cache,
            models={NEW: sides.model_keys[side]},
        )
        return SenseInputs(
            data=data,
            persona=data.persona,
            builder=PromptBuilder(renderer, data.persona, data.lore, sampling.max_new_tokens),
            questions=subject.questions,
            voices={},
            generator=generator,
            limits=self.extent.limits,
            report=self.report,
            between=self.between,
        )


def measure_voice_by_fold(
    subject: Subject,
    inputs: SenseInputs,
    answers: Sequence[GeneratedReply],
    talks: Sequence[TalkReply],
) -> MeasuredShares:
    """Measure all that the voice classifier judges, without a text being judged by a classifier that
    has learned it, or the real reply to the same message.

    What belongs to no exchange is judged in every fold, and has the mean of the judgements.
    """
    pairs = subject.data.heldout_prompt_replies
    merged = MeasuredShares()
    for number, (talks_of_fold, voices) in enumerate(subject.folds):
        judge = VoiceJudge(inputs.persona, voices)
        of_fold = []
        for answer in answers:
            is_heldout = answer.prompt.task == HELDOUT_TASK
            if is_heldout and pairs[answer.prompt.number].talk in talks_of_fold:
                of_fold.append(answer)
        parts = (
            measure_style(replace(inputs, voices=voices), of_fold, judge),
            measure_pressure(inputs.persona, answers, (NEW,), judge),
            measure_talks(talks, judge),
        )
        for part in filter(None, parts):
            _add_fold(merged, part, number)
    return merged


def _add_fold(merged: MeasuredShares, part: MeasuredShares, number: int) -> None:
    for measure, values in part.values.items():
        merged.add(measure, NEW, values[NEW])
    for measure, of_texts in part.floor.items():  # the same texts in each fold
        merged.floor.setdefault(measure, []).extend(of_texts)
    for measure, of_texts in part.ceiling.items():
        own = [replace(value, unit=f"fold {number}, {value.unit}") for value in of_texts]
        merged.ceiling.setdefault(measure, []).extend(own)


def mean_by_reply(values: Iterable[ReplyValue]) -> list[ReplyValue]:
    """Return one value for each reply: the mean of its values."""
    by_reply: dict[ReplyValue, list[float]] = {}
    for value in values:
        by_reply.setdefault(replace(value, value=0.0), []).append(value.value)
    return [replace(reply, value=fmean(of_reply)) for reply, of_reply in by_reply.items()]


def _asked_replies(answers: Sequence[GeneratedReply]) -> Iterable[AskedReply]:
    for answer in select_replies(answers, HELDOUT_TASK, side=NEW):
        prompt = answer.prompt
        yield AskedReply(prompt.number, answer.seed, prompt.message, answer.text)
