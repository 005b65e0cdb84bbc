"""Markdown lore: whose a file is, tables and stat blocks, and words of all scripts."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.lore.index import LoreIndex, guild_owner
from personas.lore.index_terms import extract_terms, query_terms
from personas.lore.lore_folder import read_lore, scan_lore
from personas.lore.passages import (
    MAX_PASSAGE_WORDS,
    Passage,
    count_words,
    split_markdown,
    split_passages,
)
from personas.schemas.chat import Persona

STAT_BLOCK = """# Harbour Guard
*Medium person, mostly awake*

**Armour** 12 (leather)

**Speed** 30 ft.

| STR | DEX |
|:---:|:---:|
| 14 (+2) | 10 (+0) |
| 9 | 8 |

###### Actions

***Whistle.*** *Ranged:* heard as far as the Mole.

- a lantern
- two buttons

```
# not a heading
```
"""


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_tables_lists_and_stat_blocks_stay_readable():
    body, actions = split_markdown(STAT_BLOCK)
    assert body == (
        "Harbour Guard",
        "*Medium person, mostly awake*\nArmour 12 (leather)\nSpeed 30 ft.\nSTR: 14 (+2); DEX: 10 "
        "(+0)\nSTR: 9; DEX: 8",
    )
    assert actions == (
        "Harbour Guard: Actions",
        "Whistle. *Ranged:* heard as far as the Mole.\n- a lantern\n- two buttons\n# not a heading",
    )


def test_whose_a_file_is_its_front_matter_its_folder_or_its_name_says(tmp_path, caplog):
    write(
        tmp_path,
        {
            "ada/tea.md": "Tea at four.",
            "ada-marsh/hat.md": "A straw hat.",
            "bo-boats.md": "A boat.",
            "ada-marsh_cat.md": "A cat.",
            "_world.md": "A town.",
            "notes.md": "---\ntitle: x\npersona: [Ada, bo]\n---\nA secret both know.",
            "bo/town.md": "---\npersona: world\n---\nA bridge.",
            "other/x.md": "Nothing of theirs.",
            "stray.md": "Nobody's.",
        },
    )
    found = {
        (p.owner, p.source): p.text
        for p in read_lore(tmp_path, ["ada", "ada-marsh", "bo", "_world"])
    }
    assert found == {
        ("ada", "ada/tea.md"): "Tea at four.",
        ("ada", "ada/notes.md"): "A secret both know.",
        ("ada-marsh", "ada-marsh/hat.md"): "A straw hat.",
        ("ada-marsh", "ada-marsh/ada-marsh_cat.md"): "A cat.",
        ("bo", "bo/bo-boats.md"): "A boat.",
        ("bo", "bo/notes.md"): "A secret both know.",
        ("_world", "_world/_world.md"): "A town.",
        ("_world", "_world/town.md"): "A bridge.",
    }
    assert re.search(r"stray\.md .*no owner", caplog.text)
    assert re.search(r"x\.md .*folder 'other'", caplog.text)


LAYOUTS = {
    "oda/soup.md": "oda",  # a folder per persona
    "Oda Marrow/cellar.md": "oda",
    "characters/ODA.md": "oda",  # a file per persona
    "characters/oda_marrow/rooms.md": "oda",
    "harbour/characters/Sir-Aurelio_Thrip.markdown": "thrip",
    "personas/tiệm đỏ.md": "tiem-do",
    "personas/Tiem Do/menu.md": "tiem-do",
    "character_oda.md": "oda",
    "notes/persona-the-landlady.md": "oda",  # a nickname
    "thrip-career.md": "thrip",
    "world.md": "_world",
    "shared/tides.md": "_world",
    "characters/world.md": "_world",
    "thrip/oda.md": "thrip",  # the folder precedes the file
    "lore/灯台守/一.md": "keeper",
}
SKIPPED = {
    "characters/Bob.md": "called 'Bob'",
    "characters/Bob/oda.md": "folder 'Bob'",
    "harbour/oda.md": "folder 'harbour'",
    "odalisque.md": "no owner",
    "oda/empty.md": "no text",
}


def test_lore_is_found_in_the_layouts_that_people_use_and_the_rest_is_skipped_with_its_reason(
    tmp_path,
):
    write(tmp_path, dict.fromkeys((*LAYOUTS, *SKIPPED), "Some text."))
    write(
        tmp_path,
        {
            "oda/empty.md": "---\npersona: oda\n---\n",
            ".trash/oda.md": "Hidden.",
            "both.md": "---\npersonas: [ODA MARROW, the landlady, Nobody]\n---\nOne owner.",
            "no.md": "---\ncharacter: Nobody\n---\nNo owner.",
        },
    )
    personas = [
        Persona("oda", "Oda Marrow", nickname="The Landlady"),
        Persona("thrip", "Sir Aurelio Thrip"),
        Persona("tiem-do", "Tiệm Đỏ"),
        Persona("keeper", "灯台守"),
    ]
    documents = {str(one.source): one for one in scan_lore(tmp_path, personas)}
    owners = {name: " ".join(one.owners) for name, one in documents.items() if not one.skipped}
    assert owners == LAYOUTS | {"both.md": "oda"}
    skipped = {
        name: one.skipped.partition(";")[0] for name, one in documents.items() if one.skipped
    }
    assert "front matter names Nobody" in skipped.pop("no.md")
    assert skipped.keys() == SKIPPED.keys()
    for name, fact in SKIPPED.items():
        assert fact in skipped[name]
    read = read_lore(tmp_path, personas[:1])
    assert {passage.source for passage in read} == {
        "oda/soup.md", "oda/cellar.md", "oda/ODA.md", "oda/rooms.md", "oda/character_oda.md",
        "oda/persona-the-landlady.md", "oda/both.md",
    }  # fmt: skip


def test_front_matter_that_is_no_yaml_is_named_and_the_rest_is_read(tmp_path, caplog):
    write(tmp_path, {"ada/tea.md": "---\npersona: [ada\n---\nTea.", "ada/cake.md": "Cake."})
    assert [passage.text for passage in read_lore(tmp_path, ["ada"])] == ["Cake."]
    assert re.search(r"tea\.md .*not YAML", caplog.text)


def test_a_rule_around_prose_is_no_front_matter(tmp_path):
    write(tmp_path, {"ada/tea.md": "---\nTea is poured at four.\n\n---\nCake."})
    assert "Tea is poured at four." in " ".join(p.text for p in read_lore(tmp_path, ["ada"]))


def test_long_sections_are_cut_between_sentences():
    text = "# T\n" + " ".join(f"Sentence {n} has exactly seven words here." for n in range(40))
    pieces = [piece for _, piece in split_markdown(text)]
    assert len(pieces) == 4 and all(piece.endswith("here.") for piece in pieces)
    chinese = [piece for _, piece in split_markdown("# 港\n" + "港口里有一条船。" * 60)]
    assert len(chinese) > 1 and all(count_words(piece) <= MAX_PASSAGE_WORDS for piece in chinese)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["word", "o’clock.", "港口。", "x" * 300, "1,5", "*it*", "\n", "\n\n## H\n", "- "]
        ),
        max_size=400,
    )
)
def test_no_word_is_lost_or_doubled(pieces):
    text = " ".join(pieces)
    split = "".join(re.sub(r"[\s#-]", "", piece) for _, piece in split_markdown(text))
    assert split == re.sub(r"[\s#-]|H(?=\n)", "", text)


def test_words_of_all_scripts_have_one_form():
    assert extract_terms("Đèn lồng ĐỎ") == extract_terms("den long do") == ["den", "long", "do"]
    assert extract_terms("渡し船の運賃") == ["渡し", "し船", "船の", "の運", "運賃"]
    assert extract_terms("ＡＢＣ Straße Łódź") == ["abc", "strasse", "lodz"]
    assert query_terms("what is the 船?") == [] and query_terms("それですか") == []


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Chiếc đèn lồng đỏ treo trước cửa quán.", "đèn lồng đỏ treo ở đâu"),
        ("Chiếc đèn lồng đỏ treo trước cửa quán.", "den long do treo o dau?"),
        ("红灯笼挂在客栈门口。", "红灯笼在哪里？"),
        ("赤い提灯が宿の前に下がっている。", "提灯はどこにありますか"),
        ("빨간 등불이 여관 앞에 걸려 있다.", "등불은 어디에 있어요?"),
    ],
)
def test_other_languages_are_found_by_their_words(text, question):
    others = [
        Passage("ada", "ada/x.md", "X", f"Something else about number {n}.") for n in range(8)
    ]
    hits = LoreIndex([Passage("ada", "ada/lamp.md", "", text), *others]).search("ada", question)
    assert [hit.source for hit in hits] == ["ada/lamp.md"]


def test_a_name_alone_finds_nothing_in_another_language():
    index = LoreIndex([Passage("ada", "ada/vi.md", "", "Cần cẩu Ballast cân từng chiếc đèn lồng.")])
    assert index.search("ada", "do you like Ballast?") == []


def test_what_a_guild_adds_is_found_at_once_and_only_there(tmp_path):
    index = LoreIndex(
        [Passage("ada", "ada/tea.md", "Tea", "Tea is poured at four.")], tmp_path / "lore.sqlite"
    )
    owner = guild_owner(7, "ada")
    added = split_passages(
        owner, "ada/umbrella.md", "# Umbrella\nA violet umbrella hangs behind the door."
    )
    index.prepare(added)
    index.replace(owner, added)
    question = "whose violet umbrella hangs there?"
    assert [hit.source for hit in index.search("ada", question, guild_id=7)] == ["ada/umbrella.md"]
    assert index.search("ada", question) == [] and index.search("ada", question, guild_id=8) == []
    assert all(
        "umbrella" not in m.passage.text for m in index.rank("ada", question, guild_id=8).matches
    )
    index.replace(owner, [])
    assert index.search("ada", question, guild_id=7) == []
