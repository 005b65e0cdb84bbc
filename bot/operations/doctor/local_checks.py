"""The doctor's checks of this machine: token, home, database, disk, port, lore and versions."""

import base64
import binascii
import json
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bot.operations.doctor.checks import BotCheck
from bot.operations.doctor.effect_checks import check_effects
from bot.platform.backup_folder import (
    FOLDER_ADVICE,
    automatic_backups,
    automatic_folder,
    find_write_problem,
)
from bot.platform.db.schema import schema_version
from bot.platform.errors import RENEW_TOKEN_ADVICE
from bot.settings import Settings
from bot.store import HOME_DATABASE, Store, StoreError, is_in_use
from bot.transcription.transcriber import find_load_problem
from bot.transcription.voice_model import ModelNotHereError, VoiceModelError, locate_voice_model
from personas.home.job_material import ShippedData
from personas.home.shared_personas import list_shipped_lore

# A training run stores checkpoints and an adapter; base models from a hub take several GiB each.
MIN_FREE_BYTES = 2**30
LOW_FREE_BYTES = 5 * 2**30
CONNECT_TIMEOUT_S = 2.0


def check_machine(settings: Settings, *, token_accepted: bool = False) -> Iterator[BotCheck]:
    """Check this machine; a token that Discord has accepted may have any form."""
    yield check_token(settings.discord_token, accepted=token_accepted)
    yield check_home(settings.home)
    yield check_database(settings.home)
    yield check_disk(settings.home)
    if settings.backup_hours:
        yield check_backups(automatic_folder(settings.home, settings.backup_folder))
    yield check_port(settings.web_port, settings.home)
    yield check_lore(ShippedData.from_source_tree().lore, settings.home)
    yield from check_voice(settings.voice_model)
    yield from check_effects(settings.home)


def check_token(text: str, *, accepted: bool = False) -> BotCheck:
    """Check that a bot's token begins with the bot's id in base 64; the settings have checked its
    parts.
    """
    if not text:
        return BotCheck("token", "ok", "none: the bot runs in a sandbox on this machine")
    if token_application_id(text):
        return BotCheck(
            "token", "ok", f"looks like the token of the bot {token_application_id(text)}"
        )
    if accepted:
        return BotCheck("token", "ok", "of an unusual form, but Discord accepts it")
    found = "DISCORD_TOKEN does not look like a bot's token: it begins with no id"
    return BotCheck("token", "fail", found, RENEW_TOKEN_ADVICE)


def token_application_id(text: str) -> int | None:
    """Return the bot's id that a token starts with; None where there is none."""
    first = text.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdecimal() else None


def check_home(folder: Path) -> BotCheck:
    """Check that the bot's home can be written, or created."""
    parent = _existing_parent(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=parent):
            pass
    except OSError as error:
        remedy = "give this user the right to write there, or set another folder in UNDERSTUDY_HOME"
        return BotCheck(
            "home", "fail", f"{parent} cannot be written: {error.strerror or error}", remedy
        )
    if not folder.exists():
        return BotCheck("home", "ok", f"{folder} is created when the bot starts")
    if folder.stat().st_mode & 0o077:
        found = f"{folder} can be read by other users of this machine"
        return BotCheck("home", "warn", found, f"chmod 700 {folder}: it contains private messages")
    return BotCheck("home", "ok", str(folder))


def check_database(folder: Path) -> BotCheck:
    """Check that the database can be read, and whether a bot is running on it."""
    file = folder / HOME_DATABASE
    if not file.exists():
        return BotCheck("database", "ok", "none yet")
    try:
        Store.read_only(file).close()
    except StoreError as error:
        return BotCheck(
            "database", "fail", error.message, error.advice or "restore a backup: docs/backup.md"
        )
    try:
        running = is_in_use(file)
    except StoreError as error:
        return BotCheck("database", "fail", error.message, error.advice)
    return BotCheck(
        "database",
        "ok",
        f"readable, schema {schema_version()}; {'a' if running else 'no'} bot is running on it",
    )


def check_disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> BotCheck:
    free = int(usage(_existing_parent(folder)).free)
    found = f"{free / 2**30:.1f} GiB free"
    name = "disk"
    if free < MIN_FREE_BYTES:
        remedy = "free some: a training's checkpoints and adapter need a GiB or two"
        return BotCheck(name, "fail", found, remedy)
    if free < LOW_FREE_BYTES:
        remedy = "free some before fetching models or keeping many versions"
        return BotCheck(name, "warn", found, remedy)
    return BotCheck(name, "ok", found)


def check_backups(folder: Path) -> BotCheck:
    """Check that the folder of automatic backups can be written, or created."""
    if problem := find_write_problem(folder):
        return BotCheck("backups", "warn", problem, FOLDER_ADVICE)
    count = len(automatic_backups(folder, time.time()))
    return BotCheck("backups", "ok", f"{count or 'none yet'} in {folder}")


def check_port(number: int, folder: Path) -> BotCheck:
    """Check that the web server's port is free, or used by the bot that runs on this home."""
    if number == 0:
        return BotCheck("port", "ok", "any free port is used")
    try:
        socket.create_connection(("127.0.0.1", number), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return BotCheck("port", "ok", f"{number} is free")
    state = _bot_state(number)
    if state and _is_in_use(folder):
        if state == "ok":
            return BotCheck("port", "ok", f"the bot answers on {number}")
        return BotCheck(
            "port", "warn", f"the bot on {number} is {state}", "see its log, and /dashboard/system"
        )
    owner = "another home's bot" if state else "another program"
    return BotCheck(
        "port", "fail", f"{owner} listens on {number}", "end it, or set WEB_PORT to another number"
    )


def check_lore(folder: Path, home: Path) -> BotCheck:
    """Check that every lore file in a folder belongs to a persona, or to all of them."""
    documents = list_shipped_lore(folder, home)
    skipped = [document for document in documents if document.skipped]
    found = f"{len(documents) - len(skipped)} of {len(documents)} files are read"
    if not skipped:
        return BotCheck("lore", "ok", found)
    found += f"; skipped: {skipped[0].source}: {skipped[0].skipped}"
    return BotCheck(
        "lore",
        "warn",
        found,
        "`python -m trainer lore files` lists them all; docs/personas.md names the layouts",
    )


def check_voice(name: str) -> Iterator[BotCheck]:
    """Check that the recogniser of voice messages loads its model; no check without one."""
    if not name:
        return
    try:
        folder = locate_voice_model(name, fetch=False)
    except ModelNotHereError as error:
        yield BotCheck("voice", "warn", error.message, error.advice)
        return
    except VoiceModelError as error:
        yield BotCheck("voice", "fail", error.message, error.advice)
        return
    if problem := find_load_problem(folder):
        remedy = "name another model in VOICE_MODEL, or leave it out (docs/howto/voice.md)"
        yield BotCheck("voice", "fail", f"{name}: {problem}", remedy)
    else:
        yield BotCheck("voice", "ok", f"voice messages are recognised with {name}")


def _is_in_use(folder: Path) -> bool:
    file = folder / HOME_DATABASE
    try:
        return file.exists() and is_in_use(file)
    except StoreError:  # `database` reports it
        return False


def _bot_state(number: int) -> str:
    """Return what the bot on a port says of itself, such as "ok"; "" if no bot listens there."""
    try:
        address = f"http://127.0.0.1:{number}/healthz"
        with urllib.request.urlopen(address, timeout=CONNECT_TIMEOUT_S) as answer:  # nosec B310
            return str(json.load(answer).get("status") or "")
    except urllib.error.HTTPError as error:
        if error.headers.get_content_type() != "application/problem+json":
            return ""
        problem = json.load(error)
        if problem["type"].endswith("/busy"):
            return "ok"  # it starts or stops
        return str(problem["title"]).lower()
    except (OSError, ValueError, AttributeError):
        return ""


def _existing_parent(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())
