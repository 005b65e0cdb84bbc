"""The account of a data set: every record of its sources was used, or dropped with a reason. Nothing is silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from trainer.conversation import Conversation, Rejected, day_of

UNNEEDED = "leads to no reply"
"""What was said after the last reply, or too long before the next one to be shown with it."""

PREVIEW_CHARACTERS = 200
SHOWN_REASONS = 5


@dataclass(frozen=True)
class Drop:
    """Records, or one reply of a record that is used otherwise (`rows` 0), that nothing is learned from.

    `text` is how they begin, as far as that is known, `speakers` who speaks in them, under the names that they have
    there, `arrived` the day on which they came (ISO 8601).
    """

    source: str
    row: str
    reason: str
    rows: int
    text: str = ""
    right: str = ""
    speakers: tuple[str, ...] = ()
    arrived: str = ""


def dropped_words(dropped: Mapping[str, int]) -> str:
    """What was dropped and why, as a sentence behind another; empty where nothing was."""
    reasons = Counter(dropped).most_common()
    shown = [f"{count:,} × {reason}" for reason, count in reasons[:SHOWN_REASONS] if count]
    if len(reasons) > SHOWN_REASONS:
        shown.append(f"{sum(count for _, count in reasons[SHOWN_REASONS:]):,} for other reasons")
    return f" Dropped: {', '.join(shown)}." if shown else ""


def _unheard(drop: Drop) -> None:
    pass


@dataclass
class Ledger:
    """Counts records. `rows` is always `rows_used` plus all of `dropped`; `note` hears of each drop.

    `replies` counts replies that were dropped, of records used or not.
    """

    note: Callable[[Drop], None] = _unheard
    rows: int = 0
    rows_used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)

    def reject(self, source: str, rejected: Rejected) -> None:
        """Records that their source could not use."""
        self._drop(Drop(source, rejected.row, rejected.reason, rejected.rows))

    def take_in(self, dropped: Mapping[str, int]) -> None:
        """Records that were dropped before, by reason."""
        self.dropped.update(dropped)
        self.rows += sum(dropped.values())

    def drop(self, conversation: Conversation, reason: str) -> None:
        """A conversation that is not used at all."""
        self.replies[reason] += sum(message.speaker.is_persona for message in conversation.messages)
        self._drop(_whole(conversation, reason))

    def settle(self, conversation: Conversation, used: Collection[int], faults: Mapping[int, str]) -> None:
        """A conversation whose messages at the places `used` are in samples; `faults` says which replies are not, why.

        Where each record is one message they are counted one by one; elsewhere (a row that holds a whole talk) what is
        used in part counts as used.
        """
        self.replies.update(faults.values())
        messages = conversation.messages
        if conversation.rows > 1 and sum(message.rows for message in messages) == conversation.rows:
            for place, message in enumerate(messages):
                self._settle(conversation, place, message.rows, place in used, faults)
            return
        if not used:
            reason = next(iter(faults.values()), UNNEEDED)
            self._drop(_whole(conversation, reason))
            return
        self._use(conversation.source, conversation.rows)
        for place in faults:
            self._settle(conversation, place, 0, False, faults)

    def _settle(
        self, conversation: Conversation, place: int, rows: int, is_used: bool, faults: Mapping[int, str]
    ) -> None:
        message = conversation.messages[place]
        if is_used:
            self._use(conversation.source, rows)
            rows = 0
        if not is_used or place in faults:  # a reply that is not learned from can still stand before the next one
            reason = faults.get(place, UNNEEDED)
            text, arrived = message.text[:PREVIEW_CHARACTERS], conversation.arrived or day_of(message.at)
            of = (conversation.right, (message.speaker.name,), arrived)
            self._drop(Drop(conversation.source, message.row, reason, rows, text, *of))

    def _use(self, source: str, rows: int) -> None:
        self.rows += rows
        self.rows_used += rows
        self._of(source)["used"] += rows

    def _drop(self, drop: Drop) -> None:
        self.rows += drop.rows
        if drop.rows:
            self.dropped[drop.reason] += drop.rows
            self._of(drop.source)["dropped"] += drop.rows
        self.note(drop)

    def _of(self, source: str) -> Counter[str]:
        return self.by_source.setdefault(source, Counter())


def _whole(conversation: Conversation, reason: str) -> Drop:
    messages = conversation.messages
    return Drop(
        conversation.source,
        messages[0].row if messages else "",
        reason,
        conversation.rows,
        _preview(conversation),
        conversation.right,
        tuple(dict.fromkeys(message.speaker.name for message in messages)),
        conversation.arrived or (day_of(messages[-1].at) if messages else ""),
    )


def _preview(conversation: Conversation) -> str:
    """How it begins, as it stands now: under pseudonyms where they have been given."""
    return "\n".join(message.text for message in conversation.messages[:4])[:PREVIEW_CHARACTERS]
