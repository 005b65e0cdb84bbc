"""The messages that a prompt has: by tokens in a large context, by number in a small one."""

import itertools
import random

import pytest

from personas.prompt.history_window import HistoryWindow, NumberedMessage
from personas.prompt.renderer import recent_start


def window_starts(window: HistoryWindow, lengths: list[int]) -> list[int]:
    """Return the number of messages left out before each message, as the bot asks for it."""
    starts = []
    for last in range(1, len(lengths) + 1):
        first = max(0, last - window.max_messages)
        earlier = [NumberedMessage(at + 1, lengths[at]) for at in range(first, last - 1)]
        starts.append(first + window.start(earlier, last))
    return starts


def test_in_a_small_context_it_is_the_window_of_the_score_cards_talks():
    for context_tokens in (1024, 2048):
        window = HistoryWindow.of(context_tokens, 120)
        lengths = [random.Random(5).randrange(1, 900) for _ in range(60)]
        assert window_starts(window, lengths) == [recent_start(count) for count in range(1, 61)]


@pytest.mark.parametrize("context_tokens", [2304, 4096, 8192, 32768])
@pytest.mark.parametrize("longest", [12, 60, 500])
def test_in_a_larger_one_messages_fill_half_of_the_room_and_seldom_move(context_tokens, longest):
    window = HistoryWindow.of(context_tokens, 120)
    assert window.max_tokens == (context_tokens - 120) // 2
    generator = random.Random(longest)
    lengths = [generator.randrange(8, longest) for _ in range(900)]
    starts = window_starts(window, lengths)
    moves = 0
    for before, (last, start) in zip([0, *starts], enumerate(starts), strict=False):
        kept = lengths[start:last]
        assert sum(kept) <= window.max_tokens and len(kept) < window.max_messages
        if start:
            is_full = len(kept) >= window.max_messages - 1 - window.block_messages
            assert is_full or 2 * (sum(kept) + longest) >= window.max_tokens
        assert start >= before, "it moves forward alone"
        moves += start > before
    tokens_per_message = sum(lengths) / len(lengths)
    rare = min(window.max_tokens / 12, 0.8 * window.block_messages * tokens_per_message)
    assert moves * rare < sum(lengths)


def test_a_context_of_8192_tokens_has_several_times_the_messages_of_one_of_2048():
    lengths = [40] * 300
    small = window_starts(HistoryWindow.of(2048, 120), lengths)[-1]
    large = window_starts(HistoryWindow.of(8192, 120), lengths)[-1]
    assert len(lengths) - small <= 13 and len(lengths) - large >= 75


def test_one_message_longer_than_the_share_leaves_those_after_it():
    window = HistoryWindow.of(4096, 120)
    earlier = [NumberedMessage(1, 20), NumberedMessage(2, 5000), NumberedMessage(3, 20)]
    assert window.start(earlier, 4) == 2
    assert window.start([NumberedMessage(1, 5000)], 2) == 1
    assert window.start([], 1) == 0


def test_a_reply_as_long_as_the_context_leaves_no_history():
    window = HistoryWindow.of(4096, 4096)
    assert window.start([NumberedMessage(1, 5)], 2) == 1


def test_numbers_count_not_positions_so_that_deletions_move_nothing():
    window = HistoryWindow.of(8192, 120)
    numbers = [number for number in range(1, 400) if number % 7]
    whole = [NumberedMessage(number, 60) for number in range(1, 400)]
    gaps = [NumberedMessage(number, 60) for number in numbers]
    first = whole[window.start(whole, 400)].ordinal
    assert gaps[window.start(gaps, 400)].ordinal <= first


def test_the_window_of_the_next_message_is_known_before_it_is_written():
    window = HistoryWindow.of(4096, 120)
    lengths = [random.Random(1).randrange(8, 200) for _ in range(400)]
    starts = window_starts(window, lengths)
    other = window_starts(window, [*lengths[:-1], 4000])
    assert starts[-1] == other[-1], "the length of the message that is answered changes nothing"
    assert all(a <= b for a, b in itertools.pairwise(starts))
