"""Tables of chats in forty forms: each is recognised rightly or asked about, never read with
another column as text.
"""

import json
import sys

import pytest

from personas.schemas.chat import Persona
from tests.trainer.chat_tables import SAID, TALK, chat_tables
from tests.trainer.conversations import sentence
from tests.trainer.job_folders import sign
from tests.trainer.read_sources import everything
from trainer.cli.main import main
from trainer.sources.column_question import UnclearColumnsError
from trainer.sources.registry import describe_content
from trainer.sources.source_format import ReadOptions

TABLES = {table.name: table for table in chat_tables()}
TANSY = Persona("tansy", "Tansy")
KNOWN_LANGUAGES = ("en", "de", "fr", "ko")


def learned(conversations):
    """All that the persona says, line by line."""
    lines = [m.text for c in conversations for m in c.messages if m.speaker.is_persona]
    return [line for text in lines for line in text.split("\n")]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_rightly_or_asked_about(tmp_path, name):
    table = TABLES[name]
    path = tmp_path / name
    path.write_text(table.content, encoding="utf-8")
    said = list(SAID) if name != "short.csv" else ["no", "hm", "ok"]
    language, _, form = name.partition("-")
    try:
        used, rejected = everything(path, persona=TANSY)
        is_asked = False
    except UnclearColumnsError as error:
        is_asked = True
        assert all(cell not in str(error) for pair in TALK for cell in pair), "members may see it"
        proposal = dict(error.question.proposal)
        assert {role: proposal.get(role) for role in ("speaker", "text")} == {
            role: table.mapping[role] for role in ("speaker", "text")
        }
        used, rejected = everything(path, persona=TANSY, mapping=table.mapping)
    assert learned(used) == said and not [item for item in rejected if item.reason != "no text"]
    if form in ("0.csv", "1.csv", "2.csv"):
        assert is_asked is (language not in KNOWN_LANGUAGES)
    if "headerless" in form:
        assert is_asked, "content alone does not say who speaks"


def test_the_same_talk_is_somebody_elses_under_another_name(tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text(TABLES["de-0.csv"].content, encoding="utf-8")
    used, _ = everything(path, persona_names=("Corvin",))
    assert learned(used) == [text for name, text in TALK if name == "Corvin"]
    assert {m.at > 0 for c in used for m in c.messages} == {True}


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["trainer", "dataset", *map(str, words)])
    code = main()
    return code, *capsys.readouterr()


def test_a_build_learns_the_named_speakers_lines_alone_and_knows_the_mapping_later(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada.toml").write_text(
        'id = "ada"\nname = "Ada"\ndescription = "You are Ada, who keeps a ferry."\n'
    )
    times = [f"2026-03-{n // 40 + 1:02} {n // 2 % 20:02}:0{n % 2}:00" for n in range(60)]
    lines = [
        (time, ("Corvin", "Tansy")[n % 2], f"{sentence(n, 9)}, {n} ropes.")
        for n, time in enumerate(times)
    ]
    table = "kwando,nani,neno\n" + "".join(
        f'{time},{name},"{text}"\n' for time, name, text in lines
    )
    (tmp_path / "talk.csv").write_text(table)
    sign(tmp_path / "talk.csv")
    build = ("build", "--persona", "ada.toml", "--as", "Tansy", "--source", "talk.csv")
    code, _, err = run(monkeypatch, capsys, *build, "--out", "set")
    assert code == 1 and "--map: speaker=nani text=neno time=kwando" in err
    assert not (tmp_path / "set").exists()
    mapping = ("--map", "speaker=nani", "text=neno", "time=kwando")
    assert run(monkeypatch, capsys, "inspect", "talk.csv", *mapping, "--keep-map")[0] == 0
    code, out, err = run(monkeypatch, capsys, *build, "--out", "set", "--json")
    assert code == 0, err
    sides = [
        (tmp_path / "set" / f"{side}.jsonl").read_text().splitlines() for side in ("train", "eval")
    ]
    replies = [json.loads(line)["messages"][-1]["content"] for side in sides for line in side]
    assert {int(reply.split()[-2]) for reply in replies} == set(range(1, 60, 2)), (
        "every second line is Tansy's"
    )
    assert json.loads(out)["rows_used"] == 60


ROLE_TALK = [
    ("user", "Is the ferry here?"),
    ("assistant", "It never left."),
    ("user", "Who rows?"),
    ("assistant", "I."),
]


@pytest.mark.parametrize(
    ("speaker", "order", "has_thread"),
    [("role", 1, True), ("role", -1, False), ("is_bot", -1, True)],
)
def test_talk_between_roles_goes_by_its_times(tmp_path, speaker, order, has_thread):
    """Two conversations with two sessions each, an hour apart; the last two lines of a session are
    of one minute.
    """
    rows = []
    for number, (at, thread) in enumerate([("09", "a"), ("11", "a"), ("13", "b"), ("15", "b")]):
        for minute, (role, text) in zip((0, 1, 2, 2), ROLE_TALK, strict=True):
            label = role if speaker == "role" else str(role == "assistant")
            ids = [thread] if has_thread else []
            rows.append(
                ",".join([f"2026-03-01 {at}:0{minute}:00", label, f"{text} {number}", *ids])
            )
    head = f"created_at,{speaker},content" + ",thread_id" * has_thread
    (tmp_path / "talk.csv").write_text("\n".join([head, *rows[::order]]) + "\n")
    used, rejected = everything(tmp_path / "talk.csv")
    assert not rejected and sum(c.rows for c in used) == 16
    talks = sorted([(m.speaker.id, m.text) for m in c.messages] for c in used)
    assert talks == sorted(
        [(role, f"{text} {number}") for role, text in ROLE_TALK] for number in range(4)
    )


def test_a_system_text_holds_for_all_sessions_and_a_row_without_a_time_is_named(tmp_path):
    rows = [
        "2026-03-01 08:00,system,Be kind.",
        "2026-03-01 09:00,user,Hi.",
        "2026-03-01 09:01,assistant,Hm.",
    ]
    rows += ["2026-03-02 09:00,user,Back?", "2026-03-02 09:01,assistant,Yes.", "soon,user,And now?"]
    (tmp_path / "talk.csv").write_text("time,role,content\n" + "\n".join(rows) + "\n")
    mapping = {"time": "time", "speaker": "role", "text": "content"}
    used, rejected = everything(tmp_path / "talk.csv", format="columns", mapping=mapping)
    assert [(c.system, c.rows, len(c.messages)) for c in used] == [
        ("Be kind.", 3, 2),
        ("Be kind.", 2, 2),
    ]
    (item,) = rejected
    assert item.reason.startswith("time: 'soon' ")


@pytest.mark.parametrize("speaker", ["speaker", "role"])
@pytest.mark.parametrize(
    "column", ["conversation_id", "dialogue_id", "scene", "thread", "room", "channel"]
)
def test_a_column_of_conversations_divides_lines_without_times(tmp_path, column, speaker):
    names = ("Mira", "Oda") if speaker == "speaker" else ("user", "assistant")
    talk = [(names[n % 2], text) for n, (_, text) in enumerate(ROLE_TALK)]
    rows = [f"{number},{name},{text} {number},note" for number in range(4) for name, text in talk]
    (tmp_path / "talk.csv").write_text(
        "\n".join([f"{column},{speaker},text,comment", *rows]) + "\n"
    )
    used, rejected = everything(tmp_path / "talk.csv")
    assert not rejected and [c.rows for c in used] == [4] * 4
    columns = describe_content(tmp_path / "talk.csv", ReadOptions()).columns
    assert columns.used["conversation"] == column and columns.unused == ("comment",)


@pytest.mark.parametrize("speaker", ["speaker", "role"])
def test_lines_of_mingled_conversations_go_by_their_numbers(tmp_path, speaker):
    rows = []
    for turn, (role, text) in enumerate(ROLE_TALK):
        name = ("Mira", "Oda")[turn % 2] if speaker == "speaker" else role
        rows += [f"{number},{turn},{name},{text} {number}" for number in range(4)]
    (tmp_path / "talk.csv").write_text(
        "\n".join([f"conversation_id,turn,{speaker},text", *rows[::-1]]) + "\n"
    )
    used, rejected = everything(tmp_path / "talk.csv")
    told = [[m.text for m in c.messages] for c in used]
    assert not rejected and told == [
        [f"{text} {number}" for _, text in ROLE_TALK] for number in (3, 2, 1, 0)
    ]
