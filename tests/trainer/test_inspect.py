"""`python -m trainer dataset inspect`: its JSON, its table, its exit codes."""

import json
import re
import sys

import pytest

from tests.trainer.read_sources import jsonl
from trainer.cli.main import main

ROW = {
    "instruction": "What does the clock on the tower show at noon?",
    "output": "It shows twelve, as it should.",
}


def inspect(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["trainer", "dataset", "inspect", *map(str, arguments)])
    code = main()
    return code, *capsys.readouterr()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.json"
    rows = [ROW] * 150 + [{"instruction": "Why?", "output": ""}] * 120 + [{"chosen": "a"}]
    path.write_bytes(jsonl(rows))
    return path


def test_the_object_has_the_published_keys(file, monkeypatch, capsys):
    code, out, _ = inspect(monkeypatch, capsys, file, "--json")
    found = json.loads(out)
    assert code == 0
    keys = (
        "format rows conversations turns languages rejected_count rejected reasons examples report"
    )
    assert list(found) == keys.split()
    assert found["format"] == "wizardlm" and found["rows"] == 271
    assert (found["conversations"], found["turns"], found["rejected_count"]) == (150, 300, 121)
    assert found["languages"] == {"en": 150}
    assert len(found["rejected"]) == 100 and found["rejected"][0] == {
        "row": "line 151",
        "reason": "no answer",
    }
    assert found["reasons"]["no answer"] == 120 and sum(found["reasons"].values()) == 121
    assert len(found["examples"]) == 3
    assert found["examples"][0]["messages"][1] == {
        "speaker": "assistant",
        "persona": True,
        "text": ROW["output"],
    }


def test_the_table_says_the_same(file, monkeypatch, capsys):
    code, out, _ = inspect(monkeypatch, capsys, file)
    assert code == 0
    assert "rows.json: WizardLM (--format wizardlm)" in out
    assert re.search(r"120 +no answer .*line 151", out) and "* assistant  It shows twelve" in out


def test_a_file_with_nothing_usable_is_looked_into_all_the_same(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"instruction": "Why?", "output": ""}] * 3))
    code, out, _ = inspect(monkeypatch, capsys, path)
    assert code == 0 and 'Nothing in it can be used. Expected: {"instruction", "output"}.' in out


def test_what_is_not_recognised_is_an_error_that_names_what_is(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("Once upon a time.")
    code, out, err = inspect(monkeypatch, capsys, path, "--json")
    assert code == 1 and not out
    assert re.search(r"rows\.jsonl .*Found: text\.", err) and "alpaca: " in err
    (tmp_path / "empty").mkdir()
    code, _, err = inspect(monkeypatch, capsys, tmp_path / "empty")
    assert code == 1 and err.startswith("empty contains no files.") and "Name a file" in err


def test_columns_and_format_can_be_said(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"a": "It is noon now.", "b": "What is the time?"}] * 2))
    code, out, _ = inspect(monkeypatch, capsys, path, "--map", "user=b", "assistant=a")
    assert code == 0 and "user=b, assistant=a" in out
    assert "user       What is the time?" in out
    code, out, _ = inspect(monkeypatch, capsys, path, "--format", "alpaca", "--json")
    assert code == 0 and json.loads(out)["rejected_count"] == 2
    code, _, err = inspect(monkeypatch, capsys, path, "--format", "alpac")
    assert code == 1 and "Did you mean 'alpaca'?" in err
    with pytest.raises(SystemExit):
        inspect(monkeypatch, capsys, path, "--map", "user")


TABLE = "Cuando,Quien,Que\n" + "".join(
    f"2026-03-01 09:0{n}:00,{('Corvin', 'Tansy')[n % 2]},Rope number {n} is wet.\n"
    for n in range(8)
)


def test_an_unknown_table_is_shown_and_asked_about(tmp_path, monkeypatch, capsys):
    path = tmp_path / "talk.csv"
    path.write_text(TABLE)
    code, out, err = inspect(monkeypatch, capsys, path)
    assert code == 1 and not out
    assert "not guessed" in err
    assert "  Quien   2 names that recur  Corvin | Tansy\n" in err
    command = f"python -m trainer dataset inspect {path} --map speaker=Quien text=Que time=Cuando"
    assert f"\n  {command}\n" in err
    code, out, err = inspect(monkeypatch, capsys, path, "--json")
    question = json.loads(out)["question"]
    assert code == 1 and question["proposal"] == {
        "speaker": "Quien",
        "text": "Que",
        "time": "Cuando",
    }
    assert question["command"] == command and "Corvin" not in err, "a log may show it to others"


def test_what_is_typed_is_read_and_kept_for_later(tmp_path, monkeypatch, capsys):
    path = tmp_path / "talk.csv"
    path.write_text(TABLE)
    mapping = ("--map", "speaker=Quien", "text=Que", "time=Cuando")
    code, out, _ = inspect(monkeypatch, capsys, path, *mapping, "--as", "Tansy", "--keep-map")
    assert (
        code == 0
        and "  speakers      Corvin 4, Tansy 4\n" in out
        and "* Tansy   Rope number 1 is wet." in out
    )
    assert re.search(r"Taken as is: column Quien .*, column Que .*, column Cuando ", out)
    code, out, _ = inspect(monkeypatch, capsys, path, "--json")
    assert code == 0 and json.loads(out)["speakers"] == {"Corvin": 4, "Tansy": 4}
    assert (tmp_path / "columns.toml").read_text().splitlines()[2:] == [
        '["talk.csv"]',
        'map = ["speaker=Quien", "text=Que", "time=Cuando"]',
    ]
    code, _, err = inspect(monkeypatch, capsys, path, "--keep-map")
    assert code == 1 and "there is no --map" in err


def test_the_list_says_what_was_taken_and_what_was_not(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"Why {n}?", "chosen": "So.", "rejected": "No.", "rater": "x7"} for n in range(2)
    ]
    path.write_bytes(jsonl([*rows, rows[0] | {"chosen": ""}]))
    _, out, _ = inspect(monkeypatch, capsys, path, "--json")
    report = json.loads(out)["report"]
    assert {"what": "column prompt (questions)", "why": ""} in report["as_is"]
    (other,) = report["other_meaning"]
    assert "rejected" in other["why"] and "preference" in other["why"]
    assert report["not_taken"] == [
        {"what": "column rater", "why": "it has no role"},
        {"what": "1 records", "why": "the better answer is empty"},
    ]
