"""Base model shape, read from config.json: layers, widths, parameter counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from personas.errors import BaseModelError
from personas.models.base_model import BaseModel, locate, read_config, split_name
from personas.models.gguf_file import BYTES_PER_PARAMETER, NotUnpackedError, readable_header
from personas.models.gguf_names import find_gguf

SIZE_NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_hidden_layers": ("n_layer", "n_layers"),
    "intermediate_size": ("n_inner", "ffn_dim"),
}
"""Other names of sizes in configurations: those of GPT-2, MPT, BLOOM and OPT."""
LAYER_KINDS = ("layer_types", "layers_block_type", "hybrid_override_pattern")
"""Settings that list the kind of each layer in models whose layers differ."""
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
BYTES_PER_DTYPE = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a weight by the precision in a configuration."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder. `attended` is the total width of the query heads, `keys` that of the key
    heads; `window` the tokens that a layer with sliding attention sees, 0 without any.

    `weight_bytes` is the size of the weights on disk. `plain_head`: logits are neither scaled nor
    capped.
    """

    layers: int
    width: int
    heads: int
    attended: int
    keys: int
    intermediate: int
    vocabulary: int
    tied: bool
    weight_bytes: int
    plain_head: bool = True
    window: int = 0

    @property
    def stored(self) -> int:
        """Bytes per parameter on disk."""
        return 4 if self.weight_bytes > 3 * self.weights else 2

    @property
    def linear_weights(self) -> int:
        """Parameters of the layers' matrices, which a quantised model stores in 4 bits."""
        return self.layers * sum(inner * outer for inner, outer in self.projections.values())

    @property
    def embedding_weights(self) -> int:
        """Parameters of the embeddings, and of the output head unless they are tied."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def weights(self) -> int:
        """All parameters: matrices, embeddings, two norms per layer and a final one."""
        return self.linear_weights + self.embedding_weights + (2 * self.layers + 1) * self.width

    @property
    def projections(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of each matrix of a layer, by its name in recipes."""
        width = self.width
        attended = self.attended
        keys = self.keys
        inner = self.intermediate
        return {
            "q_proj": (width, attended),
            "k_proj": (width, keys),
            "v_proj": (width, keys),
            "o_proj": (attended, width),
            "gate_proj": (width, inner),
            "up_proj": (width, inner),
            "down_proj": (inner, width),
        }

    @property
    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """`projections`, and the fused ones of some models; `in_proj` is Mamba's."""
        fused = {
            "qkv_proj": (self.width, self.attended + 2 * self.keys),
            "gate_up_proj": (self.width, 2 * self.intermediate),
            "in_proj": (self.width, 2 * self.intermediate),
        }
        return {**self.projections, **fused}


def shape_from_config(config: Mapping[str, Any], weight_bytes: int | None = None) -> ModelShape:
    """Derive the shape, and the default `weight_bytes`, of a config.json. Raises `BaseModelError`
    for a non-decoder.

    A model without attention, such as Mamba, has no heads: its layers are all feed-forward.
    """
    config = _named_alike(config.get("text_config", config))
    try:
        width = int(config["hidden_size"])
        heads = int(config.get("num_attention_heads") or 0)
        head = int(config.get("head_dim") or 0)
        if not head and heads:
            head = width // heads
        shape = ModelShape(
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            attended=heads * head,
            keys=int(config.get("num_key_value_heads") or heads) * head,
            intermediate=int(config.get("intermediate_size") or 4 * width),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            weight_bytes=weight_bytes or 0,
            plain_head=not any(config.get(name) for name in LOGIT_SETTINGS),
            window=sliding_window(config),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BaseModelError(
            "The model's config.json does not say how large its layers are "
            f"({type(error).__name__}: {error}).",
            "Choose a decoder such as Llama, Qwen or Mistral.",
        ) from error
    if weight_bytes is not None:
        return shape
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    stored = BYTES_PER_DTYPE.get(dtype, 2)
    return replace(shape, weight_bytes=shape.weights * stored)


def sliding_window(config: Mapping[str, Any]) -> int:
    """Return the tokens that layers with sliding attention see, 0 if there are none."""
    if config.get("use_sliding_window") is False:
        return 0
    return int(config.get("sliding_window") or 0)


def _named_alike(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with sizes by their usual names, and as many layers as have a kind if
    it has no number.
    """
    alike: dict[str, Any] = {}
    for usual, others in SIZE_NAMES.items():
        for other in others:
            if config.get(other):
                alike[usual] = config[other]
    for name in LAYER_KINDS:
        kinds = config.get(name)
        if isinstance(kinds, list | str):
            # A list of names, or a text with a sign for each layer.
            alike["num_hidden_layers"] = len(kinds)
            break
    return {**alike, **config}


def model_shape_of(base: BaseModel) -> ModelShape:
    """Return the shape of a base model. Raises `BaseModelError`."""
    return shape_from_config(read_config(base), base.weight_bytes)


def shape_by_name(name: str) -> ModelShape:
    """Return the shape of a base model by its name; nothing is fetched or unpacked for it. Raises
    `BaseModelError`.
    """
    try:
        return model_shape_of(locate(name, fetch=False))
    except NotUnpackedError:
        file = find_gguf(split_name(name)[0], fetch=False)
        assert file is not None  # it is what is not unpacked
    header = readable_header(file)
    return shape_from_config(header.sizes, header.parameters * BYTES_PER_PARAMETER)
