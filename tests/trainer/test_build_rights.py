"""A data set of what came through Discord's API: refused, or built of what may be taken, and it
says so.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from personas.home.data_subjects import Consent, write_consent
from tests.trainer.job_folders import ADA, export, message, talks
from trainer.cli.main import main

MIRA = message("")["author"]["id"]
PERMISSION = "Discord's letter of 3 March 2026 permits it."


@pytest.fixture
def build(tmp_path, monkeypatch, capsys):
    """Builds, or plans, with Ada a bot in a server's export: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    lines = [
        line | {"author": line["author"] | {"isBot": line["author"]["name"] == "Ada"}}
        for line in talks(12)
    ]
    asked = message("Do you know Corvin Tarn?", "Corvin Tarn", 9000)
    answered = message("I know of him.", "Ada", 9001)
    bot = {"author": answered["author"] | {"isBot": True}}
    Path("tower.json").write_text(export([*lines, asked, answered | bot]), encoding="utf-8")
    Path("ada.toml").write_text(ADA, encoding="utf-8")

    def run(*words):
        monkeypatch.setattr(
            sys, "argv", ["trainer", *words, "--persona", "ada.toml", "--source", "tower.json"]
        )
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def allow(*people, permission=PERMISSION):
    """What the bot has written into the home."""
    write_consent(
        Path(os.environ["UNDERSTUDY_HOME"]),
        Consent(permission=permission, opted_in=frozenset(people)),
    )


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "words", [("dataset", "build", "--out", "out", "--right", "own-writing"), ("plan",)]
)
def test_without_permission_nothing_is_built_or_planned_and_nothing_is_left(build, words):
    code, output, errors = build(*words)
    assert (
        code == 1 and not output and "DISCORD_PERMISSION" in errors and "/privacy opt-in" in errors
    )
    assert not Path("out").exists()


def test_with_it_only_what_may_be_taken_is_and_the_sheet_says_by_whose_leave(build):
    allow(MIRA)
    code, output, _ = build("dataset", "build", "--out", "out", "--json")
    result = json.loads(output)
    assert code == 0 and result["rows"] == 26 == result["rows_used"] + sum(
        result["dropped"].values()
    )
    assert result["dropped"] == {
        "said by somebody who has not opted in": 1,
        "answers somebody who has not opted in": 1,
    }
    assert {line["right"] for line in [*lines("out/train.jsonl"), *lines("out/eval.jsonl")]} == {
        "discord-api"
    }
    assert all(
        "Tarn" not in file.read_text()
        for file in Path("out").iterdir()
        if file.suffix in (".jsonl", ".json")
    )
    sheet = Path("out/README.md").read_text()
    assert "| discord-api | 12 |" in sheet and PERMISSION in sheet


def test_what_was_built_so_is_still_discords_when_it_is_read_again(build, monkeypatch, capsys):
    allow(MIRA)
    build("dataset", "build", "--out", "out")
    words = [
        "dataset",
        "build",
        "--source",
        "out/train.jsonl",
        "--right",
        "own-writing",
        "--out",
        "again",
    ]
    monkeypatch.setattr(sys, "argv", ["trainer", *words])
    assert (
        main() == 1
        and "nobody has opted in" in capsys.readouterr().err
        and not Path("again").exists()
    )


@pytest.mark.parametrize(("target", "people"), [("openai", ()), ("alpaca", (MIRA,))])
def test_what_was_exported_of_it_is_discords_too(build, monkeypatch, capsys, target, people):
    allow(MIRA)
    build("dataset", "build", "--out", "out")
    monkeypatch.setattr(
        sys, "argv", ["trainer", "dataset", "export", "out", "--to", target, "--out", "x.jsonl"]
    )
    assert main() == 0 and "Discord's API" in capsys.readouterr().err
    allow(*people)
    words = ["dataset", "build", "--source", "x.jsonl", "--right", "own-writing", "--out", "again"]
    monkeypatch.setattr(sys, "argv", ["trainer", *words])
    assert (
        main() == 1
        and "nobody has opted in" in capsys.readouterr().err
        and not Path("again").exists()
    )


@pytest.mark.parametrize(("people", "permission"), [((), PERMISSION), ((MIRA,), "")])
def test_a_plan_over_what_was_built_asks_again(build, monkeypatch, capsys, people, permission):
    allow(MIRA)
    build("dataset", "build", "--out", "out")
    monkeypatch.setattr(sys, "argv", ["trainer", "plan", "--dataset", "out", "--json"])
    assert main() == 0 and json.loads(capsys.readouterr().out)["samples"]
    allow(*people, permission=permission)
    assert main() == 1 and "/privacy opt-in" in capsys.readouterr().err


def test_to_look_at_it_takes_no_right(build, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trainer", "dataset", "inspect", "tower.json", "--json"])
    assert main() == 0 and json.loads(capsys.readouterr().out)["conversations"] == 13
