"""Runs a job folder: resolve, data, base model, train, evaluate, judge, seal."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from personas.errors import RequestError
from personas.home.adapters import verify_adapter, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.home.data_subjects import write_people
from personas.home.holdout_index import NEW_HOLDOUT_FILE
from personas.home.job_folder import people_in_material, read_comparison_targets
from personas.models.base_model import fingerprint
from personas.schemas.training import AdapterManifest, JobSpec
from personas.schemas.training_events import Done, Phase, ScoreCardEvent
from trainer.data.dataset import add_counts
from trainer.data.job_inputs import read_spec
from trainer.estimate.memory_check import require_memory
from trainer.estimate.workload import Workload, workload_of
from trainer.machine import release_memory
from trainer.process.cancellation import check_job_folder
from trainer.recipe.auto_recipe import sample_stats
from trainer.recipe.resolve import resolve_run, stage_warnings
from trainer.report.adapter_docs import make_manifest, package_versions, write_adapter_data_sheet, write_model_card
from trainer.report.run_report import TrainingRecord, read_run_seconds, training_losses, write_run_report
from trainer.schemas import ResolvedRecipe
from trainer.train.job import PreparedJob, RunContext, prepare_job
from trainer.train.resume_config import (
    CHECKPOINTS_FOLDER,
    ResumeConfig,
    batches_hash,
    find_resume_config,
    lock_config,
    request_hash,
)
from trainer.train.stages import train_stages, train_worker

if TYPE_CHECKING:
    from personas.schemas.scorecard import ScoreCard
    from trainer.evaluate.evaluate_version import BaseLosses

ADAPTER_FOLDER = "adapter"

log = logging.getLogger(__name__)


def run_job(folder: Path, run: RunContext) -> None:
    """Train, measure and write the adapter of a job folder. Does nothing but say so where that is done already.

    Raises `UnderstudyError`, `Stopped`, or whatever the machine raises; nothing half-made has the final name then.
    """
    spec = read_spec(folder)
    target = folder / ADAPTER_FOLDER
    if target.exists():
        _require_same_job(target, spec)
    else:
        _remove_partial_adapters(folder)
        _prepare_and_train(folder, spec, target, replace(run, check=check_job_folder(folder, run.check)))
    run.emit(Done(adapter=str(target), seconds=read_run_seconds(target)))


def run_worker(folder: Path, run: RunContext) -> None:
    """Compute this process's share of a job's training, beside the first process of the run, which does the rest."""
    spec = read_spec(folder)
    if (folder / ADAPTER_FOLDER).exists():
        return
    train_worker(prepare_job(folder, spec), folder, run)


def _prepare_and_train(folder: Path, spec: JobSpec, target: Path, run: RunContext) -> None:
    run.enter(Phase(name="material"))
    job = prepare_job(folder, spec, stores_dataset=True)
    write_people(folder, add_counts(dict(people_in_material(folder, spec.materials)), job.data.people))
    job.data.held_out.write(folder / NEW_HOLDOUT_FILE)
    log.info("samples: %s", job.data.counts)
    make_adapter(job, folder, target, run)


def make_adapter(job: PreparedJob, folder: Path, target: Path, run: RunContext, *, is_audit: bool = False) -> None:
    """Train and measure a prepared job's adapter, and seal it as `target`.

    `folder` keeps what a killed run goes on from. `is_audit` marks a copy that is never served. Raises as `run_job`.
    """
    spec = job.spec
    data, begun = job.data, find_resume_config(folder, spec)
    work = _workload(job)
    resolved = resolve_run(
        spec.request, job.recipe, job.base, sample_stats(data.train), work, begun.resolved if begun else None
    )
    warnings = stage_warnings(resolved.recipe, len(data.train), len(data.first))
    caveats = (*resolved.chosen, *job.notes, *resolved.notes, *warnings)
    for caveat in caveats:
        log.warning("%s", caveat)
    run.processes.share(resolved.recipe.per_device_train_batch_size, resolved.recipe.gradient_accumulation_steps)
    frozen = lock_config(folder, _resume_config(job, resolved, run.processes.count))
    if not run.skips_memory_check:
        require_memory(frozen.used, job.base, work)
    run.enter(Phase(name="base model", detail=f"loading {job.base.name}"))
    known = _measure_base(job, run, _resume_note(folder))
    with atomic_folder(target) as aside:
        trained, frozen = train_stages(job, frozen, folder, run, known.means)
        config = trained.model.peft_config["default"]
        config.base_model_name_or_path, config.revision = job.base.repository, job.base.revision or None
        trained.model.save_pretrained(aside, save_embedding_layers=False)
        history, account, kernels = trained.history, trained.account, trained.kernels
        del trained, config  # the model that is measured next takes its place
        release_memory()
        training_s = account.seconds - run.hold.waited_s
        losses = training_losses(history)
        card = _measure_adapter(job, folder, aside, known, run, training_s, losses)
        run.enter(Phase(name="writing"))
        training = TrainingRecord(history, account.seconds, account.memory.peak(), card.short, kernels, training_s)
        write_run_report(aside, training)
        manifest = make_manifest(job, frozen, (*caveats, *frozen.caveats), training)
        _write_documents(job, manifest.model_copy(update={"audit": is_audit}), aside, training, card)
    shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)


def _workload(job: PreparedJob) -> Workload:
    method = job.data.preferences.method if job.data.preferences else None
    return workload_of(job.data.trained, job.data.heldout, job.data.general, method)


def _resume_config(job: PreparedJob, resolved: ResolvedRecipe, processes: int) -> ResumeConfig:
    recipe = resolved.recipe
    return ResumeConfig(
        recipe=recipe,
        batches=batches_hash(job.data, recipe),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        packages=package_versions(),
        batch=recipe.per_device_train_batch_size,
        accumulation=recipe.gradient_accumulation_steps,
        processes=processes,
        asked=request_hash(job.spec),
        chosen=resolved.chosen,
        start=job.start.weights if job.start else "",
    )


def _resume_note(folder: Path) -> str:
    """Where a run goes on that was stopped or killed, for people; empty where it begins."""
    from trainer.train.checkpoint import checkpoint_step, list_checkpoints

    kept = list_checkpoints(folder / CHECKPOINTS_FOLDER)
    return f", then on from step {checkpoint_step(kept[0])}" if kept else ""


def _measure_base(job: PreparedJob, run: RunContext, then: str) -> BaseLosses:
    from trainer.evaluate.evaluate_version import BaseLosses
    from trainer.train.losses import load_serving_model, measure_token_losses

    model = load_serving_model(job.base, job.spec.serving_precision)
    run.enter(Phase(name="measuring the base", detail=f"{len(job.data.heldout)} held-out replies{then}"))
    known = BaseLosses(
        *(measure_token_losses(model, samples, run.between) for samples in (job.data.heldout, job.data.general))
    )
    del model
    release_memory()
    return known


def _measure_adapter(
    job: PreparedJob,
    folder: Path,
    aside: Path,
    known: BaseLosses,
    run: RunContext,
    training_s: float,
    losses: Sequence[float],
) -> ScoreCard:
    """Measure what was written, read back and served as the engine does."""
    from trainer.evaluate.candidates import Candidate
    from trainer.evaluate.evaluate_version import EvaluationRequest, evaluate_version

    def tell(text: str) -> None:
        run.enter(Phase(name="measuring the adapter", detail=text))

    def clock() -> float:
        return time.monotonic() - run.hold.waited_s

    new = Candidate(job.spec.version, aside, is_sealed=False)
    order = EvaluationRequest(
        job, new, training_s, read_comparison_targets(folder), run.card, known, tell, run.between, losses, clock
    )
    card = evaluate_version(order)
    release_memory()
    run.emit(ScoreCardEvent(scorecard=card.short))
    return card


def _write_documents(
    job: PreparedJob, manifest: AdapterManifest, aside: Path, training: TrainingRecord, card: ScoreCard
) -> None:
    from trainer.report.scorecard_files import write_scorecard

    write_scorecard(aside, card)
    write_model_card(aside, manifest, training)
    write_adapter_data_sheet(aside, job.spec, job.data)
    write_people(aside, job.data.people)
    write_manifest(aside, manifest)


def _require_same_job(target: Path, spec: JobSpec) -> None:
    manifest = verify_adapter(target)
    if manifest.job_id != spec.job_id:
        raise RequestError(f"{target} was made by another job ({manifest.job_id}).", "Remove it, or use a new folder.")
    log.info("%s is complete already", target)


def _remove_partial_adapters(folder: Path) -> None:
    """What a run that was killed left behind. Only the holder of the folder's lock may call this."""
    for aside in folder.glob(f".{ADAPTER_FOLDER}.*"):
        shutil.rmtree(aside)
