"""Lore: split, found with its source, and never another persona's."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.passages import MAX_PASSAGE_WORDS, Passage, split_markdown
from personas.lore.ranking import MAX_LORE_PASSAGES


@pytest.fixture
def folder(tmp_path):
    files = {
        "ada/tea.md": "# Tea\n\n## Hours\nTea is poured at four from the copper kettle.\n## Cake\nSeed cake.",
        "bo/boats.md": "# Boats\nThe copper kettle sank with the boat.",
        "_world/town.md": "# Town\n## Market\nThe market opens on Thursdays behind the chapel.",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_passage_is_found_with_its_source_and_heading(folder):
    hits = LoreIndex(read_lore(folder, ["ada", "bo", "_world"])).search(
        "ada", "When do you pour from the kettle?"
    )
    assert (hits[0].source, hits[0].heading) == ("ada/tea.md", "Tea: Hours")


def test_the_world_is_everyones_and_other_personas_lore_is_not(folder):
    index = LoreIndex(read_lore(folder, ["ada", "bo", "_world"]))
    assert [
        hit.source for hit in index.search("ada", "which day is market day, behind the chapel")
    ] == ["_world/town.md"]
    assert all(
        hit.source != "bo/boats.md" for hit in index.search("ada", "copper kettle boat sank")
    )


def test_passages_of_one_search_compete_with_the_lore_and_leave_nothing_behind(folder):
    index = LoreIndex(read_lore(folder, ["ada", "bo", "_world"]))
    asked = "when do you pour tea from the copper kettle, and who is allergic to seed cake?"
    kept = [
        Passage("_world", "kept", "", text)
        for text in ("I am allergic to seed cake.", "My boat is called Wren.")
    ]
    before = index.search("ada", asked, limit=9)
    found = index.search("ada", asked, limit=9, more=kept)
    assert [hit.text for hit in found if hit.source == "kept"] == ["I am allergic to seed cake."]
    assert {hit.source for hit in found} == {"kept", "ada/tea.md"}
    assert len(index.search("ada", asked, more=kept * 3)) == MAX_LORE_PASSAGES
    assert [
        hit.text for hit in LoreIndex([]).search("ada", "is my boat called Wren?", more=kept)
    ] == [kept[1].text]
    assert index.search("ada", asked, limit=9) == before and len(index.passages) == 4
    assert index._words.execute("select count(*) from words").fetchone() == (3,), (
        "what Ada may see, of the lore alone"
    )


def test_small_words_find_nothing(folder):
    assert (
        LoreIndex(read_lore(folder, ["ada", "_world"])).search(
            "ada", "what do you think about that?"
        )
        == []
    )


@given(st.text(max_size=200))
def test_no_message_breaks_the_query(message):
    LoreIndex([Passage("ada", "ada/tea.md", "Tea", "poured at four")]).search("ada", message)


def test_the_cache_is_reused_renewed_and_survives_damage(folder, tmp_path):
    cache = tmp_path / "cache" / "lore.sqlite"
    passages = read_lore(folder, ["ada"])
    LoreIndex(passages, cache).close()
    written = cache.stat().st_mtime_ns
    LoreIndex(passages, cache).close()
    assert cache.stat().st_mtime_ns == written
    more = [*passages, Passage("ada", "ada/new.md", "New", "An umbrella hangs by the door.")]
    index = LoreIndex(more, cache)
    assert index.search("ada", "whose umbrella hangs there?")
    index.close()
    cache.write_bytes(b"this is not a database" * 100)
    assert LoreIndex(more, cache).search("ada", "whose umbrella hangs there?")


def test_without_room_for_a_cache_lore_is_found_all_the_same(folder, tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    index = LoreIndex(read_lore(folder, ["ada"]), tmp_path / "file" / "lore.sqlite")
    assert index.search("ada", "pour from the copper kettle")


def test_splitting_keeps_every_word_once():
    text = "before\n# One\na b\n### Deep\n" + "w " * (2 * MAX_PASSAGE_WORDS + 5) + "\n# Two\nlast"
    passages = list(split_markdown(text))
    assert [heading for heading, _ in passages] == ["", "One", *["One: Deep"] * 3, "Two"]
    assert sum(len(words.split()) for _, words in passages) == 1 + 2 + 2 * MAX_PASSAGE_WORDS + 5 + 1


def test_a_file_that_is_not_utf8_is_left_out_and_named(folder, caplog):
    before = read_lore(folder, ["ada"], others=["bo", "_world"])
    (folder / "ada" / "odd.md").write_bytes("caf\xe9".encode("latin-1"))
    assert read_lore(folder, ["ada"], others=["bo", "_world"]) == before != []
    (line,) = caplog.messages
    assert "odd.md" in line and "not UTF-8 (byte 3)" in line


def test_a_link_does_not_lead_out_of_the_folder(folder, tmp_path_factory, caplog):
    (folder / "ada" / "again.md").symlink_to(next((folder / "ada").glob("*.md")))
    before = read_lore(folder, ["ada"])
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.md").write_text("# Secret\nNobody may read this.")
    (folder / "ada" / "secret.md").symlink_to(outside / "secret.md")
    (folder / "ada" / "more").symlink_to(outside)
    assert read_lore(folder, ["ada"]) == before and any(
        "again.md" in passage.source for passage in before
    )
    assert re.search(r"secret\.md .*link that points outside", caplog.text)


def test_what_is_anothers_is_not_nobodys(folder, caplog):
    (folder / "oda-kitchen.md").write_text("# Soup\nNever ask.")
    read_lore(folder, ["ada"], others=["bo", "oda"])
    assert not caplog.messages
    read_lore(folder, ["ada"], others=["bo"])
    assert re.search(r"oda-kitchen\.md .*no owner", caplog.text)
