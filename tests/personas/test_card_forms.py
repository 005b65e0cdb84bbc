"""Cards of versions 1, 2 and 3 in JSON, PNG, CHARX and TOML: what goes in comes out again."""

import base64
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.card import charx as zips
from personas.card import png as pictures
from personas.card.card_book import book_as_lore, book_entries
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card, read_card_file
from personas.card.card_writer import write_card
from personas.card.toml_card import (
    SHIPPED_CARDS,
    parse_table,
    persona_from_table,
    read_card,
    to_persona,
)
from personas.errors import CardError
from personas.prompt.renderer import example_turns, system_text
from tests.personas.cards import PIXEL, TALK, V1, V2, as_json, v3

ICON = "embeded://assets/icon/images/main.png"
JOY = "embeded://assets/emotion/images/joy.webp"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Halves of a character may stand in JSON; `st.text` makes none.
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["\ud800", "'''", '"""\\', "a\r\nb\x00\x7f\x85", "{{char}}:", TALK]
)


def v3_charx() -> bytes:
    return zips.write(
        as_json(v3()), {ICON: PIXEL, JOY: b"RIFF....WEBP joy", "embeded://x_meta/1.json": b"{}"}
    )


def through(data: bytes, *forms: str):
    card = parse_card(data, "it")
    for form in forms:
        if form == "png" and not card.picture and card.container in ("json", "toml"):
            card = with_picture(card, PIXEL, "the picture")
        card = parse_card(write_card(card, form, "it").content, f"it as {form}")
    return card


@pytest.mark.parametrize(
    "forms", [("v2",), ("png",), ("toml",), ("png", "v2"), ("toml", "png", "toml", "v2")]
)
def test_a_v2_card_comes_back_value_for_value(forms):
    assert through(as_json(V2), *forms).document == V2


@pytest.mark.parametrize(
    "forms",
    [("charx",), ("charx", "charx"), ("png", "charx"), ("v3", "charx"), ("toml", "png", "charx")],
)
def test_a_v3_card_comes_back_value_for_value_but_for_where_its_files_lie(forms):
    document = through(v3_charx(), *forms).document
    assets = document["data"].pop("assets")
    before = v3()
    assert [(one["type"], one["name"]) for one in assets] == [
        ("icon", "main"),
        ("emotion", "joy"),
        ("background", "main"),
    ]
    del before["data"]["assets"]
    assert document == before


def test_the_files_of_a_card_go_along_and_what_has_no_place_is_said():
    card = parse_card(v3_charx(), "it")
    picture = write_card(card, "png", "it")
    (note,) = picture.notes
    assert note.startswith("1 files are left out") and ": x_meta/1.json" in note
    inside = parse_card(picture.content, "it")
    assert inside.picture == PIXEL and list(inside.files.values()) == [b"RIFF....WEBP joy"]
    assert inside.assets[0]["uri"] == "ccdefault:"
    back = parse_card(write_card(inside, "charx", "it").content, "it")
    assert back.files == {ICON: PIXEL, JOY: b"RIFF....WEBP joy"}
    inlined = parse_card(write_card(card, "v3", "it").content, "it")
    assert (
        inlined.assets[1]["uri"]
        == "data:image/webp;base64," + base64.b64encode(b"RIFF....WEBP joy").decode()
    )
    assert write_card(inside, "toml", "it", "mira").beside == {"mira.png": PIXEL}
    assert "picture is left out" in write_card(inside, "v2", "it").notes[-1]


def test_a_picture_keeps_its_own_chunks_and_loses_the_card_that_it_carried():
    card = parse_card(as_json(V2), "it")
    once = write_card(with_picture(card, PIXEL, "pixel"), "png", "it").content
    other = parse_card(as_json({**V2, "data": {**V2["data"], "name": "Nera"}}), "it")
    chunks = pictures.split(
        write_card(with_picture(other, once, "pixel"), "png", "it").content, "it"
    )
    assert [chunk.kind for chunk in chunks] == [
        b"IHDR",
        b"pHYs",
        b"tEXt",
        b"tEXt",
        b"IDAT",
        b"IEND",
    ]
    assert [chunk.keyword for chunk in chunks if chunk.keyword] == ["software", "chara"]
    assert parse_card(pictures.join(chunks), "it").name == "Nera"
    assert pictures.join(chunk for chunk in chunks if not chunk.belongs_to_card) == PIXEL


def test_a_v3_picture_carries_a_v2_copy_that_says_so_and_is_not_the_one_that_is_read():
    chunks = {
        c.keyword: c.data
        for c in pictures.split(write_card(parse_card(v3_charx(), "it"), "png", "it").content, "it")
    }
    older = json.loads(base64.b64decode(chunks["chara"].partition(b"\0")[2]))
    newer = json.loads(base64.b64decode(chunks["ccv3"].partition(b"\0")[2]))
    assert (
        older["spec"] == "chara_card_v2" and "Character Card V3" in older["data"]["creator_notes"]
    )
    assert newer["spec"] == "chara_card_v3" and newer["data"]["creator_notes"] == "NOTES FOR PEOPLE"


def test_a_v1_card_becomes_v2_and_v3_with_its_unknown_fields():
    card = parse_card(as_json(V1), "it")
    assert card.version == 1
    for form, version in (("v2", 2), ("v3", 3)):
        later = through(as_json(V1), form)
        assert later.version == version and later.data["metadata"] == V1["metadata"]
        assert later.data["tags"] == [] and later.data["extensions"] == {}
    persona = to_persona(card, "it")
    assert [(turn.text, turn.by_persona) for turn in example_turns(persona)] == [
        ("evening", False),
        ("Mind the step.", True),
    ]


@settings(max_examples=60, deadline=None)
@given(
    extensions=st.dictionaries(st.text(), VALUES, max_size=4),
    unknown=VALUES,
    texts=st.tuples(TEXTS, TEXTS, TEXTS),
)
def test_whatever_a_card_holds_survives_each_form(extensions, unknown, texts):
    data = {
        "name": "Mira",
        "extensions": extensions,
        "zz": unknown,
        "first_mes": texts[0],
        "mes_example": texts[1],
    }
    document = {
        "spec": "chara_card_v2",
        "spec_version": "2.0",
        "zz": unknown,
        "data": data | {"system_prompt": texts[2]},
    }
    forms = (
        ("v2", "png", "toml", "v2")
        if not any("\ud800" in text for text in texts)
        else ("v2", "png")
    )
    card = through(as_json(document), *forms)
    kept = card.data.get("extensions", {}) if "understudy" not in extensions else extensions
    assert card.document == document | {"data": document["data"] | {"extensions": kept}}
    assert kept == extensions


def test_our_own_cards_come_back_the_same_personas():
    for path in SHIPPED_CARDS.glob("*.toml"):
        before = dataclasses.replace(read_card(path), avatar=None)
        for form in ("v2", "v3", "png", "charx", "toml"):
            card = parse_card(write_card(read_card_file(path), form, "it").content, "it")
            assert to_persona(card, "it") == before, form


# ------------------------------------------------------------------------------- what is made of it


def test_names_are_filled_in_and_notes_stay_out_of_the_prompt():
    persona = to_persona(parse_card(v3_charx(), "it"), "it")
    text = system_text(persona, "Bo")
    assert text.splitlines() == [
        " You are Mi.",
        "Mi keeps the lighthouse.",
        "dry",
        "A stormy night.",
    ]
    assert "NOTES" not in text and "HINWEISE" not in text
    assert [turn.text for turn in example_turns(persona)] == ["evening", "Mind the step, Guest."]
    assert (
        persona.alternate_greetings == ("The lamp is out.",)
        and persona.post_history_instructions == "Stay dry."
    )


@pytest.mark.parametrize(
    "written",
    ["{{Char}} and <BOT>", "{{ char }} and {{char}}{{// not for prompts}}", "<char> and {{CHAR}}"],
)
def test_each_way_to_write_a_name_is_known(written):
    data = {**V2["data"], "description": written}
    assert "Mira and Mira\n" in system_text(
        to_persona(parse_card(as_json({**V2, "data": data}), "it"), "it"), "Bo"
    )


@pytest.mark.parametrize(
    "prose", ["Speaks in short, wet sentences.", "{{char}}: Hm.", "{{user}}: so?"]
)
def test_examples_that_are_no_talk_say_how_it_speaks(prose):
    persona = to_persona(
        parse_card(as_json({**V2, "data": {**V2["data"], "mes_example": prose}}), "it"), "it"
    )
    assert example_turns(persona) == []
    assert "Mira speaks like this:\n" in system_text(persona, "Bo")


def test_the_book_is_read_as_lore():
    card = parse_card(as_json(V2), "it")
    assert [(entry.topic, entry.text, entry.unused) for entry in book_entries(card)] == [
        ("lamp", "Mira trims the lamp at six.", ""),
        ("x", "secret", "disabled in the card"),
    ]
    rules = "<!-- lore\nkeys: [lamp]\norder: 1\n-->"
    assert book_as_lore(card) == [f"# Mira\n\n## lamp\n\n{rules}\n\nMira trims the lamp at six.\n"]


def test_a_long_book_becomes_several_files():
    entries = [
        {"content": f"{number} " + "ü" * 300, "keys": [f"key {number}"]} for number in range(9)
    ]
    card = parse_card(
        as_json({**V2, "data": {**V2["data"], "character_book": {"entries": entries}}}), "it"
    )
    files = book_as_lore(card, 2000)
    assert len(files) > 2 and all(
        len(file.encode()) <= 2000 and file.startswith("# Mira\n") for file in files
    )
    sections = [f"## key {n}\n\n<!-- lore\nkeys: [key {n}]\n-->\n\n{n} ü" for n in range(9)]
    assert [section in "".join(files) for section in sections] == [True] * 9
    assert all(99 <= len(file.encode()) <= 100 for file in book_as_lore(card, 100))


def test_an_id_is_made_of_the_name_or_given():
    card = parse_card(as_json({**V2, "data": {**V2["data"], "name": "Señor Ærø  III."}}), "it")
    assert (
        to_persona(card, "it").id == "senor-aero-iii"
        and to_persona(card, "it", "aero").id == "aero"
    )
    chinese = to_persona(
        parse_card(as_json({**V2, "data": {**V2["data"], "name": "李白"}}), "it"), "it"
    )
    assert chinese.id == "libai" and chinese.name == "李白"
    kept = parse_card(
        write_card(parse_card(as_json(V2), "it"), "toml", "it").content.replace(
            b'id = "mira"', b'id = "light"'
        ),
        "it",
    )
    assert to_persona(through(write_card(kept, "v2", "it").content, "toml"), "it").id == "light"


def test_a_card_that_could_not_speak_on_discord_is_refused_as_a_persona_only():
    card = parse_card(as_json({**V2, "data": {**V2["data"], "name": "Discord Mod"}}), "it")
    with pytest.raises(CardError, match="without 'discord'"):
        to_persona(card, "it")


def test_toml_that_is_written_is_read_by_our_own_reader():
    content = write_card(parse_card(as_json(V2), "it"), "toml", "it").content
    assert persona_from_table(parse_table(content, "it"), "it") == to_persona(
        parse_card(as_json(V2), "it"), "it"
    )


def test_a_card_that_is_too_large_for_toml_stays_what_it_is():
    entries = [{"content": "x" * 1000, "keys": ["k"]}] * 5000
    card = parse_card(
        as_json({**V2, "data": {**V2["data"], "character_book": {"entries": entries}}}), "it"
    )
    with pytest.raises(CardError, match="too large for a TOML card"):
        write_card(card, "toml", "it")
    assert len(parse_card(write_card(card, "v3", "it").content, "it").book) == 5000
