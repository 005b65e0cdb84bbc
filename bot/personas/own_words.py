"""The written words of a persona that fit a message: its author's, and those that moderators taught."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bot.personas.registry import PersonaRegistry
from bot.platform.localisation import gettext_noop
from bot.store import Lesson, Store
from personas.errors import MaterialError
from personas.home.adapters import OWN_WORDS_FILE
from personas.lore.index import LoreIndex
from personas.schemas.chat import AdapterRef, Persona
from personas.shipped_folders import SHIPPED_DATA
from personas.words.exchanges import Exchange, card_exchanges
from personas.words.index import OwnWords
from personas.words.version_words import read_words

log = logging.getLogger(__name__)
T = TypeVar("T")
SHIPPED_WORDS = SHIPPED_DATA / "own-words"
"""A file of exchanges for each shipped persona, and their vectors beside it."""
MIN_SIMILARITY = 0.65
"""Cosine from which a message is what a reply was written to."""
MIN_ANY_DAY_SIMILARITY = 0.5
"""The same for replies that were written to be said on any day to anybody, as those of the shipped
personas: read blindly, two thirds of the nearest ones at .5 to .65 are sensible, and of what the bundled
model writes to the same messages none is (docs/own-words.md).
"""
MAX_LESSON_CHARS = 400
"""A longer lesson, some hundred tokens, is no line of talk: it waits for a training."""
READING_S = 2.0
"""Longest wait of a message for the author's words, at the first one."""
AuthorsWords = tuple[OwnWords, float]
"""Written replies, and the cosine from which one is said."""
AUTHOR_NOTE = gettext_noop("in words of this persona's author")
TAUGHT_NOTE = gettext_noop("as a moderator taught it here")


def is_said(lesson: Lesson) -> bool:
    """Report whether a lesson is said without a training. Members' wait for one, which moderators
    start.
    """
    return lesson.as_moderator and len(lesson.reply) <= MAX_LESSON_CHARS


@dataclass(frozen=True)
class WrittenLine:
    """A written reply that fits a message, and the note that says whose words they are."""

    text: str
    note: str


@dataclass
class PersonaWords:
    """Finds written replies. `speaks_authors` tells whether the author's words stand in for the
    model: it is too small to do better. What a moderator taught is said in any case.
    """

    store: Store
    personas: PersonaRegistry
    lore: LoreIndex
    speaks_authors: bool
    folder: Path = SHIPPED_WORDS
    _authors: dict[tuple[str, str], asyncio.Task[AuthorsWords]] = field(default_factory=dict)
    """By a persona's id and its examples: its author's words, once they are read."""
    _trained: dict[str, asyncio.Task[AuthorsWords]] = field(default_factory=dict)
    """By persona: those of the version that it speaks with, by the name of the task."""
    _taught: dict[tuple[str, int], tuple[tuple[int, ...], OwnWords]] = field(default_factory=dict)
    """By persona and guild: the numbers of the lessons, and their index."""

    async def find(
        self,
        persona: Persona,
        guild_id: int,
        message: str,
        *,
        before: str,
        said: Collection[str],
        adapter: AdapterRef | None,
    ) -> WrittenLine | None:
        """Return the written reply that fits a message best, after the persona's line `before`;
        none of those that the talk has just had, `said`. `adapter` is the version that speaks.
        """
        lessons = self._lessons(persona.id, guild_id)
        if not message.strip() or not (lessons or self.speaks_authors):
            return None
        authors = await self._authors_words(persona, adapter) if self.speaks_authors else []

        def search() -> WrittenLine | None:
            taught = self._taught_words(persona.id, guild_id, lessons)
            best = taught.find(message, before, said)
            if best and best.similarity >= MIN_SIMILARITY:
                return WrittenLine(best.exchange.reply, TAUGHT_NOTE)
            hits = []
            for words, least in authors:
                hit = words.find(message, before, said)
                if hit and hit.similarity >= least:
                    hits.append(hit)
            best = max(hits, key=lambda hit: hit.similarity, default=None)
            return WrittenLine(best.exchange.reply, AUTHOR_NOTE) if best else None

        return await self.lore.in_order(search)

    def forget(self) -> None:
        """Drop all that is kept in memory, as when somebody is erased."""
        self._taught.clear()
        self._trained.clear()

    def _lessons(self, persona_id: str, guild_id: int) -> list[Lesson]:
        """Return what moderators of a guild taught a persona; guild 0, of direct messages, has
        none.
        """
        if not guild_id:
            return []
        return list(filter(is_said, self.store.lessons.of_persona(persona_id, guild_id)))

    def _taught_words(self, persona_id: str, guild_id: int, lessons: list[Lesson]) -> OwnWords:
        numbers = tuple(lesson.seq for lesson in lessons)
        known = self._taught.get((persona_id, guild_id))
        if known and known[0] == numbers:
            return known[1]
        exchanges = [Exchange((each.prompt,), each.reply) for each in lessons]
        words = OwnWords(exchanges, self.lore.encoder)
        self._taught[persona_id, guild_id] = (numbers, words)
        return words

    async def _authors_words(
        self, persona: Persona, adapter: AdapterRef | None
    ) -> list[AuthorsWords]:
        """Return the author's words; none yet where their vectors have to be computed first."""
        key = (persona.id, persona.mes_example)
        if key not in self._authors:
            self._authors[key] = _in_thread(self._read_authors, persona)
        reading = [self._authors[key]]
        if adapter:
            trained = self._trained.get(persona.id)
            if trained is None or trained.get_name() != adapter.name:
                trained = _in_thread(self._read_trained, adapter.folder)
                trained.set_name(adapter.name)
                self._trained[persona.id] = trained
            reading.append(trained)
        ready, _ = await asyncio.wait(reading, timeout=READING_S)
        return [each.result() for each in reading if each in ready]

    def _read_authors(self, persona: Persona) -> AuthorsWords:
        """Read the card's examples or, for a shipped persona that nobody has rewritten, its file."""
        path = self.folder / f"{persona.id}.jsonl"
        is_shipped = self.personas.ships(persona.id) and not self.personas.has_copy(persona.id)
        if is_shipped and path.exists():
            return self._read(path), MIN_ANY_DAY_SIMILARITY
        return OwnWords(card_exchanges(persona), self.lore.encoder), MIN_SIMILARITY

    def _read_trained(self, adapter: Path) -> AuthorsWords:
        path = adapter / OWN_WORDS_FILE
        return self._read(path) if path.exists() else OwnWords([]), MIN_SIMILARITY

    def _read(self, path: Path) -> OwnWords:
        try:
            return read_words(path, self.lore.encoder)
        except MaterialError as error:  # the model answers for them
            log.error("a persona's own words are left out: %s", error)
            return OwnWords([])


def _in_thread(read: Callable[[T], AuthorsWords], of: T) -> asyncio.Task[AuthorsWords]:
    return asyncio.create_task(asyncio.to_thread(read, of))
