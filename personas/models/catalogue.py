"""The base models that people run: names, files, licences and sizes, from `catalogue.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

CATALOGUE_FILE = Path(__file__).with_name("catalogue.toml")
BILLION = 10**9
WEIGHT_BYTES = 2
"""Bytes of a weight in 16 bits, and of a key or value in an engine's cache."""
NF4_BYTES = 0.516
"""Bytes of a weight in NF4 with doubly quantised constants (arXiv 2305.14314, section 3)."""
Q4_K_M_BITS = 4.89
"""Bits per weight of Q4_K_M, as llama.cpp states for Llama 3.1 8B (tools/quantize/README.md)."""
Thinking = Literal["none", "switchable"]


@dataclass(frozen=True)
class CatalogueModel:
    """A base model. `parameters` are those of the language model, embeddings included; `config` has
    the sizes of its config.json.

    `gguf` and `ollama` name the same model in those formats, empty where none can be served here;
    `gguf_bytes` is that file's size, 0 if unknown. `is_recommended` is False for a model that is never
    proposed. `checked` is the day on which the facts were read from `sources`.
    """

    name: str
    title: str
    id: str
    gguf: str
    gguf_bytes: int
    ollama: str
    licence: str
    licence_url: str
    is_open: bool
    is_recommended: bool
    languages: str
    thinking: Thinking
    has_system_role: bool
    parameters: int
    config: Mapping[str, Any]
    checked: date
    sources: tuple[str, ...]

    @property
    def context_tokens(self) -> int:
        return int(self.config["max_position_embeddings"])

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in 16 bits."""
        return self.parameters * WEIGHT_BYTES

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embeddings, and of the head unless they are tied. No format of 8 or 4 bits
        here packs them.
        """
        tables = 1 if self.config["tie_word_embeddings"] else 2
        return int(self.config["vocab_size"] * self.config["hidden_size"] * tables)

    @property
    def has_linear_attention(self) -> bool:
        """Whether only every n-th layer keeps keys and values."""
        return "full_attention_interval" in self.config

    @property
    def gguf_file_bytes(self) -> int:
        """Bytes of the GGUF file, by the usual bits per weight if they are unknown."""
        return self.gguf_bytes or int(self.parameters * Q4_K_M_BITS / 8)

    def packed_bytes(self, bytes_per_weight: float) -> int:
        """Bytes of the model with its layers in another precision and its embeddings in 16 bits."""
        layers = self.parameters - self.embedding_parameters
        return int(layers * bytes_per_weight) + self.embedding_parameters * WEIGHT_BYTES

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens in 16 bits."""
        config = self.config
        layers = int(config["num_hidden_layers"]) // int(config.get("full_attention_interval", 1))
        width = int(config["num_key_value_heads"]) * int(config["head_dim"])
        return 2 * layers * width * tokens * WEIGHT_BYTES


@cache
def catalogue_models() -> tuple[CatalogueModel, ...]:
    """Return the models of the catalogue, smallest first."""
    content = tomllib.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    return tuple(_model_of(entry) for entry in content["model"])


def find_model(name: str) -> CatalogueModel | None:
    """Find a model by its name, its id on the hub, or its GGUF file's or Ollama's name; None for
    another model. A revision is ignored.
    """
    wanted = name.partition("#")[0].partition("@")[0].casefold()
    for model in catalogue_models():
        if wanted in (each.casefold() for each in _names_of(model)):
            return model
    return None


def _names_of(model: CatalogueModel) -> list[str]:
    names = [model.name, model.id, model.ollama]
    if model.gguf:
        repository, _, file = model.gguf.partition(":")
        names += [model.gguf, f"{repository}:{file.removesuffix('.gguf').rpartition('-')[2]}"]
    return [name for name in names if name]


def _model_of(entry: Mapping[str, Any]) -> CatalogueModel:
    facts = dict(entry)
    return CatalogueModel(
        name=facts.pop("name"),
        title=facts.pop("title"),
        id=facts.pop("id"),
        gguf=facts.pop("gguf", ""),
        gguf_bytes=facts.pop("gguf_bytes", 0),
        ollama=facts.pop("ollama", ""),
        licence=facts.pop("licence"),
        licence_url=facts.pop("licence_url"),
        is_open=facts.pop("open"),
        is_recommended=facts.pop("recommended", True),
        languages=facts.pop("languages"),
        thinking=facts.pop("thinking"),
        has_system_role=facts.pop("system_role") == "native",
        parameters=round(facts.pop("parameters") * BILLION),
        checked=facts.pop("checked"),
        sources=tuple(facts.pop("sources")),
        config=facts,
    )
