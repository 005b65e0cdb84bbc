"""Members' memories: who sees it where, how it is changed and forgotten, what a prompt has of
it.
"""

import json
import re
import shutil
import time
from dataclasses import replace

import aiohttp
import discord
import pytest

from bot.chat.memory_text import clean_memory
from bot.memory.actions import MAX_MEMORIES
from bot.memory.discord import _fair_room, _quote
from bot.store import Memory, Store
from personas.lore import semantic
from personas.lore.index import LoreIndex
from personas.lore.minilm import load_minilm
from personas.schemas.chat import MEMORY_SOURCE
from tests.bot.conftest import INN, OFFICE, QUAY
from tests.bot.stored_messages import guild_messages
from tests.bot.test_direct_messages import chosen, in_dm
from tests.fakes import until

KEPT = "my sister Nell keeps bees in Tamsin Lane"
ASKED = "where does my sister Nell keep her bees?"
GUILD = 7
CHANNEL = 5
WHO = 71
OTHER = 72


async def response_text(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    assert answer.ephemeral
    return answer.message


async def ask(stage, who, words=ASKED, channel=QUAY):
    mark = stage.mark
    await who.say(channel, words)
    return await stage.finished(channel, mark)


def remembered(stage):
    """The memories in the last prompt."""
    return [hit.text for hit in stage.engine.requests[-1].lore if hit.source == MEMORY_SOURCE]


def kept(stage, who=None, persona="ballast", guild_id=None):
    member = int((who or stage.member).id)
    guild_id = stage.sandbox.guild_id if guild_id is None else guild_id
    return [it.text for it in stage.store.memories.of_member(member, guild_id, persona)]


def memory(
    text=KEPT, user_id=WHO, guild_id=GUILD, persona_id="ballast", message_id=None, by_persona=False
):
    return Memory(guild_id, persona_id, user_id, text, by_persona, message_id, time.time())


# --------------------------------------------------------------------------------------- in replies


async def test_a_persona_knows_what_a_member_asked_it_to_keep_and_says_so(stage):
    message = await response_text(
        await stage.member.slash(QUAY, "remember", text=KEPT), "remembers for you"
    )
    assert KEPT in message["content"] and "never for training" in message["content"]
    reply = await ask(stage, stage.member)
    assert reply["content"].splitlines()[1].endswith(" · base model · memory")
    (hit,) = [hit for hit in stage.engine.requests[-1].lore if hit.source == MEMORY_SOURCE]
    assert (hit.heading, hit.text) == ("Tobias Reed asked you to remember", KEPT)
    assert (await ask(stage, stage.member, "good morning"))["content"].endswith(
        "-# AI-written · base model"
    )
    assert remembered(stage) == []


async def test_nobody_else_no_other_persona_and_no_other_server_has_it(stage):
    """Each row differs from the one that counts in one way, and says so in its text."""
    here = stage.sandbox.guild_id
    me = int(stage.member.id)
    them = int(stage.moderator.id)
    rows = {
        "mine": (me, here, "ballast"), "theirs": (them, here, "ballast"), "elsewhere": (me, here + 1, "ballast"),
        "in private": (me, 0, "ballast"), "of another": (me, here, "oda"),
    }  # fmt: skip
    for words, (user_id, guild_id, persona_id) in rows.items():
        stage.store.memories.add(memory(f"{KEPT} ({words})", user_id, guild_id, persona_id))
    await ask(stage, stage.member)
    assert remembered(stage) == [f"{KEPT} (mine)"]
    await ask(stage, stage.moderator)
    assert remembered(stage) == [f"{KEPT} (theirs)"]
    await ask(stage, stage.sandbox.member("Wren Castle"))
    assert remembered(stage) == []
    await ask(stage, stage.member, channel=INN)
    assert remembered(stage) == [f"{KEPT} (of another)"]
    shown = await response_text(await stage.member.slash(QUAY, "memory show"), "remembers 1 thing")
    assert "(mine)" in shown["content"] and shown["content"].count(KEPT) == 1


async def test_direct_messages_have_memories_of_their_own(stage):
    channel = await chosen(stage, "ballast")
    await response_text(
        await stage.member.slash(channel, "remember", text=KEPT),
        "only for replies to you in this conversation,",
    )
    assert kept(stage, guild_id=0) == [KEPT] and kept(stage) == []
    mark = stage.mark
    await stage.member.say(channel, ASKED)
    assert " · memory" in (await in_dm(stage, channel, ASKED, mark))["content"]
    await ask(stage, stage.member)
    assert remembered(stage) == []


async def test_memories_share_the_places_of_lore(stage):
    for number in range(4):
        stage.store.memories.add(
            memory(f"{KEPT}, hive {number}", int(stage.member.id), stage.sandbox.guild_id)
        )
    await ask(stage, stage.member)
    assert len(remembered(stage)) == len(stage.engine.requests[-1].lore) == 2


async def test_a_text_has_one_place_though_an_edit_made_two_memories_of_it(stage):
    said = await stage.member.say(QUAY, "my sister is called Nell")
    await stage.finished(QUAY, 0)
    await copied(stage, said)
    await stage.member.slash(QUAY, "remember", text=KEPT)
    stage.store.memories.add(
        memory(f"{KEPT}, they say", int(stage.member.id), stage.sandbox.guild_id)
    )
    await stage.member.edit(said, KEPT)
    await until(lambda: kept(stage) == [KEPT, KEPT, f"{KEPT}, they say"])
    await ask(stage, stage.member)
    assert sorted(remembered(stage)) == [KEPT, f"{KEPT}, they say"]


async def test_a_memory_is_embedded_once_also_after_a_restart_and_again_when_it_is_edited(
    stage, monkeypatch
):
    model = load_minilm()
    embedded = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda texts: embedded.extend(texts) or embed(texts))
    stored = "select seq, length(vectors) / 1536 as count from memory_vectors"
    stage.store.memories.add(memory(KEPT, int(stage.member.id), stage.sandbox.guild_id))
    for words, times in ((ASKED, 1), (f"{ASKED} Tell me.", 1), (f"{ASKED} Now.", 1)):
        semantic._VECTOR_CACHE.clear()  # as after a restart
        await ask(stage, stage.member, words)
        assert remembered(stage) == [KEPT] and embedded.count(KEPT) == times
    assert [(row["seq"], row["count"]) for row in stage.store._connection.read(stored)] == [(1, 1)]
    stage.store.memories.edit(1, f"{KEPT} still")
    assert stage.store._connection.read(stored) == []
    await ask(stage, stage.member)
    assert remembered(stage) == [f"{KEPT} still"] and embedded.count(f"{KEPT} still") == 1
    stage.store.memories.forget([1])
    assert stage.store._connection.read(stored) == []


async def test_one_that_is_forgotten_while_a_reply_is_prepared_is_not_in_its_prompt(
    stage, monkeypatch
):
    in_order = LoreIndex.in_order

    async def forgotten_meanwhile(index, search):
        found = await in_order(index, search)
        stage.store.memories.forget([1])
        return found

    stage.store.memories.add(memory(KEPT, int(stage.member.id), stage.sandbox.guild_id))
    await ask(stage, stage.member)
    assert remembered(stage) == [KEPT]
    monkeypatch.setattr(LoreIndex, "in_order", forgotten_meanwhile)
    await ask(stage, stage.member, f"{ASKED} Tell me.")
    assert remembered(stage) == [] and kept(stage) == []


async def test_a_regenerated_reply_has_the_memories_of_who_asked(stage):
    reply = await ask(stage, stage.member)
    assert remembered(stage) == []
    await stage.member.slash(QUAY, "remember", text=KEPT)
    mark = stage.mark
    await stage.moderator.click(reply, "Regenerate")
    await stage.finished(QUAY, mark)
    assert remembered(stage) == [KEPT]


# ------------------------------------------------------------------------------------ from messages


async def test_replies_to_a_member_are_kept_from_their_menu_as_the_persona_s_words(stage):
    stage.engine.script = lambda request: ["Your sister Nell ", "keeps bees in Tamsin Lane."]
    reply = await ask(stage, stage.member, "tell me of my sister")
    await response_text(
        await stage.member.context(QUAY, "Remember this", reply), "**Ballast** remembers for you"
    )
    (found,) = stage.store.memories.of_member(
        int(stage.member.id), stage.sandbox.guild_id, "ballast"
    )
    assert found.text == "Your sister Nell keeps bees in Tamsin Lane." and found.by_persona
    await ask(stage, stage.member)
    assert (
        stage.engine.requests[-1].lore[0].heading
        == "your words, which Tobias Reed asked you to remember"
    )
    again = await stage.member.context(QUAY, "Remember this", reply)
    await response_text(again, "Ballast remembers that already")
    stolen = await stage.moderator.context(QUAY, "Remember this", reply)
    await response_text(stolen, "to somebody else")
    assert kept(stage, stage.moderator) == []


async def test_a_member_s_own_messages_are_kept_by_whoever_answered_them(stage):
    said = await stage.member.say(QUAY, f"{KEPT}, @Understudy")
    await stage.finished(QUAY, 0)
    await response_text(await stage.member.context(QUAY, "Remember this", said), KEPT)
    (found,) = stage.store.memories.of_member(
        int(stage.member.id), stage.sandbox.guild_id, "ballast"
    )
    assert (
        found.text == f"{KEPT},"
        and not found.by_persona
        and found.channel_id == int(said["channel_id"])
    )
    mark = stage.mark
    quoted = await stage.member.slash(INN, "chat", message="I am allergic to eel")
    await stage.finished(INN, mark)
    await response_text(
        await stage.member.context(INN, "Remember this", quoted.message), "**Oda Marrow** remembers"
    )
    assert kept(stage, persona="oda") == ["I am allergic to eel"]
    for other in (said, quoted.message):
        place = QUAY if other is said else INN
        refused = await stage.moderator.context(place, "Remember this", other)
        await response_text(refused, "your own messages")


async def test_a_copy_of_a_message_is_edited_and_deleted_with_it_and_one_s_own_words_stay(stage):
    said = await stage.member.say(QUAY, KEPT)
    await stage.finished(QUAY, 0)
    await stage.member.context(QUAY, "Remember this", said)
    await until(lambda: kept(stage) == [KEPT])
    await stage.member.edit(said, f"{KEPT} no longer")
    await until(lambda: kept(stage) == [f"{KEPT} no longer"])
    await stage.member.slash(QUAY, "remember", text="I sail on Tuesdays")
    await stage.member.delete(said)
    await until(lambda: kept(stage) == ["I sail on Tuesdays"])


async def copied(stage, message):
    """The memory that a member's message becomes, and stays a copy of."""
    await response_text(
        await stage.member.context(QUAY, "Remember this", message), "remembers for you"
    )
    return kept(stage)[-1]


async def test_a_memory_names_the_channels_that_its_member_sees(stage, monkeypatch):
    channels = {it.name: it for it in stage.client.get_guild(stage.sandbox.guild_id).channels}
    may = discord.TextChannel.permissions_for
    monkeypatch.setattr(
        discord.TextChannel, "permissions_for",
        lambda it, who: discord.Permissions.none() if it.name == OFFICE else may(it, who),
    )  # fmt: skip
    await stage.member.slash(
        QUAY,
        "remember",
        text=f"not in {channels[OFFICE].mention} or <#12> but in {channels[INN].mention}",
    )
    await until(lambda: kept(stage) == [f"not in a channel or a channel but in #{INN}"])
    form = await stage.member.slash(QUAY, "memory edit", memory="1")
    await response_text(
        await stage.member.submit(form, text=f"only in {channels[INN].mention}"), f"only in #{INN}"
    )


async def test_a_copy_of_one_s_own_message_names_nobody_and_an_edit_neither(stage):
    role = stage.client.get_guild(stage.sandbox.guild_id).self_role.mention
    said = await stage.member.say(
        QUAY, f"@Understudy, ask @Wren Castle in #the-damp-lantern {role}"
    )
    await stage.finished(QUAY, 0)
    assert await copied(stage, said) == ", ask someone in #the-damp-lantern"
    await stage.member.edit(said, "@Wren Castle sails")
    await until(lambda: kept(stage) == ["someone sails"])
    assert stage.store.messages.text_of(int(said["id"])) == "@Wren Castle sails"


async def test_an_edited_copy_keeps_to_the_limits_and_one_without_words_is_forgotten(stage):
    said = await stage.member.say(QUAY, KEPT)
    await stage.finished(QUAY, 0)
    await copied(stage, said)
    for words, left in (("a " * 200, "a " * 90), ("bb " * 80 + "c" * 400, "bb " * 80 + "c" * 160)):
        await stage.member.edit(said, words)
        await until(lambda left=left: kept(stage) == [left.strip()])
    for empty in ("@Understudy", "\u200b"):
        await stage.member.edit(said, empty)
        await until(lambda: kept(stage) == [])
        await stage.member.edit(said, KEPT)
        await copied(stage, said)


async def test_a_copy_of_a_reply_is_regenerated_with_it_and_shows_no_link(stage):
    takes = iter(
        ["Nell keeps bees: https://example.org/a", "Nell has sold her bees: discord.gg/abc"]
    )
    stage.engine.script = lambda request: [next(takes)]
    reply = await ask(stage, stage.member, "tell me of my sister")
    assert await copied(stage, reply) == "Nell keeps bees: (link left out)"
    mark = stage.mark
    await stage.member.click(reply, "Regenerate")
    await stage.finished(QUAY, mark)
    await until(lambda: kept(stage) == ["Nell has sold her bees: (link left out)"])
    assert remembered(stage) == [], "it is not made from itself"
    stage.engine.script = lambda request: ["She has."]
    await ask(stage, stage.member, "has my sister Nell sold her bees?")
    assert remembered(stage) == ["Nell has sold her bees: (link left out)"]


def test_no_list_shows_a_link():
    assert _quote("see https://example.org/a") == "“see (link left out)”"


# ------------------------------------------------------------------------- seen, changed, forgotten


async def test_memories_are_seen_changed_in_a_form_and_forgotten(stage):
    sent = await stage.member.slash(QUAY, "remember", text=KEPT)
    message = await response_text(sent, "(number 1)")
    form = await stage.member.click(message, "Edit")
    stage.client._connection._view_store._modals.clear()  # as after a restart
    await response_text(
        await stage.member.submit(form, text="Nell has sold\nher bees"),
        "Changed: “Nell has sold her",
    )
    await stage.member.slash(QUAY, "remember", text="I sail on Tuesdays")
    shown = await response_text(await stage.member.slash(QUAY, "memory show"), "remembers 2 things")
    assert "`1` “Nell has sold her bees”\n`2` “I sail on Tuesdays”" in shown["content"]
    choices = await stage.member.autocomplete(QUAY, "memory forget", "memory")
    assert [(it["name"], it["value"]) for it in choices] == [
        ("all 2", "all"), ("1: Nell has sold her bees", "1"), ("2: I sail on Tuesdays", "2"),
    ]  # fmt: skip
    assert await stage.moderator.autocomplete(QUAY, "memory forget", "memory") == []
    form = await stage.member.slash(QUAY, "memory edit", memory="2")
    assert "I sail on Tuesdays" in json.dumps(form.modal)
    await response_text(
        await stage.member.submit(form, text="nell HAS sold her bees"), "remembers that already"
    )
    form = await stage.member.slash(QUAY, "memory edit", memory="2")
    await response_text(
        await stage.member.submit(form, text="I sail on Tuesdays"), "Changed: “I sail on"
    )
    await stage.member.click(message, "Forget")
    await until(lambda: kept(stage) == ["I sail on Tuesdays"])
    await stage.member.slash(QUAY, "remember", text=KEPT)
    await response_text(
        await stage.member.slash(QUAY, "memory forget", memory="all"), "has forgotten all"
    )
    assert kept(stage) == []
    for command, options in (("memory show", {}), ("memory forget", {"memory": "all"})):
        await response_text(await stage.member.slash(QUAY, command, **options), "remembers nothing")


async def test_where_no_persona_lives_all_memories_are_listed_also_those_of_a_persona_that_is_gone(
    stage,
):
    answer = await stage.member.slash(OFFICE, "memory show")
    await response_text(answer, "No persona remembers")
    me = int(stage.member.id)
    here = stage.sandbox.guild_id
    for text, user_id, guild_id, persona_id in (
        (KEPT, me, here, "ballast"), ("I sail", me, here, "mira"), ("I row", me, here, "ballast"),
        ("theirs", int(stage.moderator.id), here, "ballast"), ("elsewhere", me, here + 1, "mira"),
    ):  # fmt: skip
        stage.store.memories.add(memory(text, user_id, guild_id, persona_id))
    ballast = f"**Ballast** remembers 2 things for you here.\n`1` “{KEPT}”\n`3` “I row”"
    gone = "**mira** remembers 1 thing for you here. The persona is no longer here.\n`2` “I sail”"
    shown = await response_text(await stage.member.slash(OFFICE, "memory show"), "`/memory edit`")
    _, _, lists = shown["content"].partition("\n")
    assert lists == f"{ballast}\n{gone}"
    assert len(await stage.member.autocomplete(OFFICE, "memory edit", "memory")) == 3
    choices = await stage.member.autocomplete(OFFICE, "memory forget", "memory")
    assert [it["value"] for it in choices] == ["1", "2", "3"], "all is offered of one persona alone"
    await response_text(await stage.member.slash(QUAY, "memory show"), "Others remember 1 thing")
    await response_text(
        await stage.member.slash(INN, "memory show"),
        "Others remember 3 things",
    )
    await response_text(
        await stage.member.slash(QUAY, "memory forget", memory="2"), "Forgotten (number 2)."
    )
    assert kept(stage, persona="mira") == [] and len(kept(stage)) == 2


async def test_all_memories_take_as_many_messages_as_they_need(stage):
    for persona_id in ("ballast", "oda", "thrip"):
        for number in range(MAX_MEMORIES):
            text = f"{number}" + " long enough to fill the message" * 9
            stage.store.memories.add(
                memory(text, int(stage.member.id), stage.sandbox.guild_id, persona_id)
            )
    mark = stage.mark
    await response_text(await stage.member.slash(OFFICE, "memory show"), "`/memory edit`")
    await stage.sees("Thrip** remembers 24 things", since=mark)
    lists = [it["content"] for kind, it in stage.sandbox.events[mark:] if kind == "message"]
    numbers = [
        int(number) for text in lists for number in re.findall("^`([0-9]+)`", text, re.MULTILINE)
    ]
    assert numbers == [*range(1, 73)] and max(map(len, lists)) <= 2000


def test_a_list_cuts_only_what_has_no_room():
    assert _fair_room([10, 200, 10, 100], 150) == 65, "short ones leave their room to the others"
    assert _fair_room([10, 20], 100) == 20


async def test_nobody_touches_the_memory_of_another_or_of_another_server(stage):
    stage.store.memories.add(memory(user_id=int(stage.member.id), guild_id=stage.sandbox.guild_id))
    stage.store.memories.add(
        memory(user_id=int(stage.moderator.id), guild_id=stage.sandbox.guild_id + 1)
    )
    for number in ("1", "2", "3", "all my friends", "9" * 30):
        for command in ("memory edit", "memory forget"):
            answer = await stage.moderator.slash(QUAY, command, memory=number)
            await response_text(answer, f"no memory {number} of yours")
    await response_text(
        await stage.moderator.slash(QUAY, "memory forget", memory="all"),
        "remembers nothing",
    )
    for command in ("memory edit", "memory forget"):
        await response_text(
            await stage.member.slash(QUAY, command, memory="1", persona="oda"),
            "is not Oda Marrow's",
        )
    assert [stage.store.memories.get(1, int(stage.member.id)).text] == kept(stage) == [KEPT]
    assert stage.store.memories.get(2, int(stage.moderator.id))


async def test_what_is_too_long_too_much_or_nothing_is_refused_with_the_limit(stage):
    await response_text(
        await stage.member.slash(QUAY, "remember", text="<@123>\u202e \x07"), "“someone”"
    )
    await response_text(
        await stage.member.slash(QUAY, "remember", text="SOMEONE"), "remembers that already"
    )
    for empty in ("\u202e", "\u200b\u200b", "\u2800 \u0301"):
        await response_text(
            await stage.member.slash(QUAY, "remember", text=empty), "There is nothing to remember."
        )
    long = "at most 400 characters and 90 words"
    refused = await response_text(await stage.member.slash(QUAY, "remember", text="a " * 91), long)
    assert refused["content"].endswith(f"It was: “{'a ' * 90}a”")
    stage.engine.script = lambda request: ["b" * 401]
    reply = await ask(stage, stage.member)
    await response_text(await stage.member.context(QUAY, "Remember this", reply), long)
    for number in range(MAX_MEMORIES - 1):
        text = f"{number}" + " long enough to fill the message" * 9
        stage.store.memories.add(memory(text, int(stage.member.id), stage.sandbox.guild_id))
    assert len(kept(stage)) == MAX_MEMORIES
    await response_text(
        await stage.member.slash(QUAY, "remember", text=KEPT), f"remembers {MAX_MEMORIES} things"
    )
    shown = await response_text(
        await stage.member.slash(QUAY, "memory show"), f"remembers {MAX_MEMORIES} things"
    )
    assert len(shown["content"]) <= 2000 and shown["content"].count("\n") == MAX_MEMORIES
    await response_text(
        await stage.member.slash(INN, "remember", text=KEPT), "**Oda Marrow** remembers for you"
    )


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("tell <@!12> and <@&34>", "tell someone and someone"),
        ("a\n[Oda]\tb\x00", "a [Oda] b"),
        ("\u2066 \n", ""),
        (
            "<:wave_2:12> <a:bee:3> </memory show:4> in <#5>",
            ":wave_2: :bee: /memory show in a channel",
        ),
        ("since <t:86400:D>, `<@12>`", "since 2 January 1970, `someone`"),
        ("Zoe\u0308", "Zoë"),
    ],
)
def test_a_memory_is_one_line_that_mentions_nobody(text, clean):
    assert clean_memory(text) == clean


# ------------------------------------------------------------------------------------------ privacy


async def test_privacy_shows_exports_and_erases_memories(stage):
    await stage.member.slash(QUAY, "remember", text=KEPT)
    stage.store.memories.add(
        memory(f"ask Tobias Reed: {KEPT}", int(stage.moderator.id), stage.sandbox.guild_id)
    )
    shown = await stage.member.slash(QUAY, "privacy show")
    await response_text(shown, "• Texts that you asked personas to remember: 1. Each stays")
    message = await response_text(
        await stage.member.slash(QUAY, "privacy export"), "Everything I keep about you"
    )
    async with aiohttp.ClientSession() as http, http.get(message["attachments"][0]["url"]) as file:
        about = json.loads(await file.read())
    assert [(it["number"], it["text"], it["persona_id"]) for it in about["memories"]] == [
        (1, KEPT, "ballast")
    ]
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "what personas remember for you"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    assert kept(stage) == [] and kept(stage, stage.moderator) == ["ask someone: [removed]"]


async def test_consent_to_training_is_another_matter(stage):
    """A member who has not opted in has memories; no exchange that may be trained on has a word of
    them.
    """
    await stage.member.slash(QUAY, "privacy opt-out")
    await stage.member.slash(QUAY, "remember", text=KEPT)
    await ask(stage, stage.member)
    assert remembered(stage) == [KEPT]
    assert stage.store.messages.opted_in_exchanges(stage.sandbox.guild_id, "ballast", 10) == []
    assert not any(
        KEPT in message.text for message in guild_messages(stage.store, stage.sandbox.guild_id)
    )


# ---------------------------------------------------------------------------------------- the store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def test_a_deleted_channel_takes_the_copies_of_its_messages(store):
    for channel_id, message_id in ((CHANNEL, 1), (CHANNEL + 1, 2), (CHANNEL, 3)):
        place = {
            "guild_id": GUILD,
            "channel_id": channel_id,
            "author_id": WHO,
            "author_name": "Ada",
        }
        store.messages.append(
            **place, text=KEPT, at=float(message_id), discord_message_id=message_id
        )
        store.memories.add(
            replace(memory(f"{message_id}", message_id=message_id), channel_id=channel_id)
        )
    store.memories.add(replace(memory("mine"), channel_id=CHANNEL))
    store.messages.delete_before(2.0)
    store.messages.delete_channel(CHANNEL)
    assert [it.text for it in store.memories.of_member(WHO, GUILD, "ballast")] == ["2", "mine"]


def test_old_conversations_go_and_memories_of_them_stay_until_their_message_is_deleted(store):
    place = {"guild_id": GUILD, "channel_id": CHANNEL, "author_id": WHO, "author_name": "Ada"}
    store.messages.append(**place, text=KEPT, at=1.0, discord_message_id=1)
    store.memories.add(memory(message_id=1))
    assert store.messages.delete_before(2.0) == 1 and store.memories.get(1, WHO)
    assert not store.messages.delete(1) and store.memories.get(1, WHO) is None


def test_a_server_and_a_persona_that_go_take_their_memories(store):
    for guild_id, persona_id in (
        (GUILD, "ballast"),
        (GUILD, "oda"),
        (GUILD + 1, "oda"),
        (GUILD + 1, "thrip"),
    ):
        store.memories.add(memory(guild_id=guild_id, persona_id=persona_id))
    assert store.guilds.known() == {GUILD, GUILD + 1}
    store.guilds.delete(GUILD)
    store.guilds.forget_persona_memories("thrip")
    assert [store.memories.get(seq, WHO) is None for seq in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        True,
    ]


def test_a_backup_brings_back_nothing_that_was_forgotten_since_and_has_the_edits(store, tmp_path):
    for text in ("stays", "is forgotten", "is edited"):
        store.memories.add(memory(text, message_id=9))
    store.memories.add(memory("another's", OTHER))
    store.truncate_wal()
    shutil.copy(tmp_path / "understudy.sqlite", tmp_path / "old.sqlite")
    store.memories.forget([2])
    store.memories.edit(3, "was edited")
    store.memories.add(memory("is new"))
    with Store.open(tmp_path / "old.sqlite") as restored:
        restored.merge_later_decisions(store)
        found = restored.memories.of_member(WHO, GUILD, "ballast")
        assert [(it.text, it.message_id) for it in found] == [("stays", 9), ("was edited", None)]
        assert restored.memories.get(4, OTHER)
    with Store.open(tmp_path / "other.sqlite") as foreign:
        foreign.memories.add(memory("of another home"))
        foreign.merge_later_decisions(store)
        assert foreign.memories.get(1, WHO).text == "of another home"
