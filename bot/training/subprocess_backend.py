"""Runs the trainer as a subprocess and classifies how the run ended."""

import asyncio
import errno
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Required, TypedDict, Unpack

from pydantic import ValidationError

from bot.clock import Clock
from bot.personas.card_import import IMPORT_JOB_NAME, RequestOrigin, install_foreign_adapter
from bot.store import Store, TrainingJob
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.training_plan import TrainingPlan, plan_run
from personas.errors import AdapterError, RequestError, UnderstudyError
from personas.home.adapters import (
    adapter_ref,
    dialogue_adapter_folder,
    install_adapter_folder,
    read_epochs,
    verify_adapter,
)
from personas.home.job_folder import (
    ADAPTER_FOLDER,
    NO_COMPARISON,
    TRAINER_LOG_FILE,
    ComparisonTargets,
    ensure_job_folder,
    limit_log,
    store_new_holdout,
    write_comparison_targets,
)
from personas.home.job_material import SourceMaterial
from personas.models.base_model import locate
from personas.schemas.training import AdapterManifest, ServingPrecision, TrainingRequest
from personas.schemas.training_events import TRAINER_EVENT, Done, Epoch, Failed, ScoreSummary, TrainerEvent

SIGTERM_EXIT_CODES = (143, -signal.SIGTERM)
SIGKILL_EXIT_CODES = (137, -signal.SIGKILL)
"""Exit codes of a stopped and of a killed trainer. Negative ones are asyncio's for a signal."""
TAIL_BYTES, TAIL_LINES = 4096, 5
log = logging.getLogger(__name__)
OnEvent = Callable[[TrainerEvent], None]
TRAINER_COMMAND = (sys.executable, "-m", "trainer")
KILL_TIMEOUT_S = 20.0
"""Time in which a trainer has to stop before it is killed."""
IMPORT_TIMEOUT_S = 600.0
PROGRESS_MARK = "… "
"""Start of the lines on standard error that report progress."""
LOCKED_EXIT_CODE = 3
"""Exit code when another trainer holds the folder."""
MAX_LOCK_ATTEMPTS = 30
LOCK_RETRY_DELAY_S = 2.0
"""A trainer whose bot died stops within seconds; until then its folder is locked."""
MAX_LINE_BYTES = 2**16
SECRET_NAME_PATTERN = re.compile(r"SECRET|PASSW|CREDENTIAL|(^|_)(TOKEN|KEY)S?(_|$)", re.IGNORECASE)
TRAINER_SECRETS = {"HF_TOKEN"}
"""Secrets that the trainer needs: gated base models cannot be fetched without this one."""


def write_job_folder(
    home: Path,
    job: TrainingJob,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
    compare: ComparisonTargets = NO_COMPARISON,
) -> Path:
    """Write the folder of a job, with today's consent, holdout and live versions; an earlier attempt's is used again.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or holdout cannot be read.
    """
    folder = home / "jobs" / job.job_id
    ensure_job_folder(folder, home, job.job_id, job.version, job.request, materials, precision)
    write_comparison_targets(folder, compare)
    return folder


def install_adapter(home: Path, job: TrainingJob, folder: Path) -> tuple[Path, AdapterManifest]:
    """Install a finished job's adapter and return its folder; idempotent. Raises `AdapterError` and `OSError`."""
    manifest = verify_adapter(folder / ADAPTER_FOLDER)
    if (manifest.job_id, manifest.version, manifest.persona) != (job.job_id, job.version, job.persona):
        raise AdapterError(f"The adapter in {folder} is not of this job but of {manifest.job_id}.", "Train it again.")
    path = adapter_path(home, job)
    return path, install_adapter_folder(folder / ADAPTER_FOLDER, path)


def adapter_path(home: Path, job: TrainingJob) -> Path:
    """Folder of a job's adapter: with its persona's versions, or under a dialogue job's name."""
    if job.persona:
        return adapter_ref(home, job.persona, job.version).folder
    return dialogue_adapter_folder(home, job.request.job_name)


@dataclass(frozen=True)
class TrainingSucceeded:
    """The adapter is verified and installed. `seconds` is the run's duration."""

    adapter: Path
    seconds: float
    scorecard: ScoreSummary
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class TrainingFailed:
    """The run ended without an adapter. `can_resume`: once the cause is fixed, the job can be resumed."""

    error: str
    advice: str = ""
    can_resume: bool = False


@dataclass(frozen=True)
class TrainingInterrupted:
    """The run was stopped before its end and can be run again; `why` and `advice` are for when it cannot."""

    why: str = ""
    advice: str = ""


RunResult = TrainingSucceeded | TrainingFailed | TrainingInterrupted


def classify_exit(
    code: int, last: Done | Failed | None, log_file: Path, logged: int
) -> Done | TrainingFailed | TrainingInterrupted:
    """Classify the exit of a trainer process. `logged` is the log's size in bytes before it began."""
    if isinstance(last, Done):
        return last
    if code in SIGTERM_EXIT_CODES:
        return TrainingInterrupted()
    if last:
        return TrainingFailed(last.cause, last.advice, last.retry)
    if code in SIGKILL_EXIT_CODES:
        return TrainingInterrupted(
            "The trainer was killed (signal 9), probably because memory ran out.", "Free memory on the bot's machine."
        )
    return TrainingFailed(
        f"The trainer ended without a result (exit code {code}). {_log_tail(log_file, logged)}".rstrip(),
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


class TrainingBackend(Protocol):
    """Backend that runs trainings."""

    slots: int
    """Number of runs at once."""

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the server's request could not be run here; changes nothing."""
        ...

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run; changes nothing. Raises an `UnderstudyError` where it could not be run."""
        ...

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end. A job that was run before, even to the end, may be run again.

        A run of this attempt that still goes on, because the bot was restarted, is followed instead.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job's run, if there is one; it ends as `TrainingInterrupted`. May be called twice."""
        ...

    def detach(self) -> None:
        """Leave all runs, because the bot ends: each `run` returns `TrainingInterrupted`.

        A trainer on this machine stops; one elsewhere goes on and is found again by the next `run` of its attempt.
        """
        ...

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """Return which of these jobs' runs may have outlived the bot; end all others that did.

        To be called once before `run`, with the jobs that were running when the bot ended.
        """
        ...

    def hold(self, held: bool) -> None:
        """Pause or continue the runs while replies are generated; a paused run still makes progress."""
        ...


def compare_with_nothing(job: TrainingJob) -> ComparisonTargets:
    """Return no versions to compare a job's with."""
    return NO_COMPARISON


class JobFolderOptions(TypedDict, total=False):
    """Options of all backends. `environ` is for trainers on this machine, without secrets except `secrets`.

    `compare` returns the versions to compare a job's new one with.
    """

    serving_precision: Required[ServingPrecision]
    environ: Required[Mapping[str, str]]
    secrets: Mapping[str, str]
    command: Sequence[str]
    compare: Callable[[TrainingJob], ComparisonTargets]


class JobFolderBackend:
    """Base of all backends: checks and plans requests, writes job folders, installs verified adapters."""

    def __init__(self, home: Path, catalogue: DatasetCatalog, **options: Unpack[JobFolderOptions]) -> None:
        self._home, self._catalogue = home, catalogue
        self._command = tuple(options.get("command", TRAINER_COMMAND))
        self._precision = options["serving_precision"]
        self._compare = options.get("compare", compare_with_nothing)
        self._environ = trainer_environment(options["environ"], options.get("secrets", {}))
        self._installing = asyncio.Lock()

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the request names something unknown, not allowed, or taken."""
        self._catalogue.check(request, guild_id)
        if request.persona is None and dialogue_adapter_folder(self._home, request.job_name).exists():
            raise RequestError(
                f"There is a dialogue adapter named {request.job_name} already.", "Choose another job_name."
            )

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run with the trainer of this machine. Raises an `UnderstudyError` where it could not be run."""
        self.check(request, guild_id)
        materials = await asyncio.to_thread(self._catalogue.materials_for, request, guild_id)
        environ = {**self._environ, "UNDERSTUDY_HOME": str(self._home)}
        return await plan_run(self._command, environ, self._home, request, materials, self._precision)

    async def _prepare_folder(self, job: TrainingJob) -> Path | TrainingFailed:
        """Write the job folder; fails, resumably, where inputs are missing now."""
        try:
            materials = await asyncio.to_thread(self._catalogue.materials_for, job.request, job.guild_id)
            inputs = (job, materials, self._precision, self._compare(job))
            return await asyncio.to_thread(write_job_folder, self._home, *inputs)
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice, can_resume=True)

    async def _install(self, job: TrainingJob, folder: Path, ended: Done) -> TrainingSucceeded | TrainingFailed:
        try:
            async with self._installing:  # two runs of a persona may end at once, and extend one hold-out index
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
        """`card` is the extent of a new version's score card; `run FOLDER …` follows the command."""
        super().__init__(home, catalogue, **options)
        self._clock = clock
        self._options = ("--threads", str(threads), "--nice", str(nice), "--card", card, "--stop-on-eof")
        self._stop = asyncio.Event()
        self._job_id = ""
        self._held = False
        self._stdin: asyncio.StreamWriter | None = None

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; every fixable failure is returned as `TrainingFailed`."""
        self._stop.clear()
        self._job_id = job.job_id
        try:
            folder = await self._prepare_folder(job)
            if isinstance(folder, TrainingFailed):
                return folder
            ended = await self._train(folder, on_event)
            return await self._install(job, folder, ended) if isinstance(ended, Done) else ended
        except OSError as error:
            return disk_failure(error, self._home)

    def cancel(self, job_id: str) -> None:
        """SIGTERM now, SIGKILL after `KILL_TIMEOUT_S`; does nothing for another job than the running one."""
        if job_id == self._job_id:
            self._stop.set()

    def detach(self) -> None:
        """Stop the trainer: it could not outlive the bot."""
        self._stop.set()

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """None: a trainer ends with the bot."""
        return ()

    def hold(self, held: bool) -> None:
        """Pause or continue the running trainer, and one that starts meanwhile."""
        self._held = held
        self._send_hold()

    def _send_hold(self) -> None:
        if self._stdin and not self._stdin.is_closing():  # not drained: the trainer may not read any more
            self._stdin.write(b"hold\n" if self._held else b"go\n")

    async def _train(self, folder: Path, on_event: OnEvent) -> Done | TrainingFailed | TrainingInterrupted:
        for _ in range(MAX_LOCK_ATTEMPTS):
            if self._stop.is_set():
                return TrainingInterrupted()
            log_file = folder / TRAINER_LOG_FILE
            logged = log_file.stat().st_size if log_file.exists() else 0
            code, last = await self._run_process(folder, log_file, on_event)
            if code != LOCKED_EXIT_CODE:
                return TrainingInterrupted() if self._stop.is_set() else classify_exit(code, last, log_file, logged)
            await self._clock.sleep(LOCK_RETRY_DELAY_S)
        return TrainingFailed(f"Another trainer works on {folder}.", "End it.", can_resume=True)

    async def _run_process(self, folder: Path, log_file: Path, on_event: OnEvent) -> tuple[int, Done | Failed | None]:
        """Return exit code and last event of a trainer process, which does not outlive this call."""
        process = await self._spawn(folder, log_file)
        stopper = asyncio.create_task(self._stop_when_requested(process))
        self._stdin = process.stdin
        if self._held:
            self._send_hold()
        try:
            assert process.stdout is not None  # it is a pipe
            last = await _read_events(process.stdout, on_event, log_file)
            return await process.wait(), last
        finally:
            stopper.cancel()
            self._stdin = None
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
                stdin=asyncio.subprocess.PIPE,  # for `hold` and `go`; it closes with this process
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=self._environ,
                limit=MAX_LINE_BYTES,
                process_group=0,  # the bot handles Ctrl-C. No new session: Linux schedules sessions before niceness.
            )

    async def _stop_when_requested(self, process: asyncio.subprocess.Process) -> None:
        await self._stop.wait()
        with suppress(ProcessLookupError):
            process.terminate()
        await self._clock.sleep(KILL_TIMEOUT_S)
        _kill(process)


def trainer_environment(environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The environment without secrets except these, and with this source tree on Python's path."""
    names = [name for name in environ if name in TRAINER_SECRETS or not SECRET_NAME_PATTERN.search(name)]
    root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
    return {name: environ[name] for name in names} | dict(secrets) | {"PYTHONPATH": python_path}


async def import_adapter_version(
    home: Path,
    store: Store,
    base_model: str,
    origin: RequestOrigin,
    persona_id: str,
    source: str,
    say: Callable[[str], None],
) -> tuple[str, list[str], TrainingJob | None]:
    """Install an adapter from outside, fetched and checked by `trainer import`, as a persona's next version.

    Returns the version, notes, and the job that stands for the installation. Cancelling it ends the process; what was
    downloaded is kept. Raises `AdapterError`, `BaseModelError` and `OSError`.
    """
    served = await asyncio.to_thread(locate, base_model, fetch=False)
    with tempfile.TemporaryDirectory(prefix="understudy-adapter-") as scratch:
        folder = Path(scratch) / "adapter"
        await _run_import(source, folder, served.name, say)
        manifest = await asyncio.to_thread(verify_adapter, folder)
        request = TrainingRequest(job_name=IMPORT_JOB_NAME, base_model=base_model, persona=persona_id)
        name = f"The adapter of {manifest.source.name}" if manifest.source else "The adapter"
        version, note, job = await install_foreign_adapter(home, store, origin, request, folder, name)
    return version, [note, *manifest.caveats], job


async def _run_import(source: str, out: Path, base_model: str, say: Callable[[str], None]) -> None:
    """Run `trainer import` to its end. Raises `AdapterError` with its message."""
    command = [*TRAINER_COMMAND, "import", f"--adapter={source}", "--out", str(out), f"--base-model={base_model}"]
    quiet, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=quiet, stdout=quiet, stderr=pipe, env=trainer_environment(os.environ, {}), process_group=0
    )
    error = ""
    try:
        async with asyncio.timeout(IMPORT_TIMEOUT_S):
            assert process.stderr is not None  # it is a pipe
            async for line in process.stderr:
                text = line.decode(errors="replace").strip()
                if text.startswith(PROGRESS_MARK):
                    say(text)
                else:
                    error = text or error
            code = await process.wait()
    except TimeoutError:
        what = f"The import took more than {IMPORT_TIMEOUT_S / 60:.0f} minutes and was stopped."
        raise AdapterError(what, "Try again: a download continues where it stopped.") from None
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    if code:
        raise AdapterError(error or f"The import ended with code {code}.")


async def _read_events(stdout: asyncio.StreamReader, on_event: OnEvent, log_file: Path) -> Done | Failed | None:
    """Pass events on until the output ends, and keep the log short. The final event is returned, not passed on."""
    last = None
    while line := await _next_line(stdout):
        limit_log(log_file)
        event = parse_event(line)
        if isinstance(event, Done | Failed):
            last = event
        elif event:
            on_event(event)
    return last


def parse_event(line: bytes) -> TrainerEvent | None:
    """Parse a line that the trainer printed; an invalid one is logged, and None is returned."""
    try:
        return TRAINER_EVENT.validate_json(line)
    except ValidationError:
        log.warning("the trainer printed an invalid event: %.200s", line.decode(errors="replace").rstrip())
        return None


async def _next_line(stdout: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return await stdout.readline()
        except ValueError:  # longer than the reader's limit, which has dropped what it read
            log.warning("the trainer printed a line of more than %d bytes", MAX_LINE_BYTES)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
