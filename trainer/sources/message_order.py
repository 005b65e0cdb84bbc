"""The order of messages in a list: by their times or numbers where all of them have some, else as
written.
"""

from collections.abc import Sequence
from typing import Any

from trainer.sources.dates import DateOrderDetector, WrittenTime, parse_moment
from trainer.sources.header_names import chat_roles, normalise_column
from trainer.sources.sessionise import sort_by_time

TIME_KEYS = frozenset(
    "ts createtime createdtime createddate createddatetime createdon datecreated originservertime "
    "originserverts "
    "originalarrivaltime arrivaltime senttime sendtime senttimestamp messagetime timesent utctime "
    "epoch unixtime".split()
)
"""Keys of times in messages, without underscores, beside those that name a column of times in a
table.
"""
NUMBER_KEYS = frozenset(
    "index idx turn turnid turnidx turnindex turnnumber messageindex messagenumber sequence "
    "seq".split()
)
MIN_KEYS = 3
"""A message with fewer keys has a speaker and a text alone."""


def sort_messages(messages: list[Any]) -> list[Any]:
    """Return messages by time if all of them have a readable one under a known key, or by number;
    else as they are.
    """
    if not _may_be_numbered(messages):
        return messages
    values = _order_values(messages)
    if not values:
        return messages
    pairs = sort_by_time(list(zip(values[1], messages, strict=True)), lambda pair: pair[0])
    return [message for _, message in pairs]


def order_key(messages: list[Any]) -> str:
    """Return the key by which `sort_messages` orders; empty if it does not."""
    values = _order_values(messages) if _may_be_numbered(messages) else None
    return values[0] if values else ""


def _may_be_numbered(messages: list[Any]) -> bool:
    return len(messages) > 1 and isinstance(messages[0], dict) and len(messages[0]) >= MIN_KEYS


def _order_values(messages: list[Any]) -> tuple[str, Sequence[float]] | None:
    """Return the key of the order with a value for each message."""
    if not all(isinstance(message, dict) for message in messages):
        return None
    names = [key for key in messages[0] if isinstance(key, str)]
    for key in filter(_is_time, names):
        times = _times([message.get(key) for message in messages])
        if times:
            return key, times
    for key in filter(is_number_key, names):
        numbers = parse_numbers([message.get(key) for message in messages])
        if numbers:
            return key, numbers
    return None


def _is_time(key: str) -> bool:
    return "time" in chat_roles(key) or _joined(key) in TIME_KEYS


def is_number_key(key: str) -> bool:
    """Report whether a key or column is named like the number of a message in its conversation."""
    return _joined(key) in NUMBER_KEYS


def _joined(key: str) -> str:
    return normalise_column(key).replace("_", "")


def _times(cells: list[Any]) -> list[float]:
    """Return times in seconds since 1970; empty if a cell holds none."""
    stamps: list[WrittenTime] = []
    detector = DateOrderDetector()
    for cell in cells:
        stamp = parse_moment(cell)
        if stamp is None:
            return []
        detector.add(stamp)
        stamps.append(stamp)
    times: list[float] = []
    for stamp in stamps:
        at = stamp.at(detector.order)
        if at is None:
            return []
        times.append(at)
    return times


def parse_numbers(cells: Sequence[object]) -> list[float]:
    """Return whole numbers that are all different; empty for anything else."""
    texts = [str(cell) for cell in cells if not isinstance(cell, bool)]
    numbers = {float(text) for text in texts if text.isdecimal()}
    return list(map(float, texts)) if len(numbers) == len(cells) else []
