"""Kernels: the best that are here and keep samples apart; others are tried, passed over and
named.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from transformers.models.llama import modeling_llama

from personas.models.loading import load_model
from personas.prompt.renderer import TokenizedSample
from tests.model_families import FAMILIES
from tools.tiny_models import make_model
from trainer.machine import MachineSpec
from trainer.train import kernels as choice
from trainer.train.collator import lay_out, reply_losses
from trainer.train.kernels import choose_kernels, use_grouped_attention
from trainer.train.layout_probe import plain_losses

CPU = MachineSpec(has_cuda=False, best="bf16")
CUDA = MachineSpec(has_cuda=True, best="bf16")


@pytest.fixture
def model(tiny_base):
    return load_model(tiny_base, "float32")


@pytest.fixture
def wanted(recipe):
    return lambda **changes: recipe.model_copy(update=changes)


def installed(monkeypatch, *ways):
    monkeypatch.setattr(choice, "is_flash_attn_2_available", lambda: "flash_attention_2" in ways)


def test_on_a_cpu_what_prompts_share_is_computed_once(model, wanted):
    use_grouped_attention(model)
    kernels = choose_kernels(model, wanted(), CPU)
    assert kernels.layout == "padded"
    assert kernels.notes[0] == (
        "Attention: grouped_matmul, what the prompts of a batch share computed once."
    )
    assert kernels.notes[-2:] == ("Optimiser: adamw_torch_fused.", "Liger: needs CUDA.")
    checkpointed = choose_kernels(model, wanted(gradient_checkpointing=True), CPU)
    assert checkpointed.notes[0] == "Attention: grouped_matmul, samples padded."


def test_on_a_gpu_samples_lie_in_rows_after_what_their_prompts_share(model, wanted):
    kernels = choose_kernels(model, wanted(), CUDA)
    assert kernels.layout == "rows" and kernels.shares_prefix
    assert kernels.notes[0] == (
        "Attention: sdpa, samples in one row, what their prompts share computed once."
    )
    assert choose_kernels(model, wanted(), CUDA, pads=True).layout == "padded"


@pytest.mark.parametrize("name", ["Mistral", "Gemma 2"])
def test_samples_lie_in_rows_where_layers_see_less_than_a_sample(
    name, wanted, monkeypatch, tmp_path
):
    """In all layers, or in some; with masks that overlook the window they do not."""
    family = replace(FAMILIES[name], settings={**FAMILIES[name].settings, "sliding_window": 24})
    base = make_model(family, tmp_path / "model")
    narrow = load_model(base, "float32")
    samples = [sample_of(*range(10, 60)), sample_of(*range(10, 40), *range(100, 130))]
    expected = plain_losses(narrow, samples)
    kernels = choose_kernels(narrow, wanted(max_length=512), CUDA)
    assert kernels.layout == "rows" and narrow.config.sliding_window == 24
    losses = reply_losses(narrow, lay_out(samples, "rows"))
    assert torch.allclose(losses, expected, rtol=1e-5, atol=1e-6)

    monkeypatch.setattr("trainer.train.collator.sliding_window", lambda config: 0)
    assert not torch.allclose(reply_losses(narrow, lay_out(samples, "rows")), expected, rtol=1e-3)
    installed(monkeypatch)
    again = load_model(base, "float32")
    assert choose_kernels(again, wanted(max_length=512), CUDA).layout == "padded"


def sample_of(*ids):
    return TokenizedSample(ids, (False,) * (len(ids) - 8) + (True,) * 8)


def test_samples_lie_in_no_rows_where_a_model_overlooks_their_mask(model, wanted, monkeypatch):
    installed(monkeypatch)
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda *_, attention_mask=None, **inputs: forward(**inputs)
    )
    kernels = choose_kernels(model, wanted(), CUDA)
    assert kernels.layout == "padded"
    assert "the losses are not those of a sample alone" in kernels.notes[1]


@pytest.fixture
def no_rows(monkeypatch):
    """A model whose samples cannot lie in rows."""
    monkeypatch.setattr(choice, "row_obstacle", lambda model: "they do not fit")


@pytest.mark.parametrize("works", [True, False])
def test_on_a_gpu_flash_attention_packs_where_it_works(model, wanted, monkeypatch, no_rows, works):
    """It refuses a CPU; where it works here, it is torch's own attention under another name."""
    installed(monkeypatch, "flash_attention_2")
    if works:
        monkeypatch.setattr(choice, "FLASH_ATTENTION", "sdpa")
    kernels = choose_kernels(model, wanted(), CUDA)
    assert model.config._attn_implementation == "sdpa"
    assert kernels.layout == ("packed" if works else "padded")
    layout = "samples packed" if works else "what the prompts of a batch share"
    assert kernels.notes[0].startswith(f"Attention: sdpa, {layout}")
    assert kernels.notes[1].endswith("in a row: they do not fit.")
    assert any("flash_attention_2 was not used" in note for note in kernels.notes) != works


def test_on_a_gpu_without_such_attention_nothing_is_packed_by_itself(
    model, wanted, monkeypatch, no_rows
):
    installed(monkeypatch)
    assert choose_kernels(model, wanted(), CUDA).layout == "padded"
    assert model.config._attn_implementation == "sdpa"


def test_samples_are_never_packed_where_they_would_see_each_other(
    model, wanted, monkeypatch, no_rows
):
    installed(monkeypatch, "flash_attention_2")
    monkeypatch.setattr(choice, "FLASH_ATTENTION", "sdpa")
    monkeypatch.setattr(
        "transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None
    )
    kernels = choose_kernels(model, wanted(), CUDA)
    assert kernels.layout == "padded"
    assert any("not used" in note and "see each other" in note for note in kernels.notes)


@pytest.fixture
def fake_liger(monkeypatch):
    """Liger's one entrance, which patches as Liger does and records how it was called."""
    calls = []

    def apply(model, **options):
        calls.append(options)
        rotary = modeling_llama.apply_rotary_pos_emb
        modeling_llama.apply_rotary_pos_emb = lambda q, k, *rest, **_: rotary(
            q * module.factor, k, *rest
        )
        for layer in model.model.layers:
            own = layer.mlp.forward
            vars(layer.mlp)["forward"] = lambda x, own=own: own(x) * module.factor

    for name in (
        "liger_kernel",
        "liger_kernel.transformers",
        "liger_kernel.transformers.monkey_patch",
    ):
        module = ModuleType(name)
        module.__spec__ = __spec__
        monkeypatch.setitem(sys.modules, name, module)
    module._apply_liger_kernel_to_instance = apply
    module.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply}
    module.factor = 1 + 1e-5
    return calls


def test_liger_is_used_where_it_is_installed_and_taken_off_after_the_run(
    model, wanted, monkeypatch, fake_liger
):
    installed(monkeypatch)
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    rotary = modeling_llama.apply_rotary_pos_emb
    kernels = choose_kernels(model, wanted(), CUDA)
    assert kernels.liger and kernels.notes[-1].startswith("Liger: its RMSNorm")
    with kernels.in_use(model):
        assert fake_liger == [{"cross_entropy": False, "fused_linear_cross_entropy": False}] * 2, (
            "probed, then used"
        )
        assert not torch.equal(model(input_ids=ids).logits, before)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert modeling_llama.apply_rotary_pos_emb is rotary


def test_why_liger_is_not_used_is_said(model, wanted, monkeypatch, fake_liger):
    installed(monkeypatch)
    sys.modules["liger_kernel.transformers.monkey_patch"].MODEL_TYPE_TO_APPLY_LIGER_FN = {}
    assert re.search("Liger: .*kind llama", choose_kernels(model, wanted(), CUDA).notes[-1])
    liger = sys.modules["liger_kernel.transformers.monkey_patch"]
    liger.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    liger.factor = 1.1
    kernels = choose_kernels(model, wanted(), CUDA)
    assert "Liger: gives other losses" in kernels.notes[-1] and not kernels.liger
    monkeypatch.delitem(sys.modules, "liger_kernel")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    kernels = choose_kernels(model, wanted(), CUDA)
    assert kernels.notes[-1] == "Liger: not installed." and not kernels.liger
