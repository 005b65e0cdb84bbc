"""A disk that fails at any write, once or for good, costs no reply that was promised."""

import pytest

from tests.chaos.disk_faults import ERRORS, run


@pytest.mark.parametrize(
    ("step", "errors", "at_least"),
    [(240, ERRORS[1:], 2), pytest.param(60, ERRORS, 16, marks=pytest.mark.slow)],
)
async def test_a_write_that_fails_anywhere_loses_and_doubles_nothing(step, errors, at_least):
    outcome = await run(step=step, seed=3, errors=errors)
    assert outcome.tried >= at_least and outcome.is_clean, outcome
