"""Responses below `/v1` in OpenAI's format: chat completions, their chunks, and errors."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import Field

from bot.chat.model_names import ChatModel
from bot.platform.web_kit.openapi import ApiModel, Json, ResponseSpec
from bot.platform.web_kit.problems import Problem, internal_error, redacted_texts, retry_headers
from personas.errors import (
    AdapterError,
    EngineBusyError,
    PrefillError,
    ServerError,
    UnderstudyError,
)
from personas.prompt.renderer import PROMPT_VERSION, PromptTooLongError
from personas.schemas.chat import ChatReply, LoreHit, ReplyToken

# OpenAI names no reason for a reply that was stopped from outside.
FINISH_REASONS = {"stop": "stop", "length": "length", "cancelled": "stop"}
REPLACEMENT_CHARACTER = "\ufffd"
STATUS_BY_SLUG = {"invalid-request": 400, "not-json-type": 400}
"""Statuses in which OpenAI differs from our other addresses."""


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

    `lore` was found for it, `notes` say what of the request was left out.
    """

    speaker: ChatModel
    lore: tuple[LoreHit, ...]
    notes: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, reply: ChatReply, text: str) -> ChatCompletion:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": logprobs_json(reply.tokens),
            "finish_reason": FINISH_REASONS[reply.finish],
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
            **self.chunk({}, finish=FINISH_REASONS[reply.finish], tokens=reply.tokens),
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
            "ai_written": True,
            "persona": persona.id if persona else None,
            "version": self.speaker.version,
            "lore": lore_json(lore),
        }
        if reply:
            fields["seed"] = reply.seed
        if self.notes:
            fields["notes"] = list(self.notes)
        return {"understudy": fields}


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


class OpenAIError(Problem):
    """An error below `/v1`. `param` names the field at fault, `code` is for programs."""

    def __init__(
        self,
        message: str,
        advice: str = "",
        *,
        slug: str = "invalid-request",
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(slug, message, advice, headers=headers)
        self.status = status
        self.code = code
        self.param = param

    @classmethod
    def internal(cls, error: Exception) -> Self:
        """Log an unexpected error, and return one that names only its code in the log."""
        problem = internal_error(error)
        return cls(problem.message, problem.advice, slug="failed", status=500)


class OpenAIErrorFields(ApiModel):
    """The fields of an error below `/v1`."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorResponse(ApiModel):
    """An error below `/v1`."""

    error: OpenAIErrorFields


def error_responses(**more: str) -> dict[int, ResponseSpec]:
    """Error responses of every request below `/v1`, and more by status (`_429="…"`)."""
    texts = {
        401: "A token is needed.", 403: "Another site asks.", 414: "The address is too long.",
        429: "Too many wrong tokens were sent.", 500: "A fault.", 503: "The bot starts or ends.",
    }  # fmt: skip
    texts |= {int(name.lstrip("_")): text for name, text in more.items()}
    return {status: ResponseSpec(text, OpenAIErrorResponse) for status, text in texts.items()}


def is_openai_path(request: web.Request) -> bool:
    return request.path == "/v1" or request.path.startswith("/v1/")


def openai_error_response(problem: Problem) -> web.Response:
    return web.json_response(error_json(problem), status=_status(problem), headers=problem.headers)


def error_json(problem: Problem) -> dict[str, Any]:
    """The error object of a response, and of a stream that has begun."""
    param = None
    code = "invalid_api_key" if problem.status == 401 else problem.slug.replace("-", "_")
    if isinstance(problem, OpenAIError):
        param = problem.param
        code = problem.code or code
    return {
        "error": {
            "message": str(problem),
            "type": _error_type(_status(problem)),
            "param": param,
            "code": code,
        }
    }


def openai_error(error: Exception, home: Path) -> OpenAIError | None:
    """Translate an engine error, with paths redacted; None for an unexpected one."""
    match error:
        case OpenAIError():
            return error
        case EngineBusyError():
            return OpenAIError(
                error.message, error.advice, slug="busy", status=429, code="rate_limit_exceeded",
                headers=retry_headers(error),
            )  # fmt: skip
        case PrefillError():
            message, advice = redacted_texts(error, home)
            return OpenAIError(message, advice, code="unsupported_value", param="messages")
        case AdapterError():
            message, advice = redacted_texts(error, home)
            message = f"The model's adapter cannot be used. {message}"
            return OpenAIError(
                message, advice, slug="failed", status=422, code="model_unavailable", param="model"
            )
        case UnderstudyError():
            status = 502 if isinstance(error, ServerError) else 422
            message, advice = redacted_texts(error, home)
            return OpenAIError(
                message, advice, slug="failed", status=status, code="model_unavailable"
            )
        case PromptTooLongError():
            return OpenAIError(
                "The instructions and the persona's card leave no room for the talk and a reply.",
                "Shorten the system messages, or ask for fewer tokens (max_tokens).",
                code="context_length_exceeded", param="messages",
            )  # fmt: skip
    return None


def _status(problem: Problem) -> int:
    if isinstance(problem, OpenAIError):
        return problem.status
    return STATUS_BY_SLUG.get(problem.slug, problem.status)


def _error_type(status: int) -> str:
    if status in (401, 403):
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    if status < 500:
        return "invalid_request_error"
    return "server_error"
