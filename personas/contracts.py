"""The frozen types that the bot, the engine and the trainer share.

What stays inside one process is a dataclass. What crosses a process boundary or a disk (training requests, trainer
events, manifests) is a pydantic model that refuses unknown fields, so that a slip is an error and not a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from personas.contract import Contract as Contract
from personas.explain import explain as explain
from personas.hyperparameters import Hyperparameters as Hyperparameters
from personas.rights import Right
from personas.training_events import TRAINER_EVENT as TRAINER_EVENT
from personas.training_events import Done as Done
from personas.training_events import Epoch as Epoch
from personas.training_events import Evaluation as Evaluation
from personas.training_events import Failed as Failed
from personas.training_events import Phase as Phase
from personas.training_events import Progress as Progress
from personas.training_events import ScoreCard as ScoreCard
from personas.training_events import ScoreCardEvent as ScoreCardEvent
from personas.training_events import TrainerEvent as TrainerEvent

# ------------------------------------------------------------------------------------------------ talking


@dataclass(frozen=True)
class Persona:
    """A character: who it is, how it speaks, where. The prose fields go into the prompt; the others do not.

    `nickname` is what `{{char}}` stands for, if not the name. `mes_example` holds talks, `speech` says in prose how the
    character speaks; `system_prompt` opens the prompt and `post_history_instructions` close it.
    """

    id: str
    name: str
    tagline: str = ""
    description: str = ""
    personality: str = ""
    scenario: str = ""
    first_mes: str = ""
    mes_example: str = ""
    tags: tuple[str, ...] = ()
    creator_notes: str = ""
    license: str = ""
    avatar: Path | None = None
    nickname: str = ""
    speech: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    alternate_greetings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message of a talk. `name` is the speaker's: a display name when serving, a pseudonym when training."""

    name: str
    text: str
    by_persona: bool = False


@dataclass(frozen=True)
class LoreHit:
    """A passage of lore that matches a message. `source` is the file's name, `score` grows with the match."""

    source: str
    heading: str
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. `seed` None draws a fresh one; the reply says which it was.

    `temperature` 0 takes the likeliest. `top_k` 0, `top_p` 1 and `min_p` 0 leave nothing out. `logprobs` asks for the
    log-probabilities of the reply's tokens, `alternatives` for its tokens and so many of the likeliest at each place.
    `stop_loops` ends a reply that goes round in circles at the end of its sentence (`personas.engine.loops`).
    """

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    stop_loops: bool = True
    max_new_tokens: int = 120
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    alternatives: int | None = None


@dataclass(frozen=True)
class AdapterRef:
    """One version of a persona's adapter on disk."""

    persona_id: str
    version: str
    folder: Path

    @property
    def name(self) -> str:
        """Unique in the engine; a new version is a new name."""
        return f"{self.persona_id}-{self.version}"


@dataclass(frozen=True)
class ChatRequest:
    """Everything a reply depends on. `persona` None asks nobody in particular, `adapter` None the base model.

    `instructions` stand after the card's prose. The engine is fair between guilds: `guild_id` says who asks.
    """

    persona: Persona | None
    turns: tuple[Turn, ...]
    lore: tuple[LoreHit, ...] = ()
    adapter: AdapterRef | None = None
    sampling: Sampling = field(default_factory=Sampling)
    guild_id: int = 0
    instructions: str = ""


@dataclass(frozen=True)
class Token:
    """A token of a reply, as text, and the natural logarithm of the probability that the model itself gave it.

    `alternatives` are the likeliest at its place with theirs, the likeliest first; it may be among them. The text of a
    part of a character is U+FFFD.
    """

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """A finished reply. `version` is that of the adapter that made it, None for the base model.

    `logprobs` are, where they were asked for, the natural logarithms of the probabilities that the model itself gave to
    the `new_tokens` tokens (the end of turn included), before temperature and the rest. `tokens` are there where
    `alternatives` were asked for. `prompt` is the rendered prompt, control tokens and all; `shortened` says that the
    middle of the last turn was left out of it. `repeated` says that the reply was ended where it went round in a circle
    and that this was taken out.
    """

    text: str
    version: str | None
    seed: int
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled"]
    logprobs: tuple[float, ...] = ()
    tokens: tuple[Token, ...] = ()
    prompt: str = ""
    shortened: bool = False
    repeated: bool = False


# ------------------------------------------------------------------------------------------------ training


PLAIN_NAME = "up to 64 letters, digits, - and _, the first a letter or digit"
PLAIN_ID = "up to 64 small letters, digits, - and _, the first a letter or digit"


TaskType = Literal["persona", "dialogue", "preference"]
"""A persona's voice, dialogue in general, or a persona's voice by what was preferred of it."""


def _usual_recipe(given: dict[str, Any]) -> str:
    """Preferences are learned by a recipe of their own unless another is named."""
    return "preference" if given.get("task_type") == "preference" else "demo-cpu"


class TrainingRequest(Contract):
    """The published REST body of a training job (`POST /finetune/start-training`).

    `dataset` names an entry of the catalogue, `dataset_path` a path; without either, a persona takes its own material.
    `general` names general dialogue for a persona's recipe that mixes some in, `start_from` a dialogue adapter that is
    trained further. A preference job goes on from the persona's version that `start_from` names, else from the live
    one, by what members preferred; its talk holds the replies that measure it.
    """

    job_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description=PLAIN_NAME)]
    base_model: Annotated[str, Field(min_length=1, max_length=512)] = "embedded"
    dataset: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    dataset_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    task_type: TaskType = "persona"
    persona: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description=PLAIN_ID)] | None = None
    general: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    start_from: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description=PLAIN_NAME)] | None = None
    recipe: Annotated[str, Field(max_length=64, json_schema_extra={"default": "demo-cpu"})] = Field(
        default_factory=_usual_recipe
    )
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
            raise ValueError("task_type dialogue trains no persona: leave persona out, or use task_type persona")
        if self.task_type == "dialogue" and self.general:
            raise ValueError(
                "task_type dialogue trains on general dialogue alone: leave general out, or name a persona"
            )
        return self


class Material(Contract):
    """A file or folder of a job: who states which right to it, when (ISO 8601), why; the day it came, if it is one.

    `persona_names` are further names and ids under which the persona speaks in it. A `dataset` is a folder that
    `dataset build` made, an `adapter` the one that is trained further, `preferences` what was liked better than what
    (`personas.preferences`).
    """

    kind: Literal["card", "log", "messages", "dataset", "lore", "general", "adapter", "preferences"]
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


class JobSpec(Contract):
    """`request.json`: with `material/`, `keys.json`, `consent.json` beside it, all that a `trainer run FOLDER` needs.

    `serving_precision` is the precision the engine serves in; the losses are measured in it.
    """

    format: Literal[1] = 1
    job_id: str
    version: str
    request: TrainingRequest
    materials: tuple[Material, ...]
    serving_precision: Literal["bfloat16", "float32", "int8", "nf4"] = "bfloat16"


class StartedFrom(Contract):
    """The adapter that was trained further: whose it was, its version and job, and the SHA-256 of its weights."""

    persona: str | None
    version: str
    job_id: str
    weights: str


class Manifest(Contract):
    """`manifest.json` of an adapter folder.

    `rights` counts samples by right, `threads` is how many computed and `kernels` say with what, `caveats` say in words
    what was not as asked, `checksums` maps each other file of the folder to its SHA-256. `audit` marks a copy that was
    trained with planted texts to see what is learned by heart: it is never served.
    """

    format: Literal[1] = 1
    persona: str | None
    version: str
    job_id: str
    created_at: str
    base_model: str
    base_model_hash: str
    prompt_version: str
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
    start_from: StartedFrom | None = None
    audit: bool = False
    metrics: ScoreCard
    checksums: dict[str, str]
