"""Runs the trainer as a process of its own and says how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pydantic import ValidationError

from bot.catalogue import Catalogue
from bot.clock import Clock
from bot.job_folder import dialogue_place, install_adapter, keep_job_held_out, write_job_folder
from bot.outcome import Interrupted, Outcome, Trained, TrainingFailed, disk_failure, judged
from bot.preview import Plan, plan_run
from bot.store import Job
from personas.base_model import Precision
from personas.compare import NOTHING, Compare
from personas.contracts import TRAINER_EVENT, Done, Failed, TrainerEvent, TrainingRequest
from personas.errors import RequestError, UnderstudyError

log = logging.getLogger(__name__)

OnEvent = Callable[[TrainerEvent], None]


class TrainingBackend(Protocol):
    """Where training happens. One run at a time."""

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the server's request could not be run here; changes nothing."""
        ...

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> Plan:
        """What a run would do; changes nothing. Raises an `UnderstudyError` where it could not be run."""
        ...

    async def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """Train to the end. A job that was run before, even to its end, may be run again."""
        ...

    def cancel(self) -> None:
        """Ask the run, if there is one, to stop; it then ends as `Interrupted`. May be called twice."""
        ...

    def hold(self, held: bool) -> None:
        """Whether this machine is needed for something else now: a run gives way for a while, and still gets on."""
        ...


TRAINER = (sys.executable, "-m", "trainer")
KILL_AFTER_S = 20.0
"""What a trainer has to stop by itself before it is killed."""

LOCKED = 3
"""The exit code where another trainer holds the folder."""

LOCK_TRIES = 30
LOCK_WAIT_S = 2.0
"""A trainer whose bot died stops by itself within seconds; until then its folder is locked."""

MAX_LINE_BYTES = 2**16

SECRET_NAME = re.compile(r"SECRET|PASSW|CREDENTIAL|(^|_)(TOKEN|KEY)S?(_|$)", re.IGNORECASE)
TRAINERS_OWN = {"HF_TOKEN"}
"""What looks like a secret and is still the trainer's business: a gated base model cannot be fetched without it."""


class SubprocessBackend:
    """Trains on this machine: job folder, `python -m trainer run`, verified adapter in its place."""

    def __init__(
        self,
        home: Path,
        catalogue: Catalogue,
        clock: Clock,
        *,
        threads: int,
        nice: int,
        serving_precision: Precision,
        environ: Mapping[str, str],
        secrets: Mapping[str, str] = MappingProxyType({}),
        command: Sequence[str] = TRAINER,
        compare: Callable[[Job], Compare] = lambda job: NOTHING,
        card: str = "full",
    ) -> None:
        """`environ` is what the trainer inherits, without secrets but for these; `run FOLDER …` follows `command`.

        `compare` says what a job's new version is compared with, `card` how much is measured of it.
        """
        self._home, self._catalogue, self._clock = home, catalogue, clock
        self._command = tuple(command)
        self._options = ("--threads", str(threads), "--nice", str(nice), "--card", card, "--stop-on-eof")
        self._precision, self._compare = serving_precision, compare
        self._environ = trainer_environment(environ, secrets)
        self._stop = asyncio.Event()
        self._held = False
        self._told: asyncio.StreamWriter | None = None

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the request names something unknown, not allowed, or taken."""
        self._catalogue.materials_for(request, guild_id)
        if request.persona is None and dialogue_place(self._home, request.job_name).exists():
            raise RequestError(
                f"There is a dialogue adapter named {request.job_name} already.", "Choose another job_name."
            )

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> Plan:
        """What a run would do, by the trainer's own word. Raises an `UnderstudyError` where it could not be run."""
        self.check(request, guild_id)
        materials = self._catalogue.materials_for(request, guild_id)
        environ = {**self._environ, "UNDERSTUDY_HOME": str(self._home)}
        return await plan_run(self._command, environ, self._home, request, materials, self._precision)

    async def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """Train to the end; every cause that a person can mend comes back as `TrainingFailed`."""
        self._stop.clear()
        try:
            folder = await self._folder_of(job)
            if isinstance(folder, TrainingFailed):
                return folder
            ended = await self._train(folder, on_event)
            return await self._installed(job, folder, ended) if isinstance(ended, Done) else ended
        except OSError as error:
            return disk_failure(error, self._home)

    async def _folder_of(self, job: Job) -> Path | TrainingFailed:
        """What was there when the job was asked for may be missing now, and be there again later."""
        try:
            materials = self._catalogue.materials_for(job.request, job.guild_id)
            of = (job, materials, self._precision, self._compare(job))
            return await asyncio.to_thread(write_job_folder, self._home, *of)
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice, can_resume=True)

    async def _installed(self, job: Job, folder: Path, ended: Done) -> Trained | TrainingFailed:
        try:
            await asyncio.to_thread(keep_job_held_out, self._home, job, folder)
            adapter, manifest = await asyncio.to_thread(install_adapter, self._home, job, folder)
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        return Trained(adapter, ended.seconds, manifest.metrics)

    def cancel(self) -> None:
        """SIGTERM now, SIGKILL after `KILL_AFTER_S`."""
        self._stop.set()

    def hold(self, held: bool) -> None:
        """Said to the trainer that runs, and to one that starts meanwhile."""
        self._held = held
        self._tell()

    def _tell(self) -> None:
        """It is a word on a pipe that nobody may read any more: nothing waits for it."""
        if self._told and not self._told.is_closing():
            self._told.write(b"hold\n" if self._held else b"go\n")

    async def _train(self, folder: Path, on_event: OnEvent) -> Done | TrainingFailed | Interrupted:
        for _ in range(LOCK_TRIES):
            if self._stop.is_set():
                return Interrupted()
            log_file = folder / "trainer.log"
            logged = log_file.stat().st_size if log_file.exists() else 0
            code, last = await self._run_process(folder, log_file, on_event)
            if code != LOCKED:
                return Interrupted() if self._stop.is_set() else judged(code, last, log_file, logged)
            await self._clock.sleep(LOCK_WAIT_S)
        return TrainingFailed(f"Another trainer works on {folder}.", "End it.", can_resume=True)

    async def _run_process(self, folder: Path, log_file: Path, on_event: OnEvent) -> tuple[int, Done | Failed | None]:
        """Exit code and last word of one trainer process, which does not outlive this call."""
        process = await self._spawn(folder, log_file)
        stopper = asyncio.create_task(self._stop_when_asked(process))
        self._told = process.stdin
        if self._held:
            self._tell()
        try:
            assert process.stdout is not None  # it is a pipe
            last = await _listen(process.stdout, on_event)
            return await process.wait(), last
        finally:
            stopper.cancel()
            self._told = None
            if process.returncode is None:
                _kill(process)
                await process.wait()

    async def _spawn(self, folder: Path, log_file: Path) -> asyncio.subprocess.Process:
        with log_file.open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *self._command,
                "run",
                str(folder),
                *self._options,
                stdin=asyncio.subprocess.PIPE,  # for `hold` and `go`; it ends when this process does, however that is
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=self._environ,
                limit=MAX_LINE_BYTES,
                process_group=0,  # Ctrl-C in the terminal is the bot's to handle. No session of its own: `--nice` would
                # say nothing then, as Linux shares the processor out among sessions before it looks at niceness.
            )

    async def _stop_when_asked(self, process: asyncio.subprocess.Process) -> None:
        await self._stop.wait()
        with suppress(ProcessLookupError):
            process.terminate()
        await self._clock.sleep(KILL_AFTER_S)
        _kill(process)


def trainer_environment(environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment without secrets but for these, and with this source tree on Python's path."""
    kept = {name: value for name, value in environ.items() if name in TRAINERS_OWN or not SECRET_NAME.search(name)}
    kept |= secrets
    root = str(Path(__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
    return kept


async def _listen(stdout: asyncio.StreamReader, on_event: OnEvent) -> Done | Failed | None:
    """Pass events on until the output ends. How it ended is given back, not passed on."""
    last = None
    while line := await _next_line(stdout):
        try:
            event = TRAINER_EVENT.validate_json(line)
        except ValidationError:
            log.warning("the trainer printed what is no event: %.200s", line.decode(errors="replace").rstrip())
            continue
        if isinstance(event, Done | Failed):
            last = event
        else:
            on_event(event)
    return last


async def _next_line(stdout: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return await stdout.readline()
        except ValueError:  # longer than the reader's limit; what was read of it has been dropped
            log.warning("the trainer printed a line of more than %d bytes", MAX_LINE_BYTES)


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
