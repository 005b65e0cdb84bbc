"""Backends that generate replies in character: the local engine or an OpenAI-compatible
endpoint.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import RequestError, TrainingError
from personas.home.adapters import verify_adapter
from personas.models import base_model
from personas.prompt.renderer import example_turns, system_text
from personas.schemas.chat import AdapterRef, ChatRequest, LoreHit, Persona, SamplingParams, Turn

KEY_VARIABLE = "OPENAI_API_KEY"
TIMEOUT_S = 120.0
MAX_TRIES = 4
RETRY_DELAY_S = 1.0
MAX_ANSWER_BYTES = 1_000_000
MAX_TOKENS = 100  # maximum length of a reply: people write short messages


@dataclass(frozen=True)
class SynthesisedReply:
    """A reply. `complete` is False if it was truncated."""

    text: str
    complete: bool


class ReplySession(Protocol):
    """An open session that generates replies as a persona."""

    async def reply(
        self, persona: Persona, turns: Sequence[Turn], lore: LoreHit, seed: int
    ) -> SynthesisedReply:
        """Generate the persona's answer to the last turn. Raises `UnderstudyError`."""


class ReplyBackend(Protocol):
    """A source of replies."""

    @property
    def name(self) -> str:
        """The name recorded with each dialogue: the model, and the adapter's version if any."""

    @property
    def at_once(self) -> int:
        """Number of concurrent dialogues."""

    def open_session(self) -> Any:
        """Return an async context manager that yields a `ReplySession`."""


@dataclass(frozen=True)
class EngineBackend:
    """The engine that serves Discord, with or without an adapter."""

    model: str
    adapter: Path | None = None
    at_once: int = 1

    @property
    def name(self) -> str:
        name = Path(self.model).name if Path(self.model).is_dir() else self.model
        return f"{name}+{self._version}" if self.adapter else name

    @property
    def _version(self) -> str:
        assert self.adapter
        return verify_adapter(self.adapter).version

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[ReplySession]:
        """Load the model. Raises `BaseModelError`."""
        base = base_model.locate(self.model)
        engine = LLMEngine(base, choose_precision("auto", base.name).precision)
        await engine.start()
        try:
            yield _EngineGenerator(engine, self.adapter, self._version if self.adapter else "")
        finally:
            await engine.close()


@dataclass(frozen=True)
class _EngineGenerator:
    engine: Any
    adapter: Path | None
    version: str

    async def reply(
        self, persona: Persona, turns: Sequence[Turn], lore: LoreHit, seed: int
    ) -> SynthesisedReply:
        adapter = AdapterRef(persona.id, self.version, self.adapter) if self.adapter else None
        sampling = SamplingParams(
            seed=seed, max_new_tokens=MAX_TOKENS, stop=(f"\n{turns[-1].name}:",)
        )
        stream = self.engine.submit(
            ChatRequest(persona, tuple(turns), (lore,), adapter=adapter, sampling=sampling)
        )
        async for _ in stream:
            pass
        return SynthesisedReply(stream.reply.text.strip(), stream.reply.finish == "stop")


@dataclass(frozen=True)
class EndpointBackend:
    """A server with OpenAI's chat completions API. The key comes from the environment and is never
    displayed.
    """

    url: str
    model: str
    at_once: int = 4

    @property
    def name(self) -> str:
        return self.model

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[ReplySession]:
        key = os.environ.get(KEY_VARIABLE, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
            yield _EndpointGenerator(http, f"{self.url.rstrip('/')}/chat/completions", self.model)


@dataclass(frozen=True)
class _EndpointGenerator:
    http: aiohttp.ClientSession
    url: str
    model: str

    async def reply(
        self, persona: Persona, turns: Sequence[Turn], lore: LoreHit, seed: int
    ) -> SynthesisedReply:
        body = {
            "model": self.model,
            "messages": prompt_messages(persona, turns, lore),
            "temperature": 0.8,
            "max_tokens": MAX_TOKENS,
            "seed": seed,
        }
        fault = ""
        for attempt in range(MAX_TRIES):
            answer = await self._request(body)
            if isinstance(answer, SynthesisedReply):
                return answer
            fault = answer
            await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
        raise TrainingError(f"{self.url} {fault}.", "Try again later: finished dialogues are kept.")

    async def _request(self, body: dict[str, Any]) -> SynthesisedReply | str:
        """Send a request; if it is worth retrying, return the fault as the end of a sentence."""
        try:
            # A redirect could lead the key to another server.
            async with self.http.post(self.url, json=body, allow_redirects=False) as response:
                if response.status == 429 or response.status >= 500:
                    return f"is busy or failing (it answers {response.status})"
                read = await response.content.read(MAX_ANSWER_BYTES)
                if response.status != 200:
                    raise RequestError(
                        f"{self.url} answers {response.status}: "
                        f"{read[:300].decode('utf-8', 'replace')}",
                        f"Check --endpoint, --model and, where it takes a key, {KEY_VARIABLE}.",
                    )
                return _parse_reply(read, self.url)
        except aiohttp.ClientConnectorError as error:
            reason = str(error.os_error)
            if error.os_error.errno:
                reason = os.strerror(error.os_error.errno).lower()
            return f"cannot be reached: {reason}"
        except TimeoutError:
            return f"has not answered for {TIMEOUT_S:g} seconds"
        except aiohttp.ClientConnectionError as error:
            return f"breaks the connection off ({type(error).__name__})"
        except aiohttp.ClientError as error:
            raise RequestError(
                f"{self.url} cannot be used: {type(error).__name__}.", "Check --endpoint."
            ) from None


def prompt_messages(persona: Persona, turns: Sequence[Turn], lore: LoreHit) -> list[dict[str, str]]:
    """Build chat messages as the engine renders them: card, examples, conversation, and lore with
    the last turn.
    """
    messages = [{"role": "system", "content": system_text(persona, turns[-1].name)}]
    for turn in [*example_turns(persona), *turns]:
        role = "assistant" if turn.by_persona else "user"
        messages.append({"role": role, "content": turn.text})
    messages[-1]["content"] = f"[{lore.heading}] {lore.text}\n\n{messages[-1]['content']}"
    return messages


def choose_backend(endpoint: str | None, model: str, adapter: Path | None) -> ReplyBackend:
    """Return the requested backend. Raises `RequestError` for contradicting options."""
    if not endpoint:
        return EngineBackend(model, adapter)
    if adapter:
        raise RequestError(
            "An adapter is for the local engine.", "Leave out --adapter or --endpoint."
        )
    if not endpoint.startswith(("http://", "https://")):
        raise RequestError(
            f"{endpoint!r} is no address.", "It begins with http:// or https:// and ends with /v1."
        )
    return EndpointBackend(endpoint, model)


def _parse_reply(answer: bytes, url: str) -> SynthesisedReply:
    try:
        choice = json.loads(answer)["choices"][0]
        text = str(choice["message"]["content"] or "").strip()
        return SynthesisedReply(text, choice.get("finish_reason") != "length")
    except (ValueError, KeyError, IndexError, TypeError):
        advice = "The address ends with /v1, before /chat/completions."
        raise RequestError(f"{url} returns no chat completion.", advice) from None
