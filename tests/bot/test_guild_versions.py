"""Two servers and one shared persona: each has its own live versions, the operator's are for
all.
"""

from dataclasses import replace

import pytest

from bot.demo_guild import MODERATOR, SKERROW_SEED
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.store import Channel
from bot.training.request_materials import gather_materials
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY, on_stage
from tests.bot.version_rows import install

ANNEX = replace(SKERROW_SEED, name="Annex", bot_avatar=None)
OTHERS = "was trained by another server and is used there only."


class Server:
    """One of the servers: its moderator, and Ballast in the quay's channel."""

    def __init__(self, stage, guild_id):
        self.stage = stage
        self.id = guild_id
        self.moderator = stage.sandbox.member(MODERATOR, guild_id)
        self.channel = stage.sandbox.channel(QUAY, guild_id)
        stage.store.channels.assign(
            Channel(guild_id, int(self.channel["id"]), "ballast", "everything", 1, 1.0)
        )

    async def version(self):
        """The version that answers here."""
        mark = self.stage.mark
        await self.moderator.say(self.channel, "hello")
        message = await self.stage.sandbox.wait_for(
            "edit",
            lambda it: (
                it["channel_id"] == self.channel["id"] and "\n-# AI-written" in it["content"]
            ),
            timeout_s=8.0,
            since=mark,
        )
        return message["content"].rpartition("AI-written · ")[2].splitlines()[0].split(" ·")[0]

    async def command(self, words, name, **options):
        mark = self.stage.mark
        await self.moderator.slash(self.channel, name, **options)
        return await self.stage.sees(words, since=mark)

    async def choices(self, command):
        found = await self.moderator.autocomplete(self.channel, command, "version", version="")
        return [it["value"] for it in found if it["value"].startswith("v")]


@pytest.fixture
async def servers(tmp_path):
    async with on_stage(tmp_path, more_guilds=[ANNEX]) as stage:
        yield [Server(stage, guild_id) for guild_id in stage.sandbox.guild_ids]


async def test_a_moderators_promotion_is_heard_in_that_server_alone_until_the_operators_is_in_all(
    servers,
):
    here, there = servers
    versions = here.stage.client.services.versions
    v1 = install(here.stage.store, guild=here.id)
    await here.command("v1 of **Ballast** is live", "finetune promote")
    assert (await here.version(), await there.version()) == (v1, "base model")
    v2 = install(here.stage.store)
    await versions.promote("ballast", v2, OPERATOR_ORIGIN)
    assert (await here.version(), await there.version()) == (v1, v2)
    await there.command(
        "v2 of Ballast was made live for all servers: only the operator can", "finetune rollback"
    )
    await here.command("Rolled back: v2 answers for **Ballast**", "finetune rollback")
    assert (await here.version(), await there.version()) == (v2, v2)
    await versions.promote("ballast", v1, OPERATOR_ORIGIN)
    assert (await here.version(), await there.version()) == (v1, v1)
    await there.command("v2 of **Ballast** is live", "finetune promote", version=v2)
    assert (await here.version(), await there.version()) == (v1, v2)


async def test_another_servers_version_can_neither_be_promoted_nor_tried(servers):
    here, there = servers
    install(here.stage.store, guild=here.id), install(here.stage.store, guild=there.id)
    for command in ("finetune promote", "finetune compare"):
        assert await here.choices(command) == ["v1"] and await there.choices(command) == ["v2"], (
            command
        )
    for command, options in (
        ("finetune promote", {}),
        ("finetune compare", {"invite": False}),
        ("finetune judgement", {}),
    ):
        await there.command(f"v1 of ballast {OTHERS}", command, version="v1", **options)
    further = TrainingRequest(
        job_name="j", persona="ballast", task_type="preference", start_from="v1"
    )
    with pytest.raises(RequestError, match="no version 'v1'"):
        gather_materials(here.stage.client.services.catalogue, further, there.id)
    await here.command("v1 of **Ballast** is live", "finetune promote")
    await there.command("v2 of **Ballast** is live", "finetune promote")
    await there.command("**Ballast**: v2 is live.", "finetune history")
    assert (await here.version(), await there.version()) == ("v1", "v2")
    assert here.stage.client.services.blind_tests.version_names(
        here.stage.client.services.personas.get("ballast", 0), 0
    ) == ["base"], "direct messages"
