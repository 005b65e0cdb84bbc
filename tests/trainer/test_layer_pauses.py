"""A function is called between the layers of a model, forward and backward, and only inside the
block.
"""

import pytest
import torch
from torch import nn

from personas.models.loading import load_model
from trainer.train.trainer_base import between_layers


@pytest.mark.parametrize("checkpointing", [False, True])
def test_called_before_each_layer_forward_and_backward_and_nothing_changes(
    tiny_base, checkpointing
):
    model = load_model(tiny_base, "float32")
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    layers = len(model.model.layers)
    ids = torch.arange(24)[None]

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [weight.grad.clone() for weight in model.parameters()]

    before = gradients()
    calls = []
    with between_layers(model, lambda: calls.append(torch.is_grad_enabled())):
        inside = gradients()
        assert len(calls) >= 2 * layers, "forward and backward"
        calls.clear()
        with torch.no_grad():
            model(input_ids=ids)
        assert len(calls) == layers
    calls.clear()
    after = gradients()
    assert not calls
    assert all(torch.equal(one, other) for one, other in zip(before, inside, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_it_raises_ends_the_batch_and_it_is_gone_afterwards(tiny_base):
    model = load_model(tiny_base, "float32")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), between_layers(model, stop):
        model(input_ids=torch.arange(8)[None])
    assert model(input_ids=torch.arange(8)[None]).logits.isfinite().all()


def test_a_layer_whose_first_input_is_no_tensor_is_waited_for_all_the_same():
    class Layer(nn.Module):
        def forward(self, count: int) -> int:
            return count + 1

    model = nn.ModuleList([Layer(), Layer()])
    calls = []
    with between_layers(model, lambda: calls.append(0)):
        assert model[1](model[0](1)) == 3
    assert len(calls) == 2
