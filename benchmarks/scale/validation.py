"""Calibration of the simulation on two real vLLM servers, and its validation: another workload,
predicted and measured.

All times are taken through the bot's engine, as a member sees them. vLLM's own log counts what is
brought into LoRA slots and read from disk: its metrics have no such counter.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine.engine_workload import write_adapter
from benchmarks.scale.experiments import (
    Figures,
    Population,
    WorkloadResult,
    compare_results,
    percentiles,
    predict_workload,
)
from benchmarks.scale.simulated_replica import ReplicaProfile, fit_steps
from benchmarks.scale.simulation import Ask
from personas.engine.remote.replica import ReplicaLimits
from personas.engine.remote.vllm_engine import VllmEngine
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn
from tests.personas.vllm_servers.vllm_process import (
    API_KEY,
    LORA_OPTIONS,
    START_TIMEOUT_S,
    VllmProcess,
)
from tests.tiny_models import manifest_over

ADAPTERS = 24
SLOTS = 4
RAM = 8
ROWS = 16
CORES = ("0", "1")
SERVER_OPTIONS = (
    *LORA_OPTIONS, "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", str(ROWS),
    "--max-loras", str(SLOTS), "--max-cpu-loras", str(RAM),
)  # fmt: skip
CHATS = 12
NEW_TOKENS = 32
EXPONENTS = (0.8, 1.0, 1.2)
PROBES_PER_WORKLOAD = 4
"""A probe of the machine's pace has so many times fewer replies than a workload."""
PROBE_SEED = 99
GRID = ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 1), (8, 4), (16, 1), (16, 4))
"""Rows and different adapters of the steps that are measured."""
WORDS = "The harbour keeps its lamps lit for whoever comes late, and the kettle on for whoever asks. ".split()
DESCRIPTION_WORDS = 150
QUESTION_WORDS = 30
LONG_PROMPTS = (30, 230, 430)
"""Words of the questions by which the time of prompt tokens is measured."""
ACTIVATED = re.compile(r"Activating LoRA\. int id: (\d+)")
READ = re.compile(r"Adding lora\. Model id: (\d+)")
STEP_FIELDS = ("rows", "adapters", "seconds")
PREFIX_METRIC = "prefix_cache_hits_total"
SHARED_BLOCK = 128
"""Tokens that requests to one persona share: a block of vLLM's prefix cache on CPUs."""


@dataclass(frozen=True)
class TimedReply:
    """A reply as the bot got it: seconds from the request to the first text and to the end."""

    first_s: float
    total_s: float
    prompt_tokens: int
    new_tokens: int


class LoggedServer(VllmProcess):
    """A server that writes what it does with adapters into a file of its own."""

    @property
    def lora_log(self) -> Path:
        return self.log.with_suffix(".lora.log")

    @property
    def environment(self) -> Any:
        handler = {
            "class": "logging.FileHandler",
            "filename": str(self.lora_log.absolute()),
            "level": "DEBUG",
        }
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"lora": handler},
            "loggers": {
                "vllm.lora.model_manager": {
                    "handlers": ["lora"],
                    "level": "DEBUG",
                    "propagate": False,
                }
            },
        }
        file = self.log.with_suffix(".logging.json")
        file.write_text(json.dumps(config))
        return {**super().environment, "VLLM_LOGGING_CONFIG_PATH": str(file.absolute())}

    def lora_counts(self) -> tuple[int, int]:
        """Return how many adapters were brought into a slot, and how many were read from disk."""
        text = self.lora_log.read_text() if self.lora_log.exists() else ""
        return len(ACTIVATED.findall(text)), len(READ.findall(text))


# ----------------------------------------------------------------------------------------- workload


def make_adapters(home: Path, base: BaseModel) -> list[AdapterRef]:
    """Write the adapters into the home unless they are there."""
    refs = [adapter_ref(home, f"chat{number}", "v1") for number in range(ADAPTERS)]
    missing = [number for number, ref in enumerate(refs) if not ref.folder.exists()]
    model = load_model(base, "bfloat16") if missing else None
    for number in missing:
        with atomic_folder(refs[number].folder) as aside:
            write_adapter(aside, model, number)
            write_manifest(aside, manifest_over(base, f"chat{number}", "v1"))
    return refs


def make_request(
    adapters: Sequence[AdapterRef],
    rank: int,
    question: int,
    words: int = QUESTION_WORDS,
    tokens: int = NEW_TOKENS,
) -> ChatRequest:
    """Ask a persona; its requests share the description, which is longer than a block of vLLM's
    prefix cache.
    """
    described = [WORDS[(at * (rank + 3)) % len(WORDS)] for at in range(DESCRIPTION_WORDS)]
    asked = [WORDS[(at * 7 + question) % len(WORDS)] for at in range(words)]
    sampling = SamplingParams(
        temperature=0.0, repetition_penalty=1.0, max_new_tokens=tokens, stop_loops=False
    )
    description = f"{' '.join(described)} You are number {rank}."
    return ChatRequest(
        Persona(f"chat{rank}", f"Chat {rank}", description=description),
        turns=(Turn("Bo", f"{question}: {' '.join(asked)}"),),
        adapter=adapters[rank],
        sampling=sampling,
        guild_id=question,
    )


async def measure_reply(engine: VllmEngine, request: ChatRequest) -> TimedReply:
    since = time.perf_counter()
    first_s = None
    stream = engine.submit(request)
    async for _ in stream:
        first_s = first_s or time.perf_counter() - since
    total_s = time.perf_counter() - since
    return TimedReply(
        first_s or total_s, total_s, stream.reply.prompt_tokens, stream.reply.new_tokens
    )


@asynccontextmanager
async def open_engine(
    base: BaseModel, urls: Sequence[str], home: Path
) -> AsyncIterator[VllmEngine]:
    limits = ReplicaLimits(rows=ROWS, adapters=SLOTS)
    engine = VllmEngine(
        base, "bfloat16", urls, home, key=API_KEY, limits=limits, start_wait_s=START_TIMEOUT_S
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


# -------------------------------------------------------------------------------------- calibration


async def calibrate(
    engines: Sequence[VllmEngine], servers: Sequence[LoggedServer], adapters: Sequence[AdapterRef]
) -> tuple[ReplicaProfile, Figures]:
    """Measure the times of a server while the other one does the same; returns them with the
    measurements.
    """
    load_s = await _both(engines, lambda engine: _first_loads(engine, adapters))
    steps = []
    for rows, count in GRID:
        measure_step = partial(_step_s, adapters=adapters, rows=rows, count=count)
        steps.append((rows, count, await _both(engines, measure_step)))
    prompts = await _both_lists(engines, lambda engine: _prompt_times(engine, adapters))
    in_slot, in_ram, on_disk = await _both_lists(
        servers, lambda server: _load_times(server, adapters)
    )
    step_s, row_s, adapter_s = fit_steps(steps)
    lengths = prompts[: len(LONG_PROMPTS)]
    waits = prompts[len(LONG_PROMPTS) :]
    prompt_token_s = float(np.polyfit(lengths, waits, 1)[0])
    idle_step_s = step_s + row_s + adapter_s
    profile = ReplicaProfile(
        name="vllm-cpu",
        step_s=step_s,
        row_s=row_s,
        adapter_s=adapter_s,
        prompt_token_s=prompt_token_s,
        activate_s=max(0.0, in_ram - in_slot),
        read_s=max(0.0, on_disk - in_ram),
        fetch_s=0.0,
        verify_s=max(0.0, load_s - (on_disk - in_slot)),
        request_s=max(0.0, waits[0] - idle_step_s - lengths[0] * prompt_token_s),
        rows=ROWS,
        slots=SLOTS,
        ram=RAM,
    )
    measured = {
        "steps_s": [dict(zip(STEP_FIELDS, step, strict=True)) for step in steps],
        "prompt_tokens": lengths,
        "first_token_s": waits,
        "reply_in_slot_s": in_slot,
        "reply_in_ram_s": in_ram,
        "reply_on_disk_s": on_disk,
        "load_by_request_s": load_s,
    }
    return profile, measured


async def _both(engines: Sequence[VllmEngine], measure: Any) -> float:
    return float(statistics.mean(await asyncio.gather(*(measure(engine) for engine in engines))))


async def _both_lists(measured: Sequence[Any], measure: Any) -> list[float]:
    found = await asyncio.gather(*(measure(each) for each in measured))
    return [statistics.mean(each) for each in zip(*found, strict=True)]


async def _first_loads(engine: VllmEngine, adapters: Sequence[AdapterRef]) -> float:
    """Load all adapters by request; returns the median of the seconds."""
    times = []
    for adapter in adapters:
        since = time.perf_counter()
        await engine.load(adapter)
        times.append(time.perf_counter() - since)
    return statistics.median(times)


async def _step_s(
    engine: VllmEngine, adapters: Sequence[AdapterRef], rows: int, count: int
) -> float:
    """Return the seconds of a step over so many rows and adapters."""
    requests = [make_request(adapters, row % count, row, tokens=NEW_TOKENS) for row in range(rows)]
    short = [replace_tokens(request, 2) for request in requests]
    await asyncio.gather(*(measure_reply(engine, request) for request in short))  # into slots
    replies = await asyncio.gather(*(measure_reply(engine, request) for request in requests))
    # The first token comes with the prompt's step.
    times = [(reply.total_s - reply.first_s) / (reply.new_tokens - 1) for reply in replies]
    return statistics.median(times)


def replace_tokens(request: ChatRequest, tokens: int) -> ChatRequest:
    return replace(request, sampling=replace(request.sampling, max_new_tokens=tokens))


async def _prompt_times(engine: VllmEngine, adapters: Sequence[AdapterRef]) -> list[float]:
    """Return prompt tokens of three lengths, then the seconds to the first text without cached
    prefixes.
    """
    lengths = []
    waits = []
    for words in LONG_PROMPTS:
        replies = []
        for question in range(4):
            await engine.clear_prefix_cache()
            request = make_request(adapters, 0, question, words, tokens=2)
            replies.append(await measure_reply(engine, request))
        lengths.append(float(replies[0].prompt_tokens))
        waits.append(statistics.median(reply.first_s for reply in replies[1:]))
    return [*lengths, *waits]


async def _load_times(server: LoggedServer, adapters: Sequence[AdapterRef]) -> list[float]:
    """Return a shortest reply's seconds with the adapter in a slot, in memory alone, and on disk
    alone.
    """
    medians = []
    # Used in turns, the least recently used one is never there any more.
    for count in (1, RAM - 2, RAM + 4):
        times = []
        for number in range(2 * count + 10):
            name = adapters[number % count].name
            body = {"model": name, "prompt": [1], "max_tokens": 1, "temperature": 0.0}
            since = time.perf_counter()
            await server.post("/v1/completions", body)
            times.append(time.perf_counter() - since)
        medians.append(statistics.median(times[count:]))
    return medians


# --------------------------------------------------------------------------------------- validation


async def run_workload(
    engine: VllmEngine, servers: Sequence[LoggedServer], requests: Sequence[ChatRequest]
) -> tuple[WorkloadResult, list[TimedReply]]:
    """Have `CHATS` chats send the requests, each the next one once it is answered."""
    await engine.clear_prefix_cache()
    left = iter(enumerate(requests))
    replies = dict[int, TimedReply]()
    before = [server.lora_counts() for server in servers]
    cached = [await server.metrics() for server in servers]
    since = time.perf_counter()

    async def chat() -> None:
        for number, request in left:
            replies[number] = await measure_reply(engine, request)

    await asyncio.gather(*(chat() for _ in range(CHATS)))
    seconds = time.perf_counter() - since
    after = [server.lora_counts() for server in servers]
    cached_after = [await server.metrics() for server in servers]
    prefix_tokens = 0.0
    for old, new in zip(cached, cached_after, strict=True):
        prefix_tokens += new[PREFIX_METRIC] - old.get(PREFIX_METRIC, 0.0)
    activated = read = 0
    for (old_activated, old_read), (new_activated, new_read) in zip(before, after, strict=True):
        activated += new_activated - old_activated
        read += new_read - old_read
    ordered = [replies[number] for number in range(len(requests))]
    result = WorkloadResult(
        hit_rate=1 - read / len(requests),
        slot_hit_rate=1 - activated / len(requests),
        tokens_per_s=sum(reply.new_tokens for reply in ordered) / seconds,
        cached_tokens=prefix_tokens / len(requests),
        first_token=percentiles([reply.first_s for reply in ordered]),
    )
    return result, ordered


async def use_in_order(engines: Sequence[VllmEngine], adapters: Sequence[AdapterRef]) -> None:
    """Use all adapters on each server, so that it is known which ones are in memory and in
    slots.
    """

    async def use(engine: VllmEngine) -> None:
        for rank in range(len(adapters)):
            await measure_reply(engine, make_request(adapters, rank, 0, tokens=1))

    await asyncio.gather(*(use(engine) for engine in engines))


def draw_requests(
    adapters: Sequence[AdapterRef], exponent: float, count: int, seed: int
) -> list[ChatRequest]:
    ranks, _ = Population(exponent, ADAPTERS, ADAPTERS, 1).draw(np.random.default_rng(seed), count)
    return [make_request(adapters, rank, number) for number, rank in enumerate(ranks.tolist())]


def to_asks(
    requests: Sequence[ChatRequest], replies: Sequence[TimedReply], shared_prefix: int
) -> list[Ask]:
    """Describe requests for the simulation: with the lengths that were measured, and not their
    times.
    """
    asks = []
    for number, (request, reply) in enumerate(zip(requests, replies, strict=True)):
        assert request.adapter
        ask = Ask(
            guild_id=number,
            rank=0,
            adapter=request.adapter.name,
            prompt_tokens=reply.prompt_tokens,
            shared_prefix=shared_prefix,
            new_tokens=reply.new_tokens,
        )
        asks.append(ask)
    return asks


def prepare(python: Path, folder: Path) -> tuple[BaseModel, list[AdapterRef], list[LoggedServer]]:
    """Write the adapters, and describe a server for each core."""
    base = locate(EMBEDDED)
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    servers = []
    for core in CORES:
        log = folder / f"vllm-{core}.log"
        server = LoggedServer(python, base.folder, home, log, cores=core, options=SERVER_OPTIONS)
        server.lora_log.unlink(missing_ok=True)
        servers.append(server)
    return base, make_adapters(home, base), servers


async def validate(
    base: BaseModel, adapters: Sequence[AdapterRef], servers: Sequence[LoggedServer], count: int
) -> Figures:
    """Start the servers, calibrate, and compare prediction and measurement for each exponent.

    A machine's pace drifts: a short workload before and after each one measures it, and the
    prediction takes the mean.
    """
    home = servers[0].home
    async with AsyncExitStack() as stack:
        print("starting two servers …", flush=True)
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        urls = [server.url for server in servers]
        engines = []
        for url in urls:
            engines.append(await stack.enter_async_context(open_engine(base, [url], home)))
        print("calibrating …", flush=True)
        profile, measured = await calibrate(engines, servers, adapters)
        engine = await stack.enter_async_context(open_engine(base, urls, home))
        for adapter in adapters:
            await engine.load(adapter)

        async def play(exponent: float, size: int, seed: int) -> tuple[WorkloadResult, list[Ask]]:
            await use_in_order(engines, adapters)
            requests = draw_requests(adapters, exponent, size, seed)
            result, replies = await run_workload(engine, servers, requests)
            return result, to_asks(requests, replies, SHARED_BLOCK)

        probes = [await play(1.0, count // PROBES_PER_WORKLOAD, PROBE_SEED)]
        played = []
        for number, exponent in enumerate(EXPONENTS):
            print(f"measuring {count} replies, s = {exponent:g} …", flush=True)
            played.append(await play(exponent, count, number))
            probes.append(await play(1.0, count // PROBES_PER_WORKLOAD, PROBE_SEED))

    def compare(of: ReplicaProfile, result: WorkloadResult, asks: list[Ask]) -> Figures:
        known = [ref.name for ref in adapters]
        predicted = predict_workload(of, urls, asks, CHATS, known=known)
        return {
            "measured": vars(result),
            "predicted": vars(predicted),
            **compare_results(predicted, result),
        }

    found = [compare(profile, *probe) for probe in probes]
    paces = [each["predicted"]["tokens_per_s"] / each["measured"]["tokens_per_s"] for each in found]
    compared = {}
    for exponent, around, each in zip(EXPONENTS, itertools.pairwise(paces), played, strict=True):
        at_this_pace = profile.scaled(statistics.geometric_mean(around))
        compared[f"{exponent:g}"] = compare(at_this_pace, *each)
    profile = profile.scaled(statistics.geometric_mean(paces))
    return {
        "profile": vars(profile),
        "calibration": measured | {"paces": paces, "probes": found},
        "workloads": compared,
    }
