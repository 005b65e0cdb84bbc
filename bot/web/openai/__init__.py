"""Chat completions as OpenAI's clients ask for them."""

from __future__ import annotations

from bot.web.here import Route

ROUTES: tuple[Route, ...] = ()
