"""Who is meant by a name in the page, and under whose name a message stands."""

import re
from dataclasses import replace

import pytest
from playwright.async_api import expect

from sandbox import ChannelSeed, GuildSeed, MemberSeed, RoleSeed, Sandbox
from tests.bot.conftest import INN, QUAY
from tests.fakes import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMESAKES = GuildSeed(
    name="Namesakes",
    channels=(ChannelSeed("tavern"),),
    members=(MemberSeed("Nils"),),
    roles=(RoleSeed("Nils", 0),),
    bot_name="Understudy",
)


async def test_a_name_means_who_was_chosen_and_else_the_user(visit):
    namesakes = Sandbox(NAMESAKES)
    await namesakes.start()
    nils = await visit(namesakes, None, "tavern")
    await nils.box.press_sequentially("@Under")
    await expect(nils.page.get_by_role("option")).to_have_text(
        ["U@Understudy"]
    )  # its face and name; not its role
    await nils.box.press("Enter")
    await nils.box.press("Enter")
    await nils.say("@Nils by hand")
    await nils.box.press_sequentially("@Nils")
    await nils.page.get_by_role("option", name="role").click()
    await nils.box.press_sequentially("chosen")
    await nils.box.press("Enter")
    await nils.sees("chosen")
    await nils.box.press("ArrowUp")
    await nils.page.get_by_role("textbox", name="Edit message").press_sequentially(", still")
    await nils.page.keyboard.press("Enter")
    await nils.sees("chosen, still")
    bot, user, role = (one["content"] for one in namesakes.messages("tavern"))
    assert bot.strip() == f"<@{namesakes.bot_id}>"
    assert user == f"<@{namesakes.member('Nils').id}> by hand"
    assert role.startswith("<@&") and role.endswith("> chosen, still")
    await namesakes.stop()


async def test_the_guilds_name_opens_the_other_guilds(visit):
    two = Sandbox(
        NAMESAKES, more_guilds=[replace(NAMESAKES, name="Annex", channels=(ChannelSeed("attic"),))]
    )
    await two.start()
    nils = await visit(two, None, "tavern")
    await nils.page.get_by_role("button", name="Namesakes", exact=True).click()
    await nils.page.get_by_role("menuitemradio", name="Annex").click()
    await expect(nils.page.get_by_role("heading", level=1)).to_have_text("#attic")
    await nils.say("from the attic")
    await nils.sees("from the attic")
    assert f"guild={two.guild_ids[1]}" in nils.page.url
    assert two.messages("tavern") == [] and len(two.messages("attic", two.guild_ids[1])) == 1
    await two.stop()


async def test_a_thread_begins_with_the_persona_that_it_was_made_from(staged, visit):
    tobias = await visit(staged.sandbox, "Tobias Reed", QUAY)
    await tobias.say("good evening")
    await tobias.choose(await tobias.sees("AI-written"), "Create thread")
    await tobias.page.get_by_role("textbox", name="Thread name").fill("The evening")
    await tobias.page.keyboard.press("Enter")
    await expect(tobias.page.get_by_role("heading", level=1)).to_contain_text("The evening")
    starter = await tobias.sees("Ballast hears: good evening")
    await expect(starter.locator(".head")).to_contain_text("BallastAPP")
    await expect(starter.locator(".face img")).to_have_count(1)
    await tobias.say("my own words")
    own = tobias.page.get_by_role("article", name="Tobias Reed")
    await expect(own.locator(".content")).to_have_text("my own words")
    await expect(own).not_to_contain_class("follows")


async def test_a_member_s_discord_speaks_vietnamese(staged, visit):
    tobias = await visit(staged.sandbox, "Tobias Reed", QUAY)
    acting = tobias.page.get_by_role("button", name="Acting as")
    vietnamese = tobias.page.get_by_role("menuitemradio", name="Tiếng Việt")
    held = []
    await tobias.page.route("**/page-api/language*", lambda route: held.append(route))
    await acting.click()
    await vietnamese.click()
    await until(lambda: held)
    # The menu shows the choice before the sandbox has taken it, though all is loaded anew meanwhile.
    await tobias.page.evaluate("import('/page/api.js').then((api) => api.loadState())")
    await acting.click()
    await expect(vietnamese).to_be_checked()
    await tobias.page.keyboard.press("Escape")
    async with tobias.page.expect_response("**/page-api/language*"):
        await held[0].continue_()
    member = staged.sandbox.member("Tobias Reed")
    asked = await member.slash(QUAY, "persona show")
    assert asked.interaction.payload["locale"] == "vi"
    member.set_locale("en-US")


async def test_a_voice_channel_has_a_chat_and_a_forum_its_posts(staged, visit):
    tobias = await visit(staged.sandbox, "Tobias Reed", QUAY)
    tower = tobias.place("signal-tower")
    await expect(tower.locator(".hash")).to_have_text("🔊")
    await tower.click()
    await expect(tobias.page.get_by_role("heading", level=1)).to_have_text("🔊 signal-tower")
    await expect(tobias.page.locator("#topic")).to_contain_text("There is no voice here.")
    await tobias.say("anybody up there?")
    await tobias.sees("anybody up there?")
    await tobias.page.reload()
    await tobias.sees("anybody up there?")
    await tobias.place("A brass lantern without a handle").click()
    await tobias.sees("still warm")
    await tobias.place("lost-and-found").click()
    form = tobias.page.get_by_role("dialog", name="New post in #lost-and-found")
    await form.get_by_label("Post title").fill("A left boot")
    await form.get_by_label("Message").fill("Size nine, @Mina Vale.")
    await form.get_by_role("button", name="Post").click()
    heading = tobias.page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("#lost-and-found › A left boot")
    await tobias.sees("Size nine, @Mina Vale.")
    await tobias.say("and wet")
    await tobias.sees("and wet")
    mina = staged.sandbox.member("Mina Vale")
    post = next(
        each for each in staged.sandbox._container.guild.threads() if each["name"] == "A left boot"
    )
    first = staged.sandbox._container.messages.find(post["id"])
    assert first["content"] == f"Size nine, <@{mina.id}>."


async def test_the_bots_own_face_is_shown_on_all_its_messages(staged, visit):
    tobias = await visit(staged.sandbox, "Tobias Reed", INN)
    await tobias.say("good evening")
    by_webhook = await tobias.sees("hears: good evening")
    answer = await staged.moderator.slash(INN, "persona fresh")
    earlier = await tobias.sees("A new conversation starts here")
    await expect(earlier.locator(".name")).to_have_text("Understudy")
    own = await earlier.locator(".face img").get_attribute("src")
    assert answer.message and own.startswith("/cdn/avatars/")
    await staged.moderator.slash(INN, "persona face", persona="oda")
    await expect(earlier.locator(".name")).to_have_text("Oda Marrow")
    await tobias.say("@Oda Marrow is there soup?")
    reply = await tobias.sees("hears: is there soup?")
    await expect(reply.locator(".name")).to_have_text("Oda Marrow")
    for message in (reply, earlier):
        picture = message.locator(".face img")
        await expect(picture).to_have_attribute("src", re.compile("^/cdn/guilds/.*/avatars/"))
        assert await picture.evaluate("image => image.naturalWidth") > 0
    panel = tobias.page.locator("#side .member").filter(has_text="Oda Marrow")
    await expect(panel).to_be_visible()
    await tobias.has_no_serious_problem()
    await staged.moderator.slash(INN, "persona face", off=True)
    await expect(earlier.locator(".name")).to_have_text("Understudy")
    await expect(earlier.locator(".face img")).to_have_attribute("src", own)
    await expect(by_webhook.locator(".name")).to_have_text("Oda Marrow")
