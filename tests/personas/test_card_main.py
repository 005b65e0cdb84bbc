"""`python -m personas card show|convert`: what is printed, what is written, and how a mistake is
told.
"""

import json

import pytest

from personas.card.card_cli import main
from personas.card.card_reader import read_card_file
from personas.card.toml_card import SHIPPED_CARDS, read_card
from tests.personas.cards import PIXEL, V2, as_json


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "mira.json"
    path.write_bytes(as_json(V2))
    return path


def test_show_counts_what_a_card_costs_and_marks_what_no_prompt_gets(card, capsys):
    assert main(["card", "show", str(card)]) == 0
    shown = capsys.readouterr().out
    assert "Mira (card V2, JSON, no picture, by a friend)" in shown
    assert "creator_notes *" in shown and "* never part of" in shown
    assert (
        "tokens of every prompt." in shown
        and "extensions, preserved unchanged: talkativeness, tool/x" in shown
    )
    assert "book 2 [x] (disabled" in shown


def test_show_json_has_stable_keys(card, capsys):
    assert main(["card", "show", str(card), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(
        "file form version name nickname tags creator character_version fields alternate_greetings "
        "group_only_greetings book assets extensions picture prompt_tokens problems "
        "imported".split()
    )
    held = shown["fields"]["personality"]
    assert held["text"] == "dry" and held["characters"] == 3 and held["tokens"] >= 1


def test_without_the_tokenizer_nothing_is_counted(card, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("personas.card.card_summary.bundled_model_folder", lambda: tmp_path)
    assert main(["card", "show", str(card), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["prompt_tokens"] is None and shown["fields"]["personality"]["tokens"] is None
    assert main(["card", "show", str(card), "--base-model", str(tmp_path)]) == 1
    assert "no tokenizer.json" in capsys.readouterr().err


def test_a_card_goes_through_all_forms_by_the_endings_of_the_names(card, tmp_path, capsys):
    picture = tmp_path / "face.png"
    picture.write_bytes(PIXEL)
    steps = ["a.png", "b.charx", "c.toml", "d.json"]
    before = card
    for name in steps:
        more = ["--picture", str(picture)] if name == "a.png" else []
        assert main(["card", "convert", str(before), str(tmp_path / name), *more]) == 0
        before = tmp_path / name
    assert read_card(tmp_path / "c.toml").avatar.read_bytes() == PIXEL
    last = read_card_file(tmp_path / "d.json")
    assert last.version == 3 and last.data["extensions"] == V2["data"]["extensions"]
    assert "note: The picture is left out" in capsys.readouterr().err
    lore = tmp_path / "mira.md"
    assert (
        main(["card", "convert", str(card), str(tmp_path / "e"), "--to", "v3", "--lore", str(lore)])
        == 0
    )
    assert "# Mira\n\n## lamp\n\n<!-- lore\nkeys: [lamp]\n" in lore.read_text()
    assert "Not taken: entry 2 “x” – disabled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "absent.png"], "no card at absent.png"),
        (
            ["convert", "{card}", "out.xyz"],
            "Add --to toml|v2|v3|png|charx",
        ),
        (
            ["convert", "{card}", "{tmp}/out.png"],
            "has no picture, which a PNG card needs. Name a PNG picture with",
        ),
        (
            ["convert", "{card}", "{tmp}/out.png", "--picture", "{card}"],
            "is not a supported picture",
        ),
        (
            ["convert", "{card}", "{tmp}/out.png", "--picture", "absent.png"],
            "absent.png cannot be used",
        ),
        (
            ["convert", "{card}", "{card}"],
            "or add --overwrite",
        ),
        (
            ["convert", str(SHIPPED_CARDS / "oda.toml"), "{tmp}/o.json", "--lore", "{tmp}/l.md"],
            "has no character book",
        ),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(card, tmp_path, capsys, arguments, words):
    filled = [one.format(card=card, tmp=tmp_path) for one in arguments]
    assert main(["card", *filled]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [card] and card.read_bytes() == as_json(V2)
