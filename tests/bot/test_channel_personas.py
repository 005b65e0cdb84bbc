"""Several personas in a channel: who answers, and what they see of each other."""

import time

from bot.chat.discord_addressing import addressees, decide_on
from bot.chat.places import ChannelRef, channel_ref
from bot.guild_settings.definitions import ALIASES
from bot.personas.creation import PersonaForm
from bot.platform.request_origin import RequestOrigin
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.fakes import until


async def said(answer, words):
    await until(lambda: words in answer.text)
    return answer.text


async def set_three(stage, channel=QUAY, **options):
    answer = await stage.moderator.slash(
        channel, "persona set", persona="ballast", second="oda", third="thrip", **options
    )
    return await said(answer, "lives here now")


async def answered_by(stage, text, channel=QUAY, **options):
    mark = stage.mark
    await stage.member.say(channel, text, **options)
    reply = await stage.finished(channel, mark)
    return reply["author"]["username"], reply


async def test_each_wakes_by_its_name_a_reply_or_a_mention_and_the_first_answers_the_rest(stage):
    text = await set_three(stage)
    assert "these answer: **Oda Marrow**, **Sir Aurelio Thrip**. It answers the rest." in text
    name, _ = await answered_by(stage, "good morning")
    assert name == "Ballast"
    name, reply = await answered_by(stage, "is there soup, ODA?")
    assert name == "Oda Marrow"
    name, _ = await answered_by(stage, "how thick is it?", reply_to=reply)
    assert name == "Oda Marrow"
    name, _ = await answered_by(stage, "@Understudy what does Thrip say?")
    assert name == "Sir Aurelio Thrip"
    name, _ = await answered_by(stage, "no sodas here")
    assert name == "Ballast"
    name, _ = await answered_by(stage, "and Thrip?")
    assert name == "Sir Aurelio Thrip"
    seen = [(turn.name, turn.by_persona) for turn in stage.engine.requests[-1].turns]
    assert ("Sir Aurelio Thrip", True) in seen and ("Oda Marrow", False) in seen
    assert ("Ballast", False) in seen and len(stage.engine.requests) == 6


async def test_aliases_are_set_for_a_server_and_call_in_any_script(stage):
    await set_three(stage)
    answer = await stage.moderator.slash(
        QUAY, "persona alias", persona="oda", names="Mother Marrow, 女将"
    )
    assert "`mother marrow`, `女将`" in await said(answer, "is called by")
    for text in ("evening, mother  marrow!", "女将さん、スープは?"):
        name, _ = await answered_by(stage, text)
        assert name == "Oda Marrow"
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names="Oda, ,x")
    await said(answer, "no letters")
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names="understudy")
    await said(answer, "The bot itself is called")
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names="Mum, You,x")
    assert "`You`, `x`" in await said(answer, "Many messages")
    hidden = "\u202eMarrow, @everyone"  # turns the line around, and calls everybody
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names=hidden)
    assert "`marrow`, `\uff20everyone`" in await said(answer, "is called by")
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names="none")
    assert "女将" not in await said(answer, "is called by")
    name, _ = await answered_by(stage, "女将さん?")
    assert name == "Ballast"
    refused = await stage.member.slash(QUAY, "persona alias", persona="oda", names="x")
    await said(refused, "moderators")


async def test_a_name_that_another_persona_has_is_told_and_the_first_answers_to_it(stage):
    answer = await stage.moderator.slash(QUAY, "persona set", persona="oda", second="oda")
    await said(answer, "named twice")
    await set_three(stage)
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="oda", names="Mother")
    assert "too" not in await said(answer, "is called by")
    answer = await stage.moderator.slash(QUAY, "persona alias", persona="ballast", names="mother")
    assert "**Oda Marrow** is called `mother`, too" in await said(answer, "is called by")
    assert (await answered_by(stage, "Mother?"))[0] == "Ballast"


async def test_a_line_that_calls_nobody_joins_the_reply_that_waits(stage):
    await set_three(stage)
    place = int(stage.sandbox.guild_id), int(stage.sandbox.channel(QUAY)["id"])
    set_answering(stage.client.services, *place, {"wait_s": 0.4})
    mark = stage.mark
    await stage.member.say(QUAY, "Oda!")
    await until(lambda: stage.client.services.reply_service.line_waits._waits)
    await stage.member.say(QUAY, "is there soup?")
    reply = await stage.finished(QUAY, mark)
    assert reply["author"]["username"] == "Oda Marrow" and len(stage.engine.requests) == 1


async def test_they_are_shown_listed_kept_over_a_restart_and_cleared(tmp_path):
    async with on_stage(tmp_path) as stage:
        await set_three(stage, OFFICE)
    async with on_stage(tmp_path) as stage:
        shown = await stage.member.slash(OFFICE, "persona show")
        assert "**Sir Aurelio Thrip**" in await said(shown, "these answer")
        listed = await said(await stage.member.slash(OFFICE, "persona list"), "Thrip")
        office = stage.sandbox.channel(OFFICE)["id"]
        assert listed.count(f"<#{office}>") == 3
        assert listed.count(f"<#{office}> (the default)") == 1
        assert listed.count(f"<#{office}> (when called)") == 2
        choices = await stage.moderator.autocomplete(OFFICE, "persona alias", "persona", persona="")
        assert [one["name"] for one in choices][:3] == [
            "Ballast · the default here", "Oda Marrow · lives here", "Sir Aurelio Thrip · lives here",
        ]  # fmt: skip
        name, _ = await answered_by(stage, "Thrip?", OFFICE)
        assert name == "Sir Aurelio Thrip"
        await stage.moderator.slash(OFFICE, "persona clear")
        place = ChannelRef(int(stage.sandbox.guild_id), int(office))
        assert stage.client.services.personas_in(place) == []
        assert addressees(stage.client.services, "Thrip?", place) == []
        assert not stage.store.channels.personas(place.guild_id, place.channel_id)


async def test_they_go_with_the_persona_and_with_the_server(stage):
    await set_three(stage)
    guild_id = int(stage.sandbox.guild_id)
    place = ChannelRef(guild_id, int(stage.sandbox.channel(QUAY)["id"]))
    services = stage.client.services
    ALIASES.write(stage.store, ["Mother"], guild_id, persona_id="oda")
    stage.store.guilds.forget_persona_settings("thrip")
    assert [one.id for one in services.personas_in(place)] == ["ballast", "oda"]
    stage.store.guilds.forget_persona_settings("ballast")
    assert [one.id for one in services.personas_in(place)] == ["oda"], "the next is the first now"
    stage.store.guilds.delete(guild_id)
    assert not services.personas_in(place)
    assert not ALIASES.held(stage.store, guild_id, persona_id="oda")


async def test_deciding_among_five_takes_less_than_five_milliseconds(stage):
    text = "Oda and Thrip"
    services = stage.client.services
    origin = RequestOrigin(int(stage.sandbox.guild_id), channel_id=0, user_id=5)
    for name in ("Marlow Finch", "Hesper Quill"):
        await services.creation.create(origin, PersonaForm(name, "Somebody of the harbour."))
    await set_three(stage, fourth="marlow-finch", fifth="hesper-quill")
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    place = channel_ref(channel)
    assert len(services.personas_in(place)) == 5
    message = await channel.fetch_message(int((await stage.member.say(QUAY, text))["id"]))
    times = []
    for _ in range(30):
        began = time.perf_counter()
        decide_on(stage.client, message, channel)
        addressees(services, text, place)
        times.append(time.perf_counter() - began)
    assert sorted(times)[15] < 0.005
