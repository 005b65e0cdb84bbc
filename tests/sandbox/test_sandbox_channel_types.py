"""Voice and stage channels with their chats, and forums with posts, against the real client."""

import asyncio
from dataclasses import replace

import discord
import pytest

from sandbox import (
    FORUM_CHANNEL,
    STAGE_CHANNEL,
    VOICE_CHANNEL,
    ChannelSeed,
    PostSeed,
    Sandbox,
    SandboxRefusal,
    patch_discord,
)
from sandbox.channel_types import DIRECT_CHANNEL
from tests.sandbox.conftest import RATE_WINDOW, SEED

POST = PostSeed("How do I bake?", "Nils", "Mine burns.")
CHANNELS = (
    ChannelSeed("deck", type=VOICE_CHANNEL),
    ChannelSeed("hall", "speeches", type=STAGE_CHANNEL),
    ChannelSeed("questions", "Search first.", type=FORUM_CHANNEL, posts=(POST,)),
)
WITH_ALL = replace(SEED, channels=(*SEED.channels, *CHANNELS))


@pytest.fixture
async def sandbox():
    made = Sandbox(WITH_ALL, rate_window=RATE_WINDOW)
    await made.start()
    with patch_discord(made):
        yield made
    await made.stop()


def channel(probe, name):
    return discord.utils.get(probe.guilds[0].channels, name=name)


async def test_the_client_gets_channels_of_their_types(sandbox, probe):
    kinds = {each.name: type(each) for each in probe.guilds[0].channels}
    assert kinds == {
        "tavern": discord.TextChannel,
        "cellar": discord.TextChannel,
        "deck": discord.VoiceChannel,
        "hall": discord.StageChannel,
        "questions": discord.ForumChannel,
    }
    assert channel(probe, "hall").topic == "speeches"
    fetched = await probe.guilds[0].fetch_channels()
    assert {each.name for each in fetched} == kinds.keys()
    assert isinstance(await probe.fetch_channel(channel(probe, "deck").id), discord.VoiceChannel)


@pytest.mark.parametrize("name", ["deck", "hall"])
async def test_the_chat_of_a_voice_channel_has_messages_and_webhooks(sandbox, probe, name):
    nils = sandbox.member("Nils")
    said = await nils.say(name, "can you hear me?")
    received = await probe.receive()
    room = channel(probe, name)
    assert received.channel == room and received.content == "can you hear me?"
    await received.reply("yes")
    hook = await room.create_webhook(name="Oda")
    assert [each.id for each in await room.webhooks()] == [hook.id]
    posted = await hook.send("good evening", username="Oda Marrow", wait=True)
    shown = sandbox.messages(name)[-1]
    assert shown["id"] == str(posted.id) and shown["author"]["username"] == "Oda Marrow"
    assert (await room.fetch_message(int(said["id"]))).content == "can you hear me?"
    with pytest.raises(SandboxRefusal, match="cannot be created here"):
        await nils.thread(name, "a thread")


async def test_threads_are_refused_to_the_bot_in_a_voice_channel_too(sandbox, probe, api):
    deck = sandbox.channel("deck")["id"]
    sandbox.set_permission("CREATE_PUBLIC_THREADS", True)
    status, answer, _ = await api("POST", f"/channels/{deck}/threads", {"name": "x", "type": 11})
    assert (status, answer["code"]) == (400, 50024)


async def test_a_voice_channel_gets_the_mark_of_an_age_restriction(sandbox, probe):
    deck = channel(probe, "deck")
    assert not deck.is_nsfw()
    changed = asyncio.create_task(probe.wait_for("guild_channel_update"))
    await asyncio.sleep(0)
    sandbox.set_age_restricted("deck", True)
    _, after = await asyncio.wait_for(changed, 5)
    assert after.id == deck.id and after.is_nsfw()


async def test_without_connect_the_messages_of_a_voice_channel_are_out_of_reach(sandbox, probe):
    nils = sandbox.member("Nils")
    said = await nils.say("deck", "before")
    await probe.receive()
    deck = channel(probe, "deck")
    sandbox.set_permission("CONNECT", False)
    for refused in (deck.send("hello"), deck.fetch_message(int(said["id"])), deck.webhooks()):
        with pytest.raises(discord.Forbidden) as caught:
            await refused
        assert caught.value.code == 50001
    await nils.say("deck", "unheard")
    await nils.say("tavern", "heard")
    assert (await probe.receive()).content == "heard"


async def test_a_forum_has_posts_and_no_messages_of_its_own(sandbox, probe):
    forum = channel(probe, "questions")
    (post,) = forum.threads
    assert post.name == POST.name and post.owner_id == int(sandbox.member("Nils").id)
    first = await post.fetch_message(post.id)
    assert first.content == POST.content
    with pytest.raises(SandboxRefusal, match="A forum has posts"):
        await sandbox.member("Mora").say("questions", "hello")
    with pytest.raises(discord.HTTPException) as caught:
        await probe.http.send_message(
            forum.id, params=discord.http.handle_message_parameters("hello")
        )
    assert caught.value.code == 50008


async def test_a_forums_webhook_speaks_in_its_posts_only(sandbox, probe):
    forum = channel(probe, "questions")
    hook = await forum.create_webhook(name="Oda")
    with pytest.raises(discord.HTTPException) as caught:
        await hook.send("hello", wait=True)
    assert caught.value.code == 220001
    (post,) = forum.threads
    said = await hook.send("Less heat.", username="Oda Marrow", thread=post, wait=True)
    await hook.edit_message(said.id, content="Less heat, love.", thread=post)
    shown = sandbox._container.messages.history(str(post.id), 10)[-1]
    assert shown["content"] == "Less heat, love." and shown["author"]["username"] == "Oda Marrow"


async def test_a_member_creates_a_post_and_the_bot_hears_of_it(sandbox, probe):
    created = asyncio.create_task(probe.wait_for("thread_create"))
    await asyncio.sleep(0)
    mora = sandbox.member("Mora")
    post = await mora.post("questions", "  And rye? ", "It does not rise, @Nils.")
    thread = await asyncio.wait_for(created, 5)
    assert thread.id == int(post["id"]) and thread.name == "And rye?"
    assert thread.parent == channel(probe, "questions")
    first = await probe.receive()
    assert first.id == thread.id and first.channel == thread
    assert [user.display_name for user in first.mentions] == ["Nils"]
    await mora.say(post, "anyone?")
    assert (await probe.receive()).content == "anyone?"
    for name, content, words in (
        ("", "x", "A post's name has 1 to 100 characters."),
        ("x", "", "Cannot send an empty message"),
        ("x", "y" * 2001, "too long"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await mora.post("questions", name, content)
    with pytest.raises(SandboxRefusal, match="created in forums"):
        await mora.post("tavern", "x", "y")
    with pytest.raises(SandboxRefusal, match="permission to create posts"):
        await sandbox.member("Quinn").post("questions", "x", "y")
    assert len(channel(probe, "questions").threads) == 2


async def test_the_posts_of_the_seed_come_once(tmp_path):
    file = tmp_path / "guild.sqlite"
    for _ in range(2):
        made = Sandbox(WITH_ALL, file)
        assert [each["name"] for each in made._container.guild.threads()] == [POST.name]
        made.close_state()


def test_a_seed_with_impossible_channels_is_refused():
    for wrong, words in (
        (ChannelSeed("x", type=DIRECT_CHANNEL), "no type of a guild's channel: 1"),
        (ChannelSeed("x", posts=(POST,)), "only forums have posts, not x"),
        (
            ChannelSeed("x", type=FORUM_CHANNEL, posts=(replace(POST, author="Nobody"),)),
            "no such member: Nobody",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            replace(SEED, channels=(wrong,))
