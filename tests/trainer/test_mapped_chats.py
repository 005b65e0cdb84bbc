"""Chats of other programs whose columns are mapped: Matrix's edits, deletions and replies, and rows
that say of themselves that they are no texts.
"""

import json

import pytest

from tests.trainer.chat_logs import BEGIN_S, outcome, write

ROOM = {"speaker": "sender", "text": "content.body", "time": "origin_server_ts"}


def event(id, body, sender="wick", minute=0, type="m.room.message", **content):
    if type == "m.room.message":
        content = {"msgtype": "m.text", "body": body} | content
    at = int(BEGIN_S + 60 * minute) * 1000
    sender = f"@{sender}:example.org"
    return {
        "type": type,
        "sender": sender,
        "content": content,
        "origin_server_ts": at,
        "event_id": id,
    }


def answers(id, **more):
    return {"m.relates_to": {"m.in_reply_to": {"event_id": id}, **more}}


def replaces(id, body):
    new = {"msgtype": "m.text", "body": body}
    return {"m.new_content": new, "m.relates_to": {"rel_type": "m.replace", "event_id": id}}


EVENTS = [
    event("$0", "", type="m.room.member", membership="join"),
    event("$1", "soup?"),
    event("$2", "> <@wick:example.org> soup?\n\nAlways.", "oda", 1, **answers("$1")),
    event("$3", " * Always, dear.", "oda", 2, **replaces("$2", "Always, dear.")),
    event("$4", "> a proverb\n\nwhat says it?", minute=3),
    event("$5", "map.png", minute=4, msgtype="m.image", url="mxc://x"),
    event("$6", "> <@oda:example.org> Always.\n> More.\n\n* nods", "oda", 5, **answers("$4")),
    event("$7", "oops", "oda", 6),
    event("$8", "", "oda", 7, type="m.room.redaction") | {"redacts": "$7"},
    event("$9", "reminder", "clock", 8, msgtype="m.notice"),
]
SAID = [
    ("wick", "soup?"),
    ("oda", "Always, dear."),
    ("wick", "> a proverb\n\nwhat says it?"),
    ("oda", "* nods"),
]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_matrix_room_is_read_as_its_members_see_it(tmp_path, is_reversed):
    events = EVENTS[::-1] if is_reversed else EVENTS
    path = write(tmp_path / "room.json", {"room_name": "tavern", "messages": events})
    found = outcome(path, mapping=ROOM, persona_names=("oda",))
    assert found.said == [SAID]
    assert found.dropped == {
        "system message": 1,
        "edited later": 1,
        "only an attachment": 1,
        "deleted": 1,
        "says that another was deleted": 1,
        "another bot": 1,
    }
    assert found.rows == len(EVENTS)


def test_parts_of_a_matrix_room_are_merged(tmp_path):
    events = [one | {"room_id": "!r:example.org"} for one in EVENTS]
    for name, part in (("a.json", events[:4]), ("b.json", events[2:])):
        write(tmp_path / "parts" / name, {"messages": part})
    found = outcome(tmp_path / "parts", mapping=ROOM, persona_names=("@oda:example.org",))
    assert found.said == [SAID] and found.dropped["the same message again"] >= 1


WECHAT = """localId,TalkerId,Type,SubType,IsSender,CreateTime,Status,StrContent,StrTime,Remark,NickName,Sender
1,1,{text},0,0,1704189600,3,soup?,2024-01-02 10:00:00,Mira,Mira,a
2,1,{text},0,1,1704189660,2,Always.,2024-01-02 10:01:00,Oda,Oda,b
3,1,{other},0,0,1704189700,3,<msg><img/></msg>,2024-01-02 10:01:40,Mira,Mira,a
4,1,{other},0,1,1704189730,3,You recalled a message,2024-01-02 10:02:10,Oda,Oda,b
5,1,,0,1,1704189840,2,Sit down.,2024-01-02 10:04:00,Oda,Oda,b
"""
WECHAT_MAP = {"speaker": "NickName", "text": "StrContent", "time": "StrTime"}


@pytest.mark.parametrize(("text", "other"), [("1", "3"), ("文本", "图片"), ("Text", "call")])
def test_rows_that_are_no_texts_are_not_learned(tmp_path, text, other):
    path = write(tmp_path / "chat.csv", WECHAT.format(text=text, other=other))
    found = outcome(path, mapping=WECHAT_MAP, persona_names=("Oda",))
    assert found.said == [[("Mira", "soup?"), ("Oda", "Always.\nSit down.")]]
    assert found.dropped == {f"no text: Type is {other!r}": 2}


@pytest.mark.parametrize(("text", "other"), [("2", "3"), ("whisper", "shout")])
def test_types_that_name_no_text_drop_nothing(tmp_path, text, other):
    path = write(tmp_path / "chat.csv", WECHAT.format(text=text, other=other))
    assert outcome(path, mapping=WECHAT_MAP).rows == 5
    assert not outcome(path, mapping=WECHAT_MAP).dropped


def test_numbers_are_types_of_wechat_alone(tmp_path):
    rows = [
        {"who": name, "type": kind, "said": f"{name} {kind}", "when": f"2024-01-02 10:0{kind}:00"}
        for kind, name in enumerate(["Mira", "Oda", "Mira", "Oda"])
    ]
    path = write(tmp_path / "chat.jsonl", "\n".join(map(json.dumps, rows)))
    mapping = {"speaker": "who", "text": "said", "time": "when"}
    assert not outcome(path, mapping=mapping).dropped
