"""Links leave no reply, wherever the pieces of it break; and who is meant by a name."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.chat.link_filter import LinkFilter
from bot.chat.streaming_reply import LINK_PATTERN, LINK_PLACEHOLDER

STARTS = ("http", "https://", "HTTP://x", "httpſ://x.y", "www", "www.", "WWW.a", "w", "ww", "h", "://")
WORDS = st.sampled_from((*STARTS, "a", " ", "\n", "é", "ß", "İ", "."))


@given(st.lists(st.lists(WORDS, max_size=4).map("".join), max_size=8))
@settings(max_examples=200, deadline=None)
def test_pieces_lose_the_links_that_the_whole_would_lose(pieces):
    without = LinkFilter()
    shown = "".join([*map(without.take, pieces), without.end()])
    assert shown == LINK_PATTERN.sub(LINK_PLACEHOLDER, "".join(pieces))


def test_nothing_is_held_back_but_what_may_become_a_link():
    without = LinkFilter()
    assert [without.take(piece) for piece in ("See the ", "harbour w", "all, ", "then www", ".x.y", "/z and")] == [
        "See the ", "harbour ", "wall, ", "then ", "", f"{LINK_PLACEHOLDER} and",
    ]  # fmt: skip
    assert without.end() == ""


@pytest.mark.parametrize("text", ["www.", "http://", "https://\n", "see www"])
def test_what_only_begins_as_a_link_is_shown(text):
    without = LinkFilter()
    assert without.take(text) + without.end() == text
    assert not re.search(LINK_PATTERN, text)
