"""Two servers and one shared persona: each has its own live versions, the operator's are for
all.
"""

from dataclasses import replace

import pytest

from bot.demo_guild import MODERATOR, SKERROW_SEED
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.store import Channel, NewRollout
from bot.training.request_materials import gather_materials
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY, on_stage
from tests.bot.version_rows import install, reply
from tests.fakes import until

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
    for command in ("finetune promote", "finetune rollout start", "finetune compare"):
        assert await here.choices(command) == ["v1"] and await there.choices(command) == ["v2"], (
            command
        )
    for command, options in (
        ("finetune promote", {}),
        ("finetune rollout start", {"share": 20}),
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


async def test_a_button_of_another_servers_version_is_refused(servers):
    here, there = servers
    install(here.stage.store, guild=here.id)
    mark = here.stage.mark
    shown = await here.command("v1", "finetune rollout start", share=20)
    services = here.stage.client.services
    with pytest.raises(RequestError, match=OTHERS):
        origin = RequestOrigin(there.id, channel_id=0, user_id=7)
        await services.versions.promote("ballast", "v1", origin, anyway=True)
    with pytest.raises(RequestError, match=OTHERS):
        await services.versions.start_rollout(NewRollout("ballast", "v1", there.id, 2, 7, 20))
    assert here.stage.store.versions.history("ballast") == []
    await here.moderator.click(shown, "Promote")
    await here.stage.sees("v1 of **Ballast** is live", since=mark)
    assert await there.version() == "base model"


async def test_members_who_fare_worse_in_one_server_roll_it_back_there(servers):
    here, there = servers
    store = here.stage.store
    install(store)
    for server in servers:
        store.rollouts.promote(
            NewRollout("ballast", "v1", server.id, int(server.channel["id"]), 7, 100), 100.0
        )
    for member in range(1, 13):
        for n in range(6):
            reply(store, at=90.0 + n, asked_by=member, guild=here.id)
            event = reply(store, at=101.0 + n, version="v1", asked_by=member, guild=here.id)
            store.replies.record_interruption(event, member, 102.0 + n)
    # observed is what lasts three days: 1970 is long ago
    store._connection.write("update rollouts set watched_until = 1e12")
    here.stage.client.dispatch("reply_judged", event)
    await until(lambda: store.versions.live("ballast", here.id) is None)
    assert store.versions.live("ballast", there.id) == "v1"
    assert (await here.version(), await there.version()) == ("base model", "v1")
    assert store.versions.history("ballast")[-1].for_guild == here.id
