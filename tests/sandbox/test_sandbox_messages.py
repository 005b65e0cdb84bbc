"""Messages and webhooks against the real client: what is kept, limited and refused."""

import asyncio
import io

import aiohttp
import discord
import pytest

from sandbox import DEFAULT_BOT_PERMISSIONS, Permission, SandboxRefusal, StoredFile

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f0003860180"
    "5a34b7520000000049454e44ae426082"
)


async def test_send_edit_delete_history(sandbox, probe):
    room = probe.room()
    mark = len(sandbox.events)
    sent = [await room.send(f"line {number}") for number in range(5)]
    await sent[1].edit(
        content="line one",
        embed=discord.Embed(title="New", description="D").add_field(name="a", value="b"),
    )
    await sent[0].delete()
    assert [message.content async for message in room.history(limit=2)] == ["line 4", "line 3"]
    later = [message.content async for message in room.history(after=sent[1], oldest_first=True)]
    assert later == ["line 2", "line 3", "line 4"]
    assert [message.content async for message in room.history(before=sent[2])] == ["line one"]
    kept = sandbox.messages("tavern")
    assert kept[0]["edited_timestamp"] and kept[0]["embeds"][0]["fields"] == [
        {"name": "a", "value": "b", "inline": True}
    ]
    assert [kind for kind, _ in sandbox.events[mark:]] == ["message"] * 5 + ["edit", "delete"]
    with pytest.raises(discord.NotFound) as gone:
        await room.fetch_message(sent[0].id)
    assert gone.value.code == 10008


async def test_two_thousand_characters(sandbox, probe):
    await probe.room().send("x" * 2000)
    with pytest.raises(discord.HTTPException, match="Must be 2000 or fewer in length") as long:
        await probe.room().send("x" * 2001)
    assert (long.value.status, long.value.code) == (400, 50035)
    with pytest.raises(discord.HTTPException, match=r"embeds\.0\.title"):
        await probe.room().send(embed=discord.Embed(title="x" * 257))
    with pytest.raises(discord.HTTPException) as empty:
        await probe.room().send()
    assert empty.value.code == 50006
    with pytest.raises(SandboxRefusal, match="2001 of 2000 characters"):
        await sandbox.member("Nils").say("tavern", "x" * 2001)


async def test_two_buttons_with_one_id_are_refused(sandbox, api):
    row = {
        "type": 1,
        "components": [{"type": 2, "style": 1, "label": "x", "custom_id": "same"}] * 2,
    }
    path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
    _, sent, _ = await api("POST", path, {"content": "x"})
    for method, place in (("POST", path), ("PATCH", f"{path}/{sent['id']}")):
        status, answer, _ = await api(method, place, {"content": "x", "components": [row]})
        error = answer["errors"]["components"]["0"]["components"]["1"]["custom_id"]["_errors"][0]
        assert (status, answer["code"], error["code"]) == (
            400,
            50035,
            "COMPONENT_CUSTOM_ID_DUPLICATED",
        )


async def test_reply_nonce_typing_and_file(sandbox, probe):
    said = await sandbox.member("Nils").say("tavern", "say it")
    received = await probe.receive()
    async with received.channel.typing():
        file = discord.File(io.BytesIO(b"paper"), "note.txt", description="a note")
        first = await received.reply("once", file=file, nonce="n1", mention_author=False)
    again = await received.channel.send("once", nonce="n1")
    assert first.id == again.id and len(sandbox.messages("tavern")) == 2
    reply = sandbox.messages("tavern")[1]
    assert reply["referenced_message"]["id"] == said["id"] and reply["mentions"] == []
    assert reply["attachments"][0]["description"] == "a note"
    assert await first.attachments[0].read() == b"paper"
    assert (await sandbox.wait_for("typing", since=0))["channel_id"] == sandbox.channel("tavern")[
        "id"
    ]


async def test_allowed_mentions(sandbox, probe):
    nils = sandbox.member("Nils")
    mora = sandbox.member("Mora")
    text = f"<@{nils.id}> and <@{mora.id}> @everyone"
    none = await probe.room().send(text, allowed_mentions=discord.AllowedMentions.none())
    assert none.mentions == [] and not none.mention_everyone
    some = await probe.room().send(
        text, allowed_mentions=discord.AllowedMentions(users=[discord.Object(nils.id)])
    )
    assert [user.id for user in some.mentions] == [int(nils.id)]
    sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS | Permission.MENTION_EVERYONE)
    everyone = await probe.room().send(text)
    assert everyone.mention_everyone and len(everyone.mentions) == 2


async def test_suppressed_embeds_stay_suppressed(sandbox, probe):
    sent = await probe.room().send("https://example.org", suppress_embeds=True)
    assert sent.flags.suppress_embeds
    assert (await sent.edit(content="more", suppress=True)).flags.suppress_embeds
    # Left out, discord.py's Message.edit asks for suppression to end; a webhook's edit says nothing
    # and keeps it.
    assert not (await sent.edit(content="more")).flags.suppress_embeds
    hook = await probe.room().create_webhook(name="Mask")
    masked = await hook.send("https://example.org", suppress_embeds=True, wait=True)
    assert (await masked.edit(content="more")).flags.suppress_embeds


@pytest.mark.parametrize(
    ("lacking", "act", "code"),
    [
        (Permission.VIEW_CHANNEL, lambda room: room.send("x"), 50001),
        (Permission.SEND_MESSAGES, lambda room: room.send("x"), 50013),
        (Permission.SEND_MESSAGES, lambda room: room.typing().__aenter__(), 50013),
        (Permission.EMBED_LINKS, lambda room: room.send(embed=discord.Embed(title="x")), 50013),
        (
            Permission.ATTACH_FILES,
            lambda room: room.send(file=discord.File(io.BytesIO(b"x"), "x")),
            50013,
        ),
        (Permission.MANAGE_WEBHOOKS, lambda room: room.create_webhook(name="x"), 50013),
        (Permission.MANAGE_WEBHOOKS, lambda room: room.webhooks(), 50013),
        (Permission.READ_MESSAGE_HISTORY, lambda room: room.fetch_message(1), 50013),
        (
            Permission(0),
            lambda room: room.get_partial_message(room.last_message_id).delete(),
            50013,
        ),
    ],
)
async def test_a_missing_permission_is_said_in_discords_code(sandbox, probe, lacking, act, code):
    await sandbox.member("Nils").say("tavern", "someone else's")
    await probe.receive()
    sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~lacking)
    with pytest.raises(discord.Forbidden) as refused:
        await act(probe.room())
    assert refused.value.code == code


async def test_a_webhook_speaks_edits_and_is_pressed(sandbox, probe):
    pressed = asyncio.Event()

    class Stop(discord.ui.View):
        @discord.ui.button(label="Stop", custom_id="stop")
        async def stop_it(
            self, interaction: discord.Interaction, button: discord.ui.Button
        ) -> None:
            await interaction.response.edit_message(content="stopped", view=None)
            pressed.set()

    hook = await probe.room().create_webhook(name="Mira", avatar=PIXEL)
    sent = await hook.send("one", wait=True, view=Stop(timeout=None))
    assert sent.author.name == "Mira" and await sent.author.display_avatar.read() == PIXEL
    await sent.edit(content="one two")
    answer = await sandbox.member("Nils").click(sandbox.messages("tavern")[0], "Stop")
    assert answer.type == 7
    await asyncio.wait_for(pressed.wait(), 2)
    assert (await hook.fetch_message(sent.id)).content == "stopped"
    masked = await hook.send(
        "as another", username="Brann", avatar_url="http://127.0.0.1:1/b.png", wait=True
    )
    assert masked.author.name == "Brann" and masked.author.avatar is not None
    await masked.delete()
    await hook.edit(name="Mira II", avatar=None)
    assert [(found.name, found.avatar) for found in await probe.room().webhooks()] == [
        ("Mira II", None)
    ]
    await hook.delete()
    with pytest.raises(discord.NotFound) as gone:
        await hook.send("x")
    assert gone.value.code == 10015
    assert [message["content"] for message in sandbox.messages("tavern")] == ["stopped"]


async def test_new_buttons_edit_nothing_that_was_said(sandbox, probe):
    sent = await probe.room().send("words")
    edited = await sent.edit(
        content="words", view=discord.ui.View().add_item(discord.ui.Button(label="x"))
    )
    assert edited.components and edited.edited_at is None
    assert (await sent.edit(content="other words")).edited_at is not None


async def test_a_name_that_a_role_has_too_means_the_user(sandbox, probe):
    said = await sandbox.member("Nils").say("tavern", "@Probe hello")
    assert said["content"] == f"<@{sandbox.bot_id}> hello"
    assert said["mention_roles"] == []


async def test_webhooks_have_limits(sandbox, probe):
    for name in ("My Discord", "CLYDE"):
        with pytest.raises(discord.HTTPException) as refused:
            await probe.room().create_webhook(name=name)
        assert refused.value.code == 50035
    for name in ("", "x" * 81):
        with pytest.raises(discord.HTTPException) as refused:
            await probe.http.create_webhook(probe.room().id, name=name)
        assert refused.value.code == 50035
    for number in range(15):
        hook = await probe.room().create_webhook(name=f"hook {number}".ljust(80, "."))
    with pytest.raises(discord.HTTPException) as full:
        await probe.room().create_webhook(name="one more")
    assert full.value.code == 30007
    for name in ("Discordant", "x" * 81):
        with pytest.raises(discord.HTTPException) as refused:
            await hook.send("x", username=name)
        assert refused.value.code == 50035
    stranger = discord.Webhook.partial(hook.id, "wrong" * 15, client=probe)
    with pytest.raises(discord.HTTPException) as wrong:
        await stranger.send("x")
    assert (wrong.value.status, wrong.value.code) == (401, 50027)


async def test_unknown_routes_and_bodies_are_refused(sandbox):
    headers = {"Authorization": f"Bot {sandbox.token}"}
    tavern = f"{sandbox.url}/api/v10/channels/{sandbox.channel('tavern')['id']}/messages"
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(f"{sandbox.url}/api/v10/users/@me/burgers") as unknown:
            assert unknown.status == 404
        async with http.post(tavern, data=b"{broken") as broken:
            assert (broken.status, (await broken.json())["code"]) == (400, 50035)
        async with http.get(tavern, params={"limit": "many"}) as many:
            assert (many.status, (await many.json())["code"]) == (400, 50035)


async def test_what_a_member_may_not_is_said_in_the_clients_words(sandbox, probe):
    nils, quinn, mora = (sandbox.member(name) for name in ("Nils", "Quinn", "Mora"))
    said = await mora.say("tavern", "mine")
    picture = StoredFile.named("x.png", PIXEL)
    result = await probe.room().send("the bot's")
    for act, words in (
        (nils.say("attic", "hello"), "no channel called attic"),
        (nils.say("tavern", ""), "empty message"),
        (
            nils.say("tavern", "", files=[StoredFile.named("x", b"x" * (10 * 2**20 + 1))]),
            "too powerful",
        ),
        (nils.say("tavern", "", files=[picture] * 11), "10 or fewer"),
        (quinn.say("tavern", "hello"), "do not have permission to send messages"),
        (quinn.slash("tavern", "anything"), "no command"),
        (quinn.delete(said), "do not have permission to delete"),
        (nils.edit(said, "ours"), "your own messages only"),
        (mora.edit({"id": str(result.id)}, "ours"), "your own messages only"),
        (mora.edit(said, " "), "empty message"),
        (mora.edit(said, "x" * 2001), "2001 of 2000"),
        (nils.delete(said), "do not have permission to delete"),
        (nils.delete({"id": "1"}), "was deleted"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await act
    assert [message["content"] for message in sandbox.messages("tavern")] == ["mine", "the bot's"]


async def test_members_edit_delete_and_upload(sandbox, probe):
    nils = sandbox.member("Nils")
    mora = sandbox.member("Mora")
    said = await nils.say("tavern", "a picture", files=[StoredFile.named("my cat?.png", PIXEL)])
    received = await probe.receive()
    assert (
        received.attachments[0].filename == "my_cat_.png"
        and await received.attachments[0].read() == PIXEL
    )
    edited = asyncio.create_task(probe.wait_for("message_edit", timeout=5))
    await asyncio.sleep(0)
    await nils.edit(said, "@Mora a cat")
    before, after = await edited
    assert (
        before.content == "a picture" and after.mentions[0].id == int(mora.id) and after.attachments
    )
    await nils.edit(said, "")
    deleted = asyncio.create_task(probe.wait_for("message_delete", timeout=5))
    await asyncio.sleep(0)
    await mora.delete(said)
    assert (await deleted).id == int(said["id"]) and sandbox.messages("tavern") == []


async def test_files_that_are_too_large_or_too_many_are_refused(sandbox, probe):
    with pytest.raises(discord.HTTPException) as large:
        await probe.room().send(file=discord.File(io.BytesIO(b"x" * (10 * 2**20 + 1)), "x"))
    assert (large.value.status, large.value.code) == (413, 40005)
    with pytest.raises(discord.HTTPException) as huge:
        await probe.room().send(
            files=[discord.File(io.BytesIO(b"x" * (9 * 2**20)), "x") for _ in range(4)]
        )
    assert (huge.value.status, huge.value.code) == (413, 40005)


async def test_the_bot_deletes_its_own_and_its_webhooks_messages(sandbox, probe):
    own = await probe.room().send("own")
    hook = await probe.room().create_webhook(name="Mask")
    masked = await hook.send("masked", wait=True)
    sandbox.set_permission("MANAGE_MESSAGES", True)
    said = await sandbox.member("Nils").say("tavern", "theirs")
    await probe.room().get_partial_message(int(said["id"])).delete()
    sandbox.set_permission("MANAGE_MESSAGES", False)
    await own.delete()
    await hook.delete_message(masked.id)
    assert sandbox.messages("tavern") == []


async def test_a_reply_to_a_webhook_is_not_one_to_the_bot(sandbox, probe):
    hook = await probe.room().create_webhook(name="Mask")
    masked = await hook.send("masked", wait=True)
    own = await probe.room().send("own")
    sandbox.withhold_content()
    for target, content, shown in ((masked, "", ""), (own, "to it", "own")):
        await sandbox.member("Nils").say("tavern", "to it", reply_to={"id": str(target.id)})
        received = await probe.receive(lambda message: message.type is discord.MessageType.reply)
        assert (received.content, received.reference.resolved.content) == (content, shown)


async def test_the_guild_can_be_fetched(sandbox, probe):
    guild = await probe.fetch_guild(sandbox.guild_id)
    assert guild.name == "Test guild" and guild.approximate_member_count == 5
    assert [role.name for role in await guild.fetch_roles()][-1] == "Moderator"
    assert [channel.name for channel in await guild.fetch_channels()] == ["tavern", "cellar"]
    assert (await probe.fetch_channel(probe.room().id)).name == "tavern"
    hook = await probe.room().create_webhook(name="Mask")
    assert [found.id for found in await probe.guilds[0].webhooks()] == [hook.id]


async def test_mistakes_get_discords_codes(sandbox, probe):
    for act, code in [
        (lambda probe: probe.fetch_channel(1), 10003),
        (lambda probe: probe.fetch_guild(1), 10004),
        (lambda probe: probe.guilds[0].fetch_member(1), 10007),
        (lambda probe: probe.room().get_partial_message(1).edit(content="x"), 10008),
        (
            lambda probe: probe.http.create_webhook(
                probe.room().id, name="x", avatar="data:image/png;base64,!"
            ),
            50035,
        ),
        (lambda probe: probe.http.create_webhook(probe.room().id, name=" "), 50035),
        (
            lambda probe: probe.room().send(
                "x", reference=probe.room().get_partial_message(1).to_reference()
            ),
            50035,
        ),
        (
            lambda probe: (
                probe.room().get_partial_message(probe.room().last_message_id).edit(content="x")
            ),
            50005,
        ),
    ]:
        await sandbox.member("Nils").say("tavern", "someone else's")
        await probe.receive()
        with pytest.raises(discord.HTTPException) as refused:
            await act(probe)
        assert refused.value.code == code, code


async def test_replies_need_the_history_and_may_outlive_what_they_answer(sandbox, probe):
    said = await probe.room().send("first")
    reply = await said.reply("second")
    await said.delete()
    assert sandbox.messages("tavern")[0]["referenced_message"] is None
    await probe.room().send("third", reference=said.to_reference(fail_if_not_exists=False))
    sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~Permission.READ_MESSAGE_HISTORY)
    assert [message async for message in probe.room().history()] == []
    with pytest.raises(discord.Forbidden) as refused:
        await reply.reply("fourth")
    assert refused.value.code == 160002
