"""What the doctor found last, kept in the home: it takes half a minute and all of the processor to ask it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.doctor import here, trainers
from bot.doctor.check import Check
from bot.settings import Settings

log = logging.getLogger(__name__)

Ask = Callable[[str], Awaitable[list[Check]]]
"""Asks the doctor over a base model."""


@dataclass(frozen=True)
class Findings:
    """What was found, when (seconds since 1970), and over which base model."""

    at: float
    base_model: str
    checks: tuple[Check, ...]


def all_here(settings: Settings) -> Ask:
    """Asks for what the bot needs of this machine, then for what this machine can train. Discord is not asked again."""

    async def ask(base_model: str) -> list[Check]:
        own = await asyncio.to_thread(lambda: list(here.checks(settings)))
        return own + await trainers.checks(base_model, os.environ)

    return ask


class KeptFindings:
    """Asks in the background, one at a time. To be used on the event loop."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether the doctor is looking just now."""
        return self._asking is not None and not self._asking.done()

    def begin(self, home: Path, base_model: str) -> bool:
        """Have it look at everything. False where it does so already."""
        if self.is_asking:
            return False
        self._asking = asyncio.create_task(self._look(home, base_model), name="doctor")
        return True

    async def latest(self, home: Path) -> Findings | None:
        """What was found last; None where nothing was, or where it cannot be read any more."""
        return await asyncio.to_thread(_read, _file(home))

    async def close(self) -> None:
        """End a look that is under way."""
        if self._asking:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _look(self, home: Path, base_model: str) -> None:
        try:
            checks = await self.ask(base_model)
        except OSError as error:
            checks = [Check("trainer", "fail", f"its doctor cannot be started: {error}", "make setup")]
        found = {"at": time.time(), "base_model": base_model, "checks": [asdict(check) for check in checks]}
        await asyncio.to_thread(_write, _file(home), found)


def _file(home: Path) -> Path:
    return home / "cache" / "doctor.json"


def _read(file: Path) -> Findings | None:
    try:
        told = json.loads(file.read_bytes())
        return Findings(told["at"], told["base_model"], tuple(Check(**check) for check in told["checks"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(file: Path, found: dict[str, Any]) -> None:
    aside = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        log.warning("what the doctor found cannot be kept: %s", error)
