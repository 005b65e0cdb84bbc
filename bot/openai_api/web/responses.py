"""Responses below `/v1` in OpenAI's format: chat completions and their chunks."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from bot.chat.model_names import ChatModel
from bot.platform.web_kit.openapi import ApiModel, Json
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.chat import ChatReply, LoreHit, ReplyToken

# OpenAI names no reason for a reply that was stopped from outside.
FINISH_REASONS = {"stop": "stop", "length": "length", "cancelled": "stop"}
REPLACEMENT_CHARACTER = "\ufffd"


class ChatCompletion(ApiModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: Annotated[list[Json], Field(min_length=1, max_length=1)]
    usage: dict[str, int]
    understudy: Json


@dataclass(frozen=True)
class CompletionBuilder:
    """Builds the responses to one request, which share its id.

    `lore` was found for it, `notes` say what of the request was left out. `is_fixed`: the reply is
    a fixed text, not a model's.
    """

    speaker: ChatModel
    lore: tuple[LoreHit, ...]
    notes: tuple[str, ...] = ()
    is_fixed: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, reply: ChatReply, text: str) -> ChatCompletion:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": logprobs_json(reply.tokens),
            "finish_reason": finish_reason(reply),
        }
        return ChatCompletion(
            **self._head("chat.completion"),
            choices=[choice],
            usage=usage_json(reply),
            **self._ours(reply),
        )

    def chunk(
        self,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        tokens: tuple[ReplyToken, ...] = (),
    ) -> dict[str, Any]:
        """A piece of the reply; the first names the role, the last the finish reason."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs_json(tokens),
            "finish_reason": finish,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def begun(self) -> dict[str, Any]:
        return {**self.chunk({"role": "assistant", "content": ""}), **self._ours(None)}

    def ended(self, reply: ChatReply) -> dict[str, Any]:
        """The last chunk with a choice, with the log-probabilities of all tokens."""
        return {
            **self.chunk({}, finish=finish_reason(reply), tokens=reply.tokens),
            **self._ours(reply),
        }

    def used(self, reply: ChatReply) -> dict[str, Any]:
        """The final chunk with token usage, if it was requested."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_json(reply)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.speaker.id,
            "system_fingerprint": f"{self.speaker.id}, prompt {PROMPT_VERSION}",
        }

    def _ours(self, reply: ChatReply | None) -> dict[str, Any]:
        """The fields that are not OpenAI's; seed and final lore are known with the reply."""
        persona = self.speaker.persona
        lore = reply.lore if reply else self.lore
        fields: dict[str, Any] = {
            "ai_written": not (self.is_fixed or (reply and reply.withheld)),
            "persona": persona.id if persona else None,
            "version": self.speaker.version,
            "lore": lore_json(lore),
        }
        if reply and reply.seeded:
            fields["seed"] = reply.seed
        if self.notes:
            fields["notes"] = list(self.notes)
        return {"understudy": fields}


def finish_reason(reply: ChatReply) -> str:
    """Return OpenAI's word for how a reply ended."""
    return "content_filter" if reply.withheld else FINISH_REASONS[reply.finish]


def usage_json(reply: ChatReply) -> dict[str, int]:
    """Token usage of a reply, including the end-of-turn token."""
    total = reply.prompt_tokens + reply.new_tokens
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.new_tokens,
        "total_tokens": total,
    }


def lore_json(lore: tuple[LoreHit, ...]) -> list[dict[str, Any]]:
    hits = []
    for hit in lore:
        score = round(hit.score, 3)
        hits.append({"source": hit.source, "heading": hit.heading, "score": score})
    return hits


def logprobs_json(tokens: tuple[ReplyToken, ...]) -> dict[str, Any] | None:
    """The tokens of a reply with their log-probabilities; None if they were not requested."""
    if not tokens:
        return None
    content = []
    for token in tokens:
        alternatives = [_token_json(text, logprob) for text, logprob in token.alternatives]
        described = _token_json(token.text, token.logprob)
        content.append({**described, "top_logprobs": alternatives})
    return {"content": content, "refusal": None}


def _token_json(text: str, logprob: float) -> dict[str, Any]:
    # A token that is a part of a character has no text, and its bytes are lost.
    own_bytes = None
    if REPLACEMENT_CHARACTER not in text:
        own_bytes = list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": own_bytes}
