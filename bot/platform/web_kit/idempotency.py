"""`Idempotency-Key`: a repeated promotion or rollback is handled once and answered the same for a day."""

from __future__ import annotations

import hashlib
import re
import time

from aiohttp import web

from bot.platform.web_kit.app_context import Handler, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import CACHED_BODY, read_body

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
KEY_HEADER = "Idempotency-Key"
START_PATH = "/finetune/start-training"
"""A start needs nothing stored: its job's id is a hash of the key."""
KEYED_PATHS = re.compile(r"/personas/[^/]+/(?:versions/[^/]+/promote|rollback)")
"""Addresses whose responses are stored under a key."""
MAX_REQUEST_BYTES = 2**20  # of a request with a key
MAX_STORED_RESPONSE_CHARS = 2**20


RUNNING_KEYS = web.AppKey("keys of running requests", set[bytes])


def takes_key(method: str, path: str) -> bool:
    """Report whether requests to an address, or a route's pattern of it, take a key."""
    return method == "POST" and (path == START_PATH or bool(KEYED_PATHS.fullmatch(path)))


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
    if request.method != "POST" or not KEYED_PATHS.fullmatch(request.path):
        return await handler(request)
    key = idempotency_key(request)
    if key is None:
        return await handler(request)
    return await _respond_with_key(request, handler, hashlib.sha256(key.encode()).digest())


async def _respond_with_key(
    request: web.Request, handler: Handler, key: bytes
) -> web.StreamResponse:
    running = request.app[RUNNING_KEYS]
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
    stored = get_services(request).store.idempotency_keys.get(key, now)
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


async def _handle_and_store(
    request: web.Request, handler: Handler, key: bytes, request_hash: bytes
) -> web.StreamResponse:
    responses = get_services(request).store.idempotency_keys
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
