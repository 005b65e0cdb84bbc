"""Whatever a file holds: nothing but `MaterialError` is raised, and every record is used or
rejected.
"""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from tests.trainer.read_sources import everything, jsonl
from trainer.sources.json_stream import stream_array
from trainer.sources.reader import read_source
from trainer.sources.registry import FORMATS, detect_format
from trainer.sources.source_format import ReadOptions

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = st.sampled_from(
    "messages conversations data prompt question instruction input output response history chosen "
    "rejected personality "
    "utterances candidates persona_b dialogue reference role from content value text human "
    "assistant user gpt system "
    "message_id parent_id message_tree_id replies rank labels quality name completions score "
    "responses scores lang "
    "winner conversation_a conversation_b label deleted review_result acts character bot_name "
    "generated scene line "
    "quote author is_human message turn_role turn_content".split()
)
TEXTS = st.one_of(
    WORDS,
    st.text(max_size=12),
    st.sampled_from(
        ["Human: a\nAssistant: b", "User 1: x\nUser 2: y", "[1]", "Oda", "Ada: x Oda: y"]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)
SHAPES = st.sampled_from(["lines", "array", "packed"])
ROWS = st.lists(st.dictionaries(WORDS, VALUES, max_size=5), min_size=1, max_size=6)
MAGIC = (
    b"",
    b"\xef\xbb\xbf",
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1",
    b"\xff\xff\xff\xff",
    b"\x89PNG\r\n\x1a\n",
    b"\x1f\x8b",
)
SHARDS = (
    b"",
    b"\x1f\x8b",
    b"[",
    b"{",
    b'{"messages": [',
    b"acts:\n- - text: ",
    b"a,b\n",
    b"1 your persona: x\n",
    b"[15.01.24, 10:30:12] A: ",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("garbage") / "file"


def read_any_way(path: Path) -> None:
    for format in (None, *(format.name for format in FORMATS)):
        try:
            detect_format(path, format)
            for item in read_source(path, ReadOptions(), format):
                assert item.rows >= 0
        except MaterialError as error:
            assert str(error)


@QUICK
@given(
    content=st.one_of(
        st.builds(
            lambda *parts: b"".join(parts),
            st.sampled_from(MAGIC),
            st.sampled_from(SHARDS),
            st.binary(max_size=120),
        ),
        st.text(st.sampled_from('{}[]",:\\ \n\t1ana-'), max_size=60).map(str.encode),
    )
)
def test_any_bytes_are_read_or_refused(path, content):
    path.write_bytes(content)
    read_any_way(path)


@QUICK
@given(
    rows=ROWS,
    shape=st.sampled_from(["lines", "array", "packed"]),
    format=st.sampled_from(["alpaca", "openai", None]),
)
def test_every_row_is_used_or_rejected(path, rows, shape, format):
    content = json.dumps(rows, indent=1).encode() if shape == "array" else jsonl(rows)
    path.write_bytes(gzip.compress(content) if shape == "packed" else content)
    try:
        found = detect_format(path, format).name
        used, rejected = everything(path, format)
    except MaterialError:
        return
    if not found.startswith("oasst") and (len(rows) > 1 or shape == "array"):
        assert sum(item.rows for item in [*used, *rejected]) == len(rows)


@QUICK
@given(rows=ROWS, paths=st.sampled_from(["best", "all"]))
def test_every_message_of_a_tree_is_used_or_rejected(path, rows, paths):
    nodes = [
        {"message_id": str(n), "parent_id": None, "text": "a", "role": "assistant", **r}
        for n, r in enumerate(rows)
    ]
    path.write_bytes(jsonl(nodes))
    used, rejected = everything(path, "oasst", oasst_paths=paths)
    assert sum(item.rows for item in [*used, *rejected]) == len(nodes)
    trees = [{"prompt": {**node, "replies": nodes[:2]}} for node in nodes]
    path.write_bytes(jsonl(trees))
    used, rejected = everything(path, "oasst-trees", oasst_paths=paths)
    replies = [
        len(tree["prompt"]["replies"]) + sum(count(reply) for reply in tree["prompt"]["replies"])
        for tree in trees
    ]
    assert sum(item.rows for item in [*used, *rejected]) == len(trees) + sum(replies)


def count(node) -> int:
    replies = node.get("replies") if isinstance(node, dict) else None
    return sum(1 + count(reply) for reply in replies) if isinstance(replies, list) else 0


@QUICK
@given(cells=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=6))
def test_every_row_of_a_csv_is_used_or_rejected(path, cells):
    cells = [
        cell
        for cell in cells
        if any(cell) and not any("\x00" in text or "\r" in text for text in cell)
    ]
    written = io.StringIO(newline="")
    csv.writer(written).writerows(
        [("question", "answer"), ("What?", "It."), ("Who?", "Me."), *cells]
    )
    named = path.with_suffix(".csv")
    named.write_bytes(written.getvalue().encode("utf-8", "surrogatepass"))
    try:
        used, rejected = everything(named, "answers")
    except MaterialError:
        return
    assert sum(item.rows for item in [*used, *rejected]) == 2 + len(cells)


@QUICK
@given(
    values=st.lists(VALUES, max_size=8),
    indent=st.sampled_from([None, 0, 2]),
    chunk=st.integers(1, 40),
)
def test_an_array_comes_out_as_the_json_module_reads_it(values, indent, chunk):
    content = json.dumps({"a": {"b": [1]}, "c": values}, indent=indent).encode()

    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, chunk) if size > 0 else size)

    expected = json.loads(content)["c"]
    assert repr(list(stream_array(Slow(content), ("c",)))) == repr(expected)
