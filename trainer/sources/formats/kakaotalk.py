"""KakaoTalk chats from "Export messages": text of Android, iOS and Windows, and CSV of the Mac.

The format is undocumented; this follows exports in Korean and English. Phones write date and time
before each message (`2026년 1월 5일 오전 9:00, Name : text`); Windows writes the date on a line of its
own and `[Name] [오전 9:00] text`; the Mac writes a table of Date, User and Message.
"""

import re
from collections.abc import Iterator

from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.dates import (
    CLOCK,
    DATE,
    NAMED_MONTH,
    SPACE,
    DateOrderDetector,
    parse_clock,
    parse_moment,
)
from trainer.sources.markup import tidy_text
from trainer.sources.message_lines import ParsedLine, read_entries
from trainer.sources.record_fields import UnusableRecordError, text_field
from trainer.sources.sessionise import LogEntry, parse_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author

CSV_COLUMNS = ("Date", "User", "Message")
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
HEAD = re.compile(
    r".*(?:카카오톡 대화|KakaoTalk Chats?).*|(?:저장한 날짜|Date Saved)\s*:.*", re.IGNORECASE
)
DAY_PART = re.sub(r"\(\?P<(?!sep)\w+>", "(?:", rf"(?:{DATE}|{NAMED_MONTH})")
CLOCK_PART = re.sub(r"\(\?P<\w+>", "(?:", CLOCK)
"""Patterns without names, as each is used inside others."""
STAMPED = re.compile(
    rf"(?P<day>{DAY_PART}),?{SPACE}+(?:at{SPACE}+)?(?P<clock>{CLOCK_PART})(?P<rest>,{SPACE}.*|)",
    re.IGNORECASE,
)
DATE_LINE = re.compile(
    rf"-*{SPACE}*(?P<day>{DAY_PART}){SPACE}*(?:[^\W\d]{{2,4}})?{SPACE}*-*", re.IGNORECASE
)
BRACKETED = re.compile(
    rf"\[(?P<name>[^\[\]\n]{{1,60}})\] \[(?P<clock>{CLOCK_PART})\] (?P<text>.*)", re.IGNORECASE
)
NAMED = re.compile(r"(?P<name>[^:\n]{1,60}?) : (?P<text>.*)")
PLACEHOLDERS = re.compile(
    r"(?:사진|동영상|이모티콘|음성메시지|연락처|지도|보이스톡.{0,20}|페이스톡.{0,20}|삭제된 메시지입니다\.?"
    r"|Photos?|Videos?|Emoticons?"
    r"|Voice (?:Message|Call).{0,20}|This message was deleted\.?)(?: \d+장?)?|(?:파일|File): .+|<사진 읽지 않음>"
)
SYSTEM_TEXT = re.compile(
    r".{1,60}(?:님이 (?:들어왔|나갔)습니다\.?|님을 초대(?:했|하였)습니다\.?|has (?:joined|left)\b.{0,40})"
)
KOREAN_DATE = re.compile(r"\D{0,20}\d{4}년 ")
"""`2026. 1. 5.` at the start of a line may be WhatsApp's, too: that takes the head of the file."""
MIN_MESSAGES = 3
MAX_STAMP_CHARACTERS = 60


def _parse(line: str) -> ParsedLine | None:
    """Parse a message, a date line, a system message or a line of the head."""
    line = line.strip("\ufeff")
    bracketed = BRACKETED.fullmatch(line)
    if bracketed:
        return ParsedLine(
            seconds=parse_clock(bracketed["clock"]),
            speaker=bracketed["name"].strip(),
            text=bracketed["text"],
        )
    start = line[:MAX_STAMP_CHARACTERS]
    if not any(map(str.isdigit, start)):
        return ParsedLine() if HEAD.fullmatch(line) else None
    stamped = STAMPED.fullmatch(line)
    if stamped:
        return _parse_stamped(stamped)
    if HEAD.fullmatch(line):
        return ParsedLine()
    if len(line) > MAX_STAMP_CHARACTERS:
        return None
    date_line = DATE_LINE.fullmatch(line.strip())
    if date_line is None:
        return None
    day = parse_moment(date_line["day"])
    return ParsedLine(day=day) if day else None


def _parse_stamped(match: re.Match[str]) -> ParsedLine | None:
    """Parse what follows date and time: a message, a notice of the app, or nothing on a line of its
    own.
    """
    day = parse_moment(match["day"])
    seconds = parse_clock(match["clock"])
    if day is None or seconds is None:
        return None
    if not match["rest"]:
        return ParsedLine(day=day)
    said = NAMED.fullmatch(match["rest"][2:])
    if said is None:
        return ParsedLine(day=day, seconds=seconds)
    return ParsedLine(day=day, seconds=seconds, speaker=said["name"].strip(), text=said["text"])


def _placeholder(text: str) -> str:
    if SYSTEM_TEXT.fullmatch(text):
        return sessionise.SYSTEM
    return sessionise.ATTACHMENT if PLACEHOLDERS.fullmatch(text) else ""


def read_text(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a chat in text."""
    return sessionise.build_sessions(read_entries(file, _parse, _placeholder), file.name, options)


def read_csv(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a chat in a table."""
    detector = DateOrderDetector()
    for record in file.records():
        if isinstance(record, RejectedRecord):
            continue
        stamp = parse_moment(record[1].get("Date"))
        if stamp:
            detector.add(stamp)

    def entry(row: str, cells: dict[str, str]) -> LogEntry:
        stamp = parse_moment(text_field(cells, "Date"))
        at = stamp.at(detector.order) if stamp else None
        if at is None:
            raise UnusableRecordError(f"Date: {cells['Date'][:40]!r} is not a date and time")
        written = text_field(cells, "Message").strip()
        reason = _placeholder(written)
        text = "" if reason else tidy_text(written)
        author = make_author("", (text_field(cells, "User"),))
        return LogEntry(row, at, author, text, dropped=reason)

    return sessionise.build_sessions(parse_entries(file.records(), entry), file.name, options)


def _is_csv(peek: Peek) -> bool:
    if peek.kind not in ("CSV", "TSV") or peek.columns != CSV_COLUMNS:
        return False
    return all(ISO_TIME.fullmatch(str(row.get("Date")).strip()) for row in peek.records)


def _is_text(peek: Peek) -> bool:
    if peek.kind not in ("text", "CSV", "TSV"):
        return False
    lines = [line for line in peek.text[: 1 << 16].splitlines() if line.strip()]
    parsed = list(filter(None, map(_parse, lines)))
    spoken = sum(bool(line.speaker) for line in parsed)
    if not spoken or not any(line.day for line in parsed):
        return False
    is_named = any(HEAD.fullmatch(line.strip("\ufeff")) for line in lines[:3])
    is_korean = any(KOREAN_DATE.match(line) for line in lines[:8])
    return is_named or (is_korean and (spoken >= MIN_MESSAGES or spoken == len(lines)))


TEXT_LINES = 'a chat exported from KakaoTalk: "2026년 1월 5일 오전 9:00, Name : text", or "[Name] [오전 9:00] text"'
CSV_TABLE = "a chat exported from KakaoTalk for Mac: CSV with Date, User, Message"
FORMATS = (
    SourceFormat("kakaotalk", "KakaoTalk chat", TEXT_LINES, matches=_is_text, read=read_text),
    SourceFormat(
        "kakaotalk-csv", "KakaoTalk chat (CSV)", CSV_TABLE, matches=_is_csv, read=read_csv
    ),
)
