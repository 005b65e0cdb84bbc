"""Starts, plans, cancels and resumes trainings, for commands, pages and the API alike."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.localisation import LocalisableText, gettext_lazy, gettext_noop, ngettext_lazy
from bot.store import Store, TrainingJob
from bot.training.guild_turns import QueueConflictError
from bot.training.queue import JobQueue
from bot.training.request_checks import RequestChecks, RequestJson, SentRequest
from bot.training.training_plan import TrainingPlan
from personas.errors import RequestError, TrainingError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import (
    CARD_RECIPE,
    DEFAULT_RECIPE,
    PREFERENCE_RECIPE,
    QUICK_RECIPE,
    TaskType,
    TrainingRequest,
)

MAX_WAITING_CHECKS = 8
NO_CHANNEL_ID = 0
NO_USER_ID = 0
log = logging.getLogger(__name__)


class UnknownJobError(RequestError):
    """There is no job with this id."""


class ReusedJobIdError(RequestError):
    """The id is that of a job with another request."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__(f"The job {job.job_id} has another request.", "Choose another id.")
        self.job = job


class TooManyChecksError(TrainingError):
    """Too many requests wait to be checked."""


@dataclass(frozen=True)
class StartedTraining:
    """A queued job, its plan if it was planned first, and warnings about it."""

    job: TrainingJob
    plan: TrainingPlan | None
    notes: list[str]


@dataclass(frozen=True)
class PlannedTraining:
    """A plan. `position` is the job's place in the queue if it were started now, 1 for the next;
    `conflict` is why it could not be.
    """

    request: TrainingRequest
    plan: TrainingPlan
    position: int
    is_another_running: bool
    conflict: QueueConflictError | None


class Trainings:
    """The trainings of this bot. All methods raise `UnderstudyError`s.

    Requests of servers name what the catalogue has and are queued at once: the trainer refuses a
    run that does not fit. Bodies of the operator may name paths and other base models. These are
    checked first, which takes a trainer process and seconds or more; the errors have a proposal
    that would run.
    """

    def __init__(
        self,
        store: Store,
        queue: JobQueue,
        checks: RequestChecks,
        notes: Callable[[TrainingRequest], list[str]],
        record: ChangeRecord = no_record,
    ) -> None:
        """`notes` lists warnings about a request, such as that its version cannot be served;
        `record` is called after a change.
        """
        self._store = store
        self._queue = queue
        self._checks = checks
        self._notes = notes
        self._record = record
        # Each check reads all of the material.
        self._checking = asyncio.Semaphore()
        self._waiting_checks = 0

    def with_defaults(self, body: RequestJson) -> RequestJson:
        """Return a body with the base model and the teacher that it leaves to the bot."""
        return self._checks.with_defaults(body)

    def repeated(self, request: TrainingRequest) -> TrainingRequest:
        """Return a request to be run again by itself, with the teacher of today's settings."""
        return self._checks.repeated(request)

    def parse(self, body: RequestJson) -> TrainingRequest:
        """Parse a body, `with_defaults`."""
        return self._checks.parse(body)

    def default_recipe(
        self,
        persona_id: str | None,
        task_type: TaskType = "persona",
        *,
        from_card: bool = False,
    ) -> str:
        """Return the recipe of a training whose recipe is left to the bot: the first one of a
        persona on a CPU is quick, and one from a card has its own.
        """
        if task_type == "preference":
            return PREFERENCE_RECIPE
        if from_card:
            return CARD_RECIPE
        is_slow = task_type == "persona" and self._queue.trains_on_cpu
        if is_slow and persona_id and not self._store.jobs.has_trained(persona_id):
            return QUICK_RECIPE
        return DEFAULT_RECIPE

    def start(
        self,
        request: TrainingRequest,
        *,
        guild_id: int,
        channel_id: int = NO_CHANNEL_ID,
        requested_by: int = NO_USER_ID,
        job_id: str = "",
        plan: TrainingPlan | None = None,
        is_scheduled: bool = False,
    ) -> StartedTraining:
        """Queue a request, under a new id unless one is given. The job is stored when this
        returns. `is_scheduled`: the bot starts it, by a schedule of `requested_by`.
        """
        job = self._queue.enqueue(
            request,
            guild_id=guild_id,
            channel_id=channel_id,
            requested_by=requested_by,
            job_id=job_id,
        )
        if is_scheduled:
            self._record_job(job, None, gettext_noop("started the scheduled training of {learner}"))
        else:
            self._record_job(job, requested_by, gettext_noop("started the training of {learner}"))
        notes = self._notes(request)
        for note in notes:
            log.warning("the job %s: %s", job.job_id, note)
        return StartedTraining(job, plan, notes)

    async def start_checked(
        self,
        sent: SentRequest,
        *,
        guild_id: int = OPERATOR_GUILD_ID,
        job_id: str = "",
        require_open: Callable[[], object] = lambda: None,
    ) -> StartedTraining:
        """Check and plan a request, then queue it. If there is a job with this id and request already,
        that is returned, without a plan.

        `require_open` raises if the bot has stopped during the checks.
        """
        async with self._check_turn():
            if job := self._find_same(job_id, sent.request):
                return StartedTraining(job, None, self._notes(sent.request))
            await self._checks.require_startable(sent, guild_id)
            plan = await self._checks.require_memory(sent, guild_id)
            require_open()
            return self.start(sent.request, guild_id=guild_id, job_id=job_id, plan=plan)

    async def plan(self, request: TrainingRequest, guild_id: int) -> PlannedTraining:
        """Plan a request; nothing is queued."""
        plan = await self._queue.plan(request, guild_id)
        return PlannedTraining(
            request,
            plan,
            position=self._queue.position_for_guild(guild_id),
            is_another_running=bool(self._store.jobs.in_state("running")),
            conflict=self._queue.conflict(request, guild_id),
        )

    async def plan_checked(self, sent: SentRequest, *, proposes: bool = True) -> PlannedTraining:
        """Check that everything a request names is here, and plan it, whatever is in the queue. A
        refusal `proposes` what would work.
        """
        async with self._check_turn():
            await self._checks.require_available(sent, proposes=proposes)
            return await self.plan(sent.request, OPERATOR_GUILD_ID)

    def find(self, job_id: str) -> TrainingJob:
        """Return a job. Raises `UnknownJobError`."""
        job = self._store.jobs.get(job_id)
        if job is None:
            # It is shown to moderators on Discord, too, who have neither the pages nor the API.
            advice = gettext_lazy(
                "`/finetune status`, the page Training and GET /finetune/jobs list the jobs."
            )
            raise UnknownJobError(
                gettext_lazy("There is no job {job_id!r}.", job_id=job_id), advice
            )
        return job

    def cancel(self, job_id: str, by: int = NO_USER_ID) -> TrainingJob:
        """Cancel a queued or running job for good, or the rest of a finished one's score card, as
        this member decided.
        """
        job = self._queue.cancel(self.find(job_id).job_id)
        self._record_job(job, by, gettext_noop("stopped the training of {learner}"))
        return job

    def open_of_persona(self, persona_id: str) -> list[TrainingJob]:
        """List the queued and running jobs of a persona, in any server."""
        jobs = [*self._store.jobs.in_state("queued"), *self._store.jobs.in_state("running")]
        return [job for job in jobs if job.persona == persona_id]

    def cancel_all(self, persona_id: str, by: int = NO_USER_ID) -> list[LocalisableText]:
        """Cancel the queued and running jobs of a persona that this member removes. Returns what to
        tell them, if there was one.
        """
        cancelled = [self.cancel(job.job_id, by) for job in self.open_of_persona(persona_id)]
        if not cancelled:
            return []
        return [
            ngettext_lazy(
                "Its training is cancelled.",
                "Its {count} trainings are cancelled.",
                len(cancelled),
            )
        ]

    def resume(self, job_id: str, by: int = NO_USER_ID) -> TrainingJob:
        """Queue a failed job again, from its last checkpoint, as this member decided."""
        job = self._queue.resume(self.find(job_id).job_id)
        self._record_job(job, by, gettext_noop("resumed the training of {learner}"))
        return job

    def _record_job(self, job: TrainingJob, by: int | None, what: str) -> None:
        """Record a change of a guild's job; `what` has a gap for what it trains."""
        if job.guild_id != OPERATOR_GUILD_ID:
            learner = f"**{job.persona or job.name}** (`{job.job_id}`)"
            text = LocalisableText(what, values={"learner": learner})
            self._record(job.guild_id, by, text)

    @asynccontextmanager
    async def _check_turn(self) -> AsyncIterator[None]:
        """Wait until no other request is checked. Raises `TooManyChecksError`."""
        if self._waiting_checks >= MAX_WAITING_CHECKS:
            raise TooManyChecksError(
                gettext_lazy("Other requests are being checked."), gettext_lazy("Try again.")
            )
        self._waiting_checks += 1
        try:
            async with self._checking:
                yield
        finally:
            self._waiting_checks -= 1

    def _find_same(self, job_id: str, request: TrainingRequest) -> TrainingJob | None:
        """Return the job with this id. Raises `ReusedJobIdError` if its request is another."""
        job = self._store.jobs.get(job_id) if job_id else None
        if job is None:
            return None
        try:
            is_same = job.request == request
        except RequestError:  # it was stored by another version of the bot
            is_same = False
        if not is_same:
            raise ReusedJobIdError(job)
        return job
