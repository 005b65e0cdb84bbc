"""Quality study: measures an adapter's replies under several sampling settings and seeds, with
paired intervals.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from personas.cli_common import read_setting
from personas.errors import RequestError
from personas.home.atomic_files import lock_folder, write_private_file
from personas.models.base_model import RECOMMENDED_SAMPLING, fingerprint
from personas.prompt.renderer import PROMPT_VERSION, Renderer
from personas.schemas.chat import MAX_CANDIDATES, SamplingParams
from personas.schemas.formatting import count_of, markdown_table
from personas.schemas.scorecard import (
    BELONGS,
    HELDOUT_TASK,
    IN_CHARACTER,
    LORE_RIGHT,
    LORE_RIGHT_REWORDED,
    LORE_WRONG,
    MASKED_VOICE,
    REPETITION_AT_TURN,
    TALK_TURNS,
    VOICE,
    VOICE_AT_TURN,
    WRONG_AT_TURN,
    Interval,
)
from trainer.dataset.charts import SERIES_COLOURS, new_figure, save_figure
from trainer.evaluate.candidates import NEW, Candidate, Candidates
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
    paired_difference,
    reply_values,
    select_replies,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs
from trainer.evaluate.generation.sense_sections import measure_sense
from trainer.evaluate.generation.voice_classifier import AuthorTexts, usable_voices
from trainer.evaluate.paired_losses import TimeBudget
from trainer.train.job import PreparedJob

QUALITY_RESULTS_FOLDER = "results"
RIVALS_FOLDER = "against"
QUALITY_FILE = "quality.json"
# Part of a study's key: raise it when results change at the same settings, such as by another search
# of lore. Results of different formats are never compared.
QUALITY_FORMAT = 6
SERVED = "as served"
SAMPLING_TYPES: dict[str, Any] = {
    param.name: type(param.default)
    for param in fields(SamplingParams)
    if type(param.default) in (int, float)
}
SAMPLING_RANGES = {
    **RECOMMENDED_SAMPLING,
    "max_new_tokens": (1, 4096),
    "candidates": (1, MAX_CANDIDATES),
}
"""Settings of sampling that a study varies, with the type of their values, the least and the
largest.
"""
ENDED = "end by themselves"
COMPARED_MEASURES = (
    BELONGS,
    LORE_RIGHT,
    LORE_RIGHT_REWORDED,
    LORE_WRONG,
    VOICE,
    MASKED_VOICE,
    VOICE_AT_TURN.format(TALK_TURNS[-1]),
    WRONG_AT_TURN.format(TALK_TURNS[-1]),
    REPETITION_AT_TURN.format(TALK_TURNS[-1]),
    IN_CHARACTER,
    ENDED,
)
MeasurePoint = Callable[["QualityPoint"], "QualityResult"]


@dataclass(frozen=True)
class QualityPoint:
    """Sampling settings, as written, and a seed."""

    settings: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.settings},seed={self.seed}"

    def sampling(self, served: SamplingParams) -> SamplingParams:
        """The settings over those that the bot serves with. Raises `RequestError` for unknown
        ones.
        """
        return replace(served, **parse_sampling(self.settings))


@dataclass(frozen=True)
class QualityResult:
    """The values of a point's replies by measure, with ceilings and floors as means, and the
    seconds it took.

    `key` is the SHA-256 of all that they depend on besides: the adapter, data, lore, other voices,
    evaluation files and defaults. `tokens` is the mean length of replies to held-out prompts.
    """

    key: str
    settings: str
    seed: int
    seconds: float
    values: dict[str, list[ReplyValue]]
    ceiling: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    tokens: float = 0.0


STORED_RESULT = TypeAdapter(QualityResult)


@dataclass(frozen=True)
class QualityRow:
    """Settings with the mean of each measure over all seeds, and its difference from the first
    settings'.

    `tokens` is the mean length of a reply, `seconds` the mean time of a seed.
    """

    settings: str
    means: dict[str, Interval]
    differences: dict[str, Interval]
    tokens: float
    seconds: float

    def certain(self) -> Iterator[tuple[str, Interval]]:
        """Yield the measures whose difference is certain: its interval excludes 0."""
        for measure, difference in self.differences.items():
            if difference.low > 0 or difference.high < 0:
                yield measure, difference


def parse_sampling(text: str) -> dict[str, Any]:
    """Parse `name=value,name=value`; `SERVED` changes nothing. Raises `RequestError`."""
    settings: dict[str, Any] = {}
    for pair in text.split(",") if text != SERVED else ():
        name, _, value = (part.strip() for part in pair.partition("="))
        if name in settings:
            raise RequestError(
                f"{text!r} sets {name} twice.", "Give --try once for each value to compare."
            )
        try:
            settings[name] = SAMPLING_TYPES[name](value)
            least, largest = SAMPLING_RANGES[name]
            is_possible = least <= settings[name] <= largest
        except (KeyError, ValueError):
            is_possible = False
        if not is_possible:
            ranges = [f"{key} from {low} to {high}" for key, (low, high) in SAMPLING_RANGES.items()]
            raise RequestError(
                f"{pair!r} is no setting of sampling, or out of its range.",
                f"Write NAME=VALUE: {', '.join(ranges)}.",
            )
    return settings


def quality_points(tried: Sequence[str], runs: int) -> list[QualityPoint]:
    """Return all points, the first seed of each first. Raises `RequestError` for settings that
    cannot be tried.
    """
    combinations = {SERVED: None}  # a dict keeps the order and drops repetitions
    for text in tried:
        pairs = sorted(parse_sampling(text).items())
        written = ",".join(f"{name}={value:g}" for name, value in pairs)
        combinations[written or SERVED] = None
    return [QualityPoint(settings, seed) for seed in range(runs) for settings in combinations]


@contextmanager
def lock_study(out: Path) -> Iterator[None]:
    """Create the folder of a study and keep it to this process. Raises `RequestError` if another
    one has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out) as is_free:
        if not is_free:
            raise RequestError(
                f"Another process measures in {out}.", "Wait for it, or name another --out."
            )
        yield


def run_quality_study(
    out: Path,
    points: Sequence[QualityPoint],
    key: str,
    measure: MeasurePoint,
    report: Callable[[str], None],
) -> list[QualityResult]:
    """Measure the points that `out` has no result of; return all results. Raises `UnderstudyError`,
    `OSError`.

    Results with another `key` are refused. Those of other settings, by earlier studies with the
    same key, come last.
    """
    results: list[QualityResult] = []
    spent: list[float] = []
    for number, point in enumerate(points, 1):
        result = read_quality_result(out, point)
        if result is None:
            time_left = ""
            if spent:
                minutes = fmean(spent) * (len(points) - number + 1) / 60
                time_left = f", about {minutes:.0f} min left"
            report(f"{number} of {len(points)}: {point.name}{time_left}")
            result = measure(point)
            spent.append(result.seconds)
            file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(file, json.dumps(asdict(result)).encode() + b"\n")
        if result.key != key:
            raise RequestError(
                f"{out} has a study of another adapter, or of other data or defaults.",
                "Name another --out.",
            )
        results.append(result)
    requested = {point.settings for point in points}
    for point in _stored_points(out):
        if point.settings in requested:
            continue
        try:
            result = read_quality_result(out, point)
        except RequestError as error:
            report(f"{error.message} It is left out.")
            continue
        if result and result.key == key:
            results.append(result)
    return results


def _stored_points(out: Path) -> list[QualityPoint]:
    """List the points that have a file, by name; other files, such as copies, are no results."""
    points = []
    for file in sorted((out / QUALITY_RESULTS_FOLDER).glob("*,seed=*.json")):
        settings, _, seed = file.stem.rpartition(",seed=")
        if seed.isascii() and seed.isdecimal():
            points.append(QualityPoint(settings, int(seed)))
    return points


def read_quality_result(out: Path, point: QualityPoint) -> QualityResult | None:
    """Read a point's stored result; None if it was not measured. Raises `RequestError` if it is no
    such result.
    """
    file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
    try:
        result = STORED_RESULT.validate_json(file.read_bytes())
        values = [reply.value for replies in result.values.values() for reply in replies]
        if QualityPoint(result.settings, result.seed) != point:
            raise ValueError("it has other settings or another seed than its name")
        if not values or not all(map(math.isfinite, (*values, result.seconds, result.tokens))):
            raise ValueError("it has no values, or some that are no numbers")
        return result
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise RequestError(
            f"{file} is damaged: {cause}.", "Remove it, and it is measured again."
        ) from error


# ---------------------------------------------------------------------------------------- measuring


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
            sides=self._sides,
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
    lore = job.data.lore
    passages = [(passage.heading, passage.text) for passage in lore.passages] if lore else []
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
    files = [file.read_bytes() for file in sorted(EVALUATION_FOLDER.rglob("*")) if file.is_file()]
    encoded = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(b"\0".join((encoded, *files))).hexdigest()


# ------------------------------------------------------------------------------------- all together


def compare_settings(results: Sequence[QualityResult]) -> list[QualityRow]:
    """Return a row for each combination, pairing its replies with the first one's by prompt and
    seed.
    """
    by_settings: dict[str, list[QualityResult]] = {}
    for result in results:
        by_settings.setdefault(result.settings, []).append(result)
    first = _pool_values(next(iter(by_settings.values())))
    rows: list[QualityRow] = []
    for settings, seeds in by_settings.items():
        pooled = _pool_values(seeds)
        differences = {}
        for measure in COMPARED_MEASURES:
            if rows and measure in pooled and measure in first:
                difference = paired_difference(pooled[measure], first[measure])
                if difference:
                    differences[measure] = difference
        row = QualityRow(
            settings=settings,
            means={measure: mean_interval(values) for measure, values in pooled.items()},
            differences=differences,
            tokens=fmean(result.tokens for result in seeds),
            seconds=fmean(result.seconds for result in seeds),
        )
        rows.append(row)
    return rows


def _pool_values(results: Sequence[QualityResult]) -> dict[str, list[ReplyValue]]:
    pooled: dict[str, list[ReplyValue]] = {}
    for result in results:
        for measure, values in result.values.items():
            if values:
                pooled.setdefault(measure, []).extend(values)
    return pooled


def quality_markdown(
    persona: str, results: Sequence[QualityResult], rows: Sequence[QualityRow]
) -> str:
    """Render a line for each measure with its bounds and the results' rows, and the differences
    that are certain.
    """
    ceiling, floor = _mean_bounds(results)
    lines = []
    for measure in rows[0].means:
        bounds = [
            f"{bound[measure]:.1%}" if measure in bound else "–" for bound in (ceiling, floor)
        ]
        lines.append((measure, *bounds, *(_cell(row, measure) for row in rows)))
    lines.append(("tokens of a reply", "–", "–", *(f"{row.tokens:.1f}" for row in rows)))
    lines.append(("time of a seed", "–", "–", *(f"{row.seconds:,.0f} s" for row in rows)))
    certain = []
    for row in rows:
        for measure, difference in row.certain():
            certain.append(
                f"- {row.settings}: {measure} {difference.estimate * 100:+.1f} points "
                f"({difference.low * 100:+.1f} to {difference.high * 100:+.1f})"
            )
    seeds = len({result.seed for result in results})
    note = (
        f"Shares of replies over {count_of(seeds, 'seed')}, with 95 % intervals. * marks a "
        f"difference from {SERVED!r} that is certain: the 95 % interval of a paired bootstrap over "
        "conversations or questions excludes 0. One of twenty does so by chance. Compared are: "
        f"{'; '.join(COMPARED_MEASURES)}."
    )
    parts = [
        f"# Quality: {persona}",
        markdown_table(("measure", "ceiling", "floor", *(row.settings for row in rows)), lines),
        note,
        "## Certain differences",
        "\n".join(certain) or "None.",
    ]
    left_out = [f"- {name}: {reason}" for name, reason in _left_out(results).items()]
    if left_out:
        parts += ["## Not measured", "\n".join(left_out)]
    return "\n\n".join(parts)


def _left_out(results: Sequence[QualityResult]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for result in results:
        reasons |= result.left_out
    return reasons


def _mean_bounds(results: Sequence[QualityResult]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean ceiling and floor of each measure over the first settings' seeds."""
    first = [result for result in results if result.settings == results[0].settings]
    ceiling = _mean_of_seeds([result.ceiling for result in first])
    floor = _mean_of_seeds([result.floor for result in first])
    return ceiling, floor


def _mean_of_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = {}
    for measure in seeds[0]:
        means[measure] = fmean(bounds[measure] for bounds in seeds if measure in bounds)
    return means


def _cell(row: QualityRow, measure: str) -> str:
    if measure not in row.means:
        return "–"
    mean = row.means[measure]
    mark = "*" if measure in dict(row.certain()) else ""
    return f"{mean.estimate:.1%}{mark} ({mean.low * 100:.0f} to {mean.high * 100:.0f})"


def write_quality(out: Path, persona: str, results: Sequence[QualityResult]) -> str:
    """Write table, JSON and chart; return the table. Raises `OSError`."""
    rows = compare_settings(results)
    text = quality_markdown(persona, results, rows)
    ceiling, floor = _mean_bounds(results)
    study = {
        "persona": persona,
        "ceiling": ceiling,
        "floor": floor,
        "rows": [
            {
                "settings": row.settings,
                "tokens": row.tokens,
                "seconds": row.seconds,
                "certain": [measure for measure, _ in row.certain()],
                "means": _as_json(row.means),
                "differences": _as_json(row.differences),
            }
            for row in rows
        ],
        "left_out": _left_out(results),
    }
    write_private_file(out / QUALITY_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "quality.md", f"{text}\n".encode())
    _draw_quality(out, rows)
    return text


def _as_json(intervals: Mapping[str, Interval]) -> dict[str, object]:
    return {measure: interval.model_dump() for measure, interval in intervals.items()}


def _draw_quality(out: Path, rows: Sequence[QualityRow]) -> None:
    """Draw `quality.svg` and `.png`: each measure's mean under each combination, with its
    interval.
    """
    measures = [measure for measure in COMPARED_MEASURES if measure in rows[0].means]
    figure, axes = new_figure(height=1.2 + 0.2 * len(measures) * (len(rows) + 1))
    for place, row in enumerate(rows):
        ys = []
        means = []
        errors: tuple[list[float], list[float]] = ([], [])
        for number, measure in enumerate(measures):
            if measure in row.means:
                mean = row.means[measure]
                ys.append(number + place / (len(rows) + 1))
                means.append(mean.estimate)
                errors[0].append(mean.estimate - mean.low)
                errors[1].append(mean.high - mean.estimate)
        axes.errorbar(
            means,
            ys,
            xerr=errors,
            fmt="o",
            capsize=2,
            markersize=4,
            color=SERIES_COLOURS[place % len(SERIES_COLOURS)],
            label=row.settings,
        )
    axes.set_yticks(
        [n + (len(rows) - 1) / 2 / (len(rows) + 1) for n in range(len(measures))], measures
    )
    axes.invert_yaxis()
    axes.set(title="Quality", xlabel="share of replies", xlim=(-0.02, 1.02))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    save_figure(
        figure,
        out / "quality",
        "Shares of replies by settings; quality.md has the figures as a table",
    )
