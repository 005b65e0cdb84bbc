"""Fields of decoded records, checked: what is missing or of another kind is why a record is rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from trainer.conversation import Rejected
from trainer.sources.files import Record
from trainer.sources.sessions import Entry


class WrongField(ValueError):
    """A record without something that its format promises. The text names the field."""


def entries(
    records: Iterable[Record | Rejected], parse: Callable[[str, dict[str, Any]], Entry]
) -> Iterator[Entry | Rejected]:
    """Each record parsed, or rejected with what is wrong with it."""
    for record in records:
        if isinstance(record, Rejected):
            yield record
            continue
        row, values = record
        try:
            yield parse(row, values)
        except WrongField as error:
            yield Rejected(row, str(error))


def text(record: Mapping[str, Any], key: str) -> str:
    """A text that must be there; numbers, as ids sometimes are, are written out."""
    value = record.get(key)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise WrongField(f"{key}: " + ("missing" if key not in record else "a text was expected"))


def optional(record: Mapping[str, Any], key: str) -> str:
    """A text that may be missing or null; then it is empty."""
    return text(record, key) if record.get(key) is not None else ""


def members(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object that may be missing or null; then it is empty."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongField(f"{key}: an object was expected")
    return value


def objects(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list that may be missing or null."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def moment(record: Mapping[str, Any], key: str) -> float:
    """Seconds since 1970 of a date and time as ISO 8601 has it; one without a zone counts as UTC."""
    written = text(record, key)
    try:
        at = datetime.fromisoformat(written.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise WrongField(f"{key}: {written[:40]!r} is no date and time") from None


def seconds(record: Mapping[str, Any], key: str, per_second: float = 1.0) -> float:
    """Seconds since 1970 of a number, or of a text that holds one; `per_second` of its units make a second."""
    try:
        at = float(text(record, key)) if not isinstance(record.get(key), float) else float(record[key])
    except ValueError:
        raise WrongField(f"{key}: a number was expected") from None
    if not abs(at) < 1e17:
        raise WrongField(f"{key}: {at} is no time")
    return at / per_second
