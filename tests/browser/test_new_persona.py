"""A persona in two minutes, by hand: the form on Discord's page, and the dashboard's with its preview."""

import pytest
from playwright.async_api import expect

from tests.bot.conftest import MODERATOR, OFFICE

pytestmark = pytest.mark.asyncio(loop_scope="session")
MARLOW = {
    "Name": "oda marrow",
    "Who are they?": "A retired lighthouse keeper who repairs clocks and misses the fog.",
    "How do they talk?": "Slowly, and never without a word about the weather.",
    "Examples": "You: How was your day?\nMarlow: Long. The tide was late.",
    "First line": "Mind the step, {{user}}. It was a ladder once.",
}


async def test_a_form_on_discord_is_refused_filled_in_again_and_makes_a_persona(staged, visit):
    mina = await visit(staged.sandbox, MODERATOR, OFFICE)
    await mina.command("persona create")
    dialog = mina.page.get_by_role("dialog")
    for label, text in MARLOW.items():
        await dialog.get_by_label(label).fill(text)
    await mina.has_no_serious_problem()
    submit = dialog.get_by_role("button", name="Submit")
    for width, height in ((390, 700), (1280, 800)):
        await mina.page.set_viewport_size({"width": width, "height": height})
        for label in ("Name", "First line"):
            await dialog.get_by_label(label).focus()
            await expect(dialog.get_by_label(label)).to_be_in_viewport(ratio=1)
            await expect(submit).to_be_in_viewport(ratio=1)
        await mina.fits()
    await submit.click()
    refused = await mina.sees("There is a persona Oda Marrow")
    await refused.get_by_role("button", name="Try again").click()
    for label, text in MARLOW.items():
        await expect(dialog.get_by_label(label)).to_have_value(text)
    await dialog.get_by_label("Name").fill("Marlow Finch")
    await dialog.get_by_role("button", name="Submit").click()
    created = await mina.sees("is a persona of this server now")
    await created.get_by_role("button", name=f"Use it in #{OFFICE}").click()
    await mina.sees("Mind the step, Mina Vale. It was a ladder once.")
    await mina.sees("What next?")


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
