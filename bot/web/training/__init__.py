"""Runs, live and past."""

from __future__ import annotations

from bot.web.here import Route

ROUTES: tuple[Route, ...] = ()
