"""Character cards as material: what becomes a conversation, what does not, and that nothing is lost
between.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.card.toml_card import SHIPPED_CARDS
from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.personas.cards import PIXEL, V1, V2, as_json, v3
from tests.personas.test_card_forms import v3_charx
from tests.personas.test_other_cards import PLAIN_TEXTS, PYGMALION, YAML, encoded, picture
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.reader import read_source
from trainer.sources.registry import detect_format
from trainer.sources.source_format import ReadOptions

MIRA = Persona("mira-0x", "Mira")
PICTURE = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content
TOML = write_card(parse_card(as_json(V2), "it"), "toml", "it").content


def items(tmp_path, content, name="card.bin", **options):
    path = tmp_path / name
    path.write_bytes(content)
    assert detect_format(path).name == "character-card"
    return list(read_source(path, ReadOptions(**options)))


def said(item):
    return [(message.speaker.is_persona, message.text) for message in item.messages]


@pytest.mark.parametrize("content", [as_json(V2), PICTURE, TOML, b"\xef\xbb\xbf" + as_json(V2)])
def test_talks_greetings_and_the_book_in_every_form(tmp_path, content):
    found = items(tmp_path, content, right="own-writing", source="mira")
    talks = [item for item in found if isinstance(item, Conversation)]
    assert [said(item) for item in talks] == [
        [(False, "evening"), (True, "Mind the step, Guest.")],
        [(False, "Hello."), (True, "You found the stairs, Guest.")],
        [(False, "Hello."), (True, "The lamp is out.")],
    ]
    assert [(item.row, item.reason) for item in found if isinstance(item, RejectedRecord)] == [
        ("alternate_greetings 2", "no text"),
        ("book 1", "about the character, not in its words: use it as lore"),
        ("book 2", "disabled in the card"),
    ]
    assert {(item.right, item.source) for item in talks} == {("own-writing", "mira")}
    assert "Mira keeps the lighthouse." in talks[0].system and "NOTES" not in talks[0].system
    assert sum(item.rows for item in found) == len(found) == 6


@pytest.mark.parametrize("name", ["mira.yaml", "mira.txt"])
@pytest.mark.parametrize(
    "content", [YAML, as_json(PYGMALION), picture(*PLAIN_TEXTS)], ids=["yaml", "pygmalion", "texts"]
)
def test_cards_with_other_field_names_are_material(tmp_path, content, name):
    talks = items(tmp_path, content, name=name)
    assert [said(talk) for talk in talks] == [
        [(False, "evening"), (True, "Mind the step.")],
        [(False, "Hello."), (True, "You found the stairs.")],
    ]


def test_a_faulty_card_beside_the_one_that_is_read_is_listed(tmp_path):
    first, *_ = items(tmp_path, picture(b"ccv3\0", b"chara\0" + encoded(V2)))
    assert isinstance(first, RejectedRecord) and first.rows == 0
    assert first.row == "ccv3 in the picture" and "not valid JSON" in first.reason


def test_v1_and_v3_and_what_the_book_knows(tmp_path):
    talk, greeting = items(tmp_path, as_json(V1))
    assert (
        said(talk) == [(False, "evening"), (True, "Mind the step.")]
        and said(greeting)[1][1] == "You found the stairs."
    )
    assert said(items(tmp_path, v3_charx())[-3])[1] == (True, "All of you, mind the step.")
    entry = {"keys": ["tide"], "content": "@@depth 2\nIt turns at six."}
    card = {
        **V2,
        "data": {
            **V2["data"],
            "character_book": {"entries": [entry, {"content": "x", "keys": []}]},
        },
    }
    *_, tide, nameless = items(tmp_path, as_json(card))
    assert (
        said(tide) == [(False, "tide?"), (True, "It turns at six.")]
        and nameless.reason == "no topic to ask about"
    )


@pytest.mark.parametrize(
    ("options", "is_persona"),
    [
        ({}, True),
        ({"persona": MIRA}, True),
        ({"persona": Persona("ada", "Ada")}, False),
        ({"persona_names": ("MIRA",)}, True),
    ],
)
def test_the_character_is_the_persona_that_is_asked_for(tmp_path, options, is_persona):
    assert items(tmp_path, as_json(V2), **options)[0].messages[1].speaker.is_persona is is_persona


def test_examples_in_prose_are_no_talk(tmp_path):
    card = {
        **V2,
        "data": {**V2["data"], "mes_example": "Short and wet.<START>{{user}}: a\n{{char}}: b"},
    }
    prose, talk, *_ = items(tmp_path, as_json(card))
    assert prose == RejectedRecord(
        "mes_example 1", "prose, not a dialogue of {{user}} and {{char}}"
    )
    assert said(talk) == [(False, "a"), (True, "b")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PIXEL, "without a card"),
        (as_json({"spec": "chara_card_v2", "data": {"name": ""}}), "name must be a non-empty text"),
        (
            as_json({"spec": "chara_card_v2", "data": {"name": "Mira"}}),
            "without examples, greetings or a character book",
        ),
    ],
)
def test_a_card_with_nothing_to_read_is_an_error(tmp_path, content, words):
    with pytest.raises(MaterialError, match=words):
        items(tmp_path, content)


def test_the_shipped_cards_are_material(tmp_path):
    for path in SHIPPED_CARDS.glob("*.toml"):
        found = list(read_source(path, ReadOptions()))
        assert len(found) >= 3 and all(isinstance(item, Conversation) for item in found)


TEXT = st.text(max_size=40) | st.sampled_from(
    ["<START>", "{{user}}: a\n{{char}}: b", "{{char}}: {{user}}:", "\ud800"]
)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, st.lists(TEXT, max_size=3), st.lists(TEXT, max_size=3))
def test_nothing_of_a_card_gets_lost(tmp_path_factory, examples, greeting, greetings, entries):
    folder = tmp_path_factory.mktemp("card")
    data = {
        "name": "Mira",
        "mes_example": examples,
        "first_mes": greeting,
        "alternate_greetings": greetings,
    }
    book = {"entries": [{"content": text, "keys": ["k"]} for text in entries]}
    card = {**v3(), "data": data | {"character_book": book, "personality": ""}}
    (folder / "card").write_bytes(as_json(card))
    try:
        found = list(read_source(folder / "card", ReadOptions()))
    except MaterialError:
        assert not (
            examples.replace("<START>", "").strip() or greeting.strip() or greetings or entries
        )
        return
    rows = [
        item.row if isinstance(item, RejectedRecord) else item.messages[0].row for item in found
    ]
    assert len(rows) == len(set(rows)) == sum(item.rows for item in found)
    assert sum(row.startswith("book") for row in rows) == len(entries)
    assert sum(row.startswith("alternate") for row in rows) == len(greetings)
