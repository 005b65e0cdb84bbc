"""Changes live versions, here alone: promotes, also automatically, rolls back, removes."""

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bot.guild_settings.definitions import IS_PROMOTION_AUTOMATIC
from bot.personas.base_model_compat import explain_unserved, require_servable
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.clock import BackgroundTask
from bot.platform.errors import RefusedError
from bot.platform.localisation import LocalisableText, gettext_lazy, gettext_noop
from bot.platform.messages import markdown_name
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.store import ALL_GUILDS, Promotion, Store, StoreError, TrainingJob
from bot.training.queue import JobQueue
from bot.versions.installation import VersionInstaller
from bot.versions.member_feedback import summarise_votes, vote_objections
from personas.engine import Engine
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import DialogueAdapter, read_score_card
from personas.home.gguf_cache import delete_gguf_adapters
from personas.home.prompt_version import has_learned_short_card
from personas.schemas.chat import CardChoice, Persona

log = logging.getLogger(__name__)
PROMOTE_VERDICT = "promote"
HOLD_VERDICT = "hold"
REJECT_VERDICT = "reject"
CARD_TEXTS: dict[CardChoice, str] = {
    "full": gettext_noop("had {version} of {persona} speak with its full card"),
    "short": gettext_noop("had {version} of {persona} speak with its short card"),
}
VersionListener = Callable[[int, str], object]
"""Called with the guild and the persona whose live version changed."""


ObjectionSource = Literal["gate", "hold", "members"]
"""`hold`: the gate leaves the version to a moderator, and a criterion of safety fails."""


@dataclass(frozen=True)
class PromotionObjections:
    """Objections to a version: whose they are, and the reasons."""

    version: str
    source: ObjectionSource
    reasons: tuple[str, ...]

    @property
    def title(self) -> str:
        """Say who objects."""
        if self.source == "gate":
            return gettext_lazy("The gate rejects {version}", version=self.version)
        if self.source == "hold":
            return gettext_lazy("The gate holds {version}", version=self.version)
        return gettext_lazy("Members speak against {version}", version=self.version)


class PromotionObjectedError(RequestError):
    """The gate or members object to a version; promoting it takes an explicit second request."""

    def __init__(self, objections: PromotionObjections) -> None:
        reasons = " ".join(objections.reasons)
        super().__init__(
            f"{objections.title}: {reasons}",
            "Read the reasons, and send `anyway` to promote it all the same.",
        )
        self.objections = objections


@dataclass(frozen=True)
class PromotionResult:
    """`is_new` is False for a version that was live already. `dialogue` is the name of the dialogue
    adapter that the version is a copy of, None for all others.
    """

    version: str
    is_new: bool
    dialogue: str | None


@dataclass(frozen=True)
class RollbackResult:
    """The stored change, and the version that answers from the next reply on (None: the base
    model).

    `notes` say why the live version does not answer; none where it does.
    """

    change: Promotion
    speaking: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LiveVersions:
    """Changes the live versions of all personas: in one guild, or, by the operator, in all without
    one of their own. Commands, buttons, pages and the API call it.

    A guild may use the versions of its own and the operator's jobs, and those that were live for
    all guilds. `notify` is called after each change, once per guild concerned.
    """

    store: Store
    engine: Engine
    personas: PersonaRegistry
    served_versions: ServedVersions
    notify: VersionListener = lambda guild_id, persona_id: None
    record_change: ChangeRecord = no_record

    def require_servable(self, persona_id: str, version: str, guild_id: int) -> None:
        """Raise `RequestError` for a version that is withdrawn, not installed, or made for another
        base model.

        Also for one that the guild may not use; the operator (0) may use all.
        """
        require_servable(
            self.store,
            self.served_versions.incompatible,
            persona_id=persona_id,
            version=version,
            guild_id=guild_id or None,
        )

    async def load(self, persona_id: str, version: str, guild_id: int) -> None:
        """Load a version, so that a damaged one never goes live. Raises `RequestError` and
        `AdapterError`.
        """
        self.require_servable(persona_id, version, guild_id)
        await self.engine.load(self.served_versions.adapter(persona_id, version))

    async def install_dialogue(
        self, persona_id: str, adapter: DialogueAdapter, origin: RequestOrigin
    ) -> str:
        """Install a dialogue adapter as a version of a persona, unless it is one already; returns
        the version.

        Raises `RequestError` for one made for another base model, and `AdapterError` for a damaged
        one.
        """
        if model := self.served_versions.incompatible.model_of_dialogue(adapter):
            why, advice = explain_unserved(adapter.id, model)
            raise RequestError(why, advice)
        installer = VersionInstaller(self.served_versions.home, self.store)
        return await installer.install_dialogue(origin, persona_id, adapter)

    def record_import(self, job: TrainingJob) -> None:
        """Tell that an adapter from outside is a version of a persona now: `job` stands for it."""
        what = gettext_noop("imported {version} of {persona}")
        self._record(job.guild_id, job.requested_by, job.persona or "", what, version=job.version)

    # ------------------------------------------------------------------------------------ promotion

    async def promote(
        self,
        persona_id: str,
        version: str,
        origin: RequestOrigin,
        *,
        anyway: bool = False,
    ) -> PromotionResult:
        """Make a version live in the origin's guild after loading it; the operator promotes for all
        guilds without a live version of their own.

        Raises `PromotionObjectedError` unless `anyway`, `RequestError` for a version that cannot be
        served or that the guild may not use, and `AdapterError` for a damaged one.
        """
        self.require_servable(persona_id, version, origin.guild_id)
        if not anyway:
            objections = await self.objections(persona_id, version, origin.guild_id)
            if objections:
                raise PromotionObjectedError(objections)
        # Before the row is written, so that a damaged version never goes live.
        await self.load(persona_id, version, origin.guild_id)
        promotion = self.store.versions.promote(
            persona_id, version, by=origin.user_id, at=time.time(), guild_id=origin.guild_id
        )
        if promotion:
            self._notify_all(origin.guild_id, persona_id)
            what = gettext_noop("made {version} of {persona} live")
            self._record(origin.guild_id, origin.user_id, persona_id, what, version=version)
        dialogue = self.served_versions.dialogue_of(
            self.served_versions.adapter(persona_id, version)
        )
        return PromotionResult(version, is_new=promotion is not None, dialogue=dialogue)

    async def decide(self, job: TrainingJob) -> TrainingJob | None:
        """Decide whether a finished job's version is promoted automatically, and store the decision
        with the promotion.

        A version that cannot be loaded is left to a moderator. None when it was decided before.
        Raises `StoreError`.
        """
        if job.persona is None or not self._is_automatic(job, job.persona):
            return self.store.jobs.decide(job.job_id, "manual")
        try:
            await self.load(job.persona, job.version, job.guild_id)
        except UnderstudyError as error:
            log.warning(
                "%s of %s was not promoted automatically: %s", job.version, job.persona, error
            )
            return self.store.jobs.decide(job.job_id, "manual")
        with self.store.atomic():  # a crash stores both or neither
            promoted = self.store.versions.promote(
                job.persona,
                job.version,
                by=OPERATOR_ORIGIN.user_id,
                at=time.time(),
                guild_id=job.guild_id,
                kind="automatic promotion",
            )
            decided = self.store.jobs.decide(job.job_id, "promoted" if promoted else "manual")
        if promoted:
            self._notify_all(job.guild_id, job.persona)
            what = gettext_noop("made {version} of {persona} live")
            self._record(job.guild_id, None, job.persona, what, version=job.version)
        return decided

    def roll_back(self, persona: Persona, origin: RequestOrigin) -> RollbackResult:
        """Make the previous version live again in the origin's guild, or (the operator's) in all.

        Raises `RequestError` when there is none.
        """
        guild_id = origin.guild_id
        try:
            change = self.store.versions.rollback(
                persona.id, by=origin.user_id, at=time.time(), guild_id=guild_id
            )
        except RequestError as error:
            raise self._no_earlier_version(persona, guild_id) from error
        self._notify_all(guild_id, persona.id)
        live = self.store.versions.live(persona.id, guild_id)
        unserved = self.served_versions.reason_unserved(persona.id, live)
        what = gettext_noop("rolled {persona} back to {version}")
        if unserved:
            what = gettext_noop(
                "rolled {persona} back to {version}, instead of which the base model answers"
            )
        version = live or gettext_lazy("the base model")
        self._record(guild_id, origin.user_id, persona.id, what, version=version)
        speaking = self.served_versions.speaking(persona.id, guild_id)
        return RollbackResult(change, speaking, notes=(unserved,) if unserved else ())

    def _no_earlier_version(self, persona: Persona, guild_id: int) -> RequestError:
        message = gettext_lazy(
            "{persona} has no earlier version to roll back to.", persona=markdown_name(persona)
        )
        live = self.store.versions.live(persona.id, guild_id)
        if guild_id and live:
            message = gettext_lazy(
                "{version} of {persona} was made live for all servers: only the operator can roll "
                "it back.",
                version=live,
                persona=markdown_name(persona),
            )
        advice = gettext_lazy("Train a version first.")
        if self.store.versions.installed(persona.id, guild_id or None):
            advice = gettext_lazy("Make one live with `/finetune promote`.")
        return RequestError(message, advice)

    def choose_card(self, persona_id: str, version: str, card: CardChoice) -> bool:
        """Choose the card of a version's prompts for the operator, from the next reply on. Returns
        False when it has that one already.

        Raises `RequestError` for a version that was not trained under the short card.
        """
        versions = self.store.versions
        versions.require_installed(persona_id, version)
        adapter = self.served_versions.adapter(persona_id, version)
        if card == "short" and not has_learned_short_card(adapter):
            raise RequestError(
                gettext_lazy(
                    "{version} of {persona_id} was not trained under the short card: its "
                    "character is in the full one.",
                    version=version,
                    persona_id=persona_id,
                ),
                gettext_lazy("Train a version with short_card_share above 0."),
            )
        if not versions.set_card(persona_id, version, card):
            return False
        guilds = [
            guild for guild, live in versions.live_by_guild(persona_id).items() if live == version
        ]
        if versions.live(persona_id, ALL_GUILDS) == version:
            guilds.append(ALL_GUILDS)
        for guild_id in guilds:
            self.notify(guild_id, persona_id)  # its prompts begin with other tokens
        told = [ALL_GUILDS] if ALL_GUILDS in guilds else guilds
        for guild_id in told:
            by = OPERATOR_ORIGIN.user_id
            self._record(guild_id, by, persona_id, CARD_TEXTS[card], version=version)
        return True

    # -------------------------------------------------------------------------------------- removal

    def require_removable(self, job: TrainingJob) -> None:
        """Raise `RefusedError` if the version of a job is deleted already, live anywhere, or
        trained further.
        """
        persona_id = job.name
        version = job.version
        if self.store.versions.is_withdrawn(persona_id, version):
            raise RefusedError(
                gettext_lazy(
                    "{version} of {persona_id} is deleted already.",
                    version=version,
                    persona_id=persona_id,
                )
            )
        open_jobs = self.store.jobs.in_state("queued") + self.store.jobs.in_state("running")
        for other in open_jobs:
            if other.name == persona_id and other.request.start_from == version:
                advice = gettext_lazy(
                    "Wait for the end of the job `{job}`, or cancel it with `/finetune cancel`.",
                    job=other.job_id,
                )
                raise RefusedError(
                    gettext_lazy(
                        "{version} of {persona_id} is being trained further.",
                        version=version,
                        persona_id=persona_id,
                    ),
                    advice,
                )
        if self.personas.find_owner(persona_id) is None:
            return  # the persona was removed, so none of its versions answers anywhere
        if version in self.store.versions.live_anywhere(persona_id):
            advice = gettext_lazy(
                "Promote another version with `/finetune promote`, or roll it back with `/finetune "
                "rollback`."
            )
            raise RefusedError(
                gettext_lazy(
                    "{version} of {persona_id} is live.", version=version, persona_id=persona_id
                ),
                advice,
            )

    async def remove(self, job: TrainingJob, by: int = OPERATOR_ORIGIN.user_id) -> None:
        """Delete the version of a job for good, as this member decided. Raises `RefusedError` for one
        that is used or deleted already, and `StoreError`.
        """
        self.require_removable(job)
        adapter = self.served_versions.adapter(job.name, job.version)
        # A folder with such a name is deleted at the next start, if this process ends before that.
        removed = adapter.folder.with_name(f".{job.version}.{secrets.token_hex(4)}")
        # The row is written with the renaming, and rolled back where that fails: a version that can
        # be promoted has its files.
        with self.store.atomic():
            self.store.versions.withdraw(job.name, job.version, time.time(), "removed")
            with suppress(FileNotFoundError):
                adapter.folder.rename(removed)
        what = gettext_noop("deleted {version} of {persona}")
        self._record(job.guild_id, by, job.name, what, version=job.version)
        await self.engine.drop(adapter)
        # Also where another engine serves now than the one that wrote them.
        await asyncio.to_thread(delete_gguf_adapters, self.served_versions.home, adapter.name)
        await asyncio.to_thread(shutil.rmtree, removed, ignore_errors=True)

    # ----------------------------------------------------------------------------------- objections

    async def objections(
        self, persona_id: str, version: str, guild_id: int
    ) -> PromotionObjections | None:
        """Objections of the gate and the guild's members (all members, for the operator); None for
        the live version. The gate objects to what it rejects, and to what it holds where a criterion
        of safety fails.
        """
        if self.store.versions.live(persona_id, guild_id) == version:
            return None
        members = self._member_objections(persona_id, version, guild_id)
        for installed in self.store.versions.installed(persona_id):
            card = installed.scorecard
            if installed.version != version:
                continue
            if card.verdict == REJECT_VERDICT:
                return PromotionObjections(version, "gate", (*members, *card.reasons))
            if card.verdict == HOLD_VERDICT:
                folder = self.served_versions.adapter(persona_id, version).folder
                if failures := await asyncio.to_thread(_read_safety_failures, folder):
                    return PromotionObjections(version, "hold", (*members, *failures))
        if members:
            return PromotionObjections(version, "members", members)
        return None

    def _member_objections(self, persona_id: str, version: str, guild_id: int) -> tuple[str, ...]:
        feedback = summarise_votes(
            self.store, persona_id, version=version, now=time.time(), guild_id=guild_id or None
        )
        return vote_objections(feedback)

    def _is_automatic(self, job: TrainingJob, persona_id: str) -> bool:
        """Report whether the job's guild promotes automatically, the gate would promote, no member
        objects, and nobody chose a version before its score card was whole.
        """
        result = job.result
        if result is None or result.imported or result.scorecard.verdict != PROMOTE_VERDICT:
            return False
        if not IS_PROMOTION_AUTOMATIC.held(self.store, job.guild_id):
            return False
        if result.scorecard.first_verdict and self._was_chosen_since(job, persona_id):
            return False
        return not self._member_objections(persona_id, job.version, job.guild_id)

    def _was_chosen_since(self, job: TrainingJob, persona_id: str) -> bool:
        """Report whether the live version was changed since the job ended, in its guild or for all."""
        assert job.finished_at is not None
        changes = self.store.versions.history(persona_id)
        return any(
            change.at >= job.finished_at and change.guild_id in (job.guild_id, ALL_GUILDS)
            for change in changes
        )

    def _record(
        self, guild_id: int, by: int | None, persona_id: str, what: str, **values: object
    ) -> None:
        """Record a change; `what` has gaps for the persona's name and the values. One for all
        guilds that concerns the persona of one guild is told there alone.
        """
        owner = self.personas.find_owner(persona_id)
        name = markdown_name(owner[1]) if owner else persona_id
        if owner and not guild_id:
            guild_id = owner[0]
        values["persona"] = f"**{name}**"
        self.record_change(guild_id, by, LocalisableText(what, values=values))

    def _notify_all(self, guild_id: int, persona_id: str) -> None:
        """Notify the guild; for a change by the operator, every guild that trained a version of the
        persona, too.
        """
        concerned = {guild_id}
        if guild_id == OPERATOR_ORIGIN.guild_id:
            for installed in self.store.versions.installed(persona_id):
                if job := self.store.jobs.get(installed.job_id):
                    concerned.add(job.guild_id)
        for concerned_id in concerned:
            self.notify(concerned_id, persona_id)


def _read_safety_failures(folder: Path) -> tuple[str, ...]:
    """Read why an adapter may hurt people, as its score card says; none without a readable card."""
    card = read_score_card(folder)
    return card.verdict.safety_failures if card and card.verdict else ()


class AutomaticPromotion:
    """Decides on every finished job once, also after a crash: stores the decision, and publishes
    the job with it.
    """

    def __init__(self, store: Store, versions: LiveVersions, jobs: JobQueue) -> None:
        self._store = store
        self._versions = versions
        self._jobs = jobs
        self._wake = asyncio.Event()
        self.worker = BackgroundTask("automatic promotion", self._decide_all, self._wake.wait)

    def start(self) -> None:
        """Work off the undecided jobs, and those that finish from now on."""
        self._jobs.subscribe(self._on_change)
        self.worker.start()

    async def stop(self) -> None:
        """Stop working; undecided jobs stay stored as such."""
        if self.worker.is_running:
            self._jobs.unsubscribe(self._on_change)
            await self.worker.stop()

    def _on_change(self, job: TrainingJob) -> None:
        if job.state == "done" and job.decision is None:
            self._wake.set()

    async def _decide_all(self) -> None:
        self._wake.clear()
        for job in self._store.jobs.undecided():
            if decided := await self._decide(job):
                self._jobs.publish(decided)

    async def _decide(self, job: TrainingJob) -> TrainingJob | None:
        try:
            return await self._versions.decide(job)
        except StoreError:
            raise
        except Exception:
            # One job must not hold up the others. A moderator can still promote its version.
            log.exception("the automatic promotion of %s %s failed", job.name, job.version)
            return self._store.jobs.decide(job.job_id, "manual")
