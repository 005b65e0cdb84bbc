"""Training on Ray, over a cluster that answers as the real one did; the trainer is a stand-in, but
a real process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from contextlib import asynccontextmanager

import psutil
import pytest

from bot.personas.registry import PersonaRegistry
from bot.platform.clock import SystemClock
from bot.privacy.home_files import walk_home
from bot.store import Store
from bot.training.backend_protocol import TrainingFailed, TrainingInterrupted, TrainingSucceeded
from bot.training.backends import ray_attempts, ray_jobs, ray_run
from bot.training.backends.ray_backend import RayBackend
from bot.training.backends.ray_jobs import RayJobsClient, WorkerResources
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import MAX_ATTEMPTS, JobQueue
from bot.training.run_limits import RunLimits
from bot.training.store import TrainingJobs
from bot.versions.member_feedback import comparison_targets
from bot.versions.store import InstalledVersion
from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.comparison_targets import read_comparison_targets
from personas.home.job_attempt import begin_attempt, read_attempt
from personas.home.job_folder import home_id, link_shared_folders
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Epoch, Phase, Progress
from tests.bot.ray_jobs.replay import ReplayedRay
from tests.bot.subprocess_trainer import Workshop
from tests.fakes import until
from tests.samples import SCORECARD

POLL_S = 0.02
STOPPED = (143, -signal.SIGTERM)
"""Exit codes of a stand-in that was stopped, after and before it listens to signals."""


class RayWorkshop(Workshop):
    """A home whose jobs train on a replayed cluster, and a queue that can be killed."""

    def __init__(self, folder, ray):
        super().__init__(folder)
        self.ray = ray
        self.id = home_id(self.home)

    def ray_backend(self, token="", **more):
        options = {"slots": 2, "resources": WorkerResources(gpus=1), **more}
        return RayBackend(
            self.home,
            DatasetCatalog(self.shipped, "embedded", self.home),
            RayJobsClient(self.ray.url, token),
            poll_s=POLL_S,
            serving_precision="float32",
            environ={},
            **options,
        )

    def queue(self, backend=None):
        return JobQueue(self.store, backend or self.ray_backend(), SystemClock())

    def ask(self, queue, job_id, persona="oda"):
        request = TrainingRequest(job_name="manners", persona=persona)
        return queue.enqueue(request, guild_id=1, channel_id=2, requested_by=3, job_id=job_id)

    async def begun(self, name, state="running"):
        """Return the trainer's process once a Ray job is in a state."""
        await until(lambda: self.ray.states.get(name) == state)
        return self.ray.jobs[f"{self.id}-{name}"].process

    def kill_bot(self, queue):
        """As `kill -9`: nothing is stored, nothing is said to Ray."""
        path = self.home / "understudy.sqlite"
        self.store.close()
        queue.worker._task.cancel()
        for attempt in queue._attempts.values():
            attempt.task.cancel()
        self.store = Store.open(path)


@asynccontextmanager
async def cluster(tmp_path, mode, token=""):
    ray = ReplayedRay(tmp_path, mode, token)
    await ray.start()
    workshop = RayWorkshop(tmp_path, ray)
    try:
        yield workshop
    finally:
        await ray.close()
        workshop.store.close()


@pytest.fixture(autouse=True)
def delete_at_once(monkeypatch):
    monkeypatch.setattr(ray_jobs, "DELETE_DELAY_S", 0.0)


# -------------------------------------------------------------------------------------- a run's way


async def test_a_job_trains_on_the_cluster_and_its_adapter_is_installed(tmp_path):
    async with cluster(tmp_path, "good", token="s3cret") as works:
        backend = works.ray_backend(
            "s3cret", environ_of_workers={"LORE_ENCODER": "x"}, card="quick"
        )
        outcome = await backend.run(works.job(), works.events.append)
        place = works.home / "models" / "persona_adapters" / "oda" / "v1"
        assert (
            outcome == TrainingSucceeded(place, 1.5, SCORECARD)
            and verify_adapter(place).job_id == "j1"
        )
        assert [type(event) for event in works.events] == [Progress]
        (body,) = works.ray.submitted
        assert body["submission_id"] == f"{works.id}-j1-1"
        assert (body["entrypoint_num_cpus"], body["entrypoint_num_gpus"]) == (1, 1)
        assert body["runtime_env"] == {
            "env_vars": {"LORE_ENCODER": "x", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
        }
        assert (
            f"python -m trainer run {works.folder()} --attempt 1 --card quick" in body["entrypoint"]
        )
        assert "--stop-on-eof" not in body["entrypoint"] and "s3cret" not in json.dumps(body)
        again = await backend.run(works.store.jobs.get("j1"), works.events.append)
        assert again == outcome and len(works.ray.submitted) == 1, (
            "a finished job is installed, never run again"
        )


async def test_the_trainer_gets_no_secret_of_its_node_but_those_it_needs(tmp_path):
    async with cluster(tmp_path, "telling") as works:
        secrets = {
            "RAY_AUTH_TOKEN": "r",
            "MY_API_KEYS": "k",
            "db_password": "p",
            "HF_TOKEN": "h",
            "WANDB_API_KEY": "w",
        }
        works.ray.node |= {**secrets, "KEYBOARD": "a\nnot_a_NAME=b TOKEN", "PLAIN": "x y"}
        failed = await works.ray_backend(kept_secrets=("WANDB_API_KEY",)).run(
            works.job(), works.events.append
        )
        environ = json.loads(failed.error)["environ"]
        assert {name for name in secrets if name in environ} == {"HF_TOKEN", "WANDB_API_KEY"}
        assert environ["PLAIN"] == "x y" and environ["KEYBOARD"] == works.ray.node["KEYBOARD"]
        await works.ray_backend().run(works.job("j2", persona="oda"), works.events.append)
        events = (works.folder("j2") / "events.jsonl").read_text()
        assert "WANDB_API_KEY" not in events and "HF_TOKEN" in events


async def test_several_personas_train_side_by_side_and_no_more_than_the_slots_are_submitted(
    tmp_path,
):
    async with cluster(tmp_path, "course") as works:
        for persona in ("thrip", "ballast"):
            (works.shipped.cards / f"{persona}.toml").write_text(
                f'id = "{persona}"\nname = "{persona.title()}"\n'
            )
            (works.shipped.logs / f"{persona}.json").write_text("{}")
        rights = (works.shipped.logs / "rights.toml").read_text()
        more = [rights.replace("oda.json", f"{name}.json") for name in ("thrip", "ballast")]
        (works.shipped.logs / "rights.toml").write_text("\n".join([rights, *more]))
        queue = works.queue()
        queue.start()
        jobs = {
            persona: works.ask(queue, f"{persona}1", persona).job_id
            for persona in ("oda", "thrip", "ballast")
        }
        await works.begun("oda1-1")
        await works.begun("thrip1-1")
        assert len(works.ray.submitted) == 2 and works.store.jobs.get("ballast1").state == "queued"
        for name in jobs.values():
            await until(lambda name=name: works.folder(name).is_dir())
            (works.folder(name) / "go-on").touch()
        await until(lambda: works.store.jobs.counts() == {"done": 3})
        await queue.stop()


# ------------------------------------------------------------------------------ restarts of the bot


async def test_a_bot_killed_again_and_again_follows_the_same_run_and_no_attempt_is_used(
    tmp_path, monkeypatch
):
    reported = []
    report = TrainingJobs.report

    def noting(jobs, job_id, token, event):
        reported.append(event)
        return report(jobs, job_id, token, event)

    monkeypatch.setattr(TrainingJobs, "report", noting)
    async with cluster(tmp_path, "course") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        await works.begun("j1-1")
        await until(lambda: reported and isinstance(reported[-1], Epoch))  # the run waits for us
        latest = reported[-1]
        for _ in range(MAX_ATTEMPTS + 2):
            works.kill_bot(queue)
            reported.clear()
            queue = works.queue()
            queue.start()
            await until(lambda: reported)
            assert reported == [latest]
        assert works.store.jobs.get("j1").progress.step == 12
        (works.folder() / "go-on").touch()
        await until(lambda: works.store.jobs.get("j1").state == "done")
        assert (len(works.ray.submitted), works.store.jobs.get("j1").attempt) == (1, 1)
        assert works.store.jobs.get("j1").result.seconds == 25.0
        steps = [event.step for event in reported if isinstance(event, Progress)]
        assert steps == list(range(13, 25)), "events that were stored before are not stored again"
        await queue.stop()


async def test_a_clean_stop_leaves_the_run_and_a_run_that_finished_meanwhile_is_only_installed(
    tmp_path,
):
    async with cluster(tmp_path, "course") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        process = await works.begun("j1-1")
        await queue.stop()
        assert psutil.pid_exists(process.pid) and works.ray.states == {"j1-1": "running"}
        (works.folder() / "go-on").touch()
        await until(lambda: works.ray.states == {"j1-1": "succeeded"})
        await works.ray.replace_head()
        queue = works.queue()
        queue.start()
        await until(lambda: works.store.jobs.get("j1").state == "done")
        assert len(works.ray.submitted) == 1 and works.store.jobs.get("j1").attempt == 1
        await queue.stop()


async def test_a_submission_whose_answer_was_lost_is_attached_to(tmp_path, monkeypatch):
    async with cluster(tmp_path, "good") as works:
        submit = RayJobsClient.submit
        tries = []

        async def cut_off(client, *arguments, **more):
            await submit(client, *arguments, **more)
            tries.append(arguments[0])
            if len(tries) == 1:
                raise ray_jobs.RayUnreachableError("cut off")

        monkeypatch.setattr(RayJobsClient, "submit", cut_off)
        assert isinstance(
            await works.ray_backend().run(works.job(), works.events.append), TrainingSucceeded
        )
        assert len(tries) == 2 and len(works.ray.submitted) == 1


async def test_a_job_cancelled_while_its_bot_was_gone_is_stopped_at_the_next_start(tmp_path):
    async with cluster(tmp_path, "polite") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        process = await works.begun("j1-1")
        works.kill_bot(queue)
        works.store.jobs.cancel("j1", 9.0)
        works.ray.jobs["other-j1-1"] = works.ray.jobs[f"{works.id}-j1-1"].__class__(
            {"entrypoint": "x"}
        )
        queue = works.queue()
        queue.start()
        await until(lambda: f"{works.id}-j1-1" not in works.ray.jobs)
        assert process.returncode in STOPPED and read_attempt(works.folder()).attempt == 2
        assert list(works.ray.jobs) == ["other-j1-1"], "another home's jobs are left alone"
        await queue.stop()


# ----------------------------------------------------------------------------------------- failures


async def test_a_lost_worker_without_a_new_checkpoint_uses_an_attempt_and_with_one_none(tmp_path):
    async with cluster(tmp_path, "course") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        await works.begun("j1-1")
        await works.ray.lose_worker(f"{works.id}-j1-1")
        await until(lambda: works.store.jobs.get("j1").attempt == 2)
        for number in range(
            3, 3 + MAX_ATTEMPTS
        ):  # the ended attempt is fenced off: its number is never submitted again
            name = f"j1-{number}"
            await works.begun(name)
            (works.folder() / "checkpoints" / f"checkpoint-{number}").mkdir(parents=True)
            await works.ray.lose_worker(f"{works.id}-{name}")
        await works.begun(f"j1-{3 + MAX_ATTEMPTS}")
        assert works.store.jobs.get("j1").attempt == 2
        (works.folder() / "go-on").touch()
        await until(lambda: works.store.jobs.get("j1").state == "done")
        await queue.stop()


async def test_a_lost_head_is_waited_for_and_the_run_submitted_to_the_new_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_run, "REPORT_AFTER_S", 0.1)
    async with cluster(tmp_path, "course") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        await works.begun("j1-1")
        await works.ray.stop()

        def shown():
            progress = works.store.jobs.get("j1").progress
            return progress.detail if isinstance(progress, Phase) else ""

        # Phases of the run itself, which have no such words, may still come before.
        await until(lambda: "does not answer" in shown())
        assert "The run may go on" in shown() and "RAY_ADDRESS" in shown()
        await works.ray.replace_head()
        await works.begun("j1-2")
        (works.folder() / "go-on").touch()
        await until(lambda: works.store.jobs.get("j1").state == "done")
        assert works.store.jobs.get("j1").attempt == 1
        await queue.stop()


async def test_a_run_that_ends_while_the_head_is_away_is_done_by_its_adapter_alone(tmp_path):
    async with cluster(tmp_path, "course") as works:
        running = asyncio.create_task(works.ray_backend().run(works.job(), works.events.append))
        await works.begun("j1-1")
        await works.ray.stop()
        (works.folder() / "go-on").touch()
        assert (await asyncio.wait_for(running, 10)).seconds == 25.0


async def test_a_job_that_waits_for_a_worker_is_reported_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_run, "REPORT_AFTER_S", 0.1)
    async with cluster(tmp_path, "good") as works:
        works.ray.has_workers = False
        backend = works.ray_backend(resources=WorkerResources(threads=4, gpus=2))
        running = asyncio.create_task(backend.run(works.job(), works.events.append))
        await until(lambda: works.events)
        (event,) = works.events
        assert event.name == "material" and "4 CPUs and 2 GPUs" in event.detail
        assert "`ray status`" in event.detail and "TRAINER_GPUS" in event.detail
        entrypoint = works.ray.submitted[0]["entrypoint"]
        assert (
            "python -m torch.distributed.run --standalone --nproc-per-node 2 -m trainer run"
            in entrypoint
        )
        assert "--threads 4" in entrypoint
        works.ray.jobs[f"{works.id}-j1-1"].state = "start timeout"
        failed = await asyncio.wait_for(running, 5)
        assert isinstance(failed, TrainingFailed) and failed.can_resume
        assert (
            failed.error.startswith("Ray could not start the run: ")
            and "4 CPUs and 2 GPUs" in failed.advice
        )


@pytest.mark.parametrize(
    ("mode", "error", "advice", "can_resume"),
    [
        ("failing", "The log is empty.", "Fill it.", False),
        (
            "silent",
            "on the worker (exit code 7)",
            "python -m bot doctor",
            True,
        ),
    ],
)
async def test_a_failure_is_told_as_the_trainer_tells_it_and_a_resumed_job_is_a_new_attempt(
    tmp_path, mode, error, advice, can_resume
):
    async with cluster(tmp_path, mode) as works:
        backend = works.ray_backend()
        job = works.job()
        for _ in range(2):
            failed = await backend.run(job, works.events.append)
            assert isinstance(failed, TrainingFailed) and failed.can_resume is can_resume
            assert error in failed.error and advice in failed.advice
        assert works.ray.states == {"j1-1": "failed", "j1-3": "failed"}


async def test_success_without_an_adapter_is_an_error_of_the_shared_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_run, "ADAPTER_TIMEOUT_S", 0.1)
    async with cluster(tmp_path, "nothing") as works:
        failed = await works.ray_backend().run(works.job(), works.events.append)
        assert (
            "there is no adapter in" in failed.error
            and "same path" in failed.advice
            and failed.can_resume
        )


async def test_a_run_that_hangs_is_stopped_and_its_slot_is_free(tmp_path):
    async with cluster(tmp_path, "polite") as works:
        works.ray.has_workers = False
        backend = works.ray_backend(limits=RunLimits(stall_s=0.4))
        running = asyncio.create_task(backend.run(works.job(), works.events.append))
        await works.begun("j1-1", "pending")
        await asyncio.sleep(0.6)
        assert not running.done(), "waiting for a worker counts for nothing"
        await works.ray._begin(works.ray.jobs[f"{works.id}-j1-1"])
        process = await works.begun("j1-1")
        failed = await asyncio.wait_for(running, 10)
        assert "it reported nothing" in failed.error and failed.can_resume
        assert process.returncode in STOPPED and f"{works.id}-j1-1" not in works.ray.jobs
        assert read_attempt(works.folder()).attempt == 2, "it can write nothing more"


async def test_a_trainer_that_is_killed_or_stopped_by_others_is_interrupted(tmp_path):
    async with cluster(tmp_path, "killed") as works:
        ended = await works.ray_backend().run(works.job(), works.events.append)
        assert isinstance(ended, TrainingInterrupted)
        assert "exit code -9" in ended.why and "`ray status`" in ended.advice
    (tmp_path / "second").mkdir()
    async with cluster(tmp_path / "second", "polite") as works:
        running = asyncio.create_task(works.ray_backend().run(works.job(), works.events.append))
        await works.begun("j1-1")
        await RayJobsClient(works.ray.url).stop(f"{works.id}-j1-1")
        assert "stopped the run's Ray job" in (await asyncio.wait_for(running, 5)).why


# --------------------------------------------------------------------------------------- cancelling


async def test_cancelling_stops_the_trainer_and_deletes_rays_record(tmp_path):
    async with cluster(tmp_path, "polite") as works:
        queue = works.queue()
        queue.start()
        works.ask(queue, "j1")
        process = await works.begun("j1-1")
        queue.cancel("j1")
        await until(lambda: not works.ray.jobs and not queue._attempts)
        assert process.returncode in STOPPED and works.store.jobs.get("j1").state == "cancelled"
        assert read_attempt(works.folder()).attempt == 2, (
            "a trainer that survives can write nothing more"
        )
        await queue.stop()


async def test_cancelling_what_waits_for_a_worker_or_for_the_head(tmp_path):
    async with cluster(tmp_path, "good") as works:
        works.ray.has_workers = False
        backend = works.ray_backend()
        waiting = asyncio.create_task(backend.run(works.job(), works.events.append))
        await works.begun("j1-1", "pending")
        backend.cancel("j1")
        backend.cancel("j1")
        assert await asyncio.wait_for(waiting, 5) == TrainingInterrupted()
        assert (
            works.ray.states == {"j1-1": "pending"}
            and f"POST /api/jobs/{works.id}-j1-1/stop" in works.ray.requests
        )
        assert read_attempt(works.folder()).attempt == 2, (
            "Ray cannot stop it before it begins, but it ends then"
        )
        works.ray.jobs.clear()
        await works.ray.stop()
        waiting = asyncio.create_task(backend.run(works.job("j2"), works.events.append))
        await until(lambda: (works.folder("j2") / "attempt.json").exists())
        await works.ray.start()
        backend.cancel("j2")
        assert await asyncio.wait_for(waiting, 5) == TrainingInterrupted()
        sent = bool(works.ray.jobs)  # where the head answered before the run was cancelled
        assert not sent or read_attempt(works.folder("j2")).attempt == 2


async def test_a_trainer_that_cannot_be_reached_is_fenced_off(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ray_attempts, "STOP_TIMEOUT_S", 0.2)
    async with cluster(tmp_path, "polite") as works:
        backend = works.ray_backend()
        running = asyncio.create_task(backend.run(works.job(), works.events.append))
        process = await works.begun("j1-1")
        await works.ray.stop()
        backend.cancel("j1")
        with caplog.at_level(logging.WARNING):
            assert await asyncio.wait_for(running, 5) == TrainingInterrupted()
        assert process.returncode is None and read_attempt(works.folder()).attempt == 2
        assert "can write nothing" in caplog.text
        process.send_signal(signal.SIGTERM)


async def test_a_wrong_address_is_warned_about_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ray_attempts, "SWEEP_RETRY_S", 0.0)
    async with cluster(tmp_path, "polite") as works:
        await works.ray.stop()
        with caplog.at_level(logging.WARNING):
            sweep = asyncio.create_task(works.ray_backend().attempts.stop_others((), followed=()))
            await asyncio.sleep(0.2)
        sweep.cancel()
        warnings = [
            record.getMessage() for record in caplog.records if "looked for" in record.getMessage()
        ]
        assert len(warnings) == 1 and "Connect call failed" in warnings[0]


# --------------------------------------------------------------------------------- refused requests


async def test_a_wrong_token_fails_the_job_with_what_to_do(tmp_path):
    async with cluster(tmp_path, "good", token="right") as works:
        failed = await works.ray_backend("wrong").run(works.job(), works.events.append)
        assert (
            "refuses the bot (403)" in failed.error
            and "RAY_AUTH_TOKEN" in failed.advice
            and failed.can_resume
        )


async def test_a_damaged_attempt_or_missing_material_fails_the_job(tmp_path):
    async with cluster(tmp_path, "good") as works:
        job = works.job()
        works.folder().mkdir(parents=True)
        (works.folder() / "attempt.json").write_text("{")
        failed = await works.ray_backend().run(job, works.events.append)
        assert "attempt.json cannot be read" in failed.error and not works.ray.submitted
        (works.shipped.logs / "oda.json").unlink()
        failed = await works.ray_backend().run(works.job("j2"), works.events.append)
        assert isinstance(failed, TrainingFailed) and failed.can_resume and not works.ray.submitted


# ----------------------------------------------------------------------------------- shared folders


async def test_with_a_shared_folder_workers_find_the_job_and_what_it_is_compared_with(tmp_path):
    shared = tmp_path / "mnt"
    shared.mkdir()
    async with cluster(tmp_path, "good") as works:
        link_shared_folders(works.home, shared)
        root = shared / works.id
        assert isinstance(
            await works.ray_backend().run(works.job(), works.events.append), TrainingSucceeded
        )
        assert f"run {root / 'jobs' / 'j1'} " in works.ray.submitted[0]["entrypoint"]
        adapter = root / "models" / "persona_adapters" / "oda" / "v1"
        assert verify_adapter(adapter).version == "v1"
        link_shared_folders(works.home, shared)  # again, at the next start

        works.store.versions.record_installed(InstalledVersion("oda", "v1", "j1", 1.0, SCORECARD))
        works.store.versions.promote("oda", "v1", 3, 2.0)
        personas = PersonaRegistry(works.shipped.cards, works.home)
        backend = works.ray_backend(
            compare=lambda job: comparison_targets(works.home, works.store, personas, job)
        )
        await backend.run(works.job("j2"), works.events.append)
        assert read_comparison_targets(root / "jobs" / "j2").live == str(adapter), (
            "as the worker reads it"
        )
        (root / "jobs" / "j1" / "people.json").write_text("{}")
        assert works.home / "jobs" / "j1" / "people.json" in set(
            walk_home(works.home, "people.json")
        )


def test_a_home_with_jobs_of_its_own_is_not_moved_silently(tmp_path):
    home = tmp_path / "home"
    shared = tmp_path / "mnt"
    (home / "jobs" / "j1").mkdir(parents=True)
    shared.mkdir()
    with pytest.raises(
        RequestError,
        match=r"jobs .*SHARED\. Move",
    ):
        link_shared_folders(home, shared)
    assert (home / "jobs" / "j1").is_dir()
    (home / "jobs" / "j1").rmdir()
    link_shared_folders(home, shared)
    assert (home / "jobs").resolve() == shared / home_id(home) / "jobs"
    begin_attempt(home / "jobs")
