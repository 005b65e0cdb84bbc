"""`make test-ray`: kills bot, workers and head of a real Ray cluster while it trains, and counts
what that costs.

`python -m tests.bot.ray_jobs.faults [--only NAME] [--kills N] [--epochs N]`. Training is real, on a
two-layer model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bot.platform.clock import SystemClock
from bot.store import Store, TrainingJob
from bot.training.backends.ray_backend import RayBackend
from bot.training.backends.ray_jobs import RayJobsClient, WorkerResources
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from personas.home.adapters import WEIGHTS_FILE, adapter_ref
from personas.home.job_attempt import list_checkpoint_names, read_attempt
from personas.home.job_folder import home_id
from personas.home.job_material import ShippedData
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Progress
from tests.bot.ray_jobs.cluster import TOKEN, Node, RayCluster, ray_cluster
from tests.bot.subprocess_trainer import ROOT, ship
from tests.trainer.job_folders import ADA, dialogues, export, sign, talks

SETTINGS = {"lora_r": 4, "lora_alpha": 8, "gradient_accumulation_steps": 1}
EPOCHS = 50
FEW_EPOCHS = 2
CHECKPOINT_INTERVAL_S = 2
POLL_S = 0.5
PATIENCE_S = 600.0
FOLLOWING = "follows"
"""Printed by a bot process once it follows its run."""


@dataclass(frozen=True)
class QuickCheckpoints(WorkerResources):
    """One CPU, one thread, and checkpoints every few seconds: kills come faster here than in
    earnest.
    """

    @property
    def options(self) -> tuple[str, ...]:
        return ("--threads", "1", "--checkpoint-every", str(CHECKPOINT_INTERVAL_S))


@dataclass
class FaultRow:
    """A row of the table. `lost` are jobs without an adapter, orphans too; `doubled` are runs or
    adapters too many.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.recoveries_s) or [0.0]
        recovery = f"{ordered[len(ordered) // 2]:.1f} s (at most {ordered[-1]:.1f})"
        return (
            f"| {self.fault} | {self.tried} | {self.lost} | {self.doubled} | {recovery} | "
            f"{'; '.join(self.notes)} |"
        )


class RayWorks:
    """A home on a shared folder with one persona to train, and a queue over the cluster."""

    def __init__(self, folder: Path, address: str, base: Path, epochs: int) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.base = base
        self.epochs = epochs
        self.client = RayJobsClient(address, TOKEN)
        if not (folder / "source").exists():
            self._write_source()
        self.open()

    def open(self) -> None:
        """Open the store and a queue that has not started; again after `close`."""
        shipped = ShippedData.of(self.folder / "source", cards=self.folder / "source" / "cards")
        self.store = Store.open(self.home / "understudy.sqlite")
        catalogue = DatasetCatalog(shipped, str(self.base), self.home)
        backend = RayBackend(
            self.home, catalogue, self.client, slots=2, resources=QuickCheckpoints(), card="losses",
            poll_s=POLL_S, serving_precision="float32", environ={},
        )  # fmt: skip
        self.queue = JobQueue(self.store, backend, SystemClock())
        self.progressed_at = 0.0
        self.queue.subscribe(self._note)

    def _write_source(self) -> None:
        shipped = ship(self.folder / "source")
        shutil.copy(ROOT / "trainer" / "recipe" / "recipes" / "demo-cpu.toml", shipped.recipes)
        (shipped.cards / "ada.toml").write_text(ADA)
        (shipped.logs / "ada.json").write_text(export(talks(26)))
        (shipped.general / "chat.jsonl").write_text(dialogues(3))
        sign(shipped.logs / "ada.json")
        sign(shipped.general / "chat.jsonl")

    def _note(self, job: TrainingJob) -> None:
        if isinstance(job.progress, Progress):
            self.progressed_at = time.monotonic()

    def ask(self, job_id: str, epochs: int = 0) -> None:
        """Queue a job, once."""
        if self.store.jobs.get(job_id) is None:
            request = TrainingRequest(
                job_name="j", persona="ada", base_model=str(self.base), dataset="ada",
                hyperparameters={**SETTINGS, "num_train_epochs": epochs or self.epochs},
            )  # fmt: skip
            self.queue.enqueue(request, guild_id=0, channel_id=0, requested_by=0, job_id=job_id)

    def job(self, job_id: str) -> TrainingJob:
        job = self.store.jobs.get(job_id)
        assert job
        return job

    def job_folder(self, job_id: str) -> Path:
        return self.home / "jobs" / job_id

    async def ended(self, job_id: str) -> TrainingJob:
        await wait_until(lambda: self.job(job_id).has_ended)
        return self.job(job_id)

    async def recovered(self, job_id: str, attempt: int) -> float:
        """Wait for a step of a later attempt than this one. Returns the seconds from now until
        then.
        """
        began = time.monotonic()
        await wait_until(lambda: read_attempt(self.job_folder(job_id)).attempt > attempt)
        await self.progressed()
        return time.monotonic() - began

    async def progressed(self) -> float:
        """Wait for a step from now on. Returns the seconds until then."""
        began = time.monotonic()
        await wait_until(lambda: self.progressed_at > began)
        return self.progressed_at - began

    def weights(self, job_id: str) -> bytes:
        return (
            adapter_ref(self.home, "ada", self.job(job_id).version).folder / WEIGHTS_FILE
        ).read_bytes()

    async def runs(self, job_id: str) -> list[str]:
        """List the ids of a job's runs that the cluster knows."""
        return [
            job.submission_id or ""
            for job in await self.client.list(f"{home_id(self.home)}-{job_id}-")
        ]

    async def close(self) -> None:
        await self.queue.stop()
        self.store.close()


def trainers(folder: Path) -> list[psutil.Process]:
    """List the trainer processes that work on a job folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
    """Wait for a condition. Returns the seconds it took. Raises `TimeoutError`."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  other processes make it true
            await asyncio.sleep(0.05)
    return time.monotonic() - began


def node_of(cluster: RayCluster, folder: Path) -> Node | None:
    """Find the worker node on which a job folder is trained."""
    pids = {process.pid for process in trainers(folder)}
    return next((node for node in cluster.workers if pids & {one.pid for one in node.family}), None)


async def trained_on(cluster: RayCluster, folder: Path) -> Node:
    await wait_until(lambda: node_of(cluster, folder))
    node = node_of(cluster, folder)
    assert node
    return node


def judge(row: FaultRow, works: RayWorks, job_id: str, reference: bytes) -> None:
    """Count a job's end: it is lost without an adapter, and another one's weights are worth a
    note.
    """
    job = works.job(job_id)
    if job.state != "done":
        row.lost += 1
        row.notes.append(f"{job_id} {job.state}: {job.error}")
    elif works.weights(job_id) != reference:
        row.lost += 1
        row.notes.append(f"{job_id} ended in other weights")
    versions = [it for it in works.store.versions.installed("ada") if it.version == job.version]
    row.doubled += max(0, len(versions) - 1)


# ------------------------------------------------------------------------------------------- faults


async def undisturbed(cluster: RayCluster, works: RayWorks) -> tuple[FaultRow, bytes]:
    row = FaultRow("none: an undisturbed run", 1)
    works.queue.start()
    works.ask("calm")
    began = time.monotonic()
    job = await works.ended("calm")
    if job.state != "done":
        raise SystemExit(f"an undisturbed run fails: {job.error} {job.advice}")
    row.recoveries_s.append(time.monotonic() - began)
    row.notes.append(f"{len(await works.runs('calm'))} run")
    return row, works.weights("calm")


def start_bot(works: RayWorks, job_id: str) -> subprocess.Popen[str]:
    """Start a process with a queue of its own over the home, which must not be open elsewhere."""
    names = (job_id, works.client.address, str(works.folder), str(works.base), str(works.epochs))
    command = [sys.executable, "-m", "tests.bot.ray_jobs.faults", "--bot", *names]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def bot_killed(
    cluster: RayCluster, works: RayWorks, reference: bytes, kills: int
) -> FaultRow:
    """Kill the bot with SIGKILL while Ray trains: after it follows the run again, or while it
    starts, in turns.
    """
    row = FaultRow("bot killed while Ray trains")
    chance = random.Random(0)
    jobs = []
    await works.close()
    while row.tried < kills:
        jobs.append(f"bot{len(jobs)}")
        while await killed_once(works, jobs[-1], row, kills, chance):
            pass
    works.open()
    for job_id in jobs:
        judge(row, works, job_id, reference)
        row.doubled += len(await works.runs(job_id)) - 1
    used = sum(works.job(job_id).attempt - 1 for job_id in jobs)
    row.notes.append(f"{len(jobs)} jobs, attempts used {used}")
    works.queue.start()
    return row


async def killed_once(
    works: RayWorks, job_id: str, row: FaultRow, kills: int, chance: random.Random
) -> bool:
    """Start a bot and kill it, unless there were enough kills: then wait for the job. Returns False
    once it ended.
    """
    began = time.monotonic()
    bot = start_bot(works, job_id)
    assert bot.stdout
    is_last = row.tried >= kills
    if row.tried % 2 or is_last:
        await asyncio.to_thread(bot.stdout.readline)
        row.recoveries_s.append(time.monotonic() - began)
    if is_last:
        await asyncio.to_thread(bot.wait, PATIENCE_S)
    else:
        await asyncio.sleep(chance.uniform(0, 3))
    if bot.poll() is not None:
        return False
    bot.kill()
    bot.wait()
    row.tried += 1
    return True


async def worker_lost(
    cluster: RayCluster, works: RayWorks, reference: bytes, kills: int
) -> FaultRow:
    """Kill the node that trains, with all its processes, after each new checkpoint."""
    row = FaultRow("worker lost")
    jobs = 0
    used = 0
    runs = 0
    while row.tried < kills:
        job_id = f"worker{jobs}"
        jobs = jobs + 1
        folder = works.job_folder(job_id)
        works.ask(job_id)
        while row.tried < kills and not works.job(job_id).has_ended:
            await lose_worker(cluster, works, job_id, row)
        await works.ended(job_id)
        judge(row, works, job_id, reference)
        used += works.job(job_id).attempt - 1
        runs += len(await works.runs(job_id))
        await wait_until(lambda: not trainers(folder), 60)  # noqa: B023
    row.notes.append(f"{jobs} jobs, {runs} runs, attempts used {used}")
    return row


async def lose_worker(cluster: RayCluster, works: RayWorks, job_id: str, row: FaultRow) -> None:
    """Kill the node that trains a job after its next checkpoint, unless the job ends first."""
    folder = works.job_folder(job_id)
    await wait_until(lambda: works.job(job_id).has_ended or node_of(cluster, folder))
    node = node_of(cluster, folder)
    before = set(read_attempt(folder).checkpoints)
    await wait_until(lambda: works.job(job_id).has_ended or list_checkpoint_names(folder) - before)
    if node is None or works.job(job_id).has_ended:
        return
    attempt = read_attempt(folder).attempt
    node.kill()
    cluster.workers.remove(node)
    row.tried += 1
    cluster.start_worker()
    row.recoveries_s.append(await works.recovered(job_id, attempt))
    await cluster.ready()


async def partition(
    cluster: RayCluster, works: RayWorks, reference: bytes, trials: int
) -> FaultRow:
    """Stop all processes of the node that trains; they come back once the next attempt has its
    adapter.
    """
    row = FaultRow("partition (SIGSTOP, SIGCONT after the end)")
    for number in range(trials):
        job_id = f"partition{number}"
        folder = works.job_folder(job_id)
        works.ask(job_id)
        node = await trained_on(cluster, folder)
        await wait_until(lambda: list_checkpoint_names(folder))  # noqa: B023
        stopped = trainers(folder)
        attempt = read_attempt(folder).attempt
        node.signal(signal.SIGSTOP)
        row.tried += 1
        row.recoveries_s.append(await works.recovered(job_id, attempt))
        await works.ended(job_id)
        row.notes.append(
            f"{len(set(stopped) & set(trainers(folder)))} old trainer went on after the end"
        )
        for one in stopped:  # only the trainer: nothing of Ray ends it
            one.send_signal(signal.SIGCONT)
        await wait_until(lambda: not trainers(folder), 60)  # noqa: B023
        left = [path.name for path in folder.iterdir() if "adapter" in path.name]
        row.doubled += len(left) - 1
        judge(row, works, job_id, reference)
        node.signal(signal.SIGCONT)
        node.kill()
        cluster.workers.remove(node)
        cluster.start_worker()
        await cluster.ready()
    return row


async def head_lost(
    cluster: RayCluster, works: RayWorks, reference: bytes, trials: int
) -> FaultRow:
    """Kill the head, and start another one that knows nothing; its workers are new, too."""
    row = FaultRow("head lost")
    for number in range(trials):
        job_id = f"head{number}"
        folder = works.job_folder(job_id)
        works.ask(job_id)
        await trained_on(cluster, folder)
        await wait_until(lambda: list_checkpoint_names(folder))  # noqa: B023
        began = time.monotonic()
        attempt = read_attempt(folder).attempt
        await replace_cluster(cluster)
        row.tried += 1
        await works.recovered(job_id, attempt)
        row.recoveries_s.append(time.monotonic() - began)
        await works.ended(job_id)
        judge(row, works, job_id, reference)
    return row


async def head_lost_at_the_end(
    cluster: RayCluster, works: RayWorks, reference: bytes, trials: int
) -> FaultRow:
    """Lose the head when the run has finished and nobody has noticed yet."""
    row = FaultRow("head lost after the run has finished")
    for number in range(trials):
        job_id = f"finished{number}"
        folder = works.job_folder(job_id)
        works.ask(job_id, FEW_EPOCHS)
        await trained_on(cluster, folder)
        await works.queue.stop()
        await wait_until(lambda: (folder / "adapter").exists() and not trainers(folder))  # noqa: B023
        await replace_cluster(cluster)
        works.queue.start()
        row.tried += 1
        row.recoveries_s.append(await wait_until(lambda: works.job(job_id).has_ended))  # noqa: B023
        row.lost += works.job(job_id).state != "done"
        row.doubled += len(
            await works.runs(job_id)
        )  # the new head knows none, unless it was run again
    return row


async def replace_cluster(cluster: RayCluster) -> None:
    cluster.stop()
    cluster.start_head()
    await asyncio.sleep(3.0)
    for _ in range(2):
        cluster.start_worker()
    await cluster.ready()


async def cancelled(
    cluster: RayCluster, works: RayWorks, reference: bytes, trials: int
) -> FaultRow:
    """Cancel a running job; an orphan is a trainer that still runs, or Ray's record of one."""
    row = FaultRow("cancel on Ray")
    for number in range(trials):
        job_id = f"cancel{number}"
        folder = works.job_folder(job_id)
        works.ask(job_id)
        await trained_on(cluster, folder)
        if number % 2:
            await works.progressed()
        works.queue.cancel(job_id)
        row.tried += 1
        row.recoveries_s.append(await wait_until(lambda: not trainers(folder), 60))  # noqa: B023
        await wait_until(lambda: job_id not in works.queue._attempts, 60)  # noqa: B023
        await asyncio.sleep(3.0)  # Ray has made records anew after they were deleted
        row.lost += len(trainers(folder)) + len(await works.runs(job_id))
        row.doubled += (folder / "adapter").exists()
        row.lost += works.job(job_id).state != "cancelled"
    return row


Fault = Callable[[RayCluster, RayWorks, bytes, int], Awaitable[FaultRow]]
FAULTS: dict[str, tuple[Fault, int]] = {
    "bot": (bot_killed, 50),
    "worker": (worker_lost, 20),
    "partition": (partition, 3),
    "head": (head_lost, 3),
    "finished": (head_lost_at_the_end, 3),
    "cancel": (cancelled, 6),
}


async def run_faults(
    folder: Path, base: Path, chosen: list[str], kills: int | None, epochs: int
) -> list[FaultRow]:
    with ray_cluster() as cluster:
        await cluster.ready()
        works = RayWorks(folder, cluster.address, base, epochs)
        try:
            first, reference = await undisturbed(cluster, works)
            rows = [first]
            print(first, flush=True)
            for name in chosen:
                fault, tries = FAULTS[name]
                rows.append(await fault(cluster, works, reference, kills or tries))
                print(rows[-1], flush=True)
        finally:
            await works.close()
    return rows


async def run_bot(job_id: str, address: str, folder: Path, base: Path, epochs: int) -> None:
    """Follow one job to its end, as the bot's queue does, in a process that may be killed."""
    works = RayWorks(folder, address, base, epochs)
    works.queue.start()
    works.ask(job_id)
    await wait_until(lambda: works.progressed_at or works.job(job_id).has_ended)
    print(FOLLOWING, flush=True)
    await works.ended(job_id)
    await works.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(FAULTS), help="a fault (default: all)"
    )
    parser.add_argument(
        "--kills", type=int, help="how often each fault is caused (default: 3 to 50 times)"
    )
    parser.add_argument(
        "--bot",
        nargs=5,
        metavar=("JOB", "ADDRESS", "FOLDER", "BASE", "EPOCHS"),
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"length of a run (default: {EPOCHS})"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.bot:
        job_id, address, folder, base, epochs = options.bot
        asyncio.run(run_bot(job_id, address, Path(folder), Path(base), int(epochs)))
        return 0
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # the cluster must not outlive this process
    from tests.tiny_models import make_tiny_model  # imports torch

    with tempfile.TemporaryDirectory(prefix="ray-faults-") as folder:
        base = Path(folder) / "tiny"
        make_tiny_model(base, load_tokenizer(locate(EMBEDDED)))
        chosen = options.only or list(FAULTS)
        rows = asyncio.run(run_faults(Path(folder), base, chosen, options.kills, options.epochs))
    print(
        "\n| fault | tried | lost | doubled | recovery (median) | |\n| --- | ---: | ---: | ---: | "
        "--- | --- |"
    )
    print(*rows, sep="\n")
    return int(any(row.lost or row.doubled for row in rows))


if __name__ == "__main__":
    sys.exit(main())
