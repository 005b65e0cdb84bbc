"""A hub on loopback, with faults: the endpoints that huggingface_hub calls for models and data
sets.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from huggingface_hub import constants
from huggingface_hub.utils._detect_agent import _EMPTY_REGISTRY

Files = Mapping[str, bytes]
READER = "hf_reader_of_the_tests"
WRITER = "hf_writer_of_the_tests"
CHUNK_BYTES = 1024
"""Of a download that is cut, whole chunks are kept: 10 MB each in huggingface_hub, less here for
small files.
"""
LARGE_FILE_SUFFIXES = (".safetensors", ".gguf", ".charx", ".bin", ".jsonl", ".gz")
COMMIT = "c" * 40
COMMIT_TIME = "2026-01-01T00:00:00.000Z"
FETCHER = f"""
import argparse, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from trainer.cli.catalogue_command import add_catalogue
parser = argparse.ArgumentParser()
add_catalogue(parser.add_subparsers())
options = parser.parse_args()
sys.exit(options.command(options))
"""
"""`python -m trainer catalogue` without the trainer's other commands, which take seconds to
load.
"""


@dataclass
class Repository:
    """Commits by id, the newest last, and `refs` to them by name."""

    commits: dict[str, Files]
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    licence: str = ""


@dataclass
class Hub:
    """A hub with repositories and data sets by name. `asked` lists requests as "METHOD path"; then
    come faults.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    cuts: int = 0
    """Number of downloads of large files that lose their connection halfway."""
    fails_after_cut: bool = False
    """Further downloads of the cut file fail with 503."""
    stalls: bool = False
    """A cut download stalls instead."""
    pause_s: float = 0.0
    """Time between two pieces of 64 KiB."""
    statuses: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """By a part of "METHOD path": the status and headers that are answered instead."""
    stated_sha: str = ""
    """Stands in the place of each large file's SHA-256."""
    stated_size: int | None = None
    """Stands in the place of each file's size."""
    loses_commit_answers: bool = False
    """A commit is made, but its connection breaks before the answer."""
    messages: dict[str, str] = field(default_factory=dict)
    """Descriptions of commits by id."""
    stored: dict[str, bytes] = field(default_factory=dict)
    address: str = ""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._admit], client_max_size=2**28)
        repository = "{owner:[^/]+}/{name:[^/]+}"
        dataset = "{kind:datasets}/{owner:[^/]+}/{name:[^/]+}"
        for method, path, handler in (
            ("GET", "/", self._home),
            ("GET", "/api/whoami-v2", self._whoami),
            ("POST", "/api/repos/create", self._create),
            ("POST", "/api/validate-yaml", self._validate),
            ("GET", f"/api/models/{repository}", self._info),
            ("GET", f"/api/{dataset}", self._info),
            ("GET", f"/api/models/{repository}/revision/{{revision}}", self._info),
            ("GET", f"/api/models/{repository}/tree/{{revision}}", self._tree),
            ("POST", f"/api/models/{repository}/preupload/{{revision}}", self._preupload),
            ("POST", f"/api/models/{repository}/commit/{{revision}}", self._commit),
            ("GET", f"/api/models/{repository}/commits/{{revision}}", self._commits),
            ("POST", f"/{repository}.git/info/lfs/objects/batch", self._batch),
            ("PUT", "/lfs/{oid}", self._store),
            ("GET", f"/{dataset}/resolve/{{revision}}/{{file:.+}}", self._file),
            ("GET", f"/{repository}/resolve/{{revision}}/{{file:.+}}", self._file),
        ):
            app.router.add_route(method, path, handler)  # GET handles HEAD too
            if method == "GET":
                app.router.add_route("HEAD", path, handler)
        return app

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Run in a thread of its own; yields the address."""
        started = threading.Event()
        stop = asyncio.Event()
        loops = list[asyncio.AbstractEventLoop]()

        async def run() -> None:
            runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        started.wait(10)
        try:
            yield self.address
        finally:
            loops[0].call_soon_threadsafe(stop.set)
            thread.join(20)

    # -------------------------------------------------------------------------------------- reading

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        self.asked.append(asked)
        for part, (status, headers) in self.statuses.items():
            if part in asked:
                return web.json_response(
                    {"error": headers.get("X-Error-Message", "")}, status=status, headers=headers
                )
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", READER, WRITER):
            raise web.HTTPUnauthorized(
                headers={"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        is_write = (
            request.method in ("POST", "PUT")
            and "validate-yaml" not in asked
            and "/lfs/" not in asked
        )
        if is_write and token != WRITER:
            raise web.HTTPForbidden(headers={"X-Error-Message": "This token has no write access."})
        return await handler(request)

    def _find(self, request: web.Request) -> tuple[Repository, str]:
        name = "{owner}/{name}".format(**request.match_info)
        found = (self.datasets if request.match_info.get("kind") else self.repositories).get(name)
        if found is None or (found.private and "Authorization" not in request.headers):
            raise web.HTTPUnauthorized(headers={"X-Error-Code": "RepoNotFound"})
        revision = request.match_info.get("revision", "main")
        newest = next(reversed(found.commits), "0" * 40)
        commit = (
            revision
            if revision in found.commits
            else found.refs.get(revision, newest * (revision == "main"))
        )
        if not commit:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return found, commit

    async def _home(self, request: web.Request) -> web.Response:
        return web.Response(text="hub")

    async def _whoami(self, request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            raise web.HTTPUnauthorized
        return web.json_response({"type": "user", "name": "harbour", "orgs": []})

    async def _info(self, request: web.Request) -> web.Response:
        found, commit = self._find(request)
        siblings = [
            self._sibling(name, data) for name, data in found.commits.get(commit, {}).items()
        ]
        name = "{owner}/{name}".format(**request.match_info)
        card = {"cardData": {"license": found.licence}} if found.licence else {}
        return web.json_response(
            {"id": name, "sha": commit, "private": found.private, "siblings": siblings, **card}
        )

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {
            "rfilename": name,
            "size": self.stated_size or len(data),
            "blobId": git,
        }
        if name.endswith(LARGE_FILE_SUFFIXES):
            sha = self.stated_sha or hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
        return entry

    async def _tree(self, request: web.Request) -> web.Response:
        found, commit = self._find(request)
        return web.json_response(
            [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                }
                for name, data in found.commits[commit].items()
            ]
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found, commit = self._find(request)
        name = request.match_info["file"]
        if name not in found.commits[commit]:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        data = found.commits[commit][name]
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        start = 0
        end = len(data)
        if wanted := request.headers.get("Range"):
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.cuts and name.endswith(LARGE_FILE_SUFFIXES) and request.method == "GET":
            self.cuts -= 1
            if self.fails_after_cut:
                self.statuses[name] = (503, {})
            end = start + (len(data) - start) // 2
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(data) - start
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        for at in range(start, end, 2**16):
            await response.write(data[at : min(at + 2**16, end)])
            await asyncio.sleep(self.pause_s)
        if end < len(data):
            await asyncio.sleep(60 if self.stalls else 0.05)
            assert request.transport is not None
            request.transport.close()
        return response

    # -------------------------------------------------------------------------------------- writing

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = "{}/{}".format(body.get("organization") or "harbour", body["name"])
        if name in self.repositories:
            raise web.HTTPConflict(
                headers={"X-Error-Message": "You already created this model repo"}
            )
        self.repositories[name] = Repository(
            {}, private=bool(body.get("private") or body.get("visibility") == "private")
        )
        return web.json_response({"url": f"{self.address}/{name}"})

    async def _validate(self, request: web.Request) -> web.Response:
        body = await request.json()
        is_bad = "license: no-such" in body["content"]
        errors = [{"message": '"license" must be one of …'}] if is_bad else []
        return web.json_response({"errors": errors, "warnings": []}, status=400 if is_bad else 200)

    async def _preupload(self, request: web.Request) -> web.Response:
        self._find(request)
        files = (await request.json())["files"]
        modes = [
            (it["path"], "lfs" if it["path"].endswith(LARGE_FILE_SUFFIXES) else "regular")
            for it in files
        ]
        return web.json_response(
            {
                "files": [
                    {"path": path, "uploadMode": mode, "shouldIgnore": False}
                    for path, mode in modes
                ]
            }
        )

    async def _batch(self, request: web.Request) -> web.Response:
        self._find(request)
        objects = (await request.json())["objects"]
        found = [
            {**it, "actions": {"upload": {"href": f"{self.address}/lfs/{it['oid']}", "header": {}}}}
            for it in objects
        ]
        return web.json_response({"transfer": "basic", "objects": found})

    async def _store(self, request: web.Request) -> web.Response:
        data = await request.read()
        if hashlib.sha256(data).hexdigest() != request.match_info["oid"]:
            raise web.HTTPBadRequest
        self.stored[request.match_info["oid"]] = data
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        found, before = self._find(request)
        files = dict(found.commits.get(before, {}))
        said = ""
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                said = value.get("description", "")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
        commit = hashlib.sha1(before.encode() + repr(sorted(files)).encode()).hexdigest()
        found.commits[commit] = files
        self.messages[commit] = said
        if self.loses_commit_answers:
            assert request.transport is not None
            request.transport.close()
        name = "{owner}/{name}".format(**request.match_info)
        return web.json_response(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.address}/{name}/commit/{commit}",
            }
        )

    async def _commits(self, request: web.Request) -> web.Response:
        found, _ = self._find(request)
        said = [
            {
                "id": it,
                "title": "Upload",
                "message": self.messages.get(it, ""),
                "authors": [],
                "date": COMMIT_TIME,
            }
            for it in reversed(found.commits)
        ]
        return web.json_response(said)


def reach(monkeypatch, address: str, cache: str) -> None:
    """Let huggingface_hub, here and in child processes, ask the hub at this address, with an empty
    cache.
    """
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": cache,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": CHUNK_BYTES,
    }.items():
        monkeypatch.setattr(constants, name, value)
    # Else the first request of a process is for a registry, which no test expects.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", _EMPTY_REGISTRY)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def hub_environment(address: str, cache: str) -> dict[str, str]:
    """The same for a process of its own."""
    return {
        "HF_ENDPOINT": address,
        "HF_HUB_CACHE": cache,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
