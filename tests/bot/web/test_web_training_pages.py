"""The training pages: what stands on them, from real files and a real store, and what their forms
do.
"""

import json
import re
from html import unescape

import pytest

from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from bot.training.web.run_details import LOG_TAIL_BYTES
from personas.card.card_reader import parse_card
from personas.home.persona_ids import short_id
from personas.schemas.training_events import Phase
from tests.bot.web.training_runs import RECIPE, folder_in, put_job, put_run, step, tell, whole_run
from tests.fakes import until
from tests.personas.cards import V2, as_json, brought_in
from tests.samples import SCORECARD

EVIL = "<script>alert('x')</script>"


async def shown(dashboard, path, status=200):
    async with dashboard.session.get(path, headers={"Accept": "text/html"}) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return text


def words(html):
    """What can be read of a page."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def put_adapter(dashboard, job_id, **sheet):
    """What a run leaves beside its weights."""
    adapter = folder_in(dashboard, job_id) / "adapter"
    (adapter / "report").mkdir(parents=True)
    figures = {"seconds": 125.0, "training_seconds": 80.0, "peak_bytes": 3 * 2**30, "memory_share": 0.375,
               "memory_of": "Test Card 8"}  # fmt: skip
    (adapter / "report" / "training.json").write_text(json.dumps(figures))
    (adapter / "manifest.json").write_text(
        json.dumps({"hyperparameters": {"lora_r": 99}, "base_model": "of-manifest"})
    )
    if sheet:
        (adapter / "datasheet.json").write_text(json.dumps(sheet))
    return adapter


async def run_to_end(dashboard, job_id, outcome):
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.finish(outcome)
    await until(lambda: dashboard.store.jobs.get(job_id).state in ("done", "failed"))


# ----------------------------------------------------------------------------------------- the list


async def test_the_queue_says_who_asked_where_and_why_it_waits(dashboard):
    put_job(dashboard, "runs")
    page = words(await shown(dashboard, "/dashboard/training/runs"))
    assert "It is the next to begin" in page, "another server's turn may come first"
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    put_job(dashboard, "next", guild=77, by=123)
    put_job(dashboard, "last", guild=78, by=124)
    page = words(await shown(dashboard, "/dashboard/training"))
    assert "Oda Marrow v1" in page and "the operator" in page
    assert "member 123" in page and "server 77" in page
    assert "Oda Marrow v1 is in training" in page and "One other is before it" in page
    dashboard.queue.hold()
    assert "data are being forgotten" in words(await shown(dashboard, "/dashboard/training"))
    dashboard.queue.go_on()


async def test_a_long_list_comes_in_pages_with_each_run_once(dashboard):
    made = [put_job(dashboard, f"j{n}", guild=n).job_id for n in range(1, 61)]
    seen = []
    path = "/dashboard/training"
    while path:
        page = await shown(dashboard, path)
        seen += re.findall(r'id="of-(j\d+)"', page)
        older = re.search(r'id="older" href="([^"]+)"', page)
        path = unescape(older[1]) if older else ""
    assert seen == made[::-1]


async def test_runs_are_found_by_whose_they_are_and_how_they_stand(dashboard):
    put_job(dashboard, "a", guild=1)
    put_job(dashboard, "b", guild=2, persona="ballast")
    dashboard.queue.cancel("b")
    put_job(dashboard, "c", guild=3, persona="ballast")
    personas = dashboard.services.personas
    mira = brought_in(personas, 77, parse_card(as_json(V2), "it")).persona
    put_job(dashboard, "d", guild=77, persona=mira.id)
    page = await shown(dashboard, "/dashboard/training")
    assert f'<option value="{mira.id}">{mira.name} (server 77)</option>' in page
    assert '<option value="ballast">Ballast</option>' in page
    dashboard.queue.cancel("d")

    async def found(query):
        return re.findall(r'id="of-(\w+)"', await shown(dashboard, f"/dashboard/training?{query}"))

    assert await found("persona=ballast") == ["c", "b"] and await found(
        "persona=ballast&state=cancelled"
    ) == ["b"]
    assert (
        await found("persona=&state=") == ["d", "c", "b", "a"]
        and await found("persona=nobody") == []
    )
    assert "is one of queued" in words(await shown(dashboard, "/dashboard/training?state=odd", 400))
    assert "There is no job" in words(await shown(dashboard, "/dashboard/training?after=none", 404))
    assert [
        job["job_id"]
        for job in (await dashboard.ask("GET", "/finetune/jobs?persona=ballast&state=queued"))[1][
            "jobs"
        ]
    ] == ["c"]


async def test_the_page_of_a_persona_is_found_by_the_id_that_members_type(dashboard):
    personas = dashboard.services.personas
    mira = brought_in(personas, 77, parse_card(as_json(V2), "it")).persona
    short = short_id(mira, 77)
    assert short != mira.id and mira.name in await shown(dashboard, f"/dashboard/personas/{short}")
    fields = {"name": "discord", "description": "x"}
    status, page, _ = await dashboard.submit(f"/dashboard/personas/{short}", **fields)
    assert status == 422 and f"The card {mira.name} needs a name" in unescape(page)
    assert f"The card {mira.id}" not in words(page)
    brought_in(personas, 78, parse_card(as_json(V2), "it"))
    await shown(dashboard, f"/dashboard/personas/{short}", 404)  # of which server is not said


async def test_a_run_that_went_on_took_the_time_of_all_its_attempts_wherever_it_is_said(dashboard):
    put_job(dashboard, "j1")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.clock.advance(900)
    tell(folder_in(dashboard, "j1"), step(1), step(2, seconds=594.0))
    dashboard.backend.finish(TrainingFailed("The disk is full.", "Free some.", can_resume=True))
    await until(lambda: dashboard.store.jobs.get("j1").state == "failed")
    assert "9 min 54 s" in words(await shown(dashboard, "/dashboard/training"))
    dashboard.queue.resume("j1")
    await until(lambda: dashboard.backend.busy)
    dashboard.clock.advance(323)
    tell(folder_in(dashboard, "j1"), step(3, seconds=700.0))
    page = words(await shown(dashboard, "/dashboard/training"))
    assert "11 min 40 s of work" in page and "attempt 1 for" in page
    tell(folder_in(dashboard, "j1"), step(20, seconds=917.0), *whole_run()[-1:])
    dashboard.backend.finish(
        TrainingSucceeded(folder_in(dashboard, "j1") / "adapter", 917.0, SCORECARD)
    )
    await until(lambda: dashboard.store.jobs.get("j1").state == "done")
    for path in ("", "/j1", "/compare?a=j1&b=j1"):
        page = words(await shown(dashboard, f"/dashboard/training{path}"))
        assert "15 min 17 s" in page and "5 min 23 s" not in page


@pytest.mark.parametrize("name", ["night-run", "oda", "oda-1121-202500"])
async def test_a_job_is_called_by_its_own_name_where_it_was_given_one(dashboard, name):
    put_job(dashboard, "j1", job_name=name)
    is_own = name == "night-run"
    html = await shown(dashboard, "/dashboard/training/j1")
    assert ("<h1>Oda Marrow v1, night-run</h1>" if is_own else "<h1>Oda Marrow v1</h1>") in html
    assert (
        "Oda Marrow v1 night-run" in words(await shown(dashboard, "/dashboard/training"))
    ) is is_own


async def test_nothing_yet_says_what_to_do(dashboard):
    page = words(await shown(dashboard, "/dashboard/training"))
    assert "Nothing has been trained yet" in page and "/finetune start" in page


# ------------------------------------------------------------------------------------------ one run


async def test_a_run_shows_the_settings_it_used_and_not_those_that_were_asked_for(dashboard):
    put_job(dashboard, "j1", hyperparameters={"learning_rate": 0.005})
    put_run(
        folder_in(dashboard, "j1"),
        {"learning_rate": 0.0007},
        used={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        chosen=["It is a small machine."],
    )
    tell(folder_in(dashboard, "j1"), *whole_run())
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert (
        "learning_rate 0.0007" in page
        and "0.005" not in page
        and "target_modules q_proj, v_proj" in page
    )
    assert "batches of 2, 4 of them a step" in page and "It is a small machine." in page
    assert "first started" in page


async def test_a_run_shows_its_curves_epochs_time_and_share_of_memory(dashboard):
    put_job(dashboard, "j1")
    put_run(folder_in(dashboard, "j1"))
    tell(folder_in(dashboard, "j1"), *whole_run())
    put_adapter(
        dashboard, "j1", by_source={"log": 90, "lore": 10}, samples={"train": 85, "heldout": 15}
    )
    await run_to_end(
        dashboard, "j1", TrainingSucceeded(folder_in(dashboard, "j1") / "adapter", 60.0, SCORECARD)
    )
    html = await shown(dashboard, "/dashboard/training/j1?smoothing=0.6")
    page = words(html)
    assert html.count('<figure class="chart">') == 5
    assert "sₙ = Σ 0.6ⁿ⁻ⁱ · lossᵢ ⁄ Σ 0.6ⁿ⁻ⁱ" in page
    assert "2 min 5 s, 1 min 20 s of it" in page
    assert "3.0 GiB, 37.5 % of Test Card 8" in page
    assert "1 10 3.4000 3.5000 20 s 2.5 2 20 2.6000 2.7000" in page
    assert "85 samples" in page and "15 held out" in page and "log: 90 samples" in html
    assert "loss 3.0000 → 2.0000" in page and "data-follow" not in html


async def test_an_old_run_without_its_folder_is_known_by_its_adapter(dashboard):
    put_job(dashboard, "j1")
    adapter = put_adapter(
        dashboard, "j1", materials=[{"kind": "log", "origin": "talk.json"}]
    ).rename(dashboard.home / "kept")
    folder_in(dashboard, "j1").rmdir()
    (adapter / "report" / "steps.csv").write_text(
        "step,epoch,loss,lr,tokens_per_s,memory_bytes,seconds\n1,0.5,3.5,0.001,300,1000,2.0\n2,1,3.25,0.0005,300,1000,4.0\n"
    )
    await run_to_end(dashboard, "j1", TrainingSucceeded(adapter, 60.0, SCORECARD))
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert "From the adapter's manifest" in page and "lora_r 99" in page
    assert "training 2 3.25" in page or "3.25" in page
    assert "talk.json" in page and "folder no longer exists" in page


@pytest.mark.parametrize("state", ["queued", "cancelled"])
async def test_a_job_of_which_nothing_is_there_has_a_page(dashboard, state):
    put_job(dashboard, "j1", hyperparameters={"seed": 41})
    if state == "cancelled":
        dashboard.queue.cancel("j1")
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert ("Loss: no values" in page) == (state == "queued")
    assert ("No curves of this run" in page) == (state == "cancelled")
    assert "seed 41" in page
    assert "Only the request is known" in page and "There is no log" in page


async def test_what_a_run_learned_from_is_not_known_yet_before_it_is_gone(dashboard):
    put_job(dashboard, "j1")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert "has just begun" in page and "gone" not in page
    dashboard.backend.finish(TrainingFailed("The disk is full.", "Free some."))
    await until(lambda: dashboard.store.jobs.get("j1").state == "failed")
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert "is gone" in page and "just begun" not in page
    folder_in(dashboard, "j1").mkdir(parents=True)
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert "does not say so" in page and "is gone" not in page


async def test_files_that_cannot_be_read_cost_what_stands_in_them_alone(dashboard):
    put_job(dashboard, "j1")
    folder = folder_in(dashboard, "j1")
    tell(folder, step(1, 3.75), step(2, 3.5))
    with (folder / "events.jsonl").open("a") as file:
        file.write("{half\n")
    (folder / "run.json").write_text('{"recipe": 3')
    (folder / "request.json").write_text("[]")
    page = words(await shown(dashboard, "/dashboard/training/j1"))
    assert "1 line of its events" in page and "3.5" in page
    dashboard.store._connection.write(
        "update jobs set request = '{}', result = '{}' where job_id = 'j1'"
    )
    page = await shown(dashboard, "/dashboard/training/j1")
    assert "Oda Marrow v1" in words(page) and "Repeat with changes" not in page
    assert "cannot be read" in words(await shown(dashboard, "/dashboard/training/j1/repeat", 409))


async def test_foreign_text_stays_text(dashboard):
    put_job(dashboard, "j1")
    folder = folder_in(dashboard, "j1")
    put_run(folder, {"optim": EVIL}, chosen=[EVIL], base_model=EVIL)
    tell(folder, Phase(name="training", detail=EVIL))
    (folder / "trainer.log").write_text(f"loading {EVIL}\n")
    put_adapter(
        dashboard,
        "j1",
        by_source={EVIL: 3},
        samples={"train": 3},
        materials=[{"kind": "log", "origin": EVIL}],
    )
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.on_event(Phase(name="training", detail=EVIL))
    for path in ("/dashboard/training", "/dashboard/training/j1"):
        assert EVIL not in await shown(dashboard, path)
    dashboard.backend.finish(TrainingFailed(EVIL, EVIL, can_resume=True))
    await until(lambda: dashboard.store.jobs.get("j1").state == "failed")
    for path in ("", "/j1", "/j1/repeat", "/compare?a=j1&b=j1", f"/{EVIL.replace('/', '%2F')}"):
        html = await shown(dashboard, f"/dashboard/training{path}", 404 if "%2F" in path else 200)
        assert EVIL not in html and "<script>" not in html
        assert path == "/compare?a=j1&b=j1" or "script" in words(html)


async def test_the_log_is_its_tail_without_places_and_without_what_a_terminal_draws(dashboard):
    put_job(dashboard, "j1")
    folder = folder_in(dashboard, "j1")
    folder.mkdir(parents=True)
    noise = "x" * 100 + "\n"
    (folder / "trainer.log").write_bytes(
        noise.encode() * (LOG_TAIL_BYTES // 50) + f"reads {dashboard.home}/jobs/j1/material\n".encode()
        + b"Loading: 10%\rLoading: 90%\r\n\x1b[31mred\x1b[0m \xff\n"
    )  # fmt: skip
    page = await shown(dashboard, "/dashboard/training/j1")
    assert "reads UNDERSTUDY_HOME/jobs/j1/material" in page and str(dashboard.home) not in page
    assert (
        "Loading: 90%" in page
        and "Loading: 10%" not in page
        and "red �" in page
        and "\x1b" not in page
    )
    assert page.count("x" * 100) < 301


# -------------------------------------------------------------------------------------------- forms


async def post(dashboard, path, **fields):
    own = {"Accept": "text/html", "Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"}
    async with dashboard.session.post(path, data=fields, headers=own) as answer:
        return answer.status, words(await answer.text())


async def test_a_run_is_cancelled_and_let_go_on_by_buttons(dashboard):
    put_job(dashboard, "j1")
    put_job(dashboard, "j2", guild=4)
    status, page = await post(dashboard, "/dashboard/training/j2/cancel")
    assert (
        status == 200
        and "Oda Marrow v2 is cancelled." in page
        and dashboard.store.jobs.get("j2").state == "cancelled"
    )
    assert (await post(dashboard, "/dashboard/training/j2/cancel"))[0] == 409
    await run_to_end(
        dashboard, "j1", TrainingFailed("The disk is full.", "Free some.", can_resume=True)
    )
    page = await shown(dashboard, "/dashboard/training/j1")
    assert (
        "The disk is full. Free some." in words(page)
        and 'action="/dashboard/training/j1/resume"' in page
    )
    status, page = await post(dashboard, "/dashboard/training/j1/resume")
    assert (
        status == 200
        and "Oda Marrow v1 is in the queue again" in page
        and dashboard.store.jobs.get("j1").state in ("queued", "running")
    )
    assert (await post(dashboard, "/dashboard/training/none/resume"))[0] == 404


async def test_two_runs_side_by_side_mark_what_differs(dashboard):
    for name, rate in (("a", 0.001), ("b", 0.0002)):
        put_job(dashboard, name, guild=ord(name))
        put_run(folder_in(dashboard, name), {"learning_rate": rate})
        tell(folder_in(dashboard, name), *whole_run(20 if name == "a" else 12))
    html = await shown(dashboard, "/dashboard/training/compare?a=a&b=b")
    page = words(html)
    assert html.count('class="differs"') == 2 and "job_name, learning_rate" in page
    assert re.search(r"learning_rate differs 0.001 0.0002", page) and re.search(r"seed 7 7", page)
    assert "A, Oda Marrow v1: training, smoothed" in page
    assert "B, Oda Marrow v2: held out, smoothed" in page
    assert "Steps 20 12" in page and "2.7000 after step 20" in page
    choice = words(await shown(dashboard, "/dashboard/training/compare?a=a"))
    assert "Oda Marrow v2, queued" in choice and "Settings" not in choice
    assert (await shown(dashboard, "/dashboard/training/compare?a=a&b=none", 404)) and RECIPE[
        "seed"
    ] == 7


async def test_what_is_not_known_of_a_run_yet_is_no_difference_and_what_differs_comes_first(
    dashboard,
):
    put_job(dashboard, "a", recipe="s0-6gb")
    put_run(folder_in(dashboard, "a"), {"max_steps": None})
    put_job(dashboard, "b", guild=2, general="general-dialogue")
    path = "/dashboard/training/compare?a=a&b=b"
    html = await shown(dashboard, path)
    page = words(html)
    assert "3 of 19 differ: job_name, recipe, general. 13 are not known" in page
    assert re.search(r"learning_rate not known 0.001 not known", page)
    places = [
        html.rindex('class="differs"'),
        html.index("not known</span>"),
        html.rindex("not known</span>"),
    ]
    assert sorted(places) == places and places[-1] < html.index("persona</th>")
    put_run(folder_in(dashboard, "b"), {"max_steps": 30})
    page = words(await shown(dashboard, path))
    assert "4 of 19 differ: job_name, recipe, general, max_steps." in page
    assert "not known" not in page
