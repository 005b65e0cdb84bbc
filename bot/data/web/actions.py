"""Uploads, inspections, builds, sample searches and plans, for the API and the pages, with their
state.
"""

import asyncio
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.data.jobs import (
    PROGRESS_ARGUMENTS,
    CompletionCallback,
    DataJob,
    DataJobKind,
    DataJobRunner,
    FetchRefusedError,
    start_fetch,
)
from bot.data.web import sources as data_sources
from bot.data.web.build_request import (
    DatasetBuildBody,
    build_arguments,
    require_buildable,
    save_build_request,
)
from bot.data.web.built_datasets import BuiltDataset, require_dataset
from bot.data.web.folders import DataFolders
from bot.data.web.sample_index import SPLITS, SampleHits, SampleIndexes, SampleQuery, search_samples
from bot.data.web.schemas import DataJobResponse
from bot.data.web.upload_stream import (
    ActiveUploads,
    ReadChunk,
    ReceivedFile,
    receive_file,
    require_no_file,
)
from bot.platform.web_kit.app_context import APP_CONTEXT, get_services
from bot.platform.web_kit.paging import enum_query, integer_query
from bot.platform.web_kit.problems import Problem, field_error, retry_headers
from bot.platform.web_kit.sse import stream_events
from bot.services import Services
from bot.training.dataset_catalog import DatasetPlace
from bot.training.guild_turns import QueueConflictError
from bot.training.training_plan import TrainingPlan
from personas.errors import EngineBusyError, MaterialError
from personas.home.built_dataset import dataset_statement
from personas.home.column_maps import write_mapping
from personas.home.rights import RightsStatement
from personas.schemas.training import TrainingRequest

MAX_STORED_PLANS = 20
MAX_QUERY_CHARS = 200
MAX_SAMPLE_NUMBER = 2**53
SAMPLES_PER_PAGE = 20


@dataclass(frozen=True)
class StoredPlan:
    """A plan with the form's fields, the body that they stand for, and the request that this is.

    `erasure_count` is the number of forget requests at that time.
    """

    given: Mapping[str, str]
    body: Mapping[str, Any]
    wanted: TrainingRequest
    plan: TrainingPlan
    erasure_count: int
    made_at: float = field(default_factory=time.time)


class PlanCache:
    """The last plans since the bot started."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, StoredPlan] = OrderedDict()

    def keep(self, made: StoredPlan) -> str:
        """Store a plan, dropping the oldest; returns its id."""
        id = secrets.token_hex(5)
        self._plans[id] = made
        if len(self._plans) > MAX_STORED_PLANS:
            self._plans.popitem(last=False)
        return id

    def get(self, id: str, erasure_count: int) -> StoredPlan:
        """A plan by its id. Raises `Problem` if it has expired; plans from before a forget request
        are dropped.
        """
        for known in [
            known for known, kept in self._plans.items() if kept.erasure_count != erasure_count
        ]:
            del self._plans[known]
        if id not in self._plans:
            raise Problem("not-found", "This plan has expired.", "Plan it again below.")
        return self._plans[id]


@dataclass(frozen=True)
class DataState:
    uploads: ActiveUploads = field(default_factory=ActiveUploads)
    indexes: SampleIndexes = field(default_factory=SampleIndexes)
    plans: PlanCache = field(default_factory=PlanCache)


DATA_STATE = web.AppKey("data", DataState)


def set_up_data_state(app: web.Application) -> None:
    """Add the state of the data pages to the application; data jobs end with it."""
    app[DATA_STATE] = DataState()

    async def close(app: web.Application) -> None:
        if services := app[APP_CONTEXT].services:
            await services.data_jobs.close()

    app.on_shutdown.append(close)


def get_data_state(request: web.Request) -> DataState:
    return request.app[DATA_STATE]


def get_jobs(request: web.Request) -> DataJobRunner:
    """Return the runner of data jobs. Raises `Problem` while the bot starts or stops."""
    return get_services(request).data_jobs


def require_job(request: web.Request, job_id: str) -> DataJob:
    """A data job by its id. Raises `Problem`."""
    if job := get_jobs(request).find(job_id):
        return job
    raise Problem(
        "not-found", f"There is no job {job_id!r}.", "It may have ended before the bot was started."
    )


def _start(
    services: Services,
    kind: DataJobKind,
    subject: str,
    words: tuple[str, ...],
    after: CompletionCallback | None = None,
) -> DataJob:
    """Queue a job of the trainer. Raises `Problem`."""
    try:
        return services.data_jobs.start(services.home, kind, subject, words, after)
    except QueueConflictError as error:
        raise Problem("conflict", error.message, error.advice) from error
    except EngineBusyError as error:
        raise Problem("busy", error.message, error.advice, headers=retry_headers(error)) from error


def inspect_upload(services: Services, name: str) -> DataJob:
    """Queue the trainer's inspection of an upload. Raises `Problem`."""
    file = DataFolders(services.home).upload(name)

    async def keep(job: DataJob) -> None:
        await asyncio.to_thread(data_sources.save_inspection, file, job.result)

    arguments = (
        "dataset",
        "inspect",
        f"{data_sources.UPLOADS_PREFIX}{file.name}",
        *PROGRESS_ARGUMENTS,
    )
    return _start(services, "inspect", file.name, arguments, keep)


async def set_right(
    services: Services, name: str, statement: RightsStatement | None
) -> data_sources.DataSource:
    """Store the right stated to an upload; None removes it. Raises `Problem`."""
    await asyncio.to_thread(data_sources.require_upload, services.home, name)
    await asyncio.to_thread(
        data_sources.write_statement, DataFolders(services.home).upload(name), statement
    )
    await asyncio.to_thread(services.catalogue.update_right, upload_place(name), statement)
    return await asyncio.to_thread(data_sources.require_upload, services.home, name)


async def set_columns(
    services: Services, name: str, pairs: tuple[str, ...]
) -> data_sources.DataSource:
    """Store which column of an upload is what, and have the trainer inspect it; no pairs withdraw
    it. Raises `Problem`.

    A running inspection, which does not know them yet, is replaced.
    """
    source = await asyncio.to_thread(data_sources.require_upload, services.home, name)
    file = DataFolders(services.home).upload(source.name)
    try:
        await asyncio.to_thread(write_mapping, file, pairs)
    except MaterialError as error:
        raise Problem("conflict", error.message, error.advice) from error
    await asyncio.to_thread(data_sources.delete_inspection, file)
    if (running := services.data_jobs.latest("inspect", source.name)) and running.is_open:
        await services.data_jobs.cancel(running)
    inspect_upload(services, source.name)
    return await asyncio.to_thread(data_sources.require_upload, services.home, name)


async def delete_upload(services: Services, name: str) -> None:
    """Delete an upload and its facts. Raises `Problem` while a job uses it."""
    source = await asyncio.to_thread(data_sources.require_upload, services.home, name)
    for job in services.data_jobs.open():
        if job.subject == source.name or f"{data_sources.UPLOADS_PREFIX}{source.name}" in " ".join(
            job.arguments
        ):
            raise Problem(
                "conflict", f"{source.name} is in use by a job.", "Wait for it, or cancel it."
            )
    file = DataFolders(services.home).upload(source.name)
    await asyncio.to_thread(services.catalogue.withdraw, upload_place(source.name))
    await asyncio.to_thread(file.unlink, missing_ok=True)
    await asyncio.to_thread(_delete_facts, file)


def _delete_facts(file: Path) -> None:
    data_sources.delete_inspection(file)
    data_sources.write_statement(file, None)
    write_mapping(file, ())


async def build_dataset(services: Services, body: DatasetBuildBody, *, replace: bool) -> DataJob:
    """Queue the build of a data set. Raises `Problem` for an invalid request, and for a data set
    that exists.
    """
    places = DataFolders(services.home)
    await asyncio.to_thread(require_buildable, body, services)
    if places.set(body.name).exists() and not replace:
        raise Problem(
            "conflict",
            f"There is a data set {body.name} already.",
            "Choose another name, or replace it.",
        )
    words = await asyncio.to_thread(build_arguments, body, services)
    for folder in (places.sets, places.build(body.name)):
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    job = _start(services, "build", body.name, (*words, *PROGRESS_ARGUMENTS))
    await asyncio.to_thread(save_build_request, places.build(body.name), body)
    return job


async def delete_dataset(services: Services, id: str) -> None:
    """Delete a data set that was built here, with its index and build request. Raises `Problem`."""
    built = await asyncio.to_thread(require_dataset, services, id)
    require_own_dataset(built)
    job = services.data_jobs.latest("build", built.id)
    if job and job.is_open:
        raise Problem("conflict", f"{built.id} is being built.", "Wait for it, or cancel it.")
    await asyncio.to_thread(services.catalogue.withdraw, dataset_place(built.id))
    await asyncio.to_thread(_delete_dataset_files, DataFolders(services.home), built)


def _delete_dataset_files(places: DataFolders, built: BuiltDataset) -> None:
    for folder in (places.index(built.folder), places.build(built.id), built.folder):
        shutil.rmtree(folder, ignore_errors=True)


def require_own_dataset(built: BuiltDataset) -> None:
    """Raise `Problem` for a data set outside this home."""
    if not built.is_own:
        raise Problem("conflict", f"{built.id} lies where catalogue.toml says.", "Delete it there.")


# --------------------------------------------------------------------------------------------- for
# moderators


def upload_place(name: str) -> DatasetPlace:
    """Return the place that the catalogue gives for an upload."""
    return {"path": f"{data_sources.UPLOADS_PREFIX}{name}"}


def dataset_place(id: str) -> DatasetPlace:
    """Return the place that the catalogue gives for a data set that was built here."""
    return {"path": f"datasets/{id}"}


async def offer_upload(services: Services, name: str, offer: data_sources.OfferBody) -> None:
    """Let moderators name an upload, under the right stated to it or by `offer`. Raises
    `UnderstudyError`.
    """
    source = await asyncio.to_thread(data_sources.require_upload, services.home, name)
    statement = offer.statement() if offer.right else source.statement
    if source.about and source.about.question and not (source.mapping or offer.map):
        message = f"Nobody has said which column of {name} is what, so nothing of it would be read."
        errors = [field_error("map", "say which column is what")]
        raise Problem(
            "invalid-request", message, "State it under Columns, or as `map`.", errors=errors
        )
    if statement is None:
        errors = [field_error("right", "nobody has stated a right to it")]
        raise Problem(
            "invalid-request",
            f"Nobody has stated a right to {name}.",
            "State it first.",
            errors=errors,
        )
    await asyncio.to_thread(
        services.catalogue.offer, upload_place(source.name), offer.listing, statement
    )
    if offer.right:
        await set_right(services, source.name, statement)


async def offer_dataset(services: Services, id: str, offer: data_sources.OfferBody) -> None:
    """Let moderators name a data set that was built here, or a fetched one. Raises
    `UnderstudyError`.
    """
    if entry := await asyncio.to_thread(services.catalogue.hub_entry, id):
        place: DatasetPlace = {"hub": entry.hub, "files": [*entry.files]}
        await asyncio.to_thread(services.catalogue.offer, place, offer.listing, offer.statement())
        return
    built = await asyncio.to_thread(require_dataset, services, id)
    require_own_dataset(built)
    right = await asyncio.to_thread(dataset_statement, built.folder)
    statement = offer.statement(right.right)
    await asyncio.to_thread(
        services.catalogue.offer, dataset_place(built.id), offer.listing, statement
    )


async def withdraw(services: Services, *, upload: str = "", dataset: str = "") -> None:
    """Withdraw an upload or a data set from moderators; nothing happens if it is not theirs. Raises
    `MaterialError`.
    """
    if dataset and (entry := await asyncio.to_thread(services.catalogue.hub_entry, dataset)):
        place: DatasetPlace = {"hub": entry.hub}
    else:
        place = upload_place(upload) if upload else dataset_place(dataset)
    await asyncio.to_thread(services.catalogue.withdraw, place)


async def fetch_dataset(services: Services, name: str) -> DataJob:
    """Queue the fetch of a data set from a hub. Raises `UnderstudyError`."""
    try:
        return start_fetch(
            services.data_jobs, services.catalogue, services.home, name, services.fetch_datasets
        )
    except (QueueConflictError, FetchRefusedError) as error:
        raise Problem("conflict", error.message, error.advice) from error


def require_fetch(request: web.Request) -> DataJob:
    """The latest fetch of a data set. Raises `Problem`."""
    name = request.match_info["id"]
    if job := get_jobs(request).latest("fetch", name):
        return job
    advice = "POST /datasets/NAME/fetch fetches it."
    raise Problem("not-found", f"{name} has not been fetched since the bot started.", advice)


async def stream_job_progress(request: web.Request, job: DataJob) -> web.StreamResponse:
    """Stream a job's state until it has ended."""

    async def changes() -> AsyncIterator[tuple[str, str, Any]]:
        while True:
            changed = job.changed
            yield str(job.seq), "work", DataJobResponse.of(job).as_json()
            if not job.is_open:
                return
            await changed.wait()

    return await stream_events(request, changes())


async def store_upload(
    services: Services,
    state: DataState,
    read: ReadChunk,
    name: str,
    *,
    replace: bool,
    expected_bytes: int | None = None,
) -> ReceivedFile:
    """Store an upload, one of each name at a time; an earlier file's inspection, right and name are
    deleted.
    """
    place = DataFolders(services.home).upload(name)
    require_no_file(place, replace)
    with state.uploads.of(place):
        received = await receive_file(
            read, place, expected_bytes, replace=replace, most_bytes=services.max_upload_bytes
        )
        await asyncio.to_thread(services.catalogue.withdraw, upload_place(place.name))
        await asyncio.to_thread(_delete_facts, place)
    return received


def parse_sample_query(request: web.Request, limit: int = SAMPLES_PER_PAGE) -> SampleQuery:
    texts = {
        name: request.query.get(name, "")[:MAX_QUERY_CHARS]
        for name in ("query", "source", "talk", "reason")
    }
    side = enum_query(request, "split", ("", *SPLITS)) or ""
    after = integer_query(request, "after", 0, MAX_SAMPLE_NUMBER)
    return SampleQuery(**texts, side=side, after=-1 if after is None else after, limit=limit)


async def find_samples(
    services: Services, state: DataState, built: BuiltDataset, wanted: SampleQuery
) -> SampleHits | None:
    """The matching samples; None while the index is being built."""
    place = DataFolders(services.home).index(built.folder)
    if not await state.indexes.ready(built.folder, place):
        return None
    return await asyncio.to_thread(search_samples, built.folder, place, wanted)
