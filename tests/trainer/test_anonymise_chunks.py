"""Long and hostile texts: time grows with their length alone, and nothing is lost where they are
cut.
"""

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from trainer.anonymise import anonymiser
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.name_detector import NameDetector
from trainer.anonymise.name_matcher import NameMatcher
from trainer.anonymise.spans import CHUNK_CHARS, CHUNK_MARGIN_CHARS, split_chunks
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

KEY = b"k" * 32
HOSTILE = [
    "1-1-",
    "a.a.",
    "eyJ.",
    "A-",
    "word a@b.example 0912345678 Nguyễn Văn An ",
    "-----BEGIN A-----",
    "Đường 1 ",
    "省1",
]


class Reading:
    """Stands in for a tagger: finds nobody, and notes how much it is given at once."""

    name = "a reader"

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def find(self, text: str) -> list[tuple[str, int, int, float]]:
        self.lengths.append(len(text))
        return []


def found(text: str, tagger: object = None) -> list[str]:
    made = Anonymiser(KEY, names=NameDetector(tagger=tagger))
    made.register(
        Conversation.of(
            [SourceMessage(SourceSpeaker("1", ("Quillon",)), "hi", "1")], "talk", "form"
        )
    )
    return [text[entity.start : entity.end] for entity in made.find_entities(text)]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.slow
def test_four_times_the_text_takes_some_four_times_the_time(unit):
    def seconds(length: int) -> float:
        begun = time.process_time()
        found((unit * length)[:length])
        return time.process_time() - begun

    seconds(2_000)
    assert seconds(32_000) < 10 * max(min(seconds(8_000) for _ in range(2)), 0.004)


def test_all_who_read_are_given_a_long_text_piece_by_piece_and_hardly_more_than_once(monkeypatch):
    tagger = Reading()
    text = "so it goes on and on " * 5_000
    work = {"structured": [], "settled": [], "known": []}

    def noting(name: str, does: Callable[..., object], place: int = 0) -> Callable[..., object]:
        return lambda *given: (work[name].append(len(given[place])), does(*given))[1]

    monkeypatch.setattr(anonymiser, "find_patterns", noting("structured", anonymiser.find_patterns))
    monkeypatch.setattr(
        anonymiser, "resolve_overlaps", noting("settled", anonymiser.resolve_overlaps)
    )
    monkeypatch.setattr(NameMatcher, "match", noting("known", NameMatcher.match, 1))
    found(text, tagger)
    for lengths in (tagger.lengths, *work.values()):
        assert max(lengths) <= 4_000 and len(text) <= sum(lengths) < 1.4 * len(text)


def test_the_pieces_of_a_text_join_without_a_gap_and_see_beyond_their_edges():
    text = "ab cd " * 3_000
    cut = [*split_chunks(text)]
    assert cut[0].first == 0 and cut[-1].last == len(text)
    assert all(one.last == other.first for one, other in pairwise(cut))
    assert all(one.end - one.last > CHUNK_MARGIN_CHARS / 2 or one.end == len(text) for one in cut)
    assert all(text[one.first - 1] == " " for one in cut[1:])


@pytest.mark.parametrize(
    "shift",
    [
        *range(CHUNK_CHARS - 40, CHUNK_CHARS + 10, 7),
        CHUNK_CHARS + CHUNK_MARGIN_CHARS - 20,
        CHUNK_CHARS - CHUNK_MARGIN_CHARS,
    ],
)
@pytest.mark.parametrize("space", ["la ", "x"])
def test_nothing_is_lost_where_a_text_is_cut(shift, space):
    lead = (space * shift)[:shift] + " "
    values = [
        "mina@reef.example",
        "Quillon",
        "4111 1111 1111 1111",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    ]
    for value in values:
        assert found(f"{lead}{value} so {'la ' * 900}") == [value]


def test_a_key_longer_than_a_piece_goes_as_a_whole():
    key = (
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + ("MIIEowIBAAKCAQEA" * 4 + "\n") * 90
        + "-----END RSA PRIVATE KEY-----"
    )
    token = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0" * 300 + ".abc"
    assert found(f"here: {key} and so on") == [key]
    assert found(f"here: {token} and so on") == [token]


def test_a_finding_without_an_end_is_taken_in_every_piece():
    class Everything(Reading):
        def find(self, text: str) -> list[tuple[str, int, int, float]]:
            return [("PERSON", 0, len(text), 1.0)]

    text = "Orla Quennish " * 700
    assert sum(map(len, found(text, Everything()))) > 0.99 * len(text)


def test_code_that_begins_in_one_piece_is_code_in_the_next():
    text = "```\n" + "x = 1\n" * 500 + "@orrick_decorates\n```\nask @orrick_42 " + "so " * 900
    assert found(text) == ["@orrick_42"]
