"""HTTP client of a server with OpenAI's API, and the checks that find out how it takes prompts.

Servers with BASE_MODEL's tokenizer get token ids (vLLM, llama.cpp); others get messages, which they
render themselves (Ollama, llama-cpp-python, gateways).
"""

import asyncio
import codecs
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from personas.engine.openai_choices import FAILED, REFUSING_FINISHES, read_part
from personas.engine.reasoning_fields import NO_THINKING
from personas.engine.remote.picture_probe import sees_pictures
from personas.engine.remote.sampling_names import (
    OPENAI_NAMES,
    REASONING_NAMES,
    VLLM_NAMES,
    SamplingNames,
    named_sampling,
)
from personas.engine.remote.server_checks import (
    PICTURES_ARE_SEEN,
    PROBE_TEXT,
    ExpectedModel,
    ServerCheck,
    Topic,
    check_cancel,
    failed_check,
    limited,
)
from personas.engine.remote.server_errors import (
    FOREIGN_ERRORS,
    REASONING_ADVICE,
    ContentRefusedError,
    OnlyThoughtError,
    ReplicaError,
    VllmError,
    error_text,
)
from personas.engine.remote.vllm_client import (
    BUSY_STATUSES,
    CALL_TIMEOUT_S,
    CHAT_PATH,
    COMPLETIONS_PATH,
    FORBIDDEN_ADVICE,
    ServedModels,
    ServerAnswer,
    TokenChunk,
    VllmClient,
)
from personas.engine.thoughts import remove_thoughts
from personas.errors import UnderstudyError
from personas.prompt.chat_template import Message, break_turn_markers_in
from personas.prompt.message_order import alternating
from personas.schemas.chat import SamplingParams, VisionSetting

log = logging.getLogger(__name__)
MODELS_PATH = "/v1/models"
MAX_NAMED_MODELS = 8
LENGTH_FIELDS = ("max_model_len", "context_length", "max_context_length", "context_window")
"""Fields of a model's entry for the longest sequence: of vLLM, OpenRouter, Mistral and Groq."""
ORDER_PROBE: Sequence[Message] = (
    {"role": "system", "content": "Answer briefly."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": PROBE_TEXT},
)
"""Messages as a persona's prompt may have them: some templates raise an error at the first or the
second.
"""
THOUGHT_PROBE = "Say OK."
MAX_THOUGHT_PROBE_TOKENS = 192
THOUGHT_PROBE_TIMEOUT_S = 15.0
MODEL_LOAD_TIMEOUT_S = 600.0
"""The first request may load the model, and Ollama begins that anew where its client goes away."""
MESSAGE_FIELDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"takes_thinking": False},
    {"takes_thinking": False, "takes_sampling": False},
    {"takes_thinking": False, "takes_sampling": False, "takes_seed": False},
)
"""What a server of messages may take: fewer fields each time, because some servers refuse what is
not OpenAI's own.
"""
ID_FIELDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"takes_sampling": False},
    {"takes_sampling": False, "takes_seed": False},
)
"""What a server of token ids may take, likewise."""
EFFORTS = ("none", "minimal", "low", "")
"""Values of `reasoning_effort`, the least first: each of OpenAI's reasoning models takes some."""
SIGNS_OF_REASONING_MODELS = ("max_completion_tokens", "temperature", "top_p")
"""Fields of which one stands in the refusal of a model that takes no `max_tokens`."""
MAX_REASONING_PROBE_TOKENS = 1000
"""OpenAI fails a request whose reasoning has no room, instead of cutting it off."""


@dataclass(frozen=True)
class ServedByOpenAI(ServedModels):
    """A server's model, and the requests that the server takes. `max_tokens` 0: it does not say.

    `takes_ids`: prompts as token ids, else as messages; `returns_ids`: it also returns token ids,
    as vLLM does. `takes_sampling`: fields beyond OpenAI's, such as `top_k`; `takes_seed`: the seed;
    `takes_thinking`: `NO_THINKING`. `takes_max_tokens` False: it wants `max_completion_tokens`, and
    neither temperature nor top-p, as OpenAI's reasoning models; `effort` is then its
    `reasoning_effort`, or empty.
    `opens_thought`: its template opens a thought, so that replies begin within one. `alternates`: its
    template takes the user's and the assistant's messages in turn alone.
    """

    takes_ids: bool = False
    returns_ids: bool = False
    takes_sampling: bool = True
    takes_seed: bool = True
    takes_thinking: bool = True
    takes_max_tokens: bool = True
    effort: str = ""
    opens_thought: bool = False
    alternates: bool = False

    @property
    def sampling_names(self) -> SamplingNames:
        if not self.takes_max_tokens:
            return REASONING_NAMES
        return VLLM_NAMES if self.takes_sampling else OPENAI_NAMES

    @property
    def prompts(self) -> str:
        if not self.takes_ids:
            return "messages, rendered by the server"
        return "token ids" if self.returns_ids else "token ids; replies come as text"

    def arrange(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages in an order that the server's template takes."""
        return alternating(messages) if self.alternates else [*messages]

    def body(
        self,
        prompt: Sequence[int],
        messages: Sequence[Message],
        sampling: SamplingParams,
        seed: int,
    ) -> dict[str, Any]:
        """Build a request that is answered with text."""
        body = named_sampling(sampling, self.sampling_names)
        body |= {"model": self.base, "stream": True}
        if self.effort:
            body["reasoning_effort"] = self.effort
        if self.takes_seed:
            body["seed"] = seed
        if self.takes_sampling:
            # For llama.cpp. All tokens, as in the other engines: its default is the last 64.
            body |= {"repeat_penalty": sampling.repetition_penalty, "repeat_last_n": -1}
        if self.takes_ids:
            return body | {"prompt": list(prompt)}
        body["messages"] = [*messages]
        if self.takes_thinking:
            body |= NO_THINKING
        return body


class ReplySoFar:
    """What has come of a reply. `refusal` is what the model says in place of one."""

    def __init__(self) -> None:
        self.refusal = ""
        self.is_only_thought = False
        self._text = ""
        self._has_tokens = False
        # Joins the halves of a character, which JSON may escape in two pieces.
        self._halves = codecs.getincrementaldecoder("utf-16-le")("replace")

    def take(self, chunk: TokenChunk) -> TokenChunk:
        """Add a part, and return it with the text that is new."""
        text = chunk.text
        if text is not None:
            if chunk.is_whole:
                text = text.removeprefix(self._text)
            units = text.encode("utf-16-le", "surrogatepass")
            text = self._halves.decode(units, chunk.finish is not None)
            self._text += text
            chunk = replace(chunk, text=text)
        self.refusal += chunk.refusal
        self._has_tokens |= chunk.token_count > 0
        self.is_only_thought |= chunk.is_reasoning
        self.is_only_thought &= not self._has_tokens
        return chunk


class OpenAIServerClient(VllmClient):
    """Calls one server with OpenAI's API; it has no adapters.

    `opens_thought` is what a probe found out about that of `ServedByOpenAI`; None before it.
    """

    opens_thought: bool | None = None

    async def check_health(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Raise `VllmError` unless the server lists its models; a gateway's /health may run them
        all.
        """
        answer = await self._call("GET", MODELS_PATH, timeout_s=timeout_s)
        if answer.status != 200:
            raise self._status_error(answer)

    async def model_lengths(self) -> dict[str, int]:
        """Return the models by name, without adapters, with the tokens of the longest sequence, or
        0.
        """
        answer = await self._expect_json("GET", MODELS_PATH)
        lengths = {}
        try:
            for card in answer["data"]:
                if not card.get("parent"):  # which only adapters have
                    lengths[card["id"]] = _longest_sequence(card)
            return lengths
        except FOREIGN_ERRORS as error:
            raise self._foreign_answer(MODELS_PATH) from error

    async def tokenize(self, model: str, text: str) -> tuple[int, ...]:
        """Return the server's token ids of a text, as vLLM and llama.cpp do; none if it has no such
        path.
        """
        body = {"model": model, "prompt": text, "content": text, "add_special_tokens": False}
        answer = await self._call("POST", "/tokenize", body)
        if answer.status in BUSY_STATUSES:
            raise self._status_error(answer)
        if answer.status != 200 or not isinstance(answer.body, dict):
            return ()
        tokens = answer.body.get("tokens")
        return tuple(tokens) if isinstance(tokens, list) else ()

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream a reply to `prompt` or `messages`; closing the iterator cancels it."""
        path = CHAT_PATH if "messages" in body else COMPLETIONS_PATH
        wanted = {"stream": True}
        if "prompt" in body:
            wanted["return_token_ids"] = True
        reply = ReplySoFar()
        async with aclosing(self._stream(path, {**body, **wanted})) as chunks:
            async for part in chunks:
                chunk = reply.take(part)
                if chunk.finish and (reply.refusal or chunk.finish in REFUSING_FINISHES):
                    yield replace(chunk, finish=None)  # what came before it stays
                    why = reply.refusal or f"it ends by {chunk.finish}"
                    raise ContentRefusedError(
                        f"{self.url} refused a reply: {error_text(why)}", FORBIDDEN_ADVICE
                    )
                # The one token of a probe may well be of the reasoning.
                if chunk.finish and reply.is_only_thought and body.get("max_tokens") != 1:
                    raise OnlyThoughtError(
                        f"{self.url} sent its reasoning and no reply.", REASONING_ADVICE
                    )
                yield chunk

    def _chunk(self, choice: Mapping[str, Any]) -> TokenChunk:
        if choice.get("token_ids") is not None and "delta" not in choice:
            return super()._chunk(choice)
        part = read_part(choice)
        if part.finish == FAILED:
            raise ReplicaError(f"{self.url} aborted a reply.")
        return TokenChunk((), **vars(part))

    def _foreign_answer(self, path: str) -> VllmError:
        return VllmError(
            f"{self.url}{path} does not answer as a server with OpenAI's API.", "Check ENGINE_URLS."
        )

    def _completion_error(self, answer: ServerAnswer, model: str) -> UnderstudyError:
        message = error_text(answer.body)
        if answer.status == 404 and "model" in message:
            return VllmError(
                f"{self.url} does not serve {model}: {message}",
                "Set ENGINE_MODEL to a model that it lists.",
            )
        return self._reply_error(answer)


@dataclass(frozen=True)
class OpenAIChecker:
    """Checks servers, and finds out by short requests which fields they take. `model` is
    ENGINE_MODEL, or empty; `vision` is VISION.
    """

    expected: ExpectedModel
    model: str = ""
    vision: VisionSetting = "auto"
    _probe: SamplingParams = field(
        default=SamplingParams(temperature=0.0, max_new_tokens=1), init=False
    )

    async def check(self, client: VllmClient) -> ServedByOpenAI:
        """Find the model and the requests that the server takes. Raises `VllmError`."""
        assert isinstance(client, OpenAIServerClient)
        async with limited(client):
            name, max_tokens = await self._choose_model(client)
            need = self.expected.context_tokens
            if max_tokens and max_tokens < need:
                raise VllmError(
                    f"{client.url} takes {max_tokens} tokens; a prompt and its reply have {need}.",
                    f"Start it with a context of {need} tokens or more.",
                )
        served = ServedByOpenAI(name, name, max_tokens)
        async with limited(client, MODEL_LOAD_TIMEOUT_S):
            try:
                with_ids = await self._with_ids(client, served)
                found = with_ids or await self._with_messages(client, served)
            except ContentRefusedError as error:  # no filter refuses a probe: it is the account
                raise ReplicaError(error.message, error.advice, "key") from error
            sees = self.vision == "on"
            if self.vision == "auto":
                request = self._probe_body(replace(found, takes_ids=False), ORDER_PROBE[-1:])
                sees = await sees_pictures(client, request)
            return replace(found, sees_pictures=sees)

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""
        checks = list[ServerCheck]()
        try:
            served = await self.check(client)
            length = f", up to {served.max_tokens} tokens" if served.max_tokens else ""
            checks.append(ServerCheck(client.url, "model", "ok", f"{served.base}{length}"))
            checks.append(ServerCheck(client.url, "prompts", "ok", served.prompts))
            if served.sees_pictures:
                checks.append(ServerCheck(client.url, "prompts", "ok", PICTURES_ARE_SEEN))
            without_adapters = ServerCheck(
                client.url,
                topic="adapters",
                state="warn",
                found="none: personas speak without their tuned voices",
                remedy="ENGINE=vllm serves versions",
            )
            checks.append(without_adapters)
            if served.returns_ids:  # only vLLM counts the replies that it computes
                async with limited(client):
                    await check_cancel(client, served.base, self.expected.probe_ids)
                checks.append(
                    ServerCheck(client.url, "cancel", "ok", "a closed connection ends a reply")
                )
        except VllmError as error:
            topic: Topic = "cancel" if checks else "model"
            checks.append(failed_check(client, topic, error))
        return checks

    async def _choose_model(self, client: OpenAIServerClient) -> tuple[str, int]:
        lengths = await client.model_lengths()
        if self.model:
            return self.model, lengths.get(self.model, 0)
        if len(lengths) != 1:
            listed = ", ".join([*lengths][:MAX_NAMED_MODELS]) or "none"
            raise VllmError(
                f"{client.url} lists {len(lengths)} models: {listed}.",
                "Set ENGINE_MODEL to one of them.",
            )
        return next(iter(lengths.items()))

    async def _with_ids(
        self, client: OpenAIServerClient, served: ServedByOpenAI
    ) -> ServedByOpenAI | None:
        """Find out whether the server takes our token ids; None if not, or if its tokenizer is
        another one.
        """
        ids = self.expected.probe_ids
        if await client.tokenize(served.base, PROBE_TEXT) != ids:
            return None
        for fields in ID_FIELDS:
            found = replace(served, takes_ids=True, **fields)
            try:
                body = found.body(ids, (), self._probe, 0)
                chunks = [chunk async for chunk in client.generate(body)]
            except VllmError as error:
                if isinstance(error, ReplicaError) and error.kind != "failed":
                    raise
            else:
                return replace(found, returns_ids=all(chunk.text is None for chunk in chunks))
        return None

    async def _with_messages(
        self, client: OpenAIServerClient, served: ServedByOpenAI
    ) -> ServedByOpenAI:
        """Find out which fields the server takes with messages. Raises `VllmError` if it refuses
        OpenAI's own.
        """
        try:
            found = await self._first_taken(client, served, MESSAGE_FIELDS)
        except ReplicaError:
            raise
        except VllmError as refusal:
            if not any(field in refusal.message for field in SIGNS_OF_REASONING_MODELS):
                raise
            plainest = replace(served, **MESSAGE_FIELDS[-1], takes_max_tokens=False)
            efforts = [{"effort": effort} for effort in EFFORTS]
            found = await self._first_taken(client, plainest, efforts)
        found = await self._with_order(client, found)
        if client.opens_thought is None:
            client.opens_thought = await self._opens_thought(client, found)
        return replace(found, opens_thought=client.opens_thought)

    async def _with_order(
        self, client: OpenAIServerClient, served: ServedByOpenAI
    ) -> ServedByOpenAI:
        """Find out whether the server's template takes messages in the order of `ORDER_PROBE`."""
        try:
            return await self._first_taken(client, served, [{}], ORDER_PROBE)
        except VllmError as error:
            # llama.cpp answers 500 where a template raises an error.
            if isinstance(error, ReplicaError) and error.kind != "failed":
                raise
        return await self._first_taken(client, served, [{"alternates": True}], ORDER_PROBE)

    async def _first_taken(
        self,
        client: OpenAIServerClient,
        served: ServedByOpenAI,
        changes: Sequence[Mapping[str, Any]],
        messages: Sequence[Message] = ORDER_PROBE[-1:],
    ) -> ServedByOpenAI:
        """Return what is served with the first changes with which the server takes messages. Raises
        the last `VllmError` if it takes them with none.
        """
        refusal: VllmError | None = None
        for change in changes:
            found = replace(served, **change)
            try:
                async for _ in client.generate(self._probe_body(found, messages)):
                    pass
            except ReplicaError:
                raise
            except VllmError as error:
                refusal = error
            else:
                return found
        assert refusal
        raise refusal

    def _probe_body(self, served: ServedByOpenAI, messages: Sequence[Message]) -> dict[str, Any]:
        probe = self._probe
        if not served.takes_max_tokens:
            probe = replace(probe, max_new_tokens=MAX_REASONING_PROBE_TOKENS)
        return served.body((), served.arrange(messages), probe, 0)

    async def _opens_thought(self, client: OpenAIServerClient, served: ServedByOpenAI) -> bool:
        """Find out whether replies begin within a thought: a tag closes it that the server's
        template has opened.

        Where the probe says nothing, because it takes too long or thinks for longer, the first
        reply tells.
        """
        probe = replace(self._probe, max_new_tokens=MAX_THOUGHT_PROBE_TOKENS)
        body = served.body((), [{"role": "user", "content": THOUGHT_PROBE}], probe, 0)
        text = ""
        try:
            async with (
                asyncio.timeout(THOUGHT_PROBE_TIMEOUT_S),
                aclosing(client.generate(body)) as chunks,
            ):
                async for chunk in chunks:
                    text += chunk.text or ""
                    if remove_thoughts(text).lone_closings:
                        return True
        except (TimeoutError, VllmError) as error:
            log.info(
                "%s does not say whether its replies begin with a thought: %s", client.url, error
            )
        return False


def _longest_sequence(card: Mapping[str, Any]) -> int:
    """Return the length that a model's entry names; 0 if it names none."""
    lengths = [card.get(field) for field in LENGTH_FIELDS]
    lengths.append((card.get("meta") or {}).get("n_ctx"))  # llama.cpp
    return next((int(length) for length in lengths if length), 0)


def break_turn_markers(messages: Sequence[Message]) -> list[Message]:
    """Break up text that looks like a model's control token: the server's template is unknown, and
    so are its tokens.
    """
    return [
        {**message, "content": break_turn_markers_in(message["content"])} for message in messages
    ]
