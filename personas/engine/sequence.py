"""A sequence of the local engine: a request with its LoRA slot, KV cache and sampler."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from personas.engine.lora_slots import LoraSlot
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.engine.reply_sequence import ReplySequence
from personas.engine.sampler import SampledToken, SamplerState


class Sequence(ReplySequence):
    """One request on its way through the engine. Used by the engine's thread.

    `start` sets `slot`, `runner`, `kv`, `sampler` and `started_at`. `last_token` is computed next;
    it is None until the whole prompt has been computed. `is_cacheable` allows the prefix cache to
    store the sequence's keys and values.

    While the reply's beginning is chosen (candidates.py), the sequence is its first candidate:
    `other_candidates` are the other ones, and each of them has it as `first_candidate`. A candidate
    is computed up to `candidate_tokens`; None for a sequence that is no candidate. `is_redrawn`: the
    other ones have been drawn again. `card_prompt` is the card's prompt without the talk.

    A reply that is guided (guidance.py) has the tokens of the talk without the persona,
    `negative_prompt`, whose keys and values are in `negative_kv`. It has no candidates.
    """

    slot: LoraSlot
    runner: ModelRunner
    kv: Any
    sampler: SamplerState
    last_token: int | None = None
    is_cacheable: bool = True
    card_prompt: tuple[int, ...] = ()
    negative_prompt: tuple[int, ...] = ()
    negative_kv: Any = None
    first_candidate: "Sequence | None" = None
    other_candidates: tuple["Sequence", ...] = ()
    candidate_tokens: int | None = None
    is_redrawn: bool = False

    def start(self, slot: LoraSlot, runner: ModelRunner, now: float) -> None:
        """Open a KV cache for the prompt and the longest reply."""
        sampling = self.request.sampling
        self.slot = slot
        self.runner = runner
        self.started_at = now
        self.kv = runner.new_kv_cache(self.capacity_tokens)
        if self.negative_prompt:
            self.negative_kv = runner.new_kv_cache(self.negative_capacity_tokens)
        if sampling.candidates > 1:
            sampling = replace(sampling, logprobs=True)  # candidates are compared by them
        self.sampler = SamplerState(sampling, self.seed, set(self.prompt))

    @property
    def capacity_tokens(self) -> int:
        """Number of tokens of the prompt and the longest reply."""
        return len(self.prompt) + self.request.sampling.max_new_tokens

    @property
    def negative_capacity_tokens(self) -> int:
        """Number of tokens of the negative prompt and the longest reply; 0 without guidance."""
        if not self.negative_prompt:
            return 0
        return len(self.negative_prompt) + self.request.sampling.max_new_tokens

    @property
    def is_prefilling(self) -> bool:
        return self.last_token is None

    @property
    def prompt_tokens_left(self) -> int:
        """Number of the prompt's tokens that have not been computed."""
        return len(self.prompt) - len(self.kv.tokens) if self.is_prefilling else 0

    def next_tokens(self, limit: int) -> ScheduledTokens:
        """Schedule the last token, or while prefilling at most `limit` further tokens of the
        prompt.
        """
        if self.last_token is not None:
            return self._guided(ScheduledTokens(self.kv, (self.last_token,), self.slot))
        computed = len(self.kv.tokens)
        tokens = self.prompt[computed : computed + limit]
        completes_prompt = computed + len(tokens) == len(self.prompt)
        scheduled = ScheduledTokens(self.kv, tokens, self.slot, logits=int(completes_prompt))
        return self._guided(scheduled) if completes_prompt else scheduled

    def _guided(self, scheduled: ScheduledTokens) -> ScheduledTokens:
        """Add the negative of a guided reply: its prompt at first, all at once, then each token."""
        if self.negative_prompt:
            tokens = scheduled.tokens if self.negative_kv.tokens else self.negative_prompt
            scheduled.negative = ScheduledTokens(self.negative_kv, tokens, self.slot)
            scheduled.guidance_scale = self.request.guidance_scale
        return scheduled

    def append(self, sampled: SampledToken) -> None:
        self.last_token = sampled.token
        self.append_token(sampled.token, sampled.logprob, sampled.alternatives)

    @property
    def is_candidate(self) -> bool:
        """True while the beginning of its reply is chosen."""
        return self.candidate_tokens is not None

    @property
    def needs_token(self) -> bool:
        """False for a candidate that is long enough to be compared."""
        if self.candidate_tokens is None:
            return True
        return not super().is_finished and self._detokenizer.tokens < self.candidate_tokens

    @property
    def is_finished(self) -> bool:
        """True once the reply stopped, reached its length or was cancelled. A candidate ends with
        the choice, and the first one when its request is cancelled.
        """
        if self.first_candidate or (self.is_candidate and not self.is_cancelled):
            return False
        return super().is_finished

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._detokenizer.text

    @property
    def has_stopped(self) -> bool:
        """True once the text has its end, and not for its length."""
        return self._detokenizer.stopped

    @property
    def reply_ids(self) -> list[int]:
        """All sampled tokens."""
        ids: list[int] = self.kv.tokens[len(self.prompt) :]
        return ids if self.last_token is None else [*ids, self.last_token]

    @property
    def reply_logprob(self) -> float:
        """Sum of the log-probabilities of the sampled tokens."""
        return sum(self._logprobs)

    def fork(self, seed: int) -> "Sequence":
        """Return a sequence that continues the same prompt with another seed.

        It computes the last token of the prompt again, because its logits are not stored.
        """
        other = Sequence(
            self.request, self.prompt, seed, sink=self._sink, detokenizer=self._detokenizer.fork()
        )
        other.start(self.slot, self.runner, self.started_at)
        other.kv.copy_from(self.kv, len(self.prompt) - 1)
        other.is_cacheable = False
        return other

    def encode(self, texts: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of texts."""
        return tuple(self._detokenizer.encode(text) for text in texts)

    def begin_choice(self, others: tuple["Sequence", ...], candidate_tokens: int) -> None:
        """Become the first candidate beside these forks, and stream no text until the choice."""
        self.other_candidates = others
        self.candidate_tokens = candidate_tokens
        self._detokenizer.is_held = True
        for other in others:
            other.first_candidate = self
            other.candidate_tokens = candidate_tokens

    def leave_out(self, other: "Sequence") -> None:
        """Remove one of the other candidates."""
        self.other_candidates = tuple(seq for seq in self.other_candidates if seq is not other)

    def end_choice(self, best: "Sequence", compared: int = 1) -> None:
        """Continue as the best candidate (itself or a fork), and stream its text."""
        self.candidate_count = compared
        self.other_candidates = ()
        self.candidate_tokens = None
        self.kv = best.kv
        self.sampler = best.sampler
        self.last_token = best.last_token
        self._detokenizer = best._detokenizer
        self._tokens = best._tokens
        self._logprobs = best._logprobs
        self._detokenizer.release()

    def finish(self) -> None:
        """Deliver the reply; one that ends before the choice is its first candidate."""
        if self.is_candidate:
            self.end_choice(self)
        super().finish()

    def load_prefix(self) -> None:
        """Copy the longest cached prefix of the prompt into an empty KV cache."""
        if not self.kv.tokens and self.runner.prefixes:
            self.runner.prefixes.load_prefix(self.slot.name, self.prompt, self.kv)

    def store_prefix(self) -> None:
        if self.is_cacheable and self.runner.prefixes:
            self.runner.prefixes.store(self.slot.name, self.kv)
