"""Kills bot and trainer at random moments, and walks the queue through random steps beside a model
of it.

`python -m tests.chaos.trainer_kills --kills 200 --steps 100000 --seed 1` prints what was tried,
lost and doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from bot.platform.clock import SystemClock
from bot.store import JobResult, TrainingJob
from bot.training.backend_protocol import (
    RunResult,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.backends import subprocess_backend, trainer_process
from bot.training.guild_turns import QueueConflictError
from bot.training.queue import MAX_ATTEMPTS, JobQueue
from bot.training.run_limits import RunLimits
from personas.home.atomic_files import delete_abandoned_folders
from personas.home.job_attempt import find_trainer
from personas.schemas.training_events import Phase
from tests.bot.restartable_queue import TrainingHome
from tests.bot.subprocess_trainer import Workshop
from tests.chaos.outcome import Outcome
from tests.samples import SCORECARD

LIFE_S = 1.2
RECOVERY_S = 60.0
STALL_S = 4.0
"""Longer than a stand-in takes to start on a busy machine."""
JOB_ID = "j1"
PERSONAS = ("ballast", "oda", "thrip")
GUILDS = (1, 2, 3)
EVENT = Phase(name="training")
WEEK_S = 7 * 86_400.0
COMPARED_JOBS = 40
MEMORY_FOLDER = Path("/dev/shm")


# ----------------------------------------------------------------------------------- real processes


def run_bot(folder: Path) -> None:
    """Run a queue over the real backend and a stand-in trainer, resuming what fails, until its job
    has ended.
    """
    trainer_process.WATCH_INTERVAL_S = 0.1
    trainer_process.KILL_TIMEOUT_S = 0.3
    subprocess_backend.LOCK_RETRY_DELAY_S = 0.1

    async def serve() -> None:
        workshop = Workshop(folder)
        backend = workshop.backend(
            "stepping", clock=SystemClock(), limits=RunLimits(stall_s=STALL_S)
        )
        queue = JobQueue(workshop.store, backend, SystemClock())
        queue.start()
        while (job := workshop.store.jobs.get(JOB_ID)) and job.state not in ("done", "cancelled"):
            if job.can_resume:
                queue.resume(JOB_ID)
            await asyncio.sleep(0.02)
        await queue.stop()
        workshop.store.close()

    asyncio.run(serve())


def kill_processes(kills: int, seed: int) -> Outcome:
    """Kill the bot, its trainer, or both, so often during one job; then let it end, and check what
    is there.
    """
    draw = random.Random(seed)
    outcome = Outcome()
    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.trainer_kills"])
    workshop = Workshop(folder)
    workshop.job(JOB_ID)
    workshop.store.close()
    bot: BaseProcess | None = None
    try:
        while outcome.tried < kills:
            if bot is None or not bot.is_alive():
                bot = context.Process(target=run_bot, args=(folder,), daemon=True)
                bot.start()
            time.sleep(draw.uniform(0, LIFE_S))
            trainer = find_trainer(workshop.folder(JOB_ID))
            what = draw.choice(("bot", "trainer", "both"))
            if what != "bot" and trainer:
                with suppress(ProcessLookupError):
                    os.kill(trainer.pid, signal.SIGKILL)
            if what != "trainer":
                bot.kill()
                bot.join()
            outcome.tried += 1
            outcome.faults[what if trainer or what == "bot" else f"{what} without a trainer"] += 1
        if not bot or not bot.is_alive():
            bot = context.Process(target=run_bot, args=(folder,), daemon=True)
            bot.start()
        bot.join(RECOVERY_S)
        if bot.exitcode != 0:
            outcome.lost.append(f"seed {seed}: the bot ended with exit code {bot.exitcode}")
            bot.kill()
            bot.join()
        _check_home(Workshop(folder), seed, outcome)
    finally:
        if bot and bot.is_alive():
            bot.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _check_home(workshop: Workshop, seed: int, outcome: Outcome) -> None:
    job = workshop.store.jobs.get(JOB_ID)
    if job is None or job.state != "done":
        outcome.lost.append(f"seed {seed}: {job}")
    versions = [version.version for version in workshop.store.versions.installed("oda")]
    installed = workshop.home / "models" / "persona_adapters" / "oda"
    for path in installed.glob(
        ".*"
    ):  # what a kill left in mid-installation; the bot deletes it once it is old
        os.utime(path, (0, 0))
    delete_abandoned_folders(installed)
    folders = [path.name for path in installed.iterdir()]
    if not versions == folders == ["v1"]:
        outcome.doubled.append(f"seed {seed}: versions {versions}, folders {folders}")
    steps = (workshop.folder(JOB_ID) / "steps").read_text().split()
    if steps != [str(step) for step in range(1, len(steps) + 1)]:
        outcome.doubled.append(f"seed {seed}: two trainers wrote {steps}")
    if orphan := find_trainer(workshop.folder(JOB_ID)):
        outcome.orphans.append(f"seed {seed}: the trainer {orphan.pid}")
    workshop.store.close()


# -------------------------------------------------------------------------- the queue and its model


class QueueWalk:
    """A queue with two slots over a real store, and the states that its jobs should have."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.home, self.draw = TrainingHome(folder), random.Random(seed)
        self.expected: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        self.tokens: list[tuple[str, str]] = []
        self.steps: Counter[str] = Counter()
        self.guild_of: dict[str, int] = {}
        self.served: dict[
            int, tuple[int, float]
        ] = {}  # by guild: number in this process, and time, of its last start
        self.starts = 0
        self.held = False
        self._start_home()

    def _start_home(self) -> None:
        self.home.backend.slots = 2
        self.home.queue.start()

    async def step(self) -> None:
        """Take one step, and compare the store with the model."""
        weights = {
            self.ask: 30, self.end_run: 40, self.cancel: 8, self.resume: 10, self.interrupt: 4, self.report_late: 15,
            self.lose_lease: 4, self.hold: 2, self.go_on: 6 if self.held else 0,
            self.jump: 3, self.restart: 1, self.crash: 1,
        }  # fmt: skip
        step = self.draw.choices([*weights], [*weights.values()])[0]
        self.steps[step.__name__] += 1
        await step()
        for _ in range(12):
            await asyncio.sleep(0)
        self._follow_starts()
        self._compare()

    # ---------------------------------------------------------------------------------------- steps

    async def ask(self) -> None:
        """A moderator starts a job, or is refused for one that waits or runs."""
        guild = self.draw.choice(GUILDS)
        persona = self.draw.choice(PERSONAS)
        with suppress(QueueConflictError):
            job_id = self.home.ask(persona, guild)
            self.expected[job_id], self.guild_of[job_id] = "queued", guild

    async def end_run(self) -> None:
        """A trainer ends well, fails, or is interrupted from outside."""
        if not (job_id := self._pick("running")):
            return
        ended = self.draw.choice(("done", "failed", "failed for good", "interrupted"))
        results: dict[str, RunResult] = {
            "done": TrainingSucceeded(Path("adapter"), 60.0, SCORECARD),
            "failed": TrainingFailed("full", can_resume=True),
            "failed for good": TrainingFailed("bad"),
            "interrupted": TrainingInterrupted("killed"),
        }
        self.home.backend._ends[job_id].set_result(results[ended])
        if ended == "interrupted":
            self._leave(job_id, counts=True)
        else:
            self.expected[job_id] = "resumable" if ended == "failed" else ended.split()[0]

    async def cancel(self) -> None:
        """A moderator cancels a job; its run ends as interrupted."""
        if job_id := self._pick("queued", "between", "running"):
            self.home.queue.cancel(job_id)
            self.expected[job_id] = "cancelled"

    async def resume(self) -> None:
        """A moderator resumes a failed job, or is refused."""
        if job_id := self._pick("resumable"):
            with suppress(QueueConflictError):
                self.home.queue.resume(job_id)
                self.expected[job_id], self.attempts[job_id] = "queued", 0

    async def interrupt(self) -> None:
        """The bot itself interrupts a run, which does not count."""
        if job_id := self._pick("running"):
            await self.home.queue.interrupt(job_id)
            self._leave(job_id, counts=False)

    async def report_late(self) -> None:
        """An attempt that is over reports, completes, fails and releases: nothing changes."""
        current = {self._job(job_id).attempt_token for job_id in self.expected}
        if not (stale := [one for one in self.tokens[-200:] if one[1] not in current]):
            return
        job_id, token = self.draw.choice(stale)
        jobs = self.home.store.jobs
        before = self._job(job_id)
        done = JobResult(adapter="late", seconds=1.0, scorecard=SCORECARD)
        late = replace(before, attempt_token=token)
        assert jobs.report(job_id, token, EVENT) is jobs.complete(job_id, token, done, 1.0) is None
        assert (
            jobs.release(job_id, token)
            is jobs.fail(late, "late", "", 1.0)
            is jobs.claim(late, "new", 1.0)
            is None
        )
        assert self._job(job_id) == before

    async def lose_lease(self) -> None:
        """An attempt that another one has replaced ends well: its result counts for nothing, and
        the job runs again.
        """
        if not (job_id := self._pick("running")):
            return
        self.home.store.jobs.release(job_id, self._job(job_id).attempt_token or "")
        self._leave(job_id, counts=False)
        self.home.backend._ends[job_id].set_result(TrainingSucceeded(Path("late"), 60.0, SCORECARD))

    async def hold(self) -> None:
        """An erasure holds the queue: nothing starts."""
        self.home.queue.hold()
        self.held = True

    async def go_on(self) -> None:
        """The erasure ends."""
        self.home.queue.go_on()
        self.held = False

    async def jump(self) -> None:
        """The machine's clock is set, by up to a week either way."""
        self.home.clock.advance(self.draw.uniform(-WEEK_S, WEEK_S))

    async def restart(self) -> None:
        """The bot ends and starts: its runs go on, and no attempt counts."""
        await self.home.queue.stop()
        self._stop_attempts(counts=False)
        self.home.queue.start()

    async def crash(self) -> None:
        """The bot is killed and starts: each run counts as an attempt."""
        await self.home.kill()
        self.home.open()
        self.served = {guild: (0, at) for guild, at in self.home.store.jobs.last_served().items()}
        self.held = False
        self._stop_attempts(counts=True)
        self._start_home()

    # ------------------------------------------------------------------------------------ the model

    def _job(self, job_id: str) -> TrainingJob:
        job = self.home.store.jobs.get(job_id)
        assert job, f"the job {job_id} is lost"
        return job

    def _pick(self, *states: str) -> str | None:
        found = [job_id for job_id, state in self.expected.items() if state in states]
        return self.draw.choice(found) if found else None

    def _leave(self, job_id: str, *, counts: bool) -> None:
        """An attempt is over without a result: the job is next, or has failed after too many."""
        if not counts:
            self.attempts[job_id] -= 1
        failed = counts and self.attempts[job_id] >= MAX_ATTEMPTS
        self.expected[job_id] = "resumable" if failed else "between"

    def _stop_attempts(self, *, counts: bool) -> None:
        for job_id in [job_id for job_id, state in self.expected.items() if state == "running"]:
            self._leave(job_id, counts=counts)

    def _follow_starts(self) -> None:
        """Note the attempts that began since the last step."""
        for job in self.home.backend.runs:
            assert self.expected[job.job_id] in ("queued", "between"), (
                f"{job.job_id} was begun again"
            )
            assert not self.held, f"{job.job_id} was begun while the queue was held"
            if self.expected[job.job_id] == "queued":
                assert "between" not in self.expected.values(), (
                    f"{job.job_id} was begun before an interrupted one"
                )
                assert job.job_id == self._fairest(), (
                    f"{job.job_id} was begun before another server's"
                )
            self.starts += 1
            self.served[job.guild_id] = (self.starts, job.started_at or 0.0)
            assert job.attempt_token and (job.job_id, job.attempt_token) not in self.tokens, (
                "a token was used twice"
            )
            self.expected[job.job_id] = "running"
            self.attempts[job.job_id] += 1
            self.tokens.append((job.job_id, job.attempt_token))
        self.home.backend.runs.clear()

    def _fairest(self) -> str:
        """The oldest waiting job of the server that was served longest ago, or else waits
        longest.
        """
        waiting = [job_id for job_id, state in self.expected.items() if state == "queued"]
        first = {
            self.guild_of[job_id]: number for number, job_id in reversed([*enumerate(waiting)])
        }
        return waiting[
            min((self.served.get(guild, (0, 0.0)), number) for guild, number in first.items())[1]
        ]

    def _compare(self) -> None:
        backend = self.home.backend
        running = {job_id for job_id, state in self.expected.items() if state == "running"}
        assert {*backend._ends} == running, "runs without a job, or jobs without a run"
        waiting = [
            job_id for job_id, state in self.expected.items() if state in ("queued", "between")
        ]
        assert len(running) <= backend.slots, "a slot is used twice"
        assert self.held or len(running) == min(backend.slots, len(running) + len(waiting)), (
            "a slot is empty"
        )
        jobs = self.home.store.jobs.page(COMPARED_JOBS)
        names = [(job.guild_id, job.persona) for job in jobs if not job.has_ended]
        assert len(names) == len({*names}), "a server trains a persona twice"
        for job in jobs:
            found = "resumable" if job.can_resume else job.state
            state = self.expected[job.job_id]
            assert found == ("running" if state == "between" else state), (
                f"{job.job_id} is {found}, expected {state}"
            )
            assert found != "running" or job.attempt == self.attempts[job.job_id]

    def check_versions(self) -> None:
        """Each job that is done has one version, and no other has one."""
        store = self.home.store
        installed = Counter(
            (persona, one.version)
            for persona in PERSONAS
            for one in store.versions.installed(persona)
        )
        done = Counter((job.persona, job.version) for job in store.jobs.in_state("done"))
        assert installed == done and all(count == 1 for count in done.values())
        assert {job.job_id for job in store.jobs.in_state("done")} == {
            job_id for job_id, state in self.expected.items() if state == "done"
        }


def _new_folder() -> Path:
    return Path(
        tempfile.mkdtemp(
            prefix="understudy-chaos-", dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
        )
    )


async def walk_queue(
    steps: int, seed: int, report: Callable[[str], None] = lambda line: None
) -> Counter[str]:
    """Take so many steps, in a new home every thousand; returns how often each was taken."""
    taken: Counter[str] = Counter()
    while (done := taken.total()) < steps:
        folder = _new_folder()
        walk = QueueWalk(folder, seed + done)
        try:
            for _ in range(min(1000, steps - done)):
                await walk.step()
            walk.check_versions()
        finally:
            taken += walk.steps
            await walk.home.queue.stop()
            await walk.home.kill()
            shutil.rmtree(folder, ignore_errors=True)
        report(f"{taken.total()} steps")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    outcome = Outcome()
    while outcome.tried < args.kills:
        one = kill_processes(min(6, args.kills - outcome.tried), args.seed + outcome.tried)
        outcome += one
        for line in (*one.lost, *one.doubled, *one.orphans):
            print(line, flush=True)
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    print(
        dict(asyncio.run(walk_queue(args.steps, args.seed))), f"· {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
