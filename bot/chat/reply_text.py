"""The text of a reply on Discord: without links and effects, in messages, with a footer.

Model text carries no authority: links and invites are left out everywhere, and on Discord nothing
in it is shown as a mention, a command, a link behind words or a footer.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bot.chat.markdown_split import split_markdown
from bot.platform.localisation import gettext_lazy, gettext_noop, localise, translate
from bot.platform.messages import MAX_MESSAGE_CHARS
from bot.safety.actions import WITHHELD
from personas.markdown_code import CodeSpan, find_code
from personas.schemas.chat import EARLIER_SOURCE, MEMORY_SOURCE, SITUATION_SOURCE, ChatReply

MAX_FOOTER_CHARS = 240
AI_WRITTEN = gettext_noop("AI-written")
"""How each footer of a model's text begins."""
MAX_NAME_CHARS = 170
"""Characters of the name that `BotSender` puts before a text, each of 80 escaped."""
MAX_PART_CHARS = MAX_MESSAGE_CHARS - MAX_FOOTER_CHARS - MAX_NAME_CHARS
FINISH_NOTES = {
    "cancelled": gettext_noop("stopped"),
    "length": gettext_noop("cut off at the length limit"),
}
NOTHING_NOTE = gettext_noop("nothing came out")
CUT_NOTE = gettext_noop("cut before a line that was not its own")
MEMBER_SOURCES = {
    MEMORY_SOURCE: gettext_noop("memory"),
    EARLIER_SOURCE: gettext_noop("earlier talk"),
}
"""Sources in a footer that are no files of lore, with their names."""
LINK_PREFIXES = (
    "https://", "http://", "steam://", "discord://", "://", "www.", "discord.gg/", "discord.gg\\", "discord.gift/",
    "discord.new/", "discord.com/", "discordapp.com/",
)  # fmt: skip
"""Beginnings of links: Discord's clients also open invites and gifts without a scheme."""
LINK_PREFIX_PATTERN = re.compile("|".join(map(re.escape, LINK_PREFIXES)), re.IGNORECASE)
LINK_PATTERN = re.compile(rf"(?:{LINK_PREFIX_PATTERN.pattern})\S+", re.IGNORECASE)
LINK_BEFORE_CODE_PATTERN = re.compile(
    rf"{LINK_PATTERN.pattern}|(?:{LINK_PREFIX_PATTERN.pattern})\Z", re.IGNORECASE
)
LINK_PLACEHOLDER = "(link left out)"
CLOSING_SIGNS = ".,;:!?)]}>\"'”"
INVISIBLE_PATTERN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text after them. Links could be
split by them.
"""
MARKUP_PREFIXES = ("@everyone", "@here", "-#", "](", "<")
MARKUP_PATTERN = re.compile(
    r"@(?=everyone|here)|-(?=#)|\](?=\()"
    r"|<(?=[@#+]|id:|/[^<>\n]{1,110}:\d{1,20}>|[^<>\s]{1,64}@[^<>\s]{1,255}>)",
    re.IGNORECASE,
)
"""Mentions, channels, telephone numbers, navigation, commands, e-mail addresses; links behind
words; footers.
"""
MAX_OPEN_CHARS = 331
OPEN_MARKUP_PATTERN = re.compile(rf"<[^<>\n]{{0,{MAX_OPEN_CHARS - 1}}}\Z")
ZERO_WIDTH_SPACE = "\u200b"


def reply_footer(
    reply: ChatReply,
    origin: str = "",
    damaged: str = "",
    wanted: str = "",
) -> str:
    """Return the note under a reply: that it is AI-written, its version, the number of candidates,
    and the sources that it was given.

    `origin` is where the version came from (`ServedVersions.origin_of`). `wanted` is the version
    that should have answered in place of the base model, `damaged` the same if it cannot be read.
    """
    if not reply.text:
        return f"-# {localise(_note_without_text(reply))}"
    parts = _version_notes(reply, origin, damaged, wanted)
    if reply.candidates > 1:
        parts.append(gettext_lazy("best of {count}", count=reply.candidates))
    if reply.finish in FINISH_NOTES:
        parts.append(translate(FINISH_NOTES[reply.finish]))
    if reply.is_cut:
        parts.append(translate(CUT_NOTE))
    sources = dict.fromkeys(hit.source for hit in reply.lore)
    for source, name in MEMBER_SOURCES.items():
        if source in sources:
            parts.append(translate(name))
    no_files = (*MEMBER_SOURCES, SITUATION_SOURCE)
    if files := [source for source in sources if source not in no_files]:
        parts.append(gettext_lazy("lore: {files}", files=", ".join(files)))
    shown = [localise(part) for part in parts]
    footer = "-# " + " · ".join([translate(AI_WRITTEN), *shown])
    if len(footer) <= MAX_FOOTER_CHARS:
        return footer
    return f"{footer[: MAX_FOOTER_CHARS - 1]}…"


def _note_without_text(reply: ChatReply) -> str:
    if reply.finish == "cancelled":
        return gettext_lazy("stopped before it began")
    if reply.withheld:
        return WITHHELD
    nothing = translate(CUT_NOTE if reply.is_cut else NOTHING_NOTE)
    return f"{translate(AI_WRITTEN)} · {nothing}"


def _version_notes(reply: ChatReply, origin: str, damaged: str, wanted: str) -> list[str]:
    """Return the parts of a footer that say which version has written the reply."""
    notes: list[str] = []
    if reply.version and origin:
        notes.append(gettext_lazy("{version} ({origin})", version=reply.version, origin=origin))
    elif reply.version:
        notes.append(reply.version)
    elif wanted and not damaged:
        notes.append(gettext_lazy("base model instead of {version}", version=wanted))
    else:
        notes.append(gettext_lazy("base model"))
    if damaged:
        notes.append(
            gettext_lazy(
                "{version} cannot be read, moderators can `/finetune rollback`", version=damaged
            )
        )
    return notes


def add_below(footer: str, line: str) -> str:
    """Return a footer with a line below it, within the length of a footer."""
    room = MAX_FOOTER_CHARS - len(line) - 1
    if len(footer) > room:
        footer = f"{footer[: room - 1]}…"
    return f"{footer}\n{line}"


def remove_links(text: str, *, keeps_code: bool = False) -> str:
    """Return the text without links and invites, which personas may not post. With `keeps_code`,
    those in code stay: clients make no links of them.
    """
    text = INVISIBLE_PATTERN.sub("", text)
    code = find_code(text).certain if keeps_code else ()
    return _join(_without_links(text, code)).strip()


def discord_text(text: str, *, is_whole: bool = True, keeps_code: bool = False) -> str:
    """Return a model's text for Discord: without links, and nothing in it has an effect beyond its
    message. With `keeps_code`, code stays as it is; such a text is not cut or joined later.

    While the reply streams (not `is_whole`), return only the prefix that later text cannot change.
    """
    text = INVISIBLE_PATTERN.sub("", text)
    if not keeps_code:
        return _join(_without_effects(text, (), is_whole=is_whole))
    if is_whole:
        return _join(_without_effects(text, find_code(text).certain, is_whole=True))
    decided, code = _decided(text, has_markup=True)
    following = text[len(decided) : len(decided) + 1]
    return _join(_without_effects(decided, code, is_whole=False, following=following))


def _decided(text: str, *, has_markup: bool) -> tuple[str, tuple[CodeSpan, ...]]:
    """Return the part of a growing text in which links, and markup, are in code or not, whatever
    follows, with its code.
    """
    text = text.rstrip("`\\")  # more of them may follow
    code = find_code(text)
    if code.open_at is None:
        return text, code.certain
    # A link takes in all up to the next blank, backticks too.
    first = code.open_at - len(_last_word(text[: code.open_at]))
    places = [LINK_PREFIX_PATTERN.search(text, first)]
    if has_markup:
        places.append(MARKUP_PATTERN.search(text, code.open_at))
    end = min([found.start() for found in places if found], default=len(text))
    return text[:end], code.certain


@dataclass(frozen=True)
class _Piece:
    text: str
    is_code: bool


def _join(pieces: Iterable[_Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _without_effects(
    text: str, code: tuple[CodeSpan, ...], *, is_whole: bool, following: str = ""
) -> Iterator[_Piece]:
    """Return a text, whose code is left alone, without links and effects."""
    if not is_whole:
        length = _final_length(text)
        following = text[length : length + 1] or following
        text = text[:length]
    pieces = [*_without_links(text, code)]
    shown = _join(pieces)
    end = len(shown)
    if not is_whole:
        opened = OPEN_MARKUP_PATTERN.search(shown + following, max(0, end - MAX_OPEN_CHARS))
        end = _final_length(shown, MARKUP_PREFIXES)
        if opened:
            end = min(end, opened.start())
    at = 0
    for piece in pieces:
        part_end = min(at + len(piece.text), end)
        if piece.is_code:
            yield _Piece(shown[at:part_end], is_code=True)
        else:
            yield _Piece(_escape_markup(shown, at, part_end), is_code=False)
        at = max(at, part_end)


def _escape_markup(text: str, start: int, end: int) -> str:
    """Break the markup that begins in a part of a text; it may reach beyond it."""
    parts = list[str]()
    for sign in MARKUP_PATTERN.finditer(text, start):
        if sign.start() >= end:
            break
        parts += [text[start : sign.end()], ZERO_WIDTH_SPACE]
        start = sign.end()
    return "".join([*parts, text[start:end]])


def _without_links(text: str, code: tuple[CodeSpan, ...]) -> Iterator[_Piece]:
    """Replace links outside of code, but not the punctuation and brackets that close the text
    around them.
    """
    at = 0
    for span in code:
        if span.start >= len(text):
            break
        # The beginning of a link would take in the code.
        yield _Piece(
            LINK_BEFORE_CODE_PATTERN.sub(_placeholder, text[at : span.start]), is_code=False
        )
        yield _Piece(text[span.start : span.end], is_code=True)
        at = span.end
    yield _Piece(LINK_PATTERN.sub(_placeholder, text[at:]), is_code=False)


def _placeholder(link: re.Match[str]) -> str:
    return LINK_PLACEHOLDER + link[0][len(link[0].rstrip(CLOSING_SIGNS)) :]


def _final_length(text: str, prefixes: tuple[str, ...] = LINK_PREFIXES) -> int:
    """Count the characters of a text that no following text can make part of a link, or of other
    markup that begins with one of `prefixes`.
    """
    last_word = _last_word(text)
    link = LINK_PREFIX_PATTERN.search(text, len(text) - len(last_word))
    if link and prefixes is LINK_PREFIXES:
        return link.start()
    partial = 0
    for prefix in prefixes:
        for size in range(1, min(len(prefix), len(last_word) + 1)):
            if text[-size:].casefold() == prefix[:size]:
                partial = max(partial, size)
    return len(text) - partial


def _last_word(text: str) -> str:
    """Return the end of a text without white space."""
    if not text or text[-1].isspace():
        return ""
    return text.rsplit(None, 1)[-1]


def split_message(text: str, footer: str, lead: str = "") -> list[str]:
    """Split a finished text into messages: the first one begins with `lead`, the last one ends with
    the footer.
    """
    parts = []
    left = discord_text(text, keeps_code=True).strip()
    while len(lead) + len(left) > MAX_PART_CHARS:
        split = split_markdown(left, MAX_PART_CHARS - len(lead))
        parts.append(lead + message_text(split.first, MAX_PART_CHARS + MAX_FOOTER_CHARS))
        left = split.rest
        lead = ""
    return [*parts, f"{lead}{message_text(left, MAX_PART_CHARS)}\n{footer}"]


def message_text(text: str, max_chars: int) -> str:
    """Return a part of a text for one message: what was code in the whole text alone is no code in
    it, and its links are left out, which may make it longer.
    """
    return discord_text(text, keeps_code=True)[:max_chars]


class LinkFilter:
    """Removes links from text that comes in pieces; holds back an end that may become one."""

    def __init__(self) -> None:
        self._text = ""
        self._shown_chars = 0

    def take(self, piece: str) -> str:
        """Add a piece; return the text that can be shown now."""
        self._text += INVISIBLE_PATTERN.sub("", piece)
        text, code = _decided(self._text, has_markup=False)
        text = text[: _final_length(text)]
        return self._new(_join(_without_links(text, code)))

    def end(self) -> str:
        """Return the text that was held back, at the end."""
        return self._new(_join(_without_links(self._text, find_code(self._text).certain)))

    def _new(self, shown: str) -> str:
        new = shown[self._shown_chars :]
        self._shown_chars = max(self._shown_chars, len(shown))
        return new
