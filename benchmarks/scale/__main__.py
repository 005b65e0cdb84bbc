"""`make bench-scale`: simulates 1 to 64 vLLM servers for a million channels and 100,000 personas.

First two real servers, a core each, are measured: a part of their replies calibrates the
simulation, and the others are predicted (`--only validate`). Then the bot's own admission, fair
queue and choice of a replica run over simulated servers (`--only simulate`, which needs no vLLM: it
takes calibration.json, which is in the repository). Prints the tables and writes
build/bench/scale.json.
"""

import argparse
import asyncio
import json
import logging
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.scale.experiments import Figures, Population, run_day, saturate
from benchmarks.scale.simulated_replica import ReplicaProfile

RESULT_FILE = Path("build/bench/scale.json")
WORK_FOLDER = Path("build/bench/scale")
CALIBRATION_FILE = Path(__file__).parent / "calibration.json"
PARTS = ("validate", "simulate")
BARS = {"hit_rate_error": 0.02, "throughput_error": 0.05, "ttft_p95_error": 0.15}
MIN_EFFICIENCY = 0.9
REPLICA_COUNTS = (1, 2, 4, 8, 16, 32, 64)
EXPONENTS = (0.8, 1.0, 1.2)
REPLIES_IF_SATURATED = 200
REPLIES_PER_DAY = 400
VALIDATED_REPLIES = 200
# Servers of the simulation: adapters in a batch and in memory, and sequences at once.
SLOTS = 16
RAM = 1000
ROWS = 32
DOLLARS_PER_HOUR = {"vllm-cpu": 0.05, "a100-7b": 2.0}
"""Assumed prices of a core, and of a GPU of the size of an A100."""


def a100_profile(measured: ReplicaProfile) -> ReplicaProfile:
    """Describe an A100 with a model of 7 billion parameters, by published figures; this is not
    validated.

    A step reads 13.5 GB of weights at 1,555 GB/s (NVIDIA's data sheet, 40 GB): 8.7 ms. vLLM's pull
    request 11267 reports 1,791.5 output and 1,873.1 prompt tokens/s with four adapters; taken as
    reached at 32 rows, such a step is 17.86 ms. A prompt token is 13.4 GFLOP at 40 % of 312 TFLOPS:
    0.107 ms. What remains of the step is divided by its rows. An adapter of 80 MB comes through
    PCIe 4.0 at 25 GB/s, from disk at 3 GB/s and from the object store at 1 GB/s, beside the time
    that vLLM takes for an adapter here, where files are in memory already.
    """
    step_s = 13.5e9 / 1555e9
    prompt_token_s = 13.4e9 / (0.4 * 312e12)
    adapter_bytes = 80e6
    row_s = (32 / 1791.5 - step_s) / 32 - 1873.1 / 1791.5 * prompt_token_s
    return replace(
        measured,
        name="a100-7b",
        step_s=step_s,
        row_s=row_s,
        adapter_s=0.0,
        prompt_token_s=prompt_token_s,
        activate_s=measured.activate_s + adapter_bytes / 25e9,
        read_s=measured.read_s + adapter_bytes / 3e9,
        fetch_s=adapter_bytes / 1e9,
        prefixes=400,
    )


def simulate_cell(
    profile: ReplicaProfile, replicas: int, exponent: float, replies: int, day_replies: int
) -> Figures:
    """Simulate saturated servers, then a day whose peak takes 80 % of what one of them can do."""
    logging.disable(logging.WARNING)  # of the server that is lost
    since = time.perf_counter()
    population = Population(exponent)
    full = saturate(profile, replicas, population, replies)
    capacity = full["replies_per_s"]
    day = run_day(profile, replicas, population, capacity, replies=day_replies)
    return {
        "profile": profile.name,
        "replicas": replicas,
        "exponent": exponent,
        "saturated": full,
        "day": day,
        "seconds": time.perf_counter() - since,
    }


def simulate(calibration: Figures, replies: int, day_replies: int) -> Figures:
    """Simulate all counts and exponents; returns the cells and the figures for the goals."""
    measured = replace(ReplicaProfile(**calibration["profile"]), slots=SLOTS, ram=RAM, rows=ROWS)
    a100 = a100_profile(measured)
    cells = [(measured, count, exponent) for count in REPLICA_COUNTS for exponent in EXPONENTS]
    cells += [(a100, count, 1.0) for count in REPLICA_COUNTS]
    cells.sort(key=lambda cell: -cell[1])  # the longest first
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(simulate_cell, *cell, replies, day_replies) for cell in cells]
        impatient = []
        for each in (measured, a100):
            run = partial(saturate, each, 32, Population(1.0), replies=replies, is_patient=False)
            impatient.append(pool.submit(run))
        for task in tasks:
            print_progress(task.result())
        found = [task.result() for task in tasks]
    found.sort(key=lambda cell: (cell["profile"], cell["exponent"], cell["replicas"]))
    add_ratios(found)
    goals = [cell for cell in found if (cell["replicas"], cell["exponent"]) == (32, 1.0)]
    return {
        "cells": found,
        "efficiency_32": min(cell["efficiency"] for cell in goals),
        "starved": sum(cell[part]["starved"] for cell in found for part in ("saturated", "day")),
        "tokens_per_s_32_without_waiting": {
            profile.name: task.result()["tokens_per_s"]
            for profile, task in zip((measured, a100), impatient, strict=True)
        },
        "a100": asdict(a100),
    }


def is_cell(cell: Figures, profile: str, replicas: int, exponent: float) -> bool:
    return (cell["profile"], cell["replicas"], cell["exponent"]) == (profile, replicas, exponent)


def add_ratios(cells: list[Figures]) -> None:
    """Add each cell's speed per server relative to one server's, and the price of 1,000 replies."""
    for cell in cells:
        one = next(other for other in cells if is_cell(other, cell["profile"], 1, cell["exponent"]))
        cell["efficiency"] = cell["saturated"]["tokens_per_s"] / one["saturated"]["tokens_per_s"]
        for part, per_hour in (
            ("saturated", 3600 * cell["saturated"]["replies_per_s"]),
            ("day", cell["day"]["replies_per_replica_h"]),
        ):
            cell[part]["dollars_per_1000_replies"] = (
                1000 * DOLLARS_PER_HOUR[cell["profile"]] / per_hour
            )


def validate(python: Path, count: int) -> Figures:
    """Measure two real servers; returns the calibration, the predictions and the largest errors."""
    from benchmarks.scale import validation  # imports torch

    folder = WORK_FOLDER.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    base, adapters, servers = validation.prepare(python, folder)
    found = asyncio.run(validation.validate(base, adapters, servers, count))
    return found | {"validation": largest_errors(found["workloads"])}


def largest_errors(workloads: dict[str, Figures]) -> dict[str, float]:
    """Return the error of each kind that is furthest from 0."""
    return {name: max((found[name] for found in workloads.values()), key=abs) for name in BARS}


def missed_bars(errors: dict[str, float]) -> list[str]:
    return [name for name, most in BARS.items() if abs(errors[name]) > most]


# ------------------------------------------------------------------------------------------- output


def print_progress(cell: Figures) -> None:
    print(
        f"  {cell['profile']}, {cell['replicas']} servers, s = {cell['exponent']}: "
        f"{cell['seconds']:.0f} s",
        flush=True,
    )


def print_validation(calibration: Figures) -> None:
    """Print what was predicted, what was measured, and the errors."""
    print(
        f"\n{'s':>4}{'hits in memory':>24}{'tokens/s':>22}{'first token, p95':>24}   predicted / "
        "measured / error"
    )
    for exponent, found in calibration["workloads"].items():
        predicted = found["predicted"]
        measured = found["measured"]
        print(
            f"{exponent:>4}{predicted['hit_rate']:>8.1%}{measured['hit_rate']:>8.1%}{found['hit_rate_error']:>+8.1%}"
            f"{predicted['tokens_per_s']:>7.1f}{measured['tokens_per_s']:>7.1f}{found['throughput_error']:>+8.1%}"
            f"{predicted['first_token']['p95']:>8.2f}{measured['first_token']['p95']:>8.2f}"
            f"{found['ttft_p95_error']:>+8.1%}"
        )
    errors = calibration["validation"]
    if missed := missed_bars(errors):
        print(f"Not within the bars: {', '.join(missed)}. What follows is an extrapolation.")


def print_cells(cells: list[Figures]) -> None:
    """Print a line per count and exponent."""
    print(
        f"\n{'server':<10}{'s':>4}{'N':>4}{'tokens/s':>10}{'of N = 1':>9}{'hits':>6}{'reads/s':>9}"
        f"{'first token p50 / p95 / p99':>30}{'$/1000':>9}{'starved':>8}{'refused':>8}"
    )
    for cell in cells:
        full = cell["saturated"]
        day = cell["day"]
        first = day["first_token_s"]
        print(
            f"{cell['profile']:<10}{cell['exponent']:>4}{cell['replicas']:>4}{full['tokens_per_s']:>10.1f}"
            f"{cell['efficiency']:>9.2f}{full['ram_hits']:>6.0%}{full['reads_per_s']:>9.2f}"
            f"{first['p50']:>12.2f} /{first['p95']:>6.2f} /{first['p99']:>6.2f} s"
            f"{full['dollars_per_1000_replies']:>9.3f}{full['starved'] + day['starved']:>8}{day['refused']:>8}"
        )


def print_deciles(cells: list[Figures]) -> None:
    """Print the first token by popularity, for the largest number of each kind of server."""
    for profile in sorted({cell["profile"] for cell in cells}):
        cell = next(each for each in cells if is_cell(each, profile, max(REPLICA_COUNTS), 1.0))
        print(f"\nFirst token by popularity, {profile}, {cell['replicas']} servers, s = 1:")
        for number, found in enumerate(cell["day"]["deciles"]):
            times = " /".join(f"{found[name]:6.2f}" for name in ("p50", "p95", "p99"))
            print(
                f"  {10 * number:>3} to {10 * number + 10:>3} %{times} s  ({found['count']} "
                "replies)"
            )


def machine(vllm_python: Path) -> Figures:
    code = "from importlib.metadata import version as v; print(v('vllm-cpu'), v('torch'))"
    vllm, torch = subprocess.run(
        [vllm_python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    processor = platform.processor() or platform.machine()
    return {"cores": os.cpu_count(), "processor": processor, "vllm-cpu": vllm, "torch": torch}


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "--python", type=Path, default=Path("build/vllm/bin/python"), help="of vLLM's environment"
    )
    parser.add_argument("--only", choices=PARTS, help="this part")
    parser.add_argument(
        "--replies", type=int, default=VALIDATED_REPLIES, help="measured replies for each exponent"
    )
    parser.add_argument(
        "--save",
        action="store_true",
        help="write the measurements into benchmarks/scale/calibration.json",
    )
    arguments = parser.parse_args()
    figures: Figures = {}
    if arguments.only != "simulate":
        if not arguments.python.exists():
            parser.error(
                f"there is no vLLM at {arguments.python}: run `make bench-scale`, or add --only "
                "simulate"
            )
        figures |= validate(arguments.python.absolute(), arguments.replies) | {
            "machine": machine(arguments.python)
        }
        if arguments.save:
            CALIBRATION_FILE.write_text(json.dumps(figures, indent=2) + "\n")
    elif not CALIBRATION_FILE.exists():
        parser.error(f"there is no {CALIBRATION_FILE}: run this with --only validate --save first")
    else:
        figures |= json.loads(CALIBRATION_FILE.read_text())
    print_validation(figures)
    if arguments.only != "validate":
        figures |= simulate(figures, REPLIES_IF_SATURATED, REPLIES_PER_DAY)
        print_cells(figures["cells"])
        print_deciles(figures["cells"])
        for profile, speed in figures["tokens_per_s_32_without_waiting"].items():
            print(
                f"\n{profile}, 32 servers, s = 1: {speed:.1f} tokens/s if no reply waits for its "
                "adapter's server"
            )
    return finish(figures)


def finish(figures: dict[str, Any]) -> int:
    """Write the figures; returns 1 if a reply starved or more servers are less efficient than
    wanted.
    """
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    figures["is_extrapolation"] = bool(missed_bars(figures["validation"]))
    RESULT_FILE.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nwritten to {RESULT_FILE}")
    return int(figures.get("starved", 0) > 0 or figures.get("efficiency_32", 1.0) < MIN_EFFICIENCY)


if __name__ == "__main__":
    sys.exit(main())
