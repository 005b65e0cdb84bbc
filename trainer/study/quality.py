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
    MeasuredShares,
    ReplyValue,
    mean_interval,
    paired_difference,
    reply_values,
    select_replies,
)
from trainer.evaluate.generation.sense_sections import SenseInputs, measure_sense
from trainer.evaluate.generation.voice_classifier import AuthorTexts, usable_voices
from trainer.evaluate.paired_losses import TimeBudget
from trainer.train.job import PreparedJob

QUALITY_RESULTS_FOLDER = "results"
RIVALS_FOLDER = "against"
QUALITY_FILE = "quality.json"
# Of the results; another one where they are measured otherwise, or lore or talk is found otherwise.
QUALITY_FORMAT = 6
SERVED = "as served"
SAMPLING_TYPES: dict[str, Any] = {
    it.name: type(it.default) for it in fields(SamplingParams) if type(it.default) in (int, float)
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
    *(BELONGS, LORE_RIGHT, LORE_RIGHT_REWORDED, LORE_WRONG, VOICE, MASKED_VOICE),
    *(
        measure.format(TALK_TURNS[-1])
        for measure in (VOICE_AT_TURN, WRONG_AT_TURN, REPETITION_AT_TURN)
    ),
    *(IN_CHARACTER, ENDED),
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
        for measure, it in self.differences.items():
            if it.low > 0 or it.high < 0:
                yield measure, it


def parse_sampling(text: str) -> dict[str, Any]:
    """Parse `name=value,name=value`; `SERVED` changes nothing. Raises `RequestError`."""
    found: dict[str, Any] = {}
    for pair in text.split(",") if text != SERVED else ():
        name, _, value = (part.strip() for part in pair.partition("="))
        if name in found:
            raise RequestError(
                f"{text!r} sets {name} twice.", "Give --try once for each value to compare."
            )
        try:
            found[name] = SAMPLING_TYPES[name](value)
            least, largest = SAMPLING_RANGES[name]
            is_possible = least <= found[name] <= largest
        except (KeyError, ValueError):
            is_possible = False
        if not is_possible:
            ranges = (
                f"{name} from {least} to {largest}"
                for name, (least, largest) in SAMPLING_RANGES.items()
            )
            raise RequestError(
                f"{pair!r} is no setting of sampling, or out of its range.",
                f"Write NAME=VALUE: {', '.join(ranges)}.",
            )
    return found


def quality_points(tried: Sequence[str], runs: int) -> list[QualityPoint]:
    """Return all points, the first seed of each first. Raises `RequestError` for settings that
    cannot be tried.
    """
    rows = [SERVED]
    for text in tried:
        found = parse_sampling(text)
        rows.append(
            ",".join(f"{name}={value:g}" for name, value in sorted(found.items())) or SERVED
        )
    return [
        QualityPoint(settings, seed) for seed in range(runs) for settings in dict.fromkeys(rows)
    ]


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
            left = (
                f", about {fmean(spent) * (len(points) - number + 1) / 60:.0f} min left"
                if spent
                else ""
            )
            report(f"{number} of {len(points)}: {point.name}{left}")
            result = measure(point)
            spent.append(result.seconds)
            file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(file, json.dumps(asdict(result)).encode() + b"\n")
        if result.key != key:
            what = f"{out} has a study of another adapter, or of other data or defaults."
            raise RequestError(what, "Name another --out.")
        results.append(result)
    named = {point.settings for point in points}
    for point in _stored_points(out):
        if point.settings not in named:
            try:
                stored = read_quality_result(out, point)
            except RequestError as error:
                report(f"{error.message} It is left out.")
                continue
            results += [stored] if stored and stored.key == key else []
    return results


def _stored_points(out: Path) -> list[QualityPoint]:
    """List the points that have a file, by name; other files, such as copies, are no results."""
    files = sorted((out / QUALITY_RESULTS_FOLDER).glob("*,seed=*.json"))
    named = (file.stem.rpartition(",seed=") for file in files)
    return [
        QualityPoint(settings, int(seed))
        for settings, _, seed in named
        if seed.isascii() and seed.isdecimal()
    ]


def read_quality_result(out: Path, point: QualityPoint) -> QualityResult | None:
    """Read a point's stored result; None if it was not measured. Raises `RequestError` if it is no
    such result.
    """
    file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
    try:
        result = STORED_RESULT.validate_json(file.read_bytes())
        values = [it.value for of in result.values.values() for it in of]
        if QualityPoint(result.settings, result.seed) != point:
            raise ValueError("it has other settings or another seed than its name")
        if not values or not all(map(math.isfinite, (*values, result.seconds, result.tokens))):
            raise ValueError("it has no values, or some that are no numbers")
        return result
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise RequestError(
            f"{file} is damaged: {why}.", "Remove it, and it is measured again."
        ) from error


# ------------------------------------------------------------------------------------------------
# measuring


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
    results = _measure_version(out, points, job, adapter, report)
    served = [point for point in points if point.settings == SERVED]
    for rival in rivals:
        weights = rival.stamp.weights
        named = f"{rival.version} ({weights[:8]})"

        def report_rival(text: str, named: str = named) -> None:
            report(f"{named}: {text}")

        found = _measure_version(out / RIVALS_FOLDER / weights, served, job, rival, report_rival)
        results += [replace(it, settings=named) for it in found]
    return results


def _measure_version(
    out: Path,
    points: Sequence[QualityPoint],
    job: PreparedJob,
    adapter: Candidate,
    report: Callable[[str], None],
) -> list[QualityResult]:
    meter = QualityMeter(job, adapter)
    try:
        return run_quality_study(out, points, meter.key, meter.measure, report)
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
        refs = {NEW: self._sides.ref(NEW)}
        sampling = point.sampling(served_sampling(self._job.base))
        generator = ReplyGenerator(self._sides.parts, self._renderer, refs, (point.seed,), sampling)
        builder = PromptBuilder(self._renderer, data.persona, data.lore, sampling.max_new_tokens)
        prompts = heldout_prompts(builder, data, (point.seed,)) + fact_prompts(
            builder, self._questions
        )
        unlimited = TimeBudget(math.inf)
        answers = generator.answers(prompts, unlimited)
        inputs = SenseInputs(
            data, data.persona, builder, self._questions, self._voices, self._sides, generator
        )
        sections, left_out = measure_sense(inputs, answers, unlimited)
        heldout = select_replies(answers, HELDOUT_TASK, side=NEW)
        units = [data.heldout_prompt_replies[it.prompt.number].talk for it in heldout]
        ends = MeasuredShares()
        ends.add(ENDED, NEW, reply_values(heldout, [it.ended for it in heldout], units))
        found = [*sections.values(), ends]
        return QualityResult(
            *(self.key, point.settings, point.seed, round(time.monotonic() - started, 1)),
            values={measure: by[NEW] for of in found for measure, by in of.values.items()},
            ceiling={
                measure: mean_interval(values).estimate
                for of in found
                for measure, values in of.ceiling.items()
            },
            floor={
                measure: mean_interval(values).estimate
                for of in found
                for measure, values in of.floor.items()
            },
            left_out=left_out,
            tokens=fmean(it.tokens for it in heldout),
        )


def study_key(job: PreparedJob, adapter: Candidate, voices: Mapping[str, AuthorTexts]) -> str:
    """Hash all that a point depends on besides its settings and seed."""
    passages = (
        [(passage.heading, passage.text) for passage in job.data.lore.passages]
        if job.data.lore
        else []
    )
    served = asdict(served_sampling(job.base))
    encoder = read_setting("LORE_ENCODER")
    model = (
        adapter.stamp.weights,
        fingerprint(job.base),
        job.spec.serving_precision,
        PROMPT_VERSION,
    )
    texts = {name: (known.trained, known.heldout) for name, known in voices.items()}
    rest = json.dumps(
        (QUALITY_FORMAT, *model, job.data.hash, passages, served, encoder, texts), sort_keys=True
    )
    files = [file.read_bytes() for file in sorted(EVALUATION_FOLDER.rglob("*")) if file.is_file()]
    return hashlib.sha256(b"\0".join((rest.encode(), *files))).hexdigest()


# ------------------------------------------------------------------------------------------------
# all together


def compare_settings(results: Sequence[QualityResult]) -> list[QualityRow]:
    """Return a row for each combination, pairing its replies with the first one's by prompt and
    seed.
    """
    by_settings: dict[str, list[QualityResult]] = {}
    for result in results:
        by_settings.setdefault(result.settings, []).append(result)
    first = _pool_values(next(iter(by_settings.values())))
    rows = []
    for place, (settings, own) in enumerate(by_settings.items()):
        pooled = _pool_values(own)
        means = {measure: mean_interval(values) for measure, values in pooled.items()}
        both = [measure for measure in COMPARED_MEASURES if measure in means and measure in first]
        found = {measure: paired_difference(pooled[measure], first[measure]) for measure in both}
        differences = {measure: it for measure, it in found.items() if it} if place else {}
        tokens, seconds = (
            fmean(values) for values in zip(*((it.tokens, it.seconds) for it in own), strict=True)
        )
        rows.append(QualityRow(settings, means, differences, tokens, seconds))
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
    bounds = _mean_bounds(results)
    lines = [
        (
            measure,
            *(f"{of[measure]:.1%}" if measure in of else "–" for of in bounds),
            *(_cell(it, measure) for it in rows),
        )
        for measure in rows[0].means
    ]
    lines.append(("tokens of a reply", "–", "–", *(f"{row.tokens:.1f}" for row in rows)))
    lines.append(("time of a seed", "–", "–", *(f"{row.seconds:,.0f} s" for row in rows)))
    certain = [
        f"- {row.settings}: {measure} {it.estimate * 100:+.1f} points ({it.low * 100:+.1f} to "
        f"{it.high * 100:+.1f})"
        for row in rows
        for measure, it in row.certain()
    ]
    seeds = len({result.seed for result in results})
    note = (
        f"Shares of replies over {count_of(seeds, 'seed')}, with 95 % intervals. * marks a "
        "difference "
        f"from {SERVED!r} that is certain: the 95 % interval of a paired bootstrap over "
        "conversations or questions "
        "excludes 0. One of twenty does so by chance. Compared are: "
        f"{'; '.join(COMPARED_MEASURES)}."
    )
    table = markdown_table(("measure", "ceiling", "floor", *(row.settings for row in rows)), lines)
    parts = [
        f"# Quality: {persona}",
        table,
        note,
        "## Certain differences",
        "\n".join(certain) or "None.",
    ]
    left_out = [f"- {name}: {why}" for name, why in _left_out(results).items()]
    return "\n\n".join([*parts, *(("## Not measured", "\n".join(left_out)) if left_out else ())])


def _left_out(results: Sequence[QualityResult]) -> dict[str, str]:
    return {name: why for result in results for name, why in result.left_out.items()}


def _mean_bounds(results: Sequence[QualityResult]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean ceiling and floor of each measure over the first settings' seeds."""
    first = [result for result in results if result.settings == results[0].settings]

    def mean(bounds: Sequence[dict[str, float]]) -> dict[str, float]:
        return {
            measure: fmean(of[measure] for of in bounds if measure in of) for measure in bounds[0]
        }

    return mean([result.ceiling for result in first]), mean([result.floor for result in first])


def _cell(row: QualityRow, measure: str) -> str:
    if measure not in row.means:
        return "–"
    it = row.means[measure]
    mark = "*" if measure in dict(row.certain()) else ""
    return f"{it.estimate:.1%}{mark} ({it.low * 100:.0f} to {it.high * 100:.0f})"


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
            {"settings": row.settings, "tokens": row.tokens, "seconds": row.seconds}
            | {"certain": [measure for measure, _ in row.certain()]}
            | {
                name: _as_json(of)
                for name, of in (("means", row.means), ("differences", row.differences))
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
    return {measure: it.model_dump() for measure, it in intervals.items()}


def _draw_quality(out: Path, rows: Sequence[QualityRow]) -> None:
    """Draw `quality.svg` and `.png`: each measure's mean under each combination, with its
    interval.
    """
    measures = [measure for measure in COMPARED_MEASURES if measure in rows[0].means]
    figure, axes = new_figure(height=1.2 + 0.2 * len(measures) * (len(rows) + 1))
    for place, row in enumerate(rows):
        shown = [
            (n, row.means[measure]) for n, measure in enumerate(measures) if measure in row.means
        ]
        means = [it.estimate for _, it in shown]
        errors = [
            [it.estimate - it.low for _, it in shown],
            [it.high - it.estimate for _, it in shown],
        ]
        ys = [n + place / (len(rows) + 1) for n, _ in shown]
        colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
        axes.errorbar(
            means,
            ys,
            xerr=errors,
            fmt="o",
            capsize=2,
            markersize=4,
            color=colour,
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
