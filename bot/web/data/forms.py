"""What a form of the data pages sends: fields, and files that are streamed to the disk as they come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import BodyPartReader, web

from bot.web.bodies import form_of
from bot.web.data.places import Places
from bot.web.data.receiving import Read, Received, receive, require_free
from bot.web.data.rights_file import state as state_right
from bot.web.data.sources import forget_about
from bot.web.data.state import State
from bot.web.here import house_of
from bot.web.problems import Problem

LONGEST_FIELD_BYTES = 4096
CHUNK_BYTES = 2**18


@dataclass
class Sent:
    """The short fields of a form that brought a file, and the file that came in."""

    fields: dict[str, str] = field(default_factory=dict)
    received: Received | None = None


async def fields_of(request: web.Request) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The fields of a form without files: the last of each name, and all of each. Raises `Problem`."""
    form = await form_of(request)
    return dict(form.items()), {name: form.getall(name) for name in form}


async def file_of(request: web.Request, state: State, places: Places) -> Sent:
    """Take in the file of a multipart form: a part `file`, or `text` that was pasted, which `name` names.

    Fields that decide how it is taken stand before it. Raises `Problem`.
    """
    if request.content_type != "multipart/form-data":
        raise Problem("not-json-type", f"The form is sent as {request.content_type}.", "Send multipart/form-data.")
    sent, most_bytes = Sent(), house_of(request).max_upload_bytes
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                await _take(part, sent, state, places, most_bytes)
    except (ValueError, AssertionError) as error:  # what the reader says of a form that breaks off
        raise Problem("not-whole", "The form breaks off.", "Send it again.") from error
    if sent.received is None:
        raise Problem("invalid-request", "No file was chosen, and nothing was pasted.", "Choose a file, or paste text.")
    return sent


async def _take(part: BodyPartReader, sent: Sent, state: State, places: Places, most_bytes: int) -> None:
    read = partial(part.read_chunk, CHUNK_BYTES)
    if part.name not in ("file", "text"):
        sent.fields[part.name or ""] = await _short(read)
    elif sent.received is None:
        name = sent.fields.get("name", "").strip() or (part.filename or "")
        first = await read() if part.name == "text" or part.filename else b""
        if first:
            place = places.upload(name or "pasted.txt")
            replace = sent.fields.get("replace") == "yes"
            sent.received = await taken(_from(first, read), place, state, replace=replace, most_bytes=most_bytes)


async def taken(
    read: Read, place: Path, state: State, *, replace: bool, most_bytes: int, expected_bytes: int | None = None
) -> Received:
    """Take a file in, one of each name at a time. What was found in an earlier file, and whose it was, goes."""
    require_free(place, replace)
    with state.incoming.of(place):
        received = await receive(read, place, expected_bytes=expected_bytes, replace=replace, most_bytes=most_bytes)
        await asyncio.to_thread(_forget_earlier, place)
    return received


def _forget_earlier(place: Path) -> None:
    forget_about(place)
    state_right(place, None)


async def _short(read: Read) -> str:
    """A field that is no file. Raises `Problem` for one that is too long."""
    value = bytearray()
    while piece := await read():
        value += piece
        if len(value) > LONGEST_FIELD_BYTES:
            raise Problem("too-large", "A field of the form is too long.", "Only a file and pasted text may be long.")
    return value.decode("utf-8", errors="replace")


def _from(first: bytes, read: Read) -> Read:
    """As `read`, but what was read of it already comes first."""
    waiting = [first]

    async def again() -> bytes:
        return waiting.pop() if waiting else bytes(await read())

    return again
