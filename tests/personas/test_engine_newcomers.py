"""Where one server's replies take all rows, another's begin at once, up to its share."""

import pytest
import torch

from personas.engine.scheduler import SchedulerLimits
from tests.personas.engine_schedules import Asked, House, differences, run_out


@pytest.fixture(scope="module")
def house(tmp_path_factory, tiny_base):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield House(tmp_path_factory.mktemp("house"), tiny_base, torch.float64, adapters=0, prompts=3)
    torch.set_num_threads(before)


def test_servers_without_a_row_get_one_beside_a_flood(house):
    parts = house.parts(SchedulerLimits(rows=2, overflow_rows=2), 2, 0)
    asked = {
        (guild, number): Asked(house.questions[number % 3], 6)
        for guild, count in ((1, 6), (2, 2), (3, 1), (4, 1))
        for number in range(count)
    }
    for (guild, _), one in asked.items():
        if guild == 1:
            parts.batch.scheduler.add(one.sequence(guild))
    parts.batch.step()
    assert parts.batch.running == 2, "one server alone gets the rows that there are"
    for (guild, _), one in asked.items():
        if guild > 1:
            parts.batch.scheduler.add(one.sequence(guild))
    parts.batch.step()
    begun = {key for key, one in asked.items() if one.tokens_made}
    assert begun == {(1, 0), (1, 1), (2, 0), (3, 0)}, "there is a bound, too"
    run_out(parts)
    parts.close()
    assert differences(list(asked.values())) == (0, [])


def test_a_quiet_servers_second_and_third_talk_begin_beside_a_flood_too_up_to_its_share(house):
    parts = house.parts(SchedulerLimits(rows=6, overflow_rows=5), 2, 0)
    flood = [Asked(house.questions[number % 3], 6) for number in range(12)]
    quiet = [Asked(house.questions[number % 3], 6) for number in range(4)]
    late = Asked(house.questions[0], 6)
    for one in flood:
        parts.batch.scheduler.add(one.sequence(1))
    parts.batch.step()
    for one in quiet:
        parts.batch.scheduler.add(one.sequence(2))
    parts.batch.step()
    assert [bool(one.tokens_made) for one in quiet] == [True, True, True, False], "half of the rows are its share"
    parts.batch.scheduler.add(late.sequence(3))
    parts.batch.step()
    assert late.tokens_made, "a server that has none finds room still"
    assert sum(bool(one.tokens_made) for one in flood) == 6
    run_out(parts)
    parts.close()
    assert differences([*flood, *quiet, late]) == (0, [])


def test_its_prompt_is_not_computed_after_those_of_a_flood(house):
    parts = house.parts(SchedulerLimits(rows=8, prefill_tokens=30, solo_prefill_tokens=30), 2, 0)
    flood = [Asked(max(house.questions, key=lambda question: len(question.prompt)), 4) for _ in range(6)]
    quiet = Asked(min(house.questions, key=lambda question: len(question.prompt)), 4)
    for one in flood:
        parts.batch.scheduler.add(one.sequence(1))
    parts.batch.step()
    parts.batch.scheduler.add(quiet.sequence(2))
    while not quiet.tokens_made:
        parts.batch.step()
    assert sum(bool(one.tokens_made) for one in flood) <= 2, "the flood's others are still to come"
    run_out(parts)
    parts.close()
    assert differences([*flood, quiet]) == (0, [])
