"""A whole file anonymised, in bounded memory: what was read last is written before the next is read.

Talk is read twice, first for who speaks in it; it is written as our own log, one channel for each conversation.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.aside import written_whole
from trainer.anonymise.names_found import Names
from trainer.anonymise.review import Review
from trainer.anonymise.rows import anonymised_row, is_rows, write_rows
from trainer.conversation import Conversation, Rejected
from trainer.sources import ReadOptions, read, recognise
from trainer.sources.files import Record, SourceFile, open_source
from trainer.sources.hub import located

ROWS = '\n  or rows with a "text": {"text": "…"} as JSON, JSON Lines or CSV'
NO_TEXT = "no text"
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""When the first message of every conversation was said, as far as the log tells: real times would tell who spoke."""
Heard = Callable[[str, int], None]


@dataclass(frozen=True)
class Order:
    """What is to be anonymised, and where to.

    `anonymiser` has met nobody yet; `review` lists what it replaces.
    """

    source: Path
    out: Path
    options: ReadOptions
    anonymiser: Anonymiser
    format: str | None = None
    review: Review | None = None


@dataclass
class Account:
    """What became of the file's records."""

    texts: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def reject(self, item: Rejected) -> None:
        """Count records that are not written."""
        self.rejected[item.reason] += item.rows


def anonymise(order: Order, heard: Heard) -> dict[str, Any]:
    """Write `out`, whole or not at all, and give the figures. Raises `UnderstudyError` and `OSError`."""
    names, account = order.anonymiser.names, Account()
    begun = time.monotonic()  # the tagger is in memory now
    file = open_source(located(order.source))
    with order.review or nullcontext(), written_whole(order.out) as out:
        if is_rows(file, order.format):
            write_rows(_rows(file, order, account, heard), out, order.out.suffix.lower())
        else:
            _meet(order, heard)
            write_rows(_lines(order, account, heard), out, ".jsonl")
        if not account.texts:
            why = f": {next(iter(account.rejected))}" if account.rejected else ""
            raise MaterialError(
                f"Nothing in {order.source.name} can be used{why}.", "Give rows with a text, or a talk."
            )
    return {**_figures(order, account, time.monotonic() - begun), **_finders(names)}


# --------------------------------------------------------------------------------------------------------------- rows


def _rows(file: SourceFile, order: Order, account: Account, heard: Heard) -> Iterator[dict[str, Any]]:
    for record in file.records():
        heard("anonymising", 1)
        if isinstance(record, Rejected):
            account.reject(record)
        elif not isinstance(record[1].get("text"), str):
            account.reject(Rejected(record[0], NO_TEXT))
        else:
            yield _row(record, order, account)


def _row(record: Record, order: Order, account: Account) -> dict[str, Any]:
    account.texts += 1
    if order.review:
        order.review.row = record[0]
    return anonymised_row(record[1], order.anonymiser)


# --------------------------------------------------------------------------------------------------------------- talk


def _meet(order: Order, heard: Heard) -> None:
    try:
        recognise(order.source, order.format, order.options)
    except MaterialError as error:
        is_unknown = error.advice.startswith("Known formats")
        raise MaterialError(error.message, error.advice + ROWS * is_unknown) from None
    for item in read(order.source, order.options, order.format):
        heard("meeting people", item.rows)
        if isinstance(item, Conversation):
            order.anonymiser.meet(item)


def _lines(order: Order, account: Account, heard: Heard) -> Iterator[dict[str, Any]]:
    number = 0
    for item in read(order.source, order.options, order.format):
        heard("anonymising", item.rows)
        if isinstance(item, Rejected):
            account.reject(item)
            continue
        number += 1
        if order.review:
            order.review.row = item.messages[0].row
        account.texts += len(item.messages)
        yield from _log_lines(order.anonymiser.masked(item), number)


def _log_lines(conversation: Conversation, number: int) -> Iterator[dict[str, Any]]:
    """The messages as `trainer.sources.own_log` reads them; a persona's id is its name."""
    for place, message in enumerate(conversation.messages):
        name = message.speaker.name
        yield {
            "channel": str(number),
            "id": str(place + 1),
            "at": (BEGINNING + timedelta(seconds=place)).isoformat(),
            "author": name,
            "author_id": message.speaker.id if message.speaker.is_persona else sha256(name.encode()).hexdigest()[:16],
            "text": message.text,
            "is_bot": False,
        }


# ------------------------------------------------------------------------------------------------------------ figures


def _finders(names: Names) -> dict[str, Any]:
    return {"names_found_by": names.by, "patterns_only": dict(names.patterns_only)}


def _figures(order: Order, account: Account, seconds: float) -> dict[str, Any]:
    anonymiser = order.anonymiser
    return {
        "texts": account.texts,
        "replaced": dict(anonymiser.counts.most_common()),
        "people": anonymiser.people_count,
        "strangers": len(anonymiser.strangers),
        "rejected": dict(account.rejected),
        "review_deleted_on": order.review.delete_on if order.review else None,
        "seconds": round(seconds, 2),
        "texts_per_s": round(account.texts / max(seconds, 1e-6), 1),
    }
