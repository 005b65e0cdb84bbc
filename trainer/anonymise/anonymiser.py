"""Replaces personal data in conversations and texts: values with a pattern, people of the log, and other names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from personas.schemas.chat import Persona
from trainer.anonymise.addresses import find_addresses
from trainer.anonymise.allowlist import own_names
from trainer.anonymise.capitalisation import TOKEN, CapitalisationStats
from trainer.anonymise.id_numbers import (
    find_accounts,
    find_cards,
    find_ibans,
    find_identity_numbers,
    find_passports,
    find_ssns,
)
from trainer.anonymise.language_data import normalise_width
from trainer.anonymise.name_detector import NameDetector
from trainer.anonymise.name_matcher import NameMatch, NameMatcher
from trainer.anonymise.name_variants import allowed_forms, full_name_forms, partial_name_forms
from trainer.anonymise.ner_postprocess import blank_code
from trainer.anonymise.network_identifiers import (
    find_code,
    find_discord_ids,
    find_emails,
    find_handles,
    find_ip_addresses,
    find_profiles,
)
from trainer.anonymise.phone_numbers import find_phone_numbers
from trainer.anonymise.secrets import find_secrets, find_url_secrets
from trainer.anonymise.spans import (
    RANK_LOG_NAME,
    Entity,
    EntitySpan,
    Recogniser,
    replace_entities,
    resolve_overlaps,
    select_spans,
    split_chunks,
)
from trainer.anonymise.surrogates import assign_pseudonyms, non_speaker_pseudonym, surrogate_for
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

PATTERN_RECOGNISERS: tuple[Recogniser, ...] = (
    find_secrets,
    find_url_secrets,
    find_emails,
    find_ip_addresses,
    find_profiles,
    find_passports,
    find_addresses,
)

DIGIT_RECOGNISERS: tuple[Recogniser, ...] = (
    find_cards,
    find_ibans,
    find_accounts,
    find_identity_numbers,
    find_ssns,
    find_discord_ids,
    find_phone_numbers,
)
"""Recognisers of values with at least seven digits."""

MIN_DIGITS = 7
GENERIC_SPEAKERS = frozenset(
    "user users others someone human assistant gpt bot system model ai chatbot guest player customer agent".split()
)
"""Speaker labels of data sets that name nobody; texts use them as words."""
ALLOWLISTED_KINDS = ("PERSON", "STREET_ADDRESS", "HANDLE")
"""Kinds that an allowed name may be mistaken for."""
ChunkReader = Callable[[str, str, list[tuple[int, int]], bool], tuple[list[EntitySpan], list[NameMatch]]]
"""Reads a chunk: its text, the text without code, the spans of code, and whether it is the first of its text."""


def find_patterns(text: str, code: Sequence[tuple[int, int]] | None = None) -> list[EntitySpan]:
    """Return the findings of all recognisers, which may overlap, with offsets in the text.

    `code` are the spans of code in it, for a chunk that may begin inside of code; by default they are found in the
    text.
    """
    text = normalise_width(text)
    found = [span for recogniser in PATTERN_RECOGNISERS for span in recogniser(text)]
    found += find_handles(text, find_code(text) if code is None else code)
    if sum(map(text.count, "0123456789")) >= MIN_DIGITS:
        found += [span for recogniser in DIGIT_RECOGNISERS for span in recogniser(text)]
    elif "<" in text:
        found += find_discord_ids(text)
    return found


@dataclass(frozen=True)
class _KnownPeople:
    """People registered so far, ready for matching: pseudonyms by id, and their names.

    `members` includes the persona's own name, for mentions by id.
    """

    pseudonyms: dict[str, str]
    members: dict[str, str]
    known: NameMatcher
    barred: frozenset[str]


class Anonymiser:
    """Anonymises the conversations of a data set: `meet` all of them first, then take each `masked`.

    `found` returns the findings in a single text. `counts` counts replacements by kind, `strangers` mentions of people
    who do not speak, by case-folded name; `names` describes the name detectors.
    """

    def __init__(
        self,
        key: bytes,
        *,
        persona: Persona | None = None,
        keep: Iterable[str] = (),
        also: Iterable[str] = (),
        names: NameDetector | None = None,
        keep_always: Iterable[str] = (),
        on_replaced: Callable[[str, Sequence[Entity]], None] | None = None,
    ) -> None:
        """Create an anonymiser with the `key` of the data set.

        The persona's names and `keep_always` are kept, and those of `keep` that nobody in the log has. `also` are names
        of people who do not speak. `names` detects other names (default: the detectors on this machine). `on_replaced`
        is called with each text and its replacements.
        """
        self._key, self._persona = key, persona
        self._own, self._keep = (*own_names(persona), *keep_always), tuple(keep)
        self._speakers: dict[str, SourceSpeaker] = {}
        self._written = CapitalisationStats()
        self.strangers: Counter[str] = Counter()
        self._people_met: _KnownPeople | None = None
        self._names, self._on_replaced = names, on_replaced
        self.counts: Counter[str] = Counter()
        for name in also:
            self._note(SourceSpeaker(f"name:{name.casefold()}", (name,)))

    # -------------------------------------------------------------------------------------------------------- meeting

    def meet(self, conversation: Conversation) -> None:
        """Register the speakers of a conversation, those who did not consent, and its capitalisation."""
        for message in conversation.messages:
            self._note(message.speaker)
        for speaker in conversation.unheard:
            self._note(speaker)
        self._written.read(conversation.raw_text)
        self._people_met = None

    def _note(self, speaker: SourceSpeaker) -> None:
        if speaker.is_persona:
            return
        before = self._speakers.get(speaker.id)
        names = tuple(dict.fromkeys((*(before.names if before else ()), *speaker.names)))
        self._speakers[speaker.id] = SourceSpeaker(speaker.id, names)

    @cached_property
    def names(self) -> NameDetector:
        """Detector of names that are not in the log."""
        return self._names or NameDetector.available()

    # -------------------------------------------------------------------------------------------------------- masking

    def masked(self, conversation: Conversation) -> Conversation:
        """Return the conversation with pseudonyms and all personal data replaced; the persona's names are kept."""
        messages = tuple(self._masked(message) for message in conversation.messages)
        return replace(
            conversation,
            messages=messages,
            system=self.anonymise_text(conversation.system),
            rejected=self.anonymise_text(conversation.rejected),
        )

    def mask_patterns(self, conversation: Conversation) -> Conversation:
        """Return the conversation with values of a pattern replaced (addresses, numbers, keys); names are kept.

        For conversations that are not logs of people: questions about the world and their answers.
        """
        messages = tuple(replace(m, text=self._cleaned(m.text)) for m in conversation.messages)
        return replace(
            conversation,
            messages=messages,
            system=self._cleaned(conversation.system),
            rejected=self._cleaned(conversation.rejected),
        )

    def anonymise_text(self, text: str) -> str:
        """Replace everything found in a text."""
        return replace_entities(text, self.found(text)) if text else text

    def found(self, text: str) -> list[Entity]:
        """Return the replacements in a text in order, without overlaps, with offsets in the text."""
        return self._gathered(text, self._read)

    def _masked(self, message: SourceMessage) -> SourceMessage:
        speaker = message.speaker
        if not speaker.is_persona:
            speaker = SourceSpeaker(speaker.id, (self._people.pseudonyms[speaker.id],))
        return replace(message, speaker=speaker, text=self.anonymise_text(message.text))

    def _cleaned(self, text: str) -> str:
        return replace_entities(text, self._gathered(text, lambda part, _, code, __: (find_patterns(part, code), [])))

    def _read(
        self, text: str, names_in: str, code: list[tuple[int, int]], is_first: bool
    ) -> tuple[list[EntitySpan], list[NameMatch]]:
        """Return findings and known names in a chunk. `names_in` is the chunk with code blanked out."""
        named = self.names.found(names_in, self._written, is_first=is_first)
        known = [one for one in self._people.known.found(text) if one.is_sure or _is_confirmed(one, named)]
        spans = [*find_patterns(text, code), *named]
        spans = [span for span in spans if not self._stays(span, text, known)]
        return [
            *spans,
            *(EntitySpan("PERSON", one.start, one.end, RANK_LOG_NAME) for one in known if one.person_id),
        ], known

    def _gathered(self, text: str, read: ChunkReader) -> list[Entity]:
        """Collect the findings of all chunks with their replacements; of two that overlap the first wins."""
        blotted, code, entities = blank_code(text), find_code(text), list[Entity]()
        for piece in split_chunks(text):
            if entities and entities[-1].end >= piece.last:
                continue
            part, offset = text[piece.start : piece.end], piece.start
            spans, known = read(part, blotted[offset : piece.end], piece.within(code), not offset)
            for span in select_spans(text, piece, resolve_overlaps(part, spans), entities[-1].end if entities else 0):
                value = text[span.start : span.end]
                local = EntitySpan(span.kind, span.start - offset, span.end - offset, span.rank)
                entities.append(Entity(span.kind, span.start, span.end, self._replacement(local, value, known)))
        self.counts.update(entity.kind for entity in entities)
        if self._on_replaced:
            self._on_replaced(text, entities)
        return entities

    def _replacement(self, span: EntitySpan, value: str, known: list[NameMatch]) -> str:
        if span.kind != "PERSON":
            return surrogate_for(span.kind, value, self._key, self._people.members)
        person_id = next((one.person_id for one in known if one.person_id and span.start <= one.start < span.end), "")
        if person_id:
            return self._people.pseudonyms[person_id]
        self.strangers[" ".join(value.casefold().split())] += 1
        return non_speaker_pseudonym(value, self._key, self._people.barred)

    @staticmethod
    def _stays(span: EntitySpan, text: str, known: list[NameMatch]) -> bool:
        """Return True if at least half of a finding is an allowed name."""
        if span.kind not in ALLOWLISTED_KINDS:
            return False
        covered = sum(
            max(0, min(span.end, one.end) - max(span.start, one.start))
            for one in known
            if not one.person_id and one.start < span.end and span.start < one.end
        )
        letters = sum(map(str.isalnum, text[span.start : span.end]))
        return covered > 0 and 2 * covered >= letters

    # --------------------------------------------------------------------------------------------------------- people

    @property
    def people_count(self) -> int:
        """Number of people with a pseudonym of their own."""
        return sum(not _is_role(speaker) for speaker in self._speakers.values())

    @property
    def _people(self) -> _KnownPeople:
        if self._people_met is None:
            self._people_met = self._assigned()
        return self._people_met

    def _assigned(self) -> _KnownPeople:
        speakers = list(self._speakers.values())
        real = [speaker for speaker in speakers if not _is_role(speaker)]
        called = [*self._own, *self._keep, *(name for speaker in real for name in speaker.names)]
        barred = frozenset(word.casefold() for name in called for word in TOKEN.findall(name))
        forms = [
            *allowed_forms(self._own),
            *(form for one in real for form in full_name_forms(one.id, one.names, self._written)),
            *allowed_forms(self._keep),
            *(form for form in allowed_forms(word for name in self._own for word in name.split())),
            *(form for one in real for form in partial_name_forms(one.id, one.names, self._written)),
        ]
        pseudonyms = assign_pseudonyms(speakers, self._key, barred)
        own = {self._persona.id: self._persona.name} if self._persona else {}
        return _KnownPeople(pseudonyms, {**pseudonyms, **own}, NameMatcher(forms), barred)


def _is_confirmed(one: NameMatch, named: list[EntitySpan]) -> bool:
    return any(span.kind == "PERSON" and span.start < one.end and one.start < span.end for span in named)


def _is_role(speaker: SourceSpeaker) -> bool:
    return speaker.id.casefold() in GENERIC_SPEAKERS or speaker.name.casefold() in GENERIC_SPEAKERS
