"""Tensors in huge pages: zeros of every shape, alone and side by side, and a moved model with the
same logits.
"""

import copy

import torch

from personas.engine import hugepages
from personas.engine.lora_slots import AdapterWeights, StackedLora
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef


def test_zeros_begin_a_page_and_are_nobody_elses():
    one, other = (
        hugepages.zeros_in_huge_pages((3, 1000, 512), torch.float32, "cpu") for _ in range(2)
    )
    one.fill_(7)
    assert (
        one.data_ptr() % hugepages.HUGE_PAGE_BYTES == 0
        and other.shape == (3, 1000, 512)
        and not other.any()
    )
    small = hugepages.zeros_in_huge_pages((2, 3), torch.bfloat16, "cpu")
    assert small.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_side_by_side_they_do_not_overlap():
    shapes = [(3, 5), (0, 4), (1000, 999), (7,), (1, 1, 1)]
    parts = hugepages.packed_zeros_in_huge_pages(shapes, torch.bfloat16, "cpu")
    for number, part in enumerate(parts):
        part.fill_(number)
    assert [tuple(part.shape) for part in parts] == shapes
    assert all((part == number).all() for number, part in enumerate(parts))
    assert all(part.data_ptr() % hugepages.ALIGNMENT_BYTES == 0 for part in parts if part.numel())


def test_they_outlive_what_they_were_made_with():
    part = hugepages.packed_zeros_in_huge_pages([(600, 1000), (600, 1000)], torch.float32, "cpu")[1]
    part.fill_(3)
    torch.ones(10**6)
    assert float(part.sum()) == 3 * 600 * 1000


def test_a_model_that_is_moved_is_the_same(tiny_base):
    model = load_model(tiny_base, "float32")
    moved = copy.deepcopy(model)
    ids = torch.tensor([[5, 6, 7]])
    places = {name: weight.data_ptr() for name, weight in moved.named_parameters()}
    hugepages.move_weights_to_huge_pages(moved)
    assert all(weight.data_ptr() != places[name] for name, weight in moved.named_parameters())
    assert moved.lm_head.weight.data_ptr() == moved.model.embed_tokens.weight.data_ptr(), (
        "they are one still"
    )
    with torch.inference_mode():
        assert torch.equal(moved(ids).logits, model(ids).logits)


def test_a_stack_doubles_until_there_is_room_for_all_that_are_expected():
    linears = {"wide": torch.nn.Linear(8, 12), "narrow": torch.nn.Linear(4, 4)}
    stack = StackedLora(linears, torch.float32, "cpu", slots=6)

    def weights(fill: float, rank: int, *layers: str) -> AdapterWeights:
        pairs = {
            name: (
                torch.full((rank, linears[name].in_features), fill),
                torch.full((rank, linears[name].out_features), fill),
            )
            for name in layers
        }
        return AdapterWeights(AdapterRef("a", str(fill), None), pairs)

    sizes = []
    for slot in (1, 2, 3, 4, 6):
        stack.put(slot, weights(slot, 4, "wide"))
        sizes.append(len(stack.pairs["wide"][0]))
    assert sizes == [3, 3, 7, 7, 7] and "narrow" not in stack.pairs
    stack.put(5, weights(5, 6, "wide", "narrow"))
    a, b = stack.pairs["wide"]
    assert (
        a.shape == (7, 8, 8)
        and b.shape == (7, 8, 12)
        and stack.pairs["narrow"][0].shape == (7, 8, 4)
    )
    for slot, rank in ((1, 4), (2, 4), (3, 4), (4, 4), (5, 6), (6, 4)):
        assert (
            (a[slot, :rank] == slot).all() and not a[slot, rank:].any() and not b[slot, rank:].any()
        )
    assert not a[0].any() and not stack.pairs["narrow"][0][[0, 1, 2, 3, 4, 6]].any()
