"""The bot's own stored conversations as material: what opted-in members of one server asked, and what was answered.

They came through Discord's API, so nothing is taken unless the operator has stated Discord's permission. Others' lines
and direct messages are never taken, and where others are named it says "someone". Written as our own log, which
`trainer.sources.own_log` reads: {"channel", "id", "at", "author", "author_id", "text", "reply_to"?, "is_bot"?}.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from bot.store import Message, Store
from personas.consent import Consent
from personas.errors import RequestError
from personas.rights import DISCORD_API, decide, what_discord_takes

HISTORY = "history"
"""The name of the data set."""
SOMEONE = "someone"
SHORTEST_NAME = 3
"""Shorter names are mostly words of their own and are looked for behind an @ only."""


def write_history(store: Store, consent: Consent, guild_id: int, persona_id: str, out: Path) -> int:
    """Write the log to a file, readable by its owner only, in place of an earlier one. Gives the number of messages.

    Raises `RequestError` where it may not be trained on or holds nothing, and `OSError`.
    """
    lines = history_lines(store, consent, guild_id, persona_id)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return len(lines)


def history_lines(store: Store, consent: Consent, guild_id: int, persona_id: str) -> list[str]:
    """What was asked and answered, channel by channel, oldest first, as lines of our own log.

    Who opted in is looked up in the store; `consent` holds Discord's permission. Raises `RequestError` where it may not
    be trained on or holds nothing.
    """
    if not guild_id:
        raise RequestError("Direct messages are never trained on.", "Ask for a server's history.")
    opted_in = store.people.opted_in()
    allowed = Consent(permission=consent.permission, opted_in=frozenset(map(str, opted_in)))
    said = {message.seq: message for message in store.messages.said_in(guild_id)}
    exchanges = [pair for message in said.values() if (pair := _exchange(store, message, said, persona_id))]
    asked = {question.author_id for question, _ in exchanges}
    if decide(HISTORY, by_form=DISCORD_API, consent=allowed).refused or not asked & opted_in:
        raise RequestError(
            f"`{HISTORY}` may not be trained on: it is what members said to the bot here, through Discord's API.",
            f"{what_discord_takes(allowed)} Of {len(asked)} members whom this persona answered here, "
            f"{len(asked & opted_in)} have opted in.",
        )
    others = (message for message in said.values() if message.author_id not in opted_in)
    masked = _Masked(others, {reply.author_name for _, reply in exchanges})
    taken = {one.seq: (one, question) for question, reply in exchanges if question.author_id in opted_in
             for one in (question, reply)}  # fmt: skip
    lines = sorted(taken.values(), key=lambda pair: (pair[0].channel_id, pair[0].at, pair[0].seq))
    return [json.dumps(_line(one, question, masked), ensure_ascii=False) for one, question in lines]


def _exchange(
    store: Store, message: Message, said: dict[int, Message], persona_id: str
) -> tuple[Message, Message] | None:
    """What a message of the persona answers, and that message; None for any other message, or when it is not known."""
    if message.persona_id != persona_id or message.discord_message_id is None:
        return None
    reply = store.replies.of_message(message.discord_message_id)
    question = said.get(reply.trigger_seq or 0) if reply else None
    return (question, message) if question and question.persona_id is None else None


def _line(message: Message, question: Message, masked: _Masked) -> dict[str, Any]:
    line = {
        "channel": str(message.channel_id),
        "id": str(message.seq),
        "at": message.at,
        "author": message.author_name,
        "author_id": message.persona_id or str(message.author_id),
        "text": masked.text(message.text),
    }
    return line | {"reply_to": str(question.seq), "is_bot": True} if message.persona_id else line


class _Masked:
    """Texts without the people who have not opted in."""

    def __init__(self, others: Iterable[Message], kept: Collection[str]) -> None:
        """`kept` are names that stay: the persona's."""
        people = {(m.author_id, m.author_name.strip()) for m in others if m.persona_id is None}
        folded = {"", *(name.casefold() for name in kept)}
        names = sorted({name for _, name in people if name.casefold() not in folded}, key=len, reverse=True)
        parts = [*(rf"<@!?{id}>" for id, _ in people), *_patterns(names)]
        self._pattern = re.compile("|".join(parts), re.IGNORECASE) if parts else None

    def text(self, text: str) -> str:
        """The text with someone in their places."""
        return self._pattern.sub(SOMEONE, text) if self._pattern else text


def _patterns(names: Collection[str]) -> Iterator[str]:
    for name in names:
        sign = "@?" if len(name) >= SHORTEST_NAME else "@"
        yield rf"(?<!\w){sign}{re.escape(name)}(?!\w)"
