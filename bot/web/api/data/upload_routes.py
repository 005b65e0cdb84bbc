"""`/uploads`: uploaded files, their inspection, and the rights stated for them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from aiohttp import web
from pydantic import AfterValidator, Field, ValidationInfo

from bot.web.api.data.data_folders import DataFolders
from bot.web.api.data.data_service import delete_upload, get_data_state, inspect_upload, set_right, store_upload
from bot.web.api.data.data_sources import DataSource, list_uploads, parse_rights_form, require_upload, statement_error
from bot.web.api.openapi import BodySpec, ResponseSpec, describe_operation, enum_parameter
from bot.web.api.paging import PAGE_PARAMETERS, enum_query, page_links, parse_page_query, require_known_parameters
from bot.web.app_context import Route, get_services
from bot.web.request_body import parse_body, read_json_object
from personas.schemas.base import FrozenModel

DATA_TAG = "data"
READ_CHUNK_BYTES = 2**18
STRING_SCHEMA: dict[str, Any] = {"type": "string"}
NAME_PARAMETER = {
    "name": "The file's name; its kind is told by its end (.json, .jsonl, .csv, .parquet, .zip, .txt, .md …)."
}
NO_UPLOAD_TEXT = "There is no such upload."
BAD_NAME_TEXT = "No file can be called so."
NULLABLE_OBJECT = {"type": ["object", "null"]}
SOURCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind", "origin", "right", "may_train", "train_with"],
    "properties": {
        "id": STRING_SCHEMA,
        "kind": {"type": "string", "enum": ["source", "set"]},
        "origin": STRING_SCHEMA,
        "bytes": {"type": ["integer", "null"]},
        "changed_at": {"type": ["string", "null"]},
        "right": NULLABLE_OBJECT,
        "may_train": {"type": "boolean"},
        "refused": {"type": ["string", "null"]},
        "advice": {"type": ["string", "null"]},
        "about": NULLABLE_OBJECT,
        "looking_into": NULLABLE_OBJECT,
        "train_with": {"type": "object", "additionalProperties": STRING_SCHEMA},
        "links": {"type": "object", "additionalProperties": STRING_SCHEMA},
    },
}
DATA_JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind", "subject", "state", "said", "error"],
    "properties": {
        "id": STRING_SCHEMA,
        "kind": {"type": "string", "enum": ["inspect", "build"]},
        "subject": STRING_SCHEMA,
        "state": {"type": "string", "enum": ["waiting", "running", "done", "failed", "cancelled"]},
        "said": STRING_SCHEMA,
        "error": {"type": ["string", "null"]},
        "links": {"type": "object", "additionalProperties": STRING_SCHEMA},
    },
}
UPLOAD_LIST_SCHEMA = {
    "type": "object",
    "required": ["uploads", "links"],
    "properties": {"uploads": {"type": "array", "items": SOURCE_SCHEMA}, "links": {"type": "object"}},
}
UPLOADED_FILE_SCHEMA = {
    "type": "object",
    "required": ["name", "bytes", "sha256"],
    "properties": {
        "name": STRING_SCHEMA,
        "bytes": {"type": "integer"},
        "sha256": STRING_SCHEMA,
        "links": {"type": "object"},
    },
}


def _check_statement_field(value: str, info: ValidationInfo) -> str:
    if wrong := statement_error(info.field_name or "", value):
        raise ValueError(f"the statement {wrong}")
    return value


StatementField = AfterValidator(_check_statement_field)


class RightBody(FrozenModel):
    """Who states which right to a file, when and why; `right` as in `rights.toml`."""

    right: Annotated[str, Field(max_length=80), StatementField]
    stated_by: Annotated[str, Field(min_length=1, max_length=500), StatementField]
    stated_on: Annotated[str, Field(min_length=1, max_length=40), StatementField]
    why: Annotated[str, Field(min_length=1, max_length=500), StatementField]


def source_json(source: DataSource) -> dict[str, Any]:
    """A source with its links."""
    path = upload_path(source.name) if source.is_upload else f"/datasets/{quote(source.id)}"
    more = {"right": f"{path}/right", "inspect": f"{path}/inspect"} if source.is_upload else {}
    return {**source.as_json(), "links": {"self": path, **more}}


def upload_path(name: str) -> str:
    """Where an upload is."""
    return f"/uploads/{quote(name)}"


@describe_operation(
    "Files that were uploaded",
    {200: ResponseSpec("A page of them, by name.", UPLOAD_LIST_SCHEMA)},
    tag=DATA_TAG,
    query=PAGE_PARAMETERS,
)
async def get_uploads(request: web.Request) -> web.Response:
    """What they are, as far as it has been looked into, and what is stated of each."""
    services, asked = get_services(request), parse_page_query(request)
    every = sorted(await asyncio.to_thread(list_uploads, services.home), key=lambda source: source.name)
    found = [source for source in every if asked.after is None or source.name > asked.after]
    last = found[asked.limit - 1].name if len(found) > asked.limit else None
    shown = [source_json(source) for source in found[: asked.limit]]
    return web.json_response({"uploads": shown, "links": page_links(request, asked, last)})


@describe_operation(
    "Upload a file",
    {
        201: ResponseSpec("It is here, with the bytes and the SHA-256 of what came.", UPLOADED_FILE_SCHEMA),
        400: "It broke off, or the query asks for something that cannot be.",
        409: "There is a file of that name, or one is coming in.",
        413: "It is larger than MAX_UPLOAD_GIB.",
        415: "Files of its kind are not read, or it begins as another kind.",
        422: BAD_NAME_TEXT,
        507: "The disk has no room for it.",
    },
    tag=DATA_TAG,
    path=NAME_PARAMETER,
    query={"replace": enum_parameter(("true", "false"), "Whether it takes the place of a file of the same name.")},
    body=BodySpec({"type": "string", "format": "binary"}, media="application/octet-stream"),
)
async def put_upload(request: web.Request) -> web.Response:
    """The body is the file, streamed to the disk. Nothing may be trained on until a right is stated."""
    services, state = get_services(request), get_data_state(request)
    require_known_parameters(request, "replace")
    replace = enum_query(request, "replace", ("true", "false")) == "true"
    place = DataFolders(services.home).upload(request.match_info["name"])
    read = partial(request.content.read, READ_CHUNK_BYTES)
    received = await store_upload(
        read, place, state, replace=replace, most_bytes=services.max_upload_bytes, expected_bytes=request.content_length
    )
    path = upload_path(place.name)
    told = {"name": place.name, "bytes": received.bytes, "sha256": received.sha256, "links": {"self": path}}
    return web.json_response(told, status=201, headers={"Location": path})


@describe_operation(
    "One upload",
    {
        200: ResponseSpec("What it is, and whose.", SOURCE_SCHEMA),
        404: NO_UPLOAD_TEXT,
        415: BAD_NAME_TEXT,
        422: BAD_NAME_TEXT,
    },
    tag=DATA_TAG,
    path=NAME_PARAMETER,
)
async def get_upload(request: web.Request) -> web.Response:
    """Whether it may be trained on, how a training names it, and how looking into it goes (`looking_into`)."""
    source = await asyncio.to_thread(require_upload, get_services(request).home, request.match_info["name"])
    work = get_data_state(request).works.latest("inspect", source.name)
    return web.json_response({**source_json(source), "looking_into": work.as_json() if work else None})


@describe_operation(
    "Delete an upload",
    {
        204: "It is gone.",
        404: NO_UPLOAD_TEXT,
        409: "Something is being made of it.",
        415: BAD_NAME_TEXT,
        422: BAD_NAME_TEXT,
    },
    tag=DATA_TAG,
    path=NAME_PARAMETER,
)
async def delete_upload_route(request: web.Request) -> web.Response:
    """What was stated of it goes, too; data sets that were made of it stay."""
    await delete_upload(get_services(request), get_data_state(request), request.match_info["name"])
    return web.Response(status=204)


@describe_operation(
    "State a right to an upload",
    {200: ResponseSpec("The upload; `may_train` says what is decided.", SOURCE_SCHEMA), 404: NO_UPLOAD_TEXT,
     409: "rights.toml beside the uploads cannot be read."},
    tag=DATA_TAG,
    path=NAME_PARAMETER,
    body=BodySpec(RightBody, example={"right": "own-writing", "stated_by": "Mina Vale", "stated_on": "2026-11-20",
                                  "why": "Written for this server."}),
)  # fmt: skip
async def put_right(request: web.Request) -> web.Response:
    """Whoever states it answers for it; docs/privacy.md says what each right means."""
    body = parse_body(RightBody, await read_json_object(request))
    statement = parse_rights_form(body.model_dump())
    return web.json_response(source_json(await set_right(get_services(request), request.match_info["name"], statement)))


@describe_operation(
    "Take back a right",
    {
        200: ResponseSpec("The upload.", SOURCE_SCHEMA),
        404: NO_UPLOAD_TEXT,
        409: "rights.toml beside the uploads cannot be read.",
        415: BAD_NAME_TEXT,
        422: BAD_NAME_TEXT,
    },
    tag=DATA_TAG,
    path=NAME_PARAMETER,
)
async def remove_right(request: web.Request) -> web.Response:
    """Nothing is trained on it any more; what was made of it stays."""
    return web.json_response(source_json(await set_right(get_services(request), request.match_info["name"], None)))


@describe_operation(
    "Look into an upload",
    {
        202: ResponseSpec(
            "It is being looked into: GET the upload again for `about`, or the error in `looking_into`.",
            DATA_JOB_SCHEMA,
        ),
        404: NO_UPLOAD_TEXT,
        409: "It is being looked into.",
        415: BAD_NAME_TEXT,
        422: BAD_NAME_TEXT,
    },
    tag=DATA_TAG,
    path=NAME_PARAMETER,
)
async def post_inspect(request: web.Request) -> web.Response:
    """The trainer reads all of it: its format, how much of it can be used, and why the rest cannot."""
    services, name = get_services(request), request.match_info["name"]
    source = await asyncio.to_thread(require_upload, services.home, name)
    work = inspect_upload(services, get_data_state(request), source.name)
    told = {**work.as_json(), "links": {"upload": upload_path(source.name)}}
    return web.json_response(told, status=202)


ROUTES: tuple[Route, ...] = (
    ("GET", "/uploads", get_uploads),
    ("GET", "/uploads/{name}", get_upload),
    ("PUT", "/uploads/{name}", put_upload),
    ("DELETE", "/uploads/{name}", delete_upload_route),
    ("PUT", "/uploads/{name}/right", put_right),
    ("DELETE", "/uploads/{name}/right", remove_right),
    ("POST", "/uploads/{name}/inspect", post_inspect),
)
