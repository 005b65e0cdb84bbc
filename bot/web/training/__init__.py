"""Training: the queue and the past runs, each run with its curves, settings and log, two of them side by side."""

from __future__ import annotations

from bot.web.here import Route
from bot.web.training import actions, compare, pages, repeat, rest

ROUTES: tuple[Route, ...] = (*compare.ROUTES, *pages.ROUTES, *actions.ROUTES, *repeat.ROUTES, *rest.ROUTES)
