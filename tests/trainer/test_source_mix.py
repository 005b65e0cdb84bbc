"""How sources are named, and how much is taken of each."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.errors import RequestError
from trainer.dataset.data_mixture import (
    SourceSpec,
    interleave,
    parse_mix,
    parse_source,
    source_names,
    split_limit,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("talk.json", SourceSpec(Path("talk.json"))),
        ("talk.json:40", SourceSpec(Path("talk.json"), None, 40)),
        ("a/talk.csv=discord-csv", SourceSpec(Path("a/talk.csv"), "discord-csv")),
        ("a=b/talk.csv=discord-csv:7", SourceSpec(Path("a=b/talk.csv"), "discord-csv", 7)),
        ("owner/name:15000", SourceSpec(Path("owner/name"), None, 15000)),
        ("x=Y", SourceSpec(Path("x=Y"))),
    ],
)
def test_sources_are_read(text, source):
    assert parse_source(text) == source


def test_a_path_that_exists_is_a_path(tmp_path):
    path = tmp_path / "log=old:12"
    path.touch()
    assert parse_source(str(path)) == SourceSpec(path)


@pytest.mark.parametrize("text", ["", "talk.json:0"])
def test_what_names_no_source_is_refused(text):
    with pytest.raises(RequestError, match=r"names no source|takes none"):
        parse_source(text)


def test_ratios_are_read():
    assert parse_mix("80:20") == (80, 20) and parse_mix("1:2.5:3") == (1, 2.5, 3)
    for wrong in ("80", "80:", "80:0", "-1:2", "a:b", "inf:1", "nan:1", ""):
        with pytest.raises(RequestError, match="is no ratio"):
            parse_mix(wrong)


def test_sources_are_called_by_what_tells_them_apart():
    assert source_names([SourceSpec(Path("/a/x.json")), SourceSpec(Path("/a/y.json"))]) == [
        "x.json",
        "y.json",
    ]
    assert source_names([SourceSpec(Path("/a/x.json")), SourceSpec(Path("/b/x.json"))]) == [
        "a/x.json",
        "b/x.json",
    ]
    with pytest.raises(RequestError, match="named twice"):
        source_names([SourceSpec(Path("x.json")), SourceSpec(Path("./x.json"))])


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 9)), min_size=1, max_size=4))
def test_what_is_interleaved_keeps_the_ratio_to_within_one(streams):
    taken = Counter(
        interleave(
            [iter([place] * n) for place, (n, _) in enumerate(streams)], [w for _, w in streams]
        )
    )
    rounds = min(n / weight for n, weight in streams)
    for place, (_, weight) in enumerate(streams):
        assert abs(taken[place] - rounds * weight) <= 1 + weight / min(w for _, w in streams)


@given(st.integers(1, 500), st.integers(0, 200), st.integers(0, 200))
def test_a_limit_is_shared_between_both_sides(limit, train, held_out):
    for_train, for_held_out = split_limit(limit, train, held_out)
    if train and held_out:
        assert for_train + for_held_out == limit and (limit == 1 or for_train > 0)
    assert split_limit(None, train, held_out)[0] > 10**9
