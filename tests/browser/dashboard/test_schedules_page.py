"""What is done at set times in Chromium: listed, followed to a persona, and removed; on a desk and on
a phone.
"""

import json
from typing import Any

import pytest
from playwright.async_api import expect

from bot.schedules.store import MemberGreeting, ScheduledLine, TrainingSchedule
from tests.bot.conftest import QUAY
from tests.browser.dashboard.conftest import Dashboard, assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROMPT = "say good morning and ask how everybody slept"


def plan(dashboard: Dashboard) -> None:
    stage = dashboard.stage
    place: dict[str, Any] = {
        "guild_id": int(stage.sandbox.guild_id),
        "channel_id": int(stage.sandbox.channel(QUAY)["id"]),
        "set_by": int(stage.moderator.id),
        "set_at": 100.0,
    }
    stage.store.training_schedules.set(
        TrainingSchedule(
            0,
            persona_id="ballast",
            weekdays=1,
            minute=210,
            new_samples=None,
            options=json.dumps({"persona": "ballast", "recipe": "quick"}),
            handled_at=200.0,
            outcome="There is no log.",
            **place,
        )
    )
    stage.store.scheduled_lines.add(
        ScheduledLine(
            0, weekdays=127, minute=510, prompt=PROMPT, handled_at=200.0,
            outcome="it came in the quiet hours", **place,
        )
    )  # fmt: skip
    stage.store.member_greetings.set(MemberGreeting(is_prompt=False, text="Ahoy!", **place))


@pytest.mark.parametrize("phone", [False, True])
async def test_what_is_due_is_seen_and_removed(dashboard: Dashboard, phone: bool) -> None:
    plan(dashboard)
    store = dashboard.stage.store
    page = await dashboard.open("/dashboard/training", phone=phone, dark=phone)
    await page.get_by_role("link", name="At set times").click()
    trainings = page.get_by_role("region", name="Scheduled trainings")
    await expect(trainings).to_contain_text("Monday at 03:30 (UTC)")
    await expect(trainings).to_contain_text("refused: There is no log.")
    await expect(trainings).to_contain_text("Mina Vale")
    lines = page.get_by_role("region", name="Scheduled lines")
    await expect(lines).to_contain_text(PROMPT)
    await expect(lines).to_contain_text("left out: it came in the quiet hours")
    await assert_accessible(page)
    await trainings.get_by_role("link", name="Ballast").click()
    await expect(page.get_by_role("link", name="At set times")).to_have_attribute(
        "aria-current", "page"
    )
    await assert_accessible(page)
    for name in ("Remove the training of Ballast", "Remove line", "Remove the greeting"):
        await page.get_by_role("button", name=name).click()
        await expect(page.get_by_role("status").first).to_contain_text("It is removed.")
    await expect(page.get_by_text("No training is scheduled.")).to_be_visible()
    await expect(page).to_have_url("/dashboard/personas/ballast/schedules")
    assert not store.training_schedules.all() + store.scheduled_lines.all()
    assert not store.member_greetings.all()
