"""The fair queue under random arrivals: nobody starves, no row idles, backlogged guilds and members
get the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.engine.fair_queue import NEW_TOKEN_COST_IN_PROMPT_TOKENS, FairQueue

MAX_PROMPT = 60
MAX_TOKENS = 30
MAX_COST = MAX_PROMPT + MAX_TOKENS * NEW_TOKEN_COST_IN_PROMPT_TOKENS


@dataclass(eq=False)
class Waiting:
    """A sequence without a model."""

    guild_id: int
    member_id: int
    prompt: tuple[int, ...]
    tokens: int
    queued_at: float


class Rows:
    """Rows that serve a queue, a token of each per step; `served` counts what guilds and members
    got.
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.queue, self.now = rows, FairQueue(), 0
        self.running: list[Waiting] = []
        self.started: list[Waiting] = []
        self.served: Counter[object] = Counter()

    def add(self, guild: int, member: int, prompt: int = 10, tokens: int = 5) -> Waiting:
        self.now += 1
        seq = Waiting(guild, member, (0,) * prompt, tokens, self.now)
        self.queue.add(seq)
        return seq

    def step(self) -> None:
        while self.queue and len(self.running) < self.rows:
            seq = next(iter(self.queue))
            self.queue.start(seq)
            self.running.append(seq)
            self.started.append(seq)
            self._count(seq, len(seq.prompt))
        for seq in list(self.running):
            self.queue.count_token(seq)
            self._count(seq, NEW_TOKEN_COST_IN_PROMPT_TOKENS)
            seq.tokens -= 1
            if not seq.tokens:
                self.running.remove(seq)
                self.queue.end(seq)

    def backlogged(self) -> tuple[set[int], dict[int, set[int]]]:
        members: dict[int, set[int]] = {}
        for seq in self.queue:
            members.setdefault(seq.guild_id, set()).add(seq.member_id)
        return set(members), members

    def _count(self, seq: Waiting, tokens: int) -> None:
        self.served[seq.guild_id] += tokens
        self.served[seq.guild_id, seq.member_id] += tokens


ARRIVALS = st.lists(
    st.one_of(
        st.just(None),  # a step
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 3),
            st.integers(1, MAX_PROMPT),
            st.integers(1, MAX_TOKENS),
            st.integers(1, 8),
        ),
    ),
    max_size=120,
)


@given(ARRIVALS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_rows_never_idle_and_the_backlogged_get_the_same(arrivals, rows):
    machine = Rows(rows)
    leads: dict[
        object, tuple[int, int]
    ] = {}  # pairs that wait without a pause: the least and the largest difference

    def step() -> None:
        waiting = len(machine.queue)
        free = rows - len(machine.running)
        started = len(machine.started)
        machine.step()
        assert len(machine.started) - started == min(free, waiting), (
            "a row idled while somebody waited"
        )
        _compare(machine, leads)

    for arrival in arrivals:
        if arrival:
            *request, count = arrival
            for _ in range(count):
                machine.add(*request)
        step()
    for _ in range(len(arrivals) * 8 * MAX_TOKENS):
        if not machine.queue:
            break
        step()
    assert not machine.queue and len(set(map(id, machine.started))) == len(machine.started), (
        "somebody starved"
    )


def _compare(machine: Rows, leads: dict[object, tuple[int, int]]) -> None:
    """Bound the difference of service between any two that have waited without a pause."""
    guilds, members = machine.backlogged()
    pairs = [*combinations(sorted(guilds), 2)]
    for guild, of_guild in members.items():
        pairs += combinations([(guild, member) for member in sorted(of_guild)], 2)
    differences = {pair: machine.served[pair[0]] - machine.served[pair[1]] for pair in pairs}
    for gone in leads.keys() - differences.keys():
        del leads[gone]
    for pair, difference in differences.items():
        low, high = leads.get(pair, (difference, difference))
        leads[pair] = min(low, difference), max(high, difference)
        assert leads[pair][1] - leads[pair][0] <= 2 * machine.rows * MAX_COST, pair


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, MAX_TOKENS))
@settings(max_examples=40, deadline=None)
def test_a_flooding_member_delays_another_by_one_reply(flood, before, tokens):
    machine = Rows(1)
    for _ in range(flood):
        machine.add(1, 7, tokens=tokens)
    for _ in range(before):
        machine.step()
    begun = len(machine.started)
    light = machine.add(1, 8, tokens=tokens)
    while light not in machine.started:
        machine.step()
    assert len(machine.started) - begun <= 2, "at most one reply begins before the light member's"


def test_members_of_one_guild_take_nothing_from_another():
    machine = Rows(1)
    for member in range(10, 20):
        for _ in range(5):
            machine.add(1, member)
    for _ in range(50):
        machine.add(2, 1)
    while len(machine.started) < 40:
        machine.step()
    assert Counter(seq.guild_id for seq in machine.started) == {1: 20, 2: 20}
    assert set(Counter(seq.member_id for seq in machine.started if seq.guild_id == 1).values()) == {
        2
    }


@pytest.mark.parametrize("key", ["guild", "member"])
def test_one_who_returns_has_saved_nothing_up(key):
    machine = Rows(1)
    name = (lambda who: (who, 1)) if key == "guild" else (lambda who: (1, who))
    for _ in range(30):
        machine.add(*name(5))
    while len(machine.started) < 10:
        machine.step()
    late = [machine.add(*name(6)) for _ in range(10)]
    while late[4] not in machine.started:
        machine.step()
    assert 8 <= len(machine.started) - 10 <= 11, (
        "they take turns: no credit for the time before, and no debt"
    )


def test_one_that_waited_long_precedes_its_guilds_newcomers():
    machine = Rows(1)
    machine.queue = FairQueue(lambda seq, running: seq.queued_at == 2 and not running)
    machine.add(1, 5, tokens=3)
    late = machine.add(1, 5)
    machine.step()
    for member in range(6, 30):
        machine.add(1, member)
    while late not in machine.started:
        machine.step()
    assert len(machine.started) == 2


def test_nothing_is_kept_of_those_who_have_gone():
    machine = Rows(2)
    machine.add(1, 1, tokens=10_000)
    for number in range(2, 2000):
        machine.add(number, number)
        while len(machine.running) < 2 or machine.queue:
            machine.step()
    queue = machine.queue
    assert len(queue._guilds) <= 2 and len(queue._counters.served) <= 20 and len(queue) == 0
    assert sum(len(guild.counters.served) for guild in queue._guilds.values()) <= 4
