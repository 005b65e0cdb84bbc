"""What runs, and how well: for people on a page, for programs as JSON, and for Prometheus."""

from __future__ import annotations

from bot.web.here import Route
from bot.web.system import metrics, pages

ROUTES: tuple[Route, ...] = (*pages.ROUTES, *metrics.ROUTES)
