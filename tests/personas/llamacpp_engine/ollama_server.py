"""An Ollama server without a model: keeps blobs, makes, lists, loads and deletes models, and answers
over HTTP as Ollama 0.33 does, or as its main branch of September 2026 where `takes_adapters` is off.

A word follows from a model's file and all text before it. Models of the same file share a runner, as
at Ollama, whose scheduler knows a runner by the path of the base model's file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

NAME = re.compile(r"(?:([A-Za-z0-9_][\w-]{0,79})/)?([A-Za-z0-9_][\w.-]{0,79}):(\w[\w.-]{0,79})")


@dataclass
class OllamaServer:
    """One server. `models` are the digests of their files by name, `loaded` the ends of their time
    in memory. `requests` holds the bodies of all replies.
    """

    store: Path
    words: list[str]
    """Pieces of one token each, of which replies consist."""
    count: Any
    """Returns the number of tokens of a text."""
    version: str = "0.33.0"
    adds_bos: bool = False
    tells_logprobs: bool = True
    token_delay_s: float = 0.0
    room: int = 3
    """Models that have room in memory."""
    port: int = 0
    models: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, float] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    # Faults
    damages_uploads: bool = False
    create_error: str = ""
    memory_error: str = ""
    break_after: int = 0
    """Words of a reply after which the connection breaks, once."""
    logprobs: Any = None
    """Returns the likeliest pieces after a text with their log-probabilities, by a model's digest."""
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def blob(self, digest: str) -> Path:
        return self.store / digest.replace(":", "-")

    async def start(self) -> None:
        app = web.Application(client_max_size=2**33)
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._ps)
        app.router.add_route("HEAD", "/api/blobs/{digest}", self._has_blob)
        app.router.add_post("/api/blobs/{digest}", self._take_blob)
        app.router.add_post("/api/create", self._create)
        app.router.add_delete("/api/delete", self._delete)
        app.router.add_post("/api/generate", self._generate)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.loaded.clear()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def word(self, digest: str, text: str) -> str:
        """Return the piece after a text."""
        number = hashlib.blake2b(f"{digest}:{text}".encode(), digest_size=4).digest()
        return self.words[int.from_bytes(number, "big") % len(self.words)]

    def reply(self, model: str, text: str, words: int) -> str:
        """Return the reply of a model if nothing fails."""
        said = ""
        for _ in range(words):
            said += self.word(self.models[model], text + said)
        return said.strip()

    # ------------------------------------------------------------------------------------- handlers

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _tags(self, request: web.Request) -> web.Response:
        sizes = {name: self.blob(digest).stat().st_size for name, digest in self.models.items()}
        return web.json_response(
            {"models": [{"name": name, "size": size} for name, size in sizes.items()]}
        )

    async def _ps(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        names = [name for name, until in self.loaded.items() if until > now]
        return web.json_response(
            {"models": [{"name": name, "size": 2**20, "size_vram": 0} for name in names]}
        )

    async def _has_blob(self, request: web.Request) -> web.Response:
        exists = self.blob(request.match_info["digest"]).exists()
        return web.Response(status=200 if exists else 404)

    async def _take_blob(self, request: web.Request) -> web.Response:
        wanted = request.match_info["digest"]
        data = await request.read()
        if self.damages_uploads:
            data = data[:-1]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if digest != wanted:
            return failed(400, f'digest mismatch, expected "{wanted}", got "{digest}"')
        self.blob(digest).write_bytes(data)
        self.uploads.append(digest)
        return web.Response(status=201)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("adapters"):
            return failed(400, "LoRA adapters are no longer supported")
        if self.create_error:
            return failed(500, self.create_error)
        if not NAME.fullmatch(body["model"]):
            return failed(400, "invalid model name")
        [(name, digest)] = body["files"].items()
        if not name.endswith(".gguf") or not self.blob(digest).exists():
            return failed(400, f"blob not found for {name}")
        if self.blob(digest).read_bytes()[:4] != b"GGUF":
            return failed(400, "supplied file was not in GGUF format")
        self.models[body["model"]] = digest
        return web.json_response({"status": "success"})

    async def _delete(self, request: web.Request) -> web.Response:
        name = (await request.json())["model"]
        digest = self.models.pop(name, None)
        if digest is None:
            return failed(404, f"model '{name}' not found")
        self.loaded.pop(name, None)
        if digest not in self.models.values():
            self.blob(digest).unlink()
        return web.Response()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["model"]
        self.requests.append(body)
        if name not in self.models:
            return failed(404, f"model '{name}' not found")
        if not body["prompt"] and body.get("keep_alive") == 0:
            self.loaded.pop(name, None)
            return web.json_response({"response": "", "done": True, "done_reason": "unload"})
        if self.memory_error:
            return failed(500, self.memory_error)
        if not body.get("raw"):
            return failed(400, "the template of the model would change the prompt")
        self._load(name, body.get("keep_alive", "300s"))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if body.get("stream"):
                return await self._stream(request, body)
            return web.json_response(self._whole(body))
        finally:
            self.running -= 1

    def _load(self, name: str, keep_alive: str) -> None:
        now = time.monotonic()
        if self.loaded.get(name, 0) <= now:
            self.loads.append(name)
        self.loaded[name] = now + float(keep_alive.removesuffix("s"))
        while len(self.loaded) > self.room:
            shortest = min(
                (other for other in self.loaded if other != name), key=self.loaded.__getitem__
            )
            del self.loaded[shortest]

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        digest = self.models[body["model"]]
        text = body["prompt"]
        said = self.word(digest, text)
        answer = {
            "response": said,
            "done": True,
            "done_reason": "length",
            "prompt_eval_count": self.count(text) + self.adds_bos,
        }
        if body.get("logprobs") and self.tells_logprobs:
            pairs = self.logprobs(digest, text) if self.logprobs else [(said, -1.0)]
            top = [{"token": piece, "logprob": score} for piece, score in pairs]
            answer["logprobs"] = [{**top[0], "top_logprobs": top[: body["top_logprobs"]]}]
        return answer

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        digest = self.models[body["model"]]
        said = ""
        for at in range(body["options"]["num_predict"]):
            if self.break_after and at == self.break_after:
                self.break_after = 0
                assert request.transport
                request.transport.abort()
                return response
            piece = self.word(digest, body["prompt"] + said)
            said += piece
            await response.write(line({"response": piece, "done": False}))
            await asyncio.sleep(self.token_delay_s)
        await response.write(line({"response": "", "done": True, "done_reason": "length"}))
        return response


def line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def failed(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
