"""Errors shown to members, and the one translation of exceptions into text."""

import logging
import re
import secrets
import tempfile
from pathlib import Path, PurePosixPath

import discord
from discord import app_commands

from personas.errors import UnderstudyError

UNKNOWN_INTERACTION_CODE = 10062
"""Discord's code for an interaction that was not answered within three seconds."""
log = logging.getLogger(__name__)
ABSOLUTE_PATH_PATTERN = re.compile(r"(?<![\w/.:~-])(?:/[^/\s:;,'\"()]+){2,}")
PREVIEW_FOLDER_PATTERN = re.compile(re.escape(tempfile.gettempdir()) + r"/understudy-preview-[^/\s]+/(material/)?")


class RefusedError(UnderstudyError):
    """The request is not allowed for this person or here."""


def error_text(error: Exception) -> str:
    """Translate an error for a member. Unexpected errors get a code that is in the log too, and no details."""
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    if isinstance(cause, app_commands.AppCommandError) and isinstance(cause.__cause__, UnderstudyError):
        cause = cause.__cause__  # from a check or a transformer
    if isinstance(cause, UnderstudyError):
        if (shown := hide_paths(str(cause))) != str(cause):
            log.warning("an error was shown without its paths: %s", cause)
        return shown
    if isinstance(cause, app_commands.CheckFailure):
        return "You may not use this command here."
    if isinstance(cause, app_commands.TransformerError):
        return f"{cause.value!r} is not a valid value here."
    if isinstance(cause, discord.Forbidden):
        return f"Discord does not let me do that here: {cause.text}. Ask a moderator to check my permissions."
    if isinstance(cause, discord.NotFound) and cause.code == UNKNOWN_INTERACTION_CODE:
        log.warning("Discord rejected a response as too late; the bot or its connection is slow")
        return "That took too long. Try it again."
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=cause)
    return f"That went wrong on my side. The operator finds the reason in the log under {code}."


def hide_paths(text: str) -> str:
    """Shorten each path of this machine to its last name."""

    def last_name(found: re.Match[str]) -> str:
        path = PurePosixPath(found[0])
        return path.name if Path("/", path.parts[1]).exists() else found[0]  # not an address of the HTTP API

    return ABSOLUTE_PATH_PATTERN.sub(last_name, text)


def redact_paths(text: str, home: Path | None) -> str:
    """Replace the bot's home by UNDERSTUDY_HOME and the operator's by ~, and remove a plan's temporary folder."""
    text = PREVIEW_FOLDER_PATTERN.sub("", text)
    if home:
        text = text.replace(str(home), "UNDERSTUDY_HOME")
    return text.replace(f"{Path.home()}/", "~/")
