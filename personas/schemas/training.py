"""Training types shared by the bot and the trainer: request, job, material, adapter manifest."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from personas.schemas.base import FrozenModel, Right
from personas.schemas.formatting import model_label
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training_events import ScoreSummary

PERSONA_ID_DESCRIPTION = "up to 64 small letters, digits, - and _, the first a letter or digit"
TaskType = Literal["persona", "dialogue", "preference"]
"""`persona` trains a persona's voice, `dialogue` general dialogue, `preference` a persona's voice
from preferences.
"""

DEFAULT_RECIPE = "demo-cpu"
QUICK_RECIPE = "quick"
CARD_RECIPE = "card"
PREFERENCE_RECIPE = "preference"
JOB_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
JOB_NAME_DESCRIPTION = "up to 64 letters, digits, - and _, the first a letter or digit"
MaterialKind = Literal[
    "card",
    "log",
    "messages",
    "dataset",
    "lore",
    "general",
    "general-training",
    "adapter",
    "preferences",
    "pairs",
    "heldout",
]
ServingPrecision = Literal["bfloat16", "float32", "int8", "nf4"]
"""Precision a base model is served in. With `int8` and `nf4` only the linear layers' weights are
quantised.
"""


def _default_recipe(given: dict[str, Any]) -> str:
    """Return the default recipe: preference jobs and jobs from a card have one of their own."""
    if given.get("task_type") == "preference":
        return PREFERENCE_RECIPE
    return CARD_RECIPE if given.get("from_card") else DEFAULT_RECIPE


class Teacher(FrozenModel):
    """The model that writes a persona's replies from its card before the training, and its licence.

    `model` is a base model on this machine, or with a `url` the name of a model at a server with
    OpenAI's chat completions. Where it is not stated, the base model itself writes.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    url: Annotated[str, Field(max_length=2048, pattern=r"^(https?://.*)?$")] = ""
    licence: Annotated[str, Field(min_length=1, max_length=64)]


class TrainingRequest(FrozenModel):
    """Body of the published REST call that starts a training job (`POST /finetune/start-training`).

    `dataset` names an entry of the catalogue, `dataset_path` is a path; without either, a persona
    is trained on its own material. `right` is the right to `dataset_path` where none is stated,
    by whoever sends the request, today; it changes nothing for data from Discord's API. `general`
    names the general dialogue for recipes that mix some in, `start_from` a dialogue adapter to
    train further. A preference job continues from the persona's version in `start_from`, else
    from the live one, and learns from members' preferences; the conversations of its material
    hold the replies that measure it. `lore_pairs` is the share of a persona's replies that come
    from its lore, in pairs extracted by rules and in synthesised dialogues; with 1 it is trained
    on these alone. `from_card` is the share of a persona's replies that a model writes from its
    card and lore before the training; with 1 no others are needed. `teacher` is that model, if it
    is not the base model. With `review` the job stops once they are written, and is resumed after
    they were read.
    """

    job_name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, description=JOB_NAME_DESCRIPTION)]
    base_model: Annotated[str, Field(min_length=1, max_length=512)] = "embedded"
    dataset: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    dataset_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    right: Annotated[Right, Field(max_length=80)] | None = None
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
    # Before the recipe, whose default depends on it.
    from_card: Annotated[float, Field(gt=0, le=1)] | None = None
    recipe: Annotated[str, Field(max_length=64, json_schema_extra={"default": DEFAULT_RECIPE})] = (
        Field(default_factory=_default_recipe)
    )
    lore_pairs: Annotated[float, Field(ge=0, le=1)] | None = None
    teacher: Teacher | None = None
    review: bool | None = None
    hyperparameters: Hyperparameters = Hyperparameters()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task_type == "preference" and self.general:
            raise ValueError("task_type preference mixes no general dialogue in: leave general out")
        if self.dataset and self.dataset_path:
            raise ValueError("give dataset or dataset_path, not both")
        if self.right and not self.dataset_path:
            raise ValueError("right is for dataset_path: leave it out, or give a path")
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

    @model_validator(mode="after")
    def _consistent_from_card(self) -> Self:
        if self.from_card is None:
            if self.teacher or self.review:
                raise ValueError(
                    "teacher and review are for replies from a card: set from_card, too"
                )
            return self
        if self.task_type != "persona":
            raise ValueError(
                f"task_type {self.task_type} takes no from_card: leave it out, or use task_type "
                "persona"
            )
        if self.lore_pairs:
            raise ValueError(
                "from_card reads the lore, too: leave lore_pairs out, or from_card out"
            )
        if self.from_card == 1 and (self.dataset or self.dataset_path):
            raise ValueError(
                "from_card 1 trains on replies from the card alone: leave the data set out, or give "
                "a smaller share"
            )
        return self


class Material(FrozenModel):
    """A file or folder of a job, with its right: who states it, when (ISO 8601), why; and the day
    it arrived, if one.

    `persona_names` are further names and ids of the persona in it, `mapping` are pairs such as
    `speaker=Absender` for the columns of a table. A `dataset` is a folder built by `dataset build`,
    an `adapter` the one that is trained further, `preferences` are preference records
    (`personas.home.preferences`), and `pairs` synthesised dialogues about a persona's lore. `heldout`
    are exchanges that will measure it: nothing like their questions is asked of a teacher.
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


class WrittenReplies(FrozenModel):
    """The replies that a model wrote from a persona's card: the model with its licence, the
    questions asked, the replies kept, those of them that rules have made or somebody has changed, and
    the drafts left out by reason. `taken_from` is the job from which they were taken over, if any.
    """

    teacher: str
    licence: str = ""
    asked: int
    kept: int
    by_rules: int = 0
    edited: int = 0
    dropped: dict[str, int]
    taken_from: str = ""

    @property
    def text(self) -> str:
        """Describe them in a sentence."""
        licence = f" ({self.licence})" if self.licence else ""
        dropped = ", ".join(f"{count:,} × {reason}" for reason, count in self.dropped.items())
        end = f"; drafts left out: {dropped}" if dropped else ""
        if self.by_rules:
            end = f"; {self.by_rules:,} more are given or taken from the lore by rules{end}"
        if self.edited:
            end = f"; {self.edited:,} more are somebody's, who has changed what was written{end}"
        by_teacher = self.kept - self.by_rules - self.edited
        return (
            f"{model_label(self.teacher)}{licence} wrote {by_teacher:,} replies from the "
            f"card{end}. {self.asked:,} questions were asked."
        )


class AdapterManifest(FrozenModel):
    """Content of `manifest.json` in an adapter folder.

    `rights` counts samples by right, `threads` is the number of compute threads and `kernels` names
    the kernels used, `caveats` describe deviations from the request, `checksums` maps each other
    file of the folder to its SHA-256. `chat_template` is the base model's `own`, or a default one
    (`personas.prompt.chat_template`). `written` are replies that a model wrote from the card.
    `source` is set for an adapter that came from outside;
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
    written: WrittenReplies | None = None
    source: AdapterSource | None = None
    audit: bool = False
    metrics: ScoreSummary
    checksums: dict[str, str]
