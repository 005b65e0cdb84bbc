"""Cards and markdown: drafts a card from markdown, and converts a card's character book (lorebook)
to markdown lore.

A draft follows rules, without a model: headings, labelled lines, lists and quotations.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.card.spec_card import Card, JsonObject, replace_surrogates
from personas.card.toml_card import slug
from personas.errors import CardError, LoreError
from personas.lore.lorebooks import Lorebook, LorebookEntry, lorebook_as_markdown, read_book
from personas.lore.passages import (
    CONTAINER_KEYS,
    LABEL_PATTERN,
    LORE_SUFFIXES,
    MarkdownSection,
    fold_key,
    parse_sections,
    read_front_matter,
    split_sentences,
)
from personas.prompt.renderer import EXAMPLE_USER

FIELD_HEADINGS = {
    "first_mes": r"greetings?|first (?:message|words|mes)|opening(?: line)?|lời chào|问候|开场白|開場白",
    "mes_example": r"(?:example )?dialogues?|(?:example|sample|typical) .*|examples|quot(?:es?|ations?)|sayings?|lines"
    r"|catch-?phrases?|hội thoại|câu nói|台词|语录|对话",
    "personality": r"personality|traits?|character|temperament|manners?|habits?|quirks?|likes?.*|dislikes|fears?.*"
    r"|voice|speech|style|how .* (?:talks|speaks)|tính cách|性格|语气|喜好",
    "scenario": r"scenario|setting|scene|situation|bối cảnh|场景|情境",
    "description": r"description|about.*|overview|background|bio(?:graphy)?|history|who .*|appearance|summary|profile"
    r"|role|occupation|tiểu sử|mô tả|giới thiệu|简介|背景|外貌|描述",
}
"""Headings and labels of each field of a card, in English, Vietnamese and Chinese."""
FIELD_PATTERNS = {
    key: re.compile(rf"(?:{it})\W*", re.IGNORECASE) for key, it in FIELD_HEADINGS.items()
}
LABELLED_PATTERN = re.compile(
    r"^[\s>*+-]*\**(?P<label>[^\W\d_{}][^:：*\n]{0,39}|\{\{(?:user|char)\}\})\**[:：]\**\s*(?P<text>\S.*)$"
)
QUOTE_PATTERN = re.compile(
    r"“([^”]+)”|\"([^\"]+)\"|«\s*([^»]+?)\s*»|„([^“”]+)[“”]|「([^」]+)」|『([^』]+)』"
)
SPEAKING_PATTERN = re.compile(
    r"\b(?:says?|said|asks?|asked|repl(?:ies|ied)|answers?|answered|calls?|mutters?|whispers?|shouts?|sighs?|adds?|tells?"
    r"|greets?|welcomes?|motto|catchphrase|favou?rite (?:line|saying|words?)|words|nói|hỏi)\b|说|說|道",
    re.IGNORECASE,
)
GREETING_PATTERN = re.compile(
    r"\b(?:greets?|welcomes?|hello|visitors|guests|newcomers|strangers)\b|欢迎|迎接", re.IGNORECASE
)
MANNER_PATTERN = re.compile(
    r"\b(?:speaks?|talks?|voice|likes?|loves?|hates?|dislikes?|fears?|afraid|never|always|proud|shy|patient|gentle|kind"
    r"|stubborn|cheerful|grumpy|dry|habit|favou?rite|believes?|refuses?)\b|thích|ghét|喜欢|讨厌|害怕",
    re.IGNORECASE,
)
PRONOUN_PATTERN = re.compile(r"\b(?:he|she|they|I)\b|她|他|cô ấy|anh ấy|ông|bà", re.IGNORECASE)
NAME_PATTERN = re.compile(
    r"(?<=[^.!?\s] )[A-Z][a-z]{2,}|^[A-Z][a-z]{2,}(?= (?:says?|said|asks?|asked|calls?))"
)
QUOTE_MARK = "\ua64a"
"""Stands for a quotation while a line is split into sentences, which begin with capital letters (a
rare one).
"""
NEUTRAL_PROMPTS = ("Hello.", "How are you today?", "What do you think?", "Go on.")
MAX_FIELD_CHARS = 700
MAX_EXAMPLES = 6
MIN_QUOTE_CHARS = 8
LICENSE_KEYS = ("license", "licence", "right", "rights")


@dataclass
class DraftedCard:
    """Fields of a card that were found in markdown, and `notes` on what was not found or is left
    out.
    """

    name: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    rest: list[MarkdownSection] = field(default_factory=list)
    examples: list[list[tuple[str, str]]] = field(default_factory=list)
    unclear_quotes: int = 0
    stated: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, text: str) -> None:
        if text.strip():
            self.fields.setdefault(key, []).append(text.strip())

    def table(self, persona_id: str = "", license: str = "") -> JsonObject:
        """Return the table of a TOML card, and note what is missing in it."""
        self._fill_from_prose()
        texts = {key: self._shorten(key, "\n".join(parts)) for key, parts in self.fields.items()}
        lines = [
            "\n".join(["<START>", *(f"{{{{{side}}}}}: {text}" for side, text in turns)])
            for turns in self.examples[:MAX_EXAMPLES]
        ]
        license = license or next(
            (str(self.stated[key]) for key in LICENSE_KEYS if self.stated.get(key)), ""
        )
        tags = self.stated.get("tags") or []
        table = {
            "id": persona_id or slug(self.name),
            "name": self.name,
            "nickname": str(self.stated.get("nickname") or ""),
            **texts,
            "mes_example": "\n".join(lines),
            "tags": [
                str(tag) for tag in (tags if isinstance(tags, list) else str(tags).split(","))
            ],
            "license": license,
        }
        wanted = {"description": "a description", "personality": "a personality", "scenario": "a scenario",
                  "first_mes": "a greeting", "mes_example": "example lines"}  # fmt: skip
        if missing := [f"{what} ({key})" for key, what in wanted.items() if not table.get(key)]:
            self.notes.append(f"not found, to be written by hand: {', '.join(missing)}")
        if self.unclear_quotes:
            self.notes.append(
                f"quotations left out because who says them is not clear: {self.unclear_quotes}"
            )
        if not license:
            self.notes.append(
                "no right or licence to the text is stated: add --license, or `license:` in front "
                "matter; "
                "training needs rights.toml as well"
            )
        return table

    def _fill_from_prose(self) -> None:
        """Take what no heading names from the running text: the first sentences, and those about
        manner.
        """
        sentences = [
            it
            for section in self.rest
            for it in split_sentences(section.text)
            if not QUOTE_PATTERN.search(it)
        ]
        if "personality" not in self.fields:
            self.add("personality", " ".join(it for it in sentences if MANNER_PATTERN.search(it)))
        if "description" not in self.fields and sentences:
            taken = "".join(self.fields.get("personality", ()))
            others = [it for it in sentences if it not in taken] or sentences
            about = [it for it in others if it.startswith(tuple(self.name.split()))]
            self.add("description", " ".join(about if len(about) > 2 else others))

    def _shorten(self, key: str, text: str) -> str:
        """Cut a field after a sentence."""
        kept = ""
        for sentence in split_sentences(text) if len(text) > MAX_FIELD_CHARS else ():
            if kept and len(kept) + len(sentence) >= MAX_FIELD_CHARS:
                self.notes.append(
                    f"{key} is cut to {len(kept)} of {len(text)} characters: leave the rest to lore"
                )
                return kept
            kept = f"{kept} {sentence}".strip()
        return kept[:MAX_FIELD_CHARS] if kept else text


def draft_card(path: Path, name: str = "") -> DraftedCard:
    """Draft a card from a markdown file, or from all those of one character's folder. Raises
    `CardError`.
    """
    files = _markdown_files(path)
    texts: list[str] = []
    stated: dict[str, Any] = {}
    for file in files:
        try:
            front, text = read_front_matter(file)
        except LoreError as error:
            raise CardError(error.message, error.advice) from None
        stated = {**front, **stated}
        texts.append(text)
    draft = DraftedCard(name or _find_name(path, files, texts, stated), stated=stated)
    for key in ("description", "personality", "scenario", "first_mes"):
        draft.add(
            key,
            str(stated.get(key) or (stated.get("greeting") if key == "first_mes" else "") or ""),
        )
    for text in texts:
        for section in parse_sections(_take_dialogues(draft, text)):
            _take_section(draft, section)
    if not (draft.fields or draft.rest or draft.examples):
        raise CardError(f"{path} holds no text.", "Write about the character in it.")
    return draft


def _markdown_files(path: Path) -> list[Path]:
    if not path.exists():
        raise CardError(f"There is no {path}.", "Name a markdown file, or a folder of them.")
    if path.is_file():
        return [path]
    files = [
        it for it in sorted(path.rglob("*")) if it.suffix.lower() in LORE_SUFFIXES and it.is_file()
    ]
    files = [
        it for it in files if not any(part.startswith(".") for part in it.relative_to(path).parts)
    ]
    if not files:
        raise CardError(f"There is no markdown in {path}.", "Name the folder of one character.")
    parts = [it.relative_to(path).parts for it in files]
    several = {it[0] for it in parts if LABEL_PATTERN.match(it[0])}
    several |= {it[1] for it in parts if len(it) > 1 and fold_key(it[0]) in CONTAINER_KEYS}
    if len(several) > 1:
        names = ", ".join(sorted(several)[:8])
        raise CardError(
            f"{path} holds several characters: {names}.", "Name the file or folder of one."
        )
    own = fold_key(path.resolve().name)
    return sorted(
        files,
        key=lambda it: (
            fold_key(it.stem) not in (own, "profile", "index", "readme", "character"),
            it,
        ),
    )


def _find_name(path: Path, files: list[Path], texts: list[str], stated: Mapping[str, Any]) -> str:
    """Return the name in front matter, else the title of a file about the character, else that of
    file or folder.
    """
    for key in ("name", "persona", "character"):
        if isinstance(value := stated.get(key), str) and value.strip():
            return value.strip()
    own = LABEL_PATTERN.sub("", path.resolve().stem if path.is_file() else path.resolve().name)
    title = re.search(r"^# +(.+?) *#*$", texts[0], re.MULTILINE)
    keys = {fold_key(own), "profile", "index", "readme", "character"}
    is_about = (
        path.is_file()
        or fold_key(files[0].stem) in keys
        or (title and fold_key(own) in fold_key(title[1]))
    )
    is_about = is_about or (
        title and len(files) == 1 and title[1].istitle() and not title[1].startswith("The ")
    )
    if title and is_about and len(title[1].split()) <= 5:
        return re.sub(r"[*_`]", "", title[1]).strip()
    return " ".join(it if it[:1].isupper() else it.capitalize() for it in re.split(r"[\s_-]+", own))


def _take_dialogues(draft: DraftedCard, text: str) -> str:
    """Move written-out dialogues, lines that begin with names, to the examples; return the text
    without them.
    """
    own = {fold_key(draft.name), *map(fold_key, draft.name.split()), "char"}
    kept: list[str] = []
    turns: list[tuple[str, str]] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        match = LABELLED_PATTERN.match(line)
        if match and not _field_of(match["label"]):
            turns.append(
                (
                    "char" if fold_key(match["label"]) in own else "user",
                    match["text"].strip(' "“”*'),
                )
            )
            lines.append(line)
            continue
        first, last = (
            [n for n, turn in enumerate(turns) if turn[0] == side] for side in ("user", "char")
        )
        if first and last and first[0] < last[-1]:
            draft.examples.append(turns[first[0] : last[-1] + 1])
        else:
            kept += lines
        turns = []
        lines = []
        kept.append(line)
    return "\n".join(kept)


def _field_of(heading: str) -> str:
    """Return the field that a heading or label names; empty if none."""
    last = heading.rpartition(": ")[2].strip()
    return next((key for key, pattern in FIELD_PATTERNS.items() if pattern.fullmatch(last)), "")


def _take_section(draft: DraftedCard, section: MarkdownSection) -> None:
    key = _field_of(section.heading)
    rest = []
    for line in section.text.splitlines():
        match = LABELLED_PATTERN.match(line)
        if match and (labelled := _field_of(match["label"])) not in ("", "mes_example"):
            draft.add(labelled, match["text"].strip('"“”'))
        elif not _take_quotes(draft, section, line, key == "mes_example") and key != "mes_example":
            rest.append(line)
    text = "\n".join(rest)
    if key in ("", "mes_example") and text.strip():
        draft.rest.append(MarkdownSection(section.heading, text))
    elif key:
        draft.add(
            key,
            text.strip('"“”')
            if key == "first_mes"
            else re.sub(r"^- ", "", text, flags=re.MULTILINE),
        )


def _take_quotes(draft: DraftedCard, section: MarkdownSection, line: str, is_quotes: bool) -> bool:
    """Take the quotations of a line that the character speaks; return True if nothing else is in
    the line.
    """
    if _field_of(section.heading) == "first_mes":
        return False
    item = re.sub(r"^(?:[-+*]|\d+[.)]) ", "", line.strip()).replace(QUOTE_MARK, "")
    if is_quotes and item and not QUOTE_PATTERN.search(item):
        _add_quote(draft, section, item, "", is_quotes)
        return True
    quotes: list[str] = []

    def mask(match: re.Match[str]) -> str:
        quotes.append(next(group for group in match.groups() if group).strip())
        return QUOTE_MARK + ("." if re.search(r"[.!?…。！？]$", quotes[-1]) else "")

    masked = QUOTE_PATTERN.sub(mask, item)
    rest = ""
    for sentence in split_sentences(masked):
        said = " ".join(quotes.pop(0) for _ in range(sentence.count(QUOTE_MARK)))
        said = re.sub(r",$", ".", re.sub(r"，$", "。", said))  # “Nine,” she says.
        outside = sentence.replace(QUOTE_MARK, " ").strip(" .,:;—–-*")
        rest += outside
        if len(said) >= MIN_QUOTE_CHARS:
            _add_quote(draft, section, said, outside, is_quotes)
    return QUOTE_MARK in masked and not rest


def _add_quote(
    draft: DraftedCard, section: MarkdownSection, said: str, outside: str, is_quotes: bool
) -> None:
    """Add a quotation as an example or the greeting, unless the sentence around it does not say who
    speaks it.
    """
    others = {name for name in NAME_PATTERN.findall(outside) if name not in draft.name}
    is_spoken = bool(SPEAKING_PATTERN.search(outside)) and _names_character(outside, draft.name)
    if others or (outside and not (is_spoken or is_quotes)):
        draft.unclear_quotes += 1
    elif GREETING_PATTERN.search(outside) and "first_mes" not in draft.fields:
        draft.add("first_mes", said)
    else:
        topic = "" if is_quotes else section.heading.rpartition(": ")[2]
        neutral = NEUTRAL_PROMPTS[len(draft.examples) % len(NEUTRAL_PROMPTS)]
        prompt = (
            neutral if topic in ("", draft.name) else f"What about {topic[:1].lower() + topic[1:]}?"
        )
        draft.examples.append([("user", prompt), ("char", said)])


def _names_character(text: str, name: str) -> bool:
    return bool(PRONOUN_PATTERN.search(text)) or any(
        word in text for word in name.split() if len(word) > 1
    )


# ------------------------------------------------------------------------------------------
# character books


def card_book(card: Card) -> Lorebook:
    """Read the card's book, with names filled in; it has no entries if the card has no book."""
    name = card.text("nickname").strip() or card.name.strip()
    book = card.data.get("character_book")
    settings = book if isinstance(book, dict) else {}
    return read_book(card.book, settings, "card", replace_surrogates(name), EXAMPLE_USER)


def book_entries(card: Card) -> list[LorebookEntry]:
    """Return the entries of the card's book in order, with names filled in."""
    return list(card_book(card).entries)


def book_as_lore(card: Card, max_bytes: int = 2**30) -> list[str]:
    """Convert the book to markdown files of at most `max_bytes`, a section per usable entry; longer
    entries are cut.
    """
    return lorebook_as_markdown(book_entries(card), replace_surrogates(card.name), max_bytes)
