"""Creates the self-contained folder of a job, as the bot does."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from personas.engine.serving_precision import int8_obstacle
from personas.errors import RequestError
from personas.home.atomic_files import fsync_path, fsync_tree, lock_folder, write_private_file
from personas.home.job_folder import REQUEST_FILE, fill_job_folder, refresh_job_folder
from personas.home.job_material import SourceMaterial
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import JobSpec, ServingPrecision, TrainingRequest
from trainer.data.job_inputs import read_spec
from trainer.machine import probe_machine_without_torch

RUNS_FOLDER, TEMPORARY_PREFIX = "runs", ".making-"
ID_DIGITS = 10


@dataclass(frozen=True)
class JobDraft:
    """A run that is asked for: what a job folder is made of."""

    home: Path
    request: TrainingRequest
    materials: tuple[SourceMaterial, ...]

    def with_settings(self, changes: Hyperparameters) -> JobDraft:
        """The same with other settings."""
        return replace(self, request=self.request.model_copy(update={"hyperparameters": changes}))


@contextmanager
def temporary_job_folder(wanted: JobDraft, beside: Path) -> Iterator[tuple[Path, JobSpec]]:
    """The job's folder in a place of its own, gone at the end unless it was moved, and what it says.

    The job's id is made of what is asked and of what the material holds, so the same is the same job. Raises `OSError`
    or `UnderstudyError`.
    """
    precision = _default_serving_precision(wanted.request.base_model)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=beside) as aside, lock_folder(Path(aside)):
        folder = Path(aside)
        spec = fill_job_folder(folder, wanted.home, "", "", wanted.request, wanted.materials, precision)
        name = f"run-{_job_digest(spec)[:ID_DIGITS]}"
        spec = spec.model_copy(update={"job_id": name, "version": name})
        write_private_file(folder / REQUEST_FILE, spec.model_dump_json(indent=2).encode() + b"\n")
        yield folder, spec


def _default_serving_precision(base: str) -> ServingPrecision:
    """Returns the precision in which a bot on this machine serves a base model by default."""
    machine = probe_machine_without_torch()
    if not machine.has_cuda and not int8_obstacle(base):
        return "int8"
    return "bfloat16" if machine.best == "bf16" else "float32"


def job_id_of_draft(wanted: JobDraft) -> str:
    """The id that the job would have. Raises whatever `temporary_job_folder` does."""
    with temporary_job_folder(wanted, Path(tempfile.gettempdir())) as (_, spec):
        return spec.job_id


def _job_digest(spec: JobSpec) -> str:
    """Of what decides the run; not of the day on which somebody stated a right."""
    parts = [(it.kind, it.path, it.right, it.sha256, it.persona_names) for it in spec.materials]
    whole = [spec.request.model_dump_json(), spec.serving_precision, repr(parts)]
    return hashlib.sha256("\0".join(whole).encode()).hexdigest()


def make_job_folder(wanted: JobDraft, out: Path | None) -> Path:
    """The folder of the run, `out` or one of its own in the home; one that is there already goes on as of today.

    Raises `RequestError` where `out` holds something else, and whatever `temporary_job_folder` raises.
    """
    beside = out.parent if out else wanted.home / RUNS_FOLDER
    beside.mkdir(parents=True, exist_ok=True)
    for left_over in beside.glob(f"{TEMPORARY_PREFIX}*"):
        with lock_folder(left_over) as is_free:
            if is_free:  # of a process that was killed while copying
                shutil.rmtree(left_over)
    with temporary_job_folder(wanted, beside) as (made, spec):
        name = f"{spec.request.job_name}-{spec.job_id.removeprefix('run-')}"
        folder = out or wanted.home / RUNS_FOLDER / name
        if (folder / REQUEST_FILE).exists():
            if read_spec(folder).job_id != spec.job_id:
                raise RequestError(
                    f"{folder} holds a run of something else, or with other settings.",
                    f"Name another --out; that one goes on with: python -m trainer run {shlex.quote(str(folder))}",
                )
            refresh_job_folder(folder, wanted.home, spec.request)
            return folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RequestError(f"{folder} is there already and holds no run.", "Name another folder.")
        fsync_tree(made)
        made.replace(folder)
        fsync_path(folder.parent)
    return folder
