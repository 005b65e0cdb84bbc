"""Reports a quality study: table, JSON and chart of its measures, and the differences between
settings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from personas.home.atomic_files import write_private_file
from personas.schemas.formatting import count_of, markdown_table
from personas.schemas.scorecard import (
    IN_CHARACTER,
    LORE_RIGHT,
    LORE_RIGHT_REWORDED,
    LORE_WRONG,
    MASKED_VOICE,
    REPETITION_AT_TURN,
    SENSE_ESTIMATE,
    SENSE_NOTE,
    TALK_TURNS,
    VOICE,
    VOICE_AT_TURN,
    WRONG_AT_TURN,
    Interval,
)
from trainer.dataset.charts import SERIES_COLOURS, new_figure, save_figure
from trainer.evaluate.generation.reply_tasks import (
    ReplyValue,
    mean_interval,
    paired_difference,
)
from trainer.study.quality import ENDED, SERVED, QualityResult

QUALITY_FILE = "quality.json"
COMPARED_MEASURES = (
    SENSE_ESTIMATE,
    SENSE_NOTE,
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
            # Of the first settings themselves, there is no difference to show.
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
        bounds = (_bound_cell(ceiling, measure), _bound_cell(floor, measure))
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
        f"{'; '.join(COMPARED_MEASURES)}. {SENSE_NOTE}"
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


def _bound_cell(bound: Mapping[str, float], measure: str) -> str:
    if measure not in bound:
        return "–"
    return f"{bound[measure]:.1%}"


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
        "rows": [_row_as_json(row) for row in rows],
        "left_out": _left_out(results),
    }
    write_private_file(out / QUALITY_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "quality.md", f"{text}\n".encode())
    _draw_quality(out, rows)
    return text


def _row_as_json(row: QualityRow) -> dict[str, object]:
    return {
        "settings": row.settings,
        "tokens": row.tokens,
        "seconds": row.seconds,
        "certain": [measure for measure, _ in row.certain()],
        "means": _as_json(row.means),
        "differences": _as_json(row.differences),
    }


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
    # A measure's name stands at the middle of its bars.
    middle = (len(rows) - 1) / 2 / (len(rows) + 1)
    axes.set_yticks([number + middle for number in range(len(measures))], measures)
    axes.invert_yaxis()
    axes.set(title="Quality", xlabel="share of replies", xlim=(-0.02, 1.02))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    text = "Shares of replies by settings; quality.md has the figures as a table"
    save_figure(figure, out / "quality", text)
