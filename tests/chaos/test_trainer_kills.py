"""Killed bots and trainers lose and double no training; the queue keeps to its model."""

import pytest

from tests.chaos.trainer_kills import kill_processes, walk_queue


def test_killed_at_any_moment_a_job_ends_in_one_version():
    outcome = kill_processes(3, seed=1)
    assert outcome.tried == 3 and outcome.is_clean, outcome


@pytest.mark.slow
async def test_fifteen_hundred_steps_of_the_queue():
    assert (await walk_queue(1500, seed=1)).total() == 1500
