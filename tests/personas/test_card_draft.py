"""`python -m personas card draft`: a card from markdown alone, by rules, and what it lacks."""

import re

import pytest

from bot.personas.registry import PersonaRegistry
from personas.card.card_cli import main
from personas.card.card_reader import read_card_file
from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.prompt.renderer import example_turns
from tests.personas.cards import brought_in

WICK = """---
license: own-writing
tags: [keeper, dry]
---
# Wick Tarrow

Wick keeps the light on Tern Head. "Nine before breakfast," he says, "and one of them twice."

**Personality:** dry, exact about ships and vague about everything else

## The steps
There are a hundred and twelve steps. His sister Mag said "you will break your neck one day".
He greets visitors with “You came on foot, then?”

## Likes and fears
- likes fog
- fears the dark

## Quotes
- The lamp has opinions.
- "Sit down. What ship did you come on?"
- "Mind the seventieth step," he says.

## Dialogue
Visitor: Is it lonely up here?
Wick: There is the lamp.
Visitor: And in winter?
**Wick**: There is the lamp, and no ships.
"""
PLAIN = """# 灯台守

灯台守は丘の上に住む。毎晩、灯りをともす。

## 语录
- 船は今夜も来ない。
- 「灯りは消すな、海が見ている。」

## 性格
静かで、星を数える。
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wick").mkdir()
    (tmp_path / "wick" / "wick.md").write_text(WICK, encoding="utf-8")
    (tmp_path / "wick" / "tower.md").write_text(
        "# The tower\n\nThe tower is white. Nobody whitens it.\n", encoding="utf-8"
    )
    return tmp_path / "wick"


def draft(capsys, *words):
    code = main(["card", "draft", *map(str, words)])
    return code, *capsys.readouterr()


def test_a_draft_holds_what_the_text_says_and_the_bot_loads_it(folder, tmp_path, capsys):
    code, out, notes = draft(capsys, folder, "--out", tmp_path / "wick.toml")
    assert code == 0 and "wrote" in out
    persona = read_card(tmp_path / "wick.toml")
    assert (persona.id, persona.name, persona.license, persona.tags) == (
        "wick-tarrow", "Wick Tarrow", "own-writing", ("keeper", "dry")
    )  # fmt: skip
    assert (
        persona.description.startswith("Wick keeps the light on Tern Head.")
        and "tower is white" in persona.description
    )
    assert persona.personality.splitlines() == [
        "dry, exact about ships and vague about everything else", "likes fog", "fears the dark"
    ]  # fmt: skip
    assert persona.first_mes == "You came on foot, then?"
    said = [turn.text for turn in example_turns(persona) if turn.by_persona]
    assert said == [
        "There is the lamp.",
        "There is the lamp, and no ships.",
        "Nine before breakfast, and one of them twice.",
        "The lamp has opinions.",
        "Sit down. What ship did you come on?",
        "Mind the seventieth step.",
    ]
    asked = [turn.text for turn in example_turns(persona) if not turn.by_persona]
    assert asked[:2] == ["Is it lonely up here?", "And in winter?"]
    assert "a scenario (scenario)" in notes and "greeting" not in notes
    assert re.search("quotations left out .*: 1", notes), "his sister's"
    registry = PersonaRegistry(SHIPPED_CARDS, tmp_path / "home")
    brought_in(registry, 0, read_card_file(tmp_path / "wick.toml"))
    again = PersonaRegistry(SHIPPED_CARDS, tmp_path / "home").find("Wick Tarrow", 0)
    assert again and again.first_mes == persona.first_mes


def test_a_file_is_never_replaced_without_a_word(folder, tmp_path, capsys):
    (tmp_path / "wick.json").write_text("mine")
    code, _, errors = draft(capsys, folder, "--out", tmp_path / "wick.json")
    assert code == 1 and "wick.json exists already" in errors and "--overwrite" in errors
    assert (tmp_path / "wick.json").read_text() == "mine"
    assert draft(capsys, folder, "--out", tmp_path / "wick.json", "--overwrite")[0] == 0
    assert read_card_file(tmp_path / "wick.json").name == "Wick Tarrow"


def test_any_language_and_options_for_what_the_text_does_not_say(tmp_path, capsys):
    (tmp_path / "character_keeper.md").write_text(PLAIN, encoding="utf-8")
    out = tmp_path / "keeper.toml"
    code, _, notes = draft(capsys, tmp_path / "character_keeper.md", "--out", out, "--id", "keeper")
    persona = read_card(out)
    assert code == 0 and (persona.id, persona.name) == ("keeper", "灯台守")
    assert persona.personality == "静かで、星を数える。" and "丘の上に住む" in persona.description
    said = [turn.text for turn in example_turns(persona) if turn.by_persona]
    assert said == ["船は今夜も来ない。", "灯りは消すな、海が見ている。"]
    assert "--license" in notes and "a greeting (first_mes)" in notes
    draft(
        capsys,
        tmp_path / "character_keeper.md",
        "--out",
        out,
        "--overwrite",
        "--license",
        "CC0",
        "--name",
        "Keeper",
    )
    assert (read_card(out).name, read_card(out).license) == ("Keeper", "CC0")


def test_the_only_file_of_a_folder_is_titled_with_the_name(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "keeper.md").write_text("# Wick Tarrow\n\nWick keeps the light.\n")
    assert draft(capsys, tmp_path / "notes", "--out", tmp_path / "wick.toml")[0] == 0
    assert read_card(tmp_path / "wick.toml").name == "Wick Tarrow"


def test_a_title_that_names_no_character_gives_way_to_the_folder_and_long_texts_are_cut(
    tmp_path, capsys
):
    lore = tmp_path / "sir-osk"
    lore.mkdir()
    (lore / "cheese.md").write_text(
        "# The night of the cheese\n\n" + "Osk looked for cheese at night. " * 60
    )
    code, _, notes = draft(capsys, lore, "--out", tmp_path / "osk.toml")
    persona = read_card(tmp_path / "osk.toml")
    assert code == 0 and persona.name == "Sir Osk" and len(persona.description) <= 700
    assert persona.description.endswith("night.") and "description is cut to" in notes


@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ({}, (), "There is no markdown in"),
        (
            {"characters/a.md": "A.", "characters/b.md": "B."},
            (),
            "several characters: a.md, b.md",
        ),
        ({"character_a.md": "A.", "character_b.md": "B."}, (), "holds several characters"),
        ({"a.md": "---\nname: [\n---\nText."}, (), "is not YAML"),
        ({"a.md": " "}, (), "holds no text"),
        ({"a.md": "Text."}, ("--id", "No Id"), "id of lower-case letters"),
        ({"a.md": "Text."}, ("--name", "Discord"), "without 'discord'"),
    ],
)
def test_what_cannot_be_drafted_is_said_and_nothing_is_written(
    tmp_path, capsys, files, words, said
):
    folder = tmp_path / "who"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    code, _, errors = draft(capsys, folder, "--out", tmp_path / "card.toml", *words)
    assert code == 1 and said in errors and not (tmp_path / "card.toml").exists()
    assert draft(capsys, tmp_path / "nothing", "--out", tmp_path / "card.toml")[0] == 1


def test_the_suffix_must_say_the_format(folder, tmp_path, capsys):
    assert "is not clear from its name" in draft(capsys, folder, "--out", tmp_path / "card")[2]
