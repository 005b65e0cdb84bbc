"""From the messages of a chat log to conversations: who the persona is, what belongs together, what is left out.

Every chat format turns its records into `Entry`s and hands them to `conversations`, which

- leaves out what nobody said: other bots, commands, system messages, what holds no text (each with its reason);
- lets the latest text of an edited message stand, and leaves out what was deleted;
- cuts a channel into sessions: a reply belongs to the session of what it replies to, anything else to the session that
  is going on, unless nobody has spoken for `ReadOptions.session_gap_s`;
- keeps several people apart by their ids, whatever they call themselves, and puts names where mentions were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from personas.errors import MaterialError
from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.formats import ReadOptions
from trainer.sources.markup import MENTIONED, clean, is_command

SOMEONE = "someone"
"""Stands for whoever is mentioned but never speaks in the log: nothing later would know the name for one."""
SHOWN_SPEAKERS = 12
FEWEST_DIGITS = 7
SYSTEM, BOT, COMMAND, NO_TEXT = "system message", "another bot", "command", "no text"
ATTACHMENT, EMBED, STICKER, FORWARDED = "only an attachment", "only an embed", "only a sticker", "forwarded message"
DELETED, DELETION, EDITED = "deleted", "says that another was deleted", "edited later"


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a log that tells of a message.

    `at` counts seconds since 1970, `text` is normalised (see `markup`), `reply_to` is the id of another message of the
    same `channel`. `dropped` says why the message cannot be used, `empty` why it holds no text if it holds none.
    `deletes` is the id of a message that this record deletes. An empty `row` is no record of the log, but stands for
    something that is missing in it.
    """

    row: str
    at: float
    author: Author
    text: str
    id: str = ""
    reply_to: str = ""
    channel: str = ""
    dropped: str = ""
    empty: str = NO_TEXT
    deletes: str = ""


def conversations(
    entries: Iterable[Entry | Rejected], name: str, options: ReadOptions, right: str = "", *, has_edits: bool = False
) -> Iterator[Conversation | Rejected]:
    """The sessions of a log, in order. `name` is the file's, `right` what such logs count as unless one is stated.

    With `has_edits`, an entry takes the place of an earlier one of its channel that has its id.
    Raises `MaterialError`, once every record is accounted for, when `options` name a persona that never speaks.
    """
    log, broken, records = _Log(_Cast(options), has_edits), list[Rejected](), 0
    for records, entry in enumerate(entries, start=1):  # noqa: B007  (how many there were is asked afterwards)
        if isinstance(entry, Rejected):
            broken = broken or [entry]
            yield entry
        else:
            yield from log.add(entry)
    absent = log.cast.absent_persona(name, records, broken)
    source, right = options.source or name, options.right or right
    for session in log.sessions(options.session_gap_s):
        rows = sum(said.row != "" for said in session)
        if absent:
            yield Rejected(session[0].row, absent.message, rows)
            continue
        messages = [Message(log.cast.speaker(said.author), log.cast.named(said.text), said.row) for said in session]
        yield Conversation.of(messages, source, right, rows=rows)
    if absent:
        raise absent


@dataclass(slots=True)
class _Said:
    """What is kept of an entry: logs hold millions."""

    row: str
    at: float
    author: Author
    text: str
    id: str
    reply_to: str


@dataclass
class _Channel:
    """`places` are those in `said` by id, where messages can be edited; `replied_to` are ids."""

    said: list[_Said | None] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    replied_to: set[str] = field(default_factory=set)


class _Log:
    """What was said in each channel, with edits and deletions carried out."""

    def __init__(self, cast: _Cast, has_edits: bool) -> None:
        self.cast, self._has_edits = cast, has_edits
        self._channels: dict[str, _Channel] = {}

    def add(self, entry: Entry) -> Iterator[Rejected]:
        """Take in a record; yields what is left out because of it."""
        channel = self._channels.setdefault(entry.channel, _Channel())
        if entry.deletes:
            if gone := self._taken_out(channel, entry.deletes):
                yield Rejected(gone.row, DELETED)
            yield Rejected(entry.row, DELETION)
            return
        earlier = self._taken_out(channel, entry.id) if self._has_edits else None
        if earlier:
            yield Rejected(earlier.row, EDITED)
        if reason := self._reason(entry):
            yield Rejected(entry.row, reason)
            return
        self.cast.heard(entry.author)
        at, reply_to = (earlier.at, earlier.reply_to) if earlier else (entry.at, entry.reply_to)
        if reply_to:
            channel.replied_to.add(reply_to)
        if self._has_edits:
            channel.places[entry.id] = len(channel.said)
        channel.said.append(_Said(entry.row, at, entry.author, entry.text, entry.id, reply_to))

    def sessions(self, gap_s: float) -> Iterator[list[_Said]]:
        """The sessions of each channel, in the order of time; what was said at one time stays as it came."""
        for channel in self._channels.values():
            said = sorted(filter(None, channel.said), key=lambda one: one.at)
            channel.said.clear()
            yield from _sessions(said, channel.replied_to, gap_s)

    def _taken_out(self, channel: _Channel, id: str) -> _Said | None:
        place = channel.places.pop(id, None)
        if place is None:
            return None
        said, channel.said[place] = channel.said[place], None
        return said

    def _reason(self, entry: Entry) -> str:
        if entry.dropped:
            return entry.dropped
        if entry.author.is_bot and not self.cast.is_persona(entry.author):
            return BOT
        if not entry.text:
            return entry.empty
        return COMMAND if is_command(entry.text) else ""


class _Cast:
    """Who speaks, under which names, and which of them is the persona."""

    def __init__(self, options: ReadOptions) -> None:
        self._persona = options.persona
        given = {name.strip().casefold() for name in options.persona_names}
        own = {self._persona.id.casefold(), self._persona.name.casefold()} if self._persona else set()
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
        called = {author.id.casefold(), *(name.casefold() for name in author.names)}
        roles = {role.casefold() for role in author.roles}
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
        return MaterialError(said, f"An author is the persona whose name or id is {asked}; --as names others.")

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
    return digits if len(digits) >= FEWEST_DIGITS and not any(map(str.isalpha, name)) else name.strip().casefold()


def _sessions(entries: list[_Said], replied_to: set[str], gap_s: float) -> Iterator[list[_Said]]:
    sessions: list[list[_Said]] = []
    session_of: dict[str, int] = {}
    current, last_at = -1, 0.0
    for entry in entries:
        linked = session_of.get(entry.reply_to) if entry.reply_to else None
        if linked is not None:
            current = linked
        elif current < 0 or entry.at - last_at > gap_s:
            current = len(sessions)
            sessions.append([])
        sessions[current].append(entry)
        last_at = entry.at
        if entry.id in replied_to:
            session_of[entry.id] = current
    yield from sessions
