"""Chat completions as OpenAI's clients ask for them: a model is a persona, or a version of one (docs/openai.md)."""

from __future__ import annotations

from bot.web.here import Route
from bot.web.openai import chat, models

ROUTES: tuple[Route, ...] = (*chat.ROUTES, *models.ROUTES)
