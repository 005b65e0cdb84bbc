"""A row with an answer, a choice or a picture that its reader has no place for is refused; two
answers are read by their names, whatever these are.
"""

import pytest

from tests.trainer.read_sources import everything, jsonl, only, spoken

USER = {"role": "user", "content": "Is there soup?"}
GOOD = {"role": "assistant", "content": "Always, dear."}
BAD = {"role": "assistant", "content": "Go away."}
MORE = {"role": "user", "content": "And bread?"}
ASKED = {"prompt": "Is there soup?"}
TEXTS = ("Always, dear.", "Go away.")
SOURCE = "images/a.jpg"


def pair(*names, cells=TEXTS):
    return dict(zip(names, cells, strict=True))


@pytest.mark.parametrize(
    "row",
    [
        {"context": [USER]} | pair("answer_w", "answer_l", cells=(GOOD, BAD)),
        pair("chosen_messages", "rejected_messages", cells=([USER, GOOD], [USER, BAD])),
        ASKED | pair("chosenResponse", "rejectedResponse"),
        ASKED | pair("winner_response", "loser_response"),
        ASKED | pair("response_preferred", "response_dispreferred"),
        ASKED | pair("positive", "negative"),
        {"input": {"messages": [USER]}}
        | pair("preferred_output", "non_preferred_output", cells=([GOOD], [BAD])),
        ASKED | pair("response_a", "response_b") | {"winner": "a"},
        ASKED | pair("answer_b", "answer_a") | {"winner": "model_b"},
        ASKED | pair("completion_2", "completion_1") | {"preferred": "completion_2"},
        ASKED | pair("output_1", "output_2") | {"preference": 1},
        ASKED | {"completions": [{"text": TEXTS[0], "score": 2}, {"text": TEXTS[1], "score": 1}]},
    ],
    ids=lambda row: "-".join(row),
)
def test_two_answers_are_read_by_their_names(tmp_path, row):
    _, conversation = only(tmp_path / "rows.jsonl", jsonl([row]))
    assert spoken(conversation) == [("user", "Is there soup?"), ("assistant*", "Always, dear.")]
    assert conversation.rejected == "Go away."


def test_the_messages_before_two_answers_are_their_prompt(tmp_path):
    row = {"context": [USER, GOOD, MORE]} | pair("answer_w", "answer_l", cells=(GOOD, BAD))
    _, conversation = only(tmp_path / "rows.jsonl", jsonl([row]))
    texts = ["Is there soup?", "Always, dear.", "And bread?", "Always, dear."]
    assert [
        text for _, text in spoken(conversation)
    ] == texts and conversation.rejected == "Go away."


@pytest.mark.parametrize(
    ("row", "column", "holds"),
    [
        (
            {"messages": [USER, GOOD], "rejected_response": "Go away."},
            "rejected_response",
            "answers",
        ),
        ({"messages": [USER, GOOD, MORE], "answer": "Two loaves."}, "answer", "answers"),
        ({"messages": [USER, GOOD, MORE], "label": "Two loaves."}, "label", "answers"),
        ({"conversation": ["Soup?", "Yes.", "Bread?"], "target": "No."}, "target", "answers"),
        ({"messages": [USER, GOOD], "responses": ["Always, dear.", "No."]}, "responses", "answers"),
        (ASKED | {"response": "Yes.", "response_2": "No."}, "response_2", "answers"),
        (ASKED | {"output": "Yes.", "rejected": "No."}, "rejected", "answers"),
        (ASKED | {"answer": "B", "choices": ["stew", "soup"]}, "choices", "a choice"),
        (ASKED | {"response": "Yes.", "preference": 1}, "preference", "a choice"),
        (ASKED | {"response": "Yes.", "images": [SOURCE]}, "images", "pictures"),
        (
            ASKED | {"response": "Yes.", "image": {"bytes": None, "path": SOURCE}},
            "image",
            "pictures",
        ),
        ({"messages": [USER, GOOD], "videos": [SOURCE]}, "videos", "pictures"),
        ({"messages": [USER, GOOD], "audio_path": "a.wav"}, "audio_path", "pictures"),
        ({"text": "Human: soup?\nAssistant: Yes.", "img_url": SOURCE}, "img_url", "pictures"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_be_lost_is_named(tmp_path, row, column, holds):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([row]))
    used, rejected = everything(path)
    assert not used
    assert rejected[0].reason.startswith(f"the column {column!r} holds {holds}")


def test_pictures_are_missed_where_the_columns_are_mapped_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"frage": "Suppe?", "antwort": "Ja.", "image": SOURCE, "chosen": "x"}]))
    used, rejected = everything(path, mapping={"user": "frage", "assistant": "antwort"})
    assert not used and "'image' holds pictures" in rejected[0].reason


def test_a_picture_in_a_message_is_missed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"messages": [USER | {"images": [SOURCE]}, GOOD]}]))
    assert [item.reason for item in everything(path)[1]] == ["contains pictures or sound"]


@pytest.mark.parametrize(
    "more",
    [
        {"id": "1", "source": "forum", "score": 3, "timestamp": "2024-01-02", "system": "Be kind."},
        {"images": [], "image": None, "videos": "", "has_image": False, "image_count": 1},
        {"output": "Always, dear."},
        {"response_source": "human", "answer_type": "text", "response_length": 13, "model": "a"},
        {"score_chosen": 4.0, "chosen_model": "a", "winner_id": "7", "avatar_image": "me.png"},
        {"correct_answers": ["Yes"], "expected_answer": "Yes", "reference": "Yes"},
        {"text": "### Instruction: Is there soup? ### Response: Always, dear."},
    ],
)
@pytest.mark.parametrize("row", [{"messages": [USER, GOOD]}, ASKED | {"response": GOOD["content"]}])
def test_ordinary_columns_pass(tmp_path, row, more):
    _, conversation = only(tmp_path / "rows.jsonl", jsonl([row | more]))
    assert [text for _, text in spoken(conversation)] == ["Is there soup?", "Always, dear."]
