"""Models of published shapes with random weights: speed and memory depend on the shape, not on the
weights.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

QWEN_3B = MappingProxyType(
    {
        "model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    }
)  # fmt: skip
"""config.json of Qwen/Qwen2.5-3B-Instruct."""

LLAMA_3B = MappingProxyType(
    {
        "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
        "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    }
)  # fmt: skip
"""config.json of meta-llama/Llama-3.2-3B-Instruct."""

SMOLLM_135M = MappingProxyType(
    {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    }
)  # fmt: skip
"""config.json of HuggingFaceTB/SmolLM2-135M-Instruct."""

TINY_SHAPE = MappingProxyType(
    {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 49152,
    }
)  # fmt: skip
MEMORY_FOLDER = Path("/dev/shm")  # nosec B108  # a file system in memory, for files of this process
MODEL_BYTES = 12 * 2**30
"""Space for a 3B model in 16 bits, and for adapters."""


def compute_device() -> str:
    """Return `cuda` where torch can use a card, else `cpu`."""
    import torch  # takes seconds

    return "cuda" if torch.cuda.is_available() else "cpu"


def write_random_model(
    shape: Mapping[str, Any], folder: Path, tokenizer: Any, *, tiny: bool
) -> None:
    """Write a model of this shape with random bf16 weights and this tokenizer.

    The weights are drawn on the card if there is one: a processor takes minutes for three billion.
    """
    import torch  # takes seconds, as transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(shape)
    if tiny:
        settings |= TINY_SHAPE
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(**{**settings, **ids})
    torch.manual_seed(0)
    with torch.device(compute_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def scratch_parent(needed_bytes: int = MODEL_BYTES) -> Path:
    """Return a folder for models: in memory where that has so many bytes free, else on the disk.

    Each measured process reads the model again, and a rented disk can take minutes for it.
    """
    if MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free >= 2 * needed_bytes:
        return MEMORY_FOLDER
    return Path(tempfile.gettempdir())
