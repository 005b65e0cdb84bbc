"""`/dashboard/data`, `/uploads` and `/datasets`: what there is to learn from, and what is made of it."""

from __future__ import annotations

from bot.web.data import build_pages, plan_pages, rest_sets, rest_uploads, set_pages, source_pages
from bot.web.data.state import set_up
from bot.web.here import Route

__all__ = ["ROUTES", "set_up"]

ROUTES: tuple[Route, ...] = (
    *source_pages.ROUTES,
    *build_pages.ROUTES,
    *plan_pages.ROUTES,
    *set_pages.ROUTES,
    *rest_uploads.ROUTES,
    *rest_sets.ROUTES,
)
