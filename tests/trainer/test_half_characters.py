"""Half an emoji, which programs leave when they cut texts, costs one character."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.chat_logs import outcome
from tests.trainer.read_sources import everything, spoken
from trainer.sources.source_file import open_source
from trainer.sources.surrogates import RepairedStream, repair_bytes

HIGH = "\ud83d"
LOW = "\ude00"
WHATSAPP = "1/5/24, 7:00 PM - Mira: Soup? {}\n1/5/24, 7:01 PM - Oda: Always. {}\n"
CSV = "prompt,response\nSoup? {},Always. {}\n"
ROW = '{{"messages": [{{"role": "user", "content": "Soup? {}"}}, {{"role": "assistant", "content": "Always. {}"}}]}}'
LATER = ROW.format("Stew?", "Never.").replace("{", "{{").replace("}", "}}")
MESSAGES = json.dumps(json.loads(ROW.format("{}", "{}"))["messages"])
NESTED = (
    json.dumps({"messages": MESSAGES}).replace("{", "{{").replace("}", "}}").replace("{{}}", "{}")
)


def texts(path):
    used, rejected = everything(path)
    assert not rejected
    (talk,) = used
    return [text for _, text in spoken(talk)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat.txt", WHATSAPP),
        ("rows.csv", CSV),
        ("rows.jsonl", ROW + "\n"),
        ("rows.json", "[" + ROW + "]"),
        ("row.json", "{{\n" + ROW[2:] + "\n"),
        ("nested.jsonl", NESTED),
    ],
)
@pytest.mark.parametrize(("half", "shown"), [(HIGH, "\ufffd"), (LOW, "\ufffd"), (HIGH + LOW, "😀")])
def test_half_a_character_in_utf8_costs_that_character(tmp_path, name, content, half, shown):
    path = tmp_path / name
    path.write_bytes(content.format(half, half).encode("utf-8", "surrogatepass"))
    assert texts(path) == [f"Soup? {shown}", f"Always. {shown}"]


@pytest.mark.parametrize("content", [ROW, "[" + ROW + ",\n" + LATER + "]"])
@pytest.mark.parametrize(
    ("escape", "shown"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\uDE00", "\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83d\n\\ud83d", "\ufffd\n\\ud83d"),
    ],
)
def test_half_an_escape_costs_its_character(tmp_path, content, escape, shown):
    path = tmp_path / "rows.json"
    path.write_text(content.format(escape, "x"))
    used, rejected = everything(path)
    assert not rejected
    assert spoken(used[0])[0][1] == f"Soup? {shown}"


def test_half_an_escape_beside_what_only_python_writes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW.format(r"\ud83d", "x")[:-1] + ', "score": NaN}')
    assert texts(path)[0] == "Soup? \ufffd"


def test_a_log_with_half_a_character_is_read_whole(tmp_path):
    messages = [
        {"id": str(n), "timestamp": f"2024-01-02T10:0{n}:00+00:00", "content": text,
         "author": {"id": str(n % 2), "name": "AB"[n % 2]}}
        for n, text in enumerate(["one \ud83d", "two", "three"])
    ]  # fmt: skip
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"guild": {}, "channel": {"id": "1"}, "messages": messages}))
    assert outcome(path).said == [[("A", "one \ufffd"), ("B", "two"), ("A", "three")]]


@given(st.text(st.sampled_from(f"a가힣{HIGH}{LOW}😀\ud7ff"), max_size=20), st.integers(1, 9))
def test_blocks_end_anywhere(text, size):
    content = text.encode("utf-8", "surrogatepass")
    blocks = io.BytesIO(content)

    class Small(io.RawIOBase):
        def read(self, _=-1, /):
            return blocks.read(size)

    read = io.BufferedReader(RepairedStream(Small())).read()
    assert read == repair_bytes(content)
    # Python joins halves that are side by side, and replaces the others.
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert read.decode() == expected


def test_what_is_no_text_is_left_alone(tmp_path):
    path = tmp_path / "card.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xed\xa0\xbd" * 3)
    with open_source(path).open() as stream:
        assert stream.read().endswith(b"\xed\xa0\xbd" * 3)
