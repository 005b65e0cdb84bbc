"""Reads and validates request bodies: JSON, forms and file uploads, of bounded size."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, ClientPayloadError, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict, MultiDictProxy
from pydantic import BaseModel, ValidationError

from bot.web.problems import Problem
from bot.web.schema_hints import describe_allowed, describe_error, field_names
from personas.errors import UnderstudyError
from personas.schemas.base import DEPENDENT_DEFAULT_ERROR

MAX_BODY_BYTES = 64 * 2**10
MAX_FORM_BYTES, MAX_FORM_FIELDS = 2**20, 2000
FORM_TYPE = "application/x-www-form-urlencoded"
MAX_REPORTED_ERRORS, MAX_SHOWN_CHARS = 50, 80
CACHED_BODY = web.RequestKey("the whole body", bytes)
"""Where a request keeps its body when it was read before the handler's turn."""
Model = TypeVar("Model", bound=BaseModel)
MAX_FIELD_BYTES = 2**20
FormData = MultiDictProxy[str | bytes | bytearray | web.FileField]


async def read_json_object(request: web.Request, most_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The JSON object of a request. Raises `Problem`."""
    if (packed := request.headers.get("Content-Encoding", "identity")) != "identity":
        said = f"The body is packed ({packed[:MAX_SHOWN_CHARS]}); packed ones are not read."
        raise Problem("not-json-type", said, "Send it as it is, without Content-Encoding.")
    if request.content_type != "application/json":
        advice = "Send it with Content-Type: application/json."
        raise Problem("not-json-type", f"The body is sent as {request.content_type}.", advice)
    body = _decode_json(await read_body(request, most_bytes))
    if not isinstance(body, dict):
        raise Problem("invalid-request", "The body is not a JSON object.", "Send {…} with the fields of the request.")
    return body


def _decode_json(sent: bytes) -> Any:
    try:
        body = json.loads(sent.decode("utf-8"), parse_constant=_reject_constant)
        if b"\\u" in sent:
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
    raise Problem("not-json", f"The body cannot be read: {wrong}.", "Send one JSON object in UTF-8.")


def _reject_constant(constant: str) -> None:
    raise Problem(
        "not-json", f"The body holds {constant}, which is not valid JSON.", "Send a number, null, or leave it out."
    )


async def read_body(request: web.Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read the whole body, or return the cached one. Raises `Problem` if it is incomplete or too large."""
    read = request[CACHED_BODY] if CACHED_BODY in request else await _read_limited(request, most_bytes)
    if len(read) > most_bytes:
        raise Problem("too-large", f"The body is larger than {most_bytes // 1024} KiB.", "Send less.")
    return read


async def read_form(request: web.Request) -> MultiDictProxy[str]:
    """The fields of a page's form; one that was sent more than once has several values. Raises `Problem`."""
    if request.content_type != FORM_TYPE:
        raise Problem("not-json-type", f"The form is sent as {request.content_type}.", f"Send it as {FORM_TYPE}.")
    text = (await read_body(request, MAX_FORM_BYTES)).decode("utf-8", errors="replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise Problem("too-large", f"The form has more than {MAX_FORM_FIELDS} fields.", "Send less.") from None
    return MultiDictProxy(MultiDict(pairs))


async def _read_limited(request: web.Request, most_bytes: int) -> bytes:
    read = b""
    try:
        # Asked for in pieces: what the header says of the length may be wrong or missing.
        while len(read) <= most_bytes and (piece := await request.content.read(MAX_BODY_BYTES)):
            read += piece
    except (ConnectionError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise Problem(
            "not-whole", "The body is incomplete, or cannot be decompressed.", "Send it whole and uncompressed."
        ) from None
    return read


def parse_body(model: type[Model], body: dict[str, Any], *, is_form: bool = False) -> Model:
    """The body as a contract. Raises `Problem`, which names every wrong field and what it may be.

    A form's fields are all text; in JSON a number is a number, and `true` is no text.
    """
    try:
        return validate_strictly(model, body) if not is_form else model.model_validate(body)
    except ValidationError as error:
        found = [item for item in error.errors(include_url=False) if item["type"] != DEPENDENT_DEFAULT_ERROR]
        errors = [_field_error(model, item) for item in found[:MAX_REPORTED_ERRORS]]
        named = ", ".join(dict.fromkeys(one["field"] or "the request" for one in errors))
        raise Problem(
            "invalid-request",
            f"{len(found)} of the fields cannot be: {named}."[:1000],
            "Correct what `errors` names; `allowed` says what may stand there.",
            errors=errors,
        ) from None


def validate_strictly(model: type[Model], body: dict[str, Any]) -> Model:
    """A JSON body as a contract, with nothing taken for what it is not. Raises `ValidationError`."""
    return model.model_validate_json(json.dumps(body), strict=True)  # as JSON, since it has lists and no tuples


def _field_error(model: type[BaseModel], item: Any) -> dict[str, str]:
    place = [str(step)[:MAX_SHOWN_CHARS] for step in item["loc"]]
    said = item["msg"].removeprefix("Value error, ")
    if not place:  # what is wrong with two fields together is told at the last of them that it names
        place = [name for name in model.model_fields if re.search(rf"\b{name}\b", said)][-1:]
    field, told = ".".join(place), {}
    if item["type"] == "extra_forbidden":
        known = field_names(model, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        said = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        told = {"allowed": ", ".join(known)}
    elif allowed := describe_allowed(model, place):
        told, said = {"allowed": allowed}, describe_error(item, allowed) or said
    if item["type"] not in ("missing", "extra_forbidden", "value_error"):
        told["got"] = repr(item["input"])[:MAX_SHOWN_CHARS]
    pointer = "#" + "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in place)
    return {"field": field, "pointer": pointer, "detail": said, **told}


@dataclass
class FileForm:
    """A form with one file."""

    fields: dict[str, str] = field(default_factory=dict)
    name: str = ""
    content: bytes = b""


async def read_form_data(request: web.Request) -> FormData:
    """The fields of a page's form. Raises `Problem` for what is none, and for more than a form may hold."""
    if request.content_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise Problem("wrong-kind", "This is not a form.", "Send it from the page; programs use the REST interface.")
    return await request.post()


def form_text(form: FormData, name: str) -> str:
    """A field's text, with line ends as everywhere else; empty where it is missing."""
    return normalise_newlines(form.get(name, ""))


def form_texts(form: FormData, name: str) -> list[str]:
    """The texts of a field that is there several times."""
    return [normalise_newlines(value) for value in form.getall(name, [])]


def normalise_newlines(value: object) -> str:
    """A form's text: browsers send line ends as CR LF."""
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""


async def read_file_form(request: web.Request, most_bytes: int) -> FileForm:
    """A form with a file of at most so many bytes. Raises `Problem`."""
    if request.content_type != "multipart/form-data":
        raise Problem("wrong-kind", "This is not a form with a file.", "Choose a file on the page.")
    found = FileForm()
    try:
        reader: MultipartReader = await request.multipart()
        async for part in reader:
            if isinstance(part, BodyPartReader):
                await _read_part(part, found, most_bytes)
    except (ValueError, ConnectionError):
        raise Problem("not-whole", "The form is incomplete.", "Send it again.") from None
    return found


async def _read_part(part: BodyPartReader, found: FileForm, most_bytes: int) -> None:
    is_file = part.filename is not None
    limit, content = most_bytes if is_file else MAX_FIELD_BYTES, bytearray()
    while piece := await part.read_chunk(2**16):
        content += piece
        if len(content) > limit:
            most = f"{limit // 2**20} MB" if limit >= 2**20 else f"{limit // 1000} KB"
            raise Problem("too-large", f"{part.filename or part.name} has more than {most}.", "Send less.")
    if is_file:
        found.name, found.content = part.filename or "", bytes(content)
    else:
        found.fields[part.name or ""] = normalise_newlines(content.decode("utf-8", errors="replace"))


@contextmanager
def errors_as_problems(slug: str) -> Iterator[None]:
    """Our errors inside the block as problems of this kind."""
    try:
        yield
    except Problem:
        raise
    except UnderstudyError as error:
        raise Problem(slug, error.message, error.advice) from error
