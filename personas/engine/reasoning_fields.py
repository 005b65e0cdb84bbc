"""Fields of servers with OpenAI's API that concern a model's thoughts."""

from collections.abc import Mapping
from typing import Any

NO_THINKING: Mapping[str, Any] = {
    "chat_template_kwargs": {"enable_thinking": False},
    "reasoning_effort": "none",
}
"""Fields that keep a reasoning model from thinking: of vLLM and llama.cpp, and of Ollama."""
REASONING_FIELDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "reasoning_text",
    "thinking",
)
"""Fields with a model's thoughts: of llama.cpp, SGLang and older vLLM; of vLLM, Ollama and
gateways; of OpenRouter and of servers that pass on other APIs.
"""
