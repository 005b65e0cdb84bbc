"""What members send beside text: forwards, stickers, polls and voice messages, as Discord describes
and hides them.
"""

import discord

from sandbox.gateway import without_content


async def test_discord_py_reads_what_is_no_text(sandbox, probe):
    nils = sandbox.member("Nils")
    original = await nils.say("tavern", "Tea at noon.")
    await nils.forward("cellar", original)
    await nils.sticker("tavern", "Wave")
    await nils.poll("tavern", "Tea?", ["yes", "no"])
    await nils.voice_message("tavern")
    _, forward, sticker, poll, voice = [await probe.receive() for _ in range(5)]
    assert forward.message_snapshots[0].content == "Tea at noon." and not forward.content
    assert forward.reference.type is discord.MessageReferenceType.forward
    assert [it.name for it in sticker.stickers] == ["Wave"]
    assert [it.text for it in poll.poll.answers] == ["yes", "no"]
    assert voice.attachments[0].is_voice_message() and voice.flags.voice


async def test_without_the_intent_a_poll_and_a_forward_are_hidden_and_a_sticker_is_not(sandbox):
    nils = sandbox.member("Nils")
    bot_id = str(sandbox.bot_id)
    original = await nils.say("tavern", "Tea at noon.")
    assert "message_snapshots" not in without_content(
        await nils.forward("tavern", original), bot_id
    )
    assert "poll" not in without_content(await nils.poll("tavern", "Tea?", ["yes"]), bot_id)
    assert without_content(await nils.sticker("tavern", "Wave"), bot_id)["sticker_items"]


async def test_a_proxy_bots_copy_is_a_webhooks_of_another_application(sandbox, probe):
    proxy = sandbox.proxy_bot()
    said = await sandbox.member("Nils").say("tavern", "w: hello")
    proxy.copy(said, "Wren", "hello")
    _, copy = [await probe.receive() for _ in range(2)]
    assert (copy.author.display_name, copy.content) == ("Wren", "hello")
    assert copy.webhook_id and copy.application_id != sandbox.bot_id
    proxy.delete(said)
    assert [it["content"] for it in sandbox.messages("tavern")] == ["hello"]
