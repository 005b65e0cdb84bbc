"""Who speaks in a log, under which names, and which of them is the persona."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from personas.errors import MaterialError
from personas.letters import folded
from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.formats import ReadOptions
from trainer.sources.markup import MENTIONED, clean

SOMEONE = "someone"
"""Stands for whoever is mentioned but never speaks in the log: nothing later would know the name for one."""
SHOWN_SPEAKERS = 12
FEWEST_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a message, as the log knows them. `names`: all that it gives, the one to show first."""

    id: str
    names: tuple[str, ...]
    roles: tuple[str, ...] = ()
    is_bot: bool = False


@lru_cache(maxsize=1 << 14)
def author_of(id: str, names: tuple[str, ...], roles: tuple[str, ...] = (), *, is_bot: bool = False) -> Author:
    """Names are brought to one line; an author without any goes by the id, one without an id by the first name."""
    known = dict.fromkeys(" ".join(clean(name).split()) for name in names)
    known.pop("", None)
    return Author(id or next(iter(known), SOMEONE), tuple(known) or (id or SOMEONE,), roles, is_bot)


@dataclass(slots=True)
class Said:
    """What is kept of an entry: logs hold millions."""

    row: str
    at: float
    author: Author
    text: str
    id: str
    reply_to: str


def rows_of(session: Sequence[Said]) -> int:
    """How many records of the log these are: what stands for something missing is none."""
    return sum(said.row != "" for said in session)


class Cast:
    """Who speaks, under which names, and which of them is the persona."""

    def __init__(self, options: ReadOptions) -> None:
        self._persona, self._names_by = options.persona, options.names_by
        given = {folded(name) for name in options.persona_names}
        own = {folded(self._persona.id), folded(self._persona.name)} if self._persona else set()
        self._ids_and_names, self._roles = own | given, given
        self._latest: dict[str, Author] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._by_name: dict[str, str] = {}
        self._personas: set[str] = set()
        self._speakers: dict[str, Speaker] = {}

    def is_persona(self, author: Author) -> bool:
        """By name or id; by a role only where the options name it, since members wear roles called after a persona."""
        if not self._ids_and_names:
            return False
        called = {folded(author.id), *map(folded, author.names)}
        roles = set(map(folded, author.roles))
        return not (self._ids_and_names.isdisjoint(called) and self._roles.isdisjoint(roles))

    def heard(self, author: Author) -> None:
        """Take note of somebody who speaks; the name in use last is shown first."""
        if self._latest.get(author.id) == author:
            return
        self._latest[author.id] = author
        names = self._names.setdefault(author.id, {})
        for name in reversed(author.names):
            names.pop(name, None)
            names[name] = None
            self._by_name.setdefault(_called(name), author.id)
        if author.id not in self._personas and self.is_persona(author):
            self._personas.add(author.id)

    def absent_persona(self, file: str, records: int, broken: list[Rejected]) -> MaterialError | None:
        """The error that says why, if a persona was asked for and nobody is. `broken` begins what could not be read."""
        if not self._ids_and_names or self._personas:
            return None
        asked = " or ".join(repr(name) for name in sorted(self._ids_and_names))
        wanted = self._persona.name if self._persona else asked
        found = ", ".join(self.speaker_names())
        if not records:
            said = f"{file} holds no messages."
        elif broken and not found:
            said = f"{wanted} never speaks in {file}: {broken[0].row} cannot be read ({broken[0].reason})."
        else:
            said = f"{wanted} never speaks in {file}. Speakers found: {found or 'nobody'}."
        advice = f"An author is the persona whose name or id is {asked}; {self._names_by} names others."
        return MaterialError(said, advice)

    def speaker_names(self) -> list[str]:
        """The names to show of those who spoke first."""
        return [next(reversed(names)) for names in list(self._names.values())[:SHOWN_SPEAKERS]]

    def speaker(self, author: Author) -> Speaker:
        """The speaker whom an author's messages are by: one for each id, with all names in use for it."""
        if author.id not in self._speakers:
            is_persona = author.id in self._personas
            if is_persona and self._persona:
                speaker = Speaker(self._persona.id, (self._persona.name,), is_persona=True)
            else:
                speaker = Speaker(author.id, tuple(reversed(self._names[author.id])), is_persona)
            self._speakers[author.id] = speaker
        return self._speakers[author.id]

    def plays(self, author: Author) -> bool:
        """Whether somebody, once all have been heard, is the persona."""
        return author.id in self._personas

    def unheard(self, admits: Callable[[Author], bool]) -> tuple[Speaker, ...]:
        """Whose own lines will not be there under any of their names: those left out, and people who play the persona.

        What they are called as the persona is no name of theirs.
        """
        people = []
        for id, author in self._latest.items():
            names = tuple(reversed(self._names[id]))
            if id in self._personas:
                names = tuple(name for name in names if folded(name) not in self._ids_and_names)
            if names and not author.is_bot and (id in self._personas or not admits(author)):
                people.append(Speaker(id, names))
        return tuple(people)

    def conversation(
        self, session: list[Said], source: str, options: ReadOptions, unheard: tuple[Speaker, ...]
    ) -> Conversation:
        """What was said in a session, by whom it is to be learned."""
        messages = [
            Message(
                self.speaker(said.author),
                self.named(said.text),
                said.row,
                at=said.at,
                by=(said.author.id,) if self.plays(said.author) and not said.author.is_bot else (),
            )
            for said in session
        ]
        return Conversation.of(
            messages, source, options.right, rows=rows_of(session), arrived=options.arrived, unheard=unheard
        )

    def named(self, text: str) -> str:
        """The text with names where mentions are marked."""
        return MENTIONED.sub(self._name, text) if "\x02" in text else text

    def _name(self, match: re.Match[str]) -> str:
        who = match[1]
        id = who if who in self._names else self._by_name.get(_called(who), "")
        if not id:
            is_persona = self._persona and _called(who) in (_called(self._persona.id), _called(self._persona.name))
            return f"@{self._persona.name if self._persona and is_persona else SOMEONE}"
        return f"@{self.speaker(Author(id, ())).name}"


def _called(name: str) -> str:
    """What a name is looked up by: telephone numbers by their digits, others whatever their case."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return digits if len(digits) >= FEWEST_DIGITS and not any(map(str.isalpha, name)) else folded(name)
