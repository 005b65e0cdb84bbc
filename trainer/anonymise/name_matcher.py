"""Matches the names of a log's people, and allowed names, in texts."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainer.anonymise.capitalisation import (
    TOKEN,
    VIETNAMESE_WITHOUT_DIACRITICS,
    casefold_composed,
    fold_diacritics,
)
from trainer.anonymise.language_data import (
    ENGLISH_WORDS,
    HONORIFICS,
    IS_CJK,
    LATIN_TITLES,
    MARKS,
    PARTICLES,
    TITLES_BEFORE,
    VOCATIVES,
)
from trainer.anonymise.name_variants import (
    IS_SPACELESS,
    KANA_ONLY,
    MAX_AMBIGUOUS_LETTERS,
    NameForm,
)

WORD_SEPARATORS = frozenset(
    ("", " ", "  ", "_", ".", "-", "'", "’", "ʼ", "‘", "\n", "\u3000", "·", "・")
)
"""Separators between the words of a name."""
NAME_SEPARATORS = WORD_SEPARATORS - {"", "\n"}
JOINED_WORDS = re.compile("(?:[ובלמשהכ]{1,2}(?=[א-ת]{3})|[وفبلك]{1,2}(?=[ء-ي]{3}))")
"""Conjunctions and prepositions of Hebrew and Arabic, written as one word with what follows."""
REPEATED_LETTERS = re.compile(r"(.)\1{2,}")
OPENING_SIGNS = " \t\"'“”‘’(*_[>-•"
ARTICLE = re.compile(r"(?:^|[^a-z])(?:the|a|an|my|your|no)$")
SENTENCE_ENDS = ".!?…:;\n。！？：；"


@dataclass(frozen=True, slots=True)
class NameMatch:
    """A known name in a text. `person_id` is the person's id, "" for a name that is kept.

    A match that is not sure is a name of two or more words written like common words: it counts
    only if a detector finds a name there.
    """

    person_id: str
    start: int
    end: int
    is_sure: bool = True


@dataclass(frozen=True, slots=True)
class _TextWord:
    """A word of a text, case-folded, and also without diacritics."""

    start: int
    end: int
    plain: str
    folded: str


class NameMatcher:
    """Index of name forms, in which `match` looks up each word of a text."""

    def __init__(self, forms: Iterable[NameForm]) -> None:
        """Build the index; of two forms with the same words the first wins."""
        self._by_word: dict[str, list[NameForm]] = {}
        self._by_sign: dict[str, list[NameForm]] = {}
        seen: set[tuple[str, ...]] = set()
        for form in forms:
            if form.words in seen:
                continue
            seen.add(form.words)
            if IS_SPACELESS.search(form.words[0]):
                self._by_sign.setdefault(form.words[0][0], []).append(form)
            else:
                self._by_word.setdefault(fold_diacritics(form.words[0]), []).append(form)
        for group in (*self._by_word.values(), *self._by_sign.values()):
            group.sort(key=lambda form: (len(form.words), sum(map(len, form.words))), reverse=True)

    def match(self, text: str) -> list[NameMatch]:
        """Return the known names in a text in order; of two that overlap the earlier, then the
        longer.
        """
        matches: list[NameMatch] = []
        if self._by_sign:
            matches += self._in_spaceless(text)
        if self._by_word:
            matches += self._in_words(text)
        matches.sort(key=lambda match: (match.start, -match.end))
        sure: list[NameMatch] = []
        for match in matches:
            if not match.is_sure or (sure and match.start < sure[-1].end):
                continue
            before = sure[-1] if sure else None
            is_same = before is not None and before.person_id == match.person_id
            if before and is_same and text[before.end : match.start] in NAME_SEPARATORS:
                # Parts of one person's name become one match, and so one pseudonym.
                sure[-1] = NameMatch(match.person_id, before.start, match.end)
            else:
                sure.append(match)
        result = list(sure)
        for match in matches:
            if match.is_sure:
                continue
            if not any(other.start < match.end and match.start < other.end for other in sure):
                result.append(match)
        return sorted(result, key=lambda match: match.start)

    def _in_words(self, text: str) -> Iterator[NameMatch]:
        words = [_word(match) for match in TOKEN.finditer(text)]
        position = 0
        while position < len(words):
            hits = list(self._at(text, words, position))
            if not hits:
                position += 1
                continue
            match, word_count = next((hit for hit in hits if hit[0].is_sure), hits[0])
            yield match
            position += word_count

    def _at(
        self, text: str, words: list[_TextWord], position: int
    ) -> Iterator[tuple[NameMatch, int]]:
        """Return the match that begins at a word, and its number of words."""
        for key, lead, cut in _lookup_keys(words[position].folded):
            for form in self._by_word.get(key, ()):
                end = _match_end(form, text, words, position=position, key=key)
                if end is None:
                    continue
                if len(form.words) == 1:
                    end -= cut
                word = words[position]
                start = word.start + lead
                is_meant = _is_mention(form, text, start, end=end, word=word)
                if is_meant or (form.is_full and len(form.words) > 1):
                    match = NameMatch(form.person_id, start, end, is_meant)
                    word_count = len(form.words) if is_meant else 1
                    yield match, word_count

    def _in_spaceless(self, text: str) -> Iterator[NameMatch]:
        small = text.lower()
        if len(small) != len(text):
            small = text  # some letters have a longer lower case, which would move all places
        position = 0
        while position < len(text):
            for form in self._by_sign.get(small[position], ()):
                if _is_spaceless_mention(form, small, position):
                    end = position + len(form.words[0])
                    yield NameMatch(form.person_id, position, end)
                    position = end
                    break
            else:
                position += 1


def _word(match: re.Match[str]) -> _TextWord:
    written = match[0]
    plain = casefold_composed(written)
    folded = plain if plain.isascii() else fold_diacritics(plain)
    return _TextWord(match.start(), match.end(), plain, folded)


def _lookup_keys(word: str) -> Iterator[tuple[str, int, int]]:
    """Yield the keys to look up a word by, with the lengths of what they leave out at its beginning
    and at its end: Alices, Miraaa, ולדנה.
    """
    yield word, 0, 0
    if word.endswith("s") and len(word) > MAX_AMBIGUOUS_LETTERS and word not in ENGLISH_WORDS:
        yield word[:-1], 0, 1
    short = REPEATED_LETTERS.sub(r"\1", word)
    if short != word:
        yield short, 0, 0
    joined = JOINED_WORDS.match(word)
    if joined:
        for lead in range(1, joined.end() + 1):
            yield word[lead:], lead, 0


def _match_end(
    form: NameForm, text: str, words: list[_TextWord], position: int, key: str
) -> int | None:
    if len(form.words) == 1:
        word = words[position]
        return word.end if _is_spelling_of(form.words[0], word, key) else None
    if position + len(form.words) > len(words):
        return None
    for offset, wanted in enumerate(form.key):
        word = words[position + offset]
        is_last = offset == len(form.words) - 1
        if word.folded != wanted and not (is_last and word.folded == wanted + "s"):
            return None
        if offset and text[words[position + offset - 1].end : word.start] not in WORD_SEPARATORS:
            return None
    last = words[position + len(form.words) - 1]
    return last.end - (last.folded != form.key[-1])


def _is_spelling_of(name: str, word: _TextWord, key: str) -> bool:
    """Return True if a word is this name, with all of its diacritics or none, but not with
    others.
    """
    return word.folded != key or word.plain in (word.folded, name)


def _is_mention(form: NameForm, text: str, start: int, end: int, word: _TextWord) -> bool:
    if form.context == "anywhere" and not _is_ambiguous(form, word):
        return True
    context = form.context if form.context != "anywhere" else "written"
    if start and text[start - 1] == "@":
        return True
    if context == "at":
        return False
    before = text[max(0, start - 12) : start].lower()
    after = text[end : end + 5].lower()
    if LATIN_TITLES.search(before) or VOCATIVES.match(after):
        return True
    if context == "called" or not _has_capitals(text, start, end):
        return False
    return context == "written" or len(form.words) > 1 or _is_name_like(text, start, end)


def _is_ambiguous(form: NameForm, word: _TextWord) -> bool:
    """Return True for short names without their diacritics and stretched ones, which may be other
    words.
    """
    if len(form.words) > 1:
        return False
    name = form.words[0]
    if word.plain == name or name == fold_diacritics(name):
        return False
    return len(name) <= MAX_AMBIGUOUS_LETTERS and name in VIETNAMESE_WITHOUT_DIACRITICS


def _has_capitals(text: str, start: int, end: int) -> bool:
    """Return True if each word is capitalised, in a text that is not in capitals throughout."""
    written = text[start:end]
    if len(written) > 1 and written.isupper() and text.isupper():
        return False
    initials = [part[0] for part in re.findall(r"[^\W_]+", written)]
    return all(initial.isupper() or not initial.isalpha() for initial in initials)


def _is_name_like(text: str, start: int, end: int) -> bool:
    """Return True for a capitalised word inside a sentence without an article, or one that is
    addressed.
    """
    before = text[max(0, start - 32) : start].rstrip(OPENING_SIGNS)
    follows = text[end : end + 1]
    if not before or before[-1] in SENTENCE_ENDS:
        return follows in (",", "!", "") or (follows == "?" and not text[end + 1 :].strip())
    return ARTICLE.search(before[-6:].lower()) is None


def _is_spaceless_mention(form: NameForm, text: str, position: int) -> bool:
    """Return True if a form without spaces is at this position of a text and is meant there."""
    name = form.words[0]
    if not text.startswith(name, position):
        return False
    before = text[position - 1 : position]
    after = text[position + len(name) : position + len(name) + 4]
    if after and after[0] in MARKS:
        return False  # its last letter is another syllable
    if before == "@" or HONORIFICS.match(after):
        return form.context != "at" or before == "@" or not IS_SPACELESS.match(before)
    if form.context == "called" and not IS_CJK.search(name):
        is_apart = not IS_SPACELESS.match(before) and not IS_SPACELESS.match(after)
        return is_apart or TITLES_BEFORE.search(text[max(0, position - 8) : position]) is not None
    if form.context in ("at", "called"):
        return False
    return not KANA_ONLY.fullmatch(name) or _is_kana_delimited(name, before, after)


def _is_kana_delimited(name: str, before: str, after: str) -> bool:
    """Return True if a name in kana ends here: at another script or a particle."""
    if "\u30a0" <= name[0] <= "\u30ff":
        return not any("\u30a1" <= sign <= "\u30fc" for sign in (before, after[:1]) if sign)
    opens = not before or not "\u3040" <= before <= "\u309f" or PARTICLES.match(before) is not None
    return opens and PARTICLES.match(after) is not None
