"""Writing, reading and changing messages in the page."""

import pytest
from playwright.async_api import expect

from tests.bot.conftest import QUAY
from tests.browser.conftest import PHONE
from tests.browser.panel import PICTURE
from tests.fakes import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKDOWN = """# Head
> one
> two
- a
  - b
1. c
-# small
__u__ ~~s~~ ||hidden|| <b>raw</b> <t:0:R> <:hi:1>
```py
x = 1
```
[site](https://example.org/) https://example.org/a."""

DROPPING = """(hex) => {
    const data = new DataTransfer(), picture = Uint8Array.from(hex.match(/../g), (one) => parseInt(one, 16));
    data.items.add(new File([picture], "dot.png", { type: "image/png" }));
    data.items.add(new File(["some notes"], "notes.txt", { type: "text/plain" }));
    data.items.add(new File(["more"], "more.txt", { type: "text/plain" }));
    return data;
}"""

# How long it takes until the newest message stands there, in milliseconds; ten seconds at most.
OPENING = """async () => {
    const start = performance.now(), list = document.getElementById("messages");
    document.querySelectorAll("#channels .place")[1].click();
    const waits = () => !list.textContent.includes("message 5000") && performance.now() - start < 10000;
    while (waits()) await new Promise(requestAnimationFrame);
    return performance.now() - start;
}"""

# Scroll up for a while; by how much a message was moved on the screen that should have stayed where
# it was.
SCROLLING = """async () => {
    const scroller = document.getElementById("scroller"), moved = [];
    const bottom = (item) => item.getBoundingClientRect().bottom;
    for (let step = 0; step < 40; step += 1) {
        const item = [...document.querySelectorAll("#messages > li")].find((one) => bottom(one) > 200);
        scroller.scrollBy(0, -1200);
        const there = bottom(item);
        for (let frame = 0; frame < 2 || (scroller.scrollTop < 1 && frame < 600); frame += 1)
            await new Promise(requestAnimationFrame);  // at the top until older messages have come
        if (item.isConnected) moved.push(Math.abs(bottom(item) - there));
    }
    return Math.max(...moved);
}"""

# The list grows, the page follows, and before it is told of that scroll the reader scrolls up.
SCROLLED_AS_IT_GREW = """async (height) => {
    const scroller = document.getElementById("scroller");
    const end = document.querySelector("#messages > li:last-child");
    end.style.minHeight = "300px";
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    scroller.scrollTop -= 400;
    end.style.minHeight = height;
    const top = scroller.scrollTop;
    await new Promise((done) => setTimeout(done, 200));
    return top;
}"""


async def test_what_is_written_is_answered_edited_and_deleted_live(staged, visit):
    tobias = await visit(staged.sandbox, "Tobias Reed", QUAY)
    mina = await visit(staged.sandbox, "Mina Vale", QUAY)
    await tobias.say("Good **evening**, #drowned-stage and @Mina Vale")
    answer = await tobias.sees("Ballast hears: Good")
    await expect(answer.locator(".app")).to_be_visible()
    said = tobias.page.get_by_role("article", name="Tobias Reed")
    await expect(said.locator("strong:not(.name)")).to_have_text("evening")
    await expect(said.locator(".mention")).to_have_text(["#drowned-stage", "@Mina Vale"])
    await expect(mina.page.get_by_role("article", name="Tobias Reed")).to_contain_class("pinged")

    await tobias.box.press("ArrowUp")
    editor = tobias.page.get_by_role("textbox", name="Edit message")
    await expect(editor).to_have_value("Good **evening**, #drowned-stage and @Mina Vale")
    await editor.press("Escape")
    await expect(tobias.box).to_be_focused()
    await tobias.box.press("ArrowUp")
    await editor.fill("Good *morning*")
    await editor.press("Enter")
    for seen_by in (tobias, mina):
        await expect(seen_by.message("Good morning").locator(".edited")).to_be_visible()
    await expect(answer.locator(".edited")).to_have_count(0)

    await tobias.choose(tobias.message("Good morning"), "Delete message")
    await tobias.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    for seen_by in (tobias, mina):
        await expect(seen_by.message("Good morning")).to_have_count(0)


async def test_only_what_is_allowed_is_offered(sandbox, visit):
    await sandbox.member("Olga").say("tavern", "by Olga")
    nils = await visit(sandbox, "Nils", "tavern")
    mora = await visit(sandbox, "Mora", "tavern")
    await nils.message("by Olga").click(button="right")
    await expect(nils.page.get_by_role("menuitem")).to_have_text(
        ["Reply", "Forward", "Create thread", "Copy text"]
    )
    await nils.page.keyboard.press("Escape")
    await mora.choose(mora.message("by Olga"), "Delete message")
    await mora.page.get_by_role("button", name="Cancel").click()
    await mora.message("by Olga").focus()
    await mora.page.keyboard.press("Shift+Delete")
    await expect(nils.message("by Olga")).to_have_count(0)
    quinn = await visit(sandbox, "Quinn", "tavern")
    await expect(quinn.box).to_be_disabled()
    assert "do not have permission" in await quinn.box.get_attribute("placeholder")


async def test_a_reply_leads_back_to_what_it_answers(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.say("the first of many")
    for number in range(30):
        await sandbox.member("Mora").say("tavern", f"number {number}\n\n\n.")
    first = nils.message("the first of many")
    await first.scroll_into_view_if_needed()
    await first.hover()
    await first.get_by_role("button", name="Reply").click()
    await expect(nils.page.locator(".replying")).to_have_text("Replying to Nils✕")
    await nils.say("to come back to it")
    reply = await nils.sees("to come back to it")
    await expect(first).not_to_be_in_viewport()
    await reply.locator(".cause button").click()
    await expect(first).to_be_in_viewport()
    await expect(first).to_be_focused()


async def test_a_quote_has_its_lines_apart_and_no_small_print(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    mora = sandbox.member("Mora")
    for text, answer, quoted in (
        ("Good evening.\n-# AI-written, by v3", "the first", "Good evening."),
        (
            "# Tides\nHigh at six:\n- bring rope\n- and tea",
            "the second",
            "Tides High at six: bring rope and tea",
        ),
        ("-# Only a note", "the third", "Only a note"),
    ):
        first = await mora.say("tavern", text)
        await mora.say("tavern", answer, reply_to=first)
        reply = await nils.sees(answer)
        await expect(reply.locator(".cause button > span").last).to_have_text(quoted)


async def test_markdown_is_drawn_and_nothing_else(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.box.fill(MARKDOWN)
    await nils.box.press("Enter")
    message = await nils.sees("Head")
    for selector, words in {
        "h3": ["Head"], "blockquote": ["one\ntwo"], "ul ul li": ["b"], "ol li": ["c"], ".subtext": ["small"],
        "u": ["u"], "s": ["s"], "pre": ["x = 1"], "a": ["site", "https://example.org/a"],
    }.items():  # fmt: skip
        await expect(message.locator(f".content {selector}")).to_have_text(words)
    assert {
        await link.get_attribute("rel") for link in await message.locator(".content a").all()
    } == {"noreferrer noopener"}
    await expect(message.locator(".content")).to_contain_text("<b>raw</b>")
    await expect(message.locator(".content")).to_contain_text(":hi:")
    await nils.say(r"**Bold \*\*md\*\* \_x\_** is escaped")
    escaped = await nils.sees("is escaped")
    await expect(escaped.locator(".content strong")).to_have_text("Bold **md** _x_")
    spoiler = message.get_by_role("button", name="Spoiler")
    await spoiler.press("Enter")
    await expect(message.get_by_text("hidden")).to_be_visible()


async def test_files_are_dropped_shown_removed_and_sent(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    dropped = await nils.page.evaluate_handle(DROPPING, PICTURE.hex())
    for event in ("dragover", "drop"):
        await nils.page.dispatch_event("#main", event, {"dataTransfer": dropped})
    previews = nils.page.get_by_role("list", name="Files to send").get_by_role("listitem")
    await expect(previews).to_have_count(3)
    await expect(previews.first.locator("img")).to_be_visible()
    await nils.page.get_by_role("button", name="Remove more.txt").click()
    await nils.say("two files")
    message = await nils.sees("two files")
    await expect(message.get_by_role("img", name="dot.png")).to_be_visible()
    await expect(message.locator(".file")).to_contain_text("notes.txt10 bytes")
    await expect(previews).to_have_count(0)


async def test_the_box_refuses_what_discord_would(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.say("x" * 2001)
    await expect(nils.problem).to_have_text(
        "Your message is too long: 2001 of at most 2000 characters."
    )
    await expect(nils.page.locator(".count")).to_have_text("-1")
    await nils.say("/nosuch thing")
    await expect(nils.problem).to_contain_text("There is no command /nosuch here.")
    await nils.say("\\/nosuch thing")
    await nils.sees("/nosuch thing")
    await nils.say("")
    assert len(sandbox.messages("tavern")) == 1


async def test_drafts_stay_with_their_channel_and_names_complete(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await nils.box.press_sequentially("half a thought, @Mo")
    await nils.page.get_by_role("option", name="@Mora").wait_for()
    await nils.box.press("Tab")
    await nils.box.press_sequentially("#cel")
    await nils.box.press("Enter")
    await nils.go("cellar")
    await expect(nils.box).to_have_value("")
    await nils.go("tavern")
    await expect(nils.box).to_have_value("half a thought, @Mora #cellar ")
    await nils.box.press("Control+End")
    await nils.box.press("Shift+Enter")
    await nils.box.press_sequentially("second line")
    await nils.box.press("Enter")
    await nils.sees("second line")
    said = sandbox.messages("tavern")[0]["content"]
    assert "<@" in said and "<#" in said and said.endswith("\nsecond line")


async def test_unread_is_marked_counted_and_cleared(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    await sandbox.member("Mora").say("cellar", "is anyone here")
    await sandbox.member("Mora").say("cellar", "@Nils I mean you")
    cellar = nils.place("cellar")
    await expect(cellar).to_contain_class("unread")
    await expect(cellar.locator(".badge")).to_have_text("1 mentions")
    await expect(nils.page).to_have_title("(1) #tavern · Test guild")
    await nils.page.reload()
    await expect(cellar.locator(".badge")).to_have_text("1 mentions")
    await nils.page.keyboard.press("Alt+ArrowDown")
    await expect(nils.page.locator(".divider.new + article")).to_contain_text("is anyone here")
    await expect(cellar).not_to_contain_class("unread")
    await nils.page.keyboard.press("Escape")
    await expect(nils.page.locator(".divider.new")).to_have_count(0)
    await nils.go("tavern")
    await expect(cellar).not_to_contain_class("unread")
    await nils.act_as("Mora")
    await expect(cellar).not_to_contain_class("unread")


async def test_what_is_said_before_the_page_listens_is_unread(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    late = False

    async def answer(route):
        nonlocal late
        response = await route.fetch()
        if not late:
            late = True
            await sandbox.member("Mora").say("cellar", "@Nils I mean you")
        await route.fulfill(response=response)

    await nils.page.route("**/page-api/state*", answer)
    await nils.page.reload()
    await expect(nils.place("cellar")).to_contain_class("unread")
    await expect(nils.place("cellar").locator(".badge")).to_have_text("1 mentions")


async def test_a_thread_and_direct_messages(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    mora = await visit(sandbox, "Mora", "tavern")
    await nils.say("a long story")
    await nils.choose(nils.message("a long story"), "Create thread")
    await nils.page.get_by_role("textbox", name="Thread name").fill("The story")
    await nils.page.keyboard.press("Enter")
    await expect(nils.page.locator("#room")).to_have_text("#tavern › The story")
    await nils.say("it began")
    await expect(mora.place("The story")).to_contain_class("unread")
    await mora.message("a long story").get_by_role("button", name="The story").click()
    await mora.sees("it began")
    await nils.place("Probe").click()
    await expect(nils.page.locator("#room")).to_have_text("@Probe")
    await nils.say("between us")
    await nils.sees("between us")
    assert await mora.place("Probe").get_attribute("data-channel") is None


@pytest.mark.slow
async def test_five_thousand_messages_open_at_once_and_scroll(sandbox, visit):
    mora = sandbox.member("Mora")
    for number in range(1, 5001):
        await mora.say("cellar", f"message {number}")
    nils = await visit(sandbox, "Nils", "tavern")
    await expect(nils.place("tavern")).to_have_attribute("aria-current", "page")
    took = await nils.page.evaluate(OPENING)
    assert took < 5000, f"{took:.0f} ms"
    articles = nils.page.locator("#messages article")
    assert await articles.count() <= 400
    moved = await nils.page.evaluate(SCROLLING)
    assert moved <= 2, f"what was being read moved by {moved} px"
    assert await articles.count() <= 450
    first = await articles.first.inner_text()
    assert int(first.split("message ")[1].split()[0]) < 4500
    await mora.say("cellar", "the newest")
    await nils.page.get_by_role("button", name="new message").click()
    await expect(nils.message("the newest")).to_be_in_viewport()


async def test_a_lost_connection_is_said_and_caught_up(sandbox, visit):
    nils = await visit(sandbox, "Nils", "cellar")
    links = []
    cut = False

    async def relay(link):
        if cut:
            await link.close()
        else:
            link.connect_to_server()
            links.append(link)

    await nils.page.route_web_socket("**/page-api/live*", relay)
    await nils.page.goto(f"{sandbox.url}/?again#tavern")
    mora = sandbox.member("Mora")
    kept = await mora.say("tavern", "kept")
    gone = await mora.say("tavern", "gone")
    await nils.sees("gone")
    cut = True
    await links[0].close()
    await expect(nils.page.locator("#status")).to_have_text("Connection lost. Reconnecting…")
    await mora.edit(kept, "kept and changed")
    await mora.delete(gone)
    for number in range(150):
        await mora.say("tavern", f"missed {number}")
    cut = False
    await nils.sees("missed 149")
    await expect(nils.page.locator("#status")).to_have_text("")
    await nils.sees("kept and changed")
    await expect(nils.message("gone")).to_have_count(0)
    shown = await nils.page.locator("#messages article .content").all_inner_texts()
    assert len(shown) == len(set(shown)) == 151


async def test_older_messages_come_though_the_channel_was_loaded_anew_meanwhile(sandbox, visit):
    mora = sandbox.member("Mora")
    nils = await visit(sandbox, "Nils", "cellar")
    for number in range(300):
        await mora.say("tavern", f"message {number}.")
    links = []
    held = []

    async def relay(link):
        link.connect_to_server()
        links.append(link)

    async def hold(route):
        if held:
            await route.continue_()
        else:
            held.append(route)

    await nils.page.route_web_socket("**/page-api/live*", relay)
    await nils.page.route("**/page-api/messages*before=*", hold)
    await nils.page.goto(f"{sandbox.url}/?again#tavern")
    await nils.sees("message 299.")
    await nils.page.locator("#scroller").evaluate("(scroller) => scroller.scrollTo(0, 0)")
    await until(lambda: held)
    await links[0].close()
    await until(lambda: len(links) == 2)
    await mora.say("tavern", "said since")
    await nils.sees("said since")
    await held[0].continue_()
    await nils.sees("message 150.")


async def test_older_messages_come_though_asking_for_them_failed(sandbox, visit):
    mora = sandbox.member("Mora")
    nils = await visit(sandbox, "Nils", "cellar")
    for number in range(300):
        await mora.say("tavern", f"message {number}.")
    failed = []

    async def fail(route):
        if failed:
            await route.continue_()
        else:
            failed.append(route)
            await route.abort()

    await nils.page.route("**/page-api/messages*before=*", fail)
    await nils.page.goto(f"{sandbox.url}/?again#tavern")
    await nils.sees("message 299.")
    await nils.page.locator("#scroller").evaluate("(scroller) => scroller.scrollTo(0, 0)")
    await nils.sees("message 150.")
    (noted,) = nils.complaints
    assert failed and "page-api/messages" in noted
    nils.complaints.clear()


@pytest.mark.parametrize("height", ["600px", "0"])
async def test_who_scrolls_up_while_something_grows_or_shrinks_stays_there(sandbox, visit, height):
    mora = sandbox.member("Mora")
    nils = await visit(sandbox, "Nils", "cellar")
    latest = await opened_at_the_end(nils, mora)
    top = await nils.page.evaluate(SCROLLED_AS_IT_GREW, height)
    await expect(latest).to_be_visible()
    await mora.say("tavern", "one more.")
    await expect(nils.page.get_by_role("button", name="1 new message")).to_be_visible()
    assert await nils.page.evaluate("document.getElementById('scroller').scrollTop") == top


async def test_a_long_draft_leaves_the_end_in_sight(sandbox, visit):
    mora = sandbox.member("Mora")
    nils = await visit(sandbox, "Nils", "cellar")
    latest = await opened_at_the_end(nils, mora)
    draft = nils.page.get_by_role("textbox", name="Message")
    await draft.fill("a line\n" * 9)
    await draft.press("x")
    await nils.page.evaluate("new Promise((done) => setTimeout(done, 200))")
    await mora.say("tavern", "one more.")
    await expect(nils.message("one more.")).to_be_in_viewport()
    await expect(latest).to_be_hidden()


async def opened_at_the_end(nils, mora):
    """Open a channel with sixty new messages of Mora's; return the button that leads to its end."""
    for number in range(60):
        await mora.say("tavern", f"message {number}.")
    await nils.go("tavern")
    latest = nils.page.get_by_role("button", name="Jump to present")
    await latest.click()  # it was opened at the first unread message
    await expect(latest).to_be_hidden()
    return latest


async def test_a_phone_shows_everything(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern", viewport=PHONE, has_touch=True, is_mobile=True)
    await nils.say(
        "w" * 300 + " https://example.org/" + "long" * 60 + "\n```\n" + "code " * 60 + "\n```"
    )
    message = await nils.sees("www")
    await nils.fits()
    await expect(nils.page.locator("#sidebar")).to_be_hidden()
    await nils.go("cellar")
    await expect(nils.page.locator("#sidebar")).to_be_hidden()
    await nils.go("tavern")
    await message.locator(".head").tap()  # not on the link, which would open
    await message.get_by_role("button", name="More").tap()
    await nils.fits()
    sizes = [
        await button.bounding_box() for button in await nils.page.get_by_role("menuitem").all()
    ]
    assert min(size["height"] for size in sizes) >= 40
    await nils.page.keyboard.press("Escape")
    await nils.long_press(message.locator(".head time"))
    await nils.page.get_by_role("menuitem", name="Reply").tap()
    await nils.page.locator("#topic").tap()
    await expect(nils.page.locator("#topic")).to_have_attribute("aria-expanded", "true")
    await nils.page.locator("#people").tap()
    await expect(nils.page.get_by_role("complementary", name="Members")).to_be_visible()
    await nils.page.set_viewport_size({"width": 360, "height": 640})
    await nils.fits()
