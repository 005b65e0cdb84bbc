"""Limits what clients may hold: connections in all and of one address, their idle time, and lines
in the log.
"""

import asyncio
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_CONNECTIONS = 512
OPEN_FILES_SHARE = 2
"""Connections get at most the process's open files divided by this; the others are the database,
models, uploads.
"""
ADDRESS_SHARE = 2
"""One address gets at most all connections divided by this."""
REQUEST_TIMEOUT_S = 60.0
"""Time for a request's first line and headers to arrive, and for a connection without requests to
stay open.
"""
UNREAD_TIMEOUT_S = 300.0
"""A connection is closed once a client has read nothing of a response for so long. (Downloads may
be paused.)
"""
LOG_INTERVAL_S = 60.0
CONNECTED_INTERVAL_S = 1.0
"""Time between two looks at whether a client still waits."""
OUT_OF_FILES_MESSAGE = "socket.accept() out of system resource"
"""Beginning of what asyncio logs, with a traceback, for each connection that there is no file left
for.
"""
OUT_OF_FILES_ADVICE = (
    "The process has no open file left for another connection. Raise its limit (ulimit -n, "
    "LimitNOFILE in a unit of "
    "systemd)."
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: "
    b"text/plain\r\n"
    b"Content-Length: 40\r\n\r\nToo many connections. Try again later.\r\n"
)


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what work returns, which is cancelled once the client's connection has ended: aiohttp
    lets a handler go on. Raises `asyncio.CancelledError` then.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=CONNECTED_INTERVAL_S)
            if request.transport is None or request.transport.is_closing():
                break
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return task.result()


def default_max_connections() -> int:
    """Return `MAX_CONNECTIONS`, or fewer where the process may open few files."""
    if sys.platform == "win32":  # sockets are no files there
        return MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:  # it is -1 on Linux, not a large number
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, soft // OPEN_FILES_SHARE))


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of a web server's connections.

    `is_proxy` tells addresses of reverse proxies, whose connections are many clients': they are
    limited in all only. `max_connections` 0 stands for the default.
    """

    max_connections: int = 0
    request_timeout_s: float = REQUEST_TIMEOUT_S
    unread_timeout_s: float = UNREAD_TIMEOUT_S
    is_proxy: Callable[[str], bool] = lambda address: False

    @property
    def in_all(self) -> int:
        return self.max_connections or default_max_connections()

    @property
    def per_address(self) -> int:
        return max(1, self.in_all // ADDRESS_SHARE)


class LogInterval:
    """Counts events of a kind, of which one in `LOG_INTERVAL_S` is logged, with the number since
    the last line.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._count, self._logged_at = clock, 0, float("-inf")

    def count(self) -> int:
        """Count an event. Returns the number to log now, this one included, or 0 for none."""
        self._count += 1
        now = self._clock()
        if now - self._logged_at < LOG_INTERVAL_S:
            return 0
        self._logged_at = now
        counted = self._count
        self._count = 0
        return counted


class AcceptErrorFilter(logging.Filter):
    """Shortens asyncio's tracebacks for connections without an open file to one line in
    `LOG_INTERVAL_S`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval = LogInterval(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(OUT_OF_FILES_MESSAGE):
            return True
        if not self._interval.count():
            return False
        record.msg = OUT_OF_FILES_ADVICE
        record.args = ()
        record.exc_info = None
        return True


class LimitedServer(web.Server):
    """A server with limits. Where they are reached, a new connection takes the place of the oldest
    without a request.

    Such are half open, or kept alive by clients, who then open another. Where all have requests, it
    gets a 503.
    """

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*arguments, keepalive_timeout=limits.request_timeout_s, **options)
        self._limits = limits
        self._in_all = limits.in_all
        self._per_address = limits.per_address
        self._open: dict[RequestHandler, tuple[str, asyncio.Transport]] = {}  # oldest first
        self._by_address = Counter[str]()
        self._refusals = LogInterval()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = _peer_address(transport)
        address = _client_key(peer)
        if self._by_address[address] >= self._per_address and not self._limits.is_proxy(peer):
            has_room = self._close_idle(address)
        else:
            has_room = len(self._open) < self._in_all or self._close_idle()
        if not has_room:
            # Not at once: aiohttp starts the handler after this, and reports a connection that is
            # closed before.
            asyncio.get_running_loop().call_soon(self._refuse, address, transport)
            return
        self._open[handler] = address, transport
        self._by_address[address] += 1
        _limit_unread(transport, self._limits.unread_timeout_s)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._forget(handler)

    def _forget(self, handler: RequestHandler) -> None:
        if handler in self._open:
            address, _ = self._open.pop(handler)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _close_idle(self, address: str = "") -> bool:
        """Close the oldest connection (of an address) without a request; False if there is none."""
        for handler, (peer, transport) in self._open.items():
            is_idle = not handler._request_in_progress and not transport.get_write_buffer_size()
            if is_idle and (not address or peer == address):
                self._forget(handler)
                transport.abort()
                return True
        return False

    def _refuse(self, address: str, transport: asyncio.Transport) -> None:
        transport.write(REFUSAL)
        transport.close()
        if count := self._refusals.count():
            log.warning(
                "%d connections were refused, the last from %s: %d are open, %d of them from "
                "there.",
                count, address, len(self._open), self._by_address[address],
            )  # fmt: skip


class LimitedRunner(web.AppRunner):
    """Runs an application on a `LimitedServer`."""

    def __init__(self, app: web.Application, limits: ConnectionLimits, **options: Any) -> None:
        """`options` are those of `aiohttp.web.AppRunner`."""
        super().__init__(app, **options)
        self._limits = limits

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return LimitedServer(
            server.request_handler,
            request_factory=server.request_factory,
            limits=self._limits,
            **self._kwargs,
        )

    async def setup(self) -> None:
        await super().setup()
        asyncio_log = logging.getLogger("asyncio")
        if not any(isinstance(log_filter, AcceptErrorFilter) for log_filter in asyncio_log.filters):
            asyncio_log.addFilter(AcceptErrorFilter())


def _peer_address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0]).partition("%")[0]
    return ""


def _client_key(peer: str) -> str:
    """Return the address that a client counts under; for IPv6 its network, in which one machine has
    many.
    """
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return peer


def _limit_unread(transport: asyncio.Transport, timeout_s: float) -> None:
    # Linux alone has it (tcp(7)). It also counts while the client's window is 0.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, option, round(timeout_s * 1000)
        )
