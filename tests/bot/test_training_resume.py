"""The real trainer under the real queue: what happens to disk, folders and process in mid-run, and
then Resume.
"""

import resource
import shutil
import sys

import psutil
import pytest

from bot.platform.clock import SystemClock
from bot.store import Store
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from personas.home.adapters import WEIGHTS_FILE
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Phase, Progress
from tests.bot.subprocess_trainer import ROOT, ship
from tests.fakes import until
from tests.trainer.job_folders import ADA, dialogues, export, sign, talks

SETTINGS = {"num_train_epochs": 3, "lora_r": 4, "lora_alpha": 8, "gradient_accumulation_steps": 1}
SMALL_BYTES = 4096


class Works:
    """A home with a persona who learns from a small talk of its own, and a queue over the real
    trainer.
    """

    def __init__(self, folder, base):
        self.home = folder / "home"
        self.base = base
        shipped = ship(folder / "source")
        shutil.copy(ROOT / "trainer" / "recipe" / "recipes" / "demo-cpu.toml", shipped.recipes)
        (shipped.cards / "ada.toml").write_text(ADA)
        (shipped.logs / "ada.json").write_text(export(talks(16)))
        (shipped.general / "chat.jsonl").write_text(dialogues(3))
        sign(shipped.logs / "ada.json")
        sign(shipped.general / "chat.jsonl")
        self.store = Store.open(self.home / "understudy.sqlite")
        catalogue = DatasetCatalog(shipped, str(base), self.home)
        backend = SubprocessBackend(
            self.home, catalogue, SystemClock(), threads=1, nice=0, serving_precision="float32", environ={},
            card="losses",
        )  # fmt: skip
        self.queue = JobQueue(self.store, backend, SystemClock())
        self.steps = []
        self.troubles = []
        self.queue.subscribe(self._note)

    def _note(self, job):
        if isinstance(job.progress, Progress) and job.state == "running":
            self.steps.append(job.progress.step)
            self.troubles.append(job.progress.trouble)

    async def run(self):
        """A job from the beginning: its id."""
        request = TrainingRequest(
            job_name="j",
            persona="ada",
            base_model=str(self.base),
            dataset="ada",
            hyperparameters=SETTINGS,
        )
        return self.queue.enqueue(request, guild_id=0, channel_id=0, requested_by=0).job_id

    async def ended(self, job_id):
        """The job once it has ended."""
        await until(lambda: self.store.jobs.get(job_id).state not in ("queued", "running"), 90)
        return self.store.jobs.get(job_id)

    async def weights(self, job_id):
        """The adapter's, of a job that has ended well."""
        job = await self.ended(job_id)
        assert job.state == "done", job.error
        return (
            self.home / "models" / "persona_adapters" / "ada" / job.version / WEIGHTS_FILE
        ).read_bytes()

    @property
    def trainer(self):
        """The process that trains."""
        (found,) = [child for child in psutil.Process().children() if "trainer" in child.cmdline()]
        return found


@pytest.fixture
async def works(tmp_path, tiny_base):
    works = Works(tmp_path, tiny_base.source)
    works.queue.start()
    yield works
    await works.queue.stop()
    works.store.close()


@pytest.mark.slow  # its halves: tests/bot/test_queue.py, tests/trainer/test_disk_failures.py
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits the files of another process"
)
async def test_a_disk_that_fills_up_in_mid_run_costs_the_time_until_somebody_presses_resume(works):
    job_id = await works.run()
    await until(
        lambda: works.steps and works.steps[-1] >= 5, 90
    )  # an epoch of four steps is done and kept
    resource.prlimit(works.trainer.pid, resource.RLIMIT_FSIZE, (SMALL_BYTES, SMALL_BYTES))
    failed = await works.ended(job_id)
    assert (failed.state, failed.error, failed.can_resume) == ("failed", "The disk is full.", True)
    assert "No checkpoint" in works.troubles[-1] and works.steps[-1] == 12
    assert not (works.home / "models").exists()

    works.steps.clear()
    works.queue.resume(job_id)
    await works.weights(job_id)
    assert works.steps[0] in (5, 6), "from the checkpoint at the end of the first epoch"
    assert [version.version for version in works.store.versions.installed("ada")] == ["v1"]


@pytest.mark.slow
async def test_a_job_folder_and_material_that_vanish_and_come_back(works):
    job_id = await works.run()
    folder = works.home / "jobs" / job_id
    await until(lambda: works.steps and works.steps[-1] >= 5, 90)
    folder.rename(folder.with_name("away"))
    gone = await works.ended(job_id)
    assert gone.error == f"The job folder {folder} is gone." and gone.can_resume
    assert not folder.exists()
    folder.with_name("away").rename(folder)

    log = folder / "material" / "logs" / "ada.json"
    log.rename(log.with_name("away.json"))
    works.queue.resume(job_id)
    gone = await works.ended(job_id)
    assert (
        "ada.json cannot be read" in gone.error and "Put it back" in gone.advice and gone.can_resume
    )
    log.with_name("away.json").rename(log)

    works.steps.clear()
    works.queue.resume(job_id)
    weights = await works.weights(job_id)
    assert works.steps[0] >= 5
    assert await works.weights(await works.run()) == weights, "as if nothing had happened"


@pytest.mark.slow
async def test_a_training_that_is_killed_again_and_again_can_be_resumed_all_the_same(works):
    job_id = await works.run()
    for _ in range(3):
        works.steps.clear()
        await until(
            lambda: works.steps or isinstance(works.store.jobs.get(job_id).progress, Phase), 90
        )
        await until(
            lambda: [c for c in psutil.Process().children() if "trainer" in c.cmdline()], 30
        )
        pid = works.trainer.pid
        works.trainer.kill()
        await until(lambda pid=pid: not psutil.pid_exists(pid), 30)
    failed = await works.ended(job_id)
    assert (
        "was killed (signal 9)" in failed.error
        and "attempt 3" in failed.error
        and failed.can_resume
    )
    works.queue.resume(job_id)
    await works.weights(job_id)
