"""Scheduled trainings and lines in words, for Discord and the dashboard."""

import json

from bot.platform.weekly_time import WeeklyTime
from bot.schedules.lines import ScheduledLines
from bot.schedules.store import ScheduledLine, TrainingSchedule
from bot.schedules.trainings import ScheduledTrainings, weekly_time

JOB_OUTCOMES = {
    "queued": "waits in the queue",
    "running": "is in training",
    "done": "is trained",
    "failed": "has failed",
    "cancelled": "was cancelled",
}


def material_text(trainings: ScheduledTrainings, schedule: TrainingSchedule) -> str:
    """Say what a scheduled training learns from, and by which recipe."""
    options = json.loads(schedule.options)
    text = f"Recipe `{trainings.recipe(schedule)}`"
    if "dataset" in options:
        text += f", data set `{options['dataset']}`"
    if "from_card" in options:
        text += ", from its card"
    return f"{text}."


def training_time_text(trainings: ScheduledTrainings, schedule: TrainingSchedule) -> str:
    """Say when a training is due: its time and zone, or the number of new samples."""
    if when := weekly_time(schedule):
        return f"{when} ({trainings.time_zones.in_guild(schedule.guild_id).key})"
    count = trainings.new_samples(schedule)
    return f"after {schedule.new_samples} new taught replies and votes, {count} are there"


def line_time_text(lines: ScheduledLines, line: ScheduledLine) -> str:
    """Say when a line is due: its time and zone."""
    when = WeeklyTime(line.weekdays, line.minute)
    return f"{when} ({lines.time_zones.in_guild(line.guild_id).key})"
