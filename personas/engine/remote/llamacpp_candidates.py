"""Candidates for the beginning of a reply on a llama.cpp server, by the local engine's criterion
(`personas.engine.beginning_score`).

One request samples all of them: the server computes the prompt once, and copies its keys and values
(`n_cmpl`). Then a request for each has the server generate it after the card's prompt, all of them
in one batch.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from personas.engine.beginning_score import beginning_score
from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.effect_probe import TokenLogprobs
from personas.engine.remote.llamacpp_client import LlamaCppClient
from personas.engine.remote.llamacpp_scorer import run_together, score_tokens
from personas.engine.remote.vllm_client import TokenChunk


@dataclass
class Candidate:
    """A candidate: what the server sent of it, and its tokens up to the end of the reply, with
    their log-probabilities (None where the server tells none).
    """

    detokenizer: StreamingDetokenizer
    chunks: list[TokenChunk] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)

    def receive(self, chunk: TokenChunk) -> None:
        self.chunks.append(chunk)
        tokens = chunk.tokens
        logprobs: Sequence[float | None] = chunk.logprobs
        if chunk.text is not None:
            tokens = self.detokenizer.encode(chunk.text)
            logprobs = ()
        for at, token in enumerate(tokens):
            if self.detokenizer.stopped:
                return
            self.detokenizer.append(token)
            self.tokens.append(token)
            self.logprobs.append(logprobs[at] if logprobs else None)

    def score(self, card_logprobs: TokenLogprobs) -> float | None:
        """Return the score over the tokens whose log-probabilities are known of both sides; None
        without any.
        """
        pairs = []
        for talk, card in zip(self.logprobs, card_logprobs, strict=True):
            if talk is not None and card is not None:
                pairs.append((talk, card))
        if not pairs:
            return None
        return beginning_score(
            sum(talk for talk, _ in pairs), sum(card for _, card in pairs), len(pairs)
        )


@dataclass(frozen=True)
class CardScorer:
    """Scores candidates after a card's prompt on one server. `lora` is the complete list of its
    adapters; `is_whole` tells tokens that are whole characters, `end_ids` end a reply.
    """

    client: LlamaCppClient
    adapter: str
    card_prompt: tuple[int, ...]
    lora: list[dict[str, float]]
    is_whole: Callable[[int], bool]
    end_ids: tuple[int, ...]

    async def best(self, candidates: Sequence[Candidate], timeout_s: float) -> Candidate:
        """Return the candidate with the highest score. Raises `TimeoutError` and `VllmError`."""
        scores: list[float | None] = []
        with ExitStack() as slots:
            requests = []
            for candidate in candidates:
                slot = slots.enter_context(
                    self.client.slots.cards.use(self.adapter, self.card_prompt)
                )
                body = {"id_slot": slot.number, "cache_prompt": slot.reads_cache}
                requests.append(self._logprobs(body, candidate.tokens))
            async with asyncio.timeout(timeout_s):
                for candidate, told in zip(candidates, await run_together(requests), strict=True):
                    scores.append(candidate.score(told))
        known = [score for score in scores if score is not None]
        return candidates[scores.index(max(known))] if known else candidates[0]

    async def _logprobs(self, body: Mapping[str, Any], tokens: Sequence[int]) -> TokenLogprobs:
        wanted = {**body, "lora": self.lora} if self.lora else body
        return await score_tokens(
            self.client,
            wanted,
            text=self.card_prompt,
            tokens=tokens,
            is_whole=self.is_whole,
            end_ids=self.end_ids,
        )
