"""`python -m benchmarks.large_home_latency`: pages and the event loop over 5,000 personas and
200,000 messages.

The whole bot runs, connected to a sandbox with 1,000 servers in a process of its own. Requests come
from a thread, so that only the bot's work counts as a pause of its event loop.
"""

import argparse
import asyncio
import http.client
import json
import logging
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.large_home import GUILDS, MESSAGES, PERSONAS_PER_GUILD, GuildPlace, LargeHome
from bot.app import App, open_app
from bot.settings import Settings, load_settings
from personas.errors import UnderstudyError
from personas.home.job_material import ShippedData
from personas.models.base_model import EMBEDDED, fingerprint, locate
from sandbox import Sandbox, patch_discord
from sandbox.guild_seed import ChannelSeed, GuildSeed, MemberSeed

HOME_FOLDER = Path("build/bench/web-large-home")
RESULT_FILE = Path("build/bench/web-large.json")
MEASURED_ROUNDS = 10
WARMUP_ROUNDS = 1
MAX_LATENCY_MS = 200.0
MAX_PAUSE_MS = 50.0
PROBE_INTERVAL_S = 0.002
REQUEST_TIMEOUT_S = 60.0
PAGES = {
    "overview": "/dashboard",
    "personas": "/dashboard/personas",
    "personas, found by name": "/dashboard/personas?find=maren",
    "one persona": "/dashboard/personas/PERSONA",
    "its lore": "/dashboard/personas/PERSONA/lore",
    "its versions": "/dashboard/personas/PERSONA/versions",
    "personas over REST": "/personas?limit=25",
    "one persona over REST": "/personas/PERSONA",
    "models": "/v1/models",
    "one model": "/v1/models/PERSONA@v1",
    "score cards": "/dashboard/cards",
    "one score card": "/dashboard/cards/PERSONA/v1",
    "blind comparison": "/dashboard/cards/compare",
    "playground": "/dashboard/play",
    "data": "/dashboard/data",
    "build a data set": "/dashboard/data/build",
    "plan a training": "/dashboard/data/plan",
    "trainings": "/dashboard/training",
    "trainings over REST": "/finetune/jobs?limit=25",
    "system": "/dashboard/system",
    "metrics": "/metrics",
    "health": "/healthz",
    "OpenAPI": "/openapi.json",
}
Figures = dict[str, dict[str, float]]


def serve_sandbox(guilds: int, pipe: Connection) -> None:
    """Serve so many servers in this process; sends the address, the token, and each server's id and
    channels.
    """

    async def serve() -> None:
        channels = tuple(ChannelSeed(f"quay-{number}") for number in range(PERSONAS_PER_GUILD))
        seed = GuildSeed(
            "Harbour 0",
            channels,
            members=(MemberSeed("Ada", owner=True),),
            roles=(),
            bot_name="Understudy",
        )
        more = [replace(seed, name=f"Harbour {number}") for number in range(1, guilds)]
        sandbox = Sandbox(seed, more_guilds=more)
        await sandbox.start()
        places = []
        for container in sandbox._shared.guilds:
            channel_ids = [int(channel["id"]) for channel in container.guild.channels()]
            places.append((int(container.guild.id), tuple(channel_ids)))
        pipe.send((sandbox.url, sandbox.token, places))
        await asyncio.Event().wait()

    asyncio.run(serve())


@asynccontextmanager
async def sandbox_process(guilds: int) -> AsyncIterator[tuple[str, str, list[GuildPlace]]]:
    """Run a sandbox in another process; yields its address, the bot's token and the servers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_sandbox, args=(guilds, theirs), daemon=True)
    process.start()
    try:
        url, token, places = await asyncio.to_thread(ours.recv)
        yield url, token, [GuildPlace(guild_id, channels) for guild_id, channels in places]
    finally:
        process.kill()
        process.join()


class LoopProbe:
    """Measures pauses of the event loop: how much later than asked it goes on."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(PROBE_INTERVAL_S)
            self.longest_ms = max(
                self.longest_ms, (time.perf_counter() - began - PROBE_INTERVAL_S) * 1000
            )

    def take(self) -> float:
        """Return the longest pause since the last call, in milliseconds."""
        longest_ms = self.longest_ms
        self.longest_ms = 0.0
        return longest_ms

    def stop(self) -> None:
        self._task.cancel()


def request_ms(url: str, path: str) -> tuple[float, int]:
    """Request a page; returns milliseconds up to its last byte, and bytes. Raises `UnderstudyError`
    for an error.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(
        address.hostname or "", address.port, timeout=REQUEST_TIMEOUT_S
    )
    began = time.perf_counter()
    connection.request(
        "GET", path, headers={"Accept": "text/html" if path.startswith("/dashboard") else "*/*"}
    )
    answer = connection.getresponse()
    size = len(answer.read())
    connection.close()
    if answer.status != 200:
        raise UnderstudyError(f"{path} is answered with {answer.status}.")
    return (time.perf_counter() - began) * 1000, size


async def measure(app: App, probe: LoopProbe, persona_id: str) -> Figures:
    """Measure each page: nine of ten requests take less, and the event loop pauses for less in half
    of them.
    """
    figures: Figures = {}
    for name, pattern in PAGES.items():
        path = pattern.replace("PERSONA", persona_id)
        times = list[float]()
        pauses = list[float]()
        size = 0
        for _ in range(WARMUP_ROUNDS + MEASURED_ROUNDS):
            probe.take()
            taken_ms, size = await asyncio.to_thread(request_ms, app.url, path)
            times.append(taken_ms)
            pauses.append(probe.take())
        p90 = statistics.quantiles(times[WARMUP_ROUNDS:], n=10, method="inclusive")[-1]
        pause = statistics.median(
            pauses[WARMUP_ROUNDS:]
        )  # one that is the bot's comes with each request
        figures[name] = {"p90_ms": p90, "pause_ms": pause, "kilobytes": size / 1000}
    return figures


async def measure_tasks(app: App, probe: LoopProbe) -> Figures:
    """Measure what the bot does by itself: the hourly deletion of expired data, and reading all
    cards again.
    """
    services = app.services
    figures: Figures = {}
    retention = next(task for task in services.background if task.name == "retention")
    for name, work in (
        ("retention, once an hour", retention._work),
        (
            "reading all cards again",
            lambda: asyncio.to_thread(services.personas.reload_guild_cards),
        ),
    ):
        probe.take()
        began = time.perf_counter()
        await work()
        figures[name] = {
            "p90_ms": (time.perf_counter() - began) * 1000,
            "pause_ms": probe.take(),
            "kilobytes": 0.0,
        }
    return figures


def print_table(figures: Figures) -> None:
    """Print a line per page."""
    print(f"{'':32}{'p90 (ms)':>14}{'pause (ms)':>12}{'size (KB)':>12}")
    for name, of in figures.items():
        print(f"{name:32}{of['p90_ms']:14.1f}{of['pause_ms']:12.1f}{of['kilobytes']:12.1f}")


async def run_benchmark(guilds: int, messages: int) -> Figures:
    """Make the home, run the bot over it, and measure."""
    async with sandbox_process(guilds) as (url, token, places):
        base_hash = await asyncio.to_thread(lambda: fingerprint(locate(EMBEDDED)))
        home = LargeHome(places, messages=messages, base_hash=base_hash)
        environ = {
            "UNDERSTUDY_HOME": f"{Path.cwd()}/{HOME_FOLDER}",
            "WEB_PORT": "0",
            "DISCORD_TOKEN": token,
        }
        settings: Settings = load_settings(None, environ)
        began = time.perf_counter()
        await asyncio.to_thread(home.write, settings.home)
        print(f"the home was made in {time.perf_counter() - began:.1f} s", flush=True)
        with patch_discord(url):
            began = time.perf_counter()
            probe = LoopProbe()
            async with open_app(settings, ShippedData.from_source_tree()) as app:
                start = {
                    "p90_ms": (time.perf_counter() - began) * 1000,
                    "pause_ms": probe.take(),
                    "kilobytes": 0.0,
                }
                persona_id = next(persona_id for _, persona_id, _ in home.personas())
                figures = await measure(app, probe, persona_id)
                return {**figures, **await measure_tasks(app, probe), "starting": start}


def main() -> int:
    """Measure, print and write; 1 if a page or a pause is too long."""
    parser = argparse.ArgumentParser("python -m benchmarks.large_home_latency", description=__doc__)
    parser.add_argument(
        "--guilds", type=int, default=GUILDS, help="servers, each with five personas"
    )
    parser.add_argument("--messages", type=int, default=MESSAGES, help="messages in all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    shutil.rmtree(HOME_FOLDER, ignore_errors=True)
    try:
        figures = asyncio.run(run_benchmark(arguments.guilds, arguments.messages))
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    sizes = {
        "guilds": arguments.guilds,
        "personas": arguments.guilds * PERSONAS_PER_GUILD,
        "messages": arguments.messages,
    }
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    RESULT_FILE.write_text(
        json.dumps({**sizes, "pages": figures, "machine": machine}, indent=2) + "\n",
        encoding="utf-8",
    )
    print(f"written to {RESULT_FILE}")
    late = [name for name in PAGES if figures[name]["p90_ms"] > MAX_LATENCY_MS]
    late += [
        name for name, of in figures.items() if of["pause_ms"] > MAX_PAUSE_MS and name != "starting"
    ]
    if late:
        print(
            f"above {MAX_LATENCY_MS:.0f} ms, or with a pause above {MAX_PAUSE_MS:.0f} ms: "
            f"{', '.join(late)}"
        )
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
