"""The counts of `make test-vllm`: a reply that was lost, doubled or of another version is counted
as such.
"""

from types import SimpleNamespace

import pytest

from personas.errors import EngineBusyError
from personas.schemas.chat import AdapterRef, ChatReply
from tests.personas.vllm_servers.faults import FaultResult, FaultRun, ReferenceReply

EXPECTED = "The lamps of the quay are lit at seven, and nobody counts them twice."


@pytest.fixture
def run(renderer, tmp_path):
    run = FaultRun(None, [], SimpleNamespace(renderer=renderer))
    ids = tuple(renderer.tokenizer(EXPECTED, add_special_tokens=False)["input_ids"])
    for version in (None, AdapterRef("ada", "v1", tmp_path)):
        run.references[run.ask(1, version)] = ReferenceReply(EXPECTED, ids, (1.0,) * len(ids))
    return run


def judged(
    run: FaultRun, text: str, version: str | None = None, reply_text: str = "", **other
) -> FaultResult:
    result = FaultResult("a fault", **other)
    reply = ChatReply(reply_text or text, version, 0, 1, 1, "length")
    run.judge(
        SimpleNamespace(
            request=run.ask(1, None), text=text, error=None, stream=SimpleNamespace(reply=reply)
        ),
        result,
    )
    return result


def test_an_equal_reply_counts_as_nothing(run):
    result = judged(run, f" {EXPECTED}")
    assert (result.tried, result.lost, result.doubled, result.wrong, result.failed) == (
        1,
        0,
        0,
        0,
        False,
    )


@pytest.mark.parametrize(
    "text", ["", EXPECTED[:30], EXPECTED[:20] + EXPECTED[28:], "Another text altogether."]
)
def test_what_is_missing_is_lost(run, text):
    result = judged(run, text)
    assert (result.lost, result.doubled, result.failed) == (1, 0, True)


@pytest.mark.parametrize("again", [8, 20, 35])
def test_a_piece_that_comes_twice_is_doubled(run, again):
    result = judged(run, EXPECTED[:40] + EXPECTED[40 - again :])
    assert (result.lost, result.doubled, result.failed) == (0, 1, True)


def test_pieces_that_are_not_the_reply_are_doubled(run):
    assert judged(run, EXPECTED + EXPECTED, reply_text=EXPECTED).doubled == 1


def test_another_version_is_wrong_and_an_error_is_lost(run):
    assert judged(run, EXPECTED, version="v1").wrong == 1
    result = FaultResult("a fault")
    run.judge(
        SimpleNamespace(
            request=run.ask(1, None), text="", error=EngineBusyError("The queue is full.")
        ),
        result,
    )
    assert result.lost == 1 and result.notes == ["The queue is full."]


def test_a_difference_where_two_tokens_are_equally_likely_is_a_near_tie(run):
    request = run.ask(1, None)
    before = run.references[request]
    run.references[request] = ReferenceReply(
        before.text, before.ids, (1.0, 1.0, 1e-5, *before.leads[3:])
    )
    assert judged(run, "The lamps burn.").near_ties == 1
    assert judged(run, "A lamp burns.").lost == 1, "it differs before the near tie"


def test_a_late_recovery_fails_and_so_does_a_fault_that_was_never_tried(run):
    assert judged(run, EXPECTED, max_recovery_s=10.0).failed, "nothing recovered"
    assert judged(run, EXPECTED, max_recovery_s=10.0, recovery_s=11.0).failed
    assert not judged(run, EXPECTED, max_recovery_s=10.0, recovery_s=2.0).failed
    assert FaultResult("a fault").failed
