"""Training all personas over another base model: planned first, then queued as ordinary jobs, in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from personas.card.card_reader import parse_card
from personas.errors import TrainingError
from personas.schemas.training import Teacher
from tests.bot.retrainings import (
    AUTO_PLAN,
    OTHER_MODEL,
    put_live_version,
    serve_another_model,
)
from tests.bot.web.conftest import put_talk
from tests.personas.cards import V2, as_json, brought_in


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


async def test_the_plan_says_what_each_takes_and_queues_nothing(dashboard):
    put_versions(dashboard)
    status, plan, _ = await dashboard.ask("GET", "/finetune/all")
    assert status == 200 and plan["base_model"] == "embedded"
    rows = {row["persona"]: row for row in plan["trainings"]}
    assert rows.keys() == {"ballast", "oda"}, "thrip's version is for the served model"
    own = AUTO_PLAN.recipes[0]
    assert rows["oda"]["seconds"] == own.seconds and rows["oda"]["other_model"] == OTHER_MODEL
    assert plan["seconds"] == 2 * own.seconds and plan["memory_bytes"] == own.memory_bytes
    assert not dashboard.store.jobs.in_state("queued")


async def test_jobs_repeat_the_requests_over_the_served_model(dashboard):
    put_versions(dashboard)
    status, plan, _ = await dashboard.ask("POST", "/finetune/all")
    assert status == 202 and all(row["job_id"] for row in plan["trainings"])
    jobs = {job.persona: job for job in dashboard.store.jobs.in_state("queued")}
    assert list(jobs) == ["ballast", "oda"]
    request = jobs["ballast"].request
    assert (request.base_model, request.lore_pairs) == ("embedded", 0.3)
    assert request.recipe == "auto" and request.job_name != "ballast-first"
    stated = request.hyperparameters.model_dump(exclude_none=True)
    assert stated == {"num_train_epochs": 2}, (
        "what depends on the model's size is left to the recipe"
    )
    status, again, _ = await dashboard.ask("POST", "/finetune/all")
    assert status == 202 and all(row["error"] and not row["job_id"] for row in again["trainings"])
    assert len(dashboard.store.jobs.in_state("queued")) == 2


async def test_the_server_that_trained_a_version_gets_the_job(dashboard):
    services = dashboard.services
    dashboard.backend.planned = AUTO_PLAN
    for guild_id in (77, 78):
        put_live_version(services, "oda", guild_id, live_in=guild_id, lore_pairs=1)
    put_live_version(services, "thrip", 77, lore_pairs=1)
    mira = brought_in(services.personas, 77, parse_card(as_json(V2), "it")).persona.id
    path = str(put_talk(dashboard.home / "talk"))
    put_live_version(services, mira, dataset_path=path)
    serve_another_model(services, ("oda", "v1"), ("oda", "v2"), ("thrip", "v1"), (mira, "v1"))
    _, page, _ = await dashboard.page("/dashboard/training/all")
    assert "server 77" in page and "server 78" in page and "the operator" in page
    assert '<th scope="row">Mira' in page
    _, plan, _ = await dashboard.ask("POST", "/finetune/all")
    assert [row["error"] for row in plan["trainings"]] == [None] * 4
    rows = [(row["persona"], row["version"], row["guild"]) for row in plan["trainings"]]
    assert rows == [
        ("oda", "v1", "77"),
        ("oda", "v2", "78"),
        ("thrip", "v1", "77"),
        (mira, "v1", "0"),
    ]
    jobs = [(job.persona, job.guild_id) for job in dashboard.store.jobs.in_state("queued")]
    assert jobs == [("oda", 77), ("oda", 78), ("thrip", 77), (mira, 0)]


async def test_a_server_has_one_job_for_a_persona_whatever_is_live(dashboard):
    for live_in in (0, 77):
        put_live_version(dashboard.services, "oda", live_in=live_in)
    serve_another_model(dashboard.services, ("oda", "v1"), ("oda", "v2"))
    (item,) = dashboard.services.retrain_all.find(0).items
    assert (item.version, item.guild_id) == ("v1", 0)


async def test_preferences_are_replaced_by_the_training_below_them(dashboard):
    put_live_version(dashboard.services, "oda", lore_pairs=0.2)
    put_live_version(dashboard.services, "oda", task_type="preference", start_from="v1", at=2.0)
    serve_another_model(dashboard.services, ("oda", "v1"), ("oda", "v2"))
    (item,) = dashboard.services.retrain_all.find(0).items
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
    (item,) = services.retrain_all.find(0).items
    asked = item.request
    assert (asked.teacher, asked.review, asked.from_card) == (teacher, None, 0.5)


async def test_a_persona_that_cannot_be_planned_has_its_reason(dashboard, monkeypatch):
    put_versions(dashboard)
    plan = dashboard.services.trainings.plan

    async def planned(request, guild_id):
        if request.persona == "oda":
            raise TrainingError("There is no log.", "Put one there.")
        return await plan(request, guild_id)

    monkeypatch.setattr(dashboard.services.trainings, "plan", planned)
    _, answer, _ = await dashboard.ask("GET", "/finetune/all")
    rows = {row["persona"]: row for row in answer["trainings"]}
    assert "There is no log" in rows["oda"]["error"] and not rows["ballast"]["error"]
    assert answer["seconds"] == rows["ballast"]["seconds"]


async def test_what_does_not_fit_is_said_and_not_counted(dashboard, monkeypatch):
    put_versions(dashboard)
    monkeypatch.setattr("bot.training.retrain_all.available_memory_bytes", lambda: 2**20)
    _, plan, _ = await dashboard.ask("GET", "/finetune/all")
    assert plan["seconds"] == 0
    assert all("GiB of memory" in row["error"] for row in plan["trainings"])


async def test_the_page_shows_the_plan_and_queues(dashboard):
    status, page, _ = await dashboard.page("/dashboard/training/all")
    assert status == 200 and "Every live version is for the served base model" in page
    put_versions(dashboard)
    _, page, _ = await dashboard.page("/dashboard/training/all")
    assert "Queue 2" in page and OTHER_MODEL in page and not dashboard.store.jobs.in_state("queued")
    status, _, headers = await dashboard.submit("/dashboard/training/all")
    assert (status, headers["Location"]) == (303, "/dashboard/training")
    assert len(dashboard.store.jobs.in_state("queued")) == 2
    _, page, _ = await dashboard.page("/dashboard/training")
    assert "2 of 2 trainings are queued." in page
