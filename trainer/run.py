"""A run: from a job folder to a sealed adapter folder beside it.

Model libraries are imported where they are used: a job that is done, locked or wrong is answered without them.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from personas.adapters import seal, verify, written_aside
from personas.base_model import fingerprint
from personas.compare import read_compare
from personas.contracts import Done, JobSpec, Manifest, Phase, ScoreCardEvent
from personas.errors import RequestError
from personas.heldout import NEW_HELD_OUT_FILE
from personas.job_folder import people_brought
from personas.people import write_people
from trainer.auto import for_run, replies_in
from trainer.dataset import added
from trainer.fitted import Fitted, fitted, warnings_in_stages
from trainer.frozen import CHECKPOINTS, Frozen, batches_hash, begun, freeze, hash_of_request
from trainer.job import Job as Job
from trainer.job import Run as Run
from trainer.job import planned as planned
from trainer.job import prepare as prepare
from trainer.loop.kept_activations import kept_activations
from trainer.loop.memory import release_memory
from trainer.machine import machine_here
from trainer.material import read_spec
from trainer.predict.fits import free_for, require_fits
from trainer.predict.work import Workload, workload_of
from trainer.process.job_watch import watching
from trainer.recipe import Recipe
from trainer.report.adapter_sheet import write_adapter_sheet
from trainer.report.manifest import manifest_of, packages
from trainer.report.model_card import write_model_card
from trainer.report.training import Training, losses_of, seconds_in, write_report
from trainer.stages import help_to_train, train

if TYPE_CHECKING:
    from personas.scorecard import FullScoreCard
    from trainer.scorecard.card import Known

ADAPTER = "adapter"

log = logging.getLogger(__name__)


def run_job(folder: Path, run: Run) -> None:
    """Train, measure and write the adapter of a job folder. Does nothing but say so where that is done already.

    Raises `UnderstudyError`, `Stopped`, or whatever the machine raises; nothing half-made has the final name then.
    """
    spec = read_spec(folder)
    target = folder / ADAPTER
    if target.exists():
        _require_own(target, spec)
    else:
        _remove_stale(folder)
        _make(folder, spec, target, replace(run, check=watching(folder, run.check)))
    run.emit(Done(adapter=str(target), seconds=seconds_in(target)))


def help_job(folder: Path, run: Run) -> None:
    """Compute this process's share of a job's training, beside the first process of the run, which does the rest."""
    spec = read_spec(folder)
    if (folder / ADAPTER).exists():
        return
    help_to_train(prepare(folder, spec), folder, run)


def _make(folder: Path, spec: JobSpec, target: Path, run: Run) -> None:
    run.enter(Phase(name="material"))
    job = prepare(folder, spec)
    write_people(folder, added(dict(people_brought(folder, spec.materials)), job.data.people))
    job.data.held_out.write(folder / NEW_HELD_OUT_FILE)
    log.info("samples: %s", job.data.counts)
    make_adapter(job, folder, target, run)


def make_adapter(job: Job, folder: Path, target: Path, run: Run, *, is_audit: bool = False) -> None:
    """Train and measure a prepared job's adapter, and seal it as `target`.

    `folder` keeps what a killed run goes on from. `is_audit` marks a copy that is never served. Raises as `run_job`.
    """
    spec = job.spec
    chosen = for_run(spec.request.recipe, job.recipe, job.base, replies_in(job.data.train), begun(folder, spec))
    fit = _fitted(job, chosen.recipe, begun(folder, spec))
    caveats = (
        *chosen.why,
        *job.notes,
        *fit.notes,
        *warnings_in_stages(fit.recipe, len(job.data.train), len(job.data.first)),
    )
    for caveat in caveats:
        log.warning("%s", caveat)
    run.processes.share(fit.recipe.per_device_train_batch_size, fit.recipe.gradient_accumulation_steps)
    frozen = freeze(folder, _wanted(job, fit.recipe, chosen.why, run.processes.count))
    if not run.ignores_memory:
        require_fits(frozen.used, job.base, _work_of(job))
    run.enter(Phase(name="base model", detail=f"loading {job.base.name}"))
    known = _measure_base(job, run, _from_step(folder))
    with written_aside(target) as aside:
        trained, frozen = train(job, frozen, folder, run, known.means)
        config = trained.model.peft_config["default"]
        config.base_model_name_or_path, config.revision = job.base.repository, job.base.revision or None
        trained.model.save_pretrained(aside, save_embedding_layers=False)
        history, account, kernels = trained.history, trained.account, trained.kernels
        del trained, config  # the model that is measured next takes its place
        release_memory()
        training_s = account.seconds - run.hold.waited_s
        losses = losses_of(history)
        card = _measure_adapter(job, folder, aside, known, run, training_s, losses)
        run.enter(Phase(name="writing"))
        training = Training(history, account.seconds, account.memory.peak(), card.short, kernels, training_s)
        write_report(aside, training)
        manifest = manifest_of(job, frozen, (*caveats, *frozen.caveats), training)
        _describe(job, manifest.model_copy(update={"audit": is_audit}), aside, training, card)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _fitted(job: Job, recipe: Recipe, began: Frozen | None) -> Fitted:
    fit, machine = fitted(recipe), machine_here()
    if job.spec.request.hyperparameters.gradient_checkpointing:
        return fit
    work = _work_of(job)
    return kept_activations(fit, job.base, work, machine, free_for(machine), began.recipe if began else None)


def _work_of(job: Job) -> Workload:
    method = job.data.preferences.method if job.data.preferences else None
    return workload_of(job.data.trained, job.data.heldout, job.data.general, method)


def _wanted(job: Job, recipe: Recipe, chosen: tuple[str, ...], processes: int) -> Frozen:
    return Frozen(
        recipe=recipe,
        batches=batches_hash(job.data, recipe),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        packages=packages(),
        batch=recipe.per_device_train_batch_size,
        accumulation=recipe.gradient_accumulation_steps,
        processes=processes,
        asked=hash_of_request(job.spec),
        chosen=chosen,
        start=job.start.weights if job.start else "",
    )


def _from_step(folder: Path) -> str:
    """Where a run goes on that was stopped or killed, for people; empty where it begins."""
    from trainer.loop.checkpoints import checkpoints_in, step_of

    kept = checkpoints_in(folder / CHECKPOINTS)
    return f", then on from step {step_of(kept[0])}" if kept else ""


def _measure_base(job: Job, run: Run, then: str) -> Known:
    from trainer.evaluate import load_served, measure_tokens
    from trainer.scorecard.card import Known

    model = load_served(job.base, job.spec.serving_precision)
    run.enter(Phase(name="measuring the base", detail=f"{len(job.data.heldout)} held-out replies{then}"))
    known = Known(*(measure_tokens(model, samples, run.between) for samples in (job.data.heldout, job.data.general)))
    del model
    release_memory()
    return known


def _measure_adapter(
    job: Job, folder: Path, aside: Path, known: Known, run: Run, training_s: float, losses: Sequence[float]
) -> FullScoreCard:
    """Measure what was written, read back and served as the engine does."""
    from trainer.scorecard.card import Order, make_card
    from trainer.scorecard.sides import Compared

    def tell(text: str) -> None:
        run.enter(Phase(name="measuring the adapter", detail=text))

    def clock() -> float:
        return time.monotonic() - run.hold.waited_s

    new = Compared(job.spec.version, aside, is_sealed=False)
    order = Order(job, new, training_s, read_compare(folder), run.card, known, tell, run.between, losses, clock)
    card = make_card(order)
    release_memory()
    run.emit(ScoreCardEvent(scorecard=card.short))
    return card


def _describe(job: Job, manifest: Manifest, aside: Path, training: Training, card: FullScoreCard) -> None:
    from trainer.scorecard.written import write_card

    write_card(aside, card)
    write_model_card(aside, manifest, training)
    write_adapter_sheet(aside, job.spec, job.data)
    write_people(aside, job.data.people)
    seal(aside, manifest)


def _require_own(target: Path, spec: JobSpec) -> None:
    manifest = verify(target)
    if manifest.job_id != spec.job_id:
        raise RequestError(f"{target} was made by another job ({manifest.job_id}).", "Remove it, or use a new folder.")
    log.info("%s is complete already", target)


def _remove_stale(folder: Path) -> None:
    """What a run that was killed left behind. Only the holder of the folder's lock may call this."""
    for aside in folder.glob(f".{ADAPTER}.*"):
        shutil.rmtree(aside)
