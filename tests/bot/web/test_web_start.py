"""`POST /finetune/start-training`: what is taken, what is refused, and what would work instead."""

import asyncio
import copy
import json
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.training import actions, request_checks
from bot.training.request_materials import gather_materials
from bot.training.training_plan import MemoryOption, RecipeEstimate
from personas.errors import TrainingError
from personas.home.rights import REQUEST_STATEMENT
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.schemas.training import Teacher, TrainingRequest
from tests.bot.web.conftest import LITERAL, put_talk
from tests.fakes import PLAN

POST = "/finetune/start-training"
GIB = 2**30


# -------------------------------------------------------------------------------------------- taken


async def test_a_job_is_queued_and_where_it_is_said(dashboard):
    status, body, headers = await dashboard.start()
    job = dashboard.store.jobs.get(body["job_id"])
    assert (
        status == 202
        and headers["Location"] == f"/finetune/jobs/{job.job_id}" == body["links"]["self"]
    )
    assert (
        (body["state"], body["place"], body["guild"])
        == ("queued", 1, "0")
        == (job.state, 1, str(job.guild_id))
    )
    assert (body["plan"]["steps"], body["plan"]["memory_bytes"]) == (30, 4 * GIB) and body[
        "notes"
    ] == []
    assert (await dashboard.start(job_name="second"))[1]["place"] == 2


async def test_without_a_base_model_the_served_one_is_meant(dashboard):
    _, body, _ = await dashboard.start()
    assert body["request"]["base_model"] == "embedded"


async def test_a_persona_takes_its_own_log(dashboard):
    status, body, _ = await dashboard.start(task_type="persona", persona="oda", dataset=None)
    assert (
        status == 202
        and body["persona"] == "oda"
        and body["versions"] == {"live": None, "installed": []}
    )


async def test_a_signed_file_folder_or_catalogue_entry_is_material_like_any_other(
    dashboard, tmp_path, monkeypatch
):
    file = put_talk(tmp_path / "talks")
    (dashboard.home / "data" / "set").mkdir(parents=True)
    (dashboard.home / "data" / "set" / "a.jsonl").write_text("{}")
    signed = 'right = "licensed:CC0-1.0"\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "Free."\n'
    (dashboard.home / "data" / "rights.toml").write_text(f'["set"]\n{signed}')
    listed = put_talk(tmp_path / "listed", "more.jsonl", signed=False)
    (dashboard.home / "catalogue.toml").write_text(
        f'[more]\npath = "{listed}"\nformat = "messages"\n{signed}'
    )
    monkeypatch.chdir(tmp_path)
    for path, right, form in (
        (str(file), "own-writing", None),
        ("talks/talk.jsonl", "own-writing", None),
        ("talks/../talks/talk.jsonl", "own-writing", None),
        ("data/set", "licensed:CC0-1.0", None),
        (str(listed), "licensed:CC0-1.0", "messages"),
    ):
        request = TrainingRequest(job_name="a", task_type="dialogue", dataset_path=path)
        material = gather_materials(dashboard.backend.catalogue, request)[0]
        assert (material.kind, material.right, material.format) == ("messages", right, form), path
        assert str(tmp_path) not in material.origin, "a data sheet goes with the adapter"
    status, body, _ = await dashboard.start(dataset=None, dataset_path=str(file))
    assert status == 202 and dashboard.store.jobs.get(body["job_id"]).request.dataset_path == str(
        file
    )


async def test_a_right_in_the_request_is_recorded_with_its_day_and_only_where_none_is_stated(
    dashboard, tmp_path
):
    file = put_talk(tmp_path / "talks", signed=False)
    fields = {"dataset": None, "dataset_path": str(file)}
    status, refused, _ = await dashboard.start(**fields)
    assert status == 422 and "nobody has stated a right" in refused["errors"][0]["detail"]
    for wrong in ({**fields, "right": "mine"}, {"right": "own-writing"}):
        assert (await dashboard.start(**wrong))[0] == 422
    status, body, _ = await dashboard.start(**fields, right="licensed:CC0-1.0")
    assert status == 202, body
    request = dashboard.store.jobs.get(body["job_id"]).request
    stated = gather_materials(dashboard.backend.catalogue, request)[0].statement
    assert (stated.right, stated.stated_by) == ("licensed:CC0-1.0", REQUEST_STATEMENT)
    assert stated.stated_on == datetime.now(UTC).date().isoformat()
    put_talk(tmp_path / "talks")
    stated = gather_materials(dashboard.backend.catalogue, request)[0].statement
    assert (stated.right, stated.stated_by) == ("own-writing", "Mina Vale")
    status, refused, _ = await dashboard.start(
        dataset=None, dataset_path=str(put_talk(tmp_path / "b", signed=False)), right="discord-api"
    )
    assert status == 422 and "Discord" in refused["errors"][0]["detail"]


async def test_members_of_a_server_still_name_no_paths_and_no_other_model(dashboard, tmp_path):
    for fields in (
        {"dataset_path": str(put_talk(tmp_path))},
        {"dataset": "general-dialogue", "base_model": "other"},
    ):
        request = TrainingRequest(job_name="a", task_type="dialogue", **fields)
        gather_materials(dashboard.backend.catalogue, request, 0)
        with pytest.raises(Exception, match=r"cannot be (named|served) here"):
            gather_materials(dashboard.backend.catalogue, request, 7)


async def test_another_base_model_than_the_served_one_trains_and_that_is_said_before(
    dashboard, tiny_base, caplog
):
    status, body, _ = await dashboard.start(base_model=tiny_base.source)
    assert status == 202
    (note,) = body["notes"]
    assert "serves embedded" in note and "cannot be served here" in caplog.text
    (again,) = (await dashboard.ask("GET", body["links"]["self"]))[1]["notes"]
    assert again == note


# ------------------------------------------------------------------------------------------ refused


async def test_the_literal_body_passes_the_schema_and_is_refused_with_what_would_work(dashboard):
    assert TrainingRequest(**LITERAL).hyperparameters.per_device_train_batch_size == 4
    status, body, headers = await dashboard.ask("POST", POST, json=LITERAL)
    assert status == 422 and headers["Content-Type"] == "application/problem+json"
    assert body["type"] == "/problems/cannot-train"
    errors = {error["field"]: error["detail"] for error in body["errors"]}
    assert "'Qwen/Qwen2.5-3B-Instruct' is not on" in errors["base_model"]
    assert "no 'data/oasst2' on" in errors["dataset_path"]
    assert "from UNDERSTUDY_HOME" in errors["dataset_path"] and dashboard.store.jobs.page(1) == []
    assert body["would_work"] == {
        "job_name": "dialogue_v1", "task_type": "dialogue", "dataset": "general-dialogue",
        "hyperparameters": LITERAL["hyperparameters"],
    }  # fmt: skip
    assert (await dashboard.ask("POST", POST, json=body["would_work"]))[0] == 202, "it is true"


async def test_a_teacher_that_is_not_here_is_refused_before_anything_is_queued(dashboard):
    teacher = {"model": "nobody/nothing", "licence": "MIT"}
    asked = {"persona": "oda", "task_type": "persona", "dataset": None, "recipe": "demo-cpu"}
    status, body, _ = await dashboard.start(**asked, from_card=1, teacher=teacher)
    assert status == 422 and [error["field"] for error in body["errors"]] == ["teacher"]
    assert "'nobody/nothing' is not on" in body["detail"] and dashboard.store.jobs.page(1) == []
    server = teacher | {"url": "http://127.0.0.1:1/v1"}
    assert (await dashboard.start(**asked, from_card=1, teacher=server))[0] == 202


async def test_without_a_teacher_that_of_the_settings_writes(dashboard, monkeypatch):
    trainings = dashboard.services.trainings
    teacher = Teacher(model="big", url="http://127.0.0.1:1/v1", licence="MIT")
    monkeypatch.setattr(trainings, "_checks", replace(trainings._checks, teacher=teacher))
    own_log = {"job_name": "voice", "persona": "oda", "recipe": "demo-cpu"}
    asked = {**own_log, "from_card": 1}
    form = {"persona": "oda", "dataset": "from:card", "recipe": "demo-cpu"}
    status, _, headers = await dashboard.submit("/dashboard/data/plan", **form)
    assert status == 303
    _, page, _ = await dashboard.page(headers["Location"])
    assert "lore are sent to the server <code>127.0.0.1</code>" in page
    assert dashboard.backend.plans[-1].teacher == teacher
    elsewhere = await dashboard.ask("POST", POST, json={**asked, "base_model": "nobody/nothing"})
    assert elsewhere[1]["would_work"] == asked, "it proposes changes of what was sent"
    assert await written_by(dashboard, asked) == teacher.model_dump()
    assert await written_by(dashboard, {**asked, "teacher": None}) is None, "the base model"
    assert await written_by(dashboard, own_log) is None, "nothing is written"


async def written_by(dashboard, body):
    """The teacher of the job that a body starts, which is cancelled then."""
    _, started, _ = await dashboard.ask("POST", POST, json=body)
    dashboard.queue.cancel(started["job_id"])
    return started["request"].get("teacher")


async def test_what_would_work_fits_into_memory_too(dashboard, monkeypatch):
    monkeypatch.setattr(request_checks, "available_memory_bytes", lambda: 8 * GIB)
    dashboard.backend.planned = planned(9 * GIB, [(HALF, 7 * GIB)])
    would_work = (await dashboard.ask("POST", POST, json=LITERAL))[1]["would_work"]
    assert would_work["hyperparameters"] == {**LITERAL["hyperparameters"], **HALF}
    dashboard.backend.planned = planned(9 * GIB)
    status, body, _ = await dashboard.ask("POST", POST, json=LITERAL)
    assert status == 422 and "would_work" not in body and "would_work" not in body["advice"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda home, file: (file.parent / "rights.toml").unlink(),
            'nobody has stated a right.*\\["talk.jsonl"\\]',
        ),
        (
            lambda home, file: (file.parent / "rights.toml").write_text("["),
            "rights.toml cannot be read",
        ),
        (lambda home, file: file.unlink(), "There is no .* on this machine"),
        (
            lambda home, file: (file.unlink(), file.mkdir(), (file / "a").symlink_to(home)),
            "link to a folder",
        ),
        (
            lambda home, file: (file.unlink(), file.mkdir(), (file / "a").symlink_to("nowhere")),
            "cannot be read",
        ),
    ],
)
async def test_a_path_without_a_right_or_that_cannot_be_copied(dashboard, tmp_path, change, said):
    file = put_talk(tmp_path / "talks")
    change(dashboard.home, file)
    status, body, _ = await dashboard.start(dataset=None, dataset_path=str(file))
    assert status == 422 and dashboard.store.jobs.page(1) == []
    (error,) = body["errors"]
    assert error["field"] == "dataset_path"
    assert re.search(said, error["detail"]), error["detail"]


async def test_the_bots_own_home_is_no_data_set(dashboard):
    for path in (str(dashboard.home), str(dashboard.home.parent)):
        (dashboard.home.parent / "rights.toml").write_text("")
        status, body, _ = await dashboard.start(dataset=None, dataset_path=path)
        assert status == 422 and "own home" in body["detail"]


async def test_discords_talk_needs_what_it_needs_elsewhere(dashboard, tmp_path):
    file = put_talk(tmp_path / "talks")
    rights = file.parent / "rights.toml"
    rights.write_text(rights.read_text().replace("own-writing", "discord-api"))
    status, body, _ = await dashboard.start(dataset=None, dataset_path=str(file))
    assert status == 422 and "DISCORD_PERMISSION" in str(body["errors"])


async def test_a_hub_id_that_was_fetched_needs_an_entry_in_the_catalogue(
    dashboard, tmp_path, monkeypatch
):
    cached = tmp_path / "hub" / "datasets--harbour--talk"
    put_talk(cached / "snapshots" / "abc", signed=False)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    status, body, _ = await dashboard.start(dataset=None, dataset_path="harbour/talk")
    assert status == 422
    for fact in ("catalogue.toml in UNDERSTUDY_HOME", 'hub = "harbour/talk"'):
        assert fact in str(body["errors"])
    (dashboard.home / "catalogue.toml").write_text(
        '[talk]\nhub = "harbour/talk"\nright = "licensed:MIT"\nstated_by = "Mina"\nstated_on = 2026-11-20\nwhy = "So."'
    )
    assert (await dashboard.start(dataset=None, dataset_path="harbour/talk"))[0] == 202
    request = TrainingRequest(job_name="a", task_type="dialogue", dataset_path="harbour/talk")
    material = gather_materials(dashboard.backend.catalogue, request)[0]
    assert (material.origin, material.right, [file.name for file in material.copies[0][0].iterdir()]) == (
        "harbour/talk", "licensed:MIT", ["talk.jsonl"],
    )  # fmt: skip


async def test_unknown_names_are_reported_with_the_known(dashboard):
    for fields, said in [
        ({"persona": "adda", "task_type": "persona", "dataset": None}, "no persona 'adda'"),
        ({"dataset": "nothing"}, "no data set 'nothing'"),
        ({"recipe": "fast"}, "'fast'. Known: auto"),
        ({"recipe": "Nope"}, "no recipe 'Nope'. Known: auto"),
        ({"recipe": ""}, "no recipe ''. Known: auto"),
    ]:
        status, body, _ = await dashboard.start(**fields)
        assert status == 422 and said in json.dumps(body).replace('\\"', '"'), fields


async def test_every_wrong_field_is_named_with_what_is_allowed(dashboard):
    status, body, _ = await dashboard.start(
        job_name="no spaces", seed=1,
        hyperparameters={"learning_rate": 2, "num_train_epochs": 0, "optim": "sgd", "lerning_rate": 1, "lora_r": "x"},
    )  # fmt: skip
    assert status == 422 and body["type"] == "/problems/invalid-request"
    errors = {error["field"]: error for error in body["errors"]}
    assert errors["hyperparameters.learning_rate"]["allowed"] == "a number from 1e-07 to 0.01"
    assert errors["hyperparameters.learning_rate"]["pointer"] == "#/hyperparameters/learning_rate"
    assert errors["hyperparameters.num_train_epochs"]["allowed"] == "a number above 0 to 50"
    assert errors["hyperparameters.lora_r"]["allowed"] == "a whole number from 1 to 256"
    assert errors["hyperparameters.optim"]["allowed"].startswith("one of adamw_torch, ")
    assert "did you mean learning_rate?" in errors["hyperparameters.lerning_rate"]["detail"]
    assert "recipe" in errors["seed"]["allowed"] and errors["job_name"]["got"] == "'no spaces'"
    assert "up to 64 letters, digits, - and _" in errors["job_name"]["detail"]
    assert "^" not in errors["job_name"]["allowed"]


async def test_fields_that_do_not_go_together_are_named(dashboard):
    for fields, field in [
        ({"task_type": "persona", "dataset": None}, "persona"),
        ({"persona": "oda"}, "persona"),
        ({"dataset_path": "x"}, "dataset_path"),
        ({"general": "general-dialogue"}, "general"),
    ]:
        status, body, _ = await dashboard.start(**fields)
        assert status == 422 and [error["field"] for error in body["errors"]] == [field], fields


async def test_what_the_trainer_says_against_it_is_reported_without_the_machines_folders(
    dashboard, monkeypatch
):
    async def plan(request, guild_id):
        raise TrainingError(
            f"{tempfile.gettempdir()}/understudy-preview-ab12/material/talk.jsonl in "
            f"{dashboard.home}/x holds no "
            "talk.",
            "Add it.",
        )

    monkeypatch.setattr(dashboard.backend, "plan", plan)
    status, body, _ = await dashboard.start()
    assert (status, body["detail"]) == (422, "talk.jsonl in UNDERSTUDY_HOME/x holds no talk.")
    assert body["advice"] == "Add it." and dashboard.store.jobs.page(1) == []


# ------------------------------------------------------------------------------------------- memory


def planned(own, lighter=(), others=()):
    recipes = [
        RecipeEstimate(recipe=name, steps=1, seconds=1, memory_bytes=need, basis="")
        for name, need in others
    ]
    mine = RecipeEstimate(recipe="demo-cpu", steps=1, seconds=1, memory_bytes=own, basis="")
    ways = tuple(MemoryOption(set=changes, memory_bytes=need) for changes, need in lighter)
    return PLAN.model_copy(update={"recipes": (*recipes, mine), "lighter": ways})


HALF = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
SHORT = {**HALF, "max_length": 320}


async def test_what_does_not_fit_is_refused_with_what_would(dashboard, monkeypatch):
    monkeypatch.setattr(request_checks, "available_memory_bytes", lambda: 8 * GIB)
    for plan, would_work in [
        (
            planned(9 * GIB, [(HALF, 7 * GIB), (SHORT, 3 * GIB)]),
            {"hyperparameters": {"learning_rate": 2e-4, **HALF}},
        ),
        (
            planned(9 * GIB, [(HALF, 9 * GIB), (SHORT, 3 * GIB)]),
            {"hyperparameters": {"learning_rate": 2e-4, **SHORT}},
        ),
        (
            planned(9 * GIB, [(HALF, 9 * GIB)], [("s1-t4", 8 * GIB), ("s0-6gb", 6 * GIB)]),
            {"recipe": "s1-t4", "hyperparameters": {"learning_rate": 2e-4}},
        ),
        (planned(9 * GIB), None),
    ]:
        dashboard.backend.planned = plan
        status, body, _ = await dashboard.start(
            hyperparameters={"learning_rate": 2e-4, "per_device_train_batch_size": 4}
        )
        assert (
            status == 422
            and body["type"] == "/problems/no-memory"
            and dashboard.store.jobs.page(1) == []
        ), would_work
        assert "9.0 GiB of memory" in body["detail"] and "8.0 GiB are free" in body["detail"], (
            would_work
        )
        assert (body["needed_bytes"], body["free_bytes"]) == (9 * GIB, 8 * GIB), would_work
        if would_work is None:
            assert "would_work" not in body and "smaller base model" in body["advice"], would_work
        else:
            given = {
                "job_name": "harbour",
                "task_type": "dialogue",
                "dataset": "general-dialogue",
                **would_work,
            }
            assert body["would_work"] == given, would_work


async def test_a_teacher_that_does_not_fit_is_named(dashboard, monkeypatch):
    monkeypatch.setattr(request_checks, "available_memory_bytes", lambda: 8 * GIB)
    plan = planned(9 * GIB)
    mine = plan.recipes[-1].model_copy(update={"memory": {"writing": GIB}})
    dashboard.backend.planned = plan.model_copy(update={"recipes": (*plan.recipes[:-1], mine)})
    status, body, _ = await dashboard.start()
    assert status == 422 and body["advice"] == SMALLER_TEACHER_ADVICE


async def test_where_nothing_makes_another_model_fit_the_served_one_is_proposed(
    dashboard, monkeypatch, tiny_base
):
    monkeypatch.setattr(request_checks, "available_memory_bytes", lambda: 8 * GIB)

    async def plan(request, guild_id):
        return planned(9 * GIB if request.base_model == tiny_base.source else 2 * GIB)

    monkeypatch.setattr(dashboard.backend, "plan", plan)
    status, body, _ = await dashboard.start(base_model=tiny_base.source)
    assert status == 422
    assert body["would_work"] == {
        "job_name": "harbour",
        "task_type": "dialogue",
        "dataset": "general-dialogue",
    }


def test_what_a_trainer_holds_counts_as_free(monkeypatch):
    class Child:
        def memory_info(self):
            return type("Memory", (), {"rss": 3 * GIB})

    class Process:
        def children(self, recursive):
            return [Child()]

    monkeypatch.setattr(
        request_checks.psutil, "virtual_memory", lambda: type("All", (), {"available": GIB})
    )
    monkeypatch.setattr(request_checks.psutil, "Process", Process)
    assert request_checks.available_memory_bytes() == 4 * GIB


# -------------------------------------------------------------------------------------------- twice


async def test_the_same_key_and_request_are_one_job(dashboard):
    key = {"Idempotency-Key": "5f1c-ab"}
    first = await dashboard.start(key)
    again = await dashboard.start(key)
    assert first[0] == again[0] == 202 and first[1]["job_id"] == again[1]["job_id"]
    assert first[2]["Location"] == again[2]["Location"] and len(dashboard.backend.plans) == 1
    assert (await dashboard.start(key, hyperparameters={"seed": None}))[1]["job_id"] == first[1][
        "job_id"
    ], "it says the same"
    dashboard.queue.cancel(first[1]["job_id"])
    assert (await dashboard.start(key))[1]["state"] == "cancelled", "a key is used once"


async def test_the_same_key_with_another_request_is_a_conflict(dashboard):
    key = {"Idempotency-Key": "5f1c-ab"}
    job_id = (await dashboard.start(key))[1]["job_id"]
    status, body, _ = await dashboard.start(key, job_name="other")
    assert status == 409 and body["type"] == "/problems/key-used" and body["job"].endswith(job_id)
    assert (await dashboard.start({"Idempotency-Key": "another"}, job_name="other"))[0] == 202


async def test_sent_twice_at_once_it_is_one_job(dashboard, monkeypatch):
    plan = dashboard.backend.plan

    async def slow(request, guild_id):
        await asyncio.sleep(0.05)
        return await plan(request, guild_id)

    monkeypatch.setattr(dashboard.backend, "plan", slow)
    key = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(dashboard.start(key) for _ in range(3)))
    assert {status for status, _, _ in answers} == {202}
    assert len({body["job_id"] for _, body, _ in answers}) == 1 == len(dashboard.store.jobs.page(9))


async def test_jobs_in_the_way_are_a_conflict(dashboard):
    first = (await dashboard.start())[1]["job_id"]
    status, body, _ = await dashboard.start()
    assert status == 409 and first in body["detail"] and body["type"] == "/problems/conflict"


async def test_too_many_at_once_are_reported_to_wait(dashboard, monkeypatch):
    held = asyncio.Event()

    async def plan(request, guild_id):
        await held.wait()
        return PLAN

    monkeypatch.setattr(dashboard.backend, "plan", plan)
    monkeypatch.setattr(actions, "MAX_WAITING_CHECKS", 2)
    first = [asyncio.create_task(dashboard.start(job_name=f"j{n}")) for n in range(2)]
    await asyncio.sleep(0.05)
    status, _, headers = await dashboard.start(job_name="third")
    assert status == 503 and headers["Retry-After"]
    held.set()
    assert [(await one)[0] for one in first] == [202, 202]
    assert (await dashboard.start(job_name="third"))[0] == 202


async def test_a_bot_that_ends_while_it_checks_queues_nothing(dashboard, monkeypatch):
    async def plan(request, guild_id):
        dashboard.front.close()
        return PLAN

    monkeypatch.setattr(dashboard.backend, "plan", plan)
    assert (await dashboard.start())[0] == 503 and dashboard.store.jobs.page(1) == []


# --------------------------------------------------------------------------------------- bad bodies


async def test_a_packed_or_endless_body_is_not_read(dashboard):
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await dashboard.ask("POST", POST, data=b"\x1f\x8b", headers=packed))[0] == 415

    async def endless():
        for _ in range(64):
            yield b" " * 2**16

    status, _, _ = await dashboard.ask(
        "POST", POST, data=endless(), headers={"Content-Type": "application/json"}
    )
    assert status == 413


ODD = [
    "",
    "~nobody/x",
    "a\0b",
    "x" * 400,
    "\ud800",
    "/dev/zero",
    "/",
    "..",
    "owner/name",
    10**400,
    1e999,
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = st.sampled_from([*TrainingRequest.model_fields, "unknown"])
HYPER = st.sampled_from(
    [*TrainingRequest.model_fields["hyperparameters"].annotation.model_fields, "unknown"]
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.dictionaries(FIELDS, VALUES, max_size=3), hyper=st.dictionaries(HYPER, VALUES, max_size=3),
    leave=st.sets(FIELDS, max_size=2),
)  # fmt: skip
async def test_no_body_is_a_fault(dashboard, changes, hyper, leave):
    body = {**copy.deepcopy(LITERAL), **changes}
    if isinstance(body["hyperparameters"], dict):
        body["hyperparameters"] |= hyper
    body = {field: value for field, value in body.items() if field not in leave}
    data = json.dumps(body).replace("Infinity", "1e999").replace("NaN", "1e999")
    status, said, _ = await dashboard.ask(
        "POST", POST, data=data, headers={"Content-Type": "application/json"}
    )
    assert status in (400, 422) or (status in (202, 409) and dashboard.store.jobs.page(1))
    if status == 422:
        assert said.get("errors") or said["advice"]


async def test_a_body_that_breaks_off_is_no_fault(dashboard, caplog):
    for rest in [
        b"Content-Length: 500\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", int(dashboard.url.rpartition(":")[2])
        )
        writer.write(
            b"POST "
            + POST.encode()
            + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + rest
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.1)
        assert "error " not in caplog.text and (await dashboard.ask("GET", "/healthz"))[0] == 200, (
            rest
        )
