"""Errors below `/v1` in OpenAI's format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from bot.platform.web_kit.openapi import ApiModel, ResponseSpec
from bot.platform.web_kit.problems import Problem, internal_error, redacted_texts, retry_headers
from personas.errors import (
    AdapterError,
    EngineBusyError,
    PrefillError,
    ServerError,
    UnderstudyError,
)
from personas.prompt.renderer import PromptTooLongError

STATUS_BY_SLUG = {"invalid-request": 400, "not-json-type": 400}
"""Statuses in which OpenAI differs from our other addresses."""


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
