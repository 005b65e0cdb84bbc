"""`GET /openapi.json` and `GET /problems/SLUG`: the API's description, built from what its routes
declare.
"""

import asyncio
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, PlainSerializer, TypeAdapter

from bot.platform.web_kit.app_context import Handler, HandlerT, Route, Routes
from bot.platform.web_kit.idempotency import takes_key
from bot.platform.web_kit.problems import PROBLEMS, Problem, ProblemDetails

Schema = dict[str, Any]
BodyShape = type | Schema
"""A pydantic model, a dataclass, another type that pydantic can describe, or a JSON schema."""
JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
PATH_PARAMETER_PATTERN = re.compile(r"{(\w+)(?::[^}]*)?}")
WORD_PATTERN = re.compile(r"[A-Za-z0-9]+")
ANY_OBJECT: Schema = {"type": "object", "additionalProperties": True}
STRING_SCHEMA: Schema = {"type": "string"}
BODY_STATUSES = (400, 408, 413, 415, 422)
"""Statuses with which any request with a body can be refused."""
COMMON_STATUSES = (401, 403, 414, 429, 500, 503)
"""Statuses with which any request can be refused; 405 is for methods that are not described."""
IDEMPOTENCY_STATUSES = (400, 409, 413)
"""Statuses with which any request that takes an Idempotency-Key can be refused."""
API_VERSION = "1"
REF_TEMPLATE = "#/components/schemas/{model}"
Json = dict[str, Any]
Links = dict[str, str]
IDEMPOTENCY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and request are done once; the answer is the same for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}


def _iso_timestamp(at: float | None) -> str | None:
    if at is not None:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return None


Timestamp = Annotated[float | None, PlainSerializer(_iso_timestamp, return_type=str | None)]
"""Seconds since 1970, published as ISO 8601 in UTC."""
EVENT_SCHEMA: Schema = {
    "type": "object",
    "description": "One server-sent event; `data` is JSON.",
    "required": ["data"],
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}


class ApiModel(BaseModel):
    """An object that the API returns. Fields with a default are left out unless they are set."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    @classmethod
    def describe(cls, *sources: object, **more: Any) -> Self:
        """Take each field from `more` or from the last source that has an attribute of this
        name.
        """
        values = dict(more)
        for name in cls.model_fields.keys() - more.keys():
            for source in sources:
                if hasattr(source, name):
                    values[name] = getattr(source, name)
        return cls(**values)

    def as_json(self) -> Json:
        return self.model_dump(mode="json", exclude_unset=True)

    def response(self, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        return web.json_response(self.as_json(), status=status, headers=headers)


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of the query or the path."""

    description: str
    schema: Schema = field(default_factory=lambda: STRING_SCHEMA)


@dataclass(frozen=True)
class ResponseSpec:
    """A response of one status: its meaning, its shape (None: an object of no fixed shape), and its
    media types.
    """

    description: str
    shape: BodyShape | None = None
    media: str | tuple[str, ...] = JSON_TYPE


@dataclass(frozen=True)
class BodySpec:
    """A request body, with an example for the document."""

    shape: BodyShape
    example: Any = None
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
    return ParameterSpec(description, {"type": "integer", "minimum": low, "maximum": high})


def enum_parameter(values: Iterable[str], description: str) -> ParameterSpec:
    return ParameterSpec(description, {"type": "string", "enum": list(values)})


class ApiRoutes(Routes):
    """The routes of a module with their descriptions, under one tag of the OpenAPI document."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self._tag = tag

    def operation(
        self,
        route: str,
        summary: str,
        answers: Mapping[int, str | ResponseSpec],
        *,
        query: Mapping[str, str | ParameterSpec] = MappingProxyType({}),
        parameters: Mapping[str, str | ParameterSpec] = MappingProxyType({}),
        body: BodySpec | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler and describe what it takes and returns; its docstring becomes the
        description.

        `answers` maps each status to its meaning, or to a `ResponseSpec` with a shape. Statuses
        from 400 on are problems; those that any request can return (`COMMON_STATUSES`;
        `BODY_STATUSES` with a body; 400 with a query; `IDEMPOTENCY_STATUSES` with a key) need no
        entry unless they mean more. `query` and `parameters` (of the path) map each name to its
        meaning, or to a `ParameterSpec`; path parameters are required in any case.
        """

        def register(handler: HandlerT) -> HandlerT:
            description = " ".join((handler.__doc__ or "").split())
            spec = OperationSpec(
                summary,
                description,
                answers=answers,
                query=query,
                path=parameters,
                body=body,
                tag=self._tag,
            )
            vars(handler)["described"] = spec
            return self.add(route)(handler)

        return register


def operation_spec(handler: Handler) -> OperationSpec | None:
    """The description of a handler; None if it has none."""
    spec: OperationSpec | None = getattr(handler, "described", None)
    return spec


def build_document(routes: Iterable[Route]) -> Schema:
    """Build the OpenAPI document of the described routes."""
    described = []
    for method, path, handler in routes:
        if spec := operation_spec(handler):
            described.append((method, path, spec))
    shapes = _collect_shapes(spec for _, _, spec in described)
    paths: dict[str, Schema] = {}
    tags: dict[str, None] = {}
    for method, path, spec in described:
        tags[spec.tag] = None
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
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "WEB_TOKEN, where one is set.",
                }
            },
        },
    }


@dataclass(frozen=True)
class ShapeSchemas:
    """JSON schemas of all shapes by shape and mode, and the components to which they refer."""

    schemas: Mapping[tuple[Any, Any], Schema]
    components: Schema

    def find(self, shape: BodyShape, mode: str) -> Schema:
        """The schema of a shape; a schema is returned as it is."""
        if isinstance(shape, dict):
            return shape
        return self.schemas[shape, mode]


def _collect_shapes(specs: Iterable[OperationSpec]) -> ShapeSchemas:
    used: dict[tuple[Any, Any], None] = {(ProblemDetails, "serialization"): None}
    for spec in specs:
        if spec.body and isinstance(spec.body.shape, type):
            used[spec.body.shape, "validation"] = None
        for answer in spec.answers.values():
            if isinstance(answer, ResponseSpec) and isinstance(answer.shape, type):
                used[answer.shape, "serialization"] = None
    adapters = [(shape, mode, TypeAdapter(shape)) for shape, mode in used]
    schemas, definitions = TypeAdapter.json_schemas(adapters, ref_template=REF_TEMPLATE)
    return ShapeSchemas(schemas, definitions["$defs"])


def _operation(method: str, path: str, spec: OperationSpec, shapes: ShapeSchemas) -> Schema:
    has_key = takes_key(method, path)
    parameters = []
    for name in PATH_PARAMETER_PATTERN.findall(path):
        parameters.append(_parameter("path", name, spec.path.get(name, "")))
    for name, value in spec.query.items():
        parameters.append(_parameter("query", name, value))
    if has_key:
        parameters.append(IDEMPOTENCY_PARAMETER)
    words = WORD_PATTERN.findall(PATH_PARAMETER_PATTERN.sub(r"\1", path))
    operation: Schema = {
        "operationId": "_".join((method.lower(), *words)),
        "summary": spec.summary,
        "tags": [spec.tag],
        "responses": _responses(spec, shapes, takes_key=has_key),
    }
    if spec.description:
        operation["description"] = spec.description
    if parameters:
        operation["parameters"] = parameters
    if spec.body:
        content: Schema = {"schema": shapes.find(spec.body.shape, "validation")}
        if spec.body.example is not None:
            content["example"] = spec.body.example
        operation["requestBody"] = {
            "required": spec.body.required,
            "content": {JSON_TYPE: content},
        }
    return operation


def _parameter(location: str, name: str, value: str | ParameterSpec) -> Schema:
    spec = value if isinstance(value, ParameterSpec) else ParameterSpec(value)
    parameter: Schema = {
        "name": name,
        "in": location,
        "required": location == "path",
        "schema": spec.schema,
    }
    if spec.description:
        parameter["description"] = spec.description
    return parameter


def _responses(spec: OperationSpec, shapes: ShapeSchemas, *, takes_key: bool) -> Schema:
    statuses = list(COMMON_STATUSES)
    if spec.query:
        statuses.append(400)
    if takes_key:
        statuses.extend(IDEMPOTENCY_STATUSES)
    if spec.body:
        statuses.extend(BODY_STATUSES)
    answers: dict[int, str | ResponseSpec] = {}
    for status in statuses:
        titles = [title for number, title in PROBLEMS.values() if number == status]
        answers[status] = f"{'; '.join(titles) or 'A problem'}."
    if "after" in spec.query:
        answers[404] = "There is no entry `after`."
    answers.update(spec.answers)
    responses = {}
    for status, value in sorted(answers.items()):
        response = value if isinstance(value, ResponseSpec) else ResponseSpec(value)
        if status >= 400 and response.shape is None:
            response = ResponseSpec(response.description, ProblemDetails, PROBLEM_TYPE)
        responses[str(status)] = _response(status, response, shapes)
    return responses


def _response(status: int, spec: ResponseSpec, shapes: ShapeSchemas) -> Schema:
    response: Schema = {"description": spec.description}
    if status not in (204, 303, 304):
        shape = shapes.find(spec.shape, "serialization") if spec.shape else ANY_OBJECT
        content = {}
        types = (spec.media,) if isinstance(spec.media, str) else spec.media
        for media in types:
            content[media] = {"schema": _media_schema(media, shape)}
        response["content"] = content
    return response


def _media_schema(media: str, shape: Schema) -> Schema:
    """Shapes are those of JSON; streams, texts and files have their own."""
    if media.endswith("json"):
        return shape
    if media == "text/event-stream":
        return EVENT_SCHEMA
    return STRING_SCHEMA


MOUNTED_ROUTES: web.AppKey[Iterable[Route]] = web.AppKey("routes", Routes)
routes = ApiRoutes("about")


@routes.operation("GET /openapi.json", "Get this description", {200: "OpenAPI 3.1."})
async def get_openapi(request: web.Request) -> web.Response:
    """Describes the parameters, bodies and responses of every route."""
    text = await asyncio.to_thread(_document_text, tuple(request.app[MOUNTED_ROUTES]))
    return web.Response(body=text, content_type=JSON_TYPE)


@functools.cache
def _document_text(routes: tuple[Route, ...]) -> bytes:
    return json.dumps(build_document(routes)).encode()


class ProblemTypeInfo(ApiModel):
    """A kind of problem."""

    type: str
    status: int
    title: str


@routes.operation(
    "GET /problems/{slug}",
    "Describe a type of problem",
    {200: ResponseSpec("Its status and title.", ProblemTypeInfo), 404: "There is no such kind."},
    parameters={"slug": enum_parameter(sorted(PROBLEMS), "The last part of a problem's `type`.")},
)
async def get_problem_type(request: web.Request) -> web.Response:
    """The page to which a problem's `type` leads."""
    slug = request.match_info["slug"]
    if slug not in PROBLEMS:
        raise Problem("not-found", f"There is no problem {slug!r}.")
    status, title = PROBLEMS[slug]
    return ProblemTypeInfo(type=f"/problems/{slug}", status=status, title=title).response()
