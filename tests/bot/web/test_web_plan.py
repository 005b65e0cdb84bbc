"""The plan before a start: what the trainer says of a run, what is behind the form, and Start."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.templating import shell_command
from bot.training.request_materials import gather_materials
from bot.training.status_text import plan_texts
from bot.training.training_plan import MaskPreview, TokenHistogram, Truncation
from bot.training.web import plan_pages
from bot.training.web.plan_cache import MAX_STORED_PLANS
from bot.training.web.plan_pages import default_job_name, form_to_request, trainer_command
from personas.card.card_reader import parse_card
from personas.home.teacher_setting import UNKNOWN_TIME_NOTE
from personas.schemas.training import TrainingRequest
from tests.bot.languages import localised
from tests.bot.version_rows import install
from tests.bot.web.dataset_folders import put_set
from tests.fakes import PLAN
from tests.personas.cards import V2, as_json, brought_in

PATH = "/dashboard/data/plan"
PARTS = (("<|im_start|>user\nWho <b>are</b> you?", False), ("Oda, love.", True))
SEEN = PLAN.model_copy(
    update={
        "sources": {"oda.json": 140},
        "longest_tokens": 498,
        "tokens_per_sample": TokenHistogram(
            min=40, median=200, p95=400, max=498, edges=(40, 270, 500), counts=(90, 50)
        ),
        "truncation": Truncation(max_length=512, history_trimmed=17, too_long=3),
        "masks": (MaskPreview(parts=PARTS, tokens=30, trained_tokens=6),),
    }
)
SHOWN = (
    "120 to train "
    "on", "q_proj, v_proj: 98.8 % of the parameters", "40 to 269",
    "17 samples lose their oldest turns", "3 replies do not fit", "2 min 5 s",
    "4.0 GiB", "too long", '<mark class="learned">Oda, love.</mark>', "Who &lt;b&gt;are",
)  # fmt: skip
GIVEN = {
    "task_type": "persona",
    "persona": "oda",
    "recipe": "demo-cpu",
    "settings": "lora_r=8, learning_rate=2e-4",
}


async def plan_made(dashboard, **given):
    """The page to which a form leads that is planned, and its address."""
    status, _, headers = await dashboard.submit(PATH, **given)
    assert status == 303
    status, page, _ = await dashboard.page(headers["Location"])
    assert status == 200
    return page, headers["Location"]


async def test_a_plan_says_that_its_samples_are_not_written_yet(dashboard):
    phases = {**PLAN.recipes[0].phases, "writing replies": 60.0, "measuring the adapter": 20.0}
    recipe = PLAN.recipes[0].model_copy(update={"phases": phases})
    dashboard.backend.planned = PLAN.model_copy(update={"recipes": (recipe,)})
    page, _ = await plan_made(dashboard, **GIVEN)
    assert "measuring the new version 20 s" in page and "the adapter 20 s" not in page
    assert "There are none yet: a model writes the replies" in page and "marked text" not in page
    assert "Tick <b>Let me read the replies first</b> above" in page
    page, _ = await plan_made(dashboard, **GIVEN, from_card="1", review="yes")
    assert "The training then waits for you" in page and "Tick <b>" not in page


async def test_a_plan_shows_lengths_what_does_not_fit_masks_time_memory_and_what_is_behind_it(
    dashboard,
):
    dashboard.backend.planned = SEEN
    page, _ = await plan_made(dashboard, **GIVEN)
    assert [request.persona for request in dashboard.backend.plans] == ["oda"]
    for words in SHOWN:
        assert words in page, words
    curl = unescape(
        page[page.index("curl -X POST") : page.index("</pre>", page.index("curl -X POST"))]
    )
    sent = json.loads(shlex.split(curl)[-1])
    assert sent == {"job_name": "oda", "persona": "oda", "recipe": "demo-cpu",
                    "hyperparameters": {"lora_r": 8, "learning_rate": 2e-4}}  # fmt: skip
    command = (
        "python -m trainer train --persona oda --base-model embedded --set lora_r=8 "
        "--set learning_rate=0.0002"
    )
    assert f">UNDERSTUDY_HOME={dashboard.home} {command}</pre>" in unescape(page)
    assert not dashboard.store.jobs.in_state("queued"), "a plan queues nothing"


async def test_a_plan_has_an_address_under_which_it_stays_and_no_trainer_runs_again(
    dashboard, monkeypatch
):
    monkeypatch.setattr(plan_pages, "available_memory_bytes", lambda: 8 * 2**30)  # it changes
    page, path = await plan_made(dashboard, **GIVEN)
    again = (await dashboard.page(path))[1]
    assert again == page and len(dashboard.backend.plans) == 1
    assert (
        "lora_r=8, learning_rate=2e-4</textarea>" in page
        and '<option value="oda" selected>' in page
    )
    for n in range(MAX_STORED_PLANS):
        await plan_made(dashboard, **GIVEN, job_name=f"j{n}")
    status, page, _ = await dashboard.page(path)
    assert status == 404 and "This plan has expired" in page and ">Plan it</button>" in page


async def test_a_plan_shows_nobodys_words_after_a_forgetting(dashboard):
    _, path = await plan_made(dashboard, **GIVEN)
    dashboard.store.erasure_requests.begin("someone", 0.0, "", "{}", "{}")
    assert (await dashboard.page(path))[0] == 404
    assert (await plan_made(dashboard, **GIVEN))[1] != path


async def test_a_persona_that_trains_is_planned_with_a_note_that_a_start_would_be_refused(
    dashboard,
):
    _, job, _ = await dashboard.start(job_name="first", task_type=None, dataset=None, persona="oda")
    page, _ = await plan_made(dashboard, **GIVEN)
    says = f"{job['job_id']} for oda is queued"
    assert "would be rejected" in page and says in page and "The plan" in page
    status, page, _ = await dashboard.submit(PATH, **GIVEN, start="yes")
    assert status == 422 and says in page
    body = {"job_name": "second", "persona": "oda"}
    status, result, _ = await dashboard.ask("POST", "/finetune/plan", json=body)
    assert status == 200 and says in result["conflict"] and result["samples"]
    status, result, _ = await dashboard.ask(
        "POST", "/finetune/plan", json={**body, "persona": "ballast"}
    )
    assert status == 200 and result["conflict"] is None


async def test_what_is_learned_of_a_sample_is_not_below_its_long_beginning(dashboard):
    card = "".join(f"{n}. Oda never says it.\n" for n in range(300))
    long = MaskPreview(
        parts=((f"{card}Mina: Who are you?\n", False), ("Oda, love.", True)),
        tokens=2_006,
        trained_tokens=6,
    )
    dashboard.backend.planned = SEEN.model_copy(update={"masks": (long,)})
    page, _ = await plan_made(dashboard, **GIVEN)
    folded, shown = page[page.index("<details><summary>What comes before") :].split("</details>")[
        :2
    ]
    assert "1,974 tokens" in folded and "0. Oda never" in folded and "Mina" not in folded
    assert shown.index("Mina: Who are you?") < shown.index('<mark class="learned">Oda, love.')
    assert long.long_before + "".join(text for text, _ in long.shown_parts) == "".join(
        text for text, _ in long.parts
    )


@pytest.mark.parametrize("parts", [(), (("Oda, love.", True),), (("Who?", False), ("Oda.", True))])
def test_a_short_beginning_is_not_folded(parts):
    mask = MaskPreview(parts=parts, tokens=9, trained_tokens=3)
    assert mask.long_before == "" and "".join(text for text, _ in mask.shown_parts) == "".join(
        it for it, _ in parts
    )


async def test_start_queues_what_the_body_would(dashboard):
    status, _, headers = await dashboard.submit(PATH, **GIVEN, start="yes")
    (job,) = dashboard.store.jobs.in_state("queued")
    assert status == 303 and headers["Location"] == f"/dashboard/training/{job.job_id}"
    assert job.request.hyperparameters.lora_r == 8 and job.guild_id == 0


async def test_a_built_set_is_chosen_by_its_path(dashboard, tmp_path):
    put_set(tmp_path / "home" / "datasets" / "harbour")
    _, page, _ = await dashboard.page(
        f"{PATH}?dataset=datasets/harbour&persona=ballast&task_type=persona"
    )
    assert '<option value="datasets/harbour" selected>' in page
    await plan_made(dashboard, persona="ballast", dataset="datasets/harbour")
    assert dashboard.backend.plans[-1].dataset_path == "datasets/harbour"


async def test_a_servers_own_persona_is_chosen_and_trained_as_its_own(dashboard):
    services = dashboard.services
    mira = brought_in(services.personas, 77, parse_card(as_json(V2), "it")).persona.id
    for name in ("lamp", "stair"):
        text = f"Mira mended the {name} in spring."
        lore = f"/dashboard/personas/{mira}/lore"
        assert (await dashboard.submit(lore, name=name, text=text))[0] == 303
    _, page, _ = await dashboard.page(f"{PATH}?persona={mira}&lore_pairs=1")
    assert re.search(rf'<option value="{mira}" selected>[^<]+ \(server 77\)</option>', page)
    page, _ = await plan_made(dashboard, persona=mira, lore_pairs="1")
    assert f'<option value="{mira}" selected>' in page
    assert f"python -m trainer train --persona {mira} --lore-pairs 1" in page
    assert (await dashboard.submit(PATH, persona=mira, lore_pairs="1", start="yes"))[0] == 303
    (job,) = dashboard.store.jobs.in_state("queued")
    gathered = gather_materials(services.catalogue, job.request, job.guild_id)
    copies = {name: path for material in gathered for path, name in material.copies}
    home = dashboard.home
    assert copies["card.toml"] == home / "personas" / "77" / mira / "card.toml"
    assert copies[f"lore/{mira}"] == home / "lore" / "77" / mira
    version = install(dashboard.store, mira, guild=job.guild_id)
    dashboard.store.versions.promote(mira, version, 7, 2.0)
    assert dashboard.store.versions.live(mira, 77) == version
    installed = dashboard.store.jobs.get(f"{mira}-{version}")
    with pytest.raises(RefusedError, match="is live"):
        services.versions.require_removable(installed)


async def test_a_persona_beyond_the_list_is_listed_when_it_is_chosen(dashboard, monkeypatch):
    monkeypatch.setattr("bot.training.web.plan_pages.MAX_LISTED_PERSONAS", 1)
    _, page, _ = await dashboard.page(f"{PATH}?persona=thrip")
    listed = page[page.index('name="persona"') :].partition("</select>")[0]
    assert re.findall('value="([^"]*)"', listed) == ["", "ballast", "thrip"]
    assert '"thrip" selected' in listed


async def test_a_ticked_review_is_not_folded(dashboard):
    for query, is_open in (("persona=oda", False), ("persona=oda&review=yes", True)):
        _, page, _ = await dashboard.page(f"{PATH}?{query}")
        assert ("<details open><summary>More options" in page) == is_open


async def test_a_plans_note_is_on_the_page_and_on_discord_in_the_readers_language(dashboard):
    note = UNKNOWN_TIME_NOTE
    recipe = SEEN.recipes[0].model_copy(update={"warnings": (note, "lora_r is small")})
    plan = SEEN.model_copy(update={"recipes": (recipe, *SEEN.recipes[1:])})
    dashboard.backend.planned = plan
    page, _ = await plan_made(dashboard, **GIVEN)
    assert note in page and "lora_r is small" in page
    texts = plan_texts(plan, recipe.recipe, position=1, is_training=False)
    on_discord = localised(join_texts(*texts), "de")
    assert f"⚠️ {localised(gettext_lazy(note), 'de')}\n⚠️ lora_r is small" in on_discord


async def test_what_does_not_fit_into_memory_is_shown_with_what_would(dashboard, monkeypatch):
    from bot.training.training_plan import MemoryOption

    monkeypatch.setattr("bot.training.web.plan_pages.available_memory_bytes", lambda: 2 * 2**30)
    lighter = (MemoryOption(set={"per_device_train_batch_size": 1}, memory_bytes=2**30),)
    dashboard.backend.planned = SEEN.model_copy(update={"lighter": lighter})
    page, _ = await plan_made(dashboard, **GIVEN)
    assert "does not fit" in page and "per_device_train_batch_size=1" in page
    mine = SEEN.recipes[0]
    for memory, helps in (
        ({}, "a smaller base model"),
        ({"writing": 1}, "write the replies (TEACHER)"),
    ):
        recipes = (mine.model_copy(update={"memory": memory}), *SEEN.recipes[1:])
        dashboard.backend.planned = SEEN.model_copy(update={"recipes": recipes})
        page, _ = await plan_made(dashboard, **GIVEN)
        assert helps in page


async def test_a_wrong_field_is_reported_at_its_place_and_the_form_stays_filled(dashboard):
    for changes, field in [
        ({"settings": "lora_r=many"}, "settings"),
        ({"settings": "lora"}, "settings"),
        ({"persona": ""}, "persona"),
        ({"recipe": "none"}, "recipe"),
        ({"job_name": "a b"}, "job_name"),
        ({"base_model": "nobody/nothing"}, "base_model"),
        ({"dataset": "uploads/gone.json"}, "dataset_path"),
    ]:
        status, page, _ = await dashboard.submit(PATH, **GIVEN | changes)
        assert (
            status == 422
            and f'id="{field}-error"' in page
            and not dashboard.store.jobs.in_state("queued")
        ), changes
        if "persona" in changes:
            assert "Choose a persona." in page and "task_type" not in page[: page.index("<form")], (
                changes
            )
        if "settings" in changes:
            assert changes["settings"] in page, changes


async def test_every_form_says_what_a_recipe_is_for(dashboard):
    purpose = (
        '<option value="quick">quick: A first training on a CPU that one can wait for</option>'
    )
    for path in (PATH, "/dashboard/data/build"):
        assert purpose in (await dashboard.page(path))[1]


async def test_a_base_model_that_is_not_here_is_refused_before_a_trainer_runs(dashboard):
    status, page, _ = await dashboard.submit(PATH, **GIVEN, base_model="/etc")
    assert status == 422 and 'href="#base_model"' in page and "The folder /etc has no" in page
    assert not dashboard.backend.plans, "a proposal would take a plan of its own"


async def test_a_plan_that_nobody_waits_for_ends(dashboard, monkeypatch):
    begun = asyncio.Event()
    ended = asyncio.Event()

    async def slow(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(dashboard.backend, "plan", slow)
    tab = asyncio.create_task(dashboard.submit(PATH, **GIVEN))
    await asyncio.wait_for(begun.wait(), 10)
    assert not ended.is_set()
    tab.cancel()
    await asyncio.wait_for(ended.wait(), 30)
    monkeypatch.undo()
    await plan_made(dashboard, **GIVEN)  # the next one has its turn


async def test_rest_has_the_plan_too(dashboard):
    dashboard.backend.planned = SEEN
    status, result, _ = await dashboard.ask(
        "POST", "/finetune/plan", json={"job_name": "oda-1", "persona": "oda"}
    )
    assert (
        status == 200
        and result["truncation"]["too_long"] == 3
        and result["masks"][0]["parts"][1] == ["Oda, love.", True]
    )
    assert result["free_bytes"] > 0
    status, result, _ = await dashboard.ask("POST", "/finetune/plan", json={"job_name": "oda-1"})
    assert status == 422 and "persona" in result["detail"]


def test_a_form_stands_for_the_body_of_rest_with_nothing_left_empty():
    assert form_to_request({"task_type": "dialogue", "persona": "oda", "dataset": "general-dialogue"}) == {
        "job_name": "general-dialogue", "task_type": "dialogue", "dataset": "general-dialogue"
    }  # fmt: skip
    given = {
        "persona": "oda",
        "dataset": "uploads/talk (1).jsonl",
        "settings": "lora_r=8\ntarget_modules=q_proj, v_proj",
    }
    assert form_to_request(given) == {
        "job_name": "oda", "persona": "oda", "dataset_path": "uploads/talk (1).jsonl",
        "hyperparameters": {"lora_r": 8, "target_modules": ["q_proj", "v_proj"]},
    }  # fmt: skip
    with pytest.raises(Problem, match="There is no setting 'lora'"):
        form_to_request({"settings": "lora=8"})


def test_a_job_without_a_name_gets_one_that_can_be():
    assert (
        default_job_name({"task_type": "dialogue", "dataset": "uploads/talk (1).jsonl"})
        == "talk--1--jsonl"
    )
    assert default_job_name({"task_type": "dialogue", "dataset": "港"}) == "run"


@pytest.mark.parametrize(
    "body",
    [
        {"persona": "oda",
         "hyperparameters": {"double_quant": True, "target_modules": ["q_proj"], "lora_dropout": 0.05}},
        {"persona": "oda", "lore_pairs": 0.25},
        {"persona": "oda", "from_card": 1, "review": True},
        {"persona": "oda", "from_card": 0.5, "recipe": "demo-cpu",
         "teacher": {"model": "big", "url": "http://127.0.0.1:1/v1", "licence": "MIT"}},
        {"task_type": "dialogue", "dataset_path": "uploads/it's.json", "start_from": "chat-1", "recipe": "s3-dialogue"},
        {"persona": "oda", "general": "general-dialogue", "recipe": "mixed-80-20", "base_model": "some/model"},
    ],
)  # fmt: skip
def test_the_trainers_own_command_asks_for_the_same_run(body, monkeypatch):
    from trainer.cli.argtypes import parse_setting_args
    from trainer.cli.create_job import chosen_recipe, chosen_teacher
    from trainer.cli.main import build_parser

    monkeypatch.setenv("BASE_MODEL", "owner/of-another-bot")
    request = TrainingRequest.model_validate({"job_name": "x", **body})
    options = build_parser().parse_args(shlex.split(trainer_command(request))[3:])
    assert parse_setting_args(options) == request.hyperparameters
    assert options.lore_pairs == request.lore_pairs
    assert (options.from_card, chosen_teacher(options)) == (request.from_card, request.teacher)
    assert bool(options.only_write) == bool(request.review)
    assert (options.persona, options.general, options.start_from, chosen_recipe(options), options.base_model) == (
        request.persona, request.general, request.start_from, request.recipe, request.base_model
    )  # fmt: skip
    assert options.dataset == (request.dataset or request.dataset_path) and options.dialogue == (
        request.persona is None
    )


@pytest.mark.parametrize(
    ("home", "result"),
    [
        ("/home/me/.understudy", "run it"),
        ("/srv/it's mine", """UNDERSTUDY_HOME='/srv/it'"'"'s mine' run it"""),
    ],
)
def test_a_command_names_the_home_where_it_is_not_the_usual_one(monkeypatch, home, result):
    monkeypatch.setenv("HOME", "/home/me")
    assert shell_command("run it", Path(home)) == result


def test_votes_have_no_command():
    assert (
        trainer_command(TrainingRequest(job_name="x", task_type="preference", persona="oda")) == ""
    )


def test_the_words_of_the_order_are_those_of_dataset_build(tmp_path: Path):
    from trainer.cli.main import build_parser

    words = (
        "dataset build --persona ballast --as Wick --source ballast:12 --mix 80:20 --languages en "
        "--min-reply-words 2"
    )
    options = build_parser().parse_args(
        [
            *words.split(),
            "--review",
            "r.jsonl",
            "--json",
            "--tell-every",
            "0.5",
            "--out",
            "datasets/x",
        ]
    )
    assert options.tell_every == 0.5 and options.review == Path("r.jsonl")


async def test_lore_pairs_are_a_field_of_the_form_and_their_number_and_share_are_shown(dashboard):
    counts = {
        "lore_pairs_extracted": 48,
        "lore_pairs_synthesised": 68,
        "lore_pairs_used": 70,
        "samples_from_lore": 42,
    }
    dashboard.backend.planned = PLAN.model_copy(update={"lore_pairs": counts})
    page, _ = await plan_made(dashboard, persona="oda", lore_pairs="0.3")
    assert dashboard.backend.plans[-1].lore_pairs == 0.3 and 'name="lore_pairs" value="0.3"' in page
    assert re.search("48 extracted .*68 synthesised .*70 are used: 30%", page)
    assert "--lore-pairs 0.3" in page and "oda_synthetic" in page
    for wrong in ("much", "1.5"):
        status, page, _ = await dashboard.submit(PATH, persona="oda", lore_pairs=wrong)
        assert status == 422 and "lore_pairs" in page
    body = {"job_name": "alone", "persona": "oda", "lore_pairs": 1}
    status, queued, _ = await dashboard.ask("POST", "/finetune/start-training", json=body)
    assert status < 300 and dashboard.store.jobs.of_guild(0)[0].request.lore_pairs == 1, queued
