"""`/dashboard/system`: the bot's state, refreshed while the page is open."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bot.operations.metrics import Percentiles
from bot.operations.web.system_state import PERMISSION_REPORT, SystemState, read_system_state
from bot.platform import permissions
from bot.platform.permissions import MESSAGE_CONTENT, REQUIRED_PERMISSIONS, permission_title
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

TableRows = dict[str, list[list[str]]]
SYSTEM_PATH = f"{DASHBOARD}/system"
REFRESH_INTERVAL_S = 2.0
MAX_SHOWN_LACKS = 50
STATE_COLOURS = {"ok": "good", "warn": "warn", "fail": "bad"}
routes = Routes()


def state_figures(state: SystemState) -> dict[str, str]:
    """Figures by the id of their element."""
    engine = state.engine
    machine = state.machine
    trainers = [one for one in state.processes if one.what.startswith("trainer")]
    return {
        "uptime": format_seconds(state.at - state.started_at),
        "bot": format_bytes(state.processes[0].memory_bytes),
        "trainer": format_bytes(sum(one.memory_bytes for one in trainers))
        if trainers
        else "not running",
        "available": f"{format_bytes(machine.available_bytes)} of {format_bytes(machine.memory_bytes)}",
        "disk": f"{format_bytes(machine.disk_free_bytes)} of {format_bytes(machine.disk_bytes)}",
        "gpu": f"{format_bytes(machine.gpu_free_bytes)} of {format_bytes(machine.gpu_bytes)}"
        if machine.gpu_bytes
        else "none in use",
        "running": f"{engine.running} of {engine.rows}",
        "waiting": format_count(engine.waiting),
        "adapters": f"{len(engine.adapters)} of {engine.slots}",
        "kept": f"{format_bytes(engine.kept_bytes)} of {format_bytes(engine.kept_most_bytes)}",
        "device": f"{engine.device}, {engine.precision}",
        "queued": format_count(state.jobs["queued"]),
        "in-training": format_count(state.jobs["running"]),
        "ended": (
            f"{state.jobs['done']} done, {state.jobs['failed']} failed, {state.jobs['cancelled']} "
            "cancelled"
        ),
        "heartbeat": _heartbeat_text(state),
        "replies": format_count(state.whole_reply.replies),
        **_percentile_figures("first", state.first_text),
        **_percentile_figures("whole", state.whole_reply),
    }


def state_tables(state: SystemState) -> TableRows:
    """Rows of the tables, as texts; times in UTC."""
    return {
        "processes": [
            [one.what, str(one.pid), format_bytes(one.memory_bytes), format_seconds(one.cpu_s), str(one.threads),
             format_seconds(state.at - one.started_at)]
            for one in state.processes
        ],
        "adapters": [
            [one.name, "stacked" if one.in_slot else "by itself", format_count(one.replies)]
            for one in reversed(state.engine.adapters)
        ],
        "warnings": [[_format_utc(one.at), one.level.lower(), one.words] for one in state.warnings],
    }  # fmt: skip


def _format_utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _percentile_figures(name: str, found: Percentiles) -> dict[str, str]:
    return {f"{name}-{at}": format_seconds(getattr(found, at)) for at in ("p50", "p90", "p99")}


def _heartbeat_text(state: SystemState) -> str:
    it = state.connection
    if it is None:
        return "–"
    if not it.is_ready:
        return "not connected"
    beat = f", {it.heartbeat_s * 1000:.0f} ms" if it.heartbeat_s is not None else ""
    return f"{it.to}, {it.servers} server{'' if it.servers == 1 else 's'}{beat}"


@routes.add(f"GET {SYSTEM_PATH}")
async def get_system_page(request: web.Request) -> web.Response:
    """Page of the state; a script refreshes figures and tables by events."""
    services = get_services(request)
    state = await read_system_state(services)
    findings = await services.metrics.findings.latest(services.home)
    return render_page(
        request,
        "system/system.html",
        title="System",
        state=state,
        figures=state_figures(state),
        rows=state_tables(state),
        findings=findings,
        is_asking=services.metrics.findings.is_running,
        lacks=(
            lacks := await request.app[PERMISSION_REPORT].latest(services.client, services.store)
        )[:MAX_SHOWN_LACKS],
        hidden_lacks=max(0, len(lacks) - MAX_SHOWN_LACKS),
        lacking=[lack.need for lack in lacks],
        is_connected=bool(services.client and services.client.guilds),
        needs=[(permission_title(need), need) for need in REQUIRED_PERMISSIONS],
        content=MESSAGE_CONTENT,
        reads_content=bool(services.client and services.client.intents.message_content),
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
    message = (
        "The doctor is checking; this takes half a minute."
        if is_started
        else "The doctor is already checking."
    )
    return redirect_to(request, f"{SYSTEM_PATH}#doctor", message)


async def _state_events(request: web.Request, services: Services) -> AsyncIterator[SseItem]:
    while request.app[APP_CONTEXT].services is not None:
        state = await read_system_state(services)
        data: dict[str, Any] = {"figures": state_figures(state), "rows": state_tables(state)}
        yield "", "state", data | {"asking": services.metrics.findings.is_running}
        await asyncio.sleep(REFRESH_INTERVAL_S)


def _invite_url(services: Services) -> str:
    """The address that invites the bot to a server; empty in the sandbox."""
    if services.privacy.in_sandbox or services.client is None or not services.client.application_id:
        return ""
    return permissions.invite_url(services.client.application_id)
