"""The bot's own conversations as a data set: what is in it, who is not, and what a refusal says."""

import json
import stat

import pytest

from bot.privacy.store.people import ConsentDecision
from bot.store import Store
from bot.training.backends.job_folder_backend import write_job_folder
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.request_materials import gather_materials
from bot.training.store import NewTrainingJob
from bot.training.stored_datasets import write_history
from personas.errors import RequestError
from personas.home.data_subjects import Consent, read_consent, write_consent
from personas.home.job_folder import fill_job_folder
from personas.home.job_material import ShippedData
from personas.home.pseudonyms import JobKeys, pseudonym_dataset_name
from personas.schemas.training import JobSpec, TrainingRequest
from tests.fakes import FakeClock
from tests.rights_sources import (
    ADA,
    ANSWERED,
    ASKED,
    BO,
    CHANNEL,
    GUILD,
    MIRA,
    NAMES,
    PERMISSION,
    put_sources,
)

STATED = Consent(permission=PERMISSION)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "home" / "understudy.sqlite") as store:
        put_sources(store)
        yield store


@pytest.fixture
def shipped(tmp_path):
    """A source tree with Ada."""
    shipped = ShippedData.of(tmp_path / "source", cards=tmp_path / "source" / "cards")
    for folder in vars(shipped).values():
        folder.mkdir(parents=True, exist_ok=True)
    (shipped.cards / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (shipped.recipes / "demo-cpu.toml").touch()
    return shipped


def agree(store, *people):
    for who in people:
        store.people.decide(ConsentDecision(int(who), True, 1.0, "en"))


def log_of(store, tmp_path, guild_id=GUILD, persona="ada", consent=STATED):
    out = tmp_path / "history.jsonl"
    count = write_history(store, consent, guild_id, persona, out)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert count == len(lines) and stat.S_IMODE(out.stat().st_mode) == 0o600
    return lines


def test_members_who_opted_in_and_what_answered_them(store, tmp_path):
    agree(store, MIRA)
    lines = log_of(store, tmp_path)
    assert [line["text"] for line in lines if not line.get("is_bot")] == ASKED[MIRA]
    assert [line["text"] for line in lines if line.get("is_bot")] == ANSWERED[MIRA]
    assert {(line["author"], line["author_id"]) for line in lines} == {
        ("Mira Sandling", MIRA),
        ("Ada", "ada"),
    }
    ids = {line["id"] for line in lines}
    assert all(line["reply_to"] in ids for line in lines if line.get("is_bot"))
    agree(store, BO)
    assert len(log_of(store, tmp_path)) == 8
    store.people.decide(ConsentDecision(int(MIRA), False, 2.0, "en"))
    assert {line["author_id"] for line in log_of(store, tmp_path)} == {BO, "ada"}, (
        "whoever changes their mind is out"
    )


def say(store, who, text, number, answer, guild_id=GUILD, persona="ada"):
    """Something asked and answered besides."""
    place = {"guild_id": guild_id, "channel_id": 80}
    seq = store.messages.append(**place, author_id=int(who), author_name=NAMES[who], text=text, at=number * 1.0,
                                discord_message_id=number)  # fmt: skip
    store.replies.begin(
        number, **place, persona_id=persona, at=number, asked_by=int(who), trigger_seq=seq
    )
    store.replies.record_parts(number, [number + 1])
    store.messages.append(**place, author_id=0, author_name=persona.title(), text=answer, at=number + 1.0,
                          discord_message_id=number + 1, persona_id=persona)  # fmt: skip


def test_others_are_not_named_either(store, tmp_path):
    agree(store, MIRA)
    say(
        store,
        MIRA,
        f"Did bo tarn ask? <@{BO}>, @Bo Tarn!",
        9000,
        "Bo Tarn asks. Boat Tarnish stays, Ada too.",
    )
    asked, answered = log_of(store, tmp_path)[-2:]
    assert asked["text"] == "Did someone ask? someone, someone!"
    assert answered["text"] == "someone asks. Boat Tarnish stays, Ada too."


def test_other_servers_other_personas_and_direct_messages_are_not_in_it(store, tmp_path):
    agree(store, MIRA)
    say(store, MIRA, "elsewhere", 9000, "far", guild_id=GUILD + 1)
    say(store, MIRA, "to another", 9100, "another's", persona="oda")
    say(store, MIRA, "in private", 9200, "between us", guild_id=0)
    assert [line["text"] for line in log_of(store, tmp_path, persona="oda")] == [
        "to another",
        "another's",
    ]
    assert not {"elsewhere", "to another", "in private"} & {
        line["text"] for line in log_of(store, tmp_path)
    }
    with pytest.raises(RequestError, match="Direct messages"):
        log_of(store, tmp_path, guild_id=0)


def test_a_reply_whose_question_is_gone_is_not_taken(store, tmp_path):
    agree(store, MIRA)
    say(store, MIRA, "gone soon", 9000, "an answer to nothing")
    store.messages.delete(9000)
    assert "an answer to nothing" not in {line["text"] for line in log_of(store, tmp_path)}


@pytest.mark.parametrize(
    ("consent", "people", "words"),
    [
        (
            Consent(),
            (),
            ("DISCORD_PERMISSION (which is not stated)", "Of 2 members", "0 have opted in"),
        ),
        (Consent(), (MIRA,), ("which is not stated", "Of 2 members", "1 have opted in")),
        (STATED, (), ("which is stated", "/privacy opt-in", "0 have opted in")),
        (STATED, (ADA,), ("which is stated", "1 so far", "Of 2 members", "0 have opted in")),
    ],
    ids=["nothing", "no permission", "nobody", "nobody here"],
)
def test_a_refusal_says_what_would_be_needed(store, tmp_path, consent, people, words):
    agree(store, *people)
    with pytest.raises(RequestError, match="`history`") as refused:
        log_of(store, tmp_path, consent=consent)
    assert all(word in str(refused.value) for word in words)
    assert not (tmp_path / "history.jsonl").exists() and not list(tmp_path.glob(".history*"))


# ------------------------------------------------------------------------------------ as a data set


HISTORY = TrainingRequest(job_name="j", persona="ada", dataset="history")


def test_it_is_offered_only_where_the_permission_is_stated_and_to_no_server_else(
    store, shipped, tmp_path
):
    home = tmp_path / "home"
    catalogue = DatasetCatalog(shipped, "embedded", home, store)
    agree(store, MIRA)
    assert "history" not in catalogue.datasets()
    with pytest.raises(RequestError, match="DISCORD_PERMISSION"):
        gather_materials(catalogue, HISTORY, GUILD)
    write_consent(home, STATED)
    assert (
        "history" in catalogue.datasets()
        and "history" not in DatasetCatalog(shipped, "embedded", home).datasets()
    )
    log = gather_materials(catalogue, HISTORY, GUILD)[1]
    assert (log.kind, log.right, log.arrived, log.statement.why) == (
        "log",
        "discord-api",
        "",
        PERMISSION,
    )
    for guild_id in (0, GUILD + 1):
        with pytest.raises(RequestError):
            gather_materials(catalogue, HISTORY, guild_id)
    with pytest.raises(RequestError, match="trains a persona"):
        gather_materials(
            catalogue, TrainingRequest(job_name="j", task_type="dialogue", dataset="history"), GUILD
        )


def test_a_job_is_queued_for_the_server_that_asks_alone(store, shipped, tmp_path):
    home = tmp_path / "home"
    agree(store, MIRA)
    write_consent(home, STATED)
    catalogue = DatasetCatalog(shipped, "embedded", home, store)
    clock = FakeClock()
    backend = SubprocessBackend(
        home,
        catalogue,
        clock,
        threads=1,
        nice=0,
        serving_precision="float32",
        environ={},
        command=("true",),
    )
    queue = JobQueue(store, backend, clock)
    with pytest.raises(RequestError, match="0 have opted in"):
        queue.enqueue(HISTORY, guild_id=GUILD + 1, channel_id=CHANNEL, requested_by=1)
    assert (
        queue.enqueue(HISTORY, guild_id=GUILD, channel_id=CHANNEL, requested_by=1).state == "queued"
    )


def test_nobody_else_can_be_called_history(store, shipped, tmp_path):
    home = tmp_path / "home"
    (home / "mine.jsonl").write_text("{}")
    entry = '[history]\npath = "mine.jsonl"\nright = "form"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "so"\n'
    (home / "catalogue.toml").write_text(entry)
    with pytest.raises(RequestError, match="DISCORD_PERMISSION"):
        gather_materials(DatasetCatalog(shipped, "embedded", home, store), HISTORY, GUILD)


def test_who_opts_out_while_a_job_is_being_done_again_is_out(store, shipped, tmp_path):
    home = tmp_path / "home"
    agree(store, MIRA)
    write_consent(home, Consent(permission=PERMISSION, opted_in=frozenset({MIRA})))
    job = store.jobs.add(NewTrainingJob("j1", GUILD, CHANNEL, 1, HISTORY), 1.0)
    materials = gather_materials(DatasetCatalog(shipped, "embedded", home, store), HISTORY, GUILD)
    folder = write_job_folder(home, job, materials, precision="float32")
    assert read_consent(folder).opted_in == {MIRA}
    write_consent(home, STATED)
    assert write_job_folder(home, job, materials, precision="float32") == folder
    assert read_consent(folder) == STATED, (
        "the trainer reads it each time, and leaves out who is not in it"
    )


def test_a_job_folder_holds_it_with_the_keys_and_todays_consent(store, shipped, tmp_path):
    home = tmp_path / "home"
    folder = tmp_path / "job"
    agree(store, MIRA)
    write_consent(home, Consent(permission=PERMISSION, opted_in=frozenset({MIRA})))
    folder.mkdir()
    materials = gather_materials(DatasetCatalog(shipped, "embedded", home, store), HISTORY, GUILD)
    fill_job_folder(folder, home, "j1", "v1", HISTORY, materials, "float32")
    text = (folder / "material" / "history.jsonl").read_text(encoding="utf-8")
    assert (
        all(asked in text for asked in ASKED[MIRA]) and BO not in text and ASKED[BO][0] not in text
    )
    spec = JobSpec.model_validate_json((folder / "request.json").read_bytes())
    assert [(m.right, m.origin, m.format) for m in spec.materials if m.kind == "log"] == [
        ("discord-api", "history", "own-log")
    ]
    assert (
        JobKeys.in_folder(folder) == JobKeys.of(home, pseudonym_dataset_name(HISTORY))
        and pseudonym_dataset_name(HISTORY) == "ada/history"
    )
    assert read_consent(folder) == read_consent(home)
    assert {
        stat.S_IMODE((folder / name).stat().st_mode) for name in ("keys.json", "consent.json")
    } == {0o600}
