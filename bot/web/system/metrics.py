"""`GET /metrics`: the figures in Prometheus' text format. `docs/metrics.md` lists them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bot.web.here import Route, house_of
from bot.web.openapi import Answer, described
from bot.web.system.state import State, state_of
from personas.engine.state import EngineState

Value = tuple[str, str, float | None]
"""Name, what it is, and how much; None leaves it out."""


class Snapshot(Collector):
    """One state as metrics."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state
        yield _info("understudy_build_info", "Versions of the bot and of what it runs on.", state.versions)
        yield GaugeMetricFamily(
            "understudy_start_time_seconds", "When the bot started, since the epoch.", state.started_at
        )
        yield _labelled("understudy_jobs", "Training jobs, by state.", "state", state.jobs)
        yield from _of_processes(state)
        yield from _of_engine(state.engine)
        yield from _gauges(_of_machine(state))


@described(
    "Figures for Prometheus",
    {200: Answer("Prometheus' text format.", {"type": "string"}, media="text/plain")},
    tag="about",
)
async def metrics(request: web.Request) -> web.Response:
    """Replies, tokens, jobs, the engine, processes, memory, disk, connection."""
    house = house_of(request)
    state = await state_of(house)
    registry = CollectorRegistry()
    registry.register(Snapshot(state))
    text = generate_latest(house.watch.registry) + generate_latest(registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _of_processes(state: State) -> Iterator[Metric]:
    memory: dict[str, float] = defaultdict(float)
    cpu: dict[str, float] = defaultdict(float)
    for one in state.processes:
        kind = " ".join(one.what.split()[:2])  # not which job: each would be a series of its own
        memory[kind] += one.memory_bytes
        cpu[kind] += one.cpu_s
    words = "Resident memory of the bot and of what it has started."
    yield _labelled("understudy_resident_memory_bytes", words, "process", memory)
    spent = CounterMetricFamily("understudy_cpu_seconds", "Processor time, user and system.", labels=["process"])
    for kind, seconds in cpu.items():
        spent.add_metric([kind], seconds)
    yield spent


def _of_engine(engine: EngineState) -> Iterator[Metric]:
    named = {"model": engine.model, "device": engine.device, "precision": engine.precision}
    yield _info("understudy_engine_info", "What the engine serves, where, and in which precision.", named)
    yield from _gauges(
        (
            ("understudy_engine_replies_running", "Replies that are being made.", engine.running),
            ("understudy_engine_replies_waiting", "Requests that wait for their turn.", engine.waiting),
            ("understudy_engine_rows", "Replies that are made at once at most.", engine.rows),
            ("understudy_engine_adapters", "Adapters in memory.", len(engine.adapters)),
            ("understudy_engine_adapter_slots", "Adapters that have a place side by side.", engine.slots),
            ("understudy_engine_prefix_cache_bytes", "What is kept of prompts' beginnings.", engine.kept_bytes),
            ("understudy_engine_prefix_cache_limit_bytes", "The most that is kept of them.", engine.kept_most_bytes),
        )
    )


def _of_machine(state: State) -> Iterator[Value]:
    machine, connection = state.machine, state.connection
    yield "understudy_machine_memory_bytes", "Memory of the machine.", machine.memory_bytes
    yield "understudy_machine_memory_available_bytes", "Memory that is available.", machine.available_bytes
    yield "understudy_disk_bytes", "The disk that the home lies on.", machine.disk_bytes
    yield "understudy_disk_free_bytes", "What of it is free.", machine.disk_free_bytes
    yield "understudy_gpu_memory_bytes", "Memory of the graphics card.", machine.gpu_bytes
    yield "understudy_gpu_memory_free_bytes", "What of it is free.", machine.gpu_free_bytes
    if connection:
        yield "understudy_connected", "1 while the bot is connected to Discord.", float(connection.is_ready)
        yield "understudy_heartbeat_seconds", "How long Discord takes to answer.", connection.heartbeat_s
        yield "understudy_servers", "Servers that the bot is in.", connection.servers


def _gauges(values: Iterable[Value]) -> Iterator[Metric]:
    for name, words, value in values:
        if value is not None:
            yield GaugeMetricFamily(name, words, value)


def _labelled(name: str, words: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value, amount in values.items():
        family.add_metric([value], amount)
    return family


def _info(name: str, words: str, labels: dict[str, str]) -> Metric:
    plain = {label.replace(".", "_").lower(): value for label, value in labels.items()}
    family = GaugeMetricFamily(name, words, labels=list(plain))
    family.add_metric(list(plain.values()), 1)
    return family


ROUTES: tuple[Route, ...] = (("GET", "/metrics", metrics),)
