"""The queue while somebody is forgotten: nothing begins, and what must not go on begins anew."""

import asyncio

import pytest

from bot.privacy.home_files import discard_pending_history_folders, discard_pending_job_folders
from bot.training.subprocess_backend import TrainingFailed
from tests.bot.restartable_queue import House
from tests.fakes import until


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    yield house
    await house.queue.stop()
    await house.kill()


async def test_while_it_is_held_nothing_begins_and_nothing_is_lost(house):
    house.queue.start()
    house.queue.hold()
    job_id = house.ask()
    await asyncio.sleep(0.05)
    assert not house.backend.busy and house.state(job_id) == "queued"
    house.queue.go_on()
    await house.running()
    assert house.state(job_id) == "running"


async def test_a_job_that_is_set_aside_begins_anew_and_no_attempt_is_counted(house):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    house.queue.hold()
    interrupting = asyncio.create_task(house.queue.interrupt(job_id))
    await until(lambda: not house.backend.busy)
    house.clock.advance(1)
    await interrupting
    assert house.store.jobs.get(job_id).attempt == 0 and len(house.backend.runs) == 1
    house.queue.go_on()
    await until(lambda: len(house.backend.runs) == 2)
    assert house.backend.runs[-1].attempt == 1


async def test_another_job_is_left_alone(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    await house.queue.interrupt(second)
    assert house.backend.busy and house.state(first) == "running"


async def test_a_held_queue_can_be_stopped(house):
    house.queue.start()
    house.queue.hold()
    house.ask()
    async with asyncio.timeout(2):
        await house.queue.stop()


def folder_of(house, tmp_path, job_id):
    folder = tmp_path / "jobs" / job_id
    folder.mkdir(parents=True)
    (folder / "request.json").touch()
    return folder


async def test_folders_of_waiting_jobs_are_made_anew(house, tmp_path):
    talk, history = house.ask("oda"), house.ask("thrip", dataset="history")
    folders = [folder_of(house, tmp_path, job_id) for job_id in (talk, history)]
    discard_pending_history_folders(tmp_path, house.store)
    assert [folder.exists() for folder in folders] == [True, False]
    discard_pending_job_folders(tmp_path, house.store)
    assert not folders[0].exists()


async def test_the_folder_of_a_job_that_runs_stays(house, tmp_path):
    house.queue.start()
    folder = folder_of(house, tmp_path, house.ask("thrip", dataset="history"))
    await house.running()
    discard_pending_history_folders(tmp_path, house.store)
    assert folder.exists()


async def test_folders_of_jobs_that_may_be_resumed_are_made_anew_too(house, tmp_path):
    house.queue.start()
    for can_resume in (True, False):
        folder = folder_of(house, tmp_path, house.ask("thrip", dataset="history"))
        await house.running()
        await house.finish(TrainingFailed("The disk is full.", can_resume=can_resume))
        discard_pending_history_folders(tmp_path, house.store)
        assert folder.exists() != can_resume
