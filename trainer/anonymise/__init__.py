"""Pseudonyms in place of members' names, in who speaks and in what is said.

A pseudonym is chosen by HMAC-SHA-256 of the speaker's id, so that it stays the same when the data set grows. The key
is derived from the request (which persona, which data set) each time it is needed and is kept in memory only: nothing
that leaves the trainer holds it. An adapter that names a pseudonym therefore tells at most which of some hundred names
a speaker drew, and the same member has another one in every other data set.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from personas.contracts import Persona, TrainingRequest
from trainer.conversation import Conversation, Message, Speaker
from trainer.names import NAMES

MENTION = r"<@!?(?P<id>\d+)>"
UNKNOWN_MEMBER = "someone"
MIN_NAME_LETTERS = 3
"""Shorter names are looked for in texts behind an @ only: they are mostly words of their own ("I", "Al")."""


def dataset_key(request: TrainingRequest) -> bytes:
    """The key of a data set's pseudonyms: the same for every job of one persona over one data set."""
    source = [request.persona or "", request.dataset or "", request.dataset_path or ""]
    return hashlib.sha256("\0".join(["understudy pseudonyms", *source]).encode()).digest()


def pseudonymise(conversations: list[Conversation], key: bytes, persona: Persona) -> list[Conversation]:
    """The same conversations with every other speaker under a pseudonym; the persona's name stays."""
    people = People(persona)
    for conversation in conversations:
        people.meet(conversation)
    return [people.masked(conversation, key) for conversation in conversations]


class People:
    """Meets all conversations of a data set, then masks each: names are known only once all have been seen."""

    def __init__(self, persona: Persona) -> None:
        """`persona` keeps its name."""
        self._persona = persona
        self._speakers: dict[str, Speaker] = {}
        self._written: Counter[str] = Counter()
        self._masks: Masks | None = None

    def meet(self, conversation: Conversation) -> None:
        """Note who speaks or only belongs to it, and which words are written with a capital."""
        self._speakers |= {message.speaker.id: message.speaker for message in conversation.messages}
        self._speakers |= {speaker.id: speaker for speaker in conversation.unheard}
        self._written.update(re.findall(r"[^\W\d_]+", conversation.raw_text))

    def masked(self, conversation: Conversation, key: bytes) -> Conversation:
        """The conversation with pseudonyms, drawn with the key when the first is asked for."""
        masks = self._masks = self._masks or self._assigned(key)
        return replace(conversation, messages=tuple(_masked(message, masks) for message in conversation.messages))

    def _assigned(self, key: bytes) -> Masks:
        members = [speaker for speaker in self._speakers.values() if not speaker.is_persona]
        words = _name_parts(members, self._written)
        return Masks.of(members, assign(members, key, self._persona), words, self._persona)


def assign(members: Iterable[Speaker], key: bytes, persona: Persona) -> dict[str, str]:
    """Speaker id to pseudonym, no two alike. A speaker that finds its name taken moves on to the next free one."""
    names = [name for name in NAMES if name.casefold() not in persona.name.casefold().split()]
    pseudonyms: dict[str, str] = {}
    taken: set[str] = set()
    for member in members:
        start = int.from_bytes(hmac.digest(key, member.id.encode(), "sha256")[:8], "big") % len(names)
        pseudonyms[member.id] = next(name for name in _candidates(names, start) if name not in taken)
        taken.add(pseudonyms[member.id])
    return pseudonyms


def _candidates(names: list[str], start: int) -> Iterator[str]:
    """The names from `start` on; when all have been offered, again with a number behind each."""
    for step in itertools.count():
        round_ = step // len(names)
        yield names[(start + step) % len(names)] + (str(round_ + 1) if round_ else "")


@dataclass(frozen=True)
class Masks:
    """What is replaced by what: `by_id` for speakers and mentions, `by_name` (casefolded) inside texts."""

    by_id: Mapping[str, str]
    by_name: Mapping[str, str]
    pattern: re.Pattern[str]

    @classmethod
    def of(
        cls, members: list[Speaker], pseudonyms: Mapping[str, str], words: Mapping[str, str], persona: Persona
    ) -> Masks:
        """`words` maps further words that mean a speaker to the speaker's id."""
        by_name = {word: pseudonyms[id] for word, id in words.items()}
        for member in reversed(members):  # of two with one name, the first to speak keeps it
            for name in member.names:
                sign = "" if len(name.strip()) >= MIN_NAME_LETTERS else "@"
                by_name[sign + name.strip().casefold()] = sign + pseudonyms[member.id]
        by_name[persona.name.casefold()] = persona.name
        longest_first = sorted(by_name, key=len, reverse=True)
        names = "|".join(re.escape(name) for name in longest_first)
        pattern = re.compile(rf"{MENTION}|(?<!\w)(?:{names})(?!\w)", re.IGNORECASE)
        return cls({**pseudonyms, persona.id: persona.name}, by_name, pattern)

    def text(self, text: str) -> str:
        """The text with every known name and every mention replaced."""
        return self.pattern.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        if match["id"]:
            return self.by_id.get(match["id"], UNKNOWN_MEMBER)
        # casefold and IGNORECASE differ for a few letters (ß, ı); such a name is masked without its pseudonym
        return self.by_name.get(match[0].casefold(), UNKNOWN_MEMBER)


def _masked(message: Message, masks: Masks) -> Message:
    speaker = message.speaker
    if not speaker.is_persona:
        speaker = Speaker(speaker.id, (masks.by_id[speaker.id],))
    return replace(message, speaker=speaker, text=masks.text(message.text))


def _name_parts(members: list[Speaker], written: Counter[str]) -> dict[str, str]:
    """Words inside members' names by which others call them ("Mira" for mira_wet), casefolded, to speaker ids.

    A word counts as a name when the texts write it with a capital more often than without; "wet" does not.
    """
    parts: dict[str, str] = {}
    for member in members:
        for word in re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", " ".join(member.names))):
            is_name = written[word.capitalize()] > written[word.lower()]
            if len(word) >= MIN_NAME_LETTERS and is_name:
                parts.setdefault(word.casefold(), member.id)
    return parts
