"""Who is next, who is refused, and which adapter sits where: without a model."""

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from personas.engine.lora_slots import BASE_MODEL_SLOT, MAX_PREFETCHED_ADAPTERS, AdapterWeights, LoraSlots
from personas.engine.scheduler import MAX_OVERTAKEN, AdmissionControl, QueuedRequest, Scheduler
from personas.errors import AdapterError, EngineBusyError
from personas.schemas.chat import AdapterRef


class TestOrder:
    """The scheduler."""

    def test_a_quiet_guild_is_served_before_a_flood_that_came_first(self):
        scheduler: Scheduler[str] = Scheduler()
        for number in range(20):
            scheduler.add(QueuedRequest(1, 100, number, f"flood {number}"))
        assert scheduler.next(lambda _: True).item == "flood 0"
        scheduler.add(QueuedRequest(2, 100, 21.0, "quiet"))
        order = [scheduler.next(lambda _: True).item for _ in range(3)]
        assert order[0] == "flood 1", "one that comes is not given what it did not ask for before"
        assert order[1] == "quiet"

    def test_new_tokens_count_too(self):
        scheduler: Scheduler[str] = Scheduler()
        for guild in (1, 2):
            scheduler.add(QueuedRequest(guild, 10, guild, f"first of {guild}"))
            scheduler.add(QueuedRequest(guild, 10, guild, f"second of {guild}"))
        first, second = scheduler.next(lambda _: True), scheduler.next(lambda _: True)
        assert (first.guild_id, second.guild_id) == (1, 2)
        scheduler.serve(1, new_tokens=1)
        assert scheduler.next(lambda _: True).guild_id == 2

    def test_both_guilds_get_the_same_whatever_one_of_them_asks_for(self):
        scheduler: Scheduler[int] = Scheduler()
        for number in range(300):
            scheduler.add(QueuedRequest(1, 50, number, number))
            if number < 40:
                scheduler.add(QueuedRequest(2, 50, number, number))
        first = [scheduler.next(lambda _: True).guild_id for _ in range(60)]
        assert first.count(2) == 30

    def test_one_that_waits_for_a_slot_is_passed_a_few_times_and_no_more(self):
        scheduler: Scheduler[str] = Scheduler()
        scheduler.add(QueuedRequest(1, 0, 0, "stuck"))
        for number in range(MAX_OVERTAKEN + 3):
            scheduler.add(QueuedRequest(1, 0, 1 + number, "free"))
        passed = 0
        while scheduler.next(lambda ticket: ticket.item == "free"):
            passed += 1
        assert passed == MAX_OVERTAKEN
        assert scheduler.next(lambda _: True).item == "stuck"
        assert scheduler.next(lambda _: True).item == "free", "the way is clear again"

    def test_what_is_not_ready_holds_nobody_up(self):
        scheduler: Scheduler[str] = Scheduler()
        scheduler.add(QueuedRequest(1, 0, 0, "being read"))
        for number in range(30):
            scheduler.add(QueuedRequest(1, 0, 1 + number, "free"))
        assert all(scheduler.next(lambda t: True if t.item == "free" else None) for _ in range(30))
        assert len(scheduler) == 1


class TestPlaces:
    """How many may wait."""

    def test_a_guild_alone_gets_what_was_set_and_others_still_find_room(self):
        places = AdmissionControl(30, at_once=4)
        for _ in range(30):
            places.take(1)
        with pytest.raises(
            EngineBusyError, match=r"26 replies are waiting already\. Try again in about 135 s"
        ) as refused:
            places.take(1)
        assert 130 < places.wait_s() == refused.value.wait_s < 140
        places.take(2)
        with pytest.raises(EngineBusyError):
            for _ in range(30):
                places.take(2)
        places.take(3)

    def test_the_estimate_follows_what_is_measured(self):
        now = [0.0]
        places = AdmissionControl(30, 4, lambda: now[0])
        for _ in range(21):
            places.take(1)
        for _ in range(20):
            now[0] += 0.5
            places.give_back(1)
        for _ in range(19):
            places.take(1)
        assert 9 < places.wait_s() < 12
        places.give_back(1)
        now[0] += 1000  # nobody waited through a pause as long as there was nothing to do
        assert places.wait_s() < 12


def ref(name: str) -> AdapterRef:
    return AdapterRef(name, "v1", Path(name))


class Table:
    """Seats whose reading ends when it is told to."""

    def __init__(self, slots: int) -> None:
        self.put: list[tuple[int, str]] = []
        self.gone: list[str] = []
        self.broken: set[str] = set()
        self.reads = 0
        self.heard = threading.Event()
        self.seats = LoraSlots(slots, self._read, lambda slot, w: self.put.append((slot, w.ref.persona_id)),
                           lambda r: self.gone.append(r.persona_id), self.heard.set)  # fmt: skip

    def _read(self, adapter: AdapterRef) -> AdapterWeights:
        self.reads += 1
        if adapter.persona_id in self.broken:
            raise AdapterError("It is damaged.")
        return AdapterWeights(adapter, None if adapter.persona_id == "dora" else {})

    def take(self, name: str):
        """Have it read, then take a seat."""
        self.seats.prefetch([ref(name)])
        self.seats._reader.submit(lambda: None).result()
        return self.seats.take(ref(name))


@pytest.fixture
def table():
    table = Table(2)
    yield table
    table.seats.close()


class TestSeats:
    """Which adapter sits where."""

    def test_the_longest_unused_leaves_and_one_in_use_never(self, table):
        a, b = table.take("a"), table.take("b")
        assert {a.slot, b.slot} == {1, 2} and table.take("c") is None and table.seats.is_read(ref("c"))
        table.seats.give_back(a)
        assert table.take("a") == a, "it is still here"
        table.seats.give_back(b)
        c = table.take("c")
        assert c.slot == b.slot and table.put[-1] == (b.slot, "c")
        assert table.take("b") is None, "it has left, and the others are in use"
        assert table.seats.take(None) == BASE_MODEL_SLOT

    def test_two_rows_share_a_seat_and_it_is_free_when_both_have_left(self, table):
        a, again, _ = table.take("a"), table.take("a"), table.take("b")
        table.seats.give_back(a)
        assert a == again and table.take("c") is None
        table.seats.give_back(again)
        assert table.take("c").slot == a.slot

    def test_dropping_waits_for_the_rows_and_who_comes_then_reads_anew(self, table):
        a, left = table.take("a"), Future()
        table.seats.drop(ref("a"), lambda: left.set_result(None))
        assert not left.done() and table.take("a") is None, "no new row on what is leaving"
        table.seats.give_back(a)
        assert left.done() and table.gone == ["a"] and table.reads == 1
        assert table.take("a").slot and table.reads == 2

    def test_what_cannot_be_read_is_an_error_each_time(self, table):
        table.broken.add("a")
        for _ in range(2):
            with pytest.raises(AdapterError, match="damaged"):
                table.take("a")
        table.broken.clear()
        assert table.take("a")

    def test_what_only_peft_computes_takes_no_slot(self, table):
        assert table.take("dora").slot is None and table.take("a") and table.take("b")

    def test_no_more_is_read_ahead_than_agreed(self, table):
        table.seats.prefetch([ref(f"p{n}") for n in range(50)])
        table.seats._reader.submit(lambda: None).result()
        assert table.reads == MAX_PREFETCHED_ADAPTERS and table.heard.is_set()
