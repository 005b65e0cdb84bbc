"""Reads the fields of JSON records, which have the expected type or raise `FieldError`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class FieldError(ValueError):
    """Raised for a record that lacks a required field; the text names the field."""


def text_field(record: Mapping[str, Any], key: str) -> str:
    """Return a required text; numbers, as ids sometimes are, are converted."""
    value = record.get(key)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise FieldError(f"{key}: " + ("missing" if key not in record else "a text was expected"))


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """Return a text; empty if missing or null."""
    return text_field(record, key) if record.get(key) is not None else ""


def object_field(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object; empty if missing or null."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(f"{key}: an object was expected")
    return value


def object_list(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects; empty if missing or null."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def timestamp_field(record: Mapping[str, Any], key: str) -> float:
    """Return an ISO 8601 timestamp in seconds since 1970; without a time zone it is UTC."""
    written = text_field(record, key)
    try:
        at = datetime.fromisoformat(written.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise FieldError(f"{key}: {written[:40]!r} is not a date and time") from None


def epoch_seconds(record: Mapping[str, Any], key: str, per_second: float = 1.0) -> float:
    """Convert a number, or a text with one, to seconds since 1970; `per_second` units make a second."""
    try:
        at = float(text_field(record, key)) if not isinstance(record.get(key), float) else float(record[key])
    except ValueError:
        raise FieldError(f"{key}: a number was expected") from None
    if not abs(at) < 1e17:
        raise FieldError(f"{key}: {at} is no time")
    return at / per_second
