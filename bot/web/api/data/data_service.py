"""Uploads, inspections, builds, sample searches and plans, for the API and the pages, with their state."""

from __future__ import annotations

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

from bot.services import Services
from bot.training.training_plan import TrainingPlan
from bot.web.api.data.build_request import DatasetBuildBody, build_arguments, check_build_sources, save_build_request
from bot.web.api.data.built_datasets import BuiltDataset, require_dataset
from bot.web.api.data.data_folders import DataFolders
from bot.web.api.data.data_jobs import DataJob, DataJobRunner
from bot.web.api.data.data_sources import (
    UPLOADS_PREFIX,
    DataSource,
    delete_inspection,
    require_upload,
    save_inspection,
    write_statement,
)
from bot.web.api.data.data_sources import write_statement as state_right
from bot.web.api.data.sample_index import SPLITS, SampleHits, SampleIndexes, SampleQuery, search_samples
from bot.web.api.data.schemas import DataJobResponse
from bot.web.api.data.upload_stream import ActiveUploads, ReadChunk, ReceivedFile, receive_file, require_no_file
from bot.web.api.paging import enum_query, integer_query
from bot.web.problems import Problem
from bot.web.sse import stream_events
from personas.home.rights import RightsStatement
from personas.schemas.training import TrainingRequest

MAX_STORED_PLANS = 20
PROGRESS_INTERVAL_TEXT_S = "0.5"
MAX_QUERY_CHARS = 200
MAX_SAMPLE_NUMBER = 2**53
SAMPLES_PER_PAGE = 20


@dataclass(frozen=True)
class StoredPlan:
    """A plan with the form's fields, the body that they stand for, and the request that this is.

    `forgettings` is the number of forget requests at that time.
    """

    given: Mapping[str, str]
    body: Mapping[str, Any]
    wanted: TrainingRequest
    plan: TrainingPlan
    forgettings: int
    made_at: float = field(default_factory=time.time)


class PlanCache:
    """The last plans since the bot started."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, StoredPlan] = OrderedDict()

    def keep(self, made: StoredPlan) -> str:
        """Keep a plan, the oldest no longer; gives its id."""
        id = secrets.token_hex(5)
        self._plans[id] = made
        if len(self._plans) > MAX_STORED_PLANS:
            self._plans.popitem(last=False)
        return id

    def get(self, id: str, forgettings: int) -> StoredPlan:
        """A plan by its id. Raises `Problem` where it is gone; those before the last forgetting go."""
        for known in [known for known, kept in self._plans.items() if kept.forgettings != forgettings]:
            del self._plans[known]
        if id not in self._plans:
            raise Problem("not-found", "This plan has expired.", "Plan it again below.")
        return self._plans[id]


@dataclass(frozen=True)
class DataState:
    """One of each."""

    works: DataJobRunner = field(default_factory=DataJobRunner)
    incoming: ActiveUploads = field(default_factory=ActiveUploads)
    indexes: SampleIndexes = field(default_factory=SampleIndexes)
    plans: PlanCache = field(default_factory=PlanCache)


DATA_STATE = web.AppKey("data", DataState)


def set_up_data_state(app: web.Application) -> None:
    """Give the application its state; what is being done ends with it."""
    app[DATA_STATE] = DataState()

    async def close(app: web.Application) -> None:
        await app[DATA_STATE].works.close()

    app.on_shutdown.append(close)


def get_data_state(request: web.Request) -> DataState:
    """The state that a handler works with."""
    return request.app[DATA_STATE]


def inspect_upload(services: Services, state: DataState, name: str) -> DataJob:
    """Have the trainer say what an upload is. Raises `Problem`."""
    file = DataFolders(services.home).upload(name)

    async def keep(work: DataJob) -> None:
        await asyncio.to_thread(save_inspection, file, work.told)

    words = ("dataset", "inspect", f"{UPLOADS_PREFIX}{file.name}", "--json", "--tell-every", PROGRESS_INTERVAL_TEXT_S)
    return state.works.start(services.home, "inspect", file.name, words, keep)


async def set_right(services: Services, name: str, statement: RightsStatement | None) -> DataSource:
    """Take down who states which right to an upload; None takes it back. Raises `Problem`."""
    await asyncio.to_thread(require_upload, services.home, name)
    await asyncio.to_thread(write_statement, DataFolders(services.home).upload(name), statement)
    return await asyncio.to_thread(require_upload, services.home, name)


async def delete_upload(services: Services, state_: DataState, name: str) -> None:
    """Delete an upload with all that is known of it. Raises `Problem` while something is done to it."""
    source = await asyncio.to_thread(require_upload, services.home, name)
    for work in state_.works.going():
        if work.subject == source.name or f"{UPLOADS_PREFIX}{source.name}" in " ".join(work.words):
            raise Problem("conflict", f"{source.name} is in use by a job.", "Wait for it, or cancel it.")
    await asyncio.to_thread(_delete_upload_files, DataFolders(services.home).upload(source.name))


def _delete_upload_files(file: Path) -> None:
    file.unlink(missing_ok=True)
    delete_inspection(file)
    write_statement(file, None)


async def build_dataset(services: Services, state_: DataState, order: DatasetBuildBody, *, replace: bool) -> DataJob:
    """Build a data set as it is ordered. Raises `Problem` for what cannot be, and for one that is there already."""
    places = DataFolders(services.home)
    await asyncio.to_thread(check_build_sources, order, services)
    if places.set(order.name).exists() and not replace:
        raise Problem("conflict", f"There is a data set {order.name} already.", "Choose another name, or replace it.")
    words = await asyncio.to_thread(build_arguments, order, services)
    for folder in (places.sets, places.build(order.name)):
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    work = state_.works.start(
        services.home, "build", order.name, (*words, "--json", "--tell-every", PROGRESS_INTERVAL_TEXT_S), _do_nothing
    )
    await asyncio.to_thread(save_build_request, places.build(order.name), order)
    return work


async def _do_nothing(work: DataJob) -> None:
    """A data set is in its place when its build has ended."""


async def delete_dataset(services: Services, state_: DataState, id: str) -> None:
    """Delete a data set that was built here, with all that belongs to its making. Raises `Problem`."""
    built = await asyncio.to_thread(require_dataset, services, id)
    require_own_dataset(built)
    work = state_.works.latest("build", built.id)
    if work and work.is_open:
        raise Problem("conflict", f"{built.id} is being built.", "Wait for it, or cancel it.")
    await asyncio.to_thread(_delete_dataset_files, DataFolders(services.home), built)


def _delete_dataset_files(places: DataFolders, built: BuiltDataset) -> None:
    for folder in (places.index(built.folder), places.build(built.id), built.folder):
        shutil.rmtree(folder, ignore_errors=True)


def require_own_dataset(built: BuiltDataset) -> None:
    """Raise `Problem` for a data set that is not this home's."""
    if not built.is_own:
        raise Problem("conflict", f"{built.id} lies where catalogue.toml says.", "Delete it there.")


async def stream_job_progress(request: web.Request, work: DataJob) -> web.StreamResponse:
    """Tell a page how far work is, until it has ended."""

    async def changes() -> AsyncIterator[tuple[str, str, Any]]:
        while True:
            changed = work.changed
            yield str(work.seq), "work", DataJobResponse.of(work).as_json()
            if not work.is_open:
                return
            await changed.wait()

    return await stream_events(request, changes())


async def store_upload(
    read: ReadChunk, place: Path, state: DataState, *, replace: bool, most_bytes: int, expected_bytes: int | None = None
) -> ReceivedFile:
    """Store an upload, one of each name at a time; an earlier file's inspection and rights are deleted."""
    require_no_file(place, replace)
    with state.incoming.of(place):
        received = await receive_file(
            read, place, expected_bytes=expected_bytes, replace=replace, most_bytes=most_bytes
        )
        await asyncio.to_thread(_delete_earlier_facts, place)
    return received


def _delete_earlier_facts(place: Path) -> None:
    delete_inspection(place)
    state_right(place, None)


def parse_sample_query(request: web.Request, limit: int = SAMPLES_PER_PAGE) -> SampleQuery:
    """Parse the query of a sample search. Raises `Problem`."""
    texts = {name: request.query.get(name, "")[:MAX_QUERY_CHARS] for name in ("query", "source", "talk", "reason")}
    side = enum_query(request, "split", ("", *SPLITS)) or ""
    after = integer_query(request, "after", 0, MAX_SAMPLE_NUMBER)
    return SampleQuery(**texts, side=side, after=-1 if after is None else after, limit=limit)


async def find_samples(
    services: Services, state: DataState, built: BuiltDataset, wanted: SampleQuery
) -> SampleHits | None:
    """The samples; None while their index is being made."""
    place = DataFolders(services.home).index(built.folder)
    if not await state.indexes.ready(built.folder, place):
        return None
    return await asyncio.to_thread(search_samples, built.folder, place, wanted)
