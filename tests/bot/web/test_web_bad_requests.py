"""What a client sends that is no request: it is refused, and is no error of ours in the log."""

import asyncio
import logging

import pytest
from aiohttp import web

from sandbox import Sandbox
from tests.sandbox.conftest import SEED

HOST = "Host: 127.0.0.1\r\nConnection: close\r\n"
JSON = "Content-Type: application/json\r\n"
PACKED = f"{JSON}Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(params=["alone", "in the guild"])
async def say(request, dashboard):
    """Sends bytes, and gives the status and what follows."""
    guild = Sandbox(SEED)
    if request.param == "in the guild":
        await guild.start(mount=dashboard.front.mount)
    url = guild.url or dashboard.url

    async def said(raw):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(raw if isinstance(raw, bytes) else raw.encode())
        async with asyncio.timeout(10):
            answer = (await reader.read()).decode()
        writer.close()
        return int(answer.split()[1]), answer

    yield said
    await guild.stop()


async def test_another_hosts_address_is_refused(say):
    for line in [
        "GET http://evil.example/healthz",
        "CONNECT evil.example:443",
        "GET http://evil.example/nowhere",
    ]:
        status, answer = await say(f"{line} HTTP/1.1\r\n{HOST}\r\n")
        assert status == 403 and "not-from-here" in answer, line


async def test_an_own_address_may_be_whole(say):
    for host in ["127.0.0.1:8420", "[::1]:8420", "LOCALHOST"]:
        assert (await say(f"GET http://{host}/healthz HTTP/1.1\r\n{HOST}\r\n"))[0] == 200, host


MISTAKES = [
    f"POST /finetune/start-training HTTP/1.1\r\n{HOST}{PACKED}",
    f"POST /dashboard/tokens HTTP/1.1\r\n{HOST}Idempotency-Key: k\r\n{PACKED}",
    f"POST /v1/chat/completions HTTP/1.1\r\n{HOST}{PACKED}",
    f"PUT /dashboard/data/uploads/a.jsonl HTTP/1.1\r\n{HOST}{PACKED}",
    f"POST /page-api/say HTTP/1.1\r\n{HOST}{PACKED}",
    f"GET /finetune/jobs?limit=١ HTTP/1.1\r\n{HOST}\r\n",
    "GARBAGE\r\n\r\n",
    f"GET /healthz HTTP/1.1\r\n{HOST}X: {'a' * 70_000}\r\n\r\n",
    f"GET /healthz?{'a' * 70_000} HTTP/1.1\r\n{HOST}\r\n",
    f"POST /dashboard/tokens HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: "
    "chunked\r\n\r\n0\r\n\r\n",
    f"POST /dashboard/tokens HTTP/1.1\r\n{HOST}{JSON}Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    f"GET http://[/x HTTP/1.1\r\n{HOST}\r\n",
    "GET /healthz HTTP/1.1\r\n\r\n",
]


async def test_a_clients_mistake_is_refused_and_no_error_of_ours(say, caplog):
    for raw in MISTAKES:
        caplog.set_level(logging.INFO)
        status, _ = await say(raw)
        await asyncio.sleep(0.01)  # what is left of a body is read after the answer
        assert 400 <= status < 500 and not caplog.records, raw[:80]


async def test_it_is_reported_in_one_line_to_whoever_looks_for_it(say, caplog):
    caplog.set_level(logging.DEBUG, "bot.web_server")
    await say(f"GET http://[/x HTTP/1.1\r\n{HOST}\r\n")
    [record] = caplog.records
    assert (
        record.levelno == logging.DEBUG and record.exc_info is None and "[/x" in record.getMessage()
    )


async def test_a_fault_of_ours_stays_an_error(dashboard, caplog):
    async def broken(request):
        return request.app / 1

    app = web.Application()
    app.router.add_get("/", broken)
    dashboard.front.mount(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with dashboard.session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as answer:
        assert answer.status == 500
    await runner.cleanup()
    assert "TypeError" in caplog.text
