"""LoRA files that are wrong on purpose, on a real llama.cpp server: the version does not speak."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from personas.engine.remote.llamacpp_engine import LlamaCppEngine
from personas.engine.remote.replica import ReplicaLimits
from personas.engine.remote.server_errors import AdapterNotServedError
from personas.home.adapters import adapter_ref
from personas.home.effect_probe import read_effect_results
from personas.home.gguf_adapters import GgufAdapters
from personas.home.lora_checks import stored_linear_shapes
from personas.models.base_model import EMBEDDED, locate
from personas.models.gguf_base_file import find_base_gguf
from personas.models.gguf_lora import LoraModule, write_gguf_lora
from personas.models.loading import load_tokenizer
from personas.schemas.chat import AdapterRef
from tests.effect_probes import measure_probe, open_parts
from tests.personas.llamacpp_engine.random_versions import random_version
from tests.personas.vllm_engine.conftest import ask
from tests.real_llama import llama_program

pytestmark = pytest.mark.slow
Modules = list[LoraModule]
SPREAD = 0.04
"""Rounding in the server changes a weaker effect by nearly as much as it may."""


@pytest.fixture(scope="module")
def base():
    return locate(EMBEDDED)


@pytest.fixture(scope="module")
def measured(base, tmp_path_factory) -> Path:
    """A home with two versions whose effects were measured."""
    home = tmp_path_factory.mktemp("home")
    parts = open_parts(base)
    tokenizer = load_tokenizer(base)
    for seed in (1, 2):
        ref = random_version(home, base, f"v{seed}", seed=seed, spread=SPREAD)
        measure_probe(parts, ref, base, tokenizer)
    parts.close()
    return home


@pytest.fixture
def home(measured, tmp_path) -> Path:
    shutil.copytree(measured / "models", tmp_path / "models")
    return tmp_path


@pytest.fixture
def files(base, home) -> GgufAdapters:
    return GgufAdapters(home, base, find_base_gguf(base), stored_linear_shapes(base))


@pytest.fixture
async def engine(base, home):
    made = LlamaCppEngine(
        base,
        "bfloat16",
        (),
        home,
        model_file=find_base_gguf(base),
        program=llama_program(),
        limits=ReplicaLimits(rows=2, adapters=4, health_timeout_s=10.0),
    )
    await made.start()
    yield made
    await made.close()


async def speaker(engine: LlamaCppEngine, ref: AdapterRef) -> str | None:
    """Return the version that replies; None for the base model."""
    stream = engine.submit(ask("Who are you?", ref, max_new_tokens=4))
    async for _ in stream:
        pass
    return stream.reply.version


def overwrite(files: GgufAdapters, ref: AdapterRef, change: Callable[[Modules], Modules]) -> None:
    """Write a version's LoRA file, then a whole one with other modules in its place."""
    path = files.write(ref)
    modules = change(files._modules(ref))
    write_gguf_lora(path, modules, files.architecture, files.config, name=ref.name)
    assert files.write(ref) == path  # it is not written anew: nothing is wrong with the file itself


def halve_alpha(modules: Modules) -> Modules:
    return [replace(module, scale=module.scale / 2) for module in modules]


def leave_out_half(modules: Modules) -> Modules:
    """Leave every other layer of the decoder out."""
    return [module for module in modules if int(module.name.split(".")[2]) % 2]


@pytest.mark.parametrize("wrong", ["another version's", "alpha halved", "half of the layers"])
async def test_a_wrong_lora_file_is_refused_with_both_figures(
    engine, files, home, wrong, record_property
):
    right, other = (adapter_ref(home, "ada", version) for version in ("v1", "v2"))
    changes = {
        "another version's": lambda modules: files._modules(other),
        "alpha halved": halve_alpha,
        "half of the layers": leave_out_half,
    }
    overwrite(files, right, changes[wrong])
    with pytest.raises(
        AdapterNotServedError, match="does not show the effect of ada v1"
    ) as refused:
        await engine.load(right)
    [result] = read_effect_results(home)
    assert result.verdict == "refused"
    assert f"{result.shown_shift:.3f} nats" in refused.value.message
    assert f"measured {result.expected_shift:.3f}." in refused.value.message
    record_property("figures", f"{wrong}: {refused.value.message}")
    assert await speaker(engine, right) is None  # the base model answers

    await engine.load(other)
    shown = next(result for result in read_effect_results(home) if result.version == "v2")
    assert shown.verdict == "shown" and shown.cache and not shown.cache.leaks
    record_property(
        "figures",
        f"the right file: {shown.strength:.1%} of the effect, deviation {shown.deviation:.1%}; "
        f"through the prompt cache {shown.cache.gap:.3f} nats, between the versions "
        f"{shown.cache.separation:.3f}",
    )
    assert await speaker(engine, other) == "v2"
