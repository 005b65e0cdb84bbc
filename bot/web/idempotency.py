"""`Idempotency-Key`: a request that may be sent again is done once, and answered the same for a day.

`POST /finetune/start-training` does without: there the job's own id comes from the key. The OpenAI interface does, too:
its clients send keys of their own accord, and a reply may be made again without harm.
"""

from __future__ import annotations

import hashlib
import re
import time

from aiohttp import web

from bot.web.bodies import FULL, json_bytes
from bot.web.frame import is_dashboard
from bot.web.here import Handler, house_of
from bot.web.problems import Problem

KEY = re.compile(r"[\x21-\x7e]{1,255}")
NAME = "Idempotency-Key"
OWN_WAY = ("/finetune/start-training", "/v1/")
LARGEST, LONGEST_KEPT = 2**20, 2**20
"""Bytes of a request with a key, and letters of an answer that is kept."""
RUNNING = web.AppKey("requests with keys", set[bytes])
"""The keys whose requests are being done now."""


def key_of(request: web.Request) -> str | None:
    """The key that came with a request. Raises `Problem` for more than one, and for what can be none."""
    keys = request.headers.getall(NAME, [])
    if not keys:
        return None
    if len(keys) > 1 or not KEY.fullmatch(keys[0]):
        advice = "Send one, of at most 255 visible ASCII characters."
        raise Problem("bad-header", f"The {NAME} cannot be used.", advice)
    return keys[0]


async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or the one that the same request with the same key has had. Raises `Problem`."""
    if request.method != "POST" or is_dashboard(request) or request.path.startswith(OWN_WAY):
        return await handler(request)
    key = key_of(request)
    if key is None:
        return await handler(request)
    return await _once(request, handler, hashlib.sha256(key.encode()).digest())


async def _once(request: web.Request, handler: Handler, key: bytes) -> web.StreamResponse:
    running = request.app[RUNNING]
    if request.body_exists and request.content_type != "application/json":
        raise Problem("bad-header", f"An {NAME} goes with JSON only.", "Send this without one.")
    body = request[FULL] = await json_bytes(request, LARGEST)
    asked = hashlib.sha256(f"{request.method} {request.path_qs}\n".encode() + body).digest()
    if key in running:
        raise Problem("conflict", "The same key is being worked on.", "Try again.", headers={"Retry-After": "2"})
    if known := _known(request, key, asked):
        return known
    running.add(key)
    try:
        return await _done(request, handler, key, asked)
    finally:
        running.discard(key)


def _known(request: web.Request, key: bytes, asked: bytes) -> web.Response | None:
    found = house_of(request).store.answered.get(key, time.time())
    if found is None:
        return None
    if found.request != asked:
        raise Problem(
            "key-used", f"This {NAME} came with another request before.", "Send a new key with a new request."
        )
    if found.status is None:
        raise Problem(
            "conflict", "The bot ended while it did this, or could not note its answer.",
            "Look whether it was done; if not, send it with a new key.",
        )  # fmt: skip
    return web.Response(text=found.body, status=found.status, content_type="application/json")


async def _done(request: web.Request, handler: Handler, key: bytes, asked: bytes) -> web.StreamResponse:
    kept = house_of(request).store.answered
    kept.begin(key, asked, time.time())
    try:
        made = await handler(request)
    except BaseException:
        kept.drop(key)
        raise
    text = made.text if isinstance(made, web.Response) and made.content_type == "application/json" else None
    if made.status < 400 and text is not None and len(text) <= LONGEST_KEPT:
        kept.end(key, made.status, text)
    else:
        kept.drop(key)
    return made
