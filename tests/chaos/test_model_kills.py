"""A bot with a real model and a real trainer that is killed, or has no memory, loses and doubles
nothing.
"""

import pytest

from tests.chaos import model_kills


@pytest.fixture(scope="module")
def base():
    with model_kills.tiny_model() as folder:
        yield folder


# Half a minute: test_bot_process kills such a bot in mid-reply in every run.
@pytest.mark.slow
async def test_a_bot_killed_in_the_engine_or_anywhere_ends_each_reply_once(base):
    outcome = await model_kills.run(3, 1, base, model_kills.REPLY_KINDS)
    assert outcome.tried == 3 and outcome.is_clean, outcome


# A minute: killed trainers and bots are in every run with a fake trainer (test_trainer_kills), and a
# real trainer that is killed in test_run.
@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 2])
async def test_a_trainer_or_its_bot_that_is_killed_ends_in_one_version(base, kills):
    outcome = await model_kills.run(kills, 2, base, model_kills.TRAINING_KINDS, per_check=2)
    assert outcome.tried == kills and outcome.is_clean, outcome


@pytest.mark.slow
async def test_a_step_without_memory_ends_no_bot(base):
    outcome = await model_kills.run_out_of_memory(2, 1, base)
    assert outcome.tried == 2 and outcome.is_clean, outcome
