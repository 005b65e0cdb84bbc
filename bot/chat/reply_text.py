"""The text of a reply on Discord: without links and effects, in messages, with a footer.

Model text carries no authority: links and invites are left out everywhere, and on Discord nothing
in it is shown as a mention, a command, a link behind words or a footer.
"""

import re

from bot.platform.localisation import (
    SOURCE_LANGUAGE,
    Language,
    gettext_lazy,
    gettext_noop,
    localise,
    translate,
)
from bot.platform.messages import MAX_MESSAGE_CHARS
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
LINK_PLACEHOLDER = "(link left out)"
CLOSING_SIGNS = ".,;:!?)]}>\"'”"
LAST_WORD_PATTERN = re.compile(r"\S*\Z")
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
OPEN_MARKUP_PATTERN = re.compile(r"<[^<>\n]{0,330}\Z")
ZERO_WIDTH_SPACE = "\u200b"


def reply_footer(
    reply: ChatReply,
    origin: str = "",
    damaged: str = "",
    wanted: str = "",
    *,
    language: Language = SOURCE_LANGUAGE,
) -> str:
    """Return the note under a reply: that it is AI-written, its version, the number of candidates,
    and the sources that it was given.

    `origin` is where the version came from (`ServedVersions.origin_of`). `wanted` is the version
    that should have answered in place of the base model, `damaged` the same if it cannot be read.
    """
    if not reply.text:
        if reply.finish == "cancelled":
            return "-# " + translate(gettext_noop("stopped before it began"), language)
        nothing = translate(CUT_NOTE if reply.is_cut else NOTHING_NOTE, language)
        return f"-# {translate(AI_WRITTEN, language)} · {nothing}"
    parts = _version_notes(reply, origin, damaged, wanted)
    if reply.candidates > 1:
        parts.append(gettext_lazy("best of {count}", count=reply.candidates))
    if reply.finish in FINISH_NOTES:
        parts.append(translate(FINISH_NOTES[reply.finish], language))
    if reply.is_cut:
        parts.append(translate(CUT_NOTE, language))
    sources = dict.fromkeys(hit.source for hit in reply.lore)
    for source, name in MEMBER_SOURCES.items():
        if source in sources:
            parts.append(translate(name, language))
    no_files = (*MEMBER_SOURCES, SITUATION_SOURCE)
    if files := [source for source in sources if source not in no_files]:
        parts.append(gettext_lazy("lore: {files}", files=", ".join(files)))
    shown = [localise(part, language) for part in parts]
    footer = "-# " + " · ".join([translate(AI_WRITTEN, language), *shown])
    if len(footer) <= MAX_FOOTER_CHARS:
        return footer
    return f"{footer[: MAX_FOOTER_CHARS - 1]}…"


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


def remove_links(text: str) -> str:
    """Return the text without links and invites, which personas may not post."""
    return _without_links(INVISIBLE_PATTERN.sub("", text)).strip()


def discord_text(text: str, *, is_whole: bool = True) -> str:
    """Return a model's text for Discord: without links, and nothing in it has an effect beyond its
    message.

    While the reply streams (not `is_whole`), return only the prefix that later text cannot change.
    """
    text = INVISIBLE_PATTERN.sub("", text)
    if is_whole:
        text = _without_links(text)
    else:
        text = _without_links(text[: _final_length(text)])
        text = text[: _final_length(text, MARKUP_PREFIXES)]
        if opened := OPEN_MARKUP_PATTERN.search(text):
            text = text[: opened.start()]
    return MARKUP_PATTERN.sub(lambda sign: sign[0] + ZERO_WIDTH_SPACE, text)


def _without_links(text: str) -> str:
    """Replace links, but not the punctuation and brackets that close the text around them."""

    def placeholder(link: re.Match[str]) -> str:
        return LINK_PLACEHOLDER + link[0][len(link[0].rstrip(CLOSING_SIGNS)) :]

    return LINK_PATTERN.sub(placeholder, text)


def _final_length(text: str, prefixes: tuple[str, ...] = LINK_PREFIXES) -> int:
    """Count the characters of a text that no following text can make part of a link, or of other
    markup that begins with one of `prefixes`.
    """
    last_word = LAST_WORD_PATTERN.search(text)
    assert last_word is not None  # it matches at least the empty end
    link = LINK_PREFIX_PATTERN.search(text, last_word.start())
    if link and prefixes is LINK_PREFIXES:
        return link.start()
    partial = 0
    for prefix in prefixes:
        for size in range(1, min(len(prefix), len(last_word.group()) + 1)):
            if text[-size:].casefold() == prefix[:size]:
                partial = max(partial, size)
    return len(text) - partial


def split_message(text: str, footer: str, lead: str = "") -> list[str]:
    """Split a finished text into messages: the first one begins with `lead`, the last one ends with
    the footer.
    """
    parts = []
    left = lead + discord_text(text).strip()
    while len(left) > MAX_PART_CHARS:
        cut = split_index(left, MAX_PART_CHARS)
        parts.append(left[:cut])
        left = left[cut:]
    return [*parts, f"{left}\n{footer}"]


def split_index(text: str, limit: int) -> int:
    """Return where to split a text longer than `limit`: after a paragraph, a sentence or a word,
    else at the limit.
    """
    window = text[:limit]
    for mark in ("\n\n", "\n", ". ", "! ", "? ", " "):
        at = window.rfind(mark)
        if at > limit // 2:
            return at + len(mark)
    return limit


class LinkFilter:
    """Removes links from text that comes in pieces; holds back an end that may become one."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """Add a piece; return the text that can be shown now."""
        self._held += INVISIBLE_PATTERN.sub("", piece)
        length = _final_length(self._held)
        text = self._held[:length]
        self._held = self._held[length:]
        return _without_links(text)

    def end(self) -> str:
        """Return the text that was held back, at the end."""
        held = self._held
        self._held = ""
        return _without_links(held)
