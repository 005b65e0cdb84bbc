"""HTTP client of an Ollama server, and the checks that it computes our prompts (written for the API
of Ollama 0.33 and of its main branch in September 2026).
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from personas.engine.remote.openai_client import ServedByOpenAI
from personas.engine.remote.server_checks import (
    PROBE_TEXT,
    ExpectedModel,
    ServerCheck,
    failed_check,
    limited,
)
from personas.engine.remote.server_errors import (
    FOREIGN_ERRORS,
    ReplicaError,
    VllmError,
    error_text,
)
from personas.engine.remote.vllm_client import (
    CALL_TIMEOUT_S,
    MAX_EVENT_BYTES,
    ServerAnswer,
    TokenChunk,
    VllmClient,
    read_answer,
)
from personas.errors import UnderstudyError
from personas.gettext_marker import gettext_noop

GENERATE_PATH = "/api/generate"
TRANSFER_TIMEOUT_S = 600.0
"""The server may be silent for so long while it takes or checks a file of several gigabytes."""
GENERATE_TIMEOUT_S = 600.0
"""The first request of a model loads it; Ollama itself gives up after 5 minutes of standstill."""
OLDEST_VERSION = "0.12.11"
"""The first release that tells log-probabilities."""
OUT_OF_MEMORY = ("more system memory", "out of memory", "cudaMalloc failed", "insufficient memory")
MEMORY_ADVICE = (
    "Free memory, lower CONTEXT_TOKENS, take a smaller base model, or serve with ENGINE=llamacpp, "
    "which holds the base model once for all versions."
)


class OllamaMemoryError(VllmError):
    """Ollama has no memory for a model. Other models may go on."""

    member_text = gettext_noop("This machine has no memory for the model now. Tell the operator.")


class ModelGoneError(ReplicaError):
    """A model that was deleted at the server: its check makes it again."""


@dataclass(frozen=True)
class ServedByOllama(ServedByOpenAI):
    """The base model at a server. `adds_bos`: the server begins prompts with the tokenizer's first
    token itself.
    """

    adds_bos: bool = False


class OllamaClient(VllmClient):
    """Calls one Ollama server."""

    async def check_health(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        await self.version(timeout_s)

    async def version(self, timeout_s: float = CALL_TIMEOUT_S) -> str:
        answer = await self._call("GET", "/api/version", timeout_s=timeout_s)
        if answer.status != 200:
            raise self._status_error(answer)
        if not isinstance(answer.body, dict) or "version" not in answer.body:
            raise self._foreign_answer("/api/version")
        return str(answer.body["version"])

    async def model_sizes(self) -> dict[str, int]:
        """Return the bytes on disk of the models by name."""
        return await self._sizes("/api/tags")

    async def loaded_sizes(self) -> dict[str, int]:
        """Return the bytes in memory of the models that are loaded, by name."""
        return await self._sizes("/api/ps")

    async def _sizes(self, path: str) -> dict[str, int]:
        answer = await self._expect_json("GET", path)
        try:
            return {str(model["name"]): int(model["size"]) for model in answer["models"] or ()}
        except FOREIGN_ERRORS as error:
            raise self._foreign_answer(path) from error

    async def upload(self, file: Path, digest: str) -> None:
        """Upload a file unless the server has it. `digest` is its SHA-256 in hexadecimal."""
        path = f"/api/blobs/sha256:{digest}"
        if (await self._call("HEAD", path)).status == 200:
            return
        answer = await self._transfer(path, file.open("rb"))
        if answer.status not in (200, 201):
            raise self._status_error(answer)

    async def create(self, model: str, digest: str) -> None:
        """Make a model of an uploaded GGUF file. Raises `VllmError` if the server makes none."""
        body = {"model": model, "files": {"model.gguf": f"sha256:{digest}"}, "stream": False}
        answer = await self._transfer("/api/create", json.dumps(body).encode())
        is_made = isinstance(answer.body, dict) and answer.body.get("status") == "success"
        if answer.status == 200 and is_made:
            return
        if answer.status == 200:
            why = error_text(answer.body)
            raise VllmError(f"{self.url} does not make the model {model}: {why}", "See its log.")
        raise self._status_error(answer)

    async def delete(self, model: str) -> None:
        """Delete a model, which may be gone already."""
        answer = await self._call("DELETE", "/api/delete", {"model": model})
        if answer.status not in (200, 404):
            raise self._status_error(answer)

    async def unload(self, model: str) -> None:
        """Have the server end a model's process, with the prompts that it keeps."""
        await self.generate_whole({"model": model, "prompt": "", "keep_alive": 0})

    async def generate_whole(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a reply as a whole. Raises what `generate` does."""
        answer = await self._call(
            "POST", GENERATE_PATH, {**body, "stream": False}, GENERATE_TIMEOUT_S
        )
        if answer.status != 200:
            raise self._completion_error(answer, str(body["model"]))
        if not isinstance(answer.body, dict):
            raise self._foreign_answer(GENERATE_PATH)
        return answer.body

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream a reply; closing the iterator cancels it.

        Raises `ModelGoneError` for a model that is not there, and `OllamaMemoryError`.
        """
        async with aclosing(self._stream(GENERATE_PATH, {**body, "stream": True})) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _events(
        self, content: aiohttp.StreamReader
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the JSON objects of a stream, one a line, up to the one that is done."""
        rest = b""
        while data := await content.readany():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line.strip():
                    continue
                event = json.loads(line)
                if event.get("error"):
                    status = event.get("status")  # of Ollama's own, which its answer has not
                    code = status if isinstance(status, int) else 500
                    raise self._completion_error(ServerAnswer(code, event), "")
                yield {"choices": (event,)}
                if event.get("done"):
                    return
            if len(rest) > MAX_EVENT_BYTES:
                what = f"{self.url} sent a line of over {MAX_EVENT_BYTES:,} bytes."
                raise ReplicaError(what, self.advice)
        raise ReplicaError(f"{self.url} broke off a reply.")

    def _chunk(self, choice: Mapping[str, Any]) -> TokenChunk:
        finish = str(choice.get("done_reason") or "stop") if choice["done"] else None
        return TokenChunk((), finish=finish, text=str(choice["response"]))

    async def _transfer(self, path: str, data: Any) -> ServerAnswer:
        # Without a limit in total: a file of some gigabytes takes as long as it takes.
        timeout = aiohttp.ClientTimeout(total=None, sock_read=TRANSFER_TIMEOUT_S)
        try:
            async with self._session.post(
                self.url + path, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                return await read_answer(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from error

    def _completion_error(self, answer: ServerAnswer, model: str) -> UnderstudyError:
        if answer.status == 404:
            what = f"{self.url} has no model {model} any more: {error_text(answer.body)}"
            return ModelGoneError(what, "The bot makes it again.", "gone")
        return self._status_error(answer)

    def _status_error(self, answer: ServerAnswer) -> VllmError:
        why = error_text(answer.body)
        if any(marker in why for marker in OUT_OF_MEMORY):
            return OllamaMemoryError(
                f"{self.url} has no memory for the model: {why}", MEMORY_ADVICE
            )
        return super()._status_error(answer)

    def _foreign_answer(self, path: str) -> VllmError:
        return VllmError(
            f"{self.url}{path} does not answer as Ollama does.", "Check ENGINE_URLS, and start it."
        )


def raw_body(model: str, text: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Build a request for the continuation of a text. Nothing of a prompt is dropped unnoticed: one
    that is too long is refused.
    """
    return {
        "model": model,
        "prompt": text,
        "raw": True,
        "think": False,  # or the server would take thoughts out of the text
        "truncate": False,
        "shift": False,
        "options": {**options},
    }


@dataclass(frozen=True)
class OllamaChecker:
    """Checks that a server computes `expected` under the name `model`, and how it takes prompts."""

    expected: ExpectedModel
    model: str
    context_tokens: int

    async def check(self, client: VllmClient) -> ServedByOllama:
        """Find out whether the server has our tokenizer. Raises `VllmError`."""
        assert isinstance(client, OllamaClient)
        options = {"num_predict": 1, "temperature": 0, "num_ctx": self.context_tokens}
        body = raw_body(self.model, PROBE_TEXT, options) | {"logprobs": True, "top_logprobs": 1}
        answer = await client.generate_whole(body)
        counted = int(answer.get("prompt_eval_count") or 0)
        added = counted - len(self.expected.probe_ids)
        if added not in (0, 1):
            raise VllmError(
                f"{client.url} counts {counted} tokens in a text of "
                f"{len(self.expected.probe_ids)}: it has another tokenizer than "
                f"{self.expected.base.name}.",
                "Name the GGUF file of the model that BASE_MODEL names.",
            )
        # None are told of a token that ends the reply, or that is a part of a character.
        if answer.get("response") and not logprobs_of(answer):
            raise VllmError(
                f"{client.url} tells no log-probabilities, by which a version's effect is checked.",
                f"Update Ollama to {OLDEST_VERSION} or newer.",
            )
        return ServedByOllama(
            base=self.model,
            root=self.model,
            max_tokens=self.context_tokens,
            takes_ids=True,
            adds_bos=added == 1,
        )

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""
        assert isinstance(client, OllamaClient)
        try:
            async with limited(client):
                version = await client.version()
        except VllmError as error:
            return [failed_check(client, "model", error)]
        return [ServerCheck(client.url, "model", "ok", f"Ollama {version}")]


def logprobs_of(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the likeliest tokens at the first place of a reply; none where the server tells none."""
    entries = answer.get("logprobs") or ()
    return tuple(entries[0].get("top_logprobs") or ()) if entries else ()
