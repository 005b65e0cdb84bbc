"""WhatsApp's own words in exports (`whatsapp_notices.toml`): notices, placeholders, marks."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, get_args

AppTextKind = Literal["media", "deleted", "certain", "notices"]
KINDS: tuple[AppTextKind, ...] = get_args(AppTextKind)
DIRECTION_MARKS = re.compile("[\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
QUOTATION_MARKS = '"“”„«»「」『』'
SLOTS = {
    "who": r"(?P<who>[^\n]{1,120}?)",
    "whom": r"(?P<whom>[^\n]{1,200}?)",
    "quoted": rf"[{QUOTATION_MARKS}‘’'][^\n]{{1,120}}[{QUOTATION_MARKS}‘’']",
    "more": r"(?:[.。]? ?[^\n.。]{1,60})?",
    "any": r"[^\n]{0,300}",
    "time": r"\d[^\n]{0,20}",
}
"""Gaps in the table. `who` acts, `whom` is acted on, `more` is a hint such as "Tap to learn more"."""

TABLE_FILE = Path(__file__).parent / "whatsapp_notices.toml"
GAP = re.compile(r"\{(\w+)\}")
MAX_LINE_CHARS = 600
POLL = re.compile(
    r"[^\n:：]{2,24}[:：] *\n[^\n]+(?:\n[^\n]+)*?"
    r"(?:\n+ *(?P<label>[^\n:：]{1,24})[:：][^\n]*[(（]\W*\d+[^\n]*[)）] *)"
    r"(?:\n+ *(?P=label)[:：][^\n]*[(（]\W*\d+[^\n]*[)）] *)+"
)
"""A word, the question, and options with the number of their votes in brackets."""
PLACE = re.compile(
    r"[^\n:：]{2,40}[:：] *https?://maps\.google\.com/\?q=-?\d+(?:\.\d+)?,-?\d+(?:\.\d+)?"
)
"""Links with coordinates are the app's; those that people copy have none."""


class AppText(NamedTuple):
    """A text of the app. `who` did something to `whom`; each is empty if the text names nobody."""

    kind: AppTextKind
    who: str = ""
    whom: str = ""


class _NoticeTable:
    """The table, in all languages at once: a chat may have been exported in any."""

    def __init__(self, table: Mapping[str, Mapping[str, list[str]]]) -> None:
        texts = {kind: [*chain.from_iterable(table[kind].values())] for kind in table}
        self.you = frozenset(texts["you"])
        self.event_labels = frozenset(texts["event"])
        bracketed = (*texts["media"], *texts["edited"], *texts["attached"])
        self.bracketed = frozenset(_plain_line(text).casefold() for text in bracketed)
        self._fixed: dict[str, AppTextKind] = {}
        self._patterns: list[tuple[AppTextKind, str, re.Pattern[str]]] = []
        for kind in KINDS:
            for text in texts[kind]:
                line = _plain_line(text)
                if GAP.search(line):
                    self._patterns.append(
                        (kind, max(GAP.split(line)[::2], key=len), _compile(line))
                    )
                else:
                    self._fixed[line.casefold()] = kind
        outer = [GAP.split(_plain_line(text))[::2] for kind in KINDS for text in texts[kind]]
        self._beginnings = tuple({literals[0] for literals in outer} - {""})
        self._ends = tuple({literals[-1] for literals in outer} - {""})
        inner = {max(part, key=len) for part in outer if not part[0] and not part[-1]}
        spaced = {part for part in inner if part[0] == part[-1] == " "}
        self._words = frozenset(max(part.split(), key=len) for part in spaced)
        self._parts = inner - spaced

    def match(self, text: str) -> AppText | None:
        """Return the text of the table that a whole text is; None for any other."""
        line = _plain_line(text)
        if "\n" in line or len(line) > MAX_LINE_CHARS:
            return None
        kind = self._fixed.get(line.casefold())
        if kind:
            return AppText(kind)
        if not self._may_match(line):
            return None
        for kind, literal, pattern in self._patterns:
            match = pattern.fullmatch(line) if literal in line else None
            if match:
                named = match.groupdict()
                return AppText(kind, named.get("who") or "", named.get("whom") or "")
        return None

    def _may_match(self, line: str) -> bool:
        """Dismiss nearly all lines without asking each pattern: chats have millions."""
        if line.endswith(self._ends) or line.startswith(self._beginnings):
            return True
        if not self._words.isdisjoint(line.split(" ")):
            return True
        return not line.isascii() and any(part in line for part in self._parts)


@cache
def _read_table() -> _NoticeTable:
    return _NoticeTable(tomllib.loads(TABLE_FILE.read_text("utf-8")))


def _compile(line: str) -> re.Pattern[str]:
    pattern = ""
    for index, part in enumerate(GAP.split(line)):
        pattern += SLOTS[part] if index % 2 else re.escape(part)
    return re.compile(pattern)


def _plain_line(text: str) -> str:
    """Return a text without direction marks and its last full stop, with plain spaces and
    apostrophes; several lines stay apart.
    """
    text = DIRECTION_MARKS.sub("", text).strip()
    if "\n" in text:
        return text
    return " ".join(text.replace("’", "'").split()).rstrip(".。")


def match_app_text(text: str) -> AppText | None:
    """Return what a whole text is if it reads as one of the app's; else None.

    A person may have written a text of the kind "notices", too: who says it decides.
    """
    table = _read_table()
    plain = DIRECTION_MARKS.sub("", text).strip()
    if "\n" not in plain:
        return AppText("media") if PLACE.fullmatch(plain) else table.match(plain)
    label = plain.partition("\n")[0].strip()
    is_event = label[-1:] in (":", "：") and label[:-1] in table.event_labels
    return AppText("media") if is_event or _is_poll(plain) else None


def _is_poll(text: str) -> bool:
    """Report whether a text is a poll, whose labels the app writes in capitals, unlike a list."""
    poll = POLL.fullmatch(text)
    labels = (text.partition("\n")[0], poll["label"]) if poll else ()
    return bool(poll) and all(label == label.upper() for label in labels)


def is_bracketed_placeholder(text: str) -> bool:
    """Report whether a text is one that Android puts into brackets."""
    return _plain_line(text).casefold() in _read_table().bracketed


def is_you(name: str) -> bool:
    """Report whether a notice names the person with that word whose telephone it is."""
    return name in _read_table().you
