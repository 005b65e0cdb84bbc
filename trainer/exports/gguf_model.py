"""A whole model as one GGUF file, and read back through transformers' own reader of such files."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter, Keys, RopeScalingType

from personas.prompt import Renderer
from trainer.exports.architectures import Architecture, Array, architecture_of, head_size, rope_type
from trainer.exports.errors import ExportError
from trainer.exports.gguf_files import (
    FILE_TYPES,
    Entry,
    Quantise,
    kind_for,
    open_gguf,
    rounded,
    tensor_of,
    value_of,
    write_gguf,
)
from trainer.exports.gguf_tokenizer import write_tokenizer

ROPE_FACTORS = "rope_freqs.weight"
YARN_KEYS = {"beta_fast", "beta_slow", "attention_factor", "truncate", "mscale", "mscale_all_dim"}
"""Settings of YaRN of which only llama.cpp's defaults are written here."""


def write_model(path: Path, model: Any, renderer: Renderer, quantise: Quantise, name: str) -> None:
    """The model, whose weights are float32, with tokenizer and chat template. Raises `ExportError`, `OSError`."""
    config = model.config
    architecture = architecture_of(config)

    def describe(writer: GGUFWriter) -> None:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[quantise])
        writer.add_quantization_version(2)
        _describe(writer, config)
        write_tokenizer(writer, renderer, config.vocab_size)

    entries = [_rope_entry(model)] if rope_type(config) == "llama3" else []
    write_gguf(path, architecture.gguf, describe, [*entries, *_entries(model, architecture, quantise)])


def round_to(model: Any, quantise: Quantise) -> None:
    """Round the model's weights, in place, as the file's format does: what the format alone explains."""
    for _, weight in _weights(model):
        weight.copy_(torch.from_numpy(rounded(weight.numpy(), kind_for(tuple(weight.shape), quantise))))


def load_model_back(path: Path) -> Any:
    """The model that a file holds, in float32, positions scaled as llama.cpp does it from what the file says.

    Raises `ExportError` for a damaged file.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    reader = open_gguf(path)
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    arch = value_of(reader, "general.architecture")
    config.head_dim = value_of(reader, Keys.Attention.KEY_LENGTH.format(arch=arch))  # transformers reads it for some
    config.rope_parameters = _rope_parameters(reader, arch)
    quiet = logging.getLogger("transformers")
    before = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with contextlib.redirect_stderr(io.StringIO()):  # its counter of tensors
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                config=config,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise ExportError(f"{path.name} cannot be loaded back: {error}.", "Report this fault.") from error
    finally:
        quiet.setLevel(before)
    _scale_positions(model, reader)
    return model.eval()


# ------------------------------------------------------------------------------------------------ writing


def _describe(writer: GGUFWriter, config: Any) -> None:
    head = head_size(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    kind = rope_type(config)
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    if kind == "yarn":
        unusual = [key for key in YARN_KEYS if config.rope_parameters.get(key) is not None]
        if unusual:
            raise ExportError(
                f"This model's YaRN has settings that are not written to GGUF here: {', '.join(sorted(unusual))}.",
                "Export --to merged.",
            )
        writer.add_rope_scaling_orig_ctx_len(
            config.rope_parameters.get("original_max_position_embeddings") or config.max_position_embeddings
        )


def _entries(model: Any, architecture: Architecture, quantise: Quantise) -> list[Entry]:
    names = architecture.names(model.config)
    entries = []
    for name, weight in _weights(model):
        stem, _, suffix = name.rpartition(".")
        gguf_stem = names.get_name(stem)
        if gguf_stem is None:
            raise ExportError(f"{name} has no name in GGUF.", "Export --to merged.")
        gguf_name = f"{gguf_stem}.{suffix}"
        shape = tuple(weight.shape)
        values = _stored(weight, architecture, gguf_name, model.config)
        entries.append(Entry(gguf_name, shape, kind_for(shape, quantise), values))
    return entries


def _stored(weight: Any, architecture: Architecture, name: str, config: Any) -> Callable[[], Array]:
    return lambda: architecture.stored(weight.detach().float().numpy(), name, config)


def _weights(model: Any) -> list[tuple[str, Any]]:
    """Every weight once: tied ones under the name of the embedding."""
    return [(name, weight.detach()) for name, weight in model.named_parameters()]


def _rope_entry(model: Any) -> Entry:
    """What llama.cpp divides the frequencies by. Llama 3 scales each, and the model has them computed already."""
    rotary = model.model.rotary_emb
    factors = (_frequencies(rotary.config) / rotary.inv_freq.float().cpu()).numpy()
    return Entry(ROPE_FACTORS, tuple(factors.shape), kind_for(factors.shape, "f16"), lambda: factors)


def _frequencies(config: Any) -> torch.Tensor:
    head = head_size(config)
    theta: float = config.rope_parameters["rope_theta"]
    return torch.pow(theta, -torch.arange(0, head, 2, dtype=torch.float32) / head)


# ------------------------------------------------------------------------------------------------ reading


def _rope_parameters(reader: GGUFReader, arch: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": value_of(reader, Keys.Rope.FREQ_BASE.format(arch=arch)),
    }
    if kind := value_of(reader, Keys.Rope.SCALING_TYPE.format(arch=arch)):
        found |= {"rope_type": kind, "factor": value_of(reader, Keys.Rope.SCALING_FACTOR.format(arch=arch))}
    if original := value_of(reader, Keys.Rope.SCALING_ORIG_CTX_LEN.format(arch=arch)):
        found["original_max_position_embeddings"] = original
    return found


def _scale_positions(model: Any, reader: GGUFReader) -> None:
    """Divide the frequencies by the factors in the file, which transformers leaves out."""
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            rotary = model.model.rotary_emb
            scaled = _frequencies(model.config) / torch.from_numpy(np.array(tensor_of(tensor)))
            rotary.inv_freq = rotary.original_inv_freq = scaled
