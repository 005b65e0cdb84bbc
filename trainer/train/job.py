"""A prepared job: its recipe, base model, tokenizer and data, before any model is loaded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.home.job_folder import read_spec
from personas.home.teacher_setting import teacher_notes
from personas.home.written_replies import read_summary, read_written, written_file
from personas.models.base_model import BaseModel
from personas.models.loading import load_tokenizer, read_tokenizer
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.chat import CardChoice
from personas.schemas.training import JobSpec, TrainingRequest, WrittenReplies
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import JobInputs, read_job_inputs
from trainer.dataset.loader import load_job_dataset
from trainer.dataset.written_replies import WRITTEN_SOURCE
from trainer.estimate.model_shape import ModelShape, model_shape_of, shape_by_name
from trainer.estimate.workload import Workload, workload_of
from trainer.recipe.card_fit import (
    card_tokens,
    fit_length_to_card,
    length_notes,
    require_room_beside_card,
)
from trainer.recipe.parent_adapter import ParentAdapter
from trainer.recipe.resolve import resolve_job
from trainer.schemas import Recipe
from trainer.train.resume_config import resumed_recipe

ASKED_PER_REPLY = 1.1
"""Questions that are asked for each reply that is good enough: with four drafts, the bundled model
needed 20 for 20 of one character and 12 for 11 of another.
"""


def load_fast_tokenizer(base: BaseModel) -> Any:
    """Load a tokenizer that gives the same tokens as `load_tokenizer`, in half a second.

    transformers' automatic class imports torch, which takes seconds; where the model has a
    `tokenizer.json`, that is enough. Raises `BaseModelError`.
    """
    if not (base.folder / "tokenizer.json").exists():
        return load_tokenizer(base)
    from transformers import PreTrainedTokenizerFast  # importing takes half a second

    return read_tokenizer(PreTrainedTokenizerFast, base)


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to run. `tokenizer` is the base model's; `notes` say what differs from
    the request, `length_notes` those that a long card causes, of `card_tokens` with an
    exchange.

    `parent` is the adapter that is trained further, None for a new one. `drafts` is the likely
    number of replies that a model is yet to write, for which others stand in, and `writer` the shape
    of that model (`Workload`); `written` describes those that it has written.
    `card` is the one of the prompts that measure a version.
    """

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()
    length_notes: tuple[str, ...] = ()
    card_tokens: int = 0
    parent: ParentAdapter | None = None
    drafts: int = 0
    writer: ModelShape | None = None
    written: WrittenReplies | None = None
    card: CardChoice = "full"

    @property
    def workload(self) -> Workload:
        """The workload of all stages together."""
        return self.workload_over(self.data.trained)

    def workload_over(self, train: Sequence[TokenizedSample]) -> Workload:
        """Return the workload of a run that trains on these samples."""
        method = self.data.preferences.method if self.data.preferences else None
        work = workload_of(train, self.data.heldout, self.data.general, method)
        return replace(work, drafts=self.drafts, writer=self.writer)


def prepare_job_without_torch(folder: Path) -> PreparedJob:
    """Prepare a job without the model libraries, for a plan of its run."""
    return prepare_job(folder, read_spec(folder), load=load_fast_tokenizer)


def prepare_job(
    folder: Path,
    spec: JobSpec,
    *,
    load: Callable[[BaseModel], Any] = load_tokenizer,
    stores_dataset: bool = False,
    card: CardChoice = "full",
    between: Callable[[], object] = lambda: None,
) -> PreparedJob:
    """Resolve a job's recipe and load its samples, before any model is loaded; the same folder
    gives the same result.

    `load` loads the tokenizer. `stores_dataset` keeps the built samples in the job's folder. With
    the short `card`, all prompts have that one, to measure a version with which it is served.
    `between` is called between two conversations or samples. Raises `UnderstudyError`.
    """
    inputs = replace(read_job_inputs(folder, spec), between=between)
    stored = resumed_recipe(folder, spec)
    resolved = resolve_job(spec, inputs, stored)
    base = resolved.base
    tokenizer = load(base)
    renderer = Renderer(tokenizer)
    card_and_exchange = card_tokens(inputs.persona, renderer)
    recipe = fit_length_to_card(resolved.recipe, card_and_exchange, base, stored)
    if inputs.persona and card == "full":
        require_room_beside_card(inputs.persona, card_and_exchange, recipe)
    lengthened = length_notes(resolved.recipe, recipe)
    data = load_job_dataset(
        folder,
        spec,
        inputs,
        renderer.with_card(card),
        recipe=recipe,
        base=base,
        stores=stores_dataset,
    )
    resolved.require_readable((*data.trained, *data.heldout, *data.general), tokenizer)
    if resolved.parent:
        data = resolved.parent.with_people(data)
    drafts = _count_drafts(inputs, data, recipe)
    return PreparedJob(
        spec=spec,
        recipe=recipe,
        base=base,
        tokenizer=tokenizer,
        data=data,
        notes=(*resolved.notes, *lengthened, *data.caveats, *teacher_notes(spec.request)),
        length_notes=lengthened,
        card_tokens=card_and_exchange,
        parent=resolved.parent,
        drafts=drafts,
        writer=_writer_shape(spec.request, base) if drafts else None,
        written=_count_written(folder) if inputs.from_card else None,
        card=card,
    )


def _count_written(folder: Path) -> WrittenReplies | None:
    """Describe the written replies as they are now: somebody may have changed some, or struck them
    out.
    """
    summary = read_summary(folder)
    if summary is None or not written_file(folder).exists():
        return summary
    replies = read_written(written_file(folder))
    by_rules = sum(reply.by in ("lore", "given") for reply in replies)
    edited = sum(reply.by == "edited" for reply in replies)
    counts = {"kept": len(replies), "by_rules": by_rules, "edited": edited}
    return summary.model_copy(update=counts)


def _count_drafts(inputs: JobInputs, data: Dataset, recipe: Recipe) -> int:
    if inputs.written is None or inputs.written.exists():
        return 0
    return math.ceil(data.sources.get(WRITTEN_SOURCE, 0) * recipe.written_drafts * ASKED_PER_REPLY)


def _writer_shape(request: TrainingRequest, base: BaseModel) -> ModelShape | None:
    """Return the shape of the model that writes; None where it is not known: of a server, of a model
    that is yet to be fetched, and of one whose files do not say.
    """
    if request.teacher is None:
        return model_shape_of(base)
    if request.teacher.url:
        return None
    try:
        return shape_by_name(request.teacher.model)
    except BaseModelError:
        return None
