"""`/finetune/jobs`: what a job says of itself, pages, an end."""

from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Progress
from tests.fakes import until
from tests.samples import SCORECARD

MEMBER = 700_000_000_000_000_007
CHANNEL = 800_000_000_000_000_008


async def job(dashboard, job_id):
    status, body, _ = await dashboard.ask("GET", f"/finetune/jobs/{job_id}")
    assert status == 200
    return body


async def test_a_job_from_the_queue_to_its_result(dashboard):
    job_id = (await dashboard.start(task_type="persona", persona="oda", dataset=None))[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    step = Progress(
        step=1, of=4, epoch=0.5, loss=3.0, lr=1e-4, tokens_per_s=200, eta_s=60, memory_bytes=2**30
    )
    dashboard.backend.on_event(step)
    running = await job(dashboard, job_id)
    assert (running["state"], running["place"], running["attempt"]) == ("running", None, 1)
    assert running["progress"] == step.model_dump(mode="json") and running["started_at"].endswith(
        "+00:00"
    )
    assert running["links"]["cancel"] == f"/finetune/jobs/{job_id}/cancel"

    place = dashboard.home / "models" / "persona_adapters" / "oda" / "v1"
    dashboard.backend.finish(TrainingSucceeded(place, 60.0, SCORECARD))
    await until(lambda: dashboard.store.jobs.get(job_id).state == "done")
    done = await job(dashboard, job_id)
    assert done["result"] == {
        "adapter": "models/persona_adapters/oda/v1", "seconds": 60.0, "scorecard": SCORECARD.model_dump(mode="json"),
    }  # fmt: skip
    assert done["versions"] == {"live": None, "installed": ["v1"]} and done["version"] == "v1"
    assert (
        "cancel" not in done["links"]
        and done["finished_at"]
        and str(dashboard.home) not in str(done)
    )


async def test_a_failed_job_says_why_without_the_machines_folders(dashboard):
    job_id = (await dashboard.start())[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.finish(
        TrainingFailed(
            "The trainer ended.", f"The whole log is {dashboard.home}/jobs/{job_id}/trainer.log."
        )
    )
    await until(lambda: dashboard.store.jobs.get(job_id).state == "failed")
    failed = await job(dashboard, job_id)
    assert (failed["state"], failed["error"]) == ("failed", "The trainer ended.")
    assert f" UNDERSTUDY_HOME/jobs/{job_id}/trainer.log" in failed["advice"]
    assert set(failed["links"]) == {"self", "events"}
    status, body, _ = await dashboard.ask("POST", f"/finetune/jobs/{job_id}/resume")
    assert status == 409 and f"{job_id} is failed" in body["detail"] and body["advice"]


async def test_a_job_that_somebody_can_mend_is_resumed(dashboard):
    job_id = (await dashboard.start())[1]["job_id"]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.finish(
        TrainingFailed("The disk is full.", "Free some space.", can_resume=True)
    )
    await until(lambda: dashboard.store.jobs.get(job_id).state == "failed")
    resume = (await job(dashboard, job_id))["links"]["resume"]
    assert resume == f"/finetune/jobs/{job_id}/resume"
    status, body, _ = await dashboard.ask("POST", resume)
    assert (status, body["state"], body["error"]) == (200, "queued", None) and "resume" not in body[
        "links"
    ]
    await until(lambda: dashboard.backend.busy)
    assert len(dashboard.backend.runs) == 2


async def test_a_servers_job_says_nothing_of_who_asked(dashboard):
    request = TrainingRequest(job_name="manners", persona="oda")
    made = dashboard.store.jobs.add(NewTrainingJob("j1", MEMBER + 1, CHANNEL, MEMBER, request), 1.0)
    shown = await job(dashboard, made.job_id)
    assert shown["guild"] == str(MEMBER + 1) and shown["queued_at"] == "1970-01-01T00:00:01+00:00"
    assert str(MEMBER) not in str(shown) and str(CHANNEL) not in str(shown)


async def test_a_job_that_cannot_be_read_is_shown_all_the_same(dashboard):
    job_id = (await dashboard.start())[1]["job_id"]
    dashboard.store._connection.write(
        "update jobs set request = '{}', progress = '{}' where job_id = :j", j=job_id
    )
    shown = await job(dashboard, job_id)
    assert shown["request"] is None and shown["progress"] is None and shown["state"] == "queued"


async def test_pages_hold_every_job_once_newest_first(dashboard):
    made = [(await dashboard.start(job_name=f"j{n}"))[1]["job_id"] for n in range(5)]
    request = TrainingRequest(job_name="theirs", persona="oda")
    dashboard.store.jobs.add(NewTrainingJob("other", 7, CHANNEL, MEMBER, request), 1.0)
    seen = []
    path = "/finetune/jobs?guild=0&limit=2"
    while path:
        _, page, _ = await dashboard.ask("GET", path)
        assert len(page["jobs"]) <= 2
        seen += [job["job_id"] for job in page["jobs"]]
        path = page["links"].get("next")
    assert seen == made[::-1]
    assert [
        job["job_id"] for job in (await dashboard.ask("GET", "/finetune/jobs?guild=7"))[1]["jobs"]
    ] == ["other"]
    everyone = (await dashboard.ask("GET", "/finetune/jobs"))[1]
    assert len(everyone["jobs"]) == 6 and "next" not in everyone["links"]


async def test_a_query_that_cannot_be_is_named(dashboard):
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "guild=-1",
        "guild=９",
        "guild=99999999999999999999",
        "page=2",
        "limit=",
    ]:
        status, body, _ = await dashboard.ask("GET", f"/finetune/jobs?{query}")
        assert status == 400 and query.partition("=")[0] in body["detail"] and body["advice"], query


async def test_an_unknown_job_is_not_found(dashboard):
    for method, path in (
        ("GET", "/finetune/jobs/none"), ("POST", "/finetune/jobs/none/cancel"),
        ("POST", "/finetune/jobs/none/resume"), ("GET", "/finetune/jobs?after=none"),
    ):  # fmt: skip
        status, body, _ = await dashboard.ask(method, path)
        assert status == 404 and body["detail"] == "There is no job 'none'."


async def test_cancelled_for_good_and_once(dashboard):
    first, second = [(await dashboard.start(job_name=name))[1]["job_id"] for name in ("a", "b")]
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    for job_id in (second, first):
        status, body, _ = await dashboard.ask("POST", f"/finetune/jobs/{job_id}/cancel")
        assert (status, body["state"]) == (200, "cancelled")
    await until(lambda: not dashboard.backend.busy)
    status, body, _ = await dashboard.ask("POST", f"/finetune/jobs/{first}/cancel")
    assert status == 409 and "is cancelled already" in body["detail"]
