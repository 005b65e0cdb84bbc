"""A persona that says again what it has said: which candidates of a reply do, and the penalty of
those that are drawn instead.
"""

import pytest

from personas.engine.beginning_score import all_passed_over, comparable, said_before, says_again
from personas.engine.sampler import SamplerState
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn

BRUNHILDE = Persona("brunhilde", "Brunhilde Moosbart")
SAID = "Bah! No. The market is full of dead ones. Fresh ones are rare. Bah!"
AGAIN = "bah, NO — the market is full of de"
NEW = "Rope? I sell mushrooms, not rope."


def after(*turns: Turn, replaces: str = "") -> ChatRequest:
    asked = Turn("Toby", "Do you sell rope?")
    return ChatRequest(BRUNHILDE, (*turns, asked), replaces=replaces)


def by_brunhilde(text: str) -> Turn:
    return Turn("Brunhilde Moosbart", text, by_persona=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SAID, True),
        (AGAIN, True),
        ("Bah! No. The market is full of rope.", False),
        (f"{SAID} And rope.", False),
        ("Fresh ones are rare. Bah!", False),
        ("Bah! No.", False),
        ("", False),
    ],
)
def test_the_beginning_of_what_was_said_is_said_again(text, expected):
    assert says_again(text, ["Buy something.", SAID]) is expected


@pytest.mark.parametrize("short", ["Yes.", "Yes, of course.", "はい、そうです。"])
def test_a_short_reply_may_be_said_again(short):
    request = after(by_brunhilde(short))
    assert comparable([short, NEW], str, request) == [short, NEW]
    assert not all_passed_over([short, short], str, request)


def test_what_was_said_is_passed_over_while_there_is_another():
    request = after(by_brunhilde(SAID))
    assert comparable([AGAIN, NEW, SAID], str, request) == [NEW]
    assert not all_passed_over([AGAIN, NEW], str, request)
    assert comparable([AGAIN, SAID, "…"], str, request) == [AGAIN, SAID]
    assert all_passed_over([AGAIN, SAID, "…"], str, request)
    assert not all_passed_over(["…", "*"], str, request)


def test_a_replaced_reply_counts_as_said():
    request = after(replaces=SAID)
    assert comparable([AGAIN, NEW], str, request) == [NEW]
    assert said_before(after()) == []


def test_the_lines_of_members_and_of_other_personas_are_not_the_personas():
    quoting = Turn("Nina", f"[replying to Brunhilde Moosbart: {SAID}]\nWhy?")
    others = Turn("Nina", SAID), Turn("Captain Pell", SAID, answers_too=True), quoting
    request = after(*others)
    assert comparable([AGAIN, NEW], str, request) == [AGAIN, NEW]
    assert not all_passed_over([AGAIN], str, request)
    assert said_before(request) == []


def test_a_member_who_quotes_does_not_hide_what_was_said():
    request = after(by_brunhilde(SAID), Turn("Nina", f"> {SAID}\nWhy?"))
    assert comparable([AGAIN, NEW], str, request) == [NEW]


def test_what_repeats_the_message_alone_is_not_drawn_again():
    request = ChatRequest(
        BRUNHILDE, (by_brunhilde(SAID), Turn("Toby", "I came here for a long green rope."))
    )
    echo = "I came here for a long green rope"
    assert not all_passed_over([echo], str, request) and all_passed_over(
        [echo, AGAIN], str, request
    )


def test_a_token_loses_the_more_the_longer_the_run_that_it_continues():
    state = SamplerState(SamplingParams(), 0, set(), said=((1, 2, 3, 4, 5), (9, 2, 3, 7)))
    state.append(1)
    assert state.dry_penalties() == {}
    state.append(2)
    assert state.dry_penalties() == {3: pytest.approx(0.8)}
    state.append(3)
    assert state.dry_penalties() == {4: pytest.approx(0.8 * 1.75), 7: pytest.approx(0.8)}
    state.append(8)
    assert state.dry_penalties() == {}
    assert SamplerState(SamplingParams(), 0, {1, 2}).dry_penalties() == {}


def test_a_very_long_run_stays_within_range():
    said = tuple(range(500))
    state = SamplerState(SamplingParams(), 0, set(), said=(said,))
    for token in said[:400]:
        state.append(token)
    assert 1e4 < state.dry_penalties()[400] < 1e6
