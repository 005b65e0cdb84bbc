"""Disturbs requests and events between bot and Discord by seed, and checks the conversation
afterwards.

`python -m tests.chaos.wire_storms --seeds 200` prints what was tried, lost, doubled and orphaned.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from multiprocessing.process import BaseProcess

from bot.demo_guild import MODERATOR
from sandbox import FaultRates
from tests.chaos.conversation import CHANNELS, Conversation, conversation, report
from tests.chaos.outcome import Outcome

SHARES = 0.05, 0.15, 0.4
"""Shares of requests and events that are disturbed, in turn."""
STORM_S = 0.6
SEEDS_PER_LIFE = 10
MAX_LAST_WORDS = 60
LAST_WORD_S = 0.5


async def storm(talk: Conversation, seed: int) -> None:
    """Talk while the wire is disturbed."""
    talk.sandbox.disturb(FaultRates.storm(SHARES[seed % len(SHARES)]), seed)
    talking = asyncio.create_task(talk.talk())
    await asyncio.sleep(STORM_S)
    talk.sandbox.disturb()
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    talk.outcome.tried += 1
    talk.outcome.faults[f"share {SHARES[seed % len(SHARES)]}"] += 1


async def read_all(talk: Conversation, process: BaseProcess) -> None:
    """Wait until the bot has read every event, which come in order, and ended every reply."""
    await talk.settle(process)
    said: list[str] = []
    while not said or not talk.rows(f"select 1 from replies where event_id in ({','.join(said)})"):
        if len(said) == MAX_LAST_WORDS:
            raise TimeoutError("the bot reads no events any more")
        said.append(
            (await talk.sandbox.member(MODERATOR).say(next(iter(CHANNELS)), "a last question"))[
                "id"
            ]
        )
        await asyncio.sleep(
            LAST_WORD_S
        )  # one that comes while the bot identifies anew is not sent again
    await talk.settle(process)


async def run(seeds: int, first: int) -> Outcome:
    """Disturb the wire by so many seeds; every few seeds the conversation is checked."""
    outcome = Outcome()
    while outcome.tried < seeds:
        async with conversation(first + outcome.tried) as talk:
            talk.was_killed = True  # a lost session's events are lost
            process = talk.start_bot()
            await read_all(talk, process)  # a bot that cannot log in ends, as it should
            for number in range(min(SEEDS_PER_LIFE, seeds - outcome.tried)):
                await storm(talk, first + outcome.tried + number)
            talk.answers.note_owed()
            await (
                talk.sandbox.drop_gateway()
            )  # the bot shows what it could not show before once it has resumed
            await read_all(talk, process)
            await talk.stop_bot(process)
            talk.check()
            outcome += report(talk, first + outcome.tried)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    outcome = asyncio.run(run(args.seeds, args.first))
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
