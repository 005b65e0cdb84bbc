"""Talking to personas: who is answered, as whom, and what a reply may never do."""

import asyncio

import discord

from bot.chat.message_reader import IncomingMessage
from bot.chat.store.messages import MessageHistory
from bot.privacy.erasure_receipt import ErasureReceipt
from bot.store import Channel, InstalledVersion, StoreError
from bot.training.store import NewTrainingJob
from personas.errors import AdapterError, EngineBusyError
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.schemas.chat import Turn
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import INN, OFFICE, QUAY, STAGE, on_stage
from tests.fake_engine import FakeEngine, echo
from tests.fakes import until
from tests.samples import SCORECARD


async def test_each_channel_answers_as_its_own_persona_with_its_face(stage):
    names = []
    faces = set()
    for channel in (QUAY, INN, STAGE):
        mark = stage.mark
        await stage.member.say(channel, "Good evening")
        reply = await stage.finished(channel, mark)
        names.append(reply["author"]["username"])
        faces.add(reply["author"]["avatar"])
        assert reply["webhook_id"] and reply["author"]["bot"]
        assert reply["content"].startswith(
            f"{names[-1]} hears: Good evening\n-# AI-written · base model"
        )
    assert (
        names == ["Ballast", "Oda Marrow", "Sir Aurelio Thrip"]
        and len(faces) == 3
        and None not in faces
    )


async def test_lore_that_matched_is_named_under_the_reply(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "How heavy was the piano?")
    reply = await stage.finished(QUAY, mark)
    assert "lore: ballast/the-piano.md" in reply["content"]
    assert "piano" in stage.engine.requests[-1].lore[0].text.casefold()
    stage.engine.reply_flags = {"lore": ()}
    mark = stage.mark
    await stage.member.say(QUAY, "How heavy was the piano?")
    assert "lore:" not in (await stage.finished(QUAY, mark))["content"], (
        "it had no room in the prompt"
    )


async def test_history_is_given_with_names_and_only_of_this_channel(stage):
    for channel, words in ((QUAY, "first"), (INN, "elsewhere"), (QUAY, "second")):
        mark = stage.mark
        await stage.member.say(channel, words)
        await stage.finished(channel, mark)
    turns = stage.engine.requests[-1].turns
    assert [(t.name, t.text, t.by_persona) for t in turns] == [
        ("Tobias Reed", "first", False), ("Ballast", "Ballast hears: first", True), ("Tobias Reed", "second", False),
    ]  # fmt: skip


async def test_the_next_prompt_is_prepared_up_to_what_the_member_will_say(stage):
    engine = stage.engine
    for number in range(12):  # the window of the prompt moves meanwhile
        mark = stage.mark
        await stage.member.say(QUAY, f"number {number}")
        await stage.finished(QUAY, mark)
        if number:
            talk = (*engine.requests[-1].turns[:-1], Turn("Tobias Reed", ""))
            room = engine.requests[-1].sampling.max_new_tokens
            assert engine.prepared_talks[number - 1] == ("ballast", None, talk, room)
        await until(lambda number=number: len(engine.prepared_talks) == number + 1)
    assert len({talk[0].text for _, _, talk, _ in engine.prepared_talks}) > 2


async def test_a_next_prompt_that_cannot_be_prepared_leaves_the_reply_as_it_is(stage, monkeypatch):
    recent = MessageHistory.recent_numbered

    def fail_ahead(self, *args, upcoming=0, **options):
        if upcoming:
            raise StoreError("the disk is gone")
        return recent(self, *args, **options)

    monkeypatch.setattr(MessageHistory, "recent_numbered", fail_ahead)
    mark = stage.mark
    message = await stage.member.say(QUAY, "hello")
    assert "hears: hello" in (await stage.finished(QUAY, mark))["content"]
    await until(lambda: not stage.client.services.reply_service.tasks)
    assert (
        stage.store.replies.get(int(message["id"])).state == "done"
        and not stage.engine.prepared_talks
    )


async def test_a_persona_is_stopped_before_it_speaks_for_the_others(stage):
    for who in (stage.member, stage.moderator):
        mark = stage.mark
        await who.say(QUAY, "hello")
        await stage.finished(QUAY, mark)
    assert stage.engine.requests[-1].sampling.speakers == (
        "Tobias Reed",
        "tobias",
        "Mina Vale",
        "mina",
    )


async def test_where_nobody_lives_a_mention_says_what_to_do_and_other_messages_nothing(stage):
    await stage.member.say(OFFICE, "hello?")
    await stage.member.say(OFFICE, "@Understudy hello?")
    await stage.sees("`/persona set`")
    answer = await stage.member.slash(OFFICE, "chat", message="hello")
    assert answer.ephemeral and "No persona lives here" in answer.message["content"]
    assert stage.engine.requests == []


async def test_personas_do_not_answer_themselves_or_other_bots(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    await stage.finished(QUAY, mark)
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    await channel.send(f"{stage.client.user.mention} I am a bot")
    webhook = await channel.create_webhook(name="other")
    await webhook.send("so am I", wait=True)
    await stage.member.say(INN, "last")
    await stage.finished(INN, mark)
    assert len(stage.engine.requests) == 2


async def test_nothing_a_persona_says_mentions_anyone_or_links(tmp_path):
    names = {}

    def wicked(request):
        return [
            "@everyone @here ",
            f"<@{names['member']}> <@&{names['role']}> ",
            "see https://evil.example/x?y=1 now",
        ]

    async with on_stage(tmp_path, engine=FakeEngine(wicked)) as stage:
        guild = stage.client.guilds[0]
        names |= {"member": guild.owner_id, "role": guild.roles[-1].id}
        mark = stage.mark
        await stage.member.say(QUAY, "do it, @everyone")
        reply = await stage.finished(QUAY, mark)
        assert (
            reply["mentions"] == []
            and reply["mention_roles"] == []
            and reply["mention_everyone"] is False
        )
        assert "evil.example" not in reply["content"] and "(link left out)" in reply["content"]
        assert reply["flags"] & (1 << 2), "embeds are suppressed"
        answer = await stage.member.slash(QUAY, "chat", message="@everyone <@&1>")
        assert answer.message["mention_everyone"] is False


async def test_a_long_reply_goes_on_in_further_messages_and_loses_nothing(tmp_path):
    words = [f"word{n} " for n in range(900)]
    async with on_stage(tmp_path, engine=FakeEngine(lambda request: words)) as stage:
        mark = stage.mark
        await stage.member.say(QUAY, "tell me everything")
        await stage.finished(QUAY, mark)
        parts = [m["content"] for m in stage.sandbox.messages(QUAY) if "word" in m["content"]]
        assert len(parts) > 2 and all(len(part) <= 2000 for part in parts)
        assert " ".join(parts).partition("\n-#")[0].split() == "".join(words).split()


async def test_stop_ends_the_reply_for_whoever_asked_or_a_moderator(stage):
    stage.engine.free.clear()
    await stage.moderator.say(QUAY, "a long story please")
    growing = await stage.sees("…", by="Ballast")
    answer = await stage.member.click(growing, "Stop")
    assert answer.ephemeral and "Only the one who asked" in answer.message["content"]
    await stage.moderator.click(growing, "Stop")
    stopped = await stage.sees("· stopped")
    assert stopped["content"].startswith("Ballast\n-# AI-written")
    assert "Stop" not in str(stopped["components"]) and "Regenerate" in str(stopped["components"])
    assert stage.store.replies.get(next(iter(_events(stage)))).state == "stopped"
    late = await stage.member.slash(QUAY, "persona show")
    assert late.ephemeral


def _events(stage):
    rows = stage.store._connection.read("select event_id from replies order by created_at desc")
    return [row["event_id"] for row in rows]


async def test_a_deleted_webhook_is_made_anew(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "one")
    first = await stage.finished(QUAY, mark)
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    for webhook in await channel.webhooks():
        await webhook.delete()
    mark = stage.mark
    await stage.member.say(QUAY, "two")
    second = await stage.finished(QUAY, mark)
    assert second["webhook_id"] != first["webhook_id"] and "hears: two" in second["content"]


async def test_a_webhook_of_the_bot_that_is_not_stored_is_used_again(stage):
    """The bot was killed between creating it and storing it, or its home is new."""
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    first = await stage.finished(QUAY, mark)
    stage.store.places.forget_webhook(int(first["channel_id"]))
    mark = stage.mark
    await stage.member.say(QUAY, "hello again")
    assert (await stage.finished(QUAY, mark))["webhook_id"] == first["webhook_id"]


async def test_a_webhook_that_was_created_twice_leaves_none_behind(tmp_path, monkeypatch):
    """A creation that Discord answers with an error, though it was done, is repeated."""
    create = discord.TextChannel.create_webhook
    created = []

    async def create_twice(channel, **options):
        created.append(await create(channel, **options))
        return await create(channel, **options)

    monkeypatch.setattr(discord.TextChannel, "create_webhook", create_twice)
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        await stage.member.say(QUAY, "hello")
        reply = await stage.finished(QUAY, mark)
        assert created and [hook["id"] for hook in stage.sandbox.webhooks(QUAY)] == [
            reply["webhook_id"]
        ]


async def test_where_a_channel_has_too_many_webhooks_the_bot_speaks_itself(stage):
    place = stage.sandbox.guild_id, int(stage.sandbox.channel(OFFICE)["id"])
    stage.store.channels.assign(Channel(*place, "oda", "everything", 1, 1.0))
    channel = stage.client.get_channel(place[1])
    for number in range(15):  # of others: the bot may not use their tokens
        await channel.create_webhook(name=f"taken {number}")
    stage.client.services.reply_service.senders._own_webhooks = nobodys
    mark = stage.mark
    await stage.member.say(OFFICE, "hello")
    assert (await stage.finished(OFFICE, mark))["content"].startswith(
        "**Oda Marrow:** Oda Marrow hears: hello"
    )


async def never(channel):
    """Answer no request about webhooks."""
    await asyncio.Event().wait()


async def test_where_discord_does_not_answer_about_webhooks_the_bot_speaks_and_later_edits_itself(
    stage, monkeypatch
):
    monkeypatch.setattr("bot.chat.webhooks.WEBHOOK_TIMEOUT_S", 0.3)
    place = stage.sandbox.guild_id, int(stage.sandbox.channel(OFFICE)["id"])
    stage.store.channels.assign(Channel(*place, "oda", "everything", 1, 1.0))
    senders = stage.client.services.reply_service.senders
    mark = stage.mark
    greetings = len(_events(stage))
    with monkeypatch.context() as silent:
        silent.setattr(senders, "_own_webhooks", never)
        async with asyncio.timeout(10):  # together: the channel's lock is part of the time
            await asyncio.gather(*(stage.member.say(OFFICE, f"hello {n}") for n in range(3)))
            await until(
                lambda: (
                    len(_events(stage)) == greetings + 3 and not stage.store.replies.unfinished()
                )
            )
    reply = await stage.finished(OFFICE, mark)
    assert reply["author"]["username"] == "Understudy" and reply["content"].startswith(
        "**Oda Marrow:** Oda Marrow"
    )
    before = len(stage.sandbox.messages(OFFICE))
    mark = stage.mark
    await stage.member.click(reply, "Regenerate")
    again = await stage.finished(OFFICE, mark)
    assert again["id"] == reply["id"] and len(stage.sandbox.messages(OFFICE)) == before
    mark = stage.mark
    await stage.member.say(OFFICE, "and now")
    assert (await stage.finished(OFFICE, mark))["webhook_id"]


async def nobodys(channel):
    """Find none: the sandbox has no webhooks of other applications."""
    return []


async def test_a_picture_that_discord_does_not_take_in_time_silences_nobody(stage, monkeypatch):
    async def hang(*arguments, **options):
        await asyncio.sleep(60)

    monkeypatch.setattr(discord.Webhook, "edit", hang)
    monkeypatch.setattr("bot.chat.webhooks.AVATAR_TIMEOUT_S", 0.05)
    stage.client.services.reply_service.senders.forget(
        stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    )
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    assert "Ballast hears: hello" in (await stage.finished(QUAY, mark))["content"]


async def test_a_failing_engine_and_a_full_one_say_so_in_the_channel(stage):
    stage.engine.full = True
    await stage.member.say(QUAY, "hello")
    await stage.sees("9 replies are waiting already. Try again in a minute.")
    stage.engine.full = False
    stage.engine.failure = EngineBusyError("The model fell over.", "Call the operator.")
    await stage.member.say(QUAY, "hello again")
    await stage.sees("The model fell over. Call the operator.")
    stage.engine.failure = None
    mark = stage.mark
    await stage.member.say(QUAY, "and now")
    await stage.finished(QUAY, mark)


async def test_a_reply_that_was_cut_off_is_finished_after_the_restart_in_the_same_message(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "do not forget me")
        growing = await stage.sees("…", by="Ballast")
        await until(lambda: stage.store.replies.unfinished())
    async with on_stage(tmp_path) as stage:
        mark = 0
        reply = await stage.finished(QUAY, mark)
        assert (
            reply["id"] == growing["id"] and "Ballast hears: do not forget me" in reply["content"]
        )
        await until(lambda: not stage.store.replies.unfinished())


async def test_every_reply_that_a_crash_cut_off_is_finished_however_much_was_said_since(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        for number in range(14):
            await (stage.moderator if number % 2 else stage.member).say(QUAY, f"question {number}")
        await stage.member.say(INN, "and one elsewhere")
        await until(lambda: len(stage.store.replies.unfinished()) == 15)
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        said = [m["content"] for m in stage.sandbox.messages(QUAY) if "hears" in m["content"]]
        assert {f"question {number}" for number in range(14)} == {
            s.partition("hears: ")[2].split("\n")[0] for s in said
        }
        assert "and one elsewhere" in stage.sandbox.messages(INN)[-1]["content"]


async def test_a_message_that_comes_while_the_bot_stops_is_answered_at_the_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        await stage.client.services.reply_service.close()
        await stage.member.say(QUAY, "just in time")
        await until(lambda: stage.store.replies.unfinished())
    async with on_stage(tmp_path) as stage:
        await stage.sees("hears: just in time", since=0)
        await until(lambda: not stage.store.replies.unfinished())
        assert (
            len([it for it in stage.sandbox.messages(QUAY) if "just in time" in it["content"]]) == 2
        )


async def test_a_reply_that_was_cut_off_long_ago_says_so_and_can_be_regenerated(
    tmp_path, monkeypatch
):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "too late")
        growing = await stage.sees("…", by="Ballast")
        await until(lambda: stage.store.replies.unfinished())
    monkeypatch.setattr("bot.chat.recovery.MAX_RESUME_AGE_S", 0.0)
    async with on_stage(tmp_path) as stage:
        result = await stage.sees("was cut off", since=0)
        assert result["id"] == growing["id"] and "stop:" not in str(result["components"])
        assert stage.store.replies.unfinished() == [] and stage.engine.requests == []


async def test_stop_under_a_reply_that_is_gone_only_takes_the_button_away(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "hello")
    growing = await stage.sees("…", by="Ballast")
    stage.client.services.reply_service.running.clear()
    await stage.member.click(growing, "Stop")
    await until(lambda: not stage.sandbox.messages(QUAY)[-1]["components"])


async def test_a_damaged_live_adapter_leaves_the_base_model_speaking_and_tells_the_operator(
    tmp_path, caplog
):
    def broken_with_adapter(request):
        if request.adapter:
            raise AdapterError(
                f"The adapter in {request.adapter.folder} is damaged.", "Train it again."
            )
        return echo(request)

    async with on_stage(tmp_path, engine=FakeEngine(broken_with_adapter)) as stage:
        stage.store.jobs.add(new_job(), 1.0)
        stage.store.versions.record_installed(
            InstalledVersion("ballast", "v1", "j1", 1.0, SCORECARD)
        )
        stage.store.versions.promote("ballast", "v1", 1, 1.0)
        mark = stage.mark
        await stage.member.say(QUAY, "hello")
        reply = await stage.finished(QUAY, mark)
        assert "Ballast hears: hello" in reply["content"] and "base model" in reply["content"]
        assert (
            "v1 cannot be read" in reply["content"] and "`/finetune rollback`" in reply["content"]
        )
        assert str(tmp_path) not in reply["content"] and "is damaged" in caplog.text


def new_job():
    return NewTrainingJob("j1", 1, 1, 1, TrainingRequest(job_name="j", persona="ballast"))


async def test_a_dropped_gateway_loses_no_message(stage):
    await stage.sandbox.drop_gateway(4000)
    mark = stage.mark
    await stage.member.say(QUAY, "are you there")
    await stage.finished(QUAY, mark)
    assert len(stage.engine.requests) == 1


async def test_where_the_bot_may_say_nothing_at_all_a_reply_fails_and_is_not_tried_for_ever(stage):
    place = stage.sandbox.guild_id, int(stage.sandbox.channel(OFFICE)["id"])
    stage.store.channels.assign(
        Channel(*place, "oda", "everything", 1, 1.0)
    )  # no webhook was made there yet
    stage.sandbox.set_bot_permissions(discord.Permissions(view_channel=True).value)
    await stage.member.say(OFFICE, "hello")
    await until(
        lambda: [stage.store.replies.get(event).state for event in _events(stage)][:1] == ["failed"]
    )
    assert (
        stage.store.replies.unfinished() == [] and stage.client.services.reply_service.running == {}
    )


async def test_a_webhook_deleted_in_the_middle_of_a_reply_costs_nothing(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "hold on")
    growing = await stage.sees("…", by="Ballast")
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    for webhook in await channel.webhooks():
        await webhook.delete()
    mark = stage.mark
    stage.engine.free.set()
    whole = await stage.sees("Ballast hears: hold on\n-# AI-written", since=mark)
    assert whole["id"] != growing["id"] and whole["webhook_id"] != growing["webhook_id"]
    await until(lambda: stage.store.replies.of_message(int(whole["id"])))
    assert stage.store.replies.of_message(int(whole["id"])).state == "done"


async def test_a_reply_whose_message_is_deleted_ends_quietly(stage, caplog):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "never mind")
    growing = await stage.sees("…", by="Ballast")
    await until(lambda: stage.client.services.reply_service.running)
    await stage.moderator.delete(growing)
    stage.engine.free.set()
    await until(
        lambda: (
            [stage.store.replies.get(event).state for event in _events(stage)][:1] == ["stopped"]
        )
    )
    assert "Traceback" not in caplog.text


async def test_the_bots_own_role_counts_as_a_mention_of_it(tmp_path):
    async with on_stage(tmp_path) as stage:
        role = next(role for role in stage.client.guilds[0].roles if role.is_bot_managed())
        place = stage.sandbox.guild_id, int(stage.sandbox.channel(OFFICE)["id"])
        stage.store.channels.assign(Channel(*place, "oda", "mentions", 1, 1.0))
        mark = stage.mark
        await stage.member.say(OFFICE, f"<@&{role.id}> is there soup?")
        assert "hears: is there soup?" in (await stage.finished(OFFICE, mark))["content"]


async def test_a_talk_can_be_started_afresh_and_nothing_is_deleted(stage):
    for words in ("one", "two"):
        mark = stage.mark
        await stage.member.say(QUAY, words)
        first = await stage.finished(QUAY, mark)
    await stage.member.slash(QUAY, "persona fresh")
    mark = stage.mark
    await stage.member.say(QUAY, "three")
    await stage.finished(QUAY, mark)
    assert [turn.text for turn in stage.engine.requests[-1].turns] == ["three"]
    event = stage.store.replies.of_message(int(first["id"])).event_id
    mark = stage.mark
    await stage.member.click(
        first, f"again:{event}"
    )  # what came before the fresh start can still be made anew
    await stage.finished(QUAY, mark)
    assert [turn.text for turn in stage.engine.requests[-1].turns] == ["two"]
    assert sum("hears" in m["content"] for m in stage.sandbox.messages(QUAY)) == 3


async def test_who_may_not_write_in_a_channel_cannot_do_so_through_the_bot(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    reply = await stage.finished(QUAY, mark)
    event = stage.store.replies.of_message(int(reply["id"])).event_id
    silenced = stage.sandbox.member("Silas Mott")
    answer = await silenced.click(reply, f"reply:{event}")
    assert answer.modal is None and "You may not send messages" in answer.message["content"]
    assert len(stage.engine.requests) == 1


async def test_no_line_of_a_question_can_pass_for_somebody_elses(stage):
    answer = await stage.member.slash(
        QUAY, "chat", message="hello\n**Mina Vale:** the server closes at five"
    )
    assert (
        answer.message["content"]
        == "**Tobias Reed:**\n> hello\n> **Mina Vale:** the server closes at five"
    )
    mark = stage.mark
    long = await stage.member.slash(QUAY, "chat", message="a\n" * 700)
    assert len(long.message["content"]) <= 2000 and "\n" not in long.message["content"]
    await stage.finished(QUAY, mark)


async def test_without_the_intent_only_mentions_are_answered_and_replies_met_with_advice_once(
    tmp_path,
):
    async with on_stage(tmp_path, message_content=False) as stage:
        await stage.member.say(QUAY, "nobody hears this")
        mark = stage.mark
        await stage.member.say(QUAY, "@Understudy hello")
        reply = await stage.finished(QUAY, mark)
        for words in ("a plain reply", "and another"):
            await stage.member.say(QUAY, words, reply_to=reply)
        mark = stage.mark
        await stage.member.say(QUAY, "@Understudy still there?")
        await stage.finished(QUAY, mark)
        hints = [m for m in stage.sandbox.messages(QUAY) if "Use the button Reply" in m["content"]]
        assert len(hints) == 1 and len(stage.engine.requests) == 2


async def test_what_a_moderator_sweeps_away_leaves_the_history(stage):
    for words in ("one", "two"):
        mark = stage.mark
        await stage.member.say(QUAY, words)
        reply = await stage.finished(QUAY, mark)
    channel_id = int(reply["channel_id"])
    await until(lambda: len(stage.store.messages.latest(channel_id, 20)) == 4)
    swept = [str(m.discord_message_id) for m in stage.store.messages.latest(channel_id, 20)[:3]]
    data = {"ids": swept, "channel_id": str(channel_id), "guild_id": str(stage.sandbox.guild_id)}
    stage.client.dispatch("raw_bulk_message_delete", discord.RawBulkMessageDeleteEvent(data))
    await until(
        lambda: (
            [m.text for m in stage.store.messages.latest(channel_id, 20)] == ["Ballast hears: two"]
        )
    )


async def test_an_event_that_comes_again_brings_nothing_back(stage):
    """Discord may deliver an event again after a resume."""
    mark = stage.mark
    said = await stage.member.say(QUAY, "once")
    await stage.finished(QUAY, mark)
    event_id = int(said["id"])
    service = stage.client.services.reply_service
    persona = stage.client.services.personas.get("ballast", stage.sandbox.guild_id)
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    again = IncomingMessage(event_id, int(stage.member.id), "Tobias Reed", "once")

    await service.answer(again, persona, channel)
    assert len(stage.engine.requests) == 1

    await stage.member.delete(said)
    await until(lambda: stage.store.messages.text_of(event_id) is None)
    await service.answer(again, persona, channel)
    assert stage.store.messages.text_of(event_id) is None and len(stage.engine.requests) == 1

    key = keyed_person(HomeKey.of(stage.client.services.home).people(), stage.member.id)
    late = IncomingMessage(
        discord.utils.time_snowflake(discord.utils.utcnow()), again.author_id, "Tobias", "late"
    )
    receipt = ErasureReceipt(last_event=late.event_id)
    stage.store.erasure_requests.begin(key, 1.0, "", "{}", receipt.model_dump_json())
    await service.answer(late, persona, channel)
    assert stage.store.messages.text_of(late.event_id) is None and len(stage.engine.requests) == 1
