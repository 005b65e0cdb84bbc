"""`GET /healthz`, `GET /metrics` (Prometheus) and `GET /system`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bot.operations.web.system_state import (
    MAX_DISCONNECTED_S,
    SystemState,
    WriteProbe,
    disconnected_s,
    read_system_state,
)
from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.auth import AUTHENTICATOR
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, ResponseSpec
from bot.platform.web_kit.problems import Problem
from personas.engine import EngineState

GaugeValue = tuple[str, str, float | None]
"""Name, description and value; None omits the gauge."""
WRITE_PROBE = web.AppKey("write probe", WriteProbe)
LOST_ADVICE = "The bot connects again by itself; its log says why it cannot."
routes = ApiRoutes("about")


class HealthStatus(ApiModel):
    """Returned once the bot answers members; `degraded` where a background task fails, and is tried
    again.

    `jobs` and `tasks`, by name "ok" or the latest error, only to those who have signed in.
    """

    status: Literal["ok", "degraded"]
    jobs: dict[str, int] | None = None
    tasks: dict[str, str] | None = None


@routes.operation(
    "GET /healthz",
    "Check that the bot is up",
    {200: ResponseSpec("The bot is up and answers members.", HealthStatus)},
)
async def get_health(request: web.Request) -> web.Response:
    """Returns 200 while the bot answers members; 503, a problem, before, after, if the database
    cannot be read, if nothing can be written to its disk or its database, and if there has been no
    connection to Discord for a minute.

    Needs no token; without one, the answer has no details.
    """
    services = get_services(request)
    jobs = services.store.jobs
    waiting = len(jobs.in_state("queued"))
    running = len(jobs.in_state("running"))
    if (lost_s := disconnected_s(services)) > MAX_DISCONNECTED_S:
        raise Problem(
            "not-connected", f"There is no connection to Discord since {lost_s:.0f} s.", LOST_ADVICE
        )
    if why := await request.app[WRITE_PROBE].error(services.home, services.store):
        advice = (
            "Free space on the disk of UNDERSTUDY_HOME, check the rights of that folder, or end "
            "the program that has "
            "locked the database."
        )
        raise Problem("not-stored", f"Nothing can be written to UNDERSTUDY_HOME: {why}.", advice)
    tasks = {}
    status: Literal["ok", "degraded"] = "ok"
    for task in services.background:
        tasks[task.name] = redact_paths(task.error, services.home) or "ok"
        if task.error:
            status = "degraded"
    if not request.app[AUTHENTICATOR].lets_in(request):
        return HealthStatus(status=status).response()
    return HealthStatus(
        status=status, jobs={"queued": waiting, "running": running}, tasks=tasks
    ).response()


class StateCollector(Collector):
    """Exports a system state as metrics."""

    def __init__(self, state: SystemState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state
        yield _info_metric(
            "understudy_build_info", "Versions of the bot and of what it runs on.", state.versions
        )
        yield GaugeMetricFamily(
            "understudy_start_time_seconds",
            "When the bot started, since the epoch.",
            state.started_at,
        )
        yield _labelled_gauge("understudy_jobs", "Training jobs, by state.", "state", state.jobs)
        yield from _process_metrics(state)
        yield from _engine_metrics(state.engine)
        yield from _gauges(_host_values(state))


@routes.operation(
    "GET /metrics",
    "Get metrics for Prometheus",
    {200: ResponseSpec("Prometheus' text format.", {"type": "string"}, media="text/plain")},
)
async def get_metrics(request: web.Request) -> web.Response:
    """Covers replies, tokens, jobs, engine, processes, memory, disk and connection."""
    services = get_services(request)
    state = await read_system_state(services)
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    text = generate_latest(services.metrics.registry) + generate_latest(registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _process_metrics(state: SystemState) -> Iterator[Metric]:
    memory: dict[str, float] = defaultdict(float)
    cpu: dict[str, float] = defaultdict(float)
    for process in state.processes:
        # Not which job: each would be a series of its own.
        kind = " ".join(process.what.split()[:2])
        memory[kind] += process.memory_bytes
        cpu[kind] += process.cpu_s
    words = "Resident memory of the bot and of what it has started."
    yield _labelled_gauge("understudy_resident_memory_bytes", words, "process", memory)
    spent = CounterMetricFamily(
        "understudy_cpu_seconds", "Processor time, user and system.", labels=["process"]
    )
    for kind, seconds in cpu.items():
        spent.add_metric([kind], seconds)
    yield spent


def _engine_metrics(engine: EngineState) -> Iterator[Metric]:
    named = {"model": engine.model, "device": engine.device, "precision": engine.precision}
    yield _info_metric(
        "understudy_engine_info", "What the engine serves, where, and in which precision.", named
    )
    yield from _gauges(
        (
            ("understudy_engine_replies_running", "Replies that are being made.", engine.running),
            (
                "understudy_engine_replies_waiting",
                "Requests that wait for their turn.",
                engine.waiting,
            ),
            ("understudy_engine_rows", "Replies that are made at once at most.", engine.rows),
            ("understudy_engine_adapters", "Adapters in memory.", len(engine.adapters)),
            (
                "understudy_engine_adapter_slots",
                "Adapters that have a place side by side.",
                engine.slots,
            ),
            (
                "understudy_engine_prefix_cache_bytes",
                "What is kept of prompts' beginnings.",
                engine.kept_bytes,
            ),
            (
                "understudy_engine_prefix_cache_limit_bytes",
                "The most that is kept of them.",
                engine.kept_most_bytes,
            ),
        )
    )


def _host_values(state: SystemState) -> Iterator[GaugeValue]:
    machine = state.machine
    connection = state.connection
    yield "understudy_machine_memory_bytes", "Memory of the machine.", machine.memory_bytes
    yield (
        "understudy_machine_memory_available_bytes",
        "Memory that is available.",
        machine.available_bytes,
    )
    yield "understudy_disk_bytes", "The disk that the home lies on.", machine.disk_bytes
    yield "understudy_disk_free_bytes", "What of it is free.", machine.disk_free_bytes
    yield "understudy_gpu_memory_bytes", "Memory of the graphics card.", machine.gpu_bytes
    yield "understudy_gpu_memory_free_bytes", "What of it is free.", machine.gpu_free_bytes
    if connection:
        yield (
            "understudy_connected",
            "1 while the bot is connected to Discord.",
            float(connection.is_ready),
        )
        yield (
            "understudy_heartbeat_seconds",
            "How long Discord takes to answer.",
            connection.heartbeat_s,
        )
        yield "understudy_servers", "Servers that the bot is in.", connection.servers


def _gauges(values: Iterable[GaugeValue]) -> Iterator[Metric]:
    for name, words, value in values:
        if value is not None:
            yield GaugeMetricFamily(name, words, value)


def _labelled_gauge(
    name: str, words: str, label: str, values: dict[str, float] | dict[str, int]
) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value, amount in values.items():
        family.add_metric([value], amount)
    return family


def _info_metric(name: str, words: str, labels: dict[str, str]) -> Metric:
    plain = {label.replace(".", "_").lower(): value for label, value in labels.items()}
    family = GaugeMetricFamily(name, words, labels=list(plain))
    family.add_metric(list(plain.values()), 1)
    return family


@routes.operation(
    "GET /system",
    "Get the state of the bot, its processes and its machine",
    {
        200: ResponseSpec(
            "The state at this moment; sizes in bytes, times in seconds since 1970.", SystemState
        )
    },
)
async def get_system(request: web.Request) -> web.Response:
    """Returns versions, processes, memory, jobs, engine, latency, warnings and health checks."""
    return web.json_response(asdict(await read_system_state(get_services(request))))
