"""Erasure of one person: ordered, repeatable steps whose progress is stored."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bot.personas.guild_lore import LORE_PART
from bot.personas.revisions import REVISIONS_FOLDER
from bot.privacy import consent_files
from bot.privacy.alias_search import AliasSearch
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_receipt import (
    ERASURE_STEPS,
    ErasureReceipt,
    ErasureScope,
    WithdrawnVersion,
    receipt_of,
)
from bot.privacy.home_files import HomeFiles, delete_path
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from bot.privacy.job_names import job_name_replacements
from bot.store import CARD_CONTRIBUTION, ErasureRequest, Store
from bot.training.training_plan import PREVIEWS_FOLDER
from personas.home.adapters import DialogueAdapter, adapter_ref, find_dialogue_adapters
from personas.home.data_subjects import mark_erasure
from personas.home.external_files import find_exports_containing
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.trash import find_parts

WITHDRAWAL_REASON = "withdrawn"
log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class ErasureRunner:
    """Erases people from one home, in the thread that opened the store.

    Without `hooks` the bot does not run, and the last step waits until it does. `personas` are the
    names of personas, which belong to no member. `forget_in_sandbox` erases the member from the
    sandbox.
    """

    home: Path
    store: Store
    consents: ConsentMirror
    now: Callable[[], float]
    hooks: BotHooks | None = None
    personas: frozenset[str] = frozenset()
    forget_in_sandbox: Callable[[PersonIdentifiers], None] | None = None

    def keyed(self, identifier: str) -> str:
        """Return the key of an id, or of `name:` and a name, in lists of this home. Raises
        `KeyFileError`.
        """
        return keyed_person(HomeKey.of(self.home).people(), identifier)

    def people(self, traces: PersonIdentifiers) -> set[str]:
        """Return all keys under which a person can be listed."""
        names = [f"name:{name.casefold()}" for name in traces.names]
        return {self.keyed(identifier) for identifier in [*traces.ids, *names]}

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
        stored = self.store.erasure
        all_names = {*names, *stored.names(user_id)}
        traces = PersonIdentifiers(ids=(str(user_id),))
        traces = traces.with_names(sorted(all_names), self.barred_names(user_id, all_names))
        traces = traces.with_confirmed_names(sure_names)
        traces = traces.with_texts(stored.texts(user_id))
        return replace(
            self.with_parts(traces, user_id),
            answers=tuple(map(str, stored.answers(user_id))),
            jobs=job_name_replacements(stored.job_names(user_id), self.keyed),
            lore=self._given_lore(user_id, until),
        )

    def _given_lore(self, user_id: int, until: float) -> tuple[str, ...]:
        """Return the lore files that a member gave, by path from the home."""
        paths = []
        for gift in self.store.people.contributions_of(user_id):
            if gift.what != CARD_CONTRIBUTION and gift.at <= until:
                paths.append(f"lore/{gift.guild_id}/{gift.persona_id}/{gift.what}")
        return tuple(paths)

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
        identifier = traces.ids[0] if traces.ids else f"name:{traces.names[0].casefold()}"
        person = self.keyed(identifier)
        now = self.now()
        if until is None:
            until = now
            # Rows from when the clock was ahead would stay otherwise.
            self.store.erasure.date_back(now, now)
        receipt = ErasureReceipt(scope=scope, until=until, last_event=last_event)
        return self.store.erasure_requests.begin(
            person,
            now,
            step=ERASURE_STEPS[scope][0],
            traces=traces.as_json(),
            receipt=receipt.model_dump_json(),
        )

    def barred_names(self, user_id: int, names: Iterable[str]) -> set[str]:
        """Return those of a member's names that personas or other members have, too."""
        others = {name.casefold() for name in self.store.erasure.names_of_others(user_id)}
        return {name for name in names if name.casefold() in others} | self.personas

    def with_parts(self, traces: PersonIdentifiers, user_id: int) -> PersonIdentifiers:
        """Add the parts of names that are no words of other members' names."""
        words = set(self.personas)
        for name in self.store.erasure.names_of_others(user_id):
            words.update(name.split())
        return traces.with_parts(words)

    async def run(self, erasure_request: ErasureRequest) -> ErasureReceipt:
        """Run all remaining steps, or all but the last where the bot does not run. Raises
        `UnderstudyError`.
        """
        row = erasure_request
        while row.step and (self.hooks or row.step != "follow"):
            row = await Erasure(self, row).run_step()
        return receipt_of(row)

    async def finish(self) -> None:
        """Run the remaining steps of all requests."""
        for row in self.store.erasure_requests.unfinished():
            receipt = receipt_of(row)
            if row.step != "follow":
                receipt = receipt.model_copy(update={"resumed": True})
            resumed = self.store.erasure_requests.advance(
                row.seq, row.step, receipt.model_dump_json()
            )
            await self.run(resumed)


class Erasure:
    """One request that is carried out: the person's identifiers, and the receipt so far."""

    def __init__(self, runner: ErasureRunner, row: ErasureRequest) -> None:
        self._runner = runner
        self._home = runner.home
        self._store = runner.store
        self._hooks = runner.hooks
        self._row = row
        self._receipt = receipt_of(row)
        self._traces = PersonIdentifiers.of_json(row.traces)

    async def run_step(self) -> ErasureRequest:
        """Run the next step and store that it is done. A step that was interrupted is repeated."""
        steps = (*ERASURE_STEPS[self._receipt.scope], "")
        following = steps[steps.index(self._row.step) + 1]
        log.info("erasing a member: %s", self._row.step)
        # Runs and builds that begin now would copy files that still name the person.
        if steps.index(self._row.step) < steps.index("erase"):
            await asyncio.to_thread(mark_erasure, self._home, running=True)
        await self._carry_out()
        if following == "erase":  # the files have been searched
            await asyncio.to_thread(mark_erasure, self._home, running=False)
        return self._store.erasure_requests.advance(
            self._row.seq, following, self._receipt.model_dump_json(), self._traces.as_json()
        )

    async def _carry_out(self) -> None:
        match self._row.step:
            case "gather":
                await self._gather()
            case "bury":
                people = self._runner.people(self._traces)
                consent_files.record_tombstones(
                    self._home, self._store, people, self._receipt.until
                )
            case "jobs":
                await self._restart_jobs()
            case "store":
                await self._erase_rows()
            case "adapters":
                await self._withdraw_adapters()
            case "files" | "made":
                await self._erase_files()
            case "erase":
                self._traces = PersonIdentifiers()
            case "compact":  # removes deleted data from the WAL
                self._store.truncate_wal()
            case "follow":
                assert self._hooks is not None  # `ErasureRunner.run` ensures it
                self._receipt = await self._hooks.follow(self._receipt)

    def _note(self, **fields: object) -> None:
        self._receipt = self._receipt.model_copy(update=fields)

    def _home_files(self) -> HomeFiles:
        busy = self._hooks.busy if self._hooks else ()
        matcher = IdentifierMatcher(self._traces)
        return HomeFiles(self._home, matcher, self._runner.people(self._traces), busy)

    async def _gather(self) -> None:
        """Find further names of the person in files, and the exports that contain them."""
        await asyncio.to_thread(delete_path, self._home / PREVIEWS_FOLDER)
        files = self._home_files()
        for id in self._traces.ids:
            aliases = AliasSearch(id)
            await asyncio.to_thread(aliases.search, files.primary_files())
            barred = self._runner.barred_names(int(id), aliases.names)
            traces = self._traces.with_names(sorted(aliases.names), barred)
            traces = traces.with_texts(sorted(aliases.texts))
            self._traces = self._runner.with_parts(traces, int(id))
        people = self._runner.people(self._traces)
        self._note(exports=tuple(find_exports_containing(self._home, people)))

    async def _restart_jobs(self) -> None:
        """Restart unfinished jobs whose folder contains the person, once their data can no longer
        be used.
        """
        files = self._home_files()
        job_ids = []
        for job in [*self._store.jobs.in_state("running"), *self._store.jobs.in_state("queued")]:
            folder = self._home / "jobs" / job.job_id
            if folder.exists() and await asyncio.to_thread(files.contains_person, folder):
                job_ids.append(job.job_id)
        if self._hooks:
            await self._hooks.interrupt_jobs(job_ids)
        self._note(set_aside=tuple(sorted({*self._receipt.set_aside, *job_ids})))

    async def _erase_rows(self) -> None:
        matcher = IdentifierMatcher(self._traces)
        for id in self._traces.ids:
            for counts in self._store.erasure.erase_in_steps(
                int(id), self._receipt.until, matcher.redacted
            ):
                self._receipt = self._receipt.also(counts)
                await asyncio.sleep(0)
        self._runner.consents.mirror()
        await asyncio.to_thread(matcher.jobs.rename_files, self._home)
        if self._hooks:
            await self._hooks.replies_ended()
        if self._runner.forget_in_sandbox:
            self._runner.forget_in_sandbox(self._traces)

    async def _withdraw_adapters(self) -> None:
        """Withdraw the versions trained on the person: the version before becomes live, or the base
        model.
        """
        files = self._home_files()
        versions = self._store.versions
        asked_at = self._row.asked_at
        for persona_id, version, job_id in versions.all_installed():
            adapter = adapter_ref(self._home, persona_id, version).folder
            folders = [adapter, self._home / "jobs" / job_id]
            if await asyncio.to_thread(_contain_person, files, folders):
                versions.withdraw(persona_id, version, asked_at, WITHDRAWAL_REASON)
        withdrawn = []
        for persona_id, version in versions.withdrawn_at(asked_at):
            if self._hooks:
                await self._hooks.unload_version(persona_id, version)
            was_live = versions.live_until_withdrawn(persona_id, version)
            now = None
            if was_live:
                now = versions.live(persona_id, was_live[0]) or ""
            withdrawn.append(WithdrawnVersion(persona_id=persona_id, version=version, now=now))
        dialogues = {dialogue.persona_id: dialogue for dialogue in self._receipt.dialogues}
        for dialogue in await asyncio.to_thread(_find_dialogues, self._home, files):
            if self._hooks:
                await self._hooks.unload_version(dialogue.id, dialogue.version)
            dialogues[dialogue.name] = WithdrawnVersion(persona_id=dialogue.name, version="")
        self._note(withdrawn=tuple(withdrawn), dialogues=tuple(dialogues.values()))

    async def _erase_files(self) -> None:
        receipt = self._receipt
        withdrawn = []
        for version in receipt.withdrawn:
            adapter = adapter_ref(self._home, version.persona_id, version.version)
            withdrawn.append(adapter.folder)
        contributed = lore_files(self._home, self._traces.lore)
        exported = self._exports_inside()
        result = await asyncio.to_thread(
            self._home_files().erase,
            withdrawn,
            contributed,
            exported.values(),
            derived_only=receipt.scope == "trainings",
        )
        if self._hooks:
            await self._hooks.files_changed([*result.deleted, *result.cut, *result.lost])
        self._note(
            deleted=(*receipt.deleted, *result.deleted),
            cut=tuple(dict.fromkeys([*receipt.cut, *result.cut])),
            lost=(*receipt.lost, *result.lost),
            exports=tuple(export for export in receipt.exports if export.path not in exported),
        )

    def _exports_inside(self) -> dict[str, Path]:
        """Return the exports with the person that are in the home, by their path in the receipt; a
        new backup takes the place of one there.
        """
        home = self._home.absolute()
        paths = {}
        for export in self._receipt.exports:
            path = Path(export.path)
            if export.what != "backup" and path.is_relative_to(home) and path.exists():
                paths[export.path] = self._home / path.relative_to(home)
        return paths


def lore_files(home: Path, paths: Iterable[str]) -> list[Path]:
    """List lore files, given by path from the home, their earlier revisions, and those in the
    trash.
    """
    files = []
    for path in paths:
        files.append(home / path)
        files += (home / REVISIONS_FOLDER / path).glob("*")
        _, guild, persona_id, file = Path(path).parts
        files += find_parts(home, int(guild), persona_id, f"{LORE_PART}/{file}")
    return files


def _contain_person(files: HomeFiles, folders: Iterable[Path]) -> bool:
    return any(folder.exists() and files.contains_person(folder) for folder in folders)


def _find_dialogues(home: Path, files: HomeFiles) -> list[DialogueAdapter]:
    """Find the dialogue adapters trained on the person; a run from the command line is searched
    whole.
    """
    dialogues = []
    for adapter in find_dialogue_adapters(home).values():
        folder = adapter.folder
        if folder.is_relative_to(home / "runs"):
            folder = folder.parent
        if files.contains_person(folder):
            dialogues.append(adapter)
    return dialogues


def redact_people_being_erased(store: Store, text: str) -> str:
    """Redact people who are being erased in a new text: its prompt may have had their messages."""
    for row in store.erasure_requests.unfinished():
        if receipt_of(row).scope == "everything":
            text = IdentifierMatcher(PersonIdentifiers.of_json(row.traces)).redacted(text)
    return text
