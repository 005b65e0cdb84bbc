"""Runs a job folder: prepare the job, begin the run, measure the base model, train, evaluate, seal."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from personas.errors import RequestError
from personas.home.adapters import COMPLETED_CARD_FOLDER, verify_adapter
from personas.home.atomic_files import atomic_folder
from personas.home.data_subjects import write_people
from personas.home.holdout_index import NEW_HOLDOUT_FILE
from personas.home.job_folder import ADAPTER_FOLDER, people_in_material, read_spec
from personas.models.base_model import BaseModel
from personas.models.loading import load_bitsandbytes
from personas.schemas.training import JobSpec
from personas.schemas.training_events import Done, Phase, ScoreCardEvent
from trainer.dataset.dataset import add_counts
from trainer.estimate.memory_check import require_memory
from trainer.estimate.run_estimate import estimate_event
from trainer.machine import release_memory
from trainer.process.run_control import check_job_folder
from trainer.report.adapter_docs import read_run_seconds, seal_adapter
from trainer.report.run_report import TrainingRecord
from trainer.report.scorecard_files import read_score_card, write_scorecard
from trainer.teacher.writing_stage import write_job_replies, written_can_be_mended
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.phase_progress import count_material
from trainer.train.stages import train_stages, train_worker
from trainer.train.training_run import RunControl, begin_run

log = logging.getLogger(__name__)


def run_job(folder: Path, control: RunControl) -> None:
    """Train, evaluate and seal the adapter of a job folder, and complete its score card; a finished
    one is only reported again.

    Raises `UnderstudyError`, `RunCancelled`, or an error of the machine; no partial adapter has the
    final name then.
    """
    spec = read_spec(folder)
    target = folder / ADAPTER_FOLDER
    if target.exists():
        _require_same_job(target, spec)
    else:
        # A killed run left them. Only the holder of the folder's lock may remove them.
        for partial in folder.glob(f".{ADAPTER_FOLDER}.*"):
            shutil.rmtree(partial)
        control = replace(control, check=check_job_folder(folder, control.check, control.fence))
        control.enter(Phase(name="material"))
        write_job_replies(folder, spec, control)
        if control.only_writes:
            _require_written(spec)
            return
        with written_can_be_mended(spec):
            between = count_material(control)
            job = prepare_job(folder, spec, stores_dataset=True, between=between)
        people = dict(people_in_material(folder, spec.materials))
        write_people(folder, add_counts(people, job.data.people))
        # The bot merges it into the home's index once the run is done.
        job.data.held_out.write(folder / NEW_HOLDOUT_FILE)
        log.info("samples: %s", job.data.counts)
        make_adapter(job, folder, target, control)
    if not control.defers_card:
        complete_card(folder, spec, target, control)
    control.emit(Done(adapter=str(target), seconds=read_run_seconds(target)))


def _require_written(spec: JobSpec) -> None:
    if not spec.request.from_card:
        raise RequestError("This run has no replies to write.", "Leave --only-write out.")


def run_worker(folder: Path, control: RunControl) -> None:
    """Compute this process's share of a job's training; the first process of the run does
    everything else.
    """
    spec = read_spec(folder)
    if not (folder / ADAPTER_FOLDER).exists():
        train_worker(prepare_job(folder, spec), folder, control)


def make_adapter(
    job: PreparedJob, folder: Path, target: Path, control: RunControl, *, is_audit: bool = False
) -> None:
    """Train and evaluate a prepared job's adapter, and seal it as `target`.

    `folder` holds the checkpoints from which a killed run resumes. `is_audit` marks a copy that is
    never served. Raises as `run_job`.
    """
    load_bitsandbytes()
    # imports torch: seconds
    from trainer.evaluate.evaluate_version import evaluate_trained, measure_base
    from trainer.train.lora_layers import adapter_coverage

    run = begin_run(job, folder, control)
    work = job.workload
    if not control.skips_memory_check:
        require_memory(run.recipe, job.base, work)
    estimate, limit = estimate_event(run.recipe, job.base, work, control.card)
    control.timeline.expect(estimate.phases, limit)
    control.emit(estimate)

    # Before the training, which tells by them whether its losses diverge.
    base_losses = measure_base(run)
    with atomic_folder(target, control.fence) as staging:
        trained = train_stages(run, base_losses.means)
        training_s = control.worked_s
        _save_weights(trained.model, job.base, staging)
        history = trained.history
        kernels = trained.kernels
        coverage = adapter_coverage(trained.model)
        del trained  # frees memory for the model that is evaluated next
        release_memory()

        card = evaluate_trained(run, staging, base_losses, history=history, training_s=training_s)
        control.emit(ScoreCardEvent(scorecard=card.short))

        control.enter(Phase(name="writing"))
        record = TrainingRecord(
            history=history,
            seconds=control.usage.seconds,
            peak=control.usage.memory.peak(),
            metrics=card.short,
            kernels=kernels,
            training_s=training_s,
            caveats=run.caveats,
            coverage=coverage,
        )
        seal_adapter(staging, run, record, card, is_audit=is_audit)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def complete_card(folder: Path, spec: JobSpec, adapter: Path, control: RunControl) -> None:
    """Measure what the first score card of a job's adapter lacks, if there is such a card; the
    complete one is written beside it, in the adapter folder.
    """
    first = read_score_card(adapter)
    if first is None or not first.pending:
        return
    load_bitsandbytes()
    # imports torch: seconds
    from trainer.evaluate.evaluate_version import evaluate_again

    control = replace(control, check=check_job_folder(folder, control.check, control.fence))
    job = prepare_job(folder, spec, between=control.between)
    card = evaluate_again(job, folder, adapter, control)
    with atomic_folder(adapter / COMPLETED_CARD_FOLDER, control.fence) as staging:
        write_scorecard(staging, card)
    control.emit(ScoreCardEvent(scorecard=card.short.after(first.short.verdict)))


def _save_weights(model: Any, base: BaseModel, folder: Path) -> None:
    """Write a trained adapter in bfloat16: engines serve it in 16 bits, and it is half as large."""
    import torch  # takes seconds

    config = model.peft_config["default"]
    config.base_model_name_or_path = base.repository
    config.revision = base.revision or None
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    model.save_pretrained(folder, save_embedding_layers=False)


def _require_same_job(target: Path, spec: JobSpec) -> None:
    manifest = verify_adapter(target)
    if manifest.job_id != spec.job_id:
        raise RequestError(
            f"{target} was made by another job ({manifest.job_id}).",
            "Remove it, or use a new folder.",
        )
    log.info("%s is complete already", target)
