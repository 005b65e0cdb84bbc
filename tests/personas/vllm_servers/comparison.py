"""Held-out losses and speed of the bundled model through vLLM, next to the engine in the bot's
process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.engine import Engine
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.home.adapters import adapter_ref, install_adapter_folder, verify_adapter
from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import TokenizedSample
from personas.schemas.chat import AdapterRef, ChatRequest, SamplingParams, Turn
from tests.personas.vllm_servers.vllm_process import LORA_OPTIONS, VllmProcess
from trainer.dataset.layout import EVAL_FILE
from trainer.dataset.run_dataset import RunDataset
from trainer.evaluate.candidates import Candidates
from trainer.train.losses import mean_loss, measure_token_losses

TRAINED_PERSONAS = ("ballast", "oda")
TRAINING = ("--set", "train_samples=48", "--set", "num_train_epochs=1", "--card", "losses")
HELD_OUT_SAMPLES = 24
MAX_LOSS_DIFFERENCE = 0.005
SLOTS = 8
SERVER_OPTIONS = (
    *LORA_OPTIONS, "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "32",
    "--max-loras", str(SLOTS), "--max-cpu-loras", "64",
)  # fmt: skip
CHAT_COUNTS = (1, 8, 32)
NEW_TOKENS = 64
BENCH_SAMPLING = SamplingParams(
    temperature=0.0, repetition_penalty=1.0, max_new_tokens=NEW_TOKENS, stop_loops=False
)


@dataclass(frozen=True)
class TrainedVersion:
    """An adapter that was trained here, and held-out samples of its persona."""

    ref: AdapterRef
    samples: tuple[TokenizedSample, ...]


def train_versions(home: Path) -> list[TrainedVersion]:
    """Train a short run of each persona, unless an earlier call did, and install its adapter in the
    home.
    """
    found = []
    for persona in TRAINED_PERSONAS:
        job = home / "runs" / f"parity-{persona}"
        if not (job / "adapter" / "manifest.json").exists():
            print(f"training {persona} …", flush=True)
            command = [
                sys.executable,
                "-m",
                "trainer",
                "train",
                "--persona",
                persona,
                "--home",
                str(home),
            ]
            subprocess.run(
                [*command, "--out", str(job), *TRAINING], check=True, stdout=subprocess.DEVNULL
            )
        ref = adapter_ref(home, persona, verify_adapter(job / "adapter").version)
        install_adapter_folder(job / "adapter", ref.folder)
        records = RunDataset(job / "dataset").records(EVAL_FILE)[:HELD_OUT_SAMPLES]
        found.append(TrainedVersion(ref, tuple(record.sample for record in records)))
    return found


# ------------------------------------------------------------------------------------------- losses


def local_losses(base: BaseModel, versions: Sequence[TrainedVersion]) -> dict[str, float]:
    """Return nats per reply token of each version, in the precision in which the bot serves
    here.
    """
    precision = choose_precision("auto", base.name).precision
    sides = Candidates.load(base, load_tokenizer(base), precision, (1, 2, 3), speaks=False)
    losses = {}
    for version in versions:
        with sides.use_adapter(version.ref) as model:
            measured = measure_token_losses(model, version.samples)
        losses[version.ref.persona_id] = mean_loss([one.whole for one in measured])
    sides.close()
    return losses


async def vllm_losses(
    servers: Sequence[VllmProcess], versions: Sequence[TrainedVersion]
) -> dict[str, float]:
    """Return the same through `prompt_logprobs`; a server is asked for one sample at a time.

    With an adapter, vLLM on a CPU takes the number of prompt tokens for that of requests: more than
    one end it.
    """
    losses = {}
    for version in versions:

        async def measure(first: int, version: TrainedVersion = version) -> float:
            own = version.samples[first :: len(servers)]
            return sum(
                [await _reply_loss(servers[first], version.ref.name, sample) for sample in own]
            )

        summed = await asyncio.gather(*map(measure, range(len(servers))))
        losses[version.ref.persona_id] = sum(summed) / sum(
            sample.reply_tokens for sample in version.samples
        )
    return losses


async def _reply_loss(server: VllmProcess, model: str, sample: TokenizedSample) -> float:
    body = {
        "model": model,
        "prompt": list(sample.ids),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }
    choice = (await server.post("/v1/completions", body))["choices"][0]
    tokens = zip(sample.ids, sample.mask, choice["prompt_logprobs"], strict=True)
    return -sum(best[str(token)]["logprob"] for token, trained, best in tokens if trained)


def compare_losses(local: dict[str, float], vllm: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return both losses and their relative difference, by persona."""
    return {
        persona: {"local": loss, "vllm": vllm[persona], "difference": abs(vllm[persona] / loss - 1)}
        for persona, loss in local.items()
    }


# -------------------------------------------------------------------------------------------- speed


def copy_adapters(home: Path, version: TrainedVersion) -> list[AdapterRef]:
    """Return an adapter for each chat: the same files under names of their own, which the servers
    cannot know.
    """
    refs = [
        adapter_ref(home, f"chat{number}", version.ref.version)
        for number in range(max(CHAT_COUNTS))
    ]
    for ref in refs:
        if not ref.folder.exists():
            shutil.copytree(version.ref.folder, ref.folder, copy_function=os.link)
    return refs


def bench_requests(adapters: Sequence[AdapterRef], count: int, question: int) -> list[ChatRequest]:
    """Return the requests of `count` chats, each with its adapter, from as many guilds."""
    cards = list(read_cards(SHIPPED_CARDS).values())
    return [
        ChatRequest(
            replace(cards[number % len(cards)], mes_example=""),
            (
                Turn(
                    "Bo", f"Question {question}-{number}: what did the tide bring you this morning?"
                ),
            ),
            (),
            adapters[number],
            BENCH_SAMPLING,
            guild_id=number,
        )
        for number in range(count)
    ]


async def measure_speed(
    engine: Engine, adapters: Sequence[AdapterRef]
) -> dict[str, dict[str, float]]:
    """Return tokens per second and the median time to the first text, by number of chats, cold and
    cached.
    """
    await asyncio.gather(*(engine.load(ref) for ref in adapters[:2]))
    await _answer_all(engine, bench_requests(adapters, 2, 0))
    figures = {}
    for count in CHAT_COUNTS:
        for ref in adapters[:count]:
            await engine.load(ref)
        await engine.clear_prefix_cache()
        for question, cache in enumerate(("cold", "cached"), start=1):
            figures[f"{count} {cache}"] = await _answer_all(
                engine, bench_requests(adapters, count, question)
            )
    return figures


async def _answer_all(engine: Engine, requests: Sequence[ChatRequest]) -> dict[str, float]:
    since = time.perf_counter()
    first = []

    async def answer(request: ChatRequest) -> int:
        stream = engine.submit(request)
        begun = False
        async for _ in stream:
            if not begun:
                first.append(time.perf_counter() - since)
            begun = True
        return stream.reply.new_tokens

    tokens = sum(await asyncio.gather(*map(answer, requests)))
    return {
        "tokens_per_s": tokens / (time.perf_counter() - since),
        "first_text_s": median(first),
        "tokens": tokens,
    }


async def local_speed(
    base: BaseModel, adapters: Sequence[AdapterRef]
) -> dict[str, dict[str, float]]:
    """Measure the engine in this process, with the threads and precision of the bot."""
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    await engine.start()
    try:
        return await measure_speed(engine, adapters)
    finally:
        await engine.close()


def compare_speed(
    local: dict[str, dict[str, float]], vllm: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return tokens per second of both and vLLM's share of the local engine's, by workload."""
    return {
        name: {
            "local": figures["tokens_per_s"],
            "vllm": vllm[name]["tokens_per_s"],
            "ratio": vllm[name]["tokens_per_s"] / figures["tokens_per_s"],
            "local_first_text_s": figures["first_text_s"],
            "vllm_first_text_s": vllm[name]["first_text_s"],
        }
        for name, figures in local.items()
    }


def bundled_base() -> BaseModel:
    return locate(EMBEDDED)
