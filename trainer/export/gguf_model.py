"""Writes a whole model with tokenizer and chat template as one GGUF file, and reads it back."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter, Keys, RopeScalingType, TokenType
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from personas.errors import ExportError
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Turn
from trainer.export.gguf_format import (
    FILE_TYPES,
    Array,
    GgufArchitecture,
    GgufTensor,
    Quantise,
    architecture_of,
    head_size,
    open_gguf,
    read_tensor,
    read_value,
    rope_type,
    round_values,
    tensor_type,
    write_gguf,
)

Json = dict[str, Any]
Step = tuple[str, str]
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3_REGEX = (
    CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_REGEX = LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN_REGEX = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = ("ByteLevel", "")
BYTES_AND_WORDS = ("ByteLevel", "gpt-2")
PRE_TOKENIZERS: dict[tuple[Step, ...], str] = {
    (BYTES_AND_WORDS,): "gpt-2",
    (("Digits", "each"), BYTES_AND_WORDS): "smollm",
    (("Split", LLAMA3_REGEX), BYTES): "llama-bpe",
    (("Split", QWEN2_REGEX), BYTES): "qwen2",
    (("Split", TEKKEN_REGEX), BYTES): "tekken",
}
"""llama.cpp's names (src/llama-vocab.cpp) by the steps of `tokenizer.json`."""
UNMERGED_SCORE = -1e6  # the score of a piece that no merge makes
ROPE_FACTORS = "rope_freqs.weight"
YARN_KEYS = {"beta_fast", "beta_slow", "attention_factor", "truncate", "mscale", "mscale_all_dim"}
"""Settings of YaRN of which only llama.cpp's defaults are written here."""


@dataclass(frozen=True)
class GgufVocabulary:
    """The values of `tokenizer.ggml.*`. `scores` are for SentencePiece, `merges` and `pre` for
    byte-level BPE.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_prefix: bool


def build_vocabulary(tokenizer: Any, size: int) -> GgufVocabulary:
    """Build a tokenizer's vocabulary, padded to the `size` rows of the embedding. Raises
    `ExportError`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError(
            "This model's tokenizer has no tokenizer.json.", "Save it as a fast tokenizer first."
        )
    described: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise ExportError(
            f"GGUF of a {model['type']} tokenizer is not made here; BPE is.", "Export --to merged."
        )
    tokens, types = _tokens(described, size)
    merges: list[tuple[str, ...]] = []
    for pair in model["merges"]:
        # Older files of `tokenizers` have both pieces in one text.
        merges.append(tuple(pair if isinstance(pair, list) else pair.split(" ")))
    if model.get("byte_fallback"):
        for place, token in enumerate(tokens):
            if types[place] == TokenType.NORMAL and _is_byte(token):
                types[place] = TokenType.BYTE
        return GgufVocabulary(
            model="llama",
            pre="default",
            tokens=tokens,
            types=types,
            scores=_scores(tokens, merges),
            merges=None,
            space_prefix=_space_prefix(described),
        )
    return GgufVocabulary(
        model="gpt2",
        pre=_pre_tokenizer(described),
        tokens=tokens,
        types=types,
        scores=None,
        merges=[" ".join(pair) for pair in merges],
        space_prefix=False,
    )


def _write_tokenizer(writer: GGUFWriter, renderer: Renderer, size: int) -> None:
    """Write all of `tokenizer.*`. Raises `ExportError`."""
    tokenizer = renderer.tokenizer
    vocabulary = build_vocabulary(tokenizer, size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        number = getattr(tokenizer, name)
        if number is not None:
            getattr(writer, f"add_{name}")(number)
    # The format has room for one token.
    if len(renderer.end_ids) == 1:
        writer.add_eot_token_id(renderer.end_ids[0])
    writer.add_add_bos_token(begins_with_bos(renderer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(renderer.frozen_template())


def begins_with_bos(renderer: Renderer) -> bool:
    """Report whether prompts begin with a token that occurs nowhere else in them, which llama.cpp
    adds itself.
    """
    bos = renderer.tokenizer.bos_token
    text = renderer.prompt(None, [Turn("", "1"), Turn("", "2", True), Turn("", "3")]).text
    return bool(bos) and text.startswith(bos) and text.count(bos) == 1


def _tokens(described: Json, size: int) -> tuple[list[str], list[int]]:
    """Return every token by id, with its type; ids unknown to the tokenizer are padding."""
    unknown = described["model"].get("unk_token")
    known: dict[int, tuple[str, TokenType]] = {}
    for token, number in described["model"]["vocab"].items():
        known[number] = (token, TokenType.NORMAL)
    # An added token may stand in the vocabulary, too: the later statement says more.
    for added in described["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        if added["content"] == unknown:
            kind = TokenType.UNKNOWN
        known[added["id"]] = (added["content"], kind)
    if max(known) >= size:
        mismatch = f"The tokenizer has {max(known) + 1} tokens, but the model embeds {size}."
        raise ExportError(mismatch, "Check the base model.")
    tokens: list[str] = []
    types: list[int] = []
    for number in range(size):
        token, kind = known.get(number, (f"[PAD{number}]", TokenType.UNUSED))
        tokens.append(token)
        types.append(int(kind))
    return tokens, types


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Return scores that reproduce the order of merges: llama.cpp merges the pair with the highest
    score.
    """
    scores: dict[str, float] = {}
    for number, pair in enumerate(merges):
        scores.setdefault("".join(pair), float(-number))
    return [scores.get(token, UNMERGED_SCORE) for token in tokens]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _space_prefix(described: Json) -> bool:
    """Report whether a space is prepended to the text."""
    steps = _flat(described.get("normalizer"), "normalizers")
    steps += _flat(described["pre_tokenizer"], "pretokenizers")
    for step in steps:
        if step["type"] == "Prepend":
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme") != "never":
            return True
    return False


def _pre_tokenizer(described: Json) -> str:
    steps = tuple(_step(step) for step in _flat(described["pre_tokenizer"], "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        shown = "; ".join(" ".join(step).strip() for step in steps)[:200] or "nothing"
        raise ExportError(
            f"llama.cpp has no known name for how this tokenizer splits text ({shown}).",
            f"Known are {', '.join(PRE_TOKENIZERS.values())}. Export --to merged, or --to "
            "gguf-lora.",
        )
    return PRE_TOKENIZERS[steps]


def _step(step: Json) -> Step:
    """Reduce a pre-tokenizer step to its relevant fields."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return BYTES_AND_WORDS if step.get("use_regex", True) else BYTES
        case {"type": "Digits", "individual_digits": True}:
            return "Digits", "each"
        case {
            "type": "Split",
            "pattern": {"Regex": regex},
            "behavior": "Isolated",
            "invert": False,
        }:
            return "Split", _canonical(regex)
    return str(step["type"]), json.dumps(step, sort_keys=True)


def _canonical(regex: str) -> str:
    """Normalise a regex's spelling: some files write out the case of contractions."""
    return regex.replace("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", CONTRACTIONS)


def _flat(step: Json | None, inner: str) -> list[Json]:
    """Return the steps of a sequence, which may be nested, or the single step."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    steps: list[Json] = []
    for part in step[inner]:
        steps += _flat(part, inner)
    return steps


def write_model(path: Path, model: Any, renderer: Renderer, quantise: Quantise, name: str) -> None:
    """Write a float32 model with tokenizer and chat template. Raises `ExportError`, `OSError`."""
    config = model.config
    architecture = architecture_of(config)

    def describe(writer: GGUFWriter) -> None:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[quantise])
        writer.add_quantization_version(2)
        _describe(writer, config)
        _write_tokenizer(writer, renderer, config.vocab_size)

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


# ------------------------------------------------------------------------------------------ writing


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
    names = architecture.names(model.config)
    entries = []
    for name, weight in _weights(model):
        stem, _, suffix = name.rpartition(".")
        gguf_stem = names.get_name(stem)
        if gguf_stem is None:
            raise ExportError(f"{name} has no name in GGUF.", "Export --to merged.")
        gguf_name = f"{gguf_stem}.{suffix}"
        shape = tuple(weight.shape)
        # Converted when it is written: all weights at once would take the memory of two models.
        values = partial(_stored_values, weight, architecture, gguf_name, model.config)
        entries.append(GgufTensor(gguf_name, shape, tensor_type(shape, quantise), values))
    return entries


def _stored_values(weight: Any, architecture: GgufArchitecture, name: str, config: Any) -> Array:
    return architecture.stored(weight.detach().float().numpy(), name, config)


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


# ------------------------------------------------------------------------------------------ reading


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
