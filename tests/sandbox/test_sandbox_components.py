"""Messages laid out with Components V2 against the real client: kept, limited and refused as on
Discord.
"""

import asyncio
import io
from typing import Any

import discord
import pytest
from discord import ui

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f0003860180"
    "5a34b7520000000049454e44ae426082"
)
IS_COMPONENTS_V2 = 1 << 15


def layout(*items: Any) -> ui.LayoutView:
    view = ui.LayoutView(timeout=None)
    for item in items:
        view.add_item(item)
    return view


def card(name: str = "face.png") -> ui.LayoutView:
    """Every component that a message of the bot has."""
    return layout(
        ui.Container(
            ui.Section("### Ballast", "weighs", accessory=ui.Thumbnail(f"attachment://{name}")),
            ui.Section("more", accessory=ui.Button(label="Weigh", custom_id="weigh")),
            ui.Separator(spacing=discord.SeparatorSpacing.large),
            ui.MediaGallery(discord.MediaGalleryItem(f"attachment://{name}", description="face")),
            ui.File(f"attachment://{name}"),
            ui.ActionRow(
                ui.Button(label="Talk", custom_id="talk"),
                ui.Button(label="Elsewhere", url="https://example.org"),
            ),
            accent_colour=discord.Colour.green(),
        )
    )


def picture(name: str = "face.png") -> discord.File:
    return discord.File(io.BytesIO(PICTURE), name)


def errors_of(error: discord.HTTPException) -> str:
    assert (error.status, error.code) == (400, 50035)
    return str(error)


async def test_a_layout_comes_back_as_it_was_sent(sandbox, probe):
    sent = await probe.room().send(view=card(), file=picture())
    received = await probe.room().fetch_message(sent.id)
    assert received.flags.components_v2 and received.content == ""
    # Files that a component shows are not listed once more.
    assert received.attachments == []
    (box,) = received.components
    assert isinstance(box, discord.components.Container)
    assert box.accent_colour == discord.Colour.green()
    face, button, line, gallery, file, row = box.children
    assert isinstance(face, discord.SectionComponent)
    assert [text.content for text in face.children] == ["### Ballast", "weighs"]
    assert isinstance(face.accessory, discord.ThumbnailComponent)
    assert await probe.http.get_from_cdn(face.accessory.media.url) == PICTURE
    assert isinstance(button, discord.SectionComponent) and button.accessory.label == "Weigh"
    assert isinstance(line, discord.SeparatorComponent) and line.visible
    assert isinstance(gallery, discord.MediaGalleryComponent)
    assert gallery.items[0].description == "face"
    assert isinstance(file, discord.FileComponent) and file.name == "face.png"
    assert isinstance(row, discord.ActionRow) and len(row.children) == 2
    # As discord.py reads it, it can be sent again.
    again = await probe.room().send(view=ui.LayoutView.from_message(received, timeout=None))
    assert again.components[0].to_dict()["components"][0]["components"][0]["content"] == (
        "### Ballast"
    )


async def test_buttons_in_rows_and_beside_texts_are_pressed(sandbox, probe):
    pressed = asyncio.Queue[str]()

    class Row(ui.ActionRow[ui.LayoutView]):
        @ui.button(label="Talk", custom_id="talk")
        async def talk(self, interaction: discord.Interaction, button: Any) -> None:
            pressed.put_nowait("talk")
            await interaction.response.edit_message(view=card("other.png"), attachments=[other])

    class Weigh(ui.Button[ui.LayoutView]):
        async def callback(self, interaction: discord.Interaction) -> None:
            pressed.put_nowait("weigh")
            await interaction.response.send_message(view=layout(ui.TextDisplay("9 st")))

    other = picture("other.png")
    section = ui.Section("x", accessory=Weigh(label="Weigh", custom_id="weigh"))
    await probe.room().send(view=layout(section, ui.Container(Row())))
    (message,) = sandbox.messages("tavern")
    nils = sandbox.member("Nils")
    answer = await nils.click(message, "Weigh")
    assert await pressed.get() == "weigh"
    assert answer.message["flags"] & IS_COMPONENTS_V2
    assert answer.message["components"][0]["content"] == "9 st"
    await nils.click(message, "talk")
    assert await pressed.get() == "talk"
    changed = sandbox.messages("tavern")[0]
    media = changed["components"][0]["components"][0]["accessory"]["media"]
    assert media["url"].endswith("other.png") and changed["edited_timestamp"]


async def test_a_deferred_response_becomes_a_layout(sandbox, probe):
    @probe.tree.command(description="d")
    async def plan(interaction: discord.Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await interaction.edit_original_response(view=card(), attachments=[picture()])
        await interaction.followup.send(view=layout(ui.TextDisplay("and")), ephemeral=True)
        answered.set()

    answered = asyncio.Event()
    await probe.tree.sync()
    answer = await sandbox.member("Nils").slash("tavern", "plan")
    await answered.wait()
    assert answer.ephemeral and answer.message["flags"] & IS_COMPONENTS_V2


def test_discord_py_and_the_sandbox_count_alike():
    view = layout(*[ui.TextDisplay("x") for _ in range(40)])
    with pytest.raises(ValueError, match="40"):
        view.add_item(ui.TextDisplay("x"))


TEXT = {"type": 10, "content": "x"}
BUTTON = {"type": 2, "style": 1, "label": "x", "custom_id": "x"}
ROW = {"type": 1, "components": [BUTTON]}
PICTURES = {"type": 12, "items": [{"media": {"url": "https://example.org/x.png"}}]}
THUMBNAIL = {"type": 11, "media": {"url": "https://example.org/x.png"}}


def section(accessory: Any, texts: int = 1) -> Any:
    return {"type": 9, "components": [TEXT] * texts, "accessory": accessory}


def container(*children: Any) -> Any:
    return {"type": 17, "components": list(children)}


async def test_what_discord_does_not_take_is_refused(sandbox, api):
    for components, field, code in [
        ([TEXT] * 41, "components", "BASE_TYPE_MAX_LENGTH"),
        # 39 texts, a container, and a row with a button.
        (
            [*[TEXT] * 38, container(ROW)],
            "components",
            "COMPONENT_MAX_TOTAL_COMPONENTS_EXCEEDED",
        ),
        (
            [*[TEXT] * 37, section(THUMBNAIL, 2)],
            "components",
            "COMPONENT_MAX_TOTAL_COMPONENTS_EXCEEDED",
        ),
        ([{"type": 10, "content": "x" * 4001}], "components.0.content", "BASE_TYPE_MAX_LENGTH"),
        (
            [{"type": 10, "content": "x" * 3999}, container({"type": 10, "content": "xx"})],
            "components",
            "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED",
        ),
        ([{"type": 10, "content": ""}], "components.0.content", "BASE_TYPE_REQUIRED"),
        ([BUTTON], "components.0.type", "UNION_TYPE_CHOICES"),
        ([THUMBNAIL], "components.0.type", "UNION_TYPE_CHOICES"),
        ([container(container(TEXT))], "components.0.components.0.type", "UNION_TYPE_CHOICES"),
        ([container(THUMBNAIL)], "components.0.components.0.type", "UNION_TYPE_CHOICES"),
        ([container()], "components.0.components", "BASE_TYPE_REQUIRED"),
        ([section(PICTURES)], "components.0.accessory.type", "UNION_TYPE_CHOICES"),
        ([section(None)], "components.0.accessory", "BASE_TYPE_REQUIRED"),
        ([section(THUMBNAIL, 4)], "components.0.components", "BASE_TYPE_MAX_LENGTH"),
        (
            [{"type": 1, "components": [TEXT]}],
            "components.0.components.0.type",
            "UNION_TYPE_CHOICES",
        ),
        ([ROW, section(BUTTON)], "components.1.accessory.custom_id", None),
        (
            [{"type": 12, "items": [{"media": {"url": "attachment://no.png"}}]}],
            "components.0.items.0.media.url",
            "UNFURLED_MEDIA_ITEM_REFERENCED_ATTACHMENT_NOT_FOUND",
        ),
    ]:
        sandbox.advance(5)  # a bot may send five messages in five seconds
        path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
        body = {"flags": IS_COMPONENTS_V2, "components": components}
        _, sent, _ = await api("POST", path, {"flags": IS_COMPONENTS_V2, "components": [TEXT]})
        for method, place in (("POST", path), ("PATCH", f"{path}/{sent['id']}")):
            status, answer, _ = await api(method, place, body)
            assert (status, answer["code"]) == (400, 50035), field
            errors = answer["errors"]
            for step in field.split("."):
                errors = errors[step]
            assert errors["_errors"][0]["code"] == (code or "COMPONENT_CUSTOM_ID_DUPLICATED"), field
        latest = sandbox.messages("tavern")[-1]
        assert [one["content"] for one in latest["components"]] == ["x"], field


async def test_forty_components_and_four_thousand_characters_are_taken(sandbox, probe, api):
    path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
    texts = [{"type": 10, "content": "x" * 105}] * 38
    components = [*texts, container({"type": 10, "content": "x" * 10})]
    body = {"flags": IS_COMPONENTS_V2, "components": components}
    assert (await api("POST", path, body))[0] == 200


async def test_without_the_flag_there_are_action_rows_alone(sandbox, api):
    for component in [TEXT, section(THUMBNAIL), container(TEXT), PICTURES]:
        path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
        status, answer, _ = await api("POST", path, {"content": "x", "components": [component]})
        assert status == 400, component
        error = answer["errors"]["components"]["0"]["type"]["_errors"][0]
        assert error["message"] == 'Value of field "type" must be one of (1,).', component


async def test_nothing_stands_beside_a_layout(sandbox, api):
    for beside in [
        {"content": "x"},
        {"embeds": [{"title": "x"}]},
        {"sticker_ids": ["1"]},
        {"poll": {"question": {"text": "x"}, "answers": [{"poll_media": {"text": "x"}}]}},
    ]:
        path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
        body = {"flags": IS_COMPONENTS_V2, "components": [TEXT]}
        status, answer, _ = await api("POST", path, body | beside)
        assert status == 400, beside
        (field,) = beside
        error = answer["errors"][field]["_errors"][0]
        assert error["code"] == "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", beside


async def test_a_layout_is_never_empty(sandbox, probe, api):
    path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
    assert (await api("POST", path, {"flags": IS_COMPONENTS_V2}))[1]["code"] == 50006


async def test_a_plain_message_becomes_a_layout_for_good(sandbox, probe):
    sent = await probe.room().send("plain", file=picture())
    with pytest.raises(discord.HTTPException, match="'content' field cannot be used") as kept:
        await sent.edit(view=card())
    errors_of(kept.value)
    # The file that is there already can be shown.
    changed = await sent.edit(content=None, view=card())
    assert changed.flags.components_v2 and changed.content == "" and changed.attachments == []
    with pytest.raises(discord.HTTPException, match="'content' field cannot be used"):
        await sent.edit(content="plain again", view=None)
    # The flag is left out here, and stays.
    await probe.http.edit_message(sent.channel.id, sent.id, params=_params({"flags": 0}))
    assert (await sent.fetch()).flags.components_v2


def _params(payload: Any) -> Any:
    return discord.http.MultipartParameters(payload=payload, multipart=None, files=None)


async def test_texts_of_a_layout_mention_as_allowed(sandbox, probe):
    nils = sandbox.member("Nils")
    text = ui.TextDisplay(f"<@{nils.id}>")
    sent = await probe.room().send(view=layout(text))
    assert [user.id for user in sent.mentions] == [int(nils.id)]
    none = discord.AllowedMentions.none()
    sent = await probe.room().send(view=layout(ui.TextDisplay(text.content)), allowed_mentions=none)
    assert sent.mentions == []


async def test_a_forward_shows_a_layout_without_its_buttons(sandbox, probe):
    await probe.room().send(view=card(), file=picture())
    (message,) = sandbox.messages("tavern")
    await sandbox.member("Olga").forward("cellar", message)
    forward = await probe.receive(lambda one: bool(one.message_snapshots))
    (box,) = forward.message_snapshots[0].components
    kinds = [child.type.name for child in box.children]
    assert kinds == ["section", "text_display", "separator", "media_gallery", "file"]
