"""Splits a text into messages, so that each shows its part as the whole text would: markup that is
split is closed, and opened again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from personas.markdown_code import find_code

BREAKS = ("\n\n", "\n", ". ", "! ", "? ", "。", "！", "？", " ")
"""Where a text is split, best first."""
DELIMITER_PATTERN = regex.compile(r"\\.|\|\||\*{1,3}|~~|_{1,3}", regex.DOTALL)
ATOM_PATTERN = regex.compile(
    r"<a?:\w{1,32}:\d{1,20}>|<t:-?\d{1,17}(?::\w)?>|\\[^\w\s]|`+|\|\||\*{1,3}|~~|_{1,3}|\X"
)
"""What is never split: emojis, delimiters, and signs with what combines with them."""
LANGUAGE_PATTERN = regex.compile(r"```([A-Za-z0-9_+\-.#]{1,20})\n")
LINE_MARK_PATTERN = regex.compile(r"(?:> |-# |#{1,3} )+")
"""The markup of a whole line: a quote, small print, a heading."""
REST_QUOTE_PATTERN = regex.compile(r"^>>> ", regex.MULTILINE)
"""A quote of all that follows."""
MAX_DELIMITER_CHARS = 32
"""Characters of a delimiter, that of a fence with its language."""


@dataclass(frozen=True)
class MarkupSpan:
    """Markup of a text, from the beginning of `opening` to the end of `closing`."""

    start: int
    end: int
    opening: str
    closing: str


@dataclass(frozen=True)
class Split:
    """The first part of a text with what closes its markup, and the rest with what opens it again.
    The first `cut` characters of the text are in the first part.
    """

    first: str
    rest: str
    cut: int
    opening: str


def split_markdown(text: str, limit: int, *, is_whole: bool = True) -> Split:
    """Split a text longer than `limit`: after a paragraph, a sentence or a word outside of markup,
    else inside, else at the limit. The first part may be longer by what closes its markup.
    """
    spans = [*_spans(text, is_whole=is_whole)]
    cut = _best_cut(text, limit, spans)
    inside = sorted((span for span in spans if span.start < cut < span.end), key=_start)
    first_sign = 0
    for span in inside:
        if span.start == first_sign:
            first_sign += len(span.opening)
    for span in reversed(inside):  # no pair is left with nothing in it
        if cut <= span.start + len(span.opening) and span.start > first_sign:
            cut = span.start
        elif cut >= span.end - len(span.closing):
            cut = span.end
    inside = [span for span in inside if span.start < cut < span.end]
    if any(span.opening.startswith("```") for span in inside):
        return _split_at(text, cut, inside)
    start = text.rfind("\n", 0, cut) + 1
    mark = LINE_MARK_PATTERN.match(text, start, cut)
    if mark and 0 < start < cut == mark.end():
        return _split_at(text, start, inside)
    line_mark = ">>> " if _is_quoted_to_the_end(text, cut, spans) else mark[0] if mark else ""
    return _split_at(text, cut, inside, line_mark=line_mark)


def _is_quoted_to_the_end(text: str, cut: int, spans: list[MarkupSpan]) -> bool:
    for quote in REST_QUOTE_PATTERN.finditer(text, 0, cut):
        if not any(span.start <= quote.start() < span.end for span in spans):
            return True
    return False


def closing_of(text: str) -> str:
    """Return what closes the hidden text or the code in which a growing text ends."""
    code = find_code(text)
    if code.open_fence is not None:
        return "```" if text.endswith("\n") else "\n```"
    _, opened = _pair_marks(text)
    return "||" if "||" in dict(opened) else ""


def _split_at(text: str, cut: int, inside: list[MarkupSpan], *, line_mark: str = "") -> Split:
    opening = line_mark + "".join(span.opening for span in inside)
    closing = "".join(span.closing for span in reversed(inside))
    first = text[:cut]
    if closing.startswith("\n") and first.endswith("\n"):
        closing = closing[1:]
    if closing:
        first = first.rstrip(" ")
    return Split(first + closing, opening + text[cut:], cut, opening)


def _start(span: MarkupSpan) -> int:
    return span.start


def _best_cut(text: str, limit: int, spans: list[MarkupSpan]) -> int:
    window = text[:limit]
    covered = _covered(spans, limit)
    for may_split in (False, True):
        for mark in BREAKS:
            at = window.rfind(mark, limit // 2)
            while at >= 0:
                cut = at + len(mark)
                if may_split or not covered[cut]:
                    return cut
                at = window.rfind(mark, limit // 2, at)
    return _last_atom_end(text, limit)


def _covered(spans: list[MarkupSpan], limit: int) -> list[bool]:
    """Return which places of a text are inside of markup."""
    depth = [0] * (limit + 2)
    for span in spans:
        if span.start <= limit:
            depth[span.start + 1] += 1
            depth[min(span.end, limit + 1)] -= 1
    covered = []
    total = 0
    for change in depth:
        total += change
        covered.append(total > 0)
    return covered


def _last_atom_end(text: str, limit: int) -> int:
    """Return the end of the last atom up to a limit; the limit, if a single one is longer."""
    end = 0
    for atom in ATOM_PATTERN.finditer(text, 0, limit + 400):
        if atom.end() > limit:
            break
        end = atom.end()
    return end or limit


def _spans(text: str, *, is_whole: bool) -> Iterator[MarkupSpan]:
    """Find the code of a text, and its other markup by pairs of delimiters outside of code. What is
    open at the end of a text that is not whole may be closed later, and counts, too.
    """
    code = find_code(text)
    beyond = len(text) + MAX_DELIMITER_CHARS
    for span in code.spans:
        opening = closing = span.ticks
        if span.is_fence:
            opening = _fence_opening(text, span.start)
            closing = "\n```"
        yield MarkupSpan(span.start, span.end, opening, closing)
    spans, opened = _pair_marks(text)
    yield from spans
    if is_whole:
        return
    if code.open_fence is not None:
        opening = _fence_opening(text, code.open_fence)
        yield MarkupSpan(code.open_fence, beyond, opening, "\n```")
    for mark, start in opened:
        if len(mark) > 1:  # a single sign may stand for itself
            yield MarkupSpan(start, beyond, mark, mark)


def _fence_opening(text: str, start: int) -> str:
    language = LANGUAGE_PATTERN.match(text, start)
    return f"```{language[1] if language else ''}\n"


def _pair_marks(text: str) -> tuple[list[MarkupSpan], list[tuple[str, int]]]:
    """Return the markup of a text but its code, and the delimiters that nothing closes, with their
    places.
    """
    spans: list[MarkupSpan] = []
    opened: list[tuple[str, int]] = []
    for mark, start in _marks(text):
        names = [name for name, _ in opened]
        if mark in names and _may_close(text, mark, start):
            at = len(names) - 1 - names[::-1].index(mark)
            spans.append(MarkupSpan(opened[at][1], start + len(mark), mark, mark))
            del opened[at:]
        elif mark not in names and _may_open(text, mark, start):
            opened.append((mark, start))
    return spans, opened


def _marks(text: str) -> Iterator[tuple[str, int]]:
    """Find the delimiters outside of code."""
    at = 0
    for span in (*find_code(text).spans, None):
        end = span.start if span else len(text)
        for mark in DELIMITER_PATTERN.finditer(text, at, end):
            if not mark[0].startswith("\\"):
                yield mark[0], mark.start()
        at = span.end if span else end


def _may_open(text: str, mark: str, start: int) -> bool:
    if mark == "_" and text[max(0, start - 1) : start].isalnum():
        return False
    return mark != "*" or not text[start + 1 : start + 2].isspace()


def _may_close(text: str, mark: str, start: int) -> bool:
    if mark == "_" and text[start + 1 : start + 2].isalnum():
        return False
    return mark != "*" or not text[start - 1 : start].isspace()
