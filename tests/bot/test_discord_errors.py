"""Each way in which Discord refuses or ends the connection: the bot names it in one line, and ends
with exit code 1.
"""

import asyncio
import dataclasses
import itertools
import os
import signal
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import discord
import pytest
from aiohttp import web

from bot.chat import delivery, streaming_reply
from bot.chat.senders import BotSender, WebhookSender
from bot.demo_guild import SKERROW_SEED
from bot.operations.doctor import connection_checks as discord_checks
from bot.operations.doctor import local_checks
from bot.operations.web import http as system_routes
from bot.platform.discord_kit.transformers import PERSONA
from bot.platform.errors import connection_error
from bot.platform.permissions import required_permissions
from bot.settings import Settings
from sandbox import FaultRates, Sandbox, patch_discord
from sandbox.gateway_session import Opcode
from sandbox.wire_faults import RequestFault, WireFaults
from tests.bot.conftest import QUAY, on_stage
from tests.bot.test_finetune import STEP
from tests.chaos.bot_process import BotProcesses
from tests.fake_engine import FakeEngine
from tests.fakes import until

PAGE = "<html><head><title>Sign in to the &quot;Quay&quot; network</title></head></html>"
PAGE_TEXT = "A web page came in place of Discord's response"
TOKEN = "MTEwMDAwMDAwMDAwMDAwMDAwMQ.x.y"


@pytest.fixture(scope="module")
def processes():
    return BotProcesses()


@pytest.fixture
async def sandbox():
    made = Sandbox(SKERROW_SEED, None, rate_window=0.0001)
    await made.start()
    yield made
    await made.stop()


async def ended(process, home):
    """The exit code of a process, and all that it printed."""
    try:
        await asyncio.to_thread(process.join, 20)
        return process.exitcode, (home / "bot.log").read_text()
    finally:
        process.kill()
        process.join()


def the_only_error(printed):
    """The one line that says why, of a bot that prints nothing else but warnings and its
    address.
    """
    assert (
        "Traceback" not in printed
        and "Unclosed" not in printed
        and "never retrieved" not in printed
    ), printed
    (line,) = [
        line for line in printed.splitlines() if line.startswith("Understudy cannot continue.")
    ]
    return line


async def is_open(home):
    await until(
        lambda: (
            "Dashboard: http" in (home / "bot.log").read_text()
            if (home / "bot.log").exists()
            else False
        ),
        20,
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4004, "does not accept DISCORD_TOKEN any more (close code 4004). Copy it again"),
        (None, "ended by an error: KeyError: 'channel_id', state.py line"),
    ],
)
async def test_the_end_of_the_connection_is_one_line_and_exit_code_1(
    tmp_path, sandbox, processes, code, words
):
    process = processes.start(tmp_path, sandbox.url, sandbox.token)
    await is_open(tmp_path)
    if code:
        await sandbox.drop_gateway(code)
    else:  # an event that discord.py cannot read
        (connection,) = sandbox._container.gateway._connections
        connection.send(Opcode.DISPATCH, {}, "MESSAGE_CREATE", 99)
    exit_code, printed = await ended(process, tmp_path)
    assert exit_code == 1 and "Stopping" not in printed, printed
    assert words in the_only_error(printed)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4013, "does not know one of the intents (close code 4013). Update the project"),
        (
            4014,
            "message content or the server members intent (close code 4014). Start it again",
        ),
    ],
)
def test_each_close_code_is_in_words(code, words):
    closed = discord.ConnectionClosed(SimpleNamespace(close_code=code), shard_id=None, code=code)
    assert words in str(connection_error(closed))


# ----------------------------------------------------------------------------------------- at login


@asynccontextmanager
async def answering(status, body, kind="application/json", headers=None):
    """A server that gives every request this answer; None: it never answers."""

    async def answer(request):
        if status is None:
            asked.set()
            await asyncio.Event().wait()
        return web.Response(
            status=status, body=body.encode(), headers={"Content-Type": kind} | (headers or {})
        )

    asked = asyncio.Event()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "words", "state"),
    [
        ((400, '{"message": "Bad version", "code": 50041}'), "refuses the bot: Bad version (400, code 50041)", "fail"),
        ((401, '{"message": "401: Unauthorized", "code": 0}'), "does not accept DISCORD_TOKEN", "fail"),
        ((403, '{"message": "No access", "code": 50001}'), "refuses the bot: No access (403, code 50001)", "fail"),
        ((429, "<html>error 1015</html>", "text/html"), "refuses the bot: too many requests (429)", "warn"),
        ((503, "upstream connect error", "text/plain"), "Discord has a fault of its own (503)", "warn"),
        ((200, PAGE, "text/html"), f"{PAGE_TEXT} (200, titled 'Sign in to the \"Quay\" network')", "fail"),
        ((403, PAGE, "text/html"), f"{PAGE_TEXT} (403, titled", "fail"),
        ((200, '{"id": "1"}'), "ended by an error: KeyError: 'username', user.py line", "fail"),
        ((None, ""), "Discord does not respond", "warn"),
        ("tls", "The connection to Discord is not safe: ", "fail"),
        ("closed", "Discord cannot be reached: Cannot connect to host", "warn"),
    ],
)  # fmt: skip
async def test_each_refusal_at_login_is_told_apart(answer, words, state, monkeypatch, caplog):
    slept = asyncio.sleep
    monkeypatch.setattr(
        "discord.http.asyncio.sleep", lambda delay, *rest: slept(min(delay, 0.01), *rest)
    )
    monkeypatch.setattr(discord_checks, "DISCORD_TIMEOUT_S", 1.0)
    settings = Settings(discord_token=TOKEN)
    async with answering(*(answer if isinstance(answer, tuple) else (200, ""))) as (url, _):
        url = {"tls": url.replace("http:", "https:"), "closed": "http://127.0.0.1:9"}.get(
            answer, url
        )
        with patch_discord(url):
            (check,) = await discord_checks.check_discord(settings)
            with pytest.raises(discord_checks.DiscordError) as caught:
                await discord_checks.fetch_application_id(TOKEN)
    assert check.state == state and check.found.startswith(caught.value.message) and check.remedy
    assert words in check.found and "\n" not in check.found and TOKEN not in str(caught.value)
    assert not caplog.records, "no stray warnings of discord.py"


async def test_a_start_that_fails_is_one_line_and_exit_code_1(tmp_path, processes):
    async with answering(200, PAGE, "text/html") as (url, _):
        exit_code, printed = await ended(processes.start(tmp_path, url, TOKEN), tmp_path)
    assert exit_code == 1 and PAGE_TEXT in the_only_error(printed)


async def test_a_start_that_waits_for_discord_ends_by_a_signal(tmp_path, processes):
    async with answering(None, "") as (url, asked):
        process = processes.start(tmp_path, url, TOKEN)
        await asyncio.wait_for(asked.wait(), 20)
        os.kill(process.pid, signal.SIGTERM)
        exit_code, printed = await ended(process, tmp_path)
    assert exit_code == 0 and not any(
        word in printed for word in ("Traceback", "Unclosed", "pending")
    ), printed


# ------------------------------------------------------------------------------------ while it runs


async def test_a_connection_that_is_lost_is_one_line_per_attempt(tmp_path, sandbox, processes):
    process = processes.start(tmp_path, sandbox.url, sandbox.token)
    await is_open(tmp_path)
    await sandbox.stop()
    await until(lambda: (tmp_path / "bot.log").read_text().count("Attempting a reconnect") >= 2, 20)
    os.kill(process.pid, signal.SIGTERM)
    exit_code, printed = await ended(process, tmp_path)
    assert exit_code == 0 and "Traceback" not in printed and "Stopping" in printed, printed
    lines = [line for line in printed.splitlines() if "Attempting a reconnect" in line]
    assert all("Discord cannot be reached: " in line for line in lines)


async def test_health_knows_the_gateway(tmp_path, monkeypatch):
    slept = asyncio.sleep
    monkeypatch.setattr(
        "discord.gateway.asyncio.sleep", lambda delay, *rest: slept(min(delay, 0.01), *rest)
    )
    monkeypatch.setattr(system_routes, "MAX_DISCONNECTED_S", 0.3)
    async with on_stage(tmp_path) as stage, aiohttp.ClientSession(stage.sandbox.url) as session:

        async def health():
            async with session.get("/healthz") as response:
                return response.status, await response.json(content_type=None)

        assert (await health())[0] == 200
        stage.sandbox.refuse_sessions()
        await stage.sandbox.drop_gateway()
        assert (await health())[0] == 200, "it may be back in a moment"
        await until(lambda: stage.client.disconnected_s > 0.3)
        status, problem = await health()
        assert (
            status == 503
            and problem["type"] == "/problems/not-connected"
            and "since 0 s" in problem["detail"]
        )
        found = await asyncio.to_thread(
            local_checks.check_port, int(stage.sandbox.url.rpartition(":")[2]), tmp_path
        )
        assert found.state == "warn" and "not connected to discord" in found.found
        stage.sandbox.refuse_sessions(False)
        await until(lambda: stage.client.disconnected_s == 0)
        assert (await health())[0] == 200


async def test_progress_that_cannot_be_shown_is_said_once_and_shown_later(tmp_path, caplog):
    async with on_stage(tmp_path) as stage:
        await stage.moderator.slash(QUAY, "finetune start")
        await until(lambda: stage.backend.busy)
        await stage.sees("Training: **Ballast v1**")
        stage.sandbox.disturb(FaultRates(cut_before=1.0))
        stage.backend.on_event(STEP)
        await until(lambda: "could not be shown" in caplog.text)
        await asyncio.sleep(0.2)
        stage.sandbox.disturb()
        await stage.sees("step 10 of 40")
    assert caplog.text.count("could not be shown") == 1 and "never retrieved" not in caplog.text


async def test_refused_commands_are_named_and_the_bot_goes_on_with_the_earlier_ones(
    tmp_path, monkeypatch, caplog
):
    async with on_stage(tmp_path, registers_commands=True):
        pass
    monkeypatch.setattr(PERSONA, "description", "x" * 101)
    monkeypatch.setattr(PERSONA.get_command("mute"), "description", "x" * 101)
    (tmp_path / "commands.sha256").unlink()
    async with on_stage(tmp_path, registers_commands=True) as stage:
        name = "bot.platform.discord_kit.command_sync"
        lines = [record.getMessage() for record in caplog.records if record.name == name]
        assert [line.partition(": description")[0] for line in lines[:2]] == [
            "Discord refuses the command /persona",
            "Discord refuses the command /persona mute",
        ]
        assert (
            len(lines) == 3
            and "those registered earlier stay" in lines[2]
            and "Traceback" not in caplog.text
        )
        await stage.member.slash(QUAY, "persona list")
    assert not (tmp_path / "commands.sha256").exists(), "the next start tries again"


# --------------------------------------------------------------------------------------- in a reply


@pytest.mark.parametrize(
    ("as_the_bot", "lost"),
    [(False, "while it grows"), (True, "at its end")],
    ids=["webhook", "bot"],
)
async def test_a_message_that_discord_posted_in_spite_of_an_error_is_part_of_the_reply(
    tmp_path, monkeypatch, as_the_bot, lost
):
    words = [f"word{number} " * 90 for number in range(9)]
    sender = BotSender if as_the_bot else WebhookSender
    say = sender.say
    said = itertools.count(1)

    async def say_and_hear_nothing(self, *parts):
        message_id = await say(self, *parts)
        if next(said) == 2:
            raise aiohttp.ServerDisconnectedError
        return message_id

    monkeypatch.setattr(
        streaming_reply, "FIRST_EDIT_DELAY_S", 60.0 if lost == "at its end" else 0.0
    )
    monkeypatch.setattr(streaming_reply, "EDIT_INTERVAL_S", 0.0)
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    allowed = required_permissions()
    allowed.manage_webhooks = not as_the_bot
    seed = dataclasses.replace(SKERROW_SEED, bot_permissions=allowed.value)
    async with on_stage(tmp_path, seed=seed, engine=FakeEngine(lambda request: words)) as stage:
        monkeypatch.setattr(sender, "say", say_and_hear_nothing)
        before = len(stage.sandbox.messages(QUAY))
        event = int((await stage.member.say(QUAY, "tell me everything"))["id"])
        await until(lambda: stage.store.replies.get(event))
        await until(lambda: not stage.store.replies.unfinished())
        shown = stage.sandbox.messages(QUAY)[before + 1 :]
        assert [int(one["id"]) for one in shown] == list(stage.store.replies.get(event).parts)
        assert "stop:" not in str(shown) and "-# " in shown[-1]["content"]
        text = " ".join(one["content"].removeprefix("**Ballast:** ") for one in shown).partition(
            "\n-#"
        )[0]
        assert text.split() == "".join(words).split()


# ------------------------------------------------------------------------------------- at a restart


@pytest.mark.parametrize("fault", ["discord", "other"])
async def test_a_reply_that_cannot_be_finished_after_a_restart_is_finished_or_marked_later(
    stage, monkeypatch, fault
):
    service = stage.client.services.reply_service
    resume = stage.client.on_resumed
    stage.engine.free.clear()
    await stage.member.say(QUAY, "do not forget me")
    growing = await stage.sees("…", by="Ballast")
    await until(lambda: stage.store.replies.unfinished())
    await service.close()  # as a kill leaves it: half written, with a button
    service.is_closed = False
    stage.engine.free.set()
    with monkeypatch.context() as broken:
        if fault == "discord":
            slept = asyncio.sleep
            broken.setattr(
                "discord.http.asyncio.sleep", lambda delay, *rest: slept(min(delay, 0.01), *rest)
            )
            stage.sandbox.disturb(FaultRates(error_before=1.0))
        else:
            broken.setattr(service.request_builder.lore, "find", lambda *parts: 1 / 0)
        await resume()
    stage.sandbox.disturb(FaultRates())
    await resume()
    (reply,) = [one for one in stage.sandbox.messages(QUAY) if one["id"] == growing["id"]]
    words = {
        "discord": "Ballast hears: do not forget me",
        "other": "This reply was cut off. Ask again.",
    }
    assert words[fault] in reply["content"] and "stop:" not in str(reply["components"])
    assert not stage.store.replies.unfinished()


@pytest.fixture
def first_response_errs(stage, monkeypatch):
    """Answer the next response to an interaction with an error although it took effect; discord.py
    then repeats it.
    """

    def err_once():
        slept = asyncio.sleep
        monkeypatch.setattr(
            "discord.webhook.async_.asyncio.sleep",
            lambda delay, *rest: slept(min(delay, 0.01), *rest),
        )
        faults = iter([RequestFault.ERROR_AFTER])
        monkeypatch.setattr(WireFaults, "of_request", lambda _: next(faults, None))

    return err_once


@pytest.mark.parametrize(
    "command", ["privacy show", "persona lore ask"]
)  # acknowledged first; answered at once
async def test_a_command_whose_response_took_effect_in_spite_of_an_error_is_answered_once(
    stage, first_response_errs, command
):
    first_response_errs()
    options = {"question": "Where is the brass heron?"} if "ask" in command else {}
    answer = await stage.member.slash(QUAY, command, **options)
    await until(lambda: (answer.message or {}).get("content"))
    await stage.member.slash(QUAY, "persona list")  # handled after the response that was repeated
    shown = [one["content"] for kind, one in stage.sandbox.events if kind in ("message", "edit")]
    assert shown.count(answer.message["content"]) == 1


async def test_a_question_that_came_too_late_for_discord_is_not_stored_and_makes_no_reply(
    stage, monkeypatch
):
    monkeypatch.setattr(
        "sandbox.interactions.ACKNOWLEDGE_TIMEOUT_S", 0.0
    )  # the quote is refused: code 10062
    await stage.member.slash(QUAY, "chat", message="too slow")
    monkeypatch.setattr("sandbox.interactions.ACKNOWLEDGE_TIMEOUT_S", 3.0)
    mark = stage.mark
    await stage.member.say(QUAY, "and now?")
    await stage.finished(QUAY, mark)
    assert [turn.text for turn in stage.engine.requests[-1].turns] == ["and now?"]
    assert len(stage.engine.requests) == 1
    await until(lambda: not stage.store.replies.unfinished())
