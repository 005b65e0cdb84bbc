"""The system page: figures that stay fresh, what is missing with its remedy, the doctor; at desktop
and phone width.
"""

import asyncio
import logging

import pytest
from playwright.async_api import expect

from bot.operations.doctor.checks import BotCheck
from bot.operations.web import pages as system_page
from personas.engine import RequestMetrics
from tests.browser.dashboard.conftest import assert_accessible, unfold

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("phone", [False, True])
async def test_the_system_is_seen_as_it_changes(dashboard, phone):
    watch = dashboard.stage.client.services.metrics
    page = await dashboard.open("/dashboard/system", phone=phone, dark=phone)
    replies = page.locator("[data-figure=replies]")
    await expect(replies).to_have_text("0")
    await expect(page.get_by_text("Refreshed every two seconds")).to_be_visible()
    await assert_accessible(page)
    await unfold(page)
    watch.reply(RequestMetrics(0.3, 4.0, 100, 20, "stop"))
    with watch.listening():
        logging.getLogger("bot.test").warning("the lamp flickers")
    await expect(replies).to_have_text("1")
    await expect(page.locator("[data-figure=whole-p90]")).to_have_text("4.0 s")
    await expect(page.get_by_role("region", name="Warnings in the log, table")).to_contain_text(
        "the lamp flickers"
    )
    await assert_accessible(page)


async def test_what_the_doctor_finds_is_shown_when_it_has_finished(dashboard, monkeypatch):
    go = asyncio.Event()

    async def ask(base_model):
        await go.wait()
        return [BotCheck("home", "warn", "others can read it", "chmod 700")]

    monkeypatch.setattr(system_page, "REFRESH_INTERVAL_S", 0.1)
    dashboard.stage.client.services.metrics.findings.run_checks = ask
    page = await dashboard.open("/dashboard/system")
    await page.get_by_text("Doctor's findings", exact=True).click()
    await page.get_by_role("button", name="Check now").click()
    await expect(page.locator("#asking")).to_contain_text("The doctor is checking")
    go.set()
    await expect(page.get_by_role("row").filter(has_text="others can read it")).to_contain_text(
        "chmod 700"
    )
    await expect(page.locator("#asking")).to_have_text("The doctor has finished.")
    await expect(page.get_by_role("button", name="Check again")).to_be_enabled()
