"""The chat engine over one or several servers (`ENGINE=vllm`, `ENGINE=openai`)."""

from typing import Any

MAX_MESSAGE_CHARS = 400


def error_text(answer: Any) -> str:
    """Return the message of a server's error, in any of its forms, as a sentence."""
    error = answer.get("error", answer.get("detail", "")) if isinstance(answer, dict) else answer
    message = error.get("message") if isinstance(error, dict) else error
    text = " ".join(str(message or "").split())[:MAX_MESSAGE_CHARS] or "no reason given"
    return text if text.endswith((".", "!", "?")) else f"{text}."
