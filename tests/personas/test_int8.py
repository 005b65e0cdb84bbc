"""Linear layers with int8 weights: what they are rounded to, what they compute, and what peft makes
of them.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from personas.engine.peft_runner import PeftSwitcher
from personas.home.adapters import WEIGHTS_FILE
from personas.models.int8_linear import Int8Linear, is_int8_model, quantise_model, quantise_rows
from personas.models.serving_model import load_serving_model, precision_of
from personas.schemas.chat import AdapterRef
from tests.personas.test_engine_kernel import tiny


def linear(inputs: int, outputs: int, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.nn.Linear(inputs, outputs, dtype=dtype)


def test_a_weight_is_off_by_half_a_step_at_most():
    weight = linear(96, 40).weight.detach()
    values, factors = quantise_rows(weight)
    assert values.dtype == torch.int8 and values.abs().max() == 127
    steps = weight.abs().amax(1, keepdim=True) / 127
    assert (
        (values * factors[:, None] - weight).abs() / steps
    ).max() < 0.8  # half, and what the factor's rounding adds


def test_an_output_without_weights_stays_without():
    weight = torch.zeros(3, 8)
    weight[1] = 0.5
    values, factors = quantise_rows(weight)
    assert torch.equal(values * factors[:, None] != 0, weight != 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 9, 30])
def test_it_multiplies_with_the_weights_that_it_tells(rows, dtype):
    layer = Int8Linear(linear(64, 48, dtype))
    x = torch.randn(2, rows, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.inference_mode():
        said = layer(x)
        meant = torch.nn.functional.linear(
            x.double(), layer.values.double() * layer.factors.double()[:, None], layer.bias.double()
        )
    assert said.dtype == dtype and said.shape == (2, rows, 48)
    torch.testing.assert_close(
        said.double(),
        meant,
        **(
            {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
        ),
    )
    torch.testing.assert_close(
        layer.weight.double(),
        layer.values.double() * layer.factors.double()[:, None],
        atol=1e-3,
        rtol=0.01,
    )


def test_all_linear_layers_of_a_model_are_rounded_and_a_tied_head_is_untied():
    model = tiny("qwen2")
    before = model.model.embed_tokens.weight.clone()
    names = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    quantise_model(model)
    assert {
        name for name, module in model.named_modules() if isinstance(module, Int8Linear)
    } == names
    assert (
        "lm_head" in names
        and torch.equal(model.model.embed_tokens.weight, before)
        and is_int8_model(model)
    )
    model.tie_weights()
    assert isinstance(model.lm_head, Int8Linear)


def test_a_served_model_says_that_it_is_so(tiny_base):
    assert precision_of(load_serving_model(tiny_base, "int8", "cpu")) == "int8"
    assert precision_of(load_serving_model(tiny_base, "nf4", "cpu")) == "nf4"


class TestAdapters:
    """Over int8 weights peft computes what it computes over a model of the same weights in
    float32.
    """

    @staticmethod
    def over(model, folder):
        """The logits of a prompt under the adapter."""
        adapted = PeftSwitcher(model, "")
        ref = AdapterRef("ada", "v1", folder)
        adapted.attach(ref)
        with torch.inference_mode():
            return adapted.model(input_ids=torch.arange(5, 25)[None]).logits

    @pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
    def test_they_lie_over_it(self, tmp_path, options):
        learned = get_peft_model(
            tiny("llama", 192).float(),
            LoraConfig(
                r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **options
            ),
        )
        torch.manual_seed(4)
        for name, weight in learned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        learned.save_pretrained(tmp_path)
        assert any("lora_B" in name for name in load_file(tmp_path / WEIGHTS_FILE))
        served = quantise_model(tiny("llama", 192).float())
        same = tiny("llama", 192).float()
        for name, module in served.named_modules():
            if isinstance(module, Int8Linear):
                same.get_submodule(name).weight.data = module.weight
        ours = self.over(served, tmp_path)
        meant = self.over(same, tmp_path)
        assert (ours - meant).abs().max() < 1e-3 < meant.abs().max()
