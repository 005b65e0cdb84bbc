"""`/uploads`: files that are brought in, what they are, and whose."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from aiohttp import web
from pydantic import AfterValidator, Field, ValidationInfo

from bot.web.bodies import json_object, parsed
from bot.web.data.doing import delete_upload, look_into, state_right
from bot.web.data.forms import taken
from bot.web.data.places import Places
from bot.web.data.rights_file import statement_in, wrong_with
from bot.web.data.sources import Source, upload_in, uploads_in
from bot.web.data.state import state_of
from bot.web.here import Route, house_of
from bot.web.openapi import Answer, Body, described, one_of
from bot.web.paging import PAGED, choice, links, paged, require_known
from personas.contract import Contract

TAG = "data"
READ_BYTES = 2**18
TEXT: dict[str, Any] = {"type": "string"}
NAME = {"name": "The file's name; its kind is told by its end (.json, .jsonl, .csv, .parquet, .zip, .txt, .md …)."}
NO_UPLOAD = "There is no such upload."
BAD_NAME = "No file can be called so."
OR_NONE = {"type": ["object", "null"]}
SOURCE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind", "origin", "right", "may_train", "train_with"],
    "properties": {
        "id": TEXT,
        "kind": {"type": "string", "enum": ["source", "set"]},
        "origin": TEXT,
        "bytes": {"type": ["integer", "null"]},
        "changed_at": {"type": ["string", "null"]},
        "right": OR_NONE,
        "may_train": {"type": "boolean"},
        "refused": {"type": ["string", "null"]},
        "advice": {"type": ["string", "null"]},
        "about": OR_NONE,
        "looking_into": OR_NONE,
        "train_with": {"type": "object", "additionalProperties": TEXT},
        "links": {"type": "object", "additionalProperties": TEXT},
    },
}
WORK: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind", "subject", "state", "said", "error"],
    "properties": {
        "id": TEXT,
        "kind": {"type": "string", "enum": ["inspect", "build"]},
        "subject": TEXT,
        "state": {"type": "string", "enum": ["waiting", "running", "done", "failed", "cancelled"]},
        "said": TEXT,
        "error": {"type": ["string", "null"]},
        "links": {"type": "object", "additionalProperties": TEXT},
    },
}
UPLOADS = {
    "type": "object",
    "required": ["uploads", "links"],
    "properties": {"uploads": {"type": "array", "items": SOURCE}, "links": {"type": "object"}},
}
UPLOADED = {
    "type": "object",
    "required": ["name", "bytes", "sha256"],
    "properties": {"name": TEXT, "bytes": {"type": "integer"}, "sha256": TEXT, "links": {"type": "object"}},
}


def _stated(value: str, info: ValidationInfo) -> str:
    if wrong := wrong_with(info.field_name or "", value):
        raise ValueError(f"the statement {wrong}")
    return value


Stated = AfterValidator(_stated)


class RightBody(Contract):
    """Who states which right to a file, when and why; `right` as in `rights.toml`."""

    right: Annotated[str, Field(max_length=80), Stated]
    stated_by: Annotated[str, Field(min_length=1, max_length=500), Stated]
    stated_on: Annotated[str, Field(min_length=1, max_length=40), Stated]
    why: Annotated[str, Field(min_length=1, max_length=500), Stated]


def source_json(source: Source) -> dict[str, Any]:
    """A source with its links."""
    path = upload_path(source.name) if source.is_upload else f"/datasets/{quote(source.id)}"
    more = {"right": f"{path}/right", "inspect": f"{path}/inspect"} if source.is_upload else {}
    return {**source.as_json(), "links": {"self": path, **more}}


def upload_path(name: str) -> str:
    """Where an upload is."""
    return f"/uploads/{quote(name)}"


@described("Files that were uploaded", {200: Answer("A page of them, by name.", UPLOADS)}, tag=TAG, query=PAGED)
async def get_uploads(request: web.Request) -> web.Response:
    """What they are, as far as it has been looked into, and what is stated of each."""
    house, asked = house_of(request), paged(request)
    every = sorted(await asyncio.to_thread(uploads_in, house.home), key=lambda source: source.name)
    found = [source for source in every if asked.after is None or source.name > asked.after]
    last = found[asked.limit - 1].name if len(found) > asked.limit else None
    shown = [source_json(source) for source in found[: asked.limit]]
    return web.json_response({"uploads": shown, "links": links(request, asked, last)})


@described(
    "Upload a file",
    {
        201: Answer("It is here, with the bytes and the SHA-256 of what came.", UPLOADED),
        400: "It broke off, or the query asks for something that cannot be.",
        409: "There is a file of that name, or one is coming in.",
        413: "It is larger than MAX_UPLOAD_GIB.",
        415: "Files of its kind are not read, or it begins as another kind.",
        422: BAD_NAME,
        507: "The disk has no room for it.",
    },
    tag=TAG,
    path=NAME,
    query={"replace": one_of(("true", "false"), "Whether it takes the place of a file of the same name.")},
    body=Body({"type": "string", "format": "binary"}, media="application/octet-stream"),
)
async def put_upload(request: web.Request) -> web.Response:
    """The body is the file, streamed to the disk. Nothing may be trained on until a right is stated."""
    house, state = house_of(request), state_of(request)
    require_known(request, "replace")
    replace = choice(request, "replace", ("true", "false")) == "true"
    place = Places(house.home).upload(request.match_info["name"])
    read = partial(request.content.read, READ_BYTES)
    received = await taken(
        read, place, state, replace=replace, most_bytes=house.max_upload_bytes, expected_bytes=request.content_length
    )
    path = upload_path(place.name)
    told = {"name": place.name, "bytes": received.bytes, "sha256": received.sha256, "links": {"self": path}}
    return web.json_response(told, status=201, headers={"Location": path})


@described(
    "One upload", {200: Answer("What it is, and whose.", SOURCE), 404: NO_UPLOAD, 415: BAD_NAME, 422: BAD_NAME},
    tag=TAG, path=NAME,
)  # fmt: skip
async def get_upload(request: web.Request) -> web.Response:
    """Whether it may be trained on, how a training names it, and how looking into it goes (`looking_into`)."""
    source = await asyncio.to_thread(upload_in, house_of(request).home, request.match_info["name"])
    work = state_of(request).works.latest("inspect", source.name)
    return web.json_response({**source_json(source), "looking_into": work.as_json() if work else None})


@described(
    "Delete an upload",
    {204: "It is gone.", 404: NO_UPLOAD, 409: "Something is being made of it.", 415: BAD_NAME, 422: BAD_NAME},
    tag=TAG,
    path=NAME,
)
async def remove_upload(request: web.Request) -> web.Response:
    """What was stated of it goes, too; data sets that were made of it stay."""
    await delete_upload(house_of(request), state_of(request), request.match_info["name"])
    return web.Response(status=204)


@described(
    "State a right to an upload",
    {200: Answer("The upload; `may_train` says what is decided.", SOURCE), 404: NO_UPLOAD,
     409: "rights.toml beside the uploads cannot be read."},
    tag=TAG,
    path=NAME,
    body=Body(RightBody, example={"right": "own-writing", "stated_by": "Mina Vale", "stated_on": "2026-11-20",
                                  "why": "Written for this server."}),
)  # fmt: skip
async def put_right(request: web.Request) -> web.Response:
    """Whoever states it answers for it; docs/privacy.md says what each right means."""
    body = parsed(RightBody, await json_object(request))
    statement = statement_in(body.model_dump())
    return web.json_response(source_json(await state_right(house_of(request), request.match_info["name"], statement)))


@described(
    "Take back a right",
    {200: Answer("The upload.", SOURCE), 404: NO_UPLOAD, 409: "rights.toml beside the uploads cannot be read.",
     415: BAD_NAME, 422: BAD_NAME},
    tag=TAG,
    path=NAME,
)  # fmt: skip
async def remove_right(request: web.Request) -> web.Response:
    """Nothing is trained on it any more; what was made of it stays."""
    return web.json_response(source_json(await state_right(house_of(request), request.match_info["name"], None)))


@described(
    "Look into an upload",
    {202: Answer("It is being looked into: GET the upload again for `about`, or the error in `looking_into`.", WORK),
     404: NO_UPLOAD, 409: "It is being looked into.", 415: BAD_NAME, 422: BAD_NAME},
    tag=TAG,
    path=NAME,
)  # fmt: skip
async def post_inspect(request: web.Request) -> web.Response:
    """The trainer reads all of it: its format, how much of it can be used, and why the rest cannot."""
    house, name = house_of(request), request.match_info["name"]
    source = await asyncio.to_thread(upload_in, house.home, name)
    work = look_into(house, state_of(request), source.name)
    told = {**work.as_json(), "links": {"upload": upload_path(source.name)}}
    return web.json_response(told, status=202)


ROUTES: tuple[Route, ...] = (
    ("GET", "/uploads", get_uploads),
    ("GET", "/uploads/{name}", get_upload),
    ("PUT", "/uploads/{name}", put_upload),
    ("DELETE", "/uploads/{name}", remove_upload),
    ("PUT", "/uploads/{name}/right", put_right),
    ("DELETE", "/uploads/{name}/right", remove_right),
    ("POST", "/uploads/{name}/inspect", post_inspect),
)
