"""How many examples of how a persona talks its card has."""

import pytest

from personas.card.example_lines import count_examples

ASKED = "{{user}}: How is the tide?\n{{char}}: In.\n"


@pytest.mark.parametrize(
    ("mes_example", "count"),
    [
        ("", 0),
        (f"<START>\n{ASKED}", 1),
        (f"<START>\n{ASKED}<START>\n{ASKED}", 2),
        (f"<START>\n{ASKED}{ASKED}{ASKED}", 3),  # one conversation, as most imported cards have
        ("{{user}}：How is the tide?\n{{char}}：In.", 1),
        (
            "**{{user}}:** How is the tide?\n**{{char}}:** In.\n**{{User}}**: And?\n*{{Char}}:* Out.",
            2,
        ),
        ("You: How is the tide?\nGus: In.\nOr out.\n\nYou: And now?\nGus Pellham: Out.", 2),
    ],
)
def test_each_answer_of_the_persona_is_an_example(mes_example, count):
    assert count_examples(mes_example, "Gus Pellham") == count
