"""Changes live versions, here alone: promotes, also automatically, rolls back, starts and ends
rollouts, removes.
"""

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bot.chat.request import ChatRequestBuilder
from bot.personas.base_model_compat import explain_unserved, require_servable
from bot.personas.card_import import RequestOrigin, install_dialogue_adapter
from bot.platform.clock import BackgroundTask
from bot.platform.errors import RefusedError
from bot.store import NewRollout, Promotion, Rollout, Store, StoreError, TrainingJob
from bot.training.queue import JobQueue
from bot.versions.member_feedback import summarise_votes, vote_objections
from personas.engine import Engine
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import DialogueAdapter
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
OPERATOR_USER_ID = 0
"""`promoted_by` of a change from the dashboard or over the API, and of an automatic promotion."""
PROMOTE_VERDICT = "promote"
REJECT_VERDICT = "reject"
VersionListener = Callable[[int, str], object]
"""Called with the guild and the persona whose live version changed."""


@dataclass(frozen=True)
class PromotionObjections:
    """Objections to a version: by whom, such as "The gate rejects", and the reasons."""

    who: str
    reasons: tuple[str, ...]


class PromotionObjectedError(RequestError):
    """The gate or members object to a version; promoting it takes an explicit second request."""

    def __init__(self, version: str, objections: PromotionObjections) -> None:
        reasons = " ".join(objections.reasons)
        super().__init__(
            f"{objections.who} {version}: {reasons}",
            "Read the reasons, and send `anyway` to promote it all the same.",
        )
        self.objections = objections


@dataclass(frozen=True)
class LiveVersions:
    """Changes the live versions of all personas: in one guild, or, by the operator, in all without
    one of their own.

    A guild may use the versions of its own and the operator's jobs, and those that were live for
    all guilds. `notify` is called after each change, once per guild concerned.
    """

    store: Store
    engine: Engine
    builder: ChatRequestBuilder
    notify: VersionListener = lambda guild_id, persona_id: None

    def require_servable(self, persona_id: str, version: str, guild_id: int) -> None:
        """Raise `RequestError` for a version that is withdrawn, not installed, or made for another
        base model.

        Also for one that the guild may not use; the operator (0) may use all.
        """
        require_servable(
            self.store, self.builder.incompatible_versions, persona_id, version, guild_id or None
        )

    async def load(self, persona_id: str, version: str, guild_id: int) -> None:
        """Load a version, so that a damaged one never goes live. Raises `RequestError` and
        `AdapterError`.
        """
        self.require_servable(persona_id, version, guild_id)
        await self.engine.load(self.builder.adapter(persona_id, version))

    async def install_dialogue(
        self, persona_id: str, adapter: DialogueAdapter, origin: RequestOrigin
    ) -> str:
        """Install a dialogue adapter as a version of a persona, unless it is one already; returns
        the version.

        Raises `RequestError` for one made for another base model, and `AdapterError` for a damaged
        one.
        """
        if model := self.builder.incompatible_versions.model_of_dialogue(adapter):
            raise RequestError(*explain_unserved(adapter.id, model))
        return await install_dialogue_adapter(
            self.builder.home, self.store, origin, persona_id, adapter
        )

    # ------------------------------------------------------------------------------------------
    # promotion

    async def promote(
        self,
        persona_id: str,
        version: str,
        guild_id: int,
        channel_id: int,
        by: int,
        *,
        anyway: bool = False,
    ) -> bool:
        """Make a version live in a guild after loading it. False when it is live there already.

        `guild_id` and `channel_id` are where that was requested; 0 is the operator, who promotes
        for all guilds without a live version of their own. Raises `PromotionObjectedError` unless
        `anyway`, `RequestError` for a version that cannot be served or that the guild may not use,
        and `AdapterError` for a damaged one.
        """
        self.require_servable(persona_id, version, guild_id)
        if not anyway and (objections := await self.objections(persona_id, version, guild_id)):
            raise PromotionObjectedError(version, objections)
        await self.load(persona_id, version, guild_id)
        new = NewRollout(persona_id, version, guild_id, channel_id, by, share=100)
        if self.store.rollouts.promote(new, time.time()) is None:
            return False
        self._notify_all(guild_id, persona_id)
        return True

    async def decide(self, job: TrainingJob) -> TrainingJob | None:
        """Decide whether a finished job's version is promoted automatically, and store the decision
        with the promotion.

        A version that cannot be loaded is left to a moderator. None when it was decided before.
        Raises `StoreError`.
        """
        if job.persona is None or not await self._is_automatic(job, job.persona):
            return self.store.jobs.decide(job.job_id, "manual")
        try:
            await self.load(job.persona, job.version, job.guild_id)
        except UnderstudyError as error:
            log.warning(
                "%s of %s was not promoted automatically: %s", job.version, job.persona, error
            )
            return self.store.jobs.decide(job.job_id, "manual")
        new = NewRollout(
            job.persona, job.version, job.guild_id, job.channel_id, OPERATOR_USER_ID, share=100
        )
        with self.store.atomic(shared=True):
            promoted = self.store.rollouts.promote(new, time.time(), kind="automatic promotion")
            decided = self.store.jobs.decide(job.job_id, "promoted" if promoted else "manual")
        if promoted:
            self._notify_all(job.guild_id, job.persona)
        return decided

    def roll_back(self, persona: Persona, guild_id: int, by: int) -> Promotion:
        """Make the previous version of a guild live again, or (0) of all. Raises `RequestError`
        when there is none.
        """
        try:
            row = self.store.rollouts.roll_back(persona.id, by, time.time(), guild_id)
        except RequestError as error:
            installed = self.store.versions.installed(persona.id, guild_id or None)
            advice = (
                "Make one live with `/finetune promote`." if installed else "Train a version first."
            )
            message = f"{persona.name} has no earlier version to roll back to."
            if guild_id and (live := self.store.versions.live(persona.id, guild_id)):
                message = (
                    f"{live} of {persona.name} was made live for all servers: only the operator "
                    "can roll it back."
                )
            raise RequestError(message, advice) from error
        self._notify_all(guild_id, persona.id)
        return row

    # ------------------------------------------------------------------------------------------
    # rollouts

    async def start_rollout(self, new: NewRollout) -> Rollout:
        """Load a version, and let it answer a part of a guild's replies. Raises `RequestError` and
        `AdapterError`.
        """
        await self.load(new.persona_id, new.version, new.guild_id)
        return self.store.rollouts.start(new, time.time())

    def stop_rollout(self, rollout: Rollout, by: int) -> None:
        """Let the live version answer everything again. Raises `RefusedError` for a rollout that
        has ended.
        """
        if not self.store.rollouts.end(rollout.seq, "stopped", time.time(), by):
            raise RefusedError("This rollout has ended already.", "`/finetune history` shows how.")

    def revert_rollout(self, rollout: Rollout, why: str) -> bool:
        """End a rollout that turned out worse; a promoted version is rolled back. False when it had
        ended.
        """
        if not self.store.rollouts.revert(rollout, time.time(), why):
            return False
        log.warning("%s %s was rolled back automatically", rollout.persona_id, rollout.version)
        if rollout.is_promoted:
            self._notify_all(rollout.guild_id, rollout.persona_id)
        return True

    # ------------------------------------------------------------------------------------------
    # removal

    def require_unused(self, job: TrainingJob) -> None:
        """Raise `RefusedError` if the version of a job is live anywhere, being compared, or trained
        further.
        """
        persona_id = job.name
        version = job.version
        for other in (*self.store.jobs.in_state("queued"), *self.store.jobs.in_state("running")):
            if other.name == persona_id and other.request.start_from == version:
                advice = (
                    f"Wait for the end of the job `{other.job_id}`, or cancel it with `/finetune "
                    "cancel`."
                )
                raise RefusedError(f"{version} of {persona_id} is being trained further.", advice)
        if self.builder.personas.get(persona_id, job.guild_id) is None:
            return  # a persona that was removed speaks nowhere
        if version in self.store.versions.live_anywhere(persona_id):
            advice = (
                "Promote another version with `/finetune promote`, or roll it back with `/finetune "
                "rollback`."
            )
            raise RefusedError(f"{version} of {persona_id} is live.", advice)
        for rollout in self.store.rollouts.running(persona_id, time.time()):
            if version in (rollout.version, rollout.before):
                advice = (
                    "`/finetune rollout stop` ends a rollout; a promoted version is observed for "
                    "three days."
                )
                raise RefusedError(
                    f"{version} of {persona_id} is being compared with another version.", advice
                )

    async def remove(self, job: TrainingJob) -> None:
        """Delete the version of a job for good. Raises `RefusedError` for one that is used, and
        `StoreError`.
        """
        self.require_unused(job)
        adapter = self.builder.adapter(job.name, job.version)
        removed = adapter.folder.with_name(
            f".{job.version}.{secrets.token_hex(4)}"
        )  # deleted also after a crash
        with self.store.atomic(shared=True):
            self.store.versions.withdraw(job.name, job.version, time.time(), "removed")
            with suppress(FileNotFoundError):
                adapter.folder.rename(removed)
        await self.engine.drop(adapter)
        await asyncio.to_thread(shutil.rmtree, removed, ignore_errors=True)

    # ------------------------------------------------------------------------------------------
    # objections

    async def objections(
        self, persona_id: str, version: str, guild_id: int
    ) -> PromotionObjections | None:
        """Objections of the gate and the guild's members (all members, for the operator); None for
        the live version.
        """
        if self.store.versions.live(persona_id, guild_id) == version:
            return None
        members = await self._member_objections(persona_id, version, guild_id)
        installed = self.store.versions.installed(persona_id)
        card = next((it.scorecard for it in installed if it.version == version), None)
        if card and card.verdict == REJECT_VERDICT:
            return PromotionObjections("The gate rejects", (*members, *card.reasons))
        return PromotionObjections("Members speak against", members) if members else None

    async def _member_objections(
        self, persona_id: str, version: str, guild_id: int
    ) -> tuple[str, ...]:
        return vote_objections(
            await summarise_votes(self.store, persona_id, version, time.time(), guild_id or None)
        )

    async def _is_automatic(self, job: TrainingJob, persona_id: str) -> bool:
        """Report whether the job's guild promotes automatically, the gate would promote, and no
        member objects.
        """
        result = job.result
        if result is None or result.imported or result.scorecard.verdict != PROMOTE_VERDICT:
            return False
        if not self.store.guilds.is_auto_promotion_enabled(job.guild_id):
            return False
        return not await self._member_objections(persona_id, job.version, job.guild_id)

    def _notify_all(self, guild_id: int, persona_id: str) -> None:
        """Notify the guild; for a change by the operator, every guild that trained a version of the
        persona, too.
        """
        trained_in: set[int] = set()
        if guild_id == OPERATOR_GUILD_ID:
            jobs = (
                self.store.jobs.get(one.job_id) for one in self.store.versions.installed(persona_id)
            )
            trained_in = {job.guild_id for job in jobs if job}
        for one in {guild_id} | trained_in:
            self.notify(one, persona_id)


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
        except (
            Exception
        ):  # one job must not hold up the others: a moderator can still promote its version
            log.exception("the automatic promotion of %s %s failed", job.name, job.version)
            return self._store.jobs.decide(job.job_id, "manual")
