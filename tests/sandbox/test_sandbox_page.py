"""The page's own API over real sockets: what it serves, what it refuses, what each member is
shown.
"""

import asyncio
import io
import re

import aiohttp
import discord
import pytest
from aiohttp import web

from sandbox import Sandbox


@pytest.fixture
async def http(sandbox):
    async with aiohttp.ClientSession(sandbox.url) as session:
        yield session


def body(member, **more):
    return {"as": member.id, **more}


async def test_the_page_runs_no_script_but_its_own(http):
    async with http.get("/") as page:
        policy = page.headers["Content-Security-Policy"]
        text = await page.text()
        assert page.status == 200 and page.headers["X-Content-Type-Options"] == "nosniff"
    assert (
        "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    )
    assert "<script type=" in text and "http" not in text
    for asset in re.findall(r'(?:src|href)="(/page/[^"]+)"', text):
        async with http.get(asset) as served:
            assert served.status == 200, asset
    async with http.get("/page/../server.py") as outside:
        assert outside.status == 404


async def test_a_foreign_host_is_refused(http):
    for path in ["/", "/page-api/state", "/api/v10/users/@me", "/gateway"]:
        async with http.get(path, headers={"Host": "sandbox.example.org"}) as answer:
            assert answer.status == 403, path


async def test_other_sites_cannot_speak_as_a_member(http, sandbox):
    for headers in [
        {"Origin": "https://example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data"},
    ]:
        said = body(sandbox.member("Nils"), channel="tavern", content="forged")
        async with http.post("/page-api/say", json=said, headers=headers) as answer:
            assert answer.status == 403, headers
        assert sandbox.messages("tavern") == [], headers


async def test_half_a_character_is_refused_and_ends_no_bot(http, sandbox, api):
    said = body(sandbox.member("Nils"), channel="tavern", content="half a smile: \ud83d")
    async with http.post("/page-api/say", json=said) as answer:
        assert answer.status == 400 and "half a character" in (await answer.json())["refusal"]
    status, error, *_ = await api(
        "POST", f"/channels/{sandbox.channel('tavern')['id']}/messages", {"content": "\ud83d"}
    )
    assert (status, error["code"]) == (400, 50035)
    assert sandbox.messages("tavern") == []


async def test_the_own_name_is_the_same_in_capitals_and_with_a_dot(http, sandbox):
    for host in ("LOCALHOST", "localhost.", "127.0.0.2"):
        async with http.get("/", headers={"Host": host}) as answer:
            assert answer.status == 200


async def test_other_sites_cannot_reach_the_gateway(http, sandbox):
    for origin in ["https://example.org", "http://evil.example", "null", "http://127.0.0.1:1"]:
        for path in ("/gateway", "/gateway/"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await http.ws_connect(path, headers={"Origin": origin})
        async with http.ws_connect("/gateway") as socket:  # as discord.py asks: without an origin
            assert (await socket.receive_json())["op"] == 10, origin


async def test_other_sites_cannot_listen(http, sandbox):
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await http.ws_connect(
            f"/page-api/live?as={sandbox.member('Nils').id}",
            headers={"Origin": "https://example.org"},
        )


async def test_speaking_is_seen_live_and_in_the_history(http, sandbox):
    nils = sandbox.member("Nils")
    channel = sandbox.channel("tavern")["id"]
    async with http.get(f"/page-api/state?as={nils.id}") as answer:
        state = await answer.json()
    assert state["me"] == nils.id and [one["name"] for one in state["channels"]] == [
        "tavern",
        "cellar",
    ]
    async with http.ws_connect(
        f"/page-api/live?as={nils.id}", headers={"Origin": sandbox.url}
    ) as live:
        async with http.post(
            "/page-api/say", json=body(nils, channel=channel, content="hello #cellar")
        ) as answer:
            said = await answer.json()
        assert said["content"] == f"hello <#{sandbox.channel('cellar')['id']}>"
        assert await live.receive_json(timeout=5) == ["message", said]
    async with http.get(f"/page-api/messages?as={nils.id}&channel={channel}") as answer:
        assert await answer.json() == [said]


async def test_a_member_chooses_a_language_and_the_bot_is_reported(http, sandbox, probe):
    nils = sandbox.member("Nils")
    async with http.get("/page-api/state", params={"as": nils.id}) as answer:
        state = await answer.json()
    assert "vi" in state["languages"] and {one["locale"] for one in state["people"]} == {"en-US"}
    for locale, status in (("vi", 200), ("xx", 400), (None, 400)):
        async with http.post("/page-api/language", json=body(nils, locale=locale)) as answer:
            assert answer.status == status
    async with http.get("/page-api/state") as answer:
        spoken = {one["user"]["id"]: one["locale"] for one in (await answer.json())["people"]}
    assert spoken.pop(nils.id) == "vi" and set(spoken.values()) == {"en-US"}
    asked = asyncio.Queue()

    @probe.tree.command(description="Where from?")
    async def tongue(interaction: discord.Interaction) -> None:
        asked.put_nowait(interaction.locale)
        await interaction.response.send_message("heard")

    await probe.tree.sync()
    await nils.slash("tavern", "tongue")
    assert asked.get_nowait() is discord.Locale.vietnamese


async def test_refusals_and_mistakes(http, sandbox):
    nils = sandbox.member("Nils")
    async with http.post("/page-api/say", json=body(nils, channel="attic", content="x")) as answer:
        assert answer.status == 400 and "attic" in (await answer.json())["refusal"]
    async with http.post("/page-api/say", json=body(nils)) as answer:
        assert (answer.status, await answer.text()) == (400, "The request lacks channel.")
    async with http.post(
        "/page-api/say", data=b"{broken", headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 400
    async with http.post(
        "/page-api/say", json={"as": "1", "channel": "tavern", "content": "x"}
    ) as answer:
        assert answer.status == 404
    async with http.post("/page-api/burgle", json=body(nils)) as answer:
        assert answer.status == 404
    async with http.get(f"/page-api/messages?as={nils.id}&channel=1") as answer:
        assert answer.status == 404


async def test_commands_buttons_and_ephemeral_answers(http, sandbox, probe):
    class Form(discord.ui.Modal, title="Form"):
        name = discord.ui.TextInput(label="Name")

        async def on_submit(self, interaction: discord.Interaction) -> None:
            await interaction.response.send_message(
                f"for you only, {self.name.value}", ephemeral=True
            )

    class Buttons(discord.ui.View):
        @discord.ui.button(label="Open", custom_id="open")
        async def open(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
            await interaction.response.send_modal(Form())

    @probe.tree.command(description="A panel")
    async def panel(interaction: discord.Interaction, title: str) -> None:
        await interaction.response.send_message(title, view=Buttons(timeout=None))

    @panel.autocomplete("title")
    async def titles(
        interaction: discord.Interaction, current: str
    ) -> list[discord.app_commands.Choice[str]]:
        return [discord.app_commands.Choice(name=f"{current}!", value=current)]

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    mora = sandbox.member("Mora")
    channel = sandbox.channel("tavern")["id"]

    async def act(name, **more):
        async with http.post(f"/page-api/{name}", json=body(nils, **more)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    where = {"channel": channel, "command": "panel"}
    choices = await act("autocomplete", **where, focused="title", options={"title": "Hi"})
    assert choices == [{"name": "Hi!", "value": "Hi"}]
    assert (await act("slash", **where, options={"title": "Hi"}))["type"] == 4
    shown = sandbox.messages("tavern")[0]
    form = await act("click", message={"id": shown["id"]}, custom_id="open")
    assert (form["type"], form["modal"]["title"]) == (9, "Form")
    field = form["modal"]["components"][0]
    custom_id = (field.get("component") or field["components"][0])["custom_id"]
    async with http.ws_connect(f"/page-api/live?as={mora.id}") as live:
        assert (await act("submit", form=form["form"], fields={custom_id: "Nils"}))["type"] == 4
        with pytest.raises(asyncio.TimeoutError):
            await live.receive(timeout=0.1)
    seen = {}
    for member in (nils, mora):
        async with http.get(f"/page-api/messages?as={member.id}&channel={channel}") as answer:
            seen[member] = [message["content"] for message in await answer.json()]
    assert seen == {nils: ["Hi", "for you only, Nils"], mora: ["Hi"]}


@pytest.fixture
async def as_nils(http, sandbox):
    """Acts as Nils do on the page: the status, and the answer."""

    async def act(act, **more):
        async with http.post(
            f"/page-api/{act}", json=body(sandbox.member("Nils"), **more)
        ) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()

    return act


async def test_messages_are_edited_deleted_and_paged(http, sandbox, as_nils):
    nils = sandbox.member("Nils")
    channel = sandbox.channel("tavern")["id"]
    said = [(await as_nils("say", channel=channel, content=str(number)))[1] for number in range(7)]
    assert (await as_nils("edit", message={"id": said[6]["id"]}, content="six"))[1][
        "content"
    ] == "six"
    assert await as_nils("delete", message={"id": said[5]["id"]}) == (200, None)
    assert (await as_nils("edit", message={"id": said[5]["id"]}, content="x"))[0] == 400

    async def page(**query):
        where = {"as": nils.id, "channel": channel, **query}
        async with http.get("/page-api/messages", params=where) as answer:
            return answer.status, [
                one["content"] for one in await answer.json()
            ] if answer.status == 200 else None

    assert await page(limit=2) == (200, ["4", "six"])
    assert await page(limit=3, before=said[4]["id"]) == (200, ["1", "2", "3"])
    assert await page(before=said[1]["id"]) == (200, ["0"]) and await page(
        before=said[0]["id"]
    ) == (200, [])
    assert len((await page(limit=1000))[1]) == 6 and (await page(limit="many"))[0] == 400


async def test_a_message_is_named_by_its_object(http, sandbox, as_nils):
    channel = sandbox.channel("tavern")["id"]
    _, said = await as_nils("say", channel=channel, content="here")
    for wrong in (said["id"], {}, []):
        for action, fields in (
            ("delete", {"message": wrong}),
            ("edit", {"message": wrong, "content": "x"}),
            ("click", {"message": wrong, "custom_id": "x"}),
            ("say", {"channel": channel, "content": "x", "reply_to": wrong}),
        ):
            status, answer = await as_nils(action, **fields)
            assert status == 400 and "not as its id" in answer["refusal"], (action, wrong)
    async with http.get(
        "/page-api/messages", params={"as": sandbox.member("Nils").id, "channel": channel}
    ) as answer:
        assert await answer.json() == [said]


async def test_ephemeral_answers_stand_in_their_stretch_of_the_history(http, sandbox, probe):
    @probe.tree.command(description="Only for you")
    async def whisper(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("psst", ephemeral=True)

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    channel = sandbox.channel("tavern")["id"]
    await nils.say("tavern", "before")
    await nils.slash("tavern", "whisper")
    after = [await nils.say("tavern", f"after {number}") for number in range(2)]
    seen = []
    for query in ({"limit": 2}, {"limit": 2, "before": after[0]["id"]}):
        async with http.get(
            "/page-api/messages", params={"as": nils.id, "channel": channel, **query}
        ) as answer:
            seen.append([one["content"] for one in await answer.json()])
    assert seen == [["after 0", "after 1"], ["before", "psst"]]


async def test_of_many_ephemeral_answers_the_last_ones_are_shown(http, sandbox, probe):
    @probe.tree.command(description="Only for you")
    async def count(interaction: discord.Interaction, number: int) -> None:
        await interaction.response.send_message(str(number), ephemeral=True)

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    channel = sandbox.channel("tavern")["id"]
    for number in range(5):
        await nils.slash("tavern", "count", number=number)

    async def page(**query):
        where = {"as": nils.id, "channel": channel, "limit": 2, **query}
        async with http.get("/page-api/messages", params=where) as answer:
            return await answer.json()

    newest = await page()
    older = await page(before=newest[0]["id"])
    assert [one["content"] for one in older + newest] == ["1", "2", "3", "4"]


async def test_files_are_uploaded_and_sent(http, sandbox, as_nils):
    nils = sandbox.member("Nils")
    kind = {"Content-Type": "application/octet-stream"}

    async def upload(data, headers=kind, who=nils.id):
        async with http.post(
            "/page-api/upload",
            params={"as": who, "name": "a.png"},
            data=io.BytesIO(data),
            headers=headers,
        ) as got:
            return (
                got.status,
                await got.json() if got.content_type == "application/json" else await got.text(),
            )

    status, file = await upload(b"\x89PNG")
    assert status == 200 and (file["name"], file["size"], file["type"]) == ("a.png", 4, "image/png")
    assert (await as_nils("say", channel="tavern", content="x" * 2001, uploads=[file["id"]]))[
        0
    ] == 400
    status, said = await as_nils("say", channel="tavern", content="", uploads=[file["id"]])
    assert status == 200 and said["attachments"][0]["filename"] == "a.png"
    status, again = await as_nils("say", channel="tavern", content="", uploads=[file["id"]])
    assert status == 400 and "add them again" in again["refusal"]
    status, large = await upload(b"x" * (10 * 2**20 + 1))
    assert status == 400 and "too powerful" in large["refusal"]
    assert (await upload(b"x", {"Content-Type": "text/plain"}))[0] == 403
    assert (await upload(b"x", {**kind, "Origin": "http://elsewhere.example"}))[0] == 403
    assert (await upload(b"x", who="1"))[0] == 404
    for _ in range(51):
        status, last = await upload(b"x")
    assert (await as_nils("say", channel="tavern", content="", uploads=[last["id"]]))[0] == 200


async def test_threads_and_direct_messages_appear_for_whom_they_are(http, sandbox, as_nils):
    nils, mora, quinn = (sandbox.member(name) for name in ("Nils", "Mora", "Quinn"))
    async with (
        http.ws_connect(f"/page-api/live?as={nils.id}") as mine,
        http.ws_connect(f"/page-api/live?as={mora.id}") as hers,
    ):
        _, room = await as_nils("dm")
        _, said = await as_nils("say", channel=room["id"], content="psst")
        _, thread = await as_nils("thread", channel="tavern", name="corner")
        assert [await mine.receive_json(timeout=2) for _ in range(3)] == [
            ["channel", room],
            ["message", said],
            ["channel", thread],
        ]
        assert await hers.receive_json(timeout=2) == ["channel", thread]
    assert (room["type"], room["recipients"][0]["id"]) == (1, str(sandbox.bot_id))
    assert (thread["type"], thread["parent_id"], thread["nsfw"]) == (
        11,
        sandbox.channel("tavern")["id"],
        False,
    )
    for member, names in (
        (nils, ["tavern", "cellar", "corner", None]),
        (quinn, ["tavern", "cellar", "corner"]),
    ):
        async with http.get(f"/page-api/state?as={member.id}") as answer:
            state = await answer.json()
        assert [one.get("name") for one in state["channels"]] == names
        assert all({"last_message_id", "nsfw", "topic"} <= set(one) for one in state["channels"])
    assert [one["last_message_id"] for one in state["channels"]][1] is None and state[
        "commands"
    ] == []


async def test_menus_and_context_commands(sandbox, probe, as_nils):
    class Menu(discord.ui.View):
        @discord.ui.select(
            custom_id="wood", options=[discord.SelectOption(label="Ash", value="ash")]
        )
        async def wood(self, interaction: discord.Interaction, menu: discord.ui.Select) -> None:
            await interaction.response.send_message(menu.values[0])

    @probe.tree.context_menu(name="Quote")
    async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(f"said {message.content}")

    command = (await probe.tree.sync())[0]
    sent = await probe.room().send("menu", view=Menu(timeout=None))
    status, result = await as_nils(
        "select", message={"id": str(sent.id)}, custom_id="wood", values=["ash"]
    )
    assert (status, result["type"]) == (200, 4)
    where = {
        "channel": sandbox.channel("tavern")["id"],
        "command": str(command.id),
        "target": str(sent.id),
    }
    assert (await as_nils("context", **where))[1]["type"] == 4
    assert [message["content"] for message in sandbox.messages("tavern")] == [
        "menu",
        "ash",
        "said menu",
    ]


async def test_the_drawer_controls_the_weather(http, sandbox, probe, as_nils):
    hook = await probe.room().create_webhook(name="Mask")
    async with http.ws_connect(f"/page-api/live?as={sandbox.member('Mora').id}") as live:
        for name, more, field, value in (
            ("delay", {"seconds": 0.01}, "delay_s", 0.01),
            ("rate_limit", {"count": 3}, "rate_limited", 3),
            ("message_content", {"on": False}, "message_content", False),
            ("delete_webhook", {"id": str(hook.id)}, "webhooks", []),
            ("advance", {"seconds": 90}, "clock_ahead_s", 90),
        ):
            status, shown = await as_nils("control", name=name, **more)
            assert status == 200 and shown[field] == pytest.approx(value)
            assert await live.receive_json(timeout=2) == ["controls", shown]
    _, shown = await as_nils(
        "control", name="permission", permission="SEND_MESSAGES", granted=False
    )
    assert {"name": "SEND_MESSAGES", "label": "Send Messages", "granted": False} in shown[
        "permissions"
    ]
    assert (await as_nils("control", name="drop"))[1]["connected"] is False
    await asyncio.wait_for(probe.resumed.wait(), 5)
    for wrong, status in (
        ({"name": "fly"}, 400),
        ({"name": "delay"}, 400),
        ({"name": "delay", "seconds": "soon"}, 400),
        ({"name": "delete_webhook", "id": "1"}, 400),
        ({"name": "permission", "permission": "FLY", "granted": True}, 400),
    ):
        assert (await as_nils("control", **wrong))[0] == status


@pytest.mark.slow
async def test_five_thousand_messages_open_at_once(http, sandbox):
    nils = sandbox.member("Nils")
    channel = sandbox.channel("tavern")["id"]
    for number in range(5_000):
        await nils.say(channel, f"line {number}")
    before = {}
    seen = 0
    async with asyncio.timeout(10):  # two seconds on a machine with nothing else to do
        while page := await _page(http, {"as": nils.id, "channel": channel, **before}):
            seen = seen + len(page)
            before = {"before": page[0]["id"]}
    assert seen == 5_000


async def _page(http, query):
    async with http.get("/page-api/messages", params=query) as answer:
        return await answer.json()


async def test_uploads_cannot_act_as_the_page(http, sandbox, probe):
    files = [discord.File(io.BytesIO(b"<script>1</script>"), name) for name in ("x.html", "x.png")]
    await probe.room().send(files=files)
    page, picture = sandbox.messages("tavern")[0]["attachments"]
    async with http.get(page["url"]) as answer:
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.content_type == "application/octet-stream"
    async with http.get(picture["url"]) as answer:
        assert (
            answer.content_type == "image/png"
            and answer.headers["X-Content-Type-Options"] == "nosniff"
        )
        assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    async with http.get("/attachments/1/2/x.png") as answer:
        assert answer.status == 404
    async with http.get("/cdn/avatars/1/zz.png") as answer:
        assert answer.status == 404


async def test_a_linked_avatar_is_left_to_the_page(http, sandbox, probe):
    hook = await probe.room().create_webhook(name="Mask")
    sent = await hook.send("x", avatar_url="http://127.0.0.1:9/face.png", wait=True)
    async with http.get(
        f"/cdn/avatars/{hook.id}/{sent.author.avatar.key}.png", allow_redirects=False
    ) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:9/face.png")


async def test_further_routes_can_be_mounted_on_the_same_port(seed):
    async def hello(request):
        return web.Response(text="hello")

    made = Sandbox(seed)
    await made.start(mount=lambda app: app.router.add_get("/hello", hello))
    async with aiohttp.ClientSession(made.url) as session:
        async with session.get("/hello") as answer:
            assert await answer.text() == "hello"
        async with session.get("/hello", headers={"Host": "example.org"}) as rebound:
            assert rebound.status == 403
        async with session.get("/page-api/state") as page:
            assert page.status == 200
    await made.stop()
