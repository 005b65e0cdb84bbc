"""Resolves the speakers of a chat log, identifies the persona, and leaves out people who have not opted in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from personas.errors import MaterialError
from personas.schemas.base import DISCORD_API
from personas.unicode_normalise import fold_name
from trainer.sources.conversation import Conversation, RejectedRecord, SourceMessage, SourceSpeaker
from trainer.sources.markup import MENTION_MARK, clean_text
from trainer.sources.source_format import ReadOptions

UNKNOWN_SPEAKER = "someone"
"""Replaces people who are mentioned but never speak: later steps could not recognise the name as one."""
MAX_SHOWN_SPEAKERS = 12
MIN_PHONE_DIGITS = 7
NOT_OPTED_IN = "said by somebody who has not opted in"
PLAYER_NOT_OPTED_IN = "the persona is played by somebody who has not opted in"
ANSWERS_OTHERS = "answers somebody who has not opted in"
UNANSWERED = "leads to no reply that may be used"
CONSENT_REASONS = (NOT_OPTED_IN, PLAYER_NOT_OPTED_IN, ANSWERS_OTHERS, UNANSWERED)


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a log message. `names` lists all names in the log, the display name first."""

    id: str
    names: tuple[str, ...]
    roles: tuple[str, ...] = ()
    is_bot: bool = False


@lru_cache(maxsize=1 << 14)
def make_author(id: str, names: tuple[str, ...], roles: tuple[str, ...] = (), *, is_bot: bool = False) -> Author:
    """Build an author with single-line names; without a name the id is used, without an id the first name."""
    known = dict.fromkeys(" ".join(clean_text(name).split()) for name in names)
    known.pop("", None)
    return Author(id or next(iter(known), UNKNOWN_SPEAKER), tuple(known) or (id or UNKNOWN_SPEAKER,), roles, is_bot)


@dataclass(slots=True)
class LogMessage:
    """The fields of an entry that are kept in memory; logs hold millions."""

    row: str
    at: float
    author: Author
    text: str
    id: str
    reply_to: str


def count_records(session: Sequence[LogMessage]) -> int:
    """Count log records, without placeholders for missing ones."""
    return sum(said.row != "" for said in session)


class SpeakerDirectory:
    """Speakers by id with their names, and the persona among them."""

    def __init__(self, options: ReadOptions) -> None:
        self._persona, self._names_by = options.persona, options.names_by
        given = {fold_name(name) for name in options.persona_names}
        own = {fold_name(self._persona.id), fold_name(self._persona.name)} if self._persona else set()
        self._ids_and_names, self._roles = own | given, given
        self._latest: dict[str, Author] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._by_name: dict[str, str] = {}
        self._personas: set[str] = set()
        self._speakers: dict[str, SourceSpeaker] = {}

    def is_persona(self, author: Author) -> bool:
        """Match the persona by name or id; by role only if the options name it, as members may have roles named
        after one.
        """
        if not self._ids_and_names:
            return False
        called = {fold_name(author.id), *map(fold_name, author.names)}
        roles = set(map(fold_name, author.roles))
        return not (self._ids_and_names.isdisjoint(called) and self._roles.isdisjoint(roles))

    def heard(self, author: Author) -> None:
        """Register a speaker; the latest name becomes the display name."""
        if self._latest.get(author.id) == author:
            return
        self._latest[author.id] = author
        names = self._names.setdefault(author.id, {})
        for name in reversed(author.names):
            names.pop(name, None)
            names[name] = None
            self._by_name.setdefault(_name_key(name), author.id)
        if author.id not in self._personas and self.is_persona(author):
            self._personas.add(author.id)

    def absent_persona(self, file: str, records: int, broken: list[RejectedRecord]) -> MaterialError | None:
        """Build the error for a persona that never speaks, or None. `broken` begins with the first unreadable
        record.
        """
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
        """Return the display names of the first speakers."""
        return [next(reversed(names)) for names in list(self._names.values())[:MAX_SHOWN_SPEAKERS]]

    def speaker(self, author: Author) -> SourceSpeaker:
        """Return the speaker of an author's messages: one per id, with all names in use."""
        if author.id not in self._speakers:
            is_persona = author.id in self._personas
            if is_persona and self._persona:
                speaker = SourceSpeaker(self._persona.id, (self._persona.name,), is_persona=True)
            else:
                speaker = SourceSpeaker(author.id, tuple(reversed(self._names[author.id])), is_persona)
            self._speakers[author.id] = speaker
        return self._speakers[author.id]

    def plays(self, author: Author) -> bool:
        """Report whether an author is the persona, once all speakers are registered."""
        return author.id in self._personas

    def unheard(self, admits: Callable[[Author], bool]) -> tuple[SourceSpeaker, ...]:
        """Return the people whose own lines will be missing: those left out, and people who play the persona.

        Names they use as the persona are not theirs.
        """
        people = []
        for id, author in self._latest.items():
            names = tuple(reversed(self._names[id]))
            if id in self._personas:
                names = tuple(name for name in names if fold_name(name) not in self._ids_and_names)
            if names and not author.is_bot and (id in self._personas or not admits(author)):
                people.append(SourceSpeaker(id, names))
        return tuple(people)

    def conversation(
        self, session: list[LogMessage], source: str, options: ReadOptions, unheard: tuple[SourceSpeaker, ...]
    ) -> Conversation:
        """Convert a session to a conversation."""
        messages = [
            SourceMessage(
                self.speaker(said.author),
                self.named(said.text),
                said.row,
                at=said.at,
                by=(said.author.id,) if self.plays(said.author) and not said.author.is_bot else (),
            )
            for said in session
        ]
        return Conversation.of(
            messages, source, options.right, rows=count_records(session), arrived=options.arrived, unheard=unheard
        )

    def named(self, text: str) -> str:
        """Replace mention placeholders with names."""
        return MENTION_MARK.sub(self._name, text) if "\x02" in text else text

    def _name(self, match: re.Match[str]) -> str:
        who = match[1]
        id = who if who in self._names else self._by_name.get(_name_key(who), "")
        if not id:
            is_persona = self._persona and _name_key(who) in (
                _name_key(self._persona.id),
                _name_key(self._persona.name),
            )
            return f"@{self._persona.name if self._persona and is_persona else UNKNOWN_SPEAKER}"
        return f"@{self.speaker(Author(id, ())).name}"


def _name_key(name: str) -> str:
    """Return a name's lookup key: digits for telephone numbers, otherwise case-folded."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return digits if len(digits) >= MIN_PHONE_DIGITS and not any(map(str.isalpha, name)) else fold_name(name)


class ConsentFilter:
    """Filters lines by consent; passes everything under another right or when consent is not checked."""

    def __init__(self, options: ReadOptions, plays: Callable[[Author], bool]) -> None:
        """`plays` reports whether an author speaks as the persona."""
        self._is_open = options.consent is None or options.right != DISCORD_API
        self._opted_in = options.consent.opted_in if options.consent else frozenset[str]()
        self._plays = plays

    def allows(self, author: Author) -> bool:
        """Report whether an author's messages may be used. Bots other than the persona were dropped earlier."""
        return self._is_open or author.is_bot or author.id in self._opted_in

    def _lets_in(self, said: LogMessage) -> bool:
        return not said.row or self.allows(said.author)  # what stands for something missing was said by nobody

    def filter_session(self, session: list[LogMessage]) -> tuple[list[LogMessage], list[RejectedRecord]]:
        """Yield the usable part of a session, and the rest with reasons."""
        if self._is_open:
            return session, []
        reasons = self._reasons(session)
        kept = [said for said, reason in zip(session, reasons, strict=True) if not reason]
        has_persona = any(self._plays(said.author) for said in session)
        if has_persona and not any(self._plays(said.author) for said in kept[1:]):
            reasons, kept = [reason or UNANSWERED for reason in reasons], []
        left_out = [
            RejectedRecord(said.row, reason, count_records([said]))
            for said, reason in zip(session, reasons, strict=True)
            if reason
        ]
        return kept, left_out

    def _reasons(self, session: Sequence[LogMessage]) -> list[str]:
        """Return each line's reason for exclusion. A reply without a reference answers everything since the previous
        one.
        """
        by_id = {said.id: said for said in session if said.id}
        asked: list[LogMessage] = []
        is_answered = False
        reasons = []
        for said in session:
            if not self._plays(said.author):
                asked, is_answered = [said] if is_answered else [*asked, said], False
                reasons.append("" if self._lets_in(said) else NOT_OPTED_IN)
                continue
            is_answered = True
            if not self.allows(said.author):
                reasons.append(PLAYER_NOT_OPTED_IN)
                continue
            target = by_id.get(said.reply_to)
            if said.reply_to and target is None:  # nobody knows whose words these answer
                reasons.append(ANSWERS_OTHERS)
                continue
            answered = [target] if target and not self._plays(target.author) else asked
            reasons.append("" if all(self._lets_in(one) for one in answered) else ANSWERS_OTHERS)
        return reasons
