"""What a form changes of a training's request when it is started once more."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.store import Store, TrainingJob
from bot.training.request_checks import RequestJson
from personas.errors import RequestError
from personas.schemas.hyperparameters import parse_settings_line
from personas.schemas.training import TrainingRequest

MAX_JOB_NAME_CHARS = 64
NUMBERED_NAME_PATTERN = re.compile(r"(.*?)-(\d{1,6})")
OWN_FIELDS = {"epochs": "num_train_epochs", "learning_rate": "learning_rate"}
"""Settings that have a field of their own, by the field."""
LEFT_TO_THE_BOT = {"base_model", "teacher", "hyperparameters"}
"""What a request takes anew from the bot, or the form."""


@dataclass(frozen=True)
class RepeatForm:
    """The fields as they were typed; empty ones are left to the recipe."""

    recipe: str = ""
    epochs: str = ""
    learning_rate: str = ""
    settings: str = ""

    @classmethod
    def of_request(cls, request: TrainingRequest) -> "RepeatForm":
        """The form of a request, with the settings that it names."""
        named = request.hyperparameters.model_dump(mode="json", exclude_none=True)
        own = {key: setting_text(named.pop(name, None)) for key, name in OWN_FIELDS.items()}
        rest = [f"{name}={setting_text(value)}" for name, value in named.items()]
        return cls(recipe=request.recipe, settings=", ".join(rest), **own)

    @classmethod
    def of_fields(cls, values: Mapping[str, str]) -> "RepeatForm":
        """The form with these fields; others are left out."""
        return cls(**{each.name: values.get(each.name, "") for each in fields(cls)})

    def body(self, request: TrainingRequest) -> RequestJson:
        """The body of the request with these changes, under a new name. Raises `RequestError`."""
        if not self.recipe:
            raise RequestError(
                gettext_lazy("There is no recipe."), gettext_lazy("Choose one from the list.")
            )
        pairs = [self.settings.replace("\n", ", ")]
        for key, name in OWN_FIELDS.items():
            if text := getattr(self, key).strip():
                pairs.append(f"{name}={text}")
        settings = parse_settings_line(", ".join(pairs))
        unchanged = request.model_dump(mode="json", exclude_none=True, exclude=LEFT_TO_THE_BOT)
        changes = {
            "job_name": next_job_name(request.job_name),
            "recipe": self.recipe,
            "hyperparameters": settings.model_dump(mode="json", exclude_none=True),
        }
        return {**unchanged, **changes}


def is_repeatable(job: TrainingJob) -> bool:
    """Report whether a server may start a job's training once more, with changes."""
    if not job.has_ended or job.waits_for_review or (job.result and job.result.imported):
        return False
    try:
        return job.request.dataset_path is None  # a path is for the operator
    except RequestError:  # it was stored by another version of the bot
        return False


def find_repeatable(store: Store, job_id: str, guild_id: int) -> TrainingJob:
    """Find a job of a server that it may repeat. Raises `RefusedError`."""
    job = store.jobs.get(job_id)
    if job is None or job.guild_id != guild_id or not is_repeatable(job):
        raise RefusedError(
            gettext_lazy("The training {job} cannot be repeated.", job=job_id),
            gettext_lazy("`/finetune start` starts a new one."),
        )
    return job


def next_job_name(name: str) -> str:
    """A name for the next run: `dusk` becomes `dusk-2`, and that `dusk-3`."""
    stem = name
    number = 2
    if numbered := NUMBERED_NAME_PATTERN.fullmatch(name):
        stem = numbered[1]
        number = int(numbered[2]) + 1
    return f"{stem[: MAX_JOB_NAME_CHARS - len(str(number)) - 1]}-{number}"


def setting_text(value: object) -> str:
    """A value as it is typed: `true`, `0.0002`, `q_proj, v_proj`; empty for None."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case list() | tuple():
            return ", ".join(setting_text(item) for item in value)
    return str(value)
