"""`python -m bot.demo`: plays a session without a browser: a reply, a training, a promotion, a reply."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bot.app import App, open_app
from bot.demo_guild import CHANNEL_PERSONAS, MEMBER, MODERATOR
from bot.settings import load_settings
from bot.store import TrainingJob
from personas.errors import UnderstudyError
from personas.home.job_material import ShippedData
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training_events import Phase

OUTPUT_FOLDER = Path("build/demo")
QUESTION = "I had a rotten day and everything went wrong. What would you do?"
QUESTION_DURING_TRAINING = "Are you still there while they train the other one?"
PROMOTED_TEXT = "is live from the next reply on"
REPLY_TIMEOUT_S, TRAINING_TIMEOUT_S = 180.0, 1800.0


@dataclass
class DemoResult:
    """Contents of `result.json`; maps go from persona id to the figure. Losses are nats per reply token, held out.

    `voice_right` is the share of generated replies that a classifier takes to be the persona's, `voice_right_base` the
    base model's; `general_loss_change` is in shares of the base model's loss. `verdict` is the gate's.
    """

    first_reply_s: float = 0.0
    retrain_s: dict[str, float] = field(default_factory=dict)
    loss_base: dict[str, float] = field(default_factory=dict)
    loss_tuned: dict[str, float] = field(default_factory=dict)
    voice_right: dict[str, float] = field(default_factory=dict)
    voice_right_base: dict[str, float] = field(default_factory=dict)
    general_loss_change: dict[str, float] = field(default_factory=dict)
    verdict: dict[str, str] = field(default_factory=dict)
    reply_before: dict[str, str] = field(default_factory=dict)
    reply_after: dict[str, str] = field(default_factory=dict)


class TrainingTimer:
    """Follows one job: how long it took, the measuring of the score card taken out."""

    def __init__(self, app: App) -> None:
        self._queue = app.services.queue
        self._began = self._since = time.monotonic()
        self._measured_s = 0.0
        self._phase = ""
        self._queue.subscribe(self._on_change)

    def _on_change(self, job: TrainingJob) -> None:
        phase = job.progress.name if isinstance(job.progress, Phase) else self._phase
        if phase == self._phase and job.state == "running":
            return
        if self._phase.startswith("measuring"):
            self._measured_s += time.monotonic() - self._since
        self._phase, self._since = phase, time.monotonic()

    def stop(self) -> float:
        """Seconds since the start that were not spent on measuring."""
        self._queue.unsubscribe(self._on_change)
        return self._since - self._began - self._measured_s


class DemoSession:
    """The members' side of the story."""

    def __init__(self, app: App, started: float) -> None:
        assert app.sandbox is not None  # the demo's settings have no token
        self._app, self._sandbox, self._started = app, app.sandbox, started
        self.figures = DemoResult()

    async def ask(self, persona_id: str, question: str, version: str = "") -> str:
        """Write to a persona's channel as a member and give the finished reply, which has to be by `version`."""
        channel = next(name for name, lives in CHANNEL_PERSONAS.items() if lives == persona_id)
        mark = len(self._sandbox.events)
        print_line(f"#{channel} · {MEMBER}: {question}")
        await self._sandbox.member(MEMBER).say(channel, question)
        channel_id = self._sandbox.channel(channel)["id"]
        edit = await self._sandbox.wait_for(
            "edit",
            lambda message: message["channel_id"] == channel_id and "\n-# AI-written" in message["content"],
            timeout_s=REPLY_TIMEOUT_S,
            since=mark,
        )
        text, _, small_print = edit["content"].rpartition("\n-# ")
        print_line(f"#{channel} · {edit['author']['username']}: {text}\n    ({small_print})")
        if version and version not in small_print.split(" · "):
            raise UnderstudyError(f"The reply is not by {version}.", "This is a fault of the bot; its log says more.")
        self.figures.first_reply_s = self.figures.first_reply_s or round(time.monotonic() - self._started, 2)
        return str(text)

    async def retrain(self, persona_id: str) -> None:
        """Start a training as a moderator, watch it, talk to another persona meanwhile, and promote what came out."""
        channel = next(name for name, lives in CHANNEL_PERSONAS.items() if lives == persona_id)
        moderator = self._sandbox.member(MODERATOR)
        print_line(f"#{channel} · {MODERATOR}: /finetune start persona:{persona_id}")
        mark = len(self._sandbox.events)
        answer = await moderator.slash(channel, "finetune start", persona=persona_id)
        if answer.type is None:
            raise UnderstudyError("The bot did not acknowledge /finetune start.")
        timer = TrainingTimer(self._app)
        watching = asyncio.create_task(self._watch(channel, mark))
        other = next(lives for lives in CHANNEL_PERSONAS.values() if lives != persona_id)
        await self.ask(other, QUESTION_DURING_TRAINING)
        result = await watching
        self.figures.retrain_s[persona_id] = round(timer.stop(), 1)
        self._note_card(persona_id)
        print_line(f"#{channel} · {MODERATOR} presses Promote")
        await moderator.click(result, "Promote")
        said = await self._answered(mark)
        if PROMOTED_TEXT not in said["content"]:
            print_line(f"#{channel} · Understudy: {said['content']}")
            print_line(f"#{channel} · {MODERATOR} presses Promote anyway")
            await moderator.click(said, "Promote anyway")
            await self._sandbox.wait_for("message", lambda message: PROMOTED_TEXT in message["content"], since=mark)

    async def _answered(self, mark: int) -> dict[str, Any]:
        """Wait for the bot's answer to Promote: the version is live, or the gate rejects it."""
        words = (PROMOTED_TEXT, "The gate rejects")
        found: dict[str, Any] = await self._sandbox.wait_for(
            "message", lambda message: any(it in message["content"] for it in words), since=mark
        )
        return found

    async def _watch(self, channel: str, mark: int) -> dict[str, Any]:
        """Print each new state of the progress message until the training has ended; gives the message then."""
        shown = ""
        channel_id = self._sandbox.channel(channel)["id"]
        deadline = time.monotonic() + TRAINING_TIMEOUT_S
        while time.monotonic() < deadline:
            for _, message in self._sandbox.events[mark:]:
                words = message.get("content", "") if message.get("channel_id") == channel_id else ""
                if words.startswith("Trained:"):
                    print_line(f"#{channel} · Understudy: {words}")
                    return message
                if words.startswith("Failed:"):
                    raise UnderstudyError(words)
                lines = [line for line in words.splitlines()[1:] if not line.startswith("-#")]
                line = " | ".join(lines) if words.startswith("Training:") else ""
                if line and line != shown:
                    print(f"    {line}", flush=True)
                    shown = line
            mark = len(self._sandbox.events)
            await asyncio.sleep(0.5)
        raise UnderstudyError(f"The training did not end within {TRAINING_TIMEOUT_S:.0f} s.")

    def _note_card(self, persona_id: str) -> None:
        services, figures = self._app.services, self.figures
        newest = services.store.versions.installed(persona_id)[-1]
        card = newest.scorecard
        figures.loss_base[persona_id] = round(card.loss_base, 4)
        figures.loss_tuned[persona_id] = round(card.loss_tuned, 4)
        figures.general_loss_change[persona_id] = round(card.general_loss_tuned / card.general_loss_base - 1, 4)
        figures.verdict[persona_id] = card.verdict
        file = services.request_builder.adapter(persona_id, newest.version).folder / "scorecard.json"
        voice = ScoreCard.model_validate_json(file.read_bytes()).voice
        if voice:
            figures.voice_right[persona_id] = round(voice.right["new"].mean, 4)
            figures.voice_right_base[persona_id] = round(voice.right["base"].mean, 4)


async def run_demo(personas: list[str], started: float) -> tuple[DemoResult, dict[str, tuple[Path, Path]]]:
    """The story for these personas; gives the figures and, by persona, job folder and adapter folder."""
    home = OUTPUT_FOLDER / "home"
    shutil.rmtree(OUTPUT_FOLDER, ignore_errors=True)
    settings = load_settings(None, {"UNDERSTUDY_HOME": str(home.absolute()), "WEB_PORT": "0"})
    async with open_app(settings, ShippedData.from_source_tree()) as app:
        story = DemoSession(app, started)
        for persona_id in CHANNEL_PERSONAS.values():  # the same question in every channel: three voices
            story.figures.reply_before[persona_id] = await story.ask(persona_id, QUESTION)
        for persona_id in personas:
            await story.retrain(persona_id)
            version = app.services.store.versions.live(persona_id) or ""
            story.figures.reply_after[persona_id] = await story.ask(persona_id, QUESTION, version)
        folders = {}
        for persona_id in personas:
            newest = app.services.store.versions.installed(persona_id)[-1]
            adapter = app.services.request_builder.adapter(persona_id, newest.version).folder
            folders[persona_id] = (settings.home / "jobs" / newest.job_id, adapter)
    return story.figures, folders


def cross_persona_losses(folders: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Every persona's held-out replies under every persona's adapter, measured by the trainer."""
    arguments = [sys.executable, "-m", "trainer", "matrix", "--json"]
    for persona_id, (job, adapter) in folders.items():
        arguments += ["--job", f"{persona_id}={job}", "--adapter", f"{persona_id}={adapter}"]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def print_line(line: str) -> None:
    """Print a line of the transcript."""
    print(line, flush=True)


def main() -> int:
    """Play, print and write the figures."""
    started = psutil.Process().create_time() - time.time() + time.monotonic()
    parser = argparse.ArgumentParser("python -m bot.demo", description=__doc__)
    parser.add_argument("--all", action="store_true", help="train all three personas and compare their adapters")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    personas = list(CHANNEL_PERSONAS.values()) if arguments.all else list(CHANNEL_PERSONAS.values())[:1]
    try:
        figures, folders = asyncio.run(run_demo(personas, started))
    except UnderstudyError as error:
        print(f"The demo broke off. {error}", file=sys.stderr)
        return 1
    result = vars(figures) | (cross_persona_losses(folders) if arguments.all else {})
    file = OUTPUT_FOLDER / "result.json"
    file.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print_line(f"\nFigures ({file}):\n{file.read_text(encoding='utf-8')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
