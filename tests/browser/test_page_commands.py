"""Commands, buttons, menus and forms in the page, and the bench."""

import itertools

import discord
import pytest
from discord import app_commands
from playwright.async_api import expect

from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from tests.bot.conftest import QUAY
from tests.browser.conftest import DESKTOP, PHONE
from tests.fakes import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

GERMAN = {
    "echo": "sag",
    "Says it back": "Sagt es noch einmal",
    "text": "wort",
    "What to say": "Was gesagt wird",
    "Count words": "Wörter zählen",
}
NARROW = {"width": 1024, "height": 768}
FIELDS_WIDER_THAN_THEIR_CELL = """fields => fields
  .filter((field) => field.scrollWidth > field.clientWidth)
  .map((field) => field.textContent)"""


async def test_slash_commands_are_found_checked_and_run(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.box.press_sequentially("/e")
    await expect(nils.page.get_by_role("option")).to_have_text(["/echoSays it back"])
    await nils.box.press("Enter")
    form = nils.page.get_by_role("form", name="/echo")
    text = form.get_by_label("text required")
    await expect(text).to_be_focused()
    await text.press("Enter")
    await expect(form.locator(".field .problem").first).not_to_be_empty()
    await text.fill("hello")
    await nils.fill_option("times", "7")
    await form.get_by_role("button", name="Run").click()
    await expect(form.get_by_label("times", exact=True)).to_have_attribute("aria-invalid", "true")
    await form.get_by_label("times", exact=True).fill("2")
    await form.get_by_role("button", name="+brew").click()
    await form.get_by_label("brew", exact=True).fill("gre")
    await nils.page.get_by_role("option", name="Green tea").click()
    await nils.fill_option("to", "Mora")
    await form.get_by_role("button", name="Run").click()
    answer = await nils.sees("hello hello @Mora green")
    await expect(answer.locator(".cause")).to_have_text("NNils used /echo")
    await expect(nils.box).to_be_focused()
    await nils.say("/echo the rest of the line")
    await expect(text).to_have_value("the rest of the line")
    await text.press("Enter")
    await nils.sees("the rest of the line")
    await nils.say("/echo text:tea at five: yes times:2 brew:green to:mora")
    await expect(text).to_have_value("tea at five: yes")
    await form.get_by_label("times", exact=True).press("Enter")
    await nils.sees("tea at five: yes tea at five: yes @Mora green")
    await nils.say("/echo text:tea times:twice")
    await text.press("Enter")
    await expect(form.get_by_text("'twice' cannot be a value of this option.")).to_be_visible()
    await form.get_by_label("times", exact=True).fill("3")
    await text.press("Enter")
    await nils.sees("tea tea tea")


class GermanWords(app_commands.Translator):
    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        return GERMAN.get(string.message) if locale is discord.Locale.german else None


async def test_commands_are_in_the_language_of_the_member(sandbox, panelist, visit):
    await panelist.tree.set_translator(GermanWords())
    await panelist.tree.sync()
    sandbox.member("Nils").set_locale("de")
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.box.press_sequentially("/sag")
    await expect(nils.page.get_by_role("option")).to_have_text(["/sagSagt es noch einmal"])
    await nils.box.press("Enter")
    form = nils.page.get_by_role("form", name="/sag")
    text = form.get_by_label("wort required")
    await expect(form.get_by_text("Was gesagt wird")).to_be_visible()
    await expect(form.get_by_role("button", name="+times")).to_be_visible()
    await text.fill("Moin")
    await text.press("Enter")
    said = await nils.sees("Moin")
    await nils.say("/sag wort:Tee times:2")
    await text.press("Enter")
    await nils.sees("Tee Tee")
    await said.click(button="right", position={"x": 5, "y": 5})
    await expect(nils.page.get_by_role("menuitem", name="Wörter zählen")).to_be_visible()


async def test_one_press_closes_the_form_of_a_command(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    form = await nils.open_command("echo")
    await expect(
        form.get_by_text("What to say")
    ).to_be_visible()  # a hint, as long as the field has the focus
    await form.get_by_role("button", name="Cancel").click()
    await expect(nils.box).to_be_focused()


async def test_a_command_leads_to_its_answer(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    mora = sandbox.member("Mora")
    for number in range(40):
        await mora.say("cellar", f"number {number}")
    await nils.go("cellar")
    first = nils.message("number 0")
    await expect(first).to_be_in_viewport()
    await nils.command("echo", text="down here")
    await expect(nils.message("down here")).to_be_in_viewport()
    await first.scroll_into_view_if_needed()
    await nils.choose(first, "Count words")
    await expect(nils.message("2 words")).to_be_in_viewport()


async def test_options_are_reached_and_a_command_is_run_by_keyboard(staged, visit):
    mina = await visit(staged.sandbox, "Mina Vale", QUAY)
    form = await mina.open_command("finetune start")
    press = mina.page.keyboard.press
    chips = form.get_by_role("group", name="Optional").get_by_role("button")
    await expect(chips.first).to_be_focused()
    await press("Tab")
    await expect(chips.nth(1)).to_be_focused()
    await press("Enter")
    await expect(form.locator("input, select")).to_be_focused()
    await press("Escape")
    await mina.open_command("finetune start")
    await press("Enter")
    await mina.sees("Training: Ballast v1")
    await until(lambda: staged.backend.busy)


async def test_a_late_answer_to_the_change_of_seats_leaves_the_focus_in_the_form(staged, visit):
    mina = await visit(staged.sandbox, "Mina Vale", QUAY)
    held = []
    await mina.page.route("**/page-api/state*", lambda route: held.append(route))
    await mina.act_as("Mina Vale")
    form = await mina.open_command("finetune start")
    await form.get_by_role("button", name="+persona").click()
    field = form.get_by_role("combobox")
    await expect(field).to_be_focused()
    async with mina.page.expect_response("**/page-api/messages*"):
        await until(lambda: held)
        await held.pop().continue_()
        await until(lambda: held)
        await held.pop().continue_()
    await expect(field).to_be_focused()


async def test_options_lie_beside_one_another_and_run_is_reached(staged, visit):
    commands = ("persona create", "finetune start")
    for viewport, command in itertools.product((DESKTOP, NARROW, PHONE), commands):
        mina = await visit(staged.sandbox, "Mina Vale", QUAY, viewport=viewport)
        form = await mina.open_command(command)
        more = form.locator(".chip.more")
        if await more.count():
            await more.click()
        chips = form.locator(".chip:visible")
        while await chips.count():
            await chips.first.click()
        fields = form.locator(".field")
        assert await fields.count() >= 2
        assert await fields.evaluate_all(FIELDS_WIDER_THAN_THEIR_CELL) == []
        await form.hover()
        await mina.page.mouse.wheel(0, 2000)
        await expect(form.get_by_role("button", name="Run")).to_be_in_viewport(ratio=1)
        await form.get_by_role("button", name="Cancel").click()
        await mina.fits()


async def test_selects_single_several_and_people(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.command("panel")
    panel = await nils.sees("Press something")
    await expect(panel.get_by_role("button", name="Closed")).to_be_disabled()
    await panel.get_by_role("combobox", name="A fruit").click()
    await nils.page.keyboard.press("ArrowDown")
    await nils.page.keyboard.press("Enter")
    chosen = await nils.sees("You chose Pear")
    await expect(chosen).to_contain_text("Only you can see this")
    await panel.get_by_role("combobox", name="Two of them").click()
    for fruit in ("Plum", "Apple", "Pear"):
        await nils.page.get_by_role("option", name=fruit).click()
    await nils.page.keyboard.press("Escape")
    panel = await nils.sees("Chosen: Apple and Plum")
    await panel.get_by_role("combobox", name="Somebody").click()
    await nils.page.get_by_role("option", name="Mora").click()
    await nils.sees("It is @Mora")


async def test_a_form_is_checked_and_focus_comes_back(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.command("panel")
    order = (await nils.sees("Press something")).get_by_role("button", name="Order")
    await order.click()
    form = nils.page.get_by_role("dialog", name="Your order")
    await expect(form.get_by_label("Name")).to_be_focused()
    await nils.has_no_serious_problem()
    await nils.page.keyboard.press("Escape")
    await expect(order).to_be_focused()
    await order.click()
    await form.get_by_label("Name").fill("N")
    await form.get_by_role("button", name="Submit").click()
    await expect(form.locator(".field .problem").first).not_to_be_empty()
    await form.get_by_label("Name").fill("N" * 21)
    await form.get_by_role("button", name="Submit").click()
    too_long = form.get_by_text("Must be 20 or fewer in length. It has 21.")
    await expect(too_long).to_be_visible()
    await expect(form.get_by_label("Name")).to_have_value("N" * 21)
    await form.get_by_label("Name").fill("Nils")
    await form.get_by_role("button", name="Submit").click()
    await expect(form.get_by_text("Make a selection.")).to_be_visible()
    await form.get_by_label("Size").click()
    await nils.page.get_by_role("option", name="Large").click()
    await form.get_by_role("button", name="Submit").click()
    answer = await nils.sees("Large for Nils")
    await answer.get_by_role("button", name="Dismiss message").click()
    await expect(answer).to_have_count(0)
    await nils.page.reload()
    await nils.sees("Press something")


@pytest.mark.parametrize(
    ("scheme", "viewport"),
    [("light", DESKTOP), pytest.param("dark", PHONE, marks=pytest.mark.slow)],
    ids=["desktop", "phone"],
)
async def test_a_form_takes_files(sandbox, panelist, visit, tmp_path, *, scheme, viewport):
    nils = await visit(sandbox, "Nils", "tavern", color_scheme=scheme, viewport=viewport)
    await nils.command("panel")
    deliver = (await nils.sees("Press something")).get_by_role("button", name="Deliver")
    await deliver.press("Enter")
    form = nils.page.get_by_role("dialog", name="Your delivery")
    papers = form.get_by_label("Papers")
    await expect(papers).to_be_focused()
    await expect(papers).to_have_accessible_description("Two at most")
    await nils.has_no_serious_problem()
    await nils.fits()
    assert not await form.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth")
    submit = form.get_by_role("button", name="Submit")
    await submit.press("Enter")
    await expect(form.locator(".field .problem").first).not_to_be_empty()
    await expect(papers).to_be_focused()

    def file(name, size=3):
        path = tmp_path / name
        path.write_bytes(bytes(size))
        return path

    await papers.set_input_files([file("a.txt"), file("b.txt"), file("c.txt")])
    await expect(form.get_by_text("Choose 2 or fewer files. There are 3.")).to_be_visible()
    await form.get_by_label("To").press("Enter")
    await nils.page.get_by_role("option", name="Mora").press("Enter")
    await papers.set_input_files([file("a.txt"), file("big.txt", ATTACHMENT_LIMIT_BYTES + 1)])
    await submit.press("Enter")
    await expect(form.get_by_text("too powerful")).to_be_visible()
    await expect(form.get_by_label("To")).to_contain_text("Mora")
    await papers.set_input_files([file("a.txt"), file("b.txt", 5)])
    await submit.press("Enter")
    await nils.sees("a.txt (3) and b.txt (5) to Mora")
    await expect(deliver).to_be_focused()


async def test_menu_commands_on_messages_and_people(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.say("one two three")
    await nils.choose(await nils.sees("one two three"), "Count words")
    await nils.sees("3 words")
    await (
        nils.page.get_by_role("complementary", name="Members")
        .get_by_role("button", name="Mora")
        .click(button="right")
    )
    await nils.page.get_by_role("menuitem", name="Greet").click()
    greeting = await nils.sees("Hello @Mora")
    await expect(greeting.locator(".cause")).to_contain_text("Nils used Greet")


async def test_an_embed_and_files_of_the_bot(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.command("show")
    message = nils.page.locator("#messages article").last
    await expect(message.locator(".embed-title strong")).to_have_text("bold")
    await expect(message.locator(".embed dt")).to_have_text("Field")
    await expect(message.get_by_role("img", name="dot.png")).to_be_visible()
    async with nils.page.expect_download() as download:
        await message.get_by_role("link", name="Download notes.txt").click()
    assert (await download.value).suggested_filename == "notes.txt"


async def test_a_layout_of_components_of_the_bot(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.command("card")
    card = await nils.sees("A card for everybody")
    box = card.locator(".container")
    await expect(box).to_have_css("border-left-color", "rgb(46, 139, 87)")
    await expect(box.locator("h5")).to_have_text("Ballast")
    await expect(box.locator(".section small")).to_have_text("Version v3")
    await expect(box.get_by_role("img", name="Its face")).to_be_visible()
    await expect(box.get_by_role("img", name="A dot")).to_have_count(2)
    await expect(box.locator("hr")).to_have_count(2)
    await expect(box.get_by_role("link", name="dot.png")).to_be_visible()
    await expect(box.locator("img.picture")).to_have_count(2)
    await box.get_by_role("button", name="Spoiler").click()
    await expect(box.locator("img.picture")).to_have_count(3)
    # The file is shown by the card, and not once more below.
    await expect(card.locator(".attachments")).to_be_hidden()
    await expect(nils.page.locator("#spoken")).to_contain_text("A card for everybody Ballast")
    await box.get_by_role("button", name="Weigh it").click()
    await nils.sees("9 stone")
    await box.get_by_role("combobox", name="A fruit for it").click()
    await nils.page.get_by_role("option", name="Plum").click()
    await nils.sees("It eats Plum")
    await nils.choose(card, "Reply")
    await nils.say("who is that?")
    await expect((await nils.sees("who is that?")).locator(".cause")).to_contain_text("A card for")
    await box.get_by_role("button", name="Say its name").click()
    await nils.sees("It is Ballast.")
    await expect(box).to_have_count(0)
    await nils.page.reload()
    await nils.sees("It is Ballast.")


async def test_members_change_by_keyboard_and_ctrl_k_leads_everywhere(sandbox, visit):
    nils = await visit(sandbox, None, "tavern")
    await nils.page.locator("#acting").press("Enter")
    await nils.page.keyboard.press("n")
    await nils.page.keyboard.press("Enter")
    await expect(nils.page.locator("#acting")).to_contain_text("Nils")
    await nils.say("from my seat")
    await expect((await nils.sees("from my seat")).locator(".name")).to_have_text("Nils")
    for words, room, seat in (
        ("cell", "#cellar", "Nils"),
        ("mora", "#cellar", "Mora"),
        ("message pro", "@Probe", "Mora"),
    ):
        await nils.page.keyboard.press("Control+k")
        await nils.page.get_by_role("combobox", name="Where to?").fill(words)
        await nils.page.keyboard.press("Enter")
        await expect(nils.page.locator("#room")).to_have_text(room)
        await expect(nils.page.locator("#acting b")).to_have_text(seat)
    await nils.act_as("Quinn")
    await expect(nils.place("attic").locator(".grown")).to_be_visible()


async def test_the_bench_moves_the_world(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await expect(nils.page.get_by_role("region", name="Welcome")).to_be_hidden()
    await panelist.room().create_webhook(name="Mask")
    await panelist.room().create_webhook(name="A mask with a name of some length")
    await nils.page.get_by_role("button", name="Bench").click()
    bench = nils.page.get_by_role("complementary", name="Bench")
    assert await bench.evaluate("bench => bench.scrollWidth <= bench.clientWidth")
    await bench.get_by_role("button", name="Delete A mask").click()
    resumed = panelist.wait_for("resumed", timeout=5)
    await bench.get_by_role("button", name="Drop gateway").click()
    await resumed
    await expect(bench).to_contain_text("The bot is connected.")
    await bench.get_by_label("Send Messages", exact=True).uncheck()
    await nils.command("echo", text="still an answer")
    await nils.sees("still an answer")
    assert not panelist.room().permissions_for(panelist.guilds[0].me).send_messages
    await bench.get_by_role("button", name="Delete Mask").click()
    await expect(bench).to_contain_text("There are none.")
    await bench.get_by_role("button", name="+1 day").click()
    await expect(bench).to_contain_text("1 d 0 h 0 min ahead")
    await nils.say("tomorrow")
    await expect(
        (await nils.sees("tomorrow")).locator("xpath=..").get_by_role("separator")
    ).to_have_count(1)
    await bench.get_by_label("Delay in seconds").fill("0.5")
    await expect(bench.get_by_role("status")).to_have_text("0.5 s")
    requests = bench.get_by_role("spinbutton", name="How many requests")
    await requests.fill("2")
    await bench.get_by_label("Send Messages", exact=True).check()
    await expect(bench.get_by_label("Send Messages", exact=True)).to_be_checked()
    await expect(requests).to_have_value("2")
    await bench.get_by_role("button", name="Refuse next").click()
    await expect(bench).to_contain_text("2 still to be refused.")
    await bench.get_by_label("The bot may read messages").uncheck()
    received = panelist.wait_for("message", timeout=5)
    await nils.say("unheard")
    assert (await received).content == ""
    await bench.get_by_role("button", name="Close bench").click()
    await expect(nils.page.get_by_role("complementary", name="Members")).to_be_visible()


async def test_an_unanswered_command_is_said(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.open_command("panel")
    await panelist.close()
    await nils.page.get_by_role("button", name="Run").click()
    await nils.page.get_by_role("button", name="Bench").click()
    await nils.page.get_by_role("button", name="+1 min").click()
    failed = await nils.sees("The application did not respond.")
    await failed.get_by_role("button", name="Dismiss message").click()
    await expect(failed).to_have_count(0)


# The scheme and the width change different rules of the style sheet: two pairs try each of them.
@pytest.mark.parametrize(
    ("colours", "size"),
    [
        pytest.param("dark", DESKTOP, id="dark-desktop"),
        pytest.param("light", PHONE, id="light-phone"),
        pytest.param("dark", PHONE, id="dark-phone", marks=pytest.mark.slow),
        pytest.param("light", DESKTOP, id="light-desktop", marks=pytest.mark.slow),
    ],
)
async def test_axe_finds_no_serious_problem(sandbox, panelist, visit, colours, size):
    nils = await visit(sandbox, "Nils", "tavern", color_scheme=colours, viewport=size)
    await sandbox.member("Mora").say("cellar", "@Nils unread")
    await nils.say("> quote\n`code` ||spoiler|| @Nils https://example.org\n- a list")
    await nils.command("panel")
    await nils.sees("Press something")
    await nils.command("show")
    await nils.page.get_by_role("img", name="dot.png").wait_for()
    await nils.command("card")
    await nils.sees("A card for everybody")
    await nils.has_no_serious_problem()
    await nils.fits()
    await nils.open_command("echo")
    await nils.has_no_serious_problem()
    await nils.page.keyboard.press("Escape")
    await nils.page.keyboard.press("Control+k")
    await nils.has_no_serious_problem()
    await nils.page.keyboard.press("Escape")
    await nils.page.keyboard.press("Escape")
    await nils.page.locator("article").last.hover()
    await nils.page.get_by_role("button", name="More").click()
    await nils.has_no_serious_problem()
    await nils.page.keyboard.press("Escape")
    await nils._with_sidebar(nils.page.get_by_role("button", name="Bench"))
    await nils.has_no_serious_problem()
    await nils.fits()
