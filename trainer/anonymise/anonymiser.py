"""Replaces personal data in conversations and texts.

Combines pattern recognisers (`secrets`, `id_numbers`, `phone_numbers`, `addresses`,
`network_identifiers`), the names of the log's people (`name_matcher`), other names found by an
installed model, the CRF tagger or rules (`name_detector`), overlap resolution (`spans`) and
replacements (`surrogates`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from personas.schemas.chat import Persona
from trainer.anonymise import id_numbers, network_identifiers
from trainer.anonymise.addresses import find_addresses
from trainer.anonymise.allowlist import own_names
from trainer.anonymise.capitalisation import TOKEN, CapitalisationStats
from trainer.anonymise.contact_blocks import find_in_blocks
from trainer.anonymise.document_numbers import find_document_numbers
from trainer.anonymise.folded_text import FoldedText, fold
from trainer.anonymise.language_data import blank_quote_marks
from trainer.anonymise.loose_addresses import extend_to_towns, find_loose_addresses
from trainer.anonymise.name_detector import NameDetector, SearchMethod
from trainer.anonymise.name_matcher import NameMatch, NameMatcher
from trainer.anonymise.name_variants import (
    NameForm,
    allowed_forms,
    full_name_forms,
    partial_name_forms,
)
from trainer.anonymise.ner_postprocess import blank_code
from trainer.anonymise.personal_pages import find_personal_pages
from trainer.anonymise.phone_numbers import find_phone_numbers
from trainer.anonymise.screen_names import find_screen_names
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
    network_identifiers.find_emails,
    network_identifiers.find_ip_addresses,
    network_identifiers.find_profiles,
    find_personal_pages,
    id_numbers.find_passports,
    id_numbers.find_wallets,
    find_addresses,
    find_loose_addresses,
)
DIGIT_RECOGNISERS: tuple[Recogniser, ...] = (
    id_numbers.find_cards,
    id_numbers.find_ibans,
    id_numbers.find_accounts,
    id_numbers.find_identity_numbers,
    id_numbers.find_ssns,
    network_identifiers.find_discord_ids,
    find_phone_numbers,
)
"""Recognisers of values with at least seven digits."""
MIN_DIGITS = 7
HEX_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:0x)?(?=[0-9-]*[A-Fa-f])[0-9A-Fa-f](?:-?[0-9A-Fa-f]){23,}(?![A-Za-z0-9])"
)
"""Hashes, keys and UUIDs: some of their digits are no number of their own."""
HAS_DIGITS = re.compile("[0-9].*[0-9]", re.DOTALL)
GENERIC_SPEAKERS = frozenset(
    "user users others someone human assistant gpt bot system model ai chatbot guest player "
    "customer agent".split()
)
"""Speaker labels of data sets that name nobody; texts use them as words."""
ALLOWLISTED_KINDS = ("PERSON", "STREET_ADDRESS", "HANDLE")
"""Kinds that an allowed name may be mistaken for."""
ChunkReader = Callable[[str, str, list[tuple[int, int]]], tuple[list[EntitySpan], list[NameMatch]]]
"""Reads a chunk: its text, the text without code, and the spans of code."""
ReplacedCallback = Callable[[str, Sequence[Entity], Mapping[str, SearchMethod]], None]
"""Gets a text, its replacements, and how names were looked for in each of its scripts."""


def find_patterns(text: str, code: Sequence[tuple[int, int]] | None = None) -> list[EntitySpan]:
    """Return the findings of all recognisers in a folded text, which may overlap; `code` are its
    spans of code, detected by default.
    """
    spans: list[EntitySpan] = []
    for recogniser in PATTERN_RECOGNISERS:
        spans += recogniser(text)
    code = network_identifiers.find_code(text) if code is None else code
    spans += network_identifiers.find_handles(text, code)
    for span in find_screen_names(text):
        if not any(start <= span.start < end for start, end in code):
            spans.append(span)
    if HAS_DIGITS.search(text):
        spans += find_document_numbers(text)
    if sum(map(text.count, "0123456789")) >= MIN_DIGITS:
        tokens = [match.span() for match in HEX_TOKEN.finditer(text)]
        for recogniser in DIGIT_RECOGNISERS:
            spans += (span for span in recogniser(text) if not _is_part(span, tokens))
    elif "<" in text:
        spans += network_identifiers.find_discord_ids(text)
    return spans


def _is_part(span: EntitySpan, tokens: Iterable[tuple[int, int]]) -> bool:
    """Return True for a span inside one of the tokens, but not for a whole one."""
    for start, end in tokens:
        if start <= span.start and span.end <= end:
            return span.end - span.start < end - start
    return False


@dataclass(frozen=True)
class _People:
    """People registered so far: pseudonyms by id, their names, and the words of these, which no
    pseudonym may be.

    `members` includes the persona's own name, for mentions by id.
    """

    pseudonyms: dict[str, str]
    members: dict[str, str]
    matcher: NameMatcher
    barred: frozenset[str]


class Anonymiser:
    """Anonymises the conversations of a data set: `register` all of them first, then `anonymise`
    each.

    `counts` counts replacements by kind, `non_speakers` mentions of people who do not speak, by
    case-folded name.
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
        on_replaced: ReplacedCallback | None = None,
    ) -> None:
        """Create an anonymiser with the `key` of the data set.

        The persona's names and `keep_always` are kept, and those of `keep` that nobody in the log
        has. `also` are names of people who do not speak. `names` detects other names (default: the
        detectors on this machine). `on_replaced` is called with each text.
        """
        self._key = key
        self._persona = persona
        self._own = (*own_names(persona), *keep_always)
        self._keep = tuple(keep)
        self._speakers: dict[str, SourceSpeaker] = {}
        self._capitalisation = CapitalisationStats()
        self.non_speakers: Counter[str] = Counter()
        self._registered: _People | None = None
        self._names = names
        self._on_replaced = on_replaced
        self.counts: Counter[str] = Counter()
        self._name_search: dict[str, Counter[str]] = {}
        for name in also:
            self._add_speaker(SourceSpeaker(f"name:{name.casefold()}", (name,)))

    def register(self, conversation: Conversation) -> None:
        """Register the speakers of a conversation, those who did not consent, and its
        capitalisation.
        """
        for message in conversation.messages:
            self._add_speaker(message.speaker)
        for speaker in conversation.unheard:
            self._add_speaker(speaker)
        self._capitalisation.read(conversation.raw_text)
        self._registered = None

    def _add_speaker(self, speaker: SourceSpeaker) -> None:
        if speaker.is_persona:
            return
        names = speaker.names
        known = self._speakers.get(speaker.id)
        if known:
            names = known.names + names
        self._speakers[speaker.id] = SourceSpeaker(speaker.id, tuple(dict.fromkeys(names)))

    @cached_property
    def names(self) -> NameDetector:
        """Detector of names that are not in the log."""
        return self._names or NameDetector.available()

    def anonymise(self, conversation: Conversation) -> Conversation:
        """Return the conversation with pseudonyms and all personal data replaced; the persona's
        names are kept.
        """
        replaced = _replace_texts(conversation, self.anonymise_text)
        return replace(replaced, messages=tuple(map(self._replace_speaker, replaced.messages)))

    def mask_patterns(self, conversation: Conversation) -> Conversation:
        """Return the conversation with values of a pattern replaced (addresses, numbers, keys);
        names are kept.

        For conversations that are not logs of people: questions about the world and their answers.
        """
        return _replace_texts(
            conversation,
            lambda text: replace_entities(text, self._find_in_text(text, _read_patterns)),
        )

    def anonymise_text(self, text: str) -> str:
        """Replace everything found in a text."""
        return replace_entities(text, self.find_entities(text)) if text else text

    def replace_speakers(self, text: str) -> str:
        """Replace the registered speakers and Discord's ids alone: in prose, other names belong to its
        story.
        """
        people = self._people
        entities = []
        folded = fold(text)
        for match in people.matcher.match(folded.text):
            if match.is_sure and match.person_id:
                pseudonym = people.pseudonyms[match.person_id]
                entities.append(Entity("PERSON", match.start, match.end, pseudonym))
        text = replace_entities(text, _in_original(folded, entities))
        ids = []
        folded = fold(text)
        found = network_identifiers.find_discord_ids(folded.text)
        for span in resolve_overlaps(folded.text, found):
            value = folded.text[span.start : span.end]
            surrogate = surrogate_for(span.kind, value, self._key, people.members)
            ids.append(Entity(span.kind, span.start, span.end, surrogate))
        return replace_entities(text, _in_original(folded, ids))

    def find_entities(self, text: str) -> list[Entity]:
        """Return the replacements in a text in order, without overlaps, with offsets in the
        text.
        """
        return self._find_in_text(text, self._read_chunk)

    def _replace_speaker(self, message: SourceMessage) -> SourceMessage:
        if message.speaker.is_persona:
            return message
        person_id = message.speaker.id
        pseudonym = self._people.pseudonyms[person_id]
        return replace(message, speaker=SourceSpeaker(person_id, (pseudonym,)))

    def _read_chunk(
        self, text: str, without_code: str, code: list[tuple[int, int]]
    ) -> tuple[list[EntitySpan], list[NameMatch]]:
        detected = self.names.detect(without_code, self._capitalisation)
        matches = []
        for match in self._people.matcher.match(text):
            if match.is_sure or _is_confirmed(match, detected):
                matches.append(match)
        candidates = [*find_patterns(text, code), *detected]
        candidates += find_in_blocks(without_code, candidates)
        spans = []
        for span in candidates:
            if span.kind == "STREET_ADDRESS":
                span = extend_to_towns(text, span)
            if not self._is_allowed(span, text, matches):
                spans.append(span)
        for match in matches:
            if match.person_id:
                spans.append(EntitySpan("PERSON", match.start, match.end, RANK_LOG_NAME))
        return spans, matches

    def _find_in_text(self, text: str, read: ChunkReader) -> list[Entity]:
        """Return the replacements in a text, which is folded before it is read, and count them."""
        folded = fold(text)
        entities = _in_original(folded, self._find_in_chunks(folded.text, read))
        self.counts.update(entity.kind for entity in entities)
        methods = {} if read is _read_patterns else self.search_methods(text)
        for script, method in methods.items():
            self._name_search.setdefault(script, Counter())[method] += 1
        if self._on_replaced:
            self._on_replaced(text, entities, methods)
        return entities

    def search_methods(self, text: str) -> dict[str, SearchMethod]:
        """Return how names of people outside the log are looked for in each script of a text."""
        return self.names.search_methods(fold(text).text)

    def _find_in_chunks(self, text: str, read: ChunkReader) -> list[Entity]:
        """Collect the findings of all chunks with their replacements; of two that overlap the first
        wins.
        """
        unquoted = blank_quote_marks(text)
        without_code = blank_code(unquoted)
        code = network_identifiers.find_code(unquoted)
        entities: list[Entity] = []
        end = 0
        for chunk in split_chunks(text):
            if entities and end >= chunk.last:
                continue  # the last finding covers all that this chunk could add
            offset = chunk.start
            part = unquoted[offset : chunk.end]
            part_without_code = without_code[offset : chunk.end]
            spans, matches = read(part, part_without_code, chunk.within(code))
            for span in select_spans(text, chunk, resolve_overlaps(part, spans), end):
                value = text[span.start : span.end]
                local = EntitySpan(span.kind, span.start - offset, span.end - offset, span.rank)
                replacement = self._replacement(local, value, matches)
                entities.append(Entity(span.kind, span.start, span.end, replacement))
            end = entities[-1].end if entities else 0
        return entities

    def _replacement(self, span: EntitySpan, value: str, matches: list[NameMatch]) -> str:
        if span.kind != "PERSON":
            return surrogate_for(span.kind, value, self._key, self._people.members)
        for match in matches:
            if match.person_id and span.start <= match.start < span.end:
                return self._people.pseudonyms[match.person_id]
        self.non_speakers[" ".join(value.casefold().split())] += 1
        return non_speaker_pseudonym(value, self._key, self._people.barred)

    @staticmethod
    def _is_allowed(span: EntitySpan, text: str, matches: list[NameMatch]) -> bool:
        """Return True if at least half of a finding is an allowed name."""
        if span.kind not in ALLOWLISTED_KINDS:
            return False
        covered = 0
        for match in matches:
            if not match.person_id:
                overlap = min(span.end, match.end) - max(span.start, match.start)
                covered += max(0, overlap)
        letters = sum(map(str.isalnum, text[span.start : span.end]))
        return covered > 0 and 2 * covered >= letters

    @property
    def searched_scripts(self) -> dict[str, dict[str, int]]:
        """Number of texts by script, and by how names were looked for in it (`SearchMethod`)."""
        return {script: dict(counts) for script, counts in self._name_search.items()}

    @property
    def people_count(self) -> int:
        """Number of people with a pseudonym of their own."""
        return sum(not _is_role(speaker) for speaker in self._speakers.values())

    @property
    def _people(self) -> _People:
        if self._registered is None:
            self._registered = self._assign_pseudonyms()
        return self._registered

    def _assign_pseudonyms(self) -> _People:
        speakers = list(self._speakers.values())
        people = [speaker for speaker in speakers if not _is_role(speaker)]
        names = [*self._own, *self._keep]
        full_forms: list[NameForm] = []
        partial_forms: list[NameForm] = []
        for person in people:
            names += person.names
            full_forms += full_name_forms(person.id, person.names, self._capitalisation)
            partial_forms += partial_name_forms(person.id, person.names, self._capitalisation)
        words: set[str] = set()
        for name in names:
            words |= {word.casefold() for word in TOKEN.findall(name)}
        barred = frozenset(words)
        own_words = [word for name in self._own for word in name.split()]
        # Of equal forms the first wins: the persona's whole name, then people's, then what is kept.
        forms = [
            *allowed_forms(self._own),
            *full_forms,
            *allowed_forms(self._keep),
            *allowed_forms(own_words),
            *partial_forms,
        ]
        pseudonyms = assign_pseudonyms(speakers, self._key, barred)
        members = dict(pseudonyms)
        if self._persona:
            members[self._persona.id] = self._persona.name
        return _People(pseudonyms, members, NameMatcher(forms), barred)


def _read_patterns(
    text: str, without_code: str, code: list[tuple[int, int]]
) -> tuple[list[EntitySpan], list[NameMatch]]:
    """Read a chunk for values of a pattern alone, without names (a `ChunkReader`)."""
    return find_patterns(text, code), []


def _in_original(folded: FoldedText, entities: Iterable[Entity]) -> list[Entity]:
    """Return entities of a folded text with their places in the original."""
    moved = []
    for entity in entities:
        start, end = folded.original_span(entity.start, entity.end)
        moved.append(replace(entity, start=start, end=end))
    return moved


def _replace_texts(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    # The review lists replacements in this order.
    messages = [replace(message, text=change(message.text)) for message in conversation.messages]
    system = change(conversation.system)
    rejected = change(conversation.rejected)
    later = [(start, change(text)) for start, text in conversation.later_systems]
    return replace(
        conversation,
        messages=tuple(messages),
        system=system,
        rejected=rejected,
        later_systems=tuple(later),
    )


def _is_confirmed(match: NameMatch, detected: list[EntitySpan]) -> bool:
    """Report whether a detector found a person at an unsure match, such as a first name alone."""
    people = [span for span in detected if span.kind == "PERSON"]
    return any(person.start < match.end and match.start < person.end for person in people)


def _is_role(speaker: SourceSpeaker) -> bool:
    return speaker.id.casefold() in GENERIC_SPEAKERS or speaker.name.casefold() in GENERIC_SPEAKERS
