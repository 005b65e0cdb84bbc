"""Checks whether a training request can run on this machine, and proposes the nearest one that
can.
"""

import asyncio
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from bot.personas.base_model_compat import is_same_model
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.dataset_paths import resolve_dataset_path
from bot.training.queue import JobQueue
from bot.training.training_plan import RecipeEstimate, TrainingPlan
from personas.errors import (
    BaseModelError,
    MaterialError,
    RequestError,
    TrainingError,
    UnderstudyError,
)
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.models.base_model import locate
from personas.models.stored_quantisation import require_unpackable
from personas.schemas.base import explain_validation_error
from personas.schemas.training import (
    Teacher,
    TrainingRequest,
)

MEMORY_FIELDS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "lora_r",
    "target_modules",
)
"""Settings that determine a run's memory; a proposal with another recipe leaves them to that
recipe.
"""
RequestJson = dict[str, Any]


@dataclass(frozen=True)
class SentRequest:
    """A training request and the body that stated it, which proposals change and show."""

    body: RequestJson
    request: TrainingRequest


class UnavailableRequestError(RequestError):
    """The request names what is not on this machine. `fields` maps each wrong field to its error.

    `proposal` is the nearest body that would run here, None if there is none.
    """

    def __init__(self, fields: Mapping[str, UnderstudyError], proposal: RequestJson | None) -> None:
        hint = "; `would_work` is a body that runs here." if proposal else "."
        advice = f"`errors` says what each field needs{hint}"
        super().__init__(" ".join(error.message for error in fields.values()), advice)
        self.fields = fields
        self.proposal = proposal


class InsufficientMemoryError(TrainingError):
    """The run needs more memory than is free; `proposal` is a body that fits, None if there is
    none.
    """

    def __init__(
        self, estimate: RecipeEstimate, free_bytes: int, proposal: RequestJson | None
    ) -> None:
        message = (
            f"The training needs about {estimate.memory_bytes / 2**30:.1f} GiB of memory; "
            f"{free_bytes / 2**30:.1f} GiB are free."
        )
        advice = estimate.memory_advice
        if proposal:
            advice = "`would_work` is a body that fits."
        super().__init__(message, advice)
        self.needed_bytes = estimate.memory_bytes
        self.free_bytes = free_bytes
        self.proposal = proposal


@dataclass(frozen=True)
class RequestChecks:
    """Checks bodies of training requests against the queue, the catalogue and the machine's
    memory.
    """

    queue: JobQueue
    catalogue: DatasetCatalog
    base_model: str
    home: Path
    teacher: Teacher | None = None

    def with_defaults(self, body: RequestJson) -> RequestJson:
        """Return a body with what it leaves out: the served base model, and for replies written from
        a card the teacher of the settings.
        """
        body = {"base_model": self.base_model, **body}
        if not body.get("from_card") or not self.teacher or "teacher" in body:
            return body
        return {**body, "teacher": self.teacher.model_dump()}

    def repeated(self, request: TrainingRequest) -> TrainingRequest:
        """Return a request to be run again by itself: with the teacher of today's settings, as
        another one may have been removed, and with nobody to read its replies.
        """
        if not request.from_card:
            return request
        return request.model_copy(update={"teacher": self.teacher, "review": None})

    def parse(self, body: RequestJson) -> TrainingRequest:
        """Parse a body, `with_defaults`. Raises `RequestError`."""
        try:
            return TrainingRequest.model_validate(self.with_defaults(body))
        except ValidationError as error:
            raise explain_validation_error(error) from error

    async def require_startable(self, sent: SentRequest, guild_id: int = OPERATOR_GUILD_ID) -> None:
        """Raise an `UnderstudyError` unless everything named is available and no job of the guild
        conflicts.
        """
        await self.require_available(sent, guild_id)
        self.queue.check(sent.request, guild_id)

    async def require_available(
        self, sent: SentRequest, guild_id: int = OPERATOR_GUILD_ID, *, proposes: bool = True
    ) -> None:
        """Raise `UnavailableRequestError` if the request names what is not on this machine. A
        proposal takes a plan, and so a trainer process; without one, that is told at once.
        """
        wrong = await asyncio.to_thread(self._find_unavailable, sent.request)
        if wrong:
            proposal = None
            if proposes:
                proposal = await self._propose_available(sent.body, wrong, guild_id)
            raise UnavailableRequestError(wrong, proposal)

    async def require_memory(
        self, sent: SentRequest, guild_id: int = OPERATOR_GUILD_ID
    ) -> TrainingPlan:
        """Plan the run. Raises `InsufficientMemoryError` if it does not fit."""
        request = sent.request
        plan = await self.queue.plan(request, guild_id)
        free = available_memory_bytes()
        estimate = requested_recipe_plan(plan, request.recipe)
        if estimate.memory_bytes <= free:
            return plan
        proposal = next(_fitting_alternatives(sent.body, plan, free), None)
        if proposal is None and request.base_model != self.base_model:
            served = {field: value for field, value in sent.body.items() if field != "base_model"}
            proposal = await self._propose_fitting(served, guild_id)
        raise InsufficientMemoryError(estimate, free, proposal)

    def _find_unavailable(self, request: TrainingRequest) -> dict[str, UnderstudyError]:
        wrong: dict[str, UnderstudyError] = {}
        if not is_same_model(request.base_model, self.base_model):
            base_model_error = _base_model_error(request.base_model)
            if base_model_error:
                wrong["base_model"] = base_model_error
        if teacher_error := self._teacher_error(request.teacher):
            wrong["teacher"] = teacher_error
        try:
            if request.dataset_path:
                dataset = resolve_dataset_path(self.home, request.dataset_path, request.right)
                _require_copyable(dataset.path, self.home)
        except UnderstudyError as error:
            wrong["dataset_path"] = error
        try:
            if request.persona:
                self.catalogue.card(request.persona)
        except UnderstudyError as error:
            wrong["persona"] = error
        recipes = self.catalogue.recipes()
        if request.recipe not in recipes:
            advice = f"Known: {', '.join(recipes)}."
            wrong["recipe"] = UnderstudyError(f"There is no recipe {request.recipe!r}.", advice)
        return wrong

    def _teacher_error(self, teacher: Teacher | None) -> UnderstudyError | None:
        """Say why a teacher that the settings do not name cannot write; None if it may. Whether a
        server answers shows when it is asked.
        """
        if teacher is None or teacher.url or teacher == self.teacher:
            return None
        return _base_model_error(teacher.model)

    async def _propose_available(
        self, body: RequestJson, wrong: Mapping[str, object], guild_id: int
    ) -> RequestJson | None:
        """Find the nearest body that runs here without the wrong fields; None if there is none."""
        for other in self._alternatives(body, wrong):
            if self._is_acceptable(other, guild_id):
                return await self._propose_fitting(other, guild_id)
        return None

    def _alternatives(
        self, body: RequestJson, wrong: Mapping[str, object]
    ) -> Iterator[RequestJson]:
        """Bodies without the wrong fields; a dialogue job then takes a data set of the
        catalogue.
        """
        left_out = {*wrong, "right"} if "dataset_path" in wrong else set(wrong)
        rest = {field: value for field, value in body.items() if field not in left_out}
        yield rest
        if "dataset_path" in wrong:
            for dataset in self.catalogue.datasets():
                yield {**rest, "dataset": dataset}

    def _is_acceptable(self, body: RequestJson, guild_id: int) -> bool:
        try:
            self.queue.check(self.parse(body), guild_id)
        except UnderstudyError:
            return False
        return True

    async def _propose_fitting(self, body: RequestJson, guild_id: int) -> RequestJson | None:
        """Find the body, or the nearest to it, whose run fits into memory; None if there is
        none.
        """
        request = self.parse(body)
        try:
            plan = await self.queue.plan(request, guild_id)
        except UnderstudyError:
            return None
        free = available_memory_bytes()
        if requested_recipe_plan(plan, request.recipe).memory_bytes <= free:
            return body
        return next(_fitting_alternatives(body, plan, free), None)


def available_memory_bytes() -> int:
    """Memory available to the next run: the free memory, and that of the bot's child processes."""
    free = int(psutil.virtual_memory().available)
    for child in psutil.Process().children(recursive=True):
        try:
            free += child.memory_info().rss
        except psutil.Error:  # it has ended meanwhile
            continue
    return free


def requested_recipe_plan(plan: TrainingPlan, recipe: str) -> RecipeEstimate:
    """The estimate of the requested recipe. Raises `TrainingError` if the plan has none."""
    for estimate in plan.recipes:
        if estimate.recipe == recipe:
            return estimate
    raise TrainingError(
        f"The trainer's plan has no estimate for {recipe}.", "Its version is not the bot's."
    )


def _base_model_error(name: str) -> UnderstudyError | None:
    try:
        base = locate(name, fetch=False)
        require_unpackable(base.name, base.quantisation)
    except BaseModelError as error:
        return error
    except (OSError, RuntimeError, ValueError):  # not a possible folder name
        return BaseModelError(
            f"The base model {name!r} is not on this machine.", "Name `embedded` or a model folder."
        )
    return None


def _fitting_alternatives(
    body: RequestJson, plan: TrainingPlan, free: int
) -> Iterator[RequestJson]:
    """Bodies whose runs fit, those with the fewest changes first."""
    requested = body.get("hyperparameters", {})
    for option in plan.lighter:
        if option.memory_bytes <= free:
            yield {**body, "hyperparameters": {**requested, **option.set}}
    others = {field: value for field, value in requested.items() if field not in MEMORY_FIELDS}
    for estimate in sorted(plan.recipes, key=lambda recipe: recipe.memory_bytes, reverse=True):
        if estimate.memory_bytes <= free:
            yield {**body, "recipe": estimate.recipe, "hyperparameters": others}


def _require_copyable(path: Path, home: Path) -> None:
    """Raise `MaterialError` for special files, and for too little disk space for a copy. Slow for
    large folders.
    """
    try:
        needed = sum(_file_sizes(path))
    except OSError as error:
        raise MaterialError(
            f"The data set cannot be read: {error.strerror}.", "Check its rights and links."
        ) from error
    for folder in {home, Path(tempfile.gettempdir())}:
        if needed > shutil.disk_usage(folder).free:
            disk = "UNDERSTUDY_HOME" if folder == home else "the folder for temporary files"
            raise MaterialError(
                f"The data set of {needed / 2**30:.1f} GiB is copied before it is trained on, and "
                f"{disk} has no room.",
                "Free disk space, or name a part of the data set.",
            )


def _file_sizes(path: Path) -> Iterator[int]:
    """Yield the sizes of a path's files in bytes. Raises `MaterialError` at the first that must not
    be copied.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    for file in files:
        if file.is_dir():
            if file.is_symlink():
                raise MaterialError(
                    f"{file.name!r} is a link to a folder.", "Copy its target into the data set."
                )
        elif not stat.S_ISREG((status := file.stat()).st_mode):
            raise MaterialError(
                f"{file.name!r} is not a regular file.", "Leave it out of the data set."
            )
        else:
            yield status.st_size
