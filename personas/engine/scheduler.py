"""Chooses the tokens that each step of the local engine computes, and ends finished sequences."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from personas.engine.fair_scheduler import (
    AdapterState,
    FairScheduler,
    SchedulerLimits,
    run_or_log,
)
from personas.engine.lora_slots import LoraSlots
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.engine.sampler import SampledToken
from personas.engine.sequence import Sequence

log = logging.getLogger(__name__)
Phase = Literal["prefill", "decode"]
Sampled = tuple[Sequence, SampledToken | Exception]
"""A sequence with its next token, or the error that prevents it."""


@dataclass(frozen=True)
class ScheduledBatch:
    """Sequences of one forward pass, and the tokens that each of them contributes."""

    runner: ModelRunner
    sequences: list[Sequence]
    tokens: list[ScheduledTokens]

    @property
    def sampled(self) -> list[Sequence]:
        """The sequences that get a new token: all but those with prompt tokens left."""
        pairs = zip(self.sequences, self.tokens, strict=True)
        return [seq for seq, tokens in pairs if tokens.logits]

    def split(self) -> "list[ScheduledBatch]":
        """Return a batch of its own for each sequence."""
        pairs = zip(self.sequences, self.tokens, strict=True)
        return [ScheduledBatch(self.runner, [seq], [tokens]) for seq, tokens in pairs]


class Scheduler(FairScheduler[Sequence]):
    """Pins and unpins the LoRA slots of its sequences. Used by the engine's thread."""

    def __init__(
        self,
        limits: SchedulerLimits,
        lora: LoraSlots,
        runner: ModelRunner,
        fallback: ModelRunner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fallback` computes sequences whose adapters fit into no slot, one at a time."""
        super().__init__(limits, clock)
        self._lora = lora
        self._runner = runner
        self._fallback = fallback

    def transfer_queue(self, other: "Scheduler") -> None:
        for seq in list(self.queue):
            self.queue.remove(seq)
            other.queue.add(seq)

    def schedule(self, phase: Phase) -> list[ScheduledBatch]:
        """Choose the tokens to compute: chunks of unfinished prompts, or the last token of every
        decoding sequence.

        Sequences with a stacked adapter or none share one batch; each of the others is a batch of
        its own.
        """
        chosen = self._prompt_chunks() if phase == "prefill" else self._last_tokens()
        shared = ScheduledBatch(self._runner, [], [])
        batches = [shared]
        for seq, tokens in chosen:
            if seq.runner is self._runner:
                shared.sequences.append(seq)
                shared.tokens.append(tokens)
            else:
                batches.append(ScheduledBatch(seq.runner, [seq], [tokens]))
        return [batch for batch in batches if batch.sequences]

    @property
    def _prefill_budget(self) -> int:
        """Prompt tokens that a step may compute."""
        if all(seq.is_prefilling for seq in self.running):
            return self.limits.solo_prefill_tokens
        if len(self.running) >= self.limits.rows / 2:
            return self.limits.busy_prefill_tokens
        return self.limits.prefill_tokens

    def _crowded_guilds(self) -> Collection[int]:
        """List the guilds with unfinished prompts once these take a whole step.

        A sequence that starts too early holds a row without tokens while the prompts of members
        who were served less come first.
        """
        prompts = self._unfinished_prompts
        if sum(seq.prompt_tokens_left for seq in prompts) < self._prefill_budget:
            return ()
        return {seq.guild_id for seq in prompts}

    @property
    def _unfinished_prompts(self) -> list[Sequence]:
        return [seq for seq in self._computing() if seq.is_prefilling]

    def _prompts_by_service(self) -> list[Sequence]:
        """Order unfinished prompts like the queue: the guild served least first, in it the member
        served least.

        The queue counts a whole prompt when it starts. The part that is still to be computed is no
        service yet.
        """
        left = Counter[int | tuple[int, int]]()
        for seq in self._unfinished_prompts:
            left[seq.guild_id] += seq.prompt_tokens_left
            left[seq.guild_id, seq.member_id] += seq.prompt_tokens_left

        def order(seq: Sequence) -> tuple[float, float]:
            guild_tokens, member_tokens = self.queue.service(seq)
            guild_tokens -= left[seq.guild_id]
            member_tokens -= left[seq.guild_id, seq.member_id]
            return guild_tokens, member_tokens

        return sorted(self._unfinished_prompts, key=order)

    def _prompt_chunks(self) -> list[tuple[Sequence, ScheduledTokens]]:
        """Choose chunks of unfinished prompts: the first of them whole, however busy, up to a lone
        prompt's size.
        """
        prompts = self._prompts_by_service()
        chosen = []
        # A first prompt in parts would wait for a token of all other replies between two of them.
        first = prompts[0].prompt_tokens_left if prompts else 0
        budget = max(self._prefill_budget, min(first, self.limits.solo_prefill_tokens))
        for seq in prompts:
            scheduled = self._next_tokens(seq, budget)
            if scheduled and scheduled.tokens:
                chosen.append((seq, scheduled))
                budget -= len(scheduled.tokens)
        return chosen

    def _last_tokens(self) -> list[tuple[Sequence, ScheduledTokens]]:
        chosen = []
        for seq in self._computing():
            if not seq.is_prefilling and (tokens := self._next_tokens(seq, 1)):
                chosen.append((seq, tokens))
        return chosen

    def _computing(self) -> list[Sequence]:
        """List the running sequences that need tokens, with the candidates of their beginnings."""
        sequences = []
        for seq in self.running:
            for candidate in (seq, *seq.other_candidates):
                if candidate.needs_token:
                    sequences.append(candidate)
        return sequences

    def _next_tokens(self, seq: Sequence, limit: int) -> ScheduledTokens | None:
        try:
            return seq.next_tokens(limit)
        except Exception as error:  # an error of this sequence must not end the other ones
            self.fail(seq, error)
            return None

    def _state(self, seq: Sequence) -> AdapterState:
        state = self._lora.state(seq.adapter)
        if state is AdapterState.READY and self.running and not self._free_copies(seq, 1):
            return AdapterState.NO_SLOT
        return state

    def _free_copies(self, seq: Sequence, most: int) -> int:
        limit = self.limits.kv_bytes
        size = 0
        if limit is not None:
            size = self._kv_bytes(seq)
        if limit is None or not size:
            return most
        taken = 0
        for other in self.running:
            copies = 1 + len(other.other_candidates)
            taken += copies * self._kv_bytes(other)
        return min(most, max(0, limit - taken) // size)

    def _kv_bytes(self, seq: Sequence) -> int:
        own = self._runner.kv_bytes(seq.capacity_tokens)
        return own + self._runner.kv_bytes(seq.negative_capacity_tokens)

    def free_candidates(self, seq: Sequence, most: int) -> int:
        """Return for how many further candidates of a running sequence there are rows and
        memory.
        """
        rows = self.limits.candidate_rows - self.rows
        return self._free_copies(seq, max(0, min(most, rows)))

    @property
    def rows(self) -> int:
        """Number of sequences that run, candidates included, and of those that wait."""
        return sum(1 + len(seq.other_candidates) for seq in self.running) + len(self.queue)

    def _acquire(self, seq: Sequence) -> None:
        """Give a sequence its LoRA slot and its KV cache, or neither."""
        slot = self._lora.acquire(seq.adapter)
        try:
            runner = self._fallback if slot.index is None else self._runner
            seq.start(slot, runner, self.clock())
        except Exception:
            self._lora.release(slot)
            raise
        run_or_log(seq.load_prefix)  # without it, the whole prompt is computed

    def _release(self, seq: Sequence) -> None:
        self._lora.release(seq.slot)

    def postprocess(self, sampled: list[Sampled]) -> None:
        """Append the sampled tokens, stream their text, and end the sequences that are finished or
        failed.
        """
        for seq, token in sampled:
            if seq.first_candidate and seq.first_candidate not in self.running:
                continue  # its reply has just ended as the first candidate
            try:
                if isinstance(token, Exception):
                    raise token
                if seq.is_prefilling:
                    run_or_log(seq.store_prefix)
                seq.append(token)
            except Exception as error:  # an error of this sequence must not end the other ones
                self.fail(seq, error)
                continue
            self.queue.count_token(seq)
            if seq.is_finished:
                self.finish(seq)

    def finish(self, seq: Sequence) -> None:
        run_or_log(seq.store_prefix)
        super().finish(seq)

    def fail(self, seq: Sequence, error: Exception) -> None:
        if seq.first_candidate:  # its reply goes on with the other candidates
            log.info("a candidate of a reply is left out", exc_info=error)
            seq.first_candidate.leave_out(seq)
            return
        super().fail(seq, error)
