"""Splits markdown lore into passages: sections, tables, lists, sentences and owners."""

import logging
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from personas.errors import LoreError
from personas.lore.entry_rules import (
    MAX_FILE_REGEXES,
    EntryRules,
    count_regexes,
    iter_comments,
    parse_rules,
    require_plain_yaml,
)
from personas.lore.index_terms import UNSEGMENTED_PATTERN, fold_text
from personas.schemas.chat import Persona, to_nfc

MARKDOWN_PARSER = MarkdownIt("commonmark").enable("table").disable(["lheading", "reference"])
"""Parser without underlined headings (in notes, dashes under text are a rule) and without link
references.
"""

STRONG_PATTERN = re.compile(r"(\*\*\*|\*\*|___|__)(?=\S)(.+?)(?<=\S)\1")
HTML_TAG_PATTERN = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
LABELLED_LINE_PATTERN = re.compile(r"(\*\*\*|\*\*|__)(?=\S).{1,60}?\1")
"""Beginning of a line of a stat block: **Armor Class** 10."""

log = logging.getLogger(__name__)
WORLD = "_world"  # owner of lore that every persona shares
MAX_PASSAGE_WORDS = 90
LORE_SUFFIXES = (".md", ".markdown")
LOREBOOK_PATTERN = re.compile(
    rb'"(?:lorebookVersion|keysecondary|secondary_keys|keywords|keys|key)"\s*:'
)
LOREBOOK_REASON = (
    "it is a lorebook of another program: `python -m personas lore convert` makes markdown of it"
)
SNIFFED_BYTES = 65536
CONTAINER_KEYS = frozenset(
    "character characters chars cast npc npcs persona personas profiles people lore".split()
)
"""Folders of several owners' files, which name nobody themselves."""
WORLD_KEYS = frozenset(
    "world shared common everyone everybody all setting settings worldbuilding".split()
)
LABEL_PATTERN = re.compile(
    r"(?:characters?|char|personas?|npc|profile|lore|about|bio)[\s_.-]+(?=\w)", re.IGNORECASE
)
"""Prefix of a file or folder name that says that a name follows: `character_oda.md`."""
OWNER_KEYS = ("persona", "personas", "character", "owner")
FRONT_MATTER_PATTERN = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
ABBREVIATION_LOOKBEHIND = "".join(
    rf"(?<!\b{word}\.)" for word in ("Mr", "Mrs", "Ms", "Dr", "St", "No", "vs", "ca")
)

SENTENCE_END_PATTERN = re.compile(
    rf"(?<=[.!?…][\"”’)*_])[ ]+|{ABBREVIATION_LOOKBEHIND}(?<=[.!?…])[ ]+(?=[\"“‘(*_]?[^\W\d_a-z])"
    r"|(?<=[。！？])[」』”]?|\n"
)


@dataclass(frozen=True)
class MarkdownSection:
    """Text under one heading. `heading` includes those above it: "Title: Section".

    `comments` are its lore comments (`personas.lore.entry_rules`), as YAML.
    """

    heading: str
    text: str
    comments: tuple[str, ...] = ()


@dataclass
class _SectionBuilder:
    """Section that is being read."""

    titles: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    prose_open: bool = False

    def section(self) -> MarkdownSection:
        heading = ": ".join(title for _, title in sorted(self.titles.items()) if title)
        return MarkdownSection(heading, "\n".join(self.lines), tuple(self.comments))

    def begin(self, level: int, title: str) -> None:
        self.titles = {above: name for above, name in self.titles.items() if above < level} | {
            level: title
        }
        self.lines = []
        self.comments = []
        self.prose_open = False

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
    draft = _SectionBuilder()
    tokens = MARKDOWN_PARSER.parse(text)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "heading_open" and token.level == 0:  # headings in quotations are text
            if draft.lines:
                yield draft.section()
            draft.begin(int(token.tag[1:]), _plain_line(tokens[position + 1].content))
            position += 2
        elif token.type == "table_open":
            end = next(
                at for at in range(position, len(tokens)) if tokens[at].type == "table_close"
            )
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
    elif token.type == "html_block":
        draft.comments += iter_comments(token.content)
        if text := _plain_line(token.content):
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
        cells = [
            f"{name}: {cell}" if name else cell
            for name, cell in zip(header, row, strict=False)
            if cell
        ]
        if cells:
            yield "; ".join(cells)
    if not body and any(header):
        yield "; ".join(cell for cell in header if cell)


def _plain_line(text: str) -> str:
    """Join a text to one line without markers of strong text; those of emphasis stay, since titles
    use them.
    """
    return " ".join(STRONG_PATTERN.sub(r"\2", HTML_TAG_PATTERN.sub(" ", text)).split())


@dataclass(frozen=True)
class Passage:
    """Part of one lore file. `owner` is a persona id or `_world`; `source` is the file name with
    its owner's prefix.

    `rules` are those of its section, None for one without a lore comment.
    """

    owner: str
    source: str
    heading: str
    text: str
    rules: EntryRules | None = None


@dataclass(frozen=True)
class LoreDocument:
    """A markdown file of a lore folder: its `owners` and the text below its front matter, or why it
    is `skipped`.

    `source` is its path in the folder.
    """

    path: Path
    source: PurePosixPath
    owners: tuple[str, ...] = ()
    text: str = ""
    skipped: str = ""


class OwnerNames:
    """Resolves names in front matter and paths to persona ids, whatever their case, separators and
    diacritics.
    """

    def __init__(self, personas: Iterable[str | Persona]) -> None:
        """A string is an id; `_world` stands for lore that all personas share."""
        self.ids: dict[str, str] = {}
        for persona in personas:
            names = (
                (persona,)
                if isinstance(persona, str)
                else (persona.id, persona.name, persona.nickname)
            )
            for key in filter(None, map(fold_key, names)):
                self.ids.setdefault(key, names[0])

    def find(self, name: str) -> str:
        """Return the owner of this name; empty if there is none. A persona's name precedes one of
        the world's.
        """
        key = fold_key(name)
        return self.ids.get(key) or (WORLD if key in WORLD_KEYS or name.strip() == "*" else "")

    def find_in_path(self, source: PurePosixPath) -> tuple[str, str]:
        """Return the owner that a path names, or the reason why there is none."""
        folders = [
            name
            for name in source.parts[:-1]
            if fold_key(name) not in CONTAINER_KEYS or self.find(name)
        ]
        for folder in folders:
            if owner := self.find(folder) or self.find(_without_label(folder)):
                return owner, ""
        stem = source.stem
        name = _without_label(source.stem)
        is_named = name != stem or (len(source.parts) > 1 and source.parts[-2] not in folders)
        if folders and not is_named:
            return "", f"its folder {folders[-1]!r} is no persona's"
        keys = [fold_key(stem), fold_key(name)]
        begun = [
            known
            for known in (*self.ids, "world")
            for key in keys
            if f"{key}-".startswith(f"{known}-")
        ]
        if owner := self.find(max(begun, key=len, default=stem)):
            return owner, ""
        return "", f"no persona is called {name!r}" if is_named else "it has no owner"

    def resolve(self, stated: Iterable[str], source: PurePosixPath) -> tuple[tuple[str, ...], str]:
        """Return the owners of a file by its front matter, else by its path, or the reason why
        there are none.
        """
        if names := tuple(stated):
            owners = tuple(dict.fromkeys(filter(None, map(self.find, names))))
            return (
                owners,
                ""
                if owners
                else f"its front matter names {', '.join(names)}, who is no persona here",
            )
        owner, reason = self.find_in_path(source)
        return ((owner,) if owner else ()), reason


def scan_lore(folder: Path, personas: Iterable[str | Persona]) -> Iterator[LoreDocument]:
    """Yield all markdown files of a lore folder, in any of the usual layouts, with their owners.

    The owner is named in the front matter (`persona: oda`), else by a folder (`oda/…`,
    `characters/Oda Marrow/…`), else by the file (`oda.md`, `oda-kitchen.md`, `character_oda.md`,
    `personas/oda.md`). Hidden files are ignored.
    """
    names = OwnerNames(personas)
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        source = PurePosixPath(path.relative_to(folder).as_posix())
        if any(part.startswith(".") for part in source.parts):
            continue
        if source.suffix.lower() not in LORE_SUFFIXES:
            if _looks_like_lorebook(path):
                yield LoreDocument(
                    path, source, names.resolve((), source)[0], skipped=LOREBOOK_REASON
                )
            continue
        if not path.resolve().is_relative_to(root):
            yield LoreDocument(path, source, skipped="it is a link that points outside the folder")
        elif path.is_file():
            yield _read_document(path, source, names)


def _looks_like_lorebook(path: Path) -> bool:
    """Report whether a file is a lorebook of another program, by its name and beginning."""
    if path.suffix.lower() not in (".json", ".lorebook") or not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return LOREBOOK_PATTERN.search(file.read(SNIFFED_BYTES)) is not None
    return False


def _read_document(path: Path, source: PurePosixPath, names: OwnerNames) -> LoreDocument:
    try:
        stated, text = read_lore_file(path)
    except LoreError as error:
        reason = error.message.replace(f"The lore file {path}", "it").replace(
            f"The front matter of {path}", "its front matter"
        )
        return LoreDocument(path, source, names.resolve((), source)[0], skipped=reason.rstrip("."))
    owners, reason = names.resolve(stated, source)
    try:
        split_passages("", "", text)
    except LoreError as error:
        return LoreDocument(path, source, owners, skipped=str(error).rstrip("."))
    if reason:
        reason += (
            "; name its persona in front matter, as in `persona: NAME`, or in its folder or file "
            "name"
        )
    elif not text.strip():
        reason = "it holds no text"
    return LoreDocument(path, source, owners, text, reason)


def read_lore(
    folder: Path, owners: Iterable[str | Persona], others: Iterable[str | Persona] = ()
) -> list[Passage]:
    """Read all passages of the named owners below a lore folder (see `scan_lore`), in the order of
    the owners.

    Files of `others` are left out. A warning is logged for files that are skipped, unless they are
    somebody else's.
    """
    wanted = tuple(owners)
    passages: dict[str, list[Passage]] = {
        owner if isinstance(owner, str) else owner.id: [] for owner in wanted
    }
    skipped: dict[str, list[Path]] = {}
    for document in scan_lore(folder, (*wanted, *others)):
        if not document.skipped:
            for owner in passages.keys() & {*document.owners}:
                passages[owner] += split_passages(
                    owner, source_name(owner, document.source), document.text
                )
        elif not document.owners or passages.keys() & {*document.owners}:
            skipped.setdefault(document.skipped, []).append(document.path)
    for reason, (path, *more) in skipped.items():
        log.warning(
            "the lore file %s%s is left out: %s",
            path,
            f" (and {len(more)} more)" if more else "",
            reason,
        )
    return [passage for found in passages.values() for passage in found]


def read_lore_file(path: Path) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a file (empty if none) and the text below. Raises
    `LoreError`.
    """
    return _front_matter(_read_text(path), path)


def split_passages(owner: str, source: str, text: str) -> list[Passage]:
    """Split a markdown text without front matter into passages. Raises `LoreError` for a wrong lore
    comment.
    """
    passages: list[Passage] = []
    regexes = 0
    for section in parse_sections(text):
        rules = _section_rules(section)
        regexes += count_regexes(rules) if rules else 0
        if regexes > MAX_FILE_REGEXES:
            advice = "Divide the file, or write some of them as words."
            raise LoreError(
                f"It has more than {MAX_FILE_REGEXES} keys that are regular expressions.", advice
            )
        passages += [
            Passage(owner, source, section.heading, piece, rules)
            for piece in _split_section(section)
        ]
    return passages


def _section_rules(section: MarkdownSection) -> EntryRules | None:
    if len(section.comments) > 1:
        where = f"“{section.heading}”" if section.heading else "the beginning"
        raise LoreError(
            f"There are {len(section.comments)} lore comments under {where}.", "Keep one a heading."
        )
    return parse_rules(section.comments[0], section.heading) if section.comments else None


def parse_lore(text: str, name: str) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a text (empty if none) and the text below. Raises
    `LoreError`.
    """
    return _front_matter(text.replace("\r\n", "\n"), Path(name))


def split_markdown(text: str) -> Iterator[tuple[str, str]]:
    """Yield pairs of heading ("Title: Section") and text, at most `MAX_PASSAGE_WORDS` words in
    whole sentences.
    """
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
    """Yield sentences with the white space before them; longer ones than a passage are cut between
    words.
    """
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


def fold_key(name: str) -> str:
    """Return the form in which names of owners are compared: without case, diacritics and
    separators but "-".
    """
    return "-".join(re.findall(r"[^\W_]+", fold_text(name)))


def _without_label(name: str) -> str:
    """Return a file or folder name without a prefix such as `character_`."""
    return LABEL_PATTERN.sub("", name)


def source_name(owner: str, path: PurePosixPath) -> str:
    """Return the source of a file's passages: its path in the lore folder, or its name under its
    owner.
    """
    return str(path) if path.parts[0] == owner else f"{owner}/{path.name}"


def _front_matter(text: str, path: Path) -> tuple[tuple[str, ...], str]:
    stated, text = _parse_front_matter(text, path)
    owners: Any = next((stated[key] for key in OWNER_KEYS if stated.get(key)), [])
    names = [
        str(owner).encode("utf-8", "replace")
        for owner in (owners if isinstance(owners, list) else [owners])
    ]
    return tuple(name.decode().strip() for name in names), text


def read_front_matter(path: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter of a file (empty if none) and the text below. Raises `LoreError`."""
    return _parse_front_matter(_read_text(path), path)


def _parse_front_matter(text: str, path: Path) -> tuple[dict[str, Any], str]:
    match = FRONT_MATTER_PATTERN.match(text)
    if not match:
        return {}, text
    try:
        require_plain_yaml(match[1])
        stated = yaml.safe_load(match[1])
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # ValueError: 30 February, or a number of 5,000 digits
        why = " ".join(str(error).split())[:200]
        advice = "Correct it, or remove both lines of ---."
        raise LoreError(f"The front matter of {path} is not YAML: {why}.", advice) from None
    if not isinstance(stated, dict):
        return {}, text  # prose between two rules
    return stated, text[match.end() :]


def _read_text(path: Path) -> str:
    try:
        return to_nfc(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise LoreError(
            f"The lore file {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    except OSError as error:
        raise LoreError(
            f"The lore file {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None
