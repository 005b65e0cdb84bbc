"""A planted person is forgotten, and nothing under the home has anything of them, whatever happens
in between.
"""

import asyncio
import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from bot import app
from bot.guild_settings.store import SettingScope
from bot.platform.db.schema import scripts_after
from bot.privacy.consent_files import read_tombstones
from bot.privacy.erasure_receipt import ERASURE_STEPS, receipt_of
from bot.privacy.erasure_service import replay_erasures
from bot.privacy.store.erasure import ANONYMISE_STATEMENTS, DELETE_STATEMENTS
from bot.privacy.store.personal_tables import PERSONAL_TABLES
from bot.settings import load_settings
from bot.store import Store
from bot.training.store import JobResult, NewTrainingJob
from personas.home.adapters import adapter_ref, verify_adapter
from personas.home.data_subjects import read_consent
from personas.home.external_files import record_export
from personas.home.gguf_cache import gguf_adapter_path
from personas.home.job_material import ShippedData
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.schemas.training import JobSpec, TrainingRequest
from tests.bot import traceable_person
from tests.bot.stored_messages import guild_messages
from tests.bot.traceable_person import (
    CHANNEL,
    DIRECT,
    GUILD,
    OTHER,
    OTHERS_LINE,
    WHO,
    at_file,
    at_step,
    begin,
    forgetter,
    killed,
    left_of_them,
    plant,
    rows,
)
from tests.fakes import until
from tests.loop_delay import measured_loop
from tests.personas.test_adapters import write_adapter
from tests.samples import SCORECARD


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("planted") / "home"
    plant(home)
    return home


@pytest.fixture
def home(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "home"))


def test_a_review_file_outside_of_the_home_goes_too(tmp_path):
    plant(tmp_path / "home")
    receipt = forget(tmp_path / "home")
    assert not (tmp_path / "elsewhere.review.jsonl").exists()
    assert str(tmp_path / "elsewhere.review.jsonl") in receipt.deleted


def opened(home):
    return Store.open(home / "understudy.sqlite")


def forget(home):
    """As the bot at rest does it: everything but what follows."""
    with opened(home) as store:
        return asyncio.run(forgetter(home, store).run(begin(home, store)))


def test_the_scan_finds_the_person_everywhere_before(home):
    found = "\n".join(left_of_them(home))
    for place in (
        "understudy.sqlite", "cache/embeddings.json", "jobs/job3/trainer.log",
        "jobs/job3/material/log.json", f"lore/{GUILD}/oda/harbour.md", f"lore/{GUILD}/oda/notes.md",
        "packages/mine/messages", "packages/package.zip", "review.jsonl", "talk/harbour.json", "talk/packed.json.gz",
        "talk/rows.jsonl", "talk/table.csv", "talk/WhatsApp Chat.txt", "talk/scan.bin", "consent.json",
    ):  # fmt: skip
        assert place in found, place
    assert (home / "cache" / "lore.sqlite").exists() and "lore.sqlite" not in found, (
        "it has vectors only"
    )
    for trace in traceable_person.TRACES:
        assert repr(trace) in found, trace


def test_what_was_stored_while_the_clock_was_ahead_goes_too(home):
    with sqlite3.connect(home / "understudy.sqlite") as raw:
        for table in PERSONAL_TABLES:
            if table.time:
                raw.execute(f"update {table.name} set {table.time} = {table.time} + 7200")
    raw.close()
    forget(home)
    assert left_of_them(home) == []
    assert len(rows(home, "select text from messages")) == 2 and rows(
        home, "select user_id from votes"
    ) == [(OTHER,)]


def test_afterwards_nothing_is_left_and_nothing_of_others_is_lost(home):
    receipt = forget(home)
    assert left_of_them(home) == [] and "cache/lore.sqlite" in receipt.deleted
    assert not (home / "cache" / "lore.sqlite").exists(), "its vectors are of their texts, too"
    assert rows(home, "select text from messages order by seq") == [
        (OTHERS_LINE,), ("I agree with someone and <@someone>.",),
    ]  # fmt: skip
    assert rows(home, "select user_id, vote from votes") == [(OTHER, 1)]
    ((by, said),) = rows(home, "select user_id, text_a from comparisons")
    assert by == OTHER and said.startswith("Ask someone about")
    assert rows(home, "select user_id from consents") == [(OTHER,)]
    said_of_card = rows(home, "select card_error from jobs where card_error is not null")
    assert said_of_card == [("There is no file someone.",)]
    assert rows(home, "select user_id, text from memories") == [(OTHER, "someone said: [removed]")]
    assert (
        rows(home, "select set_by from channel_personas")
        == rows(home, "select muted_by from mutes")
        == [(0,)]
    )
    assert {by for (by,) in rows(home, "select requested_by from jobs")} == {0, OTHER}
    log = json.loads((home / "talk" / "harbour.json").read_text())
    assert [message["content"] for message in log["messages"]] == [
        OTHERS_LINE, "> [removed]\nthat was <@someone>, alias someone",
    ]  # fmt: skip
    assert OTHERS_LINE in (home / "talk" / "WhatsApp Chat.txt").read_text()
    assert "next line" not in (home / "talk" / "WhatsApp Chat.txt").read_text()
    assert len((home / "talk" / "table.csv").read_text().splitlines()) == 2
    assert json.loads((home / "talk" / "rows.jsonl").read_text())["name"] == "Wendell Park"
    assert (home / "lore" / str(GUILD) / "oda" / "notes.md").read_text() == (
        "# Notes\nAsk someone (<@someone>) about the lamp.\n"
    )
    for kept in (
        "jobs/job1/trainer.log",
        "datasets/kept/people.json",
        f"lore/{GUILD}/oda/tides.md",
    ):
        assert (home / kept).exists(), kept
    for gone in (
        f"lore/{GUILD}/oda/harbour.md",
        "jobs/job3",
        "datasets/harbour",
        "packages/mine",
        "packages/package.zip",
        "talk/scan.bin",
    ):
        assert not (home / gone).exists(), gone
    assert receipt.rows["messages"] == 2 and receipt.rows["votes"] == 1
    assert receipt.lost == ("talk/scan.bin",)
    assert {"packages/package.zip", "packages/mine", "jobs/job3"} <= {*receipt.deleted}
    assert [export.path for export in receipt.exports] == ["/elsewhere/harbour.jsonl"]


def test_versions_with_the_person_speak_no_more_and_the_last_clean_one_does(home):
    lora_files = [gguf_adapter_path(home, f"oda-v{number}", "a" * 64) for number in (1, 2)]
    for file in lora_files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"GGUF")
    receipt = forget(home)
    assert [file.exists() for file in lora_files] == [True, False]
    with opened(home) as store:
        assert store.versions.live("oda", 0) == "v1"
        assert [version.version for version in store.versions.installed("oda")] == ["v1"]
        assert store.versions.rollback("oda", 1, 1.0).version is None, "to none that is withdrawn"
    assert {(one.version, one.now) for one in receipt.withdrawn} == {("v2", None), ("v3", "v1")}
    assert [one.persona_id for one in receipt.dialogues] == ["manners"]
    assert adapter_ref(home, "oda", "v1").folder.exists()
    assert (
        not adapter_ref(home, "oda", "v2").folder.exists()
        and not adapter_ref(home, "oda", "v3").folder.exists()
    )
    assert not (home / "models" / "dialogue" / "manners").exists()


def test_a_version_stays_whose_job_only_knew_that_the_person_had_opted_in(home):
    """As one that was trained from a card alone."""
    job = home / "jobs" / "job1"
    with opened(home) as store:
        one = forgetter(home, store)
        receipt = asyncio.run(one.run(one.begin(one.traces(WHO), scope="trainings")))
    assert "v1" not in {version.version for version in receipt.withdrawn}
    assert read_consent(job).opted_in == {str(OTHER)}, "whose consent has ended"
    assert read_consent(job).permission == "By letter of Discord."
    (job / "consent.json").write_text(f"{{{WHO}")
    assert not forget(home).withdrawn
    assert job.is_dir() and not (job / "consent.json").exists(), "nobody can be found in it"


def test_an_export_in_the_home_goes_too(home):
    out = home / "exports" / "oda"
    out.mkdir(parents=True)
    (out / "adapter_model.safetensors").write_bytes(b"weights")
    people = {traceable_person._key(home, str(WHO))}
    record_export(home, "adapter", str(out), people)
    kept = home / "exports" / "wendell.gguf"
    kept.write_bytes(b"GGUF")
    record_export(home, "adapter", kept, {traceable_person._key(home, str(OTHER))})
    receipt = forget(home)
    assert not out.exists() and kept.exists() and "exports/oda" in receipt.deleted
    assert [export.path for export in receipt.exports] == ["/elsewhere/harbour.jsonl"]


def test_without_a_clean_version_the_base_model_speaks(home):
    shutil.copy(
        adapter_ref(home, "oda", "v2").folder / "people.json",
        adapter_ref(home, "oda", "v1").folder / "people.json",
    )
    forget(home)
    with opened(home) as store:
        assert store.versions.live("oda", 0) is None and store.versions.installed("oda") == []


@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", ERASURE_STEPS["everything"][:-1])
def test_killed_at_any_step_it_goes_on(home, step, moment):
    assert killed(home, at_step(step, moment)) == 9
    with opened(home) as store:
        asyncio.run(forgetter(home, store).finish())
        (row,) = store.erasure_requests.unfinished()
        assert row.step == "follow" and receipt_of(row).resumed
        assert store.versions.live("oda", 0) == "v1"
    assert left_of_them(home) == []


@pytest.mark.parametrize(
    "number",
    [1, 6, 14, 20, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4, 8, 11, 17))],
)
def test_killed_in_the_middle_of_the_files_it_goes_on(home, number):
    assert killed(home, at_file(number)) == 9
    with opened(home) as store:
        asyncio.run(forgetter(home, store).finish())
    assert left_of_them(home) == []


def test_tombstones_are_keyed_and_who_comes_back_is_played_again_and_not_forgotten_again(home):
    forget(home)
    key = HomeKey.of(home).people()
    assert str(WHO) not in (home / "keys" / "tombstones.json").read_text()
    with opened(home) as store:
        assert keyed_person(key, str(WHO)) in store.people.tombstones()
        assert read_tombstones(home) == store.people.tombstones()
        store.messages.append(
            guild_id=GUILD,
            channel_id=CHANNEL,
            author_id=WHO,
            author_name="New",
            text="I am back",
            at=time.time(),
        )
        assert asyncio.run(replay_erasures(forgetter(home, store), files=False)) == []
        asyncio.run(replay_erasures(forgetter(home, store), files=True))
        assert "I am back" in [message.text for message in guild_messages(store, GUILD)]


@pytest.mark.parametrize(
    "name",
    [
        "Oda Marrow",
        "Wendell Park",
        "the",
        "discriminator",
        str(GUILD),
    ],
)
def test_a_name_that_is_others_or_a_common_word_wipes_out_nothing(home, name):
    before = {path: path.read_bytes() for path in (home / "talk").iterdir()} | {
        path: path.read_bytes() for path in (home / "lore").rglob("*.md")
    }
    stranger = 734_829_104_458_293_555
    with opened(home) as store:
        one = forgetter(home, store)
        receipt = asyncio.run(one.run(one.begin(one.traces(stranger, [name]))))
    assert receipt.cut == receipt.deleted == receipt.lost == ()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("number", "name"), [(43, "Zorblax Quuxington"), (734_829_104_458_293_555, "2026")]
)
def test_a_number_that_stands_in_every_file_is_nobody_and_wipes_out_nothing(home, number, name):
    shutil.copytree(ShippedData.from_source_tree().logs, home / "jobs" / "shipped" / "material")
    before = {path: path.read_bytes() for path in home.glob("[jtm]*/**/*") if path.is_file()}
    assert any(b":43." in data for data in before.values()) and any(
        b"2026-" in data for data in before.values()
    )
    with opened(home) as store:
        one = forgetter(home, store)
        receipt = asyncio.run(one.run(one.begin(one.traces(number, sure_names=[name]))))
    assert receipt.cut == receipt.deleted == receipt.lost == receipt.withdrawn == ()
    assert {path: path.read_bytes() for path in before} == before


def test_only_the_trainings_are_withdrawn_when_only_that_is_asked(home):
    with opened(home) as store:
        one = forgetter(home, store)
        receipt = asyncio.run(one.run(one.begin(one.traces(WHO), scope="trainings")))
        assert store.versions.live("oda", 0) == "v1" and read_tombstones(home) == {}
        assert len(store.erasure.texts(WHO)) == 5
    assert (home / "talk" / "harbour.json").exists() and not (home / "jobs" / "job3").exists()
    assert {one.version for one in receipt.withdrawn} == {"v2", "v3"}


def test_every_column_with_text_is_looked_through_or_holds_nobody():
    """A column that a later migration adds has to be thought about here."""
    nobody = {
        "channel_personas": {"persona_id", "answers"}, "places": {"webhook_token"},
        "messages": {"persona_id", "adapter_version"},
        "replies": {"persona_id", "state", "adapter_version", "end_note"},
        "jobs": {"job_id", "persona", "version", "state", "attempt_token", "decision", "card_state"},
        "versions": {"persona_id", "version", "job_id", "scorecard", "card"},
        "promotions": {"persona_id", "version", "kind"},
        "mutes": {"persona_id"}, "message_vectors": {"encoder"}, "memory_vectors": {"encoder"},
        "settings": {"persona_id", "key", "value"},
        "safety_counts": {"kind", "day", "language"},
        "blocks": {"persona_id"},
        "action_roles": {"action"},
        "reports": {"persona_id", "version", "reason"}, "bot_faces": {"persona_id", "shown"},
        "training_schedules": {"persona_id", "options", "outcome", "job_id"},
        "scheduled_lines": {"outcome"}, "interaction_tokens": {"token"},
        "consents": {"language"}, "gifts": {"persona_id"},
        "taught": {"persona_id", "right"},
        "comparisons": {"persona_id", "prompt_id", "version_a", "version_b", "choice"}, "memories": {"persona_id"},
        "gone": {"kind", "id"}, "forgettings": {"person", "step", "traces", "receipt"},
        "withdrawn": {"persona_id", "version"},
    }  # fmt: skip
    read = {table.name: set(table.texts) for table in PERSONAL_TABLES}
    raw = sqlite3.connect(":memory:")
    raw.executescript(";".join(script for _, script in scripts_after(0)))
    for (table,) in raw.execute(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
    ):
        texts = {
            name
            for _, name, kind, *_ in raw.execute(f"pragma table_info({table})")
            if kind == "TEXT"
        }
        known = nobody.get(table, set()) | read.get(table, set())
        assert texts <= known, f"{table}: {texts - known}"


def test_every_column_with_a_member_is_erased_or_emptied():
    statements = [*DELETE_STATEMENTS.values(), *ANONYMISE_STATEMENTS.values()]
    people = {table.name: table.people for table in PERSONAL_TABLES}
    raw = sqlite3.connect(":memory:")
    raw.executescript(";".join(script for _, script in scripts_after(0)))
    columns = raw.execute("""select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c
        where t.type = 'table' and (c.name in ('user_id', 'author_id') or c.name like '%\\_by' escape '\\')""")
    for table, column in columns.fetchall():
        handled = [sql for sql in statements if table in sql and f"{column} = :user" in sql]
        assert handled and column in people[table], f"{table}.{column}"


def test_settings_of_direct_messages_go_with_who_talks_there(home):
    with opened(home) as store:
        for guild_id, channel_id in ((0, DIRECT), (GUILD, CHANNEL)):
            scope = SettingScope(guild_id, channel_id=channel_id)
            store.settings.change(scope, {"wait_s": 3.0})
        store.erasure.erase(WHO, time.time(), str)
        assert store.settings.get(SettingScope(GUILD, channel_id=CHANNEL)) == {"wait_s": 3.0}
        assert not store.settings.get(SettingScope(0, channel_id=DIRECT))


async def test_the_bot_itself_finishes_at_its_start_before_it_serves_anybody(home, tiny_base):
    with opened(home) as store:
        begin(home, store)
    settings = load_settings(
        None,
        {
            "UNDERSTUDY_HOME": str(home),
            "BASE_MODEL": tiny_base.source,
            "WEB_PORT": "0",
            "MAX_NEW_TOKENS": "8",
        },
    )
    async with app.open_app(settings, ShippedData.from_source_tree()) as running:
        assert left_of_them(home) == [], "before anybody is served"
        await until(lambda: not running.services.store.erasure_requests.unfinished(), 30)
        (row,) = running.services.store.erasure_requests.of(
            keyed_person(HomeKey.of(home).people(), str(WHO))
        )
        (live,) = [one for one in receipt_of(row).withdrawn if one.now is not None]
        assert live.again is None and "embedded" in live.why_not, (
            "asked for with a base model that is not served here"
        )
        assert running.services.store.versions.live("oda", 0) == "v1"
    assert left_of_them(home) == []


def test_the_names_that_they_gave_to_trainings_go_and_what_was_trained_stays(home):
    """Also where the name is a word that stands elsewhere: only where it is a job's is it another
    afterwards.
    """
    (home / "jobs" / "jobX").mkdir()
    with opened(home) as store:
        for job_id, name, who in (("jobX", "ferry", WHO), ("jobY", "tides", OTHER)):
            request = TrainingRequest(job_name=name, task_type="dialogue", dataset="harbour")
            store.jobs.add(NewTrainingJob(job_id, GUILD, CHANNEL, who, request), 40.0)
            claimed = store.jobs.claim(store.jobs.get(job_id), job_id, 41.0)
            folder = home / "models" / "dialogue" / name
            write_adapter(folder)
            done = JobResult(adapter=str(folder), seconds=1.0, scorecard=SCORECARD)
            store.jobs.complete(job_id, claimed.attempt_token, done, 42.0)
        asked = store.jobs.get("jobX").request
    spec = JobSpec(
        job_id="jobX", version="v1", request=asked, materials=(), serving_precision="float32"
    )
    (home / "jobs" / "jobX" / "request.json").write_text(spec.model_dump_json(indent=2))
    (home / "bot.log").write_text(
        f"12:00:00 INFO bot.training.queue: the job jobX begins: {asked.model_dump_json()}\n"
    )
    (home / "events.jsonl").write_text(json.dumps({"job_name": "ferry", "at": 1}) + "\n")
    forget(home)
    assert (home / "jobs" / "jobX" / "request.json").exists()
    text = "".join(
        (home / name).read_text() for name in ("jobs/jobX/request.json", "bot.log", "events.jsonl")
    )
    assert "ferry" not in text and "jobX begins" in text
    with opened(home) as store:
        job = store.jobs.get("jobX")
        place = home / "models" / "dialogue" / job.request.job_name
        assert job.request.job_name != "ferry" and job.name == f"dialogue/{job.request.job_name}"
        assert verify_adapter(place) and job.result.adapter == str(place)
        assert (
            store.jobs.get("jobY").request.job_name == "tides"
            and (home / "models" / "dialogue" / "tides").exists()
        )
    assert (
        JobSpec.model_validate_json((home / "jobs/jobX/request.json").read_bytes()).request
        == job.request
    )
    assert not (home / "models" / "dialogue" / "ferry").exists()
    assert "the ferry is late" in rows(home, "select text from messages order by seq")[0][0].lower()


def test_who_is_named_by_half_a_name_is_named_no_more_and_nothing_is_deleted_for_it(home):
    job = home / "jobs" / "job1"
    adapter = adapter_ref(home, "oda", "v1").folder
    (job / "notes.md").write_text("Ottoline keeps it well.\n")
    tides = home / "lore" / str(GUILD) / "oda" / "tides.md"
    tides.write_text("Ottoline keeps it well. Wendell does not.\n")
    broken = home / "talk" / "broken.json"
    broken.write_text('{"text": "Ottoline')
    with opened(home) as store:
        store.messages.append(
            guild_id=GUILD,
            channel_id=CHANNEL,
            author_id=OTHER,
            author_name="Wendell Park",
            text="Ask Ottoline.",
            at=5.0,
        )
    receipt = forget(home)
    assert tides.read_text() == "someone keeps it well. Wendell does not.\n"
    assert ("Ask someone.",) in rows(home, "select text from messages")
    assert (
        job.exists() and adapter.exists() and broken.exists() and receipt.lost == ("talk/scan.bin",)
    )


async def test_the_bot_goes_on_while_somebody_is_erased_from_a_large_database(tmp_path):
    """Deleting and redacting 20,000 messages leaves the event loop to others in between."""
    with opened(tmp_path) as store:
        with store.atomic():
            for number in range(20_000):
                is_theirs = number % 10 == 0
                named = "Quillverne" if number % 3 == 0 else "They"
                store.messages._db.write(
                    "insert into messages (guild_id, channel_id, ordinal, author_id, author_name, "
                    "text, at) "
                    "values (1, 2, :number, :author, :name, :text, 1.0)",
                    number=number, author=WHO if is_theirs else OTHER, name="Quillverne" if is_theirs else "Wendell",
                    text=f"My boat is number {number}." if is_theirs else f"{named} said: {OTHERS_LINE} {number}",
                )  # fmt: skip
        runner = forgetter(tmp_path, store)
        request = runner.begin(runner.traces(WHO, ["Quillverne"]))
        async with measured_loop() as delay:
            receipt = await runner.run(request)
    assert receipt.rows["messages"] == 2_000 and receipt.rows["mentions"] == 6_000
    assert delay.ticks > 30, "others have their turns between some hundred rows each"
    assert b"Quillverne" not in (tmp_path / "understudy.sqlite").read_bytes()
