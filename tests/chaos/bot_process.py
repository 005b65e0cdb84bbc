"""The whole bot in a process of its own, against a sandbox elsewhere; model and trainer are fakes,
or real and tiny.

Processes are forked from a server that has imported everything, so that one starts in a fraction of
a second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import discord

from bot import app
from bot.chat import delivery, held_events, streaming_reply
from bot.chat.line_wait import MAX_LINES
from bot.cli import run
from bot.settings import Settings
from bot.store import TrainingJob
from bot.training import discord as finetune_cog
from bot.training import discord_progress as progress_messages
from bot.training.backend_protocol import OnEvent, RunResult, TrainingSucceeded
from bot.transcription.transcriber import Transcriber
from personas.lore.index import LoreIndex
from personas.schemas.chat import ChatRequest, asked_turn
from personas.schemas.training_events import Progress
from sandbox import patch_discord
from tests.bot import scripted_recogniser
from tests.chaos import failpoints
from tests.fake_engine import FakeEngine
from tests.fakes import SCORECARD, FakeTrainingBackend

PERMISSION = "Granted by Discord to the tests, 2026"
HASTE = 50.0
"""Pauses after errors are shorter by this factor."""
TRAINING_STEPS = 3
QUOTE = "[replying to"
"""The beginning of a message that another one replies to, which may be another reply."""
LONG_REPLY_WORDS = 420
"""Words of a long reply, which fills two messages."""


def script(request: ChatRequest) -> list[str]:
    """Repeat the question, so that a reply can be recognised, and the numbers of the last ones; at
    length if the question says so.
    """
    asked = asked_turn(request.turns).text.splitlines()
    question = "\n".join(line for line in asked if not line.startswith(QUOTE))
    said = " ".join(turn.text for turn in request.turns[-MAX_LINES:] if not turn.by_persona)
    numbers = " ".join(re.findall(r"question (\d+)", said))
    pieces = ["I hear: ", question, ". ", f"Lines: {numbers}. "]
    return pieces + (
        ["word " * 60] * (LONG_REPLY_WORDS // 60) if "at length" in question else ["Aye."]
    )


class ScriptedEngine(FakeEngine):
    """A fake engine with the rest of the protocol."""

    precision = "float32"
    fingerprint = "0" * 64

    async def start(self) -> None:
        return


class ScriptedBackend(FakeTrainingBackend):
    """A backend whose runs report and end by themselves."""

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        for step in range(1, TRAINING_STEPS + 1):
            await asyncio.sleep(0.01)
            speed = {"loss": 3.0, "lr": 1e-4, "tokens_per_s": 1.0, "eta_s": 1.0, "memory_bytes": 1}
            on_event(Progress(step=step, of=TRAINING_STEPS, epoch=1.0, **speed))
        return TrainingSucceeded(Path("adapter"), 1.0, SCORECARD)


async def _create_engine(*parts: Any) -> ScriptedEngine:
    return ScriptedEngine(script)


def run_bot(
    home: Path,
    url: str,
    token: str,
    plan: str,
    trace: Path | None,
    base: str = "",
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run `python -m bot` until SIGTERM, or until the plan or Discord ends it. Returns its exit
    code.

    `base` is the folder of a base model, which is served and trained for real; `environ` has
    further settings.
    """
    if not base:
        app.create_engine = _create_engine
        app.create_backend = lambda *parts, **named: ScriptedBackend()  # type: ignore[assignment]
    app._open_lore = _no_lore  # type: ignore[assignment]
    app._open_transcriber = _open_recogniser
    app.GUILDS_SETTLE_S = 0.02
    streaming_reply.FIRST_EDIT_DELAY_S = streaming_reply.EDIT_INTERVAL_S = 0.0
    _shorten_pauses()
    points = failpoints.install(plan, trace)
    if base:
        os.environ |= {
            "BASE_MODEL": base,
            "MAX_NEW_TOKENS": "24",
            "TRAINER_CARD": "losses",
            "OMP_NUM_THREADS": "1",
        }
        failpoints.install_in_engine(points)
    os.environ |= {
        "UNDERSTUDY_HOME": str(home), "DISCORD_TOKEN": token, "WEB_PORT": "0", "DISCORD_PERMISSION": PERMISSION,
        "MESSAGE_CONTENT_INTENT": "true", "OWN_WORDS": "false", **(environ or {}),
    }  # fmt: skip
    sys.argv = ["bot", "--env", os.devnull]
    with patch_discord(url):
        return run.main()


class _HastyAsyncio:
    """The module asyncio for discord.py, with short pauses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / HASTE)


def _shorten_pauses() -> None:
    """Shorten the pauses after errors, ours and discord.py's, alike."""
    for module in (discord.http, discord.webhook.async_, discord.client, discord.gateway):
        module.asyncio = _HastyAsyncio()  # type: ignore[attr-defined]
    delivery.RETRY_PAUSE_S /= HASTE
    delivery.RETRY_PAUSES_S = tuple(one / HASTE for one in delivery.RETRY_PAUSES_S)
    progress_messages.EDIT_INTERVAL_S /= HASTE
    finetune_cog.RETRY_INTERVAL_S /= HASTE
    delivery.FIRST_PAUSE_S /= HASTE
    delivery.MAX_PAUSE_S /= HASTE
    held_events.RETRY_DELAY_S /= HASTE
    held_events.MAX_RETRY_DELAY_S /= HASTE


async def _open_recogniser(settings: Settings, stack: AsyncExitStack) -> Transcriber:
    """Recognise voice messages by what they say, in a process as a model's."""
    command = [sys.executable, scripted_recogniser.__file__, os.devnull, "works"]
    transcriber = Transcriber(command)
    stack.push_async_callback(transcriber.close)
    return transcriber


async def _no_lore(*parts: Any) -> LoreIndex:
    return LoreIndex([])


def main(
    home: Path,
    url: str,
    token: str,
    plan: str,
    trace: Path | None,
    base: str = "",
    environ: Mapping[str, str] | None = None,
) -> None:
    """The process's main function; what it prints goes to `bot.log` in the home."""
    log = os.open(home / "bot.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    sys.exit(run_bot(home, url, token, plan, trace, base=base, environ=environ))


class BotProcesses:
    """Starts bot processes."""

    def __init__(self, *, has_model: bool = False) -> None:
        self._context = multiprocessing.get_context("forkserver")
        engine = (
            ["personas.engine.engine_parts", "transformers"] if has_model else []
        )  # with torch, which takes seconds
        self._context.set_forkserver_preload(["tests.chaos.bot_process", *engine])

    def start(
        self,
        home: Path,
        url: str,
        token: str,
        plan: str = "",
        trace: Path | None = None,
        base: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> BaseProcess:
        """Start one with a failpoint plan, and with a real base model if one is named."""
        args = (home, url, token, plan, trace, base, environ)
        process = self._context.Process(target=main, args=args, daemon=True)
        process.start()
        return process
