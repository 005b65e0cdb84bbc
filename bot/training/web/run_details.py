"""Details of a run, read from its job and adapter folders: settings, resources, materials, log."""

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ValidationError

import bot
from bot.platform.errors import redact_paths
from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.web import run_history
from personas.errors import RequestError
from personas.home.adapters import MANIFEST_FILE
from personas.home.job_attempt import EVENTS_FILE
from personas.home.job_folder import ADAPTER_FOLDER, REQUEST_FILE
from personas.schemas.training import JobSpec
from personas.schemas.training_events import Progress

RUN_FILE = "run.json"
LOG_FILE = "trainer.log"
REPORT_FOLDER = "report"
DATASHEET_FILE = "datasheet.json"
LOG_TAIL_BYTES = 2**16
MAX_LOG_LINES = 300
PROJECT_FOLDER = Path(bot.__file__).resolve().parents[1]
NVIDIA_DRIVER_FILE = Path("/proc/driver/nvidia/version")
CONTROL_CODE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

KnownFrom = Literal["run", "manifest", "request"]
Json = dict[str, Any]


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run by name. `known_from` is the run's record, else the adapter's manifest,
    else the request, which names only what differs from the recipe. `about` holds the base model,
    threads and processes; `notes` are texts.
    """

    values: Mapping[str, Any]
    known_from: KnownFrom
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunResources:
    """Time in seconds and memory in bytes; None for what is not known. `share` is that of `device`,
    0 to 1.
    """

    seconds: float | None = None
    training_seconds: float | None = None
    peak_bytes: int | None = None
    share: float | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """Everything stored about a run. `course` holds the events up to byte `read_until`,
    `unreadable` counts lines without an event. `sheet` is the adapter's data sheet, None before it
    exists.
    """

    job: TrainingJob
    course: run_history.MetricsHistory
    read_until: int
    unreadable: int
    settings: RunSettings
    took: RunResources
    sheet: Json | None
    materials: tuple[Json, ...]
    has_folder: bool


def events_file(home: Path, job_id: str) -> Path:
    """The event log of a run, which may not exist."""
    return job_folder(home, job_id) / EVENTS_FILE


def read_run_details(home: Path, job: TrainingJob) -> RunDetails:
    folder = job_folder(home, job.job_id)
    adapter = _adapter_folder(folder, job)
    course, read_until, unreadable = _read_history(folder, adapter)
    sheet = None
    if adapter:
        sheet = read_json(adapter / DATASHEET_FILE)
    return RunDetails(
        job=job,
        course=course,
        read_until=read_until,
        unreadable=unreadable,
        settings=_settings(folder, adapter, job),
        took=_run_resources(adapter, course),
        sheet=sheet,
        materials=_materials(folder, sheet),
        has_folder=folder.is_dir(),
    )


def run_seconds(home: Path, job: TrainingJob) -> float | None:
    """Duration of a run over all attempts, up to its last step; finished runs need no file
    access.
    """
    if job.started_at is None:
        return None
    with suppress(ValidationError):  # stored by another version of the bot
        if job.result:
            return job.result.seconds
    tail, _ = _file_tail(events_file(home, job.job_id))
    for line in reversed(tail.split(b"\n")):
        event = run_history.parse_event_line(line)
        if isinstance(event, Progress):
            return event.seconds
    return None


def read_json(path: Path) -> Json | None:
    """The object in a file; None if there is none or it is unreadable."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_log_tail(home: Path, job_id: str) -> str:
    """The last lines of a run's log without the machine's folders; empty if there is none."""
    text, is_cut = _file_tail(job_folder(home, job_id) / LOG_FILE)
    lines = text.decode(errors="replace").split("\n")
    if is_cut:  # the first line is incomplete
        del lines[0]
    shown = []
    for line in lines:
        # A progress bar overwrites itself: only its last state counts.
        last_state = line.rstrip("\r").rpartition("\r")[2]
        clean = CONTROL_CODE_PATTERN.sub("", last_state)
        if clean.strip():
            shown.append(clean)
    log = redact_paths("\n".join(shown[-MAX_LOG_LINES:]), home)
    for folder in (sys.prefix, str(PROJECT_FOLDER), sys.base_prefix):
        log = log.replace(f"{folder}/", "")
    return log


def _file_tail(path: Path) -> tuple[bytes, bool]:
    """The end of a file, and whether it is longer; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            return file.read(), size > LOG_TAIL_BYTES
    except OSError:
        return b"", False


def _adapter_folder(folder: Path, job: TrainingJob) -> Path | None:
    """Find the run's adapter: installed, or still in the job folder."""
    places = [folder / ADAPTER_FOLDER]
    with suppress(ValidationError):  # stored by another version of the bot
        if job.result:
            places.insert(0, Path(job.result.adapter))
    for place in places:
        if (place / MANIFEST_FILE).is_file():
            return place
    return None


def _read_history(
    folder: Path, adapter: Path | None
) -> tuple[run_history.MetricsHistory, int, int]:
    try:
        read = run_history.read_all_events(folder / EVENTS_FILE)
    except OSError:  # it is another program's fault, and costs the curves only
        return run_history.MetricsHistory(), 0, 0
    if read.events or not adapter:
        return (
            run_history.build_history(logged.event for logged in read.events),
            read.end,
            read.unreadable,
        )
    return run_history.read_report_history(adapter / REPORT_FOLDER), read.end, read.unreadable


def read_run_settings(folder: Path, job: TrainingJob) -> RunSettings:
    return _settings(folder, _adapter_folder(folder, job), job)


def _settings(folder: Path, adapter: Path | None, job: TrainingJob) -> RunSettings:
    run = read_json(folder / RUN_FILE)
    if run and isinstance(run.get("recipe"), dict):
        return _settings_from_run(run)
    manifest = None
    if adapter:
        manifest = read_json(adapter / MANIFEST_FILE)
    if manifest and isinstance(manifest.get("hyperparameters"), dict):
        values = dict(manifest["hyperparameters"])
        lora = manifest.get("lora") or {}
        if "target_modules" in lora:
            values["target_modules"] = lora["target_modules"]
        about = {"base_model": manifest.get("base_model"), "threads": manifest.get("threads")}
        return RunSettings(values, "manifest", about, _lines(manifest.get("caveats")))
    with suppress(RequestError):  # stored by another version of the bot
        return RunSettings(job.request.hyperparameters.model_dump(exclude_none=True), "request")
    return RunSettings({}, "request")


def _settings_from_run(run: Json) -> RunSettings:
    recipe: Json = run["recipe"]
    about = {name: run.get(name) for name in ("base_model", "threads", "processes")}
    notes = _lines(run.get("chosen"))
    used = run.get("used")
    if isinstance(used, dict):
        asked = recipe.get("per_device_train_batch_size")
        batch = used.get("per_device_train_batch_size")
        # On a GPU, batches may also be larger than asked for: merged.
        if isinstance(asked, int) and isinstance(batch, int) and batch < asked:
            notes += (
                f"Memory ran out on the way: it went on with batches of {batch}, "
                f"{used.get('gradient_accumulation_steps')} of them a step.",
            )
    return RunSettings(
        recipe, "run", {name: value for name, value in about.items() if value}, notes
    )


def _lines(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(str(line) for line in value)
    return ()


def _run_resources(adapter: Path | None, course: run_history.MetricsHistory) -> RunResources:
    report = None
    if adapter:
        report = read_json(adapter / REPORT_FOLDER / "training.json")
    if report:
        return RunResources(
            seconds=_number(report.get("seconds")),
            training_seconds=_number(report.get("training_seconds")),
            peak_bytes=int(_number(report.get("peak_bytes")) or 0) or None,
            share=_number(report.get("memory_share")),
            device=str(report.get("memory_of") or ""),
        )
    seconds = course.steps[-1].seconds if course.steps else None
    peak_bytes = course.peak_bytes or None
    # With a GPU, only the report says if the memory is the GPU's.
    if NVIDIA_DRIVER_FILE.exists() or peak_bytes is None:
        return RunResources(seconds=seconds, peak_bytes=peak_bytes)
    return RunResources(
        seconds=seconds,
        peak_bytes=peak_bytes,
        share=peak_bytes / psutil.virtual_memory().total,
        device="main memory",
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _materials(folder: Path, sheet: Json | None) -> tuple[Json, ...]:
    """Kind, origin and right of each material, and who stated it; of a finished run, those it used."""
    listed = sheet.get("materials") if sheet else None
    if isinstance(listed, list):
        return tuple(material for material in listed if isinstance(material, dict))
    try:
        spec = JobSpec.model_validate_json((folder / REQUEST_FILE).read_bytes())
    except (OSError, ValidationError):
        return ()
    fields = {"kind", "origin", "right", "stated_by", "stated_on", "why"}
    return tuple(material.model_dump(include=fields) for material in spec.materials)
