"""Scheduled trainings and lines in words, for Discord and the dashboard."""

import json

from bot.platform.localisation import LocalisableText, gettext_lazy, gettext_noop
from bot.platform.weekly_time import WeeklyTime
from bot.schedules.lines import ScheduledLines
from bot.schedules.store import ScheduledLine, TrainingSchedule
from bot.schedules.trainings import ScheduledTrainings, weekly_time

JOB_OUTCOMES = {
    "queued": gettext_noop("{run} waits in the queue"),
    "running": gettext_noop("{run} is in training"),
    "done": gettext_noop("{run} is trained"),
    "failed": gettext_noop("{run} has failed"),
    "cancelled": gettext_noop("{run} was cancelled"),
}


def material_text(trainings: ScheduledTrainings, schedule: TrainingSchedule) -> str:
    """Say what a scheduled training learns from, and by which recipe."""
    options = json.loads(schedule.options)
    recipe = trainings.recipe(schedule)
    dataset = options.get("dataset")
    if dataset and "from_card" in options:
        return gettext_lazy(
            "Recipe `{recipe}`, data set `{dataset}`, from its card.",
            recipe=recipe,
            dataset=dataset,
        )
    if dataset:
        return gettext_lazy(
            "Recipe `{recipe}`, data set `{dataset}`.", recipe=recipe, dataset=dataset
        )
    if "from_card" in options:
        return gettext_lazy("Recipe `{recipe}`, from its card.", recipe=recipe)
    return gettext_lazy("Recipe `{recipe}`.", recipe=recipe)


def job_outcome_text(run: str, state: str) -> str:
    """Say what became of the latest training; `run` is its persona and version."""
    return LocalisableText(JOB_OUTCOMES[state], values={"run": run})


def training_time_text(trainings: ScheduledTrainings, schedule: TrainingSchedule) -> str:
    """Say when a training is due: its time and zone, or the number of new samples."""
    if when := weekly_time(schedule):
        return _zoned(when, trainings.time_zones.in_guild(schedule.guild_id).key)
    return gettext_lazy(
        "after {count} new taught replies and votes, {present} are there",
        count=schedule.new_samples,
        present=trainings.new_samples(schedule),
    )


def line_time_text(lines: ScheduledLines, line: ScheduledLine) -> str:
    """Say when a line is due: its time and zone."""
    when = WeeklyTime(line.weekdays, line.minute)
    return _zoned(when, lines.time_zones.in_guild(line.guild_id).key)


def _zoned(when: WeeklyTime, zone: str) -> str:
    return gettext_lazy("{time} ({zone})", time=when.text(), zone=zone)
