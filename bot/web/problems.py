"""Errors of the HTTP API as problem details (RFC 9457)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field

from personas.errors import EngineBusyError, UnderstudyError

PROBLEMS = {
    "not-json": (400, "The body is no JSON"),
    "not-whole": (400, "What was sent broke off"),
    "bad-request": (400, "The request cannot be read"),
    "bad-header": (400, "A header cannot be used"),
    "bad-query": (400, "The address asks for something that cannot be"),
    "sign-in": (401, "One has to sign in first"),
    "not-from-here": (403, "Only the bot's own pages, and programs, are answered"),
    "not-found": (404, "There is no such thing here"),
    "method-not-allowed": (405, "This cannot be done to it"),
    "conflict": (409, "Something else stands in the way"),
    "key-used": (409, "The key belongs to another request"),
    "too-large": (413, "The body is too large"),
    "not-json-type": (415, "Only JSON is read here"),
    "address-too-long": (414, "The address is too long"),
    "wrong-kind": (415, "Files of this kind are not read"),
    "bad-name": (422, "The name cannot be used"),
    "invalid-request": (422, "Fields of the request are wrong"),
    "cannot-train": (422, "This cannot be trained on this machine"),
    "refused": (422, "This cannot be done as it is asked for"),
    "no-memory": (422, "There is not enough memory for this"),
    "too-many-tries": (429, "Too many tries have failed"),
    "failed": (500, "Something went wrong inside"),
    "busy": (503, "The bot cannot take this now"),
    "no-room": (507, "The disk has no room for this"),
}
"""By the last part of `type`: HTTP status and title."""


class FieldProblem(BaseModel):
    """A wrong field of a request: its name and JSON pointer, what is wrong, what is allowed there, and what came."""

    field: str
    pointer: str = ""
    detail: str
    allowed: str = ""
    got: str = ""


class ProblemDetails(BaseModel):
    """Problem details as in RFC 9457. `advice` says what to do, `errors` names each wrong field."""

    type: Annotated[str, Field(json_schema_extra={"enum": [f"/problems/{slug}" for slug in PROBLEMS]})]
    title: str
    status: int
    detail: str
    instance: str
    advice: str = ""
    errors: list[FieldProblem] = []


class Problem(UnderstudyError):
    """A refusal. `errors` names each wrong field, `more` are members of its own."""

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
        self.slug, self.errors, self.more = slug, errors or [], dict(more or {})
        self.headers = dict(headers or {})
        self.status, self.title = PROBLEMS[slug]


def retry_headers(error: Exception) -> dict[str, str]:
    """The headers that tell when to ask again, where that is known."""
    return {"Retry-After": str(math.ceil(error.wait_s))} if isinstance(error, EngineBusyError) else {}


def problem_response(problem: Problem, path: str) -> web.Response:
    """The answer that tells a problem; `path` is what was asked for."""
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
    text = json.dumps(body | problem.more)
    return web.Response(
        body=text.encode(), status=problem.status, content_type="application/problem+json", headers=problem.headers
    )
