"""Cards, lore and versions."""

from __future__ import annotations

from bot.web.here import Route

ROUTES: tuple[Route, ...] = ()
