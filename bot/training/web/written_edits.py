"""Changes that moderators make by hand to the replies that a model has written for a job."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bot.platform.web_kit.problems import Problem
from personas.home.written_replies import (
    WrittenReply,
    read_begun,
    read_struck,
    read_summary,
    read_written,
    store_written,
    struck_file,
    written_file,
)
from personas.schemas.training import WrittenReplies

MAX_REPLY_CHARS = 2000
MIN_REPLIES_LEFT = 2
"""A training learns from one, and is measured with another."""
_changing = threading.Lock()
"""Two moderators read one file: the later change keeps the earlier one."""


@dataclass(frozen=True)
class Written:
    """What a model has written for a job so far, by the numbers of the questions, with what was struck
    out. `is_whole`: nothing more is written; `summary` says what became of it, where that is known.
    """

    replies: list[WrittenReply]
    is_whole: bool
    summary: WrittenReplies | None
    struck: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Edit:
    """The text that a page showed of a reply, and what was typed in its place."""

    seen: str
    typed: str


def read_all(folder: Path) -> Written:
    """Read a job's replies, those that were struck out too. Raises `MaterialError`."""
    file = written_file(folder)
    if not file.exists():
        return Written(read_begun(folder), False, None)
    with _changing:
        left = read_written(file)
        struck = _struck_beside(folder, left)
    numbers = frozenset(reply.number for reply in struck)
    return Written(_in_order([*left, *struck]), True, read_summary(folder), numbers)


def change(folder: Path, edits: Mapping[str, Edit]) -> dict[str, str]:
    """Store what was typed, by the replies' numbers; returns what is wrong with those that are not
    stored. One that was not edited is left alone.
    """
    with _changing:
        before = read_written(written_file(folder))
        left = list(before)
        places = {str(reply.number): place for place, reply in enumerate(left)}
        faults = {}
        for number, edit in edits.items():
            if edit.typed.strip() == edit.seen.strip():
                continue
            place = places.get(number)
            if fault := _fault(None if place is None else left[place], edit):
                faults[number] = fault
            elif place is not None:
                left[place] = replace(left[place], reply=edit.typed.strip(), by="edited")
        if left != before:
            store_written(written_file(folder), left)
    return faults


def _fault(reply: WrittenReply | None, edit: Edit) -> str | None:
    """Say why an edit cannot be stored; None where it can."""
    typed = edit.typed.strip()
    if reply is None:
        return f"Somebody has struck it out meanwhile. You have written: {typed}"
    if not typed:
        return "The reply is empty. Write one, or strike it out."
    if len(typed) > MAX_REPLY_CHARS:
        return f"The reply has {len(typed):,} characters. {MAX_REPLY_CHARS:,} are the most."
    if edit.seen.strip() != reply.reply.strip():
        return (
            f"Somebody has changed it meanwhile, to: {reply.reply} What you have written is not "
            "stored yet."
        )
    return None


def strike(folder: Path, number: str) -> None:
    """Strike out the reply with this number. Raises `Problem` where it has been struck out, or too few
    would be left.
    """
    with _changing:
        left = read_written(written_file(folder))
        reply = _take(left, number)
        if len(left) < MIN_REPLIES_LEFT:
            raise Problem(
                "conflict",
                "These are the last replies: without them, nothing is to be trained on.",
                "Change them, or put others back first.",
            )
        # First where it can be put back from: a kill in between loses nothing.
        store_written(struck_file(folder), [*_struck_beside(folder, [*left, reply]), reply])
        store_written(written_file(folder), left)


def put_back(folder: Path, number: str) -> None:
    """Put back the reply with this number. Raises `Problem` where it was not struck out."""
    with _changing:
        left = read_written(written_file(folder))
        struck = _struck_beside(folder, left)
        reply = _take(struck, number)
        store_written(written_file(folder), _in_order([*left, reply]))
        store_written(struck_file(folder), struck)


def _struck_beside(folder: Path, left: list[WrittenReply]) -> list[WrittenReply]:
    """Read what was struck out; one that a kill has left in both files is not."""
    numbers = {reply.number for reply in left}
    return [reply for reply in read_struck(folder) if reply.number not in numbers]


def _in_order(replies: Iterable[WrittenReply]) -> list[WrittenReply]:
    return sorted(replies, key=lambda reply: reply.number)


def _take(replies: list[WrittenReply], number: str) -> WrittenReply:
    """Take the reply with this number out of others. Raises `Problem` where it is not among them."""
    for reply in replies:
        if str(reply.number) == number:
            replies.remove(reply)
            return reply
    raise Problem(
        "not-found",
        "This reply has been changed meanwhile.",
        "Load the page again.",
    )
