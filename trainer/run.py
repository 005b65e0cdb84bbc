"""A run: from a job folder to a sealed adapter folder beside it.

Model libraries are imported where they are used: a job that is done, locked or wrong is answered without them.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from personas.adapters import seal, verify, written_aside
from personas.base_model import BaseModel, fingerprint, load_tokenizer, locate, scaled
from personas.contracts import (
    AdapterRef,
    Done,
    JobSpec,
    Phase,
    ScoreCard,
    ScoreCardEvent,
    TrainerEvent,
)
from personas.errors import RequestError
from personas.heldout import NEW_HELD_OUT_FILE
from personas.people import write_people
from personas.prompt import Renderer
from trainer.account import Account
from trainer.adapter_sheet import write_adapter_sheet
from trainer.auto import for_run, for_samples, replies_in
from trainer.dataset import Dataset, make_dataset
from trainer.diverging import require_number
from trainer.failures import is_out_of_memory
from trainer.fitted import fitted, warnings_about
from trainer.frozen import CHECKPOINT_S, CHECKPOINTS, Frozen, batches_hash, begun, freeze, hash_of_request, refreeze
from trainer.holding import Hold
from trainer.job_watch import watching
from trainer.manifest import manifest_of, packages
from trainer.material import read_content, read_spec
from trainer.memory import release_memory
from trainer.model_card import write_model_card
from trainer.positions import require_positions
from trainer.processes import Processes
from trainer.recipe import Recipe, resolve
from trainer.target_modules import suited
from trainer.tokenizers import counting_tokenizer
from trainer.tracking import Tracking
from trainer.training_report import Training, write_report

if TYPE_CHECKING:
    from trainer.qlora import Trained
    from trainer.reply_trainer import Course, Heard

ADAPTER = "adapter"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job that is ready to run. `tokenizer` is the base model's; `notes` say what it has other than as asked."""

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run: who hears of it (`emit`), what may stop it (`check`, called between steps), how often it is kept.

    `account` counts its time from here on; `hold` is waited for between batches. `processes` compute it together.
    """

    emit: Callable[[TrainerEvent], None]
    check: Callable[[], None]
    checkpoint_s: float = CHECKPOINT_S
    account: Account = field(default_factory=Account)
    hold: Hold = field(default_factory=Hold)
    processes: Processes = field(default_factory=Processes)

    def between(self) -> None:
        """Between two batches that are measured: give way, and stop when asked to."""
        self.hold.wait()
        self.check()

    def enter(self, phase: Phase) -> None:
        """Report a phase, and stop before it when asked to."""
        self.check()
        log.info("%s %s", phase.name, phase.detail)
        self.emit(phase)


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
    seconds = datetime.now().timestamp() - psutil.Process().create_time()
    run.emit(Done(adapter=str(target), seconds=round(seconds, 2)))


def help_job(folder: Path, run: Run) -> None:
    """Compute this process's share of a job's training, beside the first process of the run, which does the rest."""
    spec = read_spec(folder)
    if (folder / ADAPTER).exists():
        return
    job = prepare(folder, spec)
    run.processes.join()
    frozen, start_loss = run.processes.told()
    _adapter(job, _course(job, frozen, folder, run, start_loss))


def prepare(folder: Path, spec: JobSpec) -> Job:
    """Everything that is known before a model is loaded. The same folder gives the same samples every time."""
    return _prepared(folder, spec, load_tokenizer)


def planned(folder: Path) -> Job:
    """The same, without the model libraries: for a plan of the run."""
    return _prepared(folder, read_spec(folder), counting_tokenizer)


def _prepared(folder: Path, spec: JobSpec, tokenizer_of: Callable[[BaseModel], Any]) -> Job:
    recipe = resolve(spec.request)
    base = scaled(locate(spec.request.base_model), recipe.rope_scaling_type, recipe.rope_scaling_factor)
    recipe = for_samples(spec.request.recipe, recipe, base, begun(folder, spec))
    recipe, notes = suited(recipe, base)
    tokenizer = tokenizer_of(base)
    data = make_dataset(read_content(folder, spec, recipe), Renderer(tokenizer), recipe)
    require_positions(base, max(len(sample.ids) for sample in (*data.train, *data.heldout, *data.general)))
    return Job(spec, recipe, base, tokenizer, data, notes)


def _make(folder: Path, spec: JobSpec, target: Path, run: Run) -> None:
    run.enter(Phase(name="material"))
    job = prepare(folder, spec)
    write_people(folder, job.data.people)
    job.data.held_out.write(folder / NEW_HELD_OUT_FILE)
    log.info("samples: %s", job.data.counts)
    chosen = for_run(spec.request.recipe, job.recipe, job.base, replies_in(job.data.train), begun(folder, spec))
    fit = fitted(chosen.recipe)
    caveats = (*chosen.why, *job.notes, *fit.notes, *warnings_about(fit.recipe, len(job.data.train)))
    for caveat in caveats:
        log.warning("%s", caveat)
    run.processes.share(fit.recipe.per_device_train_batch_size, fit.recipe.gradient_accumulation_steps)
    frozen = freeze(folder, _wanted(job, fit.recipe, chosen.why, run.processes.count))
    run.enter(Phase(name="base model", detail=f"loading {job.base.name}"))
    before = _measure_base(job, run)
    with written_aside(target) as aside:
        trained, frozen = _train(job, frozen, folder, run, before[0])
        config = trained.model.peft_config["default"]
        config.base_model_name_or_path, config.revision = job.base.repository, job.base.revision or None
        trained.model.save_pretrained(aside, save_embedding_layers=False)
        history, account, kernels = trained.history, trained.account, trained.kernels
        del trained, config  # the model that is measured next takes its place
        release_memory()
        metrics = _measure_adapter(job, aside, before, run)
        run.enter(Phase(name="writing"))
        training = Training(history, account.seconds, account.memory.peak(), metrics, kernels)
        write_report(aside, training)
        _describe(job, frozen, (*caveats, *frozen.caveats), aside, training)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _wanted(job: Job, recipe: Recipe, chosen: tuple[str, ...], processes: int) -> Frozen:
    return Frozen(
        recipe=recipe,
        batches=batches_hash(job.data.train, recipe),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        packages=packages(),
        batch=recipe.per_device_train_batch_size,
        accumulation=recipe.gradient_accumulation_steps,
        processes=processes,
        asked=hash_of_request(job.spec),
        chosen=chosen,
    )


def _measure_base(job: Job, run: Run) -> tuple[float, float]:
    from trainer.evaluate import load_served

    model = load_served(job.base, job.spec.serving_precision)
    run.enter(Phase(name="measuring the base", detail=f"{len(job.data.heldout)} held-out replies"))
    losses = _losses(model, job.data, run)
    del model
    release_memory()
    return losses


def _train(job: Job, frozen: Frozen, folder: Path, run: Run, start_loss: float) -> tuple[Trained, Frozen]:
    """Train to the end; where memory runs out, go on from the last checkpoint with smaller batches.

    Of several processes only one may run out, and the others would wait for it: then the run ends.
    """
    account = run.account
    run.processes.join()
    run.processes.told((frozen, start_loss))
    while True:
        try:
            return _trained(job, frozen, folder, run, start_loss, account), frozen
        except Exception as error:
            smaller = frozen.halved() if is_out_of_memory(error) else None
            if smaller is None or run.processes.are_many:
                raise
            log.warning("out of memory with batches of %d: going on with %d", frozen.batch, smaller.batch)
        frozen, account = smaller, Account()
        refreeze(folder, frozen)
        release_memory()


def _trained(job: Job, frozen: Frozen, folder: Path, run: Run, start_loss: float, account: Account) -> Trained:
    detail = f"{len(job.data.train)} replies"
    if frozen.is_halved:
        detail += f", memory allows batches of {frozen.batch} instead of {frozen.recipe.per_device_train_batch_size}"
    run.enter(Phase(name="training", detail=detail))
    request = job.spec.request
    name = f"{request.persona or 'dialogue'}-{job.spec.version}"
    tracking = Tracking(folder, name, {**frozen.used.hyperparameters, "recipe": request.recipe}, os.environ)

    def listen(event: Heard) -> None:
        run.emit(event)
        tracking.note(event)

    try:
        return _adapter(job, _course(job, frozen, folder, replace(run, account=account), start_loss, listen))
    finally:
        tracking.close()


def _course(
    job: Job,
    frozen: Frozen,
    folder: Path,
    run: Run,
    start_loss: float,
    listen: Callable[[Heard], None] = lambda event: None,
) -> Course:
    from trainer.reply_trainer import Course

    return Course(
        job.data.train,
        job.data.heldout,
        frozen.used,
        listen,
        run.processes.agreeing(run.check),
        folder=folder / CHECKPOINTS,
        checkpoint_s=run.checkpoint_s,
        sorted_in=frozen.recipe.per_device_train_batch_size,
        start_loss=start_loss,
        account=run.account,
        hold=run.hold,
        processes=run.processes,
    )


def _adapter(job: Job, course: Course) -> Trained:
    from trainer.qlora import train_adapter

    return train_adapter(job.base, job.tokenizer, course)


def _measure_adapter(job: Job, aside: Path, before: tuple[float, float], run: Run) -> ScoreCard:
    """Measure what was written, read back and served as the engine does."""
    from personas.engine.weights import AdaptedModel
    from trainer.evaluate import load_served

    run.enter(Phase(name="measuring the adapter", detail=f"{len(job.data.heldout)} held-out replies"))
    served = AdaptedModel(load_served(job.base, job.spec.serving_precision), fingerprint(job.base))
    served.attach(AdapterRef(job.spec.request.persona or "dialogue", job.spec.version, aside))
    tuned, general = _losses(served.model, job.data, run)
    require_number(tuned, "the held-out replies, with the new adapter,", job.recipe)
    scorecard = ScoreCard(
        heldout_replies=len(job.data.heldout),
        heldout_tokens=sum(sample.reply_tokens for sample in job.data.heldout),
        loss_base=before[0],
        loss_tuned=tuned,
        general_loss_base=before[1],
        general_loss_tuned=general,
        precision=job.spec.serving_precision,
    )
    run.emit(ScoreCardEvent(scorecard=scorecard))
    return scorecard


def _losses(model: Any, data: Dataset, run: Run) -> tuple[float, float]:
    """Per reply token: on the held-out replies, and on general dialogue."""
    from trainer.evaluate import mean_loss, measure

    heldout = mean_loss(measure(model, data.heldout, run.between))
    return heldout, mean_loss(measure(model, data.general, run.between))


def _describe(job: Job, frozen: Frozen, caveats: tuple[str, ...], aside: Path, training: Training) -> None:
    metrics = training.metrics
    (aside / "scorecard.json").write_text(metrics.model_dump_json(indent=2) + "\n", encoding="utf-8")
    manifest = manifest_of(job, frozen, caveats, training)
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
