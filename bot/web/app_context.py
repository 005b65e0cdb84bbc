"""Gives handlers access to the bot's services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from bot.services import Services
from bot.web.problems import Problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]
"""Method, path, and what answers."""


@dataclass
class AppContext:
    """`services` is None while the bot starts or stops."""

    services: Services | None = None


APP_CONTEXT = web.AppKey("app context", AppContext)


def get_services(request: web.Request) -> Services:
    """Return the services. Raises `Problem` while the bot starts or stops."""
    services = request.app[APP_CONTEXT].services
    if services is None:
        raise Problem("busy", "The bot is starting or stopping.", "Try again.", headers={"Retry-After": "2"})
    return services
