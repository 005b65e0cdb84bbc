"""Computes the common prefixes of personas' prompts while the engine is idle."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from personas.engine.admission import AdapterState
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.lora_slots import LoraSlot, LoraSlots
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.schemas.chat import AdapterRef

log = logging.getLogger(__name__)
MAX_QUEUED_PREFIXES = 256  # prefixes that wait; further ones are ignored


@dataclass(frozen=True)
class PrefixJob:
    """A prefix to compute under an adapter: whole blocks, and one more token that is never computed."""

    adapter: AdapterRef | None
    tokens: Sequence[int]


class PrefixWarmer:
    """Queue of prefixes to compute in idle time. Used by the engine's thread."""

    def __init__(self, runner: ModelRunner, lora: LoraSlots, chunk_tokens: int) -> None:
        self._runner, self._lora, self._chunk_tokens = runner, lora, max(chunk_tokens, BLOCK_TOKENS)
        self.queue: deque[PrefixJob] = deque()

    @property
    def adapters(self) -> list[AdapterRef]:
        """The adapter to read for the next prefix, if it has one."""
        return [job.adapter for job in list(self.queue)[:1] if job.adapter]

    def add(self, adapter: AdapterRef | None, tokens: Sequence[int]) -> None:
        """Queue a prefix, unless it is queued already or the runner stores none."""
        job = PrefixJob(adapter, tokens[: (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS + 1])
        if self._runner.prefixes and len(self.queue) < MAX_QUEUED_PREFIXES and job not in self.queue:
            self.queue.append(job)

    def step(self) -> bool:
        """Compute a chunk of the next prefix. Returns False when none is left or its adapter cannot be used yet."""
        while self.queue:
            job = self.queue[0]
            if self._lora.state(job.adapter) in (AdapterState.LOADING, AdapterState.NO_SLOT):
                return False
            try:
                if self._compute_chunk(job):
                    return True
            except Exception as error:  # only time is lost; a request that needs the adapter reports the error
                log.info("a prompt prefix was not computed: %s", error)
            self.queue.popleft()
        return False

    def _compute_chunk(self, job: PrefixJob) -> bool:
        """Compute the next chunk. Returns False when the prefix is complete or cannot be stored."""
        slot = self._lora.acquire(job.adapter)
        try:
            return slot.index is not None and self._forward(slot, job.tokens)
        finally:
            self._lora.release(slot)

    def _forward(self, slot: LoraSlot, tokens: Sequence[int]) -> bool:
        prefixes = self._runner.prefixes
        assert prefixes is not None  # otherwise nothing is queued
        kv = self._runner.new_kv_cache(len(tokens))
        computed = prefixes.load_prefix(slot.name, tokens, kv)
        chunk = tokens[computed:-1][: self._chunk_tokens]
        if not chunk or kv.memory.nbytes > prefixes.free_bytes:
            return False
        self._runner.backend.forward([ScheduledTokens(kv, chunk, slot, needs_logits=False)])
        prefixes.store(slot.name, kv)
        return True
