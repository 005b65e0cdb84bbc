"""Computes the common prefixes of prompts in advance, while the engine has time for it."""

import logging
from collections import abc, deque
from dataclasses import dataclass

from personas.engine.fair_scheduler import AdapterState
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.lora_slots import LoraSlot, LoraSlots
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.schemas.chat import AdapterRef

log = logging.getLogger(__name__)
# Prefixes of personas that wait; further ones are ignored.
MAX_QUEUED_PREFIXES = 256
# Prefixes of talks that wait; the oldest makes room for the next one.
MAX_QUEUED_TALKS = 8
# Tokens of a talk's next prompt that are computed after a token of every running reply.
CHUNK_TOKENS_BESIDE_REPLIES = 2 * BLOCK_TOKENS


@dataclass(frozen=True)
class PrefixJob:
    """A prefix to compute under an adapter: whole blocks, and one more token that is never
    computed.

    The prefix of a talk replaces the blocks of the prefix cache that were used least recently. The
    prefix of a persona takes free room only.
    """

    adapter: AdapterRef | None
    tokens: abc.Sequence[int]
    is_talk: bool = False


class PrefixWarmer:
    """Prefixes to compute while there is time: those of the latest talks first. Used by the
    engine's thread.
    """

    def __init__(self, runner: ModelRunner, lora: LoraSlots, chunk_tokens: int) -> None:
        """`chunk_tokens` are computed at once while nothing else is."""
        self._runner = runner
        self._lora = lora
        self._chunk_tokens = max(chunk_tokens, BLOCK_TOKENS)
        self._talks: deque[PrefixJob] = deque(maxlen=MAX_QUEUED_TALKS)
        self._personas: deque[PrefixJob] = deque()

    @property
    def jobs(self) -> list[PrefixJob]:
        """The prefixes that are to be computed, in order."""
        return [*self._talks, *self._personas]

    @property
    def adapters(self) -> list[AdapterRef]:
        """The adapter to read for the next prefix, if it has one."""
        return [job.adapter for job in self.jobs[:1] if job.adapter]

    def add(
        self, adapter: AdapterRef | None, tokens: abc.Sequence[int], *, is_talk: bool = False
    ) -> None:
        """Queue a prefix, unless it is queued already or the runner stores none."""
        whole_blocks = (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        job = PrefixJob(adapter, tokens[: whole_blocks + 1], is_talk)
        if self._runner.prefixes is None or job in self.jobs:
            return
        if is_talk:
            self._talks.appendleft(job)  # the oldest makes room for it
        elif len(self._personas) < MAX_QUEUED_PREFIXES:
            self._personas.append(job)

    def clear(self) -> None:
        """Compute none of the queued prefixes."""
        self._talks.clear()
        self._personas.clear()

    def drop_adapter(self, adapter: AdapterRef) -> None:
        """Compute none of an adapter's prefixes."""
        for jobs in (self._talks, self._personas):
            for job in [job for job in jobs if job.adapter == adapter]:
                jobs.remove(job)

    def step(self, *, of_talks: bool = False) -> bool:
        """Compute a chunk of the next prefix, a short one `of_talks` beside running replies.

        Returns False when none is left or its adapter cannot be used yet.
        """
        size = CHUNK_TOKENS_BESIDE_REPLIES if of_talks else self._chunk_tokens
        while True:
            jobs = self._talks
            if not jobs and not of_talks:
                jobs = self._personas
            if not jobs:
                return False
            job = jobs[0]
            if self._lora.state(job.adapter) in (AdapterState.LOADING, AdapterState.NO_SLOT):
                return False
            try:
                if self._compute_chunk(job, size):
                    return True
            except Exception as error:
                # Only time is lost: a request that needs the adapter reports the error.
                log.info("a prompt prefix was not computed: %s", error)
            jobs.popleft()

    def _compute_chunk(self, job: PrefixJob, size: int) -> bool:
        """Compute the next tokens. Returns False when the prefix is complete or cannot be
        stored.
        """
        slot = self._lora.acquire(job.adapter)
        try:
            return slot.index is not None and self._forward(slot, job, size)
        finally:
            self._lora.release(slot)

    def _forward(self, slot: LoraSlot, job: PrefixJob, size: int) -> bool:
        prefixes = self._runner.prefixes
        assert prefixes is not None  # otherwise nothing is queued
        kv = self._runner.new_kv_cache(len(job.tokens))
        computed = prefixes.load_prefix(slot.name, job.tokens, kv)
        chunk = job.tokens[computed:-1][:size]
        room_bytes = prefixes.max_bytes if job.is_talk else prefixes.free_bytes
        if not chunk or self._runner.kv_bytes(len(job.tokens)) > room_bytes:
            return False
        self._runner.backend.forward([ScheduledTokens(kv, chunk, slot, logits=0)])
        prefixes.store(slot.name, kv)
        return True
