"""To a sincere question whether it is human, a persona says its author's line, and no model is asked."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bot.safety.actions import PLAIN_DISCLOSURE
from bot.safety.human_question import answer_if_human
from bot.safety.rules import LANGUAGES, SafetyRules
from personas.card.toml_card import SHIPPED_CARDS, card_from_table, read_card, table_from_card
from personas.errors import CardError
from personas.prompt.renderer import system_text
from personas.schemas.chat import Persona
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.test_dialogue_command import quick as quick
from tests.bot.test_safety import asked, stored_texts, texts_in, told
from tests.bot.test_safety_rules import EXAMPLES
from tests.fakes import until

QUESTION = "honestly, are you a human being?"
ODA = read_card(SHIPPED_CARDS / "oda.toml")
BALLAST = read_card(SHIPPED_CARDS / "ballast.toml")
NOW = datetime(2026, 11, 30, tzinfo=UTC)


async def test_the_authors_line_is_said_as_such_and_the_talk_goes_on(stage):
    content = await told(stage, QUAY, QUESTION)
    line, note, below = content.split("\n")
    assert line == BALLAST.asked_if_human and below == PLAIN_DISCLOSURE
    assert note == "-# a line by this persona's author"
    message = stage.sandbox.messages(QUAY)[-1]
    assert message["author"]["username"] == "Ballast" and not message["components"]
    assert stage.engine.requests == [] and not stage.store.replies.unfinished()
    assert stored_texts(stage, QUAY) == [QUESTION, line]
    assert "hears: and what do you weigh?" in await asked(stage, QUAY, "and what do you weigh?")
    (request,) = stage.engine.requests
    assert [turn.text for turn in request.turns] == [QUESTION, line, "and what do you weigh?"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_without_one_has_a_line_in_the_language_of_the_question(language):
    persona = Persona("wick", "Wick Harrow", nickname="Wick")
    answer = answer_if_human(persona, EXAMPLES[language]["asks_sincerely"][0], NOW)
    shipped = next(each for each in SafetyRules.shipped().languages if each.language == language)
    assert answer.text == shipped.asked_if_human.replace("{{char}}", "Wick")
    assert answer.note == "a fixed line, which no model wrote"
    assert answer_if_human(persona, EXAMPLES[language]["asks_in_play"][0], NOW) is None


@pytest.mark.parametrize(
    "asked", ["Oda are you human?", "hey @Oda Marrow, human?", "<@12> are you AI?"]
)
def test_the_name_of_the_persona_is_no_word_of_the_question(asked):
    assert answer_if_human(ODA, asked, NOW) and not answer_if_human(ODA, "Is Oda human?", NOW)


async def test_by_command_and_in_a_round_each_persona_has_its_own(stage):
    answer = await stage.member.slash(QUAY, "chat", message="are you a real person?")
    await until(lambda: BALLAST.asked_if_human in " ".join(texts_in(stage, QUAY)))
    assert answer is not None
    await stage.moderator.slash(OFFICE, "persona set", persona="ballast", second="oda")
    await stage.member.say(OFFICE, "Ballast and Oda, are you human?")
    await until(lambda: ODA.asked_if_human in " ".join(texts_in(stage, OFFICE)))
    assert BALLAST.asked_if_human in " ".join(texts_in(stage, OFFICE))
    assert stage.engine.requests == []


async def test_both_of_a_duet_answer_the_opening_themselves(quick):
    await quick.moderator.slash(QUAY, "persona duet", other="oda", opening="Are you two human?")
    await until(lambda: ODA.asked_if_human in " ".join(texts_in(quick, QUAY)))
    lines = [text for text in texts_in(quick, QUAY) if PLAIN_DISCLOSURE in text]
    assert len(lines) == 2 and BALLAST.asked_if_human in lines[0]


async def test_a_bot_that_was_killed_before_it_says_the_line_once(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "hello")
        await stage.sees("…", by="Ballast")
        messages = stage.store.messages.latest(int(stage.sandbox.channel(QUAY)["id"]), 1)
        stage.store.messages.update(messages[0].discord_message_id, QUESTION)
    async with on_stage(tmp_path) as stage:
        await until(lambda: BALLAST.asked_if_human in " ".join(texts_in(stage, QUAY)))
        await until(lambda: not stage.store.replies.unfinished())
        assert " ".join(texts_in(stage, QUAY)).count(BALLAST.asked_if_human) == 1
        assert stage.engine.requests == []


def test_no_prompt_has_the_field_and_cards_of_other_formats_keep_it():
    for persona in (ODA, BALLAST):
        bare = replace(persona, asked_if_human="")
        assert system_text(persona, "Wren") == system_text(bare, "Wren")
        assert persona.asked_if_human not in system_text(persona, "Wren")
    table = {"id": "wick", "name": "Wick", "asked_if_human": "{{char}} is no human, {{user}}."}
    card = card_from_table(table, "wick.toml")
    assert card.data["extensions"]["understudy"]["asked_if_human"] == table["asked_if_human"]
    assert table_from_card(card)["asked_if_human"] == table["asked_if_human"]


@pytest.mark.parametrize("line", ["I am a real person.", "Ich bin ein echter Mensch."])
def test_a_line_that_claims_to_be_human_is_refused(line):
    with pytest.raises(CardError, match="asked_if_human says that the character is a human being"):
        card_from_table({"id": "wick", "name": "Wick", "asked_if_human": line}, "wick.toml")
