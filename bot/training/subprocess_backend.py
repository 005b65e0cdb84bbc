"""Runs the trainer as a subprocess and classifies how the run ended."""

import asyncio
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Required, TypedDict, Unpack

import psutil
from pydantic import ValidationError

from bot.platform.clock import Clock
from bot.store import TrainingJob
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import (
    OnEvent,
    RunResult,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.training_plan import RunLimits, RunWatch, TrainingPlan, plan_run
from personas.errors import (
    AdapterError,
    ErasedMeanwhileError,
    ErasureRunningError,
    RequestError,
    RunLimitError,
    UnderstudyError,
)
from personas.home.adapters import (
    adapter_ref,
    dialogue_adapter_folder,
    install_adapter_folder,
    read_epochs,
    verify_adapter,
)
from personas.home.data_subjects import ErasureFence, Storing
from personas.home.job_folder import (
    ADAPTER_FOLDER,
    NO_COMPARISON,
    TRAINER_LOG_FILE,
    ComparisonTargets,
    ensure_job_folder,
    find_trainer,
    limit_log,
    store_new_holdout,
    write_comparison_targets,
)
from personas.home.job_material import SourceMaterial
from personas.schemas.training import AdapterManifest, ServingPrecision, TrainingRequest
from personas.schemas.training_events import (
    TRAINER_EVENT,
    Done,
    Estimate,
    Failed,
    Heartbeat,
    PauseDemand,
    Phase,
    TrainerEvent,
)

SIGTERM_EXIT_CODES = (143, -signal.SIGTERM)
SIGKILL_EXIT_CODES = (137, -signal.SIGKILL)
"""Exit codes of a stopped and of a killed trainer. Negative ones are asyncio's for a signal."""
TAIL_BYTES = 4096
TAIL_LINES = 5
log = logging.getLogger(__name__)
TRAINER_COMMAND = (sys.executable, "-m", "trainer")
KILL_TIMEOUT_S = 20.0
"""Time in which a trainer has to stop before it is killed."""
DEATH_TIMEOUT_S = 30.0
"""Time in which a killed trainer has to end; one that waits for a broken disk or device may never
do.
"""
EXIT_POLL_INTERVAL_S = 0.1
WATCH_INTERVAL_S = 5.0
OUTPUT_TIMEOUT_S = 5.0
"""Time in which the output has to end after the trainer: another process may keep it open."""
LOCKED_EXIT_CODE = 3
"""Exit code when another trainer holds the folder."""
MAX_LOCK_ATTEMPTS = 30
LOCK_RETRY_DELAY_S = 2.0
"""A trainer whose bot died stops within seconds; until then its folder is locked."""
ERASURE_POLL_INTERVAL_S = 1.0
ERASURE_TEXT = "A member is being erased; it begins afterwards."
MAX_LINE_BYTES = 2**16
MAX_LOGGED_LINES = 20
"""Invalid lines of a run that are logged."""
LINES_PER_PAUSE, FLOOD_PAUSE_S = 100, 0.01
"""Pauses while output is read, so that a trainer that floods it does not stop the bot."""
SECRET_NAME_PATTERN = re.compile(r"SECRET|PASSW|CREDENTIAL|(^|_)(TOKEN|KEY)S?(_|$)", re.IGNORECASE)
TRAINER_SECRETS = {"HF_TOKEN"}
"""Secrets that the trainer needs: gated base models cannot be fetched without this one."""


def write_job_folder(
    home: Path,
    job: TrainingJob,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
    compare: ComparisonTargets = NO_COMPARISON,
    storing: Storing = nullcontext,
) -> Path:
    """Write the folder of a job, with today's consent, holdout and live versions; an earlier
    attempt's is used again.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or holdout cannot be read.
    """
    folder = home / "jobs" / job.job_id
    ensure_job_folder(
        folder, home, job.job_id, job.version, job.request, materials, precision, storing
    )
    write_comparison_targets(folder, compare)
    return folder


def install_adapter(home: Path, job: TrainingJob, folder: Path) -> tuple[Path, AdapterManifest]:
    """Install a finished job's adapter and return its folder; idempotent. Raises `AdapterError` and
    `OSError`.
    """
    manifest = verify_adapter(folder / ADAPTER_FOLDER)
    if (manifest.job_id, manifest.version, manifest.persona) != (
        job.job_id,
        job.version,
        job.persona,
    ):
        raise AdapterError(
            f"The adapter in {folder} is not of this job but of {manifest.job_id}.",
            "Train it again.",
        )
    path = adapter_path(home, job)
    return path, install_adapter_folder(folder / ADAPTER_FOLDER, path)


def adapter_path(home: Path, job: TrainingJob) -> Path:
    """Folder of a job's adapter: with its persona's versions, or under a dialogue job's name."""
    if job.persona:
        return adapter_ref(home, job.persona, job.version).folder
    return dialogue_adapter_folder(home, job.request.job_name)


def classify_exit(
    code: int, last: Done | Failed | None, log_file: Path, logged: int
) -> Done | TrainingFailed | TrainingInterrupted:
    """Classify the exit of a trainer process. `logged` is the log's size in bytes before it
    began.
    """
    if isinstance(last, Done):
        return last
    if code in SIGTERM_EXIT_CODES:
        return TrainingInterrupted()
    if last:
        return TrainingFailed(last.cause, last.advice, last.retry)
    if code in SIGKILL_EXIT_CODES:
        return TrainingInterrupted(
            "The trainer was killed (signal 9), probably because memory ran out.",
            "Free memory on the bot's machine.",
        )
    return TrainingFailed(
        f"The trainer ended without a result (exit code {code}). "
        f"{_log_tail(log_file, logged)}".rstrip(),
        f"The whole log is {log_file}.",
    )


def disk_failure(error: OSError, home: Path) -> TrainingFailed:
    """Describe a disk that is full or cannot be written while the bot handles a run's files."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return TrainingFailed(
        f"The job's files cannot be written: {error.strerror}.",
        f"Free disk space under {home}." if full else f"Check the rights of {home}.",
        can_resume=True,
    )


def _log_tail(log_file: Path, since: int) -> str:
    with log_file.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(since if since <= end else 0, end - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    last = [line.strip() for line in lines if line.strip()][-TAIL_LINES:]
    return f"Its last lines: {' | '.join(last)}" if last else "It logged nothing."


def compare_with_nothing(job: TrainingJob) -> ComparisonTargets:
    """Return no versions to compare a job's with."""
    return NO_COMPARISON


class JobFolderOptions(TypedDict, total=False):
    """Options of all backends. `environ` is for trainers on this machine, without secrets except
    `secrets`.

    `compare` returns the versions to compare a job's new one with. Runs beyond the `limits` are
    ended.
    """

    serving_precision: Required[ServingPrecision]
    environ: Required[Mapping[str, str]]
    secrets: Mapping[str, str]
    command: Sequence[str]
    compare: Callable[[TrainingJob], ComparisonTargets]
    limits: RunLimits


class JobFolderBackend:
    """Base of all backends: checks and plans requests, writes job folders, installs verified
    adapters.
    """

    def __init__(
        self, home: Path, catalogue: DatasetCatalog, **options: Unpack[JobFolderOptions]
    ) -> None:
        self._home = home
        self._catalogue = catalogue
        self._command = tuple(options.get("command", TRAINER_COMMAND))
        self._precision = options["serving_precision"]
        self._compare = options.get("compare", compare_with_nothing)
        self._limits = options.get("limits", RunLimits())
        self._environ = trainer_environment(options["environ"], options.get("secrets", {}))
        self._installing = asyncio.Lock()

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the request names something unknown, not allowed, or
        taken.
        """
        self._catalogue.check(request, guild_id)
        if (
            request.persona is None
            and dialogue_adapter_folder(self._home, request.job_name).exists()
        ):
            raise RequestError(
                f"There is a dialogue adapter named {request.job_name} already.",
                "Choose another job_name.",
            )

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run with the trainer of this machine. Raises an `UnderstudyError` where it could
        not be run.
        """
        self.check(request, guild_id)
        materials = await asyncio.to_thread(self._catalogue.materials_for, request, guild_id)
        environ = {**self._environ, "UNDERSTUDY_HOME": str(self._home)}
        return await plan_run(
            self._command, environ, self._home, request, materials, self._precision
        )

    async def _prepare_folder(
        self, job: TrainingJob, pause: Callable[[], Awaitable[object]]
    ) -> Path | TrainingFailed | TrainingInterrupted:
        """Write the job folder; fails, resumably, where inputs are missing now.

        Waits while a member is erased, which may take long: until `pause` returns true, for a run
        to be stopped.
        """
        while True:
            try:
                fence = await asyncio.to_thread(ErasureFence.begin, self._home, 0.0)
                materials = await asyncio.to_thread(
                    self._catalogue.materials_for, job.request, job.guild_id
                )
                inputs = (job, materials, self._precision, self._compare(job), fence.storing)
                return await asyncio.to_thread(write_job_folder, self._home, *inputs)
            except ErasureRunningError:
                if await pause():
                    return TrainingInterrupted()
            except ErasedMeanwhileError:
                log.info(
                    "job %s: its material is gathered again, without a member who was erased",
                    job.job_id,
                )
            except UnderstudyError as error:
                return TrainingFailed(error.message, error.advice, can_resume=True)

    async def _install(
        self, job: TrainingJob, folder: Path, ended: Done
    ) -> TrainingSucceeded | TrainingFailed:
        try:
            async with (
                self._installing
            ):  # two runs of a persona may end at once, and extend one hold-out index
                await asyncio.to_thread(store_new_holdout, self._home, job.persona, folder)
            adapter, manifest = await asyncio.to_thread(install_adapter, self._home, job, folder)
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        return TrainingSucceeded(adapter, ended.seconds, manifest.metrics, read_epochs(adapter))


class SubprocessBackend(JobFolderBackend):
    """Trains on this machine: runs `python -m trainer run` on the job folder."""

    slots = 1

    def __init__(
        self,
        home: Path,
        catalogue: DatasetCatalog,
        clock: Clock,
        *,
        threads: int,
        nice: int,
        card: str = "full",
        **options: Unpack[JobFolderOptions],
    ) -> None:
        """`card` is the extent of a new version's score card; `run FOLDER …` follows the
        command.
        """
        super().__init__(home, catalogue, **options)
        self._clock = clock
        self._options = (
            "--threads",
            str(threads),
            "--nice",
            str(nice),
            "--card",
            card,
            "--stop-on-eof",
        )
        self._stop = asyncio.Event()
        self._job_id = ""
        self._demand: PauseDemand = "go"
        self._stdin: asyncio.StreamWriter | None = None

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; every fixable failure is returned as `TrainingFailed`."""
        self._stop.clear()
        self._job_id = job.job_id
        try:
            folder = await self._prepare_folder(job, lambda: self._pause_for_erasure(on_event))
            if not isinstance(folder, Path):
                return folder
            ended = await self._train(job, folder, on_event)
            return await self._install(job, folder, ended) if isinstance(ended, Done) else ended
        except RunLimitError as error:
            return TrainingFailed(error.message, error.advice, can_resume=True)
        except OSError as error:
            return disk_failure(error, self._home)

    async def _pause_for_erasure(self, on_event: OnEvent) -> bool:
        on_event(Phase(name="material", detail=ERASURE_TEXT))
        await _wait_until(self._stop.is_set, ERASURE_POLL_INTERVAL_S)
        return self._stop.is_set()

    def cancel(self, job_id: str) -> None:
        """SIGTERM now, SIGKILL after `KILL_TIMEOUT_S`; does nothing for another job than the
        running one.
        """
        if job_id == self._job_id:
            self._stop.set()

    def detach(self) -> None:
        """Stop the trainer: it could not outlive the bot."""
        self._stop.set()

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """None: a trainer ends with the bot."""
        return ()

    def hold(self, demand: PauseDemand) -> None:
        """Pause or continue the running trainer, and one that starts meanwhile."""
        self._demand = demand
        if (
            self._stdin and not self._stdin.is_closing()
        ):  # not drained: the trainer may not read any more
            self._stdin.write(f"{self._demand}\n".encode())

    async def _train(
        self, job: TrainingJob, folder: Path, on_event: OnEvent
    ) -> Done | TrainingFailed | TrainingInterrupted:
        for _ in range(MAX_LOCK_ATTEMPTS):
            await self._end_orphan(folder)
            if self._stop.is_set():
                return TrainingInterrupted()
            log_file = folder / TRAINER_LOG_FILE
            logged = log_file.stat().st_size if log_file.exists() else 0
            events = EventReader(RunWatch(self._limits, job.guild_id), log_file, on_event)
            code = await self._run_process(folder, log_file, events)
            if code != LOCKED_EXIT_CODE:
                final = events.final
                return (
                    TrainingInterrupted()
                    if self._stop.is_set()
                    else classify_exit(code, final, log_file, logged)
                )
            await self._clock.sleep(LOCK_RETRY_DELAY_S)
        return TrainingFailed(f"Another trainer works on {folder}.", "End it.", can_resume=True)

    async def _end_orphan(self, folder: Path) -> None:
        """End the trainer of a bot that was killed, if it is in a long step: until then it holds
        the folder's lock.
        """
        orphan = await asyncio.to_thread(find_trainer, folder)
        if orphan is None:
            return
        log.warning(
            "the trainer %d of a bot that was killed still works on %s: it is ended",
            orphan.pid,
            folder,
        )
        for number, timeout_s in (
            (signal.SIGTERM, KILL_TIMEOUT_S),
            (signal.SIGKILL, DEATH_TIMEOUT_S),
        ):
            with suppress(ProcessLookupError):
                if os.getpgid(orphan.pid) == orphan.pid:
                    signal_group(orphan.pid, number)
                else:  # started by hand
                    os.kill(orphan.pid, number)
            await _wait_until(lambda: self._stop.is_set() or not orphan.is_running, timeout_s)
            if not orphan.is_running:
                return

    async def _run_process(self, folder: Path, log_file: Path, events: "EventReader") -> int:
        """Return the exit code of a trainer process, which does not outlive this call. Raises
        `RunLimitError`.
        """
        process = await self._spawn(folder, log_file)
        assert process.stdout is not None  # it is a pipe
        reading = asyncio.create_task(events.read(process.stdout))
        self._stdin = process.stdin
        if self._demand != "go":
            self.hold(self._demand)
        try:
            code = await self._wait_for_exit(process, reading, events.watch, log_file)
            signal_group(process.pid, signal.SIGKILL)  # what it started and left
            await asyncio.wait({reading}, timeout=OUTPUT_TIMEOUT_S)
            if reading.done():
                reading.result()
            return code
        finally:
            self._stdin = None
            reading.cancel()
            if process.returncode is None:
                signal_group(process.pid, signal.SIGKILL)
            await _wait_until(lambda: process.returncode is not None, DEATH_TIMEOUT_S)
            process._transport.close()  # type: ignore[attr-defined]  # others may hold its pipes; there is no other way

    async def _wait_for_exit(
        self,
        process: asyncio.subprocess.Process,
        reading: asyncio.Task[None],
        watch: RunWatch,
        log_file: Path,
    ) -> int:
        """Wait for the exit, which is enforced when the run is cancelled or beyond its limits:
        `RunLimitError`.
        """
        ending: asyncio.Task[None] | None = None
        limit: RunLimitError | None = None
        looked_at = time.monotonic()
        while (
            process.returncode is None
        ):  # `wait` also waits for others that hold the output, in some Pythons
            await asyncio.sleep(EXIT_POLL_INTERVAL_S)
            if reading.done():
                reading.result()  # raises what a listener raised
            if ending is None and time.monotonic() - looked_at >= WATCH_INTERVAL_S:
                limit = await self._exceeded_limit(process, watch, log_file)
                looked_at = time.monotonic()
            if ending is None and (limit or self._stop.is_set()):
                ending = asyncio.create_task(self._end_process(process.pid))
            if ending and ending.done() and process.returncode is None:
                raise RunLimitError(
                    f"The trainer (process {process.pid}) does not end, even when killed.",
                    "It waits for a disk or device: restart the machine, then resume the job.",
                )
        if ending:
            ending.cancel()
        if limit:
            raise limit
        return process.returncode

    async def _exceeded_limit(
        self, process: asyncio.subprocess.Process, watch: RunWatch, log_file: Path
    ) -> RunLimitError | None:
        try:
            watch.require_time()
            await asyncio.to_thread(limit_log, log_file)
            held_bytes = await asyncio.to_thread(_held_bytes, process.pid)
            await asyncio.to_thread(watch.require_resources, self._home, held_bytes)
        except RunLimitError as error:
            log.warning("%s", error)
            return error
        return None

    async def _end_process(self, pid: int) -> None:
        """SIGTERM for the group, then SIGKILL; returns when it should have ended."""
        signal_group(pid, signal.SIGTERM)
        await self._clock.sleep(KILL_TIMEOUT_S)
        signal_group(pid, signal.SIGKILL)
        await asyncio.sleep(DEATH_TIMEOUT_S)

    async def _spawn(self, folder: Path, log_file: Path) -> asyncio.subprocess.Process:
        with log_file.open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *self._command,
                "run",
                str(folder),
                *self._options,
                stdin=asyncio.subprocess.PIPE,  # for `hold` and `go`; it closes with this process
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=self._environ,
                limit=MAX_LINE_BYTES,
                # The bot handles Ctrl-C. No new session: Linux schedules sessions before niceness.
                process_group=0,
            )


def trainer_environment(environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment without secrets except these, and with this source tree on Python's path."""
    names = [
        name for name in environ if name in TRAINER_SECRETS or not SECRET_NAME_PATTERN.search(name)
    ]
    root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
    return {name: environ[name] for name in names} | dict(secrets) | {"PYTHONPATH": python_path}


class EventReader:
    """Reads a trainer's output, and keeps its log short. `final` is the event with the run's end,
    None before it.
    """

    def __init__(self, watch: RunWatch, log_file: Path, on_event: OnEvent) -> None:
        self.watch = watch
        self._log_file = log_file
        self._on_event = on_event
        self.final: Done | Failed | None = None
        self._lines = self._invalid_lines = 0

    async def read(self, stdout: asyncio.StreamReader) -> None:
        """Pass events on until the output ends, except the final one and those for the watch."""
        while line := await self._next_line(stdout):
            self._lines += 1
            await asyncio.sleep(0 if self._lines % LINES_PER_PAUSE else FLOOD_PAUSE_S)
            event = parse_event(line, is_logged=self._invalid_lines < MAX_LOGGED_LINES)
            if event is None:
                self._invalid_lines += 1
                continue
            self.watch.note(event)
            limit_log(self._log_file)
            if isinstance(event, Done | Failed):
                self.final = event
            elif not isinstance(event, Estimate | Heartbeat):
                self._on_event(event)

    async def _next_line(self, stdout: asyncio.StreamReader) -> bytes:
        while True:
            try:
                return await stdout.readline()
            except ValueError:  # longer than the reader's limit, which has dropped what it read
                self._invalid_lines += 1
                if self._invalid_lines < MAX_LOGGED_LINES:
                    log.warning("the trainer printed a line of more than %d bytes", MAX_LINE_BYTES)


def parse_event(line: bytes, *, is_logged: bool = True) -> TrainerEvent | None:
    """Parse a line that the trainer printed; an invalid one is logged, and None is returned."""
    try:
        return TRAINER_EVENT.validate_json(line)
    except ValidationError:
        if is_logged:
            log.warning(
                "the trainer printed an invalid event: %.200s",
                line.decode(errors="replace").rstrip(),
            )
        return None


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process's group; does nothing if it has none left."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
        os.killpg(pid, number)


def _held_bytes(pid: int) -> int:
    """Return the memory of a process and of those that it started; 0 once one of them has ended
    meanwhile.
    """
    try:
        process = psutil.Process(pid)
        return sum(int(it.memory_info().rss) for it in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


async def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  a process is waited for
        await asyncio.sleep(EXIT_POLL_INTERVAL_S)
