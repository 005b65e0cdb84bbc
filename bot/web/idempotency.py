"""`Idempotency-Key`: a request that may be sent again is done once, and answered the same for a day.

What lives in memory only has its answers there, too: they hold until the bot ends, as that does, and what was said in
the playground never reaches the disk.

`POST /finetune/start-training` does without: there the job's own id comes from the key. The OpenAI interface does, too:
its clients send keys of their own accord, and a reply may be made again without harm.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field

from aiohttp import web

from bot.store.answered import KEPT_S, Answered
from bot.web.bodies import FULL, json_bytes
from bot.web.frame import is_dashboard
from bot.web.here import Handler, house_of
from bot.web.problems import Problem

KEY = re.compile(r"[\x21-\x7e]{1,255}")
NAME = "Idempotency-Key"
OWN_WAY = ("/finetune/start-training", "/v1/")
LARGEST, LONGEST_KEPT = 2**20, 2**20
"""Bytes of a request with a key, and letters of an answer that is kept."""
IN_MEMORY = re.compile(r"/play/.*|/tokens|/finetune/plan|/personas/[^/]+/(lore/ask|card/check)")
"""What is kept until the bot ends, or not at all."""
MOST_IN_MEMORY = 1000


class PassingAnswers:
    """As `AnsweredRequests`, in memory: the latest thousand, and none from before somebody was forgotten."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, Answered]] = {}
        self._forgettings = 0

    def since(self, forgettings: int) -> PassingAnswers:
        """These, without what was answered when fewer forgettings had been asked for."""
        if forgettings != self._forgettings:
            self._kept.clear()
            self._forgettings = forgettings
        return self

    def get(self, key: bytes, now: float) -> Answered | None:
        """What a key stands for; None when it is new."""
        at, found = self._kept.get(key, (0.0, None))
        return found if now - at < KEPT_S else None

    def begin(self, key: bytes, request: bytes, now: float) -> None:
        """A request with a new key is being done from now on."""
        self._kept.pop(key, None)
        self._kept[key] = now, Answered(request, None, "")
        if len(self._kept) > MOST_IN_MEMORY:
            del self._kept[next(iter(self._kept))]

    def end(self, key: bytes, status: int, body: str) -> None:
        """It was done, and answered so."""
        if begun := self._kept.get(key):
            self._kept[key] = begun[0], Answered(begun[1].request, status, body)

    def drop(self, key: bytes) -> None:
        """It was refused: nothing was done, and the key may come again."""
        self._kept.pop(key, None)


@dataclass
class Keys:
    """The keys whose requests are being done now, and the answers that no disk keeps."""

    running: set[bytes] = field(default_factory=set)
    answered: PassingAnswers = field(default_factory=PassingAnswers)


KEYS = web.AppKey("keys", Keys)


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
    running = request.app[KEYS].running
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
    now = time.time()
    found = _passing(request).get(key, now) or house_of(request).store.answered.get(key, now)
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


def _passing(request: web.Request) -> PassingAnswers:
    return request.app[KEYS].answered.since(house_of(request).store.forgettings.count())


async def _done(request: web.Request, handler: Handler, key: bytes, asked: bytes) -> web.StreamResponse:
    kept = _passing(request) if IN_MEMORY.fullmatch(request.path) else house_of(request).store.answered
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
