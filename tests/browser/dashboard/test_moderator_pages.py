"""Signing in with Discord and a moderator's pages, as Chromium shows them: with strict cookies, and
a policy for forms that their redirections have to obey.
"""

import itertools
import os

import pytest
from playwright.async_api import expect

from bot.demo_guild import MEMBER, MODERATOR
from bot.moderation.store import Block
from bot.schedules.store import ScheduledLine
from tests.bot.conftest import QUAY
from tests.bot.test_finetune import STEP
from tests.bot.web.moderator_stage import SERVERS, moderator_stage
from tests.bot.web.test_web_moderator_blocks import reported
from tests.bot.web.test_web_moderator_cards import put_card
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.fakes import until
from tests.samples import SCORECARD

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def picture(page, name):
    """Keep a picture where PICTURES names a folder."""
    if folder := os.environ.get("PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize("phone", [False, True])
async def test_a_moderator_signs_in_works_on_their_server_and_is_refused_elsewhere(
    tmp_path, browser, phone
):
    async with moderator_stage(tmp_path) as town:
        persona_id = town.bring_in(town.first, "Marlow Finch")
        held = SCORECARD.model_copy(
            update={"verdict": "reject", "reasons": ("It repeats its examples.",)}
        )
        town.install(persona_id, town.first)
        town.install(persona_id, town.first, card=held)
        quay = town.channel_id(QUAY, town.first)
        town.stage.store.scheduled_lines.add(
            ScheduledLine(
                0, guild_id=town.first, channel_id=quay, set_by=town.user_id(MODERATOR), set_at=1.0,
                weekdays=127, minute=510, prompt="say good morning", handled_at=1.0,
            )
        )  # fmt: skip
        # Another site than the one that asks for consent, as the bot's is another one than Discord.
        url = town.stage.sandbox.url.replace("127.0.0.1", "localhost")
        dashboard = Dashboard(browser, url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"sign-in-{phone}")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await expect(page.get_by_role("heading", name="Skerrow Harbour")).to_be_visible()
        assert page.url == f"{dashboard.url}{SERVERS}/{town.first}", (
            "and not the address with the code"
        )
        assert await page.evaluate("document.cookie") == "", "no script can read the session"
        await assert_accessible(page)
        await picture(page, f"server-{phone}")
        await page.goto(SERVERS)
        await expect(page.get_by_text(f"You are signed in as {MODERATOR}.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"servers-{phone}")
        await page.get_by_role("link", name="Marlow Finch").click()
        await page.get_by_role("button", name="Promote v1").click()
        await expect(page.get_by_role("status")).to_contain_text("v1 of Marlow Finch is live")
        await page.get_by_role("button", name="Promote v2").click()
        await expect(page.get_by_role("heading", name="The gate rejects v2")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"versions-{phone}")
        await page.goto(f"{SERVERS}/{town.first}/channels/{quay}")
        await page.get_by_label("Quiet hours", exact=True).fill("22:00-07:00")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("It holds from the next message")
        await assert_accessible(page)
        await picture(page, f"channel-{phone}")
        await page.goto(f"{SERVERS}/{town.first}/schedules")
        await expect(page.get_by_text("say good morning")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"schedules-{phone}")
        await page.goto("/dashboard/system")
        await expect(page.get_by_text("This is the operator's alone.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"refusal-{phone}")
        await page.get_by_role("link", name="To your servers").click()
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await page.goto("/dashboard")
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You are signed out.")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_text("The sign-in was cancelled at Discord.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"cancelled-{phone}")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await dashboard.close()


@pytest.mark.parametrize("phone", [False, True])
async def test_a_moderator_blocks_limits_reads_reports_and_chooses_a_face(tmp_path, browser, phone):
    async with moderator_stage(tmp_path) as town:
        await reported(town, words="who is there?", note="It sounds like\na threat.")
        url = town.stage.sandbox.url.replace("127.0.0.1", "localhost")
        dashboard = Dashboard(browser, url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await page.get_by_label("Name and picture of").select_option("Oda Marrow")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("Oda Marrow speaks as the bot")
        await assert_accessible(page)
        await picture(page, f"face-{phone}")
        await page.get_by_role("link", name="Blocks and limits").click()
        await page.get_by_label("Member", exact=True).fill("tob")
        await page.get_by_label("Persona", exact=True).select_option("Oda Marrow")
        await page.get_by_role("button", name="Block", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("Whom do you mean?")
        await assert_accessible(page)
        await picture(page, f"found-{phone}")
        await page.get_by_role("button", name=f"Block {MEMBER} (tobias_reed)").click()
        await expect(page.get_by_role("status")).to_contain_text("not answered by Oda Marrow")
        await page.get_by_label("Replies to a member each day").fill("40")
        await page.get_by_label("Seconds between").fill("soon")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("alert")).to_contain_text("Write a whole number")
        await expect(page.get_by_label("Replies to a member each day")).to_have_value("40")
        await assert_accessible(page)
        await page.get_by_label("Seconds between").fill("10")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("40 a day, from midnight")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"blocks-{phone}")
        await page.get_by_role("button", name=f"Lift the block of {MEMBER}").click()
        await expect(page.get_by_text("Nobody is blocked.")).to_be_visible()
        await page.get_by_role("link", name="Skerrow Harbour").click()
        await page.get_by_role("link", name="Reported replies").click()
        await expect(page.get_by_text("hears: who is there?")).to_be_visible()
        note = page.get_by_text("Note: It sounds like a threat.")
        assert await note.inner_text() == "Note: It sounds like\na threat.", "lines as written"
        await assert_accessible(page)
        await picture(page, f"reports-{phone}")
        await page.get_by_role("button", name="Dealt with report").click()
        await expect(page.get_by_text("No reply is reported.")).to_be_visible()
        await assert_accessible(page)
        await dashboard.close()


@pytest.mark.parametrize("phone", [False, True])
async def test_a_moderator_mutes_names_a_role_and_marks_a_persona(tmp_path, browser, phone):
    async with moderator_stage(tmp_path) as town:
        town.stage.store.action_roles.add(town.first, "teach", 12345)
        url = town.stage.sandbox.url.replace("127.0.0.1", "localhost")
        dashboard = Dashboard(browser, url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await page.get_by_role("link", name="Mutes, roles, age").click()
        await expect(page.get_by_text("No persona is muted.")).to_be_visible()
        await page.get_by_label("Persona", exact=True).select_option("Oda Marrow")
        await page.get_by_label("Where").select_option(f"#{QUAY}")
        await page.get_by_role("button", name="Mute", exact=True).click()
        await expect(page.get_by_role("status")).to_contain_text(f"Muted: Oda Marrow in #{QUAY}.")
        await page.get_by_label("What they may do").select_option("Train personas")
        await page.get_by_label("Role", exact=True).select_option("Regular")
        await page.get_by_role("button", name="Add", exact=True).click()
        await expect(page.get_by_text("Regular", exact=True).first).to_be_visible()
        await page.get_by_role("button", name="Mark Ballast as age-restricted").click()
        await expect(page.get_by_text("Moderators have marked it here.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"rules-{phone}")
        await page.get_by_role("button", name="Remove role 12345 (deleted)").click()
        await page.get_by_role("button", name="Remove all roles: Train personas").click()
        await page.get_by_role("button", name="Remove the mark of Ballast").click()
        town.stage.store.mutes.remove(town.first, town.channel_id(QUAY, town.first), "oda")
        await page.get_by_role("button", name="Unmute: Oda Marrow").click()
        await expect(page.get_by_role("alert")).to_contain_text("There is no such mute")
        await expect(page.get_by_text("No persona is muted.")).to_be_visible()
        await expect(page.get_by_role("button", name="Remove")).to_have_count(0)
        await assert_accessible(page)
        await picture(page, f"rules-refused-{phone}")
        await page.get_by_role("link", name="Blocks and limits").click()
        await expect(page.get_by_text("Nobody is blocked.")).to_be_visible()
        await dashboard.close()


@pytest.mark.slow
async def test_the_operator_sees_blocks_of_each_server_and_faces_of_personas(dashboard):
    store, guild_id = dashboard.stage.store, int(dashboard.stage.sandbox.guild_id)
    store.blocks.add(Block(guild_id, int(dashboard.stage.member.id), "", 0, 1.0))
    store.faces.choose(guild_id, "ballast")
    page = await dashboard.open("/dashboard/system/safety")
    await page.get_by_role("link", name="Moderation of each server").click()
    await expect(page.get_by_role("cell", name="1", exact=True)).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-servers")
    await page.get_by_role("link", name="Skerrow Harbour").click()
    await expect(page.get_by_role("rowheader", name=MEMBER)).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-blocks")
    await page.get_by_role("link", name="All servers").click()
    await page.get_by_role("link", name="Direct messages and user installs").click()
    await page.get_by_label("Member", exact=True).fill(str(dashboard.stage.member.id))
    await page.get_by_role("button", name="Block").click()
    await expect(page.get_by_role("rowheader", name=MEMBER)).to_be_visible()
    await page.get_by_label("Replies to a member each day").fill("20")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("20 a day, from midnight")).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-direct-messages")
    await page.goto("/dashboard/personas/ballast")
    await expect(page.get_by_text("In Skerrow Harbour, the bot itself")).to_be_visible()
    await picture(page, "operator-face")


@pytest.mark.parametrize("phone", [False, True])
async def test_a_moderator_trains_tries_compares_and_edits(tmp_path, browser, phone):
    async with moderator_stage(tmp_path) as town:
        takes = itertools.count()
        town.stage.engine.script = lambda request: [f"Take {next(takes)} of the bell."]
        persona_id = town.bring_in(town.first, "Marlow Finch")
        version = town.install(persona_id, town.first)
        put_card(town, persona_id, version)
        url = town.stage.sandbox.url.replace("127.0.0.1", "localhost")
        dashboard = Dashboard(browser, url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await page.get_by_role("link", name="Plan a training").click()
        await page.get_by_label("Persona", exact=True).select_option("Marlow Finch")
        await expect(page.get_by_label("Learns from")).to_be_hidden()
        await page.get_by_text("More options").click()
        await assert_accessible(page)
        await picture(page, f"train-{phone}")
        await page.get_by_label("Recipe", exact=True).select_option("demo-cpu")
        await page.get_by_role("button", name="Plan it").click()
        await expect(page.get_by_role("heading", name="The plan")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"plan-{phone}")
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("heading", name="Status")).to_be_visible()
        await until(lambda: town.stage.backend.busy)
        town.stage.backend.on_event(STEP)
        await expect(page.get_by_text("42 %")).to_be_visible(timeout=20_000)  # by itself
        await assert_accessible(page)
        await picture(page, f"training-{phone}")
        await page.get_by_role("link", name="All trainings of Skerrow Harbour").click()
        await assert_accessible(page)
        await picture(page, f"trainings-{phone}")
        page.once("dialog", lambda dialog: dialog.accept())
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_role("status").first).to_contain_text("is cancelled")
        await page.goto(f"{SERVERS}/{town.first}/personas/{persona_id}")
        await page.get_by_text("Try a version first").click()
        await page.get_by_label("Percentage of the replies").fill("20")
        await page.get_by_role("button", name="Try it").click()
        await expect(page.get_by_role("heading", name="Tried now")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"rollout-{phone}")
        await page.get_by_role("link", name=version, exact=True).click()
        await expect(page.get_by_role("heading", name="Replies side by side")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"score-card-{phone}")
        await page.get_by_role("link", name="All versions").click()
        await page.get_by_role("link", name="Blind test").click()
        await page.get_by_role("button", name="Show me two replies").click()
        await page.get_by_role("button", name="Tie").click()
        await expect(page.get_by_text("Your vote: a tie.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"compare-{phone}")
        await page.get_by_role("link", name="Card", exact=True).click()
        await assert_accessible(page)
        await picture(page, f"card-{phone}")
        await page.get_by_label("Tagline").fill("A keeper of lamps.")
        await page.get_by_role("button", name="Save the card").click()
        await expect(page.get_by_role("status").first).to_contain_text("speaks by this card")
        await page.get_by_role("link", name="Lore", exact=True).click()
        await page.get_by_label("Title").fill("The bell")
        await page.get_by_label("Text", exact=True).fill("The bell rings at noon.")
        await page.get_by_role("button", name="Add").click()
        await expect(page.get_by_role("status").first).to_contain_text("the-bell.md is kept")
        await assert_accessible(page)
        await picture(page, f"lore-{phone}")
        await page.get_by_role("link", name="the-bell.md").click()
        await assert_accessible(page)
        await picture(page, f"lore-file-{phone}")
        await dashboard.close()
