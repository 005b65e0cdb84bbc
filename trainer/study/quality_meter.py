"""Measures the points of a quality study on one loaded model."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from personas.cli_common import read_setting
from personas.errors import RequestError
from personas.models.base_model import fingerprint
from personas.prompt.renderer import PROMPT_VERSION, Renderer
from personas.schemas.scorecard import HELDOUT_TASK
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.evaluate.generation.author_texts import AuthorTexts, usable_voices
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    fact_prompts,
    heldout_prompts,
)
from trainer.evaluate.generation.lore_facts import lore_questions
from trainer.evaluate.generation.reply_generator import ReplyGenerator, served_sampling
from trainer.evaluate.generation.reply_tasks import (
    EVALUATION_FOLDER,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    mean_interval,
    reply_values,
    select_replies,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs
from trainer.evaluate.generation.sense_sections import measure_sense
from trainer.evaluate.time_budget import TimeBudget
from trainer.study.quality import ENDED, SERVED, QualityPoint, QualityResult, run_quality_study
from trainer.train.job import PreparedJob

RIVALS_FOLDER = "against"
QUALITY_FORMAT = 7
"""Part of a study's key: raise it when results change at the same settings, such as by another search
of lore. Results of different formats are never compared.
"""


def measure_versions(
    out: Path,
    points: Sequence[QualityPoint],
    job: PreparedJob,
    adapter: Candidate,
    rivals: Sequence[Candidate],
    report: Callable[[str], None],
) -> list[QualityResult]:
    """Measure all points of an adapter, then its rivals as served, all on the job's prompts.

    A rival's results have its version as their settings. Raises `UnderstudyError`, `OSError`.
    """
    results = _measure_version(out, points, job=job, adapter=adapter, report=report)
    served = [point for point in points if point.settings == SERVED]
    for rival in rivals:
        weights = rival.stamp.weights
        label = f"{rival.version} ({weights[:8]})"
        rival_results = _measure_version(
            out / RIVALS_FOLDER / weights,
            served,
            job=job,
            adapter=rival,
            report=partial(_report_rival, report, label),
        )
        # A rival's row stands beside those of the settings: its version is its label.
        results += [replace(result, settings=label) for result in rival_results]
    return results


def _report_rival(report: Callable[[str], None], label: str, line: str) -> None:
    report(f"{label}: {line}")


def _measure_version(
    out: Path,
    points: Sequence[QualityPoint],
    *,
    job: PreparedJob,
    adapter: Candidate,
    report: Callable[[str], None],
) -> list[QualityResult]:
    meter = QualityMeter(job, adapter)
    try:
        return run_quality_study(out, points, key=meter.key, measure=meter.measure, report=report)
    finally:
        meter.close()


class QualityMeter:
    """Measures points of one adapter on one loaded model."""

    def __init__(self, job: PreparedJob, adapter: Candidate) -> None:
        """Loads the model. Raises `UnderstudyError`, also if the job trains no persona."""
        if job.data.persona is None:
            raise RequestError("The adapter is nobody's.", "A quality study is of a persona.")
        self._job = job
        self._renderer = Renderer(job.tokenizer)
        self._questions = lore_questions(job.data)
        self._voices = usable_voices(job.data, {})
        probe = job.data.heldout[0].ids
        self._sides = Candidates.load(job.base, job.tokenizer, job.spec.serving_precision, probe)
        self._sides.add(NEW, adapter)
        self.key = study_key(job, adapter, self._voices)

    def close(self) -> None:
        """Stop the engine's threads."""
        self._sides.close()

    def measure(self, point: QualityPoint) -> QualityResult:
        """Generate and measure all replies of a point."""
        started = time.monotonic()
        data = self._job.data
        assert self._sides.parts and data.persona  # checked when loading
        sampling = point.sampling(served_sampling(self._job.base))
        generator = ReplyGenerator(
            self._sides.parts,
            self._renderer,
            adapters={NEW: self._sides.ref(NEW)},
            seeds=(point.seed,),
            sampling=sampling,
        )
        builder = PromptBuilder(self._renderer, data.persona, data.lore, sampling.max_new_tokens)
        prompts = heldout_prompts(builder, data, (point.seed,))
        prompts += fact_prompts(builder, self._questions)
        unlimited = TimeBudget(math.inf)
        answers = generator.answers(prompts, unlimited)
        inputs = SenseInputs(
            data=data,
            persona=data.persona,
            builder=builder,
            questions=self._questions,
            voices=self._voices,
            generator=generator,
        )
        sections, left_out = measure_sense(inputs, answers, unlimited)
        heldout = select_replies(answers, HELDOUT_TASK, side=NEW)
        shares = [*sections.values(), self._measure_endings(heldout)]
        values: dict[str, list[ReplyValue]] = {}
        ceiling: dict[str, float] = {}
        floor: dict[str, float] = {}
        for section in shares:
            for measure, by_side in section.values.items():
                values[measure] = by_side[NEW]
            for measure, bound in section.ceiling.items():
                ceiling[measure] = mean_interval(bound).estimate
            for measure, bound in section.floor.items():
                floor[measure] = mean_interval(bound).estimate
        return QualityResult(
            key=self.key,
            settings=point.settings,
            seed=point.seed,
            seconds=round(time.monotonic() - started, 1),
            values=values,
            ceiling=ceiling,
            floor=floor,
            left_out=left_out,
            tokens=fmean(reply.tokens for reply in heldout),
        )

    def _measure_endings(self, heldout: Sequence[GeneratedReply]) -> MeasuredShares:
        """Measure how many replies to held-out prompts end by themselves, not at the limit."""
        talks = self._job.data.heldout_prompt_replies
        units = [talks[reply.prompt.number].talk for reply in heldout]
        endings = MeasuredShares()
        endings.add(ENDED, NEW, reply_values(heldout, [reply.ended for reply in heldout], units))
        return endings


def study_key(job: PreparedJob, adapter: Candidate, voices: Mapping[str, AuthorTexts]) -> str:
    """Hash all that a point depends on besides its settings and seed."""
    passages: list[tuple[str, str]] = []
    if job.data.lore:
        passages = [(passage.heading, passage.text) for passage in job.data.lore.passages]
    texts = {name: (author.trained, author.heldout) for name, author in voices.items()}
    parts = (
        QUALITY_FORMAT,
        adapter.stamp.weights,
        fingerprint(job.base),
        job.spec.serving_precision,
        PROMPT_VERSION,
        job.data.hash,
        passages,
        asdict(served_sampling(job.base)),
        read_setting("LORE_ENCODER"),
        texts,
    )
    files = []
    for file in sorted(EVALUATION_FOLDER.rglob("*")):
        if file.is_file():
            files.append(file.read_bytes())
    encoded = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(b"\0".join((encoded, *files))).hexdigest()
