"""Converts chat markup to Discord's, which personas' replies are displayed in."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from personas.schemas.chat import to_nfc

MENTION_MARK = re.compile("\x02([^\x03]*)\x03")
"""A mention between two control characters, which `clean_text` removes from what people wrote."""
INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f\\u200b\\u200e\\u200f\\u2060\\u202a-\\u202e\\u2066-\\u2069\\ufeff]"
)
"""Joiners (U+200C, U+200D) are not among them: scripts and emoji need them."""
CODE = re.compile(r"```.*?```|``[^\n]+?``|`[^`\n]+`", re.DOTALL)
FENCED = re.compile(r"```(?:(?P<language>[\w+#.-]+)?[ \t]*\n)?(?P<code>.*?)```", re.DOTALL)
COMMAND = re.compile(r"[/!][^\W\d_][\w-]*(?:@\w+)?(?:\s|$)")
DISCORD = re.compile(
    r"<a?:(?P<emoji>\w+):\d+>"
    r"|<@!?(?P<user>\d+)>"
    r"|<@&(?P<role>\d+)>"
    r"|<#(?P<channel>\d+)>"
    r"|<t:(?P<time>-?\d{1,12})(?::\w)?>"
    r"|</(?P<command>[^:>\n]+):\d+>"
    r"|<id:(?P<place>\w+)>"
    r"|<(?P<link>https?://[^\s<>]+)>"
)
EMPHASIS = re.compile(
    r"(?<![\w*_~])(?P<sign>[*_~])(?!\s|(?P=sign))(?P<text>(?:(?!(?P=sign))[^\n])+)(?<!\s)(?P=sign)(?!\w)"
)
DISCORD_PREFIXES = {"command": "/", "place": "#"}
DISCORD_SIGNS = {"*": "**", "_": "*", "~": "~~"}


def mark_mention(id_or_name: str) -> str:
    """Return the placeholder for a mention."""
    return f"\x02{id_or_name}\x03"


def clean_text(text: str) -> str:
    """Normalise line ends and letters; remove control characters, byte-order marks and direction
    marks.
    """
    text = to_nfc(text)
    if not INVISIBLE.search(text):
        return text
    return INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def is_command(text: str) -> bool:
    """Report whether a text is a bot command such as `/play` or `!skip 2`, but not a path or an
    exclamation.
    """
    return COMMAND.match(text) is not None


def map_outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` outside code blocks and spans; collapse blank lines and strip trailing
    spaces.
    """
    if "`" not in text:
        return _tidy(change(text)).strip()
    parts: list[str] = []
    end = 0
    for code in CODE.finditer(text):
        parts += [_tidy(change(text[end : code.start()])), _fenced(code[0])]
        end = code.end()
    return "".join([*parts, _tidy(change(text[end:]))]).strip()


def tidy_text(text: str) -> str:
    """Clean a text whose markup is Discord's already, or plain."""
    return map_outside_code(clean_text(text), lambda part: part)


def normalise_discord(text: str, channels: Mapping[str, str] | None = None) -> str:
    """Normalise Discord's custom emoji, mentions, timestamps, commands and suppressed links.
    `channels` are names by id.

    Source: https://docs.discord.com/developers/reference#message-formatting
    """

    def convert(match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        value = str(match[match.lastgroup or 0])
        if kind == "user":
            return mark_mention(value)
        if kind == "time":
            return _moment(int(value)) or match[0]
        if kind == "channel":
            return f"#{(channels or {}).get(value, 'channel')}"
        if kind == "role":
            return "@role"
        if kind == "emoji":
            return f":{value}:"
        return DISCORD_PREFIXES.get(kind, "") + value

    # Most messages have no markup of Discord's, and need no search for it.
    return map_outside_code(
        clean_text(text), lambda part: DISCORD.sub(convert, part) if "<" in part else part
    )


def convert_emphasis(text: str) -> str:
    """Convert `*bold*`, `_italic_` and `~struck~` of Slack and WhatsApp to Discord's markup."""

    def convert(match: re.Match[str]) -> str:
        sign = DISCORD_SIGNS[match["sign"]]
        return sign + convert_emphasis(match["text"]) + sign  # emphasis may be nested

    return EMPHASIS.sub(convert, text)


def _moment(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return ""


def _tidy(text: str) -> str:
    if "\n" not in text:
        return text
    without_trailing_spaces = re.sub(r"[^\S\n]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", without_trailing_spaces)


def _fenced(code: str) -> str:
    """Put the fences of a code block on lines of their own."""
    match = FENCED.fullmatch(code)
    if not match or not match["code"].strip():
        return code
    body = match["code"].strip("\n")
    return f"```{match['language'] or ''}\n{body}\n```"
