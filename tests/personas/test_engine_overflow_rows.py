"""When one server's replies take all rows, another's start at once, up to its share."""

import pytest
import torch

from personas.engine.fair_scheduler import SchedulerLimits
from tests.personas.engine_reference import RecordedReply, ReferenceModel, differences, run_to_end


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ReferenceModel(
        tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=0, prompts=3
    )
    torch.set_num_threads(before)


def test_servers_without_a_row_get_one_beside_a_flood(reference):
    parts = reference.parts(SchedulerLimits(rows=2, overflow_rows=2), 2, 0)
    recorded = {
        (guild, number): RecordedReply(reference.questions[number % 3], 6)
        for guild, count in ((1, 6), (2, 2), (3, 1), (4, 1))
        for number in range(count)
    }
    for (guild, _), one in recorded.items():
        if guild == 1:
            parts.batch.scheduler.add(one.sequence(guild))
    parts.batch.step()
    assert parts.batch.running == 2, "one server alone gets the rows that there are"
    for (guild, _), one in recorded.items():
        if guild > 1:
            parts.batch.scheduler.add(one.sequence(guild))
    parts.batch.step()
    begun = {key for key, one in recorded.items() if one.generated}
    assert begun == {(1, 0), (1, 1), (2, 0), (3, 0)}, "overflow rows are bounded, too"
    run_to_end(parts)
    parts.close()
    assert differences(list(recorded.values())) == (0, [])


def test_a_quiet_servers_second_and_third_talk_begin_beside_a_flood_too_up_to_its_share(reference):
    parts = reference.parts(SchedulerLimits(rows=6, overflow_rows=5), 2, 0)
    flood = [RecordedReply(reference.questions[number % 3], 6) for number in range(12)]
    quiet = [RecordedReply(reference.questions[number % 3], 6) for number in range(4)]
    late = RecordedReply(reference.questions[0], 6)
    for one in flood:
        parts.batch.scheduler.add(one.sequence(1))
    parts.batch.step()
    for one in quiet:
        parts.batch.scheduler.add(one.sequence(2))
    parts.batch.step()
    assert [bool(one.generated) for one in quiet] == [True, True, True, False], (
        "half of the rows are its share"
    )
    parts.batch.scheduler.add(late.sequence(3))
    parts.batch.step()
    assert late.generated, "a server that has none finds room still"
    assert sum(bool(one.generated) for one in flood) == 6
    run_to_end(parts)
    parts.close()
    assert differences([*flood, *quiet, late]) == (0, [])


@pytest.mark.parametrize(("rows", "overflow_rows", "members", "begun"), [
    pytest.param(8, 8, (8, 9, 10), [True, True, False], id="at most a quarter of the rows"),
    pytest.param(8, 2, (8, 9, 10), [True, False, False], id="at most half of the overflow rows"),
    pytest.param(2, 8, (8, 9, 10), [True, False, False], id="more members than rows"),
    pytest.param(8, 8, (8, 8, 8), [True, True, False], id="one who asks twice"),
])  # fmt: skip
def test_members_get_a_row_beside_one_who_floods_their_server(
    reference, rows, overflow_rows, members, begun
):
    parts = reference.parts(SchedulerLimits(rows=rows, overflow_rows=overflow_rows), 2, 0)
    flood = [RecordedReply(reference.questions[number % 3], 6) for number in range(12)]
    light = [RecordedReply(reference.questions[number % 3], 6) for number in range(3)]
    late = RecordedReply(reference.questions[0], 6)
    for one in flood:
        parts.batch.scheduler.add(one.sequence(1, 7))
    parts.batch.step()
    for member, one in zip(members, light, strict=True):
        parts.batch.scheduler.add(one.sequence(1, member))
    parts.batch.step()
    assert [bool(one.generated) for one in light] == begun
    assert sum(bool(one.generated) for one in flood) == rows
    parts.batch.scheduler.add(late.sequence(2, 7))
    parts.batch.step()
    assert late.generated, "the others are for servers below their share"
    run_to_end(parts)
    parts.close()
    assert differences([*flood, *light, late]) == (0, [])
