"""Random schedules: whatever shares the batch, each reply is what peft generates for its request
alone.
"""

import pytest
import torch

from tests.personas.engine_reference import ReferenceModel, differences, play, poison

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tiny_base):
    return ReferenceModel(tmp_path_factory.mktemp("exact"), tiny_base, torch.float64)


@pytest.fixture(scope="module")
def single(tmp_path_factory, tiny_base):
    return ReferenceModel(tmp_path_factory.mktemp("single"), tiny_base, torch.float32)


def count(reference, seeds) -> tuple[int, int]:
    """Count the replies, and those that differ where the two best logits are close. Fails on other
    differences.
    """
    replies = close = 0
    for seed in seeds:
        recorded = play(reference, seed)
        differing, wrong = differences(recorded)
        assert not wrong, f"schedule {seed}: {wrong}"
        replies = replies + len(recorded)
        close = close + differing
    return replies, close


def test_every_reply_is_pefts_token_for_token(exact, monkeypatch):
    poison(monkeypatch)
    replies, close = count(exact, range(20))
    assert replies > 40 and close == 0


@pytest.mark.slow
def test_a_thousand_schedules(exact, single, monkeypatch):
    poison(monkeypatch)
    exact_replies, exact_close = count(exact, range(10_000, 10_750))
    replies, close = count(single, range(20_000, 20_250))
    print(
        f"float64: {exact_close} of {exact_replies}, float32: {close} of {replies} differ between "
        "logits within 1e-4"
    )
    assert exact_close == 0
