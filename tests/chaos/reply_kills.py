"""Kills the bot at every write and request while it replies, also while it recovers, and checks the
conversation.

`python -m tests.chaos.reply_kills --kills 300 --seed 1` prints what was tried, lost, doubled and
orphaned.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time

from tests.chaos.conversation import Conversation, conversation, report, wait_for
from tests.chaos.outcome import Outcome

HITS_OF_A_LIFE = 120
"""Hits of failpoints in one life, about: start, three replies and a vote."""
KILLS_PER_CHECK = 5
KILLS_PER_HOME = 15
LIFE_TIMEOUT_S = 6.0
CONNECT_TIMEOUT_S = 20.0


async def kill_once(talk: Conversation) -> None:
    """Start the bot with a plan, talk to it until it is dead, and note where it died."""
    trace = talk.home / "trace"
    trace.unlink(missing_ok=True)
    process = talk.start_bot(f"kill@{talk.random.randint(1, HITS_OF_A_LIFE)}", trace)
    talk.was_killed = True
    talking = asyncio.create_task(talk.talk())
    deadline = time.monotonic() + LIFE_TIMEOUT_S
    while process.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  a process is waited for
        await asyncio.sleep(0.01)
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    if process.is_alive():  # the plan's hit never came
        process.kill()
    await asyncio.to_thread(process.join)
    talk.outcome.tried += 1
    points = trace.read_text().splitlines() if trace.exists() else []
    talk.outcome.faults[
        points[-1] if process.exitcode == -signal.SIGKILL and points else "outside"
    ] += 1


async def recover(talk: Conversation) -> None:
    """Run the bot without faults until every reply has ended, stop it, and check what is left."""
    await talk.call_while_away()
    process = talk.start_bot()
    await wait_for(lambda: talk.is_connected or not process.is_alive(), CONNECT_TIMEOUT_S)
    talk.answers.owe(await talk.say())
    await asyncio.sleep(0.3)
    await talk.settle(process)
    await talk.stop_bot(process)
    talk.check()


async def run(kills: int, seed: int) -> Outcome:
    """Kill the bot so often; every few kills it recovers and is checked."""
    outcome = Outcome()
    while outcome.tried < kills:
        number = min(KILLS_PER_HOME, kills - outcome.tried)
        async with conversation(seed + outcome.tried) as talk:
            while (
                talk.outcome.tried < number
            ):  # replies that have ended can be voted on in the next life
                for _ in range(min(KILLS_PER_CHECK, number - talk.outcome.tried)):
                    await kill_once(talk)
                await recover(talk)
            outcome += report(talk, seed + outcome.tried)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    outcome = asyncio.run(run(args.kills, args.seed))
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
