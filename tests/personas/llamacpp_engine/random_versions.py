"""Versions of random weights over the bundled model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from personas.home.adapters import WEIGHTS_FILE, adapter_ref, require_manifest, write_manifest
from personas.models.base_model import BaseModel
from personas.schemas.chat import AdapterRef
from tools.tiny_models import TINY_MODELS, make_adapter

SPREAD = 0.03
"""Standard deviation of weights that clearly change the model's replies."""


def random_version(
    home: Path, base: BaseModel, version: str, *, seed: int, spread: float = SPREAD
) -> AdapterRef:
    """Install a version of random weights over the bundled model."""
    ref = adapter_ref(home, "ada", version)
    ref.folder.parent.mkdir(parents=True, exist_ok=True)
    make_adapter(replace(TINY_MODELS["SmolLM2"], lora={"r": 4}), base, ref.folder, "ada")
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(tensor.shape, generator=generator) * spread
        for name, tensor in load_file(ref.folder / WEIGHTS_FILE).items()
    }
    save_file(drawn, ref.folder / WEIGHTS_FILE)
    write_manifest(ref.folder, require_manifest(ref.folder))
    return ref
