"""`/dashboard/system`: the bot's state, refreshed while the page is open."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bot.operations.metrics import Percentiles
from bot.operations.web.system_state import PERMISSION_REPORT, SystemState, read_system_state
from bot.platform import permissions
from bot.platform.permissions import (
    MEMBERS,
    MESSAGE_CONTENT,
    REQUIRED_PERMISSIONS,
    permission_title,
)
from bot.platform.web_kit.app_context import APP_CONTEXT, Routes, get_services
from bot.platform.web_kit.sse import SseItem, stream_events
from bot.platform.web_kit.templating import (
    DASHBOARD,
    format_bytes,
    format_count,
    format_seconds,
    redirect_to,
    render_page,
)
from bot.services import Services
from bot.versions.effects import latest_results

TableRows = dict[str, list[list[str]]]
SYSTEM_PATH = f"{DASHBOARD}/system"
REFRESH_INTERVAL_S = 2.0
MAX_SHOWN_LACKS = 50
MAX_SHOWN_EFFECTS = 50
VERDICT_COLOURS = {
    "shown": "good",
    "too weak": "warn",
    "refused": "bad",
    "leaks": "bad",
}
STATE_COLOURS = {
    "ok": "good",
    "warn": "warn",
    "fail": "bad",
}
routes = Routes()


def state_figures(state: SystemState) -> dict[str, str]:
    """Figures by the id of their element."""
    engine = state.engine
    jobs = state.jobs
    machine = state.machine
    trainer = "not running"
    if trainers := [each for each in state.processes if each.what.startswith("trainer")]:
        trainer = format_bytes(sum(process.memory_bytes for process in trainers))
    gpu = "none in use"
    if machine.gpu_bytes:
        gpu = _share_text(format_bytes(machine.gpu_free_bytes), format_bytes(machine.gpu_bytes))
    return {
        "uptime": format_seconds(state.at - state.started_at),
        "bot": format_bytes(state.processes[0].memory_bytes),
        "trainer": trainer,
        "available": _share_text(
            format_bytes(machine.available_bytes), format_bytes(machine.memory_bytes)
        ),
        "disk": _share_text(
            format_bytes(machine.disk_free_bytes), format_bytes(machine.disk_bytes)
        ),
        "gpu": gpu,
        "running": _share_text(engine.running, engine.rows),
        "waiting": format_count(engine.waiting),
        "adapters": _share_text(len(engine.adapters), engine.slots),
        "kept": _share_text(format_bytes(engine.kept_bytes), format_bytes(engine.kept_most_bytes)),
        "device": f"{engine.device}, {engine.precision}",
        "beginnings": _beginnings_text(state),
        "queued": format_count(jobs["queued"]),
        "in-training": format_count(jobs["running"]),
        "ended": f"{jobs['done']} done, {jobs['failed']} failed, {jobs['cancelled']} cancelled",
        "heartbeat": _heartbeat_text(state),
        "replies": format_count(state.whole_reply.replies),
        "warnings": format_count(len(state.warnings)),
        "safety-answers": format_count(sum(state.safety_answers.values())),
        **_percentile_figures("first", state.first_text),
        **_percentile_figures("whole", state.whole_reply),
    }


def _share_text(part: object, whole: object) -> str:
    return f"{part} of {whole}"


def _beginnings_text(state: SystemState) -> str:
    """Say whether the beginnings of replies are chosen among candidates."""
    if state.reply_candidates > 1:
        return f"best of {state.reply_candidates}"
    if state.engine.candidates > 1:
        return "sampled once, unless a server on Discord chooses more"
    return "sampled once: this engine is not set up to compare several"


def state_tables(state: SystemState) -> TableRows:
    """Rows of the tables, as texts; times in UTC."""
    processes = []
    for process in state.processes:
        processes.append(
            [
                process.what,
                str(process.pid),
                format_bytes(process.memory_bytes),
                format_seconds(process.cpu_s),
                str(process.threads),
                format_seconds(state.at - process.started_at),
            ]
        )
    adapters = []
    for adapter in reversed(state.engine.adapters):
        place = "stacked" if adapter.in_slot else "by itself"
        adapters.append([adapter.name, place, format_count(adapter.replies)])
    warnings = []
    for line in state.warnings:
        at = datetime.fromtimestamp(line.at, UTC)
        warnings.append([f"{at:%Y-%m-%d %H:%M:%S}", line.level.lower(), line.words])
    return {"processes": processes, "adapters": adapters, "warnings": warnings}


def _percentile_figures(name: str, percentiles: Percentiles) -> dict[str, str]:
    return {
        f"{name}-p50": format_seconds(percentiles.p50),
        f"{name}-p90": format_seconds(percentiles.p90),
        f"{name}-p99": format_seconds(percentiles.p99),
    }


def _heartbeat_text(state: SystemState) -> str:
    connection = state.connection
    if connection is None:
        return "–"
    if not connection.is_ready:
        return "not connected"
    text = (
        f"{connection.to}, {connection.servers} server"
        if connection.servers == 1
        else f"{connection.to}, {connection.servers} servers"
    )
    if connection.heartbeat_s is not None:
        text = f"{text}, {connection.heartbeat_s * 1000:.0f} ms"
    return text


@routes.add(f"GET {SYSTEM_PATH}", section="System")
async def get_system_page(request: web.Request) -> web.Response:
    """Page of the state; a script refreshes figures and tables by events."""
    services = get_services(request)
    state = await read_system_state(services)
    findings = await services.metrics.findings.latest(services.home)
    effects = await asyncio.to_thread(latest_results, services.home)
    lacks = await request.app[PERMISSION_REPORT].latest(services.client, services.store)
    return render_page(
        request,
        "system/system.html",
        title="System",
        state=state,
        figures=state_figures(state),
        rows=state_tables(state),
        effects=effects[:MAX_SHOWN_EFFECTS],
        verdict_colours=VERDICT_COLOURS,
        findings=findings,
        is_asking=services.metrics.findings.is_running,
        lacks=lacks[:MAX_SHOWN_LACKS],
        hidden_lacks=max(0, len(lacks) - MAX_SHOWN_LACKS),
        lacking=[lack.need for lack in lacks],
        is_connected=bool(services.client and services.client.guilds),
        needs=[(permission_title(need), need) for need in REQUIRED_PERMISSIONS],
        content=MESSAGE_CONTENT,
        reads_content=bool(services.client and services.client.intents.message_content),
        members=MEMBERS,
        hears_joins=bool(services.client and services.client.intents.members),
        invite=_invite_url(services),
        colours=STATE_COLOURS,
    )


@routes.add(f"GET {SYSTEM_PATH}/events")
async def system_events(request: web.Request) -> web.StreamResponse:
    return await stream_events(request, _state_events(request, get_services(request)))


@routes.add(f"POST {SYSTEM_PATH}/doctor")
async def run_doctor(request: web.Request) -> web.Response:
    """Start the doctor in the background."""
    services = get_services(request)
    is_started = services.metrics.findings.begin(services.home, services.base_model)
    message = "The doctor is already checking."
    if is_started:
        message = "The doctor is checking; this takes half a minute."
    return redirect_to(request, f"{SYSTEM_PATH}#doctor", message)


async def _state_events(request: web.Request, services: Services) -> AsyncIterator[SseItem]:
    while request.app[APP_CONTEXT].services is not None:
        state = await read_system_state(services)
        data: dict[str, Any] = {
            "figures": state_figures(state),
            "rows": state_tables(state),
        }
        yield "", "state", data | {"asking": services.metrics.findings.is_running}
        await asyncio.sleep(REFRESH_INTERVAL_S)


def _invite_url(services: Services) -> str:
    """The address that invites the bot to a server; empty in the sandbox."""
    if services.privacy.in_sandbox or services.client is None or not services.client.application_id:
        return ""
    return permissions.invite_url(services.client.application_id)
