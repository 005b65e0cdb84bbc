"""Server-sent events: what happens, told to a page that stays open, and taken up where the connection broke off."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from bot.web.here import TENANT
from bot.web.words import without_places
from personas.errors import UnderstudyError

log = logging.getLogger(__name__)

Item = tuple[str, str, Any]
"""Id, name and data (JSON) of one event. An id of "" gives none: then a reconnecting page does not come back to it."""

PING_S, RETRY_MS = 15.0, 2000
LOOK_S = 0.5
"""How often it is looked whether the page is still there: what is made for it takes the machine's time."""
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy in between passes each event on at once
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LINE_ENDS = re.compile(r"[\r\n\0]")


async def stream(request: web.Request, items: AsyncIterator[Item], *, ping_s: float = PING_S) -> web.StreamResponse:
    """Send the events as they come, and a comment each 15 seconds in which there is none, until they end.

    A page that comes back says in `Last-Event-ID` which event it had last; what follows that is for `items` to know.
    Whoever goes away ends it: `items` is closed then, in its own `finally`. An error of `items` is told as a last event
    `problem` with `message` and `advice`, since the answer has begun.
    """
    answer = web.StreamResponse(headers=HEADERS)
    try:
        await answer.prepare(request)
        if request.method != "HEAD":
            await answer.write(f"retry: {RETRY_MS}\n\n".encode())
            await _send(request, answer, items, ping_s)
        await answer.write_eof()
    except ConnectionError:
        pass  # the page was closed
    finally:
        close = getattr(items, "aclose", None)
        if close:
            await close()
    return answer


async def _send(request: web.Request, answer: web.StreamResponse, items: AsyncIterator[Item], ping_s: float) -> None:
    following: asyncio.Future[Item] | None = None
    silent_s = 0.0
    try:
        while is_heard(request):
            following = following or asyncio.ensure_future(anext(items))
            if not (await asyncio.wait({following}, timeout=min(LOOK_S, ping_s)))[0]:
                silent_s += LOOK_S
                if silent_s >= ping_s:
                    await answer.write(b": still here\n\n")
                    silent_s = 0.0
                continue
            item, following, silent_s = following.result(), None, 0.0
            await answer.write(written(item))
    except StopAsyncIteration:
        pass  # there is no more to tell
    except ConnectionError:
        raise
    except Exception as error:
        await answer.write(written(("", "problem", _told(request, error))))
    finally:
        if following:
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled():
                following.exception()  # told already, or of no use to anybody any more


def _told(request: web.Request, error: Exception) -> dict[str, str]:
    if isinstance(error, UnderstudyError):
        house = request.app[TENANT].house
        home = house.home if house else None
        return {"message": without_places(error.message, home), "advice": without_places(error.advice, home)}
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=error)
    return {"message": "That went wrong inside the bot.", "advice": f"Its log says why under {code}."}


def is_heard(request: web.Request) -> bool:
    """Whether somebody still waits for an answer, and the bot has not begun to end."""
    return (
        request.transport is not None and not request.transport.is_closing() and request.app[TENANT].house is not None
    )


def written(item: Item) -> bytes:
    """One event as it is sent."""
    number, name, data = item
    lines = [f"id: {LINE_ENDS.sub(' ', number)}"] if number else []
    lines += [f"event: {LINE_ENDS.sub(' ', name)}"] if name else []
    lines.append(f"data: {json.dumps(data, ensure_ascii=False)}")
    return ("\n".join(lines) + "\n\n").encode()
