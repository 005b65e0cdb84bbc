"""WhatsApp chats from "Export chat": text, one message after another, some over several lines.

The format is undocumented; this follows exports in many languages and published parsers
(https://github.com/Pustur/whatsapp-chat-parser among others). iOS puts date and time in brackets,
Android puts ` - ` behind them; both follow the device's language, as do WhatsApp's own messages
(system messages, "image omitted"). On iOS these start with a left-to-right mark; on Android, media
placeholders and edit marks are in brackets, and recur. Thus most are recognised in any language;
`whatsapp_notices.toml` has them for chats that lost the marks.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from personas.errors import MaterialError
from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.dates import (
    DATE_FIRST,
    SPACE,
    TIME_FIRST,
    DateOrder,
    DateOrderDetector,
    WrittenTime,
    time_of_match,
)
from trainer.sources.file_names import is_media_file
from trainer.sources.formats.whatsapp_names import ChatNames, possible_splits
from trainer.sources.formats.whatsapp_notices import (
    DIRECTION_MARKS,
    QUOTATION_MARKS,
    AppTextKind,
    is_bracketed_placeholder,
    match_app_text,
)
from trainer.sources.markup import clean_text, convert_emphasis, map_outside_code, mark_mention
from trainer.sources.sessionise import LogEntry
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author
from trainer.sources.table_reader import FOREIGN

DIRECTION_MARK = "\u200e"
AFTER_TIMESTAMP = (
    rf"(?:(?P<bracket>\]){SPACE}*|{SPACE}[-–]{SPACE}|,{SPACE}(?=[^:\n]{{1,120}} : )|:{SPACE})"
)
HEADERS = tuple(
    re.compile(rf"\[?{written}{AFTER_TIMESTAMP}", re.IGNORECASE)
    for written in (DATE_FIRST, TIME_FIRST)
)
MAX_HEADER_CHARS = 64
APP_TEXT = re.compile(
    rf"^{DIRECTION_MARK}[^\n]*|\s*{DIRECTION_MARK}(?:<[^<>\n]+>|(?:\S+ ){{0,2}}\S+)\s*\Z"
)
LABELLED = re.compile(rf"{DIRECTION_MARK}[^\n:：<{QUOTATION_MARKS}]{{2,40}}[:：]")
"""The beginning of a poll, an event or a place on iOS."""
ANGLED = re.compile(r"[ \t]*<(?P<placeholder>[^<>=/\"\n]{4,80})>[ \t]*$", re.MULTILINE)
ATTACHED = re.compile(
    r"^\S[^\n/]*\.(?=\d*[^\W\d])\w{2,5} \((?P<placeholder>[^()\n]{2,40})\)$", re.MULTILINE
)
ATTACHED_FILE = re.compile(r"<[^<>:\n]{3,30}: [^<>\n]+\.\w{2,5}>")
MIN_RECURRENCES = 3
MIN_SENDERS = 2
"""Messages with the same text in brackets, and who sent them: those of the app in a language that
the table lacks. What one alone writes again and again is said.
"""
FILE_NAME = re.compile(r"[^\n]+\.\w{2,5}")
MENTIONED = re.compile("@(?:\u2068([^\u2068\u2069\n]+)\u2069|(\\d{7,15})\\b)")
APP_TEXT_REASONS: dict[AppTextKind, str] = {
    "media": sessionise.ATTACHMENT,
    "deleted": sessionise.DELETED,
    "certain": sessionise.SYSTEM,
}
Style = tuple[bool, str, bool]


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """The start of a message. `style` is the layout of date and time, the same throughout a
    file.
    """

    stamp: WrittenTime
    style: Style
    rest: str


def parse_header(line: str) -> MessageHeader | None:
    """Parse the header at the start of a line."""
    visible = line
    if DIRECTION_MARKS.search(line[:MAX_HEADER_CHARS]):
        visible = DIRECTION_MARKS.sub("", line)
    start = visible[:2].lstrip("[")[:1]
    if not start.isdigit():  # nearly all lines that continue a message are known by this
        return None
    for is_time_first, pattern in enumerate(HEADERS):
        match = pattern.match(visible)
        if match:
            style = (match["bracket"] is not None, match["sep"] or "年", bool(is_time_first))
            rest = line[match.end() :]
            if visible is not line:
                rest = _without_visible(line, match.end())
            return MessageHeader(time_of_match(match), style, rest)
    return None


def _without_visible(line: str, count: int) -> str:
    """Return a line without its first characters, of which direction marks do not count."""
    for index, letter in enumerate(line):
        if count == 0:
            return line[index:]
        count -= DIRECTION_MARKS.match(letter) is None
    return ""


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of one chat, or of all chats in a folder or archive."""
    if not file.names:
        return sessionise.build_sessions(_entries(file, ""), file.name, options)
    chats = [file.member(name) for name in file.names if _is_chat(name)]
    entries = itertools.chain.from_iterable(_entries(chat, chat.name) for chat in chats)
    return sessionise.build_sessions(entries, file.name, options)


def _entries(file: SourceFile, channel: str) -> Iterator[LogEntry | RejectedRecord]:
    style, order = _detect_style(file)
    chat = _learn_chat(file, style)
    for line, header, more in _messages(file, style):
        row = f"{channel} line {line}".strip()
        if header is None:
            yield RejectedRecord(row, "precedes the first message")
            continue
        at = header.stamp.at(order)
        rest = header.rest + more
        if at is None:
            yield RejectedRecord(row, "a date or time that does not exist")
        elif FOREIGN.search(rest):
            yield RejectedRecord(row, "not UTF-8")
        else:
            yield chat.entry(row, at, channel, rest)


def _learn_chat(file: SourceFile, style: Style) -> _Chat:
    has_brackets, *_ = style
    chat = _Chat(ChatNames(has_brackets))
    for _, header, more in _messages(file, style):
        if header:
            chat.learn((header.rest + more).replace("\r\n", "\n"))
    return chat


def _detect_style(file: SourceFile) -> tuple[Style, DateOrder]:
    """Detect the most common header style and its date order. Raises `MaterialError` if there are
    no headers.
    """
    styles: Counter[Style] = Counter()
    detectors: dict[Style, DateOrderDetector] = {}
    for line in file.lines():
        header = parse_header(line)
        if header:
            styles[header.style] += 1
            detectors.setdefault(header.style, DateOrderDetector()).add(header.stamp)
    if not styles:
        raise MaterialError(f"{file.name} contains no messages.", f"Expected: {EXPECTED}.")
    style = styles.most_common(1)[0][0]
    return style, detectors[style].order


def _messages(file: SourceFile, style: Style) -> Iterator[tuple[int, MessageHeader | None, str]]:
    """Yield each message's line number, counted from 1, its first line and its continuation lines.

    A line in another style (quoted from another chat) continues a message too. Lines before the
    first message have no header.
    """
    first = 0
    current = None
    lines = list[str]()
    for number, line in enumerate(file.lines(), start=1):
        header = parse_header(line)
        if header and header.style == style:
            if first:
                yield first, current, "".join(lines)
            first = number
            current = header
            lines = []
        elif first or line.strip():
            first = first or number
            lines.append(line)
    if first:
        yield first, current, "".join(lines)


@dataclass
class _Chat:
    """What a chat says of itself: its names, and who sent how many messages with a text in
    brackets.
    """

    names: ChatNames
    placeholders: dict[str, Counter[str]] = field(default_factory=dict)

    def learn(self, rest: str) -> None:
        """Learn from a message: what follows its time."""
        self.names.add(rest)
        found = [match["placeholder"] for match in ANGLED.finditer(rest)]
        found += [match["placeholder"] for match in ATTACHED.finditer(rest)]
        sender = next((split.name for split in possible_splits(rest)), "")
        for placeholder in set(found):
            self.placeholders.setdefault(placeholder, Counter())[sender] += 1

    def entry(self, row: str, at: float, channel: str, rest: str) -> LogEntry:
        split = self.names.split(rest.replace("\r\n", "\n"))
        if split is None:
            nobody = make_author("", ())
            return LogEntry(row, at, nobody, "", channel=channel, dropped=sessionise.SYSTEM)
        author = make_author("", (split.name,), is_bot=split.name.casefold() == "meta ai")
        written = split.text.strip(" \n\u202a\u202c")
        reason = self._reason(split.name, written)
        text = ""
        if not reason:
            text, reason = self._written_text(written)
        return LogEntry(row, at, author, text, channel=channel, dropped="" if text else reason)

    def _reason(self, name: str, written: str) -> str:
        """Return why a whole text is not what a person wrote; empty if it may be."""
        if LABELLED.match(written):
            return sessionise.ATTACHMENT
        app_text = match_app_text(written)
        if app_text is None:
            return ""
        if app_text.kind == "notices":
            is_notice = self.names.is_group(name) or self.names.tells_of_itself(name, app_text)
            return sessionise.SYSTEM if is_notice else ""
        return APP_TEXT_REASONS[app_text.kind]

    def _written_text(self, written: str) -> tuple[str, str]:
        """Return the text that a person wrote and, if it is empty, the reason."""
        own = APP_TEXT.sub("", written)
        without_media = ATTACHED_FILE.sub("", own)
        for pattern in (ATTACHED, ANGLED):
            without_media = pattern.sub(self._keep_written, without_media)
        text = without_media.strip()
        has_media = without_media != own
        if text and not (has_media and FILE_NAME.fullmatch(text)):
            return _normalise_markup(text), sessionise.NO_TEXT
        if not written:
            return "", sessionise.NO_TEXT
        # Media placeholders have two or three words, system messages are sentences.
        is_sentence = len(written.split()) > 4 or written.endswith((".", "。"))
        if is_sentence and not text and not has_media:
            return "", sessionise.SYSTEM
        return "", sessionise.ATTACHMENT

    def _keep_written(self, match: re.Match[str]) -> str:
        placeholder = match["placeholder"]
        senders = self.placeholders.get(placeholder, Counter[str]())
        is_of_app = senders.total() >= MIN_RECURRENCES and len(senders) >= MIN_SENDERS
        return "" if is_of_app or is_bracketed_placeholder(placeholder) else match[0]


def _normalise_markup(text: str) -> str:
    """Convert to Discord's markup. Mentions are marked after cleaning, which would remove the
    marks.
    """
    marked = ""
    end = 0
    for mention in MENTIONED.finditer(text):
        name_or_number = clean_text(mention[1] or mention[2])
        marked += clean_text(text[end : mention.start()])
        if name_or_number:
            marked += mark_mention(name_or_number)
        end = mention.end()
    return map_outside_code(marked + clean_text(text[end:]), convert_emphasis)


def _is_chat(name: str) -> bool:
    if "__macosx" in name.casefold():
        return False  # metadata that macOS adds to zip files
    last = PurePosixPath(name).name.casefold()
    return last == "_chat.txt" or (last.endswith(".txt") and "whatsapp" in last)


def _claims(names: Sequence[str]) -> Sequence[str]:
    chats = [name for name in names if _is_chat(name)]
    folders = {PurePosixPath(name).parent for name in chats}
    sent = [name for name in names if is_media_file(name) and PurePosixPath(name).parent in folders]
    return [*chats, *sent]


def _recognises(peek: Peek) -> bool:
    if peek.names:
        return any(_is_chat(name) for name in peek.names)
    lines = [line for line in peek.text[: 1 << 16].splitlines() if line.strip()]
    headers = [parse_header(line) for line in lines]
    found = [header for header in headers if header]
    has_names = any(possible_splits(header.rest) for header in found)
    return has_names and (headers[0] is not None or len(found) > 2)


EXPECTED = (
    'a chat exported from WhatsApp: lines such as "15/01/2024, 10:30 - Name: text" '
    'or "[15.01.24, 10:30:12] Name: …"'
)
FORMAT = SourceFormat(
    "whatsapp", "WhatsApp chat", EXPECTED, matches=_recognises, read=read, claims=_claims
)
