"""Sources: what is read, what is dropped, and what is said about files that cannot be read."""

import json
from collections import Counter

import pytest

from personas.contracts import Persona
from personas.errors import MaterialError
from tests.trainer.jobs import dialogues, export, message
from trainer.sources.discord_export import read_export
from trainer.sources.messages import read_messages

ADA = Persona("ada", "Ada Lace")


def read(tmp_path, content: str | bytes, dropped=None):
    path = tmp_path / "talk.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_export(path, "own-writing", ADA, 1800, Counter() if dropped is None else dropped))


def spoken(conversation):
    return [(m.speaker.name, m.text) for m in conversation.messages]


def test_a_conversation_ends_after_half_an_hour_of_silence(tmp_path):
    found = read(
        tmp_path,
        export([message("hello"), message("Good day.", "ada lace", 30), message("hi again", minute=60.1)]),
    )
    assert [spoken(c) for c in found] == [
        [("mira_wet", "hello"), ("Ada Lace", "Good day.")],
        [("mira_wet", "hi again")],
    ]
    assert [c.right for c in found] == ["own-writing"] * 2


def test_messages_of_one_speaker_in_a_row_are_joined_and_sorted_by_time(tmp_path):
    (found,) = read(
        tmp_path, export([message("third", "ada", 3), message("second", minute=2), message("first", minute=1)])
    )
    assert spoken(found) == [("mira_wet", "first\nsecond"), ("Ada Lace", "third")]
    assert found.messages[0].row == "1010"


def test_what_nobody_said_is_dropped_and_counted(tmp_path):
    bot = {"id": "7", "name": "MusicBot", "isBot": True}
    dropped = Counter()
    (found,) = read(
        tmp_path,
        export(
            [
                message("hello"),
                message("joined the server", type="GuildMemberJoin"),
                message("now playing", author="MusicBot") | {"author": bot},
                message("  "),
                message("/persona set"),
                message("!skip"),
                message("Good day.", "Ada Lace", 2, type="Reply"),
            ]
        ),
        dropped,
    )
    assert len(found.messages) == 2
    assert dropped == {"system message": 1, "another bot": 1, "no text": 1, "command": 2}


def test_the_persona_may_be_a_bot_and_be_known_by_nickname(tmp_path):
    persona = {"id": "7", "name": "understudy", "nickname": "ADA", "isBot": True}
    (found,) = read(tmp_path, export([message("hello"), message("Good day.", minute=1) | {"author": persona}]))
    assert found.messages[1].speaker.is_persona


def test_a_log_without_the_persona_names_who_speaks(tmp_path):
    with pytest.raises(MaterialError, match=r"Ada Lace never speaks in talk\.json\. Speakers found: mira_wet, bo\."):
        read(tmp_path, export([message("hello"), message("hello", minute=1), message("hi", "bo", 2)]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "talk.json is empty"),
        (b"\n \n", "talk.json is empty"),
        (b"\xff\xfe{}", "talk.json is not UTF-8 .byte 0"),
        (b'{"messages": [', "talk.json cannot be read: Invalid JSON"),
        (b"[]", "talk.json cannot be read: Input should be an object"),
        (b'{"guild": {}}', "talk.json cannot be read: messages: Field required"),
        (b'{"messages": []}', "talk.json holds no messages"),
        (b'{"messages": [{"id": "1"}]}', r"talk.json cannot be read: messages\.0\.type"),
    ],
)
def test_a_broken_export_is_named(tmp_path, content, said):
    with pytest.raises(MaterialError, match=said):
        read(tmp_path, content)


def test_the_row_of_a_wrong_field_is_named(tmp_path):
    lines = [message("hello"), message("hello", minute=1, timestamp="yesterday")]
    with pytest.raises(MaterialError, match=r"messages\.1\.timestamp.*Expected: a Discord export in JSON"):
        read(tmp_path, export(lines))


def test_dialogues_lose_their_system_texts(tmp_path):
    path = tmp_path / "talk.jsonl"
    roles = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", " ")]
    path.write_text(json.dumps({"messages": [{"role": r, "content": c} for r, c in roles]}) + "\n\n" + dialogues(1))
    dropped = Counter()
    first, second = read_messages(path, "licensed", dropped)
    assert spoken(first) == [("user", "Hi"), ("assistant", "Hello.")]
    assert spoken(second)[0] == ("user", "What is 0 + 1?") and second.messages[0].row == "line 3"
    assert dropped == {"system text": 1, "no text": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2, cannot be read: Invalid JSON"),
        ('{"messages": [{"role": "cat", "content": ""}]}', "messages.0.role"),
    ],
)
def test_a_broken_line_of_dialogue_is_named(tmp_path, line, said):
    path = tmp_path / "talk.jsonl"
    path.write_text(dialogues(1) + "\n" + line)
    with pytest.raises(MaterialError, match=said):
        list(read_messages(path, "licensed", Counter()))
