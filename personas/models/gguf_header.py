"""The metadata of a GGUF file, and what transformers 5.23 leaves out of it when it reads the model.

Left out without a word, such a setting would be another model: Llama 3's RoPE scaling changes every
logit. It is restored, or the file is refused.
"""

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3's RoPE scaling: the divisor of each frequency."""
LLAMA3_LOW_FACTOR = 1.0
LLAMA3_HIGH_FACTOR = 4.0
LLAMA3_CONTEXTS = (8192, 4096, 2048, 1024, 512, 256)
"""Context lengths in tokens before scaling, Llama 3's own first."""
ROPE_TOLERANCE = 1e-3
SPECIAL_TOKEN_TYPES = (3, 4)
"""Types of tokens that a template writes: control, and user-defined."""
HEAD_SIZE_FAMILIES = ("qwen3", "qwen3_moe")
"""Their head size has no key in transformers' mapping, which takes the default of 128."""
SIZE_KEYS = {
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "head_dim": "attention.key_length",
}
"""Sizes of a model: their names in a config.json, and their keys below the file's architecture."""
OUTPUT_HEAD = "output.weight"
_PATCH_LOCK = threading.Lock()
"""Two threads that replaced gguf's reader at once would put each other's back."""


@dataclass(frozen=True)
class GgufHeader:
    """The metadata that is compared with what transformers reads.

    `key_length` is the size of a head, None where the file has none. `rope_scaling` is the file's
    name for it, `rope_factors` the divisors of the frequencies, empty where there are none.
    `special_tokens` maps ids of control and user-defined tokens to their texts. `sizes` are those of
    the model that the file has, as a config.json states them.
    """

    architecture: str
    parameters: int
    vocabulary: int
    key_length: int | None
    rope_scaling: str
    rope_factors: tuple[float, ...]
    special_tokens: Mapping[int, str]
    sizes: Mapping[str, Any]


@contextmanager
def parsed_once(file: Path) -> Iterator[None]:
    """Inside the block, parse the file's metadata once. One thread at a time is in such a block.

    transformers does it anew for configuration, tokenizer and weights, and each time takes seconds:
    gguf makes an array of every token.
    """
    import gguf  # takes 0.2 s

    with _PATCH_LOCK:
        parse = gguf.GGUFReader
        reader = open_gguf(file)

        def open_reader(path: str | Path, *mode: Any) -> Any:
            return reader if Path(path) == file and not mode else parse(path, *mode)

        # A function in place of a class, which mypy refuses: transformers only calls it.
        gguf.GGUFReader = open_reader  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            gguf.GGUFReader = parse  # type: ignore[misc]  # as above


def open_gguf(file: Path) -> Any:
    """Open a file with gguf's reader. Raises `ValueError` for one that is cut short, and the reader's
    errors.
    """
    return _bounded_reader()(file)


@cache
def _bounded_reader() -> Any:
    """Return a reader that ends at the end of the file: gguf's own goes on beyond it, and takes
    forever where a damaged count says so.
    """
    import numpy as np
    from gguf.gguf_reader import GGUFReader  # takes 0.2 s

    class BoundedReader(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it is cut short")
            return super()._get(offset, dtype, count, override_order)

    return BoundedReader


def read_header(file: Path) -> GgufHeader:
    """Read a file's metadata. Raises `ValueError` for a file that is cut short or names no
    architecture, and the reader's errors.
    """
    reader = open_gguf(file)
    architecture = read_value(reader, "general.architecture")
    if not architecture:
        raise ValueError("it names no architecture")
    end = max((int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors), default=0)
    if end > file.stat().st_size:
        raise ValueError("it is cut short")
    tokens = read_value(reader, "tokenizer.ggml.tokens") or []
    types = read_value(reader, "tokenizer.ggml.token_type") or []
    factors = [tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
    return GgufHeader(
        architecture=str(architecture),
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        vocabulary=len(tokens),
        key_length=read_value(reader, f"{architecture}.attention.key_length"),
        rope_scaling=str(read_value(reader, f"{architecture}.rope.scaling.type") or "none"),
        rope_factors=tuple(float(factor) for factor in factors[0]) if factors else (),
        special_tokens={
            id: token
            for id, (token, kind) in enumerate(zip(tokens, types, strict=False))
            if kind in SPECIAL_TOKEN_TYPES
        },
        sizes=_read_sizes(reader, str(architecture), len(tokens)),
    )


def _read_sizes(reader: Any, architecture: str, vocabulary: int) -> dict[str, Any]:
    sizes: dict[str, Any] = {"vocab_size": vocabulary}
    for name, key in SIZE_KEYS.items():
        value = read_value(reader, f"{architecture}.{key}")
        if value is not None:
            sizes[name] = value
    sizes["tie_word_embeddings"] = OUTPUT_HEAD not in {tensor.name for tensor in reader.tensors}
    return sizes


def restore_settings(config: Any, header: GgufHeader, file: Path) -> None:
    """Put the settings that transformers leaves out into a configuration. Raises `BaseModelError`
    for RoPE scaling that has no counterpart.
    """
    if config.model_type in HEAD_SIZE_FAMILIES and header.key_length:
        config.head_dim = header.key_length
    rope = config.rope_parameters or {}
    if rope.get("rope_type", "default") != "default":
        return
    if header.rope_factors:
        scaling = _llama3_scaling(header.rope_factors, float(rope["rope_theta"]))
        if scaling is None:
            raise _rope_error(file, "by factors of its own")
        config.rope_parameters = {**rope, **scaling}
    elif header.rope_scaling != "none":
        raise _rope_error(file, f"of the kind {header.rope_scaling}")


def drop_added_tokens(folder: Path, vocabulary: int) -> None:
    """Remove tokens with ids beyond the vocabulary from a tokenizer's folder.

    transformers gives byte-level tokenizers an unknown token, `<|endoftext|>`, which most files do
    not have: as an id without an embedding, it would end the process that reads it.
    """
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    beyond = {token["content"] for token in described["added_tokens"] if token["id"] >= vocabulary}
    if not beyond:
        return
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["id"] < vocabulary
    ]
    if described["model"].get("unk_token") in beyond:
        described["model"]["unk_token"] = None
    file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if str(value) not in beyond}
    config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def find_misread_token(tokenizer: Any, header: GgufHeader) -> str:
    """Return the first special token that a tokenizer has otherwise than the file, as the end of a
    sentence; empty for none.
    """
    if len(tokenizer) > header.vocabulary:
        return f"it has {len(tokenizer):,} tokens instead of {header.vocabulary:,}"
    for id, token in header.special_tokens.items():
        if (other := tokenizer.convert_ids_to_tokens(id)) != token:
            return f"the token {id} is {other!r} instead of {token!r}"
    return ""


def read_value(reader: Any, key: str) -> Any:
    """Return a metadata value, or None."""
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _llama3_scaling(factors: Sequence[float], theta: float) -> dict[str, Any] | None:
    """Return the settings of Llama 3's RoPE scaling that give these divisors; None if none do."""
    for context in LLAMA3_CONTEXTS:
        expected = _llama3_factors(len(factors), theta, max(factors), context)
        if all(
            math.isclose(factor, wanted, rel_tol=ROPE_TOLERANCE)
            for factor, wanted in zip(factors, expected, strict=True)
        ):
            return {
                "rope_type": "llama3",
                "factor": max(factors),
                "low_freq_factor": LLAMA3_LOW_FACTOR,
                "high_freq_factor": LLAMA3_HIGH_FACTOR,
                "original_max_position_embeddings": context,
            }
    return None


def _llama3_factors(count: int, theta: float, factor: float, context: int) -> list[float]:
    """Divisors of `count` frequencies: none for short waves, `factor` for long ones, and between
    them a blend (`_compute_llama3_parameters` in transformers.modeling_rope_utils).
    """
    divisors = []
    for index in range(count):
        wavelength = 2 * math.pi * theta ** (index / count)
        turns = context / wavelength
        blend = (turns - LLAMA3_LOW_FACTOR) / (LLAMA3_HIGH_FACTOR - LLAMA3_LOW_FACTOR)
        blend = min(max(blend, 0.0), 1.0)
        divisors.append(1 / ((1 - blend) / factor + blend))
    return divisors


def _rope_error(file: Path, kind: str) -> BaseModelError:
    return BaseModelError(
        f"{file} scales its positions {kind}, which transformers does not read from GGUF.",
        "Name the folder or the hub id of the same model in safetensors.",
    )
