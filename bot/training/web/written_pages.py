"""`/dashboard/training/ID/written`: the replies that a model has written from a card, to read, change,
strike out and put back before they are trained on.
"""

import asyncio
import threading
from collections.abc import Iterable
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
    read_struck,
    read_summary,
    read_written,
    store_written,
    struck_file,
    written_file,
)
from personas.schemas.training import WrittenReplies
from personas.schemas.training_events import Phase

REPLIES_PER_PAGE = 25
MAX_REPLY_CHARS = 2000
MIN_REPLIES_LEFT = 2
"""A training learns from one, and is measured with another."""
routes = Routes()
_changing = threading.Lock()
"""Two moderators read one file: the later change keeps the earlier one."""


@dataclass(frozen=True)
class Written:
    """What a model has written for a job so far, by the numbers of the questions, with what was struck
    out. `is_whole`: nothing more is written; `summary` says what became of it, where that is known.
    """

    replies: list[WrittenReply]
    is_whole: bool
    summary: WrittenReplies | None
    struck: frozenset[int] = frozenset()


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
    """Change a written reply, strike it out, or put it back. Raises `Problem` where it is trained on already."""
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
        left=len(replies) - len(written.struck),
        struck=written.struck,
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
    """Change a written reply of a job as a form says, strike it out, or put it back. Raises `Problem`
    where it is trained on already.
    """
    services = get_services(request)
    form = await read_form(request)
    folder = job_folder(services.home, job.job_id)
    if not can_change(job) or not written_file(folder).exists():
        raise Problem(
            "conflict",
            gettext_lazy("These replies cannot be changed now, or not any more."),
            gettext_lazy(
                "Start another training from the card, and choose to read the replies first."
            ),
        )
    number = form.get("number", "")
    match form.get("do"):
        case "strike":
            await asyncio.to_thread(_strike, folder, number)
            done = gettext_lazy("Struck out.")
        case "put-back":
            await asyncio.to_thread(_put_back, folder, number)
            done = gettext_lazy("Put back.")
        case _:
            text = form.get("reply", "").strip()
            _require_usable(text)
            await asyncio.to_thread(_change, folder, number, text)
            done = gettext_lazy("Changed.")
    first = form.get("first", "").lstrip("0")
    query = f"?first={first}" if first.isascii() and first.isdecimal() else ""
    return redirect_to(
        request,
        f"{run_path}/written{query}",
        done,
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
    if not file.exists():
        return Written(read_begun(folder), False, None)
    with _changing:
        left = read_written(file)
        struck = _struck_beside(folder, left)
    numbers = frozenset(reply.number for reply in struck)
    return Written(_in_order([*left, *struck]), True, read_summary(folder), numbers)


def _struck_beside(folder: Path, left: list[WrittenReply]) -> list[WrittenReply]:
    """Read what was struck out; one that a kill has left in both files is not."""
    numbers = {reply.number for reply in left}
    return [reply for reply in read_struck(folder) if reply.number not in numbers]


def _in_order(replies: Iterable[WrittenReply]) -> list[WrittenReply]:
    return sorted(replies, key=lambda reply: reply.number)


def _take(replies: list[WrittenReply], number: str) -> WrittenReply:
    """Take the reply with this number out of others. Raises `Problem` where it is not among them."""
    for reply in replies:
        if str(reply.number) == number:
            replies.remove(reply)
            return reply
    raise Problem(
        "not-found",
        gettext_lazy("This reply has been changed meanwhile."),
        gettext_lazy("Load the page again."),
    )


def _change(folder: Path, number: str, text: str) -> None:
    """Replace the reply with this number. Raises `Problem` where it has been struck out."""
    with _changing:
        left = read_written(written_file(folder))
        reply = _take(left, number)
        if text != reply.reply:
            reply = replace(reply, reply=text, by="edited")
        store_written(written_file(folder), _in_order([*left, reply]))


def _strike(folder: Path, number: str) -> None:
    """Strike out the reply with this number. Raises `Problem` where it has been struck out, or too few
    would be left.
    """
    with _changing:
        left = read_written(written_file(folder))
        reply = _take(left, number)
        if len(left) < MIN_REPLIES_LEFT:
            raise Problem(
                "conflict",
                gettext_lazy(
                    "These are the last replies: without them, nothing is to be trained on."
                ),
                gettext_lazy("Change them, or put others back first."),
            )
        # First where it can be put back from: a kill in between loses nothing.
        store_written(struck_file(folder), [*_struck_beside(folder, [*left, reply]), reply])
        store_written(written_file(folder), left)


def _put_back(folder: Path, number: str) -> None:
    """Put back the reply with this number. Raises `Problem` where it was not struck out."""
    with _changing:
        left = read_written(written_file(folder))
        struck = _struck_beside(folder, left)
        reply = _take(struck, number)
        store_written(written_file(folder), _in_order([*left, reply]))
        store_written(struck_file(folder), struck)
