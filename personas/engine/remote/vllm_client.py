"""HTTP client of one vLLM server (written for vLLM 0.32)."""

import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp

from personas.engine.remote.event_stream import EventReader
from personas.engine.remote.sampling_names import VLLM_NAMES, SamplingNames
from personas.engine.remote.server_errors import (
    FOREIGN_ERRORS,
    AdapterNotServedError,
    BrokenOffError,
    ContentRefusedError,
    FailureKind,
    ReplicaError,
    ReplicaTimeoutError,
    VllmError,
    error_text,
)
from personas.engine.retry_after import (
    UNAUTHORISED_STATUSES,
    has_no_quota,
    parse_retry_after,
)
from personas.errors import UnderstudyError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 20.0
LOAD_TIMEOUT_S = 120.0
"""An adapter is loaded between two steps of the server's engine, from a disk that may be slow."""
READ_BUFFER_BYTES = 2**20
"""Limit for a line of a stream: the first one repeats the token ids of the prompt."""
RETRYABLE_STATUSES = (408, 429)
BUSY_STATUSES = (429, 503)
DEAD_ENGINE = "EngineCore encountered"
ALREADY_LOADED = "already been loaded"
LOAD_ADVICE = {
    "Not Found": "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.",
    "LoRA is not enabled": "Start it with --enable-lora.",
    "No adapter found": "Let it see UNDERSTUDY_HOME, and set ENGINE_HOME to the folder's path there.",
    "max_lora_rank": "Start it with a larger --max-lora-rank, such as 64.",
}
"""Advice by a part of the server's message when it cannot load an adapter."""
TOKEN_ID_PREFIX = "token_id:"
# Sizes of a whole answer and of an event of a stream; a server that sends more is none of these.
MAX_ANSWER_BYTES = 2**24
MAX_EVENT_BYTES = 2**20
NOT_A_SERVER_ADVICE = "Check ENGINE_URLS and the server's log."
QUOTA_ADVICE = "Add credit there or raise the limit; the bot asks again by itself."
STATUS_WORDS = {
    **dict.fromkeys(
        (301, 302, 307, 308), ("redirects requests", "Name the other address in ENGINE_URLS.")
    ),
    **dict.fromkeys(
        (401, 403),
        ("does not accept ENGINE_KEY", "Set it to the server's API key (vLLM: --api-key)."),
    ),
    429: ("limits requests", "See your quota there, or lower ENGINE_ROWS."),
}
FORBIDDEN_STATUS = 403
FORBIDDEN_ADVICE = "If that is not about what was said, check what ENGINE_KEY may use there."
ERROR_STATUS = re.compile(r"[45][0-9]{2}")
START_METRIC = "process_start_time_seconds"


class ServerAnswer(NamedTuple):
    """A server's answer: the status, the body, parsed if it is JSON, and when it wants to be asked
    again.
    """

    status: int
    body: Any
    retry_after_s: float | None = None


COMPLETIONS_PATH = "/v1/completions"
CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class ServedModels:
    """A server's base model (name, path or hub id, tokens of the longest sequence), and adapters'
    paths by name. `sees_pictures`: it takes pictures, also where it takes ids.
    """

    base: str
    root: str
    max_tokens: int
    adapters: Mapping[str, str] = field(default_factory=dict)
    sees_pictures: bool = False

    @property
    def sampling_names(self) -> SamplingNames:
        """What the server calls the fields of the sampling that it takes."""
        return VLLM_NAMES


@dataclass(frozen=True)
class TokenChunk:
    """New tokens of a reply with their log-probabilities (none if not requested), and how the reply
    ended.

    `alternatives` are the likeliest tokens at each position with theirs, likeliest first. `text` is
    a new token's, from a server that returns no ids, else None; `is_whole`: it is that of the whole
    reply so far; `is_reasoning`: what the model thinks came with it, which is dropped. `refusal` is
    what the model says in place of a reply.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish: str | None = None
    text: str | None = None
    is_reasoning: bool = False
    is_whole: bool = False
    refusal: str = ""

    @property
    def token_count(self) -> int:
        return len(self.tokens) + bool(self.text)


def open_session(key: str) -> aiohttp.ClientSession:
    """Open a session for any number of servers and concurrent replies. `key` is the servers' API
    key, or empty.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(
        headers=headers,
        # A reply has no limit in total; the engine ends those that send nothing for long.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        # By default 100 connections are open at most, and further replies would wait here.
        connector=aiohttp.TCPConnector(limit=0),
        read_bufsize=READ_BUFFER_BYTES,
    )


class VllmClient:
    """Calls one server. All methods raise `ReplicaError` when it is away or fails, and `VllmError`
    when it refuses. `advice` is said of a server that fails. `sees_pictures` is what a probe found
    out, None before it; `failed_picture_probes` since then had no answer.
    """

    sees_pictures: bool | None = None
    failed_picture_probes = 0

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.advice = NOT_A_SERVER_ADVICE
        self._session = session

    async def check_health(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Raise `ReplicaError` unless the server and its engine are alive."""
        answer = await self._call("GET", "/health", timeout_s=timeout_s)
        if answer.status == 503:
            raise ReplicaError(
                f"{self.url} reports that its engine is dead.", "Restart it.", "gone"
            )
        if answer.status != 200:
            raise self._status_error(answer)

    async def models(self) -> ServedModels:
        """Return the base model and the loaded adapters."""
        answer = await self._expect_json("GET", "/v1/models")
        try:
            base = next(card for card in answer["data"] if not card["parent"])
            adapters = {card["id"]: card["root"] for card in answer["data"] if card["parent"]}
            return ServedModels(base["id"], base["root"], base["max_model_len"], adapters)
        except (*FOREIGN_ERRORS, StopIteration) as error:
            raise self._foreign_answer("/v1/models") from error

    async def tokenize(self, model: str, text: str) -> tuple[int, ...]:
        """Return the server's token ids of a text, without special tokens."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        answer = await self._expect_json("POST", "/tokenize", body)
        if not isinstance(answer.get("tokens"), list):
            raise self._foreign_answer("/tokenize")
        return tuple(answer["tokens"])

    async def metric(self, name: str) -> float | None:
        """Return a metric, summed over its labels; None if the server has none of that name."""
        answer = await self._call("GET", "/metrics")
        pattern = rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$"
        values = re.findall(pattern, str(answer.body), re.MULTILINE)
        if not values:
            return None
        try:
            return sum(map(float, values))
        except ValueError as error:
            raise self._foreign_answer("/metrics") from error

    async def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter, or find it loaded from the same path. Raises `AdapterNotServedError`."""
        body = {"lora_name": name, "lora_path": path}
        answer = await self._call("POST", "/v1/load_lora_adapter", body, LOAD_TIMEOUT_S)
        status = answer.status
        if status == 200:
            return
        message = error_text(answer.body)
        if status == 400 and ALREADY_LOADED in message:
            served = await self.models()
            root = served.adapters.get(name)
            if root == path:
                return
            message = (
                f"it serves an adapter of that name from {root}; give each bot's home its own "
                "servers"
            )
        is_dead = status > 500 or DEAD_ENGINE in message
        if is_dead or status in (*UNAUTHORISED_STATUSES, *RETRYABLE_STATUSES):
            raise self._status_error(answer)
        raise AdapterNotServedError(
            f"{self.url} cannot load {name} from {path}: {message}", load_advice(message)
        )

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter if it is loaded."""
        answer = await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if answer.status not in (200, 404):
            raise self._status_error(answer)

    async def prompt_logprobs(
        self, model: str, prompt: Sequence[int], salt: str
    ) -> list[float | None]:
        """Return the log-probability of each token of a prompt after those before it; None for the
        first. Raises `AdapterNotServedError` for an unknown model.
        """
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "cache_salt": salt,
        }
        answer = await self._call("POST", COMPLETIONS_PATH, body, LOAD_TIMEOUT_S)
        if answer.status != 200:
            raise self._completion_error(answer, model)
        try:
            positions = answer.body["choices"][0]["prompt_logprobs"]
            pairs = zip(prompt, positions, strict=True)
            return [
                float(position[str(token)]["logprob"]) if position else None
                for token, position in pairs
            ]
        except FOREIGN_ERRORS as error:
            raise self._foreign_answer(COMPLETIONS_PATH) from error

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream a reply to `prompt` or `messages`; closing the iterator cancels it. Raises
        `AdapterNotServedError` for an unknown model.

        The last chunk has `finish`; a stream that ends without one raises `ReplicaError`.
        """
        wanted = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        path = CHAT_PATH if "messages" in body else COMPLETIONS_PATH
        async with aclosing(self._stream(path, {**body, **wanted})) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream the parts of a reply; the last one has `finish`."""
        usage: Mapping[str, Any] = {}
        ended = received = 0
        chunk = None
        try:
            # A redirect could lead to the machine or its network.
            async with self._session.post(
                f"{self.url}{path}", json=body, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise self._completion_error(await read_answer(response), str(body["model"]))
                async with aclosing(self._events(response.content)) as events:
                    async for event in events:
                        usage = event.get("usage") or usage
                        for choice in event.get("choices") or ():
                            chunk = self._chunk(choice)
                            received += len(chunk.tokens)
                            ended += chunk.finish is not None
                            yield chunk
            if not ended:
                yield _missing_end(chunk, usage, body)
            counted = usage.get("completion_tokens")
            if counted and received and counted != received:
                log.error("%s counts %s new tokens, %d were received", self.url, counted, received)
        except BrokenOffError:
            if not ended:  # some servers end without another word
                raise
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from error
        except FOREIGN_ERRORS as error:
            what = f"{self.url} sent what is no part of a reply ({type(error).__name__}: {error})."
            raise ReplicaError(what, self.advice) from error

    async def _events(
        self, content: aiohttp.StreamReader
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the JSON objects of a server-sent event stream up to `[DONE]`, or of JSON in its
        place. Raises `BrokenOffError` where the end is missing.
        """
        reader = EventReader()
        while data := await content.readany():
            for event in reader.feed(data):
                self._require_no_error(event)
                yield event
            if reader.is_done:
                return
            if reader.held_bytes > MAX_EVENT_BYTES:
                raise ReplicaError(
                    f"{self.url} sent a line of over {MAX_EVENT_BYTES:,} bytes.",
                    self.advice,
                )
        for event in reader.end():
            self._require_no_error(event)
            if reader.is_done and "choices" not in event:
                why = error_text(event)
                raise ReplicaError(f"{self.url} answers without a reply: {why}", self.advice)
            yield event
        if reader.is_done:
            return
        if (text := reader.other_text) and not text.startswith("{"):
            why = error_text(text)
            raise ReplicaError(f"{self.url} answers without a reply: {why}", self.advice)
        raise BrokenOffError(f"{self.url} broke off a reply.")

    def _require_no_error(self, event: Mapping[str, Any]) -> None:
        """Raise the error that an event or the part of a reply in it has."""
        # The status was sent before the error: it is 200 even if the engine has died.
        error = event.get("error")
        if not error and event.get("object") == "error":
            error = event
        for choice in event.get("choices") or ():
            error = error or choice.get("error")
        if not error:
            return
        code = str(error.get("code") if isinstance(error, dict) else "")
        status = int(code) if ERROR_STATUS.fullmatch(code) else 500
        raise self._reply_error(ServerAnswer(status, {"error": error}))

    def _chunk(self, choice: Mapping[str, Any]) -> TokenChunk:
        tokens = choice.get("token_ids")
        finish = choice.get("finish_reason")
        if tokens is None and "delta" in choice and not choice["delta"].get("content"):
            tokens = ()  # it opens a reply to messages, or ends it
        if tokens is None:
            raise VllmError(
                f"{self.url} returns no token ids.", "Use vLLM 0.10.2 or newer, without a gateway."
            )
        if finish in ("abort", "error"):
            raise ReplicaError(f"{self.url} aborted a reply.")
        logprobs = choice.get("logprobs")
        if not logprobs:  # a reply to messages has none: they are of another form there
            return TokenChunk(tuple(tokens), finish=finish)
        return TokenChunk(
            tuple(tokens),
            logprobs=tuple(logprobs["token_logprobs"]),
            alternatives=tuple(_likeliest_first(top or {}) for top in logprobs["top_logprobs"]),
            finish=finish,
        )

    async def _expect_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        answer = await self._call(method, path, body)
        if answer.status != 200:
            raise self._status_error(answer)
        if not isinstance(answer.body, dict):
            raise self._foreign_answer(path)
        return answer.body

    def _foreign_answer(self, path: str) -> VllmError:
        return VllmError(
            f"{self.url}{path} does not answer as a vLLM server does.", "Check ENGINE_URLS."
        )

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> ServerAnswer:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            options: dict[str, Any] = {"json": body, "timeout": timeout, "allow_redirects": False}
            async with self._session.request(method, self.url + path, **options) as response:
                return await read_answer(response)
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            raise self._connection_error(error) from error

    def _connection_error(self, error: Exception) -> ReplicaError:
        if isinstance(error, TimeoutError):
            return ReplicaTimeoutError(
                f"{self.url} does not answer in time.", "Check that the server is not overloaded."
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            why = error.os_error.strerror or error.os_error
            message = f"{self.url} cannot be reached: {why}."
            return ReplicaError(message, self.advice, "gone")
        message = f"{self.url} broke the connection: {error}."
        return ReplicaError(message, self.advice, "broken")

    def _completion_error(self, answer: ServerAnswer, model: str) -> UnderstudyError:
        if answer.status == 404:
            return AdapterNotServedError(
                f"{self.url} does not serve {model}: {error_text(answer.body)}"
            )
        return self._reply_error(answer)

    def _reply_error(self, answer: ServerAnswer) -> VllmError:
        """Return the error of a reply. The status 403 is no verdict on the key there: gateways give it
        to a single prompt that their filter refuses.
        """
        if answer.status != FORBIDDEN_STATUS or has_no_quota(answer.status, answer.body):
            return self._status_error(answer)
        why = error_text(answer.body)
        return ContentRefusedError(
            f"{self.url} refused a prompt ({FORBIDDEN_STATUS}): {why}", FORBIDDEN_ADVICE
        )

    def _status_error(self, answer: ServerAnswer) -> VllmError:
        status = answer.status
        why = error_text(answer.body)
        if has_no_quota(status, answer.body):
            return ReplicaError(
                f"{self.url} has no quota left ({status}): {why}", QUOTA_ADVICE, "quota"
            )
        is_passing = status in RETRYABLE_STATUSES or status >= 500
        usual = ("refused a request", self.advice)
        if is_passing:
            usual = ("failed", "See the server's log.")
        what, advice = STATUS_WORDS.get(status, usual)
        message = f"{self.url} {what} ({status}): {why}"
        if status in UNAUTHORISED_STATUSES:
            return ReplicaError(message, advice, "key")
        if is_passing:
            kind: FailureKind = "busy" if status in BUSY_STATUSES else "failed"
            return ReplicaError(message, advice, kind, answer.retry_after_s)
        return VllmError(message, advice)


def load_advice(message: str) -> str:
    """Return the advice for a server's refusal of an adapter; empty if the adapter itself is the
    reason.
    """
    for marker, advice in LOAD_ADVICE.items():
        if marker in message:
            return advice
    return ""


def _missing_end(
    last: TokenChunk | None, usage: Mapping[str, Any], body: Mapping[str, Any]
) -> TokenChunk:
    """Return the end of a reply whose server has sent all of it and no reason for its end: it
    stopped, unless it has all the tokens that were asked for.
    """
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    is_full = limit and (usage.get("completion_tokens") or 0) >= limit
    text = "" if last and last.text is not None else None
    return TokenChunk((), finish="length" if is_full else "stop", text=text)


def _likeliest_first(logprobs: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    by_id = []
    for token, logprob in logprobs.items():
        by_id.append((int(token.removeprefix(TOKEN_ID_PREFIX)), logprob))
    return tuple(sorted(by_id, key=lambda item: -item[1]))


async def read_answer(response: aiohttp.ClientResponse) -> ServerAnswer:
    read = bytearray()
    async for piece in response.content.iter_any():
        read += piece
        if len(read) > MAX_ANSWER_BYTES:
            raise ReplicaError(
                f"{response.url} answers with over {MAX_ANSWER_BYTES:,} bytes.", NOT_A_SERVER_ADVICE
            )
    text = read.decode(errors="replace")
    retry_after_s = parse_retry_after(response.headers)
    try:
        return ServerAnswer(response.status, json.loads(text), retry_after_s)
    except (ValueError, RecursionError):
        return ServerAnswer(response.status, text, retry_after_s)
