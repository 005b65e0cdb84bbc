"""A row with an answer, a choice or a picture that its reader has no place for is refused; two
answers are read by their names, whatever these are.
"""

import pytest

from tests.trainer.read_sources import everything, jsonl, only, spoken
from trainer.sources.column_question import UnclearColumnsError

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
        {"score_chosen": 4.0, "chosen_model": "a", "winner_id": "7"},
        {"correct_answers": ["Yes"], "expected_answer": "Yes", "reference": "Yes"},
        {"text": "### Instruction: Is there soup? ### Response: Always, dear."},
    ],
)
@pytest.mark.parametrize("row", [{"messages": [USER, GOOD]}, ASKED | {"response": GOOD["content"]}])
def test_ordinary_columns_pass(tmp_path, row, more):
    _, conversation = only(tmp_path / "rows.jsonl", jsonl([row | more]))
    assert [text for _, text in spoken(conversation)] == ["Is there soup?", "Always, dear."]


QUESTIONS = ("Is there soup?", "And bread?", "Where is the ferry?", "Who sings?")
REPLIES = ("Always, dear.", "Two loaves.", "Behind the bridge.", "The rope does.")
OTHERS = ("Soup again, my dear?", "No loaves today.", "It sank in the bay.", "Nobody at all.")


def talks(**columns):
    """Questions and replies with further columns: a value for all rows, or a list of four."""
    rows = []
    for number, (question, reply) in enumerate(zip(QUESTIONS, REPLIES, strict=True)):
        more = {name: cells[number] for name, cells in columns.items()}
        rows.append({"prompt": question, "response": reply} | more)
    return rows


def lists(**columns):
    rows = []
    for question, reply, other in zip(QUESTIONS, REPLIES, OTHERS, strict=True):
        rows.append({"prompt": question, "responses": [reply, other]} | columns)
    return rows


CHOICES = [
    ("best", lists(best=1)),
    ("preference", lists(preference=[0, 1])),
    ("accepted", talks(accepted=[False] * 4)),
    ("is_rejected", talks(is_rejected=[True] * 4)),
    ("quality", talks(quality=["good", "bad"] * 2)),
    ("kept", talks(kept=[True, False] * 2)),
    ("swipes", talks(swipes=list(zip(REPLIES, OTHERS, strict=True)), swipe_id=[1] * 4)),
    ("choices", [{"question": q, "choices": ["soup", "stew"], "answer": "B"} for q in QUESTIONS]),
    ("option_b", [{"question": q, "option_b": "soup", "answer": "b"} for q in QUESTIONS]),
    *((name, talks(**{name: OTHERS})) for name in "rewrite edited revision next_turn".split()),
]


@pytest.mark.parametrize(("column", "rows"), CHOICES, ids=[name for name, _ in CHOICES])
def test_a_column_is_asked_about_by_its_content(tmp_path, column, rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(rows))
    used, rejected = everything(path)
    assert not used and len(rejected) == 4
    assert f"--map {column}=unused" in rejected[0].reason


MEDIA = (
    "a.jpg",
    ["a.ogg"],
    {"bytes": None, "path": "x.wav"},
    [[[0.1, 0.2], [1, 2]]],
    "https://example.org/a.mp4?size=1",
    "data:image/png;base64,AAAA",
    [0.25] * 100,
    "QUJD" * 100,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "a.jpg") for name in "pixel_values media attachments wav 图片".split()),
        *(("voice", value) for value in MEDIA),
    ],
    ids=str,
)
def test_media_are_found_under_any_name(tmp_path, name, value):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(talks(**{name: [value] * 4})))
    used, rejected = everything(path)
    assert not used and f"'{name}' holds pictures or sound" in rejected[0].reason


@pytest.mark.parametrize(
    "columns",
    [
        {"speech_act": ["inform", "ask back", "greet an old friend", "inform"]},
        {"preference_group": ["a", "b", "c", "a"]},
        {"answer_summary": ["short", "long", "short one", "mid"]},
        {"topic": ["Food and drink", "Sea", "Food and drink", "Sea"]},
        {"tags": [["at the sea", "b"]] * 4},
        {"author": ["Mary Ann Lee"] * 4},
        {"input_ids": [[1, 2, 3] * 40] * 4},
        {"toxic": [False] * 4, "score": [1, 2, 3, 4], "turn": [0, 1, 0, 1]},
        {"url": ["https://example.org/page/1"] * 4, "date": ["2024-01-02 10:00"] * 4},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_labels_are_no_answers(tmp_path, columns):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(talks(**columns)))
    used, rejected = everything(path)
    assert len(used) == 4 and not rejected


def test_what_is_left_out_by_name_is_not_asked_about_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(talks(edited=OTHERS, wav=["a.wav"] * 4)))
    used, rejected = everything(path, mapping={"edited": "unused", "wav": "unused"})
    assert len(used) == 4 and not rejected


def test_the_place_of_a_picture_in_a_text_is_enough(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"instruction": "<image>\nWhat is it?", "output": "A cat."}]))
    used, rejected = everything(path)
    assert not used and "pictures or sound" in rejected[0].reason


def test_two_answers_are_not_proposed_as_a_question_and_its_answer(tmp_path):
    path = tmp_path / "rows.jsonl"
    pairs = zip(QUESTIONS, REPLIES, OTHERS, strict=True)
    path.write_bytes(jsonl([{"prompt": q, "win": a, "lose": b} for q, a, b in pairs]))
    with pytest.raises(UnclearColumnsError) as asked:
        everything(path)
    assert not asked.value.question.proposal
