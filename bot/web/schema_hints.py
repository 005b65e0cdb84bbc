"""Describes in plain words what a model's JSON schema allows in a field."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
TYPE_ERROR_SUFFIXES = ("_type", "_parsing", "_from_float", "pattern_mismatch")
"""Suffixes of pydantic's error types for values of the wrong type."""
NON_BLANK_PATTERN = r"\S"


def field_names(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    return list(_schema_at(model, place).get("properties", {}))


def describe_allowed(model: type[BaseModel], place: Sequence[str]) -> str:
    """Describe the values allowed at ("hyperparameters", "learning_rate"), such as "a number from 1e-06 to 0.01"."""
    schema = _schema_at(model, place)
    return _describe_schema(schema, _model_schema(model)) if schema else ""


def describe_error(item: Any, allowed: str) -> str:
    """Describe pydantic's error in plain words; empty if its own message is plain."""
    kind = item["type"]
    if kind in ("string_too_long", "too_long"):
        most = item["ctx"]["max_length"]
        return f"is longer than {most:,} characters" if kind == "string_too_long" else f"has more than {most} entries"
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
        found = next((_resolve_ref(inner, root) for option in options if (inner := _child_schema(option, step))), {})
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
        options = [_describe_schema(option, root) for option in schema["anyOf"] if option.get("type") != "null"]
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
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    begins = f" from {low}" if low is not None else f" above {above}" if above is not None else ""
    ends = f" to {high}" if high is not None else f" below {below}" if below is not None else ""
    return begins + ends


def _describe_list(schema: Schema) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low == high is not None:
        return f"a list of {low}, each "
    if low and high:
        return f"a list of {low} to {high}, each "
    return f"a list of at most {high}, each " if high else "a list, each "


def _describe_text(schema: Schema) -> str:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema and (schema["pattern"] != NON_BLANK_PATTERN or "description" in schema):
        return str(schema.get("description") or f"text that matches {schema['pattern']}")
    some = "some text" if low == 1 else "text"
    if low > 1:
        return f"text of {low} to {high} characters" if high else f"text of at least {low} characters"
    return f"{some} of at most {high:,} characters" if high else some
