"""A disk that fails at any write, once or for good, costs no reply that was promised."""

import pytest

from tests.chaos.disk_faults import run


@pytest.mark.parametrize(
    ("step", "at_least"), [(120, 8), pytest.param(60, 16, marks=pytest.mark.slow)]
)
async def test_a_write_that_fails_anywhere_loses_and_doubles_nothing(step, at_least):
    outcome = await run(step=step, seed=3)
    assert outcome.tried >= at_least and outcome.is_clean, outcome
