"""Trainings that go on from a dialogue adapter or mix general dialogue in, asked for on Discord;
and whose adapters.
"""

import json

import pytest

from bot.store import Store
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import gather_materials
from bot.training.store import NewTrainingJob
from personas.errors import RequestError
from personas.home.adapters import MANIFEST_FILE, dialogue_adapter_folder
from personas.home.job_material import ShippedData
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY
from tests.bot.test_finetune import start
from tests.fakes import until

MINE = 7
THEIRS = 8


def adapter_named(home, name, job_id):
    place = dialogue_adapter_folder(home, name)
    place.mkdir(parents=True)
    (place / MANIFEST_FILE).write_text(json.dumps({"job_id": job_id}))


async def choices(stage, option, command="finetune start"):
    found = await stage.moderator.autocomplete(QUAY, command, option, **{option: ""})
    return [choice["value"] for choice in found]


async def test_the_form_takes_both_and_offers_what_there_is(stage, tmp_path):
    adapter_named(tmp_path, "manners_v1", "by hand")
    for command in ("finetune start", "finetune preview"):
        assert await choices(stage, "start_from", command) == ["manners_v1"]
        assert (await choices(stage, "general", command))[0] == "general-dialogue"
    await start(stage, general="general-dialogue", start_from="manners_v1", recipe="mixed-80-20")
    await until(lambda: stage.backend.busy)
    asked = stage.backend.runs[0].request
    assert (asked.general, asked.start_from, asked.recipe) == (
        "general-dialogue",
        "manners_v1",
        "mixed-80-20",
    )


def test_what_does_not_go_together_is_refused():
    general = "general-dialogue"
    with pytest.raises(ValueError, match="leave general out"):
        TrainingRequest(job_name="j", task_type="dialogue", dataset=general, general=general)


async def test_a_cancelled_training_without_a_persona_says_so(stage):
    await start(stage, task_type="dialogue", dataset="general-dialogue")
    await until(lambda: stage.backend.busy)
    (job,) = stage.store.jobs.in_state("running")
    stage.client.services.trainings.cancel(job.job_id)
    await stage.sees(f"Cancelled: **{job.version}**")


@pytest.fixture
def catalogue(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for job_id, guild_id in (("j7", MINE), ("j8", THEIRS), ("j0", 0)):
            request = TrainingRequest(
                job_name=job_id, task_type="dialogue", dataset="general-dialogue"
            )
            store.jobs.add(NewTrainingJob(job_id, guild_id, 1, 1, request), 1.0)
        for name, job_id in (
            ("mine", "j7"),
            ("theirs", "j8"),
            ("operators", "j0"),
            ("by_hand", "nobody's"),
        ):
            adapter_named(tmp_path, name, job_id)
        yield DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path, store)


def test_a_server_starts_from_its_own_and_the_operators_adapters_and_sees_no_other(catalogue):
    assert catalogue.dialogue_adapters(MINE) == ["by_hand", "mine", "operators"]
    assert catalogue.dialogue_adapters(9) == ["by_hand", "operators"]
    assert catalogue.dialogue_adapters() == ["by_hand", "mine", "operators", "theirs"]
    request = TrainingRequest(job_name="j", persona="oda", start_from="theirs")
    with pytest.raises(RequestError) as refused:
        gather_materials(catalogue, request, MINE)
    assert "'theirs'" in refused.value.message
    assert str(refused.value).endswith(": by_hand, mine, operators.")


def test_without_any_it_is_said_how_one_is_made(tmp_path):
    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path)
    request = TrainingRequest(job_name="j", persona="oda", start_from="manners")
    with pytest.raises(RequestError, match="task_type dialogue"):
        gather_materials(catalogue, request, MINE)


def test_general_dialogue_is_what_ships_and_the_operators(tmp_path):
    (tmp_path / "talk.jsonl").write_text("{}")
    (tmp_path / "catalogue.toml").write_text(
        '[talk]\npath = "talk.jsonl"\nright = "own-writing"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "mine"\n'
    )
    assert DatasetCatalog(ShippedData.from_source_tree(), "embedded", tmp_path).dialogues() == [
        "general-dialogue",
        "talk",
    ]
