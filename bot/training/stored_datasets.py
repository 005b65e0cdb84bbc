"""Data sets from the bot's database: chat history of opted-in members, and preferences of votes and
lessons.
"""

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from bot.platform.localisation import gettext_lazy
from bot.store import Lesson, Store, StoredMessage, VotePreference
from bot.training.source_rights import requirements_text
from personas.errors import RequestError
from personas.home.atomic_files import write_private_file
from personas.home.data_subjects import Consent, Storing
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
from personas.home.rights import (
    PERMISSION_SETTING,
    RightsStatement,
    decide_right,
)
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.base import DISCORD_API

HISTORY_DATASET = "history"
MASKED_NAME = "someone"
MIN_NAME_CHARS = 3
"""Shorter names are often ordinary words and are masked only after an @."""
CASE_FOLDS = str.maketrans({"ı": "i", "ς": "σ", "ſ": "s", "µ": "μ"})
# A run gets the latest questions with their replies, and the latest lessons or votes.
MAX_EXCHANGES = 50_000
MAX_PREFERENCES = 20_000
FORM_SOURCE = "form"
"""The right to what was typed into a form to be learned from."""
PREFERENCE_RIGHTS = (
    FORM_SOURCE,
    "those who gave them",
    "Given on purpose: typed into a form to be learned from, or voted on the operator's prompts.",
)


class NameMask:
    """Masks people, given as pairs of id and name; the names `kept`, the persona's, stay."""

    def __init__(self, people: Iterable[tuple[int, str]], kept: Collection[str]) -> None:
        ids = set[str]()
        names = set[str]()
        for person_id, name in people:
            ids.add(str(person_id))
            names.add(_fold(name.strip()))
        names -= {"", *map(_fold, kept)}
        short = {name for name in names if len(name) < MIN_NAME_CHARS}
        named = []
        if names - short:
            named.append(f"@?(?:{_any_of(sorted(names - short))})")
        if short:
            named.append(f"@(?:{_any_of(sorted(short))})")
        parts = []
        if ids:
            parts.append(f"<@!?(?:{_any_of(sorted(ids))})>")
        if named:
            parts.append(rf"(?<!\w)(?:{'|'.join(named)})(?!\w)")
        self._pattern = re.compile("|".join(parts)) if parts else None

    def apply(self, text: str) -> str:
        if self._pattern is None:
            return text
        pieces = list[str]()
        end = 0
        # Places in the folded text are those in the text, as `_fold` keeps the length.
        for match in self._pattern.finditer(_fold(text)):
            pieces += (text[end : match.start()], MASKED_NAME)
            end = match.end()
        return "".join([*pieces, text[end:]])


def _fold(text: str) -> str:
    """Fold case and keep the length: a pattern of lower-case literals is five times as fast as one
    without case.
    """
    return text.replace("İ", "i").lower().translate(CASE_FOLDS)


def _any_of(words: Sequence[str]) -> str:
    """Return a pattern that matches the longest of the words, which are sorted and unique, as a
    tree of prefixes.

    Of 1,500 alternatives, a text then tries those with its next letter only.
    """
    parts = []
    for _, group in groupby(words, key=lambda word: word[0]):
        alike = list(group)
        prefix = os.path.commonprefix([alike[0], alike[-1]])  # noqa: RUF071  strings, not paths
        tails = [word[len(prefix) :] for word in alike if word != prefix]
        part = re.escape(prefix)
        if tails:
            is_word = len(tails) < len(alike)  # the prefix itself is one of them
            part += f"(?:{_any_of(tails)}){'?' if is_word else ''}"
        parts.append(part)
    return "|".join(parts)


def write_history(
    store: Store,
    consent: Consent,
    guild_id: int,
    persona_id: str,
    out: Path,
    storing: Storing = nullcontext,
) -> int:
    """Write the log to a private file; returns the number of messages. Raises as `history_lines`,
    and `OSError`.
    """
    lines = history_lines(store, consent, guild_id, persona_id)
    with storing():
        write_private_file(out, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def history_material(
    store: Store, consent: Consent, guild_id: int, persona_id: str, *, reads: bool = True
) -> SourceMaterial:
    """The log of a server, without its lines unless `reads`. Raises as `history_lines`."""
    text = ""
    if reads:
        lines = history_lines(store, consent, guild_id, persona_id)
        text = "".join(f"{line}\n" for line in lines)
    else:
        _require_history(store, consent, guild_id, persona_id)
    stated = RightsStatement(
        DISCORD_API, f"the operator, in {PERMISSION_SETTING}", _day(time.time()), consent.permission
    )
    return SourceMaterial(
        "log", f"{HISTORY_DATASET}.jsonl", HISTORY_DATASET, stated, text=text, format="own-log"
    )


def history_lines(store: Store, consent: Consent, guild_id: int, persona_id: str) -> list[str]:
    """Return prompts and replies, channel by channel, oldest first, as lines of our own log format.

    Of a long history, the latest `MAX_EXCHANGES`. The store knows who opted in; `consent` holds
    Discord's permission. Raises `RequestError` where it may not be trained on or holds nothing.
    """
    _require_history(store, consent, guild_id, persona_id)
    exchanges = store.messages.opted_in_exchanges(guild_id, persona_id, MAX_EXCHANGES)
    if not exchanges:
        raise RequestError(
            gettext_lazy(
                "`{name}` may not be trained on: no stored reply answers a member who has opted in.",
                name=HISTORY_DATASET,
            ),
            gettext_lazy("Ask again when this persona has answered such members here."),
        )
    mask = NameMask(
        store.messages.authors_not_opted_in(guild_id), {reply.author_name for _, reply in exchanges}
    )
    # By number, as several replies may answer one message.
    used = dict[int, tuple[StoredMessage, StoredMessage]]()
    for question, reply in exchanges:
        used[question.seq] = (question, question)
        used[reply.seq] = (reply, question)
    pairs = sorted(used.values(), key=lambda pair: (pair[0].channel_id, pair[0].at, pair[0].seq))
    lines = []
    for message, question in pairs:
        lines.append(json.dumps(_line(message, question, mask), ensure_ascii=False))
    return lines


def _require_history(store: Store, consent: Consent, guild_id: int, persona_id: str) -> None:
    """Raise `RequestError` where nothing may be trained on; counts members, and reads no
    message.
    """
    if not guild_id:
        raise RequestError(
            gettext_lazy("Direct messages are never trained on."),
            gettext_lazy("Ask for a server's history."),
        )
    askers = store.replies.askers(guild_id, persona_id)
    here = frozenset(str(member) for member, is_opted_in in askers.items() if is_opted_in)
    allowed = Consent(permission=consent.permission, opted_in=here)
    right = decide_right(HISTORY_DATASET, format_right=DISCORD_API, consent=allowed)
    if here and not right.refused:
        return
    opted_in = frozenset(map(str, store.people.opted_in()))
    everywhere = Consent(permission=consent.permission, opted_in=opted_in)
    raise RequestError(
        gettext_lazy(
            "`{name}` may not be trained on: its messages came to the bot through Discord's API.",
            name=HISTORY_DATASET,
        ),
        gettext_lazy(
            "{requirements} Of {count} members whom this persona answered here, {consenting} have "
            "opted in.",
            requirements=requirements_text(everywhere),
            count=len(askers),
            consenting=len(here),
        ),
    )


def _line(message: StoredMessage, question: StoredMessage, mask: NameMask) -> dict[str, Any]:
    line: dict[str, Any] = {
        "channel": str(message.channel_id),
        "id": str(message.seq),
        "at": message.at,
        "author": message.author_name,
        "author_id": message.persona_id or str(message.author_id),
        "text": mask.apply(message.text),
    }
    if message.persona_id:
        line |= {"reply_to": str(question.seq), "is_bot": True}
    return line


class MissingPreferencesError(RequestError):
    """A server has no preferences about a persona yet."""


def preferences_material(
    home: Path, store: Store, guild_id: int, persona_id: str, *, reads: bool = True
) -> SourceMaterial:
    """The preferences of a server's members, or of all for guild 0; without content unless `reads`.

    Raises `MissingPreferencesError` when there are none.
    """
    dated: list[tuple[float, PreferenceRecord]] = []
    if reads:
        dated = list(_dated_preferences(home, store, guild_id, persona_id))
        dated.sort(key=lambda pair: pair[0])
        has_any = bool(dated)
    else:
        has_any = store.lessons.has_trainable(
            persona_id, guild_id
        ) or store.comparisons.has_preferences(persona_id, guild_id)
    if not has_any:
        message = gettext_lazy(
            "Nobody has taught this persona a reply or compared two of its versions here."
        )
        raise MissingPreferencesError(
            message, gettext_lazy("`/persona teach` and `/finetune compare` do.")
        )
    right, stated_by, why = PREFERENCE_RIGHTS
    today = _day(time.time())
    stated = RightsStatement(right, stated_by, today, why)
    text = preferences_to_jsonl(preference for _, preference in dated)
    return SourceMaterial(
        "preferences",
        PREFERENCES_FILE,
        origin="what was preferred here",
        statement=stated,
        arrived=today,
        text=text,
    )


def _dated_preferences(
    home: Path, store: Store, guild_id: int, persona_id: str
) -> Iterator[tuple[float, PreferenceRecord]]:
    key = HomeKey.of(home).people()
    opted_in = store.people.opted_in()
    for lesson in store.lessons.of_persona(persona_id, guild_id, MAX_PREFERENCES):
        # Members who opted out since are left out.
        if lesson.as_moderator or lesson.user_id in opted_in:
            replies = {"chosen": lesson.reply, "rejected": lesson.instead_of or None}
            yield lesson.at, _preference(lesson, key, kind=TAUGHT, right=lesson.right, **replies)
    for vote in store.comparisons.preferences(persona_id, guild_id, MAX_PREFERENCES):
        replies = {"chosen": vote.chosen or None, "rejected": vote.rejected or None}
        yield vote.at, _preference(vote, key, kind=COMPARISON, right=FORM_SOURCE, **replies)


def _preference(source: Lesson | VotePreference, key: bytes, **fields: Any) -> PreferenceRecord:
    prompt = (PromptTurn(name=EXAMPLE_USER, text=source.prompt),)
    return PreferenceRecord(
        prompt=prompt, by=keyed_person(key, str(source.user_id)), at=_day(source.at), **fields
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
