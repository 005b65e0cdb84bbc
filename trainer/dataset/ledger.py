"""Accounts for every record and participant of a data set: used, or dropped with a reason."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from personas.home.pseudonyms import keyed_person
from trainer.sources.conversation import (
    GUEST_IDS,
    Conversation,
    RejectedRecord,
    SourceSpeaker,
    day_of,
)

LEADS_TO_NO_REPLY = "leads to no reply"
"""The message follows the last reply, or precedes the next one by more than the history."""
PREVIEW_CHARACTERS = 200
MAX_SHOWN_REASONS = 5
PLACEHOLDER_IDS = frozenset(("user", "others", "someone", *GUEST_IDS))  # of nobody in particular


@dataclass(frozen=True)
class DroppedRecord:
    """Dropped records, or one dropped reply of a record in use (`rows` 0).

    `text` is their beginning, if known, `speakers` are their names, `arrived` is the date of
    arrival (ISO 8601).
    """

    source: str
    row: str
    reason: str
    rows: int
    text: str = ""
    right: str = ""
    speakers: tuple[str, ...] = ()
    arrived: str = ""


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Describe dropped records with reasons, as a sentence to append; empty if none were
    dropped.
    """
    reasons = Counter(dropped).most_common()
    shown = [f"{count:,} × {reason}" for reason, count in reasons[:MAX_SHOWN_REASONS] if count]
    others = sum(count for _, count in reasons[MAX_SHOWN_REASONS:])
    if len(reasons) > MAX_SHOWN_REASONS:
        shown.append(f"{others:,} for other reasons")
    return f" Dropped: {', '.join(shown)}." if shown else ""


@dataclass
class Ledger:
    """Counts records. `rows` always equals `rows_used` plus all of `dropped`; `note` is called for
    each drop.

    `replies` counts dropped replies, of records used or not.
    """

    note: Callable[[DroppedRecord], None] = lambda drop: None
    rows: int = 0
    rows_used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)

    def reject(self, source: str, rejected: RejectedRecord) -> None:
        """Count records that their source could not use."""
        self._drop(DroppedRecord(source, rejected.row, rejected.reason, rejected.rows))

    def drop(self, conversation: Conversation, reason: str) -> None:
        """Drop a whole conversation."""
        self.replies[reason] += sum(message.speaker.is_persona for message in conversation.messages)
        self._drop(_drop_all(conversation, reason))

    def settle(
        self, conversation: Conversation, used: Collection[int], faults: Mapping[int, str]
    ) -> None:
        """Count a conversation whose messages at the indices `used` are in samples; `faults` are of
        unused replies.

        If each record is one message, they are counted individually; otherwise (a row with a whole
        conversation) a partly used record counts as used.
        """
        self.replies.update(faults.values())
        messages = conversation.messages
        are_rows_messages = sum(message.rows for message in messages) == conversation.rows
        if conversation.rows > 1 and are_rows_messages:
            for place, message in enumerate(messages):
                is_used = place in used
                self._settle(conversation, place, message.rows, is_used=is_used, faults=faults)
            return
        if not used:
            reason = next(iter(faults.values()), LEADS_TO_NO_REPLY)
            self._drop(_drop_all(conversation, reason))
            return
        self._use(conversation.source, conversation.rows)
        for place in faults:
            self._settle(conversation, place, 0, is_used=False, faults=faults)

    def _settle(
        self,
        conversation: Conversation,
        place: int,
        rows: int,
        is_used: bool,
        faults: Mapping[int, str],
    ) -> None:
        message = conversation.messages[place]
        if is_used:
            self._use(conversation.source, rows)
            rows = 0
        # A reply that is not learned can still be the history of the next one.
        if not is_used or place in faults:
            record = DroppedRecord(
                conversation.source,
                message.row,
                faults.get(place, LEADS_TO_NO_REPLY),
                rows=rows,
                text=message.text[:PREVIEW_CHARACTERS],
                right=conversation.right,
                speakers=(message.speaker.name,),
                arrived=conversation.arrived or day_of(message.at),
            )
            self._drop(record)

    def _use(self, source: str, rows: int) -> None:
        self.rows += rows
        self.rows_used += rows
        self._of(source)["used"] += rows

    def _drop(self, drop: DroppedRecord) -> None:
        self.rows += drop.rows
        if drop.rows:
            self.dropped[drop.reason] += drop.rows
            self._of(drop.source)["dropped"] += drop.rows
        self.note(drop)

    def _of(self, source: str) -> Counter[str]:
        return self.by_source.setdefault(source, Counter())


def _drop_all(conversation: Conversation, reason: str) -> DroppedRecord:
    messages = conversation.messages
    return DroppedRecord(
        conversation.source,
        messages[0].row if messages else "",
        reason,
        rows=conversation.rows,
        text="\n".join(message.text for message in messages[:4])[:PREVIEW_CHARACTERS],
        right=conversation.right,
        speakers=tuple(dict.fromkeys(message.speaker.name for message in messages)),
        arrived=conversation.arrived or (day_of(messages[-1].at) if messages else ""),
    )


class Participants:
    """Registers the people of conversations before names are replaced, then counts their samples.

    Everyone registered is listed, even without samples: they may be mentioned in one.
    """

    def __init__(self, non_speakers: Mapping[str, int] | None = None) -> None:
        """`non_speakers` maps casefolded names of people who do not speak to the number of
        mentions.
        """
        self._non_speakers = non_speakers if non_speakers is not None else {}
        self._names: dict[str, set[str]] = {}
        self._samples: Counter[str] = Counter()

    def register(self, conversation: Conversation) -> None:
        """Register the speakers of a conversation, and its people without lines."""
        for message in conversation.messages:
            if not message.speaker.is_persona:
                self._note(message.speaker)
            for id in message.by:
                self._names.setdefault(id, set())
        for speaker in conversation.unheard:
            self._note(speaker)

    def count_sample(self, people: Iterable[str]) -> None:
        """Count a sample in which these people speak."""
        self._samples.update(people)

    def listed(self, key: bytes, *, with_samples: bool = True) -> dict[str, int]:
        """Count samples by keyed person, each person under the id and under all names.

        Without samples it lists the same people, and counts only the places that name those who do
        not speak.
        """
        listed: Counter[str] = Counter()
        for id in self._names:
            for person in self.keys_of(id, key):
                listed[person] += self._samples[id] if with_samples else 0
        for name, count in self._non_speakers.items():
            listed[keyed_person(key, f"name:{name}")] += count
        return dict(listed)

    def keys_of(self, id: str, key: bytes) -> list[str]:
        """Return a person's entries in the list, of id and names; none for an unknown id."""
        names = self._names.get(id)
        if names is None:
            return []
        entries = {f"name:{name.casefold()}" for name in names}
        if id not in names:
            # Logs without ids know people by their names alone.
            entries.add(id)
        return [keyed_person(key, entry) for entry in sorted(entries)]

    def _note(self, speaker: SourceSpeaker) -> None:
        if speaker.id not in PLACEHOLDER_IDS:
            self._names.setdefault(speaker.id, set()).update(speaker.names)
