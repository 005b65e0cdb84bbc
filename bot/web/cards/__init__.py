"""Score cards, and blind comparisons."""

from __future__ import annotations

from bot.web.cards import blind, pages
from bot.web.here import Route

ROUTES: tuple[Route, ...] = (*blind.ROUTES, *pages.ROUTES)
