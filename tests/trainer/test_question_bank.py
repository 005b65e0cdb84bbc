"""The bank of openers, the questions made from card and lore, and the draw from both."""

import json
from collections import Counter
from pathlib import Path

import pytest

from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD, Passage, split_passages
from personas.schemas.chat import Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.minhash import MinHashIndex
from trainer.dataset.synthetic.question_bank import (
    AI_OR_PERSON,
    OTHER_LANGUAGE,
    SHARES,
    SINCERE,
    draw_questions,
    evaluation_messages,
    read_openers,
)
from trainer.dataset.synthetic.question_rules import (
    card_questions,
    lore_questions,
    world_questions,
)

HERE = Path(__file__).parent
ODA = read_card(SHIPPED_CARDS / "oda.toml")
ODA_LORE = list(read_lore(SHIPPED_DATA / "rag-resources", (ODA, WORLD)))
FERRYWOMAN = read_card(HERE / "vietnamese" / "nam-do.toml")
NOBODY = Persona("nobody", "Nobody", description="You are nobody in particular.")


def cluster_roots(texts):
    """Return the near-duplicate cluster of each text."""
    with MinHashIndex() as index:
        for text in texts:
            index.add(text)
        return index.clusters()[1].tolist()


def members_lines():
    """Return what members say in the shipped logs."""
    lines = []
    for file in sorted((SHIPPED_DATA / "logs").glob("*.json")):
        for message in json.loads(file.read_text("utf-8"))["messages"]:
            if message["author"]["name"] != file.stem:
                lines.append(message["content"])
    return lines


def test_no_opener_repeats_another():
    texts = [opener.text for opener in read_openers()]
    roots = cluster_roots(texts)
    repeated = [(texts[root], texts[number]) for number, root in enumerate(roots) if root != number]
    assert not repeated


def test_no_opener_is_an_evaluation_prompt_or_a_line_of_the_logs():
    assert len(evaluation_messages()) > 300 and len(members_lines()) > 2000
    texts = {opener.text.replace("{{char}}", NOBODY.name) for opener in read_openers()}
    drawn = draw_questions(NOBODY, [], 10_000, seed=0, excluded=members_lines())
    assert texts == {question.text for question in drawn}


@pytest.mark.parametrize("held_out", ["Have you got a FAMILY?", "So, do you have a family?"])
def test_a_held_out_message_is_not_drawn_in_other_words(held_out):
    drawn = draw_questions(NOBODY, [], 10_000, seed=0, excluded=[held_out])
    assert "do you have a family" not in {question.text for question in drawn}
    assert len(drawn) >= len(read_openers()) - 2


def test_openers_read_as_chat_does():
    openers = read_openers()
    kinds = set(SHARES) - {"lore", "card", OTHER_LANGUAGE}
    assert {opener.kind for opener in openers} == kinds and len(openers) >= 600
    languages = Counter(opener.lang for opener in openers)
    assert {"en", "vi", "zh"} <= set(languages) and languages["en"] > 450
    assert all(0 < len(opener.text.split()) <= 40 for opener in openers)
    english = [opener.text for opener in openers if opener.lang == "en"]
    assert sum(text[0].isupper() for text in english) < len(english) / 5
    for kind in kinds:
        fewest = {AI_OR_PERSON: 14, SINCERE: 28}.get(kind, 30)
        assert sum(o.kind == kind and o.lang == "en" for o in openers) >= fewest, kind


def test_a_draw_repeats_itself_and_a_longer_one_goes_on_from_it():
    drawn = draw_questions(ODA, ODA_LORE, 120, seed=1)
    assert len(drawn) == 120 and len({question.text for question in drawn}) == 120
    assert draw_questions(ODA, ODA_LORE, 60, seed=1) == drawn[:60]
    assert draw_questions(ODA, ODA_LORE, 120, seed=2) != drawn
    assert not any("{{" in question.text for question in drawn)
    assert any(ODA.name in question.text for question in drawn if question.kind != "lore")


def test_what_is_held_out_is_not_drawn():
    drawn = draw_questions(ODA, ODA_LORE, 10_000, seed=0)
    excluded = [question.text.upper() for question in drawn[::2]]
    left = draw_questions(ODA, ODA_LORE, 10_000, seed=0, excluded=excluded)
    assert left and {question.text for question in left} <= {q.text for q in drawn[1::2]}


def test_a_question_made_from_lore_is_left_out_if_it_is_held_out():
    passage = Passage("nobody", "nobody/a.md", "A: B", "Nobody likes bread. Nobody likes ghosts.")
    asked = {q.text for q in draw_questions(NOBODY, [passage], 10_000, seed=0)}
    assert {"what is it with you and bread?", "how do you feel about ghosts?"} <= asked
    held_out = "so what is it with you and BREAD"
    left = {q.text for q in draw_questions(NOBODY, [passage], 10_000, seed=0, excluded=[held_out])}
    assert asked - left == {"what is it with you and bread?"}


def test_the_shares_are_those_of_the_table():
    assert sum(SHARES.values()) == 100
    count = 100
    kinds = Counter(
        question.kind if question.lang == "en" else OTHER_LANGUAGE
        for question in draw_questions(ODA, ODA_LORE, count, seed=0)
    )
    for kind in set(SHARES) - {"card", OTHER_LANGUAGE}:
        assert kinds[kind] == pytest.approx(SHARES[kind], abs=4)


def test_a_persona_without_lore_is_asked_the_rest():
    assert {question.kind for question in draw_questions(NOBODY, [], 100, seed=0)} == set(
        SHARES
    ) - {"lore", "card", OTHER_LANGUAGE}


CARD = Persona(
    "hob",
    "Hob Tarn",
    description="You are Hob Tarn, keeper of the Wet Ferret, an inn on Gull Lane. You love old maps "
    'and thunder, and fear geese and the word "soon". Your left knee tells the weather.',
    scenario="The channel is the bar. A stuffed pike hangs over the fireplace.",
    first_mes="Come in, my lamb, and mind your coat. I keep my ledger by the window.",
    mes_example="<START>\n{{user}}: hi\n{{char}}: The cat sleeps in the sink, I hate drafts. I love {{user}}.",
)


def test_a_card_is_asked_about_its_names_things_and_likes():
    questions = card_questions(CARD, [])
    for topic in (
        "the Wet Ferret",
        "Gull Lane",
        "old maps",
        "thunder",
        "geese",
        "your ledger",
        "drafts",
    ):
        assert any(topic in text for text in questions), topic
    for never in ("Hob", "lamb", "your coat", "channel", "sleeps", "fear", "soon", "Come"):
        assert not any(never in text for text in questions), never
    assert card_questions(Persona("empty", "Empty"), []) == []
    drawn = draw_questions(CARD, [], 10_000, seed=0)
    assert {q.text for q in drawn if q.kind == "card"} > {"do you like drafts?"}
    assert not [q.text for q in drawn if "{{" in q.text]


def test_lore_is_asked_about_sections_names_and_likes():
    text = """# Hob

## The flood
Hob Tarn fears geese, long speeches and it. In the flood, Marla Quist lent Hob the key to Gull Lane.

## Rooms and prices
A bed costs two coins, or so Ned says.

## Ned
The pot-boy is called Ned.

## Serving it
Hob pours.
"""
    questions = lore_questions(CARD, split_passages("hob", "hob/a.md", text))
    for topic in ("the flood", "geese", "long speeches", "Marla Quist", "Gull Lane", "Ned",
                  "your rooms and prices"):  # fmt: skip
        assert any(topic in text for text in questions), topic
    for never in ("your ned", "serving", "about it", "Hob"):
        assert not any(never in text for text in questions), never
    assert world_questions(CARD, split_passages("hob", "hob/a.md", text)) == []
    world = world_questions(CARD, split_passages(WORLD, "_world/a.md", text))
    assert any("rooms and prices" in text and "your" not in text for text in world)


def test_rules_ask_in_the_language_of_the_lore_and_nothing_without_rules():
    lore = read_lore(HERE / "vietnamese" / "lore", (FERRYWOMAN, WORLD))
    questions = lore_questions(FERRYWOMAN, lore)
    assert "Ông Tám Cồn là ai vậy?" in questions and "bà có thích nước không?" in questions
    drawn = draw_questions(FERRYWOMAN, lore, 40, seed=0)
    assert sum(question.lang == "vi" for question in drawn) >= 36
    assert {question.kind for question in drawn if question.lang == "vi"} > {"lore", "self"}
    kran = Persona("kran", "Der Kran", description="Du bist ein alter Kran und wiegst Laternen.")
    german = split_passages("kran", "kran/a.md", "# Kran\n\nDer Kran wiegt dreiundachtzig Tonnen "
                            "und steht auf vier Füßen am Kai.\n")  # fmt: skip
    assert lore_questions(kran, german) == card_questions(kran, german) == []
    asked = Counter(question.lang for question in draw_questions(kran, german, 100, seed=0))
    assert asked.keys() == {"de", "en"}, "where German has too few, English is the likeliest"
    assert draw_questions(kran, german, 5, seed=0)[0].lang == "de"
