"""Trains the personas again whose live versions were made for another base model: `/finetune all`."""

import time
from dataclasses import dataclass, replace

from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.store import Store, TrainingJob
from bot.training.actions import Trainings
from bot.training.repeat import LEFT_TO_THE_BOT
from bot.training.request_checks import (
    MEMORY_FIELDS,
    InsufficientMemoryError,
    RequestJson,
    available_memory_bytes,
    requested_recipe_plan,
)
from personas.errors import RequestError, UnderstudyError
from personas.schemas.training import TrainingRequest

AUTO_RECIPE = "auto"
"""The recipe that chooses its values by base model, material and machine."""
MAX_PARENTS = 20
"""Versions that were trained on from one another, at most."""


@dataclass(frozen=True)
class Retraining:
    """A persona to train again: its live version, the base model of that one, and the request, which
    repeats the version's own over the served model.

    `seconds` and `memory_bytes` are the plan's; `error` says why it cannot be trained, `job` is the
    queued job.
    """

    persona_id: str
    persona_name: str
    version: str
    other_model: str
    request: TrainingRequest
    seconds: float = 0.0
    memory_bytes: int = 0
    error: str = ""
    job: TrainingJob | None = None


@dataclass(frozen=True)
class RetrainAllPlan:
    """The trainings of a server, in the order in which they are queued."""

    base_model: str
    items: tuple[Retraining, ...]

    @property
    def possible(self) -> tuple[Retraining, ...]:
        return tuple(item for item in self.items if not item.error)

    @property
    def seconds(self) -> float:
        """The time of all of them, one after another."""
        return sum(item.seconds for item in self.possible)

    @property
    def memory_bytes(self) -> int:
        """The largest of them."""
        return max((item.memory_bytes for item in self.possible), default=0)


class RetrainAll:
    """Plans and queues the trainings. Methods raise `UnderstudyError`s."""

    def __init__(
        self,
        store: Store,
        personas: PersonaRegistry,
        served_versions: ServedVersions,
        trainings: Trainings,
        base_model: str,
    ) -> None:
        self._store = store
        self._personas = personas
        self._served_versions = served_versions
        self._trainings = trainings
        self._base_model = base_model

    def find(self, guild_id: int) -> RetrainAllPlan:
        """List which of a server's personas are to be trained again, without planning."""
        items = []
        for persona in self._personas.of(guild_id).values():
            version = self._served_versions.unserved(persona.id, guild_id)
            if not version:
                continue
            other = self._served_versions.incompatible.model_of(persona.id, version) or ""
            items.append(
                Retraining(
                    persona_id=persona.id,
                    persona_name=persona.name,
                    version=version,
                    other_model=other,
                    request=self._request(persona.id, version),
                )
            )
        return RetrainAllPlan(self._base_model, tuple(items))

    async def plan(self, guild_id: int) -> RetrainAllPlan:
        """Say what the trainings take; nothing is queued. A trainer process each, some seconds."""
        found = self.find(guild_id)
        return replace(
            found, items=tuple([await self._planned(item, guild_id) for item in found.items])
        )

    def start(self, guild_id: int, channel_id: int, requested_by: int) -> RetrainAllPlan:
        """Queue the trainings as ordinary jobs, in order; an item that is refused has its error."""
        found = self.find(guild_id)
        items = []
        for item in found.items:
            try:
                started = self._trainings.start(
                    item.request,
                    guild_id=guild_id,
                    channel_id=channel_id,
                    requested_by=requested_by,
                )
                items.append(replace(item, job=started.job))
            except UnderstudyError as error:
                items.append(replace(item, error=str(error)))
        return replace(found, items=tuple(items))

    def _request(self, persona_id: str, version: str) -> TrainingRequest:
        """Repeat the request of a version over the served model. Its recipe was for another size, so
        `auto` chooses; settings that memory depends on are left to it, and the teacher to the bot's
        settings. Adapters of the other model cannot be trained further, so a preference training is
        replaced by that of the version below it.
        """
        moment = time.strftime("%m%d-%H%M%S", time.gmtime())
        changes: RequestJson = {
            "job_name": f"{persona_id[:40]}-{moment}",
            "recipe": AUTO_RECIPE,
        }
        request = self._stored_request(persona_id, version)
        for _ in range(MAX_PARENTS):
            if request is None or request.task_type == "persona":
                break
            request = self._stored_request(persona_id, request.start_from or "")
        if request is None or request.persona != persona_id:
            return self._trainings.parse({"persona": persona_id, **changes})
        left_out = {"start_from", "review", *LEFT_TO_THE_BOT}
        kept = request.model_dump(mode="json", exclude_none=True, exclude=left_out)
        changes["hyperparameters"] = request.hyperparameters.model_dump(
            mode="json", exclude_none=True, exclude=set(MEMORY_FIELDS)
        )
        return self._trainings.parse({**kept, **changes})

    def _stored_request(self, persona_id: str, version: str) -> TrainingRequest | None:
        job = self._job(persona_id, version)
        if job is None:
            return None
        try:
            return job.request
        except RequestError:  # it was stored by another version of the bot
            return None

    def _job(self, persona_id: str, version: str) -> TrainingJob | None:
        """Return the job that trained a version; None for an empty name."""
        return self._store.jobs.get(self._store.versions.job_of(persona_id, version) or "")

    async def _planned(self, item: Retraining, guild_id: int) -> Retraining:
        try:
            planned = await self._trainings.plan(item.request, guild_id)
            if planned.conflict:
                return replace(item, error=str(planned.conflict))
            estimate = requested_recipe_plan(planned.plan, item.request.recipe)
            if estimate.memory_bytes > (free := available_memory_bytes()):
                raise InsufficientMemoryError(estimate, free, None)
        except UnderstudyError as error:
            return replace(item, error=str(error))
        return replace(item, seconds=estimate.seconds, memory_bytes=estimate.memory_bytes)
