"""The bot's home, as the commands find it: where the key of pseudonyms lies, and what members have allowed."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

from personas.errors import RequestError

HOME = "UNDERSTUDY_HOME"


def home() -> Path:
    """UNDERSTUDY_HOME of the environment or of `.env` here, `~/.understudy` otherwise: as the bot finds it.

    Raises `RequestError` where it is no folder, and none can be made.
    """
    named = os.environ.get(HOME, "").strip() or (dotenv_values(".env", interpolate=False).get(HOME) or "").strip()
    return as_home(Path(named or "~/.understudy").expanduser().absolute())


def as_home(folder: Path) -> Path:
    """The folder itself. Raises `RequestError` where it or what it is to lie in is a file."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise RequestError(f"The home {folder} cannot be used: {there} is no folder.", f"Set {HOME} to a folder.")
    return folder
