"""Counts the tokens of messages, which decide how many of them a prompt has."""

import asyncio

from bot.personas.base_model_compat import token_counter_or_estimate
from personas.card.card_summary import CountTokens
from personas.prompt.history_window import MESSAGE_OVERHEAD_TOKENS

MAX_KNOWN_TEXTS = 50_000


class MessageTokens:
    """Counts each text once. It keeps hashes instead of texts, so that nothing of a deleted message
    stays in memory.
    """

    def __init__(self, base_model: str) -> None:
        self._base_model = base_model
        self._count: CountTokens | None = None
        self._known: dict[int, int] = {}

    async def load(self) -> None:
        """Load the tokenizer, which takes a moment, before `of` is called on the event loop."""
        if self._count is None:
            self._count = await asyncio.to_thread(token_counter_or_estimate, self._base_model)

    def of(self, text: str) -> int:
        """Return the tokens that a message with this text has in a prompt, about."""
        if self._count is None:
            self._count = token_counter_or_estimate(self._base_model)
        key = hash(text)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN_TEXTS:
                self._known.clear()
            self._known[key] = self._count(text) + MESSAGE_OVERHEAD_TOKENS
        return self._known[key]
