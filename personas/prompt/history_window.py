"""Chooses the messages of a channel that a prompt has: the latest ones that fit their share of the
context, in a window that moves in blocks.

A window that moved with each message would invalidate the KV cache each time. Larger blocks cost
less, but a prompt then has more of the persona's own replies, which a small model imitates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from personas.prompt.renderer import CONTEXT_TOKENS, RECENT_BLOCK_MESSAGES, RECENT_MESSAGES

HISTORY_SHARE = 0.5
"""Share of the room for a prompt that messages take in a larger context."""
FEWEST_MESSAGE_TOKENS = 16
"""A larger context has at most as many messages as would fit if each had so many tokens."""
MESSAGE_OVERHEAD_TOKENS = 8
"""Tokens of a message beside its text: the speaker's name and the chat template's."""


@dataclass(frozen=True)
class NumberedMessage:
    """A message by its number in the channel, which counts from 1, with its length in tokens."""

    ordinal: int
    tokens: int


@dataclass(frozen=True)
class HistoryWindow:
    """A prompt has at most `max_messages`, the message that is answered included. The others have
    at most `max_tokens`; None is no limit. The window moves by `block_messages`.
    """

    max_messages: int
    block_messages: int
    max_tokens: int | None = None

    @classmethod
    def of(cls, context_tokens: int, max_new_tokens: int) -> Self:
        """Return the window for prompts with replies of at most `max_new_tokens` in a context."""
        # Messages are counted instead of their tokens, as in `recent_start`.
        if context_tokens <= CONTEXT_TOKENS:
            return cls(RECENT_MESSAGES + RECENT_BLOCK_MESSAGES - 1, RECENT_BLOCK_MESSAGES)
        max_tokens = max(0, int((context_tokens - max_new_tokens) * HISTORY_SHARE))
        return cls(
            max_messages=max(RECENT_MESSAGES, max_tokens // FEWEST_MESSAGE_TOKENS),
            block_messages=RECENT_BLOCK_MESSAGES * context_tokens // CONTEXT_TOKENS,
            max_tokens=max_tokens,
        )

    def start(self, earlier: Sequence[NumberedMessage], last: int) -> int:
        """Return how many of the messages before number `last`, the oldest, are left out.

        `earlier` are the last `max_messages` before it, or all; the oldest first. The length of the
        message that is answered does not count, so that the prompt can be computed in advance.
        """
        left_out = max(0, last - self.max_messages)
        too_long = self._latest_too_long(earlier)
        block = self.block_messages
        start = _count_in_blocks(earlier, max(left_out, too_long), block)
        # Long messages fill few blocks: smaller ones leave at least half of the share filled.
        while too_long > left_out and block > 1 and not self._is_half_full(earlier[start:]):
            block //= 2
            start = _count_in_blocks(earlier, too_long, block)
        return start

    def _latest_too_long(self, earlier: Sequence[NumberedMessage]) -> int:
        """Return the number of the latest message for which there are too few tokens; 0 if all
        fit.
        """
        if self.max_tokens is None:
            return 0
        room = self.max_tokens
        for message in reversed(earlier):
            room -= message.tokens
            if room < 0:
                return message.ordinal
        return 0

    def _is_half_full(self, messages: Sequence[NumberedMessage]) -> bool:
        tokens = sum(message.tokens for message in messages)
        return self.max_tokens is None or 2 * tokens >= self.max_tokens


def _count_in_blocks(messages: Sequence[NumberedMessage], ordinal: int, block: int) -> int:
    """Return how many messages are in the blocks up to the one that ends at this number or
    later.
    """
    end = -(-ordinal // block) * block
    return sum(message.ordinal <= end for message in messages)
