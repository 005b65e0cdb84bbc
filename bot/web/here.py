"""What handlers find in the application: the house, once the bot has moved in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from bot.house import House
from bot.web.problems import Problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]
"""Method, path, and what answers."""


@dataclass
class Tenant:
    """`house` is None while the bot starts or ends."""

    house: House | None = None


TENANT = web.AppKey("tenant", Tenant)


def house_of(request: web.Request) -> House:
    """The house. Raises `Problem` while nobody is in."""
    house = request.app[TENANT].house
    if house is None:
        raise Problem("busy", "The bot is starting or ending.", "Try again.", headers={"Retry-After": "2"})
    return house
