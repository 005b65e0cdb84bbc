"""`python -m benchmarks.dashboard_latency`: measures the latency of each page over 1,000 jobs and
100,000 samples.
"""

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

from bot.app import App, open_app
from bot.settings import Settings, load_settings
from bot.store import Store
from bot.training.store import NewTrainingJob
from personas.errors import UnderstudyError
from personas.home.data_subjects import write_people
from personas.home.job_material import ShippedData
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest

HOME_FOLDER = Path("build/bench/web-home")
RESULT_FILE = Path("build/bench/web.json")
JOB_COUNT = 1_000
TRAIN_SAMPLES = 90_000
EVAL_SAMPLES = 8_000
DROPPED_SAMPLES = 2_000
MEASURED_ROUNDS = 20
WARMUP_ROUNDS = 2
MAX_LATENCY_MS = 300.0
REQUESTER_ID = 0
DATASET_NAME = "large"
SPEAKER_NAMES = ("Galen", "Corin", "Nerrin", "Wynno", "Tallin")
OBJECT_WORDS = (
    "ferry",
    "hawser",
    "lamp",
    "rope",
    "tide",
    "ledger",
    "bell",
    "pilot",
    "kettle",
    "anchor",
)
PERSONAS = ("ballast", "oda", "thrip")
REPORTED_PACKAGES = ("aiohttp", "jinja2", "orjson")
DATASET_PATH = f"/dashboard/data/sets/{DATASET_NAME}"


def page_paths(job_id: str) -> dict[str, str]:
    """Return the requested paths by their name in the table."""
    return {
        "overview": "/dashboard",
        "personas": "/dashboard/personas",
        "one persona": "/dashboard/personas/ballast",
        "data": "/dashboard/data",
        "a data set": DATASET_PATH,
        "samples, first page": f"{DATASET_PATH}/samples",
        "samples, in the middle": f"{DATASET_PATH}/samples?first={TRAIN_SAMPLES // 2}",
        "samples, held out": f"{DATASET_PATH}/samples?split=eval",
        "samples, dropped": f"{DATASET_PATH}/samples?split=dropped",
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


def write_jobs(home: Path, count: int = JOB_COUNT) -> str:
    """Write this many finished trainings of three personas, and return the id of the last."""
    home.mkdir(parents=True, exist_ok=True)
    job_id = ""
    now = time.time()
    with Store.open(home / "understudy.sqlite") as store:
        for n in range(count):
            persona = PERSONAS[n % len(PERSONAS)]
            job_id = f"bench{n:05}"
            request = TrainingRequest(job_name=f"{persona}-{n}", persona=persona)
            at = now - 60 * (count - n)
            new = NewTrainingJob(
                job_id,
                guild_id=OPERATOR_GUILD_ID,
                channel_id=REQUESTER_ID,
                requested_by=REQUESTER_ID,
                request=request,
            )
            job = store.jobs.add(new, at)
            if n % 2:
                store.jobs.cancel(job_id, at + 30)
            else:
                store.jobs.fail(
                    job, "The disk is full.", "Free some space.", at + 30, can_resume=False
                )
    return job_id


def make_sample(n: int) -> dict[str, Any]:
    """Generate a sample of some three hundred characters."""
    name = SPEAKER_NAMES[n % 5]
    thing = OBJECT_WORDS[n % 10]
    other = OBJECT_WORDS[(n // 10) % 10]
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


def write_dataset(folder: Path) -> None:
    """Write the data set in the format of `dataset build`."""
    folder.mkdir(parents=True)
    for name, numbers in (
        ("train.jsonl", range(TRAIN_SAMPLES)),
        ("eval.jsonl", range(TRAIN_SAMPLES, TRAIN_SAMPLES + EVAL_SAMPLES)),
    ):
        _write_jsonl(folder / name, (make_sample(n) for n in numbers))
    reasons = ("near duplicate", "too long")
    _write_jsonl(
        folder / "dropped.jsonl",
        ({"source": "large.json", "row": f"row {n}", "reason": reasons[n % 2], "rows": 1, "text": f"dropped {n}",
          "right": "own-writing", "speakers": [], "arrived": ""} for n in range(DROPPED_SAMPLES)),
    )  # fmt: skip
    every = TRAIN_SAMPLES + EVAL_SAMPLES
    stats = {
        "samples": {"train": TRAIN_SAMPLES, "eval": EVAL_SAMPLES}, "tokens": 90 * every,
        "rows": 2 * every + DROPPED_SAMPLES, "rows_used": 2 * every,
        "dropped": dict.fromkeys(reasons, DROPPED_SAMPLES // 2), "hash": "0" * 64, "persona": "ballast",
        "base_model": "embedded", "recipe": {"max_length": 512}, "by_right": {"own-writing": every},
        "by_source": {"large.json": {"train": TRAIN_SAMPLES, "eval": EVAL_SAMPLES, "tokens": 90 * every,
                                     "rows": 2 * every, "rows_used": 2 * every}},
    }  # fmt: skip
    (folder / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    write_people(folder, {})


def _write_jsonl(file: Path, lines: Iterator[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


async def measure_latency(app: App, job_id: str) -> dict[str, dict[str, float]]:
    """Measure milliseconds per page. Raises `UnderstudyError` for a failed request."""
    figures = {}
    async with aiohttp.ClientSession(app.url, headers={"Accept": "text/html"}) as session:
        for name, path in page_paths(job_id).items():
            for _ in range(WARMUP_ROUNDS):
                await _request_ms(session, path)
            times = sorted([await _request_ms(session, path) for _ in range(MEASURED_ROUNDS)])
            p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
            figures[name] = {"p50_ms": statistics.median(times), "p95_ms": p95}
    return figures


async def _request_ms(session: aiohttp.ClientSession, path: str) -> float:
    began = time.perf_counter()
    async with session.get(path) as answer:
        await answer.read()
        if answer.status != 200:
            raise UnderstudyError(f"{path} is answered with {answer.status}.")
    return (time.perf_counter() - began) * 1000


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """Print a line per page."""
    print(f"{'':36}{'p50 (ms)':>10}{'p95 (ms)':>10}")
    for name, of in figures.items():
        print(f"{name:36}{of['p50_ms']:10.1f}{of['p95_ms']:10.1f}")


async def _run_benchmark(settings: Settings, job_id: str) -> dict[str, dict[str, float]]:
    async with open_app(settings, ShippedData.from_source_tree()) as app:
        return await measure_latency(app, job_id)


def main() -> int:
    """Measure, print and write."""
    argparse.ArgumentParser(
        "python -m benchmarks.dashboard_latency", description=__doc__
    ).parse_args()
    logging.basicConfig(level=logging.ERROR)
    shutil.rmtree(HOME_FOLDER, ignore_errors=True)
    settings = load_settings(
        None, {"UNDERSTUDY_HOME": str(HOME_FOLDER.absolute()), "WEB_PORT": "0"}
    )
    job_id = write_jobs(settings.home)
    write_dataset(settings.home / "datasets" / DATASET_NAME)
    try:
        figures = asyncio.run(_run_benchmark(settings, job_id))
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    made = {
        "jobs": JOB_COUNT,
        "samples": TRAIN_SAMPLES + EVAL_SAMPLES,
        "pages": figures,
        "machine": machine,
    }
    versions = {name: importlib.metadata.version(name) for name in REPORTED_PACKAGES}
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    RESULT_FILE.write_text(
        json.dumps({**made, "versions": versions}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"written to {RESULT_FILE}")
    slow = [name for name, of in figures.items() if of["p95_ms"] >= MAX_LATENCY_MS]
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
