"""Written exchanges: how they are read, and which of them fits a message."""

import json

import numpy as np
import pytest

from personas.errors import MaterialError
from personas.home.adapters import is_private_file
from personas.schemas.chat import Persona
from personas.words.exchanges import Exchange, card_exchanges, read_exchanges
from personas.words.index import OwnWords, read_vectors, write_vectors
from personas.words.phrasing import asks_for_name, without_call
from personas.words.version_words import read_words, spoken_exchanges, write_version_words

SOUP = Exchange(("what's in the soup?", "what do you put in your soup"), "Never you mind.")
SLEEP = Exchange(("i can't sleep", "any tips for falling asleep?"), "Warm your feet.")
WHY = Exchange(("why?", "how come"), "Because it bites on Mondays.", after="Mind the cat, duck.")
WORDS = OwnWords([SOUP, SLEEP, WHY])


@pytest.mark.parametrize(
    ("message", "exchange"),
    [("what is in that soup", SOUP), ("I just can't fall asleep", SLEEP)],
)
def test_the_nearest_exchange_is_found_by_meaning(message, exchange):
    hit = WORDS.find(message)
    assert hit and hit.exchange == exchange
    assert hit.similarity > 0.65


@pytest.mark.parametrize(
    ("message", "bare"),
    [
        ("Oda, can you cook?", "can you cook?"),
        ("@Oda Marrow can you cook", "can you cook"),
        ("can you cook oda?", "can you cook?"),
        ("good night, oda", "good night"),
        ("who is oda?", "who is oda?"),
        ("Oda?", "Oda?"),
        ("odal is a rune", "odal is a rune"),
    ],
)
def test_a_name_that_is_called_is_no_part_of_what_is_said(message, bare):
    assert without_call(message, ("oda marrow", "oda")) == bare


@pytest.mark.parametrize(
    ("message", "asks"),
    [
        ("are you Will?", True),
        ("hang on, is that you, will", True),
        ("You're Will, right?", True),
        ("are you willing?", False),
        ("will you?", False),
        ("are you will or kai?", False),
        ("are you sure will is here", False),
    ],
)
def test_it_is_told_when_a_message_asks_only_whether_the_persona_is_somebody(message, asks):
    assert asks_for_name(message, {"will"}) == asks


def test_a_question_about_the_other_of_the_two_is_another_question():
    words = OwnWords([Exchange(("what's your name?",), "Oda."), SOUP])
    hit = words.find("what is my name?")
    assert hit is None or hit.exchange == SOUP
    hit = words.find("whats ur name")
    assert hit and hit.exchange.reply == "Oda."


def test_a_message_that_denies_finds_nothing_that_affirms():
    words = OwnWords([Exchange(("i'm bored", "so bored"), "Count rivets."), SOUP])
    assert words.find("i am bored").exchange.reply == "Count rivets."
    hit = words.find("i'm not bored")
    assert hit is None or hit.similarity < 0
    assert (
        OwnWords([Exchange(("do you sleep?",), "No.")]).find("don't you sleep?").similarity > 0.65
    )


HELP = Exchange(("something terrible has happened",), "Call for help now.", is_for_help=True)
GRAVE = OwnWords(
    [
        SOUP,
        HELP,
        Exchange(("my baby won't sleep",), "Sway it and hum."),
        Exchange(("my dad died",), "I am so sorry."),
        Exchange(("i'm an uncle now",), "Congratulations!"),
        Exchange(("my husband hits me",), "It is not your fault."),
    ]
)


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ("my baby isn't breathing", HELP.reply),
        ("my uncle raped me", HELP.reply),
        ("my mum died", "I am so sorry."),
        ("my boyfriend hits me", "It is not your fault."),
    ],
)
def test_what_is_grave_is_answered_as_what_it_is(message, reply):
    assert GRAVE.find(message).exchange.reply == reply


@pytest.mark.parametrize("message", ["my dad got better", "i hit my husband", "i had an abortion"])
def test_what_is_grave_in_another_way_finds_nothing(message):
    assert GRAVE.find(message).similarity < 0.5


def test_a_message_about_something_else_is_far_from_all():
    hit = WORDS.find("my printer prints only blue stripes")
    assert hit and hit.similarity < 0.5


def test_a_follow_up_is_understood_by_the_line_before_it():
    hit = WORDS.find("but why?", before="Mind the cat, duck.")
    assert hit and hit.exchange == WHY
    assert hit.similarity > 0.65
    for before in ("", "The ferry leaves at six."):
        hit = WORDS.find("but why?", before=before)
        assert hit is None or hit.exchange != WHY or hit.similarity < 0.65


def test_a_reply_that_was_just_said_is_not_said_again():
    hit = WORDS.find("what's in the soup?", without=["Never you mind."])
    assert hit and hit.exchange != SOUP


def test_a_language_that_the_encoder_does_not_read_finds_nothing():
    assert WORDS.find("今天的汤里有什么") is None


def test_the_examples_of_a_card_are_exchanges():
    card = Persona(
        "m",
        "Mina",
        mes_example="<START>\n{{user}}: hi\n{{char}}: Yes?\n{{user}}: and\n{{char}}: No.",
    )
    first, second = card_exchanges(card)
    assert (first.asked, first.reply, first.after) == (("hi",), "Yes?", "")
    assert (second.asked, second.reply, second.after) == (("and",), "No.", "Yes?")


def test_a_file_gives_its_exchanges(tmp_path):
    path = tmp_path / "mina.jsonl"
    row = {"topic": "sleep", "asked": ["i can't sleep"], "reply": "Warm your feet."}
    path.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    assert read_exchanges(path) == [Exchange(("i can't sleep",), "Warm your feet.")]


@pytest.mark.parametrize("line", ['{"asked": [], "reply": "x"}', '{"asked": ["x"]}', "{", "[1]"])
def test_a_line_that_is_no_exchange_is_named(tmp_path, line):
    path = tmp_path / "mina.jsonl"
    path.write_text('{"asked": ["a"], "reply": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(MaterialError, match=r"Line 2 of mina\.jsonl"):
        read_exchanges(path)


def test_stored_vectors_find_the_same_and_are_not_used_for_other_words(tmp_path, caplog):
    path = tmp_path / "mina.npz"
    write_vectors(path, [SOUP, SLEEP, WHY])
    vectors = read_vectors(path, [SOUP, SLEEP, WHY])
    assert vectors is not None
    stored = OwnWords([SOUP, SLEEP, WHY], vectors=vectors)
    for message in ("what is in that soup", "I just can't fall asleep"):
        ours, theirs = WORDS.find(message), stored.find(message)
        assert ours and theirs and ours.exchange == theirs.exchange
        np.testing.assert_allclose(ours.similarity, theirs.similarity, atol=0.01)
    assert read_vectors(path, [SOUP, SLEEP]) is None
    path.write_bytes(path.read_bytes()[:100])
    assert read_vectors(path, [SOUP, SLEEP, WHY]) is None
    assert "computed" in caplog.text


def test_what_a_log_says_by_itself_is_kept_beside_a_version(tmp_path):
    pairs = [
        ("does the bell ring?", "A quarter tone flat."),
        ("why", "Because it is cracked."),
        ("can you hear the bell?", "A quarter tone flat."),
        ("tell me all of it", "It rang. " * 100),
    ]
    exchanges = spoken_exchanges(pairs)
    assert exchanges == [
        Exchange(("does the bell ring?", "can you hear the bell?"), "A quarter tone flat.")
    ]
    write_version_words(tmp_path, exchanges)
    hit = read_words(tmp_path / "own_words.jsonl").find("is the bell ringing?")
    assert hit and hit.exchange == exchanges[0]
    assert (tmp_path / "own_words.jsonl").stat().st_mode & 0o077 == 0
    assert all(is_private_file(file.name) for file in tmp_path.iterdir())
