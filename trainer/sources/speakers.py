"""Resolves the speakers of a chat log, identifies the persona, and leaves out people who have not
opted in.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from personas.errors import MaterialError
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import fold_name
from trainer.sources.conversation import Conversation, RejectedRecord, SourceMessage, SourceSpeaker
from trainer.sources.markup import MENTION_MARK, clean_text
from trainer.sources.source_format import ReadOptions

UNKNOWN_SPEAKER = "someone"
"""Replaces people who are mentioned but never speak: later steps could not recognise the name as
one.
"""
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


@lru_cache(maxsize=1 << 14)  # a log names the same few people in each of its messages
def make_author(
    id: str, names: tuple[str, ...], roles: tuple[str, ...] = (), *, is_bot: bool = False
) -> Author:
    """Build an author with single-line names; without a name the id is used, without an id the
    first name.
    """
    lines = (" ".join(clean_text(name).split()) for name in names)
    names = tuple(dict.fromkeys(filter(None, lines)))
    id = id or next(iter(names), UNKNOWN_SPEAKER)
    return Author(id, names or (id,), roles, is_bot)


@dataclass(slots=True)
class LogMessage:
    """The fields of an entry that are kept in memory; logs contain millions. `part` is the number
    of the file, of several that are parts of one log.
    """

    row: str
    at: float
    author: Author
    text: str
    id: str
    reply_to: str
    part: int = 0


def count_records(session: Sequence[LogMessage]) -> int:
    """Count log records, without placeholders for missing ones."""
    return sum(message.row != "" for message in session)


class SpeakerDirectory:
    """Speakers by id with their names, and the persona among them."""

    def __init__(self, options: ReadOptions) -> None:
        self._persona = options.persona
        self._names_by = options.names_by
        self._ids_and_names = set(map(fold_name, options.all_persona_names))
        self._stated = set(map(fold_name, options.persona_names))
        self._latest: dict[str, Author] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._by_name: dict[str, str] = {}
        self._possible: dict[str, Author] = {}
        self._personas: set[str] = set()
        self._speakers: dict[str, SourceSpeaker] = {}

    def may_be_persona(self, author: Author) -> bool:
        """Match the persona by name or id, or by a role named in the options; other roles may
        merely share its name.
        """
        if not self._ids_and_names:
            return False
        names = map(fold_name, (author.id, *author.names))
        roles = map(fold_name, author.roles)
        return not (self._ids_and_names.isdisjoint(names) and self._stated.isdisjoint(roles))

    def register(self, author: Author) -> None:
        """Register a speaker; the latest name becomes the display name."""
        if self._latest.get(author.id) == author:
            return
        self._latest[author.id] = author
        names = self._names.setdefault(author.id, {})
        for name in reversed(author.names):
            names.pop(name, None)
            names[name] = None
            self._by_name.setdefault(_name_key(name), author.id)
        if author.id not in self._possible and self.may_be_persona(author):
            self._possible[author.id] = author

    def find_persona(self) -> None:
        """Decide who the persona is, once all speakers are registered: an account that is named by
        its id excludes others that merely have its name, or the persona's.
        """
        by_id = {
            id: author for id, author in self._possible.items() if self._is_named_by_id(author)
        }
        if not by_id:
            self._personas = set(self._possible)
            return
        names = set(map(fold_name, itertools.chain.from_iterable(map(self._all_names, by_id))))
        others = self._stated - names - set(map(fold_name, by_id))
        self._personas = set(by_id)
        for id, author in self._possible.items():
            own = {*map(fold_name, self._all_names(id)), *map(fold_name, author.roles)}
            if not others.isdisjoint(own):
                self._personas.add(id)

    @property
    def ignored_bots(self) -> frozenset[str]:
        """Ids of bots that have the persona's name and are not the persona."""
        others = self._possible.keys() - self._personas
        return frozenset(id for id in others if self._possible[id].is_bot)

    def _is_named_by_id(self, author: Author) -> bool:
        """Report whether an account is asked for by an id that is not merely its name, as it is in
        logs without ids.
        """
        is_id = author.id not in self._all_names(author.id)
        return is_id and fold_name(author.id) in self._ids_and_names

    def _all_names(self, id: str) -> list[str]:
        return list(self._names.get(id, ()))

    def ambiguous_persona(self, file: str) -> MaterialError | None:
        """Build the error for a name of the persona that several accounts have, or None. Several
        bots may be one character: proxies of messages have an account in each channel.
        """
        for requested in sorted(self._ids_and_names):
            named = []
            for id in self._personas:
                if requested in map(fold_name, self._all_names(id)):
                    named.append(id)
            are_bots = all(self._latest[id].is_bot for id in named)
            if len(named) < 2 or are_bots or any(fold_name(id) in self._stated for id in named):
                continue
            shown = sorted(named)[:MAX_SHOWN_SPEAKERS]
            accounts = ", ".join(f"{id} ({', '.join(self._all_names(id))})" for id in shown)
            name = next(n for n in self._all_names(shown[0]) if fold_name(n) == requested)
            return MaterialError(
                f"{len(named)} accounts are named {name!r} in {file}: {accounts}.",
                f"Say by its id which of them is the persona: {self._names_by} {shown[0]}.",
            )
        return None

    def absent_persona(
        self, file: str, records: int, broken: list[RejectedRecord]
    ) -> MaterialError | None:
        """Build the error for a persona that never speaks, or None. `broken`: at least the first
        unreadable record.
        """
        if not self._ids_and_names or self._personas:
            return None
        requested = " or ".join(repr(name) for name in sorted(self._ids_and_names))
        persona = self._persona.name if self._persona else requested
        shown = list(self._names.values())[:MAX_SHOWN_SPEAKERS]
        speakers = ", ".join(next(reversed(names)) for names in shown)
        if not records:
            message = f"{file} contains no messages."
        elif broken and not speakers:
            message = (
                f"{persona} never speaks in {file}: {broken[0].row} cannot be read "
                f"({broken[0].reason})."
            )
        else:
            message = f"{persona} never speaks in {file}. Speakers found: {speakers or 'none'}."
        advice = (
            f"The persona is the author named {requested}, or with that id; {self._names_by} gives "
            "other names."
        )
        return MaterialError(message, advice)

    def speaker(self, author: Author) -> SourceSpeaker:
        """Return the speaker of an author's messages: one per id, with all names in use."""
        if author.id not in self._speakers:
            is_persona = author.id in self._personas
            if is_persona and self._persona:
                speaker = SourceSpeaker(self._persona.id, (self._persona.name,), is_persona=True)
            else:
                names = tuple(reversed(self._names[author.id]))  # the latest first
                speaker = SourceSpeaker(author.id, names, is_persona)
            self._speakers[author.id] = speaker
        return self._speakers[author.id]

    def plays(self, author: Author) -> bool:
        """Report whether an author is the persona, once all speakers are registered."""
        return author.id in self._personas

    def unheard(self, admits: Callable[[Author], bool]) -> tuple[SourceSpeaker, ...]:
        """Return the people whose own lines will be missing: those left out, and people who play
        the persona.

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
        self,
        session: list[LogMessage],
        source: str,
        options: ReadOptions,
        unheard: tuple[SourceSpeaker, ...],
    ) -> Conversation:
        """Convert a session to a conversation."""
        return Conversation.of(
            list(map(self._message, session)),
            source,
            options.right,
            rows=count_records(session),
            arrived=options.arrived,
            unheard=unheard,
        )

    def _message(self, message: LogMessage) -> SourceMessage:
        author = message.author
        text = MENTION_MARK.sub(self._mention, message.text)
        by = (author.id,) if self.plays(author) and not author.is_bot else ()
        return SourceMessage(self.speaker(author), text, message.row, at=message.at, by=by)

    def _mention(self, match: re.Match[str]) -> str:
        id_or_name = match[1]
        key = _name_key(id_or_name)
        id = id_or_name if id_or_name in self._names else self._by_name.get(key, "")
        if id:
            return f"@{self.speaker(Author(id, ())).name}"
        persona = self._persona
        if persona and key in (_name_key(persona.id), _name_key(persona.name)):
            return f"@{persona.name}"
        return f"@{UNKNOWN_SPEAKER}"


def _name_key(name: str) -> str:
    """Return a name's lookup key: digits for telephone numbers, otherwise case-folded."""
    digits = "".join(filter(str.isdigit, name))
    if len(digits) >= MIN_PHONE_DIGITS and not any(map(str.isalpha, name)):
        # WhatsApp mentions a number without the spaces with which it names the speaker.
        return digits
    return fold_name(name)


class ConsentFilter:
    """Filters lines by consent; passes everything under another right or when consent is not
    checked.
    """

    def __init__(self, options: ReadOptions, plays: Callable[[Author], bool]) -> None:
        """`plays` reports whether an author speaks as the persona."""
        self._is_open = options.consent is None or options.right != DISCORD_API
        self._opted_in = options.consent.opted_in if options.consent else frozenset[str]()
        self._plays = plays

    def allows(self, author: Author) -> bool:
        """Report whether an author's messages may be used. Bots other than the persona were dropped
        earlier.
        """
        return self._is_open or author.is_bot or author.id in self._opted_in

    def _is_usable(self, message: LogMessage) -> bool:
        return not message.row or self.allows(message.author)  # a placeholder has no author

    def filter_session(
        self, session: list[LogMessage]
    ) -> tuple[list[LogMessage], list[RejectedRecord]]:
        """Return the usable part of a session, and the rest with reasons."""
        if self._is_open:
            return session, []
        reasons = self._reasons(session)
        kept = [message for message, reason in zip(session, reasons, strict=True) if not reason]
        has_persona = any(self._plays(message.author) for message in session)
        if has_persona and not any(self._plays(message.author) for message in kept[1:]):
            # No reply of the persona is left, so what others say is needed for nothing.
            reasons = [reason or UNANSWERED for reason in reasons]
            kept = []
        rejected = []
        for message, reason in zip(session, reasons, strict=True):
            if reason:
                rejected.append(RejectedRecord(message.row, reason, count_records([message])))
        return kept, rejected

    def _reasons(self, session: Sequence[LogMessage]) -> list[str]:
        """Return each line's reason for exclusion. A reply without a reference answers all since
        the previous one.
        """
        by_id = {message.id: message for message in session if message.id}
        prompt: list[LogMessage] = []
        is_answered = False
        reasons = []
        for message in session:
            if not self._plays(message.author):
                prompt = [message] if is_answered else [*prompt, message]
                is_answered = False
                reasons.append("" if self._is_usable(message) else NOT_OPTED_IN)
                continue
            is_answered = True
            target = by_id.get(message.reply_to)
            answered = [target] if target and not self._plays(target.author) else prompt
            # Whose words it answers cannot be known if the message is outside the session.
            is_unknown = bool(message.reply_to) and target is None
            if not self.allows(message.author):
                reasons.append(PLAYER_NOT_OPTED_IN)
            elif is_unknown or not all(map(self._is_usable, answered)):
                reasons.append(ANSWERS_OTHERS)
            else:
                reasons.append("")
        return reasons
