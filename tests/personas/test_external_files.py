"""The lists of files outside the home: what has left it, and whom it holds."""

import hashlib

from personas.home.data_subjects import PEOPLE_FILE, write_people
from personas.home.external_files import (
    EVERYBODY,
    EXPORTS_FILE,
    find_exports_containing,
    read_exports,
    record_export,
)
from trainer.cli.error_handling import log_export
from trainer.process.environment import find_home

ADA = "a" * 32
BO = "b" * 32


def test_what_left_is_found_by_who_is_in_it(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("{}")
    record_export(tmp_path / "home", "data set", out, {ADA, BO})
    record_export(tmp_path / "home", "adapter", "/elsewhere/v2", {BO})
    record_export(tmp_path / "home", "backup", "/elsewhere/all.zip", {EVERYBODY}, "0" * 64)
    assert [one.path for one in find_exports_containing(tmp_path / "home", {ADA})] == [
        str(out),
        "/elsewhere/all.zip",
    ]
    assert read_exports(tmp_path / "home")[0].sha256 == hashlib.sha256(b"{}").hexdigest()
    assert (tmp_path / "home" / EXPORTS_FILE).stat().st_mode & 0o77 == 0


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path):
    record_export(tmp_path, "card", "oda.png", {ADA})
    with (tmp_path / EXPORTS_FILE).open("a") as file:
        file.write('{"at": 1, "what": "card", "pa\n')
    record_export(tmp_path, "card", "thrip.png", {ADA})
    assert [one.path for one in read_exports(tmp_path)] == ["oda.png", "thrip.png"]


def test_nothing_has_left_a_new_home(tmp_path):
    assert read_exports(tmp_path) == [] == find_exports_containing(tmp_path, {ADA})


def test_the_trainer_lists_what_holds_people_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    made = tmp_path / "set"
    out = tmp_path / "out.jsonl"
    made.mkdir()
    out.write_text("{}")
    log_export("data set", made, out)
    assert read_exports(find_home()) == []
    write_people(made, {ADA: 2})
    log_export("data set", made, out)
    (made / PEOPLE_FILE).write_text("damaged")
    log_export("adapter", made, tmp_path)
    assert [one.people for one in read_exports(find_home())] == [(ADA,), (EVERYBODY,)]
