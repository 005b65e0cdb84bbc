"""What members send beside text: forwards, stickers, polls and voice messages, as Discord describes
and hides them.
"""

import aiohttp
import discord
import pytest

from sandbox import SandboxRefusal
from sandbox.gateway import without_content
from sandbox.object_store import StoredFile


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


async def test_what_discord_refuses_of_polls_stickers_and_descriptions_is_refused(sandbox):
    nils = sandbox.member("Nils")
    for question, answers, words in (
        (" ", ["yes"], "This field is required"),
        ("Tea?", [], "This field is required"),
        ("Tea?", ["yes", " "], "This field is required"),
        ("x" * 301, ["yes"], "Must be 300 or fewer"),
        ("Tea?", ["x" * 56], "Must be 55 or fewer"),
        ("Tea?", ["x"] * 11, "Must be 10 or fewer"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.poll("tavern", question, answers)
    with pytest.raises(SandboxRefusal, match="no sticker called Nobody"):
        await nils.sticker("tavern", "Nobody")
    with pytest.raises(SandboxRefusal, match="do not have permission"):
        await sandbox.member("Quinn").poll("tavern", "Tea?", ["yes"])
    dot = StoredFile.named("dot.png", b"")
    with pytest.raises(SandboxRefusal, match="Must be 1024 or fewer"):
        await nils.say("tavern", "look", files=[dot], descriptions=["x" * 1025])
    assert not sandbox.messages("tavern")


async def test_a_bot_can_send_a_poll_and_is_refused_an_unknown_sticker(sandbox, probe):
    async def post(**body):
        address = f"{sandbox.url}/api/v10/channels/{sandbox.channel('tavern')['id']}/messages"
        headers = {"Authorization": f"Bot {sandbox.token}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(address, json=body, headers=headers) as got,
        ):
            return await got.json()

    asked = {"question": {"text": "Tea?"}, "answers": [{"poll_media": {"text": "yes"}}]}
    assert (await post(poll=asked))["poll"]["answers"][0]["poll_media"] == {"text": "yes"}
    assert "poll" in (await post(poll=asked | {"duration": 769}))["errors"]
    assert (await post(sticker_ids=["1"]))["code"] == 50081
