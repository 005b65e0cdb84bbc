"""PersonaChat in its four forms: the persona's facts, who answers whom, where a dialogue ends."""

import pytest
import yaml

from personas.errors import MaterialError
from tests.trainer.read_sources import everything, spoken
from trainer.sources.registry import detect_format

CONVAI2 = """\
1 your persona: i mend clocks.
2 your persona: i like tea.
3 partner's persona: i am a baker.
4 hi ! how are you ?\tfine , i was at my bench .\t\tno|fine , i was at my bench .
5 what do you mend ?\tclocks , mostly .
1 your persona: i keep bees.
2 __ SILENCE __\thello there
3 hello !\tdo you like honey ?
"""
SAID = [("user", "hi ! how are you ?"), ("assistant*", "fine , i was at my bench .")]
MORE = [*SAID, ("user", "what do you mend ?"), ("assistant*", "clocks , mostly .")]
BEES = [("assistant*", "hello there"), ("user", "hello !"), ("assistant*", "do you like honey ?")]


def read(tmp_path, text):
    path = tmp_path / "train_both"
    path.write_text(text)
    used, rejected = everything(path)
    return detect_format(path).name, used, rejected


def test_numbered_lines_are_dialogues(tmp_path):
    name, used, rejected = read(tmp_path, CONVAI2)
    assert name == "convai2" and not rejected
    assert [spoken(c) for c in used] == [MORE, BEES]
    assert [c.system for c in used] == ["i mend clocks.\ni like tea.", "i keep bees."]
    assert [c.rows for c in used] == [5, 3] and used[1].messages[0].row == "line 6"


def test_broken_numbered_lines_are_rejected(tmp_path):
    _, used, rejected = read(tmp_path, CONVAI2 + "\nbroken\n1 your persona: i am alone.\n")
    assert len(used) == 2
    assert [(r.row, r.reason, r.rows) for r in rejected] == [
        ("line 10", "a line without number", 1),
        ("line 11", "no text", 1),
    ]
    assert sum(item.rows for item in [*used, *rejected]) == 10


def test_lines_of_named_fields_are_acts(tmp_path):
    text = (
        "text:your persona: i mend clocks.\\nhi ! how are you ?\tlabels:fine , i was at my bench "
        ".\treward:0\n"
        "text:what do you mend ?\tlabels:clocks , mostly .|bells\tepisode_done:True\n"
        "nonsense\n"
        "text:hi\tlabels:hello\n"
    )
    name, used, rejected = read(tmp_path, text)
    assert name == "parlai-text"
    assert spoken(used[0]) == MORE and used[0].system == "i mend clocks." and used[0].rows == 2
    assert spoken(used[1]) == [("user", "hi"), ("assistant*", "hello")]
    assert [(r.row, r.reason) for r in rejected] == [("line 3", "no text: field")]


def act(text, *labels, done=False, key="labels"):
    return {
        "id": "convai2",
        "text": text,
        key: list(labels),
        "label_candidates": ["no", *labels],
        "episode_done": done,
    }


ACTS = [
    act(
        "your persona: i mend clocks.\nyour persona: i like tea.\nhi ! how are you ?",
        "fine , i was at my bench .",
    ),
    act("what do you mend ?", "clocks , mostly .", done=True, key="eval_labels"),
    act(
        "_task_speech\n_setting_name a quay\n_self_name keeper\n_self_persona I keep "
        "bees.\n_object_desc a hive",
        "hello",
    ),
    act("_self_say hello\n_partner_say hi\n_self_act wave\n_partner_act bow", "good day"),
]


@pytest.mark.parametrize("nested", [True, False])
def test_acts_in_yaml_are_dialogues(tmp_path, nested):
    acts = [[each] if nested else each for each in ACTS]
    text = yaml.safe_dump(
        {"acts": acts, "num_episodes": 131438, "num_examples": 7}, allow_unicode=True
    )
    name, used, rejected = read(tmp_path, text)
    assert name == "parlai" and not rejected
    assert spoken(used[0]) == MORE and used[0].system == "i mend clocks.\ni like tea."
    assert spoken(used[1]) == [
        ("assistant*", "hello"),
        ("user", "hi\n*bow*"),
        ("assistant*", "good day"),
    ]
    assert used[1].system == "a quay\nkeeper\nI keep bees.\na hive"
    assert [c.rows for c in used] == [2, 2]


def test_broken_acts_are_rejected_and_the_others_read(tmp_path):
    good = yaml.safe_dump({"acts": [[each] for each in ACTS[:2]]})
    _, used, rejected = read(tmp_path, good + "- - text: [unclosed\n- just text\n")
    assert spoken(used[0]) == MORE
    assert [r.row for r in rejected] == ["act 3", "act 4"] and "not valid YAML" in rejected[
        0
    ].reason


def test_yaml_of_another_kind_is_no_dialogue(tmp_path):
    (tmp_path / "x.yaml").write_text("acts:\n- 1\nname: Ada\n")
    with pytest.raises(MaterialError, match="Found: YAML"):
        detect_format(tmp_path / "x.yaml")


def test_the_csv_of_synthetic_persona_chat_has_cells_of_many_lines(tmp_path):
    cells = "user 1 personas,user 2 personas,Best Generated Conversation\r\n"
    cells += '"I bake.\r\nI run.","I mend clocks.\nI like tea.","User 1: Hi, how are you?\nUser 2: Fine, thanks.\n'
    cells += 'And ""you""?\nUser 1: Fine."\r\n"I bake.","I sing.","Nobody says a word."\r\n'
    name, used, rejected = read(tmp_path, cells)
    assert name == "synthetic-persona-chat"
    assert spoken(used[0]) == [
        ("user", "Hi, how are you?"),
        ("assistant*", 'Fine, thanks.\nAnd "you"?'),
        ("user", "Fine."),
    ]
    assert used[0].system == "I mend clocks.\nI like tea."
    assert [(r.row, r.reason) for r in rejected] == [("row 2", "no speaker labels")]
