"""A discord.py bot with none of the project's code, in a process of its own, and a member who tries
all it can do.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import GuildSeed, MemberClient, Permission, Sandbox, StoredFile

BOT = Path(__file__).parents[1] / "foreign_bot" / "bot.py"


class Tearoom:
    """The sandbox with the bot in it, as a member meets both."""

    def __init__(self, sandbox: Sandbox, member: MemberClient) -> None:
        self.sandbox = sandbox
        self.member = member

    @property
    def mark(self) -> int:
        return len(self.sandbox.events)

    async def hears(self, words: str, since: int, kind: str = "message") -> dict[str, Any]:
        """The next message of the bot with these words in it."""
        bot = str(self.sandbox.bot_id)

        def fits(message: dict[str, Any]) -> bool:
            spoken_by_bot = message["author"]["id"] == bot or message.get("webhook_id")
            return words in message["content"] and bool(spoken_by_bot)

        return await self.sandbox.wait_for(kind, fits, since=since)

    async def asks(self, words: str, answer: str, **more: Any) -> dict[str, Any]:
        """Say something in the tavern and wait for the bot's words."""
        mark = self.mark
        await self.member.say("tavern", words, **more)
        return await self.hears(answer, mark)


@asynccontextmanager
async def running_bot(sandbox: Sandbox) -> AsyncIterator[None]:
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(BOT), cwd=BOT.parent,
        env=own | {
            "DISCORD_API": f"{sandbox.url}/api/v10",
            "DISCORD_GATEWAY": sandbox.url.replace("http:", "ws:") + "/gateway",
            "DISCORD_CDN": f"{sandbox.url}/cdn",
            "DISCORD_TOKEN": sandbox.token,
        },
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await sandbox.wait_for("message", since=0)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        _, complaints = await process.communicate()
        print(complaints.decode())


@pytest.fixture
async def tearoom(seed: GuildSeed) -> AsyncIterator[Tearoom]:
    sandbox = Sandbox(
        replace(seed, bot_permissions=seed.bot_permissions | Permission.CREATE_PUBLIC_THREADS)
    )
    await sandbox.start()
    try:
        async with running_bot(sandbox):
            yield Tearoom(sandbox, sandbox.member("Mora"))
    finally:
        await sandbox.stop()


async def test_a_bot_with_none_of_our_code_does_all_that_bots_do(tearoom: Tearoom) -> None:
    # One bot for all of it: its process takes longer to start than everything it is asked.
    await commands_and_pictures(tearoom)
    await buttons_selects_and_a_form(tearoom)
    await context_menus(tearoom)
    await files_threads_and_direct_messages(tearoom)
    await a_webhook(tearoom)


async def commands_and_pictures(room: Tearoom) -> None:
    answer = await room.asks("!tea green 2", "2 × green")
    assert (
        answer["embeds"][0]["title"] == "Green" and answer["embeds"][0]["fields"][0]["value"] == "2"
    )
    choices = await room.member.autocomplete("tavern", "tea", "kind", kind="o")
    assert [one["value"] for one in choices] == ["oolong"]
    mark = room.mark
    await room.member.slash("tavern", "tea", kind="oolong", cups=3)
    await room.hears("3 × oolong", mark, "edit")
    refused = await room.sandbox.member("Nils").slash("tavern", "count")
    assert refused.ephemeral and refused.message["content"].startswith("No: ")


async def buttons_selects_and_a_form(room: Tearoom) -> None:
    counter = (await room.member.slash("tavern", "counter")).message
    form = await room.member.click(counter, "Order")
    done = await room.member.submit(form, Name="Mora", Wishes="honey")
    assert done.ephemeral and done.message["content"] == "For Mora: honey"
    mark = room.mark
    await room.member.select(counter, "Brew", ["green", "white"])
    await room.hears("Brewing green and white", mark)
    nils = room.sandbox.member("Nils")
    assert (await room.member.select(counter, "Guest", [nils.id])).message[
        "content"
    ] == "A cup for Nils"
    await room.member.click(counter, "Close")
    closed = room.sandbox.messages("tavern")
    assert next(one for one in closed if one["id"] == counter["id"])["content"] == "Closed."


async def context_menus(room: Tearoom) -> None:
    nils = room.sandbox.member("Nils")
    served = await room.member.context("tavern", "Serve", nils.id)
    assert served.message["content"] == f"Tea for <@{nils.id}>"
    said = await nils.say("tavern", "Lovely weather")
    quoted = await room.member.context("tavern", "Quote", said["id"])
    assert quoted.ephemeral and quoted.message["content"] == "> Lovely weather"


async def files_threads_and_direct_messages(room: Tearoom) -> None:
    answer = await room.asks(
        "!read", "Read.", files=[StoredFile("quiet.txt", "text/plain", b"steam")]
    )
    assert answer["attachments"][0]["filename"] == "loud.txt"
    await room.asks("!table", "Please sit down.")
    thread = await room.member.thread("tavern", "A corner")
    mark = room.mark
    await room.member.say(thread, "cosy")
    await room.hears("In A corner: cosy", mark)
    room_for_two = await room.member.dm()
    mark = room.mark
    await room.member.say(room_for_two, "a secret")
    await room.hears("Between us: a secret", mark)
    await room.asks("!whisper", "Psst.")


async def a_webhook(room: Tearoom) -> None:
    since = room.mark
    await room.asks("!guest", "The guest has left.")
    assert (await room.hears("Good day!", since))["author"]["username"] == "A guest"
    await room.hears("Good night!", since, "edit")
