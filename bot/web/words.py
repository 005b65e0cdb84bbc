"""Texts as they leave the machine's inside: without the folders that things lie in."""

from __future__ import annotations

import re
import shlex
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ASIDE = re.compile(re.escape(tempfile.gettempdir()) + r"/understudy-preview-[^/\s]+/(material/)?")


def without_places(text: str, home: Path | None) -> str:
    """The text with the bot's home as UNDERSTUDY_HOME, the operator's as ~, and without a plan's temporary folder."""
    text = ASIDE.sub("", text)
    if home:
        text = text.replace(str(home), "UNDERSTUDY_HOME")
    return text.replace(f"{Path.home()}/", "~/")


def in_terminal(command: str, home: Path) -> str:
    """A command as it does the same in a terminal: with the bot's home named, where that is not the usual one."""
    if home.absolute() == Path.home() / ".understudy":
        return command
    return f"UNDERSTUDY_HOME={shlex.quote(str(home.absolute()))} {command}"


def moment(at: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at is not None else None
