"""The plan before a start: what the trainer says of a run, what is behind the form, and Start."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.templating import shell_command
from bot.training.training_plan import MaskPreview, TokenHistogram, Truncation
from bot.training.web.plan_cache import MAX_STORED_PLANS
from bot.training.web.plan_pages import default_job_name, form_to_request, trainer_command
from personas.schemas.training import TrainingRequest
from tests.bot.web.dataset_folders import put_set
from tests.fakes import PLAN

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
    command = "python -m trainer train --persona oda --set lora_r=8 --set learning_rate=0.0002"
    assert f">UNDERSTUDY_HOME={dashboard.home} {command}</pre>" in unescape(page)
    assert not dashboard.store.jobs.in_state("queued"), "a plan queues nothing"


async def test_a_plan_has_an_address_under_which_it_stays_and_no_trainer_runs_again(dashboard):
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


async def test_what_does_not_fit_into_memory_is_shown_with_what_would(dashboard, monkeypatch):
    from bot.training.training_plan import MemoryOption

    monkeypatch.setattr("bot.training.web.plan_pages.available_memory_bytes", lambda: 2 * 2**30)
    lighter = (MemoryOption(set={"per_device_train_batch_size": 1}, memory_bytes=2**30),)
    dashboard.backend.planned = SEEN.model_copy(update={"lighter": lighter})
    page, _ = await plan_made(dashboard, **GIVEN)
    assert "does not fit" in page and "per_device_train_batch_size=1" in page


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": "lora_r=many"}, "settings"),
        ({"settings": "lora"}, "settings"),
        ({"persona": ""}, "persona"),
        ({"recipe": "none"}, "recipe"),
        ({"job_name": "a b"}, "job_name"),
        ({"base_model": "nobody/nothing"}, "base_model"),
        ({"dataset": "uploads/gone.json"}, "dataset_path"),
    ],
)
async def test_a_wrong_field_is_reported_at_its_place_and_the_form_stays_filled(
    dashboard, changes, field
):
    status, page, _ = await dashboard.submit(PATH, **GIVEN | changes)
    assert (
        status == 422
        and f'id="error-{field}"' in page
        and not dashboard.store.jobs.in_state("queued")
    )
    if "settings" in changes:
        assert changes["settings"] in page


async def test_a_name_that_is_not_here_is_reported_too(dashboard):
    status, page, _ = await dashboard.submit(PATH, **GIVEN | {"dataset": "nowhere"})
    assert status == 422 and "There is no data set" in unescape(page)


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
        {"task_type": "dialogue", "dataset_path": "uploads/it's.json", "start_from": "chat-1", "recipe": "s3-dialogue"},
        {"persona": "oda", "general": "general-dialogue", "recipe": "mixed-80-20", "base_model": "some/model"},
    ],
)  # fmt: skip
def test_the_trainers_own_command_asks_for_the_same_run(body):
    from trainer.cli.argtypes import parse_setting_args
    from trainer.cli.main import build_parser

    request = TrainingRequest.model_validate({"job_name": "x", **body})
    options = build_parser().parse_args(shlex.split(trainer_command(request))[3:])
    assert parse_setting_args(options) == request.hyperparameters
    assert options.lore_pairs == request.lore_pairs
    assert (options.persona, options.general, options.start_from, options.recipe, options.base_model) == (
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
