"""The stage of a run in which a teacher writes a persona's replies, before its samples are made."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from personas.errors import (
    BaseModelError,
    MaterialError,
    NoMemoryError,
    TrainingError,
    is_out_of_memory,
)
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE, TEACHER_ADVICE, teacher_key
from personas.home.written_replies import (
    REVIEW_ADVICE,
    read_summary,
    read_written,
    review_file,
    struck_file,
    written_file,
)
from personas.models.base_model import EMBEDDED
from personas.models.catalogue import find_model
from personas.schemas.formatting import format_time_left, model_label
from personas.schemas.training import JobSpec, TrainingRequest
from trainer.dataset.dedup_split import TooLittleMaterialError
from trainer.dataset.job_inputs import questions_to_write, read_job_inputs, read_job_talk
from trainer.dataset.synthetic.reply_backends import (
    EndpointBackend,
    EngineBackend,
    ReplyBackend,
)
from trainer.estimate.memory_check import require_memory
from trainer.estimate.run_estimate import estimate_event
from trainer.machine import release_memory
from trainer.recipe.resolve import resolve_job
from trainer.teacher.reply_writer import WritingTask, take_over_replies, write_replies
from trainer.teacher.sent_prose import without_speakers
from trainer.train.job import ASKED_PER_REPLY, prepare_job
from trainer.train.phase_progress import PhaseProgress
from trainer.train.resume_config import resumed_recipe
from trainer.train.training_run import RunControl, resolve_job_run

log = logging.getLogger(__name__)
REPLIES_AT_ONCE = 8
TEMPERATURE = 0.7
"""Of every teacher, above that of channels: the likeliest words of a small model are its blandest, and a judge chooses
among the drafts.
"""
GUIDANCE_SCALE = 1.5
"""Guidance scale of the base model's own drafts: a small model heeds a card too little."""
SERVER_ADVICE = (
    "Check TEACHER, which ends with /v1, TEACHER_MODEL and, where the server takes a key, "
    "TEACHER_KEY."
)
EMBEDDED_LICENCE = "Apache-2.0"
"""The licence of SmolLM2-135M-Instruct, as its card on the hub states it."""


class TooFewWrittenError(MaterialError):
    """Of the written replies, too few are left to train on: they can be changed, or put back."""

    can_resume = True


class ReviewNeededError(TrainingError):
    """The replies are written and have to be read; then the run is resumed."""

    can_resume = True


def write_job_replies(folder: Path, spec: JobSpec, control: RunControl) -> None:
    """Have the replies of a job written that trains from a card, unless they are there.

    Raises `UnderstudyError`, and what `control` raises to stop; the same job goes on where it was.
    Raises `ReviewNeededError` where the replies are to be read, until somebody has the run go on:
    the bot's `accept_written`, or whoever runs the folder by hand once more.
    """
    if not spec.request.from_card:
        return
    if not written_file(folder).exists():
        for file in (review_file(folder), struck_file(folder)):  # of other replies
            file.unlink(missing_ok=True)
        _write(folder, spec, control)
    elif control.is_by_hand:
        review_file(folder).touch()
    if spec.request.review and not review_file(folder).exists():
        raise ReviewNeededError(
            f"{len(read_written(written_file(folder))):,} replies are written, and wait to be read.",
            REVIEW_ADVICE,
        )


@contextmanager
def written_can_be_mended(spec: JobSpec) -> Iterator[None]:
    """Inside, raise `TooFewWrittenError` for a job from a card that has too little material."""
    try:
        yield
    except TooLittleMaterialError as error:
        if not spec.request.from_card:
            raise
        raise TooFewWrittenError(
            error.message,
            "On the page of the training, under Written replies, put back what was struck out, or "
            "change what is left, so that no two say the same. Then resume it.",
        ) from error


def _write(folder: Path, spec: JobSpec, control: RunControl) -> None:
    backend, licence = choose_teacher(spec.request, before_step=control.pause.wait)
    task = _make_task(folder, spec, licence)
    if earlier := take_over_replies(folder, task, teacher=backend.name, fence=control.fence):
        log.info(
            "The replies of the job %s are taken over, with what was changed and struck out there; "
            "nothing is written.",
            earlier,
        )
        return
    with _teacher_named_for_memory():
        _prepare(backend, spec.request)
    _announce_run(folder, spec, control)
    is_here = spec.request.teacher is None or not spec.request.teacher.url
    progress = _WritingProgress(control, task.count, model_label(backend.name), is_here=is_here)
    if isinstance(backend, EndpointBackend):
        backend = replace(backend, tell=progress.tell_delay)
    with _teacher_named_for_memory():
        write_replies(
            folder,
            task,
            backend=backend,
            # A model of this machine pauses before each of its steps.
            between=control.check if is_here else control.between,
            progress=progress.report,
            resumed=progress.resume,
            fence=control.fence,
        )
    release_memory()
    summary = read_summary(folder)
    assert summary is not None  # it has just been written
    log.info("%s", summary.text)


class _WritingProgress:
    """Reports how many of `count` replies are written, and what a server asks to wait. `is_here`: a
    model of this machine writes, whose speed is that of the training, too.
    """

    def __init__(self, control: RunControl, count: int, writer: str, *, is_here: bool) -> None:
        self._control = control
        self._count = count
        self._is_here = is_here
        self._detail = f"{count:,} replies by {writer}"
        self._phase = PhaseProgress(
            control, "writing replies", self._detail, count, is_counted=True
        )
        self._asked_before = 0
        self._waits = False

    def resume(self, kept: int, asked: int) -> None:
        """Take note of what a stopped writing left."""
        self._asked_before = asked
        self._phase.resume_at(kept)

    def report(self, kept: int, asked: int) -> None:
        """Take note of the replies that are kept, and of the questions that were asked."""
        if self._is_here:
            share = (asked - self._asked_before) / (self._count * ASKED_PER_REPLY)
            self._control.timeline.left.compare("writing replies", share, self._phase.took_s)
        self._phase.update(kept)
        if self._waits:
            self._waits = False
            self._phase.describe(self._detail)

    def tell_delay(self, seconds: float) -> None:
        """Say once that the server asks to wait, until it has answered."""
        if self._waits:
            return
        self._waits = True
        text = f"the teacher's server asks to wait for {format_time_left(seconds)}"
        log.warning("%s", text)
        self._phase.describe(f"{self._detail}; {text}")


def _prepare(backend: ReplyBackend, request: TrainingRequest) -> None:
    """Fetch the model that writes. Raises `BaseModelError`, which names the teacher's setting where it
    is not the base model itself.
    """
    try:
        backend.prepare()
    except BaseModelError as error:
        if request.teacher is None:
            raise
        raise BaseModelError(
            f"The teacher {request.teacher.model} cannot be loaded: {error.message}", TEACHER_ADVICE
        ) from error


def _make_task(folder: Path, spec: JobSpec, licence: str) -> WritingTask:
    """Make a job's task of its material. Raises `UnderstudyError`."""
    inputs = read_job_inputs(folder, spec)
    persona = inputs.persona
    assert persona is not None  # the request has one
    resolved = resolve_job(spec, inputs, resumed_recipe(folder, spec))
    recipe = resolved.recipe
    talk = read_job_talk(replace(inputs, from_card=0.0), recipe).conversations
    if spec.request.teacher and spec.request.teacher.url:
        inputs, persona = without_speakers(inputs, persona, talk)
    count, questions = questions_to_write(inputs, persona, talk, recipe)
    return WritingTask(
        persona,
        inputs.lore,
        questions=questions,
        count=count,
        drafts=recipe.written_drafts,
        seed=recipe.seed,
        licence=licence,
        written_by=repr(spec.request.teacher or spec.request.base_model),
    )


@contextmanager
def _teacher_named_for_memory() -> Iterator[None]:
    """Inside, give other advice where memory runs out: no setting of the training helps a teacher."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, NoMemoryError) or is_out_of_memory(error)):
            raise
        reason = error.message if isinstance(error, NoMemoryError) else str(error)
        raise NoMemoryError(
            f"There is no memory for the model that writes the replies: {reason}",
            SMALLER_TEACHER_ADVICE,
        ) from error


def choose_teacher(
    request: TrainingRequest, before_step: Callable[[], object] = lambda: None
) -> tuple[ReplyBackend, str]:
    """Return the model that writes, and its licence: the stated one, else the request's base model. A
    model of this machine calls `before_step` before each step, on a thread of its own.
    """
    teacher = request.teacher
    if teacher is None:
        known = find_model(request.base_model)
        licence = known.licence if known else ""
        if request.base_model == EMBEDDED:
            licence = EMBEDDED_LICENCE
        own = EngineBackend(
            request.base_model,
            at_once=REPLIES_AT_ONCE,
            temperature=TEMPERATURE,
            guidance_scale=GUIDANCE_SCALE,
            before_step=before_step,
        )
        return own, licence
    if teacher.url:
        key = teacher_key(teacher.url)
        server = EndpointBackend(
            teacher.url, teacher.model, key=key, temperature=TEMPERATURE, advice=SERVER_ADVICE
        )
        return server, teacher.licence
    larger = EngineBackend(
        teacher.model,
        at_once=REPLIES_AT_ONCE,
        temperature=TEMPERATURE,
        before_step=before_step,
    )
    return larger, teacher.licence


def _announce_run(folder: Path, spec: JobSpec, control: RunControl) -> None:
    """Emit the estimate of the whole run, by samples that stand in for those to be written. Raises
    `NoMemoryError` where it does not fit: the training that follows, too, before anybody is asked.
    """
    job = prepare_job(folder, spec, between=control.between)
    recipe = resolve_job_run(job, folder).recipe
    # Whoever has replies written alone may train on them on another machine.
    if not (control.skips_memory_check or control.only_writes):
        require_memory(recipe, job.base, job.workload)
    estimate, limit = estimate_event(recipe, job.base, job.workload, control.card)
    control.timeline.expect(estimate.phases, limit)
    control.emit(estimate)
