"""`python -m bot privacy show|export|forget` and `history`: for the operator, with the bot running
or not.
"""

import asyncio
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest

from bot.cli import run as program
from bot.privacy.cli import run_forget
from bot.settings import Settings
from personas.home.external_files import EVERYBODY, record_export
from tests.bot.conftest import QUAY, on_stage
from tests.bot.traceable_person import (
    DISPLAY,
    GUILD,
    OTHERS_LINE,
    USERNAME,
    WHO,
    left_of_them,
    plant,
)
from tests.fakes import until


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("terminal") / "home"
    plant(home)
    return home


@pytest.fixture
def home(template, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    return shutil.copytree(template, tmp_path / "home")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def run(*words):
        monkeypatch.chdir(tmp_path)  # no .env of whoever runs this
        monkeypatch.setattr(sys, "argv", ["python -m bot", *map(str, words)])
        code = program.main()
        return code, *capsys.readouterr()

    return run


def test_show_says_to_the_operator_what_is_kept_and_shows_no_texts(home, run):
    code, out, _ = run("privacy", "show", "--user", WHO)
    assert code == 0 and "messages: 2, the oldest of" in out and "persona_adapters/oda/v2" in out
    assert "oda of the server" in out and "harbour.md" in out and "opted in on" in out
    assert "versions promoted (3)" in out
    assert not re.search(r"\byou\b|\byour\b|\bI\b|\*\*", out) and "heron" not in out
    code, out, _ = run("privacy", "show", "--user", WHO, "--json")
    about = json.loads(out)
    assert about["votes"] and about["lore_and_cards"][0]["text"].startswith("# The wharf")
    assert "models/persona_adapters/oda/v3" in about["in_training_material_of"]


def test_export_writes_a_file_that_only_its_owner_reads(home, run, tmp_path):
    code, out, _ = run(
        "privacy", "export", "--user", WHO, "--out", tmp_path / "them.json", "--json"
    )
    assert code == 0 and json.loads(out)["bytes"] == (tmp_path / "them.json").stat().st_size
    assert (tmp_path / "them.json").stat().st_mode & 0o77 == 0
    code, _, err = run("privacy", "export", "--user", WHO, "--out", tmp_path / "them.json")
    assert code == 1 and "cannot be written" in err


def test_forget_leaves_nothing_and_says_what_it_did(home, run):
    code, out, _ = run(
        "privacy", "forget", "--user", WHO, "--name", DISPLAY, "--name", USERNAME, "--yes"
    )
    assert code == 0 and left_of_them(home) == []
    assert "withdrawn: oda v3; v1 answers now" in out and "deleted: jobs/job3" in out
    assert re.search("deleted, .*redacted: talk/scan.bin", out)
    assert re.search(r"left before .*: /elsewhere/harbour\.jsonl \(data set", out)
    code, out, _ = run("privacy", "show", "--user", WHO)
    assert (
        out.count("Done: they are erased.") == out.count("withdrawn: oda v3") == 1
        and "  nothing\n" in out
    )
    assert not re.search(r"\byou\b|\byour\b|\?", out)


def test_a_backup_may_hold_somebody_who_was_never_seen_and_nothing_is_said_to_hold_them(home, run):
    record_export(home, "backup", "/elsewhere/all.zip", {EVERYBODY}, "1" * 64)
    code, out, _ = run("privacy", "forget", "--user", 734829104458293000, "--yes")
    assert code == 0 and "may contain them: /elsewhere/all.zip" in out and " holds them" not in out


def test_forget_asks_first(home, run, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert run("privacy", "forget", "--user", WHO)[0] == 1
    assert left_of_them(home)
    monkeypatch.setattr("builtins.input", lambda question: str(WHO))
    assert run("privacy", "forget", "--user", WHO)[0] == 0


async def test_while_a_bot_runs_it_is_the_bot_that_forgets(tmp_path):
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        await stage.member.say(QUAY, OTHERS_LINE)
        await stage.finished(QUAY, mark)
        arguments = SimpleNamespace(
            user=int(stage.member.id),
            name=["Tobias Reed"],
            yes=True,
            json=False,
            settings=Settings(home=tmp_path),
        )
        assert await asyncio.to_thread(run_forget, arguments, tmp_path) == 0
        assert stage.store.erasure.texts(int(stage.member.id)) == []
        await until(lambda: not stage.store.erasure_requests.unfinished())


def test_history_says_what_it_would_take(home, run, tmp_path):
    code, _, err = run(
        "history", "--guild", GUILD, "--persona", "oda", "--out", tmp_path / "log.jsonl"
    )
    assert code == 1 and "DISCORD_PERMISSION" in err and not (tmp_path / "log.jsonl").exists()


def test_history_of_who_opted_in_is_written_and_listed_as_left(home, run, tmp_path, monkeypatch):
    monkeypatch.setenv("DISCORD_PERMISSION", "By letter of Discord's platform team, 3 March 2026.")
    code, out, _ = run(
        "history", "--guild", GUILD, "--persona", "oda", "--out", tmp_path / "log.jsonl", "--json"
    )
    assert code == 0 and json.loads(out)["messages"] == 2
    code, out, _ = run("privacy", "forget", "--user", WHO, "--yes", "--json")
    assert str(tmp_path / "log.jsonl") in [one["path"] for one in json.loads(out)["exports"]]


def test_what_is_no_id_is_refused(home, run):
    for user in ("abc", "-4", "1.5", "0", "000", "43", "73482910445829", "٣", str(2**64)):
        with pytest.raises(SystemExit) as refused:
            run("privacy", "show", "--user", user)
        assert refused.value.code == 2, user


def test_a_home_without_a_database_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "nothing"))
    code, _, err = run("privacy", "forget", "--user", WHO, "--yes")
    assert code == 1 and "There is no database" in err and not (tmp_path / "nothing").exists()


def test_help_has_examples(run, capsys):
    for words in (["privacy", "--help"], ["history", "--help"], ["backup", "--help"], ["--help"]):
        with pytest.raises(SystemExit):
            run(*words)
        assert "python -m bot" in capsys.readouterr().out
