"""The pages about what there is to learn from: all of it, and one upload; and work that is being done on it."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from bot.web.data.doing import delete_upload, look_into, state_right, watched
from bot.web.data.forms import fields_of, file_of
from bot.web.data.places import KINDS, PACKED, Places
from bot.web.data.receiving import room_bytes
from bot.web.data.rights_file import CHOICES, LICENSED, statement_in
from bot.web.data.sample_index import prune
from bot.web.data.sets import sets_of
from bot.web.data.sources import SHIPPED, Source, faults_of, sources_of, upload_in
from bot.web.data.state import state_of
from bot.web.formats import today
from bot.web.frame import HOME, back_to, faults_in, page
from bot.web.here import Route, house_of
from bot.web.problems import Problem

DATA = f"{HOME}/data"


async def index(request: web.Request) -> web.Response:
    """All sources and data sets, and where files are brought in."""
    house, works = house_of(request), state_of(request).works
    sources = await asyncio.to_thread(sources_of, house)
    sets, faults = await asyncio.to_thread(sets_of, house)
    places = Places(house.home)
    await asyncio.to_thread(prune, house.home / "cache", [places.index(one.folder) for one in sets])
    return page(
        request,
        "data/index.html",
        title="Data",
        section="data",
        ours=[source for source in sources if source.origin != SHIPPED and not source.is_set],
        shipped=[source for source in sources if source.origin == SHIPPED],
        sets=sets,
        damaged=[*faults_of(house), *faults],
        going=works.going(),
        failed=works.failed("build"),
        kinds=KINDS,
        packed=PACKED,
        room=await asyncio.to_thread(room_bytes, places.uploads),
    )


async def bring_in(request: web.Request) -> web.Response:
    """A file, or what was pasted; then the trainer says what it is."""
    house, state = house_of(request), state_of(request)
    sent = await file_of(request, state, Places(house.home))
    assert sent.received is not None  # or there was a problem
    name = sent.received.path.name
    look_into(house, state, name)
    return back_to(request, upload_path(name), f"{name} is here. State below whose it is.")


async def upload_page(request: web.Request) -> web.Response:
    """What an upload is, and who states which right to it."""
    house = house_of(request)
    source = await asyncio.to_thread(upload_in, house.home, request.match_info["name"])
    return _upload_page(request, source)


def _upload_page(
    request: web.Request, source: Source, given: dict[str, str] | None = None, problem: Problem | None = None
) -> web.Response:
    works = state_of(request).works
    return page(
        request,
        "data/upload.html",
        title=source.name,
        section="data",
        status=problem.status if problem else 200,
        faults=faults_in(problem, {"right": f"right-{CHOICES[0][0]}"}),
        source=source,
        work=works.latest("inspect", source.name),
        choices=CHOICES,
        licensed=LICENSED,
        given=given or _as_given(source),
        wrong={one["field"]: one["detail"] for one in problem.errors} if problem else {},
    )


def _as_given(source: Source) -> dict[str, str]:
    """What the form about the right holds at first."""
    stated = source.statement
    if stated is None:
        return {"right": "", "licence": "", "stated_by": "", "stated_on": today(), "why": ""}
    kind, _, licence = stated.right.partition(":")
    return {"right": kind, "licence": licence, "stated_by": stated.stated_by, "stated_on": stated.stated_on,
            "why": stated.why}  # fmt: skip


async def right(request: web.Request) -> web.Response:
    """Take down who states which right to an upload, or take that back."""
    house, name = house_of(request), request.match_info["name"]
    given, _ = await fields_of(request)
    if given.get("take_back"):
        await state_right(house, name, None)
        return back_to(request, upload_path(name), "Nobody states a right to it any more: it trains nothing.")
    try:
        source = await state_right(house, name, statement_in(given))
    except Problem as problem:
        if not problem.errors:
            raise
        source = await asyncio.to_thread(upload_in, house.home, name)
        return _upload_page(request, source, _as_given(source) | given, problem)
    said = source.refused or f"{source.name} may be learned from: {source.statement.right if source.statement else ''}."
    return back_to(request, upload_path(name), said)


async def inspect(request: web.Request) -> web.Response:
    """Look into an upload again."""
    house, name = house_of(request), request.match_info["name"]
    await asyncio.to_thread(upload_in, house.home, name)
    look_into(house, state_of(request), name)
    return back_to(request, upload_path(name))


async def delete(request: web.Request) -> web.Response:
    """An upload goes, with what was stated of it."""
    name = request.match_info["name"]
    await delete_upload(house_of(request), state_of(request), name)
    return back_to(request, DATA, f"{name} is deleted.")


async def work_events(request: web.Request) -> web.StreamResponse:
    """How far work is, as it happens."""
    house_of(request)
    return await watched(request, state_of(request).works.get(request.match_info["work_id"]))


async def cancel_work(request: web.Request) -> web.Response:
    """End work that waits or runs."""
    house_of(request)
    works = state_of(request).works
    work = works.get(request.match_info["work_id"])
    await works.cancel(work)
    path = upload_path(work.subject) if work.kind == "inspect" else f"{DATA}/builds/{work.subject}"
    return back_to(request, path, "Cancelled." if work.state == "cancelled" else "It had ended already.")


def upload_path(name: str) -> str:
    """The page of an upload."""
    return f"{DATA}/uploads/{quote(name)}"


ROUTES: tuple[Route, ...] = (
    ("GET", DATA, index),
    ("POST", f"{DATA}/uploads", bring_in),
    ("GET", f"{DATA}/uploads/{{name}}", upload_page),
    ("POST", f"{DATA}/uploads/{{name}}/right", right),
    ("POST", f"{DATA}/uploads/{{name}}/inspect", inspect),
    ("POST", f"{DATA}/uploads/{{name}}/delete", delete),
    ("GET", f"{DATA}/works/{{work_id}}/events", work_events),
    ("POST", f"{DATA}/works/{{work_id}}/cancel", cancel_work),
)
