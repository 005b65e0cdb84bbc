"""Batches: sharing and padding change no sample's loss, and sorting loses nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from trainer.estimate.workload import group_by_length
from trainer.train.collator import IGNORE_INDEX, collate, pack, reply_losses, shared_prefix_length
from trainer.train.kernels import SharedDropout, share_dropout
from trainer.train.losses import mean_loss

SHARED = (5, 6, 7, 8, 9)


def sample(prompt: tuple[int, ...], reply: tuple[int, ...]) -> TokenizedSample:
    return TokenizedSample(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, "float32")


def test_pads_need_no_token_of_their_own(model):
    """The end of turn may serve as pad: what fills the rows is never looked at, and real ones are
    still trained.
    """
    short = sample((*SHARED, 11), (2,))
    long = sample((*SHARED, 12, 13, 14), (15, 16, 2))
    losses = []
    for pad in (0, 2, 4000):
        batch = collate([short, long])
        batch["input_ids"][0, 2:] = pad
        losses.append(reply_losses(model, batch))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])
    assert len(losses[0]) == 4


def test_only_replies_are_labelled_and_the_last_prompt_token_is_never_shared():
    same = [sample((1, 2, 3), (4, 5))] * 3
    assert shared_prefix_length(same) == 2
    batch = collate([*same, sample((1, 2, 9, 9), (5,))])
    assert batch["prefix_ids"].tolist() == [[1, 2]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 4, 5]] * 3 + [
        [IGNORE_INDEX, IGNORE_INDEX, 5]
    ]
    assert batch["lengths"].tolist() == [5, 5, 5, 5]


def test_packed_samples_lie_in_one_row_and_each_begins_at_the_first_position():
    batch = pack(
        [sample((1, 2, 3), (4, 5)), sample((6,), (7,)), TokenizedSample((8, 9), (True, True))]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [
        [*[IGNORE_INDEX] * 3, 4, 5, IGNORE_INDEX, 7, IGNORE_INDEX, 9]
    ]
    assert batch["prefix_ids"].shape == (1, 0) and batch["lengths"].tolist() == [5, 2, 2]


def test_one_prompt_token_cannot_be_shared():
    assert shared_prefix_length([sample((1,), (2,))]) == 0


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 5)
)
def test_sorting_by_length_loses_and_doubles_nothing(lengths, batch_size, seed):
    order = group_by_length(lengths, batch_size, seed)
    assert sorted(order) == list(range(len(lengths)))
    assert order == group_by_length(lengths, batch_size, seed)


def test_sorted_batches_hold_like_lengths_in_an_order_that_the_seed_decides():
    lengths = [n % 97 for n in range(512)]
    order = group_by_length(lengths, 8, 0)
    spread = [
        max(b) - min(b) for b in ([lengths[p] for p in order[i : i + 8]] for i in range(0, 512, 8))
    ]
    assert sum(spread) / len(spread) < 20
    assert order != group_by_length(lengths, 8, 1)


def test_dropout_is_drawn_once_for_one_input_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout = SharedDropout(0.05).train()
    values = torch.ones(400, 577, requires_grad=True)
    dropped = dropout(values)
    assert dropout(values) is dropped and dropout(values.clone()) is not dropped
    assert (dropped == 0).float().mean().item() == pytest.approx(13 / 256, rel=0.05)
    assert dropped.mean().item() == pytest.approx(1, rel=0.01)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
    assert dropout.eval()(values) is values


def test_all_adapters_get_the_shared_dropout(tiny_base):
    from peft import LoraConfig, get_peft_model

    peft_model = get_peft_model(
        load_model(tiny_base, "float32"),
        LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "down_proj"]),
    )
    share_dropout(peft_model)
    found = [
        module for name, module in peft_model.named_modules() if "lora_dropout.default" in name
    ]
    assert (
        found
        and all(module is found[0] for module in found)
        and isinstance(found[0], SharedDropout)
    )


def test_an_average_needs_losses():
    with pytest.raises(ValueError, match="no losses"):
        mean_loss([])
