"""WhatsApp chats as "Export chat" writes them: text, one message after another, some over several lines.

No description is published; what is known comes from exports in many languages and from the parsers that people wrote
for them (https://github.com/Pustur/whatsapp-chat-parser among others). iOS puts date and time in brackets, Android
puts ` - ` behind them; both follow the device's language. What WhatsApp says itself (system messages, "image omitted")
is in that language too. On iOS it begins with a left-to-right mark; on Android, what stands for a medium or follows an
edited text is in angle brackets. By these it is told without knowing the language.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from personas.errors import MaterialError
from trainer.conversation import Conversation, Rejected
from trainer.sources import sessions
from trainer.sources.cast import author_of
from trainer.sources.dates import DATE_FIRST, SPACE, TIME_FIRST, Order, OrderGuess, Stamp, stamp
from trainer.sources.files import Peek, SourceFile
from trainer.sources.folders import is_medium
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.markup import clean, mention, outside_code, with_discord_emphasis
from trainer.sources.sessions import Entry

MARK = "\u200e"
MARKS = "[\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]*"
BEHIND = rf"(?:(?P<bracket>\]){SPACE}*|{SPACE}[-–]{SPACE}|,{SPACE}(?=[^:\n]{{1,60}} : )|:{SPACE})(?P<rest>.*)"
HEADERS = tuple(
    re.compile(rf"{MARKS}\[?{MARKS}{written}{MARKS}{BEHIND}", re.IGNORECASE | re.DOTALL)
    for written in (DATE_FIRST, TIME_FIRST)
)
SPEAKER = re.compile(r"(?P<name>[^:\n\"“”„«»]{1,60}?) ?:(?: |(?=\n)|$)(?P<text>.*)", re.DOTALL)
"""A name holds no quotation marks: `Ann changed the subject to "News: today"` is a system message."""
OWN_WORDS = re.compile(rf"^{MARK}[^\n]*|\s*{MARK}(?:<[^<>\n]+>|(?:\S+ ){{0,2}}\S+)\s*\Z")
ANGLED = re.compile(r"[ \t]*<(?=[^<>]*(?: |[^\x00-\x7f]))[^<>=/\"\n]{4,80}>[ \t]*$", re.MULTILINE)
ATTACHED = re.compile(r"^\S[^\n/]*\.\w{2,5} \([^()\n]+\)$|<[^<>:\n]{3,30}: [^<>\n]+\.\w{2,5}>", re.MULTILINE)
FILE_NAME = re.compile(r"[^\n]+\.\w{2,5}")
PLACE_OR_POLL = re.compile(r"[^\W\d]+: https?://maps\.\S+|[^\W\d]{2,12}:\n.*\(\d+ [^\W\d]+\)", re.DOTALL)
MENTIONED = re.compile("@(?:\u2068([^\u2068\u2069\n]+)\u2069|(\\d{7,15})\\b)")
GONE = {
    "this message was deleted",
    "you deleted this message",
    "diese nachricht wurde gelöscht",
    "du hast diese nachricht gelöscht",
    "se eliminó este mensaje",
    "eliminaste este mensaje",
    "ce message a été supprimé",
    "vous avez supprimé ce message",
    "esta mensagem foi apagada",
    "você apagou esta mensagem",
    "mensagem apagada",
    "questo messaggio è stato eliminato",
    "hai eliminato questo messaggio",
    "dit bericht is verwijderd",
    "je hebt dit bericht verwijderd",
    "сообщение удалено",
    "данное сообщение удалено",
    "вы удалили данное сообщение",
    "bu mesaj silindi",
    "bu mesajı sildiniz",
    "pesan ini telah dihapus",
    "anda menghapus pesan ini",
    "tin nhắn này đã bị xóa",
    "bạn đã xóa tin nhắn này",
    "此訊息已刪除",
    "您已刪除此訊息",
    "此消息已删除",
    "您删除了这条消息",
    "このメッセージは削除されました",
    "삭제된 메시지입니다",
    "تم حذف هذه الرسالة",
    "waiting for this message",
    "waiting for this message. this may take a while",
    "null",
}
"""What Android writes in place of a deleted message, or of one that never arrived, without its last full stop."""
FOREIGN = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8 (see `SourceFile.lines`)."""
NO_DATE = "a date or time that does not exist"
Style = tuple[bool, str, bool]


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a message. `style` is how date and time are set, the same in all of a file."""

    stamp: Stamp
    style: Style
    rest: str


def header_of(line: str) -> Header | None:
    """The header that a line begins with."""
    start = line[:4].lstrip("\ufeff\u200e\u200f\u202a\u202b\u202c[")[:1]
    if not start.isdigit():  # nearly all lines that continue a message are known by this
        return None
    for is_time_first, pattern in enumerate(HEADERS):
        if match := pattern.fullmatch(line):
            style = match["bracket"] is not None, match["sep"] or "年", bool(is_time_first)
            return Header(stamp(match), style, match["rest"])
    return None


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The sessions of one chat, or of all chats in a folder or archive."""
    chats = [file.member(name) for name in file.names if _is_chat(name)] if file.names else [file]
    found = (entry for chat in chats for entry in _entries(chat, chat.name if file.names else ""))
    return sessions.conversations(found, file.name, options)


def _entries(file: SourceFile, channel: str) -> Iterator[Entry | Rejected]:
    style, order = _ways_of_writing(file)
    for line, header, more in _messages(file, style):
        row = f"{channel} line {line}".strip()
        if header is None:
            yield Rejected(row, "stands before the first message")
        elif (at := header.stamp.at(order)) is None:
            yield Rejected(row, NO_DATE)
        elif FOREIGN.search(rest := header.rest + more):
            yield Rejected(row, "not UTF-8")
        else:
            yield _entry(row, at, channel, rest)


def _ways_of_writing(file: SourceFile) -> tuple[Style, Order]:
    """How most headers are set, and in which order their dates are. Raises `MaterialError` when there are none."""
    styles: Counter[Style] = Counter()
    guesses: dict[Style, OrderGuess] = {}
    for line in file.lines():
        if header := header_of(line):
            styles[header.style] += 1
            guesses.setdefault(header.style, OrderGuess()).add(header.stamp)
    if not styles:
        raise MaterialError(f"{file.name} holds no messages.", f"Expected: {EXPECTED}.")
    style = styles.most_common(1)[0][0]
    return style, guesses[style].order


def _messages(file: SourceFile, style: Style) -> Iterator[tuple[int, Header | None, str]]:
    """Each message's place, counted in lines from 1, its first line, and the lines that continue it.

    A line set in another way than most (quoted from another chat) continues a message too. Lines before the first
    message come without a header.
    """
    first, begun, lines = 0, None, list[str]()
    for number, line in enumerate(file.lines(), start=1):
        header = header_of(line)
        if header and header.style == style:
            if first:
                yield first, begun, "".join(lines)
            first, begun, lines = number, header, []
        elif first or line.strip():
            first = first or number
            lines.append(line)
    if first:
        yield first, begun, "".join(lines)


def _entry(row: str, at: float, channel: str, rest: str) -> Entry:
    match = SPEAKER.match(rest.replace("\r\n", "\n"))
    if match is None:
        return Entry(row, at, author_of("", ()), "", channel=channel, dropped=sessions.SYSTEM)
    name = clean(match["name"]).strip().lstrip("~\u202f ")
    author = author_of("", (name,), is_bot=name.casefold() == "meta ai")
    said = match["text"].strip(" \n\u202a\u202c")
    text, reason = _spoken(said)
    return Entry(row, at, author, text, channel=channel, dropped="" if text else reason)


def _spoken(said: str) -> tuple[str, str]:
    """What a person wrote of a message, and, where that is nothing, why."""
    if clean(said).strip().rstrip(".。").casefold() in GONE:
        return "", sessions.DELETED
    own = OWN_WORDS.sub("", said)
    without_media = ANGLED.sub("", ATTACHED.sub("", own))
    text, has_media = without_media.strip(), without_media != own
    if text and not (has_media and FILE_NAME.fullmatch(text)) and not PLACE_OR_POLL.fullmatch(text):
        return _normalised(text), sessions.NO_TEXT
    if not said:
        return "", sessions.NO_TEXT
    # A medium is named in two or three words, what happened in a sentence.
    is_notice = not (text or has_media) and (len(said.split()) > 4 or said.endswith((".", "。")))
    return "", sessions.SYSTEM if is_notice else sessions.ATTACHMENT


def _normalised(text: str) -> str:
    """Discord's markup. Mentions are marked after the cleaning, which would take their marks away."""
    parts = MENTIONED.split(text)
    cleaned = [clean(part or "") for part in parts]
    marked = [
        cleaned[place] if place % 3 == 0 else mention(cleaned[place]) if parts[place] else ""
        for place in range(len(parts))
    ]
    return outside_code("".join(marked), with_discord_emphasis)


def _is_chat(name: str) -> bool:
    last = PurePosixPath(name).name.casefold()
    return last.endswith(".txt") and ("whatsapp" in last or last == "_chat.txt") and "__macosx" not in name.casefold()


def _claims(names: Sequence[str]) -> Sequence[str]:
    """The chats, and what was sent in them: pictures and the like that lie with them."""
    chats = [name for name in names if _is_chat(name)]
    folders = {PurePosixPath(name).parent for name in chats}
    sent = [name for name in names if is_medium(name) and PurePosixPath(name).parent in folders]
    return [*chats, *sent]


def _recognises(peek: Peek) -> bool:
    if peek.names:
        return any(_is_chat(name) for name in peek.names)
    lines = [line for line in peek.text[: 1 << 16].splitlines() if line.strip()]
    headers = [header_of(line) is not None for line in lines]
    return bool(headers) and (headers[0] or sum(headers) > 2)


EXPECTED = (
    'a chat exported from WhatsApp: lines such as "15/01/2024, 10:30 - Name: text" or "[15.01.24, 10:30:12] Name: …"'
)
FORMATS = (Format("whatsapp", "WhatsApp chat", EXPECTED, _recognises, read, claims=_claims),)
