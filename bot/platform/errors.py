"""Errors shown to members, and the one translation of exceptions into text."""

import html
import logging
import math
import re
import secrets
import sqlite3
import ssl
import tempfile
import traceback
from pathlib import Path, PurePosixPath

import aiohttp
import discord
from discord import app_commands

from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    join_texts,
)
from bot.store import StoreError
from personas.cli_common import commands_as_typed
from personas.cli_entry import DISK_FULL_ERRNOS
from personas.errors import EngineBusyError, UnderstudyError
from personas.prompt.renderer import PromptTooLongError

DISK_FULL_MESSAGE = gettext_lazy("Nothing could be stored: the disk of the bot is full.")
DISK_FULL_TEXT = gettext_lazy(
    "Nothing could be stored: the disk of the bot is full. The operator has to free space."
)
SQLITE_FULL_MESSAGES = ("disk is full", "disk I/O error")
UNKNOWN_INTERACTION_CODE = 10062
"""Discord's code for an interaction that was not answered within three seconds."""
log = logging.getLogger(__name__)
STORE_TEXT = gettext_lazy("I cannot store anything at the moment. Try it again in a minute.")
"""Shown to members for an error of the database; only the log says what it is."""
ABSOLUTE_PATH_PATTERN = re.compile(r"(?<![\w/.:~-])(?:/[^/\s:;,'\"()]+){2,}")
BUSY_TEXT = gettext_noop("I am too busy for now. Try again in about {seconds} s.")
MAX_REASON_CHARS = 200
RENEW_TOKEN_ADVICE = "Copy it again: Developer Portal → the application → Bot → Reset Token."
NETWORK_ADVICE = "Check the network, and whether Discord is up (discordstatus.com)."
CLOSE_CODES = {
    4004: ("Discord does not accept DISCORD_TOKEN any more.", RENEW_TOKEN_ADVICE),
    4011: (
        "The bot is in too many servers for its number of connections.",
        "Start it again: it then opens as many as Discord recommends.",
    ),
    4012: (
        "Discord no longer speaks this version of its protocol.",
        "Update the project, and with it discord.py.",
    ),
    4013: (
        "Discord does not know one of the intents.",
        "Update the project, and with it discord.py.",
    ),
    4014: (
        "Discord no longer grants this bot the message content or the server members intent.",
        "Start it again: it then does without. Or allow the intent in the Developer Portal → Bot → "
        "Privileged Gateway Intents.",
    ),
}
"""Close codes of the gateway after which nobody may connect again, in words, and what to do."""
REFUSAL_ADVICE = {
    400: "Update the project, and with it discord.py: Discord did not understand the request.",
    401: RENEW_TOKEN_ADVICE,
    403: (
        "Look in the Developer Portal whether the application is restricted, and whether this "
        "network is blocked."
    ),
    429: "Wait some minutes before the next start; other programs at this address count too.",
}
PREVIEW_FOLDER_PATTERN = r"/understudy-preview-[^/\s]+/(material/)?"
"""A draft's folder, below that of temporary files."""


class RefusedError(UnderstudyError):
    """The request is not allowed for this person or here. `field` is the wrong one of a form, by the
    name of the action's parameter; empty where it is none alone.
    """

    def __init__(self, message: str, advice: str = "", *, field: str = "") -> None:
        super().__init__(message, advice)
        self.field = field


class DiscordError(UnderstudyError):
    """Discord cannot be reached, refuses a request, or has ended the connection. `is_temporary`:
    try again later.
    """

    def __init__(self, message: str, advice: str = "", *, is_temporary: bool = False) -> None:
        super().__init__(message, advice)
        self.is_temporary = is_temporary


def connection_error(error: BaseException) -> UnderstudyError:
    """Explain in one line why logging in to Discord failed, or why the connection ended."""
    cause: BaseException | None = error
    while cause:  # discord.py fails by itself over some failed connections
        if known := _known_connection_error(cause):
            return known
        cause = cause.__cause__ or cause.__context__
    log.debug("the connection to Discord ended unexpectedly", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    where = ""
    if frames:
        where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}"
    if _text_for_json(error) is not None:
        return _page_error(200, _text_for_json(error) or "")
    message = (
        f"The connection to Discord ended by an error: {type(error).__name__}: "
        f"{_one_line(str(error))}{where}."
    )
    return DiscordError(message, "Start the bot again; LOG_LEVEL=DEBUG logs more.")


def shorten_connection_log(record: logging.LogRecord) -> bool:
    """Log a connection that failed, and is tried again, in one line. A filter for discord.py's
    loggers.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error and (known := _known_connection_error(error)):
        record.msg = f"{record.getMessage()}: {known.message}"
        record.args = ()
        record.exc_info = None
    return True


def _known_connection_error(error: BaseException) -> UnderstudyError | None:
    match error:
        case UnderstudyError():
            return error
        case discord.LoginFailure():
            return DiscordError("Discord does not accept DISCORD_TOKEN.", RENEW_TOKEN_ADVICE)
        case discord.PrivilegedIntentsRequired():
            return _close_error(4014)
        case discord.ConnectionClosed():
            return _close_error(error.code)
        case discord.HTTPException():
            return _refusal(error)
        case aiohttp.WSServerHandshakeError():
            message = f"Discord's gateway refuses the connection ({error.status} {error.message})."
            return DiscordError(message, NETWORK_ADVICE, is_temporary=True)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return DiscordError(
                f"The connection to Discord is not safe: {_one_line(str(error))}.",
                "Check the clock of this machine, its CA certificates, and whether a proxy reads "
                "what is encrypted.",
            )
        case TimeoutError():
            return DiscordError("Discord does not respond.", NETWORK_ADVICE, is_temporary=True)
        case aiohttp.ClientError() | OSError() | discord.GatewayNotFound():
            why = _one_line(str(error)) or type(error).__name__
            return DiscordError(
                f"Discord cannot be reached: {why}.", NETWORK_ADVICE, is_temporary=True
            )
    return None


def _close_error(code: int) -> DiscordError:
    message, advice = CLOSE_CODES.get(code, ("Discord has ended the connection.", NETWORK_ADVICE))
    return DiscordError(f"{message.removesuffix('.')} (close code {code}).", advice)


def _refusal(error: discord.HTTPException) -> DiscordError:
    """Explain an HTTP status; a web page in place of JSON is a proxy's, or that of Discord's own
    protection.
    """
    is_page = error.text.lstrip().startswith("<")
    status = error.status
    if status >= 500:
        message = f"Discord has a fault of its own ({status})."
        return DiscordError(
            message, "Try again later; discordstatus.com says more.", is_temporary=True
        )
    if is_page and status != 429:
        return _page_error(status, error.text)
    why = "too many requests"
    if status != 429:
        why = _one_line(error.text) or str(error.response.reason)
    code = f", code {error.code}" if error.code else ""
    advice = REFUSAL_ADVICE.get(status, NETWORK_ADVICE)
    if status == 401:
        return DiscordError("Discord does not accept DISCORD_TOKEN.", advice)
    return DiscordError(
        f"Discord refuses the bot: {why} ({status}{code}).", advice, is_temporary=status == 429
    )


def _page_error(status: int, page: str) -> DiscordError:
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    named = ""
    if title:
        named = f", titled {_one_line(html.unescape(title[1]))!r}"
    return DiscordError(
        f"A web page came in place of Discord's response ({status}{named}).",
        "Check whether a proxy or the network's sign-in page is in between.",
    )


def _text_for_json(error: BaseException) -> str | None:
    """Return the text over which discord.py failed because it expected JSON."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(data := frame.f_locals.get("data"), str):
            return data
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON_CHARS].removesuffix(".")


def is_disk_full(error: BaseException) -> bool:
    """Report whether an error, or one that it was raised from, says that nothing can be written to
    the disk.
    """
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.errno in DISK_FULL_ERRNOS:
            return True
        if isinstance(cause, sqlite3.Error):
            text = str(cause)
            if any(words in text for words in SQLITE_FULL_MESSAGES):
                return True
        cause = cause.__cause__
    return False


def error_text(error: Exception) -> str:
    """Translate an error for a member; the text is localisable where it is in the catalogues.
    Unexpected errors get a code that is in the log too, and no details.
    """
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    if isinstance(cause, app_commands.AppCommandError) and isinstance(
        cause.__cause__, UnderstudyError
    ):
        cause = cause.__cause__  # from a check or a transformer
    if isinstance(cause, StoreError):
        log.error("%s", cause)
        return STORE_TEXT
    if is_disk_full(cause):
        log.error("nothing can be stored: the disk is full: %s", cause)
        return DISK_FULL_TEXT
    if isinstance(cause, UnderstudyError):
        return _own_text(cause)
    if isinstance(cause, app_commands.CheckFailure):
        return gettext_lazy("You may not use this command here.")
    if isinstance(cause, app_commands.TransformerError):
        return gettext_lazy("{value} is not a valid value here.", value=repr(cause.value))
    if isinstance(cause, PromptTooLongError):
        return gettext_lazy(
            "This persona's card leaves no room for your message and a reply. A moderator can "
            "import a shorter card, or choose another persona with `/persona set`."
        )
    if isinstance(cause, discord.Forbidden):
        return gettext_lazy(
            "Discord does not let me do that here: {reason}. Ask a moderator to check my "
            "permissions.",
            reason=cause.text,
        )
    if isinstance(cause, discord.NotFound) and cause.code == UNKNOWN_INTERACTION_CODE:
        log.warning("Discord rejected a response as too late; the bot or its connection is slow")
        return gettext_lazy("That took too long. Try it again.")
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=cause)
    return gettext_lazy(
        "That went wrong on my side. The operator finds the reason in the log under {code}.",
        code=code,
    )


def _own_text(error: UnderstudyError) -> str:
    if error.member_text:
        log.error("members are not told why: %s", error)
        return LocalisableText(error.member_text)
    parts = [part for part in (error.message, error.advice) if part]
    if parts and all(isinstance(part, LocalisableText) for part in parts):  # not one half of it
        return join_texts(*parts)
    if isinstance(error, EngineBusyError):
        # The engine knows no languages; a translation does not have its figures.
        values = {"seconds": math.ceil(error.wait_s)}
        return LocalisableText(BUSY_TEXT, values=values, english=str(error))
    text = commands_as_typed(str(error))
    if (shown := hide_paths(text)) != text:
        log.warning("an error was shown without its paths: %s", error)
    return shown


def hide_paths(text: str) -> str:
    """Shorten each path of this machine to its last name."""

    def last_name(match: re.Match[str]) -> str:
        path = PurePosixPath(match[0])
        # An address of the HTTP API looks like a path, too, but this machine has no such folder.
        if not Path("/", path.parts[1]).exists():
            return match[0]
        return path.name

    shown = ABSOLUTE_PATH_PATTERN.sub(last_name, text)
    return text if shown == text else shown  # the same object: it may be localisable


def redact_paths(text: str, home: Path | None) -> str:
    """Replace the bot's home by UNDERSTUDY_HOME and the operator's by ~, and remove a plan's
    temporary folder.
    """
    shown = re.sub(re.escape(tempfile.gettempdir()) + PREVIEW_FOLDER_PATTERN, "", text)
    if home:
        shown = shown.replace(str(home), "UNDERSTUDY_HOME")
    shown = shown.replace(f"{Path.home()}/", "~/")
    return text if shown == text else shown  # the same object: it may be localisable
