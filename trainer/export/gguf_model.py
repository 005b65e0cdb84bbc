"""Writes a whole model as one GGUF file, and reads it back."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter, Keys, RopeScalingType
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from personas.errors import ExportError
from personas.models.gguf_format import (
    FILE_TYPES,
    Array,
    GgufArchitecture,
    GgufTensor,
    Quantise,
    architecture_of,
    head_size,
    open_gguf,
    read_tensor,
    rope_type,
    round_values,
    tensor_type,
    write_gguf,
)
from personas.models.gguf_header import read_value
from personas.prompt.renderer import Renderer
from trainer.export.gguf_vocabulary import write_tokenizer
from trainer.export.llama_quantize import FAILURE_ADVICE, FILE_TYPE

Json = dict[str, Any]
ROPE_FACTORS = "rope_freqs.weight"
MAX_WEIGHT_ERROR = 0.25
"""Allowed root mean square of a quantised tensor's errors, as a share of its weights'. For normally
distributed weights Q4_K has some 0.07.
"""
YARN_KEYS = {"beta_fast", "beta_slow", "attention_factor", "truncate", "mscale", "mscale_all_dim"}
"""Settings of YaRN of which only llama.cpp's defaults are written here."""


def write_model(path: Path, model: Any, renderer: Renderer, quantise: Quantise, name: str) -> None:
    """Write a float32 model with tokenizer and chat template. Raises `ExportError`, `OSError`."""
    config = model.config
    architecture = architecture_of(config)

    def describe(writer: GGUFWriter) -> None:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[quantise])
        writer.add_quantization_version(2)
        _describe(writer, config)
        write_tokenizer(writer, renderer, config.vocab_size)

    entries = _entries(model, architecture, quantise)
    if rope_type(config) == "llama3":
        entries.insert(0, _rope_entry(model))
    write_gguf(path, architecture.gguf, describe, entries)


def round_weights(model: Any, quantise: Quantise) -> None:
    """Round the model's weights in place through the file's format, to measure the effect of the
    format alone.
    """
    for _, weight in _weights(model):
        kind = tensor_type(tuple(weight.shape), quantise)
        weight.copy_(torch.from_numpy(round_values(weight.numpy(), kind)))


def read_quantised_weights(model: Any, path: Path) -> None:
    """Replace the model's weights in place by those of a file into which llama.cpp quantised them, to
    measure the effect of the format alone.

    Raises `ExportError` for a damaged file, one of another type, and weights that are other ones.
    """
    reader = open_gguf(path)
    if read_value(reader, Keys.General.FILE_TYPE) != FILE_TYPE:
        raise ExportError(f"{path.name} is not of the type {FILE_TYPE.name}.", FAILURE_ADVICE)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = architecture_of(model.config)
    for gguf_name, weight in _named_weights(model, architecture):
        if gguf_name not in tensors:
            raise ExportError(f"{path.name} lacks {gguf_name}.", FAILURE_ADVICE)
        values = read_tensor(tensors[gguf_name])
        stored = _stored_values(weight, architecture, gguf_name, model.config)
        allowed = MAX_WEIGHT_ERROR * float(np.linalg.norm(stored))
        is_same_shape = values.shape == stored.shape
        # So that NaN fails.
        if not (is_same_shape and float(np.linalg.norm(values - stored)) <= allowed):
            raise ExportError(f"{path.name} has other weights in {gguf_name}.", FAILURE_ADVICE)
        order = architecture.stored(np.arange(len(values)), gguf_name, model.config)
        rows = np.empty_like(values)
        rows[order] = values
        weight.copy_(torch.from_numpy(rows))


def load_gguf_model(path: Path) -> Any:
    """Load a file's model in float32, with llama.cpp's position scaling. Raises `ExportError` for a
    damaged file.
    """
    reader = open_gguf(path)
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    arch = read_value(reader, "general.architecture")
    # transformers reads the size of a head for some architectures only.
    config.head_dim = read_value(reader, Keys.Attention.KEY_LENGTH.format(arch=arch))
    config.rope_parameters = _rope_parameters(reader, arch)
    transformers_log = logging.getLogger("transformers")
    level = transformers_log.level
    try:
        transformers_log.setLevel(logging.ERROR)
        with contextlib.redirect_stderr(io.StringIO()):  # its counter of tensors
            options: Json = {
                "dtype": torch.float32,
                "quantization_config": GgufConfig(dequantize=True),
            }
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, config=config, **options
            )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise ExportError(
            f"{path.name} cannot be loaded back: {error}.", "Report this fault."
        ) from error
    finally:
        transformers_log.setLevel(level)
    _scale_positions(model, reader)
    return model.eval()


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
                "This model's YaRN has settings that are not written to GGUF here: "
                f"{', '.join(sorted(unusual))}.",
                "Export --to merged.",
            )
        original = config.rope_parameters.get("original_max_position_embeddings")
        writer.add_rope_scaling_orig_ctx_len(original or config.max_position_embeddings)


def _entries(model: Any, architecture: GgufArchitecture, quantise: Quantise) -> list[GgufTensor]:
    entries = []
    for gguf_name, weight in _named_weights(model, architecture):
        shape = tuple(weight.shape)
        # Converted when it is written: all weights at once would take the memory of two models.
        values = partial(_stored_values, weight, architecture, name=gguf_name, config=model.config)
        entries.append(GgufTensor(gguf_name, shape, tensor_type(shape, quantise), values))
    return entries


def _stored_values(weight: Any, architecture: GgufArchitecture, name: str, config: Any) -> Array:
    return architecture.stored(weight.detach().float().numpy(), name, config)


def _named_weights(model: Any, architecture: GgufArchitecture) -> Iterator[tuple[str, Any]]:
    """Yield every weight with its name in GGUF."""
    names = architecture.names(model.config)
    for name, weight in _weights(model):
        stem, _, suffix = name.rpartition(".")
        gguf_stem = names.get_name(stem)
        if gguf_stem is None:
            raise ExportError(f"{name} has no name in GGUF.", "Export --to merged.")
        yield f"{gguf_stem}.{suffix}", weight


def _weights(model: Any) -> list[tuple[str, Any]]:
    """Return every weight once; tied ones under the embedding's name."""
    return [(name, weight.detach()) for name, weight in model.named_parameters()]


def _rope_entry(model: Any) -> GgufTensor:
    """Return llama.cpp's divisors of the rotary frequencies, which Llama 3 scales individually."""
    rotary = model.model.rotary_emb
    factors = (_frequencies(rotary.config) / rotary.inv_freq.float().cpu()).numpy()
    kind = tensor_type(factors.shape, "f16")
    return GgufTensor(ROPE_FACTORS, tuple(factors.shape), kind, lambda: factors)


def _frequencies(config: Any) -> torch.Tensor:
    head = head_size(config)
    theta: float = config.rope_parameters["rope_theta"]
    return torch.pow(theta, -torch.arange(0, head, 2, dtype=torch.float32) / head)


def _rope_parameters(reader: GGUFReader, arch: str) -> dict[str, Any]:
    def value(key: str) -> Any:
        return read_value(reader, key.format(arch=arch))

    parameters: Json = {"rope_type": "default", "rope_theta": value(Keys.Rope.FREQ_BASE)}
    kind = value(Keys.Rope.SCALING_TYPE)
    if kind:
        parameters["rope_type"] = kind
        parameters["factor"] = value(Keys.Rope.SCALING_FACTOR)
    original = value(Keys.Rope.SCALING_ORIG_CTX_LEN)
    if original:
        parameters["original_max_position_embeddings"] = original
    return parameters


def _scale_positions(model: Any, reader: GGUFReader) -> None:
    """Divide the frequencies by the factors in the file, which transformers ignores."""
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            rotary = model.model.rotary_emb
            scaled = _frequencies(model.config) / torch.from_numpy(np.array(read_tensor(tensor)))
            rotary.inv_freq = rotary.original_inv_freq = scaled
