"""`Idempotency-Key`: a repeated request is handled once and answered the same for a day."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field

from aiohttp import web

from bot.store.replies import IDEMPOTENCY_KEY_LIFETIME_S, IdempotentResponse
from bot.web.app_context import Handler, get_services
from bot.web.problems import Problem
from bot.web.request_body import CACHED_BODY, read_body
from bot.web.templating import is_dashboard_path

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
KEY_HEADER = "Idempotency-Key"
EXEMPT_PREFIXES = ("/finetune/start-training", "/v1/")
MAX_REQUEST_BYTES, MAX_STORED_RESPONSE_CHARS = 2**20, 2**20
"""Limits of a request with a key, and of a stored response."""
IN_MEMORY_PATHS = re.compile(r"/play/.*|/tokens|/finetune/plan|/personas/[^/]+/(lore/ask|card/check)")
"""Responses that are never written to the database."""
MAX_IN_MEMORY_RESPONSES = 1000


class InMemoryResponses:
    """Keeps the latest responses in memory; all are dropped once a member is forgotten."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, IdempotentResponse]] = {}
        self._forgettings = 0

    def since(self, forgettings: int) -> InMemoryResponses:
        """Return these responses, cleared if a member was forgotten since."""
        if forgettings != self._forgettings:
            self._kept.clear()
            self._forgettings = forgettings
        return self

    def get(self, key: bytes, now: float) -> IdempotentResponse | None:
        at, found = self._kept.get(key, (0.0, None))
        return found if now - at < IDEMPOTENCY_KEY_LIFETIME_S else None

    def begin(self, key: bytes, request: bytes, now: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = now, IdempotentResponse(request, None, "")
        if len(self._kept) > MAX_IN_MEMORY_RESPONSES:
            del self._kept[next(iter(self._kept))]

    def end(self, key: bytes, status: int, body: str) -> None:
        if begun := self._kept.get(key):
            self._kept[key] = begun[0], IdempotentResponse(begun[1].request, status, body)

    def drop(self, key: bytes) -> None:
        """Forget a refused request, whose key may be used again."""
        self._kept.pop(key, None)


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
    if request.method != "POST" or is_dashboard_path(request) or request.path.startswith(EXEMPT_PREFIXES):
        return await handler(request)
    key = idempotency_key(request)
    if key is None:
        return await handler(request)
    return await _respond_with_key(request, handler, hashlib.sha256(key.encode()).digest())


async def _respond_with_key(request: web.Request, handler: Handler, key: bytes) -> web.StreamResponse:
    running = request.app[IDEMPOTENCY_STATE].running
    if request.body_exists and request.content_type != "application/json":
        raise Problem("bad-header", f"An {KEY_HEADER} goes with JSON only.", "Send this without one.")
    body = request[CACHED_BODY] = await read_body(request, MAX_REQUEST_BYTES)
    asked = hashlib.sha256(f"{request.method} {request.path_qs}\n".encode() + body).digest()
    if key in running:
        raise Problem(
            "conflict", "A request with this key is being handled.", "Try again.", headers={"Retry-After": "2"}
        )
    if known := _stored_response(request, key, asked):
        return known
    running.add(key)
    try:
        return await _handle_and_store(request, handler, key, asked)
    finally:
        running.discard(key)


def _stored_response(request: web.Request, key: bytes, asked: bytes) -> web.Response | None:
    now = time.time()
    found = _in_memory_responses(request).get(key, now) or get_services(request).store.idempotency_keys.get(key, now)
    if found is None:
        return None
    if found.request != asked:
        raise Problem(
            "key-used", f"This {KEY_HEADER} came with another request before.", "Send a new key with a new request."
        )
    if found.status is None:
        raise Problem(
            "conflict", "The bot stopped during the request, or could not store its response.",
            "Check whether it was done; if not, send it with a new key.",
        )  # fmt: skip
    return web.Response(text=found.body, status=found.status, content_type="application/json")


def _in_memory_responses(request: web.Request) -> InMemoryResponses:
    return request.app[IDEMPOTENCY_STATE].answered.since(get_services(request).store.erasure_requests.count())


async def _handle_and_store(request: web.Request, handler: Handler, key: bytes, asked: bytes) -> web.StreamResponse:
    kept = (
        _in_memory_responses(request)
        if IN_MEMORY_PATHS.fullmatch(request.path)
        else get_services(request).store.idempotency_keys
    )
    kept.begin(key, asked, time.time())
    try:
        made = await handler(request)
    except BaseException:
        kept.drop(key)
        raise
    text = made.text if isinstance(made, web.Response) and made.content_type == "application/json" else None
    if made.status < 400 and text is not None and len(text) <= MAX_STORED_RESPONSE_CHARS:
        kept.end(key, made.status, text)
    else:
        kept.drop(key)
    return made
