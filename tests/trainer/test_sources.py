"""Sources: what is read, what is dropped, and what is said about files that cannot be read."""

import json
from collections import Counter

import pytest

from personas.errors import MaterialError
from tests.trainer.jobs import dialogues
from trainer.sources.messages import read_messages


def spoken(conversation):
    return [(m.speaker.name, m.text) for m in conversation.messages]


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
