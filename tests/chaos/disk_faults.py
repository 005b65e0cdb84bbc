"""Fails the N-th write of the store or of a file, once or from then on, for every N, and checks
what is left.

`python -m tests.chaos.disk_faults --step 1` tries every N; `--step 9` every ninth.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from itertools import count

from tests.chaos.conversation import Conversation, conversation
from tests.chaos.outcome import Outcome
from tests.chaos.reply_kills import recover

ERRORS = "EIO", "ENOSPC"
POINTS = "store.*", "file.*"
LIFE_TIMEOUT_S = 30.0
MESSAGES = 6


async def live(talk: Conversation, plan: str) -> int:
    """Run the bot with a plan while members talk, and stop it; returns the number of hits."""
    trace = talk.home / "trace"
    trace.unlink(missing_ok=True)
    process = talk.start_bot(plan, trace)
    deadline = time.monotonic() + LIFE_TIMEOUT_S
    while process.is_alive() and not talk.is_connected and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if not talk.is_connected:  # it did not start, and Discord tells it nothing of what it misses
        talk.was_killed = True
    for _ in range(MESSAGES):
        await talk.say()
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    process.terminate()
    await asyncio.to_thread(process.join, 60)
    if process.exitcode not in (0, 1):  # 1: it could not start, and says why
        talk.outcome.lost.append(f"{plan}: the bot ended with exit code {process.exitcode}")
    talk.outcome.tried += 1
    talk.outcome.faults[plan.partition("@")[0] + (" from then on" if "+" in plan else " once")] += 1
    return len(trace.read_text().splitlines()) if trace.exists() else 0


async def run(step: int, seed: int, errors: Sequence[str] = ERRORS) -> Outcome:
    """Try every `step`-th N for these errors, both kinds of writes, once and lasting, until a life
    runs clean.
    """
    outcome = Outcome()
    for error in errors:
        for points in POINTS:
            for lasting in ("", "+"):
                for number in count(1 + seed % step, step):
                    plan = f"{error}@{number}{lasting}:{points}"
                    async with conversation(seed + number) as talk:
                        talk.was_killed = bool(
                            lasting
                        )  # no disk, no record: Discord tells of them once
                        hits = await live(talk, plan)
                        await recover(talk)
                        if not talk.outcome.is_clean:
                            print(plan, talk.outcome, flush=True)
                        outcome += talk.outcome
                    if hits < number:
                        break
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    outcome = asyncio.run(run(args.step, args.seed))
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
