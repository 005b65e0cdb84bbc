"""A database of an earlier format: migrated by steps, or refused untouched where no release made it."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from bot.operations.backup.create import create_backup
from bot.operations.doctor.local_checks import check_database
from bot.platform.db import schema
from bot.store import Store, StoreError
from tests.bot.sample_home import DATABASE, NOW, fill, put_back, quiet, texts

NEXT_STEP = """
create table tides (height real not null) strict;
insert into tides select at from messages limit 1;
"""


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


def version_of(home):
    with closing(sqlite3.connect(home / DATABASE)) as raw:
        return raw.execute("pragma user_version").fetchone()[0]


def tides_in(home):
    with Store.open(home / DATABASE) as store:
        return store._connection.column(float, "select height from tides")


def test_the_next_migration_runs_on_a_home_of_today(home, tmp_path, monkeypatch):
    """It runs for a new home and a restored backup, too."""
    assert version_of(home) == schema.FIRST_VERSION == 53
    backup = create_backup(home, tmp_path / "b.zip", NOW, quiet).path
    monkeypatch.setattr(schema, "MIGRATIONS", (NEXT_STEP,))
    with pytest.raises(StoreError, match=r"older schema\. Start the bot"):
        Store.read_only(home / DATABASE)
    assert tides_in(home) == [100.0] and version_of(home) == 54
    assert tides_in(home) == [100.0], "it runs once"
    assert texts(home) == ["the lanterns are lit", "the tide is late"]
    with Store.open(tmp_path / "new" / DATABASE) as store:
        assert store._connection.column(float, "select height from tides") == []
    put_back(backup, tmp_path / "restored")
    assert tides_in(tmp_path / "restored") == [100.0]


def test_a_migration_is_one_transaction_with_its_number(home, monkeypatch):
    """One that ends midway leaves nothing, and runs anew at the next start."""
    monkeypatch.setattr(schema, "MIGRATIONS", (f"{NEXT_STEP}; no statement",))
    with pytest.raises(StoreError):
        Store.open(home / DATABASE)
    assert version_of(home) == 53
    monkeypatch.setattr(schema, "MIGRATIONS", (NEXT_STEP,))
    assert tides_in(home) == [100.0] and version_of(home) == 54


def age(home, version, *, is_killed):
    """Give the home's database an earlier number, which is in its WAL alone after a kill."""
    with closing(sqlite3.connect(home / DATABASE)) as raw:
        raw.execute(f"pragma user_version = {version}")
        if is_killed:
            shutil.copytree(home, home.with_name("copy"))
    if is_killed:
        shutil.rmtree(home)
        home.with_name("copy").rename(home)


def every_byte(home):
    """What is in a home, without locks and SQLite's index of the WAL, which is computed again."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith("-shm")
    }


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_home_of_before_is_refused_by_name_and_left_alone(home, tmp_path, is_killed):
    version = 50
    backup = create_backup(home, tmp_path / "b.zip", NOW, quiet).path
    age(home, version, is_killed=is_killed)
    before = every_byte(home)
    assert (f"{DATABASE}-wal" in before) == is_killed
    for attempt in (
        lambda: Store.open(home / DATABASE),
        lambda: Store.read_only(home / DATABASE),
        lambda: create_backup(home, tmp_path / "of-before.zip", NOW, quiet),
        lambda: put_back(backup, home, keep=True),
    ):
        with pytest.raises(StoreError, match="before the first release") as refused:
            attempt()
        assert f"schema {version}," in refused.value.message
        assert refused.value.advice.startswith("Start with a new UNDERSTUDY_HOME, or keep using")
        assert every_byte(home) == before
    assert check_database(home).state == "fail" and every_byte(home) == before
    assert not (tmp_path / "of-before.zip").exists()


def test_a_home_that_was_split_among_processes_is_refused_by_name_and_left_alone(home, tmp_path):
    backup = create_backup(home, tmp_path / "b.zip", NOW, quiet).path
    (home / DATABASE).rename(home / "shards-0-4-of-10.sqlite")
    before = every_byte(home)
    for attempt in (
        lambda: Store.open(home / DATABASE),
        lambda: Store.read_only(home / DATABASE),
        lambda: put_back(backup, home, keep=True),
    ):
        with pytest.raises(StoreError, match="split among several processes") as refused:
            attempt()
        assert refused.value.advice.startswith("Start with a new UNDERSTUDY_HOME, or keep using")
        assert every_byte(home) == before
