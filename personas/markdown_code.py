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
BLOCK_PREFIX_PATTERN = re.compile(r"(?:^|[*_~|\[])[ \t]*(?:>|#|-#|[-*+•]\s|\d+[.)]\s)")
"""Beginnings of lines whose content a client reads by itself: quotes, headings, items of lists."""
LANGUAGE_PATTERN = re.compile(r"[a-z0-9_+\-.#]+\n", re.IGNORECASE)
DELIMITER_PATTERN = re.compile(r"\\[^0-9A-Za-z\s]|(?P<mark>\*+|_+|~~+|\|\|+)|[\[\]<>]")
MARK_SIGNS = "*_~|"
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
        self._by_length: dict[int, list[int]] = {}
        for start, end in self._runs:
            self._by_length.setdefault(end - start, []).append(start)
        self._lengths = sorted(self._by_length, reverse=True)
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
            while start < run_end:
                end = self._read(start, run_end - start)
                if end is None:
                    break
                start = at = end
        fences = [start for start, is_fence in self._open if is_fence]
        return FoundCode(
            tuple(self._spans),
            open_at=self._open[0][0] if self._open else None,
            open_fence=fences[0] if fences else None,
        )

    def _read(self, start: int, size: int) -> int | None:
        """Add the code that backticks begin; return its end, None if nothing closes it."""
        ticks = FENCE
        end, is_settled = self._fence_end(start, size)
        if end is None:
            ticks, end = self._inline_end(start, size)
            is_settled = len(ticks) == size < len(FENCE)
        if not is_settled:  # what follows may end it otherwise
            self._open.append((start, size >= len(FENCE)))
        if end is None:
            return None
        self._markup.read(self._spans[-1].end if self._spans else 0, start)
        content = self._text[start + len(ticks) : end - len(ticks)]
        if ticks == FENCE:
            is_alone = BLOCK_PREFIX_PATTERN.search(self._line_before(start)) is None
        else:
            is_alone = "\n" not in content
        if not is_alone or self._markup.may_end_in(content, start):
            self._is_certain = False
        self._spans.append(CodeSpan(start, end, ticks, self._is_certain))
        return end

    def _fence_end(self, start: int, size: int) -> tuple[int | None, bool]:
        """Return the end of a fence, and whether it stays there whatever follows."""
        if size < len(FENCE):
            return None, False
        begins = [start + len(FENCE)]
        if language := LANGUAGE_PATTERN.match(self._text, start + len(FENCE)):
            begins.insert(0, language.end())
        for number, begin in enumerate(begins):
            while self._text[begin : begin + 1] == "\n":
                begin += 1
            # The first sign of the content may be a backtick.
            end = self._text.find(FENCE, begin + 1)
            if end >= 0:
                return end + len(FENCE), number == 0
        return None, False

    def _inline_end(self, start: int, size: int) -> tuple[str, int | None]:
        """Return the backticks of code within a line, as many of those at its beginning as end it."""
        for length in self._lengths:
            starts = self._by_length[length]
            at = bisect_left(starts, start + size)
            if length <= size and at < len(starts):
                return "`" * length, starts[at] + length
        return "", None

    def _line_before(self, start: int) -> str:
        return self._text[self._text.rfind("\n", 0, start) + 1 : start]


class _OpenMarkup:
    """The markup outside of code that has begun and not ended, or of which that cannot be told."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._opened: list[str] = []
        self._unclear: set[str] = set()
        self._brackets = 0
        self._angle_at = -1

    def read(self, start: int, end: int) -> None:
        for sign in DELIMITER_PATTERN.finditer(self._text, start, end):
            if sign["mark"]:
                self._read_mark(sign[0], sign.start())
            elif sign[0] == "[":
                self._brackets += 1
            elif sign[0] == "]":
                self._brackets = max(0, self._brackets - 1)
            elif sign[0] == "<":
                self._angle_at = sign.start()
            elif sign[0] == ">":
                self._angle_at = -1

    def _read_mark(self, mark: str, start: int) -> None:
        before = self._text[start - 1 : start] if start else " "
        after = self._text[start + len(mark) : start + len(mark) + 1] or " "
        if mark == "*" and before.isspace() and after.isspace():
            return
        if (
            mark in self._opened
            and not before.isspace()
            and not (after.isalnum() or after in MARK_SIGNS)
        ):
            at = self._opened.index(mark)
            self._unclear.update(other[0] for other in self._opened[at + 1 :])
            del self._opened[at:]
        elif (
            mark not in self._opened
            and not after.isspace()
            and not (before.isalnum() or before in MARK_SIGNS)
        ):
            self._opened.append(mark)
        else:
            self._unclear.add(mark[0])

    def may_end_in(self, content: str, start: int) -> bool:
        signs = self._unclear | {mark[0] for mark in self._opened}
        if self._brackets:
            signs.add("[")
        if self._angle_at >= 0 and not re.search(r"\s", self._text[self._angle_at : start]):
            signs.add("<")
        return any(CLOSING_PATTERN[sign].search(content) for sign in signs)
