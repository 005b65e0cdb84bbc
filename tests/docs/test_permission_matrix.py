"""docs/slash-commands.md says who may use what, as the code has it."""

import bot.client
from tests.docs.permission_matrix import PAGE, with_table
from tests.docs.reading import ROOT


def test_the_matrix_is_up_to_date():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_table(text) == text, f"{PAGE} is not up to date: python -m tests.docs"


def test_who_may_talk_uses_the_buttons_that_have_a_persona_answer():
    (row,) = (line for line in with_table("").splitlines() if line.startswith("| talk |"))
    for label in ("Compare", "Regenerate", "Reply", "Talk to them", "Without training"):
        assert f"**{label}**" in row


def test_a_label_that_buttons_for_everybody_have_too_says_whose_it_is():
    items = bot.client.PERSISTENT_ITEMS
    open_to_all = [item for item in items if not getattr(item, "moderators_only", False)]
    labels = {str(label) for item in open_to_all if (label := getattr(item, "label", ""))}
    rows = [line for line in with_table("").splitlines() if "| moderators" in line]
    buttons = [button for row in rows for button in row.strip("| ").split(", ")]
    assert "**Try again** (training)" in buttons and "Try again" in labels
    assert not {f"**{label}**" for label in labels}.intersection(buttons)
