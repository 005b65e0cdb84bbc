"""The context window of an engine: the most tokens that a prompt and its reply have together.

It is the smallest of what is asked for, what the base model reads, and what the memory allows. A
request may ask for less.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from personas.gettext_marker import MarkedText, gettext_noop
from personas.models.base_model import EMBEDDED, BaseModel, max_positions
from personas.prompt.renderer import CONTEXT_TOKENS
from personas.schemas.chat import ChatRequest

DEFAULT_CONTEXT_TOKENS = 8192
SMALL_CONTEXT_TOKENS = CONTEXT_TOKENS
"""For the bundled model, which imitates its own replies where it sees many of them, and for models
that state no length. No window is made smaller than this for lack of memory.
"""
MIN_CONTEXT_TOKENS = 1024
MAX_CONTEXT_TOKENS = 2**17
"""Bounds of what CONTEXT_TOKENS may ask for."""
WINDOW_STEP_TOKENS = 256
"""A window that the memory limits is a multiple of this."""
MAX_PREFILL_S = 60.0
"""Longest time until the first word of a reply whose prompt fills the window."""
RUNNING_MEMORY_SHARE = 1 / 2
"""Share of the free memory for keys and values of the replies that run."""
PREFIX_MEMORY_SHARE = 1 / 8
"""Share of the free memory up to which stored prefixes grow with the window."""
FULL_SEQUENCES = 2
"""Replies with a full window that fit into the memory at once."""
RESERVED_ROW_TOKENS = SMALL_CONTEXT_TOKENS
"""Tokens of each reply at once for which a GPU's memory is reserved; longer ones are rarely many."""
MEMORY_REASON = MarkedText(gettext_noop("what the memory allows for keys and values"))
MAX_PICTURES = 4
"""Pictures that a prompt has, the latest."""
PICTURE_TOKENS = 1400
"""Tokens that are kept for a picture of 1,024 pixels a side and its name: 37 × 37 patches of 28 pixels,
as in Qwen2.5-VL, are 1,369.
"""
LEAST_PICTURE_TOKENS = 256
"""Models of a fixed number have as many, and llama.cpp refuses a lower limit for some."""
PICTURE_SHARE = 3
"""A third of a window at most is kept for pictures."""
STORED_WINDOWS = 4
"""Windows that the prefix cache holds, as far as the memory allows."""


@dataclass(frozen=True)
class ContextWindow:
    """The size of a window in tokens, and what limits it, for people."""

    tokens: int
    reason: str

    @classmethod
    def of_base(cls, base: BaseModel, asked: int | None = None) -> Self:
        """Return the window that is asked for (None: the default), as far as the base model reads
        it. Raises `BaseModelError`.
        """
        positions = max_positions(base)
        tokens = SMALL_CONTEXT_TOKENS
        if asked:
            tokens = asked
            reason = gettext_noop("set by CONTEXT_TOKENS")
        elif base.repository == EMBEDDED:
            reason = gettext_noop("the default of the bundled model")
        elif not positions:
            reason = gettext_noop("the default of a model that states no length")
        else:
            tokens = DEFAULT_CONTEXT_TOKENS
            reason = gettext_noop("the default")
        if positions and positions < tokens:
            return cls(
                positions, MarkedText(gettext_noop("all that {model} reads"), model=base.name)
            )
        return cls(tokens, MarkedText(reason))

    def within_time(self, tokens_per_s: float) -> Self:
        """Return the window that a processor reads in `MAX_PREFILL_S`, at so many tokens per second;
        by halves, so that it is the same at most starts.
        """
        tokens = self.tokens
        while tokens > SMALL_CONTEXT_TOKENS and tokens > MAX_PREFILL_S * tokens_per_s:
            tokens = max(tokens // 2, SMALL_CONTEXT_TOKENS)
        reason = gettext_noop("what this machine reads in {seconds} s; CONTEXT_TOKENS can raise it")
        return self.limited_to(tokens, MarkedText(reason, seconds=f"{MAX_PREFILL_S:.0f}"))

    def limited_to(self, tokens: int, reason: str) -> Self:
        """Return the window itself, or one of so many tokens if that is smaller."""
        return replace(self, tokens=tokens, reason=reason) if tokens < self.tokens else self


@dataclass(frozen=True)
class KVBudget:
    """A window and its memory: `running_bytes` for keys and values of the replies that run,
    `prefix_bytes` for stored ones.
    """

    window: ContextWindow
    running_bytes: int
    prefix_bytes: int

    @classmethod
    def plan(
        cls, wanted: ContextWindow, token_bytes: int, *, free_bytes: int, least_prefix_bytes: int
    ) -> Self:
        """Divide the free memory. `token_bytes` are keys and values of a token, 0 if unknown."""
        running_bytes = int(free_bytes * RUNNING_MEMORY_SHARE)
        window = wanted
        if token_bytes:
            fitting = running_bytes // FULL_SEQUENCES // token_bytes
            fitting -= fitting % WINDOW_STEP_TOKENS
            fitting = max(fitting, SMALL_CONTEXT_TOKENS)
            window = wanted.limited_to(fitting, MEMORY_REASON)
        stored = STORED_WINDOWS * window.tokens * token_bytes
        prefix_bytes = max(least_prefix_bytes, min(stored, int(free_bytes * PREFIX_MEMORY_SHARE)))
        return cls(window, running_bytes, prefix_bytes)

    def reserved(self, rows: int, token_bytes: int) -> Self:
        """Return a budget whose keys and values are all allocated at the start: no more than so
        many replies at once need, because other programs share the GPU.
        """
        tokens = max(rows * RESERVED_ROW_TOKENS, FULL_SEQUENCES * self.window.tokens)
        return replace(self, running_bytes=min(self.running_bytes, tokens * token_bytes))


def fit_rows(
    window: ContextWindow, rows: int, fits: Callable[[int, int], bool]
) -> tuple[ContextWindow, int]:
    """Return the window and the number of replies at once of a server that allocates the keys and
    values of all of them when it starts. `fits` answers for a number of replies and of tokens each.

    Fewer replies come first, then a smaller window, then a single reply, which is not questioned.
    """
    while not fits(rows, window.tokens):
        if rows > FULL_SEQUENCES:
            rows -= 1
        elif window.tokens > SMALL_CONTEXT_TOKENS:
            half = max(SMALL_CONTEXT_TOKENS, window.tokens // 2)
            window = window.limited_to(half, MEMORY_REASON)
        elif rows > 1:
            rows -= 1
        else:
            break
    return window, rows


def context_beside(pictures: int, context_tokens: int) -> int:
    """Return the tokens of a window that are left beside so many pictures: two thirds at least."""
    return context_tokens - min(pictures * PICTURE_TOKENS, context_tokens // PICTURE_SHARE)


def picture_tokens(context_tokens: int) -> int:
    """Return the most tokens of a picture, with which as many as a prompt has find room in a window
    that is not small.
    """
    room = context_tokens // PICTURE_SHARE // MAX_PICTURES
    return min(PICTURE_TOKENS, max(LEAST_PICTURE_TOKENS, room))


def prompt_room(context_tokens: int, request: ChatRequest) -> int:
    """Return the tokens that a request's prompt may have in an engine's window, beside its
    reply.
    """
    context = min(context_tokens, request.context_tokens or context_tokens)
    return context - request.sampling.max_new_tokens
