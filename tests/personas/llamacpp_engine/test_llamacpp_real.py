"""A real llama.cpp server with the bundled model and two adapters, beside peft."""

import asyncio
import io
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from peft import PeftModel
from PIL import Image

from personas.engine.remote.llamacpp_command import LlamaProgram
from personas.engine.remote.llamacpp_engine import LlamaCppEngine
from personas.engine.remote.llamacpp_memory import ServerMemory
from personas.engine.remote.llamacpp_scorer import LlamaCppScorer
from personas.engine.remote.replica import ReplicaLimits
from personas.models.base_model import EMBEDDED, locate
from personas.models.gguf_base_file import find_base_gguf
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef, Picture
from personas.schemas.effect_probe import TokenizedReply
from tests.personas.llamacpp_engine.random_projector import write_projector
from tests.personas.llamacpp_engine.random_versions import random_version
from tests.personas.vllm_engine.conftest import ADA, answer, ask
from tests.real_llama import llama_program

pytestmark = pytest.mark.slow
MAX_LOGPROB_ERROR = 0.12
"""Nats per token between float32 and llama.cpp's products of 8-bit activations."""
NO_ROOM = ServerMemory(need_bytes=1, free_bytes=0, total_bytes=2**30)


@pytest.fixture(scope="module")
def program() -> LlamaProgram:
    return llama_program()


@pytest.fixture(scope="module")
def base():
    return locate(EMBEDDED)


@pytest.fixture(scope="module")
def versions(base, tmp_path_factory) -> tuple[Path, list[AdapterRef]]:
    """A home with two adapters of random weights, each of which clearly changes replies."""
    home = tmp_path_factory.mktemp("home")
    return home, [random_version(home, base, f"v{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
async def engine(base, program, versions):
    home, _ = versions
    made = LlamaCppEngine(
        base,
        "bfloat16",
        (),
        home,
        model_file=find_base_gguf(base),
        program=program,
        limits=ReplicaLimits(rows=2, adapters=4, health_timeout_s=10.0),
    )
    await made.start()
    yield made
    await made.close()


async def scores_on(engine, adapter, reply):
    """The log-probabilities of a reply's tokens on the llama.cpp server."""
    client = engine._replicas.ready[0].client
    scorer = LlamaCppScorer(
        client, await client.models(), engine._replicas.files, engine._is_whole, "test"
    )
    [scored] = await scorer.score_replies(adapter, [reply])
    assert sum(score is not None for score in scored) > 0.8 * len(reply.reply)
    return scored


@torch.inference_mode()
def scores_of_peft(base, adapter, reply):
    """The same from transformers and peft in float32."""
    model = load_model(base, "float32")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    ids = torch.tensor([[*reply.prompt, *reply.reply]])
    logprobs = model(ids).logits[0, len(reply.prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(reply.reply)[:, None])[:, 0].tolist()


async def test_each_adapter_computes_what_peft_computes(engine, base, versions):
    _, (first, second) = versions
    voices = (None, first, second)
    prompt = engine._renderer.prompt(ADA, ask("Who are you?").turns).ids
    texts, replies = [], {}
    for adapter in voices:
        if adapter:
            await engine.load(adapter)
        texts.append(await answer(engine, ask("Who are you?", adapter)))
        ids = engine._renderer.tokenizer(texts[-1], add_special_tokens=False)["input_ids"]
        replies[adapter] = TokenizedReply(prompt=prompt, reply=tuple(ids))
    assert len({*texts}) == len(voices)
    for reply in replies.values():
        theirs = {adapter: await scores_on(engine, adapter, reply) for adapter in voices}
        ours = {}
        for adapter in voices:
            ours[adapter] = await asyncio.to_thread(scores_of_peft, base, adapter, reply)
        for adapter in voices:
            errors = {other: mean_error(theirs[adapter], ours[other]) for other in voices}
            print([round(error, 3) for error in errors.values()])
            assert errors[adapter] < MAX_LOGPROB_ERROR
            assert min(errors, key=errors.get) == adapter, "another adapter's voice"


def mean_error(theirs, ours):
    """The mean difference of the log-probabilities that the server told."""
    pairs = zip(theirs, ours, strict=True)
    errors = [abs(one - other) for one, other in pairs if one is not None]
    return sum(errors) / len(errors)


@pytest.mark.parametrize("has_room", [True, False], ids=["beside", "restart"])
async def test_promotion_under_load_and_a_kill_lose_nothing(
    engine, versions, monkeypatch, has_room
):
    _, (first, second) = versions
    await engine.load(first)
    if not has_room:
        monkeypatch.setattr(engine._servers, "_memory", lambda adapters: NO_ROOM)
    requests = [ask(f"Tell me of day {day}.", first, guild_id=day % 3) for day in range(5)]
    expected = [await answer(engine, request) for request in requests]
    await engine.drop(second)
    replies = [asyncio.create_task(answer(engine, request)) for request in requests]
    await asyncio.sleep(0.3)
    await engine.load(second)
    await asyncio.sleep(0.3)
    [server] = psutil.Process(engine._servers._current.pid).children()
    os.kill(server.pid, signal.SIGKILL)
    new = await answer(engine, ask("Who are you?", second))
    texts = [await reply for reply in replies]
    assert all(texts) and new
    # A reply that goes on after a kill may be rounded otherwise: its beginning is the same.
    for text, undisturbed in zip(texts, expected, strict=True):
        assert text.split()[:2] == undisturbed.split()[:2]


def picture(name, colour):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(file, "JPEG")
    return Picture(f"{name}.jpg", "image/jpeg", file.getvalue())


async def test_a_picture_changes_what_the_base_model_and_a_version_say(
    base, program, versions, tmp_path
):
    """The projector beside the model's file is taken, and each picture is seen in its own way."""
    home, (first, _) = versions
    model_file = shutil.copy(find_base_gguf(base), tmp_path / "model.gguf")
    write_projector(tmp_path / "mmproj-model-f32.gguf", 576)
    engine = LlamaCppEngine(
        base,
        "bfloat16",
        (),
        home,
        model_file=Path(model_file),
        program=program,
        limits=ReplicaLimits(rows=2, adapters=4, health_timeout_s=10.0),
        candidates=4,
    )
    red, blue = picture("sea", "red"), picture("sea", "blue")
    await engine.start()
    try:
        assert engine.state().sees_pictures
        await engine.load(first)
        for adapter in (None, first):
            plain = ask("What is this?", adapter)
            said = []
            for pictures in ((), (red,), (blue,), (red, blue)):
                said.append(await answer(engine, replace(plain, pictures=pictures)))
            assert len({*said}) == 4, said
            assert await answer(engine, plain) == said[0]
            assert await answer(engine, replace(plain, pictures=(red,))) == said[1]
        chosen = ask("What is this?", temperature=1.0, candidates=4, max_new_tokens=20)
        assert await answer(engine, replace(chosen, pictures=(blue,)))
    finally:
        await engine.close()
