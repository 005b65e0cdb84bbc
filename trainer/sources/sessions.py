"""From the messages of a chat log to conversations: who the persona is, what belongs together, what is left out.

Every chat format turns its records into `Entry`s and hands them to `conversations`, which

- leaves out what nobody said: other bots, commands, system messages, what holds no text (each with its reason);
- lets the latest text of an edited message stand, and leaves out what was deleted;
- cuts a channel into sessions: a reply belongs to the session of what it replies to, anything else to the session that
  is going on, unless nobody has spoken for `ReadOptions.session_gap_s`;
- keeps several people apart by their ids, whatever they call themselves, and puts names where mentions were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from trainer.conversation import Conversation, Rejected
from trainer.sources.cast import Author, Cast, Said, rows_of
from trainer.sources.consented import Door
from trainer.sources.formats import ReadOptions
from trainer.sources.markup import is_command

SYSTEM, BOT, COMMAND, NO_TEXT = "system message", "another bot", "command", "no text"
ATTACHMENT, EMBED, STICKER, FORWARDED = "only an attachment", "only an embed", "only a sticker", "forwarded message"
DELETED, DELETION, EDITED = "deleted", "says that another was deleted", "edited later"


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
    entries: Iterable[Entry | Rejected], name: str, options: ReadOptions, *, has_edits: bool = False
) -> Iterator[Conversation | Rejected]:
    """The sessions of a log, in order. `name` is the file's.

    With `has_edits`, an entry takes the place of an earlier one of its channel that has its id. Of what came through
    Discord's API only what opted-in members said is taken, and what the persona answered them.
    Raises `MaterialError`, once every record is accounted for, when `options` name a persona that never speaks.
    """
    log, broken, records = _Log(Cast(options), has_edits), list[Rejected](), 0
    for records, entry in enumerate(entries, start=1):  # noqa: B007  (how many there were is asked afterwards)
        if isinstance(entry, Rejected):
            broken = broken or [entry]
            yield entry
        else:
            yield from log.add(entry)
    absent = log.cast.absent_persona(name, records, broken)
    door = Door(options, log.cast.plays)
    unheard = log.cast.unheard(door.admits)
    for session in log.sessions(options.session_gap_s):
        if absent:
            yield Rejected(session[0].row, absent.message, rows_of(session))
            continue
        session, left_out = door.admitted(session)
        yield from left_out
        if session:
            yield log.cast.conversation(session, options.source or name, options, unheard)
            unheard = ()  # once is enough: all are met before anybody's name is replaced
    if absent:
        raise absent


@dataclass
class _Channel:
    """`places` are those in `said` by id, where messages can be edited; `replied_to` are ids."""

    said: list[Said | None] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    replied_to: set[str] = field(default_factory=set)


class _Log:
    """What was said in each channel, with edits and deletions carried out."""

    def __init__(self, cast: Cast, has_edits: bool) -> None:
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
        channel.said.append(Said(entry.row, at, entry.author, entry.text, entry.id, reply_to))

    def sessions(self, gap_s: float) -> Iterator[list[Said]]:
        """The sessions of each channel, in the order of time; what was said at one time stays as it came."""
        for channel in self._channels.values():
            said = sorted(filter(None, channel.said), key=lambda one: one.at)
            channel.said.clear()
            yield from _sessions(said, channel.replied_to, gap_s)

    def _taken_out(self, channel: _Channel, id: str) -> Said | None:
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


def _sessions(entries: list[Said], replied_to: set[str], gap_s: float) -> Iterator[list[Said]]:
    sessions: list[list[Said]] = []
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
