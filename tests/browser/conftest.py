"""Chromium over the sandbox's page, a bot behind it, and someone who sits in front of it.

One browser for the whole run, one context for each test; whatever Chromium complains about fails
the test.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import discord
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    async_playwright,
    expect,
)

from sandbox import ChannelSeed, GuildSeed, MemberSeed, Permission, RoleSeed, Sandbox, patch_discord
from tests.bot.conftest import Stage, on_stage
from tests.browser.chromium import ChromiumMissingError, is_required, launch
from tests.browser.panel import Panelist

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = 5_000
SERIOUS = ("serious", "critical")
SEED = GuildSeed(
    name="Test guild",
    channels=(
        ChannelSeed("tavern", "warm"),
        ChannelSeed("cellar", "dark"),
        ChannelSeed("attic", nsfw=True),
    ),
    members=(
        MemberSeed("Olga", owner=True),
        MemberSeed("Mora", ("Moderator",)),
        MemberSeed("Nils"),
        MemberSeed("Quinn", ("Onlooker",)),
    ),
    roles=(
        RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES), 0x3366CC),
        RoleSeed(
            "Onlooker",
            0,
            denied=int(Permission.SEND_MESSAGES | Permission.SEND_MESSAGES_IN_THREADS),
        ),
    ),
    bot_name="Probe",
)

expect.set_options(timeout=PATIENCE_MS)


class Visitor:
    """Someone at the page. Messages are found by words in them."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.box = page.get_by_role("textbox", name="Message", exact=True)
        self.problem = page.locator("#composer .problem")
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, said: ConsoleMessage) -> None:
        # A refusal is an answer; Chromium notes every 4xx as an error.
        refused = "/page-api/" in said.location["url"] and "status of 400" in said.text
        if said.type in ("error", "warning") and not refused:
            self.complaints.append(f"{said.text} ({said.location['url']})")

    async def enter(self, member: str | None = None, channel: str | None = None) -> Visitor:
        """Open the page, as this member and in this channel."""
        await self.page.goto(f"{self.url}/#{channel or ''}")
        await expect(self.page.locator("#acting b")).not_to_be_empty()
        if member:
            await self.act_as(member)
        return self

    async def act_as(self, member: str) -> None:
        """Change seats, as a person does: through the menu."""
        await self._with_sidebar(self.page.locator("#acting"))
        await self.page.get_by_role("menuitemradio", name=member).click()
        await expect(self.page.locator("#acting b")).to_have_text(member)

    async def go(self, channel: str) -> None:
        """Open a channel, thread or direct messages from the sidebar."""
        await self._with_sidebar(self.place(channel))
        await expect(self.place(channel)).to_have_attribute("aria-current", "page")

    async def _with_sidebar(self, target: Locator) -> None:
        if await self.page.locator("#menu").is_visible():
            await self.page.locator("#menu").click()
        await target.click()

    def place(self, name: str) -> Locator:
        return self.page.locator("#channels .place").filter(has_text=name).first

    async def say(self, words: str) -> None:
        await self.box.fill(words)
        await self.box.press("Enter")

    def message(self, words: str) -> Locator:
        """The last message with these words."""
        return (
            self.page.locator("#messages article")
            .filter(has=self.page.locator(":is(.content, .display)", has_text=words))
            .last
        )

    async def sees(self, words: str) -> Locator:
        found = self.message(words)
        await expect(found).to_be_visible()
        return found

    async def command(self, name: str, **options: str) -> None:
        """Run a slash command by hand; options that the form hides behind chips are brought out."""
        await self.open_command(name)
        for option, value in options.items():
            await self.fill_option(option, value)
        await self.page.get_by_role("button", name="Run", exact=True).click()

    async def open_command(self, name: str) -> Locator:
        await self.box.fill(f"/{name}")
        await self.page.get_by_role("option", name=f"/{name}", exact=False).first.wait_for()
        await self.box.press("Enter")
        return self.page.get_by_role("form", name=f"/{name}")

    async def fill_option(self, option: str, value: str) -> None:
        chip = self.page.get_by_role("button", name=f"+{option}", exact=True)
        more = self.page.locator(".chip.more")
        if await more.is_visible() and not await chip.is_visible():
            await more.click()
        if await chip.is_visible():
            await chip.click()
        field = self.page.locator(".command").get_by_label(re.compile(rf"^{option}( required)?$"))
        if await field.evaluate("element => element.matches('select')"):
            await field.select_option(label=value)
        else:
            await field.fill(value)

    async def choose(self, message: Locator, item: str) -> None:
        """Pick an entry of a message's menu."""
        await message.click(button="right", position={"x": 5, "y": 5})
        await self.page.get_by_role("menuitem", name=item).click()

    async def long_press(self, target: Locator) -> None:
        """Hold a finger on it for a while."""
        await target.scroll_into_view_if_needed()
        box = await target.bounding_box()
        assert box is not None
        touch = await self.page.context.new_cdp_session(self.page)
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        await asyncio.sleep(0.6)
        await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    async def has_no_serious_problem(self) -> None:
        """What axe finds, except advice."""
        await self.page.wait_for_load_state()  # with its style sheets
        found = (await Axe().run(self.page)).response["violations"]
        worst = [
            f"{one['id']}: {one['nodes'][0]['html'][:160]}"
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert not worst, "\n".join(worst)

    async def fits(self) -> None:
        """Nothing is cut off sideways."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} px wider than the window"


def fail_or_skip(reason: str) -> NoReturn:
    """End a test that lacks a browser: it fails where one is expected, and is skipped elsewhere."""
    if is_required():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason.partition("\n")[0])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        try:
            browser = await launch(playwright)
        except ChromiumMissingError as error:
            fail_or_skip(str(error))
        yield browser
        await browser.close()


Visit = Callable[..., Coroutine[Any, Any, Visitor]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Opens pages, each in a context of its own, and fails the test if Chromium complained."""
    contexts: list[BrowserContext] = []
    visitors: list[Visitor] = []

    async def come(
        sandbox: Sandbox, member: str | None = None, channel: str | None = None, **more: Any
    ) -> Visitor:
        settings = {"viewport": DESKTOP, "color_scheme": "dark", "reduced_motion": "reduce", **more}
        context = await browser.new_context(**settings)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        visitors.append(Visitor(await context.new_page(), sandbox.url))
        return await visitors[-1].enter(member, channel)

    yield come
    for context in contexts:
        await context.close()
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    assert not complaints, f"Chromium complained: {complaints}"


@asynccontextmanager
async def running(client: discord.Client, token: str) -> AsyncIterator[None]:
    """The client logged in and ready."""
    task = asyncio.create_task(client.start(token))
    ready = asyncio.create_task(client.wait_until_ready())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield
    finally:
        await client.close()
        await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    """A guild without a bot in it."""
    made = Sandbox(SEED)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def panelist(sandbox: Sandbox) -> AsyncIterator[Panelist]:
    """A bot with a bit of everything that the page can show."""
    with patch_discord(sandbox):
        client = Panelist()
        async with running(client, sandbox.token):
            yield client


@pytest_asyncio.fixture(loop_scope="session")
async def staged(tmp_path: Path) -> AsyncIterator[Stage]:
    """Understudy itself, with a fake engine: its guild, personas and commands."""
    async with on_stage(tmp_path) as made:
        yield made
