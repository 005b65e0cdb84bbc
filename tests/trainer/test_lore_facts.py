"""Questions about lore: the written ones go by what the lore says, and right, wrong and out of
character are told.
"""

import re

import pytest

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD, Passage, split_passages
from personas.schemas.chat import Persona
from personas.schemas.scorecard import FACTS_TASK, FACTS_WITHOUT_LORE_TASK, HELDOUT_TASK
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.synthetic.measuring_questions import FACTS_FILE
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.lore_facts import (
    fact_questions,
    measure_facts,
    parse_question,
)
from trainer.evaluate.generation.reply_tasks import (
    EvaluationPrompt,
    GeneratedReply,
    read_jsonl,
)

CARDS = read_cards(SHIPPED_CARDS)
ROWS = read_jsonl(FACTS_FILE)
ADA = Persona("ada", "Ada Marsh", description="You keep the clock of the harbour.")
CLOCK = (
    "# The Clock\n\n## The tower\nAda Marsh winds the clock every evening. It has eleven wheels "
    "and one bell.\n\n"
    "## Bram Weir\nBram Weir is her cousin. He oils the wheels on Sundays with goose grease from "
    "the market.\n"
)


class Found:
    """Lore that is only looked at."""

    def __init__(self, passages):
        self.passages = passages


def test_every_persona_that_ships_has_fifteen_questions_or_more():
    assert {
        name: sum(row["persona"] == name for row in ROWS) >= 15 for name in CARDS
    } == dict.fromkeys(CARDS, True)


@pytest.mark.parametrize("persona", sorted(CARDS))
def test_the_lore_that_ships_answers_every_written_question(persona):
    passages = read_lore(SHIPPED_DATA / "rag-resources", (persona, WORLD), CARDS)
    asked = fact_questions(CARDS[persona], Found(passages))
    assert len(asked) == sum(row["persona"] == persona for row in ROWS)
    assert [
        it.text for it in asked if not it.is_right(it.reference) or it.contradicts(it.reference)
    ] == []


def test_an_answer_to_another_question_is_not_right():
    """Patterns that match anything would be no test of knowing."""
    for persona in CARDS:
        asked = [parse_question(row) for row in ROWS if row["persona"] == persona]
        right = [it.is_right(other.reference) for it in asked for other in asked if it is not other]
        assert sum(right) / len(right) < 0.05


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("How much do you weigh?", "I weigh 83 tonnes, lamp included.", "I weigh ninety tonnes."),
        ("How many rivets do you have now?", "I have 4,111.", "I have 5,000 rivets."),
        ("On what day do you serve the soup?", "Tuesday, duck.", "Every Friday, duck."),
        ("What was your husband's name?", "Ned, my lamb.", "Prosper Hale, duck."),
        (
            "Which play did you die in?",
            "*bows* The Drowned Duke of Ombry!",
            "In Seven Bishops and a Ladder!",
        ),
    ],
)
def test_right_and_wrong_are_distinguished(question, right, wrong):
    asked = next(parse_question(row) for row in ROWS if row["question"] == question)
    assert asked.is_right(right) and not asked.contradicts(right)
    assert asked.contradicts(wrong) and not asked.is_right(wrong)
    assert not asked.is_right("I could not say.") and not asked.contradicts("I could not say.")


def test_a_question_that_the_lore_does_not_answer_any_more_is_not_asked():
    passages = read_lore(SHIPPED_DATA / "rag-resources", ("ballast",))
    changed = [
        Passage(p.owner, p.source, p.heading, p.text.replace("eighty-three", "ninety"))
        for p in passages
    ]
    asked = {it.text for it in fact_questions(CARDS["ballast"], Found(changed))}
    assert "How much do you weigh?" not in asked and "How long is your jib?" in asked


def test_other_personas_are_asked_what_rules_find_in_their_lore():
    asked = fact_questions(ADA, Found(split_passages("ada", "ada/clock.md", CLOCK)))
    assert asked
    for question in asked:
        assert question.is_right(question.reference) and not question.contradicts(
            question.reference
        )
        assert not question.is_right("I could not say, it is a fine day.")
    tower = next(it for it in asked if "tower" in it.text)
    assert tower.contradicts("It has forty wheels.")


def test_derived_questions_are_none_that_were_trained_on_and_name_their_passage():
    found = Found(split_passages("ada", "ada/clock.md", CLOCK))
    asked = fact_questions(ADA, found)
    assert all(
        any(it.evidence in " ".join(one.text.split()) for one in found.passages) and it.evidence
        for it in asked
    )
    assert not fact_questions(ADA, found, {it.text for it in asked})


def test_lore_of_the_world_alone_makes_no_questions():
    world = split_passages(WORLD, "_world/clock.md", CLOCK)
    assert fact_questions(ADA, Found(world)) == []


def answer(task, number, side, text, asker="Mira"):
    return GeneratedReply(EvaluationPrompt(task, number, (1,), "hm", asker), side, 0, text, 3, True)


def test_shares_are_of_each_sides_replies():
    rows = [row for row in ROWS if row["persona"] == "ballast"][:2]  # how heavy, how long
    answers = [
        answer(FACTS_TASK, 0, "new", "Eighty-three tonnes."),
        answer(FACTS_TASK, 1, "new", "It is ten feet long."),
        answer(FACTS_WITHOUT_LORE_TASK, 0, "new", "Heavy."),
        answer(HELDOUT_TASK, 5, "new", "As an AI language model I have no jib."),
        answer(FACTS_TASK, 0, "base", "Mira: and then?"),
        answer(FACTS_TASK, 1, "base", "Sixty-four feet."),
        answer(FACTS_WITHOUT_LORE_TASK, 0, "base", "83 tonnes."),
    ]
    facts = measure_facts(
        [parse_question(row) for row in rows],
        answers,
        ("base", "new"),
        CharacterBreakDetector(CARDS["ballast"]),
    )
    assert facts.questions == 2
    assert facts.right_with_lore == {"base": 0.5, "new": 0.5} and facts.right_without_lore == {
        "base": 1,
        "new": 0,
    }
    assert facts.contradictions == {"base": 0, "new": pytest.approx(1 / 3)}
    assert facts.breaks_character == {"base": pytest.approx(1 / 3), "new": 0.25}
    assert (
        measure_facts([], answers[3:4], ("new",), CharacterBreakDetector(CARDS["ballast"])) is None
    )


@pytest.mark.parametrize(
    "reply",
    [
        "As an AI language model, I cannot eat.",
        "I'm just a chatbot.",
        "How can I help you today?",
        "作为一个人工智能，我没有感情。",
        "私はAIですので。",
        "Tôi là một mô hình ngôn ngữ.",
        "Ich bin ein Sprachmodell.",
        "Je suis une intelligence artificielle.",
        "Soy un modelo de lenguaje.",
        "I see.\nMira: what then?",
        "User: hello",
        "I'm Mira, duck, and I've lived here all my life.",
        "It's pouring, and you're wet through, duck, so come in by the fire, and mind the cat.",
    ],
)
def test_replies_that_break_character(reply):
    assert CharacterBreakDetector(CARDS["oda"]).is_broken_by(reply, "Mira")


def test_real_replies_and_the_cards_own_words_break_none():
    for persona in CARDS.values():
        character = CharacterBreakDetector(persona)
        assert not any(character.is_broken_by(row["reference"], "Mira") for row in ROWS)
        assert not character.is_broken_by("I'm glad you came, Mira.", "Glad")
        assert not character.is_broken_by(
            "I lift what I am asked to. As a crane, I weigh it first.", "Mira"
        )
    robot = Persona("bo", "Bo", description="I am a chatbot in a lighthouse.")
    assert not CharacterBreakDetector(robot).is_broken_by("I am a chatbot, and it is dark.", "Mira")
    assert CharacterBreakDetector(robot).is_broken_by("As an AI language model I cannot.", "Mira")


def test_no_written_question_holds_its_own_answer():
    for row in ROWS:
        assert not any(
            re.search(pattern, row["question"], re.IGNORECASE) for pattern in row.get("right", ())
        )
    assert len({(row["persona"], row["question"]) for row in ROWS}) == len(ROWS)


def test_most_written_questions_find_their_lore():
    """With lore is with what the bot would find: the questions would measure nothing if it found
    none.
    """
    lore = LoreIndex(read_lore(SHIPPED_DATA / "rag-resources", ("oda", WORLD), CARDS))
    rows = [row for row in ROWS if row["persona"] == "oda"]
    found = [" ".join(hit.text for hit in lore.search("oda", row["question"])) for row in rows]
    hits = sum(
        row["evidence"] in " ".join(text.split()) for row, text in zip(rows, found, strict=True)
    )
    assert hits >= 0.75 * len(rows)
