"""The offer of a larger model above the conversation: before the first message, and while it is fetched."""

import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from bot.models.web.pages import OFFER_PATH
from tests.bot.conftest import QUAY, on_stage
from tests.bot.model_machine import COMMIT, MODEL, pretend_machine
from tests.browser.conftest import PHONE
from tests.hub_server import Hub, Repository, reach

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pretend_machine(monkeypatch)
    served = Hub({"Qwen/Qwen3-1.7B": Repository({COMMIT: MODEL}, {"main": COMMIT})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def offering(hub, tmp_path):
    """A guild whose page has the offer."""
    async with on_stage(tmp_path, notice=OFFER_PATH) as stage:
        yield stage


async def test_a_larger_model_is_fetched_and_continued_while_a_persona_speaks(offering, visit, hub):
    mina = await visit(offering.sandbox, "Mina Vale", QUAY, viewport=PHONE)
    notice = mina.page.get_by_role("region", name="Notice")
    fetch = notice.get_by_role(
        "button", name=re.compile("^Fetch Qwen3 1.7B: 524.4 kB, under a minute.*Apache")
    )
    await expect(fetch).to_be_visible()
    await expect(notice.get_by_role("link", name="Apache-2.0")).to_be_visible()
    await mina.has_no_serious_problem()
    await mina.fits()
    hub.cuts, hub.fails_after_cut, hub.pause_s = 1, True, 0.4
    await fetch.click()
    await expect(notice).to_contain_text(re.compile("Fetching Qwen3 1.7B: .*B of 524.4 kB"))
    await mina.say("Evening, Ballast.")
    await mina.sees("Evening, Ballast.")
    await expect(mina.page.get_by_role("region", name="Welcome")).to_be_hidden()
    resume = notice.get_by_role("button", name="Continue with Qwen3 1.7B")
    await expect(resume).to_be_visible()
    hub.statuses.clear()
    hub.pause_s = 0
    await resume.click()
    serve = notice.get_by_role("link", name="Serve it …")
    await expect(serve).to_have_attribute("href", "/dashboard/models?use=qwen3-1.7b")
    await mina.has_no_serious_problem()
    await mina.fits()
    await notice.get_by_role("button", name="Dismiss the notice").click()
    await mina.page.reload()
    await mina.sees("Evening, Ballast.")
    await expect(notice).to_be_hidden()


async def test_an_offer_that_nobody_took_goes_with_the_welcome(offering, visit):
    mina = await visit(offering.sandbox, "Mina Vale", QUAY)
    notice = mina.page.get_by_role("region", name="Notice")
    await expect(notice.get_by_role("button", name=re.compile("^Fetch"))).to_be_visible()
    await mina.say("Evening, Ballast.")
    await expect(notice).to_be_hidden()
    await expect(mina.page.get_by_role("region", name="Welcome")).to_be_hidden()
