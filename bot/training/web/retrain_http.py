"""`/finetune/all`: trains the personas again whose live versions are for another base model."""

from __future__ import annotations

from aiohttp import web

from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, ResponseSpec
from bot.services import Services
from bot.training.retrain_all import RetrainAllPlan
from personas.home.shared_personas import OPERATOR_GUILD_ID

routes = ApiRoutes("training")


class RetrainingResponse(ApiModel):
    """A persona to train again. `other_model` is its live version's base model, `guild` the server that
    trained it and gets the job (0: the operator); `error` says why it cannot be trained.
    """

    persona: str
    version: str
    other_model: str
    guild: str
    seconds: float
    memory_bytes: int
    error: str | None
    job_id: str | None


class RetrainAllResponse(ApiModel):
    """The trainings in the order in which they are queued: time of all, and memory of the largest."""

    base_model: str
    seconds: float
    memory_bytes: int
    trainings: list[RetrainingResponse]

    @classmethod
    def of(cls, services: Services, plan: RetrainAllPlan) -> RetrainAllResponse:
        trainings = []
        for item in plan.items:
            trainings.append(
                RetrainingResponse(
                    persona=item.persona_id,
                    version=item.version,
                    other_model=redact_paths(item.other_model, services.home),
                    guild=str(item.guild_id),
                    seconds=item.seconds,
                    memory_bytes=item.memory_bytes,
                    error=redact_paths(item.error, services.home) or None,
                    job_id=item.job.job_id if item.job else None,
                )
            )
        return cls(
            base_model=plan.base_model,
            seconds=plan.seconds,
            memory_bytes=plan.memory_bytes,
            trainings=trainings,
        )


@routes.operation(
    "GET /finetune/all",
    "Plan the trainings of all personas of another base model",
    {200: ResponseSpec("What each takes; nothing is queued.", RetrainAllResponse)},
)
async def get_retrain_all(request: web.Request) -> web.Response:
    """A trainer process reads each persona's material, which takes seconds or more."""
    services = get_services(request)
    plan = await services.retrain_all.plan(OPERATOR_GUILD_ID)
    return RetrainAllResponse.of(services, plan).response()


@routes.operation(
    "POST /finetune/all",
    "Train all personas of another base model",
    {202: ResponseSpec("The queued jobs; those refused have an `error`.", RetrainAllResponse)},
)
async def post_retrain_all(request: web.Request) -> web.Response:
    """Queues an ordinary job for each persona and server that trained a live version of another base
    model, with that version's request over the served one.
    """
    services = get_services(request)
    plan = services.retrain_all.start(OPERATOR_GUILD_ID)
    return RetrainAllResponse.of(services, plan).response(202)
