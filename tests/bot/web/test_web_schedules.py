"""What is done at set times, on the dashboard: listed with its next time, its outcome and who set
it, and removed.
"""

import json
import time

import pytest

from bot.schedules.store import ScheduledLine, TrainingSchedule
from bot.store import Channel

PAGE = "/dashboard/schedules"
GUILD, CHANNEL = 7, 70
MORNING = 8 * 60 + 30


def put_schedules(store):
    """Oda is trained on Mondays, Ballast after samples; Oda says a line each morning."""
    store.channels.assign(Channel(GUILD, CHANNEL, "oda", "mentions", set_by=1, set_at=time.time()))
    place = {"guild_id": GUILD, "channel_id": CHANNEL, "set_by": 5, "set_at": 100.0}
    for persona, when in (
        ("oda", {"weekdays": 1, "minute": MORNING, "new_samples": None}),
        ("ballast", {"weekdays": None, "minute": None, "new_samples": 20}),
    ):
        store.training_schedules.set(
            TrainingSchedule(
                0, persona_id=persona, options=json.dumps({"persona": persona, "recipe": "quick"}),
                handled_at=100.0, **when, **place,
            )
        )  # fmt: skip
    store.scheduled_lines.add(
        ScheduledLine(0, weekdays=127, minute=MORNING, prompt="say <hi>", handled_at=100.0, **place)
    )


@pytest.fixture
def planned(dashboard):
    put_schedules(dashboard.store)
    return dashboard


def schedules(dashboard):
    store = dashboard.store
    return [it.persona_id for it in store.training_schedules.all()], store.scheduled_lines.all()


async def test_the_page_lists_them_and_a_personas_page_its_own(planned):
    status, page, _ = await planned.page(PAGE)
    assert status == 200
    for words in ("Monday at 08:30 (UTC)", "after 20 new taught replies and votes, 0 are there",
                  "every day at 08:30 (UTC)", "say &lt;hi&gt;", "member 5", "channel 70"):  # fmt: skip
        assert words in page, words
    _, page, _ = await planned.page("/dashboard/personas/ballast/schedules")
    assert "after 20" in page and "Monday at 08:30" not in page and "say &lt;hi" not in page
    _, page, _ = await planned.page("/dashboard/personas/oda/schedules")
    assert "after 20" not in page and "Monday at 08:30" in page and "say &lt;hi" in page


async def test_they_are_removed_and_one_that_is_gone_is_named(planned):
    fields = {"guild": str(GUILD), "persona": "oda", "of": "oda"}
    status, _, headers = await planned.submit(f"{PAGE}/trainings/remove", **fields)
    assert status == 303 and headers["Location"] == "/dashboard/personas/oda/schedules"
    assert schedules(planned)[0] == ["ballast"]
    (line,) = schedules(planned)[1]
    fields = {"guild": str(GUILD), "number": str(line.seq), "of": ""}
    status, _, headers = await planned.submit(f"{PAGE}/lines/remove", **fields)
    assert status == 303 and headers["Location"] == PAGE
    assert not schedules(planned)[1]
    status, page, _ = await planned.submit(f"{PAGE}/lines/remove", **fields)
    assert status == 404 and "There is no line" in page
    for wrong in ("x", "", "9" * 19, "-1"):
        status, _, _ = await planned.submit(f"{PAGE}/trainings/remove", guild=wrong, persona="oda")
        assert status == 404
    _, page, _ = await planned.page("/dashboard/personas/oda/schedules")
    assert "No training is scheduled" in page and "Nothing is said" in page


async def test_the_latest_outcome_is_shown_with_its_run(planned):
    store = planned.store
    _, job, _ = await planned.start(job_name="harbour")
    for schedule in store.training_schedules.all():
        store.training_schedules.record_handled(
            schedule.seq,
            200.0,
            outcome="There is no log." if schedule.persona_id == "oda" else "",
            job_id="" if schedule.persona_id == "oda" else job["job_id"],
        )
    (line,) = store.scheduled_lines.all()
    store.scheduled_lines.record_handled(line.seq, 200.0, "it came in the quiet hours")
    _, page, _ = await planned.page(PAGE)
    assert "refused: There is no log." in page
    assert f'<a href="/dashboard/training/{job["job_id"]}">' in page
    assert "left out: it came in the quiet hours" in page
    store.scheduled_lines.record_handled(line.seq, 300.0)
    _, page, _ = await planned.page("/dashboard/personas/oda/schedules")
    assert ">said<" in page
