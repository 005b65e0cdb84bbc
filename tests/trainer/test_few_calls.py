"""RMSNorm and rotary embeddings in few calls: the model's own values and gradients."""

from contextlib import ExitStack

import pytest
import torch

from personas.models.loading import load_model
from tests.model_families import FAMILIES
from tests.trainer.call_counter import CallCounter
from tools.tiny_models import make_model
from trainer.machine import MachineSpec
from trainer.train.few_calls import norms_in_one_call, rotation_in_few_calls
from trainer.train.kernels import FEW_CALL_PATCHES, few_call_patches

CARD = MachineSpec(has_cuda=True, best="bf16")
CPU = MachineSpec(has_cuda=False, best="bf16")
IDS = torch.arange(10, 40)[None]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    def load(name, precision="float32"):
        folder = tmp_path_factory.mktemp("models") / "model"
        return load_model(make_model(FAMILIES[name], folder), precision)

    return load


def computed(model, *patches):
    """Logits, the gradient at the embeddings, and the calls of both passes."""
    embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch(model))
        counter = stack.enter_context(CallCounter())
        logits = model(inputs_embeds=embedded, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits.square().mean(), embedded)
    return logits.detach(), gradient, counter


@pytest.mark.parametrize("patch", [norms_in_one_call, rotation_in_few_calls])
@pytest.mark.parametrize("name", ["Qwen2.5", "Qwen3"])
def test_values_and_gradients_stay_the_same(loaded, name, patch):
    """Qwen3 has norms of queries and keys, too."""
    model = loaded(name)
    plain = computed(model)
    patched = computed(model, patch)
    for found, expected in zip(patched[:2], plain[:2], strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not torch.equal(patched[0], plain[0]) or patched[2].calls != plain[2].calls
    again = computed(model)
    assert torch.equal(again[0], plain[0]) and again[2].calls == plain[2].calls


def test_a_rotation_takes_few_calls(loaded):
    model = loaded("Qwen2.5")
    assert computed(model, rotation_in_few_calls)[2].calls["slice_backward"] == 0
    assert computed(model)[2].calls["slice_backward"] >= 4 * model.config.num_hidden_layers


def test_norms_stay_in_the_precision_of_the_model_under_autocast(loaded):
    """Autocast would return float32: twice the memory."""
    model = loaded("Qwen2.5", "bfloat16")
    norm = model.model.layers[0].input_layernorm
    hidden = torch.randn(1, 4, model.config.hidden_size, dtype=torch.bfloat16)
    expected = norm(hidden)
    with norms_in_one_call(model), torch.autocast("cpu", torch.bfloat16):
        found = norm(hidden)
        assert found.dtype == torch.bfloat16
        assert norm(hidden.float()).dtype == torch.float32, "by the model's own"
    assert torch.allclose(found.float(), expected.float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["Qwen2.5", "Gemma 3"])
def test_only_a_card_uses_them_and_only_where_losses_stay_the_same(loaded, name):
    """Gemma's norms add 1 to their weights."""
    model = loaded(name)
    assert few_call_patches(model, CPU) == {}
    used = few_call_patches(model, CARD)
    left_out = set(FEW_CALL_PATCHES.values()) - set(used.values())
    assert left_out == ({norms_in_one_call} if name == "Gemma 3" else set())
