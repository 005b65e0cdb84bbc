"""Parts of replies in the forms in which servers with OpenAI's API send them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from personas.engine.reasoning_fields import REASONING_FIELDS

REASONING_PARTS = ("thinking", "reasoning")
"""Types of a content's parts with thoughts, where a content is a list, as Mistral's."""
NO_FINISHES = ("", "null", "none")
"""Texts in place of null while a reply goes on."""
LENGTH_FINISHES = (
    "length",
    "max_tokens",
    "max_new_tokens",
    "max_output_tokens",
    "model_length",
    "max_length",
)
REFUSING_FINISHES = (
    *("content_filter", "content_filtered", "refusal", "safety", "sensitive", "recitation"),
    *("blocklist", "prohibited_content", "guardrail_intervened", "error_toxic"),
    *("tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"),
)
"""Reasons to end a reply that the persona had not said to its end: a filter, or a call of a tool that
was not offered.
"""
FAILED = "failed"
FAILED_FINISHES = ("abort", "error", "insufficient_system_resource", "network_error")


@dataclass(frozen=True)
class ReplyPart:
    """New text of a reply, or with `is_whole` the whole reply so far, and how it ended.

    `is_reasoning`: what the model thinks came with it, which is dropped. `refusal` is what the model
    says in place of a reply.
    """

    text: str
    finish: str | None
    is_reasoning: bool
    is_whole: bool
    refusal: str


def finish_of(choice: Mapping[str, Any]) -> str | None:
    """Return why a reply ended: "stop", also for reasons that are not known here, "length", `FAILED`
    or one of `REFUSING_FINISHES`; None while it goes on.
    """
    reason = str(choice.get("finish_reason") or "").casefold()
    if reason in NO_FINISHES:
        return None
    if reason in REFUSING_FINISHES:
        return reason
    if reason in FAILED_FINISHES:
        return FAILED
    return "length" if reason in LENGTH_FINISHES else "stop"


def read_part(choice: Mapping[str, Any]) -> ReplyPart:
    """Parse a part of a reply, or a whole one in `message`. Raises `TypeError` for a content that is
    no text.
    """
    delta = choice.get("delta")
    if isinstance(delta, str):
        delta = {"content": delta}
    source = delta or choice.get("message") or choice
    content = source.get("content")
    if content is None:
        content = choice.get("text")
    text = refusal = ""
    is_reasoning = any(source.get(name) for name in REASONING_FIELDS)
    for part in _parts(content):
        kind = part.get("type")
        is_reasoning |= kind in REASONING_PARTS
        refusal += part.get("refusal") or ""
        if kind not in REASONING_PARTS:
            text += _text_of(part.get("text"))
    return ReplyPart(
        text,
        finish_of(choice),
        is_reasoning=is_reasoning,
        is_whole=source is choice.get("message"),
        refusal=refusal or source.get("refusal") or "",
    )


def _parts(content: Any) -> list[Mapping[str, Any]]:
    """Return a content as a list of parts."""
    parts = content if isinstance(content, list) else [content]
    return [part if isinstance(part, dict) else {"text": part} for part in parts]


def _text_of(text: Any) -> str:
    if isinstance(text, dict):  # with annotations, as of OpenAI's assistants
        text = text.get("value")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TypeError(f"a text is expected, not {type(text).__name__}")
    return text
