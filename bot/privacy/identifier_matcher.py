"""Finds and redacts a person in text and bytes, by their identifiers."""

import json
import re
from collections.abc import Iterable, Iterator

from bot.platform.person_names import is_english_word
from bot.privacy.identifiers import MIN_ID_DIGITS, PersonIdentifiers
from bot.privacy.job_names import JobNameReplacer
from personas.schemas.scripts import UNSEGMENTED_SCRIPTS

NAME_PLACEHOLDER = "someone"  # replaces a name
TEXT_PLACEHOLDER = "[removed]"  # replaces a text
MIN_SUBSTRING_NAME_CHARACTERS = 8
"""From this length on, a name is also found within other words."""
MIN_INFLECTED_NAME_CHARACTERS = 5  # from this length on, a name is also found with endings
MIN_SENTENCE_CHARACTERS = 20  # minimum length of a sentence that identifies its author
MIN_BINARY_NAME_CHARACTERS = 6  # shorter names occur by chance in weights and images
PHRASE_PREFIX_CHARACTERS = 12
SENTENCE = re.compile(r"[^\n.!?。！？]+[.!?。！？]*")
WORD_START = re.compile(r"\w+")
UNSPACED_SCRIPT = re.compile(f"[{UNSEGMENTED_SCRIPTS}]")


class IdentifierMatcher:
    """Finds and redacts a person in texts and bytes."""

    def __init__(self, traces: PersonIdentifiers) -> None:
        self.traces = traces
        self.jobs = JobNameReplacer(traces.jobs)
        speakers = [*traces.ids, *traces.names, *traces.speaker_names]
        self._speakers = {speaker.casefold() for speaker in speakers}
        patterns = [rf"(?<!\d){re.escape(id)}(?!\d)" for id in _searchable_ids(traces)]
        patterns += [_pattern(name) for name in sorted(traces.names, key=len, reverse=True)]
        self._identity = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None
        parts = [re.escape(part) for part in sorted(traces.parts, key=len, reverse=True)]
        self._parts: re.Pattern[str] | None = None
        if parts:
            # A part before another capital is the name of somebody else, or of a street.
            pattern = rf"(?<![^\W_])(?:{'|'.join(parts)})(?![^\W_])(?! +[A-Z][a-z])"
            self._parts = re.compile(pattern)
        in_bytes = list(self._byte_patterns())
        self._in_bytes = re.compile(b"|".join(in_bytes), re.IGNORECASE) if in_bytes else None
        self._phrases: dict[str, list[str]] = {}
        self._unspaced_phrases: list[str] = []
        for phrase in _phrases(traces.texts):
            if UNSPACED_SCRIPT.match(phrase):
                self._unspaced_phrases.append(phrase)
            else:
                self._phrases.setdefault(phrase[:PHRASE_PREFIX_CHARACTERS], []).append(phrase)

    def is_theirs(self, value: object) -> bool:
        return isinstance(value, str | int) and str(value).strip().casefold() in self._speakers

    def in_text(self, text: str) -> bool:
        """Return whether a text contains the person or one of their texts."""
        named = bool(self._identity and self._identity.search(text)) or self.jobs.in_text(text)
        return named or next(self._spans(text), None) is not None

    def touches(self, text: str) -> bool:
        """Return whether `redacted` changes a text: it contains the person or a part of their
        name.
        """
        return bool(self._parts and self._parts.search(text)) or self.in_text(text)

    def in_bytes(self, data: bytes) -> bool:
        """Return whether bytes contain the person. In data that is not UTF-8, only ids and longer
        names count.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return bool(self._in_bytes and self._in_bytes.search(data))
        return self.in_text(text)

    def redacted(self, text: str) -> str:
        """Return the text without the person and without parts of their name."""
        text = self.redacted_whole(text)
        if self._parts:
            return self._parts.sub(NAME_PLACEHOLDER, text)
        return text

    def redacted_whole(self, text: str) -> str:
        text = self.jobs.replaced(text)
        pieces = []
        end = 0
        for start, stop in sorted(self._spans(text)):
            if start >= end:
                pieces += [text[end:start], TEXT_PLACEHOLDER]
                end = stop
        text = "".join([*pieces, text[end:]]) if pieces else text
        if self._identity:
            return self._identity.sub(NAME_PLACEHOLDER, text)
        return text

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        if self._phrases:
            for word in WORD_START.finditer(text):
                start = word.start()
                prefix = text[start : start + PHRASE_PREFIX_CHARACTERS]
                for phrase in self._phrases.get(prefix, ()):
                    if text.startswith(phrase, start):
                        yield start, start + len(phrase)
        for phrase in self._unspaced_phrases:
            at = text.find(phrase)
            while at >= 0:
                yield at, at + len(phrase)
                at = text.find(phrase, at + len(phrase))

    def _byte_patterns(self) -> Iterator[bytes]:
        for id in _searchable_ids(self.traces):
            yield rb"(?<!\d)" + re.escape(id.encode()) + rb"(?!\d)"
        # Without ends of words: bytes do not tell letters from the rest. A binary file that is
        # deleted by mistake can be made again.
        for name in self.traces.names:
            if len(name) >= MIN_BINARY_NAME_CHARACTERS:
                yield re.escape(name.encode())


def _searchable_ids(traces: PersonIdentifiers) -> list[str]:
    return [id for id in traces.ids if len(id) >= MIN_ID_DIGITS]


def _pattern(name: str) -> str:
    """Return the pattern of a name; endings are allowed only for names that are long enough."""
    body = re.escape(name).replace(r"\ ", r"\s+")
    forms = dict.fromkeys([body, re.escape(json.dumps(name)[1:-1])])
    alternatives = f"(?:{'|'.join(forms)})"
    if UNSPACED_SCRIPT.search(name):
        return alternatives
    # A word in small letters is only searched if the operator has confirmed it as a name.
    if is_english_word(name) and name[0].isupper():
        return rf"(?<![^\W_])(?-i:{alternatives})(?![^\W_])"
    if is_english_word(name):
        return rf"(?<![^\W_]){alternatives}(?![^\W_])"
    before = "" if len(name) >= MIN_SUBSTRING_NAME_CHARACTERS else r"(?<![^\W_])"
    after = r"[^\W\d_]*" if len(name) >= MIN_INFLECTED_NAME_CHARACTERS else r"(?![^\W_])"
    return f"{before}{alternatives}{after}"


def _phrases(texts: Iterable[str]) -> Iterator[str]:
    """Return the sentences that are long enough to identify their author, as written in texts and
    in JSON.
    """
    seen: set[str] = set()
    for text in texts:
        for piece in (text, *(match.group() for match in SENTENCE.finditer(text))):
            start = WORD_START.search(piece)
            phrase = piece[start.start() :].strip() if start else ""
            if len(phrase) < MIN_SENTENCE_CHARACTERS and not (
                UNSPACED_SCRIPT.match(phrase) and 2 * len(phrase) >= MIN_SENTENCE_CHARACTERS
            ):
                continue
            for form in (
                phrase,
                json.dumps(phrase, ensure_ascii=False)[1:-1],
                json.dumps(phrase)[1:-1],
            ):
                if form not in seen:
                    seen.add(form)
                    yield form
