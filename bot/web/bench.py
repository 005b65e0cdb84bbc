"""`python -m bot.web.bench`: what each page takes of the server's time over 1,000 jobs and 100,000 samples.

A whole bot in a home of its own, with the embedded model; every page is asked for some twenty times over a socket, and
the time is that from the request to the last byte of the answer. Prints a table and writes `build/bench/web.json`; exit
code 1 where a page takes 300 ms or more (95 of 100 below).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from bot.app import App, opened
from bot.catalogue import ShippedData
from bot.settings import Settings, load_settings
from bot.store import Store
from bot.store.jobs import NewJob
from personas.contracts import TrainingRequest
from personas.errors import UnderstudyError
from personas.for_everybody import OPERATOR
from personas.people import write_people

HOME = Path("build/bench/web-home")
RESULT = Path("build/bench/web.json")
JOBS, TRAIN, HELD_OUT, DROPPED = 1_000, 90_000, 8_000, 2_000
ROUNDS, WARM = 20, 2
ALLOWED_MS = 300.0
NOBODY = 0
SET = "large"
NAMES = ("Galen", "Corin", "Nerrin", "Wynno", "Tallin")
THINGS = ("ferry", "hawser", "lamp", "rope", "tide", "ledger", "bell", "pilot", "kettle", "anchor")
PERSONAS = ("ballast", "oda", "thrip")
PACKAGES = ("aiohttp", "jinja2", "orjson")
DATA = f"/dashboard/data/sets/{SET}"


def pages(job_id: str) -> dict[str, str]:
    """What is asked for, by what it is called in the table."""
    return {
        "overview": "/dashboard",
        "personas": "/dashboard/personas",
        "one persona": "/dashboard/personas/ballast",
        "data": "/dashboard/data",
        "a data set": DATA,
        "samples, first page": f"{DATA}/samples",
        "samples, in the middle": f"{DATA}/samples?after={TRAIN // 2}",
        "samples, held out": f"{DATA}/samples?split=eval",
        "samples, dropped for a reason": f"{DATA}/samples?split=dropped&reason=too+long",
        "samples, a common word": f"{DATA}/samples?query=hawser",
        "samples, two words": f"{DATA}/samples?query=hawser+4711",
        "samples, the beginning of a word": f"{DATA}/samples?query=ha",
        "samples over REST": f"/datasets/{SET}/samples?limit=100&query=lamp",
        "build a data set": "/dashboard/data/build",
        "plan a training": "/dashboard/data/plan",
        "trainings": "/dashboard/training",
        "trainings of a persona": "/dashboard/training?persona=oda",
        "one training": f"/dashboard/training/{job_id}",
        "trainings over REST": "/finetune/jobs?limit=100",
        "score cards": "/dashboard/cards",
        "playground": "/dashboard/play",
        "system": "/dashboard/system",
        "metrics": "/metrics",
    }


def write_jobs(home: Path, count: int = JOBS) -> str:
    """That many trainings that have ended, of three personas; gives the last one's id."""
    home.mkdir(parents=True, exist_ok=True)
    job_id, now = "", time.time()
    with Store.open(home / "understudy.sqlite") as store:
        for n in range(count):
            persona, job_id = PERSONAS[n % len(PERSONAS)], f"bench{n:05}"
            request = TrainingRequest(job_name=f"{persona}-{n}", persona=persona)
            at = now - 60 * (count - n)
            job = store.jobs.add(NewJob(job_id, OPERATOR, NOBODY, NOBODY, request), at)
            if n % 2:
                store.jobs.cancel(job_id, at + 30)
            else:
                store.jobs.fail(job, "The disk is full.", "Free some space.", at + 30, can_resume=False)
    return job_id


def sample(n: int) -> dict[str, Any]:
    """A sample of some three hundred letters."""
    name, thing, other = NAMES[n % 5], THINGS[n % 10], THINGS[(n // 10) % 10]
    return {
        "messages": [
            {"role": "system", "content": "You are Ballast, a dock crane of some age and many opinions."},
            {"role": "user", "content": f"{name}: the {thing} of berth {n} is by the {other} again, is it not?"},
            {"role": "assistant", "content": f"I have moved the {thing} {n} times, and the {other} never thanks me."},
        ],
        "kind": "persona", "source": "large.json", "row": f"messages {2 * n + 1}", "talk": f"messages {4 * (n // 2)}",
        "right": "own-writing", "speakers": [name, "Ballast"], "arrived": "2026-11-20", "tokens": 90,
        "reply_tokens": 18, "lore": [],
    }  # fmt: skip


def write_set(folder: Path) -> None:
    """The data set, as `dataset build` leaves one."""
    folder.mkdir(parents=True)
    for name, numbers in (("train.jsonl", range(TRAIN)), ("eval.jsonl", range(TRAIN, TRAIN + HELD_OUT))):
        _write(folder / name, (sample(n) for n in numbers))
    reasons = ("near duplicate", "too long")
    _write(
        folder / "dropped.jsonl",
        ({"source": "large.json", "row": f"row {n}", "reason": reasons[n % 2], "rows": 1, "text": f"dropped {n}",
          "right": "own-writing", "speakers": [], "arrived": ""} for n in range(DROPPED)),
    )  # fmt: skip
    every = TRAIN + HELD_OUT
    stats = {
        "samples": {"train": TRAIN, "eval": HELD_OUT}, "tokens": 90 * every, "rows": 2 * every + DROPPED,
        "rows_used": 2 * every, "dropped": dict.fromkeys(reasons, DROPPED // 2), "hash": "0" * 64, "persona": "ballast",
        "base_model": "embedded", "recipe": {"max_length": 512}, "by_right": {"own-writing": every},
        "by_source": {"large.json": {"train": TRAIN, "eval": HELD_OUT, "tokens": 90 * every, "rows": 2 * every,
                                     "rows_used": 2 * every}},
    }  # fmt: skip
    (folder / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    write_people(folder, {})


def _write(file: Path, lines: Iterator[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


async def measure(app: App, job_id: str) -> dict[str, dict[str, float]]:
    """Milliseconds by page. Raises `UnderstudyError` for one that is not answered."""
    figures = {}
    async with aiohttp.ClientSession(app.url, headers={"Accept": "text/html"}) as session:
        index_s = await _indexed(session)
        for name, path in pages(job_id).items():
            for _ in range(WARM):
                await _took_ms(session, path)
            times = sorted([await _took_ms(session, path) for _ in range(ROUNDS)])
            p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
            figures[name] = {"p50_ms": statistics.median(times), "p95_ms": p95}
    figures["making the index, once"] = {"p50_ms": index_s * 1000, "p95_ms": index_s * 1000}
    return figures


async def _indexed(session: aiohttp.ClientSession) -> float:
    """Wait for the index of the samples; gives the seconds that it took."""
    began = time.monotonic()
    while True:
        async with session.get(f"/datasets/{SET}/samples") as answer:
            if answer.status == 200:
                return time.monotonic() - began
            if answer.status != 503:
                raise UnderstudyError(f"The samples cannot be indexed: {await answer.text()}")
        await asyncio.sleep(0.2)


async def _took_ms(session: aiohttp.ClientSession, path: str) -> float:
    began = time.perf_counter()
    async with session.get(path) as answer:
        await answer.read()
        if answer.status != 200:
            raise UnderstudyError(f"{path} is answered with {answer.status}.")
    return (time.perf_counter() - began) * 1000


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """A line for each page."""
    print(f"{'':36}{'p50 (ms)':>10}{'p95 (ms)':>10}")
    for name, of in figures.items():
        print(f"{name:36}{of['p50_ms']:10.1f}{of['p95_ms']:10.1f}")


async def _run(settings: Settings, job_id: str) -> dict[str, dict[str, float]]:
    async with opened(settings, ShippedData.beside_the_code()) as app:
        return await measure(app, job_id)


def main() -> int:
    """Measure, print and write."""
    argparse.ArgumentParser("python -m bot.web.bench", description=__doc__).parse_args()
    logging.basicConfig(level=logging.ERROR)
    shutil.rmtree(HOME, ignore_errors=True)
    settings = load_settings(None, {"UNDERSTUDY_HOME": str(HOME.absolute()), "WEB_PORT": "0"})
    job_id = write_jobs(settings.home)
    write_set(settings.home / "datasets" / SET)
    try:
        figures = asyncio.run(_run(settings, job_id))
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    made = {"jobs": JOBS, "samples": TRAIN + HELD_OUT, "pages": figures, "machine": machine}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**made, "versions": versions}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULT}")
    slow = [name for name, of in figures.items() if of["p95_ms"] >= ALLOWED_MS and "once" not in name]
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
