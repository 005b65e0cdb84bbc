"""Takes personal data out of conversations and texts: what has a form, the people of the log, and other names.

All conversations are met first, because a name is known only once its bearer has been seen to speak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from personas.contracts import Persona
from trainer.anonymise.called import part_forms, staying, whole_forms
from trainer.anonymise.entity import BY_LOG, Entity, Span, replaced
from trainer.anonymise.known import Found, KnownNames
from trainer.anonymise.names_found import Names
from trainer.anonymise.network import coded
from trainer.anonymise.overlaps import settled
from trainer.anonymise.pieces import pieces, taken
from trainer.anonymise.pseudonyms import assign, stranger
from trainer.anonymise.refined import without_code
from trainer.anonymise.replacing import in_place_of
from trainer.anonymise.staying import own_names
from trainer.anonymise.structured import structured
from trainer.anonymise.written import TOKEN, Written
from trainer.conversation import Conversation, Message, Speaker

ROLES = frozenset(
    "user users others someone human assistant gpt bot system model ai chatbot guest player customer agent".split()
)
"""Speakers of data sets who are nobody; their names are words."""
SPARED = ("PERSON", "STREET_ADDRESS", "HANDLE")
"""Kinds that a name which stays may be taken for."""

Reading = Callable[[str, str, list[tuple[int, int]], bool], tuple[list[Span], list[Found]]]
"""Takes a piece of a text, the same without code, where code lies in it, and whether it is the first of its text."""


@dataclass(frozen=True)
class _People:
    """The people that were met, ready to be found: pseudonyms by id, and their names.

    `members` has the persona's own name, too: whoever is mentioned by id.
    """

    pseudonyms: dict[str, str]
    members: dict[str, str]
    known: KnownNames
    barred: frozenset[str]


class Anonymiser:
    """`meet` every conversation, then take each `masked`; or take what is `found` in a text.

    `counts` counts replacements by kind, `strangers` the places that name people who do not speak, by casefolded name;
    `names` says who finds those.
    """

    def __init__(
        self,
        key: bytes,
        *,
        persona: Persona | None = None,
        keep: Iterable[str] = (),
        also: Iterable[str] = (),
        names: Names | None = None,
        keep_always: Iterable[str] = (),
        tell: Callable[[str, Sequence[Entity]], None] | None = None,
    ) -> None:
        """`key` is the data set's. The persona's names stay, and those of `keep_always`; of `keep` those that nobody in
        the log has.

        `also` are names of people who do not speak. `names` finds others; without it what this machine has.
        `tell` is told of each text and of what is replaced in it.
        """
        self._key, self._persona = key, persona
        self._own, self._keep = (*own_names(persona), *keep_always), tuple(keep)
        self._speakers: dict[str, Speaker] = {}
        self._written = Written()
        self.strangers: Counter[str] = Counter()
        self._people_met: _People | None = None
        self._names, self._tell = names, tell
        self.counts: Counter[str] = Counter()
        for name in also:
            self._note(Speaker(f"name:{name.casefold()}", (name,)))

    # -------------------------------------------------------------------------------------------------------- meeting

    def meet(self, conversation: Conversation) -> None:
        """Note who speaks, who is not heard, and how words are written."""
        for message in conversation.messages:
            self._note(message.speaker)
        for speaker in conversation.unheard:
            self._note(speaker)
        self._written.read(conversation.raw_text)
        self._people_met = None

    def _note(self, speaker: Speaker) -> None:
        if speaker.is_persona:
            return
        before = self._speakers.get(speaker.id)
        names = tuple(dict.fromkeys((*(before.names if before else ()), *speaker.names)))
        self._speakers[speaker.id] = Speaker(speaker.id, names)

    @cached_property
    def names(self) -> Names:
        """Who finds names that are not the log's."""
        return self._names or Names.available()

    # -------------------------------------------------------------------------------------------------------- masking

    def masked(self, conversation: Conversation) -> Conversation:
        """The conversation under pseudonyms, all personal data replaced; what the persona is called stays."""
        messages = tuple(self._masked(message) for message in conversation.messages)
        return replace(
            conversation,
            messages=messages,
            system=self.masked_text(conversation.system),
            rejected=self.masked_text(conversation.rejected),
        )

    def cleaned(self, conversation: Conversation) -> Conversation:
        """The conversation without what has a form (addresses, numbers, keys); names stay, as general knowledge.

        For talk that is no log of people: questions about the world and their answers.
        """
        messages = tuple(replace(m, text=self._cleaned(m.text)) for m in conversation.messages)
        return replace(
            conversation,
            messages=messages,
            system=self._cleaned(conversation.system),
            rejected=self._cleaned(conversation.rejected),
        )

    def masked_text(self, text: str) -> str:
        """The text with everything replaced that is found in it."""
        return replaced(text, self.found(text)) if text else text

    def found(self, text: str) -> list[Entity]:
        """What is to be replaced in a text, in order, without overlaps. Offsets are those of the text."""
        return self._gathered(text, self._read)

    def _masked(self, message: Message) -> Message:
        speaker = message.speaker
        if not speaker.is_persona:
            speaker = Speaker(speaker.id, (self._people.pseudonyms[speaker.id],))
        return replace(message, speaker=speaker, text=self.masked_text(message.text))

    def _cleaned(self, text: str) -> str:
        return replaced(text, self._gathered(text, lambda part, _, code, __: (structured(part, code), [])))

    def _read(
        self, text: str, names_in: str, code: list[tuple[int, int]], is_first: bool
    ) -> tuple[list[Span], list[Found]]:
        """What is found in a piece of a text, and which known names. In `names_in` code is blotted out."""
        named = self.names.found(names_in, self._written, is_first=is_first)
        known = [one for one in self._people.known.found(text) if one.is_sure or _is_named(one, named)]
        spans = [*structured(text, code), *named]
        spans = [span for span in spans if not self._stays(span, text, known)]
        return [*spans, *(Span("PERSON", one.start, one.end, BY_LOG) for one in known if one.who)], known

    def _gathered(self, text: str, read: Reading) -> list[Entity]:
        """What is read in all pieces of a text, with its replacements; of two that overlap the first."""
        blotted, code, entities = without_code(text), coded(text), list[Entity]()
        for piece in pieces(text):
            if entities and entities[-1].end >= piece.last:
                continue
            part, offset = text[piece.start : piece.end], piece.start
            spans, known = read(part, blotted[offset : piece.end], piece.within(code), not offset)
            for span in taken(text, piece, settled(part, spans), entities[-1].end if entities else 0):
                value = text[span.start : span.end]
                local = Span(span.kind, span.start - offset, span.end - offset, span.rank)
                entities.append(Entity(span.kind, span.start, span.end, self._replacement(local, value, known)))
        self.counts.update(entity.kind for entity in entities)
        if self._tell:
            self._tell(text, entities)
        return entities

    def _replacement(self, span: Span, value: str, known: list[Found]) -> str:
        if span.kind != "PERSON":
            return in_place_of(span.kind, value, self._key, self._people.members)
        who = next((one.who for one in known if one.who and span.start <= one.start < span.end), "")
        if who:
            return self._people.pseudonyms[who]
        self.strangers[" ".join(value.casefold().split())] += 1
        return stranger(value, self._key, self._people.barred)

    @staticmethod
    def _stays(span: Span, text: str, known: list[Found]) -> bool:
        """Whether half of a finding or more is a name that stays."""
        if span.kind not in SPARED:
            return False
        covered = sum(
            max(0, min(span.end, one.end) - max(span.start, one.start))
            for one in known
            if not one.who and one.start < span.end and span.start < one.end
        )
        letters = sum(map(str.isalnum, text[span.start : span.end]))
        return covered > 0 and 2 * covered >= letters

    # --------------------------------------------------------------------------------------------------------- people

    @property
    def people_count(self) -> int:
        """How many people have a pseudonym of their own."""
        return sum(not _is_role(speaker) for speaker in self._speakers.values())

    @property
    def _people(self) -> _People:
        if self._people_met is None:
            self._people_met = self._assigned()
        return self._people_met

    def _assigned(self) -> _People:
        speakers = list(self._speakers.values())
        real = [speaker for speaker in speakers if not _is_role(speaker)]
        called = [*self._own, *self._keep, *(name for speaker in real for name in speaker.names)]
        barred = frozenset(word.casefold() for name in called for word in TOKEN.findall(name))
        forms = [
            *staying(self._own),
            *(form for one in real for form in whole_forms(one.id, one.names, self._written)),
            *staying(self._keep),
            *(form for form in staying(word for name in self._own for word in name.split())),
            *(form for one in real for form in part_forms(one.id, one.names, self._written)),
        ]
        pseudonyms = assign(speakers, self._key, barred)
        own = {self._persona.id: self._persona.name} if self._persona else {}
        return _People(pseudonyms, {**pseudonyms, **own}, KnownNames(forms), barred)


def _is_named(one: Found, named: list[Span]) -> bool:
    return any(span.kind == "PERSON" and span.start < one.end and one.start < span.end for span in named)


def _is_role(speaker: Speaker) -> bool:
    return speaker.id.casefold() in ROLES or speaker.name.casefold() in ROLES
