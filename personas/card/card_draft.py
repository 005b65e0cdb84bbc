"""Drafts a card from markdown by rules, without a model: headings, labelled lines, lists and
quotations.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.card.spec_card import JsonObject
from personas.errors import CardError, LoreError
from personas.ids import readable_id
from personas.lore.lore_folder import (
    CONTAINER_KEYS,
    LABEL_PATTERN,
    LORE_SUFFIXES,
    fold_key,
    read_front_matter,
)
from personas.lore.markdown_sections import MarkdownSection, parse_sections
from personas.lore.passages import split_sentences

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
    key: re.compile(rf"(?:{headings})\W*", re.IGNORECASE)
    for key, headings in FIELD_HEADINGS.items()
}
LABELLED_PATTERN = re.compile(
    r"^[\s>*+-]*+(?P<label>[^\W\d_{}][^:：*\n]{0,39}|\{\{(?:user|char)\}\})\**[:：]\**\s*(?P<text>\S.*)$"
)
QUOTE_PATTERN = re.compile(
    r"“([^“”]+)”|\"([^\"]+)\"|«([^«»]+)»|„([^„“”]+)[“”]|「([^「」]+)」|『([^『』]+)』"
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
MAIN_FILE_KEYS = ("profile", "index", "readme", "character")
"""Names of files that are about the character of their folder."""
MAX_FIELD_CHARS = 700
MAX_EXAMPLES = 6
MIN_QUOTE_CHARS = 8
FIELD_LABELS = {
    "description": "a description",
    "personality": "a personality",
    "scenario": "a scenario",
    "first_mes": "a greeting",
    "mes_example": "example lines",
}
LICENSE_KEYS = ("license", "licence", "right", "rights")


@dataclass
class DraftedCard:
    """Fields of a card that were found in markdown, and `notes` on missing and omitted parts."""

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
        """Return the table of a TOML card, and note missing fields."""
        self._fill_from_prose()
        for key in LICENSE_KEYS:
            license = license or str(self.stated.get(key) or "")
        tags = self.stated.get("tags") or []
        if not isinstance(tags, list):
            tags = str(tags).split(",")
        table: JsonObject = {
            "id": persona_id or readable_id(self.name),
            "name": self.name,
            "nickname": str(self.stated.get("nickname") or ""),
        }
        for key, parts in self.fields.items():
            table[key] = self._shorten(key, "\n".join(parts))
        table["mes_example"] = self._example_lines()
        table["tags"] = [str(tag) for tag in tags]
        table["license"] = license
        missing = [f"{label} ({key})" for key, label in FIELD_LABELS.items() if not table.get(key)]
        if missing:
            self.notes.append(f"not found, to be written by hand: {', '.join(missing)}")
        if self.unclear_quotes:
            self.notes.append(
                f"quotations left out because who says them is not clear: {self.unclear_quotes}"
            )
        if not license:
            self.notes.append(
                "no right or licence to the text is stated: add --license, or `license:` in front "
                "matter; training needs rights.toml as well"
            )
        return table

    def _example_lines(self) -> str:
        lines = []
        for turns in self.examples[:MAX_EXAMPLES]:
            lines.append("<START>")
            for side, text in turns:
                lines.append(f"{{{{{side}}}}}: {text}")
        return "\n".join(lines)

    def _fill_from_prose(self) -> None:
        """Take missing fields from the running text: the description, and sentences about
        manner.
        """
        sentences: list[str] = []
        for section in self.rest:
            for sentence in split_sentences(section.text):
                if not QUOTE_PATTERN.search(sentence):
                    sentences.append(sentence)
        if "personality" not in self.fields:
            manner = [sentence for sentence in sentences if MANNER_PATTERN.search(sentence)]
            self.add("personality", " ".join(manner))
        if "description" not in self.fields and sentences:
            personality = "".join(self.fields.get("personality", ()))
            others = [sentence for sentence in sentences if sentence not in personality]
            others = others or sentences
            # Sentences that begin with the name are about the character; two are no description.
            names = tuple(self.name.split())
            about = [sentence for sentence in others if sentence.startswith(names)]
            if len(about) <= 2:
                about = others
            self.add("description", " ".join(about))

    def _shorten(self, key: str, text: str) -> str:
        """Cut a field after a sentence."""
        if len(text) <= MAX_FIELD_CHARS:
            return text
        short = ""
        for sentence in split_sentences(text):
            if short and len(short) + len(sentence) >= MAX_FIELD_CHARS:
                self.notes.append(
                    f"{key} is cut to {len(short)} of {len(text)} characters: leave the rest to lore"
                )
                return short
            short = f"{short} {sentence}".strip()
        return short[:MAX_FIELD_CHARS] if short else text


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
        draft.add(key, str(stated.get(key) or ""))
    if not stated.get("first_mes"):
        draft.add("first_mes", str(stated.get("greeting") or ""))
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
    files = []
    characters = set()
    for file in sorted(path.rglob("*")):
        first, *others = file.relative_to(path).parts
        is_hidden = any(part.startswith(".") for part in (first, *others))
        if is_hidden or file.suffix.lower() not in LORE_SUFFIXES or not file.is_file():
            continue
        files.append(file)
        if LABEL_PATTERN.match(first):
            characters.add(first)
        if others and fold_key(first) in CONTAINER_KEYS:
            characters.add(others[0])
    if not files:
        raise CardError(f"There is no markdown in {path}.", "Name the folder of one character.")
    if len(characters) > 1:
        names = ", ".join(sorted(characters)[:8])
        raise CardError(
            f"{path} holds several characters: {names}.", "Name the file or folder of one."
        )
    # A file about the character comes first: its title may be the name.
    about = (fold_key(path.resolve().name), *MAIN_FILE_KEYS)
    return sorted(files, key=lambda file: (fold_key(file.stem) not in about, file))


def _find_name(path: Path, files: list[Path], texts: list[str], stated: Mapping[str, Any]) -> str:
    """Return the name in front matter, else the title of a file about the character, else that of
    file or folder.
    """
    for key in ("name", "persona", "character"):
        if isinstance(value := stated.get(key), str) and value.strip():
            return value.strip()
    file_name = path.resolve().stem if path.is_file() else path.resolve().name
    own = LABEL_PATTERN.sub("", file_name)
    title = re.search(r"^# +(.+?) *#*$", texts[0], re.MULTILINE)
    if title:
        is_main_file = path.is_file() or fold_key(files[0].stem) in (fold_key(own), *MAIN_FILE_KEYS)
        has_name = fold_key(own) in fold_key(title[1])
        is_like_name = title[1].istitle() and not title[1].startswith("The ")
        is_about = is_main_file or has_name or (len(files) == 1 and is_like_name)
        if is_about and len(title[1].split()) <= 5:
            return re.sub(r"[*_`]", "", title[1]).strip()
    words = []
    for word in re.split(r"[\s_-]+", own):
        words.append(word if word[:1].isupper() else word.capitalize())
    return " ".join(words)


def _take_dialogues(draft: DraftedCard, text: str) -> str:
    """Move written-out dialogues, lines that begin with names, to the examples; return the text
    without them.
    """
    own = {fold_key(draft.name), *map(fold_key, draft.name.split()), "char"}
    rest: list[str] = []
    turns: list[tuple[str, str]] = []
    dialogue_lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        match = LABELLED_PATTERN.match(line)
        if match and not _field_of(match["label"]):
            side = "char" if fold_key(match["label"]) in own else "user"
            turns.append((side, match["text"].strip(' "“”*')))
            dialogue_lines.append(line)
            continue
        # A dialogue has ended: it goes from the first turn of the user to the last of the character.
        first = 0
        while first < len(turns) and turns[first][0] != "user":
            first += 1
        end = len(turns)
        while end and turns[end - 1][0] != "char":
            end -= 1
        if first < end:
            draft.examples.append(turns[first:end])
        else:
            rest += dialogue_lines
        turns = []
        dialogue_lines = []
        rest.append(line)
    return "\n".join(rest)


def _field_of(heading: str) -> str:
    """Return the field that a heading or label names; empty if none."""
    last = heading.rpartition(": ")[2].strip()
    for key, pattern in FIELD_PATTERNS.items():
        if pattern.fullmatch(last):
            return key
    return ""


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
    elif key == "first_mes":
        draft.add(key, text.strip('"“”'))
    elif key:
        draft.add(key, re.sub(r"^- ", "", text, flags=re.MULTILINE))


def _take_quotes(draft: DraftedCard, section: MarkdownSection, line: str, is_quotes: bool) -> bool:
    """Take the quotations of a line that the character speaks; return True if nothing else is in
    the line.
    """
    if _field_of(section.heading) == "first_mes":
        return False
    item = re.sub(r"^(?:[-+*]|\d+[.)]) ", "", line.strip()).replace(QUOTE_MARK, "")
    if is_quotes and item and not QUOTE_PATTERN.search(item):
        _add_quote(draft, section, item, outside="", is_quotes=is_quotes)
        return True
    quotes: list[str] = []

    def mask(match: re.Match[str]) -> str:
        quote = next(group for group in match.groups() if group).strip()
        quotes.append(quote)
        if re.search(r"[.!?…。！？]$", quote):
            return QUOTE_MARK + "."  # the quotation ends its sentence
        return QUOTE_MARK

    masked = QUOTE_PATTERN.sub(mask, item)
    rest = ""
    for sentence in split_sentences(masked):
        said = " ".join(quotes.pop(0) for _ in range(sentence.count(QUOTE_MARK)))
        said = re.sub(r",$", ".", re.sub(r"，$", "。", said))  # “Nine,” she says.
        outside = sentence.replace(QUOTE_MARK, " ").strip(" .,:;—–-*")
        rest += outside
        if len(said) >= MIN_QUOTE_CHARS:
            _add_quote(draft, section, said, outside=outside, is_quotes=is_quotes)
    return QUOTE_MARK in masked and not rest


def _add_quote(
    draft: DraftedCard, section: MarkdownSection, said: str, *, outside: str, is_quotes: bool
) -> None:
    """Add a quotation as an example or the greeting, unless the sentence around it does not say who
    speaks it.
    """
    names_others = any(name not in draft.name for name in NAME_PATTERN.findall(outside))
    is_spoken = bool(SPEAKING_PATTERN.search(outside)) and _names_character(outside, draft.name)
    if names_others or (outside and not (is_spoken or is_quotes)):
        draft.unclear_quotes += 1
    elif GREETING_PATTERN.search(outside) and "first_mes" not in draft.fields:
        draft.add("first_mes", said)
    else:
        topic = "" if is_quotes else section.heading.rpartition(": ")[2]
        if topic in ("", draft.name):
            prompt = NEUTRAL_PROMPTS[len(draft.examples) % len(NEUTRAL_PROMPTS)]
        else:
            prompt = f"What about {topic[:1].lower() + topic[1:]}?"
        draft.examples.append([("user", prompt), ("char", said)])


def _names_character(text: str, name: str) -> bool:
    words = [word for word in name.split() if len(word) > 1]
    return bool(PRONOUN_PATTERN.search(text)) or any(word in text for word in words)
