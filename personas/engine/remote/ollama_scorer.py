"""Asks an Ollama server for the log-probabilities of given tokens, and for next tokens.

Ollama tells the 20 likeliest tokens at the place of a new one (since 0.12.11), and not those of a
prompt. Each token of a reply that is scored is therefore a request of its own, whose prompt ends
before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.engine.effect_probe import TokenLogprobs
from personas.engine.remote.ollama_client import (
    OllamaClient,
    ServedByOllama,
    logprobs_of,
    raw_body,
)
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import TokenizedReply

MAX_ALTERNATIVES = 20
MAX_SCORED_TOKENS = 16
"""Tokens of a reply that are scored, spread over it."""
NEXT_TOKENS = 5
KEEP_ALIVE_S = 300


@dataclass(frozen=True)
class OllamaScorer:
    """Scores replies on one server. `model_of` names the model of an adapter, None that of the base;
    `text_of` returns the text that the server splits into these tokens, or None.
    """

    client: OllamaClient
    served: ServedByOllama
    model_of: Callable[[AdapterRef | None], str]
    text_of: Callable[[Sequence[int]], str | None]
    piece_of: Callable[[int], str]
    encode: Callable[[str], Sequence[int]]
    place: str

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        return [await self._score(self.model_of(adapter), reply) for reply in replies]

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        """As the protocol says, but through the cache in both cases: Ollama runs a process for each
        model, so that no cache is shared between two.
        """
        prompt = self.text_of(text)
        if prompt is None:
            return {}
        found: dict[int, float] = {}
        for entry in (await self._likeliest(self.model_of(adapter), prompt))[:NEXT_TOKENS]:
            ids = self.encode(str(entry["token"]))
            if len(ids) == 1:
                found[ids[0]] = float(entry["logprob"])
        return found

    async def _score(self, model: str, reply: TokenizedReply) -> TokenLogprobs:
        scores: list[float | None] = [None] * len(reply.reply)
        step = -(-len(reply.reply) // MAX_SCORED_TOKENS)
        for at in range(0, len(reply.reply), step):
            text = self.text_of((*reply.prompt, *reply.reply[:at]))
            if text is None:  # the server would split it otherwise
                continue
            piece = self.piece_of(reply.reply[at])
            for entry in await self._likeliest(model, text):
                if entry["token"] == piece:
                    scores[at] = min(0.0, float(entry["logprob"]))
        return tuple(scores)

    async def _likeliest(self, model: str, text: str) -> Sequence[Mapping[str, Any]]:
        options = {
            "num_predict": 1,
            "temperature": 0.0,
            "repeat_penalty": 1.0,
            "num_ctx": self.served.max_tokens,
        }
        body = raw_body(model, text, options) | {
            "logprobs": True,
            "top_logprobs": MAX_ALTERNATIVES,
            "keep_alive": f"{KEEP_ALIVE_S}s",
        }
        return logprobs_of(await self.client.generate_whole(body))
