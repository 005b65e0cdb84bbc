"""Asks a llama.cpp server for the log-probabilities of given tokens, and for next tokens."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from personas.engine.effect_probe import TokenLogprobs
from personas.engine.remote.llamacpp_client import LlamaCppClient, ServedByLlamaCpp, likeliest
from personas.engine.remote.replica_health import cancel_tasks
from personas.engine.remote.vllm_client import LOAD_TIMEOUT_S
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import TokenizedReply

ALTERNATIVES = 5
MAX_LANES = 2
"""Slots that score replies at once. Each computes the beginning that all prompts share, the card: on
two cores with a 0.5B model, four slots took twice as long as two.
"""
T = TypeVar("T")


@dataclass(frozen=True)
class LlamaCppScorer:
    """Scores replies on one server. `files` are the LoRA files' names by the adapters' names;
    `is_whole` tells tokens that are whole characters.
    """

    client: LlamaCppClient
    served: ServedByLlamaCpp
    files: Mapping[str, str]
    is_whole: Callable[[int], bool]
    place: str

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        lanes = min(MAX_LANES, self.served.slots, len(replies))
        scored = await run_together(
            [self._score_lane(adapter, replies[lane::lanes], lane) for lane in range(lanes)]
        )
        return [scored[at % lanes][at // lanes] for at in range(len(replies))]

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        # The same slot for all adapters, so that a cache that is shared between them shows.
        body = self._body(adapter, slot=0, reads_cache=cached) | {
            "prompt": list(text), "n_predict": 1, "temperature": 0.0, "n_probs": ALTERNATIVES,
        }  # fmt: skip
        answer = await self.client.complete(body, LOAD_TIMEOUT_S)
        entries = answer.get("completion_probabilities") or ()
        return dict(likeliest(entries[0])) if entries else {}

    async def _score_lane(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply], slot: int
    ) -> list[TokenLogprobs]:
        """Score replies on one slot, one after the other."""
        scored: list[TokenLogprobs] = []
        for reply in replies:
            # The first one clears the slot, so that the others read what this adapter computed.
            body = self._body(adapter, slot, reads_cache=bool(scored))
            scored.append(
                await score_tokens(
                    self.client,
                    body,
                    text=reply.prompt,
                    tokens=reply.reply,
                    is_whole=self.is_whole,
                )
            )
        return scored

    def _body(self, adapter: AdapterRef | None, slot: int, reads_cache: bool) -> dict[str, Any]:
        file = self.files.get(adapter.name, "") if adapter else ""
        lora = self.served.lora(file)
        body: dict[str, Any] = {
            "id_slot": slot, "cache_prompt": reads_cache and self.served.keeps_apart,
        }  # fmt: skip
        return body | ({"lora": lora} if lora else {})


async def score_tokens(
    client: LlamaCppClient,
    body: Mapping[str, Any],
    *,
    text: Sequence[int],
    tokens: Sequence[int],
    is_whole: Callable[[int], bool],
    end_ids: Sequence[int] = (),
) -> TokenLogprobs:
    """Return the log-probability of each token after a text and the tokens before it. `body` names
    slot and adapters.

    A grammar of token ids (llama.cpp's `<[id]>`) has the server generate the tokens, and their
    log-probabilities are those of the model before the grammar. A grammar cannot ask for a control
    token or a part of a character: these have no log-probability here, but for one of `end_ids` at
    the end, which a server generates where a grammar ends.
    """
    scores: list[float | None] = []
    for begin, run in runs_of(tokens, is_whole):
        scores += [None] * (begin - len(scores))
        before = (*text, *tokens[:begin])
        after = tokens[begin + len(run) :]
        end = tuple(after) if len(after) == 1 and after[0] in end_ids else ()
        scores += await _score_run(client, {**body, "prompt": list(before)}, run, end)
    scores += [None] * (len(tokens) - len(scores))
    return tuple(scores)


async def _score_run(
    client: LlamaCppClient, body: Mapping[str, Any], run: Sequence[int], end: tuple[int, ...]
) -> list[float | None]:
    """Score tokens that are whole characters, and the end of the reply after them if there is
    one.
    """
    wanted = {
        **body,
        "samplers": [],
        "temperature": 0.0,
        "n_probs": 1,
        "n_predict": len(run) + len(end),
        "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in run),
    }
    answer = await client.complete(wanted, LOAD_TIMEOUT_S)
    entries = answer.get("completion_probabilities") or ()
    scores: list[float | None] = []
    for token, entry in zip((*run, *end), entries, strict=False):
        # Of several tokens that end a reply, the server takes the likeliest.
        scores.append(float(entry["logprob"]) if int(entry["id"]) == token else None)
    # The server tells none of a token that leaves the text within a character.
    if None in scores[: len(run)] or len(scores) < len(run):
        return [None] * (len(run) + len(end))
    return scores + [None] * (len(run) + len(end) - len(scores))


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


async def run_together(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await several at once; if one fails, the others are ended, and its error is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_tasks(tasks)
