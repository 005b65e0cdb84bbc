"""The personas of a channel share its webhook, and so its picture: each message has its speaker's."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import discord

from bot.chat.webhooks import PictureLock
from tests.bot.conftest import QUAY
from tests.fakes import until

ODA = Path("oda.png")
THRIP = Path("thrip.png")


async def test_messages_with_one_picture_are_sent_at_once_and_others_in_their_turn():
    lock = PictureLock()
    shown = []
    ends = [asyncio.Event() for _ in range(4)]

    async def send(number, picture):
        async def set_picture():
            shown.append((number, picture))

        async with lock.showing(picture, set_picture):
            await ends[number].wait()

    async with asyncio.TaskGroup() as tasks:
        for number, picture in enumerate((ODA, ODA, THRIP, ODA)):
            tasks.create_task(send(number, picture))
        await until(lambda: len(shown) == 2)
        assert lock.is_used
        ends[0].set()
        ends[3].set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert shown == [(0, ODA), (1, ODA)], "the second one is still being sent"
        ends[1].set()
        await until(lambda: len(shown) == 3)
        for _ in range(10):
            await asyncio.sleep(0)
        assert shown[2:] == [(2, THRIP)]
        ends[2].set()
    assert shown[3:] == [(3, ODA)] and not lock.is_used


async def test_one_that_is_cancelled_while_it_waits_blocks_nobody():
    lock = PictureLock()

    async def nothing():
        return None

    async with AsyncExitStack() as sending:
        await sending.enter_async_context(lock.showing(ODA, nothing))
        waiting = asyncio.create_task(sending.enter_async_context(lock.showing(THRIP, nothing)))
        await until(lock._turn.locked)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5), lock.showing(ODA, nothing):
            assert lock.is_used
    assert not lock.is_used


async def test_each_message_tries_to_change_another_personas_picture(stage, monkeypatch):
    services = stage.client.services
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    senders = services.reply_service.senders
    oda, thrip = (services.personas.get(persona, 0) for persona in ("oda", "thrip"))

    async def picture_of(persona, text):
        message_id = await (await senders.of(persona, channel)).say(text)
        said = [each for each in stage.sandbox.messages(QUAY) if int(each["id"]) == message_id]
        return said[0]["author"]["avatar"]

    tries = []

    async def fail(webhook, **fields):
        tries.append(fields)
        raise TimeoutError

    first = await picture_of(oda, "one")
    with monkeypatch.context() as failing:
        failing.setattr(discord.Webhook, "edit", fail)
        assert await picture_of(thrip, "two") == first
        assert await picture_of(thrip, "three") == first and len(tries) >= 2
    assert await picture_of(thrip, "four") != first
    assert await picture_of(oda, "five") == first
