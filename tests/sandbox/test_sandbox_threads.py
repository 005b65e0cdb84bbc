"""Direct messages and threads against the real client: who sees them, who may speak there, what
they do not have.
"""

import asyncio

import aiohttp
import discord
import pytest
from discord import app_commands

from sandbox import DEFAULT_BOT_PERMISSIONS, Permission, SandboxRefusal


async def test_direct_messages_go_both_ways_and_keep_their_content(sandbox, new_probe, run):
    client = new_probe(message_content=False)
    nils = sandbox.member("Nils")
    async with run(client, sandbox.token):
        room = await nils.dm()
        said = await nils.say(room, "psst")
        received = await client.receive()
        assert (
            isinstance(received.channel, discord.DMChannel)
            and received.guild is None
            and received.content == "psst"
        )
        back = await received.author.send("yes?")
        assert back.channel.id == received.channel.id and back.channel.recipient.id == int(nils.id)
        assert (await back.channel.fetch_message(int(said["id"]))).content == "psst"
        await back.edit(content="yes, what?")
        await nils.say(room, "a reply", reply_to={"id": str(back.id)})
        assert (
            await client.receive(lambda message: message.content == "a reply")
        ).reference.guild_id is None
        await nils.edit(said, "psst!")
        await nils.delete(said)
        with pytest.raises(discord.NotFound):
            await back.channel.fetch_message(int(said["id"]))
        kinds = [kind for kind, data in sandbox.events if data.get("channel_id") == room["id"]]
        assert kinds == ["message", "message", "edit", "message", "edit", "delete"]


async def test_without_their_intent_direct_messages_are_not_reported(sandbox, new_probe, run):
    client = new_probe(dm_messages=False)
    nils = sandbox.member("Nils")
    async with run(client, sandbox.token):
        await nils.say(await nils.dm(), "unheard")
        await nils.say("tavern", "heard")
        assert (await client.receive()).content == "heard"


async def test_direct_messages_are_between_two(sandbox, probe):
    nils = sandbox.member("Nils")
    mora = sandbox.member("Mora")
    room = await nils.dm()
    assert (await nils.dm())["id"] == room["id"] and room["recipients"][0]["id"] == str(
        sandbox.bot_id
    )
    said = await nils.say(room, "between us")
    with pytest.raises(SandboxRefusal, match="no channel"):
        await mora.say(room, "me too")
    with pytest.raises(SandboxRefusal, match="someone else"):
        await sandbox.member("Olga").delete(said)
    async with aiohttp.ClientSession(sandbox.url) as http:
        for member, status in ((nils, 200), (mora, 404)):
            async with http.get(
                f"/page-api/messages?as={member.id}&channel={room['id']}"
            ) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("method", "path", "body", "refused"),
    [
        ("POST", "/channels/{dm}/webhooks", {"name": "Mask"}, (403, 50003)),
        ("GET", "/channels/{dm}/webhooks", None, (403, 50003)),
        ("DELETE", "/channels/{dm}/messages/{theirs}", None, (403, 50003)),
        ("PATCH", "/channels/{dm}/messages/{theirs}", {"content": "x"}, (403, 50005)),
        ("POST", "/users/@me/channels", {"recipient_id": "1"}, (400, 50033)),
        ("POST", "/users/@me/channels", {"recipient_id": "{bot}"}, (400, 50033)),
        ("POST", "/channels/{thread}/webhooks", {"name": "Mask"}, (400, 50024)),
    ],
)
async def test_what_such_places_do_not_have(sandbox, api, method, path, body, refused):
    nils = sandbox.member("Nils")
    room = await nils.dm()
    theirs = await nils.say(room, "hello")
    thread = await nils.thread("tavern", "corner")
    place = path.format(dm=room["id"], theirs=theirs["id"], thread=thread["id"])
    body = body and {name: value.format(bot=sandbox.bot_id) for name, value in body.items()}
    status, answer, _ = await api(method, place, body)
    assert (status, answer["code"]) == refused


async def test_commands_and_buttons_in_direct_messages(sandbox, probe):
    class Ask(discord.ui.View):
        @discord.ui.button(label="Who", custom_id="who")
        async def who(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
            await interaction.response.send_message(
                f"{interaction.user.name} {interaction.guild}", ephemeral=True
            )

    @probe.tree.command(description="Everywhere")
    async def hello(interaction: discord.Interaction) -> None:
        assert interaction.context.dm_channel == (interaction.guild is None)
        await interaction.response.send_message(
            f"hello {interaction.user.name}", view=Ask(timeout=None)
        )

    @probe.tree.command(description="In the guild")
    @app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
    async def here(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("here")

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    room = await nils.dm()
    answer = await nils.slash(room, "hello")
    assert answer.message["content"] == "hello nils"
    pressed = await nils.click(answer.message, "Who")
    assert pressed.ephemeral and pressed.message["content"] == "nils None"
    with pytest.raises(SandboxRefusal, match="cannot be used here"):
        await nils.slash(room, "here")
    assert (await nils.slash("tavern", "here")).message["content"] == "here"


async def test_a_thread_is_reported_spoken_in_and_there_after_a_new_login(sandbox, new_probe, run):
    nils = sandbox.member("Nils")
    client = new_probe()
    async with run(client, sandbox.token):
        made = asyncio.create_task(client.wait_for("thread_create", timeout=5))
        await asyncio.sleep(0)
        thread = await nils.thread("tavern", "corner")
        assert (await made).parent == client.room()
        notice = await client.receive()
        assert notice.type is discord.MessageType.thread_created and notice.content == "corner"
        await nils.say(thread, "cosy")
        received = await client.receive()
        assert received.channel.id == int(thread["id"]) and received.channel.owner_id == int(
            nils.id
        )
        await received.reply("it is")
        assert (await client.fetch_channel(received.channel.id)).name == "corner"
    sandbox.advance(5)  # a bot may begin a session every five seconds
    client = new_probe()
    async with run(client, sandbox.token):
        assert [one.name for one in client.guilds[0].threads] == ["corner"]


async def test_a_thread_under_a_message_has_its_id(sandbox, probe):
    nils = sandbox.member("Nils")
    said = await nils.say("tavern", "let us discuss this")
    thread = await nils.thread("tavern", "discussion", said)
    assert thread["id"] == said["id"]
    under = await probe.room().fetch_message(int(said["id"]))
    assert under.flags.has_thread and under.thread.name == "discussion"
    start = await probe.receive(
        lambda message: message.type is discord.MessageType.thread_starter_message
    )
    assert (
        start.channel.id == int(thread["id"])
        and start.reference.resolved.content == "let us discuss this"
    )
    for channel, name, message, words in (
        ("tavern", "again", said, "already been created"),
        ("tavern", "x" * 101, None, "1 to 100 characters"),
        (thread, "deeper", None, "cannot be created here"),
        ("cellar", "elsewhere", said, "cannot be created here"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.thread(channel, name, message)
    with pytest.raises(SandboxRefusal, match="permission to create threads"):
        await sandbox.member("Quinn").thread("tavern", "mine")


async def test_webhooks_speak_in_the_threads_of_their_channel(sandbox, probe):
    nils = sandbox.member("Nils")
    near = await nils.thread("tavern", "near")
    far = await nils.thread("cellar", "far")
    hook = await probe.room().create_webhook(name="Mask")
    here = discord.Object(near["id"])
    sent = await hook.send("in here", thread=here, wait=True)
    assert sent.channel.id == int(near["id"])
    await hook.edit_message(sent.id, content="in there", thread=here)
    assert (await hook.fetch_message(sent.id, thread=here)).content == "in there"
    for act, code in (
        (hook.send("x", thread=discord.Object(far["id"]), wait=True), 10003),
        (hook.edit_message(sent.id, content="x"), 10008),
        (hook.delete_message(sent.id), 10008),
    ):
        with pytest.raises(discord.NotFound) as lost:
            await act
        assert lost.value.code == code
    await hook.delete_message(sent.id, thread=here)


async def test_threads_have_a_right_to_speak_of_their_own(sandbox, probe):
    thread = await sandbox.member("Nils").thread("tavern", "corner")
    corner = await probe.fetch_channel(int(thread["id"]))
    sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~Permission.SEND_MESSAGES)
    await corner.send("still here")
    sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~Permission.SEND_MESSAGES_IN_THREADS)
    with pytest.raises(discord.Forbidden) as refused:
        await corner.send("no more")
    assert refused.value.code == 50013


async def test_messages_in_an_archived_thread_change_only_when_it_is_open_again(sandbox, probe):
    nils = sandbox.member("Nils")
    thread = await nils.thread("tavern", "old")
    here = discord.Object(thread["id"])
    hook = await probe.room().create_webhook(name="Mask")
    by_hook = await hook.send("from the mask", thread=here, wait=True)
    channel = await probe.fetch_channel(int(thread["id"]))
    own = await channel.send("from the bot")
    sandbox.archive_thread(thread["id"])
    for act in (
        own.edit(content="x"),
        own.delete(),
        hook.edit_message(by_hook.id, content="x", thread=here),
        hook.delete_message(by_hook.id, thread=here),
    ):
        with pytest.raises(discord.HTTPException) as refused:
            await act
        assert refused.value.status == 400 and refused.value.code == 50083
    await nils.say(thread, "open again")
    await own.edit(content="changed")
    await hook.delete_message(by_hook.id, thread=here)
