"""Kills the whole bot with a real model and a real trainer: in the engine's steps, anywhere, and
while it trains.

`python -m tests.chaos.model_kills --kills 200 --seed 1` prints what was tried, lost, doubled and
orphaned. The model has two layers; everything else is as in production.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from personas.errors import AdapterError
from personas.home.adapters import adapter_ref, verify_adapter
from personas.home.job_attempt import find_trainer
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from tests.chaos.conversation import Conversation, conversation, report, wait_for
from tests.chaos.outcome import Outcome

ENGINE_HITS, ALL_HITS = 120, 200
"""Hits of failpoints in one life, about: of the engine, and of all."""
LIFE_TIMEOUT_S = 6.0
TRAINER_TIMEOUT_S = 20.0
TRAINING_S = 9.0
SETTLE_TIMEOUT_S = 300.0
KILLS_PER_HOME = 5
REPLY_KINDS = ("in the engine", "anywhere")
TRAINING_KINDS = ("the trainer", "the bot in training")
KINDS = REPLY_KINDS + TRAINING_KINDS


@contextmanager
def tiny_model() -> Iterator[str]:
    """Make a two-layer model; gives its folder."""
    from tests.tiny_models import make_tiny_model  # imports torch

    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-model-"))
    try:
        make_tiny_model(folder / "tiny", load_tokenizer(locate(EMBEDDED)))
        yield str(folder / "tiny")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def trainers(home: Path) -> list[int]:
    """The numbers of the trainers that work on a home's jobs."""
    found = (find_trainer(folder) for folder in (home / "jobs").glob("*/"))
    return [one.pid for one in found if one]


async def kill_once(talk: Conversation, kinds: tuple[str, ...]) -> None:
    """Start the bot, talk to it, kill it or its trainer, and note where."""
    what = talk.random.choice(kinds)
    draw = talk.random
    plans = {
        "in the engine": f"kill@{draw.randint(1, ENGINE_HITS)}:engine.*",
        "anywhere": f"kill@{draw.randint(1, ALL_HITS)}",
    }
    trace = talk.home / "trace"
    trace.unlink(missing_ok=True)
    process = talk.start_bot(plans.get(what, ""), trace)
    talk.was_killed = True
    talking = asyncio.create_task(talk.talk())
    if what in plans:
        await wait_for(lambda: talk.is_connected or not process.is_alive(), TRAINER_TIMEOUT_S)
        await wait_for(lambda: not process.is_alive(), LIFE_TIMEOUT_S)
    else:
        await wait_for(lambda: talk.is_connected, TRAINER_TIMEOUT_S)
        with suppress(TimeoutError, LookupError):
            async with asyncio.timeout(LIFE_TIMEOUT_S):
                await talk.train("weighbridge-quay")
        await wait_for(lambda: trainers(talk.home), TRAINER_TIMEOUT_S)
        await asyncio.sleep(draw.uniform(0, TRAINING_S))
        if what == "the trainer":
            for pid in trainers(talk.home):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(draw.uniform(0, 2))
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    if process.is_alive():
        process.kill()
    await asyncio.to_thread(process.join)
    talk.outcome.tried += 1
    talk.outcome.faults[what] += 1


async def recover(talk: Conversation) -> None:
    """Run the bot without faults until replies and jobs have ended, stop it, and check what is
    left.
    """
    await talk.call_while_away()
    process = talk.start_bot()
    await wait_for(lambda: talk.is_connected or not process.is_alive(), TRAINER_TIMEOUT_S)
    talk.answers.owe(await talk.say())
    await asyncio.sleep(0.5)
    await talk.settle(process, SETTLE_TIMEOUT_S)
    await talk.stop_bot(process)
    await wait_for(
        lambda: not trainers(talk.home), TRAINER_TIMEOUT_S
    )  # that of a killed bot ends by itself
    talk.check()
    check_versions(talk)


def check_versions(talk: Conversation) -> None:
    """Each job that is done has its valid adapter, and nothing else lies beside them."""
    done = {
        (row["name"], row["version"])
        for row in talk.rows("select name, version from jobs where state = 'done'")
    }
    for name, version in done:
        try:
            verify_adapter(adapter_ref(talk.home, name, version).folder)
        except AdapterError as error:
            talk.outcome.lost.append(str(error))
    versions = {
        (row["persona_id"], row["version"])
        for row in talk.rows("select persona_id, version from versions")
    }
    folders = {
        (it.parent.name, it.name) for it in (talk.home / "models" / "persona_adapters").glob("*/*")
    }
    talk.outcome.orphans += [f"the adapter {one}" for one in sorted(folders - done)]
    talk.outcome.doubled += [f"the version {one}" for one in sorted(versions ^ done)]
    talk.outcome.orphans += [f"the trainer {pid}" for pid in trainers(talk.home)]


async def run(
    kills: int,
    seed: int,
    base: str,
    kinds: tuple[str, ...] = KINDS,
    per_check: int = KILLS_PER_HOME,
) -> Outcome:
    """Kill bot and trainer so often; every few kills the bot recovers and is checked."""
    outcome = Outcome()
    while outcome.tried < kills:
        async with conversation(seed + outcome.tried, base) as talk:
            talk.actions = [talk.vote, talk.decide]
            for _ in range(min(per_check, kills - outcome.tried)):
                await kill_once(talk, kinds)
            await recover(talk)
            outcome += report(talk, seed + outcome.tried)
    return outcome


async def run_out_of_memory(times: int, seed: int, base: str) -> Outcome:
    """Let a step of the engine have no memory while members talk: the bot goes on, and every reply
    ends.
    """
    outcome = Outcome()
    async with conversation(seed, base) as talk:
        talk.actions = [talk.vote]
        for _ in range(times):
            lasting = "+" if talk.random.random() < 0.2 else ""
            number = talk.random.randint(2, ENGINE_HITS // 2)
            process = talk.start_bot(f"ENOMEM@{number}{lasting}:engine.step*")
            # Only then: every message is owed an answer, but not those that nobody was there for.
            await wait_for(lambda: talk.is_connected, TRAINER_TIMEOUT_S)
            talking = asyncio.create_task(talk.talk())
            await asyncio.sleep(LIFE_TIMEOUT_S / 2)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            await talk.settle(process)
            await talk.stop_bot(process)
            talk.outcome.tried += 1
            talk.outcome.faults["from then on" if lasting else "once"] += 1
        await recover(talk)
        outcome += report(talk, seed)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--memory", action="store_true", help="steps without memory instead of kills"
    )
    args = parser.parse_args()
    began = time.monotonic()
    with tiny_model() as base:
        outcome = asyncio.run(
            (run_out_of_memory if args.memory else run)(args.kills, args.seed, base)
        )
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
