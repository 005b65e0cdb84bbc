"""What is deleted when its time is over, and what stays."""

import asyncio
import json
import multiprocessing
import os
import re
import sqlite3
import time
from itertools import pairwise

import pytest

from bot.chat.store.attempts import RecentReplies
from bot.compose import Dependencies, compose
from bot.personas.guild_lore import read_all_guild_lore
from bot.personas.registry import PersonaRegistry
from bot.privacy import retention
from bot.privacy.retention import (
    CHECK_INTERVAL_S,
    DAY_S,
    RETRY_DELAY_S,
    Retention,
    RetentionPeriods,
)
from bot.services import PrivacyServices
from bot.settings import Settings
from bot.store import CARD_CONTRIBUTION, Contribution, Store, guild_suffix
from bot.training.dataset_catalog import DatasetCatalog
from personas.card.toml_card import SHIPPED_CARDS
from personas.errors import MaterialError
from personas.home.atomic_files import atomic_folder
from personas.home.external_files import record_review_file
from personas.home.job_material import ShippedData
from personas.lore.index import LoreIndex
from tests.bot.sample_home import DATABASE, put, say, train, where
from tests.bot.stored_messages import guild_messages
from tests.fake_engine import FakeEngine
from tests.fakes import FakeClock, FakeTrainingBackend, until

HERE = 1_234_567_890_123_456
THERE = 2_234_567_890_123_456
OWN = f"mira{guild_suffix(HERE)}"
OTHERS = f"mira{guild_suffix(THERE)}"
LIMITS = RetentionPeriods(history_days=90, guild_days=14)


class Bench:
    """Services with real parts, without a client."""

    def __init__(self, home, limits=LIMITS):
        self.home, self.clock, self.backend = home, FakeClock(), FakeTrainingBackend()
        self.store = Store.open(home / DATABASE)
        personas = PersonaRegistry(SHIPPED_CARDS, home)
        self.lore = LoreIndex(read_all_guild_lore(home), home / "cache" / "lore.sqlite")
        settings = Settings(home=home)
        dependencies = Dependencies(
            store=self.store,
            personas=personas,
            lore=self.lore,
            catalogue=DatasetCatalog(
                ShippedData.from_source_tree(), settings.base_model, home, self.store
            ),
            engine=FakeEngine(),
            backend=self.backend,
            privacy=PrivacyServices(),
            clock=self.clock,
        )
        self.services = compose(settings, dependencies)
        self.queue = self.services.queue
        self.retention = Retention(self.services, self.clock, limits)

    @property
    def now(self):
        return self.clock.now()

    def close(self):
        self.store.close()
        self.lore.close()


def settle(home, guild):
    """A server with something of everything."""
    suffix = guild_suffix(guild)
    put(
        home,
        {
            f"personas/{guild}/mira{suffix}/card.toml": f'id = "mira{suffix}"\nname = "Mira Zephyrine"\n'.encode(),
            f"lore/{guild}/mira{suffix}/jam.md": b"# Jam\nZephyrine keeps quince jam under the stairs.\n",
            f"lore/{guild}/oda/quay.md": b"# Quay\nThe Zephyrine moored there once.\n",
            f"models/persona_adapters/mira{suffix}/v1/manifest.json": b"{}",
            f"models/persona_adapters/gone{suffix}/v1/manifest.json": b"{}",
            f"cache/lore-of-mira{suffix}.sqlite": b"Zephyrine",
            f"heldout/mira{suffix}.bin": b"Zephyrine",
        },
    )
    with Store.open(home / DATABASE) as store:
        say(store, "Zephyrine, are you there?", guild=guild, at=1_799_999_000.0)
        store.people.add_contribution(
            Contribution(guild, f"mira{suffix}", CARD_CONTRIBUTION, 7, 1.0)
        )
        store.places.set_webhook(guild, guild, 1, "token")
        job = train(store, f"own-{guild}", guild=guild, persona=f"mira{suffix}")
        store.versions.promote(job.persona, job.version, 7, 60.0)
        train(store, f"failed-{guild}", guild=guild, done=False)
    put(home, {f"jobs/own-{guild}/request.json": b'{"materials": [], "by": "Zephyrine"}'})


@pytest.fixture
def bench(tmp_path):
    for guild in (HERE, THERE):
        settle(tmp_path, guild)
    made = Bench(tmp_path)
    yield made
    made.close()


def of_guild(home, guild):
    """What bears a server's mark in its path."""
    marks = (str(guild), guild_suffix(guild))
    return [
        path
        for path in home.rglob("*")
        if any(mark in str(path.relative_to(home)) for mark in marks)
    ]


# ------------------------------------------------------------------------------------ conversations


async def test_conversations_go_after_their_days_and_jobs_stay(bench):
    old = bench.now - 91 * DAY_S
    new = bench.now - 89 * DAY_S
    for event, at in ((1, old), (2, new)):
        seq = say(bench.store, f"Vexillology at {at}", at=at, guild=0)
        bench.store.replies.begin(
            event, guild_id=0, channel_id=5, persona_id="oda", at=at, trigger_seq=seq
        )
        bench.store.replies.finish(event, "done")
        bench.store.replies.vote(event, 7, 1, at)
    assert await bench.retention.tidy()
    assert [message.text for message in guild_messages(bench.store, 0)] == [f"Vexillology at {new}"]
    assert bench.store.replies.get(1) is None and bench.store.replies.votes(2).up == 1
    assert bench.store.jobs.get(f"own-{HERE}").finished_at < old, "its progress is nobody's words"
    assert where(bench.home, f"Vexillology at {old}") == [], (
        "not in the file's empty pages, nor beside it"
    )


async def test_what_counts_for_a_limit_goes_once_no_day_is_so_long(bench):
    attempts = bench.store.reply_attempts
    for hours in (24.9, 25.1):
        attempts.add(HERE, 7, bench.now - hours * 3600)
    assert await bench.retention.tidy()
    assert attempts.since(HERE, 7, 0.0) == RecentReplies(1, bench.now - 24.9 * 3600)


JOB_FILES = {
    name: b'{"materials": []}'
    for name in (
        "request.json", "run.json", "events.jsonl", "trainer.log", "compare.json", "material/logs/a.json",
        "dataset/train.jsonl", "checkpoints/checkpoint-3/state", "adapter/manifest.json", "heldout_new.bin",
    )
}  # fmt: skip
STAYING = {"request.json", "run.json", "events.jsonl", "trainer.log", "compare.json"}


def ended_job(bench, job_id, *, days, fails=False, promoted=False):
    """A job that ended so many days ago, with everything in its folder."""
    put(bench.home, {f"jobs/{job_id}/{name}": content for name, content in JOB_FILES.items()})
    job = train(bench.store, job_id, guild=HERE, done=not fails)
    if fails:
        bench.store.jobs.fail(
            job, "The disk is full.", "Free some.", bench.now - days * DAY_S, can_resume=True
        )
    if promoted:
        bench.store.versions.promote(job.persona, job.version, 7, 60.0)


async def test_the_data_of_ended_jobs_go_after_their_days_and_what_is_shown_stays(bench):
    ended_job(bench, "old", days=91)
    ended_job(bench, "live", days=91, promoted=True)
    ended_job(bench, "failed", days=91, fails=True)
    ended_job(bench, "new", days=89, fails=True)
    put(bench.home, {"jobs/waiting/material/a": b"x"})
    train(bench.store, "waiting", persona="thrip", done=False)
    published = []
    bench.queue.subscribe(published.append)
    assert await bench.retention.tidy() and await bench.retention.tidy()

    def files(job_id):
        folder = bench.home / "jobs" / job_id
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert files("old") == files("failed") == STAYING
    assert files("live") == files("new") == {*JOB_FILES} and files("waiting") == {"material/a"}
    (failed,) = published
    assert (failed.job_id, failed.can_resume, failed.error) == (
        "failed",
        False,
        "The disk is full.",
    )
    assert "Start a new one" in failed.advice and "90 days" in failed.advice
    assert bench.store.jobs.get("new").can_resume and bench.store.jobs.get("old").state == "done"


async def test_what_a_killed_process_left_half_written_goes_and_nothing_of_a_running_one(bench):
    old = time.time() - 61
    lost = {
        "models/persona_adapters/oda/.v3.k2j_9xab/adapter_model.safetensors": b"x",
        "jobs/j9/.adapter.abcdefgh/a": b"x",
        "jobs/.j8.abcdefgh/request.json": b"x",
        ".consent.json.4242.0a1b2c3d": b"x",
        "uploads/.talk.jsonl.0a1b2c3d.part": b"x",
    }
    kept = {
        "models/persona_adapters/oda/v3/a": b"x",
        "lore/1/oda/.git.abcdefgh/config": b"x",
        ".foo.settings": b"x",
        "notes/.a.template": b"x",
        "models/persona_adapters/oda/.v4.youngest/a": b"x",
    }
    put(bench.home, lost | kept)
    for path in bench.home.rglob("*"):
        if "youngest" not in str(path):
            os.utime(path, (old, old))
    running = multiprocessing.get_context("fork").Process(
        target=_write_slowly, args=(bench.home, old)
    )
    running.start()
    try:
        await until((bench.home / "ready").exists)
        assert await bench.retention.tidy()
        assert not [name for name in lost if (bench.home / name).exists()]
        assert all((bench.home / name).exists() for name in kept)
        (owned,) = (bench.home / "models" / "persona_adapters" / "oda").glob(".v5.*")
    finally:
        running.kill()
        running.join()
    assert await bench.retention.tidy() and not owned.exists(), "its process has ended"


def _write_slowly(home, at):
    with atomic_folder(home / "models" / "persona_adapters" / "oda" / "v5") as folder:
        os.utime(folder, (at, at))
        (home / "ready").touch()
        time.sleep(60)


async def test_it_works_at_the_start_then_every_hour_and_a_failure_comes_again_soon(
    bench, monkeypatch, caplog
):
    class Client:
        def add_listener(self, *_): ...

        remove_listener = add_listener

        def is_ready(self):
            return False

    said = say(bench.store, "old", at=bench.now - 91 * DAY_S)
    bench.store.guilds.record_left(HERE, bench.now - 15 * DAY_S)
    monkeypatch.setattr("shutil.rmtree", fails := Failing(f"models/persona_adapters/{OWN}"))
    bench.retention.start(Client())
    await until(lambda: bench.clock.sleepers)
    assert said and "old" not in [message.text for message in guild_messages(bench.store, HERE)]
    assert re.search(rf"retention: .*: the server {HERE}: ", caplog.text) and of_guild(
        bench.home, HERE
    )
    fails.path = None
    bench.clock.advance(RETRY_DELAY_S)
    await until(lambda: bench.store.guilds.deleted() and bench.clock.sleepers)
    assert of_guild(bench.home, HERE) == []
    say(bench.store, "old again", at=bench.now - 91 * DAY_S, guild=0)
    bench.clock.advance(RETRY_DELAY_S)
    assert len(guild_messages(bench.store, 0)) == 1, "all was done: it rests for an hour"
    bench.clock.advance(CHECK_INTERVAL_S)
    await until(lambda: not guild_messages(bench.store, 0))
    await bench.retention.stop()
    await bench.retention.stop()
    assert not bench.clock.sleepers


async def test_a_locked_database_is_tried_again_and_does_not_end_retention(bench, tmp_path, caplog):
    class Client:
        def add_listener(self, *_): ...

        remove_listener = add_listener

        def is_ready(self):
            return False

    say(bench.store, "old", at=bench.now - 91 * DAY_S, guild=0)
    bench.store._connection._raw.execute("pragma busy_timeout = 5")
    other = sqlite3.connect(tmp_path / DATABASE)
    other.execute("begin immediate")
    bench.retention.start(Client())
    for _ in range(2):
        await until(lambda: bench.clock.sleepers)
        assert "database is locked" in bench.retention.worker.error
        bench.clock.advance(2 * RETRY_DELAY_S)
    await until(lambda: bench.clock.sleepers)
    assert len([it for it in caplog.records if "database is locked" in it.getMessage()]) == 1, (
        "said once"
    )
    other.rollback()
    other.close()
    bench.clock.advance(4 * RETRY_DELAY_S)
    await until(lambda: not bench.retention.worker.error)
    assert not guild_messages(bench.store, 0) and "retention: works again" in caplog.text
    await bench.retention.stop()


class Failing:
    """`shutil.rmtree`, which cannot delete one folder."""

    def __init__(self, path):
        import shutil

        self.path = path
        self._rmtree = shutil.rmtree

    def __call__(self, path, **more):
        if self.path and str(path).endswith(self.path):
            raise OSError(16, "Device or resource busy")
        self._rmtree(path, **more)


# ------------------------------------------------------------------------------------------ servers


async def test_a_server_goes_whole_after_its_days_and_no_other_loses_anything(bench):
    others = {path: path.read_bytes() for path in of_guild(bench.home, THERE) if path.is_file()}
    assert bench.lore.search("oda", "who moored at the quay?", guild_id=HERE)
    bench.store.guilds.record_left(HERE, bench.now)
    bench.clock.advance(14 * DAY_S - 1)
    await bench.retention.tidy()
    assert HERE in bench.store.guilds.known() and of_guild(bench.home, HERE), "not a second early"
    bench.clock.advance(1)
    assert await bench.retention.tidy()
    assert bench.store.guilds.known() == {THERE} and of_guild(bench.home, HERE) == []
    personas = bench.services.personas
    assert OWN not in personas.of(HERE) and OTHERS in personas.of(THERE)
    assert bench.lore.search("oda", "who moored at the quay?", guild_id=HERE) == []
    assert bench.lore.search("oda", "who moored at the quay?", guild_id=THERE)
    assert {path: path.read_bytes() for path in others} == others
    assert (
        bench.store.versions.installed(OWN) == [] and bench.store.versions.live(OTHERS, 0) == "v1"
    )
    assert (
        bench.store.jobs.get(f"own-{HERE}") is None
        and bench.store.jobs.get(f"failed-{HERE}") is None
    )
    assert bench.store.guilds.deleted() == {HERE: bench.now}, "so that no backup brings it back"


async def test_the_messages_of_a_deleted_server_go_in_steps_and_the_event_loop_goes_on(
    bench, monkeypatch
):
    monkeypatch.setattr(retention, "DELETE_BATCH_ROWS", 10)
    for number in range(100):
        say(bench.store, f"line {number}", guild=HERE, at=bench.now)
    said = len(guild_messages(bench.store, HERE))
    bench.store.places.start_new_conversation(HERE, 5)
    seen = []
    bench.store.guilds.record_left(HERE, bench.now - 15 * DAY_S)
    tidying = asyncio.create_task(bench.retention.tidy())
    while not tidying.done():
        seen.append(len(guild_messages(bench.store, HERE)))
        await asyncio.sleep(0)
    steps = list(dict.fromkeys(seen))
    assert steps[0] == said and steps[-1] == 0 and max(a - b for a, b in pairwise(steps)) == 10
    assert not bench.store.places.has_new_conversation(5)


async def test_nothing_of_a_deleted_server_is_left_in_any_file(tmp_path):
    settle(tmp_path, HERE)
    much = "\n".join(
        f"# Berth {number}\nThe Zephyrine lay in berth {number}.\n" for number in range(60)
    )
    put(
        tmp_path, {f"lore/{HERE}/oda/berths.md": much.encode()}
    )  # so that the index has pages to give back
    bench = Bench(tmp_path)
    assert where(tmp_path, "Zephyrine")
    bench.store.guilds.record_left(HERE, bench.now - 15 * DAY_S)
    assert await bench.retention.tidy()
    assert where(tmp_path, "Zephyrine", OWN) == []
    bench.close()


async def test_its_queued_and_running_jobs_end(bench):
    bench.store.guilds.record_left(HERE, bench.now - 15 * DAY_S)
    bench.queue.start()
    await until(lambda: bench.backend.busy)
    assert bench.backend.runs[0].job_id == f"failed-{HERE}"
    await bench.retention.tidy()
    await until(lambda: len(bench.backend.runs) == 2)
    assert bench.backend.runs[1].job_id == f"failed-{THERE}"
    await bench.queue.stop()


async def test_what_it_had_made_of_a_shipped_persona_stays_where_others_use_it(bench):
    store = bench.store
    shipped = train(store, "shipped", guild=HERE)
    received = train(store, "heard", guild=HERE, dataset="history")
    own = train(store, "never shared", guild=HERE)
    folders = [f"models/persona_adapters/oda/{job.version}" for job in (shipped, received, own)]
    put(bench.home, {f"{folder}/manifest.json": b"{}" for folder in folders})
    for job in (shipped, received):
        store.versions.promote("oda", job.version, 7, 60.0)
        store.versions.promote("oda", job.version, 7, 60.0, guild_id=HERE)
    store.versions.promote("oda", own.version, 7, 61.0, guild_id=HERE)
    store.guilds.record_left(HERE, bench.now - 15 * DAY_S)
    await bench.retention.tidy()
    assert [one.version for one in store.versions.installed("oda")] == [shipped.version]
    assert store.versions.live("oda", 0) == shipped.version
    assert {(row.guild_id, row.for_guild) for row in store.versions.history("oda")} == {(0, 0)}
    assert [path.name for path in (bench.home / "models/persona_adapters/oda").iterdir()] == [
        shipped.version
    ]
    job = store.jobs.get("shipped")
    assert (job.guild_id, job.channel_id, job.requested_by) == (0, 0, 0)


class Login:
    """A client that is ready: the account it is, and the servers it is in."""

    class Guild:
        def __init__(self, guild_id):
            self.id = guild_id

    def __init__(self, *guilds, account=5):
        self.guilds = [self.Guild(guild) for guild in guilds]
        self.application_id = account

    def is_ready(self):
        return True


async def test_who_removed_it_while_it_was_away_is_noticed_and_who_takes_it_back_stays(bench):
    bench.retention._client = Login(HERE)
    await bench.retention.tidy()
    assert [gone.guild_id for gone in bench.store.guilds.departed()] == [THERE]
    bench.clock.advance(13 * DAY_S)
    bench.retention._client = Login(HERE, THERE)
    await bench.retention.tidy()
    bench.clock.advance(13 * DAY_S)
    await bench.retention.tidy()
    assert bench.store.guilds.departed() == [] and bench.store.guilds.known() == {HERE, THERE}


async def test_a_server_of_which_only_files_are_left_is_noticed_too(bench):
    put(bench.home, {"lore/77/oda/x.md": b"# X\nY"})
    bench.retention._client = Login(HERE, THERE)
    await bench.retention.tidy()
    bench.clock.advance(14 * DAY_S)
    await bench.retention.tidy()
    assert not (bench.home / "lore" / "77").exists()


async def test_another_account_misses_no_servers_of_this_one(bench):
    """As when the bot is started without its token for a while, in the guild on this machine."""
    bench.retention._client = Login(HERE, THERE, account=5)
    await bench.retention.tidy()
    bench.retention._client = Login(99, account=6)
    bench.clock.advance(60 * DAY_S)
    await bench.retention.tidy()
    assert bench.store.guilds.departed() == [] and bench.store.guilds.known() == {HERE, THERE}


# -------------------------------------------------------------------------------------------- files


def job_folder(bench, job_id, right, at, finished=True):
    train(bench.store, job_id, done=False)
    request = json.dumps({"materials": [{"right": "form"}, {"right": right}]})
    put(
        bench.home,
        {f"jobs/{job_id}/{name}": request.encode() for name in ("request.json", "material/log")},
    )
    if finished:
        bench.store.jobs._db.write(
            "update jobs set state = 'failed', finished_at = :at where job_id = :job",
            at=at,
            job=job_id,
        )


async def test_job_folders_with_what_was_said_go_with_the_conversations(bench):
    old = bench.now - 91 * DAY_S
    new = bench.now - 89 * DAY_S
    job_folder(bench, "said-old", "discord-api", old)
    job_folder(bench, "said-new", "discord-api", new)
    job_folder(bench, "own-old", "own-writing", old)
    job_folder(bench, "waits", "discord-api", old, finished=False)
    job_folder(bench, "damaged", "own-writing", old)
    put(bench.home, {"jobs/damaged/request.json": b"{", "jobs/unknown/request.json": b"{"})
    os.utime(bench.home / "jobs/unknown", (old, old))
    assert await bench.retention.tidy()
    left = {path.name for path in (bench.home / "jobs").iterdir()}
    assert left == {"said-new", "own-old", "waits", f"own-{HERE}", f"own-{THERE}"}


async def test_of_runs_of_the_operator_what_was_said_goes_and_the_adapter_stays(bench):
    old = bench.now - 91 * DAY_S
    runs = {
        "runs/old": "discord-api",
        "runs/sweep-1/sweep/seed=1": "discord-api",
        "runs/own": "form",
        "runs/new": "discord-api",
    }
    for name, right in runs.items():
        request = json.dumps({"materials": [{"right": right}]}).encode()
        files = ("request.json", "material/log", "dataset/train.jsonl", "adapter/manifest.json")
        put(bench.home, {f"{name}/{file}": request for file in files})
        if name != "runs/new":
            os.utime(bench.home / name, (old, old))
    assert await bench.retention.tidy()
    for folder in ("material", "dataset"):
        assert [(bench.home / name / folder).exists() for name in runs] == [
            False,
            False,
            True,
            True,
        ]
    assert all((bench.home / name / "adapter" / "manifest.json").exists() for name in runs)
    assert await bench.retention.tidy()


async def test_review_files_go_at_their_time(bench, tmp_path):
    files = {name: tmp_path / name for name in ("due.html", "later.html", "folder", "gone.html")}
    files["due.html"].write_text("names")
    files["later.html"].write_text("names")
    files["folder"].mkdir()
    for name, path in files.items():
        record_review_file(bench.home, path, bench.now + (60 if name == "later.html" else 0))
    assert not await bench.retention.tidy(), "what is in the way is tried again"
    assert not files["due.html"].exists() and files["later.html"].exists()
    files["folder"].rmdir()
    files["folder"].write_text("")
    bench.clock.advance(60)
    assert await bench.retention.tidy()
    assert not any(path.exists() for path in files.values())
    assert json.loads((bench.home / "reviews.json").read_text())["reviews"] == []


async def test_a_list_of_review_files_that_cannot_be_read_keeps_nothing_else(bench, caplog):
    (bench.home / "reviews.json").write_text("[")
    say(bench.store, "old", at=bench.now - 91 * DAY_S, guild=0)
    assert not await bench.retention.tidy()
    assert guild_messages(bench.store, 0) == []
    assert "review files" in " ".join(bench.retention._failures)
    with pytest.raises(MaterialError):
        record_review_file(bench.home, bench.home / "x.html", time.time())


async def test_what_was_answered_over_http_goes_after_a_day(tmp_path):
    bench = Bench(tmp_path)
    bench.store.idempotency_keys.begin(b"old", b"r", bench.now - DAY_S - 1)
    bench.store.idempotency_keys.begin(b"new", b"r", bench.now - 60)
    assert await bench.retention.tidy()
    assert [row["key"] for row in bench.store._connection.read("select key from answered")] == [
        b"new"
    ]
    bench.close()


async def test_who_was_greeted_is_forgotten_with_the_conversations(bench):
    greeted = bench.store.greeted_members
    now = bench.now
    for member, days in ((5, 91), (6, 89)):
        at = now - days * DAY_S
        greeted.add(HERE, [member], event_id=member, at=at, mentioned=1)
    await bench.retention.tidy()
    assert greeted.among(HERE, [5, 6]) == {6} and greeted.mentioned(6) == [6]
