"""`/finetune all`: says what it takes first, then queues a job for each persona of another base model."""

from dataclasses import replace

import pytest

from personas.errors import TrainingError
from personas.schemas.training import Teacher
from sandbox import SandboxRefusal
from tests.bot.conftest import QUAY
from tests.bot.retrainings import AUTO_PLAN, OTHER_MODEL, put_live_version, serve_another_model
from tests.bot.web.conftest import dashboard_in
from tests.fakes import until

GUILD = 77


@pytest.fixture
async def dashboard(tmp_path):
    async with dashboard_in(tmp_path / "home") as made:
        yield made


def put_versions(dashboard):
    dashboard.backend.planned = AUTO_PLAN
    versions = {}
    for persona, request in (
        ("ballast", {"lore_pairs": 0.3, "hyperparameters": {"lora_r": 8, "num_train_epochs": 2}}),
        ("oda", {}),
        ("thrip", {}),
    ):
        versions[persona] = put_live_version(dashboard.services, persona, **request)
    serve_another_model(dashboard.services, ("ballast", "v1"), ("oda", "v1"))
    return versions


async def test_preferences_are_replaced_by_the_training_below_them(dashboard):
    put_live_version(dashboard.services, "oda", lore_pairs=0.2)
    put_live_version(dashboard.services, "oda", task_type="preference", start_from="v1", at=2.0)
    serve_another_model(dashboard.services, ("oda", "v1"), ("oda", "v2"))
    (item,) = dashboard.services.retrain_all.find(GUILD).items
    assert (item.version, item.request.task_type, item.request.lore_pairs) == ("v2", "persona", 0.2)
    assert item.request.start_from is None, "an adapter of another model"


@pytest.mark.parametrize("now", [None, {"model": "big", "url": "https://new/v1", "licence": "MIT"}])
async def test_the_settings_of_today_name_the_teacher_and_nothing_waits_to_be_read(
    dashboard, monkeypatch, now
):
    services = dashboard.services
    old = {"model": "big", "url": "https://old/v1", "licence": "MIT"}
    put_live_version(services, "oda", from_card=0.5, teacher=old, review=True)
    serve_another_model(services, ("oda", "v1"))
    teacher = Teacher(**now) if now else None
    checks = replace(services.trainings._checks, teacher=teacher)
    monkeypatch.setattr(services.trainings, "_checks", checks)
    items = {item.persona_id: item.request for item in services.retrain_all.find(GUILD).items}
    asked = items["oda"]
    assert (asked.teacher, asked.review, asked.from_card) == (teacher, None, 0.5)


async def test_the_plan_says_what_each_takes_and_queues_nothing(dashboard):
    put_versions(dashboard)
    plan = await dashboard.services.retrain_all.plan(GUILD)
    assert plan.base_model == "embedded"
    items = {item.persona_id: item for item in plan.items}
    assert items.keys() == {"ballast", "oda"}, "thrip's version is for the served model"
    own = AUTO_PLAN.recipes[0]
    assert items["oda"].seconds == own.seconds and items["oda"].other_model == OTHER_MODEL
    assert plan.seconds == 2 * own.seconds and plan.memory_bytes == own.memory_bytes
    assert not dashboard.store.jobs.in_state("queued")


async def test_jobs_repeat_the_requests_over_the_served_model(dashboard):
    put_versions(dashboard)
    plan = dashboard.services.retrain_all.start(GUILD, 5, 9)
    assert all(item.job for item in plan.items)
    jobs = {job.persona: job for job in dashboard.store.jobs.in_state("queued")}
    assert list(jobs) == ["ballast", "oda"]
    request = jobs["ballast"].request
    assert (request.base_model, request.lore_pairs) == ("embedded", 0.3)
    assert request.recipe == "auto" and request.job_name != "ballast-first"
    stated = request.hyperparameters.model_dump(exclude_none=True)
    assert stated == {"num_train_epochs": 2}, (
        "what depends on the model's size is left to the recipe"
    )
    again = dashboard.services.retrain_all.start(GUILD, 5, 9)
    assert all(item.error and not item.job for item in again.items)
    assert len(dashboard.store.jobs.in_state("queued")) == 2


async def test_a_persona_that_cannot_be_planned_has_its_reason(dashboard, monkeypatch):
    put_versions(dashboard)
    plan = dashboard.services.trainings.plan

    async def planned(request, guild_id):
        if request.persona == "oda":
            raise TrainingError("There is no log.", "Put one there.")
        return await plan(request, guild_id)

    monkeypatch.setattr(dashboard.services.trainings, "plan", planned)
    answer = await dashboard.services.retrain_all.plan(GUILD)
    items = {item.persona_id: item for item in answer.items}
    assert "There is no log" in items["oda"].error and not items["ballast"].error
    assert answer.seconds == items["ballast"].seconds


async def test_what_does_not_fit_is_said_and_not_counted(dashboard, monkeypatch):
    put_versions(dashboard)
    monkeypatch.setattr("bot.training.retrain_all.available_memory_bytes", lambda: 2**20)
    plan = await dashboard.services.retrain_all.plan(GUILD)
    assert plan.seconds == 0
    assert all("GiB of memory" in item.error for item in plan.items)


async def answer_to(stage, who=None, **options):
    answer = await (who or stage.moderator).slash(QUAY, "finetune all", **options)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"]


async def test_a_moderator_retrains_the_personas_of_the_server(stage):
    services = stage.client.services
    stage.backend.result = AUTO_PLAN
    assert "Every live version here is for the served base model" in await answer_to(stage)
    for persona in ("ballast", "oda"):
        put_live_version(services, persona)
    serve_another_model(services, ("ballast", "v1"), ("oda", "v1"))
    said = await answer_to(stage)
    assert "**Ballast** v1" in said and "Together about" in said
    assert not services.store.jobs.in_state("queued") and not stage.backend.runs
    said = await answer_to(stage, start=True)
    assert said.count("queued as") == 2
    await until(lambda: stage.backend.busy)
    assert stage.backend.runs[0].request.persona == "ballast"
    (waiting,) = services.store.jobs.in_state("queued")
    assert waiting.persona == "oda" and waiting.guild_id == int(stage.sandbox.guild_id)
    said = await answer_to(stage, start=True)
    assert "⚠️" in said, "they are queued already"


async def test_members_may_not(stage):
    with pytest.raises(SandboxRefusal):
        await answer_to(stage, stage.member)
