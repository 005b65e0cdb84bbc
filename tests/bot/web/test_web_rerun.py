"""A run once more: the form has what the run used, says what is other, and queues just that."""

import dataclasses
import re
from html import unescape

import pytest

from bot.training.repeat import next_job_name, setting_text
from bot.training.web.rerun_pages import (
    OriginalRun,
    changed_settings,
    parse_rerun_form,
    shipped_values,
)
from bot.training.web.setting_view import (
    SETTING_GROUPS,
    compare_settings,
    group_settings,
)
from personas.schemas.hyperparameters import Hyperparameters
from tests.bot.web.conftest import put_talk
from tests.bot.web.test_web_training_pages import shown, words
from tests.bot.web.training_runs import folder_in, put_job, put_run
from tests.fakes import PLAN


def form_in(html):
    """Name and value of each field, as a browser would send them."""
    inputs = re.findall(r'<input id="[^"]+" name="([^"]+)" value="([^"]*)"', html)
    selects = re.findall(r'<select id="[^"]+" name="([^"]+)".*?>(.*?)</select>', html, re.DOTALL)
    chosen = {}
    for name, options in selects:
        found = re.search(r"<option(?: value=\"([^\"]*)\")? selected>([^<]*)", options)
        chosen[name] = (found[1] if found[1] is not None else found[2]) if found else ""
    return {name: unescape(value) for name, value in (*inputs, *chosen.items())}


async def send(dashboard, path, form, do="start"):
    own = {"Accept": "text/html", "Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"}
    async with dashboard.session.post(path, data={**form, "do": do}, headers=own) as answer:
        return answer.status, str(answer.url), await answer.text()


def planned(**changes):
    """The trainer's plan with one recipe, changed so."""
    return PLAN.model_copy(update={"recipes": (PLAN.recipes[0].model_copy(update=changes),)})


@pytest.fixture
async def run(dashboard):
    """A run whose settings its recipe does not have, and the form for another one of it."""
    put_job(dashboard, "j1", job_name="dusk", hyperparameters={"num_train_epochs": 2})
    put_run(folder_in(dashboard, "j1"), {"learning_rate": 0.0004})
    dashboard.queue.cancel("j1")
    return form_in(await shown(dashboard, "/dashboard/training/j1/repeat"))


async def test_the_form_is_filled_with_what_the_run_used(dashboard, run):
    assert run["job_name"] == "dusk-2" and run["persona"] == "oda" and run["recipe"] == "demo-cpu"
    assert run["set.learning_rate"] == "0.0004" and run["set.target_modules"] == "q_proj, v_proj"
    assert run["set.double_quant"] == "true" and run["set.gradient_checkpointing"] == ""
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", run, do="compare")
    assert status == 200 and "None, except the name." in words(html)


async def test_what_is_other_is_shown_before_it_is_queued(dashboard, run):
    form = run | {"set.seed": "8", "set.learning_rate": "", "recipe": "auto"}
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", form, do="compare")
    page = words(html)
    assert status == 200 and "seed 7 8" in page
    assert "learning_rate 0.0004 as the recipe" in page
    assert "recipe demo-cpu auto" in page and dashboard.store.jobs.in_state("queued") == []


async def test_what_is_queued_is_the_run_as_it_was_but_for_the_changes(dashboard, run):
    status, url, html = await send(
        dashboard, "/dashboard/training/j1/repeat", run | {"set.lora_r": "8"}
    )
    (job,) = dashboard.store.jobs.in_state("queued")
    assert (
        status == 200
        and url.endswith(f"/dashboard/training/{job.job_id}")
        and f"Queued as {job.job_id}." in html
    )
    assert f"{PLAN.recipes[0].steps} steps" in words(html)
    asked = job.request.hyperparameters.model_dump(exclude_none=True)
    assert asked == {
        "lora_r": 8,
        "learning_rate": 0.0004,
        "num_train_epochs": 2.0,
        "seed": 7,
        "target_modules": ("q_proj", "v_proj"),
    }
    assert (job.request.job_name, job.request.persona, job.guild_id, job.requested_by) == (
        "dusk-2",
        "oda",
        0,
        0,
    )


async def test_another_recipe_decides_what_was_not_asked_for(dashboard, run):
    dashboard.backend.planned = planned(recipe="s0-6gb")
    await send(
        dashboard, "/dashboard/training/j1/repeat", run | {"recipe": "s0-6gb", "set.seed": "9"}
    )
    (job,) = dashboard.store.jobs.in_state("queued")
    assert job.request.recipe == "s0-6gb"
    assert job.request.hyperparameters.model_dump(exclude_none=True) == {
        "num_train_epochs": 2.0,
        "seed": 9,
    }


async def test_replies_that_were_to_be_read_first_are_again(dashboard):
    request = {"from_card": 1.0, "recipe": "demo-cpu", "review": True}
    put_job(dashboard, "j1", job_name="dusk", **request)
    put_run(folder_in(dashboard, "j1"), {"learning_rate": 0.0004})
    dashboard.queue.cancel("j1")
    form = form_in(await shown(dashboard, "/dashboard/training/j1/repeat"))
    status, _, html = await send(
        dashboard, "/dashboard/training/j1/repeat", form | {"set.seed": "9"}
    )
    assert status == 200, words(html)
    (job,) = dashboard.store.jobs.in_state("queued")
    assert job.request.review and job.request.from_card == 1


async def test_shares_and_settings_may_have_a_decimal_comma(dashboard, run):
    form = run | {"do": "start", "set.warmup_ratio": "0,25", "lore_pairs": "0,125"}
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", form)
    assert status == 200, words(html)
    (job,) = dashboard.store.jobs.in_state("queued")
    assert job.request.hyperparameters.warmup_ratio == 0.25 and job.request.lore_pairs == 0.125


async def test_a_wrong_value_is_reported_at_its_field_and_nothing_is_queued(dashboard, run):
    form = run | {"set.learning_rate": "fast", "set.lora_r": "9000", "set.seed": "8"}
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", form)
    assert status == 422 and "<title>Error: " in html and html.count('<li><a href="#set.') == 2
    assert 'id="set.learning_rate-error"' in html and "learning_rate cannot be" in words(html)
    assert form_in(html)["set.lora_r"] == "9000" and form_in(html)["set.seed"] == "8"
    status, _, html = await send(
        dashboard, "/dashboard/training/j1/repeat", run | {"job_name": "no name!"}
    )
    assert status == 422 and 'id="job_name-error"' in html
    status, _, html = await send(
        dashboard, "/dashboard/training/j1/repeat", run | {"dataset": "nowhere"}
    )
    assert status == 422 and "nowhere" in words(html)
    assert dashboard.store.jobs.in_state("queued") == []


async def test_what_stands_in_the_way_is_reported_in_the_form(dashboard, run):
    put_job(dashboard, "other", job_name="other")
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", run)
    assert status == 422 and "other for oda is queued" in words(html) and form_in(html) == run


async def test_a_servers_run_is_queued_for_that_server(dashboard):
    put_job(dashboard, "j1", guild=55, by=3)
    dashboard.queue.cancel("j1")
    form = form_in(await shown(dashboard, "/dashboard/training/j1/repeat"))
    put_talk(dashboard.home)
    status, _, html = await send(
        dashboard, "/dashboard/training/j1/repeat", form | {"dataset_path": "talk.jsonl"}
    )
    assert status == 422 and "A path cannot be named here" in words(html)
    await send(dashboard, "/dashboard/training/j1/repeat", form)
    (job,) = dashboard.store.jobs.in_state("queued")
    assert (job.guild_id, job.requested_by, job.channel_id) == (55, 0, 0)


async def test_more_memory_than_there_is_is_refused_in_the_form(dashboard, run):
    dashboard.backend.planned = planned(memory_bytes=2**60)
    status, _, html = await send(dashboard, "/dashboard/training/j1/repeat", run)
    assert (
        status == 422
        and "GiB of memory" in words(html)
        and dashboard.store.jobs.in_state("queued") == []
    )


def test_every_setting_has_its_place_once():
    names = [name for _, group in SETTING_GROUPS for name in group]
    assert sorted(names) == sorted(Hyperparameters.model_fields)


def test_every_recipe_has_every_setting():
    assert (
        set(shipped_values("two-stage")) == set(Hyperparameters.model_fields)
        and shipped_values("none") == {}
    )
    assert shipped_values("demo-cpu")["learning_rate"] != shipped_values("s0-6gb")["learning_rate"]


@pytest.mark.parametrize(
    ("name", "following"),
    [("dusk", "dusk-2"), ("dusk-2", "dusk-3"), ("a-b", "a-b-2"), ("x" * 64, "x" * 62 + "-2")],
)
def test_another_run_has_another_name(name, following):
    assert next_job_name(name) == following and len(following) <= 64


def test_settings_are_written_as_they_are_typed():
    values = [True, None, 2.0, 2e-4, ["a", "b"], "nf4", 7]
    assert [setting_text(value) for value in values] == [
        "true",
        "",
        "2",
        "0.0002",
        "a, b",
        "nf4",
        "7",
    ]
    assert group_settings({"seed": 3, "odd": 1})[-1] == ("Others", [("odd", "1")])
    rows = compare_settings({"seed": 3, "odd": 1, "lora_r": 4}, {"seed": 3, "lora_r": 8})
    assert [(row.name, row.a, row.b, row.differs) for row in rows] == [
        ("lora_r", "4", "8", True), ("odd", "1", "not known", False), ("seed", "3", "3", False),
    ]  # fmt: skip


async def test_a_run_by_itself_repeated_is_the_same(dashboard):
    job = put_job(dashboard, "j1", hyperparameters={"seed": 5, "lora_r": 4})
    before = OriginalRun(job, job.request, {"seed": 5, "lora_r": 4})
    wanted = parse_rerun_form(before, before.texts)
    assert (
        wanted.body["hyperparameters"] == {"seed": 5, "lora_r": 4}
        and changed_settings(before, before.texts) == []
    )
    assert dataclasses.is_dataclass(wanted) and not wanted.errors
