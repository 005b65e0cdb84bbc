"""`/dashboard/training/ID/written`: the replies that a model has written from a card, to read, change,
strike out and put back before they are trained on.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from aiohttp import web

from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import Form, read_form
from bot.platform.web_kit.templating import FormError, redirect_to, render_page
from bot.safety.stored_replies import WITHHELD_NOTE, is_withheld
from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.web import run_view, written_edits
from bot.training.web.requests import require_job
from personas.home.job_attempt import list_checkpoint_names
from personas.home.written_replies import written_file
from personas.schemas.training import WrittenReplies
from personas.schemas.training_events import Phase

REPLIES_PER_PAGE = 25
routes = Routes()


def can_change(job: TrainingJob, folder: Path) -> bool:
    """Report whether changes of a job's written replies still have an effect: the job can go on, and
    has not begun to learn from them, or its checkpoints would be of another data set.
    """
    return job.state == "failed" and job.can_resume and not list_checkpoint_names(folder)


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}/written")
async def get_written_page(request: web.Request) -> web.Response:
    """Page of the written replies in order, with a form for each while they can be changed."""
    return await _render(request, require_job(request))


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/written")
async def post_written_page(request: web.Request) -> web.Response:
    """Store the replies that were edited, and strike out or put back the one whose button was
    pressed. What cannot be stored stays in the form, with the reason beside it.

    Raises `Problem` where the replies are trained on already.
    """
    first = integer_query(request, "first", 0, sys.maxsize)
    form = await read_form(request)
    job = require_job(request)  # after the form: one that was resumed meanwhile learns from them
    folder = job_folder(get_services(request).home, job.job_id)
    if not can_change(job, folder) or not written_file(folder).exists():
        raise Problem(
            "conflict",
            "These replies cannot be changed now, or not any more.",
            "Start another training from the card, and choose to read the replies first.",
        )
    pressed, _, number = form.get("do", "").partition(" ")
    edits = _edits(form)
    done = "Changed."
    refused = {}
    try:
        if pressed == "strike":
            await asyncio.to_thread(written_edits.strike, folder, number)
            edits.pop(number, None)
            done = "Struck out."
        elif pressed == "put-back":
            await asyncio.to_thread(written_edits.put_back, folder, number)
            done = "Put back."
    except Problem as problem:
        refused[number] = problem.text
    faults = await asyncio.to_thread(written_edits.change, folder, edits) | refused
    if faults:
        typed = {number: edit.typed for number, edit in edits.items() if number in faults}
        return await _render(request, job, typed=typed, faults=faults)
    query = f"?first={first}" if first else ""
    place = f"#written-{number}" if number.isascii() and number.isdecimal() else ""
    return redirect_to(request, f"{run_view.written_path(job.job_id)}{query}{place}", done)


async def _render(
    request: web.Request,
    job: TrainingJob,
    *,
    typed: Mapping[str, str] = MappingProxyType({}),
    faults: Mapping[str, str] = MappingProxyType({}),
) -> web.Response:
    """Render the page of a job's written replies. By a reply's number, `typed` is shown in its place,
    and `faults` say why it is not stored.
    """
    require_known_parameters(request, "first")
    services = get_services(request)
    folder = job_folder(services.home, job.job_id)
    written = await asyncio.to_thread(written_edits.read_all, folder)
    replies = written.replies
    first = integer_query(request, "first", 0, len(replies)) or 0
    shown = replies[first : first + REPLIES_PER_PAGE]
    places = {str(reply.number): place for place, reply in enumerate(replies, start=1)}
    after = first + len(shown)
    return render_page(
        request,
        "training/written.html",
        title=f"Written for {run_view.job_label(services, job)}",
        job=job,
        run_path=run_view.run_path(job.job_id),
        replies=shown,
        withheld={
            reply.number
            for reply in shown
            if is_withheld(reply.question, reply.reply) and str(reply.number) not in typed
        },
        withheld_note=WITHHELD_NOTE,
        count=len(replies),
        left=len(replies) - len(written.struck),
        edited=sum(
            reply.by == "edited" and reply.number not in written.struck for reply in replies
        ),
        names_user=any("{{user}}" in f"{reply.question} {reply.reply}" for reply in shown),
        struck=written.struck,
        first=first,
        summary=written.summary,
        taken_from=_earlier_path(written.summary),
        state="" if written.is_whole else _state_text(job, len(replies)),
        goes_on=not written.is_whole and not job.has_ended,
        can_change=written.is_whole and can_change(job, folder),
        most_chars=written_edits.MAX_REPLY_CHARS,
        typed=typed,
        status=409 if faults else 200,
        wrong={f"reply-{number}": fault for number, fault in faults.items()},
        faults=[
            FormError(
                fault,
                f"reply-{number}",
                f"Reply {places.get(number, number)}",
            )
            for number, fault in faults.items()
        ],
        next=f"{run_view.written_path(job.job_id)}?first={after}" if after < len(replies) else "",
    )


def _earlier_path(summary: WrittenReplies | None) -> str:
    """Return the path of the run from which the replies were taken over; empty without one."""
    if summary is None or not summary.taken_from:
        return ""
    return run_view.run_path(summary.taken_from)


def _state_text(job: TrainingJob, count: int) -> str:
    """Say how many replies are written so far, and why no more are."""
    progress = job.progress
    wanted = progress.of if isinstance(progress, Phase) and progress.of else None
    so_far = "Nothing is written yet."
    if count:
        so_far = f"{count:,} are written so far."
    if count and wanted:
        so_far = f"{count:,} of {max(wanted, count):,} are written so far."
    if job.state == "running":
        rest = "The others are being written now, and appear here."
    elif job.state == "queued":
        rest = "The others are written once it is this training's turn."
    elif job.can_resume:
        rest = "The training has stopped. Resume writes the others."
    else:
        rest = "The training has ended, and no more are written."
    return f"{so_far} {rest}"


def _edits(form: Form) -> dict[str, written_edits.Edit]:
    """Read what a form has in place of each reply, by the reply's number."""
    edits = {}
    for name, typed in form.items():
        field, _, number = name.partition("-")
        if field == "reply":
            edits[number] = written_edits.Edit(seen=form.get(f"seen-{number}", ""), typed=typed)
    return edits
