"""The page's own API over real sockets: what it serves, what it refuses, what each member is shown."""

import asyncio
import io

import aiohttp
import discord
import pytest


@pytest.fixture
async def http(sandbox):
    async with aiohttp.ClientSession(sandbox.url) as session:
        yield session


def body(member, **more):
    return {"as": member.id, **more}


async def test_the_page_runs_no_script_but_its_own(http):
    async with http.get("/") as page:
        policy, text = page.headers["Content-Security-Policy"], await page.text()
        assert page.status == 200 and page.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "<script type=" in text and "http" not in text
    for asset in ("style.css", "app.js", "api.js", "composer.js", "dom.js", "form.js", "markdown.js", "message.js"):
        async with http.get(f"/page/{asset}") as served:
            assert served.status == 200, asset
    async with http.get("/page/../server.py") as outside:
        assert outside.status == 404


@pytest.mark.parametrize("path", ["/", "/page-api/state", "/api/v10/users/@me", "/gateway"])
async def test_a_foreign_host_is_refused(http, path):
    async with http.get(path, headers={"Host": "sandbox.example.org"}) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
    ],
)
async def test_other_sites_cannot_speak_as_a_member(http, sandbox, headers):
    said = body(sandbox.member("Nils"), channel="tavern", content="forged")
    async with http.post("/page-api/say", json=said, headers=headers) as answer:
        assert answer.status == 403
    assert sandbox.messages("tavern") == []


async def test_other_sites_cannot_listen(http, sandbox):
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await http.ws_connect(
            f"/page-api/live?as={sandbox.member('Nils').id}", headers={"Origin": "https://example.org"}
        )


async def test_speaking_is_seen_live_and_in_the_history(http, sandbox):
    nils, channel = sandbox.member("Nils"), sandbox.channel("tavern")["id"]
    async with http.get(f"/page-api/state?as={nils.id}") as answer:
        state = await answer.json()
    assert state["me"] == nils.id and [one["name"] for one in state["channels"]] == ["tavern", "cellar"]
    async with http.ws_connect(f"/page-api/live?as={nils.id}", headers={"Origin": sandbox.url}) as live:
        async with http.post("/page-api/say", json=body(nils, channel=channel, content="hello #cellar")) as answer:
            said = await answer.json()
        assert said["content"] == f"hello <#{sandbox.channel('cellar')['id']}>"
        assert await live.receive_json(timeout=5) == ["message", said]
    async with http.get(f"/page-api/messages?as={nils.id}&channel={channel}") as answer:
        assert await answer.json() == [said]


async def test_refusals_and_mistakes(http, sandbox):
    nils = sandbox.member("Nils")
    async with http.post("/page-api/say", json=body(nils, channel="attic", content="x")) as answer:
        assert (answer.status, (await answer.json())["refusal"]) == (400, "There is no channel called attic.")
    async with http.post("/page-api/say", json=body(nils)) as answer:
        assert (answer.status, await answer.text()) == (400, "The request lacks channel, content.")
    async with http.post("/page-api/say", data=b"{broken", headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
    async with http.post("/page-api/say", json={"as": "1", "channel": "tavern", "content": "x"}) as answer:
        assert answer.status == 404
    async with http.post("/page-api/burgle", json=body(nils)) as answer:
        assert answer.status == 404
    async with http.get(f"/page-api/messages?as={nils.id}&channel=1") as answer:
        assert answer.status == 404


async def test_commands_buttons_and_ephemeral_answers(http, sandbox, probe):
    class Form(discord.ui.Modal, title="Form"):
        name = discord.ui.TextInput(label="Name")

        async def on_submit(self, interaction: discord.Interaction) -> None:
            await interaction.response.send_message(f"for you only, {self.name.value}", ephemeral=True)

    class Buttons(discord.ui.View):
        @discord.ui.button(label="Open", custom_id="open")
        async def open(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
            await interaction.response.send_modal(Form())

    @probe.tree.command(description="A panel")
    async def panel(interaction: discord.Interaction, title: str) -> None:
        await interaction.response.send_message(title, view=Buttons(timeout=None))

    @panel.autocomplete("title")
    async def titles(interaction: discord.Interaction, current: str) -> list[discord.app_commands.Choice[str]]:
        return [discord.app_commands.Choice(name=f"{current}!", value=current)]

    await probe.tree.sync()
    nils, mora, channel = sandbox.member("Nils"), sandbox.member("Mora"), sandbox.channel("tavern")["id"]

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


async def test_uploads_cannot_act_as_the_page(http, sandbox, probe):
    files = [discord.File(io.BytesIO(b"<script>1</script>"), name) for name in ("x.html", "x.png")]
    await probe.room().send(files=files)
    page, picture = sandbox.messages("tavern")[0]["attachments"]
    async with http.get(page["url"]) as answer:
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.content_type == "application/octet-stream"
    async with http.get(picture["url"]) as answer:
        assert answer.content_type == "image/png" and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    async with http.get("/attachments/1/2/x.png") as answer:
        assert answer.status == 404
    async with http.get("/cdn/avatars/1/zz.png") as answer:
        assert answer.status == 404


async def test_a_linked_avatar_is_left_to_the_page(http, sandbox, probe):
    hook = await probe.room().create_webhook(name="Mask")
    sent = await hook.send("x", avatar_url="http://127.0.0.1:9/face.png", wait=True)
    async with http.get(f"/cdn/avatars/{hook.id}/{sent.author.avatar.key}.png", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:9/face.png")
