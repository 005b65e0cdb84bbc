"""The chat engine over vLLM servers: our prompts, fairness and stop rules, their forward passes."""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from personas.engine import AdapterStatus, EngineState, MetricsCallback
from personas.engine.admission import AdmissionControl
from personas.engine.context_window import SMALL_CONTEXT_TOKENS, ContextWindow, prompt_room
from personas.engine.effect_probe import EffectChecks
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.remote.cache_salt import CacheSalt
from personas.engine.remote.replica import Replica, ReplicaLimits
from personas.engine.remote.replica_adapters import ReplicaAdapters, RestartNotices
from personas.engine.remote.replica_health import ReplicaHealth, cancel_tasks
from personas.engine.remote.replica_scheduler import ReplicaScheduler, scheduler_limits
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.sampling_names import VLLM_NAMES
from personas.engine.remote.server_checks import (
    ExpectedModel,
    ReplicaChecker,
    ServerCheck,
    ServerChecker,
)
from personas.engine.remote.server_errors import ReplicaError, VllmError
from personas.engine.remote.vllm_client import START_METRIC, ServedModels, VllmClient, open_session
from personas.engine.remote.vllm_scorer import VllmScorer
from personas.engine.remote.vllm_sequence import VllmReplyStream, VllmSequence
from personas.errors import EngineBusyError, ServerError, UnderstudyError
from personas.gettext_marker import MarkedText, gettext_noop
from personas.home.adapters import EFFECT_PROBE_FILE, largest_rank, verify_for_base_model
from personas.home.effect_probe import EffectResults
from personas.home.lora_checks import check_lora, stored_linear_shapes
from personas.home.prompt_version import renderer_of
from personas.models import loading
from personas.models.base_model import BaseModel, fingerprint
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, Turn, VisionSetting
from personas.schemas.training import ServingPrecision

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 1.0  # interval in which requests that waited too long are failed
MAX_QUEUED_PREFIXES = 256
MIN_RANK = 16
"""LoRA rank of the recipes, which each server has to accept."""
PROBE_FOLDER = "cache/vllm_probe"
NOTICES_FILE = "vllm_restarts.json"
T = TypeVar("T")


@dataclass
class VllmEngine:
    """Generates replies on vLLM servers that serve one base model with LoRA adapters.

    `urls` are the servers' addresses and `key` their API key. `server_home` is the path under which
    they see `home`, if another than here. `precision` is the one that they serve in. A prompt and
    its reply have at most `max_context_tokens` (None: the default), or fewer where the base model or
    a server takes no more. `vision`: servers are given pictures, or not, or asked whether they take
    any. A request waits at most `wait_s`, also for a server
    that is away; a reply ends after `reply_s`; a server that sends nothing for `stall_s` is given
    up.
    """

    base: BaseModel
    precision: ServingPrecision
    urls: Sequence[str]
    home: Path
    key: str = field(default="", repr=False)
    server_home: str = ""
    limits: ReplicaLimits = field(default_factory=ReplicaLimits)
    max_waiting: int = 64
    max_context_tokens: int | None = None
    vision: VisionSetting = "auto"
    wait_s: float = 120.0
    reply_s: float = 300.0
    stall_s: float = 120.0
    start_wait_s: float = 60.0
    on_reply: MetricsCallback = lambda metrics: None
    server_name: ClassVar[str] = "vLLM servers"
    attempts_type: ClassVar[type[ReplyAttempts]] = ReplyAttempts
    replicas_type: ClassVar[type[Replicas]] = Replicas
    scheduler_type: ClassVar[type[ReplicaScheduler[VllmSequence]]] = ReplicaScheduler
    _checker: ReplicaChecker = field(init=False)
    _wanted: ContextWindow = field(init=False)
    _streams: set[VllmReplyStream] = field(default_factory=set, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _prefixes: deque[tuple[Persona, AdapterRef | None]] = field(default_factory=deque, init=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.base)

    @property
    def window(self) -> ContextWindow:
        """The window that all servers known so far take."""
        window = self._wanted
        for replica in self._replicas.all:
            if replica.served is None:
                continue
            if limit := replica.served.max_tokens:
                reason = gettext_noop("all that {url} takes")
                window = window.limited_to(limit, MarkedText(reason, url=replica.url))
            elif not self.max_context_tokens:
                # Ollama, for one, drops the beginning of a longer prompt, where the card is.
                reason = gettext_noop("{url} does not say how many it takes; CONTEXT_TOKENS can")
                window = window.limited_to(
                    SMALL_CONTEXT_TOKENS, MarkedText(reason, url=replica.url)
                )
        return window

    @property
    def context_tokens(self) -> int:
        return self.window.tokens

    @property
    def sampling_fields(self) -> Set[str]:
        """Those that a server takes; while nothing is known of any, those that vLLM does."""
        known = [replica.served.sampling_names for replica in self._replicas.all if replica.served]
        return set(chain.from_iterable(known or [VLLM_NAMES]))

    @property
    def _served_precision(self) -> ServingPrecision:
        """The precision that the servers have now."""
        return self.precision

    async def start(self) -> None:
        """Check the servers, and wait until one is ready. Raises `BaseModelError` and
        `VllmError`.
        """
        clients = await self._open()
        self._salt = CacheSalt(self.home)
        await self._in_thread(self._salt.read)
        self._replicas = self.replicas_type(clients, self.limits)
        self._health = ReplicaHealth(self._replicas, self._check_replica, self._on_replicas_changed)
        self._scheduler = self.scheduler_type(
            self._scheduler_limits(), self._replicas, self._start_attempt
        )
        self._attempts = self.attempts_type(
            self._replicas,
            self._health,
            self._adapters,
            self._scheduler,
            salt=self._salt,
            stall_s=self.stall_s,
        )
        rows = self.limits.rows * len(clients)
        self._admission = AdmissionControl.of_engine(rows, self.max_waiting, self.wait_s)
        self._start_task(self._sweep_forever())
        try:
            await self._health.start(self.start_wait_s)
        except BaseException:
            await self.close()
            raise

    async def inspect(self) -> list[ServerCheck]:
        """Check all servers, for the doctor; the engine is neither started nor closed then. Raises
        `BaseModelError`.
        """
        try:
            clients = await self._open()
            checks = await asyncio.gather(*(self._inspect(client) for client in clients))
            await self._session.close()
        finally:
            self._executor.shutdown(wait=False)
        return list(chain.from_iterable(checks))

    async def _inspect(self, client: VllmClient) -> list[ServerCheck]:
        checks = await self._checker.inspect(client)
        with suppress(VllmError):  # it was reported already
            await self._clear_notices(client)
        if dropped := self._notices.read().get(client.url):
            names = ", ".join(sorted(dropped))
            checks.append(
                ServerCheck(
                    client.url,
                    topic="restart",
                    state="warn",
                    found=f"the weights of {names} were dropped, but are still in its memory",
                    remedy="restart this server",
                )
            )
        return checks

    def submit(self, request: ChatRequest) -> VllmReplyStream:
        """Queue a request. Raises `EngineBusyError` where the queue is full, or all servers limit
        requests.
        """
        refusal = self._refusal()
        if isinstance(refusal, EngineBusyError):
            raise refusal
        self._admission.acquire(request.guild_id, request.member_id)
        version = request.adapter.version if request.adapter else None
        stream = VllmReplyStream(asyncio.get_running_loop(), version, self._sweep)
        self._streams.add(stream)
        self._start_task(self._add(request, stream))
        return stream

    async def load(self, adapter: AdapterRef) -> None:
        await self._adapters.load(self._replicas.preferred(adapter.name), adapter)

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        """Queue the common prefix of a persona's prompts. Nothing is done for a talk: it would be a
        request of its own, and the servers keep its keys and values.
        """
        if talk or (persona, adapter) in self._prefixes:
            return
        if len(self._prefixes) < MAX_QUEUED_PREFIXES:
            self._prefixes.append((persona, adapter))

    async def drop(self, adapter: AdapterRef) -> None:
        self._adapters.forget(adapter)
        while any(adapter.name in replica.active for replica in self._replicas.all):
            await self._replicas.wait_for_release()
        for replica in self._replicas.all:
            if adapter.name in replica.adapters or not replica.is_ready:
                await asyncio.to_thread(self._notices.add, replica.url, adapter.name)
        for replica in self._replicas.ready:
            try:
                await self._adapters.unload(replica, adapter.name)
            except ReplicaError as error:  # the check before its next replies unloads it
                self._health.fail(replica, error)

    async def clear_prefix_cache(self) -> None:
        await self._in_thread(self._salt.renew)

    def state(self) -> EngineState:
        replicas = self._replicas.all
        ready = self._replicas.ready
        names = sorted({name for replica in ready for name in replica.adapters})
        replies = Counter(lease.adapter for replica in replicas for lease in replica.leases)
        window = self.window
        return EngineState(
            model=self.base.name,
            device=f"{len(ready)} of {len(replicas)} {self.server_name}",
            precision=self._served_precision,
            context_tokens=window.tokens,
            context_reason=window.reason,
            running=len(self._scheduler.running),
            rows=self.limits.rows * len(ready),
            # With those whose prompts are being rendered: who waits for the end of all replies, such
            # as a move to the card, must not miss them.
            waiting=max(0, len(self._streams) - len(self._scheduler.running)),
            slots=self.limits.adapters * len(ready),
            adapters=tuple(AdapterStatus(name, replies[name], in_slot=True) for name in names),
            kept_bytes=0,
            kept_most_bytes=0,
            sees_pictures=any(
                replica.served is not None and replica.served.sees_pictures for replica in ready
            ),
            problems=tuple(dict.fromkeys(replica.told for replica in replicas if replica.told)),
        )

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.cancel()
        self._sweep()
        await self._health.close()
        await cancel_tasks(self._tasks)
        await self._session.close()
        self._executor.shutdown(wait=False)

    # ------------------------------------------------------------------------------------ one reply

    async def _add(self, request: ChatRequest, stream: VllmReplyStream) -> None:
        """Render a request's prompt, and queue it."""

        def on_end() -> None:
            self._streams.discard(stream)
            self._admission.release(request.guild_id, request.member_id)
            self.on_reply(stream.metrics)

        try:
            prompt = await self._in_thread(self._render, request)
        except Exception as error:  # of this request, such as a card that is too long
            stream.push(error)
            on_end()
            return
        seq = self._create_sequence(request, prompt, stream, on_end)
        seq.messages = prompt.messages
        if request.adapter and request.adapter.card == "short":
            seq.render_for_base = partial(self._render, replace(request, adapter=None))
        self._scheduler.add(seq)
        self._sweep()

    def _render(self, request: ChatRequest) -> RenderedPrompt:
        """Render a request's prompt. Raises `ValueError` for a card that is too long."""
        renderer = renderer_of(self._renderer, request.adapter)
        return renderer.prompt(
            request.persona,
            request.turns,
            lore=request.lore,
            max_tokens=prompt_room(self.context_tokens, request),
            instructions=request.instructions,
            prefill=request.prefill,
        )

    def _refusal(self) -> UnderstudyError | None:
        """Return the members' error while all servers limit or refuse requests. It names no reason:
        that is for the operator.
        """
        refusal = self._health.refusal()
        if refusal is None:
            return None
        if refusal.error.kind == "busy":
            advice = f"Try again in {math.ceil(refusal.wait_s)} seconds."
            return EngineBusyError(
                "The service that computes replies takes none for now.", advice, refusal.wait_s
            )
        advice = "The operator finds the reason on the dashboard's System page and in the log."
        return ServerError(
            "The service that computes replies refuses to compute any for now.", advice
        )

    def _refuse_waiting(self) -> None:
        """Fail waiting requests at once while all servers limit or refuse them. A reply that has
        begun goes on waiting.
        """
        if error := self._refusal():
            for seq in list(self._scheduler.queue):
                if not seq.received:
                    self._scheduler.fail_waiting(seq, error)

    def _create_sequence(
        self,
        request: ChatRequest,
        prompt: RenderedPrompt,
        stream: VllmReplyStream,
        on_end: Callable[[], None],
    ) -> VllmSequence:
        return VllmSequence.create(request, prompt, self._renderer, sink=stream, on_end=on_end)

    def _start_attempt(self, seq: VllmSequence) -> None:
        seq.task = self._start_task(self._run_attempt(seq))

    async def _run_attempt(self, seq: VllmSequence) -> None:
        await self._attempts.run(seq)
        self._sweep()

    # ------------------------------------------------------------------------------------- replicas

    async def _check_replica(self, replica: Replica) -> ServedModels:
        """Check a server, and bring its adapters up to date. Raises `VllmError`."""
        served = await self._checker.check(replica.client)
        await self._clear_notices(replica.client)
        adapters = await self._adapters.update(
            replica.client, served.adapters, self._replicas.prefers
        )
        return replace(served, adapters=adapters)

    async def _clear_notices(self, client: VllmClient) -> None:
        if started_at := await client.metric(START_METRIC):
            await asyncio.to_thread(self._notices.clear, client.url, started_at)

    def _on_replicas_changed(self) -> None:
        self._scheduler.limits = self._scheduler_limits()
        self._sweep()

    def _scheduler_limits(self) -> SchedulerLimits:
        return scheduler_limits(len(self._replicas.ready), self.limits, self.wait_s, self.reply_s)

    def _sweep(self) -> None:
        """End requests that are cancelled, late or refused, and start those that can start."""
        self._scheduler.expire()
        self._refuse_waiting()
        self._scheduler.admit()

    async def _sweep_forever(self) -> None:
        while True:
            self._sweep()
            if self._prefixes and not self._scheduler.running and not self._scheduler.queue:
                await self._warm_up(*self._prefixes.popleft())
            else:
                await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _warm_up(self, persona: Persona, adapter: AdapterRef | None) -> None:
        """Have a replica compute the common prefix of a persona's prompts. Only time is lost if
        that fails.
        """
        name = adapter.name if adapter else ""
        replica = self._replicas.choose(name or persona.id, name)
        if replica is None or not replica.served:
            return
        lease = self._replicas.lease(replica, name)
        try:
            renderer = renderer_of(self._renderer, adapter)
            prefix = await self._in_thread(renderer.common_prefix, persona, self.context_tokens)
            if adapter:
                await self._adapters.ensure(replica, adapter)
            body = {
                "model": name or replica.served.base,
                "prompt": list(prefix),
                "max_tokens": 1,
                "cache_salt": self._salt.value,
            }
            async with asyncio.timeout(self.stall_s):
                async with aclosing(replica.client.generate(body)) as chunks:
                    async for _ in chunks:
                        pass
        except Exception as error:
            log.info("the prompt prefix of %s is not computed in advance: %s", persona.name, error)
        finally:
            self._replicas.release(lease)

    # -------------------------------------------------------------------------------------- helpers

    async def _open(self) -> list[VllmClient]:
        """Read the files that the checks need, and open a session; returns the servers' clients. Raises
        `BaseModelError`.
        """
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._adapters = ReplicaAdapters(
            self._verify, self._probe_effect, self.home, self.server_home
        )
        self._effects = EffectChecks(EffectResults(self.home), self.fingerprint, self.precision)
        self._notices = RestartNotices(self.home / NOTICES_FILE)
        await self._in_thread(self._read_files)
        self._session = open_session(self.key)
        return [self._create_client(url) for url in self.urls]

    def _create_client(self, url: str) -> VllmClient:
        return VllmClient(url, self._session)

    def _read_files(self) -> None:
        tokenizer = loading.load_tokenizer(self.base)
        self._renderer = Renderer(tokenizer)
        self._layers = stored_linear_shapes(self.base)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wanted = ContextWindow.of_base(self.base, self.max_context_tokens)
        least = min(self._wanted.tokens, SMALL_CONTEXT_TOKENS)
        is_in_home = self.base.folder.is_relative_to(self.home)
        names = [self._adapters.path(self.base.folder)] if is_in_home else []
        self._checker = self._create_checker(ExpectedModel.of(self.base, tokenizer, least, names))

    def _create_checker(self, expected: ExpectedModel) -> ReplicaChecker:
        probe = self.home / PROBE_FOLDER
        rank = max(MIN_RANK, largest_rank(self.home))
        return ServerChecker(expected, probe, self._adapters.path(probe), rank, vision=self.vision)

    def _verify(self, adapter: AdapterRef) -> None:
        verify_for_base_model(adapter, self._checker.expected.fingerprint)
        name = f"{adapter.persona_id} {adapter.version}"
        check_lora(adapter.folder, self._layers, name, has_all_layers=False)

    async def _probe_effect(self, client: VllmClient, adapter: AdapterRef) -> None:
        """Have a server show an adapter's effect unless it has. Raises `EffectError`,
        `CacheLeakError`, and `VllmError` where the server is away.
        """
        if (adapter.folder / EFFECT_PROBE_FILE).is_file():
            scorer = await VllmScorer.of(client, self._salt.value)
            other = self._adapters.other_on(client.url, adapter)
            effects = replace(self._effects, precision=self._served_precision)
            await effects.check(scorer, adapter, other)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function on the thread of the tokenizer."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, partial(function, *args)
        )

    def _start_task(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("a task of the engine failed: %s", error)
