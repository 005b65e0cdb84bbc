"""`/dashboard/data`: data sources, uploads and the rights to them, and data jobs."""

import asyncio
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import quote

from aiohttp import BodyPartReader, web

from bot.data import sources as data_sources
from bot.data.actions import upload_place
from bot.data.errors import InvalidFieldsError
from bot.data.folders import FILE_SUFFIXES, GZIP_SUFFIX, DataFolders
from bot.data.rights import LICENSED_RIGHT, RIGHT_CHOICES, parse_rights
from bot.data.trash import DataKind
from bot.data.upload_stream import ReadChunk, ReceivedFile, max_upload_bytes
from bot.data.web.forms import offer_fields, parse_map_form, parse_offer_form, statement_fields
from bot.data.web.problems import OFFER_ERRORS, form_problem, offer_problem
from bot.data.web.requests import require_job, stream_job_progress
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import flag_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    FORM_CHUNK_BYTES,
    read_form,
    read_form_part,
    read_multipart,
)
from bot.platform.web_kit.templating import DASHBOARD, redirect_to, render_page

DATA_PATH = f"{DASHBOARD}/data"
FOREIGN_ORIGINS = (data_sources.SHIPPED_ORIGIN, data_sources.PUBLISHED_ORIGIN)
MAX_FIELD_BYTES = 4096
WITHDRAWN_TEXT = "It is withdrawn: moderators cannot name it any more."
routes = Routes()


@routes.add(f"GET {DATA_PATH}", section="Data")
async def get_data_page(request: web.Request) -> web.Response:
    """Page with all sources and data sets, and the upload form."""
    services = get_services(request)
    jobs = services.data_jobs
    sources = await services.data.sources()
    sets, faults = await services.data.datasets()
    places = DataFolders(services.home)
    room = await asyncio.to_thread(max_upload_bytes, places.uploads)
    ours = []
    for source in sources:
        if source.origin not in FOREIGN_ORIGINS and not source.is_set:
            ours.append(source)
    return render_page(
        request,
        "data/index.html",
        title="Data",
        ours=ours,
        shipped=[source for source in sources if source.origin == data_sources.SHIPPED_ORIGIN],
        published=[source for source in sources if source.origin == data_sources.PUBLISHED_ORIGIN],
        sets=sets,
        removed=await asyncio.to_thread(services.data.removed),
        damaged=[*data_sources.catalog_errors(services.home), *faults],
        open_jobs=[job for job in jobs.open() if job.kind not in ("import", "model")],
        failed=jobs.failed("build"),
        kinds=FILE_SUFFIXES,
        packed=GZIP_SUFFIX,
        room=min(services.max_upload_bytes, room),
    )


@routes.add(f"POST {DATA_PATH}/uploads")
async def post_upload(request: web.Request) -> web.Response:
    """Store a file, or pasted text, and have the trainer inspect it."""
    name = await _store_form_upload(request)
    get_services(request).data.inspect_upload(name)
    return redirect_to(
        request,
        upload_page_path(name),
        f"{name} is here. State the right to it below.",
    )


@routes.add(f"PUT {DATA_PATH}/uploads/{{name}}")
async def put_upload(request: web.Request) -> web.Response:
    """Stream a file to the disk for the page's script; the body is the file."""
    require_known_parameters(request, "replace")
    received = await get_services(request).data.store_upload(
        partial(request.content.read, FORM_CHUNK_BYTES),
        request.match_info["name"],
        replace=flag_query(request, "replace"),
        expected_bytes=request.content_length,
    )
    name = received.path.name
    return web.json_response({"name": name, "bytes": received.bytes}, status=201)


async def _store_form_upload(request: web.Request) -> str:
    """Stream the part `file` or `text` of a form to disk; returns its name. Raises `Problem`.

    The parts `name` and `replace`, which decide how it is stored, come before it.
    """
    data = get_services(request).data
    fields: dict[str, str] = {}
    stored: list[ReceivedFile] = []

    async def read_part(part: BodyPartReader) -> None:
        if part.name not in ("file", "text"):
            content = await read_form_part(part, MAX_FIELD_BYTES)
            fields[part.name or ""] = content.decode("utf-8", errors="replace")
            return
        read = partial(part.read_chunk, FORM_CHUNK_BYTES)
        first = b""
        if not stored and (part.name == "text" or part.filename):
            first = await read()
        # Browsers send fields that were left empty, too.
        if first:
            name = fields.get("name", "").strip() or part.filename or "pasted.txt"
            replace = fields.get("replace") == "yes"
            chunks = _prepend_chunk(first, read)
            stored.append(await data.store_upload(chunks, name, replace=replace))

    await read_multipart(request, read_part)
    if not stored:
        raise Problem(
            "invalid-request",
            "No file was chosen, and nothing was pasted.",
            "Choose a file, or paste text.",
        )
    return stored[0].path.name


def _prepend_chunk(first: bytes, read: ReadChunk) -> ReadChunk:
    """Return a reader that yields `first` before the rest."""
    waiting = [first]

    async def read_next() -> bytes:
        return waiting.pop() if waiting else bytes(await read())

    return read_next


@routes.add(f"GET {DATA_PATH}/uploads/{{name}}")
async def get_upload_page(request: web.Request) -> web.Response:
    """Page of an upload and the right stated to it."""
    source = await get_services(request).data.upload(request.match_info["name"])
    return _render_upload(request, source)


def _render_upload(
    request: web.Request,
    source: data_sources.DataSource,
    given: dict[str, str] | None = None,
    problem: Problem | None = None,
    offer: dict[str, str] | None = None,
    mapping: str | None = None,
) -> web.Response:
    services = get_services(request)
    default_name = Path(source.name).stem.partition(".")[0]
    offered = offer_fields(services, upload_place(source.name), default_name)
    return render_page(
        request,
        "data/upload.html",
        title=source.name,
        problem=problem,
        source=source,
        job=services.data_jobs.latest("inspect", source.name),
        choices=RIGHT_CHOICES,
        licensed=LICENSED_RIGHT,
        given=given or statement_fields(source.statement),
        map=_map_text(source, mapping),
        offer=offered | (offer or {}),
    )


def _map_text(source: data_sources.DataSource, given: str | None) -> str:
    """The pairs for the form, one a line: those that were sent, else those that are stored, else
    the proposal.
    """
    if given is not None:
        return given
    pairs = source.mapping
    if not pairs and source.about and source.about.question:
        pairs = source.about.question.pairs
    return "\n".join(pairs)


@routes.add(f"POST {DATA_PATH}/uploads/{{name}}/columns")
async def post_columns(request: web.Request) -> web.Response:
    """Store which column of an upload is what, and inspect it again."""
    services = get_services(request)
    name = request.match_info["name"]
    given = dict((await read_form(request)).items())
    try:
        pairs = () if given.get("take_back") else parse_map_form(given)
        await services.data.set_columns(name, pairs)
    except Problem as problem:
        if not problem.errors:
            raise
        source = await services.data.upload(name)
        return _render_upload(request, source, problem=problem, mapping=given.get("map", ""))
    message = "The columns are withdrawn."
    if pairs:
        message = "The columns are stored; the file is read again."
    return redirect_to(request, upload_page_path(name), message)


@routes.add(f"POST {DATA_PATH}/uploads/{{name}}/right")
async def post_right(request: web.Request) -> web.Response:
    """Store the right stated to an upload, or remove it."""
    services = get_services(request)
    name = request.match_info["name"]
    given = dict((await read_form(request)).items())
    if given.get("take_back"):
        await services.data.set_right(name, None)
        return redirect_to(
            request,
            upload_page_path(name),
            "The right is withdrawn; it cannot be trained on.",
        )
    try:
        source = await services.data.set_right(name, parse_rights(given))
    except InvalidFieldsError as error:
        source = await services.data.upload(name)
        fields = statement_fields(source.statement) | given
        return _render_upload(request, source, fields, form_problem(error, services))
    right = source.statement.right if source.statement else ""
    message = source.refused or f"{source.name} can be trained on: {right}."
    return redirect_to(request, upload_page_path(name), message)


@routes.add(f"POST {DATA_PATH}/uploads/{{name}}/catalogue")
async def post_upload_offer(request: web.Request) -> web.Response:
    """Let moderators use an upload, or withdraw it from them."""
    services = get_services(request)
    name = request.match_info["name"]
    given = dict((await read_form(request)).items())
    if given.get("take_back"):
        await services.data.withdraw_upload(name)
        return redirect_to(request, upload_page_path(name), WITHDRAWN_TEXT)
    try:
        offer = parse_offer_form(given)
        await services.data.offer_upload(name, offer)
    except OFFER_ERRORS as error:
        source = await services.data.upload(name)
        problem = offer_problem(error, services)
        return _render_upload(request, source, problem=problem, offer=given)
    return redirect_to(request, upload_page_path(name), offered_text(offer.name))


# ----------------------------------------------------------------------------------- published sets


async def _require_published(request: web.Request) -> data_sources.DataSource:
    """The published data set of the address. Raises `Problem`."""
    name = request.match_info["name"]
    for source in await get_services(request).data.sources():
        if source.name == name and source.entry and source.entry.about:
            return source
    raise Problem(
        "not-found",
        f"There is no published data set {name!r}.",
        f"See {DATA_PATH}.",
    )


@routes.add(f"GET {DATA_PATH}/published/{{name}}")
async def get_published_page(request: web.Request) -> web.Response:
    """Page of a published data set: facts, licence, and the button that fetches it."""
    return _render_published(request, await _require_published(request))


def _render_published(
    request: web.Request,
    source: data_sources.DataSource,
    given: dict[str, str] | None = None,
    problem: Problem | None = None,
) -> web.Response:
    services = get_services(request)
    entry = source.entry
    assert entry is not None  # every published data set has one
    return render_page(
        request,
        "data/published.html",
        title=source.name,
        problem=problem,
        source=source,
        entry=entry,
        about=entry.about,
        record=entry.record,
        job=services.data_jobs.latest("fetch", source.name),
        policy=services.fetch_datasets,
        room=shutil.disk_usage(services.home).free,
        choices=RIGHT_CHOICES[:-1],
        licensed=LICENSED_RIGHT,
        given=statement_fields(source.statement) | (given or {}),
    )


@routes.add(f"POST {DATA_PATH}/published/{{name}}/fetch")
async def post_fetch_page(request: web.Request) -> web.Response:
    """Start to fetch a published data set."""
    source = await _require_published(request)
    get_services(request).data.fetch(source.name)
    return redirect_to(request, _published_path(source.name))


@routes.add(f"POST {DATA_PATH}/published/{{name}}/catalogue")
async def post_published_offer(request: web.Request) -> web.Response:
    """State a right to a published data set without licence, or withdraw it."""
    services = get_services(request)
    source = await _require_published(request)
    given = dict((await read_form(request)).items())
    if given.get("take_back"):
        await services.data.withdraw_dataset(source.name)
        return redirect_to(request, _published_path(source.name), WITHDRAWN_TEXT)
    try:
        offer = parse_offer_form({**given, "name": source.name})
        await services.data.offer_dataset(source.name, offer)
    except OFFER_ERRORS as error:
        return _render_published(request, source, given, offer_problem(error, services))
    return redirect_to(request, _published_path(source.name), offered_text(source.name))


def _published_path(name: str) -> str:
    return f"{DATA_PATH}/published/{quote(name)}"


@routes.add(f"POST {DATA_PATH}/uploads/{{name}}/inspect")
async def inspect_again(request: web.Request) -> web.Response:
    data = get_services(request).data
    source = await data.upload(request.match_info["name"])
    data.inspect_upload(source.name)
    return redirect_to(request, upload_page_path(source.name))


@routes.add(f"POST {DATA_PATH}/uploads/{{name}}/delete")
async def delete_upload_page(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    await get_services(request).data.delete_upload(name)
    text = f"{name} is deleted. It can be brought back below for a day."
    return redirect_to(request, f"{DATA_PATH}#trash", text)


@routes.add(f"POST {DATA_PATH}/trash/{{kind}}/{{name}}/{{stamp}}")
async def bring_back_data(request: web.Request) -> web.Response:
    """Bring back an upload or data set that was deleted or replaced within the last day."""
    kind: DataKind = "dataset" if request.match_info["kind"] == "dataset" else "upload"
    name = request.match_info["name"]
    stamp = request.match_info["stamp"]
    is_offered = await get_services(request).data.bring_back(kind, name, stamp)
    text = f"{name} is back."
    if not is_offered:
        text += " Moderators cannot name it any more: offer it again."
    return redirect_to(request, DATA_PATH, text)


@routes.add(f"GET {DATA_PATH}/works/{{work_id}}/events")
async def get_job_events(request: web.Request) -> web.StreamResponse:
    return await stream_job_progress(request, require_job(request))


@routes.add(f"POST {DATA_PATH}/works/{{work_id}}/cancel")
async def cancel_job(request: web.Request) -> web.Response:
    job = require_job(request)
    await get_services(request).data_jobs.cancel(job)
    paths = {"inspect": upload_page_path(job.subject), "fetch": _published_path(job.subject)}
    paths["import"] = f"{DASHBOARD}/personas/{job.subject}/versions"
    paths["model"] = f"{DASHBOARD}/models"
    path = paths.get(job.kind, f"{DATA_PATH}/builds/{job.subject}")
    message = "Cancelled."
    if job.state != "cancelled":
        message = "It had ended already."
    return redirect_to(request, path, message)


def offered_text(name: str) -> str:
    """Say by which name moderators can use a data set now."""
    return f"Moderators can use it now: /finetune start dataset:{name}"


def upload_page_path(name: str) -> str:
    return f"{DATA_PATH}/uploads/{quote(name)}"
