"""`/dashboard/training/ID/written`: the replies that a model has written from a card, to read, change and
strike out before they are trained on.
"""

import asyncio
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, localisable_number
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.web import run_view
from bot.training.web.requests import require_job
from personas.home.written_replies import (
    WrittenReply,
    read_begun,
    read_summary,
    read_written,
    store_written,
    written_file,
)
from personas.schemas.training import WrittenReplies
from personas.schemas.training_events import Phase

REPLIES_PER_PAGE = 25
MAX_REPLY_CHARS = 2000
routes = Routes()
_changing = threading.Lock()
"""Two moderators read one file: the later change keeps the earlier one."""


@dataclass(frozen=True)
class Written:
    """What a model has written for a job so far. `is_whole`: nothing more is written; `summary` says
    what became of it, where that is known.
    """

    replies: list[WrittenReply]
    is_whole: bool
    summary: WrittenReplies | None


def can_change(job: TrainingJob) -> bool:
    """Report whether changes of a job's written replies still have an effect: nothing trains on
    them yet, and the job can go on.
    """
    return job.state == "failed" and job.can_resume


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}/written")
async def get_written_page(request: web.Request) -> web.Response:
    """Page of the written replies in order, with a form for each while they can be changed."""
    job = require_job(request)
    return await render_written(request, job, run_view.run_path(job.job_id))


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/written")
async def post_written_page(request: web.Request) -> web.Response:
    """Change a written reply, or strike it out. Raises `Problem` where it is trained on already."""
    job = require_job(request)
    return await change_written(request, job, run_view.run_path(job.job_id))


async def render_written(
    request: web.Request, job: TrainingJob, run_path: str, *, may_change: bool = True
) -> web.Response:
    """Render the page of a job's written replies, below the page of its run."""
    require_known_parameters(request, "first")
    services = get_services(request)
    written = await asyncio.to_thread(_read, job_folder(services.home, job.job_id))
    replies = written.replies
    first = integer_query(request, "first", 0, len(replies)) or 0
    shown = replies[first : first + REPLIES_PER_PAGE]
    after = first + len(shown)
    return render_page(
        request,
        "training/written.html",
        title=gettext_lazy("Written for {job_label}", job_label=run_view.job_label(services, job)),
        job=job,
        run_path=run_path,
        replies=shown,
        count=len(replies),
        first=first,
        summary=written.summary,
        state="" if written.is_whole else _state_text(services, job, len(replies)),
        goes_on=not written.is_whole and not job.has_ended,
        can_change=may_change and written.is_whole and can_change(job),
        most_chars=MAX_REPLY_CHARS,
        next=f"{run_path}/written?first={after}" if after < len(replies) else "",
    )


def _state_text(services: Services, job: TrainingJob, count: int) -> LocalisableText:
    """Say how many replies are written so far, and why no more are."""
    progress = job.progress
    wanted = progress.of if isinstance(progress, Phase) and progress.of else None
    so_far = gettext_lazy("Nothing is written yet.")
    if count:
        so_far = gettext_lazy("{count} are written so far.", count=localisable_number(f"{count:,}"))
    if count and wanted:
        so_far = gettext_lazy(
            "{count} of {wanted} are written so far.",
            count=localisable_number(f"{count:,}"),
            wanted=localisable_number(f"{max(wanted, count):,}"),
        )
    if job.state == "running":
        rest = gettext_lazy("The others are being written now, and appear here.")
    elif job.state == "queued":
        rest = gettext_lazy("The others are written once it is this training's turn.")
    elif job.can_resume:
        rest = gettext_lazy("The training has stopped. Resume writes the others.")
    else:
        rest = gettext_lazy("The training has ended, and no more are written.")
    return join_texts(so_far, rest)


async def change_written(request: web.Request, job: TrainingJob, run_path: str) -> web.Response:
    """Change a written reply of a job as a form says, or strike it out. Raises `Problem` where it is
    trained on already.
    """
    services = get_services(request)
    form = await read_form(request)
    file = written_file(job_folder(services.home, job.job_id))
    if not can_change(job) or not file.exists():
        raise Problem(
            "conflict",
            gettext_lazy("These replies cannot be changed now, or not any more."),
            gettext_lazy(
                "Start another training from the card, and choose to read the replies first."
            ),
        )
    text = form.get("reply", "").strip()
    strikes = form.get("do") == "strike"
    if not strikes:
        _require_usable(text)
    await asyncio.to_thread(_change, file, form.get("number", ""), "" if strikes else text)
    first = form.get("first", "").lstrip("0")
    query = f"?first={first}" if first.isascii() and first.isdecimal() else ""
    return redirect_to(
        request,
        f"{run_path}/written{query}",
        gettext_lazy("Struck out.") if strikes else gettext_lazy("Changed."),
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


def _read(folder: Path) -> Written:
    file = written_file(folder)
    if file.exists():
        return Written(read_written(file), True, read_summary(folder))
    return Written(read_begun(folder), False, None)


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
