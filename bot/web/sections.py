"""The dashboard's parts and the interfaces beside them, each with its `ROUTES`."""

from __future__ import annotations

from aiohttp import web

from bot.web import cards, data, openai, personas, play, system, training
from bot.web.here import Route

SECTIONS = (personas, data, training, play, cards, system, openai)
ROUTES: tuple[Route, ...] = tuple(route for section in SECTIONS for route in section.ROUTES)


def furnish(app: web.Application) -> None:
    """What the parts keep in the application that serves them."""
    play.keep_runs(app)
    data.set_up(app)
