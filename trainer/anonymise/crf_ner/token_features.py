"""Features of tokens for the CRF: shape, gazetteer groups, neighbours, line and text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.anonymise.crf_ner.gazetteer import fold_word

MAX_CACHED_WORDS = 50_000
"""Limit of cached word features (some 60 MB); then the cache is cleared."""
WINDOW_TOKENS = 5
"""Tokens before and after a number or name that are searched for street words and postal codes."""
LINE_MARKS = {"\t": "@", ":": ":"}  # "\t" is a link or a mention (see `tokenise`)
PAD = "\v"
"""Padding before the first and after the last token."""


@dataclass(frozen=True, slots=True)
class WordFeatures:
    """Features of a word by itself, by the position they are seen from."""

    key: str
    """Groups and shape together, for the features of pairs."""
    lower: str
    own: list[str]
    before: list[str]
    after: list[str]
    two_before: list[str]
    two_after: list[str]
    is_street: bool
    is_number: bool
    is_word: bool
    mark: str
    """The mark of the word in the shape of a line: "9" for a number, "s" for a street word, "@" for
    a link, ":".
    """
    vietnamese: int
    """1 for words of Vietnamese only, -1 for words of other languages only."""


class FeatureExtractor:
    """Extracts the features of texts. `groups_of` returns the groups of a word (see
    `Gazetteer.of`).
    """

    def __init__(self, groups_of: Callable[[str], str]) -> None:
        self._groups_of = groups_of
        self._kept: dict[str, WordFeatures] = {}
        self._outside = self._features(PAD)

    def of(self, words: Sequence[str]) -> list[list[str]]:
        """Return a list of features per token."""
        seen = [self._word(word) for word in words]
        padded = [self._outside, self._outside, *seen, self._outside, self._outside]
        text = _case(words)
        if sum(word.vietnamese for word in seen) > 0:
            text += "vi"
        lines = _line_keys(seen)
        near = _nearby_marks(seen)
        shapes = _line_shapes(seen)
        rows: list[list[str]] = []
        for index, word in enumerate(seen):
            left2, left, _, right, right2 = padded[index : index + 5]
            key = word.key
            rows.append(
                [
                    *word.own,
                    *left.before,
                    *right.after,
                    *left2.two_before,
                    *right2.two_after,
                    f"{text}|{key}",
                    f"{lines[index]}|{key}",
                    f"{near[index]}|{key}",
                    f"{left.key}<{key}",
                    f"{key}>{right.key}",
                    f"{left.lower}<<{key}",
                    f"{key}>>{right.lower}",
                    f"{left2.lower}<{left.lower}<{word.key[0]}",
                ]
            )
            if shapes:
                before, own, after = shapes[index]
                rows[-1] += [f"{own}%{key}", f"{before}^{own}%{key[0]}", f"{own}/{after}%{key[0]}"]
        return rows

    def _word(self, word: str) -> WordFeatures:
        found = self._kept.get(word)
        if found is None:
            if len(self._kept) >= MAX_CACHED_WORDS:
                self._kept.clear()
            found = self._kept[word] = self._features(word)
        return found

    def _features(self, word: str) -> WordFeatures:
        groups = self._groups_of(word)
        shape = word_shape(word)
        lower = shape if shape[0] in "9b" else word.lower()  # numbers by their length only
        key = f"{shape}{groups}"
        own = [f"w={lower}", f"s={shape}", f"k={key}"]
        for sign in groups:
            own.append(f"{shape[0]}+{sign}")
        if shape[0] in "Xxm" and len(word) > 3:
            # Ends and beginnings tell names that are on no list, such as those with -sen or -ová.
            plain = fold_word(word)
            for size in range(2, min(7, len(plain))):
                own.append(f"{shape[0]}e{size}={plain[-size:]}")
            own.append(f"{shape[0]}b={plain[:2]}")
        is_street = "c" not in groups and ("s" in groups or "u" in groups)
        is_number = shape[0] in "9b"
        if is_number:
            mark = "9"
        elif is_street:
            mark = "s"
        else:
            mark = LINE_MARKS.get(word, "")
        return WordFeatures(
            key,
            lower,
            own,
            before=[f"-w={lower}", f"-k={key}", f"-s={shape}"],
            after=[f"+w={lower}", f"+k={key}", f"+s={shape}"],
            two_before=[f"--w={lower}", f"--k={key}"],
            two_after=[f"++w={lower}", f"++k={key}"],
            is_street=is_street,
            is_number=is_number,
            is_word=word[0].isalnum(),
            mark=mark,
            vietnamese=("w" in groups or "z" in groups) - ("c" in groups),
        )


def word_shape(word: str) -> str:
    """Return the shape: X name-like, A capitals, I one capital, x lower case, m mixed, 9 digits, b
    with digits.
    """
    if word.isdigit():
        return f"9{min(len(word), 6)}"
    if not word[0].isalnum():
        return word if len(word) == 1 else "'s"
    if any(letter.isdigit() for letter in word):
        return "b1" if word[0].isdigit() else "b0"
    if len(word) == 1:
        return "I" if word.isupper() else "i"
    if word.islower():
        return "x"
    if word.isupper():
        return "A2" if len(word) == 2 else "A"
    if word[0].isupper() and word[1:].islower():
        return "X"
    return "Xm" if word[0].isupper() else "m"


def _case(words: Sequence[str]) -> str:
    """Classify the case of a text: lower case, capitals, title case, or prose.

    A capital says nothing in a text of capitals, and a name may lack it in one of lower case.
    """
    letters = [word for word in words if word[0].isalpha()]
    upper = sum(word[0].isupper() for word in letters)
    if not upper:
        return "low"
    if all(word.isupper() for word in letters if len(word) > 1):
        return "cap"
    return "mix" if upper < 0.6 * len(letters) or len(letters) < 4 else "ttl"


def _line_keys(words: Sequence[WordFeatures]) -> list[str]:
    """Return per token: first of a sentence or a line, or the line's label before a colon."""
    keys: list[str] = []
    label = ""
    first = "B"
    last_words: list[str] = []
    for word in words:
        keys.append(f"{first}{label}")
        first = ""
        if word.key == "\n":
            label = ""
            first = "L"
            last_words = []
        elif word.key in ".!?":
            label = ""
            first = "S"
            last_words = []
        elif word.key == ":" and len(last_words) <= 3:
            label = "=" + " ".join(last_words[-1:])
            first = "C"
        elif word.key in '"“*>-•':
            first = "Q"
        else:
            last_words.append(word.lower)
    return keys


def _line_shapes(words: Sequence[WordFeatures]) -> list[tuple[str, str, str]]:
    """Return per token the shapes of the previous, its own and the next line; empty for a text of
    one line.
    """
    ends = [index for index, word in enumerate(words) if word.lower == "\n"]
    if not ends:
        return []
    shapes = [""]
    begin = 0
    lengths = []
    for end in (*ends, len(words)):
        shapes.append(_line_shape(words[begin:end]))
        lengths.append(min(end + 1, len(words)) - begin)
        begin = end + 1
    shapes.append("")
    of_tokens: list[tuple[str, str, str]] = []
    for line, length in enumerate(lengths):
        of_tokens += [(shapes[line], shapes[line + 1], shapes[line + 2])] * length
    return of_tokens


def _line_shape(line: Sequence[WordFeatures]) -> str:
    """Return number of words, marks of numbers, street words, links and labels, and the first
    token's shape.
    """
    if not line:
        return ""
    marks = "".join(sorted({word.mark for word in line}))
    return f"{min(sum(word.is_word for word in line), 8)}{marks}{line[0].key[0]}"


def _nearby_marks(words: Sequence[WordFeatures]) -> list[str]:
    """Return per token: street words and numbers within a few tokens."""
    streets = [index for index, word in enumerate(words) if word.is_street]
    numbers = [index for index, word in enumerate(words) if word.is_number]
    marks: list[list[str]] = [["", "", "", ""] for _ in words]
    for position, (sign, places) in enumerate((("s", streets), ("n", numbers))):
        for index in places:
            for near in range(max(0, index - WINDOW_TOKENS), index):
                marks[near][2 * position + 1] = f"{sign}>"
            for near in range(index + 1, min(len(words), index + WINDOW_TOKENS + 1)):
                marks[near][2 * position] = f"<{sign}"
    return ["".join(mark) for mark in marks]
