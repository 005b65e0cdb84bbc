"""A bot that is killed at any write or request finishes each reply once."""

import pytest

from tests.chaos.failpoints import Plan
from tests.chaos.reply_kills import run


@pytest.mark.parametrize(
    ("first", "kills"),
    [
        (1, 8),
        pytest.param(9, 52, marks=pytest.mark.slow),
        *(pytest.param(first, 60, marks=pytest.mark.slow) for first in (61, 121, 181, 241)),
    ],
)
async def test_a_bot_killed_anywhere_loses_doubles_and_leaves_nothing(first, kills):
    outcome = await run(kills=kills, seed=first)
    assert outcome.tried == kills and len(outcome.faults) >= kills // 6, outcome.faults
    assert outcome.is_clean, outcome


def test_a_plan_names_what_is_done_and_where():
    assert Plan.parse("ENOSPC@5+:file.*") == Plan("ENOSPC", 5, True, "file.*")
    assert [Plan.parse("EIO@3").applies(number) for number in (2, 3, 4)] == [False, True, False]
    assert not Plan.parse("").applies(0)
    with pytest.raises(ValueError, match="'explode' is neither kill"):
        Plan.parse("explode@3")
