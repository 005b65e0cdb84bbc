"""Uploads, data sets and fetches: what commands and pages do with them."""

import asyncio
from contextlib import suppress
from pathlib import Path

from bot.data.build_request import (
    BuildContext,
    DatasetBuildBody,
    build_arguments,
    read_build_request,
    require_buildable,
    save_build_request,
)
from bot.data.built_datasets import BuiltDataset, list_datasets, require_dataset
from bot.data.errors import (
    DataConflictError,
    FetchRefusedError,
    InvalidFieldsError,
    UnknownDataError,
)
from bot.data.folders import DataFolders
from bot.data.inspections import delete_inspection, save_inspection
from bot.data.jobs import DataJob, DataJobRunner
from bot.data.offers import OfferBody
from bot.data.rights import write_statement
from bot.data.sources import UPLOADS_PREFIX, DataSource, list_sources, require_upload
from bot.data.trainer_call import PROGRESS_ARGUMENTS
from bot.data.trash import DataItem, DataKind, DataTrash
from bot.data.upload_stream import (
    ActiveUploads,
    ReadChunk,
    ReceivedFile,
    receive_file,
    require_no_file,
)
from bot.personas.registry import PersonaRegistry
from bot.platform.localisation import gettext_lazy
from bot.settings import FetchPolicy
from bot.training.dataset_catalog import DatasetCatalog, DatasetPlace
from bot.training.guild_turns import QueueConflictError
from personas.errors import EngineBusyError, MaterialError, RequestError, UnderstudyError
from personas.home.built_dataset import dataset_statement
from personas.home.column_maps import write_mapping
from personas.home.rights import RightsStatement
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.home.trash import TrashEntry


def upload_place(name: str) -> DatasetPlace:
    """Return the place that the catalogue gives for an upload."""
    return {"path": f"{UPLOADS_PREFIX}{name}"}


def dataset_place(id: str) -> DatasetPlace:
    """Return the place that the catalogue gives for a data set that was built here."""
    return {"path": f"datasets/{id}"}


def _upload_item(source: DataSource) -> DataItem:
    return DataItem(
        "upload",
        source.name,
        upload_place(source.name),
        statement=source.statement,
        mapping=source.mapping,
    )


def _dataset_item(built: BuiltDataset) -> DataItem:
    statement: RightsStatement | None = None
    with suppress(MaterialError):  # of a damaged one
        statement = dataset_statement(built.folder)
    return DataItem("dataset", built.id, dataset_place(built.id), statement=statement)


def require_own_dataset(built: BuiltDataset) -> None:
    """Raise `DataConflictError` for a data set outside this home."""
    if not built.is_own:
        raise DataConflictError(
            f"{built.id} lies where catalogue.toml says.",
            "Delete it there.",
        )


class DataActions:
    """The data of this bot. Methods raise `DataError`s and other `UnderstudyError`s.

    Folders and small files are read in threads: the home may lie on a slow disk.
    """

    def __init__(
        self,
        home: Path,
        catalogue: DatasetCatalog,
        personas: PersonaRegistry,
        jobs: DataJobRunner,
        *,
        base_model: str,
        max_upload_bytes: int,
        fetch_policy: FetchPolicy,
    ) -> None:
        self._home = home
        self._folders = DataFolders(home)
        self._catalogue = catalogue
        self._personas = personas
        self._jobs = jobs
        self._base_model = base_model
        self._max_upload_bytes = max_upload_bytes
        self._fetch_policy = fetch_policy
        self._uploads = ActiveUploads()
        self._trash = DataTrash(home, catalogue)

    # -------------------------------------------------------------------------------------- uploads

    async def sources(self) -> list[DataSource]:
        """List all sources, shipped ones last."""
        return await asyncio.to_thread(list_sources, self._home, self._catalogue.shipped)

    async def upload(self, name: str) -> DataSource:
        """Return an upload."""
        return await asyncio.to_thread(require_upload, self._home, name)

    async def store_upload(
        self, read: ReadChunk, name: str, *, replace: bool, expected_bytes: int | None = None
    ) -> ReceivedFile:
        """Store an upload, one of each name at a time; an earlier file is kept for a day, with its
        right, columns and name.
        """
        file = self._folders.upload(name)
        require_no_file(file, replace)

        def keep_earlier() -> None:
            if file.exists():
                self._trash.keep_copy(_upload_item(require_upload(self._home, file.name)))

        with self._uploads.of(file):
            received = await receive_file(
                read,
                file,
                expected_bytes,
                replace=replace,
                most_bytes=self._max_upload_bytes,
                before_rename=keep_earlier,
            )
            # What was stated of an earlier file says nothing of this one.
            await asyncio.to_thread(self._catalogue.withdraw, upload_place(file.name))
            await asyncio.to_thread(_delete_facts, file)
        return received

    def inspect_upload(self, name: str) -> DataJob:
        """Queue the trainer's inspection of an upload."""
        file = self._folders.upload(name)

        async def save(job: DataJob) -> None:
            await asyncio.to_thread(save_inspection, file, job.result)

        arguments = ("dataset", "inspect", f"{UPLOADS_PREFIX}{file.name}", *PROGRESS_ARGUMENTS)
        return self._jobs.start(self._home, "inspect", file.name, arguments, after=save)

    async def set_right(self, name: str, statement: RightsStatement | None) -> DataSource:
        """Store the right stated to an upload; None removes it."""
        source = await self.upload(name)
        file = self._folders.upload(source.name)
        await asyncio.to_thread(write_statement, file, statement)
        await asyncio.to_thread(self._catalogue.update_right, upload_place(source.name), statement)
        return await self.upload(name)

    async def set_columns(self, name: str, pairs: tuple[str, ...]) -> DataSource:
        """Store which column of an upload is what, and have the trainer inspect it; no pairs
        withdraw it.
        """
        source = await self.upload(name)
        file = self._folders.upload(source.name)
        try:
            await asyncio.to_thread(write_mapping, file, pairs)
        except MaterialError as error:
            raise DataConflictError(error.message, error.advice) from error
        await self._inspect_anew(source.name)
        return await self.upload(name)

    async def _inspect_anew(self, name: str) -> None:
        """Queue the inspection of an upload that has changed, or of which something else is known."""
        running = self._jobs.latest("inspect", name)
        if running and running.is_open:
            await self._jobs.cancel(running)
        await asyncio.to_thread(delete_inspection, self._folders.upload(name))
        self.inspect_upload(name)

    async def delete_upload(self, name: str) -> None:
        """Move an upload and its facts into the trash, unless a job uses it."""
        source = await self.upload(name)
        for job in self._jobs.open():
            is_named = f"{UPLOADS_PREFIX}{source.name}" in " ".join(job.arguments)
            if is_named or job.subject == source.name:
                raise DataConflictError(
                    f"{source.name} is in use by a job.",
                    "Wait for it, or cancel it.",
                )
        file = self._folders.upload(source.name)
        await asyncio.to_thread(self._trash.throw_away, _upload_item(source))
        await asyncio.to_thread(_delete_facts, file)

    def removed(self) -> list[TrashEntry]:
        """List the uploads and data sets that can be brought back. Reads the disk."""
        return self._trash.entries()

    async def bring_back(self, kind: DataKind, name: str, stamp: str) -> bool:
        """Bring back an upload or data set that was deleted or replaced within the last day; one of
        its name that is there by now takes its place in the trash. False where moderators cannot
        name it any more.
        """
        entry = await asyncio.to_thread(self._trash.require_entry, kind, name, stamp)
        present = DataItem(kind, name, entry.facts["place"], statement=None)
        with suppress(UnknownDataError):
            if kind == "upload":
                present = _upload_item(await self.upload(name))
            else:
                present = _dataset_item(await self.dataset(name))
        is_offered = await asyncio.to_thread(self._trash.bring_back, entry, present)
        if kind == "upload":
            # It is back: its page offers the inspection, or another press has begun it.
            with suppress(EngineBusyError, QueueConflictError):
                await self._inspect_anew(name)
        return is_offered

    # ------------------------------------------------------------------------------------ data sets

    async def datasets(self) -> tuple[list[BuiltDataset], list[str]]:
        """List all data sets, newest first, and the errors of unreadable ones."""
        return await asyncio.to_thread(list_datasets, self._home)

    async def dataset(self, id: str) -> BuiltDataset:
        """Return a data set."""
        return await asyncio.to_thread(require_dataset, self._home, id)

    async def stored_build(self, name: str) -> DatasetBuildBody | None:
        """Return the request by which a data set was built; None if there is none."""
        return await asyncio.to_thread(read_build_request, self._folders.build(name))

    async def build_words(self, body: DatasetBuildBody) -> list[str]:
        """Return the arguments of a build without a review, to be run by hand."""
        context = await self._build_context()
        await asyncio.to_thread(require_buildable, body, context)
        return await asyncio.to_thread(build_arguments, body, context, with_review=False)

    async def build_dataset(self, body: DatasetBuildBody, *, replace: bool) -> DataJob:
        """Queue the build of a data set."""
        context = await self._build_context()
        await asyncio.to_thread(require_buildable, body, context)
        if self._folders.set(body.name).exists() and not replace:
            raise DataConflictError(
                f"There is a data set {body.name} already.",
                "Choose another name, or replace it.",
            )
        words = await asyncio.to_thread(build_arguments, body, context)
        build = self._folders.build(body.name)
        for folder in (self._folders.sets, build):
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        kept: list[TrashEntry] = []
        if self._folders.set(body.name).exists():
            before = _dataset_item(await self.dataset(body.name))
            kept.append(await asyncio.to_thread(self._trash.keep_copy, before))

        def forget_unreplaced() -> None:
            latest = self._jobs.latest("build", body.name)
            if kept and (latest is None or latest.state != "done"):
                self._trash.delete(kept.pop())

        words = [*words, *PROGRESS_ARGUMENTS]
        try:
            job = self._jobs.start(self._home, "build", body.name, words, on_end=forget_unreplaced)
        except UnderstudyError:
            forget_unreplaced()
            raise
        await asyncio.to_thread(save_build_request, build, body)
        return job

    async def _build_context(self) -> BuildContext:
        return BuildContext(
            home=self._home,
            sources={source.id: source for source in await self.sources()},
            persona_ids=self._personas.of(OPERATOR_GUILD_ID).keys(),
            recipes=self._catalogue.recipes(),
            base_model=self._base_model,
        )

    async def delete_dataset(self, id: str) -> None:
        """Move a data set that was built here into the trash, with its build request."""
        built = await self.dataset(id)
        require_own_dataset(built)
        job = self._jobs.latest("build", built.id)
        if job and job.is_open:
            raise DataConflictError(
                f"{built.id} is being built.",
                "Wait for it, or cancel it.",
            )
        await asyncio.to_thread(self._trash.throw_away, _dataset_item(built))

    # ------------------------------------------------- data sets on a hub, and offers to moderators

    def fetch(self, name: str) -> DataJob:
        """Queue the fetch of a data set from a hub."""
        entry = self._catalogue.require_entry(name)
        if self._fetch_policy == "off":
            raise FetchRefusedError(
                gettext_lazy("This bot does not fetch data sets (FETCH_DATASETS is off)."),
                gettext_lazy(
                    "The operator can: `python -m trainer catalogue fetch {name}`.", name=name
                ),
            )
        if not entry.hub:
            raise RequestError(
                gettext_lazy("{name!r} is not on a hub.", name=name),
                gettext_lazy("There is nothing to fetch."),
            )
        if entry.is_here:
            raise QueueConflictError(
                gettext_lazy("{name} is on this machine already.", name=name),
                gettext_lazy("Train on it."),
            )
        arguments = ("catalogue", "fetch", name, *PROGRESS_ARGUMENTS)
        return self._jobs.start(self._home, "fetch", name, arguments)

    async def offer_upload(self, name: str, offer: OfferBody) -> None:
        """Let moderators name an upload, under the right stated to it or by `offer`."""
        source = await self.upload(name)
        statement = offer.statement() if offer.right else source.statement
        if source.about and source.about.question and not (source.mapping or offer.map):
            raise InvalidFieldsError(
                f"Nobody has said which column of {name} is what, so nothing of it would be read.",
                "State it under Columns, or as `map`.",
                {"map": "say which column is what"},
            )
        if statement is None:
            raise InvalidFieldsError(
                f"Nobody has stated a right to {name}.",
                "State it first.",
                {"right": "nobody has stated a right to it"},
            )
        place = upload_place(source.name)
        await asyncio.to_thread(self._catalogue.offer, place, offer.listing, statement)
        if offer.right:
            await self.set_right(source.name, statement)

    async def offer_dataset(self, id: str, offer: OfferBody) -> None:
        """Let moderators name a data set that was built here, or a fetched one."""
        if entry := await asyncio.to_thread(self._catalogue.hub_entry, id):
            place: DatasetPlace = {"hub": entry.hub, "files": [*entry.files]}
            statement = offer.statement()
        else:
            built = await self.dataset(id)
            require_own_dataset(built)
            samples = await asyncio.to_thread(dataset_statement, built.folder)
            place = dataset_place(built.id)
            statement = offer.statement(samples.right)
        await asyncio.to_thread(self._catalogue.offer, place, offer.listing, statement)

    async def withdraw_upload(self, name: str) -> None:
        """Withdraw an upload from moderators, if they can name it."""
        await asyncio.to_thread(self._catalogue.withdraw, upload_place(name))

    async def withdraw_dataset(self, id: str) -> None:
        """Withdraw a data set from moderators, if they can name it."""
        entry = await asyncio.to_thread(self._catalogue.hub_entry, id)
        place: DatasetPlace = {"hub": entry.hub} if entry else dataset_place(id)
        await asyncio.to_thread(self._catalogue.withdraw, place)


def _delete_facts(file: Path) -> None:
    """Delete an upload's inspection, right and columns."""
    delete_inspection(file)
    write_statement(file, None)
    write_mapping(file, ())
