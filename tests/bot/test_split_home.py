"""`python -m bot` and `model_inference` over a home that is split among shards: what works, and
what says why not.
"""

import importlib.util
import json
import re
import shutil
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from bot.cli.ask import _stored_adapter
from bot.operations.doctor import connection_checks
from bot.operations.shards import ShardRange
from bot.operations.shards.shard_store import open_shard_store
from bot.store import HOME_DATABASE, Channel, Store, StoreError
from personas.schemas.chat import Persona
from tests.bot.command_line import typed
from tests.bot.traceable_person import DISPLAY, GUILD, USERNAME, WHO, left_of_them, plant

COUNT = 3
WITH_GUILD = (GUILD >> 22) % COUNT
PARTS = [ShardRange(0, 0, COUNT), ShardRange(1, 2, COUNT)]


def opened(home, part):
    store, mirror = open_shard_store(home, part, "")
    return SimpleNamespace(store=store, close=lambda: (mirror.leave(), store.close()))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The home of a bot that was split in two, with the traceable person's server in the second
    part.
    """
    home = tmp_path_factory.mktemp("split") / "home"
    plant(home)
    for part in PARTS:
        at = opened(home, part)
        if part.has(0):
            place = {"guild_id": 0, "channel_id": 5}
            at.store.messages.append(
                **place, author_id=WHO, author_name=USERNAME, text="xbelkor, in private", at=1.0
            )
        at.close()
    return home


@pytest.fixture
def home(template, tmp_path):
    return shutil.copytree(template, tmp_path / "home")


@pytest.fixture
def run(home, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words, **environment: typed(
        monkeypatch, capsys, home, *map(str, words), **environment
    )


def test_the_server_is_in_the_second_part():
    assert not PARTS[0].has(GUILD) and PARTS[1].has(GUILD)


class AwayDatabase:
    """A shared database that does not answer; something may happen meanwhile."""

    prefix = ""

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    def open(self):
        self.meanwhile()
        raise ConnectionError("connection refused")


@pytest.fixture
def planted_home(tmp_path):
    plant(home := tmp_path / "planted")
    return home


def test_a_home_stays_whole_when_its_first_processes_cannot_start(planted_home, monkeypatch):
    before = {path.name for path in planted_home.iterdir()}
    monkeypatch.setattr(
        "bot.operations.shards.shard_store.shared_database",
        lambda home, shared_db: AwayDatabase(),
    )
    for part in PARTS:
        with pytest.raises(StoreError, match="connection refused") as error:
            open_shard_store(planted_home, part, "postgresql://db")
        assert "Check SHARED_DB" in error.value.advice and "%40" in error.value.advice
    after = {path.name for path in planted_home.iterdir()}
    assert before <= after and not any(
        name.startswith("shards") and ".sqlite" in name for name in after
    )
    with closing(Store.open(planted_home / HOME_DATABASE)) as store:
        assert store.erasure.counts(WHO)["messages"] == 2


def test_a_process_that_cannot_start_keeps_its_part_once_the_original_is_gone(
    planted_home, monkeypatch
):
    opened(planted_home, PARTS[0]).close()
    assert (planted_home / HOME_DATABASE).exists(), "the other process has no part yet"

    def restart_other():
        monkeypatch.undo()
        opened(planted_home, PARTS[0]).close()
        assert not (planted_home / HOME_DATABASE).exists(), "both have their parts"

    away = AwayDatabase(restart_other)
    monkeypatch.setattr(
        "bot.operations.shards.shard_store.shared_database", lambda home, shared_db: away
    )
    with pytest.raises(StoreError):
        open_shard_store(planted_home, PARTS[1], "")
    at = opened(planted_home, PARTS[1])
    assert at.store.erasure.counts(WHO)["messages"] == 1
    at.close()


def test_show_and_export_cover_all_parts_once(home, run, tmp_path):
    code, out, err = run("privacy", "show", "--user", WHO)
    assert code == 0, err
    assert (
        "messages: 3, the oldest of 1970-01-01" in out
        and "harbour.md" in out
        and "versions promoted (3)" in out
    )
    assert run("privacy", "export", "--user", WHO, "--out", tmp_path / "them.json")[0] == 0
    about = json.loads((tmp_path / "them.json").read_text())
    assert {one["guild_id"] for one in about["messages"]} == {0, GUILD} and len(
        about["promotions"]
    ) == 3
    assert {one["guild_id"] for one in about["memories"]} == {0, GUILD} and len(
        about["memories"]
    ) == 2
    assert (
        about["lore_and_cards"][0]["text"].startswith("# The wharf") and USERNAME in about["names"]
    )


def test_forget_reaches_all_parts(home, run):
    names = ("--name", DISPLAY, "--name", USERNAME)
    code, out, err = run("privacy", "forget", "--user", WHO, *names, "--yes")
    assert code == 0 and "Done: they are erased." in out and "interrupted" not in out, err
    assert left_of_them(home) == []
    assert not any(b"xbelkor" in path.read_bytes() for path in home.glob("*.sqlite"))
    code, out, _ = run("privacy", "show", "--user", WHO)
    assert out.count("Done: they are erased.") == 1 and "  nothing\n" in out


def test_forget_beside_a_process_with_other_shards_says_what_to_start(home, run):
    running = opened(home, PARTS[1])
    try:
        code, _, err = run("privacy", "forget", "--user", WHO, "--yes")
        assert code == 1 and "1-2/3 runs on this home" in err and "SHARDS=0/3" in err
        assert running.store.erasure.counts(WHO)["messages"] == 1, "nothing has begun"
    finally:
        running.close()


def test_forget_without_the_data_of_some_shards_is_refused(home, run):
    PARTS[1].file(home).unlink()
    code, _, err = run("privacy", "forget", "--user", WHO, "--yes")
    assert code == 1 and "no data of the shards 1, 2" in err


def test_backup_and_restore_say_what_to_do_instead(home, run, tmp_path):
    code, _, err = run("backup", "--out", tmp_path)
    assert code == 1 and "split among shards (shards-0-0-of-3.sqlite" in err and "pg_dump" in err
    whole = tmp_path / "whole"
    plant(whole)
    assert run("backup", "--out", tmp_path / "whole.zip", UNDERSTUDY_HOME=str(whole))[0] == 0
    code, _, err = run("restore", tmp_path / "whole.zip")
    assert code == 1 and "split among shards" in err and "--home" in err
    assert not (home / "understudy.sqlite").exists()
    assert run("restore", tmp_path / "whole.zip", "--home", tmp_path / "new")[0] == 0


def checks(run, **environment):
    _, out, _ = run("doctor", "--quick", "--json", **environment)
    return {it["name"]: it for it in json.loads(out)["checks"]}


def test_the_doctor_checks_each_part_and_the_shards(home, run):
    assert "0/3, 1-2/3, but SHARDS is not set" in checks(run)["shards"]["found"]
    running = opened(home, PARTS[1])
    token = {"DISCORD_TOKEN": "MTIzNDU2Nzg5MDEyMzQ1Njc4.a.b"}
    try:
        found = checks(run, SHARDS="0/3", **token)
        assert re.search("2 parts, readable.* 1 of them", found["database"]["found"])
        assert (
            found["shards"]["found"] == "0/3 here, of 0/3, 1-2/3"
            and found["shards"]["state"] == "ok"
        )
        assert found["shared database"]["found"] == "reachable; 1 process runs"
    finally:
        running.close()
    assert checks(run, SHARDS="0-1/3", **token)["shards"]["state"] == "fail"
    PARTS[1].file(home).unlink()
    assert "shards 1, 2" in checks(run, SHARDS="0/3", **token)["shards"]["found"]
    PARTS[0].file(home).write_bytes(b"no database" * 1000)
    assert checks(run, SHARDS="0/3", **token)["database"]["state"] == "fail"


def test_the_doctor_reports_a_shared_database_that_cannot_be_used(home, run):
    token = {"DISCORD_TOKEN": "MTIzNDU2Nzg5MDEyMzQ1Njc4.a.b"}
    found = checks(run, SHARDS="0/3", SHARED_DB="postgresql://u:hidden@127.0.0.1:9/none", **token)[
        "shared database"
    ]
    assert found["state"] == "fail" and "hidden" not in str(found)
    is_installed = importlib.util.find_spec("psycopg") is not None
    assert ("check SHARED_DB" if is_installed else "pip install '.[shards]'") in found["remedy"]


def test_channels_of_all_parts_are_looked_at(home, monkeypatch):
    part = opened(home, PARTS[1])
    part.store.channels.assign(Channel(GUILD, 77, "oda", "mentions", 1, 1.0))
    part.close()
    guild = SimpleNamespace(id=GUILD, get_channel=lambda channel_id: channel_id)
    checked = []

    def find_missing(guild, channels):
        checked.extend(channels)
        return []

    monkeypatch.setattr(connection_checks.permissions, "find_missing_permissions", find_missing)
    client = SimpleNamespace(guilds=[guild])
    (check,) = connection_checks._check_permissions(client, SimpleNamespace(home=home))
    assert check.state == "ok" and 77 in checked


def test_questions_and_history_find_their_part(home, run, tmp_path):
    with closing(sqlite3.connect(PARTS[0].file(home))) as db:
        (live,) = db.execute(
            "select version from promotions where persona_id = 'oda' order by seq desc"
        ).fetchone()
    assert _stored_adapter(home, Persona("oda", "Oda"), None).version == live
    code, _, err = run("history", "--guild", GUILD, "--persona", "oda", "--out", tmp_path / "h.jsonl",
                         DISCORD_PERMISSION="Granted by Discord to the test in 2026")  # fmt: skip
    assert code == 0 and (tmp_path / "h.jsonl").stat().st_size, err
