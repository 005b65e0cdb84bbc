"""Whose turn it is in a duet, what each is shown, and when it ends by itself."""

import pytest

from bot.dialogue.dialogue import Dialogue, is_repetition
from personas.schemas.chat import Turn

OPENING = Turn("Mina Vale", "What did the tide bring?")
LINES = ("A boot and a bell, as every spring.", "Then the bell is mine; I heard it first.",
         "You hear everything first, and lift none of it.", "Lifting is your work. Mine is soup.")  # fmt: skip


def test_each_sees_its_own_lines_as_its_own_and_ends_with_what_it_answers():
    duet = Dialogue(("Ballast", "Oda Marrow"), OPENING)
    assert (duet.next, duet.turns()) == (0, (OPENING,))
    for line in LINES[:2]:
        assert duet.take(line) is None
    assert duet.next == 0 and duet.turns() == (
        OPENING, Turn("Ballast", LINES[0], by_persona=True), Turn("Oda Marrow", LINES[1]),
    )  # fmt: skip
    duet.take(LINES[2])
    assert [turn.by_persona for turn in duet.turns()] == [False, False, True, False]
    assert [turn.name for turn in duet.turns()] == ["Mina Vale", "Ballast", "Oda Marrow", "Ballast"]


def test_it_ends_after_its_turns():
    duet = Dialogue(("A", "B"), OPENING, limit=3)
    assert [duet.take(line) for line in LINES[:3]] == [None, None, "limit"]


@pytest.mark.parametrize(
    "line",
    [
        LINES[0],
        LINES[0].upper().replace(",", " –"),
        "Well: a boot and a bell as every spring, and I told you so.",
        OPENING.text,
    ],
)
def test_it_ends_when_somebody_says_again_what_was_said(line):
    duet = Dialogue(("A", "B"), OPENING, limit=20)
    assert [duet.take(one) for one in LINES] == [None] * 4
    assert duet.take(line) == "repeats" and duet.lines[-1] == line


def test_sayings_and_names_may_come_again():
    said = ["The Damp Lantern has soup, and soup is what there is.", "Soup is what there is, Oda."]
    assert not is_repetition("Soup is what there is.", said)
    assert not is_repetition("Oda Marrow of the Damp Lantern has no more of it.", said)
    assert not is_repetition("…", ["!"]), "marks alone are no words"


def test_silence_ends_it():
    assert Dialogue(("A", "B"), OPENING).take(" \n") == "silent"
