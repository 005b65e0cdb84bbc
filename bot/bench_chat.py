"""`python -m bot.bench_chat`: how long members wait, alone and beside a retrain, measured in one run.

Eight members talk in eight channels at once, each with another persona and another adapter, several rounds: first with
nothing else to do (the baseline), then while a persona trains. Prints a table and writes `build/bench/chat.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from bot.app import App, opened
from bot.bench_town import MEMBERS, PERSONAS, give_adapters, town, write_cards
from bot.catalogue import ShippedData
from bot.local_guild import MODERATOR
from bot.replies import PLACEHOLDER
from bot.settings import Settings, load_settings
from personas import base_model
from personas.contracts import Progress
from personas.errors import UnderstudyError

HOME = Path("build/bench/home")
RESULT = Path("build/bench/chat.json")
QUESTIONS = (
    "Good evening. What have you been doing today?",
    "I lost a game in the last minute and I am cross about it. What now?",
    "Tell me something about Skerrow that I do not know.",
    "What should I eat tonight?",
    "Who is the strangest person in the harbour?",
)
TRAINING_S = 300.0
"""How long a training may take to its first step."""

TALK_S = 120.0
"""So long at least members talk, alone and beside the training: prompts grow to full length, and steps are made."""

PACKAGES = ("torch", "transformers", "peft", "discord.py")


@dataclass(frozen=True)
class Wait:
    """What one member waited, in seconds from the message: for a sign of life, for the first words, for the end."""

    ack_s: float
    first_text_s: float
    end_s: float
    tokens: int


async def ask(app: App, tokenizer: Any, member: str, channel: str, question: str) -> Wait:
    """Write one message and follow its reply as a member sees it."""
    sandbox = app.sandbox
    assert sandbox is not None  # the settings have no token
    channel_id, mark, began = sandbox.channel(channel)["id"], len(sandbox.events), time.monotonic()
    await sandbox.member(member).say(channel, question)

    async def seen(kind: str, words: str) -> tuple[dict[str, Any], float]:
        def fits(message: dict[str, Any]) -> bool:
            mine = message["channel_id"] == channel_id and message["author"]["bot"]
            return mine and words in message["content"] and (kind == "message" or message["content"] != PLACEHOLDER)

        message = await sandbox.wait_for(kind, fits, 300.0, mark)
        return message, time.monotonic() - began

    _, ack_s = await seen("message", PLACEHOLDER)
    _, first_text_s = await seen("edit", "")
    last, end_s = await seen("edit", "-# AI-written")
    reply = last["content"].rpartition("\n-# ")[0]
    return Wait(ack_s, first_text_s, end_s, len(tokenizer(reply)["input_ids"]))


async def rounds(app: App, tokenizer: Any) -> tuple[list[Wait], float]:
    """One question after another in every channel, the channels at once, for as long as `TALK_S`.

    Gives the waits and the reply tokens per second.
    """
    waits, questions, began = [], cycle(QUESTIONS), time.monotonic()
    while time.monotonic() - began < TALK_S:
        question = next(questions)
        asked = (ask(app, tokenizer, *who, question) for who in zip(MEMBERS, PERSONAS, strict=True))
        waits += await asyncio.gather(*asked)
    return waits, sum(wait.tokens for wait in waits) / (time.monotonic() - began)


async def measure(app: App) -> dict[str, float]:
    """Both halves; keys as written to the file."""
    assert app.sandbox is not None  # the settings have no token
    tokenizer = base_model.load_tokenizer(base_model.locate(base_model.EMBEDDED))
    give_adapters(app)
    for member, channel in zip(MEMBERS, PERSONAS, strict=True):
        await ask(app, tokenizer, member, channel, "Warming up.")
    alone, alone_rate = await rounds(app, tokenizer)
    await app.sandbox.member(MODERATOR).slash(PERSONAS[0], "finetune start", persona=PERSONAS[0])
    first = await _training(app)
    beside, beside_rate = await rounds(app, tokenizer)
    last = await _training(app)
    return {
        "ack_p95_s": _p95([wait.ack_s for wait in alone]),
        "ack_p95_training_s": _p95([wait.ack_s for wait in beside]),
        "first_text_p95_s": _p95([wait.first_text_s for wait in alone]),
        "first_text_p95_training_s": _p95([wait.first_text_s for wait in beside]),
        "end_p95_s": _p95([wait.end_s for wait in alone]),
        "end_p95_training_s": _p95([wait.end_s for wait in beside]),
        "tokens_per_s": alone_rate,
        "tokens_per_s_training": beside_rate,
        "training_steps_per_min": _steps_per_min(first, last),
    }


async def _training(app: App) -> Progress:
    """How far the training has come; waits for the first step."""
    began = time.monotonic()
    while time.monotonic() - began < TRAINING_S:
        for job in app.house.store.jobs.of_guild(app.sandbox.guild_id if app.sandbox else 0):
            if isinstance(job.progress, Progress):
                return job.progress
            if job.state not in ("queued", "running"):
                raise UnderstudyError(f"The training ended too early: {job.state}. {job.error or ''}")
        await asyncio.sleep(0.2)
    raise UnderstudyError("No training has begun.")


def _steps_per_min(first: Progress, last: Progress) -> float:
    """Of whole steps, each with its time: from one that had been made to the last that was."""
    return (last.step - first.step) / (last.seconds - first.seconds) * 60 if last.step > first.step else 0.0


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def print_table(figures: dict[str, float]) -> None:
    """Alone (the baseline), beside a retrain, and the ratio."""
    print(f"{'':32}{'alone':>9}{'training':>10}{'ratio':>8}")
    for name, label in (
        ("ack_p95_s", "sign of life, p95 (s)"),
        ("first_text_p95_s", "first words, p95 (s)"),
        ("end_p95_s", "whole reply, p95 (s)"),
        ("tokens_per_s", "reply tokens/s, all channels"),
    ):
        alone = figures[name]
        beside = figures[name[:-2] + "_training_s" if name.endswith("p95_s") else name + "_training"]
        print(f"{label:32}{alone:9.2f}{beside:10.2f}{beside / alone:8.2f}")
    print(f"{'optimiser steps a minute':32}{'':9}{figures['training_steps_per_min']:10.1f}")


async def _run(settings: Settings, shipped: ShippedData) -> dict[str, float]:
    async with opened(settings, shipped, town()) as app:
        return await measure(app)


def main() -> int:
    """Measure, print and write."""
    argparse.ArgumentParser("python -m bot.bench_chat", description=__doc__).parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        shutil.rmtree(HOME, ignore_errors=True)
        settings = load_settings(None, {"UNDERSTUDY_HOME": str(HOME.absolute()), "WEB_PORT": "0"})
        write_cards(settings.home / "cards")
        shipped = replace(ShippedData.beside_the_code(), cards=settings.home / "cards")
        figures = asyncio.run(_run(settings, shipped))
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    RESULT.write_text(json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n")
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
