"""Markdown lore, read from a folder and split into passages at headings and, in long sections, between sentences."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from personas.errors import LoreError
from personas.letters import composed
from personas.lore.markdown import Section, sections
from personas.lore.words import RUN

log = logging.getLogger(__name__)

WORLD = "_world"
"""The owner of lore that every persona shares."""

MAX_PASSAGE_WORDS = 90
OWNER_KEYS = ("persona", "personas", "character", "owner")
FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
ABBREVIATED = "".join(rf"(?<!\b{word}\.)" for word in ("Mr", "Mrs", "Ms", "Dr", "St", "No", "vs", "ca"))
SENTENCE_END = re.compile(
    rf"(?<=[.!?…][\"”’)*_])[ ]+|{ABBREVIATED}(?<=[.!?…])[ ]+(?=[\"“‘(*_]?[^\W\d_a-z])|(?<=[。！？])[」』”]?|\n"
)


@dataclass(frozen=True)
class Passage:
    """A piece of one lore file. `owner` is a persona id or `_world`; `source` the file's name behind its owner's."""

    owner: str
    source: str
    heading: str
    text: str


def read_lore(folder: Path, owners: Iterable[str], others: Iterable[str] = ()) -> list[Passage]:
    """All passages of the named owners below a lore folder.

    Whose a file is says its front matter (`persona: oda`), else the folder it lies in (`oda/…`), else the beginning of
    its name (`oda.md`, `oda-kitchen.md`). Lore of others is passed over. Warned about are files that are nobody's, not
    even of `others`, those that cannot be read, and links that lead out of the folder; the rest does not suffer.
    """
    known = tuple(dict.fromkeys(owners))
    found: dict[str, list[Passage]] = {owner: [] for owner in known}
    root = folder.resolve()
    for path in sorted(folder.rglob("*.md")):
        relative = path.relative_to(folder)
        if not path.resolve().is_relative_to(root):
            log.warning("the lore file %s is left out: it is a link that leads out of the folder", path)
            continue
        if len(relative.parts) > 1 and relative.parts[0] not in known and not _has_front_matter(path):
            continue  # another persona's folder: not even looked at
        try:
            stated, text = read_lore_file(path)
        except LoreError as error:
            log.warning("a lore file is left out. %s", error)
            continue
        mine = stated or _by_place(relative, (*known, *others))
        if not mine:
            log.warning("the lore file %s is nobody's: name its persona in front matter or in its file name", path)
        for owner in mine:
            if owner in found:
                found[owner] += passages_of(owner, _source(owner, relative), text)
    return [passage for owner in known for passage in found[owner]]


def read_lore_file(path: Path) -> tuple[tuple[str, ...], str]:
    """Whose the front matter says a file is (empty: it does not say), and the text below. Raises `LoreError`."""
    return _front_matter(_read(path), path)


def passages_of(owner: str, source: str, text: str) -> list[Passage]:
    """The passages of one markdown text, whose front matter is off already."""
    return [Passage(owner, source, heading, piece) for heading, piece in split_markdown(text)]


def parse_lore(text: str, name: str) -> tuple[tuple[str, ...], str]:
    """Whose the front matter says a text is (empty: it does not say), and the text below. Raises `LoreError`."""
    return _front_matter(text.replace("\r\n", "\n"), Path(name))


def split_markdown(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of heading ("Title: Section") and text, at most `MAX_PASSAGE_WORDS` words each, ending with a sentence."""
    for section in sections(text):
        for piece in _split(section):
            yield section.heading, piece


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text. Together they hold all of it but the white space between them."""
    return [piece for piece in SENTENCE_END.split(text) if piece.strip()]


def length_words(text: str) -> int:
    """Words; where nothing parts them, two characters count as one."""
    unparted = sum(len(run) for run in RUN.findall(text))
    return len(RUN.sub(" ", text).split()) + math.ceil(unparted / 2)


def _split(section: Section) -> Iterator[str]:
    """Pieces of about the same length: a last one of three words would tell nothing."""
    whole = length_words(section.text)
    if not whole:
        return
    aim = math.ceil(whole / math.ceil(whole / MAX_PASSAGE_WORDS))
    piece: list[str] = []
    for part in _parts(section.text):
        full = length_words("".join(piece))
        if piece and (full + length_words(part) > MAX_PASSAGE_WORDS or full >= aim):
            yield "".join(piece).strip()
            piece = []
        piece.append(part)
    yield "".join(piece).strip()


def _parts(text: str) -> Iterator[str]:
    """Sentences with the white space that follows them; what exceeds a passage is cut between words."""
    start = 0
    for sentence in sentences(text):
        place = text.index(sentence, start)
        end = place + len(sentence)
        part = text[start:place] + sentence
        start = end
        if length_words(part) <= MAX_PASSAGE_WORDS:
            yield part
        else:
            yield from _cut(part)


def _cut(part: str) -> Iterator[str]:
    words = re.findall(r"\s*\S+", part)
    if len(words) == 1 or length_words(part) > 2 * len(words):  # nothing parts the words: so many characters
        size = 2 * MAX_PASSAGE_WORDS
        yield from (part[place : place + size] for place in range(0, len(part), size))
        return
    for place in range(0, len(words), MAX_PASSAGE_WORDS):
        yield "".join(words[place : place + MAX_PASSAGE_WORDS])


def _by_place(relative: Path, known: tuple[str, ...]) -> tuple[str, ...]:
    if len(relative.parts) > 1:
        return (relative.parts[0],)
    name = relative.stem.casefold()
    fitting = [owner for owner in known if re.match(rf"{re.escape(owner.casefold())}(?![a-z0-9])", name)]
    return (max(fitting, key=len),) if fitting else ()


def _source(owner: str, relative: Path) -> str:
    below = relative.as_posix()
    return below if below.startswith(f"{owner}/") else f"{owner}/{relative.name}"


def _has_front_matter(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6).removeprefix(b"\xef\xbb\xbf").startswith(b"---")
    except OSError:
        return True  # reading it says what is wrong


def _front_matter(text: str, path: Path) -> tuple[tuple[str, ...], str]:
    match = FRONT_MATTER.match(text)
    if not match:
        return (), text
    try:
        stated = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise LoreError(
            f"The front matter of {path} is not YAML: {_first_line(error)}.", "Correct it, or remove both lines of ---."
        ) from None
    if not isinstance(stated, dict):
        return (), text  # a rule above and below some prose
    values = [stated[key] for key in OWNER_KEYS if stated.get(key)]
    return tuple(_owner(value) for value in (_as_list(values[0]) if values else [])), text[match.end() :]


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _owner(value: object) -> str:
    name = str(value).strip().casefold()
    return WORLD if name in (WORLD, "world", "all", "everyone", "*") else name


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _read(path: Path) -> str:
    try:
        return composed(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise LoreError(f"The lore file {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise LoreError(f"The lore file {path} cannot be read: {error.strerror}.", "Check its rights.") from None
