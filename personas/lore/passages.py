"""Splits markdown lore into passages of whole sentences."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from personas.errors import LoreError
from personas.lore.entry_rules import EntryRules, count_regexes, parse_rules
from personas.lore.index_terms import UNSEGMENTED_PATTERN
from personas.lore.key_regex import MAX_FILE_REGEXES
from personas.lore.markdown_sections import MarkdownSection, parse_sections
from personas.prompt.abbreviations import ABBREVIATION_LOOKBEHIND

WORLD = "_world"
"""Owner of the lore of a world: a set of lore for several personas (`is_lore_set`)."""
MAX_PASSAGE_WORDS = 90
SENTENCE_END_PATTERN = re.compile(
    rf"(?<=[.!?…][\"”’)*_])[ ]+|{ABBREVIATION_LOOKBEHIND}(?<=[.!?…])[ ]+(?=[\"“‘(*_]?[^\W\d_a-z])"
    r"|(?<=[。！？])[」』”]?|\n"
)


@dataclass(frozen=True)
class Passage:
    """Part of one lore file. `owner` is a persona id or `_world`; `source` is the file name with
    its owner's prefix.

    `rules` are the rules of its section, None for a section without a lore comment.
    """

    owner: str
    source: str
    heading: str
    text: str
    rules: EntryRules | None = None


def is_lore_set(owner: str) -> bool:
    """Report whether an owner of lore is a set for several personas, which takes an underscore
    before its name, and not one persona.
    """
    return owner.rpartition("/")[2].startswith("_")


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
        for piece in _split_section(section):
            passages.append(Passage(owner, source, section.heading, text=piece, rules=rules))
    return passages


def _section_rules(section: MarkdownSection) -> EntryRules | None:
    if len(section.comments) > 1:
        where = f"“{section.heading}”" if section.heading else "the beginning"
        raise LoreError(
            f"There are {len(section.comments)} lore comments under {where}.", "Keep one a heading."
        )
    return parse_rules(section.comments[0], section.heading) if section.comments else None


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
        for position in range(0, len(part), size):
            yield part[position : position + size]
        return
    for position in range(0, len(words), MAX_PASSAGE_WORDS):
        yield "".join(words[position : position + MAX_PASSAGE_WORDS])
