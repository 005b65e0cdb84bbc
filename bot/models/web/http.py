"""`/models`: which base models fit this machine, fetching one, and serving another."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from bot.data.jobs import DataJob
from bot.data.web.requests import require_job
from bot.data.web.schemas import DataJobResponse
from bot.models.switch import switch_json
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, BodySpec, Json, ResponseSpec
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.validation import read_model
from personas.schemas.base import FrozenModel

routes = ApiRoutes("models")
MAX_NAME_CHARS = 300
ModelName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class ModelTableResponse(ApiModel):
    """The models of the catalogue on this machine, smallest first; sizes in bytes. `recommended` is
    the name of one, null if none trains here; `reason` says why, and `shortage` what of it does not
    fit into the memory that is free at the moment.
    """

    base_model: str
    machine: Json
    recommended: str | None
    reason: str
    shortage: str
    training_error: str
    models: list[Json]


class ModelFetchBody(FrozenModel):
    """A base model to fetch: a name of the catalogue or of a hub. `accept_licence` must be true: GET
    /models names the licence. `format` chooses between the GGUF file and safetensors; `best` is the
    form that is served best here.
    """

    name: ModelName
    accept_licence: bool = False
    format: Literal["best", "gguf", "safetensors"] = "best"


class ModelUseBody(FrozenModel):
    """The base model to serve from the next start on; `dry_run` changes nothing."""

    name: ModelName
    dry_run: bool = False


class ModelSwitchResponse(ApiModel):
    """The new BASE_MODEL, and each live version with the other base model that it was trained over, if
    any: the base model answers for it until its persona is trained again. `engine` is the new ENGINE,
    if another one serves the model best here. `todo` says what to do next.
    """

    base_model: str
    previous: str
    versions: list[Json]
    engine: str | None
    engine_note: str
    todo: list[str]


@routes.operation(
    "GET /models",
    "List base models that fit here",
    {200: ResponseSpec("Each model with what it takes on this machine.", ModelTableResponse)},
)
async def get_models(request: web.Request) -> web.Response:
    """Returns memory to serve and to train, disk, speed, engine, licence and sources of each model."""
    table = await get_services(request).models.table()
    return ModelTableResponse(**table.as_json()).response()


@routes.operation(
    "POST /models/fetch",
    "Fetch a base model from a hub",
    {
        202: ResponseSpec("The fetch has started, or waits for another one.", DataJobResponse),
        409: "It is being fetched already.",
        422: "There is no such model, its licence was not accepted, or the disk has no room.",
    },
    body=BodySpec(ModelFetchBody, example={"name": "qwen3-1.7b", "accept_licence": True}),
)
async def post_model_fetch(request: web.Request) -> web.Response:
    """Checks the disk first. A fetch that was cut or cancelled continues; each file is compared with
    the hub's digest.
    """
    body = await read_model(request, ModelFetchBody)
    job = await get_services(request).models.fetch(
        body.name, accepted=body.accept_licence, wanted=body.format
    )
    answer = _describe_fetch(job)
    return answer.response(202, {"Location": f"/models/fetches/{job.id}"})


@routes.operation(
    "GET /models/fetches/{work_id}",
    "Get the progress of a fetch of a base model",
    {
        200: ResponseSpec("Its state, and how much is there.", DataJobResponse),
        404: "There is no such fetch since the bot started.",
    },
)
async def get_model_fetch(request: web.Request) -> web.Response:
    """Returns bytes, rate and time left in words, and the error if it failed."""
    return _describe_fetch(_require_fetch(request)).response()


@routes.operation(
    "POST /models/fetches/{work_id}/cancel",
    "Cancel a fetch of a base model",
    {
        200: ResponseSpec("The fetch's final state.", DataJobResponse),
        404: "There is no such fetch since the bot started.",
    },
)
async def cancel_model_fetch(request: web.Request) -> web.Response:
    """Keeps what has arrived: fetching it again continues."""
    job = _require_fetch(request)
    await get_services(request).data_jobs.cancel(job)
    return _describe_fetch(job).response()


@routes.operation(
    "POST /models/use",
    "Serve another base model from the next start on",
    {
        200: ResponseSpec("What changes, and what to do next.", ModelSwitchResponse),
        422: "It is not on this machine, or the file with settings cannot be changed.",
    },
    body=BodySpec(ModelUseBody, example={"name": "qwen3-1.7b", "dry_run": True}),
)
async def post_model_use(request: web.Request) -> web.Response:
    """Writes BASE_MODEL, and ENGINE where another one serves it best here, into the bot's file with
    settings; the running bot goes on with its model.
    """
    services = get_services(request)
    body = await read_model(request, ModelUseBody)
    live = services.store.versions.all_live()
    if body.dry_run:
        plan = await services.models.plan_switch(body.name, live)
        todo: list[str] = []
    else:
        plan, todo = await services.models.use(body.name, live)
    return ModelSwitchResponse(**switch_json(plan, todo)).response()


def _require_fetch(request: web.Request) -> DataJob:
    job = require_job(request)
    if job.kind != "model":
        raise Problem("not-found", f"The job {job.id!r} fetches no base model.")
    return job


def _describe_fetch(job: DataJob) -> DataJobResponse:
    path = f"/models/fetches/{job.id}"
    return DataJobResponse.of(job, self=path, cancel=f"{path}/cancel")
