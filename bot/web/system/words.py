"""The state in words: figures by name, and the rows of tables that change. A script puts both into the open page."""

from __future__ import annotations

from datetime import UTC, datetime

from bot.watch import Percentiles
from bot.web.formats import count, duration, size
from bot.web.system.state import State

Rows = dict[str, list[list[str]]]


def figures(state: State) -> dict[str, str]:
    """Each figure of the page, by its name there."""
    engine, machine = state.engine, state.machine
    trainers = [one for one in state.processes if one.what.startswith("trainer")]
    return {
        "uptime": duration(state.at - state.started_at),
        "bot": size(state.processes[0].memory_bytes),
        "trainer": size(sum(one.memory_bytes for one in trainers)) if trainers else "not running",
        "available": f"{size(machine.available_bytes)} of {size(machine.memory_bytes)}",
        "disk": f"{size(machine.disk_free_bytes)} of {size(machine.disk_bytes)}",
        "gpu": f"{size(machine.gpu_free_bytes)} of {size(machine.gpu_bytes)}" if machine.gpu_bytes else "none in use",
        "running": f"{engine.running} of {engine.rows}",
        "waiting": count(engine.waiting),
        "adapters": f"{len(engine.adapters)} of {engine.slots}",
        "kept": f"{size(engine.kept_bytes)} of {size(engine.kept_most_bytes)}",
        "device": f"{engine.device}, {engine.precision}",
        "queued": count(state.jobs["queued"]),
        "in-training": count(state.jobs["running"]),
        "ended": f"{state.jobs['done']} done, {state.jobs['failed']} failed, {state.jobs['cancelled']} cancelled",
        "heartbeat": _heartbeat(state),
        "replies": count(state.whole_reply.replies),
        **_percentiles("first", state.first_text),
        **_percentiles("whole", state.whole_reply),
    }


def rows(state: State) -> Rows:
    """The rows of the tables, as texts; times in UTC."""
    return {
        "processes": [
            [one.what, str(one.pid), size(one.memory_bytes), duration(one.cpu_s), str(one.threads),
             duration(state.at - one.started_at)]
            for one in state.processes
        ],
        "adapters": [
            [one.name, "stacked" if one.in_slot else "by itself", count(one.replies)]
            for one in reversed(state.engine.adapters)
        ],
        "warnings": [[_moment(one.at), one.level.lower(), one.words] for one in state.warnings],
    }  # fmt: skip


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _percentiles(name: str, found: Percentiles) -> dict[str, str]:
    return {f"{name}-{at}": duration(getattr(found, at)) for at in ("p50", "p90", "p99")}


def _heartbeat(state: State) -> str:
    it = state.connection
    if it is None:
        return "–"
    if not it.is_ready:
        return "not connected"
    beat = f", {it.heartbeat_s * 1000:.0f} ms" if it.heartbeat_s is not None else ""
    return f"{it.to}, {it.servers} server{'' if it.servers == 1 else 's'}{beat}"
