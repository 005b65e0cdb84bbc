"""Short cuts are judged by what they compute, not by how 16 bits round it."""

import pytest
import torch

from personas.models.loading import load_model
from personas.models.probe import differs, float32_layers, plain_logits, probe_tokens
from tests.model_families import FAMILIES
from tools.tiny_models import make_model
from trainer.train import kernels
from trainer.train.fused_lora import LoraGroup
from trainer.train.layout_probe import adapter_gradients_differ, losses_differ, prefix_obstacle
from trainer.train.sft_trainer import add_lora_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(FAMILIES["Qwen2.5"], tmp_path_factory.mktemp("model") / "qwen")


@pytest.fixture
def coarse(base):
    """A model whose attention scores are as large as those of Qwen2.5, so that they are coarse in 16
    bits.
    """
    model = load_model(base, "bfloat16")
    for layer in model.model.layers:
        layer.self_attn.k_proj.bias.data.mul_(1000)
    return model


def grouped(model):
    return kernels._attention_set(model, kernels.GROUPED_ATTENTION)


@torch.no_grad()
def test_layers_compute_in_float32_and_keep_their_weights(base):
    model = load_model(base, "bfloat16")
    tokens = probe_tokens(model, 12)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    with float32_layers(model) as in_float32:
        logits = plain_logits(model, tokens)
    assert in_float32
    torch.testing.assert_close(logits, plain_logits(load_model(base, "float32"), tokens))
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_a_failure_on_the_way_leaves_the_weights_as_they_were(base, monkeypatch):
    model = load_model(base, "bfloat16")
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    monkeypatch.setattr(type(model.model.norm), "forward", lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError), float32_layers(model):
        model(input_ids=torch.tensor([[5, 6]]))
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    assert not any(module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_coarse_16_bits_are_no_reason_to_give_a_short_cut_up(coarse):
    tokens = probe_tokens(coarse, 12)
    plain = plain_logits(coarse, tokens)
    with grouped(coarse):
        assert differs(coarse, plain_logits(coarse, tokens), plain), "by rounding alone"
    assert not losses_differ(coarse, grouped(coarse))
    kernels.use_grouped_attention(coarse)
    assert coarse.config._attn_implementation == kernels.GROUPED_ATTENTION
    assert prefix_obstacle(coarse, trains=False) == ""


def test_a_wrong_attention_is_given_up_in_16_bits_too(coarse):
    attention = kernels.grouped_attention

    def unmasked(module, query, key, value, mask, scaling, **options):
        return attention(module, query, key, value, mask * 0, scaling, **options)

    kernels.AttentionInterface.register(kernels.GROUPED_ATTENTION, unmasked)
    try:
        assert losses_differ(coarse, grouped(coarse))
    finally:
        kernels.AttentionInterface.register(kernels.GROUPED_ATTENTION, attention)


@pytest.mark.parametrize("wrong", ["", "up_proj"])
def test_fused_adapters_are_compared_by_the_kind_of_layer(base, recipe, monkeypatch, wrong):
    """One kind of layer that learns something else is enough."""
    model = add_lora_adapter(load_model(base, "bfloat16"), recipe)
    paths = {module: path for path, module in model.named_modules()}
    scaling = LoraGroup._scaling

    def changed(group):
        is_wrong = [paths[layer].endswith(f".{wrong}") for layer in group._layers]
        pairs = zip(scaling(group), is_wrong, strict=True)
        return [scale * 3 if is_other else scale for scale, is_other in pairs]

    monkeypatch.setattr(LoraGroup, "_scaling", changed)
    assert adapter_gradients_differ(model, kernels.fused_lora(model)) == bool(wrong)
