"""Creates the self-contained folder of a job, as the bot does."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from personas.engine.serving_precision import int8_obstacle
from personas.errors import RequestError
from personas.home.atomic_files import fsync_tree, lock_folder, replace_durably, write_private_file
from personas.home.data_subjects import Storing
from personas.home.job_folder import REQUEST_FILE, fill_job_folder, read_spec, refresh_job_folder
from personas.home.job_material import SourceMaterial
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import JobSpec, ServingPrecision, TrainingRequest
from trainer.machine import probe_machine_without_torch

RUNS_FOLDER = "runs"
TEMPORARY_PREFIX = ".making-"
ID_DIGITS = 10


@dataclass(frozen=True)
class JobDraft:
    """A requested run: the inputs of a job folder."""

    home: Path
    request: TrainingRequest
    materials: tuple[SourceMaterial, ...]
    storing: Storing = nullcontext

    def with_settings(self, changes: Hyperparameters) -> JobDraft:
        """Return the draft with other hyperparameters."""
        return replace(self, request=self.request.model_copy(update={"hyperparameters": changes}))


@contextmanager
def temporary_job_folder(draft: JobDraft, beside: Path) -> Iterator[tuple[Path, JobSpec]]:
    """Create the job's folder in a temporary place, removed after the block unless moved; give it
    with its request.

    The job's id is a hash of request and material: equal inputs give the same job. Raises `OSError`
    or `UnderstudyError`.
    """
    precision = _default_serving_precision(draft.request.base_model)
    with (
        tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=beside) as temporary,
        lock_folder(Path(temporary)),
    ):
        folder = Path(temporary)
        # Without id and version, which follow from the hash of what is in the folder.
        spec = fill_job_folder(
            folder,
            draft.home,
            job_id="",
            version="",
            request=draft.request,
            materials=draft.materials,
            precision=precision,
        )
        name = f"run-{_job_digest(spec)[:ID_DIGITS]}"
        spec = spec.model_copy(update={"job_id": name, "version": name})
        write_private_file(folder / REQUEST_FILE, spec.model_dump_json(indent=2).encode() + b"\n")
        yield folder, spec


def _default_serving_precision(base: str) -> ServingPrecision:
    """Return the precision in which a bot on this machine serves a base model by default."""
    machine = probe_machine_without_torch()
    if not machine.has_cuda and not int8_obstacle(base):
        return "int8"
    return "bfloat16" if machine.best == "bf16" else "float32"


def job_id_of_draft(draft: JobDraft) -> str:
    """Return the id that the job would have. Raises as `temporary_job_folder`."""
    with temporary_job_folder(draft, Path(tempfile.gettempdir())) as (_, spec):
        return spec.job_id


def _job_digest(spec: JobSpec) -> str:
    """Hash what determines the run; the day on which a right was stated does not."""
    parts = []
    for part in spec.materials:
        parts.append(
            (part.kind, part.path, part.right, part.sha256, part.persona_names, *part.mapping)
        )
    whole = [spec.request.model_dump_json(), spec.serving_precision, repr(parts)]
    return hashlib.sha256("\0".join(whole).encode()).hexdigest()


def make_job_folder(draft: JobDraft, out: Path | None) -> Path:
    """Create the run's folder, `out` or one in the home; an existing folder of the same run is
    refreshed.

    Raises `RequestError` if `out` holds something else, and as `temporary_job_folder`.
    """
    beside = out.parent if out else draft.home / RUNS_FOLDER
    beside.mkdir(parents=True, exist_ok=True)
    for stale in beside.glob(f"{TEMPORARY_PREFIX}*"):
        with lock_folder(stale) as is_free:
            if is_free:  # of a process that was killed while copying
                shutil.rmtree(stale)
    with temporary_job_folder(draft, beside) as (temporary, spec):
        name = f"{spec.request.job_name}-{spec.job_id.removeprefix('run-')}"
        folder = out or draft.home / RUNS_FOLDER / name
        if (folder / REQUEST_FILE).exists():
            if read_spec(folder).job_id != spec.job_id:
                raise RequestError(
                    f"{folder} holds another run, or one with other settings.",
                    "Name another --out, or resume that run: python -m trainer run "
                    f"{shlex.quote(str(folder))}",
                )
            refresh_job_folder(folder, draft.home, spec.request)
            return folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RequestError(f"{folder} exists and holds no run.", "Name another folder.")
        # On the disk before it gets its name: a folder with a name is complete.
        fsync_tree(temporary)
        with draft.storing():
            replace_durably(temporary, folder)
    return folder
