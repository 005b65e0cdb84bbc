"""Select menus, forms with them, and the commands of the context menus, against the real client."""

import discord
import pytest
from discord import app_commands

from sandbox import SandboxRefusal
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import ApiError
from sandbox.validation import check_modal
from tests.fakes import until


class Menus(discord.ui.View):
    """One of each."""

    @discord.ui.select(
        placeholder="Pick",
        min_values=1,
        max_values=2,
        options=[
            discord.SelectOption(label=name.title(), value=name)
            for name in ("ash", "birch", "cedar")
        ],
    )
    async def pick(self, interaction: discord.Interaction, menu: discord.ui.Select) -> None:
        await interaction.response.send_message(" ".join(menu.values))

    @discord.ui.select(cls=discord.ui.UserSelect, placeholder="Who")
    async def who(self, interaction: discord.Interaction, menu: discord.ui.UserSelect) -> None:
        await interaction.response.send_message(
            f"{menu.values[0].display_name} {type(menu.values[0]).__name__}"
        )

    @discord.ui.select(cls=discord.ui.RoleSelect, placeholder="Which role")
    async def role(self, interaction: discord.Interaction, menu: discord.ui.RoleSelect) -> None:
        await interaction.response.send_message(menu.values[0].name)

    @discord.ui.select(
        cls=discord.ui.ChannelSelect, placeholder="Where", channel_types=[discord.ChannelType.text]
    )
    async def where(self, interaction: discord.Interaction, menu: discord.ui.ChannelSelect) -> None:
        await interaction.response.send_message(menu.values[0].name)

    @discord.ui.select(
        placeholder="Closed", disabled=True, options=[discord.SelectOption(label="x")]
    )
    async def closed(self, interaction: discord.Interaction, menu: discord.ui.Select) -> None:
        raise AssertionError


class Wish(discord.ui.Modal, title="A wish"):
    """Text that is read, a menu that must be filled, one that may, and a line to write."""

    intro = discord.ui.TextDisplay("Choose well.")
    wood = discord.ui.Label(
        text="Wood",
        component=discord.ui.Select(options=[discord.SelectOption(label="Ash", value="ash")]),
    )
    more = discord.ui.Label(
        text="More",
        component=discord.ui.Select(options=[discord.SelectOption(label="Oak")], required=False),
    )
    why = discord.ui.Label(text="Why", component=discord.ui.TextInput(max_length=5))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(
            f"{self.wood.component.values} {self.more.component.values}"
        )


class Sending(discord.ui.Modal, title="Files and a person"):
    """Files, and selects of what a guild has."""

    notes = discord.ui.Label(
        text="Notes", component=discord.ui.FileUpload(min_values=2, max_values=3)
    )
    face = discord.ui.Label(text="Face", component=discord.ui.FileUpload(required=False))
    who = discord.ui.Label(text="Who", component=discord.ui.UserSelect(required=True))
    where = discord.ui.Label(text="Where", component=discord.ui.ChannelSelect(required=True))
    role = discord.ui.Label(text="Role", component=discord.ui.RoleSelect(required=False))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        notes = [f"{one.filename}={await one.read()!r}" for one in self.notes.component.values]
        (who,) = self.who.component.values
        (where,) = self.where.component.values
        roles = [role.name for role in self.role.component.values]
        await interaction.response.send_message(
            f"{notes} {len(self.face.component.values)} {who.display_name} {where.name} {roles}"
        )


@pytest.fixture
async def bot(sandbox, probe):
    @probe.tree.context_menu(name="Look At")
    async def look(interaction: discord.Interaction, whom: discord.Member) -> None:
        await interaction.response.send_message(
            f"looks at {whom.display_name}, a {whom.top_role.name}"
        )

    @probe.tree.context_menu(name="Quote")
    async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(
            f"{message.author.display_name} said {message.content}"
        )

    @probe.tree.context_menu(name="Judge")
    @app_commands.default_permissions(manage_messages=True)
    async def judge(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message("judged", ephemeral=True)

    @probe.tree.command(description="A form")
    async def wish(interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(Wish())

    @probe.tree.command(description="A form for files")
    async def send(interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(Sending())

    @probe.tree.command(description="Not for everybody", nsfw=True)
    async def grim(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("grim")

    await probe.tree.sync()
    return probe


async def test_menus_send_what_was_chosen(sandbox, probe):
    await probe.room().send("menus", view=Menus(timeout=None))
    shown = sandbox.messages("tavern")[0]
    for menu, values, result in [
        ("Pick", ["birch"], "birch"),
        ("Pick", ["Ash", "cedar"], "ash cedar"),
        ("Who", ["Mora"], "Mora Member"),
        ("Which role", ["Moderator"], "Moderator"),
        ("Where", ["#cellar"], "cellar"),
    ]:
        answer = await sandbox.member("Nils").select(shown, menu, values)
        assert answer.message["content"] == result, menu


async def test_menus_take_only_what_they_offer(sandbox, probe):
    await probe.room().send("menus", view=Menus(timeout=None))
    shown = sandbox.messages("tavern")[0]
    for menu, values, words in [
        ("Pick", ["oak"], "not one of the choices"),
        ("Pick", [], "between 1 and 2"),
        ("Pick", ["ash", "birch", "cedar"], "between 1 and 2"),
        ("Who", ["Zed"], "Unknown user"),
        ("Which role", ["King"], "Unknown role"),
        ("Where", ["attic"], "Unknown channel"),
        ("Closed", ["x"], "cannot be used"),
        ("Missing", ["x"], "no menu called Missing"),
    ]:
        with pytest.raises(SandboxRefusal, match=words):
            await sandbox.member("Nils").select(shown, menu, values)


async def test_forms_with_menus(sandbox, bot):
    nils = sandbox.member("Nils")
    form = await nils.slash("tavern", "wish")
    for fields, words in (
        ({"Wood": ["ash"]}, "Why: This field is required"),
        ({"Why": "so", "Wood": []}, "Choose 1"),
        ({"Why": "so", "Wood": "oak"}, "not one of the choices"),
        ({"Why": "because", "Wood": "ash"}, "between 0 and 5"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.submit(form, **fields)
    answer = await nils.submit(form, Why="so", Wood=["Ash"])
    assert answer.message["content"] == "['ash'] []"
    text, wood, *_ = answer.interaction.payload["data"]["components"]
    assert text == {"id": 1, "type": 10}
    assert (wood["id"], wood["component"]["id"], wood["component"]["values"]) == (2, 3, ["ash"])


async def test_forms_with_files_and_selects_of_the_guild(sandbox, bot):
    nils = sandbox.member("Nils")
    form = await nils.slash("tavern", "send")
    files = [StoredFile.named(f"{name}.txt", name.encode()) for name in "abcd"]
    chosen = {"Notes": files[:2], "Who": ["Mora"], "Where": "#cellar", "Role": ["Moderator"]}
    large = StoredFile.named("x", bytes(ATTACHMENT_LIMIT_BYTES + 1))
    for fields, words in (
        ({"Notes": files[:1]}, "between 2 and 3 files"),
        ({"Notes": files}, "between 2 and 3 files"),
        ({"Notes": []}, "between 1 and 3 files"),
        ({"Notes": [files[0], large]}, "too powerful"),
        ({"Notes": ["a.txt", "b.txt"]}, "takes a file"),
        ({"Face": files[:2]}, r"Choose 1 file\."),
        ({"Who": []}, "Choose 1"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.submit(form, **{**chosen, **fields})
    said = (await nils.submit(form, **chosen)).message["content"]
    assert said == """["a.txt=b'a'", "b.txt=b'b'"] 0 Mora cellar ['Moderator']"""


def _changed(part=None, **row):
    """A label around an upload, changed."""
    upload = {"type": 19, "custom_id": "a", **(part or {})}
    return {"type": 18, "label": "Files", "component": upload, **row}


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ([_changed(label="x" * 46)], "components.0.label"),
        ([_changed({"max_values": 11})], "components.0.component.max_values"),
        ([_changed({"min_values": -1})], "components.0.component.min_values"),
        ([_changed({"custom_id": ""})], "components.0.component.custom_id"),
        ([_changed({"type": 2})], "components.0.component.type"),
        ([_changed(type=17)], "components.0.type"),
        ([_changed({"type": 5, "disabled": True})], "components.0.component.disabled"),
        ([_changed({"type": 5, "placeholder": "x" * 151})], "components.0.component.placeholder"),
        (
            [_changed({"type": 3, "options": [{"label": "a", "value": "a", "default": True}] * 2})],
            "components.0.component.options",
        ),
        ([_changed(), _changed()], "components.1.component.custom_id"),
        ([{"type": 1, "components": [{"type": 19, "custom_id": "a"}]}], "components.0.components.0.type"),
        ([_changed({"custom_id": str(number)}) for number in range(6)], "components"),
    ],
)  # fmt: skip
def test_forms_that_discord_does_not_take(rows, path):
    form = {"custom_id": "form", "title": "A form", "components": [_changed()]}
    check_modal(form)
    with pytest.raises(ApiError) as refused:
        check_modal({**form, "components": rows})
    place = refused.value.errors
    for step in path.split("."):
        place = place[step]
    assert place["_errors"]


async def test_context_menus_act_on_members_and_messages(sandbox, bot):
    nils = sandbox.member("Nils")
    said = await sandbox.member("Mora").say("tavern", "well said")
    looked = await nils.context("tavern", "Look At", sandbox.member("Mora"))
    assert looked.message["content"] == "looks at Mora, a Moderator"
    assert looked.message["interaction_metadata"]["target_user"]["id"] == sandbox.member("Mora").id
    quoted = await nils.context("tavern", "Quote", said)
    assert quoted.message["content"] == "Mora said well said" and quoted.message["type"] == 23
    assert (await sandbox.member("Mora").context("tavern", "Judge", said["id"])).ephemeral
    for command, target, words in (
        ("Look At", "1", "Unknown Member"),
        ("Quote", "1", "Unknown Message"),
        ("Judge", said, "do not have permission"),
        ("Praise", said, "no command called Praise"),
    ):
        with pytest.raises(SandboxRefusal, match=words):
            await nils.context("tavern", command, target)


async def test_messages_are_whole_for_a_command_used_on_them(sandbox, new_probe, run):
    client = new_probe(message_content=False)

    @client.tree.context_menu(name="Quote")
    async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(message.content)

    async with run(client, sandbox.token):
        await client.tree.sync()
        said = await sandbox.member("Mora").say("tavern", "secret")
        assert (await client.receive()).content == ""
        assert (await sandbox.member("Nils").context("tavern", "Quote", said)).message[
            "content"
        ] == "secret"


async def test_the_mark_of_a_channel_changes_while_the_bot_runs(sandbox, bot):
    for restricted in (True, False):
        sandbox.set_age_restricted("tavern", restricted)
        await until(lambda restricted=restricted: bot.room().is_nsfw() is restricted)
    with pytest.raises(SandboxRefusal, match="no channel called attic"):
        sandbox.set_age_restricted("attic", True)


async def test_age_restricted_commands_work_in_such_channels_only(sandbox, bot):
    nils = sandbox.member("Nils")
    for place in ("tavern", await nils.dm()):
        with pytest.raises(SandboxRefusal, match="age-restricted"):
            await nils.slash(place, "grim")
    assert (await nils.slash("cellar", "grim")).message["content"] == "grim"
    below = await nils.thread("cellar", "deeper")
    assert (await nils.slash(below, "grim")).message["content"] == "grim"
    assert bot.room("cellar").is_nsfw() and not bot.room().is_nsfw()
