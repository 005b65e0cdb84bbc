"""`/dashboard/training/ID/written`: the replies that a model has written from a card, to read, change and
strike out before they are trained on.
"""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from bot.platform.localisation import gettext_lazy, localisable_number
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.web import run_view
from bot.training.web.requests import require_job
from personas.home.written_replies import (
    WrittenReply,
    read_summary,
    read_written,
    store_written,
    written_file,
)

REPLIES_PER_PAGE = 25
MAX_REPLY_CHARS = 2000
routes = Routes()
_changing = threading.Lock()
"""Two moderators read one file: the later change keeps the earlier one."""


def can_change(job: TrainingJob) -> bool:
    """Report whether changes of a job's written replies still have an effect: nothing trains on
    them yet, and the job can go on.
    """
    return job.state == "failed" and job.can_resume


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}/written")
async def get_written_page(request: web.Request) -> web.Response:
    """Page of the written replies in order, with a form for each while they can be changed."""
    require_known_parameters(request, "first")
    services = get_services(request)
    job = require_job(request)
    folder = job_folder(services.home, job.job_id)
    replies = await asyncio.to_thread(_read, folder)
    summary = await asyncio.to_thread(read_summary, folder)
    first = integer_query(request, "first", 0, len(replies)) or 0
    shown = replies[first : first + REPLIES_PER_PAGE]
    path = f"{run_view.run_path(job.job_id)}/written"
    after = first + len(shown)
    return render_page(
        request,
        "training/written.html",
        title=gettext_lazy("Written for {job_label}", job_label=run_view.job_label(services, job)),
        job=job,
        run_path=run_view.run_path(job.job_id),
        replies=shown,
        count=len(replies),
        first=first,
        summary=summary,
        can_change=can_change(job),
        most_chars=MAX_REPLY_CHARS,
        next=f"{path}?first={after}" if after < len(replies) else "",
    )


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/written")
async def post_written_page(request: web.Request) -> web.Response:
    """Change a written reply, or strike it out. Raises `Problem` where it is trained on already."""
    services = get_services(request)
    job = require_job(request)
    if not can_change(job):
        raise Problem(
            "conflict",
            gettext_lazy(
                "These replies cannot be changed any more: the run trains on them, or has ended."
            ),
            gettext_lazy(
                "Start another training from the card, and tick that you read the replies first."
            ),
        )
    form = await read_form(request)
    file = written_file(job_folder(services.home, job.job_id))
    text = form.get("reply", "").strip()
    strikes = form.get("do") == "strike"
    if not strikes:
        _require_usable(text)
    await asyncio.to_thread(_change, file, form.get("number", ""), "" if strikes else text)
    path = f"{run_view.run_path(job.job_id)}/written"
    first = form.get("first", "").lstrip("0")
    query = f"?first={first}" if first.isascii() and first.isdecimal() else ""
    return redirect_to(
        request, path + query, gettext_lazy("Struck out.") if strikes else gettext_lazy("Changed.")
    )


def _require_usable(text: str) -> None:
    """Raise `Problem` for a reply that is empty or too long."""
    if not text:
        raise Problem(
            "invalid-request",
            gettext_lazy("The reply is empty."),
            gettext_lazy("Write one, or strike it out."),
        )
    if len(text) > MAX_REPLY_CHARS:
        raise Problem(
            "invalid-request",
            gettext_lazy(
                "The reply has {count} characters.", count=localisable_number(f"{len(text):,}")
            ),
            gettext_lazy(
                "{max_reply_chars} are the most.",
                max_reply_chars=localisable_number(f"{MAX_REPLY_CHARS:,}"),
            ),
        )


def _read(folder: Path) -> list[WrittenReply]:
    file = written_file(folder)
    return read_written(file) if file.exists() else []


def _change(file: Path, number: str, text: str) -> None:
    """Replace the reply with this number, or remove it for an empty text. Raises `Problem` where it
    has been removed.
    """
    with _changing:
        replies = read_written(file)
        if number not in {str(reply.number) for reply in replies}:
            raise Problem(
                "not-found",
                gettext_lazy("This reply has been struck out already."),
                gettext_lazy("Load the page again."),
            )
        changed = []
        for reply in replies:
            if str(reply.number) != number:
                changed.append(reply)
            elif text:
                changed.append(replace(reply, reply=text))
        store_written(file, changed)
