"""Asks a llama.cpp server for the log-probabilities of given replies, and for next tokens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.engine.effect_probe import TokenLogprobs
from personas.engine.remote.llamacpp_client import LlamaCppClient, ServedByLlamaCpp, likeliest
from personas.engine.remote.vllm_client import LOAD_TIMEOUT_S
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import TokenizedReply

ALTERNATIVES = 5


@dataclass(frozen=True)
class LlamaCppScorer:
    """Scores replies on one server. `files` are the LoRA files' names by the adapters' names;
    `is_whole` tells tokens that
    are whole characters.

    A grammar of token ids (llama.cpp's `<[id]>`) has the server generate a given reply, and the
    log-probability of each token is that of the model before the grammar. A grammar cannot ask for
    a control token or a part of a character: these have no log-probability here.
    """

    client: LlamaCppClient
    served: ServedByLlamaCpp
    files: Mapping[str, str]
    is_whole: Callable[[int], bool]
    place: str

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        return [await self._score(adapter, reply) for reply in replies]

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        body = self._body(adapter, text) | {
            "n_predict": 1,
            "temperature": 0.0,
            "n_probs": ALTERNATIVES,
            "cache_prompt": cached and self.served.keeps_apart,
        }
        answer = await self.client.complete(body, LOAD_TIMEOUT_S)
        entries = answer.get("completion_probabilities") or ()
        return dict(likeliest(entries[0])) if entries else {}

    async def _score(self, adapter: AdapterRef | None, reply: TokenizedReply) -> TokenLogprobs:
        scores: list[float | None] = []
        for begin, run in runs_of(reply.reply, self.is_whole):
            scores += [None] * (begin - len(scores))
            text = (*reply.prompt, *reply.reply[:begin])
            scores += await self._score_run(adapter, text, run)
        scores += [None] * (len(reply.reply) - len(scores))
        return tuple(scores)

    async def _score_run(
        self, adapter: AdapterRef | None, text: Sequence[int], run: Sequence[int]
    ) -> list[float | None]:
        """Score tokens after a text, all of them whole characters."""
        body = self._body(adapter, text) | {
            "n_predict": len(run),
            "temperature": 0.0,
            "n_probs": 1,
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in run),
            "cache_prompt": False,
        }
        answer = await self.client.complete(body, LOAD_TIMEOUT_S)
        entries = answer.get("completion_probabilities") or ()
        scores: list[float | None] = [float(entry["logprob"]) for entry in entries]
        # The server tells none of a token that leaves the text within a character.
        if [int(entry["id"]) for entry in entries] != list(run):
            return [None] * len(run)
        return scores

    def _body(self, adapter: AdapterRef | None, text: Sequence[int]) -> dict[str, Any]:
        file = self.files.get(adapter.name, "") if adapter else ""
        lora = self.served.lora(file)
        # The same slot for all adapters, so that a cache that is shared between them shows.
        body: dict[str, Any] = {"prompt": list(text), "id_slot": 0, "samplers": []}
        return body | ({"lora": lora} if lora else {})


def runs_of(
    tokens: Sequence[int], is_whole: Callable[[int], bool]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the runs of tokens that are whole characters, each with the place of its first token."""
    run: list[int] = []
    for at, token in enumerate(tokens):
        if is_whole(token):
            run.append(token)
        elif run:
            yield at - len(run), tuple(run)
            run = []
    if run:
        yield len(tokens) - len(run), tuple(run)
