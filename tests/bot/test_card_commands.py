"""`/persona import|export|remove`: a guild's own personas, which nobody else sees."""

import asyncio
import re
import time

import aiohttp
import pytest

from bot.guilds.store.channels import Channel
from bot.personas import guild_lore
from bot.personas.card_import import import_card, same_name_notes
from bot.personas.creation import PersonaForm
from bot.personas.discord_cards import UndoReplacementButton
from bot.personas.discord_lore import UndoLoreRemovalButton
from bot.personas.discord_removal import UndoRemovalButton
from bot.personas.guild_lore import GuildLore
from bot.personas.registry import (
    MAX_GUILD_PERSONAS,
    ChangedCardError,
    PersonaExistsError,
    PersonaRegistry,
    guild_card_path,
)
from bot.platform.errors import RefusedError
from bot.platform.request_origin import RequestOrigin
from bot.platform.trash import require_entry
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.errors import RequestError
from personas.home import trash
from personas.home.job_material import ShippedData
from personas.home.lore_sets import LoreSets
from personas.home.persona_ids import short_id
from personas.home.trash import KEPT_S, TrashEntry
from personas.schemas.training import TrainingRequest
from sandbox import channel_webhooks
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import ApiError
from sandbox.validation import FILE_UPLOAD
from tests.bot.conftest import OFFICE
from tests.fakes import until
from tests.personas.cards import PIXEL, V2, as_json, brought_in, v3

GUILD = 1_111_111_111_111_111_111
OTHER = 2_222_222_222_222_222_222
MIRA = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content


async def response_text(answer, words):
    await until(lambda: words in answer.text)
    assert answer.ephemeral
    return answer.message


async def bring_in(stage, content=MIRA, name="mira.png", who=None, **more):
    return await (who or stage.moderator).slash(
        OFFICE, "persona import", card=StoredFile.named(name, content), **more
    )


async def replaced(stage, answer, words):
    """The result of an import that asks whether it replaces the card of Mira, once that is said."""
    question = await response_text(answer, "Replace its card by this file?")
    assert "**Mira** (`mira`) is a persona of this server already" in question["content"]
    return await response_text(await stage.moderator.click(question, "Replace"), words)


async def removed(stage, persona, channel=OFFICE):
    """The message of a persona's removal, once the question is answered."""
    question = await stage.moderator.slash(channel, "persona remove", persona=persona)
    message = await response_text(question, "This can be undone for a day")
    return await response_text(await stage.moderator.click(message, "Remove"), "is removed.")


async def fetched(url):
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return await answer.read()


async def sent(form, who, *files):
    """The answer to the form of a card, which shows it alone."""
    (row,) = form.modal["components"]
    row["component"] |= {"max_values": 2}  # as by a client of its own
    answer = await who.submit(form, file=[StoredFile.named(*file) for file in files])
    await until(lambda: answer.text)
    return answer


async def test_without_options_a_form_takes_the_card(stage):
    form = await stage.moderator.slash(OFFICE, "persona import", id="keeper")
    (row,) = form.modal["components"]
    assert row["component"]["type"] == FILE_UPLOAD and "at most 25 MB" in row["description"]
    for files, words in (
        ([("a.png", MIRA), ("b.png", MIRA)], "The form has no file, or several. Choose one file."),
        ([("a.png", b"no card")], "a.png"),
    ):
        refused = await sent(form, stage.moderator, *files)
        await response_text(refused, words)
        form = await stage.moderator.click(refused.message, "Try again")
    answer = await sent(form, stage.moderator, ("mira.png", MIRA))
    await response_text(answer, "**Mira** (`keeper`) is a persona of this server now.")
    persona = stage.client.services.personas.find("keeper", int(stage.sandbox.guild_id))
    assert persona.avatar.read_bytes() == PIXEL
    form = await stage.moderator.slash(OFFICE, "persona import")
    stage.sandbox.set_roles(stage.moderator.id, ())
    late = await sent(form, stage.moderator, ("mira.png", MIRA))
    await response_text(late, "Only moderators")


def test_a_persona_that_has_such_a_name_keeps_it_and_others_do_not_get_it(tmp_path):
    before = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    card = parse_card(as_json(V2), "it")
    mira = brought_in(before, GUILD, card).persona
    path = guild_card_path(tmp_path, mira.id)
    path.write_text(path.read_text().replace('name = "Mira"', 'name = "You"'))
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    assert personas.get(mira.id, GUILD).name == "You"
    table = personas.table(mira.id)
    assert personas.rewrite(mira.id, table | {"tagline": "Keeps the light."}).name == "You"
    assert personas.rewrite(mira.id, table | {"name": "🦀"}).name == "🦀"
    with pytest.raises(RefusedError, match="Many messages have “You”"):
        personas.rewrite(mira.id, table)


def test_a_card_that_has_changed_meanwhile_is_not_replaced(tmp_path):
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    before = personas.table("oda")
    personas.rewrite("oda", before | {"tagline": "Of the early one."}, over=before)
    with pytest.raises(ChangedCardError, match="Somebody else"):
        personas.rewrite("oda", before | {"tagline": "Of the late one."}, over=before)
    assert personas.table("oda")["tagline"] == "Of the early one."


async def test_a_card_becomes_a_persona_that_greets_answers_and_wears_its_picture(stage):
    said = await response_text(await bring_in(stage), "**Mira** (`mira`) is a persona")
    assert "tokens of every prompt" in said["content"]
    mark = stage.mark
    await stage.moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
    greeting = await stage.sees("You found the stairs, Mina Vale.", by="Mira", since=mark)
    assert greeting["author"]["avatar"]
    mark = stage.mark
    await stage.member.say(OFFICE, "evening")
    assert (await stage.finished(OFFICE, mark))["author"]["username"] == "Mira"
    asked = stage.engine.requests[-1].persona
    assert (
        asked.system_prompt == "{{original}} You are {{char}}."
        and asked.avatar.read_bytes() == PIXEL
    )


async def test_macros_of_a_greeting_have_their_values_and_the_import_lists_what_means_something_else(
    stage,
):
    greeting = "{{random:Ahoy,Ahoy}} <USER>, it is {{time}}.{{// for people}}{{getvar::x}}"
    data = {
        **V2["data"],
        "first_mes": greeting,
        "scenario": "At {{time}}.",
        "extensions": {"world": "The coast"},
    }
    imported = await bring_in(stage, as_json({**V2, "data": data}), "mira.json")
    said = (await response_text(imported, "is a persona"))["content"]
    assert "(1 passage): 1 entry by keys" in said
    assert "another meaning: {{time}} in scenario – the moment of the reply" in said
    assert "another meaning: {{time}} in first\\_mes – the moment at which it is sent" in said
    assert re.search(r"Not taken: .*\{\{getvar\}\} in first\\_mes", said)
    assert "- Not taken: extension world – it names a lorebook" in said
    assert "- Not taken: entry 2 “x” – disabled" in said
    mark = stage.mark
    await stage.moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
    sent = await stage.sees("Ahoy Mina Vale, it is ", by="Mira", since=mark)
    assert re.match(r"Ahoy Mina Vale, it is \d\d:\d\d UTC\.(\n|$)", sent["content"])


async def test_the_character_book_is_lore_in_that_server_until_the_persona_goes(stage, tmp_path):
    said = await response_text(await bring_in(stage), "is a persona of this server")
    assert "lore now (1 passage)" in said["content"]
    await stage.moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
    mark = stage.mark
    await stage.member.say(OFFICE, "When do you trim the lamp?")
    assert "lore: mira" in (await stage.finished(OFFICE, mark))["content"]
    assert "Mira trims the lamp at six." in [hit.text for hit in stage.engine.requests[-1].lore]
    no_book = {**V2, "data": {**V2["data"], "character_book": None}}
    await replaced(stage, await bring_in(stage, as_json(no_book), "mira.json"), "has a new card.")
    assert not list(tmp_path.glob("lore/*/*/*.md"))
    await replaced(stage, await bring_in(stage), "has a new card.")
    assert list(tmp_path.glob("lore/*/*/*.md"))
    await removed(stage, "mira")
    assert not list(tmp_path.glob("lore/*/*/*.md"))


async def test_a_character_book_without_room_replaces_nothing(stage, tmp_path, monkeypatch):
    def with_book(size):
        entries = [{"keys": ["lamp"], "content": "The lamp shines. " * (size // 17)}]
        return as_json({**V2, "data": {**V2["data"], "character_book": {"entries": entries}}})

    await response_text(await bring_in(stage), "lore now (1 passage)")
    [file] = tmp_path.glob("lore/*/*/*.md")
    first = file.read_bytes()
    monkeypatch.setattr(guild_lore, "MAX_GUILD_BYTES", 2000)
    said = await replaced(
        stage, await bring_in(stage, with_book(3000), "mira.json"), "has a new card."
    )
    assert "lore is as before" in said["content"] and "of all personas" in said["content"]
    assert file.read_bytes() == first
    for size in (1800, 1700):
        answer = await bring_in(stage, with_book(size), "mira.json")
        await replaced(stage, answer, "is lore now")
    assert 1600 < len(file.read_bytes()) < 1800, "the room of the earlier book counts"


async def test_an_export_holds_what_was_imported(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    for form, name, forms in (
        ("v2", "mira.json", 1),
        ("png", "mira.png", 1),
        ("toml", "mira.toml", 2),
    ):
        answer = await stage.moderator.slash(OFFICE, "persona export", persona="Mira", format=form)
        message = await response_text(answer, "The card of **Mira**.")
        assert (
            message["attachments"][0]["filename"] == name and len(message["attachments"]) == forms
        )
        card = parse_card(await fetched(message["attachments"][0]["url"]), name)
        assert card.document == V2
    answer = await stage.moderator.slash(OFFICE, "persona export", persona="oda", format="charx")
    message = await response_text(answer, "The card of **Oda Marrow**.")
    assert parse_card(await fetched(message["attachments"][0]["url"]), "oda").name == "Oda Marrow"


async def test_an_import_under_an_id_replaces_card_and_face_once_that_is_said(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    await stage.moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
    mark = stage.mark
    await stage.member.say(OFFICE, "evening")
    before = await stage.finished(OFFICE, mark)
    ada = {**V2, "data": {**V2["data"], "name": "Ada"}}
    face = (SHIPPED_CARDS / "oda.png").read_bytes()
    newer = write_card(
        with_picture(parse_card(as_json(ada), "it"), face, "it"), "png", "it"
    ).content
    answer = await bring_in(stage, newer, "ada.png", id="mira")
    said = await replaced(stage, answer, "**Ada** (`mira`) has a new")
    assert "It was called Mira." in said["content"]
    mark = stage.mark
    await stage.member.say(OFFICE, "evening")
    after = await stage.finished(OFFICE, mark)
    assert (
        after["author"]["username"] == "Ada"
        and after["author"]["avatar"] != before["author"]["avatar"]
    )
    await response_text(await stage.moderator.click(said, "Undo"), "speaks by the card from before")
    mark = stage.mark
    await stage.member.say(OFFICE, "evening")
    again = await stage.finished(OFFICE, mark)
    assert again["author"]["username"] == "Mira"
    assert again["author"]["avatar"] == before["author"]["avatar"]


async def test_each_replaced_card_comes_back_by_its_own_button_and_an_undo_can_be_undone(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    guild_id = int(stage.sandbox.guild_id)
    personas = stage.client.services.personas

    def now():
        mira = personas.find("mira", guild_id)
        return mira.description, mira.avatar.read_bytes() if mira.avatar else None

    states = [now()]
    said = []
    for text in ("Keeps two lighthouses.", "Keeps three lighthouses."):
        newer = {**V2, "data": {**V2["data"], "description": text, "character_book": None}}
        answer = await bring_in(stage, as_json(newer), "mira.json")
        said.append(await replaced(stage, answer, "has a new card."))
        states.append(now())
    mira = personas.find("mira", guild_id)
    # The button of an undone replacement becomes one that undoes that.
    shown = [undo_stamp(message) for message in said]
    first = shown[0]
    for index, state in ((0, 0), (1, 1), (0, 2), (1, 0)):
        undone = await stage.moderator.click(said[index], "Undo")
        await until(lambda answer=undone, old=shown[index]: undo_stamp(answer.message) != old)
        shown[index] = undo_stamp(undone.message)
        assert now() == states[state], (index, state)
        files = [] if state else ["character-book-1.md"]
        assert guild_lore_of(stage).files(guild_id, mira.id) == files
    assert states[0][1], "with its picture"
    with pytest.raises(RefusedError, match="That was brought back already"):
        require_entry(personas.home, guild_id, kind="card", id=mira.id, stamp=first)
    with pytest.raises(RefusedError, match="can be brought back no more"):
        require_entry(personas.home, guild_id, kind="card", id=mira.id, stamp="0-0")


def undo_stamp(message):
    return message["components"][0]["components"][0]["custom_id"].rpartition(":")[2]


def guild_lore_of(stage):
    return GuildLore(stage.client.services.home, stage.client.services.lore)


def test_the_custom_id_of_an_undo_has_room_for_the_longest_persona_id(personas):
    persona_id = personas.new_id(2**63, "Mira", "x" * 99)
    entry = TrashEntry(guild_id=GUILD, kind="persona", id=persona_id, name="Mira", at=1.0)
    for kind in (UndoReplacementButton, UndoRemovalButton, UndoLoreRemovalButton):
        custom_id = kind(persona_id, entry.stamp).item.custom_id
        assert len(custom_id) <= 100
        assert kind.__discord_ui_compiled_template__.fullmatch(custom_id)


async def test_two_personas_removed_from_a_channel_come_back_in_another_order(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    ada = as_json({**V2, "data": {**V2["data"], "name": "Ada"}})
    await response_text(await bring_in(stage, ada, "ada.json"), "is a persona of this server")
    services = stage.client.services
    guild_id = int(stage.sandbox.guild_id)
    ids = [services.personas.find(name, guild_id).id for name in ("mira", "ada")]
    channel_id = int(stage.sandbox.channel(OFFICE)["id"])
    channels = stage.store.channels
    channels.assign(Channel(guild_id, channel_id, ids[0], "mentions", 1, 1.0), [ids[1], "oda"])
    said = [await removed(stage, name) for name in ("mira", "ada")]
    for removal in said:
        undone = await stage.moderator.click(removal, "Undo")
        message = await response_text(undone, "is back, with channels")
        assert "Meanwhile" not in message["content"]
    assert channels.personas(guild_id, channel_id) == [*ids, "oda"]


async def test_a_picture_that_discord_does_not_take_costs_only_the_face(stage, monkeypatch, caplog):
    def refuse(uri):
        if uri is not None:
            raise ApiError.field("avatar", "IMAGE_INVALID", "Invalid image data")

    monkeypatch.setattr(channel_webhooks, "read_picture", refuse)
    await response_text(await bring_in(stage), "is a persona of this server")
    mark = stage.mark
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    greeting = await stage.sees("You found the stairs", by="Mira", since=mark)
    assert greeting["author"]["avatar"] is None and "Mira speaks without a face" in caplog.text


async def test_a_long_greeting_is_several_messages_without_links(stage):
    greeting = "See https://example.org/x. " + "The stairs are wet. " * 150
    long = {**V2, "data": {**V2["data"], "first_mes": greeting}}
    await response_text(
        await bring_in(stage, as_json(long), "mira.json"), "is a persona of this server"
    )
    mark = stage.mark
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    last = await stage.sees("a greeting by this persona's author", by="Mira", since=mark)
    said = [
        message
        for message in stage.sandbox.messages(OFFICE)
        if message["author"]["username"] == "Mira"
    ]
    assert [message["id"] for message in said][-1] == last["id"] and len(said) == 2
    assert "".join(message["content"] for message in said).count("The stairs are wet.") == 150
    assert said[0]["content"].startswith("See (link left out)")


async def test_a_removed_persona_leaves_its_channels_and_comes_back_with_everything(
    stage, tmp_path
):
    await response_text(await bring_in(stage), "is a persona of this server")
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    await response_text(
        await stage.member.slash(OFFICE, "remember", text="I sail."), "remembers for you"
    )
    question = await stage.moderator.slash(OFFICE, "persona remove", persona="mira")
    message = await response_text(question, "Remove **Mira** (`mira`)?")
    assert "1 channel, 1 memory of members, 1 lore file" in message["content"]
    persona = stage.client.services.personas.find("mira", int(stage.sandbox.guild_id))
    assert persona, "a question removes nobody"
    said = await response_text(await stage.moderator.click(message, "Remove"), "is removed.")
    (file,) = said["attachments"]
    assert parse_card(await fetched(file["url"]), file["filename"]).name == "Mira"
    show = await stage.moderator.slash(OFFICE, "persona show")
    await response_text(show, "No persona lives here.")
    again = await stage.moderator.slash(OFFICE, "persona remove", persona="mira")
    await response_text(again, "There is no persona 'mira'")
    taken = await bring_in(stage, as_json(v3()), "other.json", id="mira")
    await response_text(taken, "who was removed and can be brought back")
    back = await stage.moderator.click(said, "Undo")
    await response_text(back, "**Mira** is back, with channels, versions, memories and lore.")
    await response_text(await stage.moderator.slash(OFFICE, "persona show"), "Mira")
    assert stage.client.services.personas.find("mira", int(stage.sandbox.guild_id)) == persona
    assert stage.store.memories.count(persona.id) == 1 and list(tmp_path.glob("lore/*/*/*.md"))
    with pytest.raises(RefusedError, match="brought back no more"):
        await stage.client.services.removal.bring_back(
            int(stage.sandbox.guild_id), persona.id, stamp="", by=1
        )


async def test_a_removal_that_fails_half_way_changes_nothing(stage, monkeypatch, tmp_path):
    await response_text(await bring_in(stage), "is a persona of this server")
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    question = await stage.moderator.slash(OFFICE, "persona remove", persona="mira")
    message = await response_text(question, "can be undone for a day")
    move = trash.replace_durably

    def fail(source, target):
        if "lore" in source.parts:
            raise OSError(28, "No space left on device")
        return move(source, target)

    monkeypatch.setattr(trash, "replace_durably", fail)
    refused = await stage.moderator.click(message, "Remove")
    await until(lambda: refused.text)
    await response_text(await stage.moderator.slash(OFFICE, "persona show"), "Mira")
    assert PersonaRegistry(SHIPPED_CARDS, tmp_path).find("mira", int(stage.sandbox.guild_id))
    assert list(tmp_path.glob("lore/*/*/*.md")) and not list(tmp_path.glob("trash/*/*/*"))


async def test_the_day_ends_with_what_was_known_of_the_persona(stage, tmp_path):
    await response_text(await bring_in(stage), "is a persona of this server")
    persona = stage.client.services.personas.find("mira", int(stage.sandbox.guild_id))
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    await response_text(
        await stage.member.slash(OFFICE, "remember", text="I sail."), "remembers for you"
    )
    await removed(stage, "mira")
    removal = stage.client.services.removal
    for now, count in ((time.time() + KEPT_S - 60, 1), (time.time() + KEPT_S + 60, 0)):
        await removal.empty_trash(now)
        removal.forget_memories(now)
        assert stage.store.memories.count(persona.id) == count
    assert stage.store.memories.count(persona.id) == 0
    assert not list(tmp_path.glob("trash/*/*/*"))
    with pytest.raises(RefusedError, match="brought back no more"):
        await removal.bring_back(int(stage.sandbox.guild_id), persona.id, stamp="", by=1)


async def test_a_channel_with_another_persona_by_now_keeps_it(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    await stage.moderator.slash(OFFICE, "persona set", persona="mira")
    said = await removed(stage, "mira")
    await stage.moderator.slash(OFFICE, "persona set", persona="oda")
    back = await stage.moderator.click(said, "Undo")
    await response_text(back, "Meanwhile these channels were given other personas")
    await response_text(await stage.moderator.slash(OFFICE, "persona show"), "Oda Marrow")


def v2_with(**changes):
    return as_json({**V2, "data": {**V2["data"], **changes}})


def v3_with(**changes):
    card = v3()
    card["data"] |= changes
    return as_json(card)


async def test_what_cannot_be_a_persona_is_refused_with_the_reason(stage):
    for content, name, words in (
        (b"hello", "notes.txt", "notes.txt is not"),
        (PIXEL, "cat.png", "cat.png is a picture without"),
        (v2_with(name="Clyde"), "c.json", "without 'discord' or 'clyde'"),
        (v2_with(name="Oda Marrow"), "o.json", "Oda Marrow (`oda`)"),
        (v2_with(description="long " * 3000), "l.json", "at most 1400 leave room"),
        (v2_with(first_mes="long " * 3000), "l.json", "has 14999 characters"),
        (v3_with(name="You"), "y.json", "Many messages have"),
        (v3_with(nickname="hello"), "h.json", "Many messages have"),
        (v3_with(name="understudy"), "u.json", "The bot itself is called"),
        (v3_with(nickname="Understudy."), "u.json", "The bot itself is called"),
    ):
        await response_text(await bring_in(stage, content, name), words)
        assert len(stage.client.services.personas.of(stage.sandbox.guild_id)) == 3


async def test_members_neither_import_nor_export(stage):
    await response_text(await bring_in(stage, who=stage.member), "Only moderators may do this.")
    await response_text(
        await stage.member.slash(OFFICE, "persona export", persona="oda"),
        "Only moderators may do this.",
    )
    await response_text(
        await stage.member.slash(OFFICE, "persona remove", persona="oda"),
        "Only moderators may do this.",
    )


async def test_in_direct_messages_there_are_the_personas_for_everybody_only(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    room = await stage.moderator.dm()
    answer = await stage.moderator.slash(
        room["id"], "persona import", card=StoredFile.named("mira.png", MIRA)
    )
    await response_text(answer, "Cards belong to a server.")
    listed = await stage.moderator.slash(room["id"], "persona list")
    await until(lambda: "Ballast" in (listed.message or {}).get("content", ""))
    assert "Mira" not in listed.message["content"]


# ---------------------------------------------------------------------------------- what others see


@pytest.fixture
def personas(tmp_path):
    return PersonaRegistry(SHIPPED_CARDS, tmp_path)


def card_named(name):
    return parse_card(as_json({**V2, "data": {**V2["data"], "name": name}}), "it")


def test_another_guild_sees_nothing_and_can_have_the_same(personas):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    assert (
        personas.find("mira", GUILD)
        == personas.find("Mira", GUILD)
        == personas.find(mine.id, GUILD)
        == mine
    )
    assert short_id(mine, GUILD) == "mira" and mine.id != "mira"
    for guild_id in (OTHER, 0):
        assert "Mira" not in [persona.name for persona in personas.of(guild_id).values()]
        assert (
            personas.find("mira", guild_id)
            is personas.find(mine.id, guild_id)
            is personas.get(mine.id, guild_id)
            is None
        )
    theirs = brought_in(personas, OTHER, card_named("Mira")).persona
    assert (
        theirs.id != mine.id
        and personas.find("mira", GUILD) == mine
        and personas.find("mira", OTHER) == theirs
    )


def test_a_guild_has_so_many_and_can_replace_them(personas):
    for number in range(MAX_GUILD_PERSONAS):
        brought_in(personas, GUILD, card_named(f"Number {number}"))
    with pytest.raises(RefusedError, match="20 personas of its own"):
        brought_in(personas, GUILD, card_named("One more"))
    seventh = personas.find("Number 7", GUILD)
    entry = TrashEntry(guild_id=GUILD, kind="card", id=seventh.id, name=seventh.name, at=1.0)
    assert not personas.replace(card_named("Number 7"), "it", entry=entry, parts={}).is_new
    assert brought_in(personas, OTHER, card_named("One more")).is_new


ALIKE = [
    ("Lân", "Lan"), ("Zoë", "Zoe"), ("Anna 李", "Anna 王"), ("Ren (蓮)", "Ren (恋)"),
    ("Маша A", "Саша A"), ("Đức", "Úc"), ("Mr. X", "Mr X"), ("Anna!", "Anna?"), ("李", "力"),
    ("하루", "하 루"), ("عمر", "عمرو"), ("🦀", "Crab"), ("\u200bMira\u200b!", "Mira"),
]  # fmt: skip
"""Names whose ids would be the same, if letters were dropped or read alike."""


@pytest.mark.parametrize("names", ALIKE)
@pytest.mark.parametrize("guild_id", [GUILD, 0])
def test_another_name_is_another_persona(personas, names, guild_id):
    first, second = (brought_in(personas, guild_id, card_named(name)) for name in names)
    assert second.is_new and first.persona.id != second.persona.id
    for made in (first.persona, second.persona):
        assert personas.get(made.id, guild_id) == made
        assert personas.find(short_id(made, guild_id), guild_id) == made
        assert personas.find(made.name, guild_id) == made


def test_the_same_name_or_a_taken_id_replaces_nobody(personas):
    lan = brought_in(personas, GUILD, card_named("Lân")).persona
    for name in ("Lân", "LÂN", "La\u0302n"):
        with pytest.raises(PersonaExistsError, match="There is a persona Lân"):
            brought_in(personas, GUILD, card_named(name))
    with pytest.raises(PersonaExistsError) as caught:
        personas.new_id(GUILD, "Lan", "lan")
    assert caught.value.persona == lan == personas.get(lan.id, GUILD)
    with pytest.raises(PersonaExistsError, match=r"Lân \(`lan`\)"):
        brought_in(personas, GUILD, card_named("lan"))  # typed, it could mean either


def test_a_wanted_id_is_no_name_of_another(personas):
    personas.bring_in(
        GUILD, card_named("Bee"), where="it", full_id=personas.new_id(GUILD, "Bee", "queen")
    )
    with pytest.raises(PersonaExistsError, match="Bee"):
        personas.new_id(GUILD, "Zed", "bee")


def test_a_new_persona_gets_no_id_whose_versions_would_answer_for_it(personas):
    full_id = personas.new_id(GUILD, "Mira")
    assert personas.new_id(GUILD, "Mira", reserved={full_id}) != full_id
    assert personas.new_id(GUILD, "Mira", "mira", reserved={full_id}) == full_id, "it was named"


@pytest.mark.parametrize("wanted", ["../../etc/passwd", "..", "Ünïcode Name!", "x" * 99, "李白"])
def test_an_id_never_leads_out_of_the_guilds_folder(personas, tmp_path, wanted):
    full_id = personas.new_id(GUILD, "Mira", wanted)
    made = personas.bring_in(GUILD, card_named("Mira"), where="it", full_id=full_id).persona
    folder = guild_card_path(tmp_path, made.id).parent
    assert (
        folder.parent == tmp_path / "personas" / str(GUILD)
        and folder.name == made.id
        and len(made.id) <= 58
    )


def test_a_damaged_card_of_one_guild_keeps_nobody_else_from_speaking(personas, tmp_path, caplog):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    theirs = brought_in(personas, OTHER, card_named("Mira")).persona
    guild_card_path(tmp_path, mine.id).write_bytes(b"\xff")
    again = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    assert again.get(mine.id, GUILD) is None and again.get(theirs.id, OTHER) == theirs
    assert "a guild's persona is left out" in caplog.text


def test_a_persona_can_be_removed_while_the_cards_are_read_anew(personas, monkeypatch):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    other = brought_in(personas, GUILD, card_named("Nadia")).persona
    monkeypatch.setattr(personas, "_drop_card", lambda _: personas.reload_guild_cards())
    entry = TrashEntry(guild_id=GUILD, kind="persona", id=mine.id, name=mine.name, at=1.0)
    personas.remove(GUILD, mine, entry, {})
    assert personas.get(mine.id, GUILD) is None and personas.get(other.id, GUILD) == other


def test_a_card_in_another_guilds_folder_is_not_taken_up(personas, tmp_path):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    stolen = tmp_path / "personas" / str(OTHER) / mine.id
    stolen.mkdir(parents=True)
    (stolen / "card.toml").write_bytes(guild_card_path(tmp_path, mine.id).read_bytes())
    assert mine.id not in PersonaRegistry(SHIPPED_CARDS, tmp_path).of(OTHER)


def test_the_card_that_is_kept_can_be_trained_with(personas, tmp_path):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    assert read_card(guild_card_path(tmp_path, mine.id)) == mine
    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path)
    request = TrainingRequest(job_name="j", persona=mine.id, dataset="oda")
    card, *_ = gather_materials(catalogue, request)
    assert (
        card.copies == ((guild_card_path(tmp_path, mine.id), "card.toml"),) and card.right == "form"
    )
    lore = tmp_path / "lore" / str(GUILD) / mine.id
    lore.mkdir(parents=True)
    assert [
        made.copies for made in gather_materials(catalogue, request) if made.kind == "lore"
    ] == [((lore, f"lore/{mine.id}"),)]
    with pytest.raises(RequestError, match=r"'mira-xyz'.*: ballast, oda, thrip\."):
        gather_materials(
            catalogue, TrainingRequest(job_name="j", persona="mira-xyz", dataset="oda")
        )


def test_a_servers_persona_is_trained_on_its_own_lore_and_the_sets_that_it_uses(personas, tmp_path):
    mine = brought_in(personas, GUILD, card_named("Mira")).persona
    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path)
    request = TrainingRequest(job_name="j", persona=mine.id, dataset="oda")

    def lore_paths():
        materials = gather_materials(catalogue, request)
        return [material.path for material in materials if material.kind == "lore"]

    assert lore_paths() == []
    folder = tmp_path / "lore" / str(GUILD) / mine.id
    folder.mkdir(parents=True)
    (folder / "stairs.md").write_text("# Stairs\nThere are nine.")
    assert lore_paths() == ["lore"]
    sets = LoreSets(ShippedData.from_source_tree().lore, tmp_path)
    sets.choose("_world", True, guild_id=GUILD, persona_id=mine.id)
    assert lore_paths() == ["lore", "lore-sets"]


def test_a_persona_of_all_servers_that_takes_a_servers_name_says_so(personas):
    brought_in(personas, GUILD, card_named("Mira"))
    shared = brought_in(personas, 0, card_named("MIRA")).persona
    (note,) = same_name_notes(personas, 0, shared)
    assert note.startswith("1 server has a persona of its own with this name")
    assert same_name_notes(personas, GUILD, shared) == []
    assert same_name_notes(personas, 0, personas.get("oda", 0)) == []


async def test_new_personas_at_the_same_time_have_ids_of_their_own(stage):
    services = stage.client.services
    origin = RequestOrigin(GUILD, channel_id=0, user_id=1)
    forms = [
        PersonaForm(name=name, description=f"{name} waits.") for name in ("Zoë", "Zoe", "zoe!")
    ]
    brought = await asyncio.gather(*(services.creation.create(origin, form) for form in forms))
    brought += await asyncio.gather(
        *(
            import_card(
                services.personas,
                services.store,
                services.base_model,
                origin=origin,
                data=as_json({**V2, "data": {**V2["data"], "name": name}}),
                file="it.json",
                context_tokens=2048,
            )
            for name in ("Lân", "Lan")
        )
    )
    assert len({each.brought.persona.id for each in brought}) == 5


async def test_a_question_does_not_replace_the_card_of_a_persona_renamed_meanwhile(stage):
    await response_text(await bring_in(stage), "is a persona of this server")
    question = await response_text(await bring_in(stage), "Replace its card by this file?")
    personas = stage.client.services.personas
    mira = personas.find("mira", int(stage.sandbox.guild_id))
    personas.rewrite(mira.id, personas.table(mira.id) | {"name": "Ada"})
    again = await stage.moderator.click(question, "Replace")
    question = await response_text(again, "**Ada** (`mira`) is a persona of this server already")
    assert personas.find("mira", int(stage.sandbox.guild_id)).name == "Ada"
    await response_text(await stage.moderator.click(question, "Replace"), "has a new card.")


async def test_imports_at_the_same_time_all_count(personas):
    names = [f"Number {number}" for number in range(6)]
    await asyncio.gather(
        *(asyncio.to_thread(brought_in, personas, GUILD, card_named(name)) for name in names)
    )
    assert {persona.name for persona in personas.of(GUILD).values()} >= set(names)
