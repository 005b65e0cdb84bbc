"""What may stand in a field of a contract, in words, out of the contract's own schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]


def known_fields(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    """The names of the fields of the object at a place; empty where there is none."""
    return list(_at(model, place).get("properties", {}))


def allowed_at(model: type[BaseModel], place: Sequence[str]) -> str:
    """What may stand at a place, such as ("hyperparameters", "learning_rate"): "a number from 1e-06 to 0.01"."""
    schema = _at(model, place)
    return _words(schema, _schema(model)) if schema else ""


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _at(model: type[BaseModel], place: Sequence[str]) -> Schema:
    root = _schema(model)
    found = root
    for step in place:
        options = [_resolved(option, root) for option in found.get("anyOf", [found])]
        found = next(
            (
                _resolved(inner, root)
                for option in options
                if (inner := option.get("properties", {}).get(step) or (step.isdecimal() and option.get("items")))
            ),
            {},
        )
    return found


def _resolved(schema: Schema, root: Schema) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


def _words(schema: Schema, root: Schema) -> str:
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        options = [_words(option, root) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(options)
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "number" | "integer" as kind:
            return ("a number" if kind == "number" else "a whole number") + _range(schema)
        case "string":
            return _text(schema)
        case "boolean":
            return "true or false"
        case "array":
            return "a list, each " + _words(schema.get("items", {}), root)
        case "object":
            fields = ", ".join(schema.get("properties", {}))
            return f"an object with {fields}" if fields else "an object"
    return ""


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    begins = f" from {low}" if low is not None else f" above {above}" if above is not None else ""
    ends = f" to {high}" if high is not None else f" below {below}" if below is not None else ""
    return begins + ends


def _text(schema: Schema) -> str:
    if "pattern" in schema:
        return str(schema.get("description") or f"text that matches {schema['pattern']}")
    low, high = schema.get("minLength"), schema.get("maxLength")
    return f"text of {low or 0} to {high} characters" if high else "text"
