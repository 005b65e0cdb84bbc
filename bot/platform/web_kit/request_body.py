"""Reads request bodies of bounded size: JSON, forms and file uploads."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, ClientPayloadError, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict, MultiDictProxy

from bot.platform.errors import RefusedError, is_disk_full
from bot.platform.messages import without_escapes
from bot.platform.web_kit.problems import Problem, disk_full_problem
from personas.cli_common import commands_as_typed
from personas.errors import UnderstudyError

MAX_BODY_BYTES = 64 * 2**10
MAX_FORM_BYTES = 2**20
MAX_FORM_FIELDS = 2000
FORM_TYPE = "application/x-www-form-urlencoded"
MAX_SHOWN_CHARS = 80
MAX_ID = 2**63 - 1
"""The largest that the database stores."""
DECIMAL_COMMA_PATTERN = re.compile(r"[+-]?(?:0,[0-9]+|[0-9]+,(?:[0-9]{1,2}|[0-9]{4,}))")
CACHED_BODY = web.RequestKey("the whole body", bytes)
"""A body that was read before the handler's turn."""
MAX_FIELD_BYTES = 2**20
FORM_CHUNK_BYTES = 2**18
BODY_TIMEOUT_S = 60.0
"""Time for a JSON body or a page's form as a whole."""
IDLE_TIMEOUT_S = 60.0
"""Time for the next bytes of a form with a file."""
PUBLIC_BODY_TIMEOUT_S = 10.0
"""Time for a body from clients that have not signed in."""
Form = MultiDictProxy[str]
V = TypeVar("V")


async def read_json_object(
    request: web.Request, most_bytes: int = MAX_BODY_BYTES
) -> dict[str, Any]:
    """Read the JSON object of a request. Raises `Problem`."""
    if (encoding := request.headers.get("Content-Encoding", "identity")) != "identity":
        message = f"The body is compressed ({encoding[:MAX_SHOWN_CHARS]}), which is not supported."
        raise Problem("not-json-type", message, "Send it as it is, without Content-Encoding.")
    if request.content_type != "application/json":
        advice = "Send it with Content-Type: application/json."
        raise Problem("not-json-type", f"The body is sent as {request.content_type}.", advice)
    body = _decode_json(await read_body(request, most_bytes))
    if not isinstance(body, dict):
        raise Problem(
            "invalid-request",
            "The body is not a JSON object.",
            "Send {…} with the fields of the request.",
        )
    return body


def _decode_json(content: bytes) -> Any:
    try:
        body = json.loads(content.decode("utf-8"), parse_constant=_reject_constant)
        if b"\\u" in content:
            json.dumps(body, ensure_ascii=False).encode()  # half a character is JSON, but no text
        return body
    except UnicodeEncodeError as error:
        wrong = f"it holds half a character ({error.object[error.start]!a})"
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 from byte {error.start} on"
    except json.JSONDecodeError as error:
        wrong = f"{error.msg} (line {error.lineno})"
    except RecursionError:
        wrong = "it is nested too deeply"
    except ValueError:  # Python's own bound, as the time for it grows with the square
        wrong = "it holds a number of too many digits"
    raise Problem(
        "not-json", f"The body cannot be read: {wrong}.", "Send one JSON object in UTF-8."
    )


def _reject_constant(constant: str) -> None:
    raise Problem(
        "not-json",
        f"The body holds {constant}, which is not valid JSON.",
        "Send a number, null, or leave it out.",
    )


async def read_body(
    request: web.Request, most_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """Read the whole body, or return the cached one. Raises `Problem` if it is incomplete, late or
    too large.
    """
    if CACHED_BODY in request:
        body = request[CACHED_BODY]
    else:
        body = await _read_limited(request, most_bytes, timeout_s)
    if len(body) > most_bytes:
        raise Problem(
            "too-large", f"The body is larger than {most_bytes // 1024} KiB.", "Send less."
        )
    return body


async def read_form(request: web.Request, timeout_s: float = BODY_TIMEOUT_S) -> Form:
    """Read the fields of a page's form; one that was sent more than once has several values. Raises
    `Problem`.
    """
    if request.content_type != FORM_TYPE:
        raise Problem(
            "not-json-type",
            f"The form is sent as {request.content_type}.",
            f"Send it as {FORM_TYPE}.",
        )
    text = (await read_body(request, MAX_FORM_BYTES, timeout_s)).decode("utf-8", errors="replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise Problem(
            "too-large",
            f"The form has more than {MAX_FORM_FIELDS} fields.",
            "Send less.",
        ) from None
    return MultiDictProxy(MultiDict((name, normalise_newlines(value)) for name, value in pairs))


async def _read_limited(request: web.Request, most_bytes: int, timeout_s: float) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(timeout_s):
            # Read in chunks: a Content-Length may be wrong or missing.
            while len(body) <= most_bytes and (chunk := await request.content.read(MAX_BODY_BYTES)):
                body += chunk
    except TimeoutError:
        raise late_body(timeout_s) from None
    except (ConnectionError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise incomplete_body() from None
    return body


def incomplete_body() -> Problem:
    message = "The body is incomplete, or cannot be decompressed."
    return Problem("not-whole", message, "Send it whole and uncompressed.")


def late_body(seconds: float) -> Problem:
    """The problem of a body that stalls; its connection is of no further use."""
    message = f"The body did not arrive within {seconds:.0f} seconds."
    advice = "Send it again."
    return Problem("too-slow", message, advice, headers={"Connection": "close"})


@dataclass
class FileForm:
    fields: dict[str, str] = field(default_factory=dict)
    name: str = ""
    content: bytes = b""


def normalise_newlines(text: str) -> str:
    """A form's text with the line ends CR LF, as browsers send them, replaced by LF."""
    return text.replace("\r\n", "\n")


async def read_file_form(request: web.Request, most_bytes: int) -> FileForm:
    """Read a form with a file of at most this size. Raises `Problem`."""
    form = FileForm()

    async def read_part(part: BodyPartReader) -> None:
        if part.filename is not None:
            form.name = part.filename
            form.content = await read_form_part(part, most_bytes)
        else:
            text = (await read_form_part(part, MAX_FIELD_BYTES)).decode("utf-8", errors="replace")
            form.fields[part.name or ""] = normalise_newlines(text)

    await read_multipart(request, read_part)
    return form


async def read_multipart(
    request: web.Request, read_part: Callable[[BodyPartReader], Awaitable[None]]
) -> None:
    """Have each part of a multipart form read. Raises `Problem` for another body, and for one that
    breaks off.
    """
    if request.content_type != "multipart/form-data":
        message = f"The form is sent as {request.content_type}, not as multipart/form-data."
        raise Problem("wrong-kind", message, "Choose a file on the page.")
    try:
        reader = await request.multipart()
        while part := await _next_part(reader):
            if isinstance(part, BodyPartReader):
                await read_part(part)
    except TimeoutError:
        raise late_body(IDLE_TIMEOUT_S) from None
    except (ValueError, ConnectionError, AssertionError, HttpProcessingError):
        # Errors of aiohttp's reader for a broken form
        raise Problem("not-whole", "The form is incomplete.", "Send it again.") from None


async def _next_part(reader: MultipartReader) -> MultipartReader | BodyPartReader | None:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await reader.next()


async def read_form_part(part: BodyPartReader, most_bytes: int) -> bytes:
    """Read a part of a multipart form. Raises `Problem` for one that is too large."""
    content = bytearray()
    while chunk := await _next_chunk(part):
        content += chunk
        if len(content) > most_bytes:
            most = f"{most_bytes // 1000} KB"
            if most_bytes >= 2**20:
                most = f"{most_bytes // 2**20} MB"
            raise Problem(
                "too-large",
                f"{part.filename or part.name} has more than {most}.",
                "Send less.",
            )
    return bytes(content)


async def _next_chunk(part: BodyPartReader) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await part.read_chunk(FORM_CHUNK_BYTES)


@contextmanager
def errors_as_problems(slug: str, field: str = "") -> Iterator[None]:
    """Raise our errors inside the block as problems of this kind, and a full disk as what it is. A
    problem that names no field of the form names `field`.
    """
    try:
        yield
    except Problem as problem:
        problem.name_field(field)
        raise
    except (UnderstudyError, OSError, sqlite3.Error) as error:
        refused = _as_problem(error, slug)
        if refused is None:
            raise
        refused.name_field(field)
        raise refused from error


def _as_problem(error: Exception, slug: str) -> Problem | None:
    """Return the problem of a full disk or of one of our errors; None for any other error."""
    if is_disk_full(error):
        return disk_full_problem(error)
    if not isinstance(error, UnderstudyError):
        return None
    message = without_escapes(commands_as_typed(error.message))
    problem = Problem(slug, message, commands_as_typed(error.advice))
    if isinstance(error, RefusedError):
        problem.name_field(error.field)
    return problem


def changed_fields(
    form: Form,
    given: Mapping[str, str],
    read_fields: Callable[[Mapping[str, str]], Mapping[str, V]],
) -> tuple[dict[str, V], Mapping[str, V]]:
    """Return the fields that a form changes, and the values that it had shown (`seen-…`). Raises
    what `read_fields` raises.
    """
    wanted = read_fields(given)
    seen = read_fields({name: form.get(f"seen-{name}", "") for name in given})
    changes = {name: value for name, value in wanted.items() if value != seen[name]}
    return changes, seen


def parse_form_number(text: str) -> float | str:
    """Parse the number in a form's field; any other text stays, for the validation to refuse."""
    try:
        return float(with_decimal_point(text))
    except ValueError:
        return text


def read_id(text: str, advice: str) -> int:
    """Return the number that a part of an address or form is, such as a server's id. Raises
    `Problem`.
    """
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ID))
    if not is_number or int(text) > MAX_ID:
        raise Problem("not-found", f"{text[:40]!r} is no number.", advice)
    return int(text)


def with_decimal_point(text: str) -> str:
    """Return a number of a form's field with a point for a decimal comma. Any other text stays, also
    "1,500", which may be 1500.
    """
    return text.replace(",", ".") if DECIMAL_COMMA_PATTERN.fullmatch(text) else text
