"""Training types shared by the bot and the trainer: request, job, material, adapter manifest."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from personas.schemas.base import FrozenModel, Right
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training_events import ScoreSummary

PERSONA_ID_DESCRIPTION = "up to 64 small letters, digits, - and _, the first a letter or digit"
TaskType = Literal["persona", "dialogue", "preference"]
"""`persona` trains a persona's voice, `dialogue` general dialogue, `preference` a persona's voice
from preferences.
"""

DEFAULT_RECIPE = "demo-cpu"
JOB_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
JOB_NAME_DESCRIPTION = "up to 64 letters, digits, - and _, the first a letter or digit"
MaterialKind = Literal[
    "card", "log", "messages", "dataset", "lore", "general", "adapter", "preferences", "pairs"
]
ServingPrecision = Literal["bfloat16", "float32", "int8", "nf4"]
"""Precision a base model is served in. With `int8` and `nf4` only the linear layers' weights are
quantised.
"""


def _default_recipe(given: dict[str, Any]) -> str:
    """Return the default recipe: preference jobs have one of their own."""
    return "preference" if given.get("task_type") == "preference" else DEFAULT_RECIPE


class TrainingRequest(FrozenModel):
    """Body of the published REST call that starts a training job (`POST /finetune/start-training`).

    `dataset` names an entry of the catalogue, `dataset_path` is a path; without either, a persona
    is trained on its own material. `general` names the general dialogue for recipes that mix some
    in, `start_from` a dialogue adapter to train further. A preference job continues from the
    persona's version in `start_from`, else from the live one, and learns from members' preferences;
    the conversations of its material hold the replies that measure it. `lore_pairs` is the share of
    a persona's replies that come from its lore, in pairs extracted by rules and in synthesised
    dialogues; with 1 it is trained on these alone.
    """

    job_name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, description=JOB_NAME_DESCRIPTION)]
    base_model: Annotated[str, Field(min_length=1, max_length=512)] = "embedded"
    dataset: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    dataset_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    task_type: TaskType = "persona"
    persona: (
        Annotated[
            str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description=PERSONA_ID_DESCRIPTION)
        ]
        | None
    ) = None
    general: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    start_from: (
        Annotated[str, Field(pattern=JOB_NAME_PATTERN, description=JOB_NAME_DESCRIPTION)] | None
    ) = None
    recipe: Annotated[str, Field(max_length=64, json_schema_extra={"default": DEFAULT_RECIPE})] = (
        Field(default_factory=_default_recipe)
    )
    lore_pairs: Annotated[float, Field(ge=0, le=1)] | None = None
    hyperparameters: Hyperparameters = Hyperparameters()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task_type == "preference" and self.general:
            raise ValueError("task_type preference mixes no general dialogue in: leave general out")
        if self.dataset and self.dataset_path:
            raise ValueError("give dataset or dataset_path, not both")
        if self.task_type != "dialogue" and not self.persona:
            raise ValueError(f"task_type {self.task_type} needs a persona")
        if self.task_type == "dialogue" and self.persona:
            raise ValueError(
                "task_type dialogue trains no persona: leave persona out, or use task_type persona"
            )
        if self.task_type == "dialogue" and self.general:
            raise ValueError(
                "task_type dialogue trains on general dialogue alone: leave general out, or name a "
                "persona"
            )
        if self.lore_pairs and self.task_type != "persona":
            raise ValueError(
                f"task_type {self.task_type} takes no lore_pairs: leave them out, or use task_type "
                "persona"
            )
        if self.lore_pairs == 1 and (self.dataset or self.dataset_path):
            raise ValueError(
                "lore_pairs 1 trains on lore alone: leave the data set out, or give a smaller share"
            )
        return self


class Material(FrozenModel):
    """A file or folder of a job, with its right: who states it, when (ISO 8601), why; and the day
    it arrived, if one.

    `persona_names` are further names and ids of the persona in it, `mapping` are pairs such as
    `speaker=Absender` for the columns of a table. A `dataset` is a folder built by `dataset build`,
    an `adapter` the one that is trained further, `preferences` are preference records
    (`personas.home.preferences`), and `pairs` synthesised dialogues about a persona's lore.
    """

    kind: MaterialKind
    path: str
    origin: str
    right: Right
    stated_by: str
    sha256: str
    stated_on: str = ""
    why: str = ""
    arrived: str = ""
    format: str | None = None
    persona_names: tuple[str, ...] = ()
    mapping: tuple[str, ...] = ()


class JobSpec(FrozenModel):
    """Content of `request.json`, for `trainer run FOLDER`; `serving_precision` is also that of the
    measured losses.
    """

    format: Literal[1] = 1
    job_id: str
    version: str
    request: TrainingRequest
    materials: tuple[Material, ...]
    serving_precision: ServingPrecision = "bfloat16"


class ParentAdapterInfo(FrozenModel):
    """The adapter that was trained further: its persona, version and job, and the SHA-256 of its
    weights.
    """

    persona: str | None
    version: str
    job_id: str
    weights: str


class AdapterSource(FrozenModel):
    """Origin of an adapter from outside: a hub repository with its commit and licence, or a file's
    name.

    `base_model` is the one that its configuration names.
    """

    name: str
    commit: str = ""
    licence: str = ""
    base_model: str = ""


class AdapterManifest(FrozenModel):
    """Content of `manifest.json` in an adapter folder.

    `rights` counts samples by right, `threads` is the number of compute threads and `kernels` names
    the kernels used, `caveats` describe deviations from the request, `checksums` maps each other
    file of the folder to its SHA-256. `chat_template` is the base model's `own`, or a default one
    (`personas.prompt.chat_template`). `source` is set for an adapter that came from outside;
    `audit` marks a copy trained with planted texts to measure memorisation, which is never served.
    """

    format: Literal[1] = 1
    persona: str | None
    version: str
    job_id: str
    created_at: str
    base_model: str
    base_model_hash: str
    prompt_version: str
    chat_template: Literal["own", "chatml", "plain"] = "own"
    lora: dict[str, int | float | list[str]]
    recipe: str
    hyperparameters: dict[str, int | float | str]
    training_precision: str
    serving_precision: str
    dataset_hash: str
    dataset: dict[str, int]
    rights: dict[str, int]
    seed: int
    packages: dict[str, str]
    threads: int | None = None
    kernels: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    start_from: ParentAdapterInfo | None = None
    source: AdapterSource | None = None
    audit: bool = False
    metrics: ScoreSummary
    checksums: dict[str, str]
