"""An upload and a pasted export do not raise the server's memory, whatever their size: measured in
its own process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

MIB = 2**20
ALLOWED_BYTES = 64 * MIB
LOOK_S = 0.02
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, psutil.Process]]:
    """A session with a server of its own, and its process, which has taken a first file already."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bot.web.upload_server", str(tmp_path / "home"), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        async with session.put("/dashboard/data/uploads/first.txt", data=_bytes(8 * MIB)) as answer:
            assert answer.status == 201
        yield session, psutil.Process(process.pid)
    process.stdin.close()
    await process.wait()


@asynccontextmanager
async def rise_of(process: psutil.Process) -> AsyncIterator[list[int]]:
    """The most that a process's memory grows while something is done, in bytes: the only entry of
    the list.
    """
    before = process.memory_info().rss
    most = [0]

    async def look() -> None:
        while True:
            most[0] = max(most[0], process.memory_info().rss - before)
            await asyncio.sleep(LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield most
    finally:
        looking.cancel()
        most[0] = max(most[0], process.memory_info().rss - before)


async def _bytes(count: int) -> AsyncIterator[bytes]:
    piece = b"0123456789abcdef" * (MIB // 16)
    for _ in range(count // MIB):
        yield piece


async def put(session: aiohttp.ClientSession, size: int) -> int:
    async with session.put("/dashboard/data/uploads/large.txt", data=_bytes(size)) as answer:
        assert answer.status == 201, await answer.text()
        return int((await answer.json())["bytes"])


async def paste(session: aiohttp.ClientSession, size: int) -> int:
    """The page's form without scripts, with an export in its text area."""

    async def form() -> AsyncIterator[bytes]:
        yield b'--mark\r\nContent-Disposition: form-data; name="name"\r\n\r\nchat.txt\r\n'
        yield b'--mark\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
        async for piece in _bytes(size):
            yield piece
        yield b"\r\n--mark--\r\n"

    headers = {
        "Content-Type": "multipart/form-data; boundary=mark",
        "Sec-Fetch-Site": "same-origin",
    }
    url = "/dashboard/data/uploads"
    async with session.post(url, data=form(), headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
    async with session.get("/dashboard/data/uploads/chat.txt") as answer:
        assert answer.status == 200
    return size


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param(((put, 192 * MIB), (paste, 50 * MIB)), id="192 MiB upload, 50 MiB pasted"),
        pytest.param(((put, 2048 * MIB),), id="2 GiB upload", marks=pytest.mark.slow),
    ],
)
async def test_what_comes_in_does_not_raise_the_servers_memory(
    server: tuple[aiohttp.ClientSession, psutil.Process],
    ways: tuple[tuple[Callable[[aiohttp.ClientSession, int], Awaitable[int]], int], ...],
) -> None:
    session, process = server
    for send, size in ways:
        async with rise_of(process) as most:
            assert await send(session, size) == size
        assert most[0] <= ALLOWED_BYTES, f"{most[0] / MIB:.0f} MiB more"
