"""The chat engine over llama.cpp servers, with tuned voices (`ENGINE=llamacpp`)."""

import asyncio
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from personas.engine import EngineState
from personas.engine.context_window import fit_rows, prompt_room
from personas.engine.fair_scheduler import AdapterState
from personas.engine.remote.llamacpp_adapters import LlamaCppAdapters, WantedAdapters
from personas.engine.remote.llamacpp_attempts import LlamaCppReplyAttempts, LlamaCppSequence
from personas.engine.remote.llamacpp_client import (
    LlamaCppChecker,
    LlamaCppClient,
    ServedByLlamaCpp,
    candidates_text,
)
from personas.engine.remote.llamacpp_command import (
    INSTALL_ADVICE,
    LlamaOptions,
    LlamaProgram,
    missing_options,
)
from personas.engine.remote.llamacpp_memory import ServerMemory, server_memory
from personas.engine.remote.llamacpp_process import LlamaServerError, LlamaServerProcess
from personas.engine.remote.llamacpp_replicas import LlamaCppReplicas
from personas.engine.remote.llamacpp_scorer import LlamaCppScorer
from personas.engine.remote.llamacpp_servers import LlamaServers
from personas.engine.remote.replica import Replica, ReplicaLimits
from personas.engine.remote.replica_scheduler import ReplicaScheduler
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.server_checks import (
    PICTURES_ARE_SEEN,
    ExpectedModel,
    ServerCheck,
)
from personas.engine.remote.server_errors import AdapterNotServedError, ReplicaError
from personas.engine.remote.vllm_client import ServedModels, VllmClient
from personas.engine.remote.vllm_engine import VllmEngine
from personas.engine.remote.vllm_sequence import VllmReplyStream, VllmSequence
from personas.errors import ExportError, UnderstudyError
from personas.gettext_marker import MarkedText, gettext_noop
from personas.home.adapters import EFFECT_PROBE_FILE
from personas.home.gguf_adapters import GgufAdapters
from personas.home.prompt_version import renderer_of
from personas.models.vision_projector import find_projector
from personas.prompt.renderer import RenderedPrompt
from personas.schemas.chat import (
    AdapterRef,
    ChatRequest,
    Persona,
    Turn,
    asked_turn,
)

log = logging.getLogger(__name__)
LOG_FILE = "logs/llama-server.log"
LOAD_ATTEMPTS = 3
RETRY_REFUSED_S = 60.0
"""Time after which an adapter that no server took is tried again."""
LLAMACPP_LIMITS = ReplicaLimits(rows=4, health_timeout_s=10.0)
"""A server that computes a long prompt on all cores answers late."""
STALL_S = 300.0
"""A part of a prompt, of 2,048 tokens, may take minutes on a CPU."""
PROCESSOR_CONTEXT_TOKENS = 4096
"""A processor takes minutes to read a longer prompt."""
PROCESSOR_REASON = MarkedText(
    gettext_noop("the default of llama.cpp on a processor; CONTEXT_TOKENS can raise it")
)
ACCELERATOR_DEVICES = ("/dev/nvidiactl", "/dev/kfd")
"""Devices of NVIDIA's and of AMD's drivers."""
MEMORY_SHARE = 0.8
"""Share of the free memory that a server with all its slots may take."""
REPLACEMENT_CHARACTER = "\ufffd"


class LlamaCppScheduler(ReplicaScheduler[VllmSequence]):
    """Starts replies on servers that have their adapters; others wait for one that is starting."""

    def _state(self, seq: VllmSequence) -> AdapterState:
        replicas = self._replicas
        assert isinstance(replicas, LlamaCppReplicas)
        if not any(replicas.has_adapter(replica, seq.adapter_name) for replica in replicas.ready):
            return AdapterState.LOADING
        return super()._state(seq)


@dataclass
class LlamaCppEngine(VllmEngine):
    """Generates replies on llama.cpp servers whose base model is the GGUF file `model_file`.

    With `program`, the engine runs its own server on this machine, of `limits.rows` slots, and
    exchanges it when a version is promoted. Without, it uses the servers of `urls`, which have the
    LoRA files that they were started with. Replies begin among at most `candidates`.
    """

    model_file: Path = Path()
    program: LlamaProgram | None = None
    candidates: int = 1
    stall_s: float = STALL_S
    server_name: ClassVar[str] = "llama.cpp servers"
    attempts_type: ClassVar[type[ReplyAttempts]] = LlamaCppReplyAttempts
    replicas_type: ClassVar[type[Replicas]] = LlamaCppReplicas
    scheduler_type: ClassVar[type[ReplicaScheduler[VllmSequence]]] = LlamaCppScheduler
    _files: GgufAdapters = field(init=False)
    _projector: Path | None = field(default=None, init=False)
    _server: LlamaServerProcess | None = field(default=None, init=False)
    _servers: LlamaServers | None = field(default=None, init=False)
    _paths: dict[str, Path] = field(default_factory=dict, init=False)
    _wanted_adapters: WantedAdapters = field(init=False)
    _refused: dict[str, tuple[UnderstudyError, float]] = field(default_factory=dict, init=False)
    _adapter_loads: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _swept_at: float = field(default=0.0, init=False)

    async def start(self) -> None:
        """Start the server, or check those of `urls`. Raises `BaseModelError`, `LlamaServerError`
        and `VllmError`.
        """
        self._swept_at = time.monotonic()
        await super().start()
        replicas = self._llama_replicas
        assert isinstance(self._adapters, LlamaCppAdapters)
        self._adapters.replicas = replicas
        assert isinstance(self._attempts, LlamaCppReplyAttempts)
        self._attempts.is_whole = self._is_whole
        replicas.files |= {name: path.name for name, path in self._paths.items()}
        if self._server:
            self._servers = LlamaServers(
                self._server,
                self._launch,
                self._memory,
                create_client=self._create_client,
                replicas=replicas,
                health=self._health,
            )

    async def inspect(self) -> list[ServerCheck]:
        """Check the servers of `urls`, or all that an own server needs, which is not started."""
        if not self.program:
            return await super().inspect()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._adapters = LlamaCppAdapters(self._probe_effect, self.home)
        self._wanted_adapters = WantedAdapters(self.home, self.limits.adapters)
        try:
            await self._in_thread(self._read_files)
            return await self._in_thread(self._inspect_own)
        finally:
            self._executor.shutdown(wait=False)

    def _inspect_own(self) -> list[ServerCheck]:
        assert self.program is not None  # the caller has checked it
        name = self.program.name
        self._projector = self._find_projector()
        if missing := missing_options(self.program, self._projector):
            problem = f"{name} is no llama-server of today: it has no {', '.join(missing)}"
            return [ServerCheck(name, "model", "fail", problem, INSTALL_ADVICE)]
        self._fit_slots()
        options = self._options(())
        found = f"{self.model_file}, {options.slots} slots of {options.context_tokens} tokens"
        checks = [ServerCheck(name, "model", "ok", f"{name} will serve {found}")]
        try:
            architecture = self._files.architecture.gguf
            stated = self._files.gguf_base.architecture
        except ExportError as error:
            checks.append(ServerCheck(name, "adapters", "fail", error.message, error.advice))
            return checks
        if architecture != stated:
            problem = f"the file is of the architecture {stated}, BASE_MODEL of {architecture}"
            remedy = "name the GGUF file of the base model"
            return [*checks, ServerCheck(name, "adapters", "fail", problem, remedy)]
        checks.append(ServerCheck(name, "adapters", "ok", "LoRA files of versions can be written"))
        checks.append(ServerCheck(name, "restart", "ok", self._memory(()).switch))
        checks.append(ServerCheck(name, "candidates", "ok", candidates_text(self.candidates)))
        if self._projector:
            found = f"{PICTURES_ARE_SEEN} with {self._projector.name}"
            checks.append(ServerCheck(name, "prompts", "ok", found))
        return checks

    async def load(self, adapter: AdapterRef) -> None:
        """Write a version's LoRA file, and have a server take it and show its effect. Raises
        `AdapterError`, `LlamaServerError` if none starts with it, and `ReplicaError` while a server
        is away.
        """
        path = await asyncio.to_thread(self._files.write, adapter)
        self._paths[adapter.name] = path
        self._llama_replicas.files[adapter.name] = path.name
        self._wanted_adapters.use(adapter)
        try:
            await self._serve_and_show(adapter)
        except UnderstudyError:
            self._wanted_adapters.drop(adapter.name)
            raise
        self._refused.pop(adapter.name, None)

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        """Compute nothing: a server has few slots, and a prefix would take that of a conversation."""

    async def drop(self, adapter: AdapterRef) -> None:
        """Delete a version's LoRA file, and take it from the bot's own server; another one has it
        until it is restarted.
        """
        self._wanted_adapters.drop(adapter.name)
        path = self._paths.pop(adapter.name, None)
        self._llama_replicas.files.pop(adapter.name, None)
        while any(adapter.name in replica.active for replica in self._replicas.all):
            await self._replicas.wait_for_release()
        if self._servers:
            await self._servers.switch(self._wanted_paths)
        elif path and any(path.name in replica.adapters for replica in self._replicas.all):
            log.warning("the servers keep %s in memory until they are restarted", path.name)
        await asyncio.to_thread(self._files.delete, adapter)

    async def clear_prefix_cache(self) -> None:
        """Have no request read what the slots keep; an own server is exchanged for a new one."""
        for replica in self._replicas.all:
            assert isinstance(replica.client, LlamaCppClient)
            replica.client.slots.forget()
        if self._servers:
            await self._servers.renew()

    def state(self) -> EngineState:
        state = super().state()
        names = {file: name for name, file in self._llama_replicas.files.items()}
        adapters = [
            replace(adapter, name=names[adapter.name], replies=self._replies(names[adapter.name]))
            for adapter in state.adapters
            if adapter.name in names
        ]
        ready = [
            replica.served
            for replica in self._replicas.ready
            if isinstance(replica.served, ServedByLlamaCpp)
        ]
        return replace(
            state,
            precision=self.model_file.name,  # which says its own quantisation
            adapters=tuple(adapters),
            candidates=max(served.candidates for served in ready) if ready else 1,
        )

    def _replies(self, name: str) -> int:
        return sum(replica.active[name] for replica in self._replicas.all)

    async def close(self) -> None:
        await super().close()
        if self._servers:
            await self._servers.close()
        elif self._server:
            await self._server.stop()

    async def _add(self, request: ChatRequest, stream: VllmReplyStream) -> None:
        if request.adapter:
            self._want(request.adapter)
        await super()._add(request, stream)

    def _want(self, adapter: AdapterRef) -> None:
        """Have a server take an adapter that a request names, unless one has it, or may have it when
        it is back.
        """
        if self._having(adapter.name):
            self._refused.pop(adapter.name, None)
            self._wanted_adapters.use(adapter)
            return
        if self._llama_replicas.may_return_with(adapter.name):
            return
        refused = self._refused.get(adapter.name)
        if refused and time.monotonic() - refused[1] < RETRY_REFUSED_S:
            return
        if adapter.name not in self._adapter_loads:
            self._adapter_loads[adapter.name] = self._start_task(self._load_for_replies(adapter))

    async def _load_for_replies(self, adapter: AdapterRef) -> None:
        try:
            await self.load(adapter)
        except ReplicaError as error:  # no server has refused it: its replies wait for one
            log.warning("%s is not served yet: %s", adapter.name, error)
        except UnderstudyError as error:
            self._refused[adapter.name] = (error, time.monotonic())
            log.error("%s is not served: %s", adapter.name, error)
        finally:
            del self._adapter_loads[adapter.name]
            self._sweep()

    async def _serve_and_show(self, adapter: AdapterRef) -> None:
        """Have a server take an adapter and show its effect; begin again if it dies meanwhile."""
        for attempt in range(1, LOAD_ATTEMPTS + 1):
            try:
                await self._serve(adapter)
                await self._adapters.load(self._having(adapter.name), adapter)
                return
            except ReplicaError as error:
                if self._servers is None or attempt == LOAD_ATTEMPTS:
                    raise
                log.warning("%s is loaded again: %s", adapter.name, error)

    async def _serve(self, adapter: AdapterRef) -> None:
        """Have a server take an adapter whose file is written. Raises `AdapterNotServedError`,
        `LlamaServerError`, and `ReplicaError` while a server is away that may have it.
        """
        if self._having(adapter.name):
            return
        if self._servers:
            await self._servers.switch(self._wanted_paths)
            await self._servers.wait_until_ready()
        if not self._having(adapter.name):
            if self._llama_replicas.may_return_with(adapter.name):
                raise ReplicaError(
                    f"A server that may have {adapter.persona_id} {adapter.version} is away.",
                    "Try again when it is back.",
                )
            options = self._options(self._wanted_paths())
            raise AdapterNotServedError(
                f"No server has {adapter.persona_id} {adapter.version}: llama.cpp takes adapters at "
                "its start only.",
                f"Start one with: {options.command_line()}",
            )

    def _having(self, name: str) -> list[Replica]:
        replicas = self._llama_replicas
        return [replica for replica in replicas.ready if replicas.has_adapter(replica, name)]

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._servers and self._servers.is_loading:
            for seq in self._scheduler.queue:
                seq.queued_at += now - self._swept_at
        self._swept_at = now
        for seq in list(self._scheduler.queue):
            if seq.adapter:
                self._want(seq.adapter)
            self._answer_without(seq)
        super()._sweep()

    def _answer_without(self, seq: VllmSequence) -> None:
        """Have the base model answer for a version that no server takes, where it may."""
        refused = self._refused.get(seq.adapter_name)
        if refused is None or seq.adapter_name in self._adapter_loads:
            return
        if not seq.may_use_base_model:
            self._scheduler.fail_waiting(seq, refused[0])
            return
        log.error("the base model answers instead of %s: %s", seq.adapter_name, refused[0])
        try:
            seq.use_base_model()
        except ValueError as too_long:
            self._scheduler.fail_waiting(seq, too_long)

    # ------------------------------------------------------------------------------------- servers

    @property
    def _llama_replicas(self) -> LlamaCppReplicas:
        assert isinstance(self._replicas, LlamaCppReplicas)
        return self._replicas

    async def _open(self) -> list[VllmClient]:
        if self.program:
            self.key = secrets.token_urlsafe(24)
        clients = await super()._open()
        self._adapters = LlamaCppAdapters(self._probe_effect, self.home)
        self._wanted_adapters = WantedAdapters(self.home, self.limits.adapters)
        if not self.program:
            return clients
        try:
            await self._write_wanted()
            self._projector = await asyncio.to_thread(self._find_projector)
            await asyncio.to_thread(self._fit_slots)
            self._server = await self._start_first()
        except BaseException:
            await self._session.close()
            self._executor.shutdown(wait=False)
            raise
        self.urls = (self._server.url,)
        return [self._create_client(self._server.url)]

    async def _start_first(self) -> LlamaServerProcess:
        """Start the server; without the projector if it does not start with it. Raises
        `LlamaServerError`.
        """
        server = self._launch(self._wanted_paths())
        try:
            await server.start(self._create_client)
        except LlamaServerError as error:
            if self._projector is None:
                raise
            log.error("without %s, no pictures are seen: %s", self._projector.name, error)
            self._projector = None
            server = self._launch(self._wanted_paths())
            await server.start(self._create_client)
        return server

    async def _write_wanted(self) -> None:
        """Write the files of the adapters that the server is started with, as at the last start."""
        await asyncio.to_thread(self._wanted_adapters.read)
        for adapter in list(self._wanted_adapters.adapters.values()):
            try:
                self._paths[adapter.name] = await asyncio.to_thread(self._files.write, adapter)
            except UnderstudyError as error:  # its next reply says so again
                log.warning("%s is not served from the start: %s", adapter.name, error)
                self._wanted_adapters.drop(adapter.name)

    def _wanted_paths(self) -> list[Path]:
        return [self._paths[name] for name in self._wanted_adapters.adapters if name in self._paths]

    def _options(self, adapters: Sequence[Path]) -> LlamaOptions:
        return LlamaOptions(
            self.model_file,
            tuple(adapters),
            slots=self.limits.rows,
            context_tokens=self._wanted.tokens,
            candidates=self.candidates,
            projector=self._projector,
        )

    def _find_projector(self) -> Path | None:
        if self.vision == "off":
            return None
        width = int(self._files.config.get_text_config().hidden_size)
        return find_projector(self.model_file, width)

    def _fit_slots(self) -> None:
        """Lower the number of slots and their context to what the memory allows for keys and
        values.
        """
        options = self._options(self._wanted_paths())

        def fits(slots: int, context_tokens: int) -> bool:
            memory = self._memory_of(replace(options, slots=slots, context_tokens=context_tokens))
            return memory.need_bytes <= MEMORY_SHARE * memory.free_bytes

        self._wanted, slots = fit_rows(self._wanted, self.limits.rows, fits)
        self.limits = replace(self.limits, rows=slots)
        self._checker = self._create_checker(self._checker.expected)

    def _launch(self, adapters: Sequence[Path]) -> LlamaServerProcess:
        assert self.program is not None  # the caller runs its own servers
        return LlamaServerProcess(
            self.program, self._options(adapters), self.home / LOG_FILE, self.key
        )

    def _memory(self, adapters: Sequence[Path]) -> ServerMemory:
        return self._memory_of(self._options(adapters))

    def _memory_of(self, options: LlamaOptions) -> ServerMemory:
        files = (options.model, *options.adapters, *filter(None, [options.projector]))
        return server_memory(files, self._files.config, options.kv_tokens)

    def _create_client(self, url: str) -> LlamaCppClient:
        client = LlamaCppClient(url, self._session)
        if self.program:
            client.advice = f"The bot starts it again; see {self.home / LOG_FILE}."
        return client

    def _read_files(self) -> None:
        super()._read_files()
        if self.program and self.max_context_tokens is None and not has_accelerator():
            self._wanted = self._wanted.limited_to(PROCESSOR_CONTEXT_TOKENS, PROCESSOR_REASON)
        self._files = GgufAdapters(self.home, self.base, self.model_file, self._layers)

    def _create_checker(self, expected: ExpectedModel) -> LlamaCppChecker:
        return LlamaCppChecker(expected, self.limits.rows, self.candidates, self.vision)

    async def _check_replica(self, replica: Replica) -> ServedModels:
        served = await self._checker.check(replica.client)
        await self._adapters.update(replica.client, served.adapters, self._replicas.prefers)
        return served

    async def _probe_effect(self, client: VllmClient, adapter: AdapterRef) -> None:
        if not (adapter.folder / EFFECT_PROBE_FILE).is_file():
            return
        assert isinstance(client, LlamaCppClient)
        served = await client.models()
        scorer = LlamaCppScorer(
            client,
            served,
            self._llama_replicas.files,
            is_whole=self._is_whole,
            place=self._place(client, served),
        )
        await self._effects.check(scorer, adapter, self._other_on(served, adapter))

    def _other_on(self, served: ServedByLlamaCpp, adapter: AdapterRef) -> AdapterRef | None:
        """Return another adapter that a server has, the one used last; None without any."""
        for other in reversed(self._wanted_adapters.adapters.values()):
            if (
                other.name != adapter.name
                and self._llama_replicas.files.get(other.name) in served.ids
            ):
                return other
        return None

    def _place(self, client: LlamaCppClient, served: ServedByLlamaCpp) -> str:
        """Name what computes: an own server is always started with the same files."""
        if self.program:
            return f"llamacpp {self.program.name}, {self.model_file}"
        return f"llamacpp {client.url}, {served.root}"

    def _is_whole(self, token: int) -> bool:
        """Return whether a token is whole characters, and no control token."""
        text = self._renderer.decode_token(token)
        is_special = token in self._renderer.tokenizer.all_special_ids
        return bool(text) and REPLACEMENT_CHARACTER not in text and not is_special

    async def _inspect(self, client: VllmClient) -> list[ServerCheck]:
        return await self._checker.inspect(client)

    def _create_sequence(
        self,
        request: ChatRequest,
        prompt: RenderedPrompt,
        stream: VllmReplyStream,
        on_end: Callable[[], None],
    ) -> VllmSequence:
        seq = LlamaCppSequence.create(request, prompt, self._renderer, sink=stream, on_end=on_end)
        seq.card_prompt = prompt.card
        seq.renderer = self._renderer
        return seq

    def _render(self, request: ChatRequest) -> RenderedPrompt:
        prompt = super()._render(request)
        if request.sampling.candidates == 1 or self.candidates == 1:
            return prompt
        renderer = renderer_of(self._renderer, request.adapter)
        card = renderer.card_prompt(
            request.persona,
            user=asked_turn(request.turns).name,
            instructions=request.instructions,
            max_tokens=prompt_room(self.context_tokens, request),
        )
        return replace(prompt, card=card)


def has_accelerator() -> bool:
    """Report whether this machine has a card that llama.cpp computes on."""
    return sys.platform == "darwin" or any(map(os.path.exists, ACCELERATOR_DEVICES))
