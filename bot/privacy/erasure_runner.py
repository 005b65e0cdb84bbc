"""Erasure of one person: ordered, repeatable steps whose progress is stored, and the receipt of
what was done.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from bot.operations.shards import ShardRange
from bot.personas.revisions import REVISIONS_FOLDER
from bot.privacy import consent_files
from bot.privacy.alias_search import collect_aliases
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.home_files import FileErasureResult, HomeFiles, delete_path
from bot.privacy.identifiers import IdentifierMatcher, PersonIdentifiers, job_name_replacements
from bot.store import CARD_CONTRIBUTION, ErasureRequest, Store
from bot.training.training_plan import PREVIEWS_FOLDER
from personas.home.adapters import DialogueAdapter, adapter_ref, find_dialogue_adapters
from personas.home.data_subjects import mark_erasure
from personas.home.external_files import ExportRecord, find_exports_containing
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.schemas.base import FrozenModel

ErasureScope = Literal["everything", "trainings", "files"]
log = logging.getLogger(__name__)
ERASURE_STEPS: dict[ErasureScope, tuple[str, ...]] = {
    "everything": (
        "gather",
        "bury",
        "jobs",
        "store",
        "adapters",
        "files",
        "erase",
        "compact",
        "follow",
    ),
    "trainings": ("gather", "jobs", "adapters", "made", "erase", "compact", "follow"),
    "files": ("gather", "jobs", "adapters", "files", "erase", "compact", "follow"),
}
"""The steps by scope, in order: to erase a person, to withdraw what was trained on them, and to
erase again what a restored backup contains beside the store.
"""
WITHDRAWAL_REASON = "withdrawn"


class WithdrawnVersion(FrozenModel):
    """A withdrawn version. `now` is the version that replaces it; `again` is the job that retrains
    it.

    `now` is None where it was live in no guild, "" for the base model; `why_not` says why there is
    no such job.
    """

    persona_id: str
    version: str
    now: str | None = None
    again: str | None = None
    why_not: str = ""


class ErasureReceipt(FrozenModel):
    """The receipt of an erasure. `rows` counts deleted rows; `deleted`, `cut` and `lost` are paths
    in the home (`bot.privacy.home_files`).

    Messages after `until` (seconds since 1970) stay, and events after `last_event` are answered:
    its id has Discord's time, which the machine's clock may differ from. `resumed`: the bot stopped
    in the middle of a step, so what that step did may be missing here, though it was done.
    """

    scope: ErasureScope = "everything"
    until: float = 0.0
    last_event: int = 0
    resumed: bool = False
    rows: dict[str, int] = Field(default={})
    deleted: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    withdrawn: tuple[WithdrawnVersion, ...] = ()
    dialogues: tuple[WithdrawnVersion, ...] = ()
    """Adapters of dialogue jobs: `persona_id` is the job's name."""
    set_aside: tuple[str, ...] = ()  # jobs that start again, without the person
    exports: tuple[ExportRecord, ...] = ()

    def also(self, rows: Mapping[str, int]) -> "ErasureReceipt":
        """Return the receipt with further rows counted; a repeated step finds fewer, so nothing
        counts twice.
        """
        every = {name: self.rows.get(name, 0) + rows.get(name, 0) for name in {*self.rows, *rows}}
        return self.model_copy(
            update={"rows": {name: count for name, count in sorted(every.items()) if count}}
        )


class BotHooks(Protocol):
    """Notifications that the running bot needs."""

    @property
    def busy(self) -> Collection[Path]:
        """Open files; their contents are read again by `files_changed`."""

    async def interrupt_jobs(self, jobs: Collection[str]) -> None:
        """Block new training runs until `follow`; stop the running one if it is among these."""

    async def replies_ended(self) -> None:
        """Wait until the replies that are made now are stored: their prompts may have what the
        person said.
        """

    async def unload_version(self, persona_id: str, version: str) -> None:
        """Stop serving this version."""

    async def files_changed(self, paths: Collection[str]) -> None:
        """Reload these files, by path from the home, which were redacted or deleted."""

    async def follow(self, receipt: ErasureReceipt) -> ErasureReceipt:
        """Retrain, announce withdrawn versions in their channels, and unblock training;
        idempotent.
        """


StepMethod = Callable[
    [ErasureRequest, ErasureReceipt, PersonIdentifiers], Awaitable[ErasureReceipt]
]


@dataclass(frozen=True)
class ErasureRunner:
    """Erases people from one home, in the thread that opened the store.

    Without `hooks` the bot does not run, and the last step waits until it does. `personas` are the
    names of personas, which belong to no member. `leave_sandbox` erases the member from the
    sandbox. With a part of the `shards`, the process with shard 0 runs the steps; the person's
    identifiers stay until every shard has deleted its guilds' rows.
    """

    home: Path
    store: Store
    consents: ConsentMirror
    now: Callable[[], float]
    hooks: BotHooks | None = None
    personas: frozenset[str] = frozenset()
    forget_in_sandbox: Callable[[PersonIdentifiers], None] | None = None
    shards: ShardRange | None = None

    def keyed(self, who: str) -> str:
        """Return the key of an id, or of `name:` and a name, in lists of this home. Raises
        `KeyFileError`.
        """
        return keyed_person(HomeKey.of(self.home).people(), who)

    def people(self, traces: PersonIdentifiers) -> set[str]:
        """Return all keys under which a person can be listed."""
        keys = [*traces.ids, *(f"name:{name.casefold()}" for name in traces.names)]
        return {self.keyed(one) for one in keys}

    def traces(
        self,
        user_id: int,
        names: Iterable[str] = (),
        sure_names: Iterable[str] = (),
        until: float = math.inf,
    ) -> PersonIdentifiers:
        """Collect a member's identifiers, with the lore contributed until then; the operator
        confirms `sure_names`.
        """
        all_names = {*names, *self.store.erasure.names(user_id)}
        found = PersonIdentifiers(ids=(str(user_id),)).with_names(
            sorted(all_names), self._barred(user_id, all_names)
        )
        found = found.with_confirmed_names(sure_names).with_texts(self.store.erasure.texts(user_id))
        answers = tuple(map(str, self.store.erasure.answers(user_id)))
        jobs = job_name_replacements(self.store.erasure.job_names(user_id), self.keyed)
        lore = self._given_lore(user_id, until)
        return replace(self._with_parts(found, user_id), answers=answers, jobs=jobs, lore=lore)

    def _given_lore(self, user_id: int, until: float) -> tuple[str, ...]:
        """Return the lore files that a member gave, by path from the home."""
        return tuple(
            f"lore/{gift.guild_id}/{gift.persona_id}/{gift.what}"
            for gift in self.store.people.contributions_of(user_id)
            if gift.what != CARD_CONTRIBUTION and gift.at <= until
        )

    def begin(
        self,
        traces: PersonIdentifiers,
        *,
        scope: ErasureScope = "everything",
        until: float | None = None,
        last_event: int = 0,
    ) -> ErasureRequest:
        """Store a request to erase a person, with all data until a time (now): from here on it will
        be carried out.

        Events up to `last_event`, by id, are ignored from now on.
        """
        person = self.keyed(traces.ids[0] if traces.ids else f"name:{traces.names[0].casefold()}")
        now = self.now()
        receipt = ErasureReceipt(
            scope=scope, until=now if until is None else until, last_event=last_event
        )
        if until is None:
            self.store.erasure.date_back(now, now)
        return self.store.erasure_requests.begin(
            person, now, ERASURE_STEPS[scope][0], traces.as_json(), receipt.model_dump_json()
        )

    def _barred(self, user_id: int, names: Iterable[str]) -> set[str]:
        others = {name.casefold() for name in self.store.erasure.names_of_others(user_id)}
        return {name for name in names if name.casefold() in others} | self.personas

    async def run(self, erasure_request: ErasureRequest) -> ErasureReceipt:
        """Run all remaining steps, or all but the last where the bot does not run. Raises
        `UnderstudyError`.
        """
        while erasure_request.step and (self.hooks or erasure_request.step != "follow"):
            if erasure_request.step == "erase" and self._waits_for_shards(erasure_request):
                break
            erasure_request = await self._step(erasure_request)
        return receipt_of(erasure_request)

    def _waits_for_shards(self, row: ErasureRequest) -> bool:
        if (
            self.shards is None
            or self.shards.count is None
            or receipt_of(row).scope != "everything"
        ):
            return False
        return len(self.store.erasure_requests.acknowledged(row.seq)) < self.shards.count

    async def erase_own_share(self) -> bool:
        """Delete the rows of this process's guilds for all requests that have come so far; returns
        whether any had.
        """
        assert self.shards is not None and self.shards.ids is not None  # a part of the shards
        erased = False
        for row in self.store.erasure_requests.unfinished():
            steps = ERASURE_STEPS[receipt_of(row).scope]
            if "store" not in steps or steps.index(row.step) < steps.index("store"):
                continue  # the identifiers are not complete yet
            if not self.store.erasure_requests.acknowledged(row.seq).issuperset(self.shards.ids):
                self.store.erasure.date_back(self.now(), receipt_of(row).until)
                self._erase_rows(PersonIdentifiers.of_json(row.traces), receipt_of(row).until)
                if self.hooks:
                    await self.hooks.replies_ended()
                self.store.compact()
                self.store.erasure_requests.acknowledge(row.seq, self.shards.ids)
                erased = True
        return erased

    def erase_buried(self) -> None:
        """Delete again what an older copy of this process's file has of people who were erased
        since.
        """
        for user_id in sorted(self.store.erasure.user_ids()):
            at = self.store.people.tombstones().get(self.keyed(str(user_id)))
            first = self.store.erasure.first_seen(user_id)
            if at is not None and first is not None and first <= at:
                self._erase_rows(self.traces(user_id, until=at), at)

    def _erase_rows(self, traces: PersonIdentifiers, until: float) -> None:
        """Delete a person's rows and the lore that they gave to guilds of these shards."""
        for user_id in map(int, traces.ids):
            for path in self._given_lore(user_id, until):
                for file in (self.home / path, *(self.home / REVISIONS_FOLDER / path).glob("*")):
                    delete_path(file)
            names = self.store.erasure.names(user_id)
            own = traces.with_names(sorted(names), self._barred(user_id, names))
            own = self._with_parts(own.with_texts(self.store.erasure.texts(user_id)), user_id)
            self.store.erasure.erase(user_id, until, IdentifierMatcher(own).redacted)

    async def finish(self) -> None:
        for row in self.store.erasure_requests.unfinished():
            resumed = receipt_of(row).model_copy(
                update={"resumed": receipt_of(row).resumed or row.step != "follow"}
            )
            await self.run(
                self.store.erasure_requests.advance(row.seq, row.step, resumed.model_dump_json())
            )

    async def _step(self, row: ErasureRequest) -> ErasureRequest:
        receipt = receipt_of(row)
        traces = PersonIdentifiers.of_json(row.traces)
        log.info("erasing a member: %s", row.step)
        steps = ERASURE_STEPS[receipt.scope]
        if steps.index(row.step) < steps.index("erase"):
            await asyncio.to_thread(mark_erasure, self.home, running=True)
        if row.step == "gather":
            traces = await self._gather(traces)
            exports = tuple(find_exports_containing(self.home, self.people(traces)))
            receipt = receipt.model_copy(update={"exports": exports})
        elif row.step == "erase":
            traces = PersonIdentifiers()
        else:
            receipt = await self._step_method(row.step)(row, receipt, traces)
        following = (*steps, "")[steps.index(row.step) + 1]
        if following == "erase":  # the files have been searched
            await asyncio.to_thread(mark_erasure, self.home, running=False)
        return self.store.erasure_requests.advance(
            row.seq, following, receipt.model_dump_json(), traces.as_json()
        )

    def _step_method(self, step: str) -> StepMethod:
        return {
            "bury": self._bury,
            "jobs": self._jobs,
            "store": self._store,
            "adapters": self._adapters,
            "made": self._files,
            "files": self._files,
            "compact": self._compact,
            "follow": self._follow,
        }[step]

    async def _gather(self, traces: PersonIdentifiers) -> PersonIdentifiers:
        await asyncio.to_thread(delete_path, self.home / PREVIEWS_FOLDER)
        files = self._home_files(traces)
        for user_id in traces.ids:
            found = await asyncio.to_thread(collect_aliases, files.primary_files(), user_id)
            traces = traces.with_names(sorted(found.names), self._barred(int(user_id), found.names))
            traces = self._with_parts(traces.with_texts(sorted(found.texts)), int(user_id))
        return traces

    def _with_parts(self, traces: PersonIdentifiers, user_id: int) -> PersonIdentifiers:
        words = {
            word for name in self.store.erasure.names_of_others(user_id) for word in name.split()
        }
        return traces.with_parts(words | self.personas)

    async def _bury(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        """Record the tombstones: from here on no backup restores the person."""
        consent_files.record_tombstones(self.home, self.store, self.people(traces), receipt.until)
        return receipt

    async def _jobs(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        """Restart unfinished jobs whose folder contains the person, once their data can no longer
        be used.
        """
        files = self._home_files(traces)
        held = []
        for job in [*self.store.jobs.in_state("running"), *self.store.jobs.in_state("queued")]:
            folder = self.home / "jobs" / job.job_id
            if folder.exists() and await asyncio.to_thread(files.contains_person, folder):
                held.append(job.job_id)
        if self.hooks:
            await self.hooks.interrupt_jobs(held)
        return receipt.model_copy(update={"set_aside": tuple(sorted({*receipt.set_aside, *held}))})

    async def _store(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        finder = IdentifierMatcher(traces)
        for user_id in traces.ids:
            for done in self.store.erasure.erase_in_steps(
                int(user_id), receipt.until, finder.redacted
            ):
                receipt = receipt.also(done)
                await asyncio.sleep(0)
        self.consents.mirror()
        await asyncio.to_thread(finder.jobs.rename_files, self.home)
        if self.hooks:
            await self.hooks.replies_ended()
        if self.forget_in_sandbox:
            self.forget_in_sandbox(traces)
        if self.shards and self.shards.ids:
            self.store.erasure_requests.acknowledge(row.seq, self.shards.ids)
        return receipt

    async def _adapters(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        """Withdraw the versions trained on the person: the version before becomes live, or the base
        model.
        """
        files = self._home_files(traces)
        for persona_id, version, job_id in self.store.versions.all_installed():
            if await asyncio.to_thread(self._is_in, files, persona_id, version, job_id):
                self.store.versions.withdraw(persona_id, version, row.asked_at, WITHDRAWAL_REASON)
        withdrawn = []
        for persona_id, version in self.store.versions.withdrawn_at(row.asked_at):
            if self.hooks:
                await self.hooks.unload_version(persona_id, version)
            was_live = self.store.versions.live_until_withdrawn(persona_id, version)
            now = (self.store.versions.live(persona_id, was_live[0]) or "") if was_live else None
            withdrawn.append(WithdrawnVersion(persona_id=persona_id, version=version, now=now))
        dialogues = {one.persona_id: one for one in receipt.dialogues}
        for adapter in await asyncio.to_thread(self._dialogues, files):
            if self.hooks:
                await self.hooks.unload_version(adapter.id, adapter.version)
            dialogues[adapter.name] = WithdrawnVersion(persona_id=adapter.name, version="")
        return receipt.model_copy(
            update={"withdrawn": tuple(withdrawn), "dialogues": tuple(dialogues.values())}
        )

    def _is_in(self, files: HomeFiles, persona_id: str, version: str, job_id: str) -> bool:
        folders = (adapter_ref(self.home, persona_id, version).folder, self.home / "jobs" / job_id)
        return any(folder.exists() and files.contains_person(folder) for folder in folders)

    def _dialogues(self, files: HomeFiles) -> list[DialogueAdapter]:
        """Find the dialogue adapters trained on the person; a run from the command line is searched
        whole.
        """
        runs = self.home / "runs"
        found = find_dialogue_adapters(self.home).values()
        folders = [
            (it, it.folder.parent if it.folder.is_relative_to(runs) else it.folder) for it in found
        ]
        return [adapter for adapter, folder in folders if files.contains_person(folder)]

    async def _files(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        files = self._home_files(traces)
        withdrawn = [
            adapter_ref(self.home, one.persona_id, one.version).folder for one in receipt.withdrawn
        ]
        contributed = [self.home / path for path in traces.lore]
        contributed += [
            file for path in traces.lore for file in (self.home / REVISIONS_FOLDER / path).glob("*")
        ]
        done: FileErasureResult = await asyncio.to_thread(
            files.erase, withdrawn, contributed, derived_only=receipt.scope == "trainings"
        )
        if self.hooks:
            await self.hooks.files_changed([*done.deleted, *done.cut, *done.lost])
        return receipt.model_copy(
            update={
                "deleted": (*receipt.deleted, *done.deleted),
                "cut": tuple(dict.fromkeys([*receipt.cut, *done.cut])),
                "lost": (*receipt.lost, *done.lost),
            }
        )

    async def _compact(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        """Remove deleted data from the database's free pages, and the person's identifiers from the
        request.
        """
        self.store.compact()
        return receipt

    async def _follow(
        self, row: ErasureRequest, receipt: ErasureReceipt, traces: PersonIdentifiers
    ) -> ErasureReceipt:
        assert self.hooks is not None  # `run` ensures it
        return await self.hooks.follow(receipt)

    def _home_files(self, traces: PersonIdentifiers) -> HomeFiles:
        busy = self.hooks.busy if self.hooks else ()
        return HomeFiles(self.home, IdentifierMatcher(traces), self.people(traces), busy)


def receipt_of(erasure_request: ErasureRequest) -> ErasureReceipt:
    return ErasureReceipt.model_validate_json(erasure_request.receipt)


def redact_people_being_erased(store: Store, text: str) -> str:
    """Redact who is being erased in a new text: a reply may have been begun with what they said."""
    for row in store.erasure_requests.unfinished():
        if receipt_of(row).scope == "everything":
            text = IdentifierMatcher(PersonIdentifiers.of_json(row.traces)).redacted(text)
    return text
