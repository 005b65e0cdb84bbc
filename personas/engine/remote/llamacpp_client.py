"""HTTP client of a llama.cpp server, and the checks that it serves our base model (written for
llama.cpp b11549).
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import aiohttp

from personas.engine.remote.llamacpp_slots import (
    ServerSlots,
    possible_candidates,
    reserved_slots,
)
from personas.engine.remote.sampling_names import LLAMACPP_NAMES, SamplingNames
from personas.engine.remote.server_checks import (
    PICTURES_ARE_SEEN,
    PROBE_TEXT,
    ExpectedModel,
    ServerCheck,
    Topic,
    failed_check,
    limited,
)
from personas.engine.remote.server_errors import FOREIGN_ERRORS, ReplicaError, VllmError
from personas.engine.remote.vllm_client import (
    CALL_TIMEOUT_S,
    ServedModels,
    ServerAnswer,
    TokenChunk,
    VllmClient,
    read_answer,
)
from personas.errors import UnderstudyError
from personas.schemas.chat import VisionSetting

COMPLETION_PATH = "/completion"
FINISH_REASONS = {"eos": "stop", "word": "stop", "limit": "length", "none": "stop"}
"""Reasons by llama.cpp's `stop_type`."""
CACHE_PROBE_TOKENS = 24


@dataclass(frozen=True)
class ServedByLlamaCpp(ServedModels):
    """A server's base model, slots and adapters: paths by the files' names in `adapters`, and their
    numbers at the server in `ids`, which also has those that are not ours.

    `keeps_apart`: its caches are not shared between adapters. Replies begin among `candidates`, 1
    where it has no slots for more. `media_marker` stands for a picture in a prompt's text; it is
    empty where the model sees none. `adds_bos`: it puts a token before a prompt that is text.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    slots: int = 1
    keeps_apart: bool = True
    candidates: int = 1
    media_marker: str = ""
    adds_bos: bool = False

    @property
    def sampling_names(self) -> SamplingNames:
        return LLAMACPP_NAMES

    @property
    def rows(self) -> int:
        """Number of replies at once."""
        return self.slots - reserved_slots(self.candidates)

    def lora(self, file: str) -> list[dict[str, float]]:
        """Return the complete list of adapters with one at scale 1, all others at 0; none at 1 if
        `file` is empty. A request without the list would get the server's own scales.
        """
        return [
            {"id": number, "scale": float(name == file)}
            for name, number in sorted(self.ids.items(), key=lambda item: item[1])
        ]


class LlamaCppClient(VllmClient):
    """Calls one llama.cpp server. `slots` are those that its check counted."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        super().__init__(url, session)
        self.slots = ServerSlots(1)

    async def check_health(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Raise `ReplicaError` unless the server is alive and has loaded its model."""
        answer = await self._call("GET", "/health", timeout_s=timeout_s)
        if answer.status == 503:
            raise ReplicaError(f"{self.url} is still loading its model.", "Wait.", "gone")
        if answer.status != 200:
            raise self._status_error(answer)

    async def models(self) -> ServedByLlamaCpp:
        """Return the base model, the slots and the adapters."""
        props = await self._expect_json("GET", "/props")
        listed = (await self._call("GET", "/lora-adapters")).body
        try:
            settings = props["default_generation_settings"]
            path = str(props["model_path"])
            ids = {PurePath(entry["path"]).name: int(entry["id"]) for entry in listed}
            paths = {PurePath(entry["path"]).name: str(entry["path"]) for entry in listed}
            if len(ids) != len(listed):
                raise VllmError(
                    f"{self.url} has two adapters of one file name.", "Start it with each once."
                )
            return ServedByLlamaCpp(
                base=path,
                root=path,
                max_tokens=int(settings["n_ctx"]),
                adapters=paths,
                ids=ids,
                slots=int(props["total_slots"]),
                media_marker=_media_marker(props),
            )
        except FOREIGN_ERRORS as error:
            raise self._foreign_answer("/props") from error

    async def vocabulary(self) -> int | None:
        """Return the number of tokens of the model's vocabulary; None if the server does not say."""
        answer = await self._expect_json("GET", "/v1/models")
        try:
            return int(answer["data"][0]["meta"]["n_vocab"])
        except FOREIGN_ERRORS:
            return None

    async def tokenize(self, model: str, text: str) -> tuple[int, ...]:
        body = {"content": text, "add_special": False, "parse_special": False}
        answer = await self._expect_json("POST", "/tokenize", body)
        if not isinstance(answer.get("tokens"), list):
            raise self._foreign_answer("/tokenize")
        return tuple(answer["tokens"])

    async def adds_bos(self) -> bool:
        """Report whether the server puts a token before a prompt that is text."""
        answer = await self._expect_json("POST", "/tokenize", {"content": "", "add_special": True})
        return bool(answer.get("tokens"))

    async def complete(self, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Return a completion as a whole."""
        answer = await self._call("POST", COMPLETION_PATH, body, timeout_s)
        if answer.status != 200:
            raise self._status_error(answer)
        if not isinstance(answer.body, dict):
            raise self._foreign_answer(COMPLETION_PATH)
        return answer.body

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream a completion; closing the iterator cancels it.

        A chunk with `text` and without `tokens` has several tokens, whose ids the server left out:
        it sends a character of several tokens with its last one.
        """
        async with aclosing(self.generate_several(body)) as chunks:
            async for _, chunk in chunks:
                yield chunk

    async def generate_several(
        self, body: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, TokenChunk], None]:
        """Stream `n_cmpl` completions (1) of a prompt, which is computed once: yields each chunk
        with the number of its completion.
        """
        # The progress of a long prompt shows that the server has not stalled.
        wanted = {**body, "stream": True, "return_tokens": True, "return_progress": True}
        running = set(range(body.get("n_cmpl", 1)))
        sent: Counter[int] = Counter()
        try:
            async with self._session.post(
                f"{self.url}{COMPLETION_PATH}", json=wanted, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise self._completion_error(await read_answer(response), "")
                async with aclosing(self._events(response.content)) as events:
                    async for event in events:
                        number = int(event["index"])
                        chunk = _chunk(event, sent[number])
                        if "prompt_progress" not in event:
                            sent[number] = int(event["tokens_predicted"])
                        yield number, chunk
                        if chunk.finish:
                            running.discard(number)
                        if not running:
                            return
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from error
        except FOREIGN_ERRORS as error:
            what = f"{self.url} sent what is no part of a reply ({type(error).__name__}: {error})."
            raise ReplicaError(what, self.advice) from error

    def _foreign_answer(self, path: str) -> VllmError:
        return VllmError(
            f"{self.url}{path} does not answer as a llama.cpp server does.", "Check ENGINE_URLS."
        )

    def _completion_error(self, answer: ServerAnswer, model: str) -> UnderstudyError:
        return self._status_error(answer)


def _media_marker(props: Mapping[str, Any]) -> str:
    """Return what stands for a picture in a prompt's text; empty where the model sees none."""
    sees = (props.get("modalities") or {}).get("vision")
    return str(props.get("media_marker") or "") if sees else ""


def _chunk(event: Mapping[str, Any], sent: int) -> TokenChunk:
    """Parse an event of a stream after `sent` tokens."""
    if event["stop"]:
        return TokenChunk((), finish=FINISH_REASONS[event["stop_type"]])
    if "prompt_progress" in event:
        return TokenChunk(())
    tokens = tuple(event["tokens"])
    if int(event["tokens_predicted"]) - sent > len(tokens):
        return TokenChunk((), text=str(event["content"]))
    probabilities = event.get("completion_probabilities")
    if not probabilities:
        return TokenChunk(tokens)
    return TokenChunk(
        tokens,
        logprobs=tuple(float(entry["logprob"]) for entry in probabilities),
        alternatives=tuple(likeliest(entry) for entry in probabilities),
    )


def likeliest(entry: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens at a position with their log-probabilities."""
    return tuple((int(top["id"]), float(top["logprob"])) for top in entry["top_logprobs"])


@dataclass(frozen=True)
class LlamaCppChecker:
    """Checks that servers serve `expected` in contexts that are long enough, and among how many
    candidates, at most `candidates`, they can choose beside `rows` replies at once. `vision` is
    VISION: a server tells whether its model sees pictures.
    """

    expected: ExpectedModel
    rows: int = 1
    candidates: int = 1
    vision: VisionSetting = "auto"

    async def check(self, client: VllmClient) -> ServedByLlamaCpp:
        """Check the model, its tokenizer and its caches. Raises `VllmError`."""
        assert isinstance(client, LlamaCppClient)
        async with limited(client):
            served = await client.models()
            await self._require_model(client, served)
            need = self.expected.context_tokens
            if served.max_tokens < need:
                raise VllmError(
                    f"{client.url} takes {served.max_tokens} tokens in a slot; a prompt and its "
                    f"reply have {need}.",
                    f"Start it with -c {need * served.slots} or more for {served.slots} slots.",
                )
            keeps_apart = await self._keeps_caches_apart(client, served)
            marker = "" if self.vision == "off" else served.media_marker
            adds_bos = bool(marker) and await client.adds_bos()
        candidates = 1
        if keeps_apart:
            candidates = possible_candidates(served.slots, self.rows, self.candidates)
        client.slots = ServerSlots(served.slots, candidates)
        return replace(
            served,
            keeps_apart=keeps_apart,
            candidates=candidates,
            media_marker=marker,
            adds_bos=adds_bos,
            sees_pictures=bool(marker),
        )

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""
        checks = list[ServerCheck]()
        topics: tuple[Topic, ...] = ("model", "prompts")
        try:
            served = await self.check(client)
        except VllmError as error:
            return [failed_check(client, topics[len(checks)], error)]
        size = f"{served.root}, {served.slots} slots of {served.max_tokens} tokens"
        checks.append(ServerCheck(client.url, "model", "ok", size))
        checks.append(ServerCheck(client.url, "prompts", "ok", "token ids"))
        if served.sees_pictures:
            checks.append(ServerCheck(client.url, "prompts", "ok", PICTURES_ARE_SEEN))
        if not served.keeps_apart:
            shared = ServerCheck(
                client.url,
                topic="prompts",
                state="warn",
                found="its cache is shared between adapters, so each prompt is computed anew",
                remedy="start it with --cache-ram 0",
            )
            checks.append(shared)
        checks.append(self._candidates_check(client, served))
        return checks

    def _candidates_check(self, client: VllmClient, served: ServedByLlamaCpp) -> ServerCheck:
        found = candidates_text(self.candidates)
        if served.candidates == self.candidates:
            return ServerCheck(client.url, "candidates", "ok", found)
        found = f"replies begin among {served.candidates} candidates, not {self.candidates}"
        if served.candidates == 1:
            found = "the beginnings of replies are not chosen among candidates"
        remedy = "start it with --cache-ram 0"
        if served.keeps_apart:
            slots = self.rows + reserved_slots(self.candidates)
            remedy = f"start it with --parallel {slots} --kv-unified, or lower ENGINE_ROWS"
        return ServerCheck(client.url, "candidates", "warn", found, remedy)

    async def _require_model(self, client: LlamaCppClient, served: ServedByLlamaCpp) -> None:
        expected = self.expected
        why = ""
        vocabulary = await client.vocabulary()
        if vocabulary is not None and vocabulary != expected.max_token_id + 1:
            why = f"its vocabulary has {vocabulary} tokens, not {expected.max_token_id + 1}"
        elif await client.tokenize(served.base, PROBE_TEXT) != expected.probe_ids:
            why = "it has another tokenizer"
        if why:
            raise VllmError(
                f"{client.url} serves {served.root}, which is not {expected.base.name}: {why}.",
                "Start it with a GGUF file of the model that BASE_MODEL names, or change "
                "BASE_MODEL.",
            )

    async def _keeps_caches_apart(self, client: LlamaCppClient, served: ServedByLlamaCpp) -> bool:
        """Find out whether a prompt that the base model has computed is read for an adapter.

        The server's cache of prompts in memory (`--cache-ram`) holds them without their adapter, and
        a slot takes over the most similar one when its own prompt changes.
        """
        if not served.ids:
            return True
        text = self.expected.probe_ids[:CACHE_PROBE_TOKENS]
        other = text[::-1]
        first = served.lora("")
        second = served.lora(next(iter(served.ids)))
        requests = ((text, first), (other, first), (text, second))
        read = 0
        for prompt, lora in requests:
            answer = await client.complete(_cache_probe(prompt, lora), CALL_TIMEOUT_S)
            read = int((answer.get("timings") or {}).get("cache_n", 0))
        return read == 0


def candidates_text(candidates: int) -> str:
    """Say for people among how many candidates replies begin at most."""
    if candidates > 1:
        return f"the beginnings of replies are chosen among up to {candidates} candidates"
    return (
        "the beginnings of replies are not chosen among candidates, which would delay the first "
        "words; REPLY_CANDIDATES=4 has four compared"
    )


def _cache_probe(prompt: Sequence[int], lora: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "prompt": list(prompt), "n_predict": 1, "temperature": 0, "id_slot": 0, "cache_prompt": True,
        "lora": lora,
    }  # fmt: skip
