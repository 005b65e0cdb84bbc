"""Macros in cards, greetings and lorebooks, such as `{{char}}`, `{{random:a,b}}` and `{{time}}`.

A prompt begins with the card, and all its prompts share that beginning. In text of the card and in
lore a macro therefore has one value, in training and in serving (`settle_macros`); a phrase stands
for those of the present moment (`personas.prompt.time_macros`). A greeting is sent once, so its
macros have the value of that moment (`resolve_macros`). Names (`{{char}}`, `{{user}}`) stay in
both, for `personas.prompt.renderer.fill_macros`.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from personas.prompt.time_macros import Moment, find_time_macro, time_phrase
from personas.schemas.chat import to_nfc
from personas.schemas.import_report import ImportItem, not_taken, other_meaning

NAME_MACROS = (
    (
        re.compile(
            r"\{\{\s*(?:char|bot|charIfNotGroup|group)\s*\}\}|<(?:char|bot|charIfNotGroup)>", re.I
        ),
        "{{char}}",
    ),
    (re.compile(r"\{\{\s*user\s*\}\}|<user>", re.IGNORECASE), "{{user}}"),
    (re.compile(r"\{\{\s*original\s*\}\}", re.IGNORECASE), "{{original}}"),
)
COMMENT_PATTERN = re.compile(r"\{\{\s*(?://|comment:|hidden_key:)[^{}]*\}\}", re.IGNORECASE)
MACRO_PATTERN = re.compile(
    r"\{\{\s*(?P<name>//|[#/]?[a-z_][\w.+-]*+)(?P<rest>[^{}]*+)\}\}", re.IGNORECASE
)
MARK_PATTERN = re.compile(r"(\{\{\s*(?://|[#/]?[a-z_][\w.+-]*)|<START>)", re.IGNORECASE)
"""Beginning of a macro with its name, or what separates conversations."""
MAX_NESTED_MACROS = 8
HIDDEN_NAMES = {"{{char}}": "\ufdd0", "{{user}}": "\ufdd1", "{{original}}": "\ufdd2"}
"""Noncharacters that stand for names while the macros around them are replaced."""
TRIM_MARK = "\ufdd3"
TRIM_PATTERN = re.compile(rf"(?:(?<![\r\n])[\r\n]+)?{TRIM_MARK}[\r\n]*")
"""The line breaks are matched from the first on, else the time grows with the square of their number."""
DICE_PATTERN = re.compile(
    r"(?P<count>\d{0,3})d?(?P<sides>\d{1,6})(?P<plus>[+-]\d{1,6})?", re.IGNORECASE
)
MAX_DICE = 100
COMMENT_NAMES = frozenset(("//", "comment", "hidden_key", "noop"))
CHOICE_NAMES = frozenset(("random", "pick"))
MAX_NAME_CHARS = 40
NO_VALUE = "it has no value here and is left out"
SENT_MOMENT = "the moment at which it is sent, in the server's time zone"
BESIDE_LAST_MESSAGE = (
    "the moment of the reply, told beside the last message, so that all prompts begin alike"
)


@dataclass(frozen=True)
class SettledText:
    """A text whose macros have one value. The other fields are the names of macros that mean
    something else here.

    `fixed` are drawn once instead of each time, `removed` have no value here, and phrases stand for
    `times`, macros of the present moment.
    """

    text: str
    fixed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


def normalise_macros(text: str) -> str:
    """Normalise names and letters to one spelling, and remove comments meant for people only."""
    text = COMMENT_PATTERN.sub("", to_nfc(text))
    for pattern, name in NAME_MACROS:
        text = pattern.sub(name, text)
    return text


def edit_between_marks(text: str, edit: Callable[[str], str]) -> str:
    """Edit a text with macros in one spelling; the names of macros, and `<START>`, stay."""
    parts = MARK_PATTERN.split(normalise_macros(text))
    parts[::2] = map(edit, parts[::2])
    return "".join(parts)


def settle_macros(text: str, seed: str, *, keeps_times: bool = False) -> SettledText:
    """Give each macro of a prompt's text one value, which the seed (the persona's name) and its
    place decide.

    With `keeps_times`, macros of the present moment stay as they are.
    """
    fixed: list[str] = []
    removed: list[str] = []
    times: list[str] = []

    def value_of(name: str, rest: str, place: int) -> str:
        if macro := find_time_macro(name, rest):
            times.append(macro)
            return f"{{{{{macro}}}}}" if keeps_times else time_phrase(macro)
        chooser = _chooser(seed, name, rest, place)
        value = _draw(name, rest, chooser)
        if value is None:
            removed.append(name)
            return ""
        if name != "pick":
            fixed.append(name)
        return value

    settled = _expand(text, value_of)
    return SettledText(
        settled,
        fixed=tuple(dict.fromkeys(fixed)),
        removed=tuple(dict.fromkeys(removed)),
        times=tuple(dict.fromkeys(times)),
    )


def resolve_macros(
    text: str, seed: str, now: datetime, rng: random.Random | None = None
) -> SettledText:
    """Give the macros of a greeting their values at `now`, in its time zone. What has none
    (`removed`) is left out.
    """
    drawn = rng or random.SystemRandom()
    removed: list[str] = []

    def value_of(name: str, rest: str, place: int) -> str:
        chooser = _chooser(seed, name, rest, place) if name == "pick" else drawn
        value = _draw(name, rest, chooser)
        if macro := find_time_macro(name, rest):
            value = Moment(now).value(macro)
        if value is None:
            removed.append(name)
            return ""
        return value

    resolved = _expand(text, value_of)
    return SettledText(resolved, removed=tuple(dict.fromkeys(removed)))


def report_macros(what: str, text: str, *, is_greeting: bool = False) -> Iterator[ImportItem]:
    """Yield the meaning that macros of a text have here, as far as it is another one."""
    if is_greeting:
        yield from _report_greeting(what, text)
        return
    settled = settle_macros(text, "")
    for name in settled.fixed:
        yield other_meaning(
            f"{_shown(name)} in {what}", "drawn once, so that all prompts begin alike"
        )
    for name in settled.times:
        yield other_meaning(f"{_shown(name)} in {what}", BESIDE_LAST_MESSAGE)
    for name in settled.removed:
        yield not_taken(f"{_shown(name)} in {what}", NO_VALUE)


def _report_greeting(what: str, text: str) -> Iterator[ImportItem]:
    times: list[str] = []

    def value_of(name: str, rest: str, place: int) -> str:
        if macro := find_time_macro(name, rest):
            times.append(macro)
        return ""

    _expand(text, value_of)
    for name in dict.fromkeys(times):
        yield other_meaning(f"{_shown(name)} in {what}", SENT_MOMENT)
    for name in resolve_macros(text, "", datetime.now(UTC)).removed:
        yield not_taken(f"{_shown(name)} in {what}", NO_VALUE)


def _shown(name: str) -> str:
    return f"{{{{{name[:MAX_NAME_CHARS]}}}}}"


def _expand(text: str, value_of: Callable[[str, str, int], str]) -> str:
    """Replace all macros but names, innermost first; `value_of` is given name, rest and the macro's
    number.
    """
    text = normalise_macros(text)
    for macro, hidden in HIDDEN_NAMES.items():
        text = text.replace(macro, hidden)
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        # Counted through all passes: two equal macros of a text draw separately.
        count += 1
        name = match["name"].lower()
        rest = match["rest"]
        formatted = _layout(name, rest)
        if formatted is None:
            return value_of(name, rest, count)
        return formatted

    for _ in range(MAX_NESTED_MACROS):
        expanded = MACRO_PATTERN.sub(replace, text)
        if expanded == text:
            break
        text = expanded
    # Last: a macro beside the mark may have become nothing, and its line break goes, too.
    text = TRIM_PATTERN.sub("", text)
    for macro, hidden in HIDDEN_NAMES.items():
        text = text.replace(hidden, macro)
    return text


def _layout(name: str, rest: str) -> str | None:
    """Return the value of a macro that only lays out the text; None for any other."""
    if name in COMMENT_NAMES:
        return ""
    if name == "trim":
        return TRIM_MARK
    if name in ("newline", "space"):
        blank = "\n" if name == "newline" else " "
        number = rest.strip(": ")
        if number.isdecimal():
            return blank * min(int(number), 10)
        return blank
    return None


def _draw(name: str, rest: str, rng: random.Random) -> str | None:
    """Return the value of a macro of chance; None for any other."""
    if name in CHOICE_NAMES:
        options = _options(rest)
        return rng.choice(options) if options else ""
    if name in ("roll", "dice"):
        return _roll(rest, rng)
    return None


def _options(rest: str) -> list[str]:
    """Return the options of `:a,b`, `::a::b` or `::a,b`. A comma after a backslash does not
    separate.
    """
    listed = re.sub(r"^\s*::?", "", rest)
    if not listed.strip():
        return []
    if "::" in listed:
        parts = listed.split("::")
    else:
        parts = re.split(r"(?<!\\),", listed)
    return [part.strip().replace("\\,", ",") for part in parts]


def _roll(rest: str, rng: random.Random) -> str | None:
    """Return the sum of dice such as `d6`, `2d6+1` or `6`; None for anything else."""
    match = DICE_PATTERN.fullmatch(re.sub(r"[\s:]", "", rest))
    if not match:
        return None
    if "d" in match[0].lower():
        count = int(match["count"] or 1)
        sides = int(match["sides"])
    else:  # one number, of which the pattern has taken the beginning for the count
        count = 1
        sides = int(match["count"] + match["sides"])
    if sides < 1 or not 1 <= count <= MAX_DICE:
        return None
    total = sum(rng.randint(1, sides) for _ in range(count))
    return str(total + int(match["plus"] or 0))


def _chooser(seed: str, name: str, rest: str, place: int) -> random.Random:
    """Return a generator whose draws depend on these values only, on every machine."""
    digest = hashlib.sha256(f"{seed}\n{name}{rest}\n{place}".encode("utf-8", "replace")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))  # nosec B311  # guards nothing
