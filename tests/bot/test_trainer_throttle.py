"""The trainer is asked to hold while replies are made, through the bot, its backend and a pipe."""

import asyncio

import pytest

from bot.training import resource_sharing
from bot.training.queue import TrainingSucceeded
from bot.training.resource_sharing import TrainerThrottle
from bot.training.status_text import job_status_text
from personas.schemas.training_events import Phase, Progress
from tests.bot.conftest import INN, QUAY
from tests.bot.subprocess_trainer import Workshop
from tests.fakes import until

STEP = Progress(
    step=1, of=4, epoch=0.5, loss=3.0, lr=1e-4, tokens_per_s=200, eta_s=60, memory_bytes=2**30, seconds=90
)  # fmt: skip


async def test_said_once_for_all_replies_and_taken_back_some_time_after_the_last(monkeypatch):
    monkeypatch.setattr(resource_sharing, "RELEASE_DELAY_S", 0.05)
    held = []
    way = TrainerThrottle(held.append)
    with way.reply():
        with way.reply():
            assert held == [True]
        await asyncio.sleep(0.1)
        assert held == [True]
    await asyncio.sleep(0.01)
    with way.reply():
        await asyncio.sleep(0.1)
    assert held == [True], "another reply followed at once"
    await asyncio.sleep(0.1)
    assert held == [True, False]
    with pytest.raises(ZeroDivisionError), way.reply():
        raise ZeroDivisionError
    await asyncio.sleep(0.1)
    assert held == [True, False, True, False]


async def test_a_talk_asks_the_trainer_to_hold(stage, monkeypatch):
    monkeypatch.setattr(resource_sharing, "RELEASE_DELAY_S", 0.2)
    for channel in (QUAY, INN):
        mark = stage.mark
        await stage.member.say(channel, "good evening")
        await stage.finished(channel, mark)
        await until(lambda: stage.backend.held[-1:] == [False])
    assert stage.backend.held == [True, False] * 2


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


def received(workshop):
    """What the stand-in says it was told."""
    return [event.detail for event in workshop.events if isinstance(event, Phase)]


async def test_the_trainer_is_reported_through_its_standard_input(workshop):
    backend = workshop.backend("listening")
    backend.hold(False)  # nobody is there to be told
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: received(workshop) == ["ready"])
    for held in (True, False, True):
        backend.hold(held)
    await until(lambda: received(workshop) == ["ready", "hold", "go", "hold"])
    assert not run.done()
    backend.hold(False)
    assert isinstance(await asyncio.wait_for(run, 10), TrainingSucceeded)
    backend.hold(True)
    backend.hold(False)


async def test_a_trainer_that_starts_while_replies_are_made_is_reported_too(workshop):
    backend = workshop.backend("listening")
    backend.hold(True)
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: received(workshop) == ["ready", "hold"])
    backend.detach()
    await run


async def test_words_to_a_trainer_that_does_not_listen_or_has_gone_harm_nobody(workshop, caplog):
    backend = workshop.backend("polite")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: workshop.events)
    for _ in range(1000):
        backend.hold(True)
    backend.detach()
    await asyncio.wait_for(run, 5)
    assert not caplog.records


def test_the_time_that_a_training_waited_is_shown(workshop):
    workshop.job()
    workshop.store.jobs.claim(workshop.store.jobs.get("j1"), "token", 100.0)
    for held_s, words in ((0.4, "attempt 1"), (12.4, "attempt 1, 12 s of it waiting for replies")):
        job = workshop.store.jobs.report("j1", "token", STEP.model_copy(update={"held_s": held_s}))
        assert job_status_text(job, None, 190.0).endswith(f"-# running for 1 min 30 s, {words}")
    assert job_status_text(job, None, 190.0, gives_way=True).endswith("attempt 1, waiting for replies now")
