"""`/dashboard/training/compare`: two runs side by side."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web
from markupsafe import Markup

from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.templating import (
    format_bytes,
    format_percent,
    format_seconds,
    render_page,
)
from bot.services import Services
from bot.store import TrainingJob
from bot.training.queue import job_state_text
from bot.training.web import run_charts, run_view, setting_view
from bot.training.web.pages import other_runs, requested_settings
from bot.training.web.requests import smoothing_query
from bot.training.web.run_details import RunDetails, read_run_details
from bot.training.web.run_history import MAX_SMOOTHING, smoothing_formula

routes = Routes()


@dataclass(frozen=True, kw_only=True)
class RunPair:
    """Two runs, and the charts that show both."""

    a: RunDetails
    b: RunDetails
    loss: Markup
    rate: Markup


@routes.add(f"GET {run_view.TRAINING_PATH}/compare")
async def get_comparison(request: web.Request) -> web.Response:
    services = get_services(request)
    weight = smoothing_query(request)
    a = _chosen_run(request, "a")
    b = _chosen_run(request, "b")
    pair = None
    results = []
    settings = []
    if a and b:
        pair = await asyncio.to_thread(_run_pair, services, a, b=b, weight=weight)
        results = compare_results(pair)
        settings = compare_run_settings(services, pair)
    jobs = [a, b]
    titles = [run_view.job_label(services, job) for job in jobs if job]
    return render_page(
        request,
        "training/compare.html",
        title=" and ".join(titles) or "Two runs side by side",
        jobs=jobs,
        names=[run_view.job_label(services, job) if job else "" for job in jobs],
        paths=[run_view.run_path(job.job_id) if job else "" for job in jobs],
        run_label=partial(run_view.job_label, services),
        choices=_comparable_runs(services, jobs),
        pair=pair,
        results=results,
        settings=settings,
        weight=weight,
        most_weight=MAX_SMOOTHING,
        formula=smoothing_formula(weight),
    )


def _chosen_run(request: web.Request, name: str) -> TrainingJob | None:
    job_id = request.query.get(name)
    if job_id:
        return get_services(request).trainings.find(job_id)
    return None


def _comparable_runs(services: Services, jobs: list[TrainingJob | None]) -> list[TrainingJob]:
    """The runs to choose from: the chosen ones, and the latest, those of the first run's persona
    before others.
    """
    latest = other_runs(services, jobs[0])
    latest_ids = {job.job_id for job in latest}
    older = [job for job in jobs if job and job.job_id not in latest_ids]
    return [*older, *latest]


def _run_pair(services: Services, a: TrainingJob, b: TrainingJob, weight: float) -> RunPair:
    details_a = read_run_details(services.home, a)
    details_b = read_run_details(services.home, b)
    courses = [details_a.course, details_b.course]
    names = [f"A, {run_view.job_label(services, a)}", f"B, {run_view.job_label(services, b)}"]
    return RunPair(
        a=details_a,
        b=details_b,
        loss=run_charts.loss_chart([f"{name}: " for name in names], courses, weight),
        rate=run_charts.rate_chart(names, courses),
    )


def compare_results(pair: RunPair) -> list[setting_view.SettingComparison]:
    rows = []
    for name, text in RESULT_ROWS:
        row = setting_view.SettingComparison(name, text(pair.a) or "–", text(pair.b) or "–")
        rows.append(row)
    return rows


def compare_run_settings(services: Services, pair: RunPair) -> list[setting_view.SettingComparison]:
    """Compare requests and settings of two runs. A field that only one request names counts as
    empty in the other.
    """
    requested_a = requested_settings(services, pair.a.job)
    requested_b = requested_settings(services, pair.b.job)
    names = [*requested_a, *requested_b]
    return setting_view.compare_settings(
        _all_settings(pair.a, requested_a, names), _all_settings(pair.b, requested_b, names)
    )


def _all_settings(
    details: RunDetails, requested: Mapping[str, str], names: Iterable[str]
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if requested:  # the request can be read, so a field that it does not name is empty
        settings |= dict.fromkeys(names)
    return {**settings, **requested, **details.settings.values, **details.settings.about}


def _score_reader(name: str) -> Callable[[RunDetails], str]:
    def read(record: RunDetails) -> str:
        card = run_view.read_score_summary(record.job)
        value: Any = getattr(card, name, None)
        if isinstance(value, float):
            return f"{value:.4f}"
        return str(value or "")

    return read


def _best_loss(record: RunDetails) -> str:
    best = min(record.course.heldout, key=lambda measured: measured[1], default=None)
    if best is None:
        return ""
    step, loss = best
    return f"{loss:.4f} after step {step:,}"


def _step_count(record: RunDetails) -> str:
    steps = record.course.steps
    return f"{steps[-1].step:,}" if steps else ""


def _sample_count(record: RunDetails) -> str:
    samples = (record.sheet or {}).get("samples")
    if not isinstance(samples, dict):
        return ""
    return f"{samples.get('train', 0):,}"


def _peak_memory(record: RunDetails) -> str:
    took = record.took
    if not took.peak_bytes:
        return ""
    text = format_bytes(took.peak_bytes)
    if took.share is not None:
        text += f" ({format_percent(took.share, 1)} of {took.device})"
    return text


def _total_time(record: RunDetails) -> str:
    seconds = record.took.seconds
    return format_seconds(seconds) if seconds else ""


def _final_loss(record: RunDetails) -> str:
    loss = record.course.train_loss
    return "" if loss is None else f"{loss:.4f}"


RESULT_ROWS: tuple[tuple[str, Callable[[RunDetails], str]], ...] = (
    ("State", lambda record: job_state_text(record.job)),
    ("Samples trained on", _sample_count),
    ("Steps", _step_count),
    ("Total time", _total_time),
    ("Peak memory", _peak_memory),
    ("Final training loss", _final_loss),
    ("Best held-out loss on the way", _best_loss),
    ("Held-out loss, base model", _score_reader("loss_base")),
    ("Held-out loss, as served", _score_reader("loss_tuned")),
    ("General dialogue, base model", _score_reader("general_loss_base")),
    ("General dialogue, as served", _score_reader("general_loss_tuned")),
    ("Gate", _score_reader("verdict")),
)
