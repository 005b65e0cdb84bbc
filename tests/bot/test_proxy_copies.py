"""Which texts may be what a proxy leaves of a member's message."""

import pytest

from bot.chat.proxies import is_without_tags


@pytest.mark.parametrize(
    ("text", "original"),
    [
        ("how deep is it?", "how  deep is it?\n"),
        ("hi", "w: hi"),
        ("hi", "Sir Reginald: hi"),
        ("hi", "hi -wren"),
        ("hi", "[[[hi]]]"),
        ("how deep is it?", "L how deep is it? R"),
    ],
)
def test_a_message_without_its_tags_is_a_copy(text, original):
    assert is_without_tags(text, original)


@pytest.mark.parametrize(
    ("text", "original"),
    [
        ("a", "the a quick fox"),
        ("the", "the quick brown fox jumps"),
        ("", "hello"),
        ("?", "how deep is the water at the quay?"),
        ("something else", "how deep is it?"),
        ("how deep is it? And more", "how deep is it?"),
    ],
)
def test_a_small_part_of_a_message_or_another_text_is_no_copy(text, original):
    assert not is_without_tags(text, original)
