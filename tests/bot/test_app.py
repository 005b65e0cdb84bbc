"""The composition root: what stops a start says so, and the whole story runs with the real engine
and trainer.
"""

import asyncio
import dataclasses
import json
import re
import shutil
import time
from contextlib import AsyncExitStack

import pytest
from aiohttp import ClientSession, web

from bot.app import NoPersonasError, _open_sandbox, _seed_with_notice, _start_beside, open_app
from bot.demo_guild import (
    MEMBER,
    MODERATOR,
    SKERROW_HARBOUR,
    SKERROW_SEED,
    SMALL_MODEL_LINE,
)
from bot.models.web.pages import OFFER_PATH
from bot.platform.web_kit.auth import Authenticator
from bot.settings import Settings, SettingsError, load_settings
from bot.store import Store, StoreError
from bot.web_server import WebServer
from personas.errors import BaseModelError, CardError, UnderstudyError
from personas.home.job_material import ShippedData
from sandbox import Sandbox, message_text, patch_discord
from tests.bot.conftest import INN, QUAY, finished_reply
from tests.fakes import until
from tests.trainer.job_folders import shipping_few

SHIPPED = ShippedData.from_source_tree()


@pytest.fixture
def settings(tmp_path, tiny_base):
    return load_settings(
        None,
        {
            "UNDERSTUDY_HOME": str(tmp_path / "home"),
            "BASE_MODEL": tiny_base.source,
            "WEB_PORT": "0",
            "MAX_NEW_TOKENS": "12",
            "TRAINER_CARD": "losses",
            "TRAINER_NICE": "0",  # the tests beside it would take its core
        },
    )


def test_the_guild_says_that_the_bundled_model_is_a_toy(settings):
    bundled = Settings(home=settings.home)
    assert SMALL_MODEL_LINE in _seed_with_notice(SKERROW_HARBOUR, bundled).welcome
    assert _seed_with_notice(SKERROW_HARBOUR, settings) == SKERROW_SEED


@pytest.mark.parametrize(("base_model", "notice"), [("embedded", OFFER_PATH), ("other/model", "")])
async def test_the_page_of_the_guild_asks_for_the_offer_of_a_larger_model(
    settings, base_model, notice
):
    settings = settings.model_copy(update={"base_model": base_model})
    settings.home.mkdir()
    async with AsyncExitStack() as stack, ClientSession() as session:
        web_server = WebServer(Authenticator())
        sandbox = await _open_sandbox(settings, SKERROW_HARBOUR, web_server, stack)
        async with session.get(f"{sandbox.url}/page-api/state") as answer:
            assert (await answer.json())["notice"] == notice


class TestDiscord:
    """With a token: the sandbox stands where Discord is."""

    @pytest.fixture
    async def discord(self):
        made = Sandbox(dataclasses.replace(SKERROW_SEED, message_content=False))
        await made.start()
        with patch_discord(made):
            yield made
        await made.stop()

    async def test_an_intent_that_is_not_granted_is_said_and_done_without(
        self, discord, settings, caplog
    ):
        right = settings.model_copy(
            update={"discord_token": discord.token, "message_content_intent": True}
        )
        async with open_app(right, SHIPPED) as app:
            assert app.sandbox is None
            assert "message content intent" in caplog.text
            assert "it answers only mentions" in caplog.text
            assert "members intent" not in caplog.text
            mark = len(discord.events)
            await discord.member(MODERATOR).slash(QUAY, "persona set", persona="ballast")
            await discord.member(MEMBER).say(QUAY, "@Understudy hello")
            await discord.wait_for("edit", lambda m: "AI-written" in m["content"], since=mark)

    async def test_without_the_members_intent_it_starts_and_greets_nobody(
        self, discord, settings, caplog
    ):
        discord.withhold_content(False)
        discord.withhold_members()
        right = settings.model_copy(
            update={
                "discord_token": discord.token,
                "message_content_intent": True,
                "members_intent": True,
            }
        )
        async with open_app(right, SHIPPED) as app:
            intents = app.client.intents
            assert (intents.message_content, intents.members) == (True, False)
        assert "the server members intent" in caplog.text
        assert "MEMBERS_INTENT=false" in caplog.text
        assert "message content intent" not in caplog.text


class Waiting:
    """An engine that starts once the lore is being opened, and lore that is opened once the engine
    starts.
    """

    def __init__(self, failing: str) -> None:
        self.failing = failing
        self.meeting = asyncio.Barrier(2)
        self.is_closed = False

    async def start(self) -> None:
        await self.meeting.wait()
        if "engine" in self.failing:
            raise BaseModelError("the engine", "")

    async def open(self) -> str:
        await self.meeting.wait()
        if "lore" in self.failing:
            raise CardError("the lore", "")
        return "lore"

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("failing", ["", "engine", "lore", "engine and lore"])
async def test_the_engine_starts_while_the_lore_is_opened(failing):
    parts = Waiting(failing)
    async with asyncio.timeout(5):
        try:
            async with AsyncExitStack() as stack:
                assert await _start_beside(parts, parts.open(), stack) == "lore"
                assert not parts.is_closed
        except UnderstudyError as error:
            assert error.message == f"the {failing.split()[0]}"
        else:
            assert not failing
    assert parts.is_closed == ("engine" not in failing)


async def test_a_port_in_use_is_named(settings):
    other = web.AppRunner(web.Application())
    await other.setup()
    await web.TCPSite(other, "127.0.0.1", 0).start()
    port = other.addresses[0][1]
    with pytest.raises(SettingsError, match=rf"Port {port} cannot be used.*WEB_PORT"):
        async with open_app(settings.model_copy(update={"web_port": port}), SHIPPED):
            pass
    await other.cleanup()


async def test_a_second_bot_on_the_same_home_is_refused(settings):
    noted = settings.home / "understudy.address"
    noted.parent.mkdir(mode=0o700, exist_ok=True)
    noted.write_text("http://of-one-that-was-killed")
    async with open_app(settings, SHIPPED) as app:
        told = re.escape(f"Another bot runs on this home ({settings.home}), at {app.sandbox.url}.")
        with pytest.raises(StoreError, match=told):
            async with open_app(settings, SHIPPED):
                pass
    assert not noted.exists()


def test_where_no_address_is_noted_a_second_process_is_refused_without_one(settings):
    file = settings.home / "understudy.sqlite"
    settings.home.mkdir(mode=0o700, exist_ok=True)
    file.with_suffix(".address").write_text("http://of-one-that-was-killed")
    with Store.open(file):
        told = re.escape(f"Another bot runs on this home ({settings.home}). Stop it first")
        with pytest.raises(StoreError, match=told):
            Store.open(file)


async def test_what_a_killed_preview_left_is_gone_before_anything_else(tmp_path, settings):
    left = settings.home / "previews" / "tmp1234" / "job"
    left.mkdir(parents=True)
    (left / "keys.json").write_text("{}")
    with pytest.raises(SettingsError, match="no persona cards"):
        async with open_app(settings, dataclasses.replace(SHIPPED, cards=tmp_path)):
            pass
    assert not (settings.home / "previews").exists()


async def test_without_any_card_the_bot_does_not_start_in_silence(tmp_path, settings):
    with pytest.raises(NoPersonasError) as refused:
        async with open_app(settings, dataclasses.replace(SHIPPED, cards=tmp_path)):
            pass
    assert f" in {tmp_path}." in refused.value.message and "*.toml" in refused.value.advice


async def test_an_unreadable_card_is_named(tmp_path, settings):
    data = dataclasses.replace(SHIPPED, cards=tmp_path / "cards")
    shutil.copytree(SHIPPED.cards, data.cards)
    (data.cards / "oda.toml").write_text("id =")
    with pytest.raises(CardError, match=r"oda\.toml is not valid TOML"):
        async with open_app(settings, data):
            pass


@pytest.mark.parametrize(
    ("base_model", "words"),
    [
        ("empty", "has no config.json"),
        ("huge", "of memory"),
    ],
)
async def test_a_base_model_that_cannot_be_used_is_named(tmp_path, settings, base_model, words):
    source = tmp_path / base_model
    if base_model == "empty":
        source.mkdir()
    if base_model == "huge":
        shutil.copytree(settings.base_model, source)
        with (source / "model.safetensors").open("r+b") as weights:
            weights.truncate(2**43)  # a sparse file of 8 TiB
    with pytest.raises(BaseModelError, match=words):
        async with open_app(settings.model_copy(update={"base_model": str(source)}), SHIPPED):
            pass


async def test_a_reply_is_sampled_as_the_base_model_recommends_among_candidates_as_its_footer_says(
    settings, tiny_base, tmp_path
):
    base = shutil.copytree(tiny_base.folder, tmp_path / "model")
    recommended = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    (base / "generation_config.json").write_text(json.dumps(recommended))
    several = settings.model_copy(
        update={"base_model": str(base), "top_p": 0.5, "reply_candidates": 3}
    )
    async with open_app(several, SHIPPED) as app:
        sampling = app.services.request_builder.sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.5, 20)
        assert sampling.max_new_tokens == 12
        assert sampling.candidates == 1  # of what is compared
        await app.sandbox.member(MEMBER).say(QUAY, "Good evening, who is there?")
        edit = await app.sandbox.wait_for("edit", lambda m: "\n-# AI-written" in m["content"], 60)
        assert " · best of 3 · " in edit["content"] and edit["content"][0] != "\n"


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_the_story_a_retrain_beside_replies_promote_and_the_new_voice(
    settings, tmp_path, to_the_end
):
    """Real client, real sockets, real engine, real trainer; only the model is tiny, and the log
    short where the slow test trains on all of it.

    Somebody talks without a pause until it is seen that the training waits for replies, or even to
    its end.
    """
    shipped = SHIPPED if to_the_end else shipping_few(tmp_path)
    async with open_app(settings, shipped) as app:
        stage = app.sandbox
        member = stage.member(MEMBER)
        moderator = stage.member(MODERATOR)

        async def ask(channel: str) -> str:
            mark = len(stage.events)
            await member.say(channel, "Good evening, who is there?")
            message = await finished_reply(stage, channel, mark, timeout_s=60)
            return message["content"].partition("\n-# ")[2]

        assert "base model" in await ask(QUAY)
        mark = len(stage.events)
        await moderator.slash(QUAY, "finetune start", epochs=0.1 if to_the_end else 0.5)

        def shown(*beginnings: str) -> list[dict]:
            return [
                m
                for _, m in stage.events[mark:]
                if message_text(m).removeprefix("### ").startswith(beginnings)
            ]

        def has_waited() -> bool:
            return any("waiting for replies" in m["content"] for m in shown("Training"))

        await until(lambda: shown("Training: **Ballast v1**"))
        answered = []
        while not (
            shown("Trained", "Failed") or (len(answered) >= 3 and has_waited() and not to_the_end)
        ):
            began = time.monotonic()
            assert "base model" in await ask(INN)
            answered.append(time.monotonic() - began)
        await until(lambda: shown("Trained", "Failed"), 240)
        ended = shown("Trained", "Failed")
        print(f"{len(answered)} replies while training, the slowest after {max(answered):.2f} s")
        assert "Trained" in message_text(ended[0]), message_text(ended[0])
        assert len(answered) >= 3 and has_waited()
        assert any(
            "tokens/s" in m["content"] and "ready in about" in m["content"]
            for m in shown("Training")
        )

        await moderator.click(ended[0], "Promote")
        await until(
            lambda: app.services.store.versions.live("ballast", int(app.sandbox.guild_id)) == "v1"
        )
        assert "AI-written · v1" in await ask(QUAY)
        assert "base model" in await ask(INN)
