"""`/dashboard/servers/ID/trainings`: the trainings of a server, and a form that plans and starts one,
as `/finetune preview`, `start`, `status`, `cancel` and `resume` do.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web
from markupsafe import Markup

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import (
    SERVER,
    channel_choices,
    chosen_channel,
    persona_path,
    server_path,
)
from bot.moderation.web.score_card_pages import AGE_TEXT
from bot.platform.errors import hide_paths
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.web_kit.problems import Problem, redacted_problem
from bot.platform.web_kit.request_body import parse_form_number, read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import TrainingJob
from bot.training.actions import NO_CHANNEL_ID, PlannedTraining
from bot.training.request_checks import requested_recipe_plan
from bot.training.start_options import (
    SourceOption,
    card_share,
    default_job_name,
    merge_settings,
)
from bot.training.status_text import (
    cancelled_writing_lines,
    card_state_text,
    trains_from_card,
)
from bot.training.teacher_text import teacher_texts
from bot.training.web import run_charts, run_view, written_pages
from bot.training.web.run_details import read_run_details
from bot.training.web.run_history import DEFAULT_SMOOTHING, MetricsHistory
from personas.errors import UnderstudyError
from personas.schemas.training import TaskType, TrainingRequest

TRAININGS = f"{SERVER}/trainings"
JOB = f"{TRAININGS}/{{job_id}}"
START = f"{SERVER}/train"
MAX_LISTED_JOBS = 50
TASKS: tuple[tuple[TaskType, str], ...] = (
    ("persona", gettext_lazy("a persona's voice")),
    ("preference", gettext_lazy("a persona, from votes and taught replies")),
    ("dialogue", gettext_lazy("dialogue in general")),
)
FIELDS = (
    "persona recipe dataset task_type source review lore_pairs epochs learning_rate settings general "
    "start_from job_name channel"
).split()
MORE_FIELDS = FIELDS[2:]
"""Fields behind "More options"."""
SHOWN = {"task_type": "persona"}
"""Values of theirs that are no choice."""
TEXT_FIELDS = ("dataset", "recipe", "general", "start_from", "job_name")
"""Fields that go into a request as they are."""
routes = MemberRoutes()


# --------------------------------------------------------------------------------------------- jobs


@routes.add(f"GET {TRAININGS}")
async def get_trainings(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of a server's latest trainings."""
    access.require("train", "promote")
    jobs = access.services.store.jobs.of_guild(access.guild_id, MAX_LISTED_JOBS)
    names = await run_view.requester_names(request, jobs)
    return render_page(
        request,
        "servers/trainings.html",
        title=gettext_lazy("Trainings in {server}", server=access.guild.name),
        access=access,
        runs=[_list_item(access, job, names) for job in jobs],
        most=MAX_LISTED_JOBS,
    )


@routes.add(f"GET {JOB}")
async def get_training(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of one training: how far it is, and what came of it."""
    access.require("train", "promote")
    job = _job_in_path(access, request)
    names = await run_view.requester_names(request, [job])
    run = _list_item(access, job, names)
    course, loss_chart = await asyncio.to_thread(_read_course, access.services.home, job)
    persona = access.services.personas.get(job.persona or "", access.guild_id)
    return render_page(
        request,
        "servers/training.html",
        title=run.label,
        access=access,
        run=run,
        job=job,
        persona=persona,
        persona_path=persona_path(access, persona) if persona else "",
        may_train=access.allows("train"),
        holds=job.state == "running" and access.services.throttle.is_asked,
        error=hide_paths(job.error or ""),
        advice=hide_paths(job.advice or ""),
        card=run_view.read_score_summary(job),
        rest_of_card=hide_paths(card_state_text(job)),
        course=course,
        loss_chart=loss_chart,
        cancelled_writing=cancelled_writing_lines(job),
        is_written=trains_from_card(job) and not _hides_replies(access, job),
    )


@routes.add(f"GET {JOB}/written")
async def get_written(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of the replies that a model has written for a training."""
    access.require("train", "promote")
    job = _job_with_replies(access, request)
    may_change = access.allows("train")
    return await written_pages.render_written(
        request, job, _job_path(access, job), may_change=may_change
    )


@routes.add(f"POST {JOB}/written")
async def post_written(access: GuildAccess, request: web.Request) -> web.Response:
    """Change the written replies that were edited, and strike one out or put it back."""
    access.require("train")
    job = _job_with_replies(access, request)
    return await written_pages.change_written(request, job, _job_path(access, job))


@routes.add(f"POST {JOB}/cancel")
async def post_cancel(access: GuildAccess, request: web.Request) -> web.Response:
    """Cancel a training, or the rest of its score card."""
    access.require("train")
    await read_form(request)
    job = access.services.trainings.cancel(_job_in_path(access, request).job_id, access.member.id)
    label = run_view.job_label(access.services, job)
    message = gettext_lazy("{run} is cancelled.", run=label)
    if job.card_state:
        message = gettext_lazy("{run} is not measured further.", run=label)
    return redirect_to(request, _job_path(access, job), message)


@routes.add(f"POST {JOB}/resume")
async def post_resume(access: GuildAccess, request: web.Request) -> web.Response:
    """Resume a failed training."""
    access.require("train")
    await read_form(request)
    job = access.services.trainings.resume(_job_in_path(access, request).job_id, access.member.id)
    label = run_view.job_label(access.services, job)
    message = gettext_lazy("{run} is in the queue again.", run=label)
    return redirect_to(request, _job_path(access, job), message)


def _job_in_path(access: GuildAccess, request: web.Request) -> TrainingJob:
    """Return the job of the address. Raises `Problem` for one of another server, as for none."""
    job = access.services.store.jobs.get(request.match_info["job_id"])
    if job is None or job.guild_id != access.guild_id:
        raise Problem(
            "not-found",
            gettext_lazy("There is no such training here."),
            gettext_lazy("The server's page lists them."),
        )
    return job


def _job_with_replies(access: GuildAccess, request: web.Request) -> TrainingJob:
    """Return the job of the address. Raises `Problem` also for one whose replies are not shown."""
    job = _job_in_path(access, request)
    if _hides_replies(access, job):
        raise Problem("not-allowed", AGE_TEXT, gettext_lazy("The operator's dashboard shows them."))
    return job


def _hides_replies(access: GuildAccess, job: TrainingJob) -> bool:
    """Report whether a job's persona is age-restricted: its replies are for marked channels."""
    persona = access.services.personas.get(job.persona or "", access.guild_id)
    age = access.services.reply_service.rules.age
    return persona is not None and age.applies(persona, access.guild_id)


def _job_path(access: GuildAccess, job: TrainingJob) -> str:
    return f"{server_path(access)}/trainings/{job.job_id}"


def _list_item(
    access: GuildAccess, job: TrainingJob, names: run_view.RequesterNames
) -> run_view.JobListItem:
    """Describe a job as on the operator's pages, but of the others in the queue only their number:
    they may be of other servers.
    """
    place = access.services.queue.position(job.job_id)
    waiting = gettext_lazy("Place {place} in the queue.", place=place) if place else ""
    item = run_view.job_list_item(access.services, job, time.time(), names=names, doing=waiting)
    path = _job_path(access, job)
    review_path = ""
    if job.waits_for_review and not _hides_replies(access, job):
        review_path = run_view.written_path(path)
    return replace(item, path=path, review_path=review_path, doing=hide_paths(item.doing))


def _read_course(home: Path, job: TrainingJob) -> tuple[MetricsHistory, Markup | None]:
    """Read a run's losses and draw them. To be called in a thread."""
    course = read_run_details(home, job).course
    return course, run_charts.loss_chart([""], [course], DEFAULT_SMOOTHING)


# -------------------------------------------------------------------------------------------- start


@routes.add(f"GET {START}")
async def get_start_form(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of the form that plans a training, for the persona of the query."""
    access.require("train")
    return _render_form(access, request, {"persona": request.query.get("persona", "")})


@routes.add(f"POST {START}")
async def post_start_form(access: GuildAccess, request: web.Request) -> web.Response:
    """Show the plan of the form's training; with `start`, queue it."""
    access.require("train")
    form = await read_form(request)
    given = {name: form.get(name, "").strip() for name in FIELDS}
    services = access.services
    try:
        channel = chosen_channel(access, given["channel"])
        wanted = _parse_request(access, given)
        if form.get("start") == "yes":
            started = services.trainings.start(
                wanted,
                guild_id=access.guild_id,
                channel_id=channel.id if channel else NO_CHANNEL_ID,
                requested_by=access.member.id,
            )
            notes = [hide_paths(note) for note in started.notes]
            message = join_texts(gettext_lazy("It is queued."), *notes)
            return redirect_to(request, _job_path(access, started.job), message)
        planned = await services.trainings.plan(wanted, access.guild_id)
    except Problem as problem:
        return _render_form(access, request, given, problem=problem)
    except UnderstudyError as error:
        refused = redacted_problem("cannot-train", error, services.home)
        return _render_form(access, request, given, problem=refused)
    return _render_form(access, request, given, planned=planned)


def _parse_request(access: GuildAccess, given: Mapping[str, str]) -> TrainingRequest:
    """Build the request that `/finetune start` builds of the same options: it names what the
    catalogue has, and no path. Raises `UnderstudyError`.
    """
    trainings = access.services.trainings
    task: TaskType = next((name for name, _ in TASKS if name == given["task_type"]), "persona")
    persona_id = None if task == "dialogue" else access.require_persona(given["persona"]).id
    source: SourceOption | None = "card" if given["source"] else None
    from_card = card_share(source, given["dataset"] or None)
    body: dict[str, Any] = {name: given[name] for name in TEXT_FIELDS if given[name]}
    body.setdefault("job_name", default_job_name(persona_id or task))
    body.setdefault("recipe", trainings.default_recipe(persona_id, task, from_card=bool(from_card)))
    body |= {"task_type": task}
    if persona_id:
        body["persona"] = persona_id
    if from_card:
        body["from_card"] = from_card
    if given["review"]:
        body["review"] = True
    if given["lore_pairs"]:
        body["lore_pairs"] = parse_form_number(given["lore_pairs"])
    body["hyperparameters"] = merge_settings(
        given["settings"].replace("\n", ","),
        num_train_epochs=_number(given["epochs"]),
        learning_rate=_number(given["learning_rate"]),
    )
    return trainings.parse(body)


def _number(text: str) -> Any:
    """A field's number; text that is none, for the request's own check to refuse."""
    return parse_form_number(text) if text else None


def _plan_notes(services: Services, request: TrainingRequest) -> list[str]:
    notes = [hide_paths(note) for note in services.training_notes(request)]
    return [*teacher_texts(request), *notes]


def _render_form(
    access: GuildAccess,
    request: web.Request,
    given: Mapping[str, str],
    *,
    planned: PlannedTraining | None = None,
    problem: Problem | None = None,
) -> web.Response:
    services = access.services
    own = services.personas.own(access.guild_id)
    shared = [each for each in services.personas.of(access.guild_id).values() if each not in own]
    catalogue = services.catalogue
    fields = {name: given.get(name, "") for name in FIELDS}
    estimate = requested_recipe_plan(planned.plan, planned.request.recipe) if planned else None
    return render_page(
        request,
        "servers/train.html",
        title=gettext_lazy("Train a persona of {server}", server=access.guild.name),
        problem=problem,
        ids={"dataset_path": "dataset", "hyperparameters": "settings"},
        access=access,
        given=fields,
        is_more_open=any(fields[name] not in ("", SHOWN.get(name, "")) for name in MORE_FIELDS),
        own=own,
        shared=shared,
        recipes=catalogue.recipe_labels(),
        datasets=catalogue.datasets(),
        dialogues=catalogue.dialogues(),
        adapters=catalogue.dialogue_adapters(access.guild_id),
        tasks=TASKS,
        channels=channel_choices(access),
        planned=planned,
        estimate=estimate,
        notes=_plan_notes(services, planned.request) if planned else [],
    )
