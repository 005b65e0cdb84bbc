"""The trainer is asked to hold while replies are made, through the bot, its backend and a pipe."""

import asyncio

import pytest

from bot.settings import load_settings
from bot.training import resource_sharing
from bot.training.backend_protocol import TrainingSucceeded
from bot.training.resource_sharing import TrainerThrottle
from bot.training.status_text import job_status_text
from personas.engine.llm_engine import LLMEngine
from personas.errors import AdapterError, EngineBusyError
from personas.schemas.chat import ChatRequest, Turn
from personas.schemas.training_events import PauseDemand, Phase, Progress
from tests.bot.conftest import INN, QUAY
from tests.bot.subprocess_trainer import Workshop
from tests.fake_engine import FakeEngine
from tests.fakes import until

STEP = Progress(
    step=1, of=4, epoch=0.5, loss=3.0, lr=1e-4, tokens_per_s=200, eta_s=60, memory_bytes=2**30, seconds=90
)  # fmt: skip
REQUEST = ChatRequest(None, (Turn("Bo", "hello"),))


@pytest.fixture
def asked(monkeypatch):
    """An engine, a throttle before it, and what the trainer was asked, in order."""
    monkeypatch.setattr(resource_sharing, "RELEASE_DELAY_S", 0.05)
    heard: list[PauseDemand] = []
    return FakeEngine(), TrainerThrottle(heard.append), heard


async def test_held_until_a_reply_begins_less_until_it_ends_and_released_some_time_after_the_last(
    asked,
):
    engine, throttle, heard = asked
    one, two = (throttle.submit(engine, REQUEST) for _ in range(2))
    assert heard == ["hold"] and throttle.is_asked
    engine.free.clear()  # after its first words, each reply waits
    reading = [aiter(stream) for stream in (one, two)]
    assert await anext(reading[0]) == "Nobody " and heard == ["hold"], (
        "the other one is silent still"
    )
    await anext(reading[1])
    assert heard == ["hold", "yield"]
    three = throttle.submit(engine, REQUEST)
    assert heard == ["hold", "yield", "hold"]
    three.cancel()
    assert heard == ["hold", "yield"] * 2
    engine.free.set()
    for stream, rest in ((one, reading[0]), (two, reading[1])):
        assert [piece async for piece in rest] == [
            "hears: hello"
        ] and stream.reply.text == "Nobody hears: hello"
    assert throttle.is_asked, "the next one follows soon in a talk"
    four = throttle.submit(engine, REQUEST)
    await asyncio.sleep(0.1)
    assert heard == [*["hold", "yield"] * 2, "hold"]
    four.cancel()
    four.cancel()
    await asyncio.sleep(0.1)
    assert heard == [*["hold", "yield"] * 2, "hold", "go"] and not throttle.is_asked


async def test_a_trainer_that_shares_no_processor_with_replies_is_never_asked(asked):
    engine, _, heard = asked
    is_shared = [False]
    throttle = TrainerThrottle(heard.append, lambda: is_shared[0])
    assert (
        [piece async for piece in throttle.submit(engine, REQUEST)]
        and not heard
        and not throttle.is_asked
    )
    await asyncio.sleep(0.1)
    assert not heard
    is_shared[0] = True  # the engine has moved off the GPU
    stream = throttle.submit(engine, REQUEST)
    assert heard == ["hold"]
    is_shared[0] = False
    assert [piece async for piece in stream]
    await asyncio.sleep(0.1)
    assert heard == ["hold", "go"]


HERE = "http://127.0.0.1:8000"
THERE = "https://llm.example"


@pytest.mark.parametrize(
    ("environ", "device", "has_gpu", "wanted"),
    [
        ({}, "cpu", False, True),
        ({}, "cuda", True, False),
        ({}, "cpu", True, False),  # the engine made room on the GPU for the training
        ({"TRAINER": "ray", "RAY_ADDRESS": "http://head:8265", "SHARED": "/"}, "cpu", False, False),
        ({"ENGINE": "vllm", "ENGINE_URLS": THERE}, "", False, False),
        ({"ENGINE": "openai", "ENGINE_URLS": HERE}, "", False, True),
        ({"ENGINE": "openai", "ENGINE_URLS": "http://localhost:8000"}, "", False, True),
        ({"ENGINE": "openai", "ENGINE_URLS": "http://[::1]:8000"}, "", False, True),
        ({"ENGINE": "openai", "ENGINE_URLS": f"{THERE},{HERE}"}, "", False, True),
        ({"ENGINE": "openai", "ENGINE_URLS": HERE}, "", True, False),
    ],
)
def test_replies_and_trainings_share_a_processor(
    monkeypatch, tmp_path, environ, device, has_gpu, wanted
):
    driver = tmp_path / "driver"
    if has_gpu:
        driver.touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resource_sharing, "GPU_DRIVER_FILES", (str(driver),))
    monkeypatch.setattr(resource_sharing, "has_gpu", lambda: has_gpu)
    engine = FakeEngine()
    if "ENGINE" not in environ:
        engine = LLMEngine.__new__(LLMEngine)
        monkeypatch.setattr(LLMEngine, "device", device)
    settings = load_settings(None, {"UNDERSTUDY_HOME": str(tmp_path), **environ})
    assert resource_sharing.shares_processor(settings, engine) == wanted
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not resource_sharing.has_gpu_driver()


async def test_blanks_are_no_first_words(asked):
    engine, throttle, heard = asked
    engine.script = lambda request: [" ", "\n", "Aye."]
    reading = aiter(throttle.submit(engine, REQUEST))
    await anext(reading), await anext(reading)
    assert heard == ["hold"]
    await anext(reading)
    assert heard == ["hold", "yield"]


async def test_a_reply_that_fails_or_is_refused_holds_nobody(asked):
    engine, throttle, heard = asked
    engine.failure = AdapterError("It is damaged.", "Train again.")
    with pytest.raises(AdapterError):
        await anext(aiter(throttle.submit(engine, REQUEST)))
    engine.full = True
    with pytest.raises(EngineBusyError):
        throttle.submit(engine, REQUEST)
    await asyncio.sleep(0.1)
    assert heard == ["hold", "go"]


async def test_a_talk_asks_the_trainer_to_hold(stage, monkeypatch):
    monkeypatch.setattr(resource_sharing, "RELEASE_DELAY_S", 0.2)
    for channel in (QUAY, INN):
        mark = stage.mark
        await stage.member.say(channel, "good evening")
        await stage.finished(channel, mark)
        await until(lambda: stage.backend.held[-1:] == ["go"])
    assert stage.backend.held == ["hold", "yield", "go"] * 2


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
    backend.hold("go")  # nobody is there to be told
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: received(workshop) == ["ready"])
    for demand in ("hold", "yield", "go", "hold"):
        backend.hold(demand)
    await until(lambda: received(workshop) == ["ready", "hold", "yield", "go", "hold"])
    assert not run.done()
    backend.hold("go")
    assert isinstance(await asyncio.wait_for(run, 10), TrainingSucceeded)
    backend.hold("hold")
    backend.hold("go")


async def test_a_trainer_that_starts_while_replies_are_made_is_reported_too(workshop):
    backend = workshop.backend("listening")
    backend.hold("hold")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: received(workshop) == ["ready", "hold"])
    backend.detach()
    await run


async def test_words_to_a_trainer_that_does_not_listen_or_has_gone_harm_nobody(workshop, caplog):
    backend = workshop.backend("polite")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: workshop.events)
    for _ in range(1000):
        backend.hold("hold")
    backend.detach()
    await asyncio.wait_for(run, 5)
    assert not caplog.records


def test_the_time_that_a_training_waited_is_shown(workshop):
    workshop.job()
    workshop.store.jobs.claim(workshop.store.jobs.get("j1"), "token", 100.0)
    for held_s, words in ((0.4, "attempt 1"), (12.4, "attempt 1, 12 s of it waiting for replies")):
        job = workshop.store.jobs.report("j1", "token", STEP.model_copy(update={"held_s": held_s}))
        assert job_status_text(job, None, 190.0).endswith(f"-# running for 1 min 30 s, {words}")
    assert job_status_text(job, None, 190.0, gives_way=True).endswith("waiting for replies now")
