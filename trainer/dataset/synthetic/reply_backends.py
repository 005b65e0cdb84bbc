"""Backends that generate replies in character: the local engine or an OpenAI-compatible
endpoint.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from personas.engine.llm_engine import LLMEngine
from personas.engine.reasoning_fields import NO_THINKING, REASONING_FIELDS
from personas.engine.serving_precision import choose_precision
from personas.engine.thoughts import remove_thoughts
from personas.errors import RequestError, TrainingError
from personas.home.adapters import verify_adapter
from personas.models import base_model
from personas.prompt.renderer import example_turns, system_text
from personas.schemas.chat import AdapterRef, ChatRequest, LoreHit, Persona, SamplingParams, Turn

KEY_VARIABLE = "OPENAI_API_KEY"
ADVICE = f"Check --endpoint, --model and, where it takes a key, {KEY_VARIABLE}."
UNKNOWN_FIELD_STATUSES = (400, 422)
"""Answers of servers that refuse fields beyond OpenAI's, or values of them."""
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
        self,
        persona: Persona,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit],
        seed: int,
        instructions: str = "",
        max_tokens: int = MAX_TOKENS,
    ) -> SynthesisedReply:
        """Generate the persona's answer to the last turn; `instructions` follow the card's prose.
        Raises `UnderstudyError`.
        """


class ReplyBackend(Protocol):
    """A source of replies."""

    @property
    def name(self) -> str:
        """The name recorded with each dialogue: the model, and the adapter's version if any."""

    @property
    def at_once(self) -> int:
        """Number of concurrent dialogues."""

    def prepare(self) -> None:
        """Fetch and unpack a model of this machine. Raises `BaseModelError`."""

    def open_session(self) -> Any:
        """Return an async context manager that yields a `ReplySession`."""


@dataclass(frozen=True)
class EngineBackend:
    """The engine that serves Discord, with or without an adapter."""

    model: str
    adapter: Path | None = None
    at_once: int = 1
    temperature: float = SamplingParams.temperature

    @property
    def name(self) -> str:
        path = Path(base_model.split_name(self.model)[0]).expanduser()
        # Documents of a version name the model, and no folder of the machine.
        name = path.name if path.exists() else self.model
        return f"{name}+{self._version}" if self.adapter else name

    @property
    def _version(self) -> str:
        assert self.adapter
        return verify_adapter(self.adapter).version

    def prepare(self) -> None:
        base_model.locate(self.model)

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[ReplySession]:
        """Load the model. Raises `BaseModelError`."""
        base = base_model.locate(self.model)
        precision = choose_precision("auto", base.name).precision
        # Nobody is kept waiting: a large model on a slow machine takes minutes for a few replies.
        engine = LLMEngine(base, precision, max_wait_s=math.inf)
        await engine.start()
        try:
            version = self._version if self.adapter else ""
            yield _EngineGenerator(engine, self.adapter, version, self.temperature)
        finally:
            await engine.close()


@dataclass(frozen=True)
class _EngineGenerator:
    engine: Any
    adapter: Path | None
    version: str
    temperature: float

    async def reply(
        self,
        persona: Persona,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit],
        seed: int,
        instructions: str = "",
        max_tokens: int = MAX_TOKENS,
    ) -> SynthesisedReply:
        adapter = AdapterRef(persona.id, self.version, self.adapter) if self.adapter else None
        sampling = SamplingParams(
            seed=seed,
            temperature=self.temperature,
            max_new_tokens=max_tokens,
            stop=(f"\n{turns[-1].name}:",),
        )
        request = ChatRequest(
            persona,
            tuple(turns),
            tuple(lore),
            adapter=adapter,
            sampling=sampling,
            instructions=instructions,
        )
        stream = self.engine.submit(request)
        async for _ in stream:
            pass
        return SynthesisedReply(stream.reply.text.strip(), stream.reply.finish == "stop")


@dataclass(frozen=True)
class EndpointBackend:
    """A server with OpenAI's chat completions API. The key is never displayed; `advice` says what to
    check where the server refuses.
    """

    url: str
    model: str
    at_once: int = 4
    key: str = field(default="", repr=False)
    advice: str = ADVICE

    @property
    def name(self) -> str:
        return self.model

    def prepare(self) -> None:
        """Do nothing: whether a server answers shows when it is asked."""

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[ReplySession]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        http = aiohttp.ClientSession(headers=headers, timeout=timeout)
        url = f"{self.url.rstrip('/')}/chat/completions"
        try:
            yield _EndpointGenerator(http, url, self.model, self.advice)
        finally:
            await http.close()
            # Connections are closed in the loop's next step, which is not to be its last.
            await asyncio.sleep(0)


@dataclass
class _EndpointGenerator:
    http: aiohttp.ClientSession
    url: str
    model: str
    advice: str
    takes_thinking: bool = True
    """Whether the server takes the fields that keep a model from thinking."""

    async def reply(
        self,
        persona: Persona,
        turns: Sequence[Turn],
        lore: Sequence[LoreHit],
        seed: int,
        instructions: str = "",
        max_tokens: int = MAX_TOKENS,
    ) -> SynthesisedReply:
        body = {
            "model": self.model,
            "messages": prompt_messages(persona, turns, lore, instructions),
            "temperature": 0.8,
            "max_tokens": max_tokens,
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
            status, answer = await self._post(body)
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
                f"{self.url} cannot be used: {type(error).__name__}.", self.advice
            ) from None
        if status == 429 or status >= 500:
            return f"is busy or failing (it answers {status})"
        if status != 200:
            said = answer[:300].decode("utf-8", "replace")
            raise RequestError(f"{self.url} answers {status}: {said}", self.advice)
        return _parse_reply(answer, self.url)

    async def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and content of the answer. What a model thinks would take the place of its
        reply, so it is asked not to, unless the server refuses the fields for it.
        """
        thinks_not = self.takes_thinking
        sent = {**body, **NO_THINKING} if thinks_not else body
        # A redirect could lead the key to another server.
        async with self.http.post(self.url, json=sent, allow_redirects=False) as response:
            status = response.status
            answer = await response.content.read(MAX_ANSWER_BYTES)
        if thinks_not and status in UNKNOWN_FIELD_STATUSES:
            self.takes_thinking = False
            return await self._post(body)
        return status, answer


def prompt_messages(
    persona: Persona, turns: Sequence[Turn], lore: Sequence[LoreHit], instructions: str = ""
) -> list[dict[str, str]]:
    """Build chat messages as the engine renders them: card, instructions, examples, conversation,
    and lore with the last turn.
    """
    parts = (system_text(persona, turns[-1].name), instructions)
    messages = [{"role": "system", "content": "\n".join(filter(None, parts))}]
    for turn in [*example_turns(persona), *turns]:
        role = "assistant" if turn.by_persona else "user"
        messages.append({"role": role, "content": turn.text})
    if lore:
        passages = "\n".join(f"[{hit.heading}] {hit.text}" for hit in lore)
        messages[-1]["content"] = f"{passages}\n\n{messages[-1]['content']}"
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
    return EndpointBackend(endpoint, model, key=os.environ.get(KEY_VARIABLE, ""))


def _parse_reply(answer: bytes, url: str) -> SynthesisedReply:
    try:
        choice = json.loads(answer)["choices"][0]
        message = choice["message"]
        said = remove_thoughts(str(message["content"] or ""))
        is_cut = choice.get("finish_reason") == "length"
    except (ValueError, KeyError, IndexError, TypeError):
        advice = "The address ends with /v1, before /chat/completions."
        raise RequestError(f"{url} returns no chat completion.", advice) from None
    text = said.text.strip()
    if is_cut and not text and (said.has_thought or any(map(message.get, REASONING_FIELDS))):
        raise RequestError(
            f"The model at {url} thinks for longer than a reply is, and writes none.",
            "Serve a model that does not reason, or turn reasoning off there.",
        )
    return SynthesisedReply(text, complete=not is_cut)
