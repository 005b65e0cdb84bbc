"""Reads a server's answer: server-sent events, as HTML's standard describes them, or JSON in their
place.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

DONE = "[DONE]"
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
IGNORED_FIELDS = ("", "id", "retry")
"""Fields without a part of a reply; the first one is a comment."""


class EventReader:
    """Takes the bytes of an answer, and yields the JSON values of its events as soon as they are
    whole. A value of an error event is one with the key `error`.

    Servers leave out the blank line after an event or the last line's end, and some answer with JSON
    as if no stream had been asked for. `is_done`: the answer was whole.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._other: list[str] = []
        """Lines that belong to no event, before the first one."""
        self._other_bytes = 0
        self._has_events = False

    @property
    def other_text(self) -> str:
        """The text of an answer without events."""
        return "" if self._has_events else "\n".join(self._other)

    @property
    def held_bytes(self) -> int:
        """Bytes that were taken, and of which no value was yielded."""
        return len(self._rest) + self._other_bytes

    def feed(self, piece: bytes) -> Iterator[Any]:
        """Yield the values that a further piece of the answer ends. Raises `ValueError` for what is
        no JSON.
        """
        has_end = b"\n" in piece or b"\r" in piece or self._rest.endswith(b"\r")
        self._rest += piece
        if not has_end:  # a long line would be searched again with each piece
            return
        *lines, self._rest = LINE_END.split(self._rest)
        for line in lines:
            yield from self._read_line(line)

    def end(self) -> Iterator[Any]:
        """Yield the values at the end of the answer; text without events is one."""
        yield from self._read_line(self._rest.rstrip(b"\r"))
        try:
            value = json.loads(self.other_text)
        except ValueError:
            return
        self.is_done = True
        yield value

    def _read_line(self, line: bytes) -> Iterator[Any]:
        text = line.decode(errors="replace").removeprefix("\ufeff")
        field, _, value = text.partition(":")
        if not text:
            yield from self._end_event()
        elif field == "data":
            self._other_bytes += len(line)
            yield from self._take(value.strip())
        elif field == "event":
            self._name = value.strip()
        elif field == "error":  # of earlier versions of llama.cpp
            self._name = field
            yield from self._take(value.strip())
        elif field not in IGNORED_FIELDS and not self._has_events:
            self._other_bytes += len(line)
            self._other.append(text)

    def _take(self, data: str) -> Iterator[Any]:
        """Yield the value of a line, or keep it for one of several lines."""
        if data == DONE:
            self.is_done = self._has_events = True
            return
        if not data:
            return
        self._data.append(data)
        if len(self._data) == 1:
            try:
                value = json.loads(data)
            except ValueError:
                return
            yield self._event(value)

    def _end_event(self) -> Iterator[Any]:
        if self._data:
            yield self._event(json.loads("\n".join(self._data)))
        self._name = ""

    def _event(self, value: Any) -> Any:
        if self._name == "error" and not (isinstance(value, dict) and value.get("error")):
            value = {"error": value}
        self._data.clear()
        self._other_bytes = 0
        self._has_events = True
        return value
