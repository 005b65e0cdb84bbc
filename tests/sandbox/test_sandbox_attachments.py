"""A command that takes a file: from a member's hands, and from the page, to what the bot reads."""

import io

import aiohttp
import discord
import pytest

from sandbox import SandboxRefusal
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.object_store import StoredFile


async def register(probe):
    @probe.tree.command(description="Read a file")
    async def read(
        interaction: discord.Interaction,
        file: discord.Attachment,
        other: discord.Attachment | None = None,
    ):
        words = [
            f"{one.filename} {one.size} {one.content_type} {await one.read()!r}"
            for one in (file, other)
            if one
        ]
        await interaction.response.send_message(" ".join(words), ephemeral=file.ephemeral)

    await probe.tree.sync()


async def test_a_file_reaches_the_bot_with_its_name_size_and_content(sandbox, probe):
    await register(probe)
    nils = sandbox.member("Nils")
    answer = await nils.slash("tavern", "read", file=StoredFile.named("a card.png", b"\x89PNG"))
    assert answer.message["content"] == "a_card.png 4 image/png b'\\x89PNG'" and answer.ephemeral
    for value, words in (
        ("a card.png", "takes a file"),
        (None, "required"),
        (StoredFile.named("x", bytes(ATTACHMENT_LIMIT_BYTES + 1)), "too powerful"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.slash("tavern", "read", file=value)


async def test_the_page_hands_over_what_was_uploaded(sandbox, probe):
    await register(probe)
    nils = sandbox.member("Nils").id
    async with aiohttp.ClientSession(sandbox.url) as http:

        async def upload(name, data):
            where = {"as": nils, "name": name}
            kind = {"Content-Type": "application/octet-stream"}
            async with http.post(
                "/page-api/upload", params=where, data=io.BytesIO(data), headers=kind
            ) as got:
                return (await got.json())["id"]

        async def run(**options):
            body = {
                "as": nils,
                "channel": sandbox.channel("tavern")["id"],
                "command": "read",
                "options": options,
            }
            async with http.post("/page-api/slash", json=body) as got:
                return got.status, await got.json()

        first = await upload("a.txt", b"one")
        second = await upload("b.txt", b"two")
        assert (await run(file={"upload": first}, other={"upload": second}))[0] == 200
        (result,) = [data for kind, data in sandbox.events if kind == "message"]
        assert result["content"] == "a.txt 3 text/plain b'one' b.txt 3 text/plain b'two'"
        status, again = await run(file={"upload": first})
        assert status == 400 and "add them again" in again["refusal"]
