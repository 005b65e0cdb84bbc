"""The dashboard's parts and the interfaces beside them, each with its `ROUTES`."""

from __future__ import annotations

from bot.web import cards, data, openai, personas, play, system, training
from bot.web.here import Route

SECTIONS = (personas, data, training, play, cards, system, openai)
ROUTES: tuple[Route, ...] = tuple(route for section in SECTIONS for route in section.ROUTES)
