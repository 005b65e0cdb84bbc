"""A prompt that ends with what others have answered is still a prompt to the member who asks."""

from personas.prompt.renderer import Renderer
from personas.schemas.chat import LoreHit, Persona, Turn, asked_turn
from tools.tiny_models import TINY_MODELS, make_tokenizer

ADA = Persona("ada", "Ada", description="You are Ada, {{char}} to {{user}}.")
ASKED = Turn("Bo", "Oda and Ada, is there soup?")
ANSWER = Turn("Oda", "There is soup.", answers_too=True)


def test_the_member_is_the_user_and_the_answers_follow_their_words():
    renderer = Renderer(make_tokenizer(TINY_MODELS["Qwen3"]))
    lore = (LoreHit("soup.md", "Soup", "{{user}} likes soup.", 1.0),)
    system, *_, last = renderer.messages(ADA, [ASKED, ANSWER], lore)
    assert "Ada to Bo" in system["content"] and "Oda" not in system["content"]
    assert last["content"].endswith("Bo: Oda and Ada, is there soup?\nOda: There is soup.")
    alone, *_ = renderer.messages(ADA, [ASKED])
    assert alone == system, "the beginning of the prompt stays the same"


def test_the_turn_that_is_asked():
    assert asked_turn([Turn("Bo", "hi"), ASKED, ANSWER, ANSWER]) is ASKED


def test_where_there_is_little_room_the_question_stays_rather_than_the_answers():
    renderer = Renderer(make_tokenizer(TINY_MODELS["Qwen3"]))
    long = Turn("Thrip", "I have rowed here since the bell was hung. " * 4, answers_too=True)
    turns = [Turn("Bo", "hi"), *[Turn("Cy", "ho")] * 3, ASKED, long, long, ANSWER]
    room = len(renderer.prompt(ADA, [ASKED, ANSWER]).ids)
    prompt = renderer.prompt(ADA, turns, max_tokens=room)
    assert prompt.messages[-1]["content"] == (
        "Bo: Oda and Ada, is there soup?\nOda: There is soup."
    )
    alone = renderer.prompt(ADA, turns, max_tokens=room - 1)
    assert alone.messages[-1]["content"] == "Bo: Oda and Ada, is there soup?"
    assert not prompt.shortened and not alone.shortened
