"""`GET /openapi.json`: what each route takes and answers, as OpenAPI 3.1, out of what handlers say of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic import TypeAdapter

from bot.web.here import Handler, Route
from bot.web.problems import PROBLEMS

Schema = dict[str, Any]
Shape = type | Schema
"""A pydantic model, a dataclass, anything else that pydantic can describe; or a JSON schema as it stands."""
JSON, PROBLEM = "application/json", "application/problem+json"
PLACE = re.compile(r"{(\w+)(?::[^}]*)?}")
WORD = re.compile(r"[A-Za-z0-9]+")
ANY: Schema = {"type": "object", "additionalProperties": True}
SENT = (400, 413, 415, 422)
"""What a request with a body can be refused with."""
ALWAYS = (401, 403, 414, 429, 500, 503)
"""What any request can be refused with; 405 is that of a method which is not described."""
WITH_KEY = (400, 409, 413)
"""What a request can be refused with that takes an Idempotency-Key."""
VERSION = "1"


@dataclass(frozen=True)
class Param:
    """A parameter of the query or the path."""

    description: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer of one status: what it says, its shape (None: an object of no fixed shape), and its media types."""

    description: str
    shape: Shape | None = None
    media: str | tuple[str, ...] = JSON


@dataclass(frozen=True)
class Body:
    """What is sent. `example` is shown to whoever reads the description."""

    shape: Shape
    example: Any = None
    media: str = JSON
    required: bool = True


@dataclass(frozen=True)
class Described:
    """What a handler says of itself."""

    summary: str
    description: str
    answers: Mapping[int, str | Answer]
    query: Mapping[str, str | Param]
    path: Mapping[str, str | Param]
    body: Body | None
    tag: str


HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


def whole(low: int, high: int, description: str) -> Param:
    """A whole number in the query."""
    return Param(description, {"type": "integer", "minimum": low, "maximum": high})


def one_of(values: Iterable[str], description: str) -> Param:
    """One of some words in the query."""
    return Param(description, {"type": "string", "enum": list(values)})


def described(
    summary: str,
    answers: Mapping[int, str | Answer],
    *,
    tag: str,
    query: Mapping[str, str | Param] | None = None,
    path: Mapping[str, str | Param] | None = None,
    body: Shape | Body | None = None,
) -> Callable[[HandlerT], HandlerT]:
    """Say what a handler takes and answers; its docstring is told, too.

    `answers` has what a status means, or an `Answer` with its shape. Statuses from 400 on are problems. Those that any
    request can get (`ALWAYS`; with a body also `SENT`; with a query 400; for POST those `WITH_KEY`) need not be named;
    name one where it means more. `query` and `path` have what a parameter means, or a `Param` with its schema; what the
    path holds is required in any case. `body` is the shape of the JSON that is sent (a pydantic model, a dataclass or a
    schema), or a `Body`.
    """

    def keep(handler: HandlerT) -> HandlerT:
        sent = body if body is None or isinstance(body, Body) else Body(body)
        more = " ".join((handler.__doc__ or "").split())
        vars(handler)["described"] = Described(summary, more, answers, query or {}, path or {}, sent, tag)
        return handler

    return keep


def description_of(handler: Handler) -> Described | None:
    """What a handler says of itself; None where it says nothing."""
    found = getattr(handler, "described", None)
    return found if isinstance(found, Described) else None


def document(routes: Iterable[Route]) -> Schema:
    """The OpenAPI document of the routes that are described."""
    schemas: dict[str, Schema] = {"Problem": PROBLEM_SCHEMA}
    paths: dict[str, Schema] = {}
    tags: dict[str, None] = {}
    for method, path, handler in routes:
        if said := description_of(handler):
            tags[said.tag] = None
            named = PLACE.sub(r"{\1}", path)
            paths.setdefault(named, {})[method.lower()] = _operation(method, path, said, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy",
            "version": VERSION,
            "description": "Personas, their versions, and the trainings that make them.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "WEB_TOKEN, where one is set."}
            },
        },
    }


# ------------------------------------------------------------------------------------------ parts of the document


def _operation(method: str, path: str, said: Described, schemas: dict[str, Schema]) -> Schema:
    parameters = [
        *(_parameter("path", name, said.path.get(name, "")) for name in PLACE.findall(path)),
        *(_parameter("query", name, value) for name, value in said.query.items()),
        *([IDEMPOTENCY] if _takes_key(method, path) else []),
    ]
    found: Schema = {
        "operationId": "_".join((method.lower(), *WORD.findall(PLACE.sub(r"\1", path)))),
        "summary": said.summary,
        "tags": [said.tag],
        "responses": _responses(said, schemas, _takes_key(method, path)),
    }
    if said.description:
        found["description"] = said.description
    if parameters:
        found["parameters"] = parameters
    if said.body:
        content: Schema = {"schema": _schema(said.body.shape, schemas, "validation")}
        if said.body.example is not None:
            content["example"] = said.body.example
        found["requestBody"] = {"required": said.body.required, "content": {said.body.media: content}}
    return found


def _parameter(place: str, name: str, value: str | Param) -> Schema:
    given = value if isinstance(value, Param) else Param(value)
    found: Schema = {"name": name, "in": place, "required": given.required or place == "path", "schema": given.schema}
    return found | ({"description": given.description} if given.description else {})


IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and request are done once; the answer is the same for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}


def _takes_key(method: str, path: str) -> bool:
    return method == "POST" and not path.startswith("/v1/")  # see bot.web.idempotency


def _responses(said: Described, schemas: dict[str, Schema], takes_key: bool) -> Schema:
    expected = {status: _reason(status) for status in ALWAYS}
    if said.query:
        expected |= {400: _reason(400)}
    if "after" in said.query:
        expected |= {404: "There is no entry `after`."}
    if takes_key:
        expected |= {status: _reason(status) for status in WITH_KEY}
    if said.body:
        expected |= {status: _reason(status) for status in SENT}
    found = {}
    for status, value in sorted((expected | dict(said.answers)).items()):
        given = value if isinstance(value, Answer) else Answer(value)
        if status >= 400 and given.shape is None:
            given = Answer(given.description, {"$ref": "#/components/schemas/Problem"}, PROBLEM)
        found[str(status)] = _response(status, given, schemas)
    return found


def _response(status: int, given: Answer, schemas: dict[str, Schema]) -> Schema:
    answer: Schema = {"description": given.description}
    if status not in (204, 303, 304):
        media = (given.media,) if isinstance(given.media, str) else given.media
        shape = _schema(given.shape, schemas, "serialization") if given.shape else ANY
        answer["content"] = {one: {"schema": _of_media(one, shape)} for one in media}
    return answer


EVENT: Schema = {
    "type": "object",
    "description": "One server-sent event; `data` is JSON.",
    "required": ["data"],
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}
TEXT: Schema = {"type": "string"}


def _of_media(media: str, shape: Schema) -> Schema:
    """A shape is that of JSON: streams of events, texts and files are what they are."""
    return shape if media.endswith("json") else EVENT if media == "text/event-stream" else TEXT


def _reason(status: int) -> str:
    titles = [title for number, title in PROBLEMS.values() if number == status]
    return "; ".join(titles) + "." if titles else "A problem."


def _schema(shape: Shape, schemas: dict[str, Schema], mode: Any) -> Schema:
    if isinstance(shape, dict):
        found = shape
    else:
        found = TypeAdapter(shape).json_schema(mode=mode, ref_template="#/components/schemas/{model}")
        schemas.update(found.pop("$defs", {}))
    name = str(found.get("title", ""))
    if not name:
        return found
    schemas[name] = found
    return {"$ref": f"#/components/schemas/{name}"}


PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "RFC 9457. `advice` says what to do, `errors` names each wrong field and what is allowed there.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "enum": [f"/problems/{slug}" for slug in PROBLEMS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "advice": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {name: {"type": "string"} for name in ("field", "pointer", "detail", "allowed", "got")},
            },
        },
    },
}


@dataclass(frozen=True)
class Served:
    """The routes that an application answers."""

    routes: tuple[Route, ...]


SERVED = web.AppKey("served", Served)


@described("This description", {200: "OpenAPI 3.1."}, tag="about")
async def openapi(request: web.Request) -> web.Response:
    """What each route takes and answers."""
    return web.json_response(document(request.app[SERVED].routes))


ROUTES: tuple[Route, ...] = (("GET", "/openapi.json", openapi),)
