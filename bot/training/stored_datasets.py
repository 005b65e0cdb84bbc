"""Data sets from the bot's database: chat history of opted-in members, and preferences of votes and lessons."""

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.shards import ShardRange
from bot.store import Lesson, Store, StoredMessage, VotePreference
from personas.errors import RequestError
from personas.home.atomic_files import write_private_file
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
MASKED_NAME = "someone"
MIN_NAME_CHARS = 3
"""Shorter names are often ordinary words and are masked only after an @."""
FORM_SOURCE = "form"
"""The right to what was typed into a form to be learned from."""
PREFERENCE_RIGHTS = (
    FORM_SOURCE,
    "those who gave them",
    "Given on purpose: typed into a form to be learned from, or voted on the operator's prompts.",
)


class _NameMask:
    """Masks members who have not opted in; the names `kept`, the persona's, stay."""

    def __init__(self, others: Iterable[StoredMessage], kept: Collection[str]) -> None:
        people = {(m.author_id, m.author_name.strip()) for m in others if m.persona_id is None}
        folded = {"", *(name.casefold() for name in kept)}
        names = sorted({name for _, name in people if name.casefold() not in folded}, key=len, reverse=True)
        parts = [*(rf"<@!?{id}>" for id, _ in people), *_name_patterns(names)]
        self._pattern = re.compile("|".join(parts), re.IGNORECASE) if parts else None

    def apply(self, text: str) -> str:
        return self._pattern.sub(MASKED_NAME, text) if self._pattern else text


def _name_patterns(names: Collection[str]) -> Iterator[str]:
    for name in names:
        sign = "@?" if len(name) >= MIN_NAME_CHARS else "@"
        yield rf"(?<!\w){sign}{re.escape(name)}(?!\w)"


def write_history(store: Store, consent: Consent, guild_id: int, persona_id: str, out: Path) -> int:
    """Write the log to a private file; returns the number of messages. Raises as `history_lines`, and `OSError`."""
    lines = history_lines(store, consent, guild_id, persona_id)
    write_private_file(out, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def history_lines(store: Store, consent: Consent, guild_id: int, persona_id: str) -> list[str]:
    """Return prompts and replies, channel by channel, oldest first, as lines of our own log format.

    The store knows who opted in; `consent` holds Discord's permission. Raises `RequestError` where it may not be
    trained on or holds nothing.
    """
    if not guild_id:
        raise RequestError("Direct messages are never trained on.", "Ask for a server's history.")
    opted_in = store.people.opted_in()
    allowed = Consent(permission=consent.permission, opted_in=frozenset(map(str, opted_in)))
    messages = {message.seq: message for message in store.messages.guild_messages(guild_id)}
    exchanges = [it for message in messages.values() if (it := _exchange_of(store, message, messages, persona_id))]
    authors = {question.author_id for question, _ in exchanges}
    if decide_right(HISTORY_DATASET, format_right=DISCORD_API, consent=allowed).refused or not authors & opted_in:
        raise RequestError(
            f"`{HISTORY_DATASET}` may not be trained on: its messages came to the bot through Discord's API.",
            f"{describe_discord_requirements(allowed)} Of {len(authors)} members whom this persona answered here, "
            f"{len(authors & opted_in)} have opted in.",
        )
    others = (message for message in messages.values() if message.author_id not in opted_in)
    mask = _NameMask(others, {reply.author_name for _, reply in exchanges})
    used = {it.seq: (it, question) for question, reply in exchanges if question.author_id in opted_in
            for it in (question, reply)}  # fmt: skip
    pairs = sorted(used.values(), key=lambda pair: (pair[0].channel_id, pair[0].at, pair[0].seq))
    return [json.dumps(_line(message, question, mask), ensure_ascii=False) for message, question in pairs]


def _exchange_of(
    store: Store, message: StoredMessage, messages: dict[int, StoredMessage], persona_id: str
) -> tuple[StoredMessage, StoredMessage] | None:
    """Pair a message of the persona with the one it answers; None for any other message, or an unknown question."""
    if message.persona_id != persona_id or message.discord_message_id is None:
        return None
    reply = store.replies.of_message(message.discord_message_id)
    question = messages.get(reply.trigger_seq or 0) if reply else None
    return (question, message) if question and question.persona_id is None else None


def _line(message: StoredMessage, question: StoredMessage, mask: _NameMask) -> dict[str, Any]:
    line = {
        "channel": str(message.channel_id),
        "id": str(message.seq),
        "at": message.at,
        "author": message.author_name,
        "author_id": message.persona_id or str(message.author_id),
        "text": mask.apply(message.text),
    }
    return line | {"reply_to": str(question.seq), "is_bot": True} if message.persona_id else line


def preferences_material(home: Path, store: Store, guild_id: int, persona_id: str) -> SourceMaterial:
    """The preferences of a server's members, or of all for guild 0. Raises `RequestError` when there are none."""
    dated = sorted(_dated_preferences(home, store, guild_id, persona_id), key=lambda pair: pair[0])
    if not dated:
        message = "Nobody has taught this persona a reply or compared two of its versions here."
        raise RequestError(message, "`/persona teach` and `/finetune compare` do.")
    (right, stated_by, why), today = PREFERENCE_RIGHTS, _day(time.time())
    stated = RightsStatement(right, stated_by, today, why)
    text = preferences_to_jsonl(preference for _, preference in dated)
    return SourceMaterial("preferences", PREFERENCES_FILE, "what was preferred here", stated, today, text=text)


def _dated_preferences(
    home: Path, store: Store, guild_id: int, persona_id: str
) -> Iterator[tuple[float, PreferenceRecord]]:
    key, opted_in = HomeKey.of(home).people(), store.people.opted_in()
    for lesson in store.lessons.of_persona(persona_id, guild_id):
        if lesson.as_moderator or lesson.user_id in opted_in:  # members who opted out since are left out
            replies = {"chosen": lesson.reply, "rejected": lesson.instead_of or None}
            yield lesson.at, _preference(lesson, key, kind=TAUGHT, right=lesson.right, **replies)
    for vote in store.comparisons.preferences(persona_id):
        if guild_id in (0, vote.guild_id) and vote.chosen != vote.rejected:  # both versions may say the same
            replies = {"chosen": vote.chosen or None, "rejected": vote.rejected or None}
            yield vote.at, _preference(vote, key, kind=COMPARISON, right=FORM_SOURCE, **replies)


def _preference(source: Lesson | VotePreference, key: bytes, **fields: Any) -> PreferenceRecord:
    prompt = (PromptTurn(name=EXAMPLE_USER, text=source.prompt),)
    return PreferenceRecord(prompt=prompt, by=keyed_person(key, str(source.user_id)), at=_day(source.at), **fields)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


@contextmanager
def guild_store(home: Path, own: Store, shards: ShardRange | None, guild_id: int) -> Iterator[Store]:
    """Open the store with a guild's messages and votes, also where another process has it. Raises `RequestError`."""
    if shards is None or shards.has(guild_id):
        yield own
        return
    file = next((it.file(home) for it in ShardRange.in_home(home) if it.has(guild_id)), None)
    if file is None:
        raise RequestError(
            "The messages of this server are not on the machine that trains.",
            "Name another data set, or let all processes of the bot use one UNDERSTUDY_HOME.",
        )
    with Store.read_only(file) as store:
        yield store
