"""Data sets from the bot's database: chat history of opted-in members, and preferences of votes and lessons."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.store import Lesson, Store, StoredMessage
from bot.store.human_feedback import VotePreference as Vote
from personas.errors import RequestError
from personas.home.data_subjects import Consent
from personas.home.job_material import SourceMaterial
from personas.home.preferences import (
    COMPARISON,
    PREFERENCES_FILE,
    TAUGHT,
    PreferenceRecord,
    PromptTurn,
    preferences_to_jsonl,
)
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.rights import RightsStatement, decide_right, describe_discord_requirements
from personas.prompt import EXAMPLE_USER
from personas.schemas.base import DISCORD_API

HISTORY_DATASET = "history"
"""The name of the data set."""
MASKED_NAME = "someone"
MIN_NAME_CHARS = 3
"""Shorter names are mostly words of their own and are looked for behind an @ only."""
FORM_SOURCE = "form"
PREFERENCE_RIGHTS = (
    FORM_SOURCE,
    "those who gave them",
    "Given on purpose: typed into a form to be learned from, or voted on the operator's prompts.",
)


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
    """Yield prompts and replies, channel by channel, oldest first, as lines of our own log.

    Who opted in is looked up in the store; `consent` holds Discord's permission. Raises `RequestError` where it may not
    be trained on or holds nothing.
    """
    if not guild_id:
        raise RequestError("Direct messages are never trained on.", "Ask for a server's history.")
    opted_in = store.people.opted_in()
    allowed = Consent(permission=consent.permission, opted_in=frozenset(map(str, opted_in)))
    said = {message.seq: message for message in store.messages.guild_messages(guild_id)}
    exchanges = [pair for message in said.values() if (pair := _question_of(store, message, said, persona_id))]
    asked = {question.author_id for question, _ in exchanges}
    if decide_right(HISTORY_DATASET, format_right=DISCORD_API, consent=allowed).refused or not asked & opted_in:
        raise RequestError(
            f"`{HISTORY_DATASET}` may not be trained on: members said it to the bot here, through Discord's API.",
            f"{describe_discord_requirements(allowed)} Of {len(asked)} members whom this persona answered here, "
            f"{len(asked & opted_in)} have opted in.",
        )
    others = (message for message in said.values() if message.author_id not in opted_in)
    masked = _NameMask(others, {reply.author_name for _, reply in exchanges})
    taken = {one.seq: (one, question) for question, reply in exchanges if question.author_id in opted_in
             for one in (question, reply)}  # fmt: skip
    lines = sorted(taken.values(), key=lambda pair: (pair[0].channel_id, pair[0].at, pair[0].seq))
    return [json.dumps(_line(one, question, masked), ensure_ascii=False) for one, question in lines]


def _question_of(
    store: Store, message: StoredMessage, said: dict[int, StoredMessage], persona_id: str
) -> tuple[StoredMessage, StoredMessage] | None:
    """Pair a message of the persona with the one it answers; None for any other message, or when it is not known."""
    if message.persona_id != persona_id or message.discord_message_id is None:
        return None
    reply = store.replies.of_message(message.discord_message_id)
    question = said.get(reply.trigger_seq or 0) if reply else None
    return (question, message) if question and question.persona_id is None else None


def _line(message: StoredMessage, question: StoredMessage, masked: _NameMask) -> dict[str, Any]:
    line = {
        "channel": str(message.channel_id),
        "id": str(message.seq),
        "at": message.at,
        "author": message.author_name,
        "author_id": message.persona_id or str(message.author_id),
        "text": masked.text(message.text),
    }
    return line | {"reply_to": str(question.seq), "is_bot": True} if message.persona_id else line


class _NameMask:
    """Texts without the people who have not opted in."""

    def __init__(self, others: Iterable[StoredMessage], kept: Collection[str]) -> None:
        """`kept` are names that stay: the persona's."""
        people = {(m.author_id, m.author_name.strip()) for m in others if m.persona_id is None}
        folded = {"", *(name.casefold() for name in kept)}
        names = sorted({name for _, name in people if name.casefold() not in folded}, key=len, reverse=True)
        parts = [*(rf"<@!?{id}>" for id, _ in people), *_name_patterns(names)]
        self._pattern = re.compile("|".join(parts), re.IGNORECASE) if parts else None

    def text(self, text: str) -> str:
        """The text with someone in their places."""
        return self._pattern.sub(MASKED_NAME, text) if self._pattern else text


def _name_patterns(names: Collection[str]) -> Iterator[str]:
    for name in names:
        sign = "@?" if len(name) >= MIN_NAME_CHARS else "@"
        yield rf"(?<!\w){sign}{re.escape(name)}(?!\w)"


def preferences_material(home: Path, store: Store, guild_id: int, persona_id: str) -> SourceMaterial:
    """All that a persona's training may take of a server, or of all for guild 0. Raises `RequestError` for nothing."""
    found = sorted(_dated_preferences(home, store, guild_id, persona_id), key=lambda pair: pair[0])
    if not found:
        raise RequestError(
            "Nobody has taught this persona a reply or compared two of its versions here.",
            "`/persona teach` and `/finetune compare` do.",
        )
    right, stated_by, why = PREFERENCE_RIGHTS
    stated = RightsStatement(right, stated_by, _day(time.time()), why)
    text = preferences_to_jsonl(one for _, one in found)
    return SourceMaterial(
        "preferences", PREFERENCES_FILE, "what was preferred here", stated, _day(time.time()), text=text
    )


def _dated_preferences(
    home: Path, store: Store, guild_id: int, persona_id: str
) -> Iterator[tuple[float, PreferenceRecord]]:
    """With when each was given."""
    key, opted_in = HomeKey.of(home).people(), store.people.opted_in()
    for lesson in store.lessons.of_persona(persona_id, guild_id):
        if lesson.as_moderator or lesson.user_id in opted_in:  # who has opted out since is left out
            yield lesson.at, _lesson_preference(lesson, key)
    for vote in store.comparisons.preferences(persona_id):
        if guild_id in (0, vote.guild_id) and vote.chosen != vote.rejected:  # both versions may say the same
            yield vote.at, _vote_preference(vote, key)


def _vote_preference(vote: Vote, key: bytes) -> PreferenceRecord:
    return PreferenceRecord(
        prompt=(PromptTurn(name=EXAMPLE_USER, text=vote.prompt),),
        chosen=vote.chosen or None,
        rejected=vote.rejected or None,
        kind=COMPARISON,
        by=keyed_person(key, str(vote.user_id)),
        right=FORM_SOURCE,
        at=_day(vote.at),
    )


def _lesson_preference(lesson: Lesson, key: bytes) -> PreferenceRecord:
    return PreferenceRecord(
        prompt=(PromptTurn(name=EXAMPLE_USER, text=lesson.prompt),),
        chosen=lesson.reply,
        rejected=lesson.instead_of or None,
        kind=TAUGHT,
        by=keyed_person(key, str(lesson.user_id)),
        right=lesson.right,
        at=_day(lesson.at),
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
