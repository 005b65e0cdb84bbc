"""llama.cpp servers without a model, on loopback and as processes, and the engine over them."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from personas.engine.remote import server_process, vllm_engine
from personas.engine.remote.llamacpp_command import LlamaProgram
from personas.engine.remote.llamacpp_engine import LlamaCppEngine
from personas.engine.remote.replica import ReplicaLimits
from personas.engine.remote.server_checks import PROBE_TEXT
from personas.home.adapters import adapter_ref
from personas.models import loading
from personas.models.loading import load_model
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef
from tests.personas.llamacpp_engine import server as stand_in
from tests.personas.llamacpp_engine.server import LlamaCppServer, StandInModel, write_settings
from tools.tiny_models import TINY_MODELS, make_adapter, make_model
from trainer.export.gguf_model import write_model

WORDS = "The tide turns at dusk and gulls follow the crane over grey water while ropes creak on cold iron rails".split()
FAST = ReplicaLimits(
    rows=4, adapters=4, health_interval_s=0.05, health_timeout_s=1.0, backoff_s=0.02, max_backoff_s=0.1,
    misconfigured_s=0.1,
)  # fmt: skip


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """A two-layer model, and its GGUF file."""
    logging.getLogger("gguf").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("llamacpp")
    base = make_model(TINY_MODELS["SmolLM2"], folder / "base")
    renderer = Renderer(loading.load_tokenizer(base))
    file = folder / "base.gguf"
    write_model(file, load_model(base, "float32"), renderer, quantise="q8_0", name="base")
    return base, file, renderer


@pytest.fixture(scope="session")
def model(small_base) -> StandInModel:
    renderer = small_base[2]
    tokenizer = renderer.tokenizer
    words = [tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
    probe = tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]
    texts = {token: tokenizer.decode([token]) for token in words}
    return StandInModel(words, PROBE_TEXT, probe, len(tokenizer), texts)


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def trained(small_base, tmp_path_factory) -> Path:
    return make_adapter(
        TINY_MODELS["SmolLM2"], small_base[0], tmp_path_factory.mktemp("a") / "v", None
    )


@pytest.fixture
def version(home, trained) -> Callable[..., AdapterRef]:
    """Installs a version; all have the same weights, which no stand-in reads."""

    def install(number: int, persona_id: str = "ada") -> AdapterRef:
        ref = adapter_ref(home, persona_id, f"v{number}")
        if not ref.folder.exists():
            ref.folder.parent.mkdir(parents=True, exist_ok=True)
            ref.folder.symlink_to(trained)
        return ref

    return install


@pytest.fixture
async def open_engine(small_base, home, monkeypatch) -> AsyncIterator[Callable[..., Any]]:
    """Starts engines; they share a tokenizer."""
    base, file, renderer = small_base
    monkeypatch.setattr(vllm_engine, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(server_process, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(server_process, "FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr(loading, "load_tokenizer", lambda base: renderer.tokenizer)
    engines: list[LlamaCppEngine] = []

    async def start(*urls: str, **options: Any) -> LlamaCppEngine:
        engine = LlamaCppEngine(
            base,
            "bfloat16",
            urls,
            home,
            **{"model_file": file, "limits": FAST, "start_wait_s": 0.3, **options},
        )
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture
def program(tmp_path, model, monkeypatch) -> Callable[..., LlamaProgram]:
    """Settings of servers in processes of their own; returns the program."""

    def set_up(**settings: Any) -> LlamaProgram:
        file = tmp_path / "stand-in.json"
        write_settings(file, model, **settings)
        monkeypatch.setenv("LLAMA_STAND_IN", str(file))
        return LlamaProgram((sys.executable, str(Path(stand_in.__file__))), "stand-in")

    return set_up


@pytest.fixture
async def server(model) -> AsyncIterator[LlamaCppServer]:
    """A server on loopback; a test may change and start it again."""
    one = LlamaCppServer(model)
    await one.start()
    yield one
    await one.stop()


def with_rows(rows: int) -> ReplicaLimits:
    return replace(FAST, rows=rows)
