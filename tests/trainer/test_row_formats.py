"""Rows in the shapes in which dialogue and instruction sets are published, odd ones included."""

import json

import pytest

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.read_sources import everything, jsonl, only, spoken
from trainer.sources.column_question import UnclearColumnsError
from trainer.sources.reader import read_usable
from trainer.sources.registry import describe_content, detect_format
from trainer.sources.source_format import ReadOptions

USER = ("user", "Why?")
ANSWER = ("assistant*", "Because.")
ASKED = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
WORSE = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}]
HUMAN = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
MORE = [USER, ANSWER, ("user", "Why not?"), ("assistant*", "Just so.")]

SHAPES = [
    ("alpaca", {"instruction": "Why?", "input": "", "output": "Because."}, [USER, ANSWER]),
    ("alpaca", {"instruction": "Sort:", "input": "b a", "output": "a b", "text": "Below is …"},
     [("user", "Sort:\nb a"), ("assistant*", "a b")]),
    ("alpaca", {"instruction": "Why?", "input": "<noinput>", "output": "Because."}, [USER, ANSWER]),
    ("alpaca", {"instruction": "Human:Why?\nAssistant:Because.\nHuman:Why not?\nAssistant:", "input": "",
                "output": "Just so."}, MORE),
    ("alpaca", {"instruction": "Why?", "input": None, "output": ["", "Because.", "So."]}, [USER, ANSWER]),
    ("belle", {"question": "为什么?", "std_answer": "因为。", "class": "open qa"},
     [("user", "为什么?"), ("assistant*", "因为。")]),
    ("firefly", {"kind": "Couplet", "input": "Why?", "target": "Because."}, [USER, ANSWER]),
    ("pairs", {"conversation_id": 1, "conversation": [{"human": "Why?", "assistant": "Because."},
                                                      {"human": "Why not?", "assistant": "Just so."}]}, MORE),
    ("wizardlm", {"instruction": "Why?", "output": "Because."}, [USER, ANSWER]),
    ("sharegpt", {"idx": "x", "conversations": HUMAN},
     [USER, ANSWER]),
    ("sharegpt", {"conversations": HUMAN,
                  "source": "infini-instruct", "score": 5.2}, [USER, ANSWER]),
    ("sharegpt", {"conversations": {"from": ["human", "gpt"], "value": ["Why?", "Because."]}}, [USER, ANSWER]),
    ("sharegpt", {"items": HUMAN}, [USER, ANSWER]),
    ("dolly", {"instruction": "Why?", "context": "", "response": "Because.", "category": "open_qa"}, [USER, ANSWER]),
    ("answers", {"system_prompt": "", "question": "Why?", "response": "Because."}, [USER, ANSWER]),
    ("answers", {"prompt": "Why?", "completion": "Because."}, [USER, ANSWER]),
    ("answers", {"prompt": [{"role": "user", "content": "Why?"}],
                 "completion": [{"role": "assistant", "content": "Because."}]}, [USER, ANSWER]),
    ("answers", {"Question": "Why?", "Answer": "Because."}, [USER, ANSWER]),
    ("answers", {"question": "Why?", "answers": {"text": ["Because."], "answer_start": [3]}}, [USER, ANSWER]),
    ("history", {"prompt": "Why not?", "response": "Just so.", "history": [["Why?", "Because."]]}, MORE),
    ("history", {"instruction": "Why not?", "input": "", "output": "Just so.", "history": [["Why?", "Because."]]},
     MORE),
    ("history", {"query": "Why not?", "answer": "Just so.",
                 "history": ASKED}, MORE),
    ("history", {"query": "Why not?", "answer": "Just so.", "history": "Human: Why?\nAssistant: Because."}, MORE),
    ("ultrachat", {"id": "0", "data": ["Why?", "Because.", "Why not?", "Just so."]}, MORE),
    ("openai", {"prompt": "Why?", "prompt_id": "f0", "messages": ASKED}, [USER, ANSWER]),
    ("openai", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]},
                             {"role": "assistant", "content": "Because.", "refusal": None}]}, [USER, ANSWER]),
    ("turns", {"dialog": ["Why?", "Because.", "Why not?", "Just so."], "act": [1, 2, 1, 2]}, MORE),
    ("transcript", {"text": "### Human: Why?### Assistant: Because."}, [USER, ANSWER]),
    ("transcript", {"text": "<s>[INST] Why? [/INST] Because. </s><s>[INST] Why not? [/INST] Just so. </s>"}, MORE),
    ("transcript", {"text": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>"},
     [USER, ANSWER]),
    ("transcript", {"text": "<|user|>\nWhy?</s>\n<|assistant|>\nBecause.</s>"}, [USER, ANSWER]),
    ("transcript", {"text": "Below is an instruction.\n\n### Instruction:\nWhy?\n\n### Response:\nBecause."},
     [USER, ANSWER]),
    ("transcript", {"id": "1", "dialogue": "Amy: Why?\r\nBen: Because.\r\nI said so.\r\nAmy: Oh", "summary": "…"},
     [("Amy", "Why?"), ("Ben*", "Because.\nI said so."), ("Amy", "Oh")]),
    ("preference", {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
     "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
     [USER, ANSWER]),
    ("preference", {"system": "", "question": "Why?", "chosen": "Because.", "rejected": "No."}, [USER, ANSWER]),
    ("preference", {"prompt": "Human: Why?\n\nAssistant:", "chosen": "Because.", "rejected": "No."}, [USER, ANSWER]),
    ("preference", {"prompt": "Why?", "score_chosen": 8.0, "score_rejected": 2.0,
                    "chosen": ASKED,
                    "rejected": WORSE},
     [USER, ANSWER]),
    ("preference", {"conversations": [{"from": "human", "value": "Why?"}],
                    "chosen": {"from": "gpt", "value": "Because."}, "rejected": {"from": "gpt", "value": "No."}},
     [USER, ANSWER]),
    ("scored", {"instruction": "Why?", "completions": [
        {"response": "No.", "overall_score": 2}, {"response": "Because.", "overall_score": "9.5"},
        {"response": "Hm.", "overall_score": None}]}, [USER, ANSWER]),
    ("scored", {"prompt": "Why?", "responses": ["No.", "Because."], "scores": [0.1, 0.9]}, [USER, ANSWER]),
    ("scored", {"prompt": "Why?", "responses": ["Because.", "No."], "rank": [1, 2]}, [USER, ANSWER]),
    ("scored", {"question": "Why?", "answers": [{"text": "Because.", "pm_score": 7}, {"text": "No.", "pm_score": 1}]},
     [USER, ANSWER]),
    ("verdict", {"prompt": "Why?", "response_0": "No.", "response_1": "Because.", "better_response_id": 1},
     [USER, ANSWER]),
    ("verdict", {"history": "Why?", "human_ref_A": "Because.", "human_ref_B": "No.", "labels": 1}, [USER, ANSWER]),
    ("verdict", {"winner": "model_b", "conversation_a": WORSE,
                 "conversation_b": ASKED},
     [USER, ANSWER]),
    ("personality", {"personality": ["i like clocks."], "utterances": [
        {"candidates": ["no", "Because."], "history": ["Why?"]},
        {"candidates": ["no", "Just so."], "history": ["Why?", "Because.", "Why not?"]}]}, MORE),
    ("personality", {"personality": ["i like clocks."], "candidates": ["no",
     "Because."], "history": ["__ SILENCE __", "Hi", "Why?"]},
     [("assistant*", "Hi"), USER, ANSWER]),
    ("persona-rows", {"conv_id": "1",
     "persona_b": ["I like clocks."], "dialogue": ["Persona A: Why?"], "reference": "Because."},
     [USER, ANSWER]),
    ("persona-rows", {"conv_id": "1", "persona_b": "['I like clocks.']", "dialogue": "['Why?', 'Because.', 'Why not?']",
                      "reference": "Just so."}, MORE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "said"), SHAPES)
def test_a_row_is_recognised_and_read(tmp_path, name, row, said):
    format, conversation = only(tmp_path / "rows.json", jsonl([row]))
    assert format == name
    assert spoken(conversation) == said
    assert conversation.messages[0].row == "line 1"


def test_the_worse_answer_goes_along(tmp_path):
    compared = [row for name, row, _ in SHAPES if name in ("preference", "scored", "verdict")]
    for row in compared:
        assert only(tmp_path / "rows.json", jsonl([row]))[1].rejected == "No."


def test_facts_and_system_texts_go_along(tmp_path):
    facts = [row for name, row, _ in SHAPES if name in ("personality", "persona-rows")]
    assert {only(tmp_path / "r", jsonl([row]))[1].system.lower() for row in facts} == {
        "i like clocks."
    }
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    row = {
        "system": "You are Ada.",
        "messages": [*talk, {"role": "assistant", "content": "Hello."}],
        "lang": "en",
    }
    told = {"conversations": [{"from": "system", "value": "Be brief."}, *HUMAN]}
    assert only(tmp_path / "r", jsonl([told]))[1].system == "Be brief."
    _, conversation = only(tmp_path / "r", jsonl([row]), right="licensed", source="mine")
    assert conversation.system == "You are Ada.\nBe brief." and conversation.lang == "en"
    assert (conversation.right, conversation.source) == ("licensed", "mine")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "cat", "content": "Meow"}]}, "message 1 has an unknown role 'cat'"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no answer"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "nobody is answered"),
        ({"messages": ["Hi"]}, "message 1 is not an object"),
        ({"messages": [{"role": "user"}]}, "message 1 has no 'content'"),
        ({"messages": [{"content": "Hi"}]}, "message 1 does not name its speaker ('role')"),
        ({"messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "tool_calls": [{}]}]},
     "contains tool calls"),
        ({"conversations": [*HUMAN, {"from": "function-response", "value": "{}"}, *HUMAN]},
     "contains tool calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "contains pictures or sound"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "an object where a text was expected"),
        ({"message": "Hi"}, 'not {"messages": [{"role": "user", "content": "…"}]}: it has message'),
        ({}, 'not {"messages": [{"role": "user", "content": "…"}]}: it has nothing'),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_says_why(tmp_path, row, reason):
    good = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    }
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([good, row, good]))
    used, rejected = everything(path)
    assert len(used) == 2 and [(r.row, r.reason, r.rows) for r in rejected] == [
        ("line 2", reason, 1)
    ]


def test_rows_of_several_shapes_in_one_file_are_read_as_what_they_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [row for name, row, _ in SHAPES if name != "transcript"]
    path.write_bytes(jsonl(rows))
    used, rejected = everything(path, "alpaca")
    assert len(used) == len(rows) and not rejected


def test_of_people_the_one_who_is_named_is_the_persona_and_without_a_name_it_is_asked_for(tmp_path):
    lines = [
        {"speaker": "Ada", "text": "Good day."},
        {"speaker": "Ben", "text": "Hi"},
        {"speaker": "Ada", "text": "Tea?"},
    ]
    content = jsonl([{"turns": lines}])
    assert only(tmp_path / "r", content)[1].roles == ("Ben", "Ada")
    with pytest.raises(MaterialError, match=r"Ben 1, Ada 1; .*whose are learned"):
        list(read_usable(tmp_path / "r", ReadOptions()))
    named = only(tmp_path / "r", content, persona=Persona("ada", "ADA"))[1]
    assert (
        spoken(named)[1:] == [("Ben", "Hi"), ("ADA*", "Tea?")]
        and named.messages[0].speaker.id == "ada"
    )
    assert spoken(only(tmp_path / "r", content, persona_names=("ada",))[1])[0] == (
        "Ada*",
        "Good day.",
    )
    for place, name in (("@first", "Ada*"), ("@second", "Ben*")):
        used = list(read_usable(tmp_path / "r", ReadOptions(persona_names=(place,))))
        assert [name in dict(spoken(one)) for one in used] == [True]


def test_messages_in_cells_of_a_table_are_read(tmp_path):
    messages = ASKED
    quoted = json.dumps(messages).replace('"', '""')
    assert spoken(only(tmp_path / "r.csv", f'id,messages\n1,"{quoted}"\n'.encode())[1]) == [
        USER,
        ANSWER,
    ]
    assert spoken(only(tmp_path / "r.csv", f'id,messages\n1,"{messages}"\n'.encode())[1]) == [
        USER,
        ANSWER,
    ]


def test_only_languages_that_are_asked_for_are_kept(tmp_path):
    path = tmp_path / "r"
    row = {"question": "Why?", "answer": "Because."}
    path.write_bytes(jsonl([row | {"lang": "en"}, row | {"lang": "de"}, row]))
    used, rejected = everything(path, languages=("en",))
    assert [c.lang for c in used] == ["en", ""] and rejected[
        0
    ].reason == "language de is not requested"


UNKNOWN = [
    {
        "nr": n,
        "frage": f"Was ist das, Nummer {n}?",
        "kategorie": "Uhr",
        "erwiderung": f"Das ist {n}.",
    }
    for n in range(9)
]


def test_unknown_columns_are_shown_and_asked_for(tmp_path):
    path = tmp_path / "r"
    path.write_bytes(jsonl(UNKNOWN))
    assert detect_format(path).name == "columns"
    with pytest.raises(UnclearColumnsError, match="not guessed") as caught:
        everything(path)
    kinds = {column.name: column.kind for column in caught.value.question.columns}
    assert kinds == {"nr": "numbers", "frage": "texts", "kategorie": "names", "erwiderung": "texts"}
    assert caught.value.question.proposal == {"user": "frage", "assistant": "erwiderung"}
    talk = [
        [{"wer": who, "was": f"{who} sagt {turn + n} Worte."} for turn, who in enumerate("ABAB")]
        for n in range(3)
    ]
    path.write_bytes(jsonl([{"gespräch": lines} for lines in talk]))
    with pytest.raises(UnclearColumnsError) as caught:
        everything(path)
    proposal = caught.value.question.proposal
    assert proposal == {"messages": "gespräch", "from": "wer", "value": "was"}
    used, _ = everything(path, mapping=proposal, persona_names=("A",))
    assert spoken(used[0])[:2] == [("A*", "A sagt 0 Worte."), ("B", "B sagt 1 Worte.")]


@pytest.mark.parametrize(
    "mapping",
    [
        {"user": "erwiderung", "assistant": "frage"},
        {"erwiderung": "prompt", "frage": "response"},
        {"question": "erwiderung", "answer": "frage"},
    ],
)
def test_columns_can_be_named(tmp_path, mapping):
    path = tmp_path / "r"
    path.write_bytes(jsonl(UNKNOWN))
    used, rejected = everything(path, mapping=mapping)
    assert not rejected
    assert spoken(used[0]) == [("user", "Das ist 0."), ("assistant*", "Was ist das, Nummer 0?")]


def test_lists_can_be_named(tmp_path):
    path = tmp_path / "r"
    path.write_bytes(
        jsonl([{"a": [{"x": "user", "y": "Why?"}, {"x": "bot", "y": "Because."}], "messages": []}])
    )
    assert spoken(everything(path, mapping={"messages": "a", "from": "x", "value": "y"})[0][0]) == [
        USER,
        ANSWER,
    ]
    path.write_bytes(jsonl([{"a": ["Why?", "Because."], "b": "Why?", "c": "Because."}]))
    assert spoken(everything(path, mapping={"messages": "a"})[0][0]) == [USER, ANSWER]
    path.write_bytes(jsonl([{"a": "Human: Why?\nAI: Because."}]))
    assert spoken(everything(path, mapping={"a": "transcript"})[0][0]) == [USER, ANSWER]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        (
            {"user": "Frage", "assistant": "erwiderung"},
            "no column 'Frage'. It has erwiderung, frage",
        ),
        ({"usr": "frage"}, "--map usr=frage: neither is a role. Did you mean 'user'"),
        ({"user": "frage"}, "role of the answers"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path, mapping, said):
    path = tmp_path / "r"
    path.write_bytes(jsonl(UNKNOWN))
    with pytest.raises(MaterialError, match=said.replace(".", r"\.")):
        everything(path, mapping=mapping)


# The order of messages

TOLD = ["Is the ferry here?", "It never left.", "Who rows?", "I."]


def told(key, values, speakers=("user", "assistant"), speaker="role"):
    """Messages newest first, with a field each that orders them."""
    texts = zip(TOLD, values, strict=True)
    messages = [
        {speaker: speakers[n % 2], "content": text, key: value}
        for n, (text, value) in enumerate(texts)
    ]
    return messages[::-1]


MINUTES = [f"2026-03-01T09:0{n}:00Z" for n in (0, 1, 2, 2)]
IN_REVERSE = {
    "roles": {"messages": told("created_at", MINUTES)},
    "names": {"messages": told("timestamp", MINUTES, ("Mira", "Oda"), "author")},
    "another list": {
        "MessageList": told("originalarrivaltime", MINUTES, ("8:mira", "8:oda"), "from")
    },
    "numbers of seconds": {
        "conversation": told("ts", [1772355600 + 60 * n for n in range(4)], speaker="from")
    },
    "days before months": {
        "messages": told("date", [f"{n}/03/2026 09:00" for n in (12, 13, 14, 15)])
    },
    "numbers": {"messages": told("index", range(4))},
    "flags": {"dialog": told("sentAt", MINUTES, (False, True), "is_bot")},
    "a better answer": {
        "chosen": told("created_at", MINUTES),
        "rejected": told("created_at", MINUTES),
    },
}


@pytest.mark.parametrize("name", IN_REVERSE)
def test_messages_go_by_their_times_or_numbers(tmp_path, name):
    (tmp_path / "talk.jsonl").write_bytes(jsonl([IN_REVERSE[name]] * 2))
    used, rejected = everything(tmp_path / "talk.jsonl")
    assert len(used) == 2 and not rejected
    assert [m.text for m in used[0].messages] == TOLD
    assert [m.speaker.is_persona for m in used[0].messages] == [False, True] * 2


@pytest.mark.parametrize(
    "values", [["2026-03-01", "", "2026-03-02", "2026-03-03"], ["a", "b", "c", "d"], [1, 1, 2, 3]]
)
@pytest.mark.parametrize("key", ["created_at", "index"])
def test_messages_without_a_time_each_stay_as_they_are(tmp_path, key, values):
    messages = [
        {"role": m["role"], "content": m["content"], key: m[key]} for m in told(key, values)[::-1]
    ]
    _, talk = only(tmp_path / "talk.jsonl", jsonl([{"messages": messages}]))
    assert [m.text for m in talk.messages] == TOLD


def test_fields_of_messages_that_are_not_used_are_named(tmp_path):
    rows = [{"messages": [{**m, "thread": "a", "weight": 1} for m in told("created_at", MINUTES)]}]
    (tmp_path / "talk.jsonl").write_bytes(jsonl(rows))
    columns = describe_content(tmp_path / "talk.jsonl", ReadOptions()).columns
    assert columns.unused == ("messages[].thread",)
    assert columns.used == {"messages": "messages", "order": "messages[].created_at"}
