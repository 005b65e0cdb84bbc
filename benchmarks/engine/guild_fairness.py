"""Time to first token of a quiet server, alone and beside a flooding one."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path

from benchmarks.engine.engine_systems import BenchSink, EngineSystem, TokenTimer
from benchmarks.engine.engine_workload import load_chats
from personas.models import base_model

QUIET_GUILD_ID, FLOODING_GUILD_ID = 1, 2
DURATION_S = 40.0
QUIET_REQUESTS_PER_S = 0.5
FLOOD_IN_FLIGHT = 64
"""So many requests of the flooding server are on their way at any time."""


def first_token_times(ours: EngineSystem, folder: Path, *, flooded: bool, seed: int = 1) -> list[float]:
    """First-token times of the quiet server's requests, which come as in a Poisson process."""
    dice, talks = random.Random(seed), load_chats(folder, 32)
    came: list[tuple[float, TokenTimer]] = []
    on_their_way = 0
    began, following = time.perf_counter(), dice.expovariate(QUIET_REQUESTS_PER_S)

    def ended() -> None:
        nonlocal on_their_way
        on_their_way -= 1

    while (now := time.perf_counter() - began) < DURATION_S or any(not watch.first for _, watch in came):
        if now >= following and now < DURATION_S:
            came.append((now, TokenTimer()))
            ours.add(talks[dice.randrange(4)], BenchSink(0, came[-1][1]), QUIET_GUILD_ID)
            following += dice.expovariate(QUIET_REQUESTS_PER_S)
        while flooded and now < DURATION_S and on_their_way < FLOOD_IN_FLIGHT:
            on_their_way += 1
            ours.add(talks[4 + dice.randrange(28)], BenchSink(0, TokenTimer()), FLOODING_GUILD_ID, ended)
        if not ours.parts.batch.step():
            time.sleep(0.002)
    while ours.parts.batch.step():
        pass
    return [watch.first[0] for _, watch in came]


def main() -> int:
    """Both ways, with the same arrivals."""
    base_model.load_torch()
    folder = Path(sys.argv[1])
    ours = EngineSystem(folder)
    found: dict[str, float] = {}
    for name, flooded in (("alone", False), ("flooded", True)):
        times = first_token_times(ours, folder, flooded=flooded)
        cuts = statistics.quantiles(times, n=20, method="inclusive")
        found |= {f"quiet_{name}_ttft_p50_s": statistics.median(times), f"quiet_{name}_ttft_p95_s": cuts[-1]}
        found[f"quiet_{name}_requests"] = len(times)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
