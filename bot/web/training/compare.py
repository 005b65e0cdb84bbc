"""Two runs side by side: their curves over each other, their settings with what differs, what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from markupsafe import Markup

from bot.house import House
from bot.store import Job
from bot.web.formats import duration, percent, size
from bot.web.frame import page
from bot.web.here import Route, house_of
from bot.web.jobs import job_named
from bot.web.training import figures
from bot.web.training.course import MOST_SMOOTHING, formula
from bot.web.training.pages import asked_for, others_than, smoothing_of
from bot.web.training.record import Record, record_of
from bot.web.training.settings import Row, compared
from bot.web.training.words import TRAINING, run_path, scorecard


@dataclass(frozen=True)
class Pair:
    """Two runs and what is drawn of them."""

    a: Record
    b: Record
    loss: Markup
    rate: Markup


async def side_by_side(request: web.Request) -> web.Response:
    """Two runs, or the choice of two."""
    house, weight = house_of(request), smoothing_of(request)
    jobs = [job_named(house, request.query[name]) if request.query.get(name) else None for name in "ab"]
    pair = await asyncio.to_thread(_pair, house.home, jobs[0], jobs[1], weight) if all(jobs) else None
    names = [_name(job) if job else "" for job in jobs]
    return page(
        request,
        "training/compare.html",
        title=" and ".join(filter(None, names)) or "Two runs side by side",
        section="training",
        jobs=jobs,
        names=names,
        paths=[run_path(job.job_id) if job else "" for job in jobs],
        choices=_choices(house, jobs),
        pair=pair,
        results=results(pair) if pair else [],
        settings=settings_of_two(house, pair) if pair else [],
        weight=weight,
        most_weight=MOST_SMOOTHING,
        formula=formula(weight),
    )


def _choices(house: House, jobs: list[Job | None]) -> list[Job]:
    """The runs that may be chosen: the latest, those of the first one's persona before others, and those chosen."""
    found = others_than(house, jobs[0])
    known = {job.job_id for job in found}
    return [*(job for job in jobs if job and job.job_id not in known), *found]


def _name(job: Job) -> str:
    return f"{job.name} {job.version}"


def _pair(home: Path, a: Job | None, b: Job | None, weight: float) -> Pair | None:
    if a is None or b is None:
        return None
    records = record_of(home, a), record_of(home, b)
    courses = [record.course for record in records]
    names = [f"A, {_name(a)}", f"B, {_name(b)}"]
    return Pair(*records, figures.losses_of_two(names, courses, weight), figures.rates_of_two(names, courses))


def results(pair: Pair) -> list[Row]:
    """What came of both, in words; a dash where it is not known."""
    return [Row(name, tell(pair.a) or "–", tell(pair.b) or "–") for name, tell in RESULTS]


def settings_of_two(house: House, pair: Pair) -> list[Row]:
    """What was asked for and the settings of both. What only one asked for, the other is known to have left out."""
    both = [(it, asked_for(house, it.job)) for it in (pair.a, pair.b)]
    left_out = dict.fromkeys(name for _, asked in both for name in asked)
    return compared(
        *({**(left_out if asked else {}), **asked, **it.settings.values, **it.settings.about} for it, asked in both)
    )


def _card(name: str, digits: int = 4) -> Callable[[Record], str]:
    def tell(record: Record) -> str:
        card = scorecard(record.job)
        value: Any = getattr(card, name) if card else None
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value or "")

    return tell


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _best(record: Record) -> str:
    best = min(record.course.heldout, key=lambda measured: measured[1], default=None)
    return f"{best[1]:.4f} after step {best[0]:,}" if best else ""


def _steps(record: Record) -> str:
    return f"{record.course.steps[-1].step:,}" if record.course.steps else ""


def _samples(record: Record) -> str:
    samples = (record.sheet or {}).get("samples")
    return f"{samples.get('train', 0):,}" if isinstance(samples, dict) else ""


def _peak(record: Record) -> str:
    took = record.took
    share = f" ({percent(took.share, 1)} of {took.device})" if took.share is not None else ""
    return f"{size(took.peak_bytes)}{share}" if took.peak_bytes else ""


RESULTS: tuple[tuple[str, Callable[[Record], str]], ...] = (
    ("State", lambda record: record.job.state),
    ("Samples trained on", _samples),
    ("Steps", _steps),
    ("Total time", lambda record: duration(record.took.seconds) if record.took.seconds else ""),
    ("Peak memory", _peak),
    ("Final training loss", lambda record: _loss(record.course.train_loss)),
    ("Best held-out loss on the way", _best),
    ("Held-out loss, base model", _card("loss_base")),
    ("Held-out loss, as served", _card("loss_tuned")),
    ("General dialogue, base model", _card("general_loss_base")),
    ("General dialogue, as served", _card("general_loss_tuned")),
    ("Gate", _card("verdict")),
)

ROUTES: tuple[Route, ...] = (("GET", f"{TRAINING}/compare", side_by_side),)
