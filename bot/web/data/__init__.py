"""Sources, data sets and their samples."""

from __future__ import annotations

from bot.web.here import Route

ROUTES: tuple[Route, ...] = ()
