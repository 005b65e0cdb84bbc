"""Computes common prompt prefixes while the engine is idle."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.lora_slots import LoraSlot, LoraSlots
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.prompt import Renderer
from personas.schemas.chat import AdapterRef, Persona, Turn

log = logging.getLogger(__name__)

MAX_QUEUED_PREFIXES = 256
"""So many beginnings wait; later ones are let go of."""
PROBE_TURNS = (Turn("Ann", "hi"), Turn("Zoe", "Why?"))
"""Two members who have nothing in common: what both their prompts begin with is the persona's."""


def common_prefix(renderer: Renderer, persona: Persona, most_tokens: int) -> tuple[int, ...]:
    """The tokens that all prompts of a persona begin with, whoever asks. Raises `ValueError` when none fits."""
    one, other = (renderer.prompt(persona, [guest], max_tokens=most_tokens).ids for guest in PROBE_TURNS)
    return tuple(token for token, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(frozen=True)
class PrefixJob:
    """Tokens to compute under an adapter, in whole blocks, and one more that never is."""

    adapter: AdapterRef | None
    tokens: Sequence[int]


class PrefixWarmer:
    """The beginnings that wait for idle time. Used by the engine's thread."""

    def __init__(self, decoder: ModelRunner, seats: LoraSlots, piece_tokens: int) -> None:
        self._decoder, self._seats, self._piece = decoder, seats, max(piece_tokens, BLOCK_TOKENS)
        self._waiting: deque[PrefixJob] = deque()

    def add(self, adapter: AdapterRef | None, tokens: Sequence[int]) -> None:
        """Have a beginning computed when there is time."""
        new = PrefixJob(adapter, tokens[: (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS + 1])
        if self._decoder.prefixes and len(self._waiting) < MAX_QUEUED_PREFIXES and new not in self._waiting:
            self._waiting.append(new)

    def clear(self) -> None:
        """Let go of all that wait."""
        self._waiting.clear()

    @property
    def adapters(self) -> list[AdapterRef]:
        """What has to be read for the next of them."""
        return [one.adapter for one in list(self._waiting)[:1] if one.adapter]

    def step(self) -> bool:
        """Compute a piece of the next; False when there is none, or its adapter is not here yet."""
        while self._waiting:
            try:
                seat = self._seats.take(self._waiting[0].adapter)
                if seat is None:
                    return False
                if self._compute_with(seat, self._waiting[0]):
                    return True
            except Exception as error:  # it would only have saved time; whoever asks later is told
                log.info("what prompts begin with was not computed: %s", error)
            self._waiting.popleft()
        return False

    def _compute_with(self, seat: LoraSlot, one: PrefixJob) -> bool:
        try:
            return seat.slot is not None and self._compute(seat, one.tokens)
        finally:
            self._seats.give_back(seat)

    def _compute(self, seat: LoraSlot, tokens: Sequence[int]) -> bool:
        """Compute what comes next; False when all is known or there is no room for it."""
        prefixes = self._decoder.prefixes
        assert prefixes is not None  # else nothing waits
        row = self._decoder.open(len(tokens))
        known = prefixes.take_over(seat.name, tokens, row)
        part = tokens[known:-1][: self._piece]
        if not part or row.memory.nbytes > prefixes.free_bytes:
            return False
        self._decoder.forward([ScheduledTokens(row, part, seat, wanted=False)])
        prefixes.keep(seat.name, row)
        return True
