"""Each outside call of a reply fails 1 to 20 times in a row, and no text that was generated is
lost.
"""

import pytest

from tests.chaos.failing_calls import FAULTS, MAX_TIMES, cases, run_cases


async def test_no_call_of_a_reply_that_fails_twenty_times_loses_text():
    every = list(cases(FAULTS, (MAX_TIMES,)))
    of_discord = [case for case in every if "," in case[0]]
    rest = [case for case in every if "," not in case[0]]
    chosen = of_discord[::5] + rest[::3]  # each call of Discord once, by another fault
    assert {case[0].partition(",")[0] for case in of_discord} == {
        case[0].partition(",")[0] for case in of_discord[::5]
    }
    outcome = await run_cases(chosen)
    assert outcome.tried == len(chosen) and outcome.is_clean, outcome


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_call_of_a_reply_that_fails_any_number_of_times_loses_text(fault):
    chosen = list(cases([fault], range(1, MAX_TIMES + 1)))
    outcome = await run_cases(chosen)
    assert outcome.tried == len(chosen) and outcome.is_clean, outcome
