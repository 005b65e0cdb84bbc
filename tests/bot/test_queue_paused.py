"""The queue while somebody is forgotten: nothing begins, and what must not go on begins anew."""

import asyncio

import pytest

from bot.privacy.home_files import discard_pending_history_folders, discard_pending_job_folders
from bot.training.backend_protocol import TrainingFailed
from tests.bot.restartable_queue import TrainingHome
from tests.fakes import until


@pytest.fixture
async def home(tmp_path):
    home = TrainingHome(tmp_path)
    yield home
    await home.queue.stop()
    await home.kill()


async def test_while_it_is_held_nothing_begins_and_nothing_is_lost(home):
    home.queue.start()
    home.queue.hold()
    job_id = home.ask()
    await asyncio.sleep(0.05)
    assert not home.backend.busy and home.state(job_id) == "queued"
    home.queue.go_on()
    await home.running()
    assert home.state(job_id) == "running"


async def test_a_job_that_is_set_aside_begins_anew_and_no_attempt_is_counted(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    home.queue.hold()
    interrupting = asyncio.create_task(home.queue.interrupt(job_id))
    await until(lambda: not home.backend.busy)
    home.clock.advance(1)
    await interrupting
    assert home.store.jobs.get(job_id).attempt == 0 and len(home.backend.runs) == 1
    home.queue.go_on()
    await until(lambda: len(home.backend.runs) == 2)
    assert home.backend.runs[-1].attempt == 1


async def test_another_job_is_left_alone(home):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    await home.queue.interrupt(second)
    assert home.backend.busy and home.state(first) == "running"


async def test_a_held_queue_can_be_stopped(home):
    home.queue.start()
    home.queue.hold()
    home.ask()
    async with asyncio.timeout(2):
        await home.queue.stop()


def folder_of(home, tmp_path, job_id):
    folder = tmp_path / "jobs" / job_id
    folder.mkdir(parents=True)
    (folder / "request.json").touch()
    return folder


async def test_folders_of_waiting_jobs_are_made_anew(home, tmp_path):
    talk = home.ask("oda")
    history = home.ask("thrip", dataset="history")
    folders = [folder_of(home, tmp_path, job_id) for job_id in (talk, history)]
    discard_pending_history_folders(tmp_path, home.store)
    assert [folder.exists() for folder in folders] == [True, False]
    discard_pending_job_folders(tmp_path, home.store)
    assert not folders[0].exists()


async def test_the_folder_of_a_job_that_runs_stays(home, tmp_path):
    home.queue.start()
    folder = folder_of(home, tmp_path, home.ask("thrip", dataset="history"))
    await home.running()
    discard_pending_history_folders(tmp_path, home.store)
    assert folder.exists()


async def test_folders_of_jobs_that_may_be_resumed_are_made_anew_too(home, tmp_path):
    home.queue.start()
    for can_resume in (True, False):
        folder = folder_of(home, tmp_path, home.ask("thrip", dataset="history"))
        await home.running()
        await home.finish(TrainingFailed("The disk is full.", can_resume=can_resume))
        discard_pending_history_folders(tmp_path, home.store)
        assert folder.exists() != can_resume
