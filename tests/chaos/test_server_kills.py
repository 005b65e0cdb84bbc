"""A llama.cpp server that is killed loses no reply, doubles none, and no persona speaks with
another's voice.
"""

import os

import pytest

from tests.chaos import server_kills
from tests.real_llama import llama_program

SECONDS = float(os.environ.get("SERVER_KILLS_SECONDS", "120"))


@pytest.mark.slow
async def test_three_voices_on_one_server_that_is_killed_twice(record_property):
    with server_kills.open_town(llama_program()) as town:
        outcome, voices = await server_kills.run_for(SECONDS, 1, town)
    record_property("figures", f"{dict(outcome.faults)}, {voices}; {outcome}")
    assert outcome.is_clean, outcome
    assert outcome.faults == {"server kills": 2, "promotions": 1}
    assert voices.replies == outcome.tried > SECONDS / 4 and voices.foreign_words == 0
