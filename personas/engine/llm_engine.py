"""The chat engine: takes requests on the event loop, runs the model on a thread of its own, streams
replies back.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil

from personas.engine import EngineState, MetricsCallback
from personas.engine.admission import AdmissionControl
from personas.engine.context_window import (
    SMALL_CONTEXT_TOKENS,
    ContextWindow,
    KVBudget,
    prompt_room,
)
from personas.engine.cpu_kernel.build import load_compiled
from personas.engine.effect_probe import EffectChecks
from personas.engine.fair_scheduler import SchedulerLimits, run_or_log
from personas.engine.packed_size import packed_weight_bytes
from personas.engine.reply_stream import QueuedReplyStream
from personas.errors import NoMemoryError, is_out_of_memory
from personas.home.effect_probe import EffectResults
from personas.home.prompt_version import renderer_of
from personas.models.base_model import BaseModel, fingerprint
from personas.models.loading import load_tokenizer, load_torch
from personas.models.serving_model import (
    Device,
    free_device_bytes,
    free_gpu_bytes,
    load_serving_model,
    precision_of,
    release_memory,
)
from personas.prompt.renderer import Renderer
from personas.schemas.chat import (
    AdapterRef,
    ChatRequest,
    Persona,
    SamplingParams,
    Turn,
    asked_turn,
)
from personas.schemas.training import ServingPrecision

if TYPE_CHECKING:
    from ctypes import CDLL

    from personas.engine.engine_parts import EngineParts
    from personas.engine.lora_runner import StackedLoraRunner
    from personas.engine.lora_slots import AdapterWeights
    from personas.engine.step import BatchGenerator
    from personas.engine.trials import OnTried

log = logging.getLogger(__name__)
# Interval in which the engine's thread looks for read adapters while all requests wait for one.
ADAPTER_POLL_S = 1.0
# Prompt tokens of a step with many replies: on CPUs, they are no cheaper in larger numbers.
CPU_BUSY_PREFILL_TOKENS = 128
# Size of the prefix cache: this share of the machine's memory, within these bounds. On GPUs, it is
# the least size. Under overload on twelve channels, 256 MiB were too small for the bundled model.
PREFIX_MEMORY_SHARE = 1 / 24
MIN_PREFIX_BYTES = 256 * 2**20
MAX_PREFIX_BYTES = 2**30


def default_prefix_bytes(device: str) -> int:
    """Return the size of a device's prefix cache in bytes."""
    if device != "cpu":
        return MIN_PREFIX_BYTES
    share = psutil.virtual_memory().total * PREFIX_MEMORY_SHARE
    return round(min(max(share, MIN_PREFIX_BYTES), MAX_PREFIX_BYTES))


@dataclass(frozen=True)
class _EngineTask:
    """Work for the engine's thread between two steps; `fail` reports an error of `run` to the
    caller.
    """

    run: Callable[[], None]
    fail: Callable[[Exception], None]


@dataclass(frozen=True)
class _DrainingParts:
    """The parts on the device that the engine left; `on_drained` is called when their last reply
    has ended.
    """

    parts: "EngineParts"
    on_drained: Callable[[], None]


@dataclass
class LLMEngine:
    """Generates many replies at once over one base model, each with its own adapter.

    A prompt and its reply have at most `max_context_tokens` (None: the default), or fewer where
    the base model or the memory allows no more. `rows` replies run at once with at most `slots`
    adapters, and a guild may have `max_waiting` further requests queued while it is alone. A
    request that would wait for more than `max_wait_s` is refused or fails. The prefix cache
    holds `prefix_bytes`, by default a share of the machine's memory. With a `home`, which keeps
    the results, an adapter has to show its effect before it is used. It starts on
    `first_device`, by default on the card if there is one. `before_step` is called on the engine's
    thread before each step, which it may hold up.
    """

    base: BaseModel
    precision: ServingPrecision
    threads: int | None = None
    max_waiting: int = 64
    max_wait_s: float = SchedulerLimits.wait_s
    max_context_tokens: int | None = None
    rows: int = 32
    slots: int = 48
    prefix_bytes: int | None = None
    on_reply: MetricsCallback = lambda metrics: None
    home: Path | None = None
    first_device: Device | None = None
    before_step: Callable[[], object] = lambda: None
    device: Device = field(default="cpu", init=False)  # the device that computes new requests
    sampling_fields: ClassVar[Set[str]] = frozenset(each.name for each in fields(SamplingParams))
    window: ContextWindow = field(init=False)
    """The window of new requests, set by `start`."""
    _tasks: queue.SimpleQueue[_EngineTask | None] = field(
        default_factory=queue.SimpleQueue, init=False
    )
    _streams: set[QueuedReplyStream] = field(default_factory=set, init=False)
    _parts: "EngineParts" = field(init=False)
    _draining: _DrainingParts | None = field(default=None, init=False)
    _compiling: threading.Thread | None = field(default=None, init=False)
    _packs: bool = field(default=False, init=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.base)

    @property
    def context_tokens(self) -> int:
        return self.window.tokens

    async def start(self) -> None:
        """Load the base model on the engine's thread. Raises `BaseModelError`."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._admission = AdmissionControl.of_engine(self.rows, self.max_waiting, self.max_wait_s)
        self._thread = threading.Thread(
            target=self._run_thread, args=(loop, ready), name="engine", daemon=True
        )
        self._thread.start()
        await ready

    def submit(self, request: ChatRequest) -> QueuedReplyStream:
        self._admission.acquire(request.guild_id, request.member_id)
        version = request.adapter.version if request.adapter else None
        stream = QueuedReplyStream(asyncio.get_running_loop(), version)
        self._streams.add(stream)

        def on_end() -> None:
            self._streams.discard(stream)
            self._admission.release(request.guild_id, request.member_id)
            self.on_reply(stream.metrics)

        def fail(error: Exception) -> None:
            stream.push(error)
            on_end()

        self._tasks.put(_EngineTask(lambda: self._add(request, stream, on_end), fail))
        return stream

    async def load(self, adapter: AdapterRef) -> None:
        # Reading and checking takes long: replies go on meanwhile.
        weights = await asyncio.to_thread(self._parts.read, adapter)
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[None] = loop.create_future()
        on_loaded = partial(_resolve_threadsafe, loop, loaded)
        load = partial(self._load_adapter, weights, on_loaded)
        self._tasks.put(_EngineTask(load, on_loaded))
        await loaded

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        def fail(error: Exception) -> None:
            log.info("the prompt prefix of %s is not computed in advance: %s", persona.name, error)

        def prepare() -> None:
            renderer = renderer_of(self._renderer, adapter)
            room = min(context_tokens or self.context_tokens, self.context_tokens) - max_new_tokens
            prefix = renderer.common_prefix(persona, room, talk)
            self._parts.batch.warmer.add(adapter, prefix, is_talk=bool(talk))

        self._tasks.put(_EngineTask(prepare, fail))

    async def drop(self, adapter: AdapterRef) -> None:
        if draining := self._draining:
            await self._run_with_callback(partial(draining.parts.drop_adapter, adapter))
        await self._run_with_callback(lambda done: self._parts.drop_adapter(adapter, done))

    async def clear_prefix_cache(self) -> None:
        await self._run(self._clear_prefix_cache)

    def state(self) -> EngineState:
        return self._parts.state(self.base.name, self.window, self.rows)

    @property
    def packing_frees_bytes(self) -> int:
        """Bytes of the card that become free where the weights are packed to NF4; 0 where they are,
        or where the packed ones have no room beside the others while these finish their replies.
        """
        if self.device == "cpu" or precision_of(self._parts.peft.model) == "nf4":
            return 0
        packed_bytes = packed_weight_bytes(self.base)
        if free_gpu_bytes() < packed_bytes:
            return 0
        return self.base.weight_bytes - packed_bytes

    async def move(self, device: Device, *, packs: bool = False, reserved_bytes: int = 0) -> None:
        """Compute on another device, or on the card with weights packed to NF4. Running replies end
        with the old weights, waiting requests move to the new ones, which leave what they do not
        need, `reserved_bytes` or more.

        Returns when the old memory is free. Raises `BaseModelError`, and changes nothing, when the
        new device cannot be used. Call it from one task at a time.
        """
        await self._run_with_callback(partial(self._move, device, packs))

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.cancel()
        self._tasks.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._compiling:  # an interrupted compilation would start again with each run
            await asyncio.to_thread(self._compiling.join)

    async def _run(self, work: Callable[[], None]) -> None:
        """Run a function on the engine's thread between two steps, and wait for it. Raises its
        error.
        """

        def run(done: Callable[[], None]) -> None:
            work()
            done()

        await self._run_with_callback(run)

    async def _run_with_callback(self, work: Callable[[Callable[[], None]], None]) -> None:
        """Run a function on the engine's thread, and wait until it calls back, maybe steps later.
        Raises its error.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        done = partial(_resolve_threadsafe, loop, future, None)
        self._tasks.put(_EngineTask(lambda: work(done), partial(_resolve_threadsafe, loop, future)))
        await future

    # The methods below run on the engine's thread.

    def _run_thread(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            self._load()
        except Exception as error:
            _resolve_threadsafe(loop, ready, error)
            return
        _resolve_threadsafe(loop, ready, None)
        try:
            has_computed = False
            while self._run_tasks(wait=not has_computed):
                has_computed = self._step()
        finally:
            for parts in self._all_parts():
                parts.close()

    def _step(self) -> bool:
        self.before_step()
        has_computed = [_step_or_fail(parts.batch) for parts in self._all_parts()]
        if self._draining and not self._draining.parts.batch.running:
            self._end_move(self._draining)
        return any(has_computed)

    def _run_tasks(self, *, wait: bool) -> bool:
        """Run the queued tasks, waiting for one if idle. Returns False when the engine closes,
        after a last step.
        """
        while True:
            timeout_s = ADAPTER_POLL_S if self._parts.batch.waiting else None
            try:
                task = self._tasks.get(block=wait, timeout=timeout_s)
            except queue.Empty:
                return True
            if task is None:
                self._step()
                return False
            wait = False
            try:
                task.run()
            except Exception as error:  # reported to the caller; the engine goes on
                log.debug("a task of the engine failed", exc_info=True)
                run_or_log(partial(task.fail, error))

    def _load(self) -> None:
        torch = load_torch()
        if self.threads:
            torch.set_num_threads(self.threads)
        self._renderer = Renderer(load_tokenizer(self.base))
        self._parts = self._load_parts(self.first_device, self.precision)
        self.device = self._parts.peft.model.device.type

    def _load_parts(self, device: Device | None, precision: ServingPrecision) -> "EngineParts":
        # Imports torch and peft, which takes seconds.
        from personas.engine.engine_parts import build_engine_parts

        model = load_serving_model(self.base, precision, device)
        log.info("replies are computed on the %s in %s", model.device.type, precision_of(model))
        budget = self._plan_memory(model)
        limits = SchedulerLimits(
            rows=self.rows, wait_s=self.max_wait_s, kv_bytes=budget.running_bytes
        )
        if model.device.type == "cpu":
            limits = replace(limits, busy_prefill_tokens=CPU_BUSY_PREFILL_TOKENS)
        wake_up = _EngineTask(lambda: None, log.error)
        parts = build_engine_parts(
            model,
            self.fingerprint,
            limits,
            slots=self.slots,
            prefix_bytes=self.prefix_bytes or budget.prefix_bytes,
            on_adapter_read=lambda: self._tasks.put(wake_up),
            effects=self._effect_checks(precision_of(model)),
        )
        parts.batch.has_arrivals = lambda: not self._tasks.empty()
        if parts.stacked:
            self._enable_kernel(parts.stacked)
        parts.capture_steps(self.rows, budget.window.tokens)
        self.window = budget.window
        if model.device.type == "cpu" and self.max_context_tokens is None:
            # A task after the one that enables the compiled kernel, and before all requests.
            measure = partial(self._limit_to_speed, parts, budget.window)
            self._tasks.put(_EngineTask(measure, log.error))
        return parts

    def _limit_to_speed(self, parts: "EngineParts", window: ContextWindow) -> None:
        """Make the window so small that the first words of a reply come in time, unless the operator
        asks for one.
        """
        if window.tokens <= SMALL_CONTEXT_TOKENS or parts is not self._parts:
            return
        speed = parts.prefill_tokens_per_s()
        self.window = window.within_time(speed)
        log.info(
            "prompts are computed at %.0f tokens/s; with their replies, they have at most %d tokens",
            speed,
            self.window.tokens,
        )

    def _plan_memory(self, model: Any) -> KVBudget:
        """Divide the free memory of a loaded model's device, and log the window."""
        from personas.engine.kv_cache import kv_token_bytes  # imports torch

        token_bytes = kv_token_bytes(model)
        budget = KVBudget.plan(
            ContextWindow.of_base(self.base, self.max_context_tokens),
            token_bytes,
            free_bytes=free_device_bytes(model.device.type),
            least_prefix_bytes=default_prefix_bytes(model.device.type),
        )
        log.info(
            "a prompt and its reply have at most %d tokens: %s",
            budget.window.tokens,
            budget.window.reason,
        )
        if model.device.type != "cpu":
            return budget.reserved(self.rows, token_bytes)
        return budget

    def _effect_checks(self, precision: str) -> EffectChecks | None:
        if self.home is None:
            return None
        return EffectChecks(EffectResults(self.home), self.fingerprint, precision)

    def _load_adapter(self, weights: "AdapterWeights", on_loaded: "OnTried") -> None:
        self._parts.load_adapter(weights, on_loaded)

    def _enable_kernel(self, runner: "StackedLoraRunner") -> None:
        """Switch to the compiled kernel: now if it is compiled, otherwise once a background thread
        has compiled it.
        """
        from personas.engine.cpu_kernel import kernel_runner  # imports torch

        def fail(error: Exception) -> None:
            log.info("the compiled kernel is not used: %s", error)

        def enable(library: "CDLL") -> None:
            run = partial(kernel_runner.enable_kernel, library, runner)
            self._tasks.put(_EngineTask(run, fail))

        if not kernel_runner.supports_model(runner.model):
            return
        if library := load_compiled():
            enable(library)
        else:
            compile_kernel = partial(kernel_runner.compile_kernel, enable)
            self._compiling = threading.Thread(target=compile_kernel, name="compiling", daemon=True)
            self._compiling.start()

    def _add(
        self, request: ChatRequest, stream: QueuedReplyStream, on_end: Callable[[], None]
    ) -> None:
        max_tokens = prompt_room(self.context_tokens, request)
        renderer = renderer_of(self._renderer, request.adapter)
        prompt = renderer.prompt(
            request.persona,
            request.turns,
            request.lore,
            max_tokens,
            instructions=request.instructions,
            prefill=request.prefill,
        )
        if request.sampling.candidates > 1:
            card = renderer.card_prompt(
                request.persona,
                user=asked_turn(request.turns).name,
                instructions=request.instructions,
                max_tokens=max_tokens,
            )
            prompt = replace(prompt, card=card)
        if request.guidance_scale > 1 and request.persona:
            turns = [replace(turn, name="") for turn in request.turns]
            negative = self._renderer.prompt(None, turns, (), max_tokens, prefill=request.prefill)
            prompt = replace(prompt, negative=negative.ids)
        self._parts.batch.submit(request, prompt, self._renderer, sink=stream, on_end=on_end)

    def _clear_prefix_cache(self) -> None:
        for parts in self._all_parts():
            parts.batch.clear_prefix_cache()

    def _all_parts(self) -> "list[EngineParts]":
        return [self._parts, self._draining.parts] if self._draining else [self._parts]

    def _move(self, device: Device, packs: bool, done: Callable[[], None]) -> None:
        if (device, packs) == (self.device, self._packs):
            done()
            return
        old = self._parts
        precision: ServingPrecision = "nf4" if packs else self.precision
        try:
            self._parts = self._load_parts(device, precision)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise NoMemoryError(f"There is no memory for {self.base.name}: {error}") from error
        self.device = device
        self._packs = packs
        old.batch.scheduler.transfer_queue(self._parts.batch.scheduler)
        self._draining = _DrainingParts(old, done)

    def _end_move(self, draining: _DrainingParts) -> None:
        self._draining = None
        draining.parts.close()
        on_drained = draining.on_drained
        del draining
        release_memory()
        on_drained()


def _step_or_fail(batch: "BatchGenerator") -> bool:
    try:
        return batch.step()
    except Exception as error:
        # A defect of the engine: report it to all requests instead of leaving them waiting.
        log.exception("the engine's step failed; all its replies end")
        batch.scheduler.fail_all(error)
        return False


def _resolve_threadsafe(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception | None
) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_resolve_future, future, error)


def _resolve_future(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
