"""The whole bot with `ENGINE=vllm` and no addresses, on a machine with a card: members talk, a
moderator trains and promotes, and the tuned voice speaks. Bot, sockets, processes and the training
are real; vLLM and the card's memory are stand-ins.

The server is killed in the middle, and no reply is lost.
"""

from __future__ import annotations

import os

import pytest

from bot.app import open_app
from bot.demo_guild import MEMBER, MODERATOR
from bot.settings import load_settings
from bot.training.resource_sharing import OFFLOAD_TEXT, PACKED_TEXT, GpuOffloadBackend
from personas.engine.remote import server_process, vllm_memory
from personas.home.effect_probe import read_effect_results
from sandbox import message_text
from tests.bot.conftest import INN, QUAY, finished_reply
from tests.fakes import until
from tests.personas.vllm_engine.own_vllm import OwnVllm
from tests.trainer.job_folders import shipping_few

GIB = 2**30
MIB = 2**20
NEW_TOKENS = 24
MESSAGES = 120
SETTINGS = "max_steps=8, learning_rate=0.01, per_device_train_batch_size=2, gradient_accumulation_steps=1, lora_r=4"
TIMEOUT_S = 900.0


@pytest.fixture
def own(tmp_path, tiny_base, monkeypatch) -> OwnVllm:
    """A vLLM, and a card of 24 GiB."""
    own = OwnVllm.in_folder(tmp_path, monkeypatch)
    own.set_card(24 * GIB)
    own.write_nvidia_smi(tmp_path)
    own.set(token_delay_s=0.03)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(server_process, "FIRST_BACKOFF_S", 0.1)
    # What is packed of a tiny model, and what it leaves free, are megabytes.
    monkeypatch.setattr(vllm_memory, "SPARE_BYTES", MIB)
    return own


@pytest.fixture
def settings(tmp_path, tiny_base, own):
    return load_settings(
        None,
        {
            "UNDERSTUDY_HOME": str(tmp_path / "home"), "BASE_MODEL": tiny_base.source, "WEB_PORT": "0",
            "MAX_NEW_TOKENS": str(NEW_TOKENS), "REPLY_CANDIDATES": "1", "TRAINER_CARD": "losses",
            "ENGINE": "vllm", "VLLM_PYTHON": str(own.program.python),
        },
    )  # fmt: skip


class Story:
    """The bot's channels, and what was said in them."""

    def __init__(self, app) -> None:
        self.app = app
        self.stage = app.sandbox
        self.asked = 0

    async def begin(self, channel: str):
        """Say something; return a function that waits for the finished reply."""
        self.asked += 1
        mark = len(self.stage.events)
        await self.stage.member(MEMBER).say(channel, "Good evening, who is there?")

        async def reply() -> tuple[str, str]:
            message = await finished_reply(self.stage, channel, mark, timeout_s=TIMEOUT_S)
            text, _, footer = message["content"].partition("\n-# ")
            return text, footer

        return reply

    async def ask(self, channel: str) -> tuple[str, str]:
        """Say something, and return the finished reply and its footer."""
        reply = await self.begin(channel)
        return await reply()

    def shown(self, *beginnings: str) -> list[dict]:
        """Return the messages that begin so."""
        return [
            message
            for _, message in self.stage.events
            if message_text(message).removeprefix("### ").startswith(beginnings)
        ]

    def replies(self) -> list[dict]:
        """Return the finished replies, each once."""
        finished = {
            message["id"]: message
            for _, message in self.stage.events
            if "\n-# AI-written" in message.get("content", "")
        }
        return list(finished.values())


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("room", ["both", "nf4", "processor"])
async def test_talk_train_promote_and_talk_while_the_server_is_killed(
    settings, own, tmp_path, monkeypatch, room
):
    """The card has room for both; for both once the weights are packed; or for one of them.

    The first is with a score card, and so with an effect probe, which the server has to show.
    """
    has_probe = room == "both"
    own.set(scores=has_probe)
    settings = settings.model_copy(update={"trainer_card": "quick" if has_probe else "losses"})
    planned = GpuOffloadBackend._needed_bytes
    asked_for = []

    async def needed_bytes(backend, job) -> int:
        needed = await planned(backend, job)
        assert needed > 0
        # The driver tells whole MiB.
        missing = {"both": -MIB, "nf4": MIB, "processor": needed}[room]
        own.fill_card(needed - missing)
        asked_for.append(needed)
        return needed

    monkeypatch.setattr(GpuOffloadBackend, "_needed_bytes", needed_bytes)
    async with open_app(settings, shipping_few(tmp_path, MESSAGES)) as app:
        story = Story(app)
        held = own.held_bytes
        assert held and len(own.options()) == 1
        before, footer = await story.ask(QUAY)
        assert "base model" in footer and words(before) == NEW_TOKENS

        # Killed in mid-reply, before the training begins.
        reply = await story.begin(INN)
        await until(lambda: app.services.engine.state().running)
        own.kill()
        text, footer = await reply()
        assert words(text) == NEW_TOKENS and "base model" in footer

        await story.stage.member(MODERATOR).slash(QUAY, "finetune start", settings=SETTINGS)
        await until(lambda: story.shown("Training: **Ballast v1**"), TIMEOUT_S)
        during = {"both": "", "nf4": PACKED_TEXT, "processor": OFFLOAD_TEXT}[room]
        await until(lambda: any(during in m["content"] for m in story.shown("Training")), TIMEOUT_S)
        await until(
            lambda: asked_for, TIMEOUT_S
        )  # the card is filled while the server holds its part
        starts = len(own.options())
        if room == "processor":
            assert own.held_bytes == 0
        own.kill()
        text, footer = await story.ask(INN)
        assert "base model" in footer
        assert room == "processor" or words(text) == NEW_TOKENS
        if room == "processor":
            assert len(own.options()) == starts, "it would have taken the training's memory"
        else:
            assert len(own.options()) > starts and own.held_bytes
            assert own.options()[-1]["quantization"] == ("bitsandbytes" if during else None)

        await until(lambda: story.shown("Trained", "Failed"), TIMEOUT_S)
        ended = story.shown("Trained", "Failed")[0]
        assert "Trained" in message_text(ended), message_text(ended)
        await until(lambda: app.services.engine.device == "cuda" and own.held_bytes, 60)
        assert own.options()[-1]["quantization"] is None

        await story.stage.member(MODERATOR).click(ended, "Promote")
        guild_id = int(app.sandbox.guild_id)
        live = app.services.store.versions.live
        await until(lambda: live("ballast", guild_id) == "v1", TIMEOUT_S)
        after, footer = await story.ask(QUAY)
        assert "AI-written · v1" in footer and words(after) == NEW_TOKENS
        assert len(story.replies()) == story.asked, "one reply to each message"
    verdicts = [result.verdict for result in read_effect_results(settings.home)]
    assert verdicts == ["shown"] * has_probe
