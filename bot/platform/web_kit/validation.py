"""Validates request bodies. Errors name every wrong field and the values that it allows."""

import difflib
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    MAX_BODY_BYTES,
    read_json_object,
    with_decimal_point,
)
from personas.schemas.base import DEPENDENT_DEFAULT_ERROR

MAX_REPORTED_ERRORS = 50
MAX_MESSAGE_CHARS = 1000
MAX_SHOWN_CHARS = 80
Model = TypeVar("Model", bound=BaseModel)
Schema = dict[str, Any]
VALUE_ERROR_SUFFIXES = (
    *("_type", "_parsing", "_from_float", "_unicode", "pattern_mismatch"),
    *("_than", "_than_equal", "finite_number", "literal_error"),
)
"""Suffixes of pydantic's error types for values of the wrong type, or out of range."""
NON_BLANK_PATTERN = r"\S"


def parse_body(model: type[Model], body: dict[str, Any], *, is_form: bool = False) -> Model:
    """Validate a body. Raises `Problem`, which names every wrong field and what it may be.

    A form's fields are all text, with a decimal comma or point; in JSON a number is a number, and
    `true` is no text.
    """
    try:
        if is_form:
            return model.model_validate(_with_decimal_points(model, body))
        return validate_strictly(model, body)
    except ValidationError as error:
        items = []
        for item in error.errors(include_url=False):
            if item["type"] != DEPENDENT_DEFAULT_ERROR:
                items.append(item)
        errors = [_describe_error(model, item) for item in items[:MAX_REPORTED_ERRORS]]
        names = ", ".join(dict.fromkeys(each["field"] or "the request" for each in errors))
        count = f"{len(items)} fields are" if len(items) > 1 else f"{len(items)} field is"
        message = f"{count} invalid: {names}."[:MAX_MESSAGE_CHARS]
        advice = "Correct what `errors` names; `allowed` says what is valid there."
        raise Problem("invalid-request", message, advice, errors=errors) from None


async def read_model(
    request: web.Request, model: type[Model], most_bytes: int = MAX_BODY_BYTES
) -> Model:
    """Read the JSON body of a request and validate it. Raises `Problem`."""
    return parse_body(model, await read_json_object(request, most_bytes))


def _with_decimal_points(model: type[BaseModel], body: dict[str, Any]) -> dict[str, Any]:
    numbers = {}
    for name, value in body.items():
        schema = _schema_at(model, [name])
        kinds = [option.get("type") for option in schema.get("anyOf", [schema])]
        if isinstance(value, str) and "number" in kinds:
            numbers[name] = with_decimal_point(value)
    return body | numbers


def validate_strictly(model: type[Model], body: dict[str, Any]) -> Model:
    """Validate a JSON body without type coercion. Raises `ValidationError`."""
    # As JSON: strict validation of Python values refuses lists where the model has tuples.
    return model.model_validate_json(json.dumps(body), strict=True)


def _describe_error(model: type[BaseModel], item: Any) -> dict[str, str]:
    location = [str(step)[:MAX_SHOWN_CHARS] for step in item["loc"]]
    detail = str(item["msg"]).removeprefix("Value error, ")
    if not location:
        # An error of two fields together is reported at the last of them that it names.
        location = [name for name in model.model_fields if re.search(rf"\b{name}\b", detail)][-1:]
    more = {}
    if item["type"] == "extra_forbidden":
        names = list(_schema_at(model, location[:-1]).get("properties", {}))
        detail = "there is no such field"
        if near := difflib.get_close_matches(location[-1], names, n=1):
            detail = f"there is no such field; did you mean {near[0]}?"
        more["allowed"] = ", ".join(names)
    elif allowed := describe_allowed(model, location):
        more["allowed"] = allowed
        detail = _describe_value_error(item, allowed) or detail
    if item["type"] not in ("missing", "extra_forbidden", "value_error"):
        more["got"] = repr(item["input"])[:MAX_SHOWN_CHARS]
    pointer = "#"
    for step in location:  # RFC 6901
        pointer += f"/{step.replace('~', '~0').replace('/', '~1')}"
    return {"field": ".".join(location), "pointer": pointer, "detail": detail, **more}


def describe_allowed(model: type[BaseModel], place: Sequence[str]) -> str:
    """Describe the values allowed at ("hyperparameters", "learning_rate"), such as "a number from
    1e-06 to 0.01".
    """
    schema = _schema_at(model, place)
    if schema:
        return _describe_schema(schema, _model_schema(model))
    return ""


def _describe_value_error(item: Any, allowed: str) -> str:
    """Describe pydantic's error in plain words; empty if its own message is plain."""
    kind = item["type"]
    if kind == "string_too_long":
        count = f"{item['ctx']['max_length']:,}"
        return f"is longer than {count} characters"
    if kind == "too_long":
        return f"has more than {item['ctx']['max_length']} entries"
    if kind in ("string_too_short", "too_short") or kind.endswith(VALUE_ERROR_SUFFIXES):
        return f"must be {allowed}"
    return ""


@cache
def _model_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _schema_at(model: type[BaseModel], place: Sequence[str]) -> Schema:
    """Return the JSON schema of a field at a place in the body; empty if there is none."""
    root = _model_schema(model)
    schema = root
    for step in place:
        for option in schema.get("anyOf", [schema]):
            if child := _child_schema(_resolve_ref(option, root), step):
                schema = _resolve_ref(child, root)
                break
        else:
            return {}
    return schema


def _child_schema(schema: Schema, step: str) -> Schema | None:
    child: Schema | None = schema.get("properties", {}).get(step)
    more = schema.get("additionalProperties")
    if not child and isinstance(more, dict):
        child = more
    if not child and step.isdecimal():
        child = schema.get("items")
    return child


def _resolve_ref(schema: Schema, root: Schema) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


def _describe_schema(schema: Schema, root: Schema) -> str:
    schema = _resolve_ref(schema, root)
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        first, *others = (_describe_schema(option, root) for option in options)
        for other in others:
            first = f"{first} or {other}"
        return first
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    match schema.get("type"):
        case "number":
            return _describe_number(schema)
        case "integer":
            return _describe_number(schema, is_whole=True)
        case "string":
            return _describe_text(schema)
        case "boolean":
            return "true or false"
        case "array":
            return _describe_list(schema, _describe_schema(schema.get("items", {}), root))
        case "object":
            return _describe_object(schema)
    return ""


def _describe_object(schema: Schema) -> str:
    if fields := ", ".join(schema.get("properties", {})):
        return f"an object with {fields}"
    return "an object"


def _describe_number(schema: Schema, *, is_whole: bool = False) -> str:
    bounds = _describe_range(schema)
    if not bounds:
        return "a whole number" if is_whole else "a number"
    if is_whole:
        return f"a whole number {bounds}"
    return f"a number {bounds}"


def _describe_range(schema: Schema) -> str:
    """Return the bounds of a number; empty without."""
    bounds = []
    if (low := schema.get("minimum")) is not None:
        bounds.append(f"from {_number_text(low)}")
    elif (above := schema.get("exclusiveMinimum")) is not None:
        bounds.append(f"above {_number_text(above)}")
    if (high := schema.get("maximum")) is not None:
        bounds.append(f"to {_number_text(high)}")
    elif (below := schema.get("exclusiveMaximum")) is not None:
        bounds.append(f"below {_number_text(below)}")
    return " ".join(bounds)


def _number_text(number: int | float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _describe_list(schema: Schema, entry: str) -> str:
    low = schema.get("minItems")
    high = schema.get("maxItems")
    if low == high is not None:
        return f"a list of {low}, each {entry}"
    if low and high:
        return f"a list of {low} to {high}, each {entry}"
    if high:
        return f"a list of at most {high}, each {entry}"
    return f"a list, each {entry}"


def _describe_text(schema: Schema) -> str:
    low = schema.get("minLength", 0)
    high = schema.get("maxLength")
    if "pattern" in schema and (schema["pattern"] != NON_BLANK_PATTERN or "description" in schema):
        if described := schema.get("description"):
            return str(described)
        return f"text that matches {schema['pattern']}"
    if low > 1 and high:
        return f"text of {low} to {high} characters"
    if low > 1:
        return f"text of at least {low} characters"
    if not high:
        return "some text" if low else "text"
    most = f"{high:,}"
    if low:
        return f"some text of at most {most} characters"
    return f"text of at most {most} characters"
