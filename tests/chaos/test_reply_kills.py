"""A bot that is killed at any write or request finishes each reply once."""

import pytest

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
