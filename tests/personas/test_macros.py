"""Macros of cards and greetings: one value in a prompt, that of the moment in a greeting, and a
list of the others.
"""

import random
from datetime import UTC, datetime

import pytest

from personas.card.card_reader import parse_card
from personas.card.card_report import report_card
from personas.card.toml_card import to_persona
from personas.prompt.macros import resolve_macros, settle_macros
from personas.prompt.renderer import example_turns, system_text
from tests.personas.cards import V2, as_json

NOW = datetime(2026, 11, 27, 21, 5, tzinfo=UTC)


def greeting(text):
    return resolve_macros(text, "Mira", NOW, random.Random(1)).text


def card_with(**fields):
    return parse_card(as_json({**V2, "data": {**V2["data"], **fields}}), "it")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("It is {{time}}, {{weekday}}, {{date}}.", "It is 21:05 UTC, Friday, 27 November 2026."),
        ("{{isodate}}T{{ISOTIME}} {{time_UTC+2}}", "2026-11-27T21:05 23:05"),
        ("{{time::UTC-3}} {{idle_duration}}", "18:05 just now"),
        ("a{{newline}}b{{// for people }}{{noop}}c", "a\nbc"),
        ("a\n\n{{trim}}\n\nb", "ab"),
        (
            "{{USER}} and {{ char }} and <BOT>, <user>",
            "{{user}} and {{char}} and {{char}}, {{user}}",
        ),
        ("{{getvar::mood}}Hello{{#if x}}!{{/if}}", "Hello!"),
        ("{{roll:6x}}|{{roll:0}}|{{random}}|{{}}", "|||{{}}"),
        ("{{random::{{user}}}}", "{{user}}"),
    ],
)
def test_a_greeting_has_no_literal_macros(written, sent):
    assert greeting(written) == sent


@pytest.mark.parametrize(
    "written", ["{{random:red,blue}}", "{{random::red::blue}}", "{{random::red, blue}}"]
)
def test_each_greeting_draws_again(written):
    drawn = {resolve_macros(written, "Mira", NOW, random.Random(seed)).text for seed in range(20)}
    assert drawn == {"red", "blue"}
    assert greeting(r"{{random:a\,b}}") == "a,b"


@pytest.mark.parametrize(
    ("dice", "least", "most"), [("d6", 1, 6), ("2d4+1", 3, 9), (":20", 1, 20), ("::1d2-2", -1, 0)]
)
def test_dice_stay_within_their_range(dice, least, most):
    macro = "{{roll" + (dice if dice.startswith(":") else f" {dice}") + "}}"
    values = {int(resolve_macros(macro, "", NOW, random.Random(seed)).text) for seed in range(60)}
    assert least <= min(values) and max(values) <= most and len(values) > 1


def test_a_prompt_has_one_value_for_each_macro_and_picks_depend_on_the_persona_and_the_place():
    text = "{{pick::a::b::c}}{{pick::a::b::c}} {{random:a,b}} {{roll:d6}}{{time}}"
    settled = settle_macros(text, "Mira")
    assert settled == settle_macros(text, "Mira") and "{{" not in settled.text
    assert settled.fixed == ("random", "roll") and settled.times == ("time",)
    many = "".join("{{pick::a::b}}" for _ in range(30))
    assert len(set(settle_macros(many, "Mira").text)) == 2, "the place counts"
    assert settle_macros(many, "Mira").text != settle_macros(many, "Oda").text, (
        "and so does the persona"
    )


def test_card_prompt_and_examples_are_settled_and_its_greeting_waits():
    card = card_with(
        description="{{char}} wears {{pick::red::red}}{{getvar::x}}.",
        mes_example="<START>\n{{user}}: {{random:so,so}}?\n{{char}}: {{// hm }}Yes.",
        first_mes="It is {{time}}, {{USER}}.",
    )
    persona = to_persona(card, "it")
    assert "Mira wears red." in system_text(persona, "Bo")
    assert [turn.text for turn in example_turns(persona)] == ["so?", "Yes."]
    assert persona.first_mes == "It is {{time}}, {{user}}."


def test_the_list_names_each_macro_that_means_something_else():
    card = card_with(
        description="{{time}} {{random:a,b}} {{pick::a::b}}",
        first_mes="{{time}} {{random:a,b}} {{lastMessage}}",
    )
    items = {(item.outcome, item.what) for item in report_card(card).items if "{{" in item.what}
    assert items == {
        ("other_meaning", "{{time}} in description"),
        ("other_meaning", "{{random}} in description"),
        ("other_meaning", "{{time}} in first_mes"),
        ("not_taken", "{{lastmessage}} in first_mes"),
        ("not_taken", "{{original}} in system_prompt"),
    }
