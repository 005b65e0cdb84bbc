"""What is sent: JSON of a bounded size, and what is wrong with it field by field, with what is allowed there."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict, MultiDictProxy
from pydantic import BaseModel, ValidationError

from bot.web.allowed import allowed_at, in_words, known_fields
from bot.web.problems import Problem
from personas.explain import FOLLOWS

LARGEST_BODY_BYTES = 64 * 2**10
LARGEST_FORM_BYTES, MOST_FIELDS = 2**20, 2000
FORM = "application/x-www-form-urlencoded"
MOST_ERRORS, LONGEST_SHOWN = 50, 80
FULL = web.RequestKey("the whole body", bytes)
"""Where a request keeps its body when it was read before the handler's turn."""

Model = TypeVar("Model", bound=BaseModel)


async def json_object(request: web.Request, most_bytes: int = LARGEST_BODY_BYTES) -> dict[str, Any]:
    """The JSON object of a request. Raises `Problem`."""
    if (packed := request.headers.get("Content-Encoding", "identity")) != "identity":
        said = f"The body is packed ({packed[:LONGEST_SHOWN]}); packed ones are not read."
        raise Problem("not-json-type", said, "Send it as it is, without Content-Encoding.")
    if request.content_type != "application/json":
        advice = "Send it with Content-Type: application/json."
        raise Problem("not-json-type", f"The body is sent as {request.content_type}.", advice)
    body = _read_as_json(await json_bytes(request, most_bytes))
    if not isinstance(body, dict):
        raise Problem("invalid-request", "The body is no JSON object.", "Send {…} with the fields of the request.")
    return body


def _read_as_json(sent: bytes) -> Any:
    try:
        body = json.loads(sent.decode("utf-8"), parse_constant=_refused)
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


def _refused(constant: str) -> None:
    raise Problem("not-json", f"The body holds {constant}, which is no JSON.", "Send a number, null, or leave it out.")


async def json_bytes(request: web.Request, most_bytes: int = LARGEST_BODY_BYTES) -> bytes:
    """What is sent, whole, also when it was read before. Raises `Problem` when it breaks off or is too large."""
    read = request[FULL] if FULL in request else await _read(request, most_bytes)
    if len(read) > most_bytes:
        raise Problem("too-large", f"The body is larger than {most_bytes // 1024} KiB.", "Send less.")
    return read


async def form_of(request: web.Request) -> MultiDictProxy[str]:
    """The fields of a page's form; one that was sent more than once has several values. Raises `Problem`."""
    if request.content_type != FORM:
        raise Problem("not-json-type", f"The form is sent as {request.content_type}.", f"Send it as {FORM}.")
    text = (await json_bytes(request, LARGEST_FORM_BYTES)).decode("utf-8", errors="replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Problem("too-large", f"The form has more than {MOST_FIELDS} fields.", "Send less.") from None
    return MultiDictProxy(MultiDict(pairs))


async def _read(request: web.Request, most_bytes: int) -> bytes:
    read = b""
    try:
        # Asked for in pieces: what the header says of the length may be wrong or missing.
        while len(read) <= most_bytes and (piece := await request.content.read(LARGEST_BODY_BYTES)):
            read += piece
    except (ConnectionError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise Problem(
            "not-whole", "The body breaks off, or cannot be unpacked.", "Send it whole, not packed."
        ) from None
    return read


def parsed(model: type[Model], body: dict[str, Any], *, is_form: bool = False) -> Model:
    """The body as a contract. Raises `Problem`, which names every wrong field and what it may be.

    A form's fields are all text; in JSON a number is a number, and `true` is no text.
    """
    try:
        return validated(model, body) if not is_form else model.model_validate(body)
    except ValidationError as error:
        found = [item for item in error.errors(include_url=False) if item["type"] != FOLLOWS]
        errors = [_wrong(model, item) for item in found[:MOST_ERRORS]]
        named = ", ".join(dict.fromkeys(one["field"] or "the request" for one in errors))
        raise Problem(
            "invalid-request",
            f"{len(found)} of the fields cannot be: {named}."[:1000],
            "Correct what `errors` names; `allowed` says what may stand there.",
            errors=errors,
        ) from None


def validated(model: type[Model], body: dict[str, Any]) -> Model:
    """A JSON body as a contract, with nothing taken for what it is not. Raises `ValidationError`."""
    return model.model_validate_json(json.dumps(body), strict=True)  # as JSON, since it has lists and no tuples


def _wrong(model: type[BaseModel], item: Any) -> dict[str, str]:
    place = [str(step)[:LONGEST_SHOWN] for step in item["loc"]]
    said = item["msg"].removeprefix("Value error, ")
    if not place:  # what is wrong with two fields together is told at the last of them that it names
        place = [name for name in model.model_fields if re.search(rf"\b{name}\b", said)][-1:]
    field, told = ".".join(place), {}
    if item["type"] == "extra_forbidden":
        known = known_fields(model, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        said = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        told = {"allowed": ", ".join(known)}
    elif allowed := allowed_at(model, place):
        told, said = {"allowed": allowed}, in_words(item, allowed) or said
    if item["type"] not in ("missing", "extra_forbidden", "value_error"):
        told["got"] = repr(item["input"])[:LONGEST_SHOWN]
    pointer = "#" + "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in place)
    return {"field": field, "pointer": pointer, "detail": said, **told}
