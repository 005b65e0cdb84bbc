"""A multimodal base model: its language model alone is adapted, and a merged export keeps what
reads pictures.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from personas.engine.peft_runner import PeftSwitcher
from personas.home.adapters import WEIGHTS_FILE, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import fingerprint, locate
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef, Persona, Turn
from personas.schemas.hyperparameters import Hyperparameters
from tests.model_families import FAMILIES, SLIDING
from tests.tiny_models import manifest_over
from tools.tiny_models import make_tokenizer
from trainer.export.exporter import ExportRequest, export_merged
from trainer.export.loaded_adapter import open_adapter
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.recipe.model_fit import match_target_modules
from trainer.recipe.parent_adapter import find_parent_adapter, load_parent_weights
from trainer.train.sft_trainer import add_lora_adapter, train_sft
from trainer.train.trainer_base import StageInputs

PROCESSORS = {
    "preprocessor_config.json": {"size": 32},
    "processor_config.json": {"image_seq_length": 4},
}
TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "sliding_window": SLIDING, "max_position_embeddings": 2048, "initializer_range": 0.1,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma") / "model"
    tokenizer = make_tokenizer(FAMILIES["Gemma 3"])
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
    }
    tokens = dict(
        zip(
            ("image_token_index", "boi_token_index", "eoi_token_index"),
            range(len(tokenizer), 600),
            strict=False,
        )
    )
    text = {**TEXT, **ids, "vocab_size": len(tokenizer) + len(tokens)}
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=VISION, mm_tokens_per_image=4, **tokens
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in PROCESSORS.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return locate(str(folder))


@pytest.fixture(scope="module")
def settings(base):
    from trainer.recipe.recipe_file import load_recipe

    changes = Hyperparameters(
        precision="fp32", quant_type="none", max_steps=3, eval_strategy="no", lora_r=4
    )
    return fit_to_hardware(match_target_modules(load_recipe("demo-cpu", changes), base)[0])


@pytest.fixture(scope="module")
def adapter(base, settings, tmp_path_factory):
    renderer = Renderer(load_tokenizer(base))
    ada = Persona("ada", "Ada", description="You are Ada.")
    samples = [
        renderer.sample(ada, [Turn("Bo", f"what is it, number {n}?")], "I sit by the sea.")
        for n in range(4)
    ]
    stage = StageInputs(samples, samples[:2], settings, lambda _: None)
    model = train_sft(base, renderer.tokenizer, stage).model
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    with atomic_folder(folder) as aside:
        model.save_pretrained(aside, save_embedding_layers=False)
        write_manifest(aside, manifest_over(base, None, "v1"))
    return folder


def test_only_the_language_model_is_adapted(base, settings, adapter):
    weights = load_file(adapter / WEIGHTS_FILE)
    assert weights and all(".language_model." in name for name in weights)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in weights}
    assert adapted == set(settings.target_modules)


def test_what_only_a_vision_tower_has_is_no_target(base, recipe):
    wider = recipe.model_copy(update={"target_modules": ("q_proj", "fc1", "out_proj")})
    settings, notes = match_target_modules(wider, base)
    assert (
        settings.target_modules == ("q_proj",) and "fc1: left out; out_proj: left out" in notes[0]
    )


def test_it_can_be_trained_further(base, settings, adapter):
    parent = find_parent_adapter(adapter, base)
    assert (
        parent
        and parent.shaped(settings, Hyperparameters()).target_modules == settings.target_modules
    )
    model = add_lora_adapter(load_model(base, "float32"), settings)
    load_parent_weights(adapter, model)


def test_a_merged_export_keeps_the_vision_tower_and_the_processors_files(base, adapter, tmp_path):
    with open_adapter(adapter, None) as source:
        export_merged(ExportRequest(source, tmp_path / "merged", "f16", lambda text: None))
    for name, content in PROCESSORS.items():
        assert json.loads((tmp_path / "merged" / name).read_text(encoding="utf-8")) == content
    plain, merged = (
        load_model(locate(it), "float32") for it in (base.source, str(tmp_path / "merged"))
    )
    towers = dict(merged.model.vision_tower.named_parameters())
    for name, weight in plain.model.vision_tower.named_parameters():
        assert torch.equal(weight, towers[name])
    ids = torch.tensor([list(range(5, 25))])
    adapted = PeftSwitcher(plain, fingerprint(base))
    with torch.inference_mode(), adapted.use(AdapterRef("dialogue", "v1", adapter)):
        torch.testing.assert_close(
            merged(input_ids=ids).logits, adapted.model(input_ids=ids).logits, rtol=0.05, atol=0.05
        )
