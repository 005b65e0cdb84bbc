"""Talking to a persona in direct messages, where there are no webhooks and nobody moderates."""

from sandbox import StoredFile
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.fakes import until


async def in_dm(stage, channel, words, since):
    return await stage.sandbox.wait_for(
        "edit",
        lambda m: (
            m["channel_id"] == channel["id"]
            and words in m["content"]
            and "-# AI-written" in m["content"]
        ),
        since=since,
    )


async def chosen(stage, persona="oda"):
    channel = await stage.member.dm()
    mark = stage.mark
    await stage.member.say(channel, "hello?")
    menu = await stage.sandbox.wait_for(
        "message", lambda m: m["channel_id"] == channel["id"] and m["components"], since=mark
    )
    options = [option["value"] for option in menu["components"][0]["components"][0]["options"]]
    assert options == ["ballast", "oda", "thrip"]
    await stage.member.select(menu, "choose-persona", [persona])
    name = stage.client.services.personas.get(persona, 0).name
    await in_dm(
        stage, channel, f"{name} hears: hello?", mark
    )  # what was said before the choice is answered
    return channel


async def test_who_writes_first_chooses_whom_to_talk_to_and_is_answered(tmp_path):
    async with on_stage(tmp_path, message_content=False) as stage:
        channel = await chosen(stage)
        mark = stage.mark
        await stage.member.say(channel, "is there soup?")
        reply = await in_dm(stage, channel, "Oda Marrow hears: is there soup?", mark)
        assert (
            reply["content"].startswith("**Oda Marrow:** ")
            and reply["author"]["username"] == "Understudy"
        )
        assert "webhook_id" not in reply


async def test_a_talk_in_direct_messages_is_its_own_and_nobody_elses(stage):
    channel = await chosen(stage)
    mark = stage.mark
    await stage.member.say(channel, "a secret")
    await in_dm(stage, channel, "a secret", mark)
    mark = stage.mark
    await stage.member.say(QUAY, "what did I say?")
    await stage.finished(QUAY, mark)
    assert all("secret" not in turn.text for turn in stage.engine.requests[-1].turns)
    assert stage.engine.requests[-1].guild_id == stage.sandbox.guild_id, (
        "the engine is fair between servers"
    )
    assert stage.engine.requests[0].guild_id == int(channel["id"]), (
        "a talk in direct messages stands for itself"
    )
    other = await stage.moderator.dm()
    assert other["id"] != channel["id"]
    await stage.moderator.say(other, "hello")
    await stage.sandbox.wait_for(
        "message", lambda m: m["channel_id"] == other["id"] and m["components"], since=mark
    )


async def test_commands_and_buttons_work_there(stage):
    channel = await chosen(stage)
    mark = stage.mark
    await stage.member.slash(channel, "chat", message="by command")
    reply = await in_dm(stage, channel, "by command", mark)
    event = stage.store.replies.of_guild(0)[0].event_id
    mark = stage.mark
    await stage.member.click(reply, f"again:{event}")
    await in_dm(stage, channel, "by command", mark)
    await stage.member.click(stage.sandbox._container.messages.find(reply["id"]), f"vote+1:{event}")
    assert stage.store.replies.votes(event).up == 1
    answer = await stage.member.slash(channel, "persona set", persona="thrip")
    await until(lambda: "lives here now" in (answer.message or {}).get("content", ""))
    mark = stage.mark
    await stage.member.say(channel, "and who are you?")
    await in_dm(stage, channel, "Sir Aurelio Thrip hears", mark)
    refused = await stage.member.slash(channel, "persona mute")
    assert "nobody needs silencing" in refused.message["content"]


async def test_a_reply_in_direct_messages_that_a_crash_cut_off_is_finished(tmp_path):
    async with on_stage(tmp_path) as stage:
        channel = await chosen(stage)
        stage.engine.free.clear()
        await stage.member.say(channel, "do not forget me")
        await until(lambda: any(reply.parts for reply in stage.store.replies.unfinished()))
    async with on_stage(tmp_path) as stage:
        await in_dm(stage, channel, "do not forget me", 0)


async def test_a_forwarded_reply_is_answered_by_its_text_where_a_persona_answers_everything(stage):
    channel = await chosen(stage)
    mark = stage.mark
    await stage.member.say(QUAY, "how heavy is it?")
    reply = await stage.finished(QUAY, mark)
    mark = stage.mark
    await stage.member.forward(channel, reply)
    await in_dm(stage, channel, "Oda Marrow hears: Ballast hears: how heavy is it?", mark)
    assert stage.engine.requests[-1].turns[-1].text == "Ballast hears: how heavy is it?", (
        "without the small print"
    )
    mark = stage.mark
    await stage.member.forward(QUAY, reply)
    answer = await stage.finished(QUAY, mark)
    assert answer["content"].startswith(
        "Ballast hears: Ballast hears: how heavy is it?\n-# AI-written"
    )


async def test_a_forward_is_neither_a_reply_nor_taken_for_a_hidden_message(stage):
    channel = await chosen(stage)
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    reply = await stage.finished(QUAY, mark)
    asked = len(stage.engine.requests)
    picture = await stage.member.say(OFFICE, "", files=[StoredFile.named("a.png", b"a")])
    mark = stage.mark
    await stage.member.forward(OFFICE, reply)
    await stage.member.forward(channel, picture)
    await in_dm(stage, channel, "Oda Marrow hears: [a picture: a.png", mark)
    await stage.member.forward(QUAY, picture)
    answer = await stage.finished(QUAY, mark)
    assert answer["content"].startswith("Ballast hears: [a picture: a.png")
    assert len(stage.engine.requests) == asked + 2, "nobody answers the forward to the office"
    assert "hides your message" not in str(stage.sandbox.events[mark:])
