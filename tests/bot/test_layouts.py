"""Texts of cards are fitted to what Discord takes of a layout, in characters and in bytes."""

import pytest

from bot.platform.discord_kit.layouts import (
    MAX_LAYOUT_BYTES,
    MAX_LAYOUT_CHARS,
    fit_texts,
    has_room,
    text_card,
)

REST = "-# The rest is elsewhere."


@pytest.mark.parametrize("texts", [[], ["a"], ["a" * 3999, "b"], ["话" * 3333]])
def test_what_has_room_is_left_alone(texts):
    assert has_room(texts) and fit_texts(texts, REST) == texts


@pytest.mark.parametrize("sign", ["a", "话"])
def test_the_first_text_without_room_ends_with_a_whole_line(sign):
    line = sign * 99
    texts = [line, "\n".join([line] * 60), "later"]
    first, cut = fit_texts(texts, REST)
    assert first == line and set(cut.splitlines()) == {line, REST}
    assert cut.endswith(f"{line}\n{REST}")
    fitted = f"{first}{cut}"
    assert len(fitted) <= MAX_LAYOUT_CHARS and len(fitted.encode()) <= MAX_LAYOUT_BYTES
    # One more line would be too much.
    assert not has_room([first, cut, line, "\n"])


def test_a_text_without_a_line_that_has_room_gives_way_to_the_rest():
    assert fit_texts(["title", "x" * 5000], REST) == ["title", REST]
    # What has room alone, but not together with the rest, is left out, too.
    assert fit_texts(["x" * 3990, "y" * 20], REST) == [REST]


def test_a_card_has_lines_between_its_texts():
    (box,) = text_card(["one", "", "two"], rest=REST).to_components()
    assert [part["type"] for part in box["components"]] == [10, 14, 10]
