"""A prepared job: its recipe, base model, tokenizer and data, before any model is loaded."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas.home.job_folder import read_spec
from personas.models.base_model import BaseModel
from personas.models.loading import load_tokenizer, read_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.training import JobSpec
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import read_job_inputs
from trainer.dataset.loader import load_job_dataset
from trainer.estimate.workload import Workload, workload_of
from trainer.recipe.parent_adapter import ParentAdapter
from trainer.recipe.resolve import resolve_job
from trainer.schemas import Recipe
from trainer.train.resume_config import resumed_recipe


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
    the request.

    `parent` is the adapter that is trained further, None for a new one.
    """

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()
    parent: ParentAdapter | None = None

    @property
    def workload(self) -> Workload:
        """The workload of all stages together."""
        method = self.data.preferences.method if self.data.preferences else None
        return workload_of(self.data.trained, self.data.heldout, self.data.general, method)


def prepare_job_without_torch(folder: Path) -> PreparedJob:
    """Prepare a job without the model libraries, for a plan of its run."""
    return prepare_job(folder, read_spec(folder), load=load_fast_tokenizer)


def prepare_job(
    folder: Path,
    spec: JobSpec,
    *,
    load: Callable[[BaseModel], Any] = load_tokenizer,
    stores_dataset: bool = False,
    between: Callable[[], object] = lambda: None,
) -> PreparedJob:
    """Resolve a job's recipe and load its samples, before any model is loaded; the same folder
    gives the same result.

    `load` loads the tokenizer. `stores_dataset` keeps the built samples in the job's folder.
    `between` is called between two conversations or samples. Raises `UnderstudyError`.
    """
    inputs = replace(read_job_inputs(folder, spec), between=between)
    resolved = resolve_job(spec, inputs, resumed_recipe(folder, spec))
    base = resolved.base
    tokenizer = load(base)
    data = load_job_dataset(
        folder,
        spec,
        inputs,
        Renderer(tokenizer),
        recipe=resolved.recipe,
        base=base,
        stores=stores_dataset,
    )
    resolved.require_readable((*data.trained, *data.heldout, *data.general), tokenizer)
    if resolved.parent:
        data = resolved.parent.with_people(data)
    return PreparedJob(
        spec=spec,
        recipe=resolved.recipe,
        base=base,
        tokenizer=tokenizer,
        data=data,
        notes=(*resolved.notes, *data.caveats),
        parent=resolved.parent,
    )
