"""What a run tells over server-sent events and as a list: nothing is lost or doubled when a
connection breaks.
"""

import asyncio
import json

from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from tests.bot.web.training_runs import epoch, folder_in, put_job, step, tell, whole_run
from tests.fakes import until
from tests.samples import SCORECARD

STREAM = {"Accept": "text/event-stream"}


async def shown_result(answer):
    """Id, name and content of each event of a stream, comments left out."""
    lines: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line:
            field, _, value = line.partition(": ")
            lines[field] = value
        elif "data" in lines:
            yield lines.get("id", ""), lines.get("event", ""), json.loads(lines["data"])
            lines = {}
        else:
            lines = {}


async def some(dashboard, path, until_seen, last=None):
    """The events of one connection until one fits, then the connection is cut."""
    seen = []
    headers = STREAM | ({"Last-Event-ID": last} if last else {})
    async with asyncio.timeout(10), dashboard.session.get(path, headers=headers) as answer:
        assert answer.status == 200 and answer.content_type == "text/event-stream"
        async for one in shown_result(answer):
            seen.append(one)
            if until_seen(one):
                break
        answer.close()
    return seen


def steps_in(seen):
    return [data["step"] for _, name, data in seen if name == "progress"]


def is_state(state):
    return lambda one: one[1] == "job" and one[2]["state"] == state


async def test_a_connection_that_breaks_in_the_middle_is_taken_up_again(dashboard):
    put_job(dashboard, "j1")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    folder = folder_in(dashboard, "j1")
    path = "/finetune/jobs/j1/events"
    tell(folder, *[step(n) for n in range(1, 6)])
    first = await some(dashboard, path, lambda one: one[1] == "progress" and one[2]["step"] == 3)
    with (folder / "events.jsonl").open("a") as file:
        file.write(step(6).model_dump_json()[:25])
    async with asyncio.TaskGroup() as group:
        second = group.create_task(
            some(dashboard, path, lambda one: steps_in([one]) == [7], first[-1][0])
        )
        await asyncio.sleep(0.05)
        with (folder / "events.jsonl").open("a") as file:
            file.write(step(6).model_dump_json()[25:] + "\n")
        tell(folder, step(7))
        dashboard.backend.on_event(step(7))
    tell(folder, step(8), epoch(1, 8))
    dashboard.backend.finish(TrainingSucceeded(dashboard.home / "adapter", 60.0, SCORECARD))
    third = await some(dashboard, path, is_state("done"), second.result()[-1][0])
    assert steps_in([*first, *second.result(), *third]) == list(range(1, 9))
    assert [name for _, name, _ in third] == ["progress", "epoch", "job"]
    ids = [int(number) for number, _, _ in (*first, *second.result(), *third)]
    assert ids == sorted(ids) and ids[-1] == (folder / "events.jsonl").stat().st_size


async def test_a_stream_ends_with_its_run_and_says_all_of_it_to_whoever_comes_later(dashboard):
    put_job(dashboard, "j1")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    async with (
        asyncio.timeout(10),
        dashboard.session.get("/finetune/jobs/j1/events", headers=STREAM) as answer,
    ):
        tell(folder_in(dashboard, "j1"), *whole_run())
        dashboard.backend.finish(TrainingFailed("The disk is full.", "Free some.", can_resume=True))
        seen = [one async for one in shown_result(answer)]
    assert steps_in(seen) == list(range(1, 21)) and seen[-1][2]["state"] == "failed"
    late = await some(dashboard, "/finetune/jobs/j1/events", is_state("failed"))
    assert steps_in(late) == list(range(1, 21))
    nothing_more = await some(
        dashboard, "/finetune/jobs/j1/events", is_state("failed"), late[-1][0]
    )
    assert [name for _, name, _ in nothing_more] == ["job"]
    from_there = await some(
        dashboard, f"/finetune/jobs/j1/events?after={late[4][0]}", is_state("failed")
    )
    assert steps_in(from_there) == list(range(5, 21))


async def test_a_job_that_waits_tells_its_place_and_one_without_folder_only_itself(dashboard):
    put_job(dashboard, "first")
    put_job(dashboard, "second", guild=5)
    async with (
        asyncio.timeout(10),
        dashboard.session.get("/finetune/jobs/second/events", headers=STREAM) as answer,
    ):
        stream = shown_result(answer)
        _, name, job = await anext(stream)
        assert (name, job["state"], job["place"]) == ("job", "queued", 2)
        dashboard.queue.cancel("first")
        assert (await anext(stream))[2]["place"] == 1
        dashboard.queue.cancel("second")
        assert (await anext(stream))[2]["state"] == "cancelled"
        assert [one async for one in stream] == []


async def test_what_was_reported_before_is_void_where_the_file_is_another(dashboard):
    put_job(dashboard, "j1")
    tell(folder_in(dashboard, "j1"), *[step(n) for n in range(1, 6)])
    dashboard.queue.cancel("j1")
    last = (await some(dashboard, "/finetune/jobs/j1/events", is_state("cancelled")))[-1][0]
    (folder_in(dashboard, "j1") / "events.jsonl").unlink()
    tell(folder_in(dashboard, "j1"), step(1), step(2))
    again = await some(dashboard, "/finetune/jobs/j1/events", is_state("cancelled"), last)
    assert again[0][:2] == ("0", "anew") and steps_in(again) == [1, 2]


async def test_all_jobs_are_followed_in_one_stream(dashboard):
    put_job(dashboard, "waits")
    async with (
        asyncio.timeout(10),
        dashboard.session.get("/dashboard/training/events", headers=STREAM) as answer,
    ):
        stream = shown_result(answer)
        assert (await anext(stream))[2]["job_id"] == "waits"
        dashboard.queue.start()
        while (await anext(stream))[2]["state"] != "running":
            pass
        await until(lambda: dashboard.backend.busy)
        dashboard.backend.on_event(step(3))
        assert (await anext(stream))[2]["progress"]["step"] == 3


async def test_nobody_listens_any_more_once_a_stream_was_left(dashboard):
    put_job(dashboard, "j1")
    before = len(dashboard.queue._listeners)
    for path in ("/finetune/jobs/j1/events", "/dashboard/training/events"):
        await some(dashboard, path, lambda one: True)
    await until(lambda: len(dashboard.queue._listeners) == before)


async def test_events_are_listed_in_pages(dashboard):
    put_job(dashboard, "j1")
    tell(folder_in(dashboard, "j1"), *whole_run(6))
    seen = []
    path = "/finetune/jobs/j1/events?limit=4"
    while path:
        status, body, _ = await dashboard.ask("GET", path)
        assert status == 200 and len(body["events"]) <= 4
        seen += body["events"]
        path = body["links"].get("next")
    assert [one["event"] for one in seen][:2] == ["phase", "progress"] and seen[-1][
        "event"
    ] == "done"
    assert len(seen) == len({one["id"] for one in seen}) == 10


async def test_an_event_that_there_is_not_is_named(dashboard):
    put_job(dashboard, "j1")
    tell(folder_in(dashboard, "j1"), step(1))
    for query in ("after=3", "after=x", "after=-1", "limit=0", "from=1", f"after={10**30}"):
        status, body, _ = await dashboard.ask("GET", f"/finetune/jobs/j1/events?{query}")
        assert status == 400 and body["advice"], query


async def test_a_job_without_folder_has_no_events_and_an_unknown_one_is_not_found(dashboard):
    put_job(dashboard, "j1")
    assert (await dashboard.ask("GET", "/finetune/jobs/j1/events"))[1]["events"] == []
    assert (await dashboard.ask("GET", "/finetune/jobs/none/events"))[0] == 404


async def test_more_streams_than_a_bot_can_feed_are_refused(dashboard, monkeypatch):
    monkeypatch.setattr("bot.platform.web_kit.sse.MAX_STREAMS", 2)
    put_job(dashboard, "j1")
    path = "/finetune/jobs/j1/events"
    first, second = [await dashboard.session.get(path, headers=STREAM) for _ in range(2)]
    async with dashboard.session.get(path, headers=STREAM) as third:
        assert third.status == 503 and third.headers["Retry-After"]
        problem = await third.json()
        assert problem["detail"] == "2 streams of events are open." and "Close" in problem["advice"]
    first.close()

    async def is_free():
        async with dashboard.session.get(path, headers=STREAM) as again:
            return again.status == 200

    async with asyncio.timeout(8):
        while not await is_free():  # noqa: ASYNC110  the server is asked
            await asyncio.sleep(0.1)
    second.close()
