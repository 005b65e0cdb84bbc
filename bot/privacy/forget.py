"""Forgetting somebody: steps in an order, each of which can be repeated, noted in the store one by one.

Whatever ends this process, the next start goes on with the step that was not noted as done. What follows from
forgetting (training anew, saying so) comes last and needs a running bot; nothing of the person is left by then.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bot.earlier import EARLIER
from bot.preview import PREVIEWS
from bot.privacy import tombstones
from bot.privacy.consent import Consents
from bot.privacy.files import FilesDone, HomeFiles, delete
from bot.privacy.gather import gather
from bot.privacy.job_names import renamed_jobs
from bot.privacy.receipt import Receipt, Scope, Withdrawn
from bot.privacy.traces import Finder, Traces
from bot.store import CARD, Forgetting, Store
from personas.adapters import adapter_ref
from personas.exports import exports_with
from personas.keys import HomeKey, keyed

log = logging.getLogger(__name__)

STEPS: dict[Scope, tuple[str, ...]] = {
    "everything": ("gather", "bury", "jobs", "store", "adapters", "files", "erase", "compact", "follow"),
    "trainings": ("gather", "jobs", "adapters", "made", "erase", "compact", "follow"),
    "files": ("gather", "jobs", "adapters", "files", "erase", "compact", "follow"),
}
"""What is done, in which order: to forget somebody, to withdraw what was trained on them, to forget what a backup
brought back beside the store."""
WHY = "withdrawn"


class Around(Protocol):
    """What has to know while the bot runs."""

    @property
    def busy(self) -> Collection[Path]:
        """Files that are open; what they hold is read anew by `files_changed`."""
        ...

    async def set_aside(self, jobs: Collection[str]) -> None:
        """Let no training begin until `follow`; stop the one that runs if it is among these."""
        ...

    async def drop(self, persona_id: str, version: str) -> None:
        """Speak with this version no more."""
        ...

    async def files_changed(self, paths: Collection[str]) -> None:
        """These files, by path from the home, were cut or deleted."""
        ...

    async def follow(self, receipt: Receipt) -> Receipt:
        """Train anew, say where a version was withdrawn, let trainings begin; doing so again changes nothing."""
        ...


@dataclass(frozen=True)
class Forgetter:
    """Forgets people in one home. Use it from the thread that opened the store.

    Without `around` the bot does not run, and the last step waits until it does. `personas` are the names of personas,
    which are no member's. `leave_sandbox` forgets in what stands in for Discord.
    """

    home: Path
    store: Store
    consents: Consents
    now: Callable[[], float]
    around: Around | None = None
    personas: frozenset[str] = frozenset()
    leave_sandbox: Callable[[Traces], None] | None = None

    # ------------------------------------------------------------------------------------------------ whom

    def keyed(self, who: str) -> str:
        """What stands for an id, or for `name:` and a name, in lists of this home. Raises `KeyFileError`."""
        return keyed(HomeKey.of(self.home).people(), who)

    def people(self, traces: Traces) -> set[str]:
        """All under which a person can stand in lists."""
        known = [*traces.ids, *(f"name:{name.casefold()}" for name in traces.names)]
        return {self.keyed(one) for one in known}

    def traces(
        self, user_id: int, names: Iterable[str] = (), sure_names: Iterable[str] = (), until: float = math.inf
    ) -> Traces:
        """What tells a member: their id, names, words, and the lore that they gave until then.

        `sure_names` are vouched for by whoever runs the bot.
        """
        known = {*names, *self.store.erasure.names(user_id)}
        found = Traces(ids=(str(user_id),)).with_names(sorted(known), self._barred(user_id, known))
        found = found.surely_named(sure_names).with_texts(self.store.erasure.texts(user_id))
        answers = tuple(map(str, self.store.erasure.answers(user_id)))
        jobs = renamed_jobs(self.store.erasure.job_names(user_id), self.keyed)
        given = (gift for gift in self.store.people.gifts_of(user_id) if gift.what != CARD and gift.at <= until)
        lore = tuple(f"lore/{gift.guild_id}/{gift.persona_id}/{gift.what}" for gift in given)
        return replace(self._with_parts(found, user_id), answers=answers, jobs=jobs, lore=lore)

    def begin(self, traces: Traces, *, scope: Scope = "everything", until: float | None = None) -> Forgetting:
        """Note that somebody is to be forgotten, with all that was said until then (now): from here on it happens."""
        person = self.keyed(traces.ids[0] if traces.ids else f"name:{traces.names[0].casefold()}")
        now = self.now()
        receipt = Receipt(scope=scope, until=now if until is None else until)
        return self.store.forgettings.begin(person, now, STEPS[scope][0], traces.as_json(), receipt.model_dump_json())

    def _barred(self, user_id: int, names: Iterable[str]) -> set[str]:
        return self.store.erasure.borne_by_others(user_id, names) | self.personas

    # ------------------------------------------------------------------------------------------------ step by step

    async def run(self, forgetting: Forgetting) -> Receipt:
        """Take all steps that are left, or all but the last where the bot does not run. Raises `UnderstudyError`."""
        while forgetting.step and (self.around or forgetting.step != "follow"):
            forgetting = await self._step(forgetting)
        return receipt_of(forgetting)

    async def finish(self) -> None:
        """Go on with all that was begun."""
        for row in self.store.forgettings.unfinished():
            resumed = receipt_of(row).model_copy(update={"resumed": receipt_of(row).resumed or row.step != "follow"})
            await self.run(self.store.forgettings.advance(row.seq, row.step, resumed.model_dump_json()))

    async def _step(self, row: Forgetting) -> Forgetting:
        receipt, traces = receipt_of(row), Traces.of_json(row.traces)
        log.info("forgetting somebody: %s", row.step)
        if row.step == "gather":
            traces = await self._gather(traces)
            receipt = receipt.model_copy(update={"exports": tuple(exports_with(self.home, self.people(traces)))})
        elif row.step == "erase":
            traces = Traces()
        else:
            receipt = await self._doing(row.step)(row, receipt, traces)
        steps = STEPS[receipt.scope]
        following = (*steps, "")[steps.index(row.step) + 1]
        return self.store.forgettings.advance(row.seq, following, receipt.model_dump_json(), traces.as_json())

    def _doing(self, step: str) -> Callable[[Forgetting, Receipt, Traces], Awaitable[Receipt]]:
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

    async def _gather(self, traces: Traces) -> Traces:
        """Learn from logs under which names the person stands there, and what they say."""
        await asyncio.to_thread(delete, self.home / PREVIEWS)
        files = self._home_files(traces)
        for user_id in traces.ids:
            found = await asyncio.to_thread(gather, files.primary(), user_id)
            traces = traces.with_names(sorted(found.names), self._barred(int(user_id), found.names))
            traces = self._with_parts(traces.with_texts(sorted(found.texts)), int(user_id))
        return traces

    def _with_parts(self, traces: Traces, user_id: int) -> Traces:
        return traces.with_parts(self.store.erasure.words_of_others(user_id) | self.personas)

    async def _bury(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        """From here on no backup brings the person back."""
        tombstones.bury(self.home, self.store, self.people(traces), receipt.until)
        return receipt

    async def _jobs(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        """Unfinished jobs whose folder holds the person begin anew, once there is nothing of them to take."""
        files, held = self._home_files(traces), []
        for job in [*self.store.jobs.in_state("running"), *self.store.jobs.in_state("queued")]:
            folder = self.home / "jobs" / job.job_id
            if folder.exists() and await asyncio.to_thread(files.holds, folder):
                held.append(job.job_id)
        if self.around:
            await self.around.set_aside(held)
        return receipt.model_copy(update={"set_aside": tuple(sorted({*receipt.set_aside, *held}))})

    async def _store(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        finder = Finder(traces)
        for user_id in traces.ids:
            receipt = receipt.also(self.store.erasure.erase(int(user_id), receipt.until, finder.redacted))
        self.consents.mirror()
        await asyncio.to_thread(finder.jobs.rename_files, self.home)
        if self.leave_sandbox:
            self.leave_sandbox(traces)
        return receipt

    async def _adapters(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        """Versions with the person in them stop speaking: those before them do, or the base model."""
        files = self._home_files(traces)
        for persona_id, version, job_id in self.store.versions.all_installed():
            if await asyncio.to_thread(self._is_in, files, persona_id, version, job_id):
                self.store.versions.withdraw(persona_id, version, row.asked_at, WHY)
        withdrawn = []
        for persona_id, version, was_live in self.store.versions.withdrawn_at(row.asked_at):
            if self.around:
                await self.around.drop(persona_id, version)
            now = (self.store.versions.live(persona_id) or "") if was_live else None
            withdrawn.append(Withdrawn(persona_id=persona_id, version=version, now=now))
        dialogues = {one.persona_id: one for one in receipt.dialogues}
        dialogues |= {one.persona_id: one for one in await asyncio.to_thread(self._dialogues, files)}
        return receipt.model_copy(update={"withdrawn": tuple(withdrawn), "dialogues": tuple(dialogues.values())})

    def _is_in(self, files: HomeFiles, persona_id: str, version: str, job_id: str) -> bool:
        folders = (adapter_ref(self.home, persona_id, version).folder, self.home / "jobs" / job_id)
        return any(folder.exists() and files.holds(folder) for folder in folders)

    def _dialogues(self, files: HomeFiles) -> list[Withdrawn]:
        folders = sorted((self.home / "models" / "dialogue").glob("[!.]*"))
        return [Withdrawn(persona_id=folder.name, version="") for folder in folders if files.holds(folder)]

    async def _files(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        files = self._home_files(traces)
        withdrawn = [adapter_ref(self.home, one.persona_id, one.version).folder for one in receipt.withdrawn]
        given = [self.home / path for path in traces.lore]
        given += [file for path in traces.lore for file in (self.home / EARLIER / path).glob("*")]
        done: FilesDone = await asyncio.to_thread(
            files.forget, withdrawn, given, made_only=receipt.scope == "trainings"
        )
        if self.around:
            await self.around.files_changed([*done.deleted, *done.cut, *done.lost])
        return receipt.model_copy(
            update={
                "deleted": (*receipt.deleted, *done.deleted),
                "cut": tuple(dict.fromkeys([*receipt.cut, *done.cut])),
                "lost": (*receipt.lost, *done.lost),
            }
        )

    async def _compact(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        """What was deleted is not to be found in the database's file either, nor is whom this was about."""
        self.store.compact()
        return receipt

    async def _follow(self, row: Forgetting, receipt: Receipt, traces: Traces) -> Receipt:
        assert self.around is not None  # `run` sees to it
        return await self.around.follow(receipt)

    def _home_files(self, traces: Traces) -> HomeFiles:
        busy = self.around.busy if self.around else ()
        return HomeFiles(self.home, Finder(traces), self.people(traces), busy)


def receipt_of(forgetting: Forgetting) -> Receipt:
    """What was done so far."""
    return Receipt.model_validate_json(forgetting.receipt)
