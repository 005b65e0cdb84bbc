"""Half-open, silent and too many connections, over real sockets: the server goes on, and its log
stays short.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from bot.operations.web import sign_in_pages as sign_in_page
from bot.platform.web_kit import connections, request_body
from bot.platform.web_kit.auth import Authenticator
from bot.platform.web_kit.connections import (
    OUT_OF_FILES_ADVICE,
    ConnectionLimits,
    LimitedRunner,
    LogInterval,
)
from bot.platform.web_kit.problems import Problem
from bot.web_server import WebServer, run_server
from sandbox import Sandbox
from tests.sandbox.conftest import SEED

HALF_A_REQUEST = b"GET /dashboard/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
SIGN_IN = "/dashboard/sign-in"
TOKEN = "a-token-of-more-than-24-characters"


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[URL]:
    """A web server without services behind it: connections come before those."""
    server = WebServer(Authenticator(TOKEN), ConnectionLimits(**limits))
    async with run_server(server, 0) as url:
        yield URL(url)


@contextmanager
def half_open(
    url: URL, count: int, source: str = "127.0.0.1", sent: bytes = HALF_A_REQUEST
) -> Iterator[list[socket.socket]]:
    """Connections that have sent a part of a request, and say nothing more."""
    opened = [
        socket.create_connection((url.host, url.port), source_address=(source, 0))
        for _ in range(count)
    ]
    try:
        for one in opened:
            one.sendall(sent)
        yield opened
    finally:
        for one in opened:
            one.close()


async def ask(url: URL, path: str = SIGN_IN) -> int:
    async with aiohttp.ClientSession() as session, session.get(url / path.lstrip("/")) as answer:
        return answer.status


async def received(one: socket.socket, timeout_s: float = 5.0) -> bytes:
    """What a server sends until it closes the connection; empty for one that it resets."""
    one.setblocking(False)
    parts = []
    async with asyncio.timeout(timeout_s):
        try:
            while part := await asyncio.get_running_loop().sock_recv(one, 65536):
                parts.append(part)
        except ConnectionError:
            pass
    return b"".join(parts)


async def test_half_open_connections_make_room_for_whole_requests() -> None:
    async with serving(max_connections=20) as url:
        with half_open(url, 60) as opened:
            assert [await ask(url) for _ in range(5)] == [200] * 5
            assert await received(opened[0]) == b""  # the oldest were closed


async def test_without_an_open_file_left_the_log_stays_short_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving() as url:
        clients = [socket.socket() for _ in range(20)]
        spare = socket.socket()
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (spare.fileno(), hard)
        )  # one that is closed may be opened again
        try:
            for client in clients:
                client.connect((url.host, url.port))
            await asyncio.sleep(0.05)
            assert connections.default_max_connections() <= spare.fileno() // 2
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with asyncio.timeout(5):  # asyncio listens again after a second
            assert await ask(url) == 200
        for client in (*clients, spare):
            client.close()
    messages = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    # asyncio would listen again after a second, and finds the server closed.
    assert [message for message in messages if "_start_serving" not in message] == [
        OUT_OF_FILES_ADVICE
    ]


async def test_an_address_has_a_share_and_another_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n" % SIGN_IN.encode()
    body += b"Origin: http://127.0.0.1\r\n"
    body += b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    async with serving(max_connections=20) as url:
        with half_open(url, 10, "127.0.0.2", sent=body):
            await asyncio.sleep(0.1)  # now they are requests, whose bodies are awaited
            with half_open(url, 3, "127.0.0.2") as more:
                answers = [await received(one) for one in more]
                assert all(
                    it.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in it for it in answers
                )
                assert await ask(url) == 200
    gc.collect()  # tasks report an exception that nobody has seen when they are deleted
    assert not [record for record in caplog.records if record.name == "asyncio"]
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    (line,) = lines
    assert line.startswith("1 connections") and "127.0.0.2" in line
    assert "10 are open, 10 of them" in line


async def test_proxies_have_no_share_of_their_own() -> None:
    async with serving(max_connections=8, is_proxy=lambda address: address == "127.0.0.2") as url:
        with half_open(url, 8, "127.0.0.2") as opened:
            await asyncio.sleep(0.1)
            opened[0].setblocking(False)
            with pytest.raises(BlockingIOError):  # open still, although an address may have four
                opened[0].recv(1)


async def test_a_request_that_does_not_come_is_not_awaited() -> None:
    async with serving(request_timeout_s=0.3) as url:
        with half_open(url, 1) as dripping, half_open(url, 1, sent=b"") as silent:
            for _ in range(2):
                await asyncio.sleep(0.1)
                dripping[0].sendall(b"x")  # a byte now and then is no request either
            assert await received(dripping[0]) == b""
            assert await received(silent[0]) == b""


async def test_a_body_that_does_not_come_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in_page, "PUBLIC_BODY_TIMEOUT_S", 0.2)
    head = (
        f"POST {SIGN_IN} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: "
        "http://127.0.0.1\r\nContent-Length: 99\r\n"
    )
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    async with serving() as url:
        with half_open(url, 1, sent=head.encode()) as opened:
            one = opened[0]
            one.setblocking(False)
            async with asyncio.timeout(5):
                answer = await asyncio.get_running_loop().sock_recv(one, 65536)
            assert answer.startswith(b"HTTP/1.1 408 ")
        await asyncio.sleep(0.05)  # the server notices that the client has gone


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone has this option")
async def test_a_response_that_nobody_reads_is_given_up() -> None:
    app = web.Application()
    ended = asyncio.Event()

    async def send(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(bytes(2**20))
        finally:
            ended.set()

    app.router.add_get("/", send)
    runner = LimitedRunner(app, ConnectionLimits(unread_timeout_s=0.3))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with half_open(
            URL(f"http://127.0.0.1:{runner.addresses[0][1]}"),
            1,
            sent=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            async with asyncio.timeout(10):
                await ended.wait()
    finally:
        await runner.cleanup()


async def test_a_form_whose_file_stalls_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "IDLE_TIMEOUT_S", 0.2)

    async def receive(request: web.Request) -> web.Response:
        with pytest.raises(Problem) as raised:
            await request_body.read_file_form(request, 100)
        return web.Response(status=raised.value.status)

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, lingering_time=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sent = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n"
    sent += b'Content-Type: multipart/form-data; boundary="x"\r\n\r\n'
    sent += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    try:
        with half_open(URL(f"http://127.0.0.1:{runner.addresses[0][1]}"), 1, sent=sent) as opened:
            opened[0].setblocking(False)
            async with asyncio.timeout(5):
                assert (await asyncio.get_running_loop().sock_recv(opened[0], 99)).startswith(
                    b"HTTP/1.1 408 "
                )
    finally:
        await runner.cleanup()


async def test_the_guild_on_this_machine_has_the_same_limits() -> None:
    server = WebServer(Authenticator(TOKEN), ConnectionLimits(max_connections=10))
    sandbox = Sandbox(SEED)
    await sandbox.start(mount=server.mount, create_runner=server.create_runner)
    try:
        with half_open(URL(sandbox.url), 40):
            assert await ask(URL(sandbox.url), "/dashboard/sign-in") == 200
    finally:
        await sandbox.stop()


def test_events_are_counted_between_two_lines() -> None:
    now = [0.0]
    interval = LogInterval(lambda: now[0])
    counted = []
    for at in (0.0, 10.0, 20.0, 60.0, 61.0):
        now[0] = at
        counted.append(interval.count())
    assert counted == [1, 0, 0, 3, 0]
