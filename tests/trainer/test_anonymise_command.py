"""`python -m trainer anonymise`: rows with their entities, talk as a log, a report, and a list that
goes in time.
"""

import csv
import errno
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.cli import main as trainer
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_source
from trainer.sources.registry import detect_format
from trainer.sources.source_format import ReadOptions

ROWS = [
    {"id": 7, "text": "我的邮箱是a.b@c.com谢谢"},
    {"id": 8, "text": "Quillon rang 212-555-0147 about the 🦀", "by": "quill@reef.example"},
    {"id": 9, "words": "none"},
]
LOG = [("Mira Wet", "42", "hello, I am at mira@reef.example"), ("Bo", "43", "hi mira")]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("UNDERSTUDY_HOME", str(place))
    return place


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command over a file in the folder; gives its exit code."""

    def runs(source: str, *words: str, out: str = "out.jsonl") -> int:
        named = ["--in", source, "--out", out, "--report", "report.json", *words]
        monkeypatch.setattr(sys, "argv", ["trainer", "anonymise", *named])
        return trainer.main()

    monkeypatch.chdir(tmp_path)
    return runs


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def log_of(path: Path) -> Path:
    lines = [
        {
            "channel": "quay",
            "id": str(n),
            "at": 1000 + n,
            "author": name,
            "author_id": id,
            "text": text,
        }
        for n, (name, id, text) in enumerate(LOG)
    ]
    return written(path, lines)


def lines(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def rebuilt(original: str, row: dict[str, object]) -> str:
    text = ""
    end = 0
    for entity in row["entities"]:
        text += original[end : entity["start"]] + entity["replacement"]
        end = entity["end"]
    return text + original[end:]


def test_rows_come_back_with_entities_into_the_original(run, tmp_path):
    written(tmp_path / "rows.jsonl", ROWS)
    assert run("rows.jsonl", "--also", "Quillon") == 0
    rows = lines("out.jsonl")
    assert [row["id"] for row in rows] == [7, 8]
    assert [row["text"] for row in rows] == [
        rebuilt(before["text"], row) for before, row in zip(ROWS, rows, strict=False)
    ]
    assert [row["name_search"] for row in rows] == [
        {"Han": "rules", "Latin": "rules"},
        {"Latin": "model"},
    ]
    kinds = [[entity["kind"] for entity in row["entities"]] for row in rows]
    assert kinds == [["EMAIL_ADDRESS"], ["PERSON", "PHONE_NUMBER"]]
    assert "reef" not in rows[1]["by"], "what stands beside the text is replaced, too"
    report = json.loads(Path("report.json").read_text())
    assert (
        report["texts"] == 2
        and report["rejected"] == {"no text": 1}
        and report["name_search"] == {"Latin": {"model": 2, "rules": 1}, "Han": {"rules": 1}}
    )
    assert report["replaced"] == {"EMAIL_ADDRESS": 2, "PERSON": 1, "PHONE_NUMBER": 1}
    assert report["names_found_by"] and report["texts_per_s"] > 0 and report["seconds"] >= 0


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_rows_are_written_as_the_files_name_says(run, tmp_path, suffix):
    written(tmp_path / "rows.jsonl", ROWS[:2])
    assert run("rows.jsonl", out=f"out{suffix}") == 0
    with Path(f"out{suffix}").open(encoding="utf-8") as out:
        rows = json.load(out) if suffix == ".json" else list(csv.DictReader(out))
    assert len(rows) == 2 and "a.b@c.com" not in rows[0]["text"]
    entities = rows[0]["entities"] if suffix == ".json" else json.loads(rows[0]["entities"])
    assert entities[0]["start"] == 5


@pytest.mark.parametrize("form", ["one", "array", "csv"])
def test_rows_are_read_from_json_and_csv(run, tmp_path, form):
    text = ROWS[0]["text"]
    held = {
        "one": json.dumps({"text": text}),
        "array": json.dumps([{"text": text}]),
        "csv": f"id,text\n7,{text}\n",
    }
    (tmp_path / "rows").write_text(held[form], encoding="utf-8")
    assert run("rows") == 0
    assert lines("out.jsonl")[0]["entities"][0]["kind"] == "EMAIL_ADDRESS"


def test_talk_comes_back_as_a_log_that_can_be_read(run, tmp_path):
    log_of(tmp_path / "talk.jsonl")
    assert run("talk.jsonl") == 0
    (talk,) = [
        item
        for item in read_source(Path("out.jsonl"), ReadOptions())
        if isinstance(item, Conversation)
    ]
    mira, bo = talk.messages
    assert bo.text == f"hi {mira.speaker.name}" and mira.speaker.name != "Mira Wet"
    assert "42" not in {mira.speaker.id, bo.speaker.id} and "reef" not in mira.text


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}], ids=str)
def test_what_rows_say_beside_their_texts_is_kept_or_listed(run, tmp_path, capsys, flag):
    thought = "<think>\nThe ferry is late.\n</think>\n\nSoon."
    turns = [
        {"role": "system", "content": "Mail a.b@quay.example."},
        {"role": "user", "content": "When does it go?"},
        {"role": "assistant", "content": thought, **flag},
        {"role": "system", "content": "The quay burns."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "<reflection>\nOh.\n</reflection>\nNever."},
    ]
    written(tmp_path / "talk.jsonl", [{"messages": turns, "mood": "calm", "right": "discord-api"}])
    assert run("talk.jsonl") == 0
    (talk,) = [
        item
        for item in read_source(Path("out.jsonl"), ReadOptions())
        if isinstance(item, Conversation)
    ]
    assert "quay.example" not in talk.system and talk.system.startswith("Mail ")
    assert talk.later_systems == ((2, "The quay burns."),) and talk.right == "discord-api"
    assert [(one.speaker.id, one.is_trained) for one in talk.messages] == [
        ("user", True), ("assistant", False), ("user", True), ("assistant", True)
    ]  # fmt: skip
    assert [talk.messages[1].text, talk.messages[3].text] == [thought, turns[5]["content"]]
    assert "Not taken: column mood" in capsys.readouterr().err
    assert json.loads(Path("report.json").read_text())["not_kept"] == [
        {"what": "column mood", "why": "it has no role"}
    ]


def test_rejected_answers_that_are_lost_are_counted(run, tmp_path, capsys):
    written(
        tmp_path / "pairs.jsonl", [{"prompt": "hi", "chosen": "come in", "rejected": "go away"}] * 2
    )
    assert run("pairs.jsonl") == 0
    assert "2 rejected answers" in capsys.readouterr().err


def test_pseudonyms_are_the_same_again_and_others_for_another_file(run, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        log_of(tmp_path / name)
    outs = []
    for source in ("a.jsonl", "a.jsonl", "b.jsonl"):
        assert run(source) == 0
        outs.append(Path("out.jsonl").read_text())
    assert outs[0] == outs[1] != outs[2]


def test_a_persona_keeps_its_name_and_names_can_be_corrected(run, tmp_path):
    log_of(tmp_path / "talk.jsonl")
    (tmp_path / "corrections").write_text("keep Mira\n\nalso seabright\n", encoding="utf-8")
    rows = [{"text": "Mira met seabright, not Tallow"}]
    written(tmp_path / "rows.jsonl", rows)
    assert run("rows.jsonl", "--corrections", "corrections", "--also", "Tallow") == 0
    (row,) = lines("out.jsonl")
    assert (
        row["text"].startswith("Mira met ")
        and "seabright" not in row["text"]
        and "Tallow" not in row["text"]
    )
    assert run("talk.jsonl", "--persona", "ballast", "--as", "Bo") == 0
    assert [line["author"] for line in lines("out.jsonl")][1] == "Ballast"


def test_a_correction_that_is_none_is_refused(run, tmp_path, capsys):
    written(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "corrections").write_text("kep Mira\n")
    assert run("rows.jsonl", "--corrections", "corrections") == 1
    assert re.search("line 1: 'kep Mira' .*`keep NAME`", capsys.readouterr().err)


def test_the_list_to_check_is_for_its_owner_and_goes_in_time(run, tmp_path, monkeypatch):
    written(tmp_path / "rows.jsonl", ROWS)
    assert run("rows.jsonl", "--review", "--review-days", "3") == 0
    review = tmp_path / "report.review.jsonl"
    assert stat.S_IMODE(review.stat().st_mode) == 0o600
    head, mail, *_ = lines(str(review))
    assert "T" in head["delete_on"] and mail["original"] == "a.b@c.com" and mail["row"] == "line 1"
    assert (
        "我的邮箱是a.b@c.com谢谢" in mail["context"]
        and mail["kind"] == "EMAIL_ADDRESS"
        and mail["replacement"]
    )
    assert json.loads(Path("report.json").read_text())["review_deleted_on"] == head["delete_on"]
    now = time.time()
    for days, is_there in ((2.9, True), (3.1, False)):
        monkeypatch.setattr(time, "time", lambda days=days: now + days * 86_400)
        assert run("rows.jsonl") == 0 and review.exists() == is_there


def test_the_list_to_check_has_the_texts_in_which_no_names_were_looked_for(run, tmp_path):
    written(tmp_path / "rows.jsonl", [{"text": "الشاي جاهز"}, {"text": "hello there"}])
    assert run("rows.jsonl", "--review") == 0
    _, *listed = lines(str(tmp_path / "report.review.jsonl"))
    assert listed == [
        {
            "row": "line 1",
            "kind": "NOT_SEARCHED",
            "original": "Arabic",
            "replacement": "",
            "context": "الشاي جاهز",
        }
    ]


def test_a_list_that_is_written_anew_is_readable_by_nobody_else(run, tmp_path):
    written(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "report.review.jsonl").write_text("old")
    (tmp_path / "report.review.jsonl").chmod(0o644)
    assert run("rows.jsonl", "--review") == 0
    assert stat.S_IMODE((tmp_path / "report.review.jsonl").stat().st_mode) == 0o600


def test_what_fails_leaves_an_earlier_result_as_it_was(run, tmp_path, capsys):
    written(tmp_path / "rows.jsonl", [{"text": 1}])
    (tmp_path / "out.jsonl").write_text("earlier")
    assert run("rows.jsonl") == 1
    assert (
        tmp_path / "out.jsonl"
    ).read_text() == "earlier" and "rows.jsonl" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "out.jsonl",
        "rows.jsonl",
    ]


@pytest.mark.parametrize("out", ["rows.jsonl", "report.json"])
def test_no_file_is_named_twice(run, tmp_path, capsys, out):
    written(tmp_path / "rows.jsonl", ROWS)
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert run("rows.jsonl", out=out) == 1
    assert (tmp_path / "rows.jsonl").read_bytes() == before and "twice" in capsys.readouterr().err


def test_a_full_disk_is_named_with_the_file_that_was_being_written(
    run, tmp_path, monkeypatch, capsys
):
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written(tmp_path / "rows.jsonl", ROWS)
    assert run("rows.jsonl") == 0
    monkeypatch.setattr(os, "fsync", full)
    assert run("rows.jsonl") == 1
    result = capsys.readouterr().err
    assert "out.jsonl: the disk is full. Free some" in result and "None" not in result


def test_what_is_written_aside_is_its_owners_and_what_killed_ones_left_goes(
    run, tmp_path, monkeypatch
):
    gone = subprocess.Popen(["true"])
    gone.wait()
    parts = [tmp_path / f".out.jsonl.{process}" for process in (gone.pid, os.getppid(), "keep")]
    for part in parts:
        part.write_text("half of it")
    written(tmp_path / "rows.jsonl", ROWS)
    modes = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (modes.append(os.fstat(handle).st_mode), fsync(handle))
    )
    assert run("rows.jsonl") == 0
    assert [part.exists() for part in parts] == [False, True, True], (
        "another's that runs, and what is no part, stay"
    )
    assert {stat.S_IMODE(mode) for mode in modes if stat.S_ISREG(mode)} == {0o600}
    assert not (tmp_path / f".out.jsonl.{os.getpid()}").exists()


def test_odd_rows_are_rejected_one_by_one_and_the_rest_is_done(run, tmp_path):
    odd = [
        '{"text": "a@b.example"}',
        '{"text": null}',
        '{"text": 5}',
        "[1]",
        "no",
        '{"text": "c@d.example"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(odd))
    assert run("rows.jsonl") == 0
    assert [row["entities"][0]["kind"] for row in lines("out.jsonl")] == ["EMAIL_ADDRESS"] * 2
    assert sum(json.loads(Path("report.json").read_text())["rejected"].values()) == 4


def test_what_is_in_no_known_format_is_reported_of_rows_with_a_text(run, tmp_path, capsys):
    written(tmp_path / "rows.jsonl", [{"foo": 1}])
    assert run("rows.jsonl") == 1
    assert 'rows with a "text"' in capsys.readouterr().err


def test_a_log_of_one_line_is_one(run, tmp_path):
    log_of(tmp_path / "talk.jsonl")
    (tmp_path / "one.jsonl").write_text((tmp_path / "talk.jsonl").read_text().splitlines()[0])
    assert run("one.jsonl") == 0 and lines("out.jsonl")[0]["author"] not in ("Mira Wet", "")
    assert detect_format(Path("out.jsonl")).name == "own-log"
