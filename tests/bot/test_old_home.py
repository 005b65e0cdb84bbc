"""A home made by an earlier version (commit 2854d7e) opens, and everything in it is still read.

`old_home/home.zip` holds that home as data. A script run on that commit's code made it: it started
the bot once on a two-layer model (`tests.tiny_models`), let a member talk to Oda and a moderator
from tests.bot.stored_messages import guild_messages
the checkpoint of its seventh step, and filled the other tables through the store. `about.json`
names the jobs, the guild, the channel and the model's folder; `base/config.json` is the model's,
which its fingerprint covers. Left out because it is made anew: the cache, the job's copy of v1, and
an older checkpoint.
"""

import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.app import open_app
from bot.demo_guild import MEMBER
from bot.operations.backup.create import create_backup
from bot.personas.registry import PersonaRegistry
from bot.personas.revisions import RevisionHistory
from bot.platform.db.schema import MIGRATIONS
from bot.settings import load_settings
from bot.store import Lesson, Mute, Store
from personas.home.adapters import adapter_ref, verify_adapter
from personas.home.data_subjects import read_consent, read_people
from personas.home.external_files import find_exports_containing
from personas.home.holdout_index import HoldoutIndex, holdout_file
from personas.home.job_material import ShippedData
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.models.base_model import fingerprint, locate
from personas.schemas.scorecard import ScoreCard
from tests.bot.sample_home import NOW, put_back, quiet
from tests.bot.stored_messages import guild_messages
from tests.fakes import until
from tests.tiny_models import make_tiny_model

ARCHIVE = Path(__file__).parent / "old_home" / "home.zip"
MADE_IN, SCHEMA = Path("/tmp/b3/old"), 11
"""The folder that paths in the archive begin with, and the version of its database's schema."""
ADA = 734_829_104_458_293_761
BEN = 734_829_104_458_293_999
LEFT_GUILD = 910_000_000_000_000_001
IMPORTED = "mira-byh32yzm5s74"
DATABASE = "understudy.sqlite"
SHIPPED = ShippedData.from_source_tree()


@dataclass(frozen=True)
class OldHome:
    """The unpacked home, and the two-layer model that its adapter was trained on."""

    home: Path
    base: Path
    finished: str
    interrupted: str
    guild: int
    channel: int
    base_hash: str

    def store(self):
        return Store.open(self.home / DATABASE)


@pytest.fixture
def old(tmp_path, renderer):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    about = json.loads((tmp_path / "about.json").read_text())
    home = tmp_path / "home"
    _move_here(home, tmp_path)
    first = home / "jobs" / about["finished"]
    shutil.copytree(adapter_ref(home, "oda", "v1").folder, first / "adapter")
    make_tiny_model(tmp_path / "made", renderer.tokenizer)
    shutil.copytree(
        tmp_path / "made",
        tmp_path / "base",
        ignore=shutil.ignore_patterns("config.json"),
        dirs_exist_ok=True,
    )
    return OldHome(
        home, tmp_path / "base", about["finished"], about["interrupted"], about["guild"], about["channel"],
        about["fingerprint"],
    )  # fmt: skip


def _move_here(home, folder):
    """Replace the folder in which the home was made by the one that it lies in now, as an operator
    who moves it does.

    The adapter's files stay as they are: checksums cover them.
    """
    for file in (home / "jobs").rglob("*"):
        if file.suffix in (".json", ".jsonl", ".log"):
            file.write_text(file.read_text().replace(str(MADE_IN), str(folder)))
    with closing(sqlite3.connect(home / DATABASE)) as raw, raw:
        for column in ("request", "progress", "result"):
            raw.execute(
                f"update jobs set {column} = replace({column}, ?, ?)", (str(MADE_IN), str(folder))
            )


def _settings(old):
    names = {
        "UNDERSTUDY_HOME": old.home,
        "BASE_MODEL": old.base,
        "WEB_PORT": 0,
        "MAX_NEW_TOKENS": 8,
    }
    return load_settings(
        None, {name: str(value) for name, value in names.items()} | {"TRAINER_CARD": "losses"}
    )


def test_the_schema_is_migrated_and_a_second_opening_changes_nothing(old):
    def version():
        with closing(sqlite3.connect(old.home / DATABASE)) as raw:
            return raw.execute("pragma user_version").fetchone()[0]

    assert version() == SCHEMA <= len(MIGRATIONS)
    for _ in range(2):
        old.store().close()
        assert version() == len(MIGRATIONS)


def test_every_table_of_the_archive_holds_rows(old):
    with closing(sqlite3.connect(old.home / DATABASE)) as raw:
        tables = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        names = [name for (name,) in raw.execute(tables)]
        assert len(names) == 25
        assert [
            name for name in names if not raw.execute(f"select count(*) from {name}").fetchone()[0]
        ] == []


def test_channels_messages_and_replies_are_read(old):
    with old.store() as store:
        channel = store.channels.get(old.guild, old.channel)
        assert (channel.persona_id, channel.answers) == ("oda", "everything")
        assert [one.persona_id for one in store.channels.of_guild(old.guild)] == [
            "oda",
            "thrip",
            "oda",
        ]
        assert store.channels.webhook(77) == (78, "a-webhook-token")
        assert store.mutes.of_guild(old.guild) == [Mute(old.guild, old.channel, "thrip", BEN, 5.0)]
        texts = [(one.author_name, one.text) for one in guild_messages(store, old.guild)]
        assert ("Tobias Reed", "who mends the clocks?") in texts and (
            "Ada Wick",
            "The lanterns are lit.",
        ) in texts
        assert store.messages.text_of(5) is None, "it was deleted on Discord"
        recent = [one.text for one in store.messages.latest(old.channel, 20)]
        assert recent == ["I am the one to be forgotten, of Quistweir."], (
            "a new conversation began before it"
        )
        reply = store.replies.get(2)
        assert (reply.persona_id, reply.state, reply.parts) == ("oda", "done", (3, 4))
        assert vars(store.replies.votes(2)) == {"up": 1, "down": 1}
        kept = store.idempotency_keys.get(b"k" * 32, NOW)
        assert (kept.request, kept.status, kept.body) == (b"r" * 32, 201, '{"job": 1}')


def test_jobs_versions_and_rollouts_are_read(old):
    with old.store() as store:
        states = {job.job_id: (job.version, job.state) for job in store.jobs.of_guild(old.guild)}
        assert states == {
            old.finished: ("v1", "done"),
            old.interrupted: ("v2", "running"),
            "job-cancelled": ("v1", "cancelled"),
            "job-failed": ("v3", "failed"),
            "job-withdrawn": ("v4", "done"),
        }
        done = store.jobs.get(old.finished)
        assert (done.request.persona, done.request.base_model) == ("oda", str(old.base))
        assert done.result.scorecard.heldout_replies > 0
        assert [job.job_id for job in store.jobs.resumable()] == ["job-failed"]
        assert store.jobs.get(old.interrupted).progress.step >= 6
        (only,) = store.versions.installed("oda")
        assert (only.version, only.job_id, only.scorecard) == (
            "v1",
            old.finished,
            done.result.scorecard,
        )
        assert store.versions.is_withdrawn("oda", "v4") and store.versions.live("oda", 0) == "v1"
        (promoted,) = store.versions.history("oda")
        assert (promoted.promoted_by, promoted.why, promoted.kind) == (
            BEN,
            "it reads well",
            "promotion",
        )
        assert store.versions.reserve("oda") == "v5"
        (tried,) = store.rollouts.of_persona("oda", old.guild)
        assert (tried.version, tried.before, tried.share, tried.ending, tried.why) == (
            "v1", None, 20, "stopped", "enough",
        )  # fmt: skip
        assert [one.event_id for one in store.reply_stats.of_rollout(tried.seq)] == [8]


def test_members_lessons_votes_and_erasures_are_read(old):
    with old.store() as store:
        assert (store.people.opted_in(), store.people.decision(BEN).language) == ({ADA}, "vi")
        assert [(one.persona_id, one.what) for one in store.people.contributions_of(BEN)] == [
            ("oda", "soup.md")
        ]
        assert len(store.people.tombstones()) == 2
        lesson = Lesson(
            old.guild,
            "oda",
            BEN,
            True,
            "Who mends it?",
            "I do, with oil.",
            "Nobody.",
            "form",
            5.0,
            1,
        )
        assert store.lessons.of_persona("oda", old.guild) == [lesson]
        votes = [
            (one.choice, one.version_a, one.version_b) for one in store.comparisons.voted("oda")
        ]
        assert votes == [("a", "v1", None), ("tie", "v1", None)]
        assert len(store.comparisons.preferences("oda", 0, 100)) > 0
        (request,) = store.erasure_requests.unfinished()
        assert request.step == "follow" and store.erasure_requests.of(request.person) == [request]
        assert store.guilds.is_auto_promotion_enabled(old.guild)
        assert [one.guild_id for one in store.guilds.departed()] == [LEFT_GUILD]
        assert LEFT_GUILD in store.guilds.known()


def test_the_files_beside_the_database_are_read(old):
    personas = PersonaRegistry(SHIPPED.cards, old.home)
    personas.reload_guild_cards()
    assert personas.get(IMPORTED, old.guild).name == "Mira"
    lore = old.home / "lore" / str(old.guild) / "oda" / "soup.md"
    assert lore.read_text() == "# Soup\nNever ask about the soup.\n"
    history = RevisionHistory.of(old.home, lore)
    (earlier,) = history.all()
    assert history.read(earlier.number) == b"# Soup\nNever ask about the soup on a Tuesday.\n"
    people_key = HomeKey.of(old.home).people()
    assert len(HoldoutIndex.read(holdout_file(old.home, "oda"), people_key)) > 0
    (exported,) = find_exports_containing(old.home, {keyed_person(people_key, str(ADA))})
    assert exported.path == "/elsewhere/harbour.jsonl"
    assert read_consent(old.home).opted_in == frozenset({str(ADA)})
    assert (old.home / "catalogue.toml").is_file()


def test_the_adapter_verifies_and_its_score_card_is_read(old):
    adapter = adapter_ref(old.home, "oda", "v1")
    manifest = verify_adapter(adapter.folder)
    assert (manifest.persona, manifest.version, manifest.job_id) == ("oda", "v1", old.finished)
    assert manifest.base_model_hash == old.base_hash == fingerprint(locate(str(old.base)))
    card = ScoreCard.model_validate_json((adapter.folder / "scorecard.json").read_bytes())
    assert card.short == manifest.metrics
    assert read_people(adapter.folder)


def test_a_backup_of_it_restores_into_another_home(old, tmp_path):
    backup = create_backup(old.home, tmp_path / "old.understudy", NOW, quiet).path
    other = tmp_path / "other"
    put_back(backup, other)
    with Store.open(other / DATABASE) as store:
        assert store.versions.live("oda", 0) == "v1" and store.jobs.get(old.interrupted) is not None
    verify_adapter(adapter_ref(other, "oda", "v1").folder)
    assert (other / "personas" / str(old.guild) / IMPORTED / "card.toml").is_file()


async def test_the_bot_starts_on_it_and_answers_with_the_old_adapter(old):
    with old.store() as store:
        store.jobs.cancel(old.interrupted, NOW)
    async with open_app(_settings(old), SHIPPED) as app:
        question = await app.sandbox.member(MEMBER).say(
            "weighbridge-quay", "@Understudy who mends the clocks?"
        )
        replies = app.services.store.replies
        await until(
            lambda: (stored := replies.get(int(question["id"]))) and stored.state == "done", 30
        )
        reply = replies.get(int(question["id"]))
        assert (reply.persona_id, reply.adapter_version) == ("oda", "v1")


@pytest.mark.slow  # one that is resumed without an update: tests/trainer/test_resume.py
async def test_the_interrupted_run_starts_anew_with_the_recipe_of_today_and_ends(old):
    """Its recipe was changed since, and which samples have lore."""
    folder = old.home / "jobs" / old.interrupted
    before = json.loads((folder / "run.json").read_text())
    async with open_app(_settings(old), SHIPPED) as app:
        jobs = app.services.store.jobs
        await until(lambda: jobs.get(old.interrupted).state not in ("queued", "running"), 120)
        job = jobs.get(old.interrupted)
        assert job.state == "done", job.error
    after = json.loads((folder / "run.json").read_text())
    assert (
        after["recipe"]["max_length"] > before["recipe"]["max_length"]
        and after["batches"] != before["batches"]
    )
    assert "starting anew" in (folder / "trainer.log").read_text()
    steps = [
        json.loads(line).get("step") for line in (folder / "events.jsonl").read_text().splitlines()
    ]
    assert steps.count(1) == 2, "of the first attempt, and of this one"
    assert verify_adapter(adapter_ref(old.home, "oda", "v2").folder).job_id == old.interrupted
