"""What kinds of servers call the fields of `SamplingParams`; their requests have no other ones."""

from collections.abc import Mapping
from typing import Any

from personas.schemas.chat import SamplingParams

SamplingNames = Mapping[str, str]
"""A server's names by those of the fields."""

REASONING_NAMES: SamplingNames = {"max_new_tokens": "max_completion_tokens"}
"""Those of OpenAI's reasoning models."""
OPENAI_NAMES: SamplingNames = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
}
VLLM_NAMES: SamplingNames = {
    **OPENAI_NAMES,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
"""Many gateways have the same."""
LLAMACPP_NAMES: SamplingNames = {
    "max_new_tokens": "n_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


def named_sampling(sampling: SamplingParams, names: SamplingNames) -> dict[str, Any]:
    """Return the fields of a request that the sampling needs."""
    return {name: getattr(sampling, field) for field, name in names.items()}
