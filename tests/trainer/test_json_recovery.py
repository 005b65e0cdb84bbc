"""Nothing that is broken takes along what is whole: rows, elements, cells."""

import json
import re

import pytest

from personas.errors import MaterialError
from tests.trainer.read_sources import everything, jsonl
from trainer.sources.registry import detect_format
from trainer.sources.source_file import HEAD_BYTES, open_source

ROWS = [{"instruction": f"What is number {n}?", "output": f"Number {n} it is."} for n in range(12)]
TALKS = [{"messages": [{"role": "user", "content": f"Ask {n}"}, {"role": "assistant", "content": f"Tell, {n}"}]}
         for n in range(6)]  # fmt: skip
WRITTEN = [json.dumps(row) for row in ROWS]
SPOKEN = [json.dumps(row) for row in TALKS]


def read(tmp_path, content, name="talk.json", **options):
    """The last answers, and where what is rejected stands."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    used, rejected = everything(path, **options)
    return [talk.messages[-1].text for talk in used], [item.row for item in rejected]


def answers(*numbers):
    return [ROWS[n]["output"] for n in numbers]


def result(*numbers):
    return [f"Tell, {n}" for n in numbers]


# JSON Lines


@pytest.mark.parametrize("size", [HEAD_BYTES // 3, HEAD_BYTES + 10, 2 * HEAD_BYTES])
def test_a_long_first_line_is_a_row_and_not_the_whole_file(tmp_path, size):
    long = {"instruction": "Why?", "output": "x y " * (size // 4)}
    used, rejected = read(tmp_path, jsonl([long, *ROWS[:3]]))
    assert used == [long["output"].strip(), *answers(0, 1, 2)] and not rejected


@pytest.mark.slow
def test_one_long_object_in_one_line_stays_one(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(
        json.dumps({"rows": [{"instruction": "Why?", "output": "x y " * HEAD_BYTES}, *ROWS[:2]]})
        + "\n"
    )
    assert open_source(path).kind == "JSON object"
    assert len(everything(path)[0]) == 3


@pytest.mark.parametrize(
    ("order", "used", "rejected"),
    [
        ("gbbg", (0, 3), ["line 2", "line 3"]),
        ("gb", (0,), ["line 2"]),
        ("bg", (1,), ["line 1"]),
        ("gbbbbg", (0, 5), ["line 2", "line 3", "line 4", "line 5"]),
    ],
)
@pytest.mark.parametrize(
    "broken",
    ['{"instruction": "a', '{"instruction": "What?", "output": ["a"}', '{"messages": [{"a": 1},'],
)
def test_few_rows_of_which_many_are_broken_are_rows(tmp_path, order, used, rejected, broken):
    if order == "bg" and broken.endswith(","):
        pytest.skip("this is how an object over several lines begins, too")
    lines = [WRITTEN[n] if sign == "g" else broken for n, sign in enumerate(order)]
    assert read(tmp_path, "\n".join(lines)) == (answers(*used), rejected)


@pytest.mark.parametrize("between", ["\n", "", "\n\n"])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_objects_one_after_another_are_rows_however_they_are_set(tmp_path, between, indent):
    content = between.join(json.dumps(row, indent=indent) for row in TALKS)
    assert read(tmp_path, content) == (result(*range(6)), [])


def test_a_broken_object_over_several_lines_is_one_row(tmp_path):
    pretty = [json.dumps(row, indent=2) for row in TALKS]
    pretty[2] = pretty[2].replace('"role": "user",', '"role" "user",')
    pretty[4] = pretty[4].replace("Tell", 'Te"ll')
    used, rejected = read(tmp_path, "\n".join(pretty))
    lines = pretty[0].count("\n") + 1
    assert used == result(0, 1, 3, 5) and rejected == [
        f"line {2 * lines + 1}",
        f"line {4 * lines + 1}",
    ]


def test_a_first_object_over_several_lines_that_is_broken_does_not_hide_the_others(tmp_path):
    pretty = [json.dumps(row, indent=2) for row in TALKS]
    for broken in (pretty[0][:30], pretty[0].replace('"role": "user",', '"role"": "user",')):
        assert read(tmp_path, "\n".join([broken, *pretty[1:]])) == (
            result(1, 2, 3, 4, 5),
            ["line 1"],
        )


def test_messages_a_line_each_within_a_row_are_no_rows(tmp_path):
    messages = (
        '    {"role": "user", "content": "Why?"},\n    {"role": "assistant", "content": "So."}'
    )
    row = f'{{\n  "messages": [\n{messages}\n  ]\n}}'
    assert read(tmp_path, f"{row}\n{row}\n") == (["So.", "So."], [])


# JSON arrays

UNCLOSED = SPOKEN[1][:-2]
QUOTED = SPOKEN[1].replace('"Ask 1"', '"Ask 1')
HALVED = SPOKEN[1][: len(SPOKEN[1]) // 2]
TWICE_CLOSED = SPOKEN[1].replace("}]}", "}}]}")


@pytest.mark.parametrize(
    "broken", [UNCLOSED, QUOTED, HALVED, TWICE_CLOSED, '{"messages": nothing}']
)
@pytest.mark.parametrize("comma", [",", ",\n    "])
def test_behind_a_broken_element_the_next_is_found(tmp_path, broken, comma):
    elements = [SPOKEN[0], broken, *SPOKEN[2:]]
    begun = comma[1:] if "\n" in comma else ""
    assert read(tmp_path, f"[{begun}{comma.join(elements)}]") == (result(0, 2, 3, 4, 5), ["row 2"])
    assert read(tmp_path, f"[{begun}{comma.join([broken, *SPOKEN[2:]])}]") == (
        result(2, 3, 4, 5),
        ["row 1"],
    )
    assert read(tmp_path, f"[{begun}{comma.join([SPOKEN[0], broken])}]") == (result(0), ["row 2"])


def test_two_broken_elements_are_two(tmp_path):
    elements = [SPOKEN[0], HALVED, SPOKEN[2], UNCLOSED, UNCLOSED, SPOKEN[5]]
    assert read(tmp_path, f"[{', '.join(elements)}]") == (
        result(0, 2, 5),
        ["row 2", "row 4", "row 5"],
    )


def test_behind_a_broken_element_rows_of_other_shapes_are_found(tmp_path):
    elements = [WRITTEN[0], SPOKEN[0], HALVED, WRITTEN[1], SPOKEN[2]]
    used, rejected = read(tmp_path, f"[{', '.join(elements)}]")
    assert used == [*answers(0), *result(0), *answers(1), *result(2)] and rejected == ["row 3"]


def test_behind_a_broken_first_element_of_one_shape_one_of_another_is_found(tmp_path):
    assert read(tmp_path, f"[{WRITTEN[0][:-9]}, {SPOKEN[0]}, {WRITTEN[1]}]") == (
        [*result(0), *answers(1)],
        ["row 1"],
    )


def test_a_missing_comma_costs_nothing(tmp_path):
    assert read(tmp_path, f"[{SPOKEN[0]} {SPOKEN[1]}, {SPOKEN[2]}]") == (result(0, 1, 2), [])


def test_what_lies_within_a_broken_element_is_no_element(tmp_path):
    rows = [
        {
            "id": n,
            "question": f"Who is {n}?",
            "answer": f"It is {n}.",
            "tags": [{"id": 1}, {"id": 2}],
        }
        for n in range(3)
    ]
    first, broken, last = map(json.dumps, rows)
    used, rejected = read(tmp_path, f"[{first}, {broken[:-2]}, {last}]")
    assert used == ["It is 0.", "It is 2."] and rejected == ["row 2"]


def test_arrays_one_after_another_are_read_and_what_else_follows_is_reported(tmp_path):
    one = json.dumps(TALKS[:2])
    other = json.dumps(TALKS[2:4])
    for between in ("", "\n", "\n\n"):
        assert read(tmp_path, one + between + other) == (result(0, 1, 2, 3), [])
    assert read(tmp_path, f"{one}\n{SPOKEN[2]}\n{SPOKEN[3]}\n") == (result(0, 1, 2, 3), [])
    path = tmp_path / "talk.json"
    path.write_text(f"{one}\nand so on\n{other}")
    used, rejected = everything(path)
    assert len(used) == 4
    (item,) = rejected
    assert item.row == "row 3" and "no JSON" in item.reason and "'and so on'" in item.reason


def test_a_broken_message_of_a_log_leaves_the_log_recognised_and_read(tmp_path):
    messages = [
        {"id": n, "type": "message", "date": f"2026-03-01T10:0{n}:00", "from": "AB"[n % 2], "from_id": f"user{n % 2}",
         "text": f"word {n}"} for n in range(5)
    ]  # fmt: skip
    chat = {"name": "Tavern", "type": "private_group", "id": 7}
    export = json.dumps({**chat, "messages": messages}, indent=1)
    path = tmp_path / "result.json"
    path.write_text(export.replace('"text": "word 2"', '"text": "word'))
    assert detect_format(path).name == "telegram"
    used, rejected = everything(path)
    assert [m.text for talk in used for m in talk.messages] == [
        "word 0",
        "word 1\nword 3",
        "word 4",
    ]
    assert [item.row for item in rejected] == ["messages 3"]


# Tables


@pytest.mark.parametrize(
    "first", ["only one cell", "far,too,many,cells,here", ",", '"open, and never closed']
)
def test_a_first_row_that_is_broken_does_not_hide_the_table(tmp_path, first):
    rows = "".join(f"What is {n}?,It is {n}.\n" for n in range(3))
    used, rejected = read(tmp_path, f"prompt,response\n{first}\n{rows}", "talk.csv")
    assert used == ["It is 0.", "It is 1.", "It is 2."] and rejected == ["row 1"]


def test_a_quote_that_is_never_closed_is_named_and_the_rows_behind_it_are_read(tmp_path):
    path = tmp_path / "talk.csv"
    whole = [
        'What is a?,"It is a,\nthe first."\n',
        "What is b?,It is b.\n",
        'What is c?,"It is c, the ""third""."\n',
    ]
    path.write_text(
        "prompt,response\n"
        + whole[0]
        + 'What is o?,"open\n'
        + whole[1]
        + whole[2]
        + '"again\n'
        + whole[1]
    )
    used, rejected = everything(path)
    assert [talk.messages[-1].text for talk in used] == [
        "It is a,\nthe first.", "It is b.", 'It is c, the "third".', "It is b."
    ]  # fmt: skip
    first, second = rejected
    assert first.row == "row 2" and re.search("quote .*line 4 ", first.reason)
    assert second.row == "row 5" and re.search("quote .*line 7 ", second.reason)


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("talk.csv", "prompt,response\n", "answers"),
        ("talk.csv", "eins,zwei\n", "columns"),
        ("talk.csv", "AuthorID,Author,Date,Content,Attachments,Reactions\n", "discord-csv"),
        (
            "result.json",
            '{"name": "c", "type": "private_group", "id": 1, "messages": []}',
            "telegram",
        ),
    ],
)
def test_what_is_empty_is_recognised(tmp_path, name, content, format):
    path = tmp_path / name
    path.write_text(content)
    assert detect_format(path).name == format and everything(path) == ([], [])


def test_columns_of_one_name_are_distinguished(tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text("prompt,response,response\nWhat?,This.,That.\n")
    assert detect_format(path).name == "answers"
    assert [row for _, row in open_source(path).records()] == [
        {"prompt": "What?", "response": "This.", "response.1": "That."}
    ]


# Rows


def test_shapes_in_turn_are_each_read_as_what_they_are(tmp_path):
    sharegpt = {
        "conversations": [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Hm."}]
    }
    preference = {"prompt": "Which?", "chosen": "This.", "rejected": "That."}
    rows = [ROWS[0], TALKS[0], sharegpt, preference, {"id": "1", "data": ["Why?", "So."]}] * 4
    used, rejected = read(tmp_path, jsonl(rows))
    assert len(used) == len(rows) and not rejected


def test_known_shapes_among_rows_of_mapped_columns_are_read(tmp_path):
    unknown = [
        {"frage": f"Was ist die Nummer {n}?", "erwiderung": f"Das ist die {n}."} for n in range(8)
    ]
    mapping = {"user": "frage", "assistant": "erwiderung"}
    used, rejected = read(tmp_path, jsonl([*unknown, TALKS[0], ROWS[0], {"x": 1}]), mapping=mapping)
    assert used == [
        *(row["erwiderung"] for row in unknown),
        *result(0),
        *answers(0),
    ] and rejected == ["line 11"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_no_number_is_no_answer(tmp_path, value):
    path = tmp_path / "talk.jsonl"
    path.write_text(f'{WRITTEN[0]}\n{{"instruction": "What is it?", "output": {value}}}\n')
    used, rejected = everything(path)
    assert len(used) == 1 and rejected[0].reason.endswith("where a text was expected")


@pytest.mark.parametrize(
    "history",
    [5, True, {"a": 1}, "once upon a time", [["only"]], [["a", "b", "c"]], [{"a": 1}], "[1"],
)
def test_a_history_of_the_wrong_shape_is_why_a_row_is_rejected(tmp_path, history):
    good = {"prompt": "Why not?", "response": "Just so.", "history": [["Why?", "So."]]}
    assert read(tmp_path, jsonl([good, {**good, "history": history}])) == (["Just so."], ["line 2"])


@pytest.mark.parametrize("history", [None, "", [], [[]], "none"])
def test_no_history_is_none(tmp_path, history):
    assert read(tmp_path, jsonl([{"prompt": "Why?", "response": "So.", "history": history}])) == (
        ["So."],
        [],
    )


@pytest.mark.parametrize("format", ["telegram", "discord", "instagram"])
@pytest.mark.parametrize("content", [jsonl(TALKS), json.dumps(TALKS).encode()])
def test_a_wrong_format_makes_no_record_vanish(tmp_path, format, content):
    path = tmp_path / "talk"
    path.write_bytes(content)
    used, rejected = everything(path, format)
    assert not used and sum(item.rows for item in rejected) == len(TALKS)


@pytest.mark.parametrize("format", ["telegram", "slack", "oasst", "parlai", "discord-package"])
def test_where_there_is_nothing_for_a_forced_format_that_is_an_error(tmp_path, format):
    path = tmp_path / "talk.txt"
    path.write_text("Once upon a time.")
    with pytest.raises(MaterialError, match=f"cannot be read as {format}"):
        everything(path, format)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("before", "last"), [("data: ", "\n\ndata: [DONE]\n"), ("\ufeff", ""), ("\ufeff", "\n")]
)
def test_each_line_of_an_event_stream_and_of_joined_files_is_read(tmp_path, count, before, last):
    path = tmp_path / "rows.jsonl"
    row = '{"prompt": "Is there soup?", "completion": "Always."}'
    path.write_text("\n".join([before + row] * count) + last)
    used, rejected = everything(path)
    assert len(used) == count and not rejected
