"""The charts of training runs: losses, learning rate, speed, memory, and the sources of samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bot.platform.web_kit.charts import Point, Series, bar_chart, line_chart
from bot.training.web.run_history import MetricsHistory, smooth

STEP_LABEL = "step"
LOSS_LABEL = "loss (nats per reply token)"
MIB = 2**20


def pace_chart(course: MetricsHistory) -> Markup:
    points = [(step.step, step.tokens_per_s) for step in course.steps]
    return line_chart(
        "Speed",
        STEP_LABEL,
        "tokens/s",
        [Series("tokens/s", points)],
    )


def memory_chart(course: MetricsHistory) -> Markup:
    points = [(step.step, step.memory_bytes / MIB) for step in course.steps]
    return line_chart("Memory", STEP_LABEL, "MiB", [Series("MiB held", points)])


def loss_chart(names: Sequence[str], courses: Sequence[MetricsHistory], weight: float) -> Markup:
    """The losses of runs; `names` begin the names of their lines."""
    series: list[Series] = []
    for number, (name, course) in enumerate(zip(names, courses, strict=True)):
        series += _loss_series(name, course, weight, 2 * number)
    return line_chart("Loss", STEP_LABEL, LOSS_LABEL, series)


def rate_chart(names: Sequence[str], courses: Sequence[MetricsHistory]) -> Markup:
    series = []
    for name, course in zip(names, courses, strict=True):
        points: list[Point] = [(float(step.step), step.lr) for step in course.steps]
        series.append(Series(name, points))
    return line_chart("Learning rate", STEP_LABEL, "learning rate", series)


def composition_chart(sheet: Mapping[str, Any]) -> Markup:
    by_source = sheet.get("by_source")
    rows = by_source.items() if isinstance(by_source, dict) else ()
    counted = [(str(name), float(count)) for name, count in rows if isinstance(count, int | float)]
    return bar_chart("Samples by source", counted, "samples")


def _loss_series(prefix: str, course: MetricsHistory, weight: float, colour: int) -> list[Series]:
    """Four lines: both losses smoothed, then raw, faint and in the same colours, `colour` and the
    next.
    """
    training: list[Point] = [(float(step.step), step.loss) for step in course.steps]
    held_out: list[Point] = [(float(step), loss) for step, loss in course.heldout]
    return [
        Series(
            f"{prefix}training, smoothed",
            _smooth_points(training, weight),
            colour=colour,
        ),
        Series(
            f"{prefix}held out, smoothed",
            _smooth_points(held_out, weight),
            colour=colour + 1,
        ),
        Series(f"{prefix}training", training, faint=True, colour=colour),
        Series(f"{prefix}held out", held_out, faint=True, colour=colour + 1),
    ]


def _smooth_points(points: Sequence[Point], weight: float) -> list[Point]:
    means = smooth([value for _, value in points], weight)
    return [(step, mean) for (step, _), mean in zip(points, means, strict=True)]
