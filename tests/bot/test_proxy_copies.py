"""Which texts may be what a proxy leaves of a member's message."""

from types import SimpleNamespace

import pytest

from bot.chat import proxies
from bot.chat.proxies import MAX_ORIGINALS, PROXY_WINDOW_S, ProxyWatch, is_without_tags


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


def test_old_messages_are_let_go_of_also_the_one_that_comes_again(monkeypatch):
    """As where an edit, made later, mentions the bot."""
    clock = [0.0]
    monkeypatch.setattr(proxies.time, "monotonic", lambda: clock[0])
    watch = ProxyWatch()
    message = SimpleNamespace(id=1, guild=object())
    watch.note(message)
    clock[0] += PROXY_WINDOW_S + 1
    watch.note(message)
    assert [each.at for each in watch._originals.values()] == [clock[0]]
    for number in range(2, MAX_ORIGINALS + 9):
        watch.note(SimpleNamespace(id=number, guild=object()))
    assert len(watch._originals) == MAX_ORIGINALS and 1 not in watch._originals
