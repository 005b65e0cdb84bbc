"""Tiny real models and adapters, made in a second, for tests that serve and train for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from personas.home.adapters import adapter_ref, dialogue_adapter_folder, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models.base_model import BaseModel, fingerprint, locate
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef
from personas.schemas.training import AdapterManifest
from personas.schemas.training_events import ScoreSummary
from tools.tiny_models import TINY_MODELS, make_model

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_tiny_model(folder: Path, tokenizer: Any, seed: int = 0, width: int = 64) -> None:
    """Two layers with four heads, random weights, the given tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def overflowing_model(folder: Path) -> BaseModel:
    """Write a model whose weights fit into float16 and whose activations do not, as Gemma 3's."""
    made = make_model(TINY_MODELS["SmolLM2"], folder)
    model = load_model(made, "float32")
    for layer in model.model.layers:
        layer.mlp.up_proj.weight.data *= 1e3
        layer.mlp.down_proj.weight.data *= 1e3
    model.to(torch.bfloat16).save_pretrained(folder)
    return locate(str(folder))


def make_adapter(
    home: Path, base: BaseModel, persona_id: str, version: str, seed: int, rank: int = 4
) -> AdapterRef:
    """A sealed adapter folder whose random weights clearly change what the model says."""
    ref = adapter_ref(home, persona_id, version)
    write_adapter(ref.folder, base, manifest_over(base, persona_id, version), seed, rank)
    return ref


def make_dialogue_adapter(
    home: Path, base: BaseModel, name: str, seed: int, job_id: str = "test"
) -> Path:
    """The folder of a dialogue adapter, sealed as above."""
    folder = dialogue_adapter_folder(home, name)
    manifest = manifest_over(base, None, "v1").model_copy(update={"job_id": job_id})
    write_adapter(folder, base, manifest, seed)
    return folder


def write_adapter(
    folder: Path, base: BaseModel, manifest: AdapterManifest, seed: int, rank: int = 4
) -> None:
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_model(base, "float32"), lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    with atomic_folder(folder) as aside:
        model.save_pretrained(aside)
        write_manifest(aside, manifest)


def manifest_over(base: BaseModel, persona_id: str | None, version: str) -> AdapterManifest:
    """A manifest in which only base model, persona and version mean something."""
    scores = ScoreSummary(
        heldout_replies=1,
        heldout_tokens=1,
        loss_base=1.0,
        loss_tuned=1.0,
        general_loss_base=1.0,
        general_loss_tuned=1.0,
        precision="float32",
    )
    return AdapterManifest(
        persona=persona_id,
        version=version,
        job_id="test",
        created_at="2026-01-01T00:00:00Z",
        base_model=base.name,
        base_model_hash=fingerprint(base),
        prompt_version="1",
        lora={},
        recipe="demo-cpu",
        hyperparameters={},
        training_precision="float32",
        serving_precision="float32",
        dataset_hash="",
        dataset={},
        rights={},
        seed=0,
        packages={},
        metrics=scores,
        checksums={},
    )
