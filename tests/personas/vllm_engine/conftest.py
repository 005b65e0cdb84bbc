"""Servers without a model on loopback, and the engine over them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from personas.engine.remote import vllm_engine
from personas.engine.remote.replica import ReplicaLimits
from personas.engine.remote.vllm_engine import VllmEngine
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.models import loading
from personas.models.base_model import BaseModel
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn
from tests.personas.vllm_engine.server import VllmServer

ADA = Persona("ada", "Ada", description="You are Ada.")
GREEDY = SamplingParams(
    temperature=0.0, repetition_penalty=1.0, max_new_tokens=20, stop_loops=False
)
FAST = ReplicaLimits(
    rows=8, adapters=4, health_interval_s=0.05, health_timeout_s=0.2, backoff_s=0.02, max_backoff_s=0.1,
    misconfigured_s=0.1,
)  # fmt: skip


def ask(
    text: str = "hello", adapter: AdapterRef | None = None, guild_id: int = 0, **sampling: Any
) -> ChatRequest:
    merged = SamplingParams(**{**vars(GREEDY), **sampling})
    return ChatRequest(ADA, (Turn("Bo", text),), (), adapter, merged, guild_id)


async def answer(engine: VllmEngine, request: ChatRequest) -> str:
    """Return the streamed text, which has to be the reply's."""
    stream = engine.submit(request)
    text = "".join([piece async for piece in stream])
    assert text == stream.reply.text
    return text


def undisturbed(server: VllmServer, renderer: Any, request: ChatRequest) -> str:
    """Return the reply that a server gives if nothing fails."""
    ids = list(renderer.prompt(request.persona, request.turns).ids)
    prompt_tokens = len(ids)
    for _ in range(request.sampling.max_new_tokens):
        ids.append(server.next_token(request.adapter.name if request.adapter else server.base, ids))
        if ids[-1] in renderer.stop_ids:
            break
    return renderer.tokenizer.decode(ids[prompt_tokens:], skip_special_tokens=True).strip()


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def version(home, tiny_base) -> Callable[..., AdapterRef]:
    """Installs a sealed adapter folder with one layer; its weights are never read here."""

    def install(
        number: int, rank: int = 8, persona_id: str = "ada", home: Path = home
    ) -> AdapterRef:
        from tests.tiny_models import manifest_over  # imports torch and peft

        ref = adapter_ref(home, persona_id, f"v{number}")
        if ref.folder.exists():
            return ref
        with atomic_folder(ref.folder) as aside:
            config = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"]}
            (aside / "adapter_config.json").write_text(json.dumps(config))
            pair = {"A": np.ones((rank, 64), np.float32), "B": np.ones((64, rank), np.float32)}
            name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
            save_file(
                {name.format(side): it for side, it in pair.items()},
                aside / "adapter_model.safetensors",
            )
            write_manifest(aside, manifest_over(tiny_base, persona_id, ref.version))
        return ref

    return install


@pytest.fixture
async def servers(tiny_base, renderer) -> AsyncIterator[list[VllmServer]]:
    """Two servers of the tiny model; a test may change them before it starts its engine."""
    pair = [VllmServer(tiny_base.source, renderer.tokenizer) for _ in range(2)]
    for server in pair:
        await server.start()
    yield pair
    for server in pair:
        await server.stop()


@pytest.fixture
async def open_engine(
    tiny_base: BaseModel, renderer, servers, home, monkeypatch
) -> AsyncIterator[Callable[..., Any]]:
    """Starts engines over the servers; they share a tokenizer, which takes a second to read."""
    monkeypatch.setattr(vllm_engine, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(loading, "load_tokenizer", lambda base: renderer.tokenizer)
    engines: list[VllmEngine] = []

    async def start(*urls: str, kind: type[VllmEngine] = VllmEngine, **options: Any) -> VllmEngine:
        addresses = urls or [server.url for server in servers]
        engine = kind(
            tiny_base,
            "bfloat16",
            addresses,
            home,
            **{"limits": FAST, "start_wait_s": 0.3, **options},
        )
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.close()
