"""Messages in parts: texts and thoughts are read, what cannot be read is called by its name; voice
chats; and lines that end in commas.
"""

import json

import pytest

from tests.trainer.read_sources import everything, jsonl, only, spoken


def said(*parts):
    return {
        "messages": [
            {"role": "user", "content": "Soup?"},
            {"role": "assistant", "content": list(parts)},
        ]
    }


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "text", "value": "Always."}], "Always."),
        ([{"type": "text", "text": "Always."}, {"type": "output_text", "text": "Dear."}], "Always.\nDear."),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ([{"type": "reasoning", "value": "He is hungry."}, {"type": "text", "value": "Always."}],
         "<think>\nHe is hungry.\n</think>\nAlways."),
        ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Always."}],
         "<think>\nHm.\n</think>\nAlways."),
    ],
)  # fmt: skip
def test_parts_are_read_by_their_types(tmp_path, parts, text):
    _, talk = only(tmp_path / "rows.jsonl", jsonl([said(*parts)]))
    assert spoken(talk)[-1] == ("assistant*", text)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image_url", "image_url": {}}, "contains pictures or sound"),
        ({"type": "input_audio", "value": "x"}, "contains pictures or sound"),
        ({"type": "tool_call", "value": "{}"}, "contains tool calls"),
        ({"type": "chart", "value": "x"}, "contains a part of the type 'chart', which is no text"),
    ],
)
def test_other_parts_are_called_what_they_are(tmp_path, part, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([said({"type": "text", "value": "Look."}, part)]))
    assert [item.reason for item in everything(path)[1]] == [reason]


def voice(*messages):
    nodes = {}
    for number, (role, parts) in enumerate(messages):
        content = {"content_type": "multimodal_text", "parts": parts}
        nodes[f"n{number}"] = {
            "id": f"n{number}",
            "message": {"author": {"role": role}, "content": content, "recipient": "all"},
            "parent": f"n{number - 1}" if number else None,
            "children": [f"n{number + 1}"] if number + 1 < len(messages) else [],
        }
    return [{"title": "t", "mapping": nodes, "current_node": f"n{len(messages) - 1}"}]


SOUND = {"content_type": "audio_asset_pointer", "asset_pointer": "x"}
CAMERA = {"content_type": "real_time_user_audio_video_asset_pointer"}


def transcript(text):
    return {"content_type": "audio_transcription", "text": text}


def test_a_voice_chat_is_what_was_said(tmp_path):
    chat = voice(
        ("user", [transcript("Soup, please."), SOUND]),
        ("assistant", [CAMERA | {"frames_asset_pointers": []}, transcript("Always.")]),
    )
    _, talk = only(tmp_path / "conversations.json", json.dumps(chat).encode())
    assert spoken(talk) == [("user", "Soup, please."), ("assistant*", "Always.")]


def test_an_empty_transcript_loses_its_message_alone(tmp_path):
    chat = voice(
        ("user", ["Soup, please."]), ("user", [transcript(""), SOUND]), ("assistant", ["Always."])
    )
    _, talk = only(tmp_path / "conversations.json", json.dumps(chat).encode())
    assert spoken(talk) == [("user", "Soup, please."), ("assistant*", "Always.")]


@pytest.mark.parametrize(
    "parts",
    [
        [SOUND],
        [transcript("What is this?"), CAMERA | {"frames_asset_pointers": ["x"]}],
        [{"content_type": "image_asset_pointer"}, "What is this?"],
    ],
)
def test_sound_that_nobody_wrote_down_and_pictures_are_refused(tmp_path, parts):
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(voice(("user", parts), ("assistant", ["A cat."]))))
    assert [item.reason for item in everything(path)[1]] == ["contains pictures or sound"]


@pytest.mark.parametrize("rows", [[said("Always.")] * 4, [said("Always.")["messages"]] * 3])
@pytest.mark.parametrize("last", ["", ",", ",\n"])
def test_lines_that_end_in_commas_are_rows(tmp_path, rows, last):
    path = tmp_path / "rows.jsonl"
    path.write_text(",\n".join(map(json.dumps, rows)) + last)
    used, rejected = everything(path)
    assert len(used) == len(rows) and not rejected


def test_a_comma_between_the_lines_of_an_object_begins_no_row(tmp_path):
    row = said("Always.")["messages"]
    path = tmp_path / "row.json"
    path.write_text('{"messages": [\n' + ",\n".join(map(json.dumps, row)) + "\n]}\n")
    assert len(everything(path)[0]) == 1
