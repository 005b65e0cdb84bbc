"""Backends that generate replies in character: the local engine or an OpenAI-compatible
endpoint.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from personas.engine.llm_engine import LLMEngine
from personas.engine.openai_choices import FAILED, REFUSING_FINISHES, read_part
from personas.engine.reasoning_fields import NO_THINKING
from personas.engine.retry_after import has_no_quota, parse_retry_after
from personas.engine.serving_precision import choose_precision
from personas.engine.thoughts import remove_thoughts
from personas.errors import RequestError, TrainingError
from personas.home.adapters import verify_adapter
from personas.models import base_model
from personas.prompt.frames import PASSAGE
from personas.prompt.renderer import closing_text, example_turns, system_text, with_names
from personas.schemas.chat import AdapterRef, ChatRequest, LoreHit, Persona, SamplingParams, Turn
from personas.schemas.formatting import format_time_left

KEY_VARIABLE = "OPENAI_API_KEY"
AWAY_ADVICE = "Try again later: the replies written so far are kept."
COMPLETION_ADVICE = (
    f"{AWAY_ADVICE} If it goes on, check the address: it ends with /v1, before /chat/completions."
)
FORM_ADVICE = "Use a server with OpenAI's chat completions API."
ADVICE = f"Check --endpoint, --model and, where it takes a key, {KEY_VARIABLE}."
UNKNOWN_FIELD_STATUSES = (400, 422)
"""Answers of servers that refuse fields beyond OpenAI's, or values of them."""
PROMPT_STATUSES = (400, 413, 422)
"""Answers that may be to one prompt alone: a filter of contents, or its length."""
ACCOUNT_STATUSES = (401, 402, 403, 404, 407)
"""Answers to whoever asks: a key, a right, or a model that the server has not got."""
BUSY_STATUSES = (408, 425, 429)
TIMEOUT_S = 120.0
MAX_TRIES = 6
RETRY_DELAY_S = 1.0
"""Doubled with each try, so that a server may be away for half a minute."""
MAX_RETRY_DELAY_S = 120.0
"""The longest delay that a server may ask for; of one that asks for more, no more is asked."""
TOLD_DELAY_S = 10.0
"""The least delay that is told."""
MAX_ANSWER_BYTES = 1_000_000
MAX_TOKENS = 100  # maximum length of a reply: people write short messages


class ServerAwayError(TrainingError):
    """A server that cannot be reached, or is busy or failing: the same request may succeed later."""

    can_resume = True


class ServerRefusesError(RequestError):
    """A server that refuses whoever asks, until its key, its account or its model is mended."""

    can_resume = True


class PromptRefusedError(RequestError):
    """A server that refuses a prompt; it may take others."""


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
        Raises `PromptRefusedError` where others may be answered, and `UnderstudyError`.
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
    """The engine that serves Discord, with or without an adapter. `before_step` is called on its thread
    before each step, which it may hold up. `guidance_scale`: see `ChatRequest`.
    """

    model: str
    adapter: Path | None = None
    at_once: int = 1
    temperature: float = SamplingParams.temperature
    guidance_scale: float = 1.0
    before_step: Callable[[], object] = lambda: None

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
        engine = LLMEngine(base, precision, max_wait_s=math.inf, before_step=self.before_step)
        await engine.start()
        try:
            version = self._version if self.adapter else ""
            yield _EngineGenerator(
                engine,
                self.adapter,
                version,
                temperature=self.temperature,
                guidance_scale=self.guidance_scale,
            )
        finally:
            await engine.close()


@dataclass(frozen=True)
class _EngineGenerator:
    engine: Any
    adapter: Path | None
    version: str
    temperature: float
    guidance_scale: float

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
            speakers=(turns[-1].name,),
        )
        request = ChatRequest(
            persona,
            tuple(turns),
            tuple(lore),
            adapter=adapter,
            sampling=sampling,
            instructions=instructions,
            guidance_scale=self.guidance_scale,
        )
        stream = self.engine.submit(request)
        async for _ in stream:
            pass
        return SynthesisedReply(stream.reply.text.strip(), stream.reply.finish == "stop")


@dataclass(frozen=True)
class EndpointBackend:
    """A server with OpenAI's chat completions API. The key is never displayed; `advice` says what to
    check where the server refuses. `tell` gets the seconds for which it asks to wait.
    """

    url: str
    model: str
    at_once: int = 4
    key: str = field(default="", repr=False)
    temperature: float = 0.8
    advice: str = ADVICE
    tell: Callable[[float], object] = lambda delay_s: None

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
            yield _EndpointGenerator(
                http,
                url,
                model=self.model,
                temperature=self.temperature,
                advice=self.advice,
                tell=self.tell,
            )
        finally:
            await http.close()
            # Connections are closed in the loop's next step, which is not to be its last.
            await asyncio.sleep(0)


@dataclass(frozen=True)
class _ServerFault:
    """A fault that may pass, as the end of a sentence, and the seconds to wait that a server named.
    Where it does not pass, it is raised as `error` with `advice`.
    """

    text: str
    retry_after_s: float = 0.0
    advice: str = AWAY_ADVICE
    error: type[ServerAwayError | PromptRefusedError] = ServerAwayError


@dataclass(frozen=True)
class _ServerAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def beginning(self) -> str:
        """The body's first characters, to be told."""
        return self.body[:300].decode("utf-8", "replace")

    @property
    def is_out_of_quota(self) -> bool:
        try:
            return has_no_quota(self.status, json.loads(self.body))
        except (ValueError, RecursionError):
            return has_no_quota(self.status, None)


@dataclass
class _EndpointGenerator:
    http: aiohttp.ClientSession
    url: str
    model: str
    temperature: float
    advice: str
    tell: Callable[[float], object]
    takes_thinking: bool | None = None
    """Whether the server takes the fields that keep a model from thinking; None if not known yet."""

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
            "temperature": self.temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        fault = _ServerFault("")
        for attempt in range(MAX_TRIES):
            if attempt:
                if fault.retry_after_s >= TOLD_DELAY_S:
                    self.tell(fault.retry_after_s)
                delay_s = max(fault.retry_after_s, RETRY_DELAY_S * 2 ** (attempt - 1))
                await asyncio.sleep(delay_s)
            answer = await self._request(body)
            if isinstance(answer, SynthesisedReply):
                return answer
            fault = answer
            if fault.retry_after_s > MAX_RETRY_DELAY_S:
                break
        raise fault.error(f"{self.url} {fault.text}.", fault.advice)

    async def _request(self, body: dict[str, Any]) -> SynthesisedReply | _ServerFault:
        """Send a request; return a fault if it is worth retrying."""
        try:
            answer = await self._post(body)
        except aiohttp.ClientConnectorError as error:
            reason = str(error.os_error)
            if error.os_error.errno:
                reason = os.strerror(error.os_error.errno).lower()
            return _ServerFault(f"cannot be reached: {reason}")
        except TimeoutError:
            return _ServerFault(f"has not answered for {TIMEOUT_S:g} seconds")
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            return _ServerFault(f"breaks the connection off ({type(error).__name__})")
        except aiohttp.ClientError as error:
            raise RequestError(
                f"{self.url} cannot be used: {type(error).__name__}.", self.advice
            ) from None
        status = answer.status
        if status == 200:
            return _parse_reply(answer, self.url)
        if not answer.is_out_of_quota and (status in BUSY_STATUSES or status >= 500):
            delay_s = parse_retry_after(answer.headers) or 0.0
            text = f"is busy or failing (it answers {status})"
            if delay_s > MAX_RETRY_DELAY_S:
                text += f", and asks to wait for over {format_time_left(MAX_RETRY_DELAY_S)}"
            return _ServerFault(text, delay_s)
        raise self._refusal(answer)

    def _refusal(self, answer: _ServerAnswer) -> RequestError:
        refusal = RequestError
        if answer.is_out_of_quota or answer.status in ACCOUNT_STATUSES:
            refusal = ServerRefusesError
        elif answer.status in PROMPT_STATUSES:
            refusal = PromptRefusedError
        return refusal(f"{self.url} answers {answer.status}: {answer.beginning}", self.advice)

    async def _post(self, body: dict[str, Any]) -> _ServerAnswer:
        """Return the answer. What a model thinks would take the place of its reply, so it is asked not
        to, unless the server refuses the fields for it, and not the prompt.
        """
        if self.takes_thinking is False:
            return await self._send(body)
        answer = await self._send({**body, **NO_THINKING})
        if answer.status == 200:
            self.takes_thinking = True
        elif self.takes_thinking is None and answer.status in UNKNOWN_FIELD_STATUSES:
            answer = await self._send(body)
            if answer.status == 200 and self.takes_thinking is None:
                self.takes_thinking = False
        return answer

    async def _send(self, body: dict[str, Any]) -> _ServerAnswer:
        # A redirect could lead the key to another server.
        async with self.http.post(self.url, json=body, allow_redirects=False) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    break
            return _ServerAnswer(response.status, response.headers, bytes(content))


def prompt_messages(
    persona: Persona, turns: Sequence[Turn], lore: Sequence[LoreHit], instructions: str = ""
) -> list[dict[str, str]]:
    """Build chat messages as the engine renders them: card, instructions, examples, conversation,
    and lore and the card's closing instructions with the last turn.
    """
    user = turns[-1].name
    parts = (system_text(persona, user), instructions)
    messages = [{"role": "system", "content": "\n".join(filter(None, parts))}]
    for turn in [*example_turns(persona), *turns]:
        role = "assistant" if turn.by_persona else "user"
        messages.append({"role": role, "content": turn.text})
    if lore:
        named = [with_names(hit, persona, user) for hit in lore]
        passages = "\n".join(PASSAGE.fill(heading=hit.heading, text=hit.text) for hit in named)
        messages[-1]["content"] = f"{passages}\n\n{messages[-1]['content']}"
    closing = closing_text(persona, user)
    if closing is not None:
        messages[-1]["content"] += f"\n\n{closing}"
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


def _parse_reply(answer: _ServerAnswer, url: str) -> SynthesisedReply | _ServerFault:
    if len(answer.body) > MAX_ANSWER_BYTES:
        fault = f"{url} answers one question with over {MAX_ANSWER_BYTES:,} bytes."
        raise RequestError(fault, FORM_ADVICE)
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):  # a proxy's page, say
        return _ServerFault(_no_completion(answer), advice=COMPLETION_ADVICE)
    try:
        choice = document["choices"][0]
        has_reply = "content" in choice["message"]
    except (KeyError, IndexError, TypeError, AttributeError):
        has_reply = False
    if not has_reply:
        # An error in place of the reply: the next request may not get it, or it is for this prompt.
        text = _no_completion(answer)
        return _ServerFault(text, advice=COMPLETION_ADVICE, error=PromptRefusedError)
    try:
        part = read_part(choice)
        content = part.text
        content.encode()
    except (TypeError, AttributeError, UnicodeEncodeError):  # the last for half of a character
        fault = f"{url} answers in another form: the content of its message is no text."
        raise RequestError(fault, FORM_ADVICE) from None
    if part.refusal or part.finish in (*REFUSING_FINISHES, FAILED):
        text = f"refuses a prompt ({part.refusal or part.finish})"
        return _ServerFault(text, advice=COMPLETION_ADVICE, error=PromptRefusedError)
    is_cut = part.finish == "length"
    said = remove_thoughts(content)
    text = said.text.strip()
    if is_cut and not text and (said.has_thought or part.is_reasoning):
        raise ServerRefusesError(
            f"The model at {url} thinks for longer than a reply is, and writes none.",
            "Serve a model that does not reason, or turn reasoning off there.",
        )
    return SynthesisedReply(text, complete=not is_cut)


def _no_completion(answer: _ServerAnswer) -> str:
    return f"returns no chat completion, but {answer.beginning!r}"
