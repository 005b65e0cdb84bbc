"""Finds the code in a text as Discord's clients render it: fences, and spans between backticks.

Where other markup may end inside of it, or a line's own markup ends with the line, a client may show
the same backticks as plain text. Such code is not certain, and neither is any after it: who leaves
something in code alone that is not harmless elsewhere asks for certain code.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass

TICKS_PATTERN = re.compile(r"(?P<escapes>\\*)(?P<ticks>`+)")
FENCE = "```"
BLOCK_PREFIX_PATTERN = re.compile(r"[ \t]*(?:>|#|-#|[-*+•]\s|\d+[.)]\s)")
"""Beginnings of lines whose content a client reads by itself: quotes, headings, items of lists."""
DELIMITER_PATTERN = re.compile(r"(?P<pair>\*+|_+|~~+|\|\|+)|[\[\]<>\n]")
CLOSING_PATTERN = {
    "*": re.compile(r"\*"),
    "_": re.compile(r"_(?!\w)|__"),
    "~": re.compile("~~"),
    "|": re.compile(r"\|\|"),
    "[": re.compile(r"\]"),
    "<": re.compile(">"),
}
"""What may end, inside of code, the markup that a sign before it has begun."""


@dataclass(frozen=True)
class CodeSpan:
    """A fence, or code within a line, from its first backtick to the end of its last one."""

    start: int
    end: int
    ticks: str
    is_certain: bool

    @property
    def is_fence(self) -> bool:
        return self.ticks == FENCE


@dataclass(frozen=True)
class FoundCode:
    """The code of a text, in order. `open_at` is where the first backticks stand that nothing
    closes, None without any; `open_fence` is the same for a fence.
    """

    spans: tuple[CodeSpan, ...] = ()
    open_at: int | None = None
    open_fence: int | None = None

    @property
    def certain(self) -> tuple[CodeSpan, ...]:
        return tuple(span for span in self.spans if span.is_certain)


def find_code(text: str) -> FoundCode:
    """Find all code of a text, in time that grows with its length."""
    if "`" not in text:
        return FoundCode()
    return _CodeSearch(text).found()


class _CodeSearch:
    def __init__(self, text: str) -> None:
        self._text = text
        self._runs = [(run.start("ticks"), run.end()) for run in TICKS_PATTERN.finditer(text)]
        self._escaped = {
            run.start("ticks") for run in TICKS_PATTERN.finditer(text) if len(run["escapes"]) % 2
        }
        self._fences = [start for start, end in self._runs if end - start >= len(FENCE)]
        self._by_length: dict[int, list[int]] = {}
        for start, end in self._runs:
            self._by_length.setdefault(end - start, []).append(start)
        self._markup = _OpenMarkup(text)
        self._spans: list[CodeSpan] = []
        self._open: list[tuple[int, bool]] = []
        self._is_certain = True

    def found(self) -> FoundCode:
        at = 0
        for run_start, run_end in self._runs:
            start = max(run_start, at)
            if start == run_start and start in self._escaped:
                start += 1
            if start >= run_end:
                continue
            at = self._read(start, run_end - start) or at
        fences = [start for start, is_fence in self._open if is_fence]
        return FoundCode(
            tuple(self._spans),
            open_at=self._open[0][0] if self._open else None,
            open_fence=fences[0] if fences else None,
        )

    def _read(self, start: int, size: int) -> int | None:
        """Add the code that backticks begin; return its end, None if nothing closes it."""
        ticks = FENCE if size >= len(FENCE) else "`" * size
        end = None
        if ticks == FENCE:
            end = self._closing(self._fences, start + size, len(FENCE))
            if end is not None and not self._text[start + len(FENCE) : end - len(FENCE)].strip(
                "\n"
            ):
                end = None
        if end is None and (
            end := self._closing(self._by_length.get(size, []), start + size, size)
        ):
            ticks = "`" * size
        if end is None:
            self._open.append((start, size >= len(FENCE)))
            return None
        self._markup.read(self._spans[-1].end if self._spans else 0, start)
        content = self._text[start + len(ticks) : end - len(ticks)]
        if ticks == FENCE:
            is_alone = BLOCK_PREFIX_PATTERN.match(self._line_before(start)) is None
        else:
            is_alone = "\n" not in content
        if not is_alone or self._markup.may_end_in(content, start):
            self._is_certain = False
        self._spans.append(CodeSpan(start, end, ticks, self._is_certain))
        return end

    @staticmethod
    def _closing(starts: list[int], after: int, size: int) -> int | None:
        at = bisect_left(starts, after + 1)
        return starts[at] + size if at < len(starts) else None

    def _line_before(self, start: int) -> str:
        return self._text[self._text.rfind("\n", 0, start) + 1 : start]


class _OpenMarkup:
    """The markup outside of code that has begun and not ended, as far as that can be told."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pairs: dict[str, bool] = {}
        self._brackets = 0
        self._angle_at = -1

    def read(self, start: int, end: int) -> None:
        for sign in DELIMITER_PATTERN.finditer(self._text, start, end):
            around = (
                self._text[max(0, sign.start() - 1) : sign.start()]
                + self._text[sign.end() : sign.end() + 1]
            )
            if sign["pair"]:
                if around.strip():  # between blanks, it is a sign of its own
                    self._pairs[sign[0]] = not self._pairs.get(sign[0], False)
            elif sign[0] == "[":
                self._brackets += 1
            elif sign[0] == "]":
                self._brackets = max(0, self._brackets - 1)
            elif sign[0] == "<":
                self._angle_at = sign.start()
            else:
                self._angle_at = -1

    def may_end_in(self, content: str, start: int) -> bool:
        open_signs = {pair[0] for pair, is_open in self._pairs.items() if is_open}
        if self._brackets:
            open_signs.add("[")
        if self._angle_at >= 0 and not re.search(r"\s", self._text[self._angle_at : start]):
            open_signs.add("<")
        return any(CLOSING_PATTERN[sign].search(content) for sign in open_signs)
