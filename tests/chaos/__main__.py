"""`make chaos`: breaks the bot on purpose, by seed, and prints what was tried, lost, doubled and
orphaned.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from xml.etree import ElementTree

from tests.chaos import (
    disk_faults,
    failing_calls,
    model_kills,
    reply_kills,
    server_kills,
    trainer_kills,
    wire_storms,
)
from tests.chaos.outcome import Outcome

RESULT = Path("build/chaos/result.json")
DEFAULT_SEEDS = 300
STEPS = 3_000
"""Lives of the bot under a failing disk with one seed each: `STEPS / seeds` writes lie between two
that fail.
"""
QUEUE_STEPS_PER_SEED = 334
"""100,000 steps by default."""
KILLS_PER_JOB = 6
SEEDS_PER_MODEL_KILL = 15
"""20 kills by default, 200 in a night of 3,000 seeds."""
Suite = Callable[[int, int], Awaitable[Outcome]]


async def kill_trainers(kills: int, first: int) -> Outcome:
    """Kill bot and trainer so often, a few times in each job."""
    outcome = Outcome()
    while outcome.tried < kills:
        number = min(KILLS_PER_JOB, kills - outcome.tried)
        outcome += await asyncio.to_thread(
            trainer_kills.kill_processes, number, first + outcome.tried
        )
    return outcome


async def walk_queue(seeds: int, first: int) -> Outcome:
    """Walk the queue through random steps; a step after which it differs from its model is lost."""
    outcome = Outcome(tried=seeds * QUEUE_STEPS_PER_SEED)
    try:
        outcome.faults = await trainer_kills.walk_queue(outcome.tried, first)
    except AssertionError as error:
        outcome.lost.append(f"seed {first}: {error}")
    return outcome


async def kill_with_model(seeds: int, first: int) -> Outcome:
    """Kill the whole bot and its trainer with a real model, a kill for every `SEEDS_PER_MODEL_KILL`
    seeds.
    """
    with model_kills.tiny_model() as base:
        return await model_kills.run(-(-seeds // SEEDS_PER_MODEL_KILL), first, base)


async def run_out_of_memory(seeds: int, first: int) -> Outcome:
    """Let steps of the real engine have no memory, as often as the model is killed."""
    with model_kills.tiny_model() as base:
        return await model_kills.run_out_of_memory(-(-seeds // SEEDS_PER_MODEL_KILL), first, base)


def tests(*files: str) -> Suite:
    """A suite of tests that show one fault each, whatever the seed; a test that fails is lost."""

    async def run_tests(seeds: int, first: int) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-n",
                "0",
                "-m",
                "",
                f"--junitxml={report}",
                *files,
            ]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL
            )
            await process.wait()
            cases = [*ElementTree.parse(report).iter("testcase")]
        outcome = Outcome(tried=len(cases))
        outcome.faults.update(case.attrib["classname"].rpartition(".")[2] for case in cases)
        outcome.lost += [
            case.attrib["name"]
            for case in cases
            if {one.tag for one in case} & {"failure", "error"}
        ]
        return outcome

    return run_tests


SUITES: dict[str, Suite] = {
    "SIGKILL at writes and requests": reply_kills.run,
    "disturbed requests and events": wire_storms.run,
    "calls that fail 1 to 20 times": failing_calls.run,
    "SIGKILL of bot and trainer": kill_trainers,
    "random steps of the queue": walk_queue,
    "EIO and ENOSPC at writes": lambda seeds, first: disk_faults.run(max(1, STEPS // seeds), first),
    "SIGKILL of bot and trainer with a model": kill_with_model,
    "engine out of memory": run_out_of_memory,
    "SIGKILL of llama.cpp's server": server_kills.run,
    "hanging trainer, memory, clock jumps": tests("tests/bot/test_run_limits.py"),
    "failing steps, numbers not finite": tests(
        "tests/personas/test_engine_errors.py", "tests/trainer/test_divergence.py"
    ),
    "read-only home, locked and damaged database": tests("tests/bot/test_store_failures.py"),
    "SIGKILL while members' files are stored": tests("tests/chaos/test_contribution_kills.py"),
    "erasure while data is made": tests("tests/bot/test_erasure_builds.py"),
}


def table(outcomes: dict[str, Outcome]) -> str:
    rows = ["| fault | tried | lost | doubled | orphans |", "| --- | ---: | ---: | ---: | ---: |"]
    for fault, one in outcomes.items():
        counts = (one.tried, len(one.lost), len(one.doubled), len(one.orphans))
        rows.append(f"| {fault} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return "\n".join(rows)


def result(outcomes: dict[str, Outcome]) -> dict[str, object]:
    """Return the content of the result file."""
    total = Outcome()
    for one in outcomes.values():
        total += one
    sums = {"faults": total.tried, "lost": len(total.lost), "doubled": len(total.doubled)}
    by_fault = {fault: dict(one.faults) for fault, one in outcomes.items()}
    return {**sums, "orphans": len(total.orphans), "by_fault": by_fault}


async def run(seeds: int, first: int, only: str) -> dict[str, Outcome]:
    outcomes = {}
    for fault, suite in SUITES.items():
        if only in fault:
            started = time.monotonic()
            outcomes[fault] = await suite(seeds, first)
            print(f"{fault}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=DEFAULT_SEEDS, help="of each suite (default: %(default)s)"
    )
    parser.add_argument(
        "--first", type=int, default=1, help="the first seed (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="suites with this in their name")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds: give at least 1")
    outcomes = asyncio.run(run(args.seeds, args.first, args.only))
    if not outcomes:
        parser.error(
            f"--only: no suite's name contains {args.only!r}; there are: {'; '.join(SUITES)}"
        )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result(outcomes), indent=1) + "\n", encoding="utf-8")
    print(table(outcomes))
    return 0 if all(one.is_clean for one in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
