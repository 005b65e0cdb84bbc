"""`python -m bot backup`: all that is needed is in one file, whole or not there, while the bot goes
on.
"""

import hashlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from bot.cli.parser import build_parser
from bot.operations.backup.archive import BackupError
from bot.operations.backup.create import copy_database, create_backup
from bot.operations.backup.restore import restore_backup
from bot.platform.db.schema import schema_version
from bot.settings import Settings
from bot.store import Store, StoreError
from personas.home.external_files import read_exports
from tests.bot.sample_home import DATABASE, KEPT, MADE_ANEW, STAYS, fill, put, quiet, rows, train
from tests.bot.test_store_failures import ENVIRON, enqueuing

NOW = 1_795_000_000.0


def put_back(made, home):
    """Restore without the replay, which has tests of its own."""
    restore_backup(
        made.path,
        home,
        now=NOW,
        keep_previous=False,
        replay=lambda home, store: None,
        start_progress=quiet,
    )
    return home


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_file_holds_what_is_needed_to_carry_on_and_says_of_each_what_it_is(home, out):
    made = create_backup(home, out, NOW, quiet)
    assert made.path == out / "understudy-20261118-110640.zip" and list(out.iterdir()) == [
        made.path
    ]
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    with zipfile.ZipFile(made.path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        members = {
            name: archive.read(name) for name in archive.namelist() if name != "manifest.json"
        }
    assert members.keys() == {*KEPT, DATABASE, "consent.json", "keys/people.key"}
    assert members.keys().isdisjoint({*MADE_ANEW, *STAYS})
    assert {name: members[name] for name in KEPT} == KEPT
    assert manifest["members"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in members.items()
    }
    assert (manifest["format"], manifest["schema_version"]) == (1, schema_version())
    assert manifest["made_at"] == "2026-11-18T11:06:40+00:00" and manifest["program"]


def test_tokens_of_replies_where_the_bot_is_not_are_left_out(home, out):
    with closing(sqlite3.connect(home / DATABASE)) as database, database:
        database.execute("insert into interaction_tokens values (1, 'a-token', 0, 1.0)")
    copy = out.parent / "copy.sqlite"
    copy_database(home, copy)
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("select count(*) from interaction_tokens").fetchone() == (0,)


def test_it_is_listed_among_what_has_left(home, out):
    made = create_backup(home, out, NOW, quiet)
    (listed,) = read_exports(home)
    assert (listed.what, listed.path, listed.people) == ("backup", str(made.path), ("*",))
    assert listed.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()


def test_a_bot_that_writes_is_neither_stopped_nor_cut_in_half(tmp_path, out):
    home = tmp_path / "home"
    with enqueuing(home) as bot:
        for number in range(3):
            before = {bot.stdout.readline().strip() for _ in range(20)}
            made = create_backup(home, out / f"{number}.zip", NOW, quiet)
            with Store.open(put_back(made, tmp_path / str(number)) / DATABASE) as store:
                jobs = store.jobs.in_state("queued")
            assert before <= {job.job_id for job in jobs}, "what was acknowledged before is in it"
            assert [job.seq for job in jobs] == list(range(1, len(jobs) + 1)), (
                "and nothing is missing in between"
            )
        assert bot.stdout.readline().strip() and bot.poll() is None


def test_a_bot_that_was_killed_left_its_last_words_where_a_backup_finds_them(tmp_path, out):
    with enqueuing(tmp_path / "home") as bot:
        acknowledged = {bot.stdout.readline().strip() for _ in range(30)}
        bot.kill()
        acknowledged |= set(bot.stdout.read().split())
    made = create_backup(tmp_path / "home", out, NOW, quiet)
    with Store.open(put_back(made, tmp_path / "new") / DATABASE) as store:
        assert acknowledged <= {job.job_id for job in store.jobs.in_state("queued")}


def test_an_adapter_that_the_database_does_not_know_yet_is_left_out(home, out):
    """Its job is in the backup as unfinished, and would find its place taken when it is run
    again.
    """
    with Store.open(home / DATABASE) as store:
        job = train(store, "j2", done=False)
    put(home, {f"models/persona_adapters/oda/{job.version}/manifest.json": b"{}"})
    names = create_backup(home, out, NOW, quiet).manifest.members.keys()
    assert "models/persona_adapters/oda/v1/manifest.json" in names
    assert not [name for name in names if f"/{job.version}/" in name]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("home/b.zip", "is inside the bot's home"),
        ("out/there.zip", "exists already"),
        ("no/b.zip", "There is no folder"),
    ],
)
def test_places_where_it_may_not_lie(home, out, tmp_path, place, says):
    (out / "there.zip").write_text("precious")
    with pytest.raises(BackupError, match=says):
        create_backup(home, tmp_path / place, NOW, quiet)
    assert (out / "there.zip").read_text() == "precious" and read_exports(home) == []


def test_a_home_without_a_database_is_none(tmp_path, out):
    with pytest.raises(StoreError, match="There is no database"):
        create_backup(tmp_path, out, NOW, quiet)


def test_a_damaged_database_is_said_and_not_backed_up(home, out):
    data = bytearray((home / DATABASE).read_bytes())
    data[4096:8192] = b"\xff" * 4096
    (home / DATABASE).write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        create_backup(home, out, NOW, quiet)
    assert list(out.iterdir()) == []


# ------------------------------------------------------------------------------- when it goes wrong

IN_A_PROCESS = """
import os, resource, sys
from contextlib import closing
from pathlib import Path
from bot.operations.backup.archive import BackupError
from bot.operations.backup.create import copy_database, create_backup
home, out, limit, kill_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
told = 0
def heard(more):
    global told
    told += 1
    if told == kill_after:
        os.kill(os.getpid(), 9)
try:
    create_backup(home, out, 1.0, lambda total: heard)
except BackupError as error:
    print(error)
"""


def run(home, out, limit=0, kill_after=0):
    return subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, str(home), str(out), str(limit), str(kill_after)],
        env=ENVIRON,
        capture_output=True,
        text=True,
    )


def test_a_killed_backup_leaves_nothing_under_its_name_and_the_next_one_clears_up(home, out):
    for kill_after in (1, 6):  # while the database is packed, and while the rest is
        assert run(home, out / "b.zip", kill_after=kill_after).returncode == -signal.SIGKILL
        assert not (out / "b.zip").exists()
        assert [oct(path.stat().st_mode)[-3:] for path in out.iterdir()] == ["700"]
    create_backup(home, out / "b.zip", NOW, quiet)
    assert list(out.iterdir()) == [out / "b.zip"] and len(read_exports(home)) == 1


def test_what_another_backup_is_still_writing_is_left_alone(home, out):
    inside = []

    def second(start_progress):
        if not inside:
            inside.append(create_backup(home, out / "second.zip", NOW, quiet))
        return quiet(start_progress)

    first = create_backup(home, out / "first.zip", NOW, second)
    assert {path.name for path in out.iterdir()} == {"first.zip", "second.zip"}
    assert first.manifest.members.items() >= inside[0].manifest.members.items()


@pytest.mark.parametrize(
    "limit", [40_000, 300_000]
)  # the copied database does not fit; the archive does not
def test_a_full_disk_is_one_clear_error_and_nothing_half(home, out, limit):
    put(home, {"models/persona_adapters/oda/v1/more.safetensors": os.urandom(400_000)})
    before = rows(home / DATABASE)
    done = run(home, out, limit=limit)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert f"cannot be written in {out}: " in done.stdout and "Free disk space" in done.stdout
    assert (
        list(out.iterdir()) == [] and read_exports(home) == [] and rows(home / DATABASE) == before
    )


# ---------------------------------------------------------------------------------- at the terminal


def command(*words):
    arguments = build_parser().parse_args([*map(str, words)])
    arguments.settings = Settings()
    return arguments


def test_at_the_terminal(home, out, capsys, tmp_path):
    arguments = command("backup", "--out", out, "--json")
    assert arguments.run(arguments, home) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["path"]).parent == out and made["members"].keys() >= KEPT.keys()
    arguments = command("restore", made["path"], "--home", tmp_path / "new", "--json")
    assert arguments.run(arguments, home) == 0
    restored = json.loads(capsys.readouterr().out)
    assert restored["home"] == str(tmp_path / "new") and restored["kept"] is None
    arguments = command("restore", made["path"], "--keep-previous")
    assert arguments.run(arguments, home) == 0
    result = capsys.readouterr()
    assert re.search(rf"WARNING: .* {re.escape(str(home))}\S+", result.out) and result.err == ""
