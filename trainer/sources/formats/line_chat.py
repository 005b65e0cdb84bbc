"""LINE chats from "Export chat history": a head, the date on lines of its own, and `TIME TAB NAME
TAB text`.

The format is undocumented; this follows exports in English, Japanese, Chinese, Korean and Thai. A
text of several lines is in quotation marks. System messages have no name, or a notice in its place.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.dates import DATE, SPACE, parse_clock, parse_moment
from trainer.sources.message_lines import ParsedLine, read_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

HEAD = "[LINE]"
SAVED = re.compile(r"[^\t\d]{2,40}[:：]\s*\d{4}[/.-]\d{1,2}[/.-]\d{1,2}.*")
DAY_NAME = r"[^\W\d]{1,12}\.?"
DATE_LINE = re.compile(
    rf"(?:(?P<weekday>{DAY_NAME}),{SPACE}*)?(?P<day>{DATE.replace('(?P<date>', '(?:')})"
    rf"{SPACE}*(?:[(（]{DAY_NAME}[)）]|{DAY_NAME})?"
)
"""`2026/01/05(Mon)`, or in US English `Mon, 01/05/2026`."""
PLACEHOLDER = re.compile(r"\[[^\[\]\n]{1,24}\]|☎.*", re.DOTALL)
"""`[Sticker]`, `[写真]`, `☎ Call time 0:12`: what the app writes for anything but a text."""
MIN_MESSAGES = 2


def _parse(line: str) -> ParsedLine | None:
    """Parse a date line, a message or a line of the head."""
    line = line.lstrip("\ufeff")
    if line.startswith(HEAD) or SAVED.fullmatch(line):
        return ParsedLine()
    match = DATE_LINE.fullmatch(line.strip())
    day = parse_moment(match["day"]) if match else None
    if match and day:
        # Only in US English does the day of the week precede the date.
        return ParsedLine(day=replace(day, looks_american=match["weekday"] is not None))
    time, tab, rest = line.partition("\t")
    seconds = parse_clock(time) if tab else None
    if seconds is None:
        return None
    name, tab, text = rest.partition("\t")
    return ParsedLine(seconds=seconds, speaker=name.strip() if tab else "", text=text)


def _placeholder(text: str) -> str:
    return sessionise.ATTACHMENT if PLACEHOLDER.fullmatch(text) else ""


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a chat."""
    entries = (_unquote(entry) for entry in read_entries(file, _parse, _placeholder))
    return sessionise.build_sessions(entries, file.name, options)


def _unquote(entry: sessionise.LogEntry | RejectedRecord) -> sessionise.LogEntry | RejectedRecord:
    """Remove the quotation marks around a text of several lines."""
    if isinstance(entry, RejectedRecord) or "\n" not in entry.text:
        return entry
    if entry.text.startswith('"') and entry.text.endswith('"'):
        return replace(entry, text=entry.text[1:-1].replace('""', '"').strip())
    return entry


def _recognises(peek: Peek) -> bool:
    if peek.kind not in ("text", "TSV", "CSV"):
        return False
    lines = peek.text[: 1 << 16].splitlines()
    first = next((line for line in lines if line.strip()), "").lstrip("\ufeff")
    parsed = list(filter(None, map(_parse, filter(str.strip, lines))))
    messages = sum(line.seconds is not None for line in parsed)
    if first.startswith(HEAD):
        return messages > 0
    # Without LINE's head, a table of times and names is no chat unless it has dates, too.
    return messages >= MIN_MESSAGES and any(line.day for line in parsed)


EXPECTED = (
    "a chat exported from LINE: [LINE] …, the date on a line of its own, then TIME TAB NAME TAB "
    "text"
)
FORMAT = SourceFormat("line", "LINE chat", EXPECTED, matches=_recognises, read=read)
