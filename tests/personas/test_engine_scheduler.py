"""Fair order, admission control and LoRA slots, without a model."""

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from personas.engine.admission import AdmissionControl
from personas.engine.fair_scheduler import MAX_OVERTAKEN, AdapterState, SchedulerLimits
from personas.engine.lora_slots import (
    BASE_MODEL_SLOT,
    MAX_PREFETCHED_ADAPTERS,
    AdapterWeights,
    LoraSlots,
)
from personas.engine.scheduler import Scheduler
from personas.engine.sequence import Sequence
from personas.errors import AdapterError, EngineBusyError, NoMemoryError
from personas.schemas.chat import AdapterRef, ChatRequest


def ref(name: str) -> AdapterRef:
    return AdapterRef(name, "v1", Path(name))


class RecordingSink:
    """A sink that keeps the error it receives."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.error = None

    def begin(self) -> bool:
        return not self.cancelled.is_set()

    def push(self, piece: object) -> None:
        self.error = piece


class MemorylessRunner:
    """A runner without a model: its KV caches stay empty, or cannot be created."""

    prefixes = None
    has_memory = True

    def new_kv_cache(self, capacity: int) -> object:
        if not self.has_memory:
            raise MemoryError("no memory for keys and values")
        return SimpleNamespace(tokens=[])


class StubSlots:
    """Adapters in states that a test chooses, READY by default."""

    def __init__(self, **states: AdapterState) -> None:
        self.states = states
        self.acquired = 0

    def state(self, adapter: AdapterRef | None) -> AdapterState:
        return (
            self.states.get(adapter.persona_id, AdapterState.READY)
            if adapter
            else AdapterState.READY
        )

    def acquire(self, adapter: AdapterRef | None):
        if self.state(adapter) is AdapterState.FAILED:
            raise AdapterError("It is damaged.")
        self.acquired += 1
        return BASE_MODEL_SLOT

    def release(self, slot) -> None:
        self.acquired -= 1


class Queue:
    """A scheduler with one free row at a time; `start` says which sequences start."""

    def __init__(
        self, rows: int = 1000, step_tokens: int = 1_000_000, **states: AdapterState
    ) -> None:
        self.slots, self.runner, self.ends = StubSlots(**states), MemorylessRunner(), 0
        limits = SchedulerLimits(
            rows=rows, overflow_rows=0, prefill_tokens=step_tokens, solo_prefill_tokens=step_tokens,
            busy_prefill_tokens=step_tokens // 2,
        )  # fmt: skip
        self.scheduler = Scheduler(limits, self.slots, self.runner, self.runner)
        self.now = 0.0
        self.scheduler.clock = lambda: self.now

    def add(
        self, guild_id: int, prompt_tokens: int, adapter: str = "", member_id: int = 0
    ) -> Sequence:
        self.now += 1
        request = ChatRequest(
            None, (), (), ref(adapter) if adapter else None, guild_id=guild_id, member_id=member_id
        )
        seq = Sequence(request, (1,) * prompt_tokens, 0, RecordingSink(), None, self.count_end)
        self.scheduler.add(seq)
        return seq

    def count_end(self) -> None:
        self.ends += 1

    def prompt_chunks(self) -> list[tuple[Sequence, int]]:
        """The prompts that the next step computes, and how many tokens of each."""
        return [(seq, len(scheduled.tokens)) for seq, scheduled in self.scheduler._prompt_chunks()]

    def compute_chunks(self) -> None:
        for seq, count in self.prompt_chunks():
            seq.kv.tokens += seq.prompt[len(seq.kv.tokens) :][:count]

    def start(self) -> Sequence | None:
        """Start the next sequence alone."""
        seq, overtaken = self.scheduler._select_next()
        if seq:
            self.scheduler._start(seq, overtaken)
        return seq


class TestOrder:
    """The scheduler's queue."""

    def test_a_quiet_guild_is_served_before_a_flood_that_came_first(self):
        queue = Queue()
        flood = [queue.add(1, 100) for _ in range(20)]
        assert queue.start() is flood[0]
        quiet = queue.add(2, 100)
        assert queue.start() is flood[1], "a guild that arrives gets no credit for the time before"
        assert queue.start() is quiet

    def test_a_flood_waits_in_the_queue_while_its_prompts_take_whole_steps(self):
        queue = Queue(step_tokens=256)
        flood = [queue.add(1, 200) for _ in range(5)]
        queue.scheduler.admit()
        assert queue.scheduler.running == flood[:2], "the second one fills the step"
        quiet = queue.add(2, 200)
        queue.scheduler.admit()
        assert queue.scheduler.running == [*flood[:2], quiet], (
            "it waits behind none of the others' prompts"
        )
        flood[0].kv.tokens += flood[0].prompt
        flood[0].last_token = 1
        queue.scheduler.admit()
        assert queue.scheduler.running == [*flood[:2], quiet], "two prompts are left"
        flood[1].kv.tokens += flood[1].prompt
        flood[1].last_token = 1
        queue.scheduler.admit()
        assert queue.scheduler.running == [*flood[:2], quiet, flood[2]]

    def test_prompts_are_computed_in_the_order_of_service_not_of_their_start(self):
        queue = Queue(step_tokens=256)
        flood = [queue.add(1, 200, member_id=7), queue.add(1, 200, member_id=7)]
        light = queue.add(1, 100, member_id=8)
        for seq in (*flood, light):
            queue.scheduler._start(seq, [])
        assert queue.prompt_chunks() == [(flood[0], 200), (flood[1], 56)], "nobody got anything yet"
        queue.compute_chunks()
        assert queue.prompt_chunks() == [(light, 100), (flood[1], 144)]

    @pytest.mark.parametrize(("rows", "second_tokens"), [(4, 28), (8, 100)])
    def test_steps_with_many_replies_compute_the_first_prompt_and_fewer_tokens_of_others(
        self, rows, second_tokens
    ):
        queue = Queue(rows=rows, step_tokens=256)
        replying = queue.add(1, 10)
        queue.scheduler.admit()
        queue.compute_chunks()
        replying.last_token = 1
        first = queue.add(2, 100)
        second = queue.add(3, 100)
        queue.scheduler.admit()
        assert queue.prompt_chunks() == [(first, 100), (second, second_tokens)], (
            f"three of {rows} rows run"
        )
        long = queue.add(4, 300)
        queue.scheduler.admit()
        queue.scheduler.queue.count_token(second)
        queue.scheduler.queue.count_token(first)
        queue.scheduler.queue.count_token(second)
        assert queue.prompt_chunks() == [(long, 256)], "the first of them, however long"

    def test_new_tokens_count_too(self):
        queue = Queue()
        for guild in (1, 2):
            queue.add(guild, 10)
            queue.add(guild, 10)
        first = queue.start()
        second = queue.start()
        assert (first.guild_id, second.guild_id) == (1, 2)
        queue.scheduler.queue.count_token(first)
        assert queue.start().guild_id == 2

    def test_both_guilds_get_the_same_however_much_one_of_them_asks_for(self):
        queue = Queue()
        for number in range(300):
            queue.add(1, 50)
            if number < 40:
                queue.add(2, 50)
        assert [queue.start().guild_id for _ in range(60)].count(2) == 30

    def test_one_that_waits_for_a_slot_is_overtaken_a_few_times_and_no_more(self):
        queue = Queue(stuck=AdapterState.NO_SLOT)
        stuck = queue.add(1, 0, "stuck")
        others = [queue.add(1, 0) for _ in range(MAX_OVERTAKEN + 3)]
        queue.scheduler.admit()
        assert (
            queue.scheduler.running == others[:MAX_OVERTAKEN] and stuck.overtaken == MAX_OVERTAKEN
        )
        queue.slots.states.clear()
        assert queue.start() is stuck
        assert queue.start() is others[MAX_OVERTAKEN], "the others go on"

    def test_one_whose_adapter_is_being_read_holds_nobody_up(self):
        queue = Queue(reading=AdapterState.LOADING)
        waits = queue.add(1, 0, "reading")
        others = [queue.add(1, 0) for _ in range(30)]
        queue.scheduler.admit()
        assert queue.scheduler.running == others and list(queue.scheduler.queue) == [waits]

    def test_choosing_the_next_changes_nothing(self):
        queue = Queue(stuck=AdapterState.NO_SLOT, broken=AdapterState.FAILED)
        waiting = [queue.add(1, 0, name) for name in ("stuck", "broken", "fine")]
        for _ in range(3):
            assert queue.scheduler._select_next() == (waiting[1], [waiting[0]])
        assert (
            list(queue.scheduler.queue) == waiting
            and not queue.slots.acquired
            and not waiting[0].overtaken
        )

    def test_an_adapter_that_cannot_be_used_fails_its_sequence_alone(self):
        queue = Queue(broken=AdapterState.FAILED)
        broken = queue.add(1, 0, "broken")
        fine = queue.add(1, 0)
        queue.scheduler.admit()
        assert isinstance(broken._sink.error, AdapterError) and queue.ends == 1
        assert queue.scheduler.running == [fine] and not queue.scheduler.queue

    def test_a_sequence_without_memory_fails_alone_and_returns_its_slot(self):
        queue = Queue()
        queue.runner.has_memory = False
        seq = queue.add(1, 0, "a")
        queue.scheduler.admit()
        assert isinstance(seq._sink.error, NoMemoryError) and queue.ends == 1
        assert (
            not queue.slots.acquired and not queue.scheduler.running and not queue.scheduler.queue
        )


class TestAdmission:
    """Admission control."""

    def test_a_guild_alone_gets_what_was_set_and_others_still_find_room(self):
        places = AdmissionControl(30, concurrency=4)
        for _ in range(30):
            places.acquire(1)
        with pytest.raises(
            EngineBusyError,
            match=r"26 replies .*one server may.*about 135 s",
        ) as refused:
            places.acquire(1)
        assert 130 < places.wait_s() == refused.value.wait_s < 140
        places.acquire(2)
        with pytest.raises(EngineBusyError):
            for _ in range(30):
                places.acquire(2)
        places.acquire(3)

    def test_a_member_gets_an_eighth_and_says_so_while_others_and_nobody_find_room(self):
        places = AdmissionControl.of_engine(4, 64, 120.0)
        for _ in range(8):
            places.acquire(1, 7)
        with pytest.raises(
            EngineBusyError,
            match=r"8 replies to the same member",
        ):
            places.acquire(1, 7)
        for member in (8, *[0] * 20):
            places.acquire(1, member)
        places.acquire(2, 7)
        places.release(1, 7)
        places.acquire(1, 7)

    def test_no_request_is_taken_that_would_wait_until_it_fails(self):
        now = [0.0]
        places = AdmissionControl.of_engine(4, 64, 120.0, lambda: now[0])
        places.acquire(3)
        for _ in range(30):
            places.acquire(1, 7)
            now[0] += 2.0
            places.release(1, 7)
        taken = 0
        with pytest.raises(EngineBusyError, match="one server may"):
            for taken in range(60):  # noqa: B007
                places.acquire(1)
        assert taken in (44, 45), "three quarters of 120 s, an end every 2 s"
        places.acquire(1, 9)  # who has none gets one
        places.acquire(2, 9)

    def test_nothing_is_kept_of_members_whose_requests_have_ended(self):
        places = AdmissionControl.of_engine(4, 2, 120.0)
        for member in range(1, 500):
            places.acquire(member % 9, member)
            places.release(member % 9, member)
        assert not places._requests and not places._member_requests

    def test_the_estimate_follows_what_is_measured(self):
        now = [0.0]
        places = AdmissionControl(30, 4, lambda: now[0])
        for _ in range(21):
            places.acquire(1)
        for _ in range(20):
            now[0] += 0.5
            places.release(1)
        for _ in range(19):
            places.acquire(1)
        assert 9 < places.wait_s() < 12
        places.release(1)
        now[0] += 1000  # nobody waited through a pause as long as there was nothing to do
        assert places.wait_s() < 12


class RecordingStack:
    """A stack that records which adapter was written into which slot."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.written = []
        self.error: Exception | None = None

    def put(self, index: int, weights: AdapterWeights) -> None:
        if self.error:
            raise self.error
        self.written.append((index, weights.ref.persona_id))


class Slots:
    """LoRA slots whose reads are complete before a state is looked up."""

    def __init__(self, count: int) -> None:
        self.stack = RecordingStack(count)
        self.broken: set[str] = set()
        self.reads = 0
        self.read = threading.Event()
        self.lora = LoraSlots(self.stack, self._read, self.read.set)

    def _read(self, adapter: AdapterRef) -> AdapterWeights:
        self.reads += 1
        if adapter.persona_id in self.broken:
            raise AdapterError("It is damaged.")
        return AdapterWeights(adapter, None if adapter.persona_id == "dora" else {})

    def state(self, name: str) -> AdapterState:
        self.lora.prefetch([ref(name)])
        self.lora._reader.submit(lambda: None).result()
        return self.lora.state(ref(name))

    def acquire(self, name: str):
        """Read an adapter and pin it; None if no slot is free."""
        return None if self.state(name) is AdapterState.NO_SLOT else self.lora.acquire(ref(name))


@pytest.fixture
def slots():
    slots = Slots(2)
    yield slots
    slots.lora.close()


class TestSlots:
    """Reading, pinning, evicting and dropping."""

    def test_the_least_recently_used_is_evicted_and_a_pinned_one_never(self, slots):
        a = slots.acquire("a")
        b = slots.acquire("b")
        assert {a.index, b.index} == {1, 2} and slots.state("c") is AdapterState.NO_SLOT
        slots.lora.release(a)
        assert slots.acquire("a") == a, "it is still in memory"
        slots.lora.release(b)
        c = slots.acquire("c")
        assert c.index == b.index and slots.stack.written[-1] == (b.index, "c")
        assert slots.state("b") is AdapterState.NO_SLOT, "it was evicted, and the others are in use"
        assert slots.lora.acquire(None) == BASE_MODEL_SLOT

    def test_a_state_changes_nothing(self, slots):
        slots.lora.release(slots.acquire("a"))
        slots.lora.release(slots.acquire("b"))
        before = slots.lora.resident
        assert [slots.state("c") for _ in range(3)] == [AdapterState.READY] * 3
        assert slots.lora.resident == before and len(slots.stack.written) == 2 and slots.reads == 3

    def test_two_sequences_share_a_slot_and_it_is_free_when_both_have_ended(self, slots):
        a = slots.acquire("a")
        again = slots.acquire("a")
        _ = slots.acquire("b")
        slots.lora.release(a)
        assert a == again and slots.acquire("c") is None
        slots.lora.release(again)
        assert slots.acquire("c").index == a.index

    def test_dropping_waits_for_running_sequences_and_later_ones_read_the_folder_again(self, slots):
        a = slots.acquire("a")
        dropped = Future()
        slots.lora.drop(ref("a"), lambda: dropped.set_result(None))
        assert not dropped.done() and slots.acquire("a") is None, (
            "no new sequence uses what is being dropped"
        )
        slots.lora.release(a)
        assert dropped.done() and not slots.lora.resident and slots.reads == 1
        assert slots.acquire("a").index and slots.reads == 2

    def test_an_adapter_that_cannot_be_read_is_an_error_each_time(self, slots):
        slots.broken.add("a")
        for _ in range(2):
            assert slots.state("a") is AdapterState.FAILED
            with pytest.raises(AdapterError, match="damaged"):
                slots.acquire("a")
        slots.broken.clear()
        assert slots.acquire("a")

    def test_a_slot_is_free_again_when_its_weights_cannot_be_written(self, slots):
        slots.stack.error = MemoryError("the stack cannot grow")
        for _ in range(3):
            with pytest.raises(MemoryError):
                slots.acquire("a")
        slots.stack.error = None
        assert {slots.acquire("a").index, slots.acquire("b").index} == {1, 2}

    def test_an_adapter_for_peft_takes_no_slot(self, slots):
        assert slots.acquire("dora").index is None and slots.acquire("a") and slots.acquire("b")

    def test_only_a_few_adapters_are_read_ahead(self, slots):
        slots.lora.prefetch([ref(f"p{n}") for n in range(50)])
        slots.lora._reader.submit(lambda: None).result()
        assert slots.reads == MAX_PREFETCHED_ADAPTERS and slots.read.is_set()
