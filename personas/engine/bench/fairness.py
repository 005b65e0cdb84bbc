"""A quiet server beside a flooding one: how long the quiet one's members wait for their first token, with and without.

`python -m personas.engine.bench.fairness FOLDER` prints one JSON object.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path

from personas import base_model
from personas.engine.bench.material import chats
from personas.engine.bench.systems import Heard, Ours, Watch

QUIET, FLOOD = 1, 2
SECONDS = 40.0
QUIET_PER_S = 0.5
FLOOD_WAITING = 64
"""So many requests of the flooding server are on their way at any time."""


def waits(ours: Ours, folder: Path, *, flooded: bool, seed: int = 1) -> list[float]:
    """First-token times of the quiet server's requests, which come as in a Poisson process."""
    dice, talks = random.Random(seed), chats(folder, 32)
    came: list[tuple[float, Watch]] = []
    on_their_way = 0
    began, following = time.perf_counter(), dice.expovariate(QUIET_PER_S)

    def ended() -> None:
        nonlocal on_their_way
        on_their_way -= 1

    while (now := time.perf_counter() - began) < SECONDS or any(not watch.first for _, watch in came):
        if now >= following and now < SECONDS:
            came.append((now, Watch()))
            ours.add(talks[dice.randrange(4)], Heard(0, came[-1][1]), QUIET)
            following += dice.expovariate(QUIET_PER_S)
        while flooded and now < SECONDS and on_their_way < FLOOD_WAITING:
            on_their_way += 1
            ours.add(talks[4 + dice.randrange(28)], Heard(0, Watch()), FLOOD, ended)
        if not ours.parts.batch.step():
            time.sleep(0.002)
    while ours.parts.batch.step():
        pass
    return [watch.first[0] for _, watch in came]


def main() -> int:
    """Both ways, with the same arrivals."""
    base_model.load_torch()
    folder = Path(sys.argv[1])
    ours = Ours(folder)
    found: dict[str, float] = {}
    for name, flooded in (("alone", False), ("flooded", True)):
        times = waits(ours, folder, flooded=flooded)
        cuts = statistics.quantiles(times, n=20, method="inclusive")
        found |= {f"quiet_{name}_ttft_p50_s": statistics.median(times), f"quiet_{name}_ttft_p95_s": cuts[-1]}
        found[f"quiet_{name}_requests"] = len(times)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
