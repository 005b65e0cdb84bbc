"""`Idempotency-Key`: a repeated request is handled once and answered the same for a day."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field

from aiohttp import web

from bot.platform.db.idempotency_keys import IDEMPOTENCY_KEY_LIFETIME_S, IdempotentResponse
from bot.platform.web_kit.app_context import Handler, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import CACHED_BODY, read_body
from bot.platform.web_kit.templating import is_dashboard_path

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
KEY_HEADER = "Idempotency-Key"
EXEMPT_PREFIXES = ("/finetune/start-training", "/v1/")
MAX_REQUEST_BYTES = 2**20  # of a request with a key
MAX_STORED_RESPONSE_CHARS = 2**20
IN_MEMORY_PATHS = re.compile(
    r"/play/.*|/tokens|/finetune/plan|/personas/check|/personas/[^/]+/(lore/ask|card/check)"
)
"""Responses that are never written to the database."""
MAX_IN_MEMORY_RESPONSES = 1000


class InMemoryResponses:
    """Keeps the latest responses in memory; all are dropped once a member is forgotten."""

    def __init__(self) -> None:
        self._responses: dict[bytes, tuple[float, IdempotentResponse]] = {}
        self._erasure_count = 0

    def since(self, erasure_count: int) -> InMemoryResponses:
        """Return these responses, cleared if a member was forgotten since."""
        if erasure_count != self._erasure_count:
            self._responses.clear()
            self._erasure_count = erasure_count
        return self

    def get(self, key: bytes, now: float) -> IdempotentResponse | None:
        at, response = self._responses.get(key, (0.0, None))
        if now - at < IDEMPOTENCY_KEY_LIFETIME_S:
            return response
        return None

    def begin(self, key: bytes, request: bytes, now: float) -> None:
        # It moves to the end, as the first key is the one to be dropped.
        self._responses.pop(key, None)
        self._responses[key] = now, IdempotentResponse(request, None, "")
        if len(self._responses) > MAX_IN_MEMORY_RESPONSES:
            del self._responses[next(iter(self._responses))]

    def end(self, key: bytes, status: int, body: str) -> None:
        if stored := self._responses.get(key):
            self._responses[key] = stored[0], IdempotentResponse(stored[1].request, status, body)

    def drop(self, key: bytes) -> None:
        """Forget a refused request, whose key may be used again."""
        self._responses.pop(key, None)


@dataclass
class IdempotencyState:
    """Keys of running requests, and responses that are kept in memory only."""

    running: set[bytes] = field(default_factory=set)
    answered: InMemoryResponses = field(default_factory=InMemoryResponses)


IDEMPOTENCY_STATE = web.AppKey("keys", IdempotencyState)


def idempotency_key(request: web.Request) -> str | None:
    """The key of a request. Raises `Problem` for several keys and for an invalid one."""
    keys = request.headers.getall(KEY_HEADER, [])
    if not keys:
        return None
    if len(keys) > 1 or not KEY_PATTERN.fullmatch(keys[0]):
        advice = "Send one, of at most 255 visible ASCII characters."
        raise Problem("bad-header", f"The {KEY_HEADER} cannot be used.", advice)
    return keys[0]


async def respond_once(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's response, or the stored one of the same request and key. Raises `Problem`."""
    if (
        request.method != "POST"
        or is_dashboard_path(request)
        or request.path.startswith(EXEMPT_PREFIXES)
    ):
        return await handler(request)
    key = idempotency_key(request)
    if key is None:
        return await handler(request)
    return await _respond_with_key(request, handler, hashlib.sha256(key.encode()).digest())


async def _respond_with_key(
    request: web.Request, handler: Handler, key: bytes
) -> web.StreamResponse:
    running = request.app[IDEMPOTENCY_STATE].running
    if request.body_exists and request.content_type != "application/json":
        raise Problem(
            "bad-header", f"An {KEY_HEADER} goes with JSON only.", "Send this without one."
        )
    body = request[CACHED_BODY] = await read_body(request, MAX_REQUEST_BYTES)
    request_hash = hashlib.sha256(f"{request.method} {request.path_qs}\n".encode() + body).digest()
    if key in running:
        message = "A request with this key is being handled."
        raise Problem("conflict", message, "Try again.", headers={"Retry-After": "2"})
    if stored := _stored_response(request, key, request_hash):
        return stored
    running.add(key)
    try:
        return await _handle_and_store(request, handler, key, request_hash)
    finally:
        running.discard(key)


def _stored_response(request: web.Request, key: bytes, request_hash: bytes) -> web.Response | None:
    now = time.time()
    stored = _in_memory_responses(request).get(key, now) or get_services(
        request
    ).store.idempotency_keys.get(key, now)
    if stored is None:
        return None
    if stored.request != request_hash:
        raise reused_key_problem()
    if stored.status is None:
        message = "The bot stopped during the request, or could not store its response."
        raise Problem(
            "conflict", message, "Check whether it was done; if not, send it with a new key."
        )
    return web.Response(text=stored.body, status=stored.status, content_type="application/json")


def reused_key_problem(**more: str) -> Problem:
    """The problem of a key that came with another request before."""
    message = f"This {KEY_HEADER} came with another request before."
    return Problem("key-used", message, "Send a new key with a new request.", more=more)


def _in_memory_responses(request: web.Request) -> InMemoryResponses:
    return request.app[IDEMPOTENCY_STATE].answered.since(
        get_services(request).store.erasure_requests.count()
    )


async def _handle_and_store(
    request: web.Request, handler: Handler, key: bytes, request_hash: bytes
) -> web.StreamResponse:
    stored = get_services(request).store.idempotency_keys
    in_memory = _in_memory_responses(request)
    responses = in_memory if IN_MEMORY_PATHS.fullmatch(request.path) else stored
    # Written before anything is done: a key whose response is missing after a kill is never handled
    # again.
    responses.begin(key, request_hash, time.time())
    try:
        response = await handler(request)
    except BaseException:
        responses.drop(key)
        raise
    is_json = response.content_type == "application/json"
    text = None
    if isinstance(response, web.Response) and is_json:
        text = response.text
    if response.status < 400 and text is not None and len(text) <= MAX_STORED_RESPONSE_CHARS:
        responses.end(key, response.status, text)
    else:
        responses.drop(key)
    return response
