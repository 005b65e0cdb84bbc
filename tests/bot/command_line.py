"""`python -m bot …` as somebody types it, in this process."""

from __future__ import annotations

import os
import sys
from typing import Any

from bot.cli import run


def typed(
    monkeypatch: Any,
    capsys: Any,
    home: Any,
    *words: str,
    program: str = "bot",
    **environment: str,
) -> tuple[int, str, str]:
    """Exit code, output and errors of a command over a home; the environment holds nothing else of
    ours.
    """
    for name in ("DISCORD_TOKEN", "TOP_P"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"UNDERSTUDY_HOME": str(home), "WEB_PORT": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [program, "--env", os.devnull, *words])
    code = run.main()
    return code, *capsys.readouterr()
