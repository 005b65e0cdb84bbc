"""The playground: personas and versions side by side on one prompt, and two in a duet (docs/play.md)."""

from __future__ import annotations

from bot.web.here import Route
from bot.web.play import pages, rest
from bot.web.play.begin import keep_runs

__all__ = ["ROUTES", "keep_runs"]

ROUTES: tuple[Route, ...] = (*pages.ROUTES, *rest.ROUTES)
