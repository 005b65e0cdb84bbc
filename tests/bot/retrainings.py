"""Live versions that were trained over another base model than the served one."""

from __future__ import annotations

from typing import Any

from bot.personas.base_model_compat import IncompatibleVersions
from bot.store import JobResult
from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from tests.fakes import PLAN
from tests.samples import SCORECARD

AUTO_PLAN = PLAN.model_copy(
    update={"recipes": (PLAN.recipes[0].model_copy(update={"recipe": "auto"}),)}
)
"""The plan of a request with the recipe `auto`."""
OTHER_MODEL = "harbour/other@abc"


def put_live_version(
    services: Any,
    persona: str,
    guild_id: int = 0,
    at: float = 1.0,
    live_in: int = 0,
    **request: Any,
) -> str:
    """Make a version live, in a guild or in all, that a guild's job trained with this request;
    returns its name.
    """
    store = services.store
    version = store.versions.reserve(persona)
    wanted = TrainingRequest(
        **{"job_name": f"{persona}-first", "persona": persona, "base_model": OTHER_MODEL} | request
    )
    job = NewTrainingJob(f"{persona}-{version}", guild_id, 2, 7, wanted)
    store.jobs.add_imported(
        job, version, JobResult(adapter="a", seconds=1, scorecard=SCORECARD, imported=True), at
    )
    store.versions.promote(persona, version, by=guild_id or 1, at=at, guild_id=live_in)
    return version


def serve_another_model(services: Any, *versions: tuple[str, str]) -> None:
    """Let the engine's base model be another one than that of these versions."""
    models = IncompatibleVersions(dict.fromkeys(versions, OTHER_MODEL), "served")
    object.__setattr__(services.served_versions, "incompatible", models)
