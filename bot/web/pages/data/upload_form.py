"""Reads the forms of the data pages; files are streamed to disk as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from aiohttp import BodyPartReader, web

from bot.web.api.data.data_folders import DataFolders
from bot.web.api.data.data_service import DataState, store_upload
from bot.web.api.data.upload_stream import ReadChunk, ReceivedFile
from bot.web.app_context import get_services
from bot.web.problems import Problem
from bot.web.request_body import read_form

MAX_FIELD_BYTES = 4096
CHUNK_BYTES = 2**18


@dataclass
class UploadForm:
    """The text fields of an upload form, and the received file."""

    fields: dict[str, str] = field(default_factory=dict)
    received: ReceivedFile | None = None


async def read_fields(request: web.Request) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The fields of a form without files: the last of each name, and all of each. Raises `Problem`."""
    form = await read_form(request)
    return dict(form.items()), {name: form.getall(name) for name in form}


async def read_upload_form(request: web.Request, state: DataState, places: DataFolders) -> UploadForm:
    """Take in the file of a multipart form: a part `file`, or `text` that was pasted, which `name` names.

    Fields that decide how it is taken stand before it. Raises `Problem`.
    """
    if request.content_type != "multipart/form-data":
        raise Problem("not-json-type", f"The form is sent as {request.content_type}.", "Send multipart/form-data.")
    sent, most_bytes = UploadForm(), get_services(request).max_upload_bytes
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                await _read_part(part, sent, state, places, most_bytes)
    except (ValueError, AssertionError) as error:  # what the reader says of a form that breaks off
        raise Problem("not-whole", "The form is incomplete.", "Send it again.") from error
    if sent.received is None:
        raise Problem("invalid-request", "No file was chosen, and nothing was pasted.", "Choose a file, or paste text.")
    return sent


async def _read_part(
    part: BodyPartReader, sent: UploadForm, state: DataState, places: DataFolders, most_bytes: int
) -> None:
    read = partial(part.read_chunk, CHUNK_BYTES)
    if part.name not in ("file", "text"):
        sent.fields[part.name or ""] = await _read_short_field(read)
    elif sent.received is None:
        name = sent.fields.get("name", "").strip() or (part.filename or "")
        first = await read() if part.name == "text" or part.filename else b""
        if first:
            place = places.upload(name or "pasted.txt")
            replace = sent.fields.get("replace") == "yes"
            sent.received = await store_upload(
                _prepend_chunk(first, read), place, state, replace=replace, most_bytes=most_bytes
            )


async def _read_short_field(read: ReadChunk) -> str:
    """A field that is no file. Raises `Problem` for one that is too long."""
    value = bytearray()
    while piece := await read():
        value += piece
        if len(value) > MAX_FIELD_BYTES:
            raise Problem("too-large", "A field of the form is too long.", "Only a file and pasted text may be long.")
    return value.decode("utf-8", errors="replace")


def _prepend_chunk(first: bytes, read: ReadChunk) -> ReadChunk:
    """Return a reader that yields `first` before the rest."""
    waiting = [first]

    async def again() -> bytes:
        return waiting.pop() if waiting else bytes(await read())

    return again
