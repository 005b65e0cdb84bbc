"""A vLLM server without a model: answers over HTTP as vLLM 0.32 does, and fails on request.

Status codes, error texts and the form of the stream follow vllm/entrypoints (recordings/ has
answers of the real one). A token follows from the model's name and all tokens before it, so a
resumed reply continues as the first attempt would have.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from tests.effect_probes import ScoringModel

# As vLLM, and /dev/shm, where the tests keep their files.
PATHS = re.compile(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv|dev/shm)(?:/[\w.\-]+)+")
WORDS = "The tide turns at dusk and gulls follow the crane over grey water while ropes creak on cold iron rails".split()


@dataclass
class Faults:
    """Switches for failures; all off."""

    hang: bool = False  # nothing is answered, as by a stopped process
    health_status: int = 200
    completion_status: int = 200
    chat_status: int = 200  # of requests with messages alone
    breaks_at_pictures: bool = False  # the process dies of them
    hang_completions: bool = False  # as with an engine that is stuck behind a server that is well
    load_message: str = ""  # loading fails with it
    kill_after: int | None = None  # tokens sent, over all replies, after which the server dies
    error_after: int | None = None  # tokens of a reply after which an error event comes
    odd_line: bytes = b""  # sent with every token
    abort_after: int | None = None  # tokens of a reply after which it ends as aborted
    token_delay_s: float = 0.0
    omit_token_ids: bool = False
    omit_done: bool = False
    ignores_adapters: bool = False  # "zero modules": loaded, named, and never applied
    shares_cache: bool = False  # keys and values of one adapter are used for the others


@dataclass
class VllmServer:
    """One server on loopback. `requests` holds the bodies of all completions, `open_replies` counts
    the running ones.

    `resolves` stands for a resolver plugin, which finds adapters under that folder by name.
    `takes_ids` False: prompts as token ids are refused, as by Ollama; `refused_fields` are refused,
    as by strict gateways; `more_models` are listed besides the base model.
    """

    root: str
    tokenizer: Any
    max_model_len: int = 4096
    key: str = ""
    has_lora: bool = True
    allows_updates: bool = True
    max_lora_rank: int = 64
    resolves: Path | None = None
    vocabulary: int = 0
    name: str = ""
    ignores_disconnects: bool = False
    takes_ids: bool = True
    has_tokenize: bool = True
    refused_fields: frozenset[str] = frozenset()
    efforts: frozenset[str] = frozenset()
    """Values of `reasoning_effort` that are taken; all of them where there are none here."""
    alternates: bool = False
    """The chat template raises an error at any other order of roles than user, assistant, user."""
    template_status: int = 400
    """Of the answer where the template raises an error."""
    sees_pictures: bool = False
    more_models: tuple[str, ...] = ()
    scoring: ScoringModel | None = None
    """Gives the log-probabilities; without one, they are made up."""
    reply_tokens: int | None = None
    """Tokens after which replies end with the end of turn; None: they never do."""
    faults: Faults = field(default_factory=Faults)
    adapters: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    loads: list[tuple[str, str]] = field(default_factory=list)
    open_replies: int = 0
    deaths: int = 0
    most_adapters: int = 0
    port: int = 0
    started_at: float = 0.0
    sent_tokens: int = 0
    _active: list[str] = field(default_factory=list)
    _cached: dict[tuple[str, tuple[int, ...]], str | None] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    _transports: set[asyncio.BaseTransport] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.words = [
            self.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in WORDS
        ]
        self.end_of_turn = self.tokenizer.eos_token_id
        self.vocabulary = self.vocabulary or len(self.tokenizer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return self.name or self.root

    async def start(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._completions)
        if self.allows_updates:
            app.router.add_post("/v1/load_lora_adapter", self._load)
            app.router.add_post("/v1/unload_lora_adapter", self._unload)
        self.routes(app)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self.started_at = time.time()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def routes(self, app: web.Application) -> None:
        """Add further addresses."""

    async def stop(self) -> None:
        """End like a killed process: connections break, and nothing listens any more."""
        runner = self._runner
        self._runner = None
        for transport in list(self._transports):
            transport.abort()
        if runner:
            await runner.cleanup()

    async def restart(self) -> None:
        """Start again at the same port; the adapters are gone."""
        await self.stop()
        self.faults = Faults(token_delay_s=self.faults.token_delay_s)
        self.sent_tokens = 0
        self.adapters.clear()
        await self.start()

    # --------------------------------------------------------------------------------------- tokens

    def next_token(self, model: str, ids: list[int]) -> int:
        if self.reply_tokens is not None and self._reply_length(ids) >= self.reply_tokens:
            return self.end_of_turn
        digest = hashlib.blake2b(f"{model}:{ids}".encode(), digest_size=2).digest()
        return self.words[int.from_bytes(digest, "big") % len(self.words)]

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _reply_length(self, ids: list[int]) -> int:
        """Count the tokens after the last turn's opening, also where a resumed prompt includes some
        of them.
        """
        opening = self.tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
        for at in range(len(ids) - len(opening), -1, -1):
            if ids[at : at + len(opening)] == opening:
                return len(ids) - at - len(opening)
        return len(ids)

    # ------------------------------------------------------------------------------------- handlers

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        assert request.transport is not None
        self._transports.add(request.transport)
        if self.faults.hang:
            await asyncio.sleep(3600)
        if (
            self.key
            and request.path.startswith("/v1")
            and request.headers.get("Authorization") != f"Bearer {self.key}"
        ):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.faults.health_status)

    async def _metrics(self, request: web.Request) -> web.Response:
        labels = f'{{engine="0",model_name="{self.base}"}}'
        return web.Response(
            text=f"process_start_time_seconds {self.started_at}\n"
            f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{labels} "
            f"{float(self.open_replies)}\n"
        )

    async def _models(self, request: web.Request) -> web.Response:
        cards = [model_card(self.base, self.root, None, self.max_model_len)]
        cards += [model_card(name, path, self.base, None) for name, path in self.adapters.items()]
        cards += [model_card(name, name, None, self.max_model_len) for name in self.more_models]
        return web.json_response({"object": "list", "data": cards})

    async def _tokenize(self, request: web.Request) -> web.Response:
        if not self.has_tokenize:
            raise web.HTTPNotFound
        body = await request.json()
        ids = self.tokenize(body["prompt"])
        return web.json_response(
            {
                "count": len(ids),
                "max_model_len": self.max_model_len,
                "tokens": ids,
                "token_strs": None,
            }
        )

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["lora_name"]
        path = body["lora_path"]
        if name in self.adapters:
            return error_response(
                400,
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set "
                "'load_inplace' to True.",
                "InvalidUserInput",
            )
        if refusal := self._refuse(name, path):
            return refusal
        self.adapters[name] = path
        self.loads.append((name, path))
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    def _refuse(self, name: str, path: str) -> web.Response | None:
        if not self.has_lora:
            message = "LoRA is not enabled. Use --enable-lora to enable LoRA."
        elif not (config := Path(path) / "adapter_config.json").exists():
            message = f"Loading lora {name} failed: No adapter found for {path}"
            return error_response(404, message, "NotFoundError")
        elif (rank := json.loads(config.read_text())["r"]) > self.max_lora_rank:
            message = f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}."
        elif self.faults.load_message and name != "understudy-probe":
            message = self.faults.load_message
        elif not (Path(path) / "adapter_model.safetensors").exists():
            message = f"{path} doesn't contain tensors"
        else:
            return None
        reason = (
            f"Worker failed with error '{message}', please check the stack trace above for the "
            "root cause"
        )
        return error_response(
            500, f"Call to add_lora method failed: {reason}", "InternalServerError"
        )

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return error_response(
                404, f"The lora adapter '{name}' cannot be found.", "NotFoundError"
            )
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    # ---------------------------------------------------------------------------------- completions

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.faults.hang_completions:
            await asyncio.sleep(3600)
        if self.faults.completion_status != 200:
            kind = (
                "Service Unavailable"
                if self.faults.completion_status == 503
                else "InternalServerError"
            )
            return error_response(
                self.faults.completion_status, "The engine is currently busy", kind
            )
        if self.faults.chat_status != 200 and "messages" in body:
            return error_response(self.faults.chat_status, "busy", "Service Unavailable")
        await self._die_of_pictures(request, body)
        if refusal := self._refuse_form(body):
            return refusal
        model = body["model"]
        prompt = body.get("prompt") or self._render(body)
        if model != self.base and model not in self.adapters and not self._resolve(model):
            message = f"The model `{model}` does not exist. Valid aliases: {self.base}."
            return error_response(404, message, "NotFoundError", "model")
        if len(prompt) > self.max_model_len:
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                "your prompt contains at "
                f"least {len(prompt)} input tokens, which exceeds this limit even without any "
                "output tokens. Please "
                "reduce the length of the input prompt. (parameter=input_tokens, "
                f"value={len(prompt)})"
            )
            return error_response(400, message, "BadRequestError", "input_tokens")
        self.requests.append(body)
        if body.get("prompt_logprobs") is not None:
            return self._prompt_logprobs(model, prompt)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        if max(prompt) >= self.vocabulary:  # found after the stream has begun
            await send(
                response,
                error_body(400, f"Token id {max(prompt)} is out of vocabulary", "BadRequestError"),
            )
            await response.write(b"data: [DONE]\n\n")
            return response
        self.open_replies += 1
        self._active.append(model)
        self.most_adapters = max(
            self.most_adapters, len({name for name in self._active if name != self.base})
        )
        try:
            await self._stream(response, {**body, "prompt": prompt})
        finally:
            self._active.remove(model)
            self.open_replies -= not self.ignores_disconnects
        return response

    async def _die_of_pictures(self, request: web.Request, body: dict[str, Any]) -> None:
        if self.faults.breaks_at_pictures and "image_url" in json.dumps(body):
            self.deaths += 1
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(3600)

    def _refuse_form(self, body: dict[str, Any]) -> web.Response | None:
        """Refuse what this server does not take."""
        if refused := self.refused_fields & body.keys() - {"max_tokens"}:
            message = f"Unrecognized request argument supplied: {min(refused)}"
            return error_response(400, message, "invalid_request_error")
        if "max_tokens" in self.refused_fields & body.keys():  # OpenAI's words
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead."
            )
            return error_response(400, message, "invalid_request_error")
        effort = body.get("reasoning_effort")
        if effort and self.efforts and effort not in self.efforts:
            message = f"Unsupported value: 'reasoning_effort' does not support '{effort}'"
            return error_response(400, message, "invalid_request_error")
        roles = [message["role"] for message in body.get("messages", ())]
        in_turn = ["user", "assistant"] * len(roles)
        if self.alternates and roles != in_turn[: len(roles)]:
            message = "Conversation roles must alternate user/assistant/user/assistant/..."
            return error_response(self.template_status, message, "server_error")
        contents = [message["content"] for message in body.get("messages", ())]
        if any(isinstance(content, list) for content in contents) and not self.sees_pictures:
            message = "image input is not supported - hint: you may need to provide the mmproj"
            return error_response(500, message, "server_error")  # llama.cpp's answer
        if "prompt" in body and not self.takes_ids:  # Ollama's answer
            message = (
                "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of "
                "type string"
            )
            return error_response(400, message, "invalid_request_error")
        return None

    def _prompt_logprobs(self, model: str, prompt: list[int]) -> web.Response:
        assert self.scoring
        logprobs = self.scoring.prompt_logprobs(self._folder(model), prompt)
        positions: list[dict[str, Any] | None] = [None]
        for token, logprob in zip(prompt[1:], logprobs[1:], strict=True):
            positions.append({str(token): {"logprob": logprob, "rank": 1, "decoded_token": ""}})
        choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": positions}
        return web.json_response({"id": "cmpl", "model": model, "choices": [choice]})

    def _folder(self, model: str) -> str | None:
        """Return the adapter that is applied for a model's name."""
        return None if self.faults.ignores_adapters else self.adapters.get(model)

    def _resolve(self, name: str) -> bool:
        if not self.resolves:
            return False
        persona, _, version = name.rpartition("-")
        folder = self.resolves / "models" / "persona_adapters" / persona / version
        if folder.exists():
            self.adapters[name] = str(folder)
        return folder.exists()

    async def _stream(self, response: web.StreamResponse, body: dict[str, Any]) -> None:
        is_chat = "messages" in body
        head = {
            "id": f"cmpl-{len(self.requests)}", "created": int(time.time()), "model": body["model"],
            "object": "chat.completion.chunk" if is_chat else "text_completion",
        }  # fmt: skip
        if is_chat:
            opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
            await send(response, {**head, "choices": [{**opening, "finish_reason": None}]})
        ids = list(body["prompt"])
        prompt_tokens = len(body["prompt"])
        most = body.get("max_tokens") or body["max_completion_tokens"]
        finish = None
        count = 0
        while finish is None:
            await asyncio.sleep(self.faults.token_delay_s)
            if self.faults.hang:
                await asyncio.sleep(3600)
            if self.faults.error_after == count:
                await send(
                    response, error_body(500, "Internal server error", "InternalServerError")
                )
                break
            await self._send_odd_line(response)
            token = self.next_token(body["model"], ids)
            count += 1
            ids.append(token)
            finish = (
                "stop"
                if token in (body.get("stop_token_ids") or [])
                or (token == self.end_of_turn and not body.get("ignore_eos"))
                else "length"
                if count >= min(most, self.max_model_len - prompt_tokens)
                else None
            )
            if self.faults.abort_after == count:
                finish = "abort"
            choice = self._choice(body, token, prompt_tokens and count == 1, finish)
            if is_chat:
                kept = {name: choice[name] for name in ("index", "logprobs", "finish_reason")}
                ids_sent = choice["token_ids"]
                choice = {**kept, "delta": {"content": choice["text"]}, "token_ids": ids_sent}
            await send(response, {**head, "choices": [choice]})
            self.sent_tokens += 1
            if self.faults.kill_after is not None and self.sent_tokens >= self.faults.kill_after:
                asyncio.get_running_loop().create_task(self.stop())
                await asyncio.sleep(3600)
        usage = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + count,
            "completion_tokens": count,
        }
        if body.get("stream_options", {}).get("include_usage"):
            await send(response, {**head, "choices": [], "usage": usage})
        if not self.faults.omit_done:
            await response.write(b"data: [DONE]\n\n")

    async def _send_odd_line(self, response: web.StreamResponse) -> None:
        if self.faults.odd_line:
            await response.write(b"data: " + self.faults.odd_line + b"\n\n")

    def _render(self, body: dict[str, Any]) -> list[int]:
        """Render messages; each picture is as many letters as it has bytes."""
        texts = []
        for message in body["messages"]:
            content = message["content"]
            if isinstance(content, list):
                content = "".join(
                    part.get("text") or len(part["image_url"]["url"]) * "x" for part in content
                )
            texts.append({**message, "content": content})
        return self.tokenizer.apply_chat_template(
            texts,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
            return_dict=False,
        )

    def _choice(
        self, body: dict[str, Any], token: int, is_first: bool, finish: str | None
    ) -> dict[str, Any]:
        wants_ids = body.get("return_token_ids") and not self.faults.omit_token_ids
        return {
            "index": 0,
            "text": self.tokenizer.decode([token], skip_special_tokens=True),
            "logprobs": self._logprobs(body, token) if body.get("logprobs") is not None else None,
            "finish_reason": finish,
            "stop_reason": token if finish == "stop" else None,
            "prompt_token_ids": body["prompt"] if is_first and wants_ids else None,
            "token_ids": [token] if wants_ids else None,
        }

    def _logprobs(self, body: dict[str, Any], token: int) -> dict[str, Any]:
        count = body["logprobs"]
        if self.scoring:
            return self._computed_logprobs(self.scoring, body, count)
        likeliest = [token, *(other for other in self.words if other != token)][: count + 1]
        top = {f"token_id:{other}": -0.5 - rank for rank, other in enumerate(likeliest)}
        return {
            "text_offset": [0],
            "token_logprobs": [-0.5],
            "tokens": [f"token_id:{token}"],
            "top_logprobs": [top],
        }

    def _computed_logprobs(
        self, scoring: ScoringModel, body: dict[str, Any], count: int
    ) -> dict[str, Any]:
        folder = self._folder(body["model"])
        if self.faults.shares_cache:  # whoever computed the prompt first
            key = (body["cache_salt"], tuple(body["prompt"]))
            folder = self._cached.setdefault(key, folder)
        likeliest = scoring.next_tokens(folder, body["prompt"], count)
        top = {f"token_id:{token}": logprob for token, logprob in likeliest.items()}
        first = next(iter(top))
        return {
            "text_offset": [0],
            "token_logprobs": [top[first]],
            "tokens": [first],
            "top_logprobs": [top],
        }


async def send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


def error_body(status: int, message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    message = PATHS.sub("<path>", message)
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_response(status: int, message: str, kind: str, param: str | None = None) -> web.Response:
    return web.json_response(error_body(status, message, kind, param), status=status)


def model_card(
    name: str, root: str, parent: str | None, max_model_len: int | None
) -> dict[str, Any]:
    return {
        "id": name, "object": "model", "created": int(time.time()), "owned_by": "vllm", "root": root, "parent": parent,
        "max_model_len": max_model_len, "permission": [],
    }  # fmt: skip
