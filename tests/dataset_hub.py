"""A small hub of data sets of the tests' own: lists files with sizes, serves byte ranges, breaks off if asked to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.hub_server import reach

COMMIT = "c" * 40
ROOT = Path(__file__).parent.parent
FETCHER = f"""
import argparse, sys
sys.path.insert(0, {str(ROOT)!r})
from trainer.cli.catalogue_command import add_catalogue
parser = argparse.ArgumentParser()
add_catalogue(parser.add_subparsers())
options = parser.parse_args()
sys.exit(options.command(options))
"""
"""`python -m trainer catalogue` without the trainer's other commands, which take seconds to load."""


class DatasetHub:
    """Serves data sets by id, each a mapping of file names to contents. `asked` lists requests with their ranges.

    `cut_after` breaks off a download after so many bytes, and then each at once; `pause_s` is waited after each 64 KiB.
    """

    def __init__(self, sets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.sets, self.asked = dict(sets), list[tuple[str, str]]()
        self.cut_after: int | None = None
        self.pause_s, self.commit, self.damaged = 0.0, COMMIT, False

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._root)
        app.router.add_get("/api/datasets/{owner}/{name}", self._info)
        app.router.add_get("/datasets/{owner}/{name}/resolve/{revision}/{file:.+}", self._file)
        return app

    async def _root(self, request: web.Request) -> web.Response:
        return web.Response(text="hub")

    def _files(self, request: web.Request) -> Mapping[str, bytes]:
        id = f"{request.match_info['owner']}/{request.match_info['name']}"
        if id not in self.sets:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        return self.sets[id]

    async def _info(self, request: web.Request) -> web.Response:
        files = self._files(request)
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"size": len(data), "pointerSize": 1, "sha256": _digest(data)},
            }
            for name, data in files.items()
        ]
        return web.json_response({"id": "owner/name", "sha": self.commit, "siblings": siblings})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.match_info["file"], request.headers.get("Range", "")))
        data = self._files(request)[request.match_info["file"]]
        if self.damaged:
            data = bytes(len(data))
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        for at in range(start, len(data), 2**16):
            if self.cut_after is not None and at - start >= self.cut_after:
                self.cut_after = 0
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(data[at : at + 2**16])
            await asyncio.sleep(self.pause_s)
        return response


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@asynccontextmanager
async def running_hub(hub: DatasetHub, monkeypatch, cache: str) -> AsyncIterator[str]:
    """Serve the hub; this process and its children ask it. Yields its address."""
    runner = web.AppRunner(hub.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    reach(monkeypatch, address, cache)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    try:
        yield address
    finally:
        await runner.cleanup()
