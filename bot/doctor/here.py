"""Checks of this machine that need nothing but a moment: settings, token, home, disk, port."""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bot.doctor.check import Check
from bot.settings import Settings
from bot.store import HomeInUseError, Store, StoreError, locked

LEAST_BYTES, COMFORTABLE_BYTES = 2**30, 5 * 2**30
"""A training keeps checkpoints and an adapter; base models of a hub take several GiB each."""
WAITING_S = 2.0
DATABASE = "understudy.sqlite"


def checks(settings: Settings) -> Iterator[Check]:
    """All of them, one after the other."""
    yield token(settings.discord_token)
    yield home(settings.home)
    yield database(settings.home)
    yield disk(settings.home)
    yield port(settings.web_port, settings.home)


def token(text: str) -> Check:
    """Whether a token looks like a bot's: three parts, the first of which is the bot's id in base 64."""
    if not text:
        return Check("token", "ok", "none: the bot is in a guild on this machine")
    parts = text.split(".")
    if len(parts) == 3 and all(parts) and id_in(text):
        return Check("token", "ok", f"looks like the token of the bot {id_in(text)}")
    what = "the application's id or public key" if len(parts) == 1 and text.isalnum() else "something else"
    remedy = "copy it anew: Developer Portal → the application → Bot → Reset Token"
    return Check("token", "fail", f"DISCORD_TOKEN does not look like a bot's token; perhaps it is {what}", remedy)


def id_in(text: str) -> int | None:
    """The bot's id that a token begins with; None where it begins otherwise."""
    first = text.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return int(decoded) if decoded.isdecimal() else None


def home(folder: Path) -> Check:
    """Whether the bot's home can be written, or made."""
    place = _that_exists(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place):
            pass
    except OSError as error:
        remedy = "give this user the right to write there, or name another folder in UNDERSTUDY_HOME"
        return Check("home", "fail", f"{place} cannot be written: {error.strerror or error}", remedy)
    if not folder.exists():
        return Check("home", "ok", f"{folder} is made when the bot starts")
    if folder.stat().st_mode & 0o077:
        found = f"{folder} can be read by other users of this machine"
        return Check("home", "warn", found, f"chmod 700 {folder}: it holds what people said")
    return Check("home", "ok", str(folder))


def database(folder: Path) -> Check:
    """Whether the database can be read, and whether a bot works on it now."""
    file = folder / DATABASE
    if not file.exists():
        return Check("database", "ok", "none yet")
    try:
        Store.read_only(file).close()
    except StoreError as error:
        return Check("database", "fail", error.message, error.advice or "restore a backup: docs/backup.md")
    try:
        locked(file).release()
    except HomeInUseError:
        return Check("database", "ok", "readable; a bot runs on it now")
    except StoreError as error:
        return Check("database", "fail", error.message, error.advice)
    return Check("database", "ok", "readable; no bot runs on it")


def disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Room on the home's disk."""
    free = int(usage(_that_exists(folder)).free)
    found = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_BYTES:
        return Check("disk", "fail", found, "free some: a training's checkpoints and adapter need a GiB or two")
    if free < COMFORTABLE_BYTES:
        return Check("disk", "warn", found, "free some before fetching models or keeping many versions")
    return Check("disk", "ok", found)


def port(number: int, folder: Path) -> Check:
    """Whether the web server's port is free, or has been taken by the bot that runs on this home."""
    if number == 0:
        return Check("port", "ok", "any free one is taken")
    try:
        socket.create_connection(("127.0.0.1", number), timeout=WAITING_S).close()
    except OSError:
        return Check("port", "ok", f"{number} is free")
    is_bot = _is_understudy(number)
    if is_bot and _is_in_use(folder):
        return Check("port", "ok", f"the bot answers on {number}")
    who = "another home's bot" if is_bot else "another program"
    return Check("port", "fail", f"{who} listens on {number}", "end it, or set WEB_PORT to another number")


def _is_in_use(folder: Path) -> bool:
    """Whether a bot runs on a home."""
    try:
        if (folder / DATABASE).exists():
            locked(folder / DATABASE).release()
    except HomeInUseError:
        return True
    except StoreError:  # `database` says so
        pass
    return False


def _is_understudy(number: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/healthz", timeout=WAITING_S) as answer:
            return bool(json.load(answer).get("status"))
    except urllib.error.HTTPError as error:  # it starts or ends
        return error.headers.get_content_type() == "application/problem+json"
    except (OSError, ValueError, AttributeError):
        return False


def _that_exists(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())
