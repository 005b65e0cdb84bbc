"""A training that needs the GPU's memory: beside the replies if it fits, else they move away and
come back.
"""

import asyncio
from types import SimpleNamespace

import pytest

from bot.training.backend_protocol import TrainingInterrupted
from bot.training.resource_sharing import OFFLOAD_TEXT, PACKED_TEXT, GpuOffloadBackend
from bot.training.training_plan import RecipeEstimate, TrainingPlan
from personas.errors import BaseModelError, TrainingError
from personas.schemas.training import TrainingRequest

REQUEST = TrainingRequest(job_name="j", persona="ada", recipe="small")
JOB = SimpleNamespace(job_id="j1", guild_id=3, request=REQUEST)


class Engine:
    """Notes where it was asked to compute."""

    def __init__(self, device="cuda", failing=(), packing_frees_bytes=0):
        self.device = device
        self.failing = failing
        self.packing_frees_bytes = packing_frees_bytes
        self.moves = []
        self.on_move = lambda: None

    async def move(self, device, *, packs=False, reserved_bytes=0):
        place = f"nf4 beside {reserved_bytes}" if packs else device
        self.moves.append(place)
        self.on_move()
        if place in self.failing:
            raise BaseModelError("There is no memory for it.", "Free some.")
        self.device = device


class Backend:
    """Says what recipes take, and notes where replies were made while it trained."""

    def __init__(self, engine, **takes):
        self.engine = engine
        self.takes = takes
        self.trained_beside = []
        self.held = []
        self.stopped = []
        self.planned = asyncio.Event()
        self.planned.set()
        self.failure = None

    def check(self, request, guild_id=0):
        return

    slots = 3
    trains_on_cpu = False

    def accept_written(self, job_id):
        return

    def cancel(self, job_id):
        self.stopped.append(job_id)

    def detach(self):
        self.stopped.append("all")

    def adopt(self, job_ids):
        return ()

    def hold(self, demand):
        self.held.append(demand)

    async def plan(self, request, guild_id=0):
        await self.planned.wait()
        if not self.takes:
            raise TrainingError("It cannot be planned.", "Say why.")
        recipes = [
            RecipeEstimate(recipe=name, steps=1, seconds=1.0, memory_bytes=size, basis="")
            for name, size in self.takes.items()
        ]
        return TrainingPlan(
            samples={}, tokens=0, rows=0, rows_used=0, dropped={}, recipes=tuple(recipes)
        )

    async def run(self, job, on_event):
        self.trained_beside.append(self.engine.device)
        if self.failure:
            raise self.failure
        return TrainingInterrupted()

    complete_card = run


def cancelled(room):
    room.cancel("j1")


def detached(room):
    room.detach()


async def trained(engine, backend, free):
    result = []
    await GpuOffloadBackend(backend, engine, lambda: free).run(JOB, result.append)
    return result


async def test_both_stay_on_the_gpu_if_they_fit():
    engine = Engine()
    backend = Backend(engine, small=10, large=1000)
    assert (
        await trained(engine, backend, 10) == []
        and engine.moves == []
        and backend.trained_beside == ["cuda"]
    )


async def test_replies_move_away_for_the_time_and_it_is_said(caplog):
    engine = Engine()
    backend = Backend(engine, small=11, large=1)
    result = await trained(engine, backend, 10)
    assert backend.trained_beside == ["cpu"] and engine.moves == ["cpu", "cuda"]
    assert [event.detail for event in result] == [OFFLOAD_TEXT] and OFFLOAD_TEXT in caplog.text


async def test_where_packed_weights_leave_enough_replies_stay_on_the_gpu(caplog):
    engine = Engine(packing_frees_bytes=1)
    backend = Backend(engine, small=11)
    result = await trained(engine, backend, 10)
    assert backend.trained_beside == ["cuda"] and engine.moves == ["nf4 beside 11", "cuda"]
    assert [event.detail for event in result] == [PACKED_TEXT] and PACKED_TEXT in caplog.text
    larger = Backend(engine, small=12)
    await trained(engine, larger, 10)
    assert larger.trained_beside == ["cpu"] and engine.moves[2:] == ["cpu", "cuda"]


async def test_an_engine_that_cannot_pack_its_weights_moves_away():
    engine = Engine(packing_frees_bytes=1, failing=("nf4 beside 11",))
    backend = Backend(engine, small=11)
    assert [event.detail for event in await trained(engine, backend, 10)] == [OFFLOAD_TEXT]
    assert engine.moves == ["nf4 beside 11", "cpu", "cuda"]


async def test_they_come_back_however_the_training_ends():
    engine = Engine()
    backend = Backend(engine, small=11)
    backend.failure = OSError("the disk is full")
    with pytest.raises(OSError, match="disk"):
        await trained(engine, backend, 10)
    assert engine.moves == ["cpu", "cuda"]


async def test_an_engine_that_could_not_return_is_held_back_from_it_while_the_next_run_trains():
    engine = Engine(failing=("cuda",))
    backend = Backend(engine, small=11)
    room = GpuOffloadBackend(backend, engine, lambda: 10)
    await room.run(JOB, lambda event: None)
    assert engine.moves == ["cpu", "cuda"] and engine.device == "cpu"
    engine.failing = ()
    await room.run(JOB, lambda event: None)
    assert engine.moves[2:] == ["cpu", "cuda"] and engine.device == "cuda"
    await room.run(JOB, lambda event: None)
    assert engine.moves[4:] == ["cpu", "cuda"] and backend.trained_beside == ["cpu"] * 3


async def test_without_a_gpu_nothing_is_asked_or_moved():
    engine = Engine("cpu")
    backend = Backend(engine)
    assert (
        await trained(engine, backend, 0) == []
        and engine.moves == []
        and backend.trained_beside == ["cpu"]
    )


async def test_where_nobody_knows_what_it_takes_replies_stay(caplog):
    caplog.set_level("INFO")
    engine = Engine()
    backend = Backend(engine)
    assert (
        await trained(engine, backend, 0) == []
        and engine.moves == []
        and "It cannot be planned" in caplog.text
    )


async def test_an_engine_that_cannot_move_stays_and_the_training_begins_all_the_same(caplog):
    engine = Engine(failing=("cpu",))
    backend = Backend(engine, small=11)
    assert await trained(engine, backend, 10) == []
    assert (
        engine.moves == ["cpu"]
        and backend.trained_beside == ["cuda"]
        and "no memory for it" in caplog.text
    )


@pytest.mark.parametrize("stop", [cancelled, detached])
@pytest.mark.parametrize("method", ["run", "complete_card"])
async def test_a_run_that_is_stopped_while_it_is_planned_does_not_begin(stop, method):
    engine = Engine()
    backend = Backend(engine, small=11)
    backend.planned.clear()
    room = GpuOffloadBackend(backend, engine, lambda: 10)
    run = asyncio.create_task(getattr(room, method)(JOB, lambda event: None))
    await asyncio.sleep(0)
    stop(room)
    backend.planned.set()
    assert await run == TrainingInterrupted()
    assert backend.trained_beside == [] and engine.moves == [] and len(backend.stopped) == 1
    await getattr(room, method)(JOB, lambda event: None)
    assert backend.trained_beside == ["cpu"], "the next attempt begins"


@pytest.mark.parametrize("stop", [cancelled, detached])
async def test_a_run_that_is_stopped_while_the_engine_moves_does_not_begin(stop):
    engine = Engine()
    backend = Backend(engine, small=11)
    room = GpuOffloadBackend(backend, engine, lambda: 10)
    engine.on_move = lambda: stop(room)
    events = []
    assert await room.run(JOB, events.append) == TrainingInterrupted()
    assert backend.trained_beside == [] and events == [] and engine.moves == ["cpu", "cuda"]


async def test_another_jobs_cancel_does_not_stop_the_run():
    engine = Engine()
    backend = Backend(engine, small=11)
    room = GpuOffloadBackend(backend, engine, lambda: 10)
    engine.on_move = lambda: room.cancel("j2")
    await room.run(JOB, lambda event: None)
    assert backend.trained_beside == ["cpu"]


def test_the_rest_is_the_backends():
    engine = Engine()
    backend = Backend(engine, small=1)
    backend.trains_on_cpu = True
    room = GpuOffloadBackend(backend, engine, lambda: 0)
    room.hold("yield")
    assert backend.held == ["yield"] and room.slots == 3 and room.trains_on_cpu
    assert (room.check, room.accept_written) == (backend.check, backend.accept_written)
