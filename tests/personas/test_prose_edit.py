"""Edits of the prose of cards and lore: what gives them their form stays, whatever word is replaced."""

from __future__ import annotations

import re

import pytest

from personas.card.prose_edit import edit_card, edit_persona
from personas.card.toml_card import MAX_TAGLINE, SHIPPED_CARDS, read_card
from personas.lore.lore_folder import parse_lore
from personas.lore.passages import split_passages
from personas.lore.prose_edit import edit_lore
from personas.prompt.renderer import example_turns
from personas.shipped_folders import SHIPPED_DATA

CARD = """id = "wick"
name = "Wick"
tagline = "Ann tends the lamp."
description = "{{user}} brings oil to <bot>. Ask {{random:Ann,Bo}}."
mes_example = \"\"\"
<START>
user: who trims it?
Wick: I do, Ann.
<START>
You: and the char?
Wick: In the bin.
\"\"\"
alternate_greetings = ["Ann, {{user}} is here."]
"""
LORE = """---
persona: Ann
---
# The lamp

<!-- lore
keys: Ann, lamp
match case: yes
--> Ann trims it.

## The oil

> <!-- lore
> keys: oil
> -->

<!-- Ann's note -->
## Ann

Ann says:

```
<!-- lore
keys: Ann
-->
```
"""


def put(word):
    return lambda text: re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "someone", text)


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "wick.toml"
    path.write_text(CARD, encoding="utf-8")
    return path


def edited(card, edit):
    card.write_text(edit_card(card.read_text(encoding="utf-8"), card, edit), encoding="utf-8")
    return read_card(card)


@pytest.mark.parametrize("path", sorted(SHIPPED_CARDS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_card_in_which_nothing_is_replaced_stays_the_same_persona(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / f"{path.stem}.png").touch()
    before = read_card(path)
    after = edited(copy, lambda text: text)
    assert after.avatar == tmp_path / before.avatar.name
    assert after.__dict__ | {"avatar": None} == before.__dict__ | {"avatar": None}


@pytest.mark.parametrize(
    "word",
    ["mes_example", "tagline", "id", '"""', "char", "user", "bot", "START", "{{user}}", "random"],
)
def test_a_word_that_is_a_cards_own_replaces_prose_alone(card, word):
    before = read_card(card)
    after = edited(card, put(word))
    assert len(example_turns(after)) == len(example_turns(before)) == 4
    assert after.tagline == before.tagline
    assert after.description.startswith("{{user}} brings oil to {{char}}.")


def test_all_that_somebody_may_read_of_a_card_is_edited(card):
    before = read_card(card)
    after = edited(card, put("Ann"))
    assert "Ann" in str(before) and "Ann" not in str(after)
    assert edit_persona(before, put("Ann")).mes_example == after.mes_example
    assert after.alternate_greetings == ("someone, {{user}} is here.",)


def test_a_tagline_that_grows_too_long_is_cut(card):
    long = f"{'Ann ' * 49}Ann."
    card.write_text(CARD.replace("Ann tends the lamp.", long), encoding="utf-8")
    assert len(edited(card, put("Ann")).tagline) <= MAX_TAGLINE


@pytest.mark.parametrize("word", ["keys", "match case", "lore", "persona", "Ann", "yes"])
def test_lores_prose_is_edited_and_its_front_matter_and_rules_stay(word):
    before = read_sections(LORE)
    after = read_sections(edit_lore(LORE, put(word)))
    assert [rules for *_, rules in after] == [rules for *_, rules in before]
    assert [
        (put(word)(heading), put(word)(text), rules) for heading, text, rules in before
    ] == after


def read_sections(text):
    owners, body = parse_lore(text, "a.md")
    assert owners == ("Ann",)
    passages = split_passages("wick", "wick/a.md", body)
    return [(passage.heading, passage.text, passage.rules) for passage in passages]


@pytest.mark.parametrize("front", ["---\nAnn\n---\n", "---\n{\n---\n"])
def test_prose_between_rules_is_no_front_matter(front):
    assert "Ann" not in edit_lore(f"{front}Ann", put("Ann"))


def test_shipped_lore_in_which_nothing_is_replaced_stays_as_it_is():
    files = sorted((SHIPPED_DATA / "rag-resources").rglob("*.md"))
    assert len(files) > 3
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert edit_lore(text, lambda part: part) == text
