"""Measures the time to the first token of a quiet guild, alone and next to a flooding one."""

import json
import random
import statistics
import sys
import time
from pathlib import Path

from benchmarks.engine.engine_systems import BenchSink, EngineSystem, TokenTimer
from benchmarks.engine.engine_workload import load_chats

QUIET_GUILD_ID = 1
FLOODING_GUILD_ID = 2
DURATION_S = 40.0
QUIET_REQUESTS_PER_S = 0.5
FLOOD_IN_FLIGHT = 64
"""Requests of the flooding guild that wait or run at any time."""


def first_token_times(
    engine: EngineSystem, folder: Path, *, is_flooded: bool, seed: int = 1
) -> list[float]:
    """Return the times to the first token of the quiet guild's requests, which arrive as a Poisson
    process.
    """
    generator = random.Random(seed)
    chats = load_chats(folder, 32)
    quiet: list[TokenTimer] = []
    in_flight = 0
    start = time.perf_counter()
    next_arrival = generator.expovariate(QUIET_REQUESTS_PER_S)

    def on_end() -> None:
        nonlocal in_flight
        in_flight -= 1

    while (now := time.perf_counter() - start) < DURATION_S or any(
        not timer.first for timer in quiet
    ):
        if now >= next_arrival and now < DURATION_S:
            quiet.append(TokenTimer())
            engine.add(chats[generator.randrange(4)], BenchSink(0, quiet[-1]), QUIET_GUILD_ID)
            next_arrival += generator.expovariate(QUIET_REQUESTS_PER_S)
        while is_flooded and now < DURATION_S and in_flight < FLOOD_IN_FLIGHT:
            in_flight += 1
            engine.add(
                chats[4 + generator.randrange(28)],
                BenchSink(0, TokenTimer()),
                FLOODING_GUILD_ID,
                on_end,
            )
        if not engine.parts.batch.step():
            time.sleep(0.002)
    while engine.parts.batch.step():
        pass
    return [timer.first[0] for timer in quiet]


def main() -> int:
    """Measure with and without the flooding guild, with the same arrivals."""
    folder = Path(sys.argv[1])
    engine = EngineSystem(folder)
    figures: dict[str, float] = {}
    for name, is_flooded in (("alone", False), ("flooded", True)):
        times = first_token_times(engine, folder, is_flooded=is_flooded)
        quantiles = statistics.quantiles(times, n=20, method="inclusive")
        figures |= {
            f"quiet_{name}_ttft_p50_s": statistics.median(times),
            f"quiet_{name}_ttft_p95_s": quantiles[-1],
        }
        figures[f"quiet_{name}_requests"] = len(times)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
