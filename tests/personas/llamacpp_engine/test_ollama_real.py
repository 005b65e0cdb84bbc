"""Merged versions of the bundled model under Ollama's API, computed by real llama.cpp servers, beside
peft.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
import torch
from aiohttp import web
from peft import PeftModel

from personas.engine.remote.llamacpp_command import LlamaOptions, LlamaProgram, local_command
from personas.engine.remote.ollama_engine import OllamaEngine
from personas.engine.remote.ollama_scorer import OllamaScorer
from personas.models.base_model import EMBEDDED, locate
from personas.models.gguf_base_file import find_base_gguf
from personas.models.loading import load_model
from personas.schemas.effect_probe import TokenizedReply
from tests.personas.llamacpp_engine.ollama_server import OllamaServer, failed, line
from tests.personas.llamacpp_engine.random_versions import random_version
from tests.personas.vllm_engine.conftest import ADA, answer, ask
from tests.real_llama import llama_program

pytestmark = pytest.mark.slow
START_S = 60.0
MAX_LOGPROB_ERROR = 0.15
"""Nats per token between float32 and merged weights of 8 bits in products of 8-bit activations."""


class LlamaBehindOllama(OllamaServer):
    """An Ollama that runs a llama-server for each model, as Ollama does since 0.30."""

    program: LlamaProgram
    ports: dict[str, int]
    processes: list[asyncio.subprocess.Process]

    async def run(self, name: str, context: int) -> int:
        """Return the port of a model's server, which is started unless it runs."""
        if name in self.ports:
            return self.ports[name]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        file = self.blob(self.models[name])
        options = LlamaOptions(file, (), slots=1, context_tokens=context)
        self.processes.append(
            await asyncio.create_subprocess_exec(
                *local_command(self.program, options, port),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.2)
        self.ports[name] = port
        return port

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] not in self.models:
            return failed(404, "model not found")
        options = body["options"]
        port = await self.run(body["model"], options["num_ctx"])
        wanted: dict[str, Any] = {
            "prompt": body["prompt"],
            "n_predict": options["num_predict"],
            "temperature": options["temperature"],
            "cache_prompt": True,
        }
        if body.get("logprobs"):
            wanted["n_probs"] = body["top_logprobs"]
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/completion", json=wanted) as response,
        ):
            whole = await response.json()
        entries = whole.get("completion_probabilities") or ()
        timings = whole["timings"]
        event = {
            "response": whole["content"],
            "done": True,
            "done_reason": "length" if whole["stop_type"] == "limit" else "stop",
            "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
            "logprobs": [{"top_logprobs": entry["top_logprobs"]} for entry in entries],
        }
        return web.Response(body=line(event), content_type="application/json")


@pytest.fixture
async def ollama(tmp_path):
    store = tmp_path / "ollama"
    store.mkdir()
    server = LlamaBehindOllama(store, words=[], count=len)
    server.program = llama_program()
    server.ports = {}
    server.processes = []
    await server.start()
    yield server
    await server.stop()
    for process in server.processes:
        process.terminate()
        await process.wait()


@torch.inference_mode()
def scores_of_peft(base, adapter, reply):
    """The log-probabilities of a reply's tokens from transformers and peft in float32."""
    model = load_model(base, "float32")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    ids = torch.tensor([[*reply.prompt, *reply.reply]])
    logprobs = model(ids).logits[0, len(reply.prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(reply.reply)[:, None])[:, 0].tolist()


async def test_each_merged_version_computes_what_peft_computes(ollama, tmp_path):
    base = locate(EMBEDDED)
    home = tmp_path / "home"
    versions = [random_version(home, base, f"v{seed}", seed=seed) for seed in (1, 2)]
    engine = OllamaEngine(
        base,
        "bfloat16",
        (ollama.url,),
        home,
        model_file=find_base_gguf(base),
        max_context_tokens=1024,
    )
    await engine.start()
    try:
        for version in versions:
            await engine.load(version)
        [replica] = engine._replicas.ready
        scorer = OllamaScorer(
            replica.client,
            replica.served,
            model_of=engine._model_of,
            text_of=lambda ids: engine._text_of(ids, adds_bos=replica.served.adds_bos),
            piece_of=engine._renderer.decode_token,
            encode=engine._encode,
            place="test",
        )
        prompt = engine._renderer.prompt(ADA, ask("Who are you?").turns).ids
        texts = []
        for adapter in (None, *versions):
            texts.append(await answer(engine, ask("Who are you?", adapter)))
            reply = TokenizedReply(prompt=prompt, reply=engine._encode(texts[-1]))
            [theirs] = await scorer.score_replies(adapter, [reply])
            assert sum(score is not None for score in theirs) >= len(theirs) // 2
            errors = {}
            for other in (None, *versions):
                ours = await asyncio.to_thread(scores_of_peft, base, other, reply)
                pairs = [pair for pair in zip(theirs, ours, strict=True) if pair[0] is not None]
                errors[other] = sum(abs(one - two) for one, two in pairs) / len(pairs)
            print([round(error, 3) for error in errors.values()])
            assert errors[adapter] < MAX_LOGPROB_ERROR
            assert min(errors, key=errors.get) == adapter, "another version's voice"
        assert len({*texts}) == 3
    finally:
        await engine.close()
