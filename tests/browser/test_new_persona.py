"""The dashboard's form of a new persona, with its preview, by hand."""

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_dashboards_form_previews_while_one_writes(staged, visit):
    staged.engine.text = "Mind the step."
    mina = await visit(staged.sandbox)
    page = mina.page
    await page.goto(f"{staged.sandbox.url}/dashboard/new-persona")
    await page.get_by_label("Name").fill("Marlow")
    await page.get_by_label("Who are they?").fill("A retired lighthouse keeper.")
    await page.get_by_label("First line").fill("Mind the step, {{user}}.")
    await expect(page.locator("#shown-line")).to_have_text("Mind the step, Guest.")
    await page.get_by_label("Somebody says").first.fill("How was your day?")
    await page.get_by_label("First line").focus()
    await expect(page.locator("#mes_example-error")).to_contain_text("has no answer")
    await page.get_by_label("They answer").first.fill("Long.")
    await expect(page.locator("#mes_example-error")).to_be_hidden()
    await page.get_by_role("button", name="Say “Hello!”").click()
    await expect(page.locator("#made")).to_have_text("by the base model, untrained")
    await expect(page.locator("#reply")).not_to_be_empty()
    await mina.has_no_serious_problem()
    await page.set_viewport_size({"width": 390, "height": 800})
    await mina.fits()
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name="What next?")).to_be_visible()
    await expect(page.locator("#said")).to_contain_text("has said its first line")
