"""Which linear layers get an adapter: found from the model, learned, and named where some have
none.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from personas.errors import TrainingError
from personas.models.loading import load_model
from tests.model_families import FAMILIES, OTHER_FAMILIES
from tools.tiny_models import make_model
from trainer.recipe.recipe_file import load_recipe, recipe_names
from trainer.recipe.target_modules import FULL_COVERAGE, find_target_modules
from trainer.schemas import ALL_LINEAR
from trainer.train.lora_layers import adapter_coverage, lora_targets
from trainer.train.sft_trainer import add_lora_adapter

ALL_FAMILIES = {**FAMILIES, **OTHER_FAMILIES}
MIXTURES = (
    "DeepSeek-V2",
    "DeepSeek-V3",
    "Qwen3-Next",
    "Granite-4-H",
    "Nemotron-H",
    "Llama 4",
    "gpt-oss",
)
STATE_SPACES = ("Falcon-H1", "Bamba", "Mamba", "Mamba 2")
IN_EVERY_RUN = ("SmolLM2", "Phi-3", "DeepSeek-V3", "Gemma 3", "Qwen3.5", "gpt-oss", "Mamba")
"""Layers as Llama's, fused, of low rank, with other norms, of linear attention, stacked experts, and
a state.
"""
COMPUTED = [
    name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow)
    for name in ALL_FAMILIES
]
IDS = torch.tensor([[7, 3, 41, 12, 5, 5, 88, 20, 31, 6]])
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    bases = {}

    def make(name):
        if name not in bases:
            bases[name] = make_model(ALL_FAMILIES[name], folder / name)
        return bases[name]

    return make


def adapted(base, names=(ALL_LINEAR,), precision="float32"):
    """Return the model with an adapter whose matrices are random, so that it changes the logits."""
    model = load_model(base, "float32").to(getattr(torch, precision))
    lora = LoraConfig(r=4, target_modules=lora_targets(model, names), task_type="CAUSAL_LM")
    peft_model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(1)
    for name, weight in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return peft_model


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_a_plan_names_the_layers_that_the_loaded_model_has(base_of, name):
    targets = find_target_modules(base_of(name), (ALL_LINEAR,))
    model = adapted(base_of(name))
    layers = {path.split(".lora_A")[0] for path, _ in model.named_modules() if ".lora_A." in path}
    assert set(targets.names) == {path.rpartition(".")[2] for path in layers}
    assert targets.coverage == pytest.approx(adapter_coverage(model), abs=1e-9)
    assert targets.coverage + sum(targets.left_out.values()) == pytest.approx(1)
    is_partial = name in (*MIXTURES, *STATE_SPACES)
    assert (targets.coverage < FULL_COVERAGE) == is_partial == bool(targets.notes)
    for layer in targets.left_out:
        assert layer in targets.notes[0]


@pytest.mark.parametrize("name", COMPUTED)
def test_every_layer_with_an_adapter_learns(base_of, name):
    """An adapter on a layer that the model computes past would stay as it was drawn."""
    model = adapted(base_of(name)).train()
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    weights = {path: weight for path, weight in model.named_parameters() if "lora_" in path}
    untouched = [
        path for path, weight in weights.items() if weight.grad is None or not weight.grad.any()
    ]
    assert not untouched


@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize("name", COMPUTED)
@torch.inference_mode()
def test_a_merged_model_has_the_adapters_logits_and_not_the_bases(base_of, name):
    # torch multiplies stacked experts in at most 32 bits.
    model = adapted(base_of(name), precision="float32" if name in MIXTURES else "float64").eval()
    tuned = model(input_ids=IDS, use_cache=False).logits
    with model.disable_adapter():
        plain = model(input_ids=IDS, use_cache=False).logits
    merged = model.merge_and_unload()(input_ids=IDS, use_cache=False).logits
    change = (tuned - plain).abs().max()
    assert change > 1e-2 * plain.abs().max()
    # Some models compute parts in float32 whatever their weights are.
    assert (merged - tuned).abs().max() < 1e-3 * change


def test_no_shipped_recipe_misses_a_layer():
    assert {load_recipe(name).target_modules for name in recipe_names()} == {(ALL_LINEAR,)}


def test_a_list_of_names_is_a_choice_that_is_said(base_of):
    chosen = find_target_modules(base_of("Qwen3.5"), ("q_proj", "v_proj"))
    assert chosen.names == ("q_proj", "v_proj")
    assert chosen.coverage < 0.3
    [note] = chosen.notes
    assert "No adapter: " in note and "in_proj_qkv (" in note
    assert f"target_modules={ALL_LINEAR} " in note
    llama = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert find_target_modules(base_of("Llama 3.2"), llama).notes == ()


def test_a_layer_that_the_model_lacks_is_refused(base_of, recipe):
    with pytest.raises(TrainingError, match=rf"none of the modules.*c_attn.*{ALL_LINEAR}"):
        find_target_modules(base_of("Llama 3.2"), ("c_attn",))
    model = load_model(base_of("Llama 3.2"), "float32")
    for names in (("q_proj", "c_attn"), ("c_attn",)):
        changed = recipe.model_copy(update={"target_modules": names})
        with pytest.raises(TrainingError, match="no linear layers c_attn"):
            add_lora_adapter(model, changed)


def test_experts_and_routers_stay_as_they_are(base_of):
    targets = find_target_modules(base_of("gpt-oss"), (ALL_LINEAR,))
    assert "experts of a mixture" in targets.notes[0]
    for path, _ in adapted(base_of("gpt-oss")).named_modules():
        assert not (".lora_A." in path and ("experts" in path or "router" in path))
