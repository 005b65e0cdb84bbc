"""Helpers for the tests of what happens at set times."""

import time
from datetime import UTC, datetime

import bot.schedules.discord
from bot.platform.clock import SystemClock
from tests.fakes import until


class AheadClock(SystemClock):
    """A clock that goes on from what it is told; its sleepers wait in real time."""

    def __init__(self, at=None):
        self.ahead_s = 0.0
        if at:
            self.at = at

    @property
    def at(self):
        return datetime.fromtimestamp(self.now(), UTC)

    @at.setter
    def at(self, at):
        self.ahead_s = at.timestamp() - time.time()

    def now(self):
        return time.time() + self.ahead_s


def check_often(monkeypatch):
    """Have the bot look every 50 ms for what is due."""
    monkeypatch.setattr(bot.schedules.discord, "CHECK_INTERVAL_S", 0.05)


async def answer_to(stage, command, who, channel, **options):
    """Give a command, by default as a moderator, and return what the bot answers."""
    given = await (who or stage.moderator).slash(channel, command, **options)
    await until(lambda: given.message and not given.message["flags"] & 128)
    return given.message["content"]
