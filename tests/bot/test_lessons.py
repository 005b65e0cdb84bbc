"""Replies that members teach: who may, how they are taken back, and what a training takes of them
and of votes.
"""

import time

import pytest

from bot.privacy.consent_files import ConsentMirror
from bot.privacy.home_files import HomeFiles
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from bot.store import ConsentDecision, Lesson, Store
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from bot.training.store import JobResult, NewTrainingJob
from bot.training.stored_datasets import preferences_material
from bot.versions.blind_test.store import NewBlindComparison
from personas.errors import RequestError
from personas.home.adapters import adapter_ref, write_manifest
from personas.home.atomic_files import atomic_folder
from personas.home.job_folder import MATERIAL_FOLDER, ensure_job_folder
from personas.home.job_material import ShippedData
from personas.home.preferences import PREFERENCES_FILE, read_preferences
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY
from tests.fakes import until
from tests.personas.test_adapters import manifest
from tests.samples import SCORECARD

ASKED = "do you rust?"
ANSWERED = "Only where the gulls sit."
INSTEAD = "I am a language model."
GUILD = 7
THEIRS = 8
WHO = 900000000000000071
OTHER = 900000000000000072


async def response_text(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    assert answer.ephemeral
    return answer.message


async def teach(who, reply=ANSWERED, instead=INSTEAD):
    form = await who.slash(QUAY, "persona teach")
    return await who.submit(form, prompt=ASKED, reply=reply, instead=instead)


def opt_in(stage):
    stage.store.people.decide(ConsentDecision(int(stage.member.id), True, time.time(), "en"))


async def test_ten_long_lessons_have_room_in_a_message(stage):
    stage.moderator.set_locale("de")
    for number in range(10):
        stage.store.lessons.add(
            Lesson(
                guild_id=int(stage.sandbox.guild_id),
                persona_id="ballast",
                user_id=int(stage.moderator.id),
                prompt=f"{number} {'what then ' * 40}",
                reply="gulls " * 40,
                instead_of="",
                as_moderator=True,
                right="form",
                at=time.time(),
            )
        )
    listed = await response_text(await stage.moderator.slash(QUAY, "persona taught"), "`10` 9 what")
    assert listed["content"].endswith("…")


async def test_a_moderator_teaches_sees_it_and_takes_it_back(stage):
    form = await stage.moderator.slash(QUAY, "persona teach")
    assert form.modal["title"] == "Teach Ballast"
    assert not any(
        field.get("value")
        for row in form.modal["components"]
        for field in row.get("components", [row])
    )
    # What a restart of the bot leaves of an open form.
    stage.client._connection._view_store._modals.clear()
    sent = await stage.moderator.submit(form, prompt=ASKED, reply=ANSWERED, instead=INSTEAD)
    await response_text(sent, "**Ballast** should answer to that (number 1)")
    await response_text(
        await stage.moderator.slash(QUAY, "privacy show"),
        "Replies that you taught personas: 1.",
    )
    (lesson,) = stage.store.lessons.of_persona("ballast", stage.sandbox.guild_id)
    assert (lesson.prompt, lesson.reply, lesson.instead_of) == (ASKED, ANSWERED, INSTEAD)
    assert (lesson.user_id, lesson.as_moderator, lesson.right) == (
        int(stage.moderator.id),
        True,
        "form",
    )
    await response_text(
        await stage.moderator.slash(QUAY, "persona taught"), f"`1` {ASKED} → {ANSWERED}"
    )
    await stage.moderator.click(sent.message, "Undo")
    await until(lambda: stage.store.lessons.get(1) is None)
    await response_text(
        await stage.moderator.slash(QUAY, "persona unteach", number=1),
        "no taught reply 1",
    )


async def test_members_teach_once_they_have_opted_in_and_touch_only_their_own(stage):
    await response_text(await stage.member.slash(QUAY, "persona teach"), "once they have agreed")
    opt_in(stage)
    await response_text(await teach(stage.member), "(number 1)")
    await response_text(await teach(stage.moderator, "Hardly."), "(number 2)")
    shown = (
        await response_text(await stage.member.slash(QUAY, "persona taught"), "was taught 1 reply")
    )["content"]
    assert "Hardly." not in shown
    await response_text(
        await stage.member.slash(QUAY, "persona unteach", number=2),
        "no taught reply 2",
    )
    assert stage.store.lessons.get(2) and not stage.store.lessons.get(1).as_moderator
    await response_text(
        await stage.moderator.slash(QUAY, "persona unteach", number=1), "Taken back (number 1)"
    )
    await response_text(
        await teach(stage.member, ANSWERED, ANSWERED),
        "one it should not give",
    )


async def test_whom_a_persona_does_not_answer_teaches_it_nothing_and_may_take_back(stage):
    opt_in(stage)
    taught = await response_text(await teach(stage.member), "(number 1)")
    form = await stage.member.slash(QUAY, "persona teach")
    await stage.moderator.slash(QUAY, "moderation block", member=stage.member.id, persona="ballast")
    for answer in (
        await stage.member.submit(form, prompt=ASKED, reply=ANSWERED, instead=INSTEAD),
        await stage.member.slash(QUAY, "persona teach"),
    ):
        await response_text(answer, "Ballast does not answer you here")
    assert (await stage.member.slash(QUAY, "persona teach", persona="oda")).modal
    await stage.member.click(taught, "Undo")
    await until(lambda: stage.store.lessons.of_persona("ballast", stage.sandbox.guild_id) == [])


# -------------------------------------------------------------------------------------- as material


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def lesson(user_id=WHO, guild_id=GUILD, reply=ANSWERED, as_moderator=False):
    return Lesson(
        guild_id, "oda", user_id, as_moderator, ASKED, reply, "", "form", 86400.0 * 20_000
    )


def voted(store, choice, user_id=WHO, guild_id=GUILD, texts=("Aye.", "No.")):
    new = NewBlindComparison(
        guild_id, "oda", user_id, "p1", "is it late?", "v1", "v2", *texts, 1, 2
    )
    shown = store.comparisons.show(new, 86400.0 * 20_001 - 5.0)
    at = 86400.0 * 20_001
    assert store.comparisons.vote(shown.seq, user_id, choice, at)


def rows_of(home, store, guild_id=GUILD):
    file = home / "rows.jsonl"
    file.write_text(preferences_material(home, store, guild_id, "oda").text)
    return read_preferences(file)


def test_a_training_takes_votes_and_lessons_of_its_own_server_under_a_key(store, tmp_path):
    store.people.decide(ConsentDecision(WHO, True, 1.0, "en"))
    store.lessons.add(lesson())
    store.lessons.add(lesson(guild_id=THEIRS, reply="Elsewhere."))
    voted(store, "b")
    voted(store, "bad", OTHER)
    voted(store, "tie", OTHER)
    voted(store, "a", OTHER, texts=("Same.", "Same."))
    voted(store, "a", OTHER, THEIRS)
    taught, *votes = rows_of(tmp_path, store)
    key = HomeKey.of(tmp_path).people()
    assert (taught.kind, taught.chosen, taught.rejected, taught.by) == (
        "taught",
        ANSWERED,
        None,
        keyed_person(key, str(WHO)),
    )
    assert [(one.chosen, one.rejected) for one in votes] == [
        ("No.", "Aye."),
        (None, "Aye."),
        (None, "No."),
    ]
    assert {one.right for one in (taught, *votes)} == {"form"} and taught.at == "2024-10-04"
    assert len(rows_of(tmp_path, store, 0)) == 6
    assert str(WHO) not in (tmp_path / "rows.jsonl").read_text()


def test_who_has_opted_out_since_teaches_nothing_any_more_but_moderators_do(store, tmp_path):
    store.people.decide(ConsentDecision(WHO, True, 1.0, "en"))
    store.lessons.add(lesson())
    store.lessons.add(lesson(OTHER, as_moderator=True, reply="By a moderator."))
    assert len(rows_of(tmp_path, store)) == 2
    store.people.decide(ConsentDecision(WHO, False, 2.0, "en"))
    assert [one.chosen for one in rows_of(tmp_path, store)] == ["By a moderator."]


def version(home, store, name):
    """A version of Oda that may be trained on."""
    job_id = f"job-{name}"
    store.jobs.add(
        NewTrainingJob(job_id, GUILD, 1, 1, TrainingRequest(job_name=job_id, persona="oda")), 1.0
    )
    claimed = store.jobs.claim(store.jobs.get(job_id), "token", 1.0)
    with atomic_folder(adapter_ref(home, "oda", name).folder) as aside:
        (aside / "adapter_model.safetensors").write_bytes(b"weights")
        (aside / "adapter_config.json").write_text("{}")
        write_manifest(
            aside,
            manifest().model_copy(
                update={"persona": "oda", "version": name, "rights": {"own-writing": 3}}
            ),
        )
    store.jobs.complete(
        job_id, claimed.attempt_token, JobResult(adapter="", seconds=1, scorecard=SCORECARD), 2.0
    )


def asked(**more):
    return TrainingRequest(job_name="p", persona="oda", task_type="preference", **more)


def test_a_preference_job_takes_the_live_version_or_the_one_that_is_named(store, tmp_path):
    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path, store)
    ConsentMirror(tmp_path, store, "").mirror()
    store.lessons.add(lesson(as_moderator=True))
    assert asked().recipe == "preference" and asked(recipe="demo-cpu").recipe == "demo-cpu"
    with pytest.raises(RequestError, match="no version yet"):
        gather_materials(catalogue, asked(), GUILD)
    version(tmp_path, store, "v1")
    version(tmp_path, store, "v2")
    assert [
        it.origin for it in gather_materials(catalogue, asked(), GUILD) if it.kind == "adapter"
    ] == ["v2"]
    store.versions.promote("oda", "v1", 5, 3.0)
    assert [
        it.origin for it in gather_materials(catalogue, asked(), GUILD) if it.kind == "adapter"
    ] == ["v1"]
    materials = gather_materials(catalogue, asked(start_from="v2"), GUILD)
    assert [it.kind for it in materials] == [
        "card", "log", "lore", "general", "adapter", "preferences",
    ]  # fmt: skip
    with pytest.raises(RequestError, match="no version 'v9'"):
        gather_materials(catalogue, asked(start_from="v9"), GUILD)
    with pytest.raises(RequestError, match="Nobody has taught"):
        gather_materials(catalogue, asked(), THEIRS)


def test_whoever_gave_a_preference_is_found_in_the_folder_of_a_job_that_waits(store, tmp_path):
    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path, store)
    voted(store, "a")
    version(tmp_path, store, "v1")
    request = asked()
    materials = gather_materials(catalogue, request, GUILD)
    folder = ensure_job_folder(
        tmp_path / "jobs" / "j", tmp_path, "j", "v2", request, materials, "float32"
    )
    assert read_preferences(folder / MATERIAL_FOLDER / PREFERENCES_FILE)
    key = HomeKey.of(tmp_path).people()
    holds = [
        HomeFiles(
            tmp_path, IdentifierMatcher(PersonIdentifiers()), [keyed_person(key, str(who))]
        ).contains_person(folder)
        for who in (WHO, OTHER)
    ]
    assert holds == [True, False]
