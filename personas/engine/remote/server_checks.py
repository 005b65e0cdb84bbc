"""Checks that a vLLM server serves our base model with adapters (written for vLLM 0.32)."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from personas.engine.remote.picture_probe import sees_pictures
from personas.engine.remote.server_errors import (
    AdapterNotServedError,
    ReplicaTimeoutError,
    VllmError,
)
from personas.engine.remote.vllm_client import ServedModels, VllmClient, load_advice
from personas.home.adapters import CONFIG_FILE
from personas.home.atomic_files import write_file
from personas.models.base_model import (
    BaseModel,
    fingerprint,
    has_vision_encoder,
    read_config,
)
from personas.schemas.chat import VisionSetting

CHECK_TIMEOUT_S = 60.0
OUT_OF_VOCABULARY = "out of vocabulary"
SERVED_ROOT_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")
RUNNING_METRIC = "vllm:num_requests_running"
PROBE_ADAPTER = "understudy-probe"
HIGH_RANK = 64  # the highest that the automatic recipe chooses
PICTURES_ARE_SEEN = "pictures are seen"
PROBE_TEXT = "The tide turns at 6:40; naïve gulls, 你好, 🦀!\n\tfor (i = 0; i < 10; ++i) {}"
"""A text that tokenizers of different models split differently."""
CANCEL_TIMEOUT_S = 5.0
CANCEL_POLL_S = 0.1
CANCEL_PROBE_TOKENS = 1000


@dataclass(frozen=True)
class ExpectedModel:
    """The base model that a server has to serve, and the ways in which the server may name it.

    `context_tokens` are the fewest that it has to take; `max_token_id` the highest id of the
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
        return cls(
            base,
            names=frozenset(known),
            fingerprint=fingerprint(base),
            context_tokens=context_tokens,
            max_token_id=highest,
            probe_ids=ids,
        )

    def compare_name(self, root: str) -> str:
        """Return why a model of this path or id is another one; empty if it is ours or cannot be
        compared by name.
        """
        if root in self.names:
            return ""
        # A path of this machine, if the server runs here.
        if (Path(root) / "config.json").exists():
            served = fingerprint(replace(self.base, source=root))
            if served == self.fingerprint:
                return ""
            return f"it serves the model in {root}, whose files differ"
        if self.base.revision and SERVED_ROOT_PATTERN.fullmatch(root):
            return f"it serves {root}"
        return ""


Topic = Literal["model", "prompts", "adapters", "cancel", "restart", "candidates", "memory"]


@dataclass(frozen=True)
class ServerCheck:
    """A check's result for people: the server, the topic, the finding, and a remedy if it is wrong.

    `state`: `warn` limits the bot's features, `fail` keeps the bot from using the server.
    """

    url: str
    topic: Topic
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def failed_check(client: VllmClient, topic: Topic, error: VllmError) -> ServerCheck:
    """Return the result of a check that raised an error."""
    return ServerCheck(client.url, topic, "fail", found=error.message, remedy=error.advice)


class ReplicaChecker(Protocol):
    """Checks whether servers serve `expected`."""

    @property
    def expected(self) -> ExpectedModel: ...

    async def check(self, client: VllmClient) -> ServedModels:
        """Check everything that replies need. Raises `VllmError`."""

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""


@dataclass(frozen=True)
class ServerChecker:
    """Checks servers: they have to serve `expected`, and to load adapters of `rank` from our home.

    For the latter, a server is asked to load an adapter without weights from `probe`, which it sees
    under `probe_path`: it reads the configuration, then it has to refuse.

    `vision` is VISION: with auto, a server whose model has an encoder for pictures is asked whether
    it takes one.
    """

    expected: ExpectedModel
    probe: Path
    probe_path: str
    rank: int
    vision: VisionSetting = "auto"

    async def check(self, client: VllmClient) -> ServedModels:
        """Check the model, adapters and pictures. Raises `VllmError`."""
        async with limited(client):
            served = await self._check_model(client)
            await self._check_adapters(client, self.rank)
            return replace(served, sees_pictures=await self._sees_pictures(client, served))

    async def inspect(self, client: VllmClient) -> list[ServerCheck]:
        """Check everything, and report instead of raising."""
        checks = list[ServerCheck]()
        try:
            async with limited(client):
                await client.check_health()
                served = await self._check_model(client)
            size = f"{served.root}, up to {served.max_tokens} tokens"
            found = f"{size}; adapters loaded: {len(served.adapters)}"
            checks.append(ServerCheck(client.url, "model", "ok", found))
            async with limited(client):
                await self._check_adapters(client, self.rank)
                checks.append(await self._check_high_rank(client))
            async with limited(client):
                await check_cancel(client, served.base, self.expected.probe_ids)
            checks.append(
                ServerCheck(client.url, "cancel", "ok", "a closed connection ends a reply")
            )
            async with limited(client):
                if await self._sees_pictures(client, served):
                    checks.append(ServerCheck(client.url, "prompts", "ok", PICTURES_ARE_SEEN))
        except VllmError as error:
            topics: tuple[Topic, ...] = ("model", "adapters", "cancel", "prompts")
            failed_topic = topics[len(checks)]
            checks.append(failed_check(client, failed_topic, error))
        return checks

    async def _sees_pictures(self, client: VllmClient, served: ServedModels) -> bool:
        has_encoder = await asyncio.to_thread(has_vision_encoder, self.expected.base)
        if self.vision == "auto" and has_encoder:
            request = {"model": served.base, "max_tokens": 1, "temperature": 0}
            return await sees_pictures(client, request)
        return self.vision == "on"

    async def _check_high_rank(self, client: VllmClient) -> ServerCheck:
        try:
            await self._check_adapters(client, HIGH_RANK)
        except VllmError as error:
            found = f"rank {self.rank}, but not {HIGH_RANK}, which a recipe may choose"
            return ServerCheck(client.url, "adapters", "warn", found, remedy=error.advice)
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
        need = expected.context_tokens
        if served.max_tokens < need:
            raise VllmError(
                f"{client.url} takes {served.max_tokens} tokens; a prompt and its reply have "
                f"{need}.",
                f"Start it with --max-model-len {need} or more.",
            )
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
            # The probe has no weights, so that a refusal without advice is the expected one.
            if advice := load_advice(error.message):
                message = f"{client.url} cannot serve adapters: {error.message}"
                raise VllmError(message, advice) from error


@asynccontextmanager
async def limited(client: VllmClient, timeout_s: float | None = None) -> AsyncIterator[None]:
    """Raise `ReplicaError` if the block takes too long (None: `CHECK_TIMEOUT_S`): the server hangs."""
    limit_s = timeout_s or CHECK_TIMEOUT_S
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise ReplicaTimeoutError(
            f"{client.url} did not pass its checks in {limit_s:.0f} s."
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
    before = await client.metric(RUNNING_METRIC)  # other bots may use the server
    async with aclosing(client.generate(body)) as chunks:
        await anext(chunks)
    deadline = time.monotonic() + timeout_s
    while (running := await client.metric(RUNNING_METRIC)) and running > (before or 0):
        if time.monotonic() > deadline:
            raise VllmError(
                f"{client.url} goes on with a reply for {timeout_s:g} s after the connection was "
                "closed.",
                "Name the vLLM server in ENGINE_URLS, without a proxy that buffers.",
            )
        await asyncio.sleep(CANCEL_POLL_S)


async def _has_vocabulary(client: VllmClient, model: str, max_token_id: int) -> bool:
    """Return whether a server knows a token id and not the next one."""
    if not await _knows_token(client, model, max_token_id):
        return False
    return not await _knows_token(client, model, max_token_id + 1)


async def _knows_token(client: VllmClient, model: str, token: int) -> bool:
    body = {"model": model, "prompt": [token], "max_tokens": 1, "temperature": 0}
    try:
        async for _ in client.generate(body):
            pass
    except VllmError as error:
        if OUT_OF_VOCABULARY not in error.message:
            raise
        return False
    return True


def _write_probe(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)  # not private: a server may run as another user
    write_file(folder / CONFIG_FILE, json.dumps(config).encode())
