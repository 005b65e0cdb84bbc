"""Recognises files that are not read, and says what they are and what to export or do instead."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.errors import MaterialError
from trainer.sources.dates import parse_clock
from trainer.sources.formats.text_lists import LIST_MARK, QUESTION_END, line_names, peek_texts
from trainer.sources.source_file import Peek

HTML_START = re.compile(
    r"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html\b|head\b|body\b)", re.IGNORECASE | re.DOTALL
)
XML_START = re.compile(
    r"\s*<\?xml\b|\s*<(?:smses|rss|feed|chat|log|archive|messages|conversation)\b", re.IGNORECASE
)
LORE_ADVICE = (
    "Import it as lore instead: on the persona's page of the dashboard, or with /persona lore add "
    "on Discord."
)
TABLE_ADVICE = (
    "Export it as JSON or CSV instead, or save it as a CSV table with the columns time, speaker "
    "and text; "
    "`--map speaker=COLUMN text=COLUMN time=COLUMN` names other columns."
)
TURNS_ADVICE = (
    "Write a name and a colon before each line, such as `Mira: text`; `--format quote-list` reads "
    "each line as a quote."
)
DISCORD_TEXT = re.compile(r"\s*={20,}\s*\n\s*Guild: [^\n]*\n\s*Channel: [^\n]*\n")
"""The head of DiscordChatExporter's plain text."""
MIN_LINES = 2
MAX_MARK_CHARACTERS = 60
TIMED_LINE = re.compile(
    r"\s*[-*•]?\s*[\[(<]?(?:[^\W\d_]{2,10}\.?,?\s+)?(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}[:.]\d{2})"
    r"|[^\n]{0,40}[\[(,—–-]\s*(?:[^\W\d_]{1,10}\s+)?(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}:\d{2})"
)
"""A date or a time of day at the beginning of a line, or behind a name."""
MARKED_LINE = re.compile(
    r"\s*(?:<[^<>\n]{1,40}>|\[[^\[\]\n]{1,40}\]|@[\w.-]{2,40}[:>]|[^\W\d_][\w .-]{0,30}[>|»]\s)"
)
"""A name in brackets, or before a sign that is no colon."""
SIGNED_LINE = re.compile(
    r"[^\W\d_][\w .'’-]{0,30}?(?:\s*(?:[–—―=→]|->|=>|--)|\s+[-~|/·•*]\s|\s+(?=[“„\"«「『]))"
    r"|[^\W\d_][\w'’-]{0,20}(?: [^\W\d_][\w'’-]{0,20}){0,2}\.\s"
)
"""A name before a dash, an equals sign, an arrow, a quotation mark or the like, or before a full
stop.
"""
LINE_MARKS = frozenset('>»|-–—―*•·"“„«「『')
MIN_ALTERNATING_LINES = 8


@dataclass(frozen=True)
class Refusal:
    """Files of one kind: what they are called, and what to do instead."""

    what: str
    advice: str
    matches: Callable[[Peek], bool]


def _page_with(marks: Sequence[str]) -> Callable[[Peek], bool]:
    return lambda peek: _is_html(peek) and any(mark in peek.text for mark in marks)


def _is_html(peek: Peek) -> bool:
    return peek.kind in ("text", "CSV", "TSV", "YAML") and HTML_START.match(peek.text) is not None


def _is_xml(peek: Peek) -> bool:
    return peek.kind in ("text", "CSV", "TSV", "YAML") and XML_START.match(peek.text) is not None


def _is_discord_text(peek: Peek) -> bool:
    return peek.kind in ("text", "CSV", "TSV", "YAML") and bool(DISCORD_TEXT.match(peek.text))


def _is_lorebook(peek: Peek) -> bool:
    """Report whether a JSON object is a lorebook: NovelAI's, SillyTavern's world info, Agnai's, or
    a V3 one.
    """
    head = peek.head
    if str(head.get("spec", "")).startswith("lorebook") or head.get("kind") == "memory":
        return True
    entries = head.get("entries")
    values: Sequence[Any] = list(entries.values()) if isinstance(entries, dict) else entries or ()
    if not isinstance(values, list) or not values or not isinstance(values[0], dict):
        return False
    return "lorebookVersion" in head or _is_lore_entry(values[0])


def _is_lore_entry(entry: Mapping[str, Any]) -> bool:
    has_keys = any(isinstance(entry.get(name), list) for name in ("key", "keys", "keywords"))
    has_text = any(isinstance(entry.get(name), str) for name in ("content", "text", "entry"))
    return has_keys and has_text


def _has_timed_lines(peek: Peek) -> bool:
    lines = _lines(peek)
    timed = sum(map(_begins_with_time, lines))
    # Two fifths: a message may go on for some lines, which have no time.
    return timed >= MIN_LINES and 5 * timed >= 2 * len(lines)


def _begins_with_time(line: str) -> bool:
    if TIMED_LINE.match(line[:MAX_MARK_CHARACTERS]):
        return True
    return parse_clock(line.partition("\t")[0]) is not None


def _has_marked_lines(peek: Peek) -> bool:
    """Report whether most lines begin with one of several names in brackets, or have cells
    separated by tabs.
    """
    lines = _lines(peek)
    if len(lines) <= MIN_LINES:
        return False
    marks = [match[0] for match in map(MARKED_LINE.match, lines) if match]
    if _recur(marks, len(lines)):
        return True
    tabbed = sum("\t" in line.strip() for line in lines)
    is_table = peek.kind == "text" and 10 * tabbed >= 7 * len(lines)
    return is_table or _has_signed_lines(peek)


def _has_signed_lines(peek: Peek) -> bool:
    """Report whether most lines begin with one of several names before a sign; not if names have
    colons.
    """
    lines = [] if line_names(peek) else _lines(peek)
    marks: list[str] = []
    for line in lines:
        text = LIST_MARK.sub("", line.strip())
        match = SIGNED_LINE.match(text)
        if match and not text[0].islower():
            marks.append(match[0])
    return len(set(marks)) > 1 and _recur(marks, len(lines))


def _recur(marks: list[str], lines: int) -> bool:
    """Report whether most of so many lines have a mark, and marks occur twice on average."""
    return 2 * len(set(marks)) <= len(marks) and 10 * len(marks) >= 7 * lines


def _alternates(peek: Peek) -> bool:
    """Report whether every second line is marked, as what another said, or is a question."""
    lines = [] if line_names(peek) else [line.strip() for line in _lines(peek)]
    marks = [line[0] if line[0] in LINE_MARKS else "" for line in lines]
    questions = [QUESTION_END.search(line) is not None for line in lines]
    return len(lines) >= MIN_ALTERNATING_LINES and (_take_turns(marks) or _take_turns(questions))


def _take_turns(kinds: Sequence[object]) -> bool:
    """Report whether two kinds of lines alternate, but for one line in ten."""
    changes = sum(kind != following for kind, following in itertools.pairwise(kinds))
    return len(set(kinds)) == 2 and 10 * changes >= 9 * (len(kinds) - 1)


def _lines(peek: Peek) -> list[str]:
    """Return the first lines of a text, or the first texts of a list."""
    texts = peek.text[: 1 << 16].splitlines() if peek.kind == "text" else peek_texts(peek)
    return [line for line in texts if line.strip()]


def _json_page(app: str, where: str) -> str:
    return f"Export {app} as JSON instead ({where}): pages leave out who wrote what."


REFUSALS = (
    # The first that matches is named: apps' pages stand before pages in general.
    Refusal("a lorebook, which is not talk", LORE_ADVICE, _is_lorebook),
    Refusal(
        "Telegram's export as a web page",
        _json_page(
            "the chat", "Telegram Desktop, Export chat history, Format: Machine-readable JSON"
        ),
        _page_with(("tgme", "Exported Data", "page_wrap", "js/script.js")),
    ),
    Refusal(
        "a page of DiscordChatExporter",
        _json_page("the channel", "--format Json"),
        _page_with(("chatlog__", "DiscordChatExporter")),
    ),
    Refusal(
        "plain text of DiscordChatExporter",
        "Export the channel as JSON instead (--format Json): plain text leaves out the authors' ids, "
        "which replies answer which messages, and who is a bot.",
        _is_discord_text,
    ),
    Refusal(
        "the page of a ChatGPT export",
        "Name conversations.json of the same archive instead.",
        _page_with(("ChatGPT Data Export", "chat.openai.com", "jsonData")),
    ),
    Refusal(
        "a page of Facebook, Messenger or Instagram",
        _json_page("the messages", "Download your information, Format: JSON"),
        _page_with(("fbcdn", "_3-95", "pam _3", "facebook.com", "instagram.com")),
    ),
    Refusal("a web page", f"Pages are not read. {TABLE_ADVICE}", _is_html),
    Refusal("XML", f"XML is not read. {TABLE_ADVICE}", _is_xml),
)
TEXT_REFUSALS = (
    Refusal(
        "text in which lines begin with a time, so probably a chat", TABLE_ADVICE, _has_timed_lines
    ),
    Refusal(
        "text in which lines begin with a name, so probably a chat", TABLE_ADVICE, _has_marked_lines
    ),
    Refusal(
        "text in which two speakers take turns by line, so probably a chat",
        TURNS_ADVICE,
        _alternates,
    ),
)
"""Text in no known format that must not be taken for quotes; asked after the formats of chats."""


def refuse(peek: Peek, refusals: Sequence[Refusal] = REFUSALS) -> MaterialError | None:
    """Build the error for a file that is never read as conversations; None for any other."""
    for refusal in refusals:
        if refusal.matches(peek):
            return MaterialError(f"{peek.name} is {refusal.what}.", refusal.advice)
    return None


def looks_like_chat(peek: Peek) -> bool:
    """Report whether a text that no chat format recognises has times or names before its lines."""
    return any(refusal.matches(peek) for refusal in TEXT_REFUSALS)
