"""What the store promises when things go wrong: kills, a second bot, damaged files, a full disk, a
folder not ours.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot.platform.db.schema import schema_version
from bot.store import Store, StoreError
from bot.training.store import NewTrainingJob
from personas.home.data_subjects import CONSENT_FILE
from personas.schemas.training import TrainingRequest

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}

ENQUEUE = """
import sys, resource
from pathlib import Path
from bot.platform.clock import SystemClock
from bot.training.queue import JobQueue
from bot.store import Store, StoreError
from personas.home.data_subjects import CONSENT_FILE
from personas.schemas.training import TrainingRequest
from tests.fakes import FakeTrainingBackend

home, room = Path(sys.argv[1]), int(sys.argv[2])
store = Store.open(home / "understudy.sqlite")
queue = JobQueue(store, FakeTrainingBackend(), SystemClock())
if room:
    limit = room + max(path.stat().st_size for path in home.glob("understudy.sqlite*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
for guild in range(10_000):
    try:
        request = TrainingRequest(job_name="x", persona="oda")
        print(queue.enqueue(request, guild_id=guild, channel_id=2, requested_by=3).job_id, flush=True)
    except StoreError as error:
        print("refused", error, flush=True)
        break
"""


def path_in(folder):
    return folder / "understudy.sqlite"


def add_job(store, job_id):
    return store.jobs.add(
        NewTrainingJob(job_id, 1, 2, 3, TrainingRequest(job_name="x", persona="oda")), 1.0
    )


@contextmanager
def enqueuing(home, room=0):
    """A process that enqueues as fast as it can; what it prints has been acknowledged. Killed in
    the end. With `room`, no file can get larger than the database's largest and so many bytes.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", ENQUEUE, str(home), str(room)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRON,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    acknowledged = set()
    for _ in range(2):
        with enqueuing(tmp_path) as process:
            time.sleep(random.uniform(0.02, 0.3))
            process.kill()
            acknowledged |= set(process.stdout.read().split())
        with Store.open(path_in(tmp_path)) as store:
            jobs = store.jobs.in_state("queued")
        assert acknowledged <= {job.job_id for job in jobs}
        assert len({job.version for job in jobs}) == len(jobs)
        assert all(job.request.persona == "oda" for job in jobs)
    assert acknowledged


def test_a_full_disk_loses_nothing_and_says_so(tmp_path):
    with enqueuing(tmp_path, room=500_000) as process:
        *acknowledged, refusal = process.stdout.read().splitlines()
    assert refusal.startswith("refused The database") and "stored before is safe" in refusal
    assert len(acknowledged) > 3
    with Store.open(path_in(tmp_path)) as store:
        assert [job.job_id for job in store.jobs.in_state("queued")] == acknowledged
        add_job(store, "after")


def test_a_second_bot_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    with enqueuing(tmp_path) as process:
        with pytest.raises(StoreError, match="Another bot runs on this home"):
            Store.open(path_in(tmp_path))
        with Store.read_only(path_in(tmp_path)) as reader:
            reader.jobs.in_state("queued")
        process.kill()
        process.wait()
        Store.open(path_in(tmp_path)).close()


def test_another_program_that_locks_the_file_is_blamed(tmp_path, monkeypatch):
    monkeypatch.setattr("bot.platform.db.database.BUSY_TIMEOUT_S", 0.05)
    with Store.open(path_in(tmp_path)) as store:
        other = sqlite3.connect(path_in(tmp_path))
        other.execute("begin immediate")
        with pytest.raises(StoreError, match=r"locked\. Another program"):
            add_job(store, "refused")
        other.close()
        assert add_job(store, "taken").version == "v1"


def test_two_stores_in_one_process_are_refused_too(tmp_path):
    with Store.open(path_in(tmp_path)) as store:
        with pytest.raises(StoreError, match="Another bot"):
            Store.open(path_in(tmp_path))
        add_job(store, "unharmed")
        store.close()  # and once more at the end of the block
        Store.open(path_in(tmp_path)).close()


def damaged_header(path):
    path.write_bytes(b"This is a letter to my landlady. " * 200)


def damaged_middle(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def cut_short(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def emptied(path):
    (path.parent / CONSENT_FILE).write_text("{}")  # the bot has run here
    path.write_bytes(b"")


def newer(path):
    with sqlite3.connect(path) as raw:
        raw.execute(f"pragma user_version = {schema_version() + 1}")
    raw.close()


def somebody_elses(path):
    path.unlink()
    with sqlite3.connect(path) as raw:
        raw.execute("create table recipes (soup text)")
    raw.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damaged_header, "damaged or no database"),
        (damaged_middle, "damaged or no database"),
        (cut_short, "damaged or no database"),
        (emptied, "damaged: it is empty"),
        (newer, "newer Understudy"),
        (somebody_elses, "not made by Understudy"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_alone(tmp_path, harm, words):
    path = path_in(tmp_path)
    with Store.open(path) as store:
        for number in range(50):
            add_job(store, f"j{number}")
    harm(path)
    before = path.read_bytes()
    for opening in (Store.open, Store.read_only, Store.open):
        with pytest.raises(StoreError, match=words) as refused:
            opening(path)
        assert refused.value.advice
    assert path.read_bytes() == before


def test_a_database_that_is_gone_from_a_used_home_is_not_made_anew(tmp_path):
    path = path_in(tmp_path)
    Store.open(path).close()
    (tmp_path / CONSENT_FILE).write_text("{}")
    path.unlink()
    for opening in (Store.open, Store.read_only):
        with pytest.raises(StoreError, match="is gone, although") as refused:
            opening(path)
        assert "restore --latest" in refused.value.advice
    assert not path.exists()
    (tmp_path / CONSENT_FILE).unlink()  # as the advice says
    Store.open(path).close()


def test_a_start_that_was_cut_off_before_the_first_table_is_no_harm(tmp_path):
    path_in(tmp_path).touch()
    with pytest.raises(StoreError, match=r"older schema\. Start the bot"):
        Store.read_only(path_in(tmp_path))
    with Store.open(path_in(tmp_path)) as store:
        add_job(store, "j1")


def test_reading_what_is_not_there_makes_nothing(tmp_path):
    with pytest.raises(StoreError, match="no database"):
        Store.read_only(path_in(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("place", "advice"), [("file", "name another folder"), ("proc", "rights")])
def test_a_home_that_cannot_be_written_is_named(tmp_path, place, advice):
    if place == "file":
        (tmp_path / "home").write_text("not a folder")
        home = tmp_path / "home"
    else:
        home = Path("/proc/understudy")
    with pytest.raises(StoreError, match="cannot be used") as refused:
        Store.open(path_in(home))
    assert str(home) in refused.value.message and advice in refused.value.advice


READ_ONLY = """
import os, sys
from pathlib import Path
from bot.store import Store, StoreError
if os.getuid() == 0:
    os.setuid(65534)
try:
    Store.open(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_folder_is_named(existing):
    # Not under tmp_path, whose parents are their owner's alone: as root the child becomes somebody
    # else.
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        home.mkdir()
        if existing:
            Store.open(path_in(home)).close()
        Path(name).chmod(0o755)
        home.chmod(0o555)
        try:
            said = subprocess.run(
                [sys.executable, "-c", READ_ONLY, str(path_in(home))],
                capture_output=True,
                text=True,
                env=ENVIRON,
            )
        finally:
            home.chmod(0o755)
    assert said.stdout.startswith("The database") and "Check the folder's rights" in said.stdout, (
        said
    )
