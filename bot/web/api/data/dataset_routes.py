"""`/datasets`: data sources, built data sets and their samples."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from bot.services import Services
from bot.web.api.data.build_request import DatasetBuildBody
from bot.web.api.data.built_datasets import list_datasets, require_dataset
from bot.web.api.data.data_folders import parse_dataset_name
from bot.web.api.data.data_jobs import DataJob
from bot.web.api.data.data_service import (
    MAX_SAMPLE_NUMBER,
    build_dataset,
    delete_dataset,
    find_samples,
    get_data_state,
    parse_sample_query,
)
from bot.web.api.data.data_sources import list_sources
from bot.web.api.data.sample_index import SPLITS
from bot.web.api.data.schemas import (
    DataJobResponse,
    DatasetListResponse,
    DatasetResponse,
    SampleListResponse,
    SampleResponse,
    SourceResponse,
)
from bot.web.api.openapi import BodySpec, ResponseSpec, describe_operation, enum_parameter, integer_parameter
from bot.web.api.paging import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    PAGE_PARAMETERS,
    enum_query,
    integer_query,
    page_links,
    parse_page_query,
    require_known_parameters,
)
from bot.web.app_context import Route, get_services
from bot.web.problems import Problem
from bot.web.request_body import parse_body, read_json_object

DATA_TAG = "data"
NO_DATASET_TEXT = "There is no such data set."
DAMAGED_TEXT = "The data set is damaged, or has a name that none can have."


def _describe_build(job: DataJob) -> DataJobResponse:
    path = f"/datasets/{quote(job.subject)}"
    return DataJobResponse.of(job, self=f"{path}/build", cancel=f"{path}/build/cancel", set=path)


@describe_operation(
    "What can be learned from",
    {200: ResponseSpec("A page of data sets and sources, by id.", DatasetListResponse)},
    tag=DATA_TAG,
    query={
        **PAGE_PARAMETERS,
        "kind": enum_parameter(("source", "set"), "Only data sets that were built, or only their sources."),
    },
)
async def get_datasets(request: web.Request) -> web.Response:
    """Built data sets, uploads, the operator's catalogue, and what ships; with the right to each."""
    services, asked = get_services(request), parse_page_query(request, "kind")
    kind = enum_query(request, "kind", ("source", "set"))
    every = sorted(await asyncio.to_thread(_all_datasets, services), key=lambda one: one.id)
    left = [one for one in every if (asked.after is None or one.id > asked.after) and kind in (None, one.kind)]
    last = left[asked.limit - 1].id if len(left) > asked.limit else None
    return DatasetListResponse(datasets=left[: asked.limit], links=page_links(request, asked, last)).response()


def _all_datasets(services: Services) -> list[DatasetResponse | SourceResponse]:
    built = [DatasetResponse.of(one) for one in list_datasets(services)[0]]
    return [*built, *(SourceResponse.of(source) for source in list_sources(services) if not source.is_set)]


@describe_operation(
    "One data set",
    {
        200: ResponseSpec("Its figures, or what is stated of a source.", DatasetResponse),
        404: NO_DATASET_TEXT,
        422: DAMAGED_TEXT,
    },
    tag=DATA_TAG,
)
async def get_dataset(request: web.Request) -> web.Response:
    """Samples by source and right, what was dropped and why. A source has its right; uploads are at `/uploads`."""
    services, id = get_services(request), request.match_info["id"]
    sources = await asyncio.to_thread(list_sources, services)
    named = next((one for one in sources if one.id == id and not one.is_set), None)
    if named:
        return SourceResponse.of(named).response()
    return DatasetResponse.of(await asyncio.to_thread(require_dataset, services, id)).response()


@describe_operation(
    "Build a data set",
    {
        202: ResponseSpec("It is being built, or waits for what is.", DataJobResponse),
        409: "There is one of that name, or it is being built.",
        422: "Fields of the order are wrong, or a source may not be trained on.",
    },
    tag=DATA_TAG,
    query={"replace": enum_parameter(("true", "false"), "Whether it takes the place of a data set of the same name.")},
    body=BodySpec(
        DatasetBuildBody, example={"name": "harbour", "persona": "ballast", "sources": [{"source": "ballast"}]}
    ),
)
async def post_dataset(request: web.Request) -> web.Response:
    """A process of the trainer's makes it; GET its `build_dataset` to see how far it is."""
    require_known_parameters(request, "replace")
    replace = enum_query(request, "replace", ("true", "false")) == "true"
    order = parse_body(DatasetBuildBody, await read_json_object(request))
    work = await build_dataset(get_services(request), get_data_state(request), order, replace=replace)
    path = f"/datasets/{quote(order.name)}/build"
    return _describe_build(work).response(202, {"Location": path})


@describe_operation(
    "How far the building of a data set is",
    {
        200: ResponseSpec("The last time that it was built since the bot started.", DataJobResponse),
        404: "It was not.",
        422: DAMAGED_TEXT,
    },
    tag=DATA_TAG,
)
async def get_build(request: web.Request) -> web.Response:
    """Its state, the trainer's last word, and what went wrong."""
    return _describe_build(_require_build(request)).response()


@describe_operation(
    "Cancel the building of a data set",
    {200: ResponseSpec("How it ended.", DataJobResponse), 404: "It is not being built.", 422: DAMAGED_TEXT},
    tag=DATA_TAG,
)
async def cancel_build(request: web.Request) -> web.Response:
    """Nothing is left of it; an earlier data set of the name stays."""
    work = _require_build(request)
    await get_data_state(request).works.cancel(work)
    return _describe_build(work).response()


def _require_build(request: web.Request) -> DataJob:
    get_services(request)
    name = parse_dataset_name(request.match_info["id"])
    work = get_data_state(request).works.latest("build", name)
    if work is None:
        raise Problem("not-found", f"{name} has not been built since the bot started.", "POST /datasets builds one.")
    return work


@describe_operation(
    "Delete a data set",
    {204: "It is gone.", 404: NO_DATASET_TEXT, 409: "It is being built, or lies elsewhere.", 422: DAMAGED_TEXT},
    tag=DATA_TAG,
)
async def delete_dataset_route(request: web.Request) -> web.Response:
    """Only what was built here; jobs that have begun have their own copy."""
    await delete_dataset(get_services(request), get_data_state(request), request.match_info["id"])
    return web.Response(status=204)


@describe_operation(
    "Samples of a data set",
    {
        200: ResponseSpec(
            "A page of samples, in their order; `count` is how many there are in all.", SampleListResponse
        ),
        404: NO_DATASET_TEXT,
        422: DAMAGED_TEXT,
        503: "Their index is being made: try again in a moment.",
    },
    tag=DATA_TAG,
    query={
        "query": "Words that are all in the sample; the last may be the beginning of one.",
        "split": enum_parameter(SPLITS, "To train on, held out, or dropped."),
        "source": "Of this source.",
        "talk": "Of this talk, by the row it begins with.",
        "reason": "Dropped for this reason.",
        "limit": integer_parameter(1, MAX_PAGE_SIZE, f"How many at most; {DEFAULT_PAGE_SIZE} if left out."),
        "after": integer_parameter(
            0, MAX_SAMPLE_NUMBER, "The number of the last sample of the page before; `links.next` has it."
        ),
    },
)
async def get_samples(request: web.Request) -> web.Response:
    """Each as its line in `train.jsonl`, `eval.jsonl` or `dropped.jsonl` has it."""
    services, state = get_services(request), get_data_state(request)
    asked = parse_page_query(request, "query", "split", "source", "talk", "reason")
    integer_query(request, "after", 0, MAX_SAMPLE_NUMBER)
    built = await asyncio.to_thread(require_dataset, services, request.match_info["id"])
    hits = await find_samples(services, state, built, parse_sample_query(request, asked.limit))
    if hits is None:
        raise Problem("busy", "The samples are being indexed.", "Try again.", headers={"Retry-After": "2"})
    last = str(hits.found[-1].n) if hits.has_more else None
    samples = [SampleResponse(n=hit.n, split=hit.side, line=hit.line) for hit in hits.found]
    links = page_links(request, asked, last)
    return SampleListResponse(samples=samples, count=hits.count, links=links).response()


ROUTES: tuple[Route, ...] = (
    ("GET", "/datasets", get_datasets),
    ("POST", "/datasets", post_dataset),
    ("GET", "/datasets/{id}", get_dataset),
    ("DELETE", "/datasets/{id}", delete_dataset_route),
    ("GET", "/datasets/{id}/samples", get_samples),
    ("GET", "/datasets/{id}/build", get_build),
    ("POST", "/datasets/{id}/build/cancel", cancel_build),
)
