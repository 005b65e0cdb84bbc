"""The charts of runs: one run's curves, or those of two runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bot.web.charts import Point, Series, bars, lines
from bot.web.training.course import Course, smoothed

STEP, LOSS = "step", "loss (nats per reply token)"
MIB = 2**20


def loss_chart(course: Course, weight: float) -> Markup:
    """Training and held-out loss by step, as they were told and smoothed."""
    return lines("Loss", STEP, LOSS, _losses("", course, weight, 0))


def rate_chart(course: Course) -> Markup:
    """The learning-rate schedule, as it was gone through."""
    return lines("Learning rate", STEP, "learning rate", [Series("learning rate", _rates(course))])


def pace_chart(course: Course) -> Markup:
    """How fast the run was."""
    points = [(it.step, it.tokens_per_s) for it in course.steps]
    return lines("Speed", STEP, "tokens/s", [Series("tokens/s", points)])


def memory_chart(course: Course) -> Markup:
    """How much memory the run held after each step."""
    points = [(it.step, it.memory_bytes / MIB) for it in course.steps]
    return lines("Memory", STEP, "MiB", [Series("MiB held", points)])


def losses_of_two(names: Sequence[str], courses: Sequence[Course], weight: float) -> Markup:
    """The losses of two runs over each other."""
    series = [one for n, name in enumerate(names) for one in _losses(f"{name}: ", courses[n], weight, 4 * n)]
    return lines("Loss", STEP, LOSS, series)


def rates_of_two(names: Sequence[str], courses: Sequence[Course]) -> Markup:
    """The learning rates of two runs over each other."""
    series = [Series(name, _rates(course)) for name, course in zip(names, courses, strict=True)]
    return lines("Learning rate", STEP, "learning rate", series)


def composition_chart(sheet: Mapping[str, Any]) -> Markup:
    """Samples by source, as an adapter's data sheet counts them."""
    by_source = sheet.get("by_source")
    rows = by_source.items() if isinstance(by_source, dict) else ()
    counted = [(str(name), float(count)) for name, count in rows if isinstance(count, int | float)]
    return bars("Samples by source", counted, "samples")


def _losses(whose: str, course: Course, weight: float, place: int) -> list[Series]:
    """Four lines: both losses smoothed, then as told, faint and in the colour of their mean. `place` is the first's."""
    steps = [it.step for it in course.steps]
    told = [it.loss for it in course.steps]
    held_out: list[Point] = [(float(step), loss) for step, loss in course.heldout]
    means = smoothed([loss for _, loss in held_out], weight)
    colours = (place // 2, place // 2 + 1)
    return [
        Series(f"{whose}training, smoothed", _pairs(steps, smoothed(told, weight)), colour=colours[0]),
        Series(f"{whose}held out, smoothed", _pairs([step for step, _ in held_out], means), colour=colours[1]),
        Series(f"{whose}training", _pairs(steps, told), faint=True, colour=colours[0]),
        Series(f"{whose}held out", held_out, faint=True, colour=colours[1]),
    ]


def _rates(course: Course) -> list[Point]:
    return [(float(it.step), it.lr) for it in course.steps]


def _pairs(steps: Sequence[float], values: Sequence[float]) -> list[Point]:
    return [(float(step), value) for step, value in zip(steps, values, strict=True)]
