"""The queue while somebody is forgotten: nothing begins, and what must not go on begins anew."""

import asyncio

from tests.fakes import until


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
