"""The shipped personas' own words: they can be read, stand once, and have vectors that are theirs."""

import pytest

from bot.personas.own_words import MIN_ANY_DAY_SIMILARITY, SHIPPED_WORDS
from personas.card.toml_card import SHIPPED_CARDS
from personas.words.exchanges import read_exchanges
from personas.words.version_words import read_words

FILES = sorted(SHIPPED_WORDS.glob("*.jsonl"))


def test_each_shipped_persona_has_some():
    assert [file.stem for file in FILES] == sorted(
        card.stem for card in SHIPPED_CARDS.glob("*.toml")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_phrasing_stands_once_and_no_reply_is_long(path):
    exchanges = read_exchanges(path)
    phrasings = [(asked.casefold(), each.after) for each in exchanges for asked in each.asked]
    assert len(phrasings) == len(set(phrasings))
    assert len(exchanges) == len({each.reply for each in exchanges})
    assert max(len(each.reply.split()) for each in exchanges) <= 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_their_vectors_are_of_these_words_and_find_them(path, caplog):
    words = read_words(path)
    assert not caplog.records  # they were not computed
    for message in ("hi, i'm new here", "any idea what i could cook tonight?", "i cant sleep"):
        hit = words.find(message)
        assert hit and hit.similarity > MIN_ANY_DAY_SIMILARITY


def test_ballast_has_no_contractions_and_thrip_begins_with_a_direction():
    for each in read_exchanges(SHIPPED_WORDS / "ballast.jsonl"):
        assert "!" not in each.reply and "n't" not in each.reply
    for each in read_exchanges(SHIPPED_WORDS / "thrip.jsonl"):
        assert each.reply.startswith("*")
