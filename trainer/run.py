"""Runs a job folder: data (rendered by a partly resolved recipe), resolve, base, train, evaluate,
judge, seal.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import atomic_folder
from personas.home.comparison_targets import read_comparison_targets
from personas.home.data_subjects import write_people
from personas.home.holdout_index import NEW_HOLDOUT_FILE
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.job_folder import ADAPTER_FOLDER, people_in_material, read_spec
from personas.schemas.training import JobSpec
from personas.schemas.training_events import Done, Phase, ScoreCardEvent
from trainer.dataset.dataset import add_counts
from trainer.estimate.memory_check import require_memory
from trainer.estimate.run_estimate import estimate_event
from trainer.machine import release_memory
from trainer.process.run_control import check_job_folder
from trainer.recipe.resolve import resolve_run
from trainer.report.adapter_docs import read_run_seconds, seal_adapter
from trainer.report.run_report import TrainingRecord
from trainer.train.job import PreparedJob, RunContext, prepare_job
from trainer.train.resume_config import resumed_recipe
from trainer.train.stages import lock_run, resume_note, train_stages, train_worker

if TYPE_CHECKING:
    from trainer.train.sft_trainer import TrainResult

log = logging.getLogger(__name__)


def run_job(folder: Path, run: RunContext) -> None:
    """Train, evaluate and seal the adapter of a job folder; a finished one is only reported again.

    Raises `UnderstudyError`, `RunCancelled`, or an error of the machine; no partial adapter has the
    final name then.
    """
    spec = read_spec(folder)
    target = folder / ADAPTER_FOLDER
    if target.exists():
        _require_same_job(target, spec)
    else:
        _remove_partial_adapters(folder)
        run = replace(run, check=check_job_folder(folder, run.check, run.fence))
        run.enter(Phase(name="material"))
        job = prepare_job(folder, spec, stores_dataset=True, between=run.between)
        write_people(
            folder, add_counts(dict(people_in_material(folder, spec.materials)), job.data.people)
        )
        job.data.held_out.write(folder / NEW_HOLDOUT_FILE)
        log.info("samples: %s", job.data.counts)
        make_adapter(job, folder, target, run)
    run.emit(Done(adapter=str(target), seconds=read_run_seconds(target)))


def run_worker(folder: Path, run: RunContext) -> None:
    """Compute this process's share of a job's training; the first process of the run does
    everything else.
    """
    spec = read_spec(folder)
    if not (folder / ADAPTER_FOLDER).exists():
        train_worker(prepare_job(folder, spec), folder, run)


def make_adapter(
    job: PreparedJob, folder: Path, target: Path, run: RunContext, *, is_audit: bool = False
) -> None:
    """Train and evaluate a prepared job's adapter, and seal it as `target`.

    `folder` holds the checkpoints from which a killed run resumes. `is_audit` marks a copy that is
    never served. Raises as `run_job`.
    """
    from trainer.evaluate.evaluate_version import (
        evaluate_trained,
        measure_base,
    )  # imports torch: seconds

    spec = job.spec
    resolved = resolve_run(
        spec.request, job.recipe, job.base, job.data, job.workload, resumed_recipe(folder, spec)
    )
    caveats = (*resolved.chosen, *job.notes, *resolved.notes)
    for caveat in caveats:
        log.warning("%s", caveat)
    config = lock_run(job, resolved, folder, run)
    if not run.skips_memory_check:
        require_memory(config.used, job.base, job.workload)
    run.emit(estimate_event(config.used, job.base, job.workload))
    base_losses = measure_base(job, run, resume_note(folder))
    with atomic_folder(target, run.fence) as staging:
        trained, config = train_stages(job, config, folder, run, base_losses.means)
        _save_weights(trained, job, staging)
        history = trained.history
        account = trained.account
        kernels = trained.kernels
        del trained  # frees memory for the model that is evaluated next
        release_memory()
        training_s = account.seconds - run.hold.waited_s
        targets = read_comparison_targets(folder)
        card = evaluate_trained(job, staging, run, targets, base_losses, history, training_s)
        run.emit(ScoreCardEvent(scorecard=card.short))
        run.enter(Phase(name="writing"))
        notes = (*caveats, *config.caveats)
        record = TrainingRecord(
            history, account.seconds, account.memory.peak(), card.short, kernels, training_s, notes
        )
        seal_adapter(staging, job, config, notes, record, card, is_audit=is_audit)
    shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)


def _save_weights(trained: TrainResult, job: PreparedJob, folder: Path) -> None:
    config = trained.model.peft_config["default"]
    config.base_model_name_or_path = job.base.repository
    config.revision = job.base.revision or None
    trained.model.save_pretrained(folder, save_embedding_layers=False)


def _require_same_job(target: Path, spec: JobSpec) -> None:
    manifest = verify_adapter(target)
    if manifest.job_id != spec.job_id:
        raise RequestError(
            f"{target} was made by another job ({manifest.job_id}).",
            "Remove it, or use a new folder.",
        )
    log.info("%s is complete already", target)


def _remove_partial_adapters(folder: Path) -> None:
    """Remove what a killed run left behind. Only the holder of the folder's lock may call this."""
    for partial in folder.glob(f".{ADAPTER_FOLDER}.*"):
        shutil.rmtree(partial)
