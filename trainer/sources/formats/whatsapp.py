"""WhatsApp chats from "Export chat": text, one message after another, some over several lines.

The format is undocumented; this follows exports in many languages and published parsers
(https://github.com/Pustur/whatsapp-chat-parser among others). iOS puts date and time in brackets,
Android puts ` - ` behind them; both follow the device's language, as do WhatsApp's own messages
(system messages, "image omitted"). On iOS these start with a left-to-right mark; on Android, media
placeholders and edit marks are in angle brackets. Thus they are recognised in any language.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from trainer.sources.markup import clean_text, convert_emphasis, map_outside_code, mark_mention
from trainer.sources.sessionise import LogEntry
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author
from trainer.sources.table_reader import FOREIGN

DIRECTION_MARK = "\u200e"
DIRECTION_MARKS = "[\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]*"
AFTER_TIMESTAMP = rf"(?:(?P<bracket>\]){SPACE}*|{SPACE}[-–]{SPACE}|,{SPACE}(?=[^:\n]{{1,60}} : )|:{SPACE})(?P<rest>.*)"
HEADERS = tuple(
    re.compile(
        rf"{DIRECTION_MARKS}\[?{DIRECTION_MARKS}{written}{DIRECTION_MARKS}{AFTER_TIMESTAMP}",
        re.IGNORECASE | re.DOTALL,
    )
    for written in (DATE_FIRST, TIME_FIRST)
)
SPEAKER = re.compile(r"(?P<name>[^:\n\"“”„«»]{1,60}?) ?:(?: |(?=\n)|$)(?P<text>.*)", re.DOTALL)
"""A name contains no quotation marks: `Ann changed the subject to "News: today"` is a system
message.
"""
APP_TEXT = re.compile(
    rf"^{DIRECTION_MARK}[^\n]*|\s*{DIRECTION_MARK}(?:<[^<>\n]+>|(?:\S+ ){{0,2}}\S+)\s*\Z"
)
ANGLED = re.compile(r"[ \t]*<(?=[^<>]*(?: |[^\x00-\x7f]))[^<>=/\"\n]{4,80}>[ \t]*$", re.MULTILINE)
ATTACHED = re.compile(
    r"^\S[^\n/]*\.\w{2,5} \([^()\n]+\)$|<[^<>:\n]{3,30}: [^<>\n]+\.\w{2,5}>", re.MULTILINE
)
FILE_NAME = re.compile(r"[^\n]+\.\w{2,5}")
PLACE_OR_POLL = re.compile(
    r"[^\W\d]+: https?://maps\.\S+|[^\W\d]{2,12}:\n.*\(\d+ [^\W\d]+\)", re.DOTALL
)
MENTIONED = re.compile("@(?:\u2068([^\u2068\u2069\n]+)\u2069|(\\d{7,15})\\b)")
DELETED_NOTICES = frozenset(
    """this message was deleted; you deleted this message; waiting for this message;
    waiting for this message. this may take a while; null; diese nachricht wurde gelöscht;
    du hast diese nachricht gelöscht; se eliminó este mensaje; eliminaste este mensaje; ce message a été supprimé;
    vous avez supprimé ce message; esta mensagem foi apagada; você apagou esta mensagem; mensagem apagada;
    questo messaggio è stato eliminato; hai eliminato questo messaggio; dit bericht is verwijderd;
    je hebt dit bericht verwijderd; сообщение удалено; данное сообщение удалено; вы удалили данное сообщение;
    bu mesaj silindi; bu mesajı sildiniz; pesan ini telah dihapus; anda menghapus pesan ini; tin nhắn này đã bị xóa;
    bạn đã xóa tin nhắn này; 此訊息已刪除; 您已刪除此訊息; 此消息已删除; 您删除了这条消息;
    このメッセージは削除されました; 삭제된 메시지입니다; تم حذف هذه الرسالة""".replace(
        "\n    ", " "
    ).split("; ")
)
"""Android's text for a message that was deleted or never arrived, without its last full stop."""
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
    start = line[:4].lstrip("\ufeff\u200e\u200f\u202a\u202b\u202c[")[:1]
    if not start.isdigit():  # nearly all lines that continue a message are known by this
        return None
    for is_time_first, pattern in enumerate(HEADERS):
        match = pattern.fullmatch(line)
        if match:
            style = (match["bracket"] is not None, match["sep"] or "年", bool(is_time_first))
            return MessageHeader(time_of_match(match), style, match["rest"])
    return None


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of one chat, or of all chats in a folder or archive."""
    if not file.names:
        return sessionise.build_sessions(_entries(file, ""), file.name, options)
    chats = [file.member(name) for name in file.names if _is_chat(name)]
    entries = itertools.chain.from_iterable(_entries(chat, chat.name) for chat in chats)
    return sessionise.build_sessions(entries, file.name, options)


def _entries(file: SourceFile, channel: str) -> Iterator[LogEntry | RejectedRecord]:
    style, order = _detect_style(file)
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
            yield _entry(row, at, channel, rest)


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


def _entry(row: str, at: float, channel: str, rest: str) -> LogEntry:
    match = SPEAKER.match(rest.replace("\r\n", "\n"))
    if match is None:
        nobody = make_author("", ())
        return LogEntry(row, at, nobody, "", channel=channel, dropped=sessionise.SYSTEM)
    # WhatsApp puts a tilde before the names of people who are no contacts.
    name = clean_text(match["name"]).strip().lstrip("~\u202f ")
    author = make_author("", (name,), is_bot=name.casefold() == "meta ai")
    text, reason = _message_text(match["text"].strip(" \n\u202a\u202c"))
    return LogEntry(row, at, author, text, channel=channel, dropped="" if text else reason)


def _message_text(written: str) -> tuple[str, str]:
    """Return the text that a person wrote and, if it is empty, the reason."""
    if clean_text(written).strip().rstrip(".。").casefold() in DELETED_NOTICES:
        return "", sessionise.DELETED
    own = APP_TEXT.sub("", written)
    without_media = ANGLED.sub("", ATTACHED.sub("", own))
    text = without_media.strip()
    has_media = without_media != own
    is_file_name = has_media and FILE_NAME.fullmatch(text)
    if text and not is_file_name and not PLACE_OR_POLL.fullmatch(text):
        return _normalise_markup(text), sessionise.NO_TEXT
    if not written:
        return "", sessionise.NO_TEXT
    # Media placeholders have two or three words, system messages are sentences.
    is_sentence = len(written.split()) > 4 or written.endswith((".", "。"))
    if is_sentence and not text and not has_media:
        return "", sessionise.SYSTEM
    return "", sessionise.ATTACHMENT


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
    headers = [parse_header(line) is not None for line in lines]
    return bool(headers) and (headers[0] or sum(headers) > 2)


EXPECTED = (
    'a chat exported from WhatsApp: lines such as "15/01/2024, 10:30 - Name: text" '
    'or "[15.01.24, 10:30:12] Name: …"'
)
FORMAT = SourceFormat(
    "whatsapp", "WhatsApp chat", EXPECTED, matches=_recognises, read=read, claims=_claims
)
