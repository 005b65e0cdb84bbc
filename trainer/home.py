"""The bot's home, as the commands find it: where the key of pseudonyms lies, and what members have allowed."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

HOME = "UNDERSTUDY_HOME"


def home() -> Path:
    """UNDERSTUDY_HOME of the environment or of `.env` here, `~/.understudy` otherwise: as the bot finds it."""
    named = os.environ.get(HOME, "").strip() or (dotenv_values(".env", interpolate=False).get(HOME) or "").strip()
    return Path(named or "~/.understudy").expanduser().absolute()
