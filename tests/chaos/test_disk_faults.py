"""A disk that fails at any write, once or for good, costs no reply that was promised."""

from tests.chaos.disk_faults import run


async def test_a_write_that_fails_anywhere_loses_and_doubles_nothing():
    outcome = await run(step=60, seed=3)
    assert outcome.tried >= 16 and outcome.is_clean, outcome
