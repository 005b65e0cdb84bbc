"""Sets of lore that personas share: who uses them, by default and by choice."""

import json

import pytest

from personas.errors import LoreError
from personas.home.job_material import ShippedData
from personas.home.lore_sets import LoreSets, find_lore_sets
from personas.home.shared_personas import lore_material
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import job_owners, read_lore

QUESTION = "When do the lanterns burn?"
SHIPPED = ShippedData.from_source_tree()


@pytest.fixture
def shipped(tmp_path):
    files = {
        "_world/set.toml": 'name = "The Quay"\nabout = "A quay."\npersonas = ["ada"]\n',
        "_world/lanterns.md": "# Lanterns\nThe lanterns burn until two.",
        "ada/hat.md": "# Hat\nAda has a straw hat.",
        "bo/gull.md": "# Gull\nBo feeds Tallow sardines at six.",
    }
    for name, text in files.items():
        (path := tmp_path / "shipped" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "shipped"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def test_the_shipped_world_is_for_the_personas_that_it_was_written_for(home):
    sets = LoreSets(SHIPPED.lore, home)
    assert sets.find("skerrow harbour").id == "_world"
    for persona_id in ("ballast", "oda", "thrip"):
        assert sets.taken(persona_id) == sets.taken(persona_id, 7) == ["_world"]
    assert sets.taken("marlow") == sets.taken("marlow-7", 7) == []
    with pytest.raises(LoreError, match="There are: Skerrow Harbour"):
        sets.find("Atlantis")


def test_a_persona_finds_its_own_lore_and_only_the_sets_that_it_uses(shipped, home):
    sets = LoreSets(shipped, home)
    index = LoreIndex(read_lore(shipped, ["ada", "bo", "_world"]))
    index.sets_of = sets.taken
    assert [hit.source for hit in index.search("ada", QUESTION)] == ["_world/lanterns.md"]
    assert index.search("bo", QUESTION) == []
    own = index.search("bo", "When does Tallow eat sardines?")
    assert [hit.source for hit in own] == ["bo/gull.md"]
    sets.choose("_world", True, guild_id=0, persona_id="bo")
    assert index.search("bo", QUESTION) and index.search("bo", QUESTION, guild_id=7)
    sets.choose_for_all("_world", False, 7)
    for persona in ("ada", "bo"):
        assert not index.search(persona, QUESTION, guild_id=7)
        assert index.search(persona, QUESTION, guild_id=8)
    sets.choose("_world", True, guild_id=7, persona_id="ada")
    assert index.search("ada", QUESTION, guild_id=7) and not index.search(
        "bo", QUESTION, guild_id=7
    )
    sets.choose_for_all("_world", True, 7)
    assert index.search("bo", QUESTION, guild_id=7)
    assert LoreSets(shipped, home).taken("bo", 7) == ["_world"], "another process sees it"
    sets.choose("_world", False, guild_id=0, persona_id="bo")
    assert sets.taken("bo", 8) == []
    sets.choose("_world", None, guild_id=0, persona_id="ada")
    assert sets.taken("ada", 8) == ["_world"]


def test_personas_of_an_older_home_keep_what_all_had_and_new_ones_do_not_get_it(shipped, home):
    sets = LoreSets(shipped, home)
    sets.adopt([(0, "cy"), (7, "di-7")])
    assert sets.taken("cy") == sets.taken("di-7", 7) == ["_world"] and sets.taken("ed-7", 7) == []
    sets.forget("di-7")
    sets.adopt([(7, "di-7"), (7, "ed-7")])
    assert sets.taken("di-7", 7) == sets.taken("ed-7", 7) == [], "that was once"
    assert json.loads((home / "lore" / "7" / "sets.json").read_text()) == {}


def test_choices_that_cannot_be_read_are_named(shipped, home):
    sets = LoreSets(shipped, home)
    sets.choose_for_all("_world", True, 7)
    file = home / "lore" / "7" / "sets.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(LoreError, match=r"sets\.json is no JSON"):
        LoreSets(shipped, home).taken("ada", 7)
    for text, why in (("name =", r"set\.toml cannot be read"), ('personas = "ada"', "is no list")):
        (shipped / "_world" / "set.toml").write_text(text, encoding="utf-8")
        with pytest.raises(LoreError, match=why):
            find_lore_sets(shipped, home)


def test_a_world_without_a_statement_is_everybodys_and_an_operators_set_is_nobodys(shipped, home):
    (shipped / "_world" / "set.toml").unlink()
    (home / "lore" / "0" / "_salt-marsh").mkdir(parents=True)
    sets = LoreSets(shipped, home)
    assert sets.taken("anybody", 7) == ["_world"] and sets.sets["_salt-marsh"].name == "Salt Marsh"
    sets.choose("_salt-marsh", True, guild_id=7, persona_id="anybody")
    assert sets.taken("anybody", 7) == ["_world", "_salt-marsh"]


def test_a_set_can_be_made_and_nobody_uses_it_yet(shipped, home):
    sets = LoreSets(shipped, home)
    marsh = sets.create(' The "Salt" Marsh 🦀 ')
    assert (marsh.id, marsh.name) == ("_the-salt-marsh-crab", 'The "Salt" Marsh 🦀')
    assert LoreSets(shipped, home).find(marsh.name) == marsh and not marsh.is_for("ada")
    for name in ("the quay", "", "\u200b", "x" * 81):
        with pytest.raises(LoreError, match=r"already|needs a name|81 characters"):
            sets.create(name)
    (shipped / "_world" / "set.toml").write_text("name =", encoding="utf-8")
    dunes = sets.create("Dunes")
    assert sets.find("dunes") == dunes and sets.taken("ada") == ["_world"], "nothing is read again"


def test_a_set_is_renamed_and_removed_but_not_one_that_ships(shipped, home):
    sets = LoreSets(shipped, home)
    marsh = sets.create("Salt Marsh")
    sets.create("Dunes")
    sets.choose(marsh.id, True, guild_id=7, persona_id="ada")
    renamed = sets.rename(marsh.id, 'The "Reeds"')
    assert renamed.id == marsh.id
    assert LoreSets(shipped, home).sets[marsh.id] == renamed
    assert sets.taken("ada", 7) == ["_world", marsh.id]
    with pytest.raises(LoreError, match="Dunes already"):
        sets.rename(marsh.id, "dunes")
    for change in (lambda: sets.rename("_world", "Mine"), lambda: sets.remove("_world")):
        with pytest.raises(LoreError, match="came with the bot"):
            change()
    sets.remove(marsh.id)
    assert marsh.id not in LoreSets(shipped, home).sets and sets.taken("ada", 7) == ["_world"]
    with pytest.raises(LoreError, match="no set of lore"):
        sets.remove("_atlantis")


@pytest.mark.parametrize("names", [("李 world", "王 world"), ("Salt!", "Sält"), ("Đức", "Duc")])
def test_sets_of_other_names_have_other_ids(shipped, home, names):
    sets = LoreSets(shipped, home)
    first, second = map(sets.create, names)
    assert first.id != second.id and sets.find(names[0]) == first
    entry = sets.remove(first.id)
    assert sets.create("Salt ?").id not in (first.id, second.id), "it can be brought back"
    assert sets.bring_back(entry) == first


def test_a_removed_set_comes_back_within_a_day_with_those_who_used_it(shipped, home):
    sets = LoreSets(shipped, home)
    marsh = sets.create("Salt Marsh")
    sets.choose(marsh.id, True, guild_id=7, persona_id="ada")
    file = home / "lore" / "0" / marsh.id / "reeds.md"
    file.write_text("The reeds are high.")
    entry = sets.remove(marsh.id)
    assert not file.exists() and entry.name == "Salt Marsh"
    other = sets.create("Salt Marsh")
    assert other.id == "_salt-marsh-2", "not the removed one"
    with pytest.raises(LoreError, match="Salt Marsh already"):
        sets.bring_back(entry)
    sets.remove(other.id)
    assert sets.bring_back(entry) == marsh == LoreSets(shipped, home).find("Salt Marsh")
    assert file.read_text() == "The reeds are high."
    assert sets.taken("ada", 7) == ["_world", marsh.id]


def test_a_set_is_found_by_its_id_whatever_another_is_called(shipped, home):
    (home / "lore" / "0" / "_Reeds").mkdir(parents=True)
    sets = LoreSets(shipped, home)
    dunes = sets.create("Dunes")
    marsh = sets.create("Salt Marsh")
    renamed = sets.rename(dunes.id, marsh.id)
    assert [sets.find(wanted).id for wanted in (marsh.id, dunes.id)] == [marsh.id, dunes.id]
    assert sets.find("_Reeds").id == "_Reeds"
    sets.remove(marsh.id)
    assert LoreSets(shipped, home).sets[dunes.id] == renamed, "the other one is removed"


def test_a_set_with_the_name_of_a_persona_gets_none_of_its_lore(shipped):
    assert read_lore(shipped, ["_ada"], ["ada"]) == []
    assert {passage.owner for passage in read_lore(shipped, ["_ada", "ada"])} == {"ada"}


def test_a_training_gets_the_sets_that_the_persona_uses(home, tmp_path):
    (home / "lore" / "0" / "_marsh").mkdir(parents=True)
    (home / "lore" / "0" / "_marsh" / "reeds.md").write_text("# Reeds\nThey are cut in May.")
    sets = LoreSets(SHIPPED.lore, home)
    places = [
        place for material in lore_material(SHIPPED, home, "oda") for _, place in material.copies
    ]
    assert "lore/_world/the-long-bell.md" in places and "lore/_marsh/reeds.md" not in places
    assert not any(place.endswith("set.toml") for place in places)
    sets.choose("_world", False, guild_id=0, persona_id="oda")
    sets.choose("_marsh", True, guild_id=0, persona_id="oda")
    (material,) = lore_material(SHIPPED, home, "oda")
    for path, place in material.copies:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(path.read_bytes())
    folder = tmp_path / "lore"
    owners = {passage.owner for passage in read_lore(folder, job_owners(folder, "oda"))}
    assert owners == {"oda", "_marsh"}
