"""Trainings at a weekly time, or once enough new samples are there.

Each is an ordinary training with the checks, the queue and the gate of `/finetune start`. Its job's
id follows from the schedule and the moment, so one that was queued before a kill is not queued
again; one whose time came while the bot was down is queued once, at the next start.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from bot.answering.actions import AnsweringActions
from bot.chat.places import ChannelRef
from bot.guilds.time_zones import GuildTimeZones
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.weekly_time import WeeklyTime
from bot.schedules.store import TrainingSchedule
from bot.store import Store, StoreError, TrainingJob
from bot.training.actions import Trainings
from bot.training.guild_turns import QueueConflictError
from bot.training.queue import JobQueue
from bot.training.stored_datasets import MissingPreferencesError
from personas.errors import UnderstudyError
from personas.schemas.training import TrainingRequest

log = logging.getLogger(__name__)
MIN_NEW_SAMPLES = 5
MAX_NEW_SAMPLES = 1000
RETRY_DELAY_S = 86400.0
"""Time after which a training after samples is tried again that was refused, has failed or was
cancelled.
"""


@dataclass(frozen=True)
class RefusedTraining:
    """A scheduled training that was refused, and why."""

    schedule: TrainingSchedule
    error: UnderstudyError


@dataclass(frozen=True, kw_only=True)
class ScheduledTrainings:
    """Sets, lists, removes and runs the scheduled trainings."""

    store: Store
    trainings: Trainings
    queue: JobQueue
    time_zones: GuildTimeZones
    answering: AnsweringActions
    record_change: ChangeRecord = no_record

    def set(
        self,
        persona_id: str,
        *,
        guild_id: int,
        channel_id: int,
        user_id: int,
        options: Mapping[str, Any],
        when: WeeklyTime | None = None,
        new_samples: int | None = None,
    ) -> TrainingSchedule:
        """Schedule a persona's training, in place of its earlier schedule. Raises an
        `UnderstudyError` for a request that would be refused now.
        """
        if (when is None) == (new_samples is None):
            raise RefusedError(
                gettext_lazy(
                    "A training is scheduled at a weekly time, or after a number of new samples."
                ),
                gettext_lazy("Give `weekday` and `time`, or `new_samples`."),
            )
        body = {"persona": persona_id, **options}
        if new_samples is not None:
            body.setdefault("task_type", "preference")
            if body["task_type"] != "preference":
                raise RefusedError(
                    gettext_lazy(
                        "New samples are taught replies and votes between two replies, from which "
                        "only preference trainings learn."
                    ),
                    gettext_lazy(
                        "Leave `task_type` out, or give `weekday` and `time` in place of "
                        "`new_samples`."
                    ),
                )
        try:
            self.queue.check(self._request(body, "scheduled"), guild_id)
        except QueueConflictError:  # of today's jobs
            log.debug("a scheduled training of %s conflicts with a present job", persona_id)
        except MissingPreferencesError:  # it is found after all else: a schedule may wait for them
            if new_samples is None:
                raise
        now = self.time_zones.clock.now()
        schedule = self.store.training_schedules.set(
            TrainingSchedule(
                seq=0,
                guild_id=guild_id,
                channel_id=channel_id,
                persona_id=persona_id,
                weekdays=when.weekdays if when else None,
                minute=when.minute if when else None,
                new_samples=new_samples,
                options=json.dumps(body),
                set_by=user_id,
                set_at=now,
                handled_at=now,
            )
        )
        due = when.text() if when else gettext_lazy("after {count} new samples", count=new_samples)
        what = gettext_lazy(
            "scheduled the training of {persona}, {due}", persona=f"**{persona_id}**", due=due
        )
        self.record_change(guild_id, user_id, what)
        return schedule

    def remove(self, guild_id: int, persona_id: str, *, by: int = 0) -> None:
        """Remove a persona's schedule, as a member or (0) the operator decided. Raises
        `RefusedError` where it has none.
        """
        if not self.store.training_schedules.remove(guild_id, persona_id):
            raise RefusedError(
                gettext_lazy("No training of this persona is scheduled here."),
                gettext_lazy("`/finetune schedule show` lists those that are."),
            )
        what = gettext_lazy(
            "ended the scheduled training of {persona}", persona=f"**{persona_id}**"
        )
        self.record_change(guild_id, by, what)

    def next_time(self, schedule: TrainingSchedule) -> float | None:
        """Return when a training at a weekly time is due next; None for one after samples."""
        when = weekly_time(schedule)
        if when is None:
            return None
        zone = self.time_zones.in_guild(schedule.guild_id)
        return when.next(self.time_zones.clock.now(), zone)

    def last_job(self, schedule: TrainingSchedule) -> TrainingJob | None:
        """Return the job that a schedule queued last; None where it was refused, or none came."""
        return self.store.jobs.get(schedule.job_id) if schedule.job_id else None

    def recipe(self, schedule: TrainingSchedule) -> str:
        """Return the recipe of a schedule, as it would be chosen now if it is left to the bot."""
        return self._recipe(json.loads(schedule.options))

    def new_samples(self, schedule: TrainingSchedule) -> int:
        """Count the taught replies and votes since a persona was last trained on such."""
        place = schedule.guild_id, schedule.persona_id
        has_failed = self._failed_at(schedule) is not None
        since = schedule.set_at if has_failed else schedule.handled_at
        since = max(since, self.store.training_schedules.last_preference_training(*place))
        taught = self.store.lessons.count_trainable(schedule.persona_id, schedule.guild_id, since)
        voted = self.store.comparisons.count_preferences(
            schedule.persona_id, schedule.guild_id, since
        )
        return taught + voted

    def _failed_at(self, schedule: TrainingSchedule) -> float | None:
        """Return when a schedule's latest training was refused, failed or was cancelled, and so has
        learned from no sample; None for another one.
        """
        if schedule.outcome:
            return schedule.handled_at
        job = self.last_job(schedule)
        if job is None or job.state not in ("failed", "cancelled"):
            return None
        return max(schedule.handled_at, job.finished_at or 0.0)

    def run_due(
        self, place_of: Callable[[TrainingSchedule], ChannelRef | None]
    ) -> list[RefusedTraining]:
        """Queue the trainings that are due; returns those that were refused. `place_of` returns a
        schedule's channel, None where the bot is not in its guild.

        What conflicts with a present job waits for its end, what is due in the channel's quiet hours
        for theirs, and what cannot be stored for the database.
        """
        refused = []
        for schedule in self.store.training_schedules.all():
            place = place_of(schedule)
            if place is None or not self._is_due(schedule, place):
                continue
            try:
                self._queue(schedule)
            except QueueConflictError as conflict:
                log.debug("the scheduled training of %s waits: %s", schedule.persona_id, conflict)
            except StoreError as error:
                log.info("the scheduled training of %s waits: %s", schedule.persona_id, error)
            except UnderstudyError as error:
                self._record(schedule, outcome=str(error))
                refused.append(RefusedTraining(schedule, error))
        return refused

    def _is_due(self, schedule: TrainingSchedule, place: ChannelRef) -> bool:
        now = self.time_zones.clock.now()
        when = weekly_time(schedule)
        if when is not None:
            zone = self.time_zones.in_guild(schedule.guild_id)
            is_due = when.latest(now, zone) > schedule.handled_at
        elif now - (self._failed_at(schedule) or 0.0) < RETRY_DELAY_S:
            is_due = False
        else:
            is_due = self.new_samples(schedule) >= (schedule.new_samples or MAX_NEW_SAMPLES)
        return is_due and not self.answering.is_quiet(*astuple(place), at=now)

    def _queue(self, schedule: TrainingSchedule) -> None:
        job_id = _job_id(schedule)
        if self.store.jobs.get(job_id) is None:
            moment = time.strftime("%m%d-%H%M%S", time.gmtime(self.time_zones.clock.now()))
            request = self._request(
                json.loads(schedule.options), f"{schedule.persona_id[:40]}-{moment}"
            )
            self.trainings.start(
                request,
                guild_id=schedule.guild_id,
                channel_id=schedule.channel_id,
                requested_by=schedule.set_by,
                job_id=job_id,
                is_scheduled=True,
            )
            log.info("the scheduled training %s of %s is queued", job_id, schedule.persona_id)
        self._record(schedule, job_id=job_id)

    def _record(self, schedule: TrainingSchedule, *, outcome: str = "", job_id: str = "") -> None:
        now = self.time_zones.clock.now()
        self.store.training_schedules.record_handled(
            schedule.seq, now, outcome=outcome, job_id=job_id
        )

    def _request(self, body: Mapping[str, Any], job_name: str) -> TrainingRequest:
        return self.trainings.parse({"job_name": job_name, **body, "recipe": self._recipe(body)})

    def _recipe(self, body: Mapping[str, Any]) -> str:
        return body.get("recipe") or self.trainings.default_recipe(
            body["persona"],
            body.get("task_type", "persona"),
            from_card=bool(body.get("from_card")),
        )


def weekly_time(schedule: TrainingSchedule) -> WeeklyTime | None:
    """Return the weekly time of a schedule; None for one after samples."""
    if schedule.weekdays is None or schedule.minute is None:
        return None
    return WeeklyTime(schedule.weekdays, schedule.minute)


def _job_id(schedule: TrainingSchedule) -> str:
    """Return the id of the job of a schedule that is due: the same until that is recorded."""
    digest = hashlib.sha256(f"schedule:{schedule.seq}:{schedule.handled_at!r}".encode())
    return digest.hexdigest()[:10]
