"""What the pages about data keep while the bot runs: work that is done, files that come in, indexes of samples,
plans."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from bot.web.data.plans import Plans
from bot.web.data.receiving import Incoming
from bot.web.data.sample_index import Indexes
from bot.web.data.work import Works


@dataclass(frozen=True)
class State:
    """One of each."""

    works: Works = field(default_factory=Works)
    incoming: Incoming = field(default_factory=Incoming)
    indexes: Indexes = field(default_factory=Indexes)
    plans: Plans = field(default_factory=Plans)


STATE = web.AppKey("data", State)


def set_up(app: web.Application) -> None:
    """Give the application its state; what is being done ends with it."""
    app[STATE] = State()

    async def close(app: web.Application) -> None:
        await app[STATE].works.close()

    app.on_shutdown.append(close)


def state_of(request: web.Request) -> State:
    """The state that a handler works with."""
    return request.app[STATE]
