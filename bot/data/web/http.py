"""`/datasets`: data sources, built data sets and their samples."""

from urllib.parse import quote

from aiohttp import web

from bot.data.build_request import DatasetBuildBody
from bot.data.folders import parse_dataset_name
from bot.data.jobs import DataJob
from bot.data.offers import OfferBody
from bot.data.sample_index import SPLITS
from bot.data.web.requests import MAX_SAMPLE_NUMBER, SAMPLE_FILTERS, parse_sample_query
from bot.data.web.schemas import (
    DataJobResponse,
    DatasetListResponse,
    DatasetResponse,
    SampleListResponse,
    SampleResponse,
    SourceResponse,
)
from bot.platform.web_kit import paging
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import (
    ApiRoutes,
    BodySpec,
    ResponseSpec,
    enum_parameter,
    integer_parameter,
)
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.validation import read_model
from bot.services import Services

routes = ApiRoutes("data")
NO_DATASET_TEXT = "There is no such data set."
DAMAGED_TEXT = "The data set is damaged, or has a name that none can have."


def _describe_build(job: DataJob) -> DataJobResponse:
    path = f"/datasets/{quote(job.subject)}"
    return DataJobResponse.of(job, self=f"{path}/build", cancel=f"{path}/build/cancel", set=path)


@routes.operation(
    "GET /datasets",
    "List data sets and sources",
    {200: ResponseSpec("A page of data sets and sources, by id.", DatasetListResponse)},
    query={
        **paging.PAGE_PARAMETERS,
        "kind": enum_parameter(
            ("source", "set"), "Only data sets that were built, or only their sources."
        ),
    },
)
async def get_datasets(request: web.Request) -> web.Response:
    """Lists built data sets, uploads, the operator's catalogue and the shipped ones, with the right
    to each.
    """
    services = get_services(request)
    page = paging.parse_page_query(request, "kind")
    kind = paging.enum_query(request, "kind", ("source", "set"))
    entries = await _list_entries(services)
    if kind:
        entries = [entry for entry in entries if entry.kind == kind]
    entries.sort(key=lambda entry: entry.id)
    shown, links = paging.paginate(request, page, entries, lambda entry: entry.id)
    return DatasetListResponse(datasets=list(shown), links=links).response()


async def _list_entries(services: Services) -> list[DatasetResponse | SourceResponse]:
    datasets, _ = await services.data.datasets()
    entries: list[DatasetResponse | SourceResponse] = [
        DatasetResponse.of(built) for built in datasets
    ]
    for source in await services.data.sources():
        if not source.is_set:
            entries.append(SourceResponse.of(source))
    return entries


@routes.operation(
    "GET /datasets/{id}",
    "Get a data set",
    {
        200: ResponseSpec(
            "The statistics of a data set, or the rights of a source.", DatasetResponse
        ),
        404: NO_DATASET_TEXT,
        422: DAMAGED_TEXT,
    },
)
async def get_dataset(request: web.Request) -> web.Response:
    """Returns samples by source and right, and dropped ones by reason. A source has its right; see
    `/uploads` too.
    """
    return (await _describe_dataset(get_services(request), request.match_info["id"])).response()


async def _describe_dataset(services: Services, id: str) -> DatasetResponse | SourceResponse:
    for source in await services.data.sources():
        if source.id == id and not source.is_set:
            return SourceResponse.of(source)
    return DatasetResponse.of(await services.data.dataset(id))


@routes.operation(
    "PUT /datasets/{id}/catalogue",
    "Let moderators use a data set",
    {
        200: ResponseSpec(
            "The data set; `catalogue_name` is the name that moderators give.", DatasetResponse
        ),
        404: NO_DATASET_TEXT,
        409: "It lies elsewhere.",
        422: "The right is incomplete, the name is taken, or catalogue.toml cannot be read.",
    },
    body=BodySpec(
        OfferBody,
        example={
            "name": "harbour-talk",
            "stated_by": "Mina Vale",
            "stated_on": "2026-11-20",
            "why": "Written here.",
        },
    ),
)
async def put_dataset_in_catalogue(request: web.Request) -> web.Response:
    """Writes an entry of catalogue.toml. The right of a data set that was built here is that of its
    samples.
    """
    services = get_services(request)
    id = request.match_info["id"]
    offer = await read_model(request, OfferBody)
    await services.data.offer_dataset(id, offer)
    return (await _describe_dataset(services, id)).response()


@routes.operation(
    "DELETE /datasets/{id}/catalogue",
    "Withdraw a data set from moderators",
    {200: ResponseSpec("The data set.", DatasetResponse), 404: NO_DATASET_TEXT, 422: DAMAGED_TEXT},
)
async def remove_dataset_from_catalogue(request: web.Request) -> web.Response:
    """Removes its entry of catalogue.toml; the data set stays."""
    services = get_services(request)
    id = request.match_info["id"]
    await _describe_dataset(services, id)
    await services.data.withdraw_dataset(id)
    return (await _describe_dataset(services, id)).response()


def _describe_fetch(job: DataJob) -> DataJobResponse:
    path = f"/datasets/{quote(job.subject)}"
    return DataJobResponse.of(job, self=f"{path}/fetch", cancel=f"{path}/fetch/cancel", set=path)


@routes.operation(
    "POST /datasets/{id}/fetch",
    "Fetch a data set from a hub",
    {
        202: ResponseSpec("The fetch has started, or waits for another one.", DataJobResponse),
        409: "It is on this machine or being fetched already, or FETCH_DATASETS is off.",
        422: "There is no such data set in the catalogue, or it is not on a hub.",
    },
)
async def post_fetch(request: web.Request) -> web.Response:
    """A trainer process downloads it; one that was cancelled resumes. GET the same address for the
    progress.
    """
    job = get_services(request).data.fetch(request.match_info["id"])
    return _describe_fetch(job).response(202, {"Location": f"/datasets/{quote(job.subject)}/fetch"})


@routes.operation(
    "GET /datasets/{id}/fetch",
    "Get the progress of a fetch",
    {
        200: ResponseSpec("Its latest fetch since the bot started.", DataJobResponse),
        404: "It was not.",
    },
)
async def get_fetch(request: web.Request) -> web.Response:
    """Returns its state, how much is there, and the error if it failed."""
    return _describe_fetch(_require_fetch(request)).response()


@routes.operation(
    "POST /datasets/{id}/fetch/cancel",
    "Cancel a fetch",
    {
        200: ResponseSpec("The fetch's final state.", DataJobResponse),
        404: "It is not being fetched.",
    },
)
async def cancel_fetch(request: web.Request) -> web.Response:
    """Keeps what has arrived: fetching it again resumes."""
    job = _require_fetch(request)
    await get_services(request).data_jobs.cancel(job)
    return _describe_fetch(job).response()


def _require_fetch(request: web.Request) -> DataJob:
    name = request.match_info["id"]
    return get_services(request).data.latest_job(
        "fetch",
        name,
        missing=f"{name} has not been fetched since the bot started.",
        advice="POST /datasets/NAME/fetch fetches it.",
    )


@routes.operation(
    "POST /datasets",
    "Build a data set",
    {
        202: ResponseSpec("The build has started, or waits for another one.", DataJobResponse),
        409: "There is one of that name, or it is being built.",
        422: "Fields of the order are wrong, or a source may not be trained on.",
    },
    query={
        "replace": enum_parameter(
            ("true", "false"), "Whether it takes the place of a data set of the same name."
        )
    },
    body=BodySpec(
        DatasetBuildBody,
        example={"name": "harbour", "persona": "ballast", "sources": [{"source": "ballast"}]},
    ),
)
async def post_dataset(request: web.Request) -> web.Response:
    """A trainer process builds it; GET its `build_dataset` for the progress."""
    paging.require_known_parameters(request, "replace")
    replace = paging.flag_query(request, "replace")
    body = await read_model(request, DatasetBuildBody)
    job = await get_services(request).data.build_dataset(body, replace=replace)
    return _describe_build(job).response(202, {"Location": f"/datasets/{quote(body.name)}/build"})


@routes.operation(
    "GET /datasets/{id}/build",
    "Get the progress of a build",
    {
        200: ResponseSpec("Its latest build since the bot started.", DataJobResponse),
        404: "It was not.",
        422: DAMAGED_TEXT,
    },
)
async def get_build(request: web.Request) -> web.Response:
    """Returns its state, the trainer's latest message, and the error if it failed."""
    return _describe_build(_require_build(request)).response()


@routes.operation(
    "POST /datasets/{id}/build/cancel",
    "Cancel a build",
    {
        200: ResponseSpec("The build's final state.", DataJobResponse),
        404: "It is not being built.",
        422: DAMAGED_TEXT,
    },
)
async def cancel_build(request: web.Request) -> web.Response:
    """Removes the partial result; an earlier data set of the same name stays."""
    job = _require_build(request)
    await get_services(request).data_jobs.cancel(job)
    return _describe_build(job).response()


def _require_build(request: web.Request) -> DataJob:
    data = get_services(request).data
    name = parse_dataset_name(request.match_info["id"])
    return data.latest_job(
        "build",
        name,
        missing=f"{name} has not been built since the bot started.",
        advice="POST /datasets builds one.",
    )


@routes.operation(
    "DELETE /datasets/{id}",
    "Delete a data set",
    {
        204: "It is gone.",
        404: NO_DATASET_TEXT,
        409: "It is being built, or lies elsewhere.",
        422: DAMAGED_TEXT,
    },
)
async def delete_dataset_route(request: web.Request) -> web.Response:
    """Deletes only data sets built here; jobs that have begun have their own copy."""
    await get_services(request).data.delete_dataset(request.match_info["id"])
    return web.Response(status=204)


@routes.operation(
    "GET /datasets/{id}/samples",
    "List the samples of a data set",
    {
        200: ResponseSpec(
            "A page of samples in order; `count` is the total number.", SampleListResponse
        ),
        404: NO_DATASET_TEXT,
        422: DAMAGED_TEXT,
        503: "Their index is being made: try again in a moment.",
    },
    query={
        "query": "Words that the sample contains; the last one may be a prefix.",
        "split": enum_parameter(SPLITS, "To train on, held out, or dropped."),
        "source": "Only of this source.",
        "talk": "Only of this conversation, named by its first row.",
        "reason": "Only samples dropped for this reason.",
        "limit": integer_parameter(
            1, paging.MAX_PAGE_SIZE, f"How many at most; {paging.DEFAULT_PAGE_SIZE} if left out."
        ),
        "after": integer_parameter(
            0,
            MAX_SAMPLE_NUMBER,
            "The number of the last sample of the page before; `links.next` has it.",
        ),
    },
)
async def get_samples(request: web.Request) -> web.Response:
    """Returns samples as they are in `train.jsonl`, `eval.jsonl` or `dropped.jsonl`."""
    data = get_services(request).data
    page = paging.parse_page_query(request, *SAMPLE_FILTERS)
    built = await data.dataset(request.match_info["id"])
    hits = await data.find_samples(built, parse_sample_query(request, page.limit))
    if hits is None:
        raise Problem(
            "busy", "The samples are being indexed.", "Try again.", headers={"Retry-After": "2"}
        )
    last = str(hits.found[-1].n) if hits.has_more else None
    links = paging.page_links(request, page, last)
    samples = [SampleResponse.describe(hit, split=hit.side) for hit in hits.found]
    return SampleListResponse(samples=samples, count=hits.count, links=links).response()
