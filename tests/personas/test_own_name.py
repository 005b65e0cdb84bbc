"""A persona is itself: which candidates of its replies are passed over because they are not its own."""

import pytest

from personas.engine.beginning_score import all_passed_over, comparable
from personas.engine.false_names import claims_other_name
from personas.schemas.chat import ChatRequest, LoreHit, Persona, SamplingParams, Turn

BALLAST = Persona(
    "ballast",
    "Ballast",
    tagline="Dock Crane No. 3.",
    first_mes="I am Ballast. I have time.",
)
LORE = (
    LoreHit("oda.md", "The Karrow twins", "They eat at separate tables.", 1.0),
    LoreHit("oda.md", "Admiral Butterworth", "A goose.", 1.0),
)
OWN = "I am Ballast, and I weigh eighty-three"


def asked(question: str, persona: Persona = BALLAST) -> ChatRequest:
    sampling = SamplingParams(speakers=("Mina Vale", "Oda Marrow"))
    turns = (Turn("Tobias", "evening"), Turn("Mina Vale", question))
    return ChatRequest(persona, turns, lore=LORE, sampling=sampling)


@pytest.mark.parametrize(
    ("question", "text", "claims"),
    [
        ("Who are you?", "I'm Mina, and I have", True),
        ("Who are you?", "i am tobias.", True),
        ("Who are you?", "Hello. I am Oda, of the Damp", True),
        ("What's your name?", "*creaks* My name is Gregory", True),
        ("What's your name?", "They call me Tobias here", True),
        ("Are you Oda?", "Yes. I have been for years", True),
        ("aren't you Mina", "*nods* Aye, so they", True),
        ("Wer bist du?", "Ich heiße Tobias.", True),
        ("你是谁？", "我是Tobias", True),
        ("Who are you?", OWN, False),
        ("Who are you?", "I am Dock Crane No. 3", False),
        ("What's your name?", "My name is Ballast, Mina.", False),
        ("What's your name?", "My name is on the plate.", False),
        ("Who are you?", "I'm glad you ask, Mina", False),
        ("Are you Oda?", "No. Oda is smaller.", False),
        ("Are you Ballast?", "Yes. All of it.", False),
        ("Are you heavy?", "Yes. Eighty-three tonnes.", False),
        ("Who are you?", "*I am Mina, says the sign* Ballast.", False),
    ],
)
def test_a_reply_claims_the_name_of_somebody_else(question, text, claims):
    assert claims_other_name(text, asked(question)) is claims
    named = ChatRequest(Persona("", "Ballast"), asked(question).turns)
    assert not claims_other_name(text, named)


@pytest.mark.parametrize(
    "text",
    ["I'm Mina, and", "The Karrow twins: they eat", "the karrow twins.", "Admiral Butterworth] A"],
)
def test_what_is_not_its_own_is_passed_over_and_drawn_again_if_there_is_nothing_else(text):
    request = asked("Who are you?")
    assert comparable([text, OWN], str, request) == [OWN]
    assert comparable([text, text], str, request) == [text, text]
    assert all_passed_over([text, text], str, request)
    assert not all_passed_over([text, OWN], str, request)


@pytest.mark.parametrize("text", ["The Karrow twins were born here", "Admiral Butterworth."])
def test_an_answer_may_begin_as_a_heading_does(text):
    assert comparable([text, OWN], str, asked("Who bites?")) == [text, OWN]


def test_a_reply_that_ends_in_mid_sentence_is_passed_over():
    request = asked("Who are you?")
    ended = ["I weigh the", "I weigh things.", "I weigh, "]
    compared = comparable([*ended, OWN], str, request, has_stopped=ended.__contains__)
    assert compared == ["I weigh things.", OWN]
    assert comparable(ended[:1], str, request, has_stopped=ended.__contains__) == ended[:1]
    assert not all_passed_over(ended[:1], str, request)
    unmarked = Persona("mizzle", "Mizzle", first_mes="oh hello there")
    assert comparable(ended, str, asked("Hi", unmarked), has_stopped=ended.__contains__) == ended
