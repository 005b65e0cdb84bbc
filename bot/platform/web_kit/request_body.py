"""Reads and validates request bodies: JSON, forms and file uploads, of bounded size; errors say
what is allowed.
"""

import asyncio
import difflib
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, ClientPayloadError, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict, MultiDictProxy
from pydantic import BaseModel, ValidationError

from bot.platform.errors import is_disk_full
from bot.platform.web_kit.problems import Problem, disk_full_problem
from personas.errors import UnderstudyError
from personas.schemas.base import DEPENDENT_DEFAULT_ERROR

MAX_BODY_BYTES = 64 * 2**10
MAX_FORM_BYTES = 2**20
MAX_FORM_FIELDS = 2000
FORM_TYPE = "application/x-www-form-urlencoded"
MAX_REPORTED_ERRORS = 50
MAX_SHOWN_CHARS = 80
CACHED_BODY = web.RequestKey("the whole body", bytes)
"""A body that was read before the handler's turn."""
Model = TypeVar("Model", bound=BaseModel)
MAX_FIELD_BYTES = 2**20
FORM_CHUNK_BYTES = 2**18
BODY_TIMEOUT_S, IDLE_TIMEOUT_S = 60.0, 60.0
"""Time for a JSON body or a page's form as a whole, and for the next bytes of a form with a
file.
"""
PUBLIC_BODY_TIMEOUT_S = 10.0
"""Time for a body from clients that have not signed in."""
Form = MultiDictProxy[str]
Schema = dict[str, Any]
TYPE_ERROR_SUFFIXES = ("_type", "_parsing", "_from_float", "pattern_mismatch")
"""Suffixes of pydantic's error types for values of the wrong type."""
NON_BLANK_PATTERN = r"\S"


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
    read = (
        request[CACHED_BODY]
        if CACHED_BODY in request
        else await _read_limited(request, most_bytes, timeout_s)
    )
    if len(read) > most_bytes:
        raise Problem(
            "too-large", f"The body is larger than {most_bytes // 1024} KiB.", "Send less."
        )
    return read


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
            "too-large", f"The form has more than {MAX_FORM_FIELDS} fields.", "Send less."
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
    return Problem("too-slow", message, "Send it again.", headers={"Connection": "close"})


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
            form.name, form.content = part.filename, await read_form_part(part, most_bytes)
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
    except (
        ValueError,
        ConnectionError,
        AssertionError,
        HttpProcessingError,
    ):  # the reader's, for a broken form
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
            most = (
                f"{most_bytes // 2**20} MB" if most_bytes >= 2**20 else f"{most_bytes // 1000} KB"
            )
            raise Problem(
                "too-large", f"{part.filename or part.name} has more than {most}.", "Send less."
            )
    return bytes(content)


async def _next_chunk(part: BodyPartReader) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await part.read_chunk(FORM_CHUNK_BYTES)


@contextmanager
def errors_as_problems(slug: str) -> Iterator[None]:
    """Raise our errors inside the block as problems of this kind, and a full disk as what it is."""
    try:
        yield
    except Problem:
        raise
    except (UnderstudyError, OSError, sqlite3.Error) as error:
        if is_disk_full(error):
            raise disk_full_problem(error) from error
        if not isinstance(error, UnderstudyError):
            raise
        raise Problem(slug, error.message, error.advice) from error


def parse_form_number(text: str) -> float | str:
    """Parse the number in a form's field; any other text stays, for the validation to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_body(model: type[Model], body: dict[str, Any], *, is_form: bool = False) -> Model:
    """Validate a body. Raises `Problem`, which names every wrong field and what it may be.

    A form's fields are all text; in JSON a number is a number, and `true` is no text.
    """
    try:
        return validate_strictly(model, body) if not is_form else model.model_validate(body)
    except ValidationError as error:
        items = [
            item
            for item in error.errors(include_url=False)
            if item["type"] != DEPENDENT_DEFAULT_ERROR
        ]
        errors = [_describe_error(model, item) for item in items[:MAX_REPORTED_ERRORS]]
        names = ", ".join(dict.fromkeys(one["field"] or "the request" for one in errors))
        message = f"{len(items)} field{'s are' if len(items) > 1 else ' is'} invalid: {names}."[
            :1000
        ]
        advice = "Correct what `errors` names; `allowed` says what is valid there."
        raise Problem("invalid-request", message, advice, errors=errors) from None


def validate_strictly(model: type[Model], body: dict[str, Any]) -> Model:
    """Validate a JSON body without type coercion. Raises `ValidationError`."""
    return model.model_validate_json(
        json.dumps(body), strict=True
    )  # as JSON, since it has lists and no tuples


def _describe_error(model: type[BaseModel], item: Any) -> dict[str, str]:
    location = [str(step)[:MAX_SHOWN_CHARS] for step in item["loc"]]
    detail = item["msg"].removeprefix("Value error, ")
    if (
        not location
    ):  # an error of two fields together is reported at the last of them that it names
        location = [name for name in model.model_fields if re.search(rf"\b{name}\b", detail)][-1:]
    more = {}
    if item["type"] == "extra_forbidden":
        names = list(_schema_at(model, location[:-1]).get("properties", {}))
        near = difflib.get_close_matches(location[-1], names, n=1)
        detail = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        more = {"allowed": ", ".join(names)}
    elif allowed := describe_allowed(model, location):
        more = {"allowed": allowed}
        detail = _describe_type_error(item, allowed) or detail
    if item["type"] not in ("missing", "extra_forbidden", "value_error"):
        more["got"] = repr(item["input"])[:MAX_SHOWN_CHARS]
    pointer = "#" + "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in location)
    return {"field": ".".join(location), "pointer": pointer, "detail": detail, **more}


def describe_allowed(model: type[BaseModel], place: Sequence[str]) -> str:
    """Describe the values allowed at ("hyperparameters", "learning_rate"), such as "a number from
    1e-06 to 0.01".
    """
    schema = _schema_at(model, place)
    return _describe_schema(schema, _model_schema(model)) if schema else ""


def _describe_type_error(item: Any, allowed: str) -> str:
    """Describe pydantic's error in plain words; empty if its own message is plain."""
    kind = item["type"]
    if kind in ("string_too_long", "too_long"):
        most = item["ctx"]["max_length"]
        return (
            f"is longer than {most:,} characters"
            if kind == "string_too_long"
            else f"has more than {most} entries"
        )
    is_short = kind in ("string_too_short", "too_short")
    return f"must be {allowed}" if is_short or kind.endswith(TYPE_ERROR_SUFFIXES) else ""


@cache
def _model_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _schema_at(model: type[BaseModel], place: Sequence[str]) -> Schema:
    root = _model_schema(model)
    found = root
    for step in place:
        options = [_resolve_ref(option, root) for option in found.get("anyOf", [found])]
        found = next(
            (
                _resolve_ref(inner, root)
                for option in options
                if (inner := _child_schema(option, step))
            ),
            {},
        )
    return found


def _child_schema(schema: Schema, step: str) -> Schema | None:
    more = schema.get("additionalProperties")
    named = schema.get("properties", {}).get(step) or (more if isinstance(more, dict) else None)
    return named or (schema.get("items") if step.isdecimal() else None)


def _resolve_ref(schema: Schema, root: Schema) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


def _describe_schema(schema: Schema, root: Schema) -> str:
    schema = _resolve_ref(schema, root)
    if "anyOf" in schema:
        options = [
            _describe_schema(option, root)
            for option in schema["anyOf"]
            if option.get("type") != "null"
        ]
        return " or ".join(options)
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "number" | "integer" as kind:
            return ("a number" if kind == "number" else "a whole number") + _describe_range(schema)
        case "string":
            return _describe_text(schema)
        case "boolean":
            return "true or false"
        case "array":
            return _describe_list(schema) + _describe_schema(schema.get("items", {}), root)
        case "object":
            fields = ", ".join(schema.get("properties", {}))
            return f"an object with {fields}" if fields else "an object"
    return ""


def _describe_range(schema: Schema) -> str:
    low = schema.get("minimum")
    high = schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    below = schema.get("exclusiveMaximum")
    begins = f" from {low}" if low is not None else f" above {above}" if above is not None else ""
    ends = f" to {high}" if high is not None else f" below {below}" if below is not None else ""
    return begins + ends


def _describe_list(schema: Schema) -> str:
    low = schema.get("minItems")
    high = schema.get("maxItems")
    if low == high is not None:
        return f"a list of {low}, each "
    if low and high:
        return f"a list of {low} to {high}, each "
    return f"a list of at most {high}, each " if high else "a list, each "


def _describe_text(schema: Schema) -> str:
    low = schema.get("minLength", 0)
    high = schema.get("maxLength")
    if "pattern" in schema and (schema["pattern"] != NON_BLANK_PATTERN or "description" in schema):
        return str(schema.get("description") or f"text that matches {schema['pattern']}")
    some = "some text" if low == 1 else "text"
    if low > 1:
        return (
            f"text of {low} to {high} characters" if high else f"text of at least {low} characters"
        )
    return f"{some} of at most {high:,} characters" if high else some
