"""Server-sent events: streams items to a client, with pings, and resumes after a lost
connection.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from bot.platform.web_kit.app_context import APP_CONTEXT
from bot.platform.web_kit.problems import internal_error, redacted_texts
from personas.errors import EngineBusyError, RequestError, UnderstudyError

T = TypeVar("T")
SseItem = tuple[str, str, Any]
"""Id, name and data (JSON) of an event. Clients do not resume after an id of ""."""

PING_INTERVAL_S = 15.0
RECONNECT_DELAY_MS = 2000
MAX_STREAMS = 200
DISCONNECT_POLL_S = 0.5
"""Interval of checks for a disconnected client, for whom nothing more should be generated."""
SSE_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy in between passes each event on at once
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LINE_END_PATTERN = re.compile(r"[\r\n\0]")


# aiohttp-sse 2.2.0 works with this aiohttp, but notices a closed page only at its next ping (15.05
# s measured, 0.5 s here), while replies are still generated for it; and it overrides
# `Cache-Control`.


async def stream_events(
    request: web.Request, items: AsyncIterator[SseItem], *, ping_s: float = PING_INTERVAL_S
) -> web.StreamResponse:
    """Stream events until they end, with a comment after each 15 seconds of silence.

    A client that reconnects sends `Last-Event-ID`; resuming there is up to `items`. When the client
    disconnects, `items` is closed. An error of `items` is sent as a last event `problem` with
    `message` and `advice`, as the response has started. Raises `EngineBusyError` where too many
    streams are open.
    """
    answer = web.StreamResponse(headers=SSE_HEADERS)
    context = request.app[APP_CONTEXT]
    if context.streams >= MAX_STREAMS:
        raise EngineBusyError(
            f"{MAX_STREAMS} streams of events are open.", "Close some of their pages."
        )
    context.streams += 1
    try:
        await answer.prepare(request)
        if request.method != "HEAD":
            await answer.write(f"retry: {RECONNECT_DELAY_MS}\n\n".encode())
            await _send_events(request, answer, items, ping_s)
        await answer.write_eof()
    except ConnectionError:
        pass  # the page was closed
    finally:
        context.streams -= 1
        close = getattr(items, "aclose", None)
        if close:
            await close()
    return answer


async def _send_events(
    request: web.Request, answer: web.StreamResponse, items: AsyncIterator[SseItem], ping_s: float
) -> None:
    following: asyncio.Future[SseItem] | None = None
    silent_s = 0.0
    try:
        while is_connected(request):
            following = following or asyncio.ensure_future(anext(items))
            # `wait_for` would cancel the item that is awaited, and end the generator with it.
            if not (await asyncio.wait({following}, timeout=min(DISCONNECT_POLL_S, ping_s)))[0]:
                silent_s += DISCONNECT_POLL_S
                if silent_s >= ping_s:
                    await answer.write(b": still here\n\n")
                    silent_s = 0.0
                continue
            item = following.result()
            following = None
            silent_s = 0.0
            await answer.write(encode_event(item))
    except StopAsyncIteration:
        pass
    except ConnectionError:
        raise
    except Exception as error:
        await answer.write(encode_event(("", "problem", _error_data(request, error))))
    finally:
        if following:
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled():
                following.exception()  # sent already, or nobody listens any more


def _error_data(request: web.Request, error: Exception) -> dict[str, str]:
    services = request.app[APP_CONTEXT].services
    known = error if isinstance(error, UnderstudyError) else internal_error(error)
    message, advice = redacted_texts(known, services.home if services else None)
    return {"message": message, "advice": advice}


def is_connected(request: web.Request) -> bool:
    return (
        request.transport is not None
        and not request.transport.is_closing()
        and request.app[APP_CONTEXT].services is not None
    )


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Do what only the client waits for; it is cancelled when the client disconnects. Raises
    `RequestError` then.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done():
            if not is_connected(request):
                raise RequestError("The client has disconnected.", "Send the request again.")
            await asyncio.wait({task}, timeout=DISCONNECT_POLL_S)
        return await task
    finally:
        task.cancel()


def encode_event(item: SseItem) -> bytes:
    number, name, data = item
    lines = []
    if number:
        lines.append(f"id: {LINE_END_PATTERN.sub(' ', number)}")
    if name:
        lines.append(f"event: {LINE_END_PATTERN.sub(' ', name)}")
    lines.append(f"data: {json.dumps(data, ensure_ascii=False)}")
    return ("\n".join(lines) + "\n\n").encode()
