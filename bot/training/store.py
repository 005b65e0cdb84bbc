"""Training jobs. Reports are fenced: one that bears the token of an earlier attempt changes
nothing.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from bot.platform.db.database import DatabaseConnection
from bot.versions.store import InstalledVersion, Versions
from personas.errors import RequestError
from personas.home.written_replies import REVIEW_ADVICE
from personas.schemas.base import FrozenModel, explain_validation_error
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import (
    TRAINER_EVENT,
    Epoch,
    Phase,
    RunPosition,
    ScoreSummary,
    TrainerEvent,
)

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
CardState = Literal["waiting", "running", "complete", "failed", "cancelled"]
"""State of the rest of a score card, which is measured after its version is ready."""
PromotionDecision = Literal["promoted", "manual"]
"""Decision on a finished job's version: promoted automatically, or left to a moderator."""


class JobResult(FrozenModel):
    """The result of a finished job. `adapter` is its folder, `seconds` the duration of all its
    attempts.

    `imported`: nothing was trained, the adapter came with a card or is a dialogue adapter
    (`TrainingJob.dialogue`). `shipped`: the SHA-256 of its weights, if it came with the project.
    """

    adapter: str
    seconds: float
    scorecard: ScoreSummary
    imported: bool = False
    shipped: str = ""
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class TrainingJob:
    """One training job as stored; times in seconds since 1970. `started_at` is the start of the
    latest attempt.

    `name` is the persona's id or `dialogue/<job name>`. `attempt` counts the attempts since the job
    was queued or resumed last, except those that the bot stopped itself. `can_resume`: the job
    failed for a fixable reason. `decision` is None until a finished job's automatic promotion is
    decided; `announced`: its result has been posted. `card_state` is None unless the rest of the
    score card is measured once the job is done. The JSON texts are parsed by `request`, `progress`,
    `result` and `card_progress`, so that an invalid one affects only its own job.
    """

    seq: int
    job_id: str
    guild_id: int
    channel_id: int
    requested_by: int
    name: str
    request_json: str = field(repr=False)
    persona: str | None
    version: str
    state: JobState
    attempt: int
    attempt_token: str | None
    queued_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
    advice: str | None
    progress_json: str | None = field(repr=False)
    progress_message_id: int | None
    result_json: str | None = field(repr=False)
    can_resume: bool
    decision: PromotionDecision | None
    announced: bool
    card_state: CardState | None
    card_progress_json: str | None = field(repr=False)
    card_attempt: int
    card_error: str | None

    @property
    def has_ended(self) -> bool:
        """The job is done, failed or cancelled."""
        return self.state not in ("queued", "running")

    @property
    def has_open_card(self) -> bool:
        """The rest of its score card is still to be measured."""
        return self.card_state in ("waiting", "running")

    @property
    def stops_for_review(self) -> bool:
        """The replies are being written for which the job then stops, to be read."""
        at = self.progress
        is_writing = isinstance(at, Phase) and at.name == "writing replies"
        return is_writing and bool(self.request.review)

    @property
    def waits_for_review(self) -> bool:
        """The job has stopped for its written replies to be read."""
        return self.state == "failed" and self.can_resume and self.advice == REVIEW_ADVICE

    @property
    def is_announceable(self) -> bool:
        """The job has ended, its promotion is decided, and its result has not been posted yet."""
        is_decided = self.state != "done" or self.decision is not None
        return self.has_ended and is_decided and not self.announced

    @property
    def request(self) -> TrainingRequest:
        """The training request. Raises `RequestError` when the row is invalid."""
        try:
            return TrainingRequest.model_validate_json(self.request_json)
        except ValidationError as error:
            raise explain_validation_error(error) from error

    @property
    def progress(self) -> RunPosition | None:
        """How far the run is, as the trainer said last; None where it has not, or in words that
        this version of the bot does not understand.
        """
        return _parse_position(self.progress_json)

    @property
    def card_progress(self) -> RunPosition | None:
        """How far the rest of the score card is; None as for `progress`."""
        return _parse_position(self.card_progress_json)

    @property
    def result(self) -> JobResult | None:
        """The result of a finished job."""
        if self.result_json:
            return JobResult.model_validate_json(self.result_json)
        return None

    @property
    def shipped(self) -> str:
        """The SHA-256 of the weights of a version that came with the project; empty for others."""
        return self.result.shipped if self.result else ""

    @property
    def dialogue(self) -> str | None:
        """The name of the dialogue adapter that was installed as this version; None for others and
        for invalid rows.
        """
        try:
            if self.result and self.result.imported:
                return self.request.start_from
            return None
        except RequestError:
            return None


def _parse_position(text: str | None) -> RunPosition | None:
    if not text:
        return None
    try:
        event = TRAINER_EVENT.validate_json(text)
    except ValidationError:
        return None
    return event if isinstance(event, RunPosition) else None


@dataclass(frozen=True)
class NewTrainingJob:
    """The training request, its author and its channel."""

    job_id: str
    guild_id: int
    channel_id: int
    requested_by: int
    request: TrainingRequest

    @property
    def name(self) -> str:
        """The name under which versions are numbered: the persona's id, or `dialogue/<job
        name>`.
        """
        return self.request.persona or f"dialogue/{self.request.job_name}"


class TrainingJobs:
    """The jobs, in the order of their creation."""

    def __init__(self, connection: DatabaseConnection, versions: Versions) -> None:
        self._db = connection
        self._versions = versions

    def add(self, new: NewTrainingJob, at: float) -> TrainingJob:
        """Queue a job and reserve its version, in one transaction."""
        with self._db.atomic():
            self._insert(new, self._versions.reserve(new.name), at)
        return self._sure(new.job_id)

    def add_imported(
        self, new: NewTrainingJob, version: str, result: JobResult, at: float
    ) -> TrainingJob:
        """Store the job of a persona's version whose adapter was imported and is installed."""
        with self._db.atomic():
            self._insert(new, version, at)
            done = self._end(new.job_id, None, "done", at, result=result)
            # It was queued just now, and dialogue adapters have no versions.
            assert done and done.persona
            self._db.write(
                "update jobs set decision = 'manual', announced = 1 where job_id = :job",
                job=new.job_id,
            )
            self._versions.record_installed(
                InstalledVersion(
                    done.persona,
                    version,
                    job_id=new.job_id,
                    installed_at=at,
                    scorecard=result.scorecard,
                )
            )
        return self._sure(new.job_id)

    def _insert(self, new: NewTrainingJob, version: str, at: float) -> None:
        texts = {
            "name": new.name,
            "request": new.request.model_dump_json(),
            "persona": new.request.persona,
        }
        row = {**vars(new), **texts, "version": version, "state": "queued", "queued_at": at}
        self._db.insert("jobs", row)

    def get(self, job_id: str) -> TrainingJob | None:
        """Return the job with this id."""
        return self._db.one(_job, "select * from jobs where job_id = :job", job=job_id)

    def of_guild(self, guild_id: int, limit: int = 25) -> list[TrainingJob]:
        """List a guild's latest jobs, newest first."""
        return self.page(limit, guild_id=guild_id)

    def page(
        self,
        limit: int,
        *,
        guild_id: int | None = None,
        name: str | None = None,
        state: JobState | None = None,
        after: TrainingJob | None = None,
    ) -> list[TrainingJob]:
        """List jobs by guild, name and state (None: all), newest first; with `after`, those older
        than that job.
        """
        sql = """select * from jobs where (:guild is null or guild_id = :guild) and (:name is null or name = :name)
            and (:state is null or state = :state) and (:seq is null or seq < :seq)
            order by seq desc limit :limit"""
        seq = after.seq if after else None
        return self._db.all(_job, sql, guild=guild_id, name=name, state=state, seq=seq, limit=limit)

    def has_trained(self, name: str) -> bool:
        """Report whether a job of this name has trained a version; imported ones do not count."""
        sql = """select 1 from jobs where name = :name and state = 'done'
            and not iif(json_valid(result), coalesce(json_extract(result, '$.imported'), 0), 1) limit 1"""
        return self._db.first(sql, name=name) is not None

    def of_versions(self, guild_id: int) -> list[TrainingJob]:
        """List the jobs of a guild whose versions are installed, newest first."""
        sql = """select jobs.* from jobs join versions using (job_id) where guild_id = :guild and not exists
            (select 1 from withdrawn where withdrawn.persona_id = versions.persona_id
            and withdrawn.version = versions.version) order by seq desc"""
        return self._db.all(_job, sql, guild=guild_id)

    def names(self) -> list[str]:
        """List the names of all jobs in order: personas' ids and `dialogue/<job name>`."""
        return self._db.column(str, "select distinct name from jobs order by name")

    def in_state(self, state: JobState) -> list[TrainingJob]:
        """List all jobs in a state, oldest first."""
        return self._db.all(_job, "select * from jobs where state = :s order by seq", s=state)

    def counts(self) -> dict[JobState, int]:
        """Count the jobs by state, without those of versions that came with the project; states
        without jobs are missing.
        """
        sql = """select state, count(*) as n from jobs
            where coalesce(iif(json_valid(result), json_extract(result, '$.shipped'), ''), '') = ''
            group by state"""
        rows = self._db.read(sql)
        return {row["state"]: row["n"] for row in rows}

    def ended_before(self, job: TrainingJob) -> list[str]:
        """List the ids of the server's other jobs of the same name that ended without a version and
        cannot go on, the one that ended last first.
        """
        sql = """select job_id from jobs where guild_id = :guild and name = :name and job_id != :job
            and (state = 'cancelled' or state = 'failed' and can_resume = 0)
            order by finished_at desc, seq desc"""
        return self._db.column(str, sql, guild=job.guild_id, name=job.name, job=job.job_id)

    def resumable(self) -> list[TrainingJob]:
        """List the failed jobs that can be resumed, oldest first."""
        return self._db.all(_job, "select * from jobs where can_resume = 1 order by seq")

    def undecided(self) -> list[TrainingJob]:
        """Finished jobs whose automatic promotion has not been decided, oldest first."""
        return self._db.all(
            _job, "select * from jobs where state = 'done' and decision is null order by seq"
        )

    def unannounced(self) -> list[TrainingJob]:
        """Ended jobs whose promotion is decided and whose result has not been posted, oldest
        first.
        """
        sql = """select * from jobs where announced = 0 and (state in ('failed', 'cancelled') or decision is not null)
            order by seq"""
        return self._db.all(_job, sql)

    def decide(self, job_id: str, decision: PromotionDecision) -> TrainingJob | None:
        """Store whether a finished job's version was promoted automatically. None when that is
        stored already.
        """
        sql = (
            "update jobs set decision = :decision where job_id = :job and state = 'done' and "
            "decision is null"
        )
        return self._changed(job_id, sql, decision=decision)

    def mark_announced(self, ended: TrainingJob) -> None:
        """Store that the result of an ended job has been posted, or that nobody is left to read it;
        unless the job was resumed meanwhile.
        """
        self._db.write(
            "update jobs set announced = 1 where job_id = :job and finished_at = :finished",
            job=ended.job_id,
            finished=ended.finished_at,
        )

    def last_served(self) -> dict[int, float]:
        """Return the latest start of a job by guild; guilds without one are missing."""
        sql = (
            "select guild_id, max(started_at) as at from jobs where started_at is not null group "
            "by guild_id"
        )
        return {row["guild_id"]: row["at"] for row in self._db.read(sql)}

    def claim(self, job: TrainingJob, token: str, at: float) -> TrainingJob | None:
        """Start the next attempt. Returns None when the job has changed since the caller read
        it.
        """
        sql = """update jobs set state = 'running', attempt = attempt + 1, attempt_token = :token, started_at = :at
            where job_id = :job and state = :seen_state and attempt_token is :seen_token"""
        seen = {"seen_state": job.state, "seen_token": job.attempt_token}
        return self._changed(job.job_id, sql, token=token, at=at, **seen)

    def report(self, job_id: str, token: str, event: TrainerEvent) -> TrainingJob | None:
        """Store how far the trainer is; other events leave that as it is. Returns None, and changes
        nothing, for a stale token.
        """
        if not isinstance(event, RunPosition):
            job = self.get(job_id)
            return job if job and job.attempt_token == token else None
        sql = "update jobs set progress = :event where job_id = :job and attempt_token = :token"
        return self._changed(job_id, sql, event=event.model_dump_json(), token=token)

    def complete(self, job_id: str, token: str, result: JobResult, at: float) -> TrainingJob | None:
        """Store the result of an installed adapter, and a persona's new version. Returns None for a
        stale token.
        """
        # Together, so that after a crash no finished job lacks its version.
        with self._db.atomic():
            done = self._end(job_id, token, "done", at, result=result)
            if done and result.scorecard.pending:
                done = self._set_card(job_id, "waiting")
            if done and done.persona:
                installed = InstalledVersion(
                    done.persona,
                    done.version,
                    job_id=job_id,
                    installed_at=at,
                    scorecard=result.scorecard,
                )
                self._versions.record_installed(installed)
        return done

    def fail(
        self, job: TrainingJob, error: str, advice: str, at: float, *, can_resume: bool = False
    ) -> TrainingJob | None:
        """Record a failure. Returns None, and changes nothing, when the job is no longer in this
        attempt.
        """
        return self._end(
            job.job_id,
            job.attempt_token,
            "failed",
            at,
            error=error,
            advice=advice,
            can_resume=can_resume,
        )

    def resume(self, job_id: str) -> TrainingJob | None:
        """Queue a failed, resumable job again, without the steps and the troubles that it had; a phase
        says what is kept of it, such as replies that were written. Returns None for any other job.
        """
        sql = """update jobs set state = 'queued', attempt = 0, can_resume = 0, error = null, advice = null,
            finished_at = null, announced = 0, progress = iif(
                json_valid(progress) and json_extract(progress, '$.event') = 'progress', null, progress
            ) where job_id = :job and can_resume = 1"""
        return self._changed(job_id, sql)

    def expire(self, job_id: str, advice: str) -> TrainingJob | None:
        """Record that a failed job cannot be resumed any more. Returns None for any other job."""
        sql = (
            "update jobs set can_resume = 0, advice = :advice where job_id = :job and can_resume = "
            "1"
        )
        return self._changed(job_id, sql, advice=advice)

    def release(self, job_id: str, token: str) -> TrainingJob | None:
        """Release an attempt that the bot itself stopped: it does not count, and the job is first
        in the queue.
        """
        sql = """update jobs set attempt = attempt - 1, attempt_token = null
            where job_id = :job and attempt_token = :token"""
        return self._changed(job_id, sql, token=token)

    def open_cards(self) -> list[TrainingJob]:
        """List the jobs whose score cards are to be completed, oldest first."""
        return self._db.all(
            _job, "select * from jobs where card_state in ('waiting', 'running') order by seq"
        )

    def claim_card(self, job_id: str) -> TrainingJob | None:
        """Begin an attempt to complete a score card. Returns None where that is not to be done."""
        sql = """update jobs set card_state = 'running', card_attempt = card_attempt + 1
            where job_id = :job and card_state in ('waiting', 'running')"""
        return self._changed(job_id, sql)

    def report_card(self, job_id: str, event: TrainerEvent) -> TrainingJob | None:
        """Store how far a score card is that is being completed, as `report` does."""
        if not isinstance(event, RunPosition):
            return self.get(job_id)
        sql = """update jobs set card_progress = :event
            where job_id = :job and card_state = 'running'"""
        return self._changed(job_id, sql, event=event.model_dump_json())

    def release_card(self, job_id: str) -> TrainingJob | None:
        """Have a score card wait again; an attempt that the bot itself stopped does not count."""
        sql = """update jobs set card_state = 'waiting', card_attempt = card_attempt - 1
            where job_id = :job and card_state = 'running'"""
        return self._changed(job_id, sql)

    def end_card(
        self, job_id: str, state: Literal["failed", "cancelled"], error: str | None = None
    ) -> TrainingJob | None:
        """Give up on the rest of a score card. Returns None where it is not to be completed."""
        sql = """update jobs set card_state = :state, card_error = :error
            where job_id = :job and card_state in ('waiting', 'running')"""
        return self._changed(job_id, sql, state=state, error=error)

    def complete_card(self, job_id: str, summary: ScoreSummary) -> TrainingJob | None:
        """Store the summary of a completed score card, of the job and of its version. Where the
        verdict is another one, the promotion is decided again. Returns None where the card was not
        being completed.
        """
        with self._db.atomic():
            job = self.get(job_id)
            if job is None or job.card_state != "running" or job.result is None:
                return None
            self.replace_scorecard(job, summary)
            if summary.first_verdict and job.decision == "manual":
                self._db.write("update jobs set decision = null where job_id = :job", job=job_id)
            return self._set_card(job_id, "complete")

    def replace_scorecard(self, job: TrainingJob, summary: ScoreSummary) -> None:
        """Store another summary of a score card, of a finished job and of its version."""
        assert job.result is not None
        result = job.result.model_copy(update={"scorecard": summary})
        with self._db.atomic():
            self._db.write(
                "update jobs set result = :result where job_id = :job",
                result=result.model_dump_json(),
                job=job.job_id,
            )
            if job.persona:
                self._versions.replace_scorecard(job.persona, job.version, summary)

    def _set_card(self, job_id: str, state: CardState) -> TrainingJob | None:
        sql = "update jobs set card_state = :state where job_id = :job"
        return self._changed(job_id, sql, state=state)

    def cancel(self, job_id: str, at: float) -> TrainingJob | None:
        """Cancel a queued or running job. Returns None for any other."""
        sql = """update jobs set state = 'cancelled', attempt_token = null, finished_at = :at
            where job_id = :job and state in ('queued', 'running')"""
        return self._changed(job_id, sql, at=at)

    def set_progress_message(self, shown: TrainingJob, message_id: int) -> None:
        """Store the Discord message that shows a job's progress or, where it has ended and was not
        resumed meanwhile, its result.
        """
        sql = """update jobs set progress_message_id = :message,
            announced = coalesce(finished_at = :finished, 0) where job_id = :job"""
        self._db.write(sql, message=message_id, finished=shown.finished_at, job=shown.job_id)

    def _end(
        self,
        job_id: str,
        token: str | None,
        state: Literal["done", "failed"],
        at: float,
        *,
        result: JobResult | None = None,
        error: str | None = None,
        advice: str | None = None,
        can_resume: bool = False,
    ) -> TrainingJob | None:
        result_json = result.model_dump_json() if result else None
        why = {"error": error, "advice": advice, "can_resume": can_resume}
        # `is` compares also with the null of a job that has no attempt.
        sql = """update jobs set state = :state, attempt_token = null, finished_at = :at, result = :result,
            error = :error, advice = :advice, can_resume = :can_resume
            where job_id = :job and attempt_token is :token and state in ('queued', 'running')"""
        return self._changed(
            job_id, sql, token=token, state=state, at=at, result=result_json, **why
        )

    def _changed(self, job_id: str, sql: str, **values: object) -> TrainingJob | None:
        if self._db.write(sql, **values, job=job_id):
            return self._sure(job_id)
        return None

    def _sure(self, job_id: str) -> TrainingJob:
        job = self.get(job_id)
        assert job is not None  # it was written just now
        return job


def _job(*, can_resume: int, announced: int, **columns: Any) -> TrainingJob:
    # Properties of the same names parse these texts.
    for name in ("request", "progress", "result", "card_progress"):
        columns[f"{name}_json"] = columns.pop(name)
    return TrainingJob(**columns, can_resume=bool(can_resume), announced=bool(announced))
