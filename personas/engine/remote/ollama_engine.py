"""The chat engine over this machine's Ollama, with tuned voices (`ENGINE=ollama`).

Ollama takes no LoRA adapters any more, and while it did, models of one base model replaced each
other in memory. Each version is therefore merged into the base model and made a model of its own.
"""

import asyncio
import hashlib
import ipaddress
import logging
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import psutil

from personas.engine import EngineState
from personas.engine.effect_probe import CacheLeakError, EffectError
from personas.engine.remote.llamacpp_engine import (
    PROCESSOR_CONTEXT_TOKENS,
    PROCESSOR_REASON,
    has_accelerator,
)
from personas.engine.remote.llamacpp_memory import FIXED_BYTES, kv_bytes_per_token
from personas.engine.remote.ollama_client import (
    ModelGoneError,
    OllamaChecker,
    OllamaClient,
    ServedByOllama,
    raw_body,
)
from personas.engine.remote.ollama_models import (
    BASE_NAME,
    AskedMost,
    OllamaMemory,
    OllamaModels,
    loaded_of,
    model_name,
)
from personas.engine.remote.ollama_scorer import OllamaScorer
from personas.engine.remote.openai_attempts import OpenAIReplyAttempts, OpenAISequence
from personas.engine.remote.replica import Replica, ReplicaLimits
from personas.engine.remote.replica_adapters import ReplicaAdapters
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.server_checks import ExpectedModel, ServerCheck, failed_check
from personas.engine.remote.server_errors import AdapterNotServedError, VllmError
from personas.engine.remote.vllm_client import ServedModels, VllmClient
from personas.engine.remote.vllm_engine import VllmEngine
from personas.engine.remote.vllm_sequence import VllmReplyStream, VllmSequence
from personas.errors import AdapterError, ExportError
from personas.home.adapters import EFFECT_PROBE_FILE
from personas.home.gguf_adapters import GgufAdapters
from personas.models.gguf_merge import merge_lora, merged_bytes
from personas.prompt.renderer import RenderedPrompt
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, Turn
from personas.schemas.formatting import format_gib

log = logging.getLogger(__name__)
DEFAULT_URL = "http://127.0.0.1:11434"
MERGE_FOLDER = "cache/ollama_merge"
OLLAMA_LIMITS = ReplicaLimits(rows=1, adapters=8, health_timeout_s=10.0)
"""Ollama computes one reply of a model at a time (OLLAMA_NUM_PARALLEL)."""
STALL_S = 600.0
"""A version that was deleted is merged and uploaded again before its reply."""
LOCAL_ADVICE = (
    "Run the bot on the machine with Ollama. An Ollama elsewhere serves the untuned base model with "
    "ENGINE=openai; with ENGINE=llamacpp, a llama-server elsewhere serves versions."
)


class OllamaSequence(OpenAISequence):
    """One request; its prompt and its reply are text at the server."""

    def ollama_body(self, served: ServedByOllama, model: str, bos: str) -> dict[str, Any]:
        """Build the request for the rest of the reply."""
        sampling = self.request.sampling
        prompt = self._prompt_text
        if served.adds_bos and bos:
            prompt = prompt.removeprefix(bos)
        options = {
            "num_ctx": served.max_tokens,
            "num_predict": max(1, sampling.max_new_tokens - len(self.received)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": -1,  # the whole context, as the local engine
            "presence_penalty": 0.0,  # models of Ollama's library may have other values
            "frequency_penalty": 0.0,
            "seed": self.attempt_seed(),
            "stop": [self._detokenizer.piece(token) for token in self._detokenizer.stop_ids],
        }
        self._detokenizer.forget_open_thought()
        return raw_body(model, prompt + self._detokenizer.given_text, options)


class OllamaReplyAttempts(OpenAIReplyAttempts):
    """Generates replies on models of an Ollama server. `asked` and `models` are set at the start,
    `bos` is the text of the tokenizer's first token.
    """

    asked: AskedMost
    models: OllamaModels
    bos: str

    async def _generate(self, seq: VllmSequence, replica: Replica) -> None:
        try:
            await super()._generate(seq, replica)
        except ModelGoneError as error:
            if not seq.adapter:
                raise  # the check makes the base model again
            replica.adapters.pop(seq.adapter.name, None)
            log.warning("%s is made again: %s", seq.adapter.name, error)
            await super()._generate(seq, replica)

    def _body(self, seq: VllmSequence, served: ServedModels) -> dict[str, Any]:
        assert isinstance(seq, OllamaSequence) and isinstance(served, ServedByOllama)
        model = served.base
        if seq.adapter:
            use = self.models.uses.get(seq.adapter.name)
            if use is None:
                raise AdapterNotServedError(f"Ollama has no model of {seq.adapter.name}.")
            self.models.use(seq.adapter.name)
            model = use.model
        body = seq.ollama_body(served, model, self.bos)
        return body | {"keep_alive": f"{self.asked.keep_alive_s(model)}s"}


class OllamaAdapters(ReplicaAdapters):
    """Versions as models of an Ollama server: merged into the base model, uploaded, made, and verified
    by their effect. `make` makes a version's model unless the server has it.
    """

    make: Callable[[OllamaClient, AdapterRef], Awaitable[None]]
    unmake: Callable[[OllamaClient, str], Awaitable[None]]

    def path(self, folder: Path) -> str:
        return str(folder.absolute())

    async def _load_probed(self, client: VllmClient, adapter: AdapterRef, path: str) -> None:
        assert isinstance(client, OllamaClient)
        key = (client.url, adapter.name)
        await self.make(client, adapter)
        try:
            await self._probe(client, adapter)
        except (EffectError, CacheLeakError) as error:
            self._probed[key] = error
            await self.unmake(client, adapter.name)
            raise AdapterNotServedError(error.message, error.advice) from error
        self._probed[key] = None

    async def unload(self, replica: Replica, name: str) -> None:
        assert isinstance(replica.client, OllamaClient)
        replica.adapters.pop(name, None)
        self._probed.pop((replica.url, name), None)
        await self.unmake(replica.client, name)

    def forget_shown(self, url: str) -> None:
        """Have all versions verified again before their next replies: the server was away."""
        for key in [key for key in self._probed if key[0] == url]:
            del self._probed[key]


@dataclass
class OllamaEngine(VllmEngine):
    """Generates replies on the Ollama server of this machine, the one address of `urls`.

    `model_file` is the base model's GGUF file. Each version is a model of its own there, merged of
    both; `limits.adapters` is the most of them.
    """

    model_file: Path = Path()
    stall_s: float = STALL_S
    server_name: ClassVar[str] = "Ollama servers"
    attempts_type: ClassVar[type[ReplyAttempts]] = OllamaReplyAttempts
    _files: GgufAdapters = field(init=False)
    _models: OllamaModels = field(init=False)
    _asked: AskedMost = field(default_factory=AskedMost, init=False)
    _version_bytes: int = field(default=0, init=False)

    async def start(self) -> None:
        """Make the base model at the server unless it has it, and check it. Raises
        `BaseModelError` and `VllmError`.
        """
        await asyncio.to_thread(require_local, self.urls)
        await super().start()
        assert isinstance(self._attempts, OllamaReplyAttempts)
        self._attempts.asked = self._asked
        self._attempts.models = self._models
        self._attempts.bos = self._bos

    async def inspect(self) -> list[ServerCheck]:
        """Check the server, for the doctor. Raises `BaseModelError`, and `VllmError` for one on
        another machine.
        """
        await asyncio.to_thread(require_local, self.urls)
        return await super().inspect()

    async def _inspect(self, client: VllmClient) -> list[ServerCheck]:
        assert isinstance(client, OllamaClient)
        checks = await self._checker.inspect(client)
        if checks[0].state == "fail":
            return checks
        try:
            architecture = self._files.architecture.gguf
            stated = self._files.gguf_base.architecture
            if architecture != stated:
                raise ExportError(
                    f"The file is of the architecture {stated}, BASE_MODEL of {architecture}.",
                    "Name the GGUF file of the base model in ENGINE_MODEL.",
                )
            memory = await self._memory(client)
            checks.append(self._memory_check(client, memory))
            checks += await self._model_checks(client)
        except ExportError as error:
            return [
                *checks,
                ServerCheck(client.url, "adapters", "fail", error.message, error.advice),
            ]
        except VllmError as error:
            return [*checks, failed_check(client, "adapters", error)]
        return checks

    def _memory_check(self, client: OllamaClient, memory: OllamaMemory) -> ServerCheck:
        if memory.has_room:
            return ServerCheck(client.url, "memory", "ok", memory.text)
        remedy = "take a smaller base model, lower CONTEXT_TOKENS, or use ENGINE=llamacpp"
        return ServerCheck(client.url, "memory", "warn", memory.text, remedy)

    async def _model_checks(self, client: OllamaClient) -> list[ServerCheck]:
        listed = await client.model_sizes()
        ours = [name for name in listed if name.startswith(f"{self._models.namespace}/")]
        size = format_gib(sum(listed[name] for name in ours))
        found = (
            f"{len(ours)} models of this bot, {self._models.namespace}/…, {size} on the disk; "
            f"a further version takes {format_gib(await asyncio.to_thread(self._merged_bytes))}"
        )
        checks = [ServerCheck(client.url, "adapters", "ok", found)]
        if unknown := self._models.foreign(listed):
            names = ", ".join(unknown)
            what = f"models of this home that it no longer knows: {names}"
            remedy = f"delete them: ollama rm {' '.join(unknown)}"
            checks.append(ServerCheck(client.url, "adapters", "warn", what, remedy))
        return checks

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        """Compute nothing: a prefix would take the place of another conversation, or load a model."""

    async def load(self, adapter: AdapterRef) -> None:
        await super().load(adapter)
        await self._delete_superfluous(self._replicas.ready)

    async def drop(self, adapter: AdapterRef) -> None:
        """Delete a version's model, after the replies that it is generating."""
        self._adapters.forget(adapter)
        while any(adapter.name in replica.active for replica in self._replicas.all):
            await self._replicas.wait_for_release()
        await asyncio.to_thread(self._models.drop, adapter.name)
        await self._delete_superfluous(self._replicas.all)

    async def clear_prefix_cache(self) -> None:
        """Have the server end the processes that hold prompts: each model has one."""
        for replica in self._replicas.ready:
            assert isinstance(replica.client, OllamaClient)
            try:
                for model in await replica.client.loaded_sizes():
                    if model.startswith(f"{self._models.namespace}/"):
                        await replica.client.unload(model)
            except VllmError as error:  # those of a server that has ended are gone
                log.warning("%s keeps prompts until it unloads its models: %s", replica.url, error)

    def state(self) -> EngineState:
        """Return the load; the adapters are those whose models stay in memory."""
        state = super().state()
        kept = {use.model: name for name, use in self._models.uses.items()}
        loaded = {kept[model] for model in self._asked.favourites if model in kept}
        adapters = [replace(each, in_slot=False) for each in state.adapters if each.name in loaded]
        return replace(
            state,
            precision=self.model_file.name,  # which says its own quantisation
            adapters=tuple(adapters),
            slots=self._asked.room,
        )

    # --------------------------------------------------------------------------------------- models

    async def _make_version(self, client: OllamaClient, adapter: AdapterRef) -> None:
        """Make a version's model unless the server has it. Raises `AdapterError` and `VllmError`."""
        lora = await asyncio.to_thread(self._files.write, adapter)
        model = model_name(self._models.namespace, adapter.name, lora.name)
        if model not in await client.model_sizes():
            await self._require_disk()
            try:
                await self._make_merged(client, model, lora)
            except (ExportError, OSError) as error:
                message = error.message if isinstance(error, ExportError) else str(error)
                raise AdapterError(
                    f"{adapter.persona_id} {adapter.version} cannot be merged into the base model "
                    f"for Ollama: {message}",
                    "Free disk space, or serve it with ENGINE=llamacpp.",
                ) from error
        earlier = self._models.uses.get(adapter.name)
        self._models.add(adapter, model)
        if earlier and earlier.model != model:  # trained anew under the same name
            await client.delete(earlier.model)
        self._asked.room = (await self._memory(client)).room

    async def _make_merged(self, client: OllamaClient, model: str, lora: Path) -> None:
        folder = self.home / MERGE_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            file = Path(scratch) / "merged.gguf"
            log.info("merging %s into the base model for Ollama …", lora.name)
            await asyncio.to_thread(merge_lora, self.model_file, lora, file)
            await self._make(client, model, file)

    async def _make(self, client: OllamaClient, model: str, file: Path) -> None:
        digest = await asyncio.to_thread(_sha256, file)
        await client.upload(file, digest)
        await client.create(model, digest)
        log.info("%s has the model %s", client.url, model)

    async def _require_disk(self) -> None:
        """Raise `AdapterError` where a merged file has no room: here it lies beside the home, and
        again in Ollama's store.
        """
        need = await asyncio.to_thread(self._merged_bytes)
        free = psutil.disk_usage(str(self.home)).free
        if free < 2 * need:
            raise AdapterError(
                f"A version for Ollama takes {format_gib(need)} on the disk, twice while it is made, "
                f"and {format_gib(free)} are free.",
                "Free disk space, or serve with ENGINE=llamacpp, which stores adapters alone.",
            )

    async def _delete_version(self, client: OllamaClient, name: str) -> None:
        if use := self._models.uses.get(name):
            await client.delete(use.model)
            self._asked.forget(use.model)
            self._models.remove(name)

    async def _delete_superfluous(self, replicas: Sequence[Replica]) -> None:
        """Delete the models of versions that were dropped or replaced, and of those beyond the limit.
        Those of a server that is away are deleted when it is checked again.
        """
        for replica in replicas:
            in_flight = {*replica.active, *(seq.adapter_name for seq in self._scheduler.queue)}
            for name in self._models.superfluous(in_flight):
                try:
                    await self._adapters.unload(replica, name)
                except VllmError as error:
                    log.warning("%s keeps the model of %s: %s", replica.url, name, error)

    async def _memory(self, client: OllamaClient) -> OllamaMemory:
        """Compare what models take with the memory: the machine's, or the cards' as far as Ollama
        tells of them, which it does of loaded models only.
        """
        loaded = await client.loaded_sizes()
        context = self._wanted.tokens * kv_bytes_per_token(self._files.config) + FIXED_BYTES
        base = self.model_file.stat().st_size
        merged = await asyncio.to_thread(self._merged_bytes)
        return OllamaMemory(
            base_bytes=base + context,
            version_bytes=merged + context,
            free_bytes=psutil.virtual_memory().available,
            loaded_bytes=loaded_of(self._models.namespace, loaded),
        )

    # -------------------------------------------------------------------------------------- servers

    def _merged_bytes(self) -> int:
        """Return the size of a version's file; reading a large vocabulary takes a second."""
        if not self._version_bytes:
            self._version_bytes = merged_bytes(self.model_file)
        return self._version_bytes

    @cached_property
    def _base_model(self) -> str:
        content = f"{self.fingerprint}\0{self.model_file.stat().st_size}"
        return model_name(self._models.namespace, BASE_NAME, content)

    async def _open(self) -> list[VllmClient]:
        self._models = OllamaModels(self.home, self.limits.adapters)
        await asyncio.to_thread(self._models.read)
        clients = await super()._open()
        adapters = OllamaAdapters(self._verify, self._probe_effect, self.home, "")
        adapters.make = self._make_version
        adapters.unmake = self._delete_version
        self._adapters = adapters
        return clients

    def _create_client(self, url: str) -> VllmClient:
        client = OllamaClient(url, self._session)
        client.advice = "Start Ollama: open its app, or type `ollama serve`."
        return client

    def _read_files(self) -> None:
        super()._read_files()
        if self.max_context_tokens is None and not has_accelerator():
            self._wanted = self._wanted.limited_to(PROCESSOR_CONTEXT_TOKENS, PROCESSOR_REASON)
        self._files = GgufAdapters(self.home, self.base, self.model_file, self._layers)
        self._checker = self._create_checker(self._checker.expected)

    def _create_checker(self, expected: ExpectedModel) -> OllamaChecker:
        return OllamaChecker(expected, self._base_model, self._wanted.tokens)

    @property
    def _bos(self) -> str:
        return str(self._renderer.tokenizer.bos_token or "")

    async def _check_replica(self, replica: Replica) -> ServedModels:
        client = replica.client
        assert isinstance(client, OllamaClient) and isinstance(self._adapters, OllamaAdapters)
        listed = await client.model_sizes()
        if self._base_model not in listed:
            log.info("giving the base model to %s …", client.url)
            try:
                await self._make(client, self._base_model, self.model_file)
            except OSError as error:
                raise VllmError(f"{self.model_file} cannot be read: {error}.") from error
        served = await self._checker.check(client)
        self._adapters.forget_shown(client.url)
        memory = await self._memory(client)
        self._asked.room = memory.room
        log.log(logging.INFO if memory.has_room else logging.WARNING, "Ollama: %s", memory.text)
        await self._delete_superfluous([replica])
        return served

    async def _probe_effect(self, client: VllmClient, adapter: AdapterRef) -> None:
        if not (adapter.folder / EFFECT_PROBE_FILE).is_file():
            return
        assert isinstance(client, OllamaClient)
        served = await self._checker.check(client)
        assert isinstance(served, ServedByOllama)
        scorer = OllamaScorer(
            client,
            served,
            model_of=self._model_of,
            text_of=partial(self._text_of, adds_bos=served.adds_bos),
            piece_of=self._renderer.decode_token,
            encode=self._encode,
            place=f"ollama {await client.version()}, {client.url}",
        )
        await self._effects.check(scorer, adapter, None)

    def _model_of(self, adapter: AdapterRef | None) -> str:
        return self._models.uses[adapter.name].model if adapter else self._base_model

    def _encode(self, text: str) -> Sequence[int]:
        ids: Sequence[int] = self._renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text_of(self, ids: Sequence[int], *, adds_bos: bool) -> str | None:
        """Return the text that a server splits into these tokens; None if there is none."""
        tokenizer = self._renderer.tokenizer
        given = list(ids)
        text: str = tokenizer.decode(given, skip_special_tokens=False)
        if list(self._encode(text)) != given:
            return None
        return text.removeprefix(self._bos) if adds_bos and self._bos else text

    def _create_sequence(
        self,
        request: ChatRequest,
        prompt: RenderedPrompt,
        stream: VllmReplyStream,
        on_end: Callable[[], None],
    ) -> VllmSequence:
        return OllamaSequence.create(request, prompt, self._renderer, sink=stream, on_end=on_end)


def require_local(urls: Sequence[str]) -> None:
    """Require one server that runs on this machine. Raises `VllmError`."""
    if len(urls) != 1:
        raise VllmError(
            f"ENGINE_URLS names {len(urls)} servers, and ENGINE=ollama uses one: this machine's.",
            f"Leave it out for {DEFAULT_URL}.",
        )
    host = urlsplit(urls[0]).hostname or ""
    if not _is_local(host):
        raise VllmError(
            f"{urls[0]} is on another machine; with ENGINE=ollama, versions are served by this "
            "machine's Ollama only, whose memory and disk the bot plans.",
            LOCAL_ADVICE,
        )


def _is_local(host: str) -> bool:
    """Report whether a name or an address is this machine's own."""
    with suppress(OSError, ValueError):
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        own = {
            address.address.partition("%")[0]
            for addresses_of in psutil.net_if_addrs().values()
            for address in addresses_of
        }
        return all(
            ipaddress.ip_address(address).is_loopback or address in own for address in addresses
        )
    return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
