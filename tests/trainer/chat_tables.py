"""Generates small chats as tables: headers in five languages, three orders, with and without a
header, and odd ones.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

TALK = (
    ("Corvin", "Is the ferry late again?"),
    ("Tansy", "The ferry is never late, the timetable is early."),
    ("Corvin", "And the fare?"),
    ("Tansy", "Two coins, or one good rope."),
    ("Corvin", "I have no rope."),
    ("Tansy", "Then you have two coins."),
)
SAID = tuple(text for name, text in TALK if name == "Tansy")
HEADERS = {
    "en": ("time", "speaker", "message"),
    "de": ("Zeitpunkt", "Absender", "Nachricht"),
    "fr": ("Horodatage", "Expéditeur", "Message"),
    "ko": ("날짜", "보낸 사람", "내용"),
    "xx": ("kwando", "nani", "neno"),
}
"""In the last language, no name of a column is known."""
ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


@dataclass(frozen=True)
class ChatTable:
    """A form of a chat table. `columns` are those of speaker, text and time as the file names
    them.
    """

    name: str
    content: str
    columns: tuple[str, str, str]

    @property
    def mapping(self) -> dict[str, str]:
        """The right mapping; without a time if the table has none."""
        return {
            role: it
            for role, it in zip(("speaker", "text", "time"), self.columns, strict=True)
            if it
        }


def chat_tables() -> Iterator[ChatTable]:
    """Yield forty forms."""
    rows = [(f"2026-03-0{n + 1} 09:0{n}:00", name, text) for n, (name, text) in enumerate(TALK)]
    for language, header in HEADERS.items():
        for number, order in enumerate(ORDERS):
            cells = [tuple(row[place] for place in order) for row in rows]
            names = tuple(header[place] for place in order)
            delimiter = ",;\t"[number]
            columns = (header[1], header[2], header[0])
            yield ChatTable(f"{language}-{number}.csv", _csv([names, *cells], delimiter), columns)
            positions = tuple(str(order.index(place) + 1) for place in (1, 2, 0))
            yield ChatTable(
                f"{language}-{number}-headerless.csv", _csv(cells, delimiter), positions
            )
    yield from _odd_tables(rows)


def _odd_tables(rows: list[tuple[str, str, str]]) -> Iterator[ChatTable]:
    short = [
        (time, name, word)
        for (time, name, _), word in zip(rows, ("ok", "no", "ok", "hm", "no", "ok"), strict=True)
    ]
    objects = [{"who": name, "what": text, "at": n} for n, (_, name, text) in enumerate(rows)]
    nested = [{"from": {"user": {"displayName": name}}, "body": {"content": text}, "createdDateTime": time}
              for time, name, text in rows]  # fmt: skip
    yield ChatTable(
        "user-reply.csv",
        _csv([("user", "reply"), *((n, t) for _, n, t in rows)]),
        ("user", "reply", ""),
    )
    yield ChatTable("user-label.csv", _csv([("user", "text", "label"), *((n, t, "1") for _, n, t in rows)]),
                    ("user", "text", ""))  # fmt: skip
    yield ChatTable("short.csv", _csv([("Cuándo", "Quién dice", "Qué dice"), *short]),
                    ("Quién dice", "Qué dice", "Cuándo"))  # fmt: skip
    yield ChatTable(
        "author-text.csv",
        _csv([("author", "text"), *((n, t) for _, n, t in rows)]),
        ("author", "text", ""),
    )
    yield ChatTable("ids.csv", _csv([("id", "a", "b", "c"), *((f"m{n}x", *row) for n, row in enumerate(rows))]),
                    ("b", "c", "a"))  # fmt: skip
    yield ChatTable("objects.json", json.dumps(objects), ("who", "what", ""))
    yield ChatTable("nested.json", json.dumps({"value": nested}),
                    ("from.user.displayName", "body.content", "createdDateTime"))  # fmt: skip
    yield ChatTable("lines.jsonl", "\n".join(map(json.dumps, nested)),
                    ("from.user.displayName", "body.content", "createdDateTime"))  # fmt: skip
    parts = [(time[:10], time[11:], name, text) for time, name, text in rows]
    yield ChatTable(
        "parts.csv",
        _csv([("Date", "Time", "Sender", "Message"), *parts]),
        ("Sender", "Message", ""),
    )
    both = [("date", "speaker", "text", "translation"), *((*row, row[2][::-1]) for row in rows)]
    yield ChatTable("translated.csv", _csv(both),
                    ("speaker", "text", "date"))  # fmt: skip


def _csv(rows: list[tuple[str, ...]], delimiter: str = ",") -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()
