"""The doctor's latest results, cached in the home because a full check takes half a minute."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.operations.doctor import local_checks, server_checks, trainer_check
from bot.operations.doctor.checks import BotCheck
from bot.settings import Settings
from personas.home.atomic_files import write_private_file
from personas.shipped_folders import SETUP_COMMAND

log = logging.getLogger(__name__)
CheckRunner = Callable[[str], Awaitable[list[BotCheck]]]  # runs the doctor for a base model


@dataclass(frozen=True)
class DoctorResults:
    """The results, when they were obtained (seconds since 1970), and for which base model."""

    at: float
    base_model: str
    checks: tuple[BotCheck, ...]


def local_check_runner(settings: Settings) -> CheckRunner:
    """Return a runner for the checks of this machine and its trainer; Discord is not checked
    again.
    """

    async def run_checks(base_model: str) -> list[BotCheck]:
        own = await asyncio.to_thread(lambda: list(local_checks.check_machine(settings)))
        servers = [
            *await server_checks.check_replicas(settings),
            *await server_checks.check_cluster(settings),
        ]
        return own + servers + await trainer_check.check_trainer(base_model, os.environ)

    return run_checks


class CachedDoctor:
    """Runs the doctor in the background, one run at a time. For the event loop."""

    def __init__(self, run_checks: CheckRunner) -> None:
        self.run_checks = run_checks
        self._run: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._run is not None and not self._run.done()

    def begin(self, home: Path, base_model: str) -> bool:
        """Start a full run. False where one is in progress."""
        if self.is_running:
            return False
        self._run = asyncio.create_task(self._run_and_store(home, base_model), name="doctor")
        return True

    async def latest(self, home: Path) -> DoctorResults | None:
        """Return the last results; None where there are none, or they cannot be read any more."""
        return await asyncio.to_thread(_read, _cache_file(home))

    async def close(self) -> None:
        if self._run:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)

    async def _run_and_store(self, home: Path, base_model: str) -> None:
        try:
            checks = await self.run_checks(base_model)
        except OSError as error:
            checks = [
                BotCheck("trainer", "fail", f"its doctor cannot be started: {error}", SETUP_COMMAND)
            ]
        results = {
            "at": time.time(),
            "base_model": base_model,
            "checks": [asdict(check) for check in checks],
        }
        await asyncio.to_thread(_write, _cache_file(home), results)


def _cache_file(home: Path) -> Path:
    return home / "cache" / "doctor.json"


def _read(file: Path) -> DoctorResults | None:
    try:
        stored = json.loads(file.read_bytes())
        return DoctorResults(
            stored["at"],
            stored["base_model"],
            tuple(BotCheck(**check) for check in stored["checks"]),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(file: Path, results: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private_file(file, json.dumps(results, ensure_ascii=False).encode())
    except OSError as error:
        log.warning("the doctor's results cannot be stored: %s", error)
