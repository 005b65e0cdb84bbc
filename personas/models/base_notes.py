"""What to know of a base model before it is loaded, in words: its template, its stored form, its
kind of layers.
"""

from typing import Any

from personas.models.base_model import BaseModel, read_config, template_note

STATE_MODELS = frozenset(
    "bailing_hybrid bamba deepseek_v4 falcon_h1 falcon_mamba glm5_next granitemoehybrid jamba "
    "kimi_linear lfm2 "
    "lfm2_moe lfm3 mamba mamba2 minimax nemotron_h olmo_hybrid qwen3_5 qwen3_5_moe "
    "qwen3_5_moe_text qwen3_5_text "
    "qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma rwkv xlstm zamba zamba2 zaya".split()
)
"""Kinds of models with state-space, recurrent or convolutional layers, as in transformers
(`_is_stateful`) and LFM2.
"""
STATE_LAYERS = frozenset({"linear_attention", "mamba", "conv", "recurrent", "short_conv"})


def keeps_state(base: BaseModel) -> bool:
    """Report whether layers keep a state besides keys and values, by config.json. Raises
    `BaseModelError`.
    """
    config = read_config(base)
    kinds: Any = config.get("layer_types")
    has_state_layers = isinstance(kinds, list) and not STATE_LAYERS.isdisjoint(map(str, kinds))
    return has_state_layers or config.get("model_type") in STATE_MODELS


def base_model_notes(base: BaseModel) -> list[str]:
    """Return a sentence on each property that changes how the model is trained or served. Raises
    `BaseModelError`.
    """
    return list(filter(None, [template_note(base), quantisation_note(base), state_note(base)]))


def quantisation_note(base: BaseModel) -> str:
    """Say how quantised weights are used; empty for plain ones."""
    stored = base.quantisation
    if stored is None or not stored.can_be_unpacked:
        return ""
    use = "as it is on a GPU, unpacked on a CPU" if stored.stays_packed else "unpacked to 16 bits"
    return f"The base model is stored in {stored.name}: it is used {use}, and unpacked for merging."


def state_note(base: BaseModel) -> str:
    """Return the cost of a state in the layers; empty for models with attention alone."""
    if not keeps_state(base):
        return ""
    return (
        "The base model has layers that keep a state: what the prompts of a batch share is "
        "computed for each sample, "
        "and replies are generated one at a time. The estimates are rough for such models."
    )
