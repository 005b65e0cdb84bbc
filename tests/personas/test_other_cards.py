"""Cards of text-generation-webui, Pygmalion and early TavernAI, and pictures with a faulty card beside
a good one.
"""

from __future__ import annotations

import base64
import zlib

import pytest

from personas.card.card_reader import parse_card
from personas.card.card_report import report_card
from personas.card.card_summary import summarise_card
from personas.card.card_writer import write_card
from personas.card.png import PngChunk, join, split
from personas.card.toml_card import (
    card_from_table,
    has_example_dialogue,
    table_from_card,
    to_persona,
)
from personas.errors import CardError
from tests.personas.cards import PIXEL, V2, as_json, v3

YAML = b"""\
# from text-generation-webui
---
name: "Mira"
greeting: |-
  You found the stairs.
context: |-
  Mira keeps the lighthouse.
  She says: mind the step.
example_dialogue: |-
  You: evening
  Mira: Mind the step.
turn_template: <|user|>
greeting_of_groups: null
"""
PYGMALION = {
    "char_name": "Mira",
    "char_persona": "Mira keeps the lighthouse.\nShe says: mind the step.",
    "char_greeting": "You found the stairs.",
    "example_dialogue": "You: evening\nMira: Mind the step.",
    "world_scenario": "",
}
BOTH_SPELLINGS = {
    **PYGMALION,
    "name": "Mira",
    "description": PYGMALION["char_persona"],
    "personality": "",
    "first_mes": PYGMALION["char_greeting"],
    "mes_example": "",
    "metadata": {"version": 1},
}
CAPITALS = {
    "Name": "Mira",
    "Persona": PYGMALION["char_persona"],
    "First Message": PYGMALION["char_greeting"],
    "example-dialogue": ["You: evening", "Mira: Mind the step."],
}


def picture(*texts: bytes, kind: bytes = b"tEXt") -> bytes:
    """A picture with these texts before its pixels."""
    chunks = split(PIXEL, "it")
    return join([*chunks[:2], *(PngChunk(kind, text) for text in texts), *chunks[2:]])


def encoded(card: object) -> bytes:
    return base64.b64encode(as_json(card))


PLAIN_TEXTS = (
    b"name\0Mira",
    b"description\0" + PYGMALION["char_persona"].encode(),
    b"first_message\0" + PYGMALION["char_greeting"].encode(),
    b"mes_example\0" + PYGMALION["example_dialogue"].encode(),
)


@pytest.mark.parametrize(
    "data",
    [
        YAML,
        b"\xef\xbb\xbf" + YAML.replace(b"\n", b"\r\n"),
        as_json(PYGMALION),
        as_json(BOTH_SPELLINGS),
        as_json(CAPITALS),
        picture(*PLAIN_TEXTS),
        picture(b"chara\0" + as_json(PYGMALION)),
        picture(b"chara\0" + encoded(PYGMALION)),
    ],
    ids="yaml windows pygmalion both capitals plain-texts no-base64 picture".split(),
)
def test_cards_with_other_field_names_are_read(data):
    card = parse_card(data, "mira")
    persona = to_persona(card, "mira")
    assert (persona.id, persona.name) == ("mira", "Mira")
    assert persona.description == "Mira keeps the lighthouse.\nShe says: mind the step."
    assert persona.first_mes == "You found the stairs."
    assert persona.mes_example == "{{user}}: evening\n{{char}}: Mind the step."
    assert (
        to_persona(parse_card(write_card(card, "toml", "mira").content, "mira"), "mira") == persona
    )


def test_what_has_no_field_here_is_listed():
    report = report_card(parse_card(YAML, "mira"))
    assert [item.what for item in report.with_outcome("not_taken")] == ["turn_template"]
    kept = parse_card(as_json({**PYGMALION, "context": "More of her."}), "mira")
    assert [item.what for item in report_card(kept).with_outcome("not_taken")] == ["context"]
    assert write_card(kept, "v2", "mira").content.count(b"More of her.") == 1


def test_texts_are_latin_1_or_utf_8():
    texts = (b"name\0Mira", "description\0Küche".encode(), "personality\0müde".encode("latin-1"))
    card = parse_card(picture(*texts), "mira")
    assert (card.text("description"), card.text("personality")) == ("Küche", "müde")
    assert card.picture == picture(*texts)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"context: Mira keeps the light.\ngreeting: hi\n", "name must be a non-empty text"),
        (picture(b"personality\0dry", b"first_message\0hi"), "name must be a non-empty text"),
        (picture(b"Description\0a photo", b"Title\0Mira"), "a picture without a card"),
        (picture(b"Description\0a photo", b"Name\0Mira"), "a picture without a card"),
        (b"name: Mira\ncontext: a\ncontext: b\n", "it has 'context' twice"),
        (
            picture(
                b"name\0\0" + zlib.compress(b"A" * 2**19),
                b"description\0\0" + zlib.compress(b"A" * 2**20),
                kind=b"zTXt",
            ),
            "'description' in the picture is too large",
        ),
        (b"version: 3\nservices: {}\n", "is not a character card; it contains 'version'"),
        (b"name: Mira\ncontext: [a\n", "is not valid YAML: .*line 3"),
        (b"name: Mira\ncontext: *waves*\n", "is not valid YAML|has an alias"),
        (b"a: &a [x]\nname: *a\ncontext: x\n", "YAML that is not read: it has an alias"),
        (b"name: Mira\ncontext: " + b"[" * 9999, "nested too deeply"),
        (b"name: Mira\ncontext: " + b"x" * 2**18, "larger than 256 KiB of YAML"),
        (b"name: Mira\ncontext: \xff\n", "not UTF-8"),
        (b"name: !!python/object/apply:os.system [ls]\ncontext: x\n", "name must be a non-empty"),
    ],
)
def test_other_files_are_refused_with_the_reason(data, words):
    with pytest.raises(CardError, match=words) as refused:
        parse_card(data, "mira")
    assert refused.value.advice


@pytest.mark.parametrize(
    "faulty",
    [b"", b"%%%", b"rcc||abc", encoded({}), encoded({**v3(), "data": {"name": ""}}), b"e30="],
)
def test_a_faulty_card_gives_way_to_the_good_one_beside_it(faulty):
    card = parse_card(picture(b"ccv3\0" + faulty, b"chara\0" + encoded(V2)), "mira")
    assert card.name == "Mira" and card.version == 2 and card.picture == PIXEL
    (missing,) = [item for item in report_card(card).items if item.what == "ccv3 in the picture"]
    assert missing.outcome == "not_taken" and missing.why
    with pytest.raises(CardError):
        parse_card(picture(b"ccv3\0" + faulty, b"chara\0%%%"), "mira")


def test_an_empty_card_gives_way_to_one_with_content_beside_it():
    empty = {**v3(), "data": {"name": "Mira", "description": "", "first_mes": ""}}
    card = parse_card(picture(b"ccv3\0" + encoded(empty), b"chara\0" + encoded(V2)), "mira")
    assert card.version == 2
    assert parse_card(picture(b"ccv3\0" + encoded(empty)), "mira").name == "Mira"


def test_base64_for_addresses_is_read():
    card = {**V2, "data": {**V2["data"], "description": "Küche? Süß~ ÿÿÿ>>>???"}}
    text = base64.urlsafe_b64encode(as_json(card))
    assert b"-" in text or b"_" in text
    read = parse_card(picture(b"chara\0" + text), "mira")
    assert read.text("description") == card["data"]["description"]


def test_other_names_of_fields_are_read_in_a_card_with_a_version():
    data = {"name": "Mira", "description": "Dry.", "first_message": "Hi.", "example_dialogs": "A"}
    card = parse_card(as_json({"spec": "chara_card_v3", "spec_version": "3.0", "data": data}), "m")
    assert (card.text("first_mes"), card.text("mes_example")) == ("Hi.", "A")


def test_a_card_without_faults_has_no_remarks():
    both = picture(b"chara\0%%%", b"ccv3\0" + encoded(v3()))
    assert parse_card(both, "mira").version == 3
    assert not parse_card(both, "mira").remarks


def test_examples_beside_a_way_of_talking_are_examples():
    table = {
        "id": "mira",
        "name": "Mira",
        "description": "Mira keeps the light.",
        "speech": "Short and dry.",
        "mes_example": "<START>\n{{user}}: evening\n{{char}}: Mind the step.",
    }
    card = card_from_table(table, "mira")
    assert has_example_dialogue(card) and table_from_card(card)["speech"] == "Short and dry."
    assert {item.outcome for item in report_card(card).items} == {"as_is"}
    assert summarise_card(card, "mira", None)["problems"] == []
