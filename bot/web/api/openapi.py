"""`GET /openapi.json` and `GET /problems/SLUG`: the API's description, made from what handlers declare."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, PlainSerializer, TypeAdapter

from bot.web.app_context import Handler, Route
from bot.web.problems import PROBLEMS, Problem, ProblemDetails
from bot.web.template_filters import iso_timestamp

Schema = dict[str, Any]
BodyShape = type | Schema
"""A pydantic model, a dataclass, another type that pydantic can describe, or a JSON schema."""
JSON_TYPE, PROBLEM_TYPE = "application/json", "application/problem+json"
PATH_PARAMETER_PATTERN = re.compile(r"{(\w+)(?::[^}]*)?}")
WORD_PATTERN = re.compile(r"[A-Za-z0-9]+")
ANY_OBJECT: Schema = {"type": "object", "additionalProperties": True}
STRING_SCHEMA: Schema = {"type": "string"}
BODY_STATUSES = (400, 413, 415, 422)
"""Statuses with which any request with a body can be refused."""
COMMON_STATUSES = (401, 403, 414, 429, 500, 503)
"""Statuses with which any request can be refused; 405 is for methods that are not described."""
IDEMPOTENCY_STATUSES = (400, 409, 413)
"""Statuses with which any request that takes an Idempotency-Key can be refused."""
API_VERSION = "1"
REF_TEMPLATE = "#/components/schemas/{model}"
Json = dict[str, Any]
Links = dict[str, str]
Timestamp = Annotated[float | None, PlainSerializer(iso_timestamp, return_type=str | None)]
"""Seconds since 1970, published as ISO 8601 in UTC."""
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
IDEMPOTENCY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and request are done once; the answer is the same for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
EVENT_SCHEMA: Schema = {
    "type": "object",
    "description": "One server-sent event; `data` is JSON.",
    "required": ["data"],
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}


class ApiModel(BaseModel):
    """An object that the API returns. Fields with a default are left out unless they are set."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    def as_json(self) -> Json:
        """The object as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def response(self, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        """The object as a response."""
        return web.json_response(self.as_json(), status=status, headers=headers)


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the query or the path."""

    description: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True)
class ResponseSpec:
    """An answer of one status: what it says, its shape (None: an object of no fixed shape), and its media types."""

    description: str
    shape: BodyShape | None = None
    media: str | tuple[str, ...] = JSON_TYPE


@dataclass(frozen=True)
class BodySpec:
    """A request body; `example` is shown in the document."""

    shape: BodyShape
    example: Any = None
    media: str = JSON_TYPE
    required: bool = True


@dataclass(frozen=True)
class OperationSpec:
    """The description of a handler."""

    summary: str
    description: str
    answers: Mapping[int, str | ResponseSpec]
    query: Mapping[str, str | ParameterSpec]
    path: Mapping[str, str | ParameterSpec]
    body: BodySpec | None
    tag: str


def integer_parameter(low: int, high: int, description: str) -> ParameterSpec:
    """A whole number in the query."""
    return ParameterSpec(description, {"type": "integer", "minimum": low, "maximum": high})


def enum_parameter(values: Iterable[str], description: str) -> ParameterSpec:
    """One of some words in the query."""
    return ParameterSpec(description, {"type": "string", "enum": list(values)})


def describe_operation(
    summary: str,
    answers: Mapping[int, str | ResponseSpec],
    *,
    tag: str,
    query: Mapping[str, str | ParameterSpec] | None = None,
    path: Mapping[str, str | ParameterSpec] | None = None,
    body: BodyShape | BodySpec | None = None,
) -> Callable[[HandlerT], HandlerT]:
    """Describe what a handler takes and returns, for the OpenAPI document; its docstring becomes the description.

    `answers` maps each status to its meaning, or to a `ResponseSpec` with a shape. Statuses from 400 on are problems;
    those that any request can return (`COMMON_STATUSES`; `BODY_STATUSES` with a body; 400 with a query;
    `IDEMPOTENCY_STATUSES` for POST) need no entry unless they mean more. `query` and `path` map each parameter to its
    meaning, or to a `ParameterSpec` with a schema; path parameters are required in any case. `body` is a pydantic
    model, a dataclass, a schema, or a `BodySpec`.
    """

    def keep(handler: HandlerT) -> HandlerT:
        sent = body if body is None or isinstance(body, BodySpec) else BodySpec(body)
        more = " ".join((handler.__doc__ or "").split())
        vars(handler)["described"] = OperationSpec(summary, more, answers, query or {}, path or {}, sent, tag)
        return handler

    return keep


def operation_spec(handler: Handler) -> OperationSpec | None:
    """The description of a handler; None if it has none."""
    found = getattr(handler, "described", None)
    return found if isinstance(found, OperationSpec) else None


def build_document(routes: Iterable[Route]) -> Schema:
    """Build the OpenAPI document of the described routes."""
    described = [(method, path, spec) for method, path, handler in routes if (spec := operation_spec(handler))]
    shapes = _collect_shapes(spec for _, _, spec in described)
    paths: dict[str, Schema] = {}
    for method, path, spec in described:
        named = PATH_PARAMETER_PATTERN.sub(r"{\1}", path)
        paths.setdefault(named, {})[method.lower()] = _operation(method, path, spec, shapes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy",
            "version": API_VERSION,
            "description": "Personas, their versions, and the trainings that make them.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(spec.tag for _, _, spec in described)],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "WEB_TOKEN, where one is set."}
            },
        },
    }


@dataclass(frozen=True)
class ShapeSchemas:
    """JSON schemas of all shapes by shape and mode, and the components to which they refer."""

    schemas: Mapping[tuple[Any, Any], Schema]
    components: Schema

    def find(self, shape: BodyShape, mode: str) -> Schema:
        """The schema of a shape; one that is a schema already stays as it is."""
        return shape if isinstance(shape, dict) else self.schemas[shape, mode]


def _collect_shapes(specs: Iterable[OperationSpec]) -> ShapeSchemas:
    used: dict[tuple[Any, Any], None] = {(ProblemDetails, "serialization"): None}
    for spec in specs:
        sent = [(spec.body.shape, "validation")] if spec.body else []
        returned = [(one.shape, "serialization") for one in spec.answers.values() if isinstance(one, ResponseSpec)]
        used |= dict.fromkeys(pair for pair in (*sent, *returned) if isinstance(pair[0], type))
    adapters = [(shape, mode, TypeAdapter(shape)) for shape, mode in used]
    schemas, definitions = TypeAdapter.json_schemas(adapters, ref_template=REF_TEMPLATE)
    return ShapeSchemas(schemas, definitions["$defs"])


# ------------------------------------------------------------------------------------------ parts of the document


def _operation(method: str, path: str, said: OperationSpec, shapes: ShapeSchemas) -> Schema:
    parameters = [
        *(_parameter("path", name, said.path.get(name, "")) for name in PATH_PARAMETER_PATTERN.findall(path)),
        *(_parameter("query", name, value) for name, value in said.query.items()),
        *([IDEMPOTENCY_PARAMETER] if _takes_key(method, path) else []),
    ]
    found: Schema = {
        "operationId": "_".join((method.lower(), *WORD_PATTERN.findall(PATH_PARAMETER_PATTERN.sub(r"\1", path)))),
        "summary": said.summary,
        "tags": [said.tag],
        "responses": _responses(said, shapes, _takes_key(method, path)),
    }
    if said.description:
        found["description"] = said.description
    if parameters:
        found["parameters"] = parameters
    if said.body:
        content: Schema = {"schema": shapes.find(said.body.shape, "validation")}
        if said.body.example is not None:
            content["example"] = said.body.example
        found["requestBody"] = {"required": said.body.required, "content": {said.body.media: content}}
    return found


def _parameter(place: str, name: str, value: str | ParameterSpec) -> Schema:
    given = value if isinstance(value, ParameterSpec) else ParameterSpec(value)
    found: Schema = {"name": name, "in": place, "required": given.required or place == "path", "schema": given.schema}
    return found | ({"description": given.description} if given.description else {})


def _takes_key(method: str, path: str) -> bool:
    return method == "POST" and not path.startswith("/v1/")  # see bot.web.idempotency


def _responses(said: OperationSpec, shapes: ShapeSchemas, takes_key: bool) -> Schema:
    expected = {status: _status_phrase(status) for status in COMMON_STATUSES}
    if said.query:
        expected |= {400: _status_phrase(400)}
    if "after" in said.query:
        expected |= {404: "There is no entry `after`."}
    if takes_key:
        expected |= {status: _status_phrase(status) for status in IDEMPOTENCY_STATUSES}
    if said.body:
        expected |= {status: _status_phrase(status) for status in BODY_STATUSES}
    found = {}
    for status, value in sorted((expected | dict(said.answers)).items()):
        given = value if isinstance(value, ResponseSpec) else ResponseSpec(value)
        if status >= 400 and given.shape is None:
            given = ResponseSpec(given.description, ProblemDetails, PROBLEM_TYPE)
        found[str(status)] = _response(status, given, shapes)
    return found


def _response(status: int, given: ResponseSpec, shapes: ShapeSchemas) -> Schema:
    answer: Schema = {"description": given.description}
    if status not in (204, 303, 304):
        media = (given.media,) if isinstance(given.media, str) else given.media
        shape = shapes.find(given.shape, "serialization") if given.shape else ANY_OBJECT
        answer["content"] = {one: {"schema": _media_schema(one, shape)} for one in media}
    return answer


def _media_schema(media: str, shape: Schema) -> Schema:
    """A shape is that of JSON: streams of events, texts and files are what they are."""
    return shape if media.endswith("json") else EVENT_SCHEMA if media == "text/event-stream" else STRING_SCHEMA


def _status_phrase(status: int) -> str:
    titles = [title for number, title in PROBLEMS.values() if number == status]
    return "; ".join(titles) + "." if titles else "A problem."


@dataclass(frozen=True)
class MountedRoutes:
    """The routes that an application answers."""

    routes: tuple[Route, ...]


MOUNTED_ROUTES = web.AppKey("served", MountedRoutes)


@describe_operation("This description", {200: "OpenAPI 3.1."}, tag="about")
async def get_openapi(request: web.Request) -> web.Response:
    """Describes the parameters, bodies and responses of every route."""
    return web.json_response(build_document(request.app[MOUNTED_ROUTES].routes))


ROUTES: tuple[Route, ...] = (("GET", "/openapi.json", get_openapi),)


class ProblemTypeInfo(ApiModel):
    """A kind of problem."""

    type: str
    status: int
    title: str


@describe_operation(
    "What a kind of problem is",
    {200: ResponseSpec("Its status and title.", ProblemTypeInfo), 404: "There is no such kind."},
    tag="about",
    path={"slug": enum_parameter(sorted(PROBLEMS), "The last part of a problem's `type`.")},
)
async def get_problem_type(request: web.Request) -> web.Response:
    """The page to which a problem's `type` leads."""
    slug = request.match_info["slug"]
    if slug not in PROBLEMS:
        raise Problem("not-found", f"There is no problem {slug!r}.")
    status, title = PROBLEMS[slug]
    return ProblemTypeInfo(type=f"/problems/{slug}", status=status, title=title).response()


PROBLEM_ROUTES: tuple[Route, ...] = (("GET", "/problems/{slug}", get_problem_type),)
