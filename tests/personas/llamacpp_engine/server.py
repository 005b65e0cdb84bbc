"""A llama.cpp server without a model: answers over HTTP as llama.cpp b11549 does, and fails on
request. `python server.py --model FILE …` is one in a process of its own, with the options of
llama-server; LLAMA_STAND_IN names its settings.

A token follows from the adapter at scale 1 and all tokens before it. Keys and values of a slot, and
those of the cache in memory, remember the adapter that computed them: a reply that reads another
adapter's has tokens that no adapter gives.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class StandInModel:
    """What the server knows of its model: ids of words, the probe's text with its ids, the size of
    the vocabulary, and the ids that are a part of a character, by the text with its last part.
    """

    words: list[int]
    probe_text: str
    probe_ids: list[int]
    vocabulary: int
    texts: dict[int, str]
    parts: list[int] = field(default_factory=list)


@dataclass
class Slot:
    """A slot's tokens, and the adapter that computed each."""

    tokens: list[int] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    lora: list[float] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class LlamaCppServer:
    """One server. `requests` holds the bodies of all completions, `running` their adapters now,
    `faults` what went wrong with them.
    """

    model: StandInModel
    path: str = "/models/base.gguf"
    adapters: tuple[str, ...] = ()
    slot_count: int = 4
    context: int = 16384
    cache_ram: bool = False
    kv_unified: bool = False
    """A slot may have all of the context."""
    key: str = ""
    load_s: float = 0.0
    token_delay_s: float = 0.0
    die_after: int = 0
    """Tokens over all replies after which the process dies, once for each `die_file`."""
    die_file: str = ""
    ignores_adapters: bool = False
    is_sure: bool = False
    """All completions of a prompt are equal, those with DRY apart."""
    media_marker: str = ""
    """Stands for a picture in a prompt's text; empty where the model sees none."""
    most_pictures: int = 8
    """Pictures of a prompt for which the context has room."""
    score_delay_s: float = 0.0
    """Of a completion that has a grammar."""
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)
    most_adapters: int = 0
    copied_into: list[list[int]] = field(default_factory=list)
    sent_tokens: int = 0
    saved: list[Slot] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        self.slots = [Slot() for _ in range(self.slot_count)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def slot_context(self) -> int:
        return self.context if self.kv_unified else self.context // self.slot_count

    @property
    def names(self) -> list[str]:
        return [Path(path).name for path in self.adapters]

    async def start(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_get("/health", self._health)
        app.router.add_get("/props", self._props)
        app.router.add_get("/lora-adapters", self._adapters)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/completion", self._completion)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self.ready_at = asyncio.get_running_loop().time() + self.load_s
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def next_token(self, adapter: str, ids: list[int], read: Iterable[str] = ()) -> int:
        """Return the token after `ids`; `read` are adapters whose keys and values are read."""
        voice = adapter if {*read} <= {adapter} else f"{adapter} with {sorted({*read})}"
        digest = hashlib.blake2b(f"{voice}:{ids}".encode(), digest_size=2).digest()
        return self.model.words[int.from_bytes(digest, "big") % len(self.model.words)]

    def logprob(self, adapter: str, ids: list[int], token: int) -> float:
        """Return a token's log-probability, which any adapter makes one nat likelier."""
        digest = hashlib.blake2b(f"{ids}:{token}".encode(), digest_size=2).digest()
        return -0.5 - int.from_bytes(digest, "big") / 2**17 - (not adapter)

    # ------------------------------------------------------------------------------------- handlers

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        has_key = request.headers.get("Authorization") == f"Bearer {self.key}"
        if request.path != "/health" and self.key and not has_key:
            return error(401, "Invalid API Key", "authentication_error")
        if asyncio.get_running_loop().time() < self.ready_at:
            return error(503, "Loading model", "unavailable_error")
        return await handler(request)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _props(self, request: web.Request) -> web.Response:
        return web.json_response({
            "default_generation_settings": {"n_ctx": self.slot_context, "params": {}},
            "total_slots": self.slot_count,
            "model_path": self.path,
            "modalities": {"vision": bool(self.media_marker), "audio": False},
            "media_marker": self.media_marker or "<__media__>",
        })  # fmt: skip

    async def _adapters(self, request: web.Request) -> web.Response:
        listed = []
        for number, path in enumerate(self.adapters):
            listed.append({"id": number, "path": path, "scale": 1.0, "task_name": ""})
        return web.json_response(listed)

    async def _models(self, request: web.Request) -> web.Response:
        meta = {"n_vocab": self.model.vocabulary, "n_ctx": self.context}
        return web.json_response({"data": [{"id": self.path, "meta": meta}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not body["content"]:
            return web.json_response({"tokens": [0] if body["add_special"] else []})
        ids = self.model.probe_ids if body["content"] == self.model.probe_text else [0]
        return web.json_response({"tokens": ids})

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        if isinstance(body["prompt"], dict):
            text, pictures = body["prompt"]["prompt_string"], body["prompt"]["multimodal_data"]
            if not self.media_marker or text.count(self.media_marker) != len(pictures):
                return error(400, "Failed to tokenize prompt", "invalid_request_error")
            if len(pictures) > self.most_pictures:
                return error(
                    400, "request exceeds the available context size", "exceed_context_size"
                )
            seen = "".join((text, *pictures))
            body = {**body, "prompt": list(hashlib.blake2b(seen.encode()).digest())}
        if len(body["prompt"]) >= self.slot_context:
            return error(400, "request exceeds the available context size", "exceed_context_size")
        number = body.get("id_slot", -1) % self.slot_count
        slot = self.slots[number]
        async with slot.lock:
            adapter, read = self._take_slot(slot, body)
            self.running[id(body)] = adapter
            self.most_adapters = max(self.most_adapters, len({*self.running.values()}))
            try:
                if body.get("grammar"):
                    await asyncio.sleep(self.score_delay_s)
                if not body.get("stream"):
                    return web.json_response(self._whole(slot, body, adapter, read))
                return await self._stream(request, slot, body, adapter, read)
            finally:
                del self.running[id(body)]

    def _take_slot(self, slot: Slot, body: dict[str, Any]) -> tuple[str, list[str]]:
        """Load the most similar prompt into a slot, clear it for other adapters, and return the one
        of the request and those whose keys and values it reads.
        """
        prompt = body["prompt"]
        if self.cache_ram and common(slot.tokens, prompt) < len(slot.tokens) / 2:
            self.saved.append(Slot(slot.tokens, slot.adapters))
            best = max(self.saved, key=lambda saved: common(saved.tokens, prompt))
            slot.tokens, slot.adapters = list(best.tokens), list(best.adapters)
        lora = [0.0] * len(self.adapters)
        for entry in body.get("lora", []):
            lora[entry["id"]] = entry["scale"]
        if not body.get("lora"):
            lora = [1.0] * len(self.adapters)  # its own scales
        if lora != slot.lora and not self.cache_ram:
            slot.tokens, slot.adapters = [], []
        slot.lora = lora
        names = [name for name, scale in zip(self.names, lora, strict=True) if scale]
        adapter = "" if self.ignores_adapters else "+".join(names)
        kept = common(slot.tokens, prompt) if body.get("cache_prompt") else 0
        kept = min(kept, len(prompt) - 1)
        read = slot.adapters[:kept]
        slot.tokens = list(prompt)
        slot.adapters = [*read, *[adapter] * (len(prompt) - kept)]
        return adapter, read

    def _whole(
        self, slot: Slot, body: dict[str, Any], adapter: str, read: list[str]
    ) -> dict[str, Any]:
        forced = [int(number) for number in re.findall(r"<\[(\d+)\]>", body.get("grammar", ""))]
        ids = list(body["prompt"])
        entries = []
        for at in range(body["n_predict"]):
            token = forced[at] if forced else self.next_token(adapter, ids, read)
            entries.append(self._entry(adapter, ids, token, body.get("n_probs", 0)))
            ids.append(token)
        return {
            "content": "", "tokens": ids[len(body["prompt"]) :], "stop": True, "stop_type": "limit",
            "completion_probabilities": entries if body.get("n_probs") else [],
            "timings": {"cache_n": len(read), "prompt_n": len(body["prompt"]) - len(read)},
        }  # fmt: skip

    def _entry(self, adapter: str, ids: list[int], token: int, count: int) -> dict[str, Any]:
        top = [
            {"id": other, "logprob": self.logprob(adapter, ids, other)}
            for other in [token, *self.model.words][:count]
        ]
        return {"id": token, "logprob": self.logprob(adapter, ids, token), "top_logprobs": top}

    def _die_once(self) -> None:
        if self.die_after and self.sent_tokens >= self.die_after:
            if Path(self.die_file).exists():
                return
            Path(self.die_file).touch()
            os._exit(3)

    async def _stream(
        self,
        request: web.Request,
        slot: Slot,
        body: dict[str, Any],
        adapter: str,
        read: list[str],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if body.get("n_cmpl", 1) > 1:
            await self._stream_several(response, slot, body, adapter, read)
            return response
        ids = list(body["prompt"])
        if body.get("return_progress"):
            progress = {"total": len(ids), "cache": len(read), "processed": len(ids)}
            await send(response, partial(0, "", [0]) | {"prompt_progress": progress})
        held = ""
        for count in range(1, body["n_predict"] + 1):
            await asyncio.sleep(self.token_delay_s)
            token = self.next_token(adapter, ids, read)
            ids.append(token)
            slot.tokens.append(token)
            slot.adapters.append(adapter)
            self.sent_tokens += 1
            self._die_once()
            held += self.model.texts.get(token, "")
            if token in self.model.parts:
                continue
            event = partial(count, held, [token])
            held = ""
            if body.get("n_probs"):
                entry = self._entry(adapter, ids[:-1], token, body["n_probs"])
                event["completion_probabilities"] = [entry]
            await send(response, event)
        final = {"index": 0, "content": "", "tokens": [], "stop": True, "stop_type": "limit"}
        await send(response, final | {"tokens_predicted": body["n_predict"]})
        return response

    async def _stream_several(
        self,
        response: web.StreamResponse,
        slot: Slot,
        body: dict[str, Any],
        adapter: str,
        read: list[str],
    ) -> None:
        """Stream completions of one prompt: copies of it take the free slots with the lowest
        numbers, which are cleared afterwards.
        """
        free = [other for other in self.slots if other is not slot and not other.lock.locked()]
        copies = free[: body["n_cmpl"] - 1]
        assert len(copies) == body["n_cmpl"] - 1, "the server would wait for slots"
        self.copied_into.append([self.slots.index(copy) for copy in copies])
        for copy in copies:
            await copy.lock.acquire()
        texts = [list(body["prompt"]) for _ in range(body["n_cmpl"])]
        try:
            for count in range(1, body["n_predict"] + 1):
                await asyncio.sleep(self.token_delay_s)
                for number, ids in enumerate(texts):
                    draw = number
                    if self.is_sure:
                        draw = (number + 1) * ("dry_multiplier" in body)
                    token = self.sampled_token(adapter, ids, draw, read)
                    event = partial(count, self.model.texts.get(token, ""), [token])
                    entry = self._entry(adapter, ids, token, body["n_probs"])
                    event |= {"index": number, "completion_probabilities": [entry]}
                    ids.append(token)
                    self.sent_tokens += 1
                    self._die_once()
                    await send(response, event)
            for number in range(body["n_cmpl"]):
                final = {"index": number, "content": "", "tokens": [], "stop": True}
                counted = {"stop_type": "limit", "tokens_predicted": body["n_predict"]}
                await send(response, final | counted)
        finally:
            slot.tokens = texts[0]
            slot.adapters += [adapter] * (len(texts[0]) - len(slot.adapters))
            for copy in copies:
                copy.tokens, copy.adapters = [], []
                copy.lock.release()

    def sampled_token(
        self, adapter: str, ids: list[int], number: int, read: Iterable[str] = ()
    ) -> int:
        """Return the token after `ids` of a completion; number 0 is that of a request of its
        own.
        """
        return self.next_token(adapter, [*ids, -number] if number else ids, read)


def partial(count: int, content: str, tokens: list[int]) -> dict[str, Any]:
    return {
        "index": 0, "content": content, "tokens": tokens, "stop": False, "id_slot": -1,
        "tokens_predicted": count,
    }  # fmt: skip


def common(one: list[int], other: list[int]) -> int:
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


async def send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


def error(status: int, message: str, kind: str) -> web.Response:
    body = {"error": {"code": status, "message": message, "type": kind}}
    return web.json_response(body, status=status)


def write_settings(file: Path, model: StandInModel, **settings: Any) -> None:
    """Write the settings of servers in processes of their own."""
    file.write_text(json.dumps({"model": asdict(model), **settings}))


def server_of(arguments: argparse.Namespace) -> LlamaCppServer:
    """Make the server of a process. Exits if it is to refuse the model."""
    settings = json.loads(Path(os.environ["LLAMA_STAND_IN"]).read_text())
    if settings.pop("refuses", ""):
        sys.exit("error: failed to load model")
    if settings.pop("refuses_projectors", "") and arguments.mmproj:
        sys.exit("error: mismatch between text model and mmproj")
    described = settings.pop("model")
    described["texts"] = {int(token): text for token, text in described["texts"].items()}
    adapters = [path for text in arguments.lora for path in next(csv.reader([text]))]
    for path in adapters:
        assert Path(path).read_bytes()[:4] == b"GGUF"
    return LlamaCppServer(
        StandInModel(**described),
        path=arguments.model,
        adapters=tuple(adapters),
        slot_count=arguments.parallel,
        context=arguments.ctx_size,
        cache_ram=bool(arguments.cache_ram),
        kv_unified=arguments.kv_unified,
        key=os.environ["LLAMA_API_KEY"],
        port=arguments.port,
        **settings,
    )


async def serve(server: LlamaCppServer) -> None:
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--model", "--host", "--mmproj"):
        parser.add_argument(name)
    for name in ("--parallel", "--ctx-size", "--cache-ram", "--port", "--image-max-tokens"):
        parser.add_argument(name, type=int)
    parser.add_argument("--lora", action="append", default=[])
    for name in ("--kv-unified", "--lora-init-without-apply", "--no-webui"):
        parser.add_argument(name, action="store_true")
    asyncio.run(serve(server_of(parser.parse_args())))
