"""Reads chat exports in text with dates on lines of their own or before messages, as LINE and
KakaoTalk write them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from trainer.sources import sessionise
from trainer.sources.conversation import RejectedRecord
from trainer.sources.dates import DateOrder, DateOrderDetector, WrittenTime
from trainer.sources.markup import tidy_text
from trainer.sources.sessionise import LogEntry
from trainer.sources.source_file import SourceFile
from trainer.sources.speakers import make_author
from trainer.sources.table_reader import FOREIGN

BEFORE_FIRST = "precedes the first message"
NO_DATE = "a date or time that does not exist"


@dataclass(frozen=True, slots=True)
class ParsedLine:
    """A line that does not continue a message.

    `day` sets the date from here on; `seconds` since midnight begin a message by `speaker`, or a
    system message if that is empty. A line with neither is part of the file's head.
    """

    day: WrittenTime | None = None
    seconds: int | None = None
    speaker: str = ""
    text: str = ""


LineParser = Callable[[str], ParsedLine | None]
"""Parses a line without its end; None for one that continues a message."""
PlaceholderCheck = Callable[[str], str]
"""Returns the reason why a text of the app itself is not used; empty for what a person wrote."""


def read_entries(
    file: SourceFile, parse: LineParser, placeholder: PlaceholderCheck
) -> Iterator[LogEntry | RejectedRecord]:
    """Yield the messages of a chat; the order of day, month and year is detected from all dates."""
    detector = DateOrderDetector()
    for line in file.lines():
        parsed = parse(line.rstrip("\r\n"))
        if parsed and parsed.day:
            detector.add(parsed.day)
    for row, message in _messages(file.lines(), parse):
        yield _entry(row, message, detector.order, placeholder)


def _messages(lines: Iterable[str], parse: LineParser) -> Iterator[tuple[str, ParsedLine]]:
    """Yield each message with its row, its date and its continuation lines; those before the first
    have no time.
    """
    day: WrittenTime | None = None
    row = ""
    current = None
    texts = list[str]()
    for number, line in enumerate(lines, start=1):
        parsed = parse(line.rstrip("\r\n"))
        if parsed is None:
            if current is None and line.strip():
                yield f"line {number}", ParsedLine(text=line)
            texts.append(line.rstrip("\r\n"))
            continue
        if current:
            yield row, replace(current, text="\n".join([current.text, *texts]))
        day = parsed.day or day
        row = f"line {number}"
        current = None
        texts = []
        if parsed.seconds is not None:
            current = replace(parsed, day=day)
    if current:
        yield row, replace(current, text="\n".join([current.text, *texts]))


def _entry(
    row: str, message: ParsedLine, order: DateOrder, placeholder: PlaceholderCheck
) -> LogEntry | RejectedRecord:
    if message.seconds is None:
        return RejectedRecord(row, BEFORE_FIRST)
    start = message.day.at(order) if message.day else None
    if start is None:
        return RejectedRecord(row, NO_DATE)
    if FOREIGN.search(message.text):
        return RejectedRecord(row, "not UTF-8")
    at = start + message.seconds
    if not message.speaker:
        return LogEntry(row, at, make_author("", ()), "", dropped=sessionise.SYSTEM)
    text = message.text.strip()
    reason = placeholder(text)
    written = "" if reason else tidy_text(text)
    return LogEntry(row, at, make_author("", (message.speaker,)), written, dropped=reason)
