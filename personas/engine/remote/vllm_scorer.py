"""Asks a vLLM server for the log-probabilities of given replies, and for next tokens through its
prefix cache.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from personas.engine.effect_probe import TokenLogprobs
from personas.engine.remote.vllm_client import START_METRIC, VllmClient
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import STARTED_AT, TokenizedReply

ALTERNATIVES = 5


@dataclass(frozen=True)
class VllmScorer:
    """Scores replies on one server. `base` is the base model's name there, `salt` that of served
    replies' prompts.
    """

    client: VllmClient
    base: str
    salt: str
    place: str

    @classmethod
    async def of(cls, client: VllmClient, salt: str) -> Self:
        """Ask a server for its base model and when it was started. Raises `VllmError`."""
        served = await client.models()
        started_at = await client.metric(START_METRIC)
        place = f"vllm {client.url}{STARTED_AT}{started_at or 0:.0f}"
        return cls(client, served.base, salt, place)

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        scores: list[TokenLogprobs] = []
        # One at a time: vLLM on a CPU ends at a batch of prompts whose log-probabilities are wanted
        # under an adapter.
        for reply in replies:
            # Their own salt: vLLM reads no cache for such requests, but fills one.
            logprobs = await self.client.prompt_logprobs(
                self._model(adapter),
                prompt=(*reply.prompt, *reply.reply),
                salt=secrets.token_urlsafe(16),
            )
            scores.append(logprobs[len(reply.prompt) :])
        return scores

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        body = {
            "model": self._model(adapter),
            "prompt": list(text),
            "max_tokens": 1,
            "temperature": 0.0,
            "ignore_eos": True,
            "logprobs": ALTERNATIVES,
            "return_tokens_as_token_ids": True,
            "cache_salt": self.salt if cached else secrets.token_urlsafe(16),
        }
        tokens: dict[int, float] = {}
        async with aclosing(self.client.generate(body)) as chunks:
            async for chunk in chunks:
                for alternatives in chunk.alternatives[:1]:
                    tokens |= dict(alternatives)
        return tokens

    def _model(self, adapter: AdapterRef | None) -> str:
        return adapter.name if adapter else self.base
