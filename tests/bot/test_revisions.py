"""What cards and lore said before: kept to be brought back, and gone with whoever gave it."""

import asyncio

import pytest

from bot.personas.guild_lore import GuildLore
from bot.personas.registry import PersonaRegistry
from bot.personas.removal import PersonaRemoval
from bot.personas.revisions import MAX_REVISIONS, RevisionHistory
from bot.platform.errors import RefusedError
from bot.privacy.guild_deletion import delete_guild, find_guilds_on_disk
from bot.store import Contribution, Store, guild_suffix
from personas.card.card_reader import parse_card
from personas.card.toml_card import SHIPPED_CARDS
from personas.lore.index import LoreIndex
from tests.bot.traceable_person import forgetter
from tests.personas.cards import V2, as_json, brought_in

GUILD = 1_234_567_890_123_456
GIVER = 700_000_000_000_000_007


def test_the_newest_texts_are_kept_and_named_by_when_they_ended(tmp_path):
    earlier = RevisionHistory.of(tmp_path, tmp_path / "lore" / "0" / "oda" / "soup.md")
    assert earlier.all() == []
    for n in range(MAX_REVISIONS + 5):
        earlier.keep(f"text {n}".encode(), 1_795_000_000.5 + n)
    kept = earlier.all()
    assert [one.at for one in kept] == [
        1_795_000_000.5 + n for n in range(MAX_REVISIONS + 4, 4, -1)
    ]
    assert earlier.read(kept[0].number) == b"text 24" and kept[0].size_bytes == 7
    assert earlier.folder == tmp_path / "earlier" / "lore" / "0" / "oda" / "soup.md"


@pytest.mark.parametrize("number", ["20260101T000000.000000", "", "..", "../soup"])
def test_a_number_that_is_none_reads_nothing(tmp_path, number):
    earlier = RevisionHistory.of(tmp_path, tmp_path / "lore" / "soup.md")
    earlier.keep(b"text", 1.0)
    with pytest.raises(RefusedError, match="There is no revision"):
        earlier.read(number)


async def changed_lore(home, index, keeping):
    lore = GuildLore(home, index, keeping=keeping)
    await lore.add(GUILD, "oda", "soup", b"# Soup\n\nTurnips boil on Tuesdays.\n")
    await lore.add(GUILD, "oda", "soup", b"# Soup\n\nLeeks boil on Tuesdays.\n")
    return lore


async def test_only_changes_on_the_pages_keep_what_was_there(tmp_path):
    index = LoreIndex([])
    lore = await changed_lore(tmp_path, index, keeping=True)
    assert len(lore.earlier(GUILD, "oda", "soup.md").all()) == 1
    await GuildLore(tmp_path, index).add(
        GUILD, "oda", "soup", b"# Soup\n\nBeets boil on Tuesdays.\n"
    )
    assert lore.earlier(GUILD, "oda", "soup.md").all() == [], (
        "another member's text has taken its place"
    )
    index.close()


def test_whoever_gave_a_file_is_forgotten_with_all_that_it_ever_held(tmp_path):
    index = LoreIndex([])
    lore = asyncio.run(changed_lore(tmp_path, index, keeping=True))
    asyncio.run(lore.add(GUILD, "oda", "tides", b"# Tides\n\nThe tide is late.\n"))
    asyncio.run(lore.remove(GUILD, "oda", "tides.md"))
    index.close()
    with Store.open(tmp_path / "understudy.sqlite") as store:
        store.people.add_contribution(Contribution(GUILD, "oda", "soup.md", GIVER, 1.0))
        forgetting = forgetter(tmp_path, store)
        asyncio.run(forgetting.run(forgetting.begin(forgetting.traces(GIVER, ["wendeline"]))))
    left = [path.read_text() for path in tmp_path.rglob("*.md") if path.is_file()]
    assert left == ["# Tides\n\nThe tide is late.\n"], "what others gave stays"


def test_whoever_gave_lore_of_a_removed_persona_is_forgotten_in_the_trash_too(tmp_path):
    index = LoreIndex([])
    lore = GuildLore(tmp_path, index)
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    mira = brought_in(personas, GUILD, parse_card(as_json(V2), "it")).persona
    asyncio.run(lore.add(GUILD, mira.id, "soup", b"# Soup\n\nLeeks boil on Tuesdays.\n"))
    asyncio.run(lore.add(GUILD, mira.id, "tides", b"# Tides\n\nThe tide is late.\n"))
    with Store.open(tmp_path / "understudy.sqlite") as store:
        store.people.add_contribution(Contribution(GUILD, mira.id, "soup.md", GIVER, 1.0))
        removal = PersonaRemoval(personas, store, lore)
        entry = asyncio.run(removal.remove(GUILD, mira))
        forgetting = forgetter(tmp_path, store)
        asyncio.run(forgetting.run(forgetting.begin(forgetting.traces(GIVER, ["wendeline"]))))
        back = asyncio.run(removal.bring_back(GUILD, mira.id, stamp=entry.stamp, by=1))
        assert back.persona == mira and lore.files(GUILD, mira.id) == ["tides.md"]
        asyncio.run(removal.remove(GUILD, mira))
        assert find_guilds_on_disk(tmp_path) == {GUILD}
        delete_guild(tmp_path, store, GUILD, 1.0)
    index.close()
    assert find_guilds_on_disk(tmp_path) == set() and not list(tmp_path.rglob("*.toml"))


def test_the_end_of_a_server_is_the_end_of_what_it_kept(tmp_path):
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    persona_id = f"mira{guild_suffix(GUILD)}"
    brought_in(personas, GUILD, parse_card(as_json(V2), "it"))
    personas.rewrite(persona_id, personas.table(persona_id) | {"tagline": "Keeps the light."})
    assert (
        personas.get(persona_id, GUILD).tagline == "Keeps the light."
        and personas.earlier(persona_id).all()
    )
    assert find_guilds_on_disk(tmp_path) == {GUILD}
    with Store.open(tmp_path / "understudy.sqlite") as store:
        delete_guild(tmp_path, store, GUILD, 1.0)
    assert find_guilds_on_disk(tmp_path) == set() and not list(tmp_path.rglob("*.toml"))


def test_the_operators_card_wins_in_all_servers_until_it_is_taken_back(tmp_path):
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path)
    personas.rewrite("oda", personas.table("oda") | {"tagline": "Another."})
    for known in (personas, PersonaRegistry(SHIPPED_CARDS, tmp_path)):
        known.reload_guild_cards()
        assert known.get("oda", GUILD).tagline == known.get("oda", 0).tagline == "Another."
        assert [one.id for _, one in known.everybody()].count("oda") == 1 and known.ships("oda")
        assert known.card(known.get("oda", 0), 0).name == "Oda Marrow"
    personas.restore_shipped(personas.get("oda", 0))
    assert (
        personas.get("oda", GUILD).tagline not in ("", "Another.")
        and len(personas.earlier("oda").all()) == 2
    )
    with pytest.raises(RefusedError, match="came with the bot"):
        personas.restore_shipped(personas.get("oda", 0))
