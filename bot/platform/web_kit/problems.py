"""Errors of the HTTP API as problem details (RFC 9457)."""

import json
import logging
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field

from bot.platform.errors import DISK_FULL_MESSAGE, redact_paths
from personas.cli_common import commands_as_typed
from personas.errors import EngineBusyError, UnderstudyError

log = logging.getLogger(__name__)
PROBLEMS: Mapping[str, tuple[int, str]] = {
    "not-json": (400, "The body is not valid JSON"),
    "not-whole": (400, "The request is incomplete"),
    "bad-request": (400, "The request cannot be read"),
    "bad-header": (400, "Invalid header"),
    "bad-query": (400, "Invalid query parameter"),
    "sign-in": (401, "Sign-in required"),
    "not-from-here": (403, "Cross-site request rejected"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "too-slow": (408, "The request did not arrive in time"),
    "conflict": (409, "Conflict with the current state"),
    "key-used": (409, "The key was used for another request"),
    "too-large": (413, "The body is too large"),
    "not-json-type": (415, "Only JSON is accepted"),
    "address-too-long": (414, "The address is too long"),
    "wrong-kind": (415, "Unsupported file type"),
    "bad-name": (422, "Invalid name"),
    "invalid-request": (422, "Invalid fields in the request"),
    "cannot-train": (422, "This training cannot run on this machine"),
    "refused": (422, "The request cannot be carried out"),
    "no-memory": (422, "Not enough memory"),
    "too-many-tries": (429, "Too many failed attempts"),
    "failed": (500, "Internal error"),
    "busy": (503, "Temporarily unavailable"),
    "not-connected": (503, "Not connected to Discord"),
    "not-stored": (503, "Nothing can be stored"),
    "no-room": (507, "Not enough disk space"),
}
"""By the last part of `type`: HTTP status and title."""


class FieldProblem(BaseModel):
    """A wrong field of a request: its name and JSON pointer, what is wrong, what is allowed there,
    and what came.
    """

    field: str
    pointer: str = ""
    detail: str
    allowed: str = ""
    got: str = ""


class ProblemDetails(BaseModel):
    """Problem details as in RFC 9457. `advice` says what to do, `errors` names each wrong field."""

    type: Annotated[
        str, Field(json_schema_extra={"enum": [f"/problems/{slug}" for slug in PROBLEMS]})
    ]
    title: str
    status: int
    detail: str
    instance: str
    advice: str = ""
    errors: list[FieldProblem] = []


class Problem(UnderstudyError):
    """An error response. `errors` names each wrong field, `more` holds extension members."""

    def __init__(
        self,
        slug: str,
        message: str,
        advice: str = "",
        *,
        errors: list[dict[str, str]] | None = None,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, advice)
        self.slug = slug
        self.errors = errors or []
        self.more = dict(more or {})
        self.headers = dict(headers or {})
        self.status, self.title = PROBLEMS[slug]

    @property
    def text(self) -> str:
        """Message and advice."""
        return " ".join(filter(None, (self.message, self.advice)))

    def name_field(self, field: str) -> None:
        """Name the form's field beside which it is shown whole, unless it names its fields."""
        if field and not self.errors:
            self.errors = [field_error(field, self.text)]


def retry_headers(error: Exception) -> dict[str, str]:
    """A `Retry-After` header if the error says when to try again."""
    if isinstance(error, EngineBusyError):
        # Rounded up: the header has whole seconds, and a client that comes early is refused again.
        return {"Retry-After": str(math.ceil(error.wait_s))}
    return {}


def field_error(field: str, detail: str) -> dict[str, str]:
    """An entry of a problem's `errors`."""
    return {"field": field, "pointer": f"#/{field}" if field else "#", "detail": detail}


def field_problem(field: str, message: str, advice: str = "") -> Problem:
    """Return the problem of one field of a form, beside which it is shown whole."""
    problem = Problem("invalid-request", message, advice)
    problem.name_field(field)
    return problem


def redacted_texts(error: UnderstudyError, home: Path | None) -> tuple[str, str]:
    """An error's message and advice without the machine's folders, and with the commands as the bot
    was started.
    """
    message = commands_as_typed(error.message)
    advice = commands_as_typed(error.advice)
    return redact_paths(message, home), redact_paths(advice, home)


def redacted_problem(slug: str, error: UnderstudyError, home: Path | None) -> Problem:
    """Return the problem with an error's texts, without the machine's folders."""
    message, advice = redacted_texts(error, home)
    return Problem(slug, message, advice, headers=retry_headers(error))


def internal_error(error: Exception) -> Problem:
    """Log an unexpected error under a code, and return a problem that names only the code."""
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=error)
    return Problem(
        "failed",
        "An internal error occurred.",
        f"The bot's log has the details under {code}.",
    )


def disk_full_problem(error: Exception) -> Problem:
    """Log that nothing can be written, and return the problem."""
    log.error("nothing can be stored: the disk is full: %s", error)
    advice = "Free space on the disk of UNDERSTUDY_HOME, then send it again."
    return Problem("no-room", DISK_FULL_MESSAGE, advice)


def problem_response(problem: Problem, path: str) -> web.Response:
    """The response of a problem; `path` is that of the request."""
    body: dict[str, Any] = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.message,
        "instance": path,
    }
    if problem.advice:
        body["advice"] = problem.advice
    if problem.errors:
        body["errors"] = problem.errors
    content = json.dumps(body | problem.more).encode()
    return web.Response(
        body=content,
        status=problem.status,
        content_type="application/problem+json",
        headers=problem.headers,
    )
