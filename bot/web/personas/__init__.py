"""Cards, lore and versions of the personas."""

from __future__ import annotations

from bot.web.here import Route
from bot.web.personas import (
    card_pages,
    card_rest,
    list_pages,
    lore_pages,
    lore_rest,
    preview,
    version_pages,
    version_rest,
)

ROUTES: tuple[Route, ...] = (
    *list_pages.ROUTES, *card_pages.ROUTES, *lore_pages.ROUTES, *version_pages.ROUTES,
    *version_rest.ROUTES, *card_rest.ROUTES, *preview.ROUTES, *lore_rest.ROUTES,
)  # fmt: skip
