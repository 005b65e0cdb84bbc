"""`/dashboard/data`: data sources, uploads and the rights to them, and data jobs."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from bot.web.api.data.built_datasets import list_datasets
from bot.web.api.data.data_folders import FILE_SUFFIXES, GZIP_SUFFIX, DataFolders
from bot.web.api.data.data_service import delete_upload, get_data_state, inspect_upload, set_right, stream_job_progress
from bot.web.api.data.data_sources import (
    LICENSED_RIGHT,
    RIGHT_CHOICES,
    SHIPPED_ORIGIN,
    DataSource,
    catalog_errors,
    list_sources,
    parse_rights_form,
    require_upload,
)
from bot.web.api.data.sample_index import prune_indexes
from bot.web.api.data.upload_stream import max_upload_bytes
from bot.web.app_context import Route, get_services
from bot.web.pages.data.upload_form import read_fields, read_upload_form
from bot.web.problems import Problem
from bot.web.template_filters import today_iso
from bot.web.templating import DASHBOARD, form_errors, redirect_to, render_page

DATA_PATH = f"{DASHBOARD}/data"


async def get_data_page(request: web.Request) -> web.Response:
    """Page with all sources and data sets, and the upload form."""
    services, works = get_services(request), get_data_state(request).works
    sources = await asyncio.to_thread(list_sources, services)
    sets, faults = await asyncio.to_thread(list_datasets, services)
    places = DataFolders(services.home)
    await asyncio.to_thread(prune_indexes, services.home / "cache", [places.index(one.folder) for one in sets])
    return render_page(
        request,
        "data/index.html",
        title="Data",
        section="data",
        ours=[source for source in sources if source.origin != SHIPPED_ORIGIN and not source.is_set],
        shipped=[source for source in sources if source.origin == SHIPPED_ORIGIN],
        sets=sets,
        damaged=[*catalog_errors(services), *faults],
        going=works.going(),
        failed=works.failed("build"),
        kinds=FILE_SUFFIXES,
        packed=GZIP_SUFFIX,
        room=await asyncio.to_thread(max_upload_bytes, places.uploads),
    )


async def post_upload(request: web.Request) -> web.Response:
    """A file, or what was pasted; then the trainer says what it is."""
    services, state = get_services(request), get_data_state(request)
    sent = await read_upload_form(request, state, DataFolders(services.home))
    assert sent.received is not None  # or there was a problem
    name = sent.received.path.name
    inspect_upload(services, state, name)
    return redirect_to(request, upload_page_path(name), f"{name} is here. State below whose it is.")


async def get_upload_page(request: web.Request) -> web.Response:
    """Page of an upload and the right stated to it."""
    services = get_services(request)
    source = await asyncio.to_thread(require_upload, services.home, request.match_info["name"])
    return _render_upload(request, source)


def _render_upload(
    request: web.Request, source: DataSource, given: dict[str, str] | None = None, problem: Problem | None = None
) -> web.Response:
    works = get_data_state(request).works
    return render_page(
        request,
        "data/upload.html",
        title=source.name,
        section="data",
        status=problem.status if problem else 200,
        faults=form_errors(problem, {"right": f"right-{RIGHT_CHOICES[0][0]}"}),
        source=source,
        work=works.latest("inspect", source.name),
        choices=RIGHT_CHOICES,
        licensed=LICENSED_RIGHT,
        given=given or _statement_fields(source),
        wrong={one["field"]: one["detail"] for one in problem.errors} if problem else {},
    )


def _statement_fields(source: DataSource) -> dict[str, str]:
    """Initial fields of the rights form."""
    stated = source.statement
    if stated is None:
        return {"right": "", "licence": "", "stated_by": "", "stated_on": today_iso(), "why": ""}
    kind, _, licence = stated.right.partition(":")
    return {"right": kind, "licence": licence, "stated_by": stated.stated_by, "stated_on": stated.stated_on,
            "why": stated.why}  # fmt: skip


async def post_right(request: web.Request) -> web.Response:
    """Take down who states which right to an upload, or take that back."""
    services, name = get_services(request), request.match_info["name"]
    given, _ = await read_fields(request)
    if given.get("take_back"):
        await set_right(services, name, None)
        return redirect_to(request, upload_page_path(name), "The right is withdrawn; it cannot be trained on.")
    try:
        source = await set_right(services, name, parse_rights_form(given))
    except Problem as problem:
        if not problem.errors:
            raise
        source = await asyncio.to_thread(require_upload, services.home, name)
        return _render_upload(request, source, _statement_fields(source) | given, problem)
    said = source.refused or f"{source.name} can be trained on: {source.statement.right if source.statement else ''}."
    return redirect_to(request, upload_page_path(name), said)


async def inspect_again(request: web.Request) -> web.Response:
    """Look into an upload again."""
    services, name = get_services(request), request.match_info["name"]
    await asyncio.to_thread(require_upload, services.home, name)
    inspect_upload(services, get_data_state(request), name)
    return redirect_to(request, upload_page_path(name))


async def delete_upload_page(request: web.Request) -> web.Response:
    """An upload goes, with what was stated of it."""
    name = request.match_info["name"]
    await delete_upload(get_services(request), get_data_state(request), name)
    return redirect_to(request, DATA_PATH, f"{name} is deleted.")


async def get_job_events(request: web.Request) -> web.StreamResponse:
    """Stream the progress of a job."""
    get_services(request)
    return await stream_job_progress(request, get_data_state(request).works.get(request.match_info["work_id"]))


async def cancel_job(request: web.Request) -> web.Response:
    """End work that waits or runs."""
    get_services(request)
    works = get_data_state(request).works
    work = works.get(request.match_info["work_id"])
    await works.cancel(work)
    path = upload_page_path(work.subject) if work.kind == "inspect" else f"{DATA_PATH}/builds/{work.subject}"
    return redirect_to(request, path, "Cancelled." if work.state == "cancelled" else "It had ended already.")


def upload_page_path(name: str) -> str:
    """The page of an upload."""
    return f"{DATA_PATH}/uploads/{quote(name)}"


ROUTES: tuple[Route, ...] = (
    ("GET", DATA_PATH, get_data_page),
    ("POST", f"{DATA_PATH}/uploads", post_upload),
    ("GET", f"{DATA_PATH}/uploads/{{name}}", get_upload_page),
    ("POST", f"{DATA_PATH}/uploads/{{name}}/right", post_right),
    ("POST", f"{DATA_PATH}/uploads/{{name}}/inspect", inspect_again),
    ("POST", f"{DATA_PATH}/uploads/{{name}}/delete", delete_upload_page),
    ("GET", f"{DATA_PATH}/works/{{work_id}}/events", get_job_events),
    ("POST", f"{DATA_PATH}/works/{{work_id}}/cancel", cancel_job),
)
