"""`python -m bot demo`: plays a session without a browser: a reply, a training, a promotion, a
reply.
"""

import argparse
import asyncio
import json
import logging
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from bot.app import App, open_app
from bot.demo_guild import CHANNEL_PERSONAS, MEMBER, MODERATOR
from bot.settings import load_settings
from bot.store import TrainingJob
from personas.cli_entry import EXIT_DONE
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import score_card_file
from personas.home.job_material import ShippedData
from personas.schemas.scorecard import (
    IN_CHARACTER,
    LORE_RIGHT,
    VOICE_AT_TURN,
    ScoreCard,
)
from personas.schemas.training_events import Phase
from sandbox.message_components import message_text

FULL_RECIPE = "demo-cpu"
"""Of --all: the first training of a persona on a CPU is quick otherwise."""
RESULT_NAME = "result.json"
HOME_NAME = "home"
QUESTION = "I had a rotten day and everything went wrong. What would you do?"
QUESTION_DURING_TRAINING = "Are you still there while they train the other one?"
PROMOTED_TEXT = "is live from the next reply on"
REPLY_TIMEOUT_S = 180.0
TRAINING_TIMEOUT_S = 3600.0
HEADING = "### "
"""Markdown before the title of a result, which is a layout."""


@dataclass
class DemoResult:
    """Contents of `result.json`. Maps have the figure of each persona, by its id. A share is None if
    there was no time to measure it.
    """

    first_reply_s: float = 0.0
    retrain_s: dict[str, float] = field(default_factory=dict)
    # Losses of held-out replies, in nats per reply token
    loss_base: dict[str, float] = field(default_factory=dict)
    loss_tuned: dict[str, float] = field(default_factory=dict)
    # Shares of generated replies that a classifier takes to be the persona's
    voice_right: dict[str, float] = field(default_factory=dict)
    voice_right_base: dict[str, float] = field(default_factory=dict)
    # Change of the loss on general talk, as a share of the base model's
    general_loss_change: dict[str, float] = field(default_factory=dict)
    # Share of answers that are right with the passage in the prompt
    lore_right: dict[str, float | None] = field(default_factory=dict)
    # Share of replies in the persona's voice at turn 40 of scripted talks
    voice_turn_40: dict[str, float | None] = field(default_factory=dict)
    # Share of replies that stay in character when tempted out of it
    under_pressure: dict[str, float | None] = field(default_factory=dict)
    # Measurements of fewer replies than planned, and why
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    # The gate's
    verdict: dict[str, str] = field(default_factory=dict)
    reply_before: dict[str, str] = field(default_factory=dict)
    reply_after: dict[str, str] = field(default_factory=dict)


class TrainingTimer:
    """Measures the duration of one job without that of its score card."""

    def __init__(self, app: App) -> None:
        self._queue = app.services.queue
        self._started = self._since = time.monotonic()
        self._evaluation_s = 0.0
        self._phase = ""
        self._queue.subscribe(self._on_change)

    def _on_change(self, job: TrainingJob) -> None:
        phase = job.progress.name if isinstance(job.progress, Phase) else self._phase
        if phase == self._phase and job.state == "running":
            return
        if self._phase.startswith("measuring"):
            self._evaluation_s += time.monotonic() - self._since
        self._phase = phase
        self._since = time.monotonic()

    def stop(self) -> float:
        """Seconds since the start without the evaluation's."""
        self._queue.unsubscribe(self._on_change)
        return self._since - self._started - self._evaluation_s


class DemoSession:
    """The members' side of the session."""

    def __init__(self, app: App, started: float) -> None:
        assert app.sandbox is not None  # the demo's settings have no token
        self._app = app
        self._sandbox = app.sandbox
        self._started = started
        self.figures = DemoResult()

    async def ask(self, persona_id: str, question: str, version: str = "") -> str:
        """Write to a persona's channel as a member and return the finished reply, which has to be
        by `version`.
        """
        channel = _channel_of(persona_id)
        mark = len(self._sandbox.events)
        print_line(f"#{channel} · {MEMBER}: {question}")
        await self._sandbox.member(MEMBER).say(channel, question)
        channel_id = self._sandbox.channel(channel)["id"]
        edit = await self._sandbox.wait_for(
            "edit",
            lambda message: (
                message["channel_id"] == channel_id and "\n-# AI-written" in message["content"]
            ),
            timeout_s=REPLY_TIMEOUT_S,
            since=mark,
        )
        text, _, small_print = edit["content"].rpartition("\n-# ")
        print_line(f"#{channel} · {edit['author']['username']}: {text}\n    ({small_print})")
        if version and version not in small_print.split(" · "):
            raise UnderstudyError(
                f"The reply is not by {version}.", "This is a fault of the bot; its log says more."
            )
        if not self.figures.first_reply_s:
            self.figures.first_reply_s = round(time.monotonic() - self._started, 2)
        return str(text)

    async def retrain(self, persona_id: str, recipe: str = "") -> None:
        """Start a training as a moderator, with the recipe that the bot recommends unless one is
        named, talk to another persona meanwhile, and promote the new version.
        """
        channel = _channel_of(persona_id)
        moderator = self._sandbox.member(MODERATOR)
        options = {"persona": persona_id}
        if recipe:
            options["recipe"] = recipe
        words = " ".join(f"{name}:{value}" for name, value in options.items())
        print_line(f"#{channel} · {MODERATOR}: /finetune start {words}")
        mark = len(self._sandbox.events)
        answer = await moderator.slash(channel, "finetune start", **options)
        if answer.type is None:
            raise UnderstudyError("The bot did not acknowledge /finetune start.")
        timer = TrainingTimer(self._app)
        watching = asyncio.create_task(self._watch(channel, mark))
        other = next(other for other in CHANNEL_PERSONAS.values() if other != persona_id)
        await self.ask(other, QUESTION_DURING_TRAINING)
        result = await watching
        self.figures.retrain_s[persona_id] = round(timer.stop(), 1)
        self._record_scorecard(persona_id)
        print_line(f"#{channel} · {MODERATOR} presses Promote")
        await moderator.click(result, "Promote")
        answer = await self._wait_for_text(
            mark, PROMOTED_TEXT, "The gate rejects", "The gate holds"
        )
        if PROMOTED_TEXT not in message_text(answer):
            print_line(f"#{channel} · Understudy: {message_text(answer)}")
            print_line(f"#{channel} · {MODERATOR} presses Promote anyway")
            await moderator.click(answer, "Promote anyway")
            await self._wait_for_text(mark, PROMOTED_TEXT)

    def live(self, persona_id: str) -> str:
        """The version that is live in the session's server; empty for the base model."""
        guild_id = int(self._sandbox.channel(_channel_of(persona_id))["guild_id"])
        return self._app.services.store.versions.live(persona_id, guild_id) or ""

    async def _wait_for_text(self, mark: int, *texts: str) -> Any:
        """Return the first message since the mark with one of the texts. A button's answer that took
        a while is an edit of the one that said so. Raises `TimeoutError`.
        """
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            while True:
                for kind, message in self._sandbox.events[mark:]:
                    said = message_text(message) if kind in ("message", "edit") else ""
                    if any(text in said for text in texts):
                        return message
                await asyncio.sleep(0.2)

    async def _watch(self, channel: str, mark: int) -> dict[str, Any]:
        """Print each new state of the progress message until the training has ended; returns the
        last message.
        """
        shown = ""
        channel_id = self._sandbox.channel(channel)["id"]
        deadline = time.monotonic() + TRAINING_TIMEOUT_S
        while time.monotonic() < deadline:
            for _, message in self._sandbox.events[mark:]:
                if message.get("channel_id") != channel_id:
                    continue
                text = message_text(message).removeprefix(HEADING)
                if text.startswith("Trained:"):
                    print_line(f"#{channel} · Understudy: {text}")
                    return message
                if text.startswith(("Failed:", "Cancelled:")):
                    raise UnderstudyError(text)
                if not text.startswith("Training:"):
                    continue
                lines = [line for line in text.splitlines()[1:] if not line.startswith("-#")]
                state = " | ".join(lines)
                if state and state != shown:
                    print_line(f"    {state}")
                    shown = state
            mark = len(self._sandbox.events)
            await asyncio.sleep(0.5)
        raise UnderstudyError(f"The training did not end within {TRAINING_TIMEOUT_S:.0f} s.")

    def _record_scorecard(self, persona_id: str) -> None:
        services = self._app.services
        figures = self.figures
        newest = services.store.versions.installed(persona_id)[-1]
        card = newest.scorecard
        figures.loss_base[persona_id] = round(card.loss_base, 4)
        figures.loss_tuned[persona_id] = round(card.loss_tuned, 4)
        figures.general_loss_change[persona_id] = round(
            card.general_loss_tuned / card.general_loss_base - 1, 4
        )
        figures.verdict[persona_id] = card.verdict
        folder = services.served_versions.adapter(persona_id, newest.version).folder
        file = score_card_file(folder, "scorecard.json")
        whole = ScoreCard.model_validate_json(file.read_bytes())
        for by_persona, section, measure in (
            (figures.lore_right, whole.lore, LORE_RIGHT),
            (figures.voice_turn_40, whole.talks, VOICE_AT_TURN.format(40)),
            (figures.under_pressure, whole.pressure, IN_CHARACTER),
        ):
            share = section.new(measure) if section else None
            by_persona[persona_id] = None if share is None else round(share, 4)
        figures.left_out[persona_id] = whole.left_out
        if voice := whole.voice:
            figures.voice_right[persona_id] = round(voice.right["new"].mean, 4)
            figures.voice_right_base[persona_id] = round(voice.right["base"].mean, 4)


def _channel_of(persona_id: str) -> str:
    return next(name for name, resident in CHANNEL_PERSONAS.items() if resident == persona_id)


async def play(
    personas: list[str], recipe: str, *, out: Path, started: float
) -> tuple[DemoResult, dict[str, tuple[Path, Path]]]:
    """Play the session for these personas, in a new home inside `out`; returns the figures and, by
    persona, job folder and adapter folder.
    """
    home = out / HOME_NAME
    # Without the authors' written words and the shipped versions: the session shows what a training
    # changes in the model's own replies.
    settings = load_settings(
        None,
        {"UNDERSTUDY_HOME": str(home.absolute()), "WEB_PORT": "0", "OWN_WORDS": "false"},
    )
    print_line("The model's own replies, without words that the personas' authors have written:")
    shipped = replace(ShippedData.from_source_tree(), adapters=None)
    async with open_app(settings, shipped) as app:
        session = DemoSession(app, started)
        # The same question in every channel: three voices.
        for persona_id in CHANNEL_PERSONAS.values():
            session.figures.reply_before[persona_id] = await session.ask(persona_id, QUESTION)
        for persona_id in personas:
            await session.retrain(persona_id, recipe)
            version = session.live(persona_id)
            session.figures.reply_after[persona_id] = await session.ask(
                persona_id, QUESTION, version
            )
            write_result(out, vars(session.figures))
        folders = {}
        for persona_id in personas:
            newest = app.services.store.versions.installed(persona_id)[-1]
            adapter = app.services.served_versions.adapter(persona_id, newest.version).folder
            folders[persona_id] = (settings.home / "jobs" / newest.job_id, adapter)
    return session.figures, folders


def make_output_folder(out: Path) -> None:
    """Make the folder anew. Raises `RequestError` where it contains what no demo has written."""
    advice = "Name a new folder with --out."
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is not a folder.", advice)
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    # A folder with a home alone may be that of a bot with people's messages.
    expected = {RESULT_NAME, HOME_NAME} if RESULT_NAME in names else set()
    if foreign := names - expected:
        raise RequestError(
            f"{out} is not the folder of a demo: it contains {min(foreign)}.", advice
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_result(out, {})  # from now on it is a demo's


def cross_persona_losses(folders: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Every persona's held-out replies under every persona's adapter, measured by the trainer."""
    # -P: the current folder may have a trainer.py of somebody's own.
    arguments = [sys.executable, "-P", "-m", "trainer", "matrix", "--json"]
    for persona_id, (job, adapter) in folders.items():
        arguments += ["--job", f"{persona_id}={job}", "--adapter", f"{persona_id}={adapter}"]
    process = subprocess.run(arguments, check=True, stdout=subprocess.PIPE)
    losses: dict[str, Any] = json.loads(process.stdout)
    return losses


def write_result(out: Path, figures: dict[str, Any]) -> Path:
    """Write `result.json`; before the session and after each persona, too: all three are long."""
    file = out / RESULT_NAME
    file.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return file


def print_line(line: str) -> None:
    """Print a line of the transcript."""
    print(line, flush=True)


def run_demo(arguments: argparse.Namespace) -> int:
    """Play the session, and print and write its figures; return the exit code."""
    started = psutil.Process().create_time() - time.time() + time.monotonic()
    logging.basicConfig(level=logging.ERROR)
    personas = list(CHANNEL_PERSONAS.values())
    recipe = FULL_RECIPE
    if not arguments.all:
        personas = personas[:1]
        recipe = ""
    out = arguments.out
    make_output_folder(out)
    try:
        figures, folders = asyncio.run(play(personas, recipe, out=out, started=started))
    except TimeoutError:
        raise UnderstudyError(
            f"The demo broke off: the bot did not reply within {REPLY_TIMEOUT_S:.0f} s.",
            "Play it on a machine with less other load; `python -m bot doctor` checks this one.",
        ) from None
    result = dict(vars(figures))
    if arguments.all:
        result |= cross_persona_losses(folders)
    file = write_result(out, result)
    print_line(f"\nFigures ({file}):\n{file.read_text(encoding='utf-8')}")
    return EXIT_DONE
