"""HTTP client of one vLLM server, and the checks that it serves our base model with adapters
(written for 0.32).
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import aiohttp

from personas.engine.remote import error_text
from personas.engine.remote.retry_after import (
    UNAUTHORISED_STATUSES,
    has_no_quota,
    parse_retry_after,
)
from personas.errors import AdapterError, ServerError, UnderstudyError
from personas.home.adapters import CONFIG_FILE
from personas.home.atomic_files import write_file
from personas.models.base_model import BaseModel, fingerprint, read_config

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
REASONING_ADVICE = (
    "Serve a model that does not reason, turn reasoning off there, or raise MAX_NEW_TOKENS."
)
CALL_TIMEOUT_S = 20.0
CHECK_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 120.0
"""An adapter is loaded between two steps of the server's engine, from a disk that may be slow."""
READ_BUFFER_BYTES = 2**20
"""Limit for a line of a stream: the first one repeats the token ids of the prompt."""
RETRYABLE_STATUSES = (408, 429)
BUSY_STATUSES = (429, 503)
DEAD_ENGINE = "EngineCore encountered"
ALREADY_LOADED = "already been loaded"
OUT_OF_VOCABULARY = "out of vocabulary"
LOAD_ADVICE = {
    "Not Found": "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.",
    "LoRA is not enabled": "Start it with --enable-lora.",
    "No adapter "
    "found": "Let it see UNDERSTUDY_HOME, and set ENGINE_HOME to the folder's path there.",
    "max_lora_rank": "Start it with a larger --max-lora-rank, such as 64.",
}
"""Advice by what a server says when it cannot load an adapter."""
TOKEN_ID_PREFIX = "token_id:"
HUB_ID_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")
MAX_ANSWER_BYTES, MAX_EVENT_BYTES = 2**24, 2**20
"""Sizes of a whole answer and of an event of a stream; a server that sends more is not one of
these.
"""
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
RUNNING_METRIC = "vllm:num_requests_running"
START_METRIC = "process_start_time_seconds"
PROBE_ADAPTER = "understudy-probe"
HIGH_RANK = 64  # the highest that the automatic recipe chooses
PROBE_TEXT = "The tide turns at 6:40; naïve gulls, 你好, 🦀!\n\tfor (i = 0; i < 10; ++i) {}"
"""A text that tokenizers of different models split differently."""
CANCEL_TIMEOUT_S = 5.0
CANCEL_POLL_S = 0.1
CANCEL_PROBE_TOKENS = 1000


class VllmError(ServerError):
    """A vLLM server that refuses a request, or that is not set up for this bot."""

    member_text = "The engine failed. Try again in a minute; if it fails again, tell the operator."


class OnlyThoughtError(VllmError):
    """A reply that has nothing but what the model thought."""

    member_text = "The model only thought and wrote no reply. Try again."


FailureKind = Literal["gone", "broken", "failed", "busy", "key", "quota"]
"""Nothing listens there; it did not answer or broke off; it answered with an error; it has too much
to do; it does not accept the key; the account has no quota left.
"""
ACCOUNT_KINDS: tuple[FailureKind, ...] = ("key", "quota")
"""Failures that asking again does not mend: somebody has to."""


class ReplicaError(VllmError):
    """A vLLM server that is away, hangs or fails; another one may do."""

    def __init__(
        self,
        message: str,
        advice: str = "",
        kind: FailureKind = "broken",
        retry_after_s: float | None = None,
    ) -> None:
        """`retry_after_s` is when the server wants to be asked again; None: it does not say."""
        super().__init__(message, advice)
        self.kind = kind
        self.retry_after_s = retry_after_s


class ReplicaTimeoutError(ReplicaError):
    """A vLLM server that does not answer in time."""

    member_text = (
        "The engine's server did not answer in time. Try again in a minute; if it fails again, "
        "tell the operator."
    )


class ServerAnswer(NamedTuple):
    """A server's answer: the status, the body, parsed if it is JSON, and when it wants to be asked
    again.
    """

    status: int
    body: Any
    retry_after_s: float | None = None


class AdapterNotServedError(AdapterError):
    """A vLLM server has no such adapter, or cannot load it."""

    member_text = "The engine cannot load this version. The operator finds the reason in the log."


@dataclass(frozen=True)
class ServedModels:
    """A server's base model (name, path or hub id, tokens of the longest sequence), and adapters'
    paths by name.
    """

    base: str
    root: str
    max_tokens: int
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenChunk:
    """New tokens of a reply with their log-probabilities (none if not requested), and how the reply
    ended.

    `alternatives` are the likeliest tokens at each position with theirs, likeliest first. `text` is
    a new token's, from a server that returns no ids, else None; `is_reasoning`: what the model
    thinks came with it, which is dropped.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish: str | None = None
    text: str | None = None
    is_reasoning: bool = False

    @property
    def token_count(self) -> int:
        return len(self.tokens) + bool(self.text)


def open_session(key: str) -> aiohttp.ClientSession:
    """Open a session for any number of servers and concurrent replies. `key` is the servers' API
    key, or empty.
    """
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0),
        read_bufsize=READ_BUFFER_BYTES,
    )


class VllmClient:
    """Calls one server. All methods raise `ReplicaError` when it is away or fails, and `VllmError`
    when it refuses.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
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
        except (LookupError, TypeError, StopIteration) as error:
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
        values = re.findall(
            rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", str(answer.body), re.MULTILINE
        )
        return sum(map(float, values)) if values else None

    async def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter, or find it loaded from the same path. Raises `AdapterNotServedError`."""
        body = {"lora_name": name, "lora_path": path}
        answer = await self._call("POST", "/v1/load_lora_adapter", body, LOAD_TIMEOUT_S)
        status = answer.status
        if status == 200:
            return
        message = error_text(answer.body)
        if status == 400 and ALREADY_LOADED in message:
            if (root := (await self.models()).adapters.get(name)) == path:
                return
            message = (
                f"it serves an adapter of that name from {root}; give each bot's home its own "
                "servers"
            )
        is_dead = status > 500 or DEAD_ENGINE in message
        if status in UNAUTHORISED_STATUSES or status in RETRYABLE_STATUSES or is_dead:
            raise self._status_error(answer)
        raise AdapterNotServedError(
            f"{self.url} cannot load {name} from {path}: {message}", _load_advice(message)
        )

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter if it is loaded."""
        answer = await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if answer.status not in (200, 404):
            raise self._status_error(answer)

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        """Stream a completion; closing the iterator cancels it. Raises `AdapterNotServedError` for
        an unknown model.

        The last chunk has `finish`; a stream that ends without one raises `ReplicaError`.
        """
        wanted = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        async with aclosing(self._stream("/v1/completions", {**body, **wanted})) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[TokenChunk, None]:
        received = 0
        usage = None
        try:
            async with self._session.post(
                f"{self.url}{path}", json=body, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise self._completion_error(await _read_answer(response), str(body["model"]))
                async with aclosing(self._events(response.content)) as events:
                    async for event in events:
                        usage = event.get("usage") or usage
                        for choice in event.get("choices") or ():
                            chunk = self._chunk(choice)
                            received += len(chunk.tokens)
                            yield chunk
            if usage and received and usage["completion_tokens"] != received:
                log.error(
                    "%s counts %s new tokens, %d were received",
                    self.url,
                    usage["completion_tokens"],
                    received,
                )
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"{self.url} sent what is no part of a reply ({type(error).__name__}: {error})."
            raise ReplicaError(what, NOT_A_SERVER_ADVICE) from error

    async def _events(
        self, content: aiohttp.StreamReader
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the JSON objects of a server-sent event stream up to `[DONE]`."""
        rest = b""
        while data := await content.readany():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.removeprefix(b"data:").strip()
                if text == b"[DONE]":
                    return
                if text and line.startswith(b"data:"):
                    event = json.loads(text)
                    if found := event.get("error"):
                        code = found.get("code") if isinstance(found, dict) else None
                        raise self._status_error(
                            ServerAnswer(code if isinstance(code, int) else 500, event)
                        )
                    yield event
            if len(rest) > MAX_EVENT_BYTES:
                raise ReplicaError(
                    f"{self.url} sent a line of over {MAX_EVENT_BYTES:,} bytes.",
                    NOT_A_SERVER_ADVICE,
                )
        raise ReplicaError(f"{self.url} broke off a reply.")

    def _chunk(self, choice: Mapping[str, Any]) -> TokenChunk:
        tokens = choice.get("token_ids")
        finish = choice.get("finish_reason")
        if tokens is None:
            raise VllmError(
                f"{self.url} returns no token ids.", "Use vLLM 0.10.2 or newer, without a gateway."
            )
        if finish in ("abort", "error"):
            raise ReplicaError(f"{self.url} aborted a reply.")
        if not (found := choice.get("logprobs")):
            return TokenChunk(tuple(tokens), finish=finish)
        alternatives = tuple(_likeliest_first(each or {}) for each in found["top_logprobs"])
        return TokenChunk(tuple(tokens), tuple(found["token_logprobs"]), alternatives, finish)

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
                return await _read_answer(response)
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            raise self._connection_error(error) from error

    def _connection_error(self, error: Exception) -> ReplicaError:
        if isinstance(error, TimeoutError):
            return ReplicaTimeoutError(
                f"{self.url} does not answer in time.", "Check that the server is not overloaded."
            )
        kind: FailureKind = "gone" if isinstance(error, aiohttp.ClientConnectorError) else "broken"
        what = "cannot be reached" if kind == "gone" else "broke the connection"
        why = (
            error.os_error.strerror or error.os_error
            if isinstance(error, aiohttp.ClientConnectorError)
            else error
        )
        return ReplicaError(f"{self.url} {what}: {why}.", NOT_A_SERVER_ADVICE, kind)

    def _completion_error(self, answer: ServerAnswer, model: str) -> UnderstudyError:
        if answer.status == 404:
            return AdapterNotServedError(
                f"{self.url} does not serve {model}: {error_text(answer.body)}"
            )
        return self._status_error(answer)

    def _status_error(self, answer: ServerAnswer) -> VllmError:
        status = answer.status
        why = error_text(answer.body)
        if has_no_quota(status, answer.body):
            return ReplicaError(
                f"{self.url} has no quota left ({status}): {why}", QUOTA_ADVICE, "quota"
            )
        is_passing = status in RETRYABLE_STATUSES or status >= 500
        usual = (
            ("failed", "See the server's log.")
            if is_passing
            else ("refused a request", NOT_A_SERVER_ADVICE)
        )
        what, advice = STATUS_WORDS.get(status, usual)
        message = f"{self.url} {what} ({status}): {why}"
        if status in UNAUTHORISED_STATUSES:
            return ReplicaError(message, advice, "key")
        if is_passing:
            kind: FailureKind = "busy" if status in BUSY_STATUSES else "failed"
            return ReplicaError(message, advice, kind, answer.retry_after_s)
        return VllmError(message, advice)


# -------------------------------------------------------------------------------------------------------
# checks


@dataclass(frozen=True)
class ExpectedModel:
    """The base model that a server has to serve, and the ways in which the server may name it.

    `context_tokens` is the longest prompt with its reply; `max_token_id` the highest id of the
    vocabulary; `probe_ids` are our token ids of `PROBE_TEXT`; `fingerprint` that of the base model.
    """

    base: BaseModel
    names: frozenset[str]
    fingerprint: str
    context_tokens: int
    max_token_id: int
    probe_ids: tuple[int, ...]

    @classmethod
    def of(
        cls, base: BaseModel, tokenizer: Any, context_tokens: int, names: Iterable[str] = ()
    ) -> Self:
        """Describe a base model; `names` are further paths of its folder, such as those on the
        servers.
        """
        config = read_config(base)
        highest = max(max(tokenizer.get_vocab().values()), int(config.get("vocab_size", 0)) - 1)
        ids = tuple(tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"])
        known = {base.repository, base.source, str(base.folder.resolve()), *names}
        return cls(base, frozenset(known), fingerprint(base), context_tokens, highest, ids)

    def compare_name(self, root: str) -> str:
        """Return why a model of this path or id is another one; empty if it is ours or cannot be
        compared by name.
        """
        if root in self.names:
            return ""
        if (Path(root) / "config.json").exists():
            served = fingerprint(replace(self.base, source=root))
            return (
                ""
                if served == self.fingerprint
                else f"it serves the model in {root}, whose files differ"
            )
        if self.base.revision and HUB_ID_PATTERN.fullmatch(root):
            return f"it serves {root}"
        return ""


Topic = Literal["model", "prompts", "adapters", "cancel", "restart"]


@dataclass(frozen=True)
class ServerCheck:
    """A check's result for people: the server and the topic, what was found, and what to do if it
    is wrong.

    `state`: `warn` limits what works, `fail` keeps the bot from using the server.
    """

    url: str
    topic: Topic
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


class ReplicaChecker(Protocol):
    """Checks whether servers serve `expected`."""

    @property
    def expected(self) -> ExpectedModel: ...

    async def check(self, client: VllmClient) -> ServedModels:
        """Check what replies need. Raises `VllmError`."""

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""


@dataclass(frozen=True)
class ServerChecker:
    """Checks servers: they have to serve `expected`, and to load adapters of `rank` from our home.

    For the latter, a server is asked to load an adapter without weights from `probe`, which it sees
    under `probe_path`: it reads the configuration, then it has to refuse.
    """

    expected: ExpectedModel
    probe: Path
    probe_path: str
    rank: int

    async def check(self, client: VllmClient) -> ServedModels:
        """Check the model and adapters. Raises `VllmError`."""
        async with limited(client):
            served = await self._check_model(client)
            await self._check_adapters(client, self.rank)
            return served

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""
        checks = list[ServerCheck]()
        try:
            async with limited(client):
                await client.check_health()
                served = await self._check_model(client)
            found = (
                f"{served.root}, up to {served.max_tokens} tokens; adapters loaded: "
                f"{len(served.adapters)}"
            )
            checks.append(ServerCheck(client.url, "model", "ok", found))
            async with limited(client):
                await self._check_adapters(client, self.rank)
                checks.append(await self._check_high_rank(client))
            async with limited(client):
                await check_cancel(client, served.base, self.expected.probe_ids)
            checks.append(
                ServerCheck(client.url, "cancel", "ok", "a closed connection ends a reply")
            )
        except VllmError as error:
            topics: tuple[Topic, ...] = ("model", "adapters", "cancel")
            checks.append(
                ServerCheck(client.url, topics[len(checks)], "fail", error.message, error.advice)
            )
        return checks

    async def _check_high_rank(self, client: VllmClient) -> ServerCheck:
        try:
            await self._check_adapters(client, HIGH_RANK)
        except VllmError as error:
            found = f"rank {self.rank}, but not {HIGH_RANK}, which a recipe may choose"
            return ServerCheck(client.url, "adapters", "warn", found, error.advice)
        return ServerCheck(client.url, "adapters", "ok", f"rank {HIGH_RANK} and below")

    async def _check_model(self, client: VllmClient) -> ServedModels:
        expected = self.expected
        served = await client.models()
        why = await asyncio.to_thread(expected.compare_name, served.root)
        if not why and await client.tokenize(served.base, PROBE_TEXT) != expected.probe_ids:
            why = f"{served.root} there has another tokenizer"
        if not why and not await _has_vocabulary(client, served.base, expected.max_token_id):
            why = f"{served.root} there has another vocabulary"
        if why:
            advice = "Start it with the model that BASE_MODEL names, or change BASE_MODEL."
            raise VllmError(f"{client.url} does not serve {expected.base.name}: {why}.", advice)
        if served.max_tokens < (need := expected.context_tokens):
            found = (
                f"{client.url} takes {served.max_tokens} tokens; a prompt and its reply have "
                f"{need}."
            )
            raise VllmError(found, f"Start it with --max-model-len {need} or more.")
        return served

    async def _check_adapters(self, client: VllmClient, rank: int) -> None:
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": rank,
            "target_modules": ["q_proj"],
            "bias": "none",
        }
        folder = f"rank-{rank}"
        await asyncio.to_thread(_write_probe, self.probe / folder, config)
        try:
            await client.load_adapter(PROBE_ADAPTER, f"{self.probe_path}/{folder}")
        except AdapterNotServedError as error:
            if advice := _load_advice(error.message):
                raise VllmError(
                    f"{client.url} cannot serve adapters: {error.message}", advice
                ) from error


@asynccontextmanager
async def limited(client: VllmClient) -> AsyncIterator[None]:
    """Raise `ReplicaError` if the block takes too long: the server hangs."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise ReplicaTimeoutError(
            f"{client.url} did not pass its checks in {CHECK_TIMEOUT_S:.0f} s."
        ) from error


async def check_cancel(
    client: VllmClient, model: str, prompt: Sequence[int], timeout_s: float = CANCEL_TIMEOUT_S
) -> None:
    """Check that closing the connection ends a reply, which gateways may prevent. Raises
    `VllmError`.
    """
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": CANCEL_PROBE_TOKENS,
        "ignore_eos": True,
    }
    before = await client.metric(RUNNING_METRIC)
    async with aclosing(client.generate(body)) as chunks:
        await anext(chunks)
    deadline = time.monotonic() + timeout_s
    while (running := await client.metric(RUNNING_METRIC)) and running > (before or 0):
        if time.monotonic() > deadline:
            found = (
                f"{client.url} goes on with a reply for {timeout_s:g} s after the connection was "
                "closed."
            )
            raise VllmError(
                found, "Name the vLLM server in ENGINE_URLS, without a proxy that buffers."
            )
        await asyncio.sleep(CANCEL_POLL_S)


async def _has_vocabulary(client: VllmClient, model: str, max_token_id: int) -> bool:
    """Return whether a server knows a token id and not the next one."""
    return await _knows_token(client, model, max_token_id) and not await _knows_token(
        client, model, max_token_id + 1
    )


async def _knows_token(client: VllmClient, model: str, token: int) -> bool:
    try:
        async for _ in client.generate(
            {"model": model, "prompt": [token], "max_tokens": 1, "temperature": 0}
        ):
            pass
    except VllmError as error:
        if OUT_OF_VOCABULARY not in error.message:
            raise
        return False
    return True


def _write_probe(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)  # not private: a server may run as another user
    write_file(folder / CONFIG_FILE, json.dumps(config).encode())


def _load_advice(message: str) -> str:
    """Return what to do about a server's refusal of an adapter; empty if the adapter itself is the
    reason.
    """
    return next((advice for marker, advice in LOAD_ADVICE.items() if marker in message), "")


def _likeliest_first(logprobs: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    found = (
        (int(token.removeprefix(TOKEN_ID_PREFIX)), logprob) for token, logprob in logprobs.items()
    )
    return tuple(sorted(found, key=lambda one: -one[1]))


async def _read_answer(response: aiohttp.ClientResponse) -> ServerAnswer:
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
    except ValueError:
        return ServerAnswer(response.status, text, retry_after_s)
