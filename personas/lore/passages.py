"""Splits markdown lore into passages: sections, tables, lists, sentences and owners."""

import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from personas.errors import LoreError
from personas.lore.index_terms import UNSEGMENTED_PATTERN
from personas.unicode_normalise import to_nfc

MARKDOWN_PARSER = MarkdownIt("commonmark").enable("table").disable(["lheading", "reference"])
"""Parser without underlined headings (in notes, dashes under text are a rule) and without link references."""

STRONG_PATTERN = re.compile(r"(\*\*\*|\*\*|___|__)(?=\S)(.+?)(?<=\S)\1")
HTML_TAG_PATTERN = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
LABELLED_LINE_PATTERN = re.compile(r"(\*\*\*|\*\*|__)(?=\S).{1,60}?\1")
"""Beginning of a line of a stat block: **Armor Class** 10."""

log = logging.getLogger(__name__)
WORLD = "_world"  # owner of lore that every persona shares
MAX_PASSAGE_WORDS = 90
OWNER_KEYS = ("persona", "personas", "character", "owner")
FRONT_MATTER_PATTERN = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
ABBREVIATION_LOOKBEHIND = "".join(rf"(?<!\b{word}\.)" for word in ("Mr", "Mrs", "Ms", "Dr", "St", "No", "vs", "ca"))

SENTENCE_END_PATTERN = re.compile(
    rf"(?<=[.!?…][\"”’)*_])[ ]+|{ABBREVIATION_LOOKBEHIND}(?<=[.!?…])[ ]+(?=[\"“‘(*_]?[^\W\d_a-z])"
    r"|(?<=[。！？])[」』”]?|\n"
)


@dataclass(frozen=True)
class MarkdownSection:
    """Text under one heading. `heading` includes those above it: "Title: Section"."""

    heading: str
    text: str


@dataclass
class _SectionBuilder:
    """Section that is being read."""

    titles: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    prose_open: bool = False

    def section(self) -> MarkdownSection:
        heading = ": ".join(title for _, title in sorted(self.titles.items()) if title)
        return MarkdownSection(heading, "\n".join(self.lines))

    def begin(self, level: int, title: str) -> None:
        self.titles = {above: name for above, name in self.titles.items() if above < level} | {level: title}
        self.lines, self.prose_open = [], False

    def prose(self, text: str) -> None:
        if self.prose_open:
            self.lines[-1] += " " + text
        else:
            self.lines.append(text)
        self.prose_open = True

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.prose_open = False


def parse_sections(text: str) -> Iterator[MarkdownSection]:
    """Yield the sections of a markdown text in order, without empty ones."""
    draft, tokens = _SectionBuilder(), MARKDOWN_PARSER.parse(text)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "heading_open" and token.level == 0:  # headings in quotations are text
            if draft.lines:
                yield draft.section()
            draft.begin(int(token.tag[1:]), _plain_line(tokens[position + 1].content))
            position += 2
        elif token.type == "table_open":
            end = next(at for at in range(position, len(tokens)) if tokens[at].type == "table_close")
            for row in _table_rows(tokens[position:end]):
                draft.line(row)
            position = end
        else:
            _add_token(draft, token, tokens[:position])
        position += 1
    if draft.lines:
        yield draft.section()


def _add_token(draft: _SectionBuilder, token: Token, before: list[Token]) -> None:
    if token.type == "inline":
        _add_text(draft, token.content.strip(), before)
    elif token.type in ("fence", "code_block"):
        for line in token.content.splitlines():
            if line.strip():
                draft.line(line.strip())
    elif token.type == "html_block" and (text := _plain_line(token.content)):
        draft.line(text)


def _add_text(draft: _SectionBuilder, content: str, before: list[Token]) -> None:
    text = _plain_line(content)
    if not text:
        return
    if len(before) > 1 and before[-2].type == "list_item_open":
        draft.line(f"{_bullet(before[-2])}{text}")
    elif before[-1].type == "heading_open":
        draft.line(text)
    elif LABELLED_LINE_PATTERN.match(content):
        for line in content.splitlines():
            draft.line(_plain_line(line))
    else:
        draft.prose(text)


def _bullet(item: Token) -> str:
    return f"{item.info}{item.markup} " if item.info else "- "


def _table_rows(tokens: list[Token]) -> Iterator[str]:
    """Yield a line per row of a table's body; the header alone if there is no body."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_plain_line(token.content))
    if not rows:
        return
    header, *body = rows
    for row in body:
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(header, row, strict=False) if cell]
        if cells:
            yield "; ".join(cells)
    if not body and any(header):
        yield "; ".join(cell for cell in header if cell)


def _plain_line(text: str) -> str:
    """Join a text to one line without markers of strong text; those of emphasis stay, since titles use them."""
    return " ".join(STRONG_PATTERN.sub(r"\2", HTML_TAG_PATTERN.sub(" ", text)).split())


@dataclass(frozen=True)
class Passage:
    """Part of one lore file. `owner` is a persona id or `_world`; `source` is the file name with its owner's prefix."""

    owner: str
    source: str
    heading: str
    text: str


def read_lore(folder: Path, owners: Iterable[str], others: Iterable[str] = ()) -> list[Passage]:
    """Read all passages of the named owners below a lore folder.

    The owner of a file is named in its front matter (`persona: oda`), else by its folder (`oda/…`), else by the prefix
    of its name (`oda.md`, `oda-kitchen.md`). Files of other owners are skipped. A warning is logged for files without
    any owner, not even one of `others`, for unreadable files, and for links that point outside the folder.
    """
    owner_ids = tuple(dict.fromkeys(owners))
    passages: dict[str, list[Passage]] = {owner: [] for owner in owner_ids}
    root = folder.resolve()
    for path in sorted(folder.rglob("*.md")):
        relative = path.relative_to(folder)
        if not path.resolve().is_relative_to(root):
            log.warning("the lore file %s is left out: it is a link that points outside the folder", path)
            continue
        if len(relative.parts) > 1 and relative.parts[0] not in owner_ids and not _has_front_matter(path):
            continue  # another persona's folder
        try:
            stated_owners, text = read_lore_file(path)
        except LoreError as error:
            log.warning("a lore file is left out. %s", error)
            continue
        file_owners = stated_owners or _owner_from_path(relative, (*owner_ids, *others))
        if not file_owners:
            log.warning("the lore file %s has no owner: name its persona in front matter or in its file name", path)
        for owner in file_owners:
            if owner in passages:
                passages[owner] += split_passages(owner, _source_name(owner, relative), text)
    return [passage for owner in owner_ids for passage in passages[owner]]


def read_lore_file(path: Path) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a file (empty if none) and the text below. Raises `LoreError`."""
    return _front_matter(_read_text(path), path)


def split_passages(owner: str, source: str, text: str) -> list[Passage]:
    """Split a markdown text without front matter into passages."""
    return [Passage(owner, source, heading, piece) for heading, piece in split_markdown(text)]


def parse_lore(text: str, name: str) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a text (empty if none) and the text below. Raises `LoreError`."""
    return _front_matter(text.replace("\r\n", "\n"), Path(name))


def split_markdown(text: str) -> Iterator[tuple[str, str]]:
    """Yield pairs of heading ("Title: Section") and text, at most `MAX_PASSAGE_WORDS` words in whole sentences."""
    for section in parse_sections(text):
        for piece in _split_section(section):
            yield section.heading, piece


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences and lines; only white space between them is lost."""
    return [piece for piece in SENTENCE_END_PATTERN.split(text) if piece.strip()]


def count_words(text: str) -> int:
    """Count words; in scripts without spaces two characters count as one."""
    unsegmented = sum(len(run) for run in UNSEGMENTED_PATTERN.findall(text))
    return len(UNSEGMENTED_PATTERN.sub(" ", text).split()) + math.ceil(unsegmented / 2)


def _split_section(section: MarkdownSection) -> Iterator[str]:
    """Split a section into pieces of similar length, so that the last one is not too short."""
    whole = count_words(section.text)
    if not whole:
        return
    aim = math.ceil(whole / math.ceil(whole / MAX_PASSAGE_WORDS))
    piece: list[str] = []
    for part in _sentence_parts(section.text):
        full = count_words("".join(piece))
        if piece and (full + count_words(part) > MAX_PASSAGE_WORDS or full >= aim):
            yield "".join(piece).strip()
            piece = []
        piece.append(part)
    yield "".join(piece).strip()


def _sentence_parts(text: str) -> Iterator[str]:
    """Yield sentences with the white space before them; longer ones than a passage are cut between words."""
    start = 0
    for sentence in split_sentences(text):
        position = text.index(sentence, start)
        end = position + len(sentence)
        part = text[start:position] + sentence
        start = end
        if count_words(part) <= MAX_PASSAGE_WORDS:
            yield part
        else:
            yield from _cut_between_words(part)


def _cut_between_words(part: str) -> Iterator[str]:
    words = re.findall(r"\s*\S+", part)
    if len(words) == 1 or count_words(part) > 2 * len(words):  # no spaces: cut by characters
        size = 2 * MAX_PASSAGE_WORDS
        yield from (part[position : position + size] for position in range(0, len(part), size))
        return
    for position in range(0, len(words), MAX_PASSAGE_WORDS):
        yield "".join(words[position : position + MAX_PASSAGE_WORDS])


def _owner_from_path(relative: Path, owners: tuple[str, ...]) -> tuple[str, ...]:
    if len(relative.parts) > 1:
        return (relative.parts[0],)
    name = relative.stem.casefold()
    fitting = [owner for owner in owners if re.match(rf"{re.escape(owner.casefold())}(?![a-z0-9])", name)]
    return (max(fitting, key=len),) if fitting else ()


def _source_name(owner: str, relative: Path) -> str:
    below = relative.as_posix()
    return below if below.startswith(f"{owner}/") else f"{owner}/{relative.name}"


def _has_front_matter(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6).removeprefix(b"\xef\xbb\xbf").startswith(b"---")
    except OSError:
        return True  # reading it raises the error


def _front_matter(text: str, path: Path) -> tuple[tuple[str, ...], str]:
    match = FRONT_MATTER_PATTERN.match(text)
    if not match:
        return (), text
    try:
        stated = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())[:200]
        advice = "Correct it, or remove both lines of ---."
        raise LoreError(f"The front matter of {path} is not YAML: {why}.", advice) from None
    if not isinstance(stated, dict):
        return (), text  # prose between two rules
    owners: Any = next((stated[key] for key in OWNER_KEYS if stated.get(key)), [])
    owners = owners if isinstance(owners, list) else [owners]
    return tuple(_normalise_owner(owner) for owner in owners), text[match.end() :]


def _normalise_owner(value: object) -> str:
    name = str(value).strip().casefold()
    return WORLD if name in (WORLD, "world", "all", "everyone", "*") else name


def _read_text(path: Path) -> str:
    try:
        return to_nfc(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise LoreError(f"The lore file {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise LoreError(f"The lore file {path} cannot be read: {error.strerror}.", "Check its permissions.") from None
