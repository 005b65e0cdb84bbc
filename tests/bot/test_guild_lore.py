"""`/persona lore add|remove|ask`: a server's own lore, found at once, and by nobody else."""

import asyncio
import json
from functools import partial

import pytest

from bot.personas import guild_lore
from bot.personas.guild_lore import (
    MAX_FILE_BYTES,
    MAX_FILES,
    GuildLore,
    lore_file_name,
    read_all_guild_lore,
)
from bot.personas.lore_upload import add_lore
from bot.platform.errors import RefusedError
from bot.privacy.erasure_runner import lore_files
from personas.errors import LoreError
from personas.home.persona_ids import short_id
from personas.home.trash import KEPT_S
from personas.lore.index import LoreIndex
from personas.schemas.chat import Persona
from sandbox.object_store import StoredFile
from tests.bot.conftest import QUAY, on_stage
from tests.fakes import until
from tests.personas.cards import as_json
from tests.personas.lorebook_samples import AGNAI, SILLY_TAVERN, WHEEL, silly_tavern_entry

UMBRELLA = (
    "# The violet umbrella\nAn umbrella of violet silk hangs in the cab. It belonged to the "
    "opera's cloakroom.\n"
)
QUESTION = "whose violet umbrella is that?"


async def response_text(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    assert answer.ephemeral
    return answer.message["content"]


async def test_a_file_is_found_at_once_under_replies_and_gone_when_removed(stage):
    add = await stage.moderator.slash(
        QUAY,
        "persona lore add",
        persona="ballast",
        file=StoredFile.named("The Umbrella.md", UMBRELLA.encode()),
    )
    await response_text(add, "Ballast knows `the_umbrella.md` now (1 passage)")
    words = await response_text(
        await stage.member.slash(QUAY, "persona lore ask", question=QUESTION), "would be given"
    )
    assert (
        "✅" in words
        and "`ballast/the_umbrella.md` The violet umbrella" in words
        and "umbrella, violet" in words
    )
    mark = stage.mark
    await stage.member.say(QUAY, QUESTION)
    assert "lore: ballast/the_umbrella.md" in (await stage.finished(QUAY, mark))["content"]
    choices = await stage.moderator.autocomplete(
        QUAY, "persona lore remove", "file", persona="ballast"
    )
    assert [choice["value"] for choice in choices] == ["the_umbrella.md"]
    gone = await stage.moderator.slash(
        QUAY, "persona lore remove", persona="ballast", file="the_umbrella.md"
    )
    await response_text(gone, "Ballast has forgotten `the_umbrella.md`.")
    words = await response_text(
        await stage.member.slash(QUAY, "persona lore ask", question=QUESTION), "would be given"
    )
    assert "the_umbrella.md" not in words
    again = await stage.moderator.slash(
        QUAY, "persona lore remove", persona="ballast", file="the_umbrella.md"
    )
    await response_text(again, "There are: none.")


async def test_a_removed_file_comes_back_by_its_button_and_is_its_contributors_for_a_day(
    stage, tmp_path
):
    contributed = stage.store.people.contributions_of
    texts = {"Heron": "It is of brass.", "Wheel": "It is of oak."}
    for title, text in texts.items():
        form = await stage.moderator.slash(QUAY, "persona lore add", persona="ballast")
        sent = await stage.moderator.submit(form, title=title, text=text)
        await response_text(sent, "Ballast knows")
    lore = GuildLore(tmp_path, stage.client.services.lore)
    guild_id = int(stage.sandbox.guild_id)
    removed = await stage.moderator.slash(
        QUAY, "persona lore remove", persona="ballast", file="heron.md"
    )
    await response_text(removed, "Ballast has forgotten `heron.md`.")
    assert lore.files(guild_id, "ballast") == ["wheel.md"]
    undo = await stage.moderator.click(removed.message, "Undo")
    await until(lambda: "Ballast knows `heron.md` again." in undo.text)
    assert lore.text(guild_id, "ballast", "heron.md") == "# Heron\n\nIt is of brass."
    assert len(contributed(int(stage.moderator.id))) == 2

    entry = await lore.throw_away(guild_id, "ballast", "heron.md")
    assert len(contributed(int(stage.moderator.id))) == 2, "an erasure finds it in the trash"
    paths = [f"lore/{guild_id}/ballast/heron.md"]
    assert [path for path in lore_files(tmp_path, paths) if path.exists()]
    removal = stage.client.services.removal
    await removal.empty_trash(entry.at + KEPT_S - 60)
    assert list(tmp_path.glob("trash/*/*/*"))
    await removal.empty_trash(entry.at + KEPT_S + 60)
    assert not list(tmp_path.glob("trash/*/*/*"))
    assert [gift.what for gift in contributed(int(stage.moderator.id))] == ["wheel.md"]
    with pytest.raises(RefusedError, match="brought back no more"):
        await lore.bring_back(entry)


@pytest.mark.parametrize("guild_id", [7, 0])
async def test_new_lore_never_replaces_another_file(tmp_path, guild_id):
    index = LoreIndex([])
    lore = GuildLore(tmp_path, index)

    async def added(name, text):
        store = partial(lore.add, guild_id, "oda")
        return await add_lore(
            lore,
            guild_id,
            persona=Persona("oda", "Oda"),
            name=name,
            content=text.encode(),
            store=store,
            replace=False,
        )

    results = [await added(f"Harbour {end}", f"# It\n{end}") for end in ("(old)", "[old]", "old")]
    assert [result.files for result in results] == [
        ("harbour-old.md",), ("harbour-old-2.md",), ("harbour-old-3.md",)
    ]  # fmt: skip
    assert [result.is_beside for result in results] == [False, True, True]
    assert "(old)" in lore.text(guild_id, "oda", "harbour-old.md")
    entry = await lore.throw_away(guild_id, "oda", "harbour-old.md")
    assert (await added("Harbour old", "# It\nnew")).files == ("harbour-old-4.md",)
    await lore.bring_back(entry)
    assert "(old)" in lore.text(guild_id, "oda", "harbour-old.md")
    book = [await added("Mill.json", as_json(SILLY_TAVERN).decode()) for _ in range(2)]
    assert [result.files for result in book] == [("mill.md",), ("mill-2.md",)]
    entry = await lore.throw_away(guild_id, "oda", "mill.md")
    await lore.add(guild_id, "oda", "mill.md", b"# The mill\nAnother one.")
    with pytest.raises(RefusedError, match=r"another lore file 'mill\.md' by now"):
        await lore.bring_back(entry)
    index.close()


async def test_a_lorebook_is_found_by_all_its_keys_and_what_became_of_it_is_listed(stage):
    file = StoredFile.named("Mill.json", as_json(SILLY_TAVERN))
    add = await stage.moderator.slash(QUAY, "persona lore add", persona="ballast", file=file)
    said = await response_text(add, "Ballast knows `mill.md` now (4 passages)")
    assert "SillyTavern" in said and "- Taken as is: entry 1 “The wheel”" in said
    assert "- Not taken: entry 4 “draft” – disabled" in said
    for message in ("open the sluice", "the sluice wheel, please"):
        mark = stage.mark
        await stage.member.say(QUAY, message)
        assert "lore: ballast/mill.md" in (await stage.finished(QUAY, mark))["content"]
        texts = [hit.text for hit in stage.engine.requests[-1].lore]
        assert texts[0] == "Ballast speaks low at night." and WHEEL in texts
    asked = await stage.member.slash(QUAY, "persona lore ask", question="open the sluice")
    words = await response_text(asked, "would be given")
    assert "its keys: sluice" in words and "given with every message" in words


async def test_a_list_that_is_too_long_comes_as_a_file_too(stage):
    entries = {
        str(n): silly_tavern_entry(n, ["k"], "x", comment=f"entry {n} " * 5, group=f"g{n}")
        for n in range(8)
    }
    add = await stage.moderator.slash(
        QUAY,
        "persona lore add",
        persona="ballast",
        file=StoredFile.named("a.json", as_json({"entries": entries})),
    )
    said = await response_text(add, "`import.json`")
    assert len(said) <= 2000 and "and 2 more" in said
    [attached] = add.message["attachments"]
    assert attached["filename"] == "import.json"


async def test_the_form_outlives_a_restart_and_what_it_holds_too(tmp_path):
    async with on_stage(tmp_path) as stage:
        form = await stage.moderator.slash(QUAY, "persona lore add", persona="oda")
        assert form.modal["title"] == "Lore for Oda Marrow"
        # What a restart of the bot leaves of an open form.
        stage.client._connection._view_store._modals.clear()
        sent = await stage.moderator.submit(form, title="Mill", text=json.dumps(AGNAI))
        said = await response_text(sent, "Oda Marrow knows `mill.md` now (1 passage)")
        assert "Agnai" in said
        removed = await stage.moderator.slash(
            QUAY, "persona lore remove", persona="oda", file="mill.md"
        )
        await response_text(removed, "has forgotten `mill.md`.")
        form = await stage.moderator.slash(QUAY, "persona lore add", persona="oda")
        stage.client._connection._view_store._modals.clear()
        sent = await stage.moderator.submit(
            form, title="Umbrella", text="A violet umbrella hangs by the stair."
        )
        await response_text(sent, "Oda Marrow knows `umbrella.md`")
    assert [p.text for p in read_all_guild_lore(tmp_path)] == [
        "A violet umbrella hangs by the stair."
    ]


async def test_members_may_ask_but_not_change(stage):
    answer = await stage.member.slash(QUAY, "persona lore add", persona="ballast")
    await response_text(answer, "Only moderators may do this.")
    answer = await stage.member.slash(QUAY, "persona lore remove", persona="ballast", file="x.md")
    await response_text(answer, "Only moderators may do this.")
    words = await response_text(
        await stage.member.slash(QUAY, "persona lore ask", question="good morning!"), "no passage"
    )
    assert "❌" in words and "✅" not in words
    told = await stage.member.slash(QUAY, "persona lore ask", question="I am so tired today.")
    await response_text(told, "the message asks nothing, so its scores count half")
    nothing = await stage.member.slash(QUAY, "persona lore ask", question="?! 🍲")
    await response_text(nothing, "The question has no words.")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.md", b"caf\xe9", "a.md is not UTF-8 text (byte 3)"),
        ("a.md", b"x" * (MAX_FILE_BYTES + 1), "has more than 100 KB."),
        ("???.md", b"text", "makes no file name."),
        ("a.md", b"# Only a heading\n", "a.md holds no text."),
        ("a.md", b"---\npersona: thrip\n---\nHis hat.", "says that it is thrip's."),
        ("a.md", b"---\npersona: [\n---\nHis hat.", "is not YAML"),
        ("a.png", b"\x89PNG\0\0", "is not UTF-8 text"),
    ],
)
async def test_what_is_no_lore_is_refused_with_the_reason(tmp_path, name, content, words):
    store = GuildLore(tmp_path, LoreIndex([]))
    with pytest.raises(
        LoreError, match=words.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    ):
        await store.add(7, "ballast", name, content)
    assert read_all_guild_lore(tmp_path) == []


async def test_guilds_share_nothing_and_a_file_name_leads_nowhere_else(tmp_path):
    index = LoreIndex([])
    store = GuildLore(tmp_path, index)
    file, _ = await store.add(7, "ballast", "../../etc/Ümbrella!.md", UMBRELLA.encode())
    assert file == "etc-ümbrella.md" == lore_file_name("etc-Ümbrella.md")
    assert store.files(7, "ballast") == [file] and store.files(8, "ballast") == []
    assert index.search("ballast", QUESTION, guild_id=7) and not index.search(
        "ballast", QUESTION, guild_id=8
    )
    assert index.rank("ballast", QUESTION, 8).matches == []
    with pytest.raises(RefusedError, match="no lore file"):
        await store.remove(7, "ballast", "../ballast/" + file)
    again = LoreIndex(read_all_guild_lore(tmp_path))
    assert [hit.source for hit in again.search("ballast", QUESTION, guild_id=7)] == [
        f"ballast/{file}"
    ]


async def test_front_matter_may_name_the_persona_as_members_know_it(tmp_path):
    store = GuildLore(tmp_path, LoreIndex([]))
    own = "mira-8zq4"
    assert short_id(Persona(own, "Mira"), int("8zq4", 36)) == "mira"
    await store.add(int("8zq4", 36), own, "hat.md", b"---\npersona: Mira\n---\nA straw hat.")
    (file,) = (tmp_path / "lore").rglob("*.md")
    assert file.read_text() == "A straw hat." and file.parent.name == own
    assert [(p.source, p.text) for p in read_all_guild_lore(tmp_path)] == [
        ("mira/hat.md", "A straw hat.")
    ]


async def test_an_operator_may_give_a_guild_lore_for_all_its_personas(tmp_path):
    folder = tmp_path / "lore" / "7" / "_world"
    folder.mkdir(parents=True)
    (folder / "umbrella.md").write_text(UMBRELLA)
    index = LoreIndex(read_all_guild_lore(tmp_path))
    for persona in ("ballast", "oda"):
        assert [hit.source for hit in index.search(persona, QUESTION, guild_id=7)] == [
            "_world/umbrella.md"
        ]
    assert index.search("oda", QUESTION, guild_id=8) == []


async def test_a_damaged_file_keeps_nobody_else_from_speaking(tmp_path, caplog):
    store = GuildLore(tmp_path, LoreIndex([]))
    await store.add(7, "ballast", "hat.md", b"A straw hat.")
    await store.add(8, "ballast", "hat.md", b"A felt hat.")
    (tmp_path / "lore" / "7" / "ballast" / "hat.md").write_bytes(b"\xff")
    assert [p.text for p in read_all_guild_lore(tmp_path)] == ["A felt hat."]
    assert "hat.md is not UTF-8" in caplog.text


async def test_a_persona_has_room_for_so_many_files(tmp_path):
    store = GuildLore(tmp_path, LoreIndex([]))
    await asyncio.gather(*(store.add(7, "ballast", f"{n}.md", b"A hat.") for n in range(MAX_FILES)))
    await store.add(7, "ballast", "3.md", b"Another hat.")
    with pytest.raises(RefusedError, match="26 files; 25 is the most"):
        await store.add(7, "ballast", "one-more.md", b"A coat.")


async def test_one_moderator_cannot_fill_the_lore_of_a_server(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(guild_lore, "MAX_GUILD_BYTES", 2000)
    long, short = b"# Hats\n" + b"A straw hat. " * 120, b"# Hats\nA felt hat.\n"
    for name, persona in (("hats.md", "ballast"), ("more.md", "oda")):
        files = {"persona": persona, "file": StoredFile.named(name, long)}
        answer = await stage.moderator.slash(QUAY, "persona lore add", **files)
        await response_text(
            answer,
            "knows `hats.md` now" if persona == "ballast" else "would have 4 KB; 2 KB is the",
        )
    form = await stage.moderator.slash(QUAY, "persona lore add", persona="oda")
    words = await response_text(
        await stage.moderator.submit(form, title="Coat", text="A coat. " * 80), "would have"
    )
    assert "would have 3 KB; 2 KB is the most" in words
    assert "`/persona lore remove`" in words and "`ballast` (2 KB)" in words
    [kept] = tmp_path.glob("lore/*/*/*.md")
    assert kept.read_bytes() == long
    assert [one.what for one in stage.client.services.store.people.contributions()] == ["hats.md"]
    removed = await stage.moderator.slash(
        QUAY, "persona lore remove", persona="ballast", file="hats.md"
    )
    await response_text(removed, "has forgotten `hats.md`.")
    shorter = await stage.moderator.slash(
        QUAY, "persona lore add", persona="ballast", file=StoredFile.named("hats.md", short)
    )
    words = await response_text(shorter, "knows `hats-2.md` now")
    assert "Neither replaces the other." in words
    await response_text(
        await stage.moderator.submit(form, title="Coat", text="A coat. " * 80),
        "knows `coat.md` now",
    )


async def test_lore_over_a_limit_may_shrink_and_other_servers_have_their_own_room(
    tmp_path, monkeypatch
):
    store = GuildLore(tmp_path, LoreIndex([]))
    await store.add(7, "ballast", "a.md", b"A hat. " * 40)
    await store.add(7, "oda", "b.md", b"A coat.")
    monkeypatch.setattr(
        guild_lore, "MAX_GUILD_BYTES", 100
    )  # as after a restored backup, or in a later version
    monkeypatch.setattr(guild_lore, "MAX_GUILD_FILES", 1)
    with pytest.raises(RefusedError, match="3 files; 1 is the most"):
        await store.add(7, "thrip", "c.md", b"A shoe.")
    with pytest.raises(RefusedError, match="would have 1 KB"):
        await store.add(7, "ballast", "a.md", b"A hat. " * 41)
    assert store.text(7, "ballast", "a.md") == "A hat. " * 40
    await store.add(7, "ballast", "a.md", b"A hat. " * 39)
    await store.add(8, "ballast", "a.md", b"A hat. " * 14)
    await asyncio.gather(*(store.add(0, "ballast", f"{n}.md", b"A hat. " * 40) for n in range(2)))


async def test_files_that_come_at_once_have_no_more_room_than_one_after_another(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(guild_lore, "MAX_GUILD_FILES", 3)
    store = GuildLore(tmp_path, LoreIndex([]))
    persons = ("ballast", "oda", "thrip")
    adding = (
        store.add(7, persons[n % 3], f"{n}.md", f"A hat of {n} feathers.".encode())
        for n in range(9)
    )
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(isinstance(result, RefusedError) for result in results) == 6
    assert (
        sum(isinstance(result, tuple) for result in results)
        == 3
        == len(read_all_guild_lore(tmp_path))
    )


async def test_a_server_lets_its_personas_use_a_set_of_lore_or_not(stage):
    async def sets(words, who=None, **options):
        answer = await (who or stage.moderator).slash(QUAY, "persona lore sets", **options)
        await until(lambda: words in (answer.message or {}).get("content", ""))

    async def finds_bell():
        mark = stage.mark
        await stage.member.say(QUAY, "What is the Long Bell?")
        await stage.finished(QUAY, mark)
        return any(hit.source.startswith("_world/") for hit in stage.engine.requests[-1].lore)

    await sets("Used by Ballast, Oda Marrow, Sir Aurelio Thrip.")
    assert await finds_bell()
    await sets("Used by nobody.", set="Skerrow Harbour", use=False)
    assert not await finds_bell()
    await sets("Used by Oda Marrow.", set="skerrow harbour", use=True, persona="oda")
    assert not await finds_bell()
    await sets("There is no set of lore 'Atlantis'. There are: Skerrow Harbour.", set="Atlantis")
    await sets("Which set?", use=True)
    await sets("Only moderators", who=stage.member, set="Skerrow Harbour", use=True)
    asked = await stage.moderator.slash(QUAY, "persona lore ask", question="What is the bell?")
    await until(lambda: "Shared sets: none" in (asked.message or {}).get("content", ""))
