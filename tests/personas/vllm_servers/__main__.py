"""`make test-vllm`: two real vLLM servers, a core each, under the bot's engine.

Breaks them on purpose and counts lost, doubled and wrong replies; then compares held-out losses and
speed with the engine in the bot's process. Prints the tables, writes build/bench/vllm.json, and
exits with 1 if a count is not 0, a recovery takes too long or a loss differs by more than 0.5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from personas.engine.remote.replica import ReplicaLimits
from personas.engine.remote.vllm_engine import VllmEngine
from personas.models.base_model import BaseModel
from personas.schemas.training import ServingPrecision
from tests.personas.vllm_servers import comparison, faults, recordings
from tests.personas.vllm_servers.faults import FaultResult, FaultRun
from tests.personas.vllm_servers.vllm_process import (
    API_KEY,
    LORA_OPTIONS,
    START_TIMEOUT_S,
    VllmProcess,
)
from tests.personas.vllm_servers.workspace import make_workspace

FOLDER = Path("build/bench/vllm")
RESULT_FILE = Path("build/bench/vllm.json")
MAX_ROWS = 32
TINY_SLOTS = 4
TINY_OPTIONS = (
    *LORA_OPTIONS, "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--max-num-seqs", str(MAX_ROWS),
    "--max-loras", str(TINY_SLOTS), "--max-cpu-loras", "8",
)  # fmt: skip
DEFAULT_ROUNDS = 3
REPLIES_PER_KILL = 10
REPLIES_PER_SWAP = 20
SWAPS_PER_ROUND = 2.5
CORES = ("0", "1")
PARTS = ("faults", "parity", "speed")


def make_engine(
    base: BaseModel,
    servers: Sequence[VllmProcess],
    home: Path,
    precision: ServingPrecision,
    slots: int,
) -> VllmEngine:
    """Build the bot's engine over the servers, which take `slots` adapters each in a batch."""
    limits = ReplicaLimits(rows=MAX_ROWS, adapters=slots)
    urls = [server.url for server in servers]
    return VllmEngine(
        base, precision, urls, home, key=API_KEY, limits=limits, wait_s=START_TIMEOUT_S
    )


async def run_faults(python: Path, rounds: int) -> list[FaultResult]:
    """Start two servers over the tiny model in float32 and run all faults."""
    folder = FOLDER / "tiny"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    space = make_workspace(folder.absolute())
    versions = [space.version(number) for number in range(1, 13)]
    servers = [
        VllmProcess(
            python, space.base.folder, space.home, folder / f"vllm-{core}.log", core, TINY_OPTIONS
        )
        for core in CORES
    ]
    swaps = math.ceil(rounds * SWAPS_PER_ROUND)
    results = list[FaultResult]()
    async with AsyncExitStack() as stack:
        print("starting two servers …", flush=True)
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        engine = make_engine(space.base, servers, space.home, "float32", TINY_SLOTS)
        await engine.start()
        stack.push_async_callback(engine.close)
        run = FaultRun(engine, servers, space)
        steps: list[Callable[[], Awaitable[FaultResult]]] = [
            lambda: faults.version_swaps(run, swaps, swaps * REPLIES_PER_SWAP),
            lambda: faults.cancelled(run, 2 * rounds),
            lambda: faults.adapter_missing(run, folder.absolute() / "outside"),
            lambda: faults.already_loaded(run, len(versions) - 3),
            lambda: faults.killed_in_mid_reply(run, rounds, REPLIES_PER_KILL),
            lambda: faults.stopped_in_mid_reply(run, REPLIES_PER_KILL),
            lambda: faults.all_unreachable(run, REPLIES_PER_KILL),
            lambda: faults.late_replica(run, len(versions) - 1),
        ]
        for step in steps:
            since = time.monotonic()
            results.append(await step())
            print(
                f"{results[-1].fault}: {time.monotonic() - since:.0f} s",
                *results[-1].notes,
                sep="\n  ",
                flush=True,
            )
    return results


async def run_comparison(python: Path, home: Path, parts: Collection[str]) -> dict[str, Any]:
    """Compare losses (`parity`) and speed over the bundled model; only one of the two systems runs
    at a time.
    """
    base = comparison.bundled_base()
    versions = comparison.train_versions(home)
    adapters = comparison.copy_adapters(home, versions[0])
    compared = dict[str, Any]()
    print("measuring the local engine …", flush=True)
    if "parity" in parts:
        local_losses = await asyncio.to_thread(comparison.local_losses, base, versions)
    if "speed" in parts:
        local_speed = await comparison.local_speed(base, adapters)
    async with AsyncExitStack() as stack:
        servers = [
            VllmProcess(
                python,
                base.folder,
                home,
                FOLDER / f"vllm-{core}.log",
                core,
                comparison.SERVER_OPTIONS,
            )
            for core in CORES
        ]
        print("starting two servers over the bundled model …", flush=True)
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        if "parity" in parts:
            vllm_losses = await comparison.vllm_losses(servers, versions)
            compared["parity"] = comparison.compare_losses(local_losses, vllm_losses)
        if "speed" in parts:
            engine = make_engine(base, servers, home, "bfloat16", comparison.SLOTS)
            await engine.start()
            stack.push_async_callback(engine.close)
            compared["speed"] = comparison.compare_speed(
                local_speed, await comparison.measure_speed(engine, adapters)
            )
    return compared


def print_faults(results: Sequence[FaultResult]) -> None:
    """Print fault × tried × lost × doubled × recovery."""
    print(
        f"\n{'fault':<30}{'tried':>6}{'lost':>6}{'doubled':>9}{'wrong':>7}{'near ties':>11}{'recovery':>10}"
    )
    for row in results:
        recovery = "" if row.recovery_s is None else f"{row.recovery_s:.2f} s"
        print(
            f"{row.fault:<30}{row.tried:>6}{row.lost:>6}{row.doubled:>9}{row.wrong:>7}{row.near_ties:>11}"
            f"{recovery:>10}{'  FAILED' if row.failed else ''}"
        )


def print_comparison(compared: dict[str, Any]) -> None:
    """Print the losses and the speeds that were measured."""
    if parity := compared.get("parity"):
        print(f"\n{'held-out loss':<16}{'local':>9}{'vLLM':>9}{'difference':>13}")
        for persona, row in parity.items():
            print(f"{persona:<16}{row['local']:>9.4f}{row['vllm']:>9.4f}{row['difference']:>13.3%}")
    if speed := compared.get("speed"):
        print(
            f"\n{'chats':<16}{'local':>9}{'vLLM':>9}{'ratio':>8}   tokens/s, each chat with its "
            "own adapter"
        )
        for name, row in speed.items():
            print(f"{name:<16}{row['local']:>9.0f}{row['vllm']:>9.0f}{row['ratio']:>8.2f}")


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.personas.vllm_servers", description=__doc__)
    parser.add_argument(
        "--python", type=Path, default=Path("build/vllm/bin/python"), help="of vLLM's environment"
    )
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="kills of a server (default: 3; 20 is the "
                        "full count: 200 replies, 1,000 requests across 50 version swaps)")  # fmt: skip
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="this part; may repeat (default: all three)"
    )
    arguments = parser.parse_args()
    python = arguments.python.absolute()
    if not python.exists():
        parser.error(f"there is no vLLM at {python}: run `make test-vllm`, which installs it")
    (FOLDER / "home").mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {
        "server": recordings.SERVER,
        "cores": os.cpu_count(),
        "processor": platform.processor(),
    }
    failed = False
    parts = arguments.only or PARTS
    if "faults" in parts:
        results = asyncio.run(run_faults(python, arguments.rounds))
        figures |= {"rounds": arguments.rounds, "faults": [asdict(row) for row in results]}
        print_faults(results)
        failed = any(row.failed for row in results)
    if set(parts) - {"faults"}:
        compared = asyncio.run(run_comparison(python, FOLDER.absolute() / "home", parts))
        figures |= compared
        print_comparison(compared)
        failed |= any(
            row["difference"] > comparison.MAX_LOSS_DIFFERENCE
            for row in compared.get("parity", {}).values()
        )
    earlier = json.loads(RESULT_FILE.read_text()) if RESULT_FILE.exists() else {}
    RESULT_FILE.write_text(json.dumps(earlier | figures, indent=2) + "\n")
    print(f"\nwritten to {RESULT_FILE}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
