"""Cards: the shipped ones read, and each way to be wrong has its own words."""

import pytest

from personas.card.toml_card import (
    MAX_CARD_BYTES,
    SHIPPED_CARDS,
    read_card,
    read_cards,
)
from personas.errors import CardError
from personas.home.persona_ids import match_personas

GOOD = 'id = "ada"\nname = "Ada"\ndescription = """You are Ada."""\n'


def write(tmp_path, text: str | bytes):
    path = tmp_path / "ada.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_shipped_cards_are_three_with_faces():
    cards = read_cards(SHIPPED_CARDS)
    assert sorted(cards) == ["ballast", "oda", "thrip"]
    assert all(
        card.avatar and card.avatar.read_bytes().startswith(b"\x89PNG") for card in cards.values()
    )


def test_a_persona_is_found_by_id_and_by_display_name():
    cards = read_cards(SHIPPED_CARDS)
    known = [(0, persona) for persona in cards.values()]
    for wanted in ("thrip", " sir aurelio THRIP "):
        assert match_personas(known, wanted) == [(0, cards["thrip"])]
    assert match_personas(known, "nobody") == []


def test_a_byte_order_mark_is_no_harm(tmp_path):
    assert read_card(write(tmp_path, "\ufeff" + GOOD)).name == "Ada"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        ("id = ", "not valid TOML"),
        ('name = "Ada"', "needs an id"),
        ('id = "../../etc"\nname = "Ada"', "needs an id"),
        ('id = "ada"', "needs a name"),
        ('id = "ada"\nname = "\\u200b"', "needs a name"),
        ('id = "ada"\nname = "Discord Helper"', "without 'discord'"),
        (GOOD + "temper = 3", "unknown fields: temper"),
        (GOOD + "personality = 3", "personality must be text"),
        (GOOD + f'tagline = "{"x" * 201}"', "tagline of more than 200"),
        (GOOD + 'tags = "a, b"', "tags must be a list"),
        (GOOD + 'mes_example = "Ada: hello"', "mes_example has to go"),
        (GOOD + 'mes_example = "{{user}}: hello?"', "mes_example has to go"),
        (GOOD + "# " + "x" * MAX_CARD_BYTES, "exceeds"),
    ],
)
def test_each_fault_is_named_with_the_file(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(CardError, match=words) as caught:
        read_card(path)
    assert str(path) in caught.value.message and caught.value.advice


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\\u202eMina\\u202c \\u2066Vale\\u2069", "Mina Vale"),
        ("[free](https://evil.example) @everyone", "[free] (https: //evil.example) \uff20everyone"),
        ("Ada\\u0007\\nWren", "Ada Wren"),
        ("```ansi", "'''ansi"),
        ("\U0001f469\u200d\U0001f680 Ada", "\U0001f469\u200d\U0001f680 Ada"),
    ],
)
def test_a_name_hides_turns_mentions_and_links_nothing(tmp_path, name, shown):
    assert read_card(write(tmp_path, f'id = "ada"\nname = "{name}"')).name == shown


@pytest.mark.parametrize("name", ["\u202e\u200b\u2800", "\u3164", "\u0301"])
def test_a_name_that_cannot_be_seen_is_none(tmp_path, name):
    with pytest.raises(CardError, match="visible characters"):
        read_card(write(tmp_path, f'id = "ada"\nname = "{name}"'))


def test_a_missing_card_and_a_doubled_id(tmp_path):
    with pytest.raises(CardError, match="no card"):
        read_card(tmp_path / "absent.toml")
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(CardError, match="Two cards"):
        read_cards(tmp_path)
