"""One request on its way through the local engine: prompt, LoRA slot, KV cache and sampler state."""

from typing import Any

from personas.engine.lora_slots import LoraSlot
from personas.engine.model_runner import ModelRunner, ScheduledTokens
from personas.engine.reply_sequence import ReplySequence
from personas.engine.sampler import SampledToken, SamplerState


class Sequence(ReplySequence):
    """One request on its way through the engine. Used by the engine's thread.

    `start` sets `slot`, `runner`, `kv` and `started_at`. `last_token` is computed next; it is None until the whole
    prompt has been computed. `is_cacheable` allows the prefix cache to store the sequence's keys and values.
    """

    slot: LoraSlot
    runner: ModelRunner
    kv: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = SamplerState(self.request.sampling, self.seed, set(self.prompt))
        self.last_token: int | None = None
        self.is_cacheable = True

    def start(self, slot: LoraSlot, runner: ModelRunner, now: float) -> None:
        """Open a KV cache for the prompt and the longest reply."""
        self.slot, self.runner, self.started_at = slot, runner, now
        self.kv = runner.new_kv_cache(len(self.prompt) + self.request.sampling.max_new_tokens)

    @property
    def is_prefilling(self) -> bool:
        return self.last_token is None

    def next_tokens(self, limit: int) -> ScheduledTokens:
        """Schedule the last token, or while prefilling at most `limit` further tokens of the prompt."""
        if self.last_token is not None:
            return ScheduledTokens(self.kv, (self.last_token,), self.slot)
        computed = len(self.kv.tokens)
        tokens = self.prompt[computed : computed + limit]
        return ScheduledTokens(self.kv, tokens, self.slot, computed + len(tokens) == len(self.prompt))

    def append(self, sampled: SampledToken) -> None:
        self.last_token = sampled.token
        self.append_token(sampled.token, sampled.logprob, sampled.alternatives)

    def load_prefix(self) -> None:
        """Copy the longest cached prefix of the prompt into an empty KV cache."""
        if not self.kv.tokens and self.runner.prefixes:
            self.runner.prefixes.load_prefix(self.slot.name, self.prompt, self.kv)

    def store_prefix(self) -> None:
        if self.is_cacheable and self.runner.prefixes:
            self.runner.prefixes.store(self.slot.name, self.kv)
