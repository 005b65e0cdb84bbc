"""Identifiers of a person (ids, names, texts, job names), and the matcher that finds and redacts
them in text.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from personas.home.adapters import dialogue_adapter_folder
from personas.home.atomic_files import replace_durably, write_file
from personas.home.job_folder import REQUEST_FILE
from personas.lore.index_terms import UNSEGMENTED_SCRIPTS
from personas.lore.semantic import rarity

GENERATED_JOB_NAME = re.compile(r".+-\d{4}-\d{6}|job-[0-9a-f]{10}", re.DOTALL)
"""The name that `/finetune start` generates for a job without one, and that jobs are given here."""
NAME_PLACEHOLDER = "someone"  # replaces a name
TEXT_PLACEHOLDER = "[removed]"  # replaces a text
MIN_ID_DIGITS = 15
"""Minimum digits of a Discord id. Shorter numbers occur in every file, for instance as times in
seconds.
"""
MIN_NAME_CHARACTERS = 3
"""Shorter names are not searched."""
MIN_SUBSTRING_NAME_CHARACTERS = 8
"""From this length on, a name is also found within other words."""
MIN_INFLECTED_NAME_CHARACTERS = 5  # from this length on, a name is also found with endings
MIN_SENTENCE_CHARACTERS = 20  # minimum length of a sentence that identifies its author
COMMON_WORD_RARITY = 0.2
"""A name of a lower rarity (`personas.lore.semantic.rarity`) is a common English word."""
ANY_WORD_RARITY = 0.95
"""A name of a lower rarity is an English word."""
MIN_NAME_PART_RARITY = 0.4
"""A part of a name that is more common in English identifies nobody: "Castle" in "Wren Castle"."""
COMMON_NAME_PARTS = frozenset(
    """nguyễn nguyen trần tran phạm pham huỳnh huynh hoàng hoang phan đặng dang bùi bui dương duong anh chị chi bác bac
    ông ong thầy thay cậu mình minh hoa mai lan the von van der den del della dos das bin ibn mac mrs miss sir dame
    lord lady doctor captain""".casefold().split()
)
"""Very common family names, forms of address, Vietnamese words, and particles of names."""
RESERVED_NAMES = frozenset(
    """user assistant system human gpt bot model tool char them me you someone everyone here others owner removed
    account adapter adapters adapter_config adapter_model answers archive arrived assets attachments author author_id
    authorid avatar backup base_model body cache card cards catalogue catalogue.toml channel channels chat checkpoint
    checkpoints checksums clientid commands consent content contents conversations created_at data datasets
    data-package date description dialogue discord discord-api display_name dropped embeds events export exports
    exports.jsonl first_mes forget form format from general global_name guild guilds handle history id input instruction
    isbot isedited isPinned jobs json jsonl keys licensed log logs lore manifest manifest.json material mentions
    mes_example message messages meta models name nickname opted_in origin output own-writing package packages path
    people people.json people.key permission persona persona_adapters persona_id personas personality pictures reactions
    receipt recipe reference reply reply_to report reports request request.json review reviews reviews.json right rights
    rights.toml role roles sandbox.sqlite scenario scorecard sender sha256 source sources speaker speakers spec
    spec_version stamp stated_by stated_on stats stats.json system_prompt tags talk text thread timestamp title toml
    tombstones tombstones.json train train.jsonl trainer trainer.log type understudy understudy.sqlite username users
    value version versions votes why discriminator lore.sqlite eval.jsonl dropped.jsonl callEndedTimestamp
    timestampEdited inlineEmojis categoryId""".casefold().split()
)
"""Names of roles, fields and files in homes, logs and data sets, which are never redacted."""
MIN_BINARY_NAME_CHARACTERS = 6  # shorter names occur by chance in weights and images
PHRASE_PREFIX_CHARACTERS = 12
SENTENCE = re.compile(r"[^\n.!?。！？]+[.!?。！？]*")
WORD_START = re.compile(r"\w+")
UNSPACED_SCRIPT = re.compile(f"[{UNSEGMENTED_SCRIPTS}]")


def job_name_replacements(names: Iterable[str], keyed: Callable[[str], str]) -> tuple[str, ...]:
    """Return `old=new` for each name that a member chose; deterministic."""
    replacements = []
    for name in names:
        if not GENERATED_JOB_NAME.fullmatch(name):
            key = keyed(f"job:{name}")
            replacements.append(f"{name}=job-{key[:10]}")
    return tuple(replacements)


class JobNameReplacer:
    """Finds and replaces a person's job names."""

    FIELDS = "job_name", "start_from"

    def __init__(self, renamed: Iterable[str]) -> None:
        self._new = dict(pair.split("=", 1) for pair in renamed)
        alternatives = "|".join(map(re.escape, self._new))
        pattern = (
            rf'("(?:{"|".join(self.FIELDS)})"\s*:\s*"|\bdialogue/)({alternatives})(?![A-Za-z0-9_-])'
        )
        self._pattern = re.compile(pattern) if alternatives else None

    def __bool__(self) -> bool:
        return bool(self._new)

    def in_text(self, text: str) -> bool:
        return bool(self._pattern and self._pattern.search(text))

    def replaced(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: match[1] + self._new[match[2]], text)

    def new(self, name: str) -> str:
        return self._new.get(name, name)

    def rename_files(self, home: Path) -> None:
        """Rename dialogue adapters, and the job in job folders. May be repeated. Raises
        `OSError`.
        """
        for old, new in self._new.items():
            folder = dialogue_adapter_folder(home, old)
            if folder.exists():
                replace_durably(folder, dialogue_adapter_folder(home, new))
        if not self:
            return
        for request in (home / "jobs").glob(f"*/{REQUEST_FILE}"):
            text = request.read_text(encoding="utf-8", errors="surrogateescape")
            if self.in_text(text):
                write_file(request, self.replaced(text).encode("utf-8", errors="surrogateescape"))


@dataclass(frozen=True)
class PersonIdentifiers:
    """The identifiers of a person. `names` are searched everywhere, `speaker_names` only as a
    speaker's name.

    `parts` are first and last words of names: they are replaced by "someone", and decide nothing
    else.

    `answers` are the ids of replies to the person, `jobs` the names that they gave to jobs, as
    `old=new` (`job_name_replacements`), `lore` the lore files that they contributed, by path from
    the home.
    """

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    speaker_names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    lore: tuple[str, ...] = ()

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Parse `as_json`'s output; empty identifiers where it was erased."""
        return cls(**{key: tuple(values) for key, values in json.loads(text or "{}").items()})

    def with_names(self, names: Iterable[str], barred: Iterable[str]) -> Self:
        """Add names, except those that others use (`barred`)."""
        taken = {name.casefold() for name in barred} | RESERVED_NAMES
        speaker_names = list(self.speaker_names)
        for name in map(str.strip, names):
            if name and name.casefold() not in taken:
                speaker_names.append(name)
        unique = tuple(dict.fromkeys(speaker_names))
        distinctive = tuple(name for name in unique if name in self.names or is_distinctive(name))
        return replace(self, names=distinctive, speaker_names=unique)

    def with_parts(self, others_words: Iterable[str]) -> Self:
        """Add the parts of names, except words of names that others use."""
        taken = {word.casefold() for word in others_words} | RESERVED_NAMES | COMMON_NAME_PARTS
        parts: dict[str, None] = {}
        for name in self.speaker_names:
            words = name.split()
            if len(words) < 2:
                continue
            for word in (words[0], words[-1]):
                if word.casefold() not in taken and _is_distinctive_part(word):
                    parts[word] = None
        return replace(self, parts=tuple(parts))

    def with_texts(self, texts: Iterable[str]) -> Self:
        return replace(self, texts=tuple(dict.fromkeys([*self.texts, *texts])))

    def with_confirmed_names(self, names: Iterable[str]) -> Self:
        """Add names that the operator confirmed: they are searched everywhere."""
        all_names = list(self.names)
        speaker_names = list(self.speaker_names)
        for name in map(str.strip, names):
            if len(name) < MIN_NAME_CHARACTERS or name.casefold() in RESERVED_NAMES:
                continue
            speaker_names.append(name)
            if not name.isdecimal():
                all_names.append(name)
        return replace(
            self,
            names=tuple(dict.fromkeys(all_names)),
            speaker_names=tuple(dict.fromkeys(speaker_names)),
        )


def is_distinctive(name: str) -> bool:
    """Return whether a name identifies a person wherever it occurs."""
    # Digits may be the id of anything.
    if len(name) < MIN_NAME_CHARACTERS or name.isdecimal():
        return False
    if not _is_word(name):
        return True
    return name[0].isupper() and rarity(name.casefold()) >= COMMON_WORD_RARITY


def _is_distinctive_part(word: str) -> bool:
    letters = word.replace("-", "").replace("'", "").replace("’", "")
    return (
        len(word) >= MIN_NAME_CHARACTERS
        and letters.isalpha()
        and word[0].isupper()
        and rarity(word.casefold()) >= MIN_NAME_PART_RARITY
    )


def _is_word(name: str) -> bool:
    return name.isascii() and name.isalpha() and rarity(name.casefold()) < ANY_WORD_RARITY


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
    if _is_word(name) and name[0].isupper():
        return rf"(?<![^\W_])(?-i:{alternatives})(?![^\W_])"
    if _is_word(name):
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
