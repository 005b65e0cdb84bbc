"""Measures the latency of replies, alone and beside a training run."""

import argparse
import asyncio
import importlib.metadata
import json
import logging
import os
import platform
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from bot.app import App, open_app
from bot.chat.addressing import SaidMessage, decide
from bot.chat.chat_words import is_laughter
from bot.chat.discord_addressing import addressees, listening_channel
from bot.chat.places import ChannelRef
from bot.chat.streaming_reply import PLACEHOLDER
from bot.demo_guild import MODERATOR, SKERROW_SEED, DemoGuild
from bot.settings import Settings, load_settings
from bot.store import MAX_CHANNEL_PERSONAS, Channel, JobResult
from bot.training.store import NewTrainingJob
from personas.card.toml_card import SHIPPED_CARDS
from personas.errors import UnderstudyError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.home.job_material import ShippedData
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.models import base_model
from personas.models.base_model import EMBEDDED, BaseModel, fingerprint, locate
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import PROMPT_VERSION, RECENT_BLOCK_MESSAGES, RECENT_MESSAGES
from personas.schemas.chat import DEFAULT_CANDIDATES
from personas.schemas.training import AdapterManifest, TrainingRequest
from personas.schemas.training_events import Progress, ScoreSummary

SHIPPED_PERSONAS = ("ballast", "oda", "thrip")
PERSONAS = (*SHIPPED_PERSONAS, "ballast-two", "oda-two", "thrip-two", "ballast-three", "oda-three")
MEMBERS = (
    "Ada Wren",
    "Ben Holt",
    "Cleo Marsh",
    "Dov Tarn",
    "Elin Fjord",
    "Finn Loch",
    "Greta Moor",
    "Hal Strand",
)
RANK = 16
ALPHA = 32
VERSION = "v1"
REQUESTER_ID = 0
HOME_FOLDER = Path("build/bench/home")
RESULT_FILE = Path("build/bench/chat.json")
TRAINING_TIMEOUT_S = 300.0
"""Time limit for the first step of the training."""
FILL_ROUNDS = (RECENT_MESSAGES + RECENT_BLOCK_MESSAGES) // 2
"""Questions to each persona before the first half: both halves are measured with prompts of full
length.
"""
CHAT_DURATION_S = 120.0
"""Minimum duration of each half, in which the training makes steps."""
PACKAGES = ("torch", "transformers", "peft", "discord.py")


def benchmark_guild() -> DemoGuild:
    """Create a channel for each persona, named after it."""
    channels = tuple(
        replace(SKERROW_SEED.channels[0], name=persona_id, topic="") for persona_id in PERSONAS
    )
    others = tuple(
        member for member in SKERROW_SEED.members if member.owner or member.name == MODERATOR
    )
    members = tuple(replace(SKERROW_SEED.members[0], name=name, roles=()) for name in MEMBERS)
    return DemoGuild(
        replace(SKERROW_SEED, channels=channels, members=(*others, *members)),
        {name: name for name in PERSONAS},
    )


def write_cards(folder: Path) -> None:
    """Write the cards of all personas as a folder of shipped ones."""
    folder.mkdir(parents=True)
    for persona_id in PERSONAS:
        like, _, number = persona_id.partition("-")
        text = (SHIPPED_CARDS / f"{like}.toml").read_text(encoding="utf-8")
        if number:
            text = text.replace(f'id = "{like}"', f'id = "{persona_id}"', 1)
            text = text.replace('name = "', f'name = "{number.title()} ', 1)
        (folder / f"{persona_id}.toml").write_text(text, encoding="utf-8")
        shutil.copy(SHIPPED_CARDS / f"{like}.png", folder)


def install_adapters(app: App) -> None:
    """Install an adapter for each persona, and promote it."""
    base = locate(EMBEDDED)
    store = app.services.store
    for persona_id in PERSONAS:
        scores = _write_adapter(app.services.home, base, persona_id)
        store.versions.reserve(persona_id)
        request = TrainingRequest(job_name=persona_id, persona=persona_id)
        new = NewTrainingJob(
            f"bench-{persona_id}",
            guild_id=OPERATOR_GUILD_ID,
            channel_id=REQUESTER_ID,
            requested_by=REQUESTER_ID,
            request=request,
        )
        folder = str(adapter_ref(app.services.home, persona_id, VERSION).folder)
        store.jobs.add_imported(
            new, VERSION, JobResult(adapter=folder, seconds=0, scorecard=scores), time.time()
        )
        store.versions.promote(persona_id, VERSION, REQUESTER_ID, time.time())


def _write_adapter(home: Path, base: BaseModel, persona_id: str) -> ScoreSummary:
    tensors = {}
    targets = set()
    for file in base.folder.glob("*.safetensors"):
        with safe_open(file, "numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dictionary)
                layer = name.removesuffix(".weight")
                if layer.endswith("_proj"):
                    outputs, inputs = weights.get_slice(name).get_shape()
                    tensors[f"base_model.model.{layer}.lora_A.weight"] = np.ones(
                        (RANK, inputs), np.float32
                    )
                    tensors[f"base_model.model.{layer}.lora_B.weight"] = np.zeros(
                        (outputs, RANK), np.float32
                    )
                    targets.add(layer.rpartition(".")[2])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "bias": "none",
    }
    scores = ScoreSummary(
        heldout_replies=1, heldout_tokens=1, loss_base=1, loss_tuned=1, general_loss_base=1, general_loss_tuned=1,
        precision="bfloat16",
    )  # fmt: skip
    with atomic_folder(adapter_ref(home, persona_id, VERSION).folder) as aside:
        save_file(tensors, aside / WEIGHTS_FILE)
        whole = {**config, "target_modules": sorted(targets), "inference_mode": True}
        (aside / CONFIG_FILE).write_text(json.dumps(whole), encoding="utf-8")
        write_manifest(aside, _adapter_manifest(base, persona_id, scores))
    return scores


def _adapter_manifest(base: BaseModel, persona_id: str, scores: ScoreSummary) -> AdapterManifest:
    return AdapterManifest(
        persona=persona_id,
        version=VERSION,
        job_id="bench",
        created_at="",
        base_model=base.name,
        base_model_hash=fingerprint(base),
        prompt_version=PROMPT_VERSION,
        lora={"r": RANK, "alpha": ALPHA},
        recipe="",
        hyperparameters={},
        training_precision="",
        serving_precision="bfloat16",
        dataset_hash="",
        dataset={},
        rights={},
        seed=0,
        packages={},
        metrics=scores,
        checksums={},
    )


@dataclass(frozen=True)
class ReplyLatency:
    """Latencies of one reply in seconds from the message: first reaction, first text, end."""

    ack_s: float
    first_text_s: float
    end_s: float
    tokens: int


def member_messages() -> list[str]:
    """Return what members say in the shipped personas' logs, in random order: hundreds of different
    messages.
    """
    logs = {
        persona: json.loads((ShippedData.from_source_tree().logs / f"{persona}.json").read_text())
        for persona in SHIPPED_PERSONAS
    }
    said = [
        message["content"]
        for name, log in logs.items()
        for message in log["messages"]
        if message["author"]["name"] != name and not is_laughter(message["content"])
    ]
    random.Random(1).shuffle(said)
    return said


async def ask(app: App, tokenizer: Any, member: str, channel: str, question: str) -> ReplyLatency:
    """Send one message and follow its reply as a member sees it."""
    sandbox = app.sandbox
    assert sandbox is not None  # the settings have no token
    channel_id = sandbox.channel(channel)["id"]
    mark = len(sandbox.events)
    began = time.monotonic()
    await sandbox.member(member).say(channel, question)

    async def seen(kind: str, words: str) -> tuple[dict[str, Any], float]:
        def fits(message: dict[str, Any]) -> bool:
            mine = message["channel_id"] == channel_id and message["author"]["bot"]
            return (
                mine
                and words in message["content"]
                and (kind == "message" or message["content"] != PLACEHOLDER)
            )

        message = await sandbox.wait_for(kind, fits, 300.0, mark)
        return message, time.monotonic() - began

    _, ack_s = await seen("message", PLACEHOLDER)
    _, first_text_s = await seen("edit", "")
    last, end_s = await seen("edit", "-# AI-written")
    reply = last["content"].partition("\n-# ")[0]
    return ReplyLatency(ack_s, first_text_s, end_s, len(tokenizer(reply)["input_ids"]))


async def chat_round(app: App, tokenizer: Any, chats: int, question: str) -> list[ReplyLatency]:
    """Ask a question in so many channels at once, and wait for all replies."""
    asked = []
    for member, channel in zip(MEMBERS[:chats], PERSONAS[:chats], strict=True):
        asked.append(ask(app, tokenizer, member, channel, question=question))
    return await asyncio.gather(*asked)


async def chat_rounds(
    app: App,
    tokenizer: Any,
    chats: int,
    questions: Iterator[str],
    is_enough: Callable[[], bool] = lambda: True,
) -> tuple[list[ReplyLatency], float]:
    """Ask one question after another for `CHAT_DURATION_S`, and until it `is_enough`.

    Returns the latencies and the reply tokens per second.
    """
    waits: list[ReplyLatency] = []
    began = time.monotonic()
    while time.monotonic() - began < CHAT_DURATION_S or not is_enough():
        waits += await chat_round(app, tokenizer, chats, next(questions))
    return waits, sum(wait.tokens for wait in waits) / (time.monotonic() - began)


async def measure(app: App, chats: int, *, is_alone: bool) -> dict[str, float]:
    """Measure both halves, or the first; keys as in the file."""
    assert app.sandbox is not None  # the settings have no token
    tokenizer = load_tokenizer(base_model.locate(base_model.EMBEDDED))
    install_adapters(app)
    for member, channel in zip(MEMBERS, PERSONAS, strict=True):
        await ask(app, tokenizer, member, channel, question="Warming up.")
    questions = cycle(member_messages())
    for question in islice(questions, FILL_ROUNDS):
        await chat_round(app, tokenizer, chats, question)
    alone, alone_rate = await chat_rounds(app, tokenizer, chats, questions)
    figures = {
        "ack_p95_s": _p95([wait.ack_s for wait in alone]),
        "first_text_p95_s": _p95([wait.first_text_s for wait in alone]),
        "end_p95_s": _p95([wait.end_s for wait in alone]),
        "tokens_per_reply": statistics.mean(wait.tokens for wait in alone),
        "end_mean_s": statistics.mean(wait.end_s for wait in alone),
        "tokens_per_s": alone_rate,
    }
    if is_alone:
        return figures
    await app.sandbox.member(MODERATOR).slash(PERSONAS[0], "finetune start", persona=PERSONAS[0])
    first = await first_progress(app)

    def latest() -> Progress:
        return training_progress(app) or first

    beside, beside_rate = await chat_rounds(
        app, tokenizer, chats, questions, is_enough=lambda: latest().step > first.step
    )
    last = latest()
    return {
        **figures,
        "ack_p95_training_s": _p95([wait.ack_s for wait in beside]),
        "first_text_p95_training_s": _p95([wait.first_text_s for wait in beside]),
        "end_p95_training_s": _p95([wait.end_s for wait in beside]),
        "tokens_per_s_training": beside_rate,
        "training_steps_per_min": _steps_per_min(first, last),
    }


async def first_progress(app: App) -> Progress:
    """Wait for the first step of the training."""
    began = time.monotonic()
    while time.monotonic() - began < TRAINING_TIMEOUT_S:
        if progress := training_progress(app):
            return progress
        await asyncio.sleep(0.2)
    raise UnderstudyError("No training has begun.")


def training_progress(app: App) -> Progress | None:
    """Return the progress of the training. Raises `UnderstudyError` if it has ended."""
    for job in app.services.store.jobs.of_guild(app.sandbox.guild_id if app.sandbox else 0):
        if job.state not in ("queued", "running"):
            raise UnderstudyError(f"The training ended too early: {job.state}. {job.error or ''}")
        if isinstance(job.progress, Progress):
            return job.progress
    return None


def choosing_p95_ms(app: App) -> float:
    """Measure how long it takes to decide whether a message is answered in a channel with five
    personas, and by which; every other message names two of them.
    """
    services = app.services
    assert app.sandbox is not None  # the settings have no token
    guild_id = int(app.sandbox.guild_id)
    channel_id = int(app.sandbox.channel(PERSONAS[0])["id"])
    first, *further = PERSONAS[:MAX_CHANNEL_PERSONAS]
    channel = Channel(
        guild_id=guild_id,
        channel_id=channel_id,
        persona_id=first,
        answers="everything",
        set_by=REQUESTER_ID,
        set_at=time.time(),
    )
    services.store.channels.assign(channel, further)
    place = ChannelRef(guild_id, channel_id)
    times = []
    names = [persona.name for persona in services.personas_in(place)]
    for number, text in enumerate(member_messages()):
        if number % 2:
            text = f"{names[number % len(names)]} and {names[number % len(names) - 1]}, {text}"
        began = time.perf_counter()
        said = SaidMessage(event_id=number, text=text, at=datetime.now(UTC))
        decide(said, listening_channel(services, place))
        addressees(services, text, place)
        times.append((time.perf_counter() - began) * 1000)
    return _p95(times)


def _steps_per_min(first: Progress, last: Progress) -> float:
    """Compute the rate of whole steps, each with its time, from one finished step to the last."""
    return (last.step - first.step) / (last.seconds - first.seconds) * 60


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def print_table(figures: dict[str, float]) -> None:
    """Print figures alone (the baseline), beside a training, and their ratio."""
    if "training_steps_per_min" not in figures:
        for name, figure in figures.items():
            print(f"{name:32}{figure:9.2f}")
        return
    print(f"{'':32}{'alone':>9}{'training':>10}{'ratio':>8}")
    for name, label in (
        ("ack_p95_s", "sign of life, p95 (s)"),
        ("first_text_p95_s", "first words, p95 (s)"),
        ("end_p95_s", "whole reply, p95 (s)"),
        ("tokens_per_s", "reply tokens/s, all channels"),
    ):
        alone = figures[name]
        beside = figures[
            name[:-2] + "_training_s" if name.endswith("p95_s") else name + "_training"
        ]
        print(f"{label:32}{alone:9.2f}{beside:10.2f}{beside / alone:8.2f}")
    print(f"{'choosing among 5, p95 (ms)':32}{figures['choose_p95_ms']:9.2f}")
    print(f"{'optimiser steps a minute':32}{'':9}{figures['training_steps_per_min']:10.1f}")


async def _run(
    settings: Settings, shipped: ShippedData, options: argparse.Namespace
) -> dict[str, float]:
    async with open_app(settings, shipped, benchmark_guild()) as app:
        figures = await measure(app, options.chats, is_alone=options.alone)
        return {**figures, "choose_p95_ms": choosing_p95_ms(app)}


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser("python -m benchmarks.chat_latency", description=__doc__)
    of_each = "candidates of each reply (default: %(default)s)"
    parser.add_argument("--candidates", default=str(DEFAULT_CANDIDATES), metavar="N", help=of_each)
    parser.add_argument(
        "--chats", type=int, default=len(MEMBERS), metavar="N", help="channels that ask at once"
    )
    parser.add_argument("--alone", action="store_true", help="without the half beside a training")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        shutil.rmtree(HOME_FOLDER, ignore_errors=True)
        given = {
            "UNDERSTUDY_HOME": str(HOME_FOLDER.absolute()),
            "WEB_PORT": "0",
            "OWN_WORDS": "false",
        }
        settings = load_settings(None, {**given, "REPLY_CANDIDATES": options.candidates})
        write_cards(settings.home / "cards")
        # Without the shipped versions: the base model answers, as in earlier measurements.
        shipped = replace(
            ShippedData.from_source_tree(), cards=settings.home / "cards", adapters=None
        )
        figures = asyncio.run(_run(settings, shipped, options))
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    RESULT_FILE.write_text(
        json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n"
    )
    print(f"written to {RESULT_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
