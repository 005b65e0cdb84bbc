"""Base models to measure, each as a transformers folder and as a GGUF file in Q4_K_M."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers.utils import logging

from benchmarks.gpu.random_models import write_random_model
from benchmarks.llama_cpp.build import LlamaBuild
from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.gguf_file import unpack_gguf
from personas.models.gguf_header import read_header
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from tools.real_model import ModelUnavailableError, fetch_real_model
from trainer.export.gguf_model import write_model

GGUF_FILE = "q4_k_m.gguf"
QUANTISATION = "Q4_K_M"
TIMEOUT_S = 1800.0

_QWEN3 = {
    "model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}  # fmt: skip
QWEN3_1_7B = MappingProxyType(
    {**_QWEN3, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
)  # fmt: skip
"""config.json of Qwen/Qwen3-1.7B."""
QWEN3_4B = MappingProxyType(
    {**_QWEN3, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
)  # fmt: skip
"""config.json of Qwen/Qwen3-4B."""


@dataclass(frozen=True)
class MeasuredModel:
    """A base model in both forms."""

    base: BaseModel
    gguf: Path


def real_model(folder: Path, build: LlamaBuild) -> MeasuredModel:
    """Return Qwen2.5-Coder-0.5B-Instruct, fetched on first use. Raises `ModelUnavailableError`."""
    file = fetch_real_model()
    unpacked = folder / "model"
    if not (unpacked / "config.json").exists():
        logging.disable_progress_bar()
        unpack_gguf(file, unpacked, file.name, header=read_header(file))
    return MeasuredModel(locate(str(unpacked)), file)


def random_model(folder: Path, build: LlamaBuild, shape: Mapping[str, Any]) -> MeasuredModel:
    """Return a model of this shape with random weights, written on first use: its speed and memory
    are those of the trained one. Its 4-bit file is made by llama.cpp from the same weights.
    """
    written = folder / "model"
    if not (written / "config.json").exists():
        aside = folder / "model.part"
        shutil.rmtree(aside, ignore_errors=True)
        tokenizer = load_tokenizer(locate(EMBEDDED))
        write_random_model(shape, aside, tokenizer, tiny=False)
        aside.rename(written)
    base = locate(str(written))
    file = folder / GGUF_FILE
    if not file.exists():
        wide = folder / "f16.gguf"
        renderer = Renderer(load_tokenizer(base))
        write_model(wide, load_model(base, "bfloat16"), renderer, "f16", folder.name)
        aside = file.with_suffix(".part")
        command = [build.quantize, str(wide), str(aside), QUANTISATION]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            raise ModelUnavailableError(f"llama-quantize failed: {done.stderr.strip()[-300:]}")
        aside.rename(file)
        wide.unlink()
    return MeasuredModel(base, file)


Maker = Callable[[Path, LlamaBuild], MeasuredModel]
MODELS: Mapping[str, Maker] = MappingProxyType(
    {
        "qwen2.5-0.5b": real_model,
        "qwen3-1.7b-shape": lambda folder, build: random_model(folder, build, QWEN3_1_7B),
        "qwen3-4b-shape": lambda folder, build: random_model(folder, build, QWEN3_4B),
    }
)
"""Makers of the measured models by name: real weights, then random ones of two shapes."""
