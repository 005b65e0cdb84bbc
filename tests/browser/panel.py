"""A small bot for the page to show: every kind of command, button, select, form, embed and layout."""

import asyncio
import io
from typing import Any

import discord
from discord import app_commands

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
FRUIT = ("Apple", "Pear", "Plum")
Press = discord.Interaction[Any]


class Order(discord.ui.Modal, title="Your order"):
    guest: Any = discord.ui.TextInput(label="Name", min_length=2, max_length=20)
    size: Any = discord.ui.Label(
        text="Size",
        component=discord.ui.Select(
            options=[discord.SelectOption(label=one) for one in ("Small", "Large")]
        ),
    )

    async def on_submit(self, interaction: Press, /) -> None:
        chosen = self.size.component.values[0]
        await interaction.response.send_message(f"{chosen} for {self.guest.value}", ephemeral=True)


class Delivery(discord.ui.Modal, title="Your delivery"):
    papers: Any = discord.ui.Label(
        text="Papers",
        description="Two at most",
        component=discord.ui.FileUpload(min_values=1, max_values=2),
    )
    to: Any = discord.ui.Label(text="To", component=discord.ui.UserSelect(required=True))

    async def on_submit(self, interaction: Press, /) -> None:
        papers = [f"{each.filename} ({each.size})" for each in self.papers.component.values]
        (to,) = self.to.component.values
        await interaction.response.send_message(f"{' and '.join(papers)} to {to.display_name}")


class Panel(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)

    @discord.ui.button(label="Order", style=discord.ButtonStyle.primary, custom_id="order")
    async def order(self, interaction: Press, button: Any) -> None:
        await interaction.response.send_modal(Order())

    @discord.ui.button(label="Deliver", custom_id="deliver")
    async def deliver(self, interaction: Press, button: Any) -> None:
        await interaction.response.send_modal(Delivery())

    @discord.ui.button(label="Closed", disabled=True, custom_id="closed")
    async def closed(self, interaction: Press, button: Any) -> None:
        raise AssertionError("a disabled button was pressed")

    @discord.ui.select(
        placeholder="A fruit",
        custom_id="fruit",
        options=[discord.SelectOption(label=one, description="sweet") for one in FRUIT],
    )
    async def fruit(self, interaction: Press, select: Any) -> None:
        await interaction.response.send_message(f"You chose {select.values[0]}", ephemeral=True)

    @discord.ui.select(
        placeholder="Two of them", custom_id="two", min_values=2, max_values=2,
        options=[discord.SelectOption(label=one) for one in FRUIT],
    )  # fmt: skip
    async def two(self, interaction: Press, select: Any) -> None:
        await interaction.response.edit_message(
            content=f"Chosen: {' and '.join(sorted(select.values))}"
        )

    @discord.ui.select(cls=discord.ui.UserSelect, placeholder="Somebody", custom_id="who")
    async def who(self, interaction: Press, select: Any) -> None:
        await interaction.response.send_message(f"It is {select.values[0].mention}")


class Panelist(discord.Client):
    """Its commands are registered when it is ready."""

    def __init__(self) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__(intents=intents, guild_ready_timeout=0.05)
        self.tree = app_commands.CommandTree(self)
        self.silent_until = asyncio.Event()
        for command in (card, echo, panel, show, weigh):
            self.tree.add_command(command)
        for name, callback in (("Count words", count), ("Greet", greet)):
            self.tree.add_command(app_commands.ContextMenu(name=name, callback=callback))

    async def setup_hook(self) -> None:
        self.add_view(Panel())
        await self.tree.sync()

    def room(self, name: str = "tavern") -> discord.TextChannel:
        found = discord.utils.get(self.guilds[0].text_channels, name=name)
        assert found is not None
        return found


@app_commands.command(description="Says it back")
@app_commands.describe(text="What to say", times="How often", brew="Which tea")
async def echo(
    interaction: Press,
    text: str,
    times: app_commands.Range[int, 1, 3] = 1,
    to: discord.Member | None = None,
    brew: str = "",
) -> None:
    words = " ".join([text] * times)
    await interaction.response.send_message(
        f"{words}{' ' + to.mention if to else ''}{' ' + brew if brew else ''}"
    )


@echo.autocomplete("brew")
async def brews(interaction: Press, current: str) -> list[app_commands.Choice[str]]:
    known = {"Black tea": "black", "Green tea": "green"}
    return [
        app_commands.Choice(name=name, value=value)
        for name, value in known.items()
        if current.lower() in name.lower()
    ]


@app_commands.command(description="Buttons and menus")
async def panel(interaction: Press) -> None:
    await interaction.response.send_message("Press something", view=Panel())


@app_commands.command(description="An embed and two files")
async def show(interaction: Press) -> None:
    embed = discord.Embed(
        title="A **bold** title", description="Some `code`", colour=0xCC7722
    ).set_footer(text="A footer")
    embed.add_field(name="Field", value="value")
    files = [
        discord.File(io.BytesIO(PICTURE), "dot.png"),
        discord.File(io.BytesIO(b"notes"), "notes.txt"),
    ]
    await interaction.response.send_message(embed=embed, files=files)


class CardButtons(discord.ui.ActionRow[discord.ui.LayoutView]):
    @discord.ui.button(label="Say its name", custom_id="name")
    async def name(self, interaction: Press, button: Any) -> None:
        name = discord.ui.TextDisplay("It is **Ballast**.")
        await interaction.response.edit_message(
            view=discord.ui.LayoutView().add_item(name), attachments=[]
        )


class FruitMenu(discord.ui.ActionRow[discord.ui.LayoutView]):
    @discord.ui.select(
        placeholder="A fruit for it",
        custom_id="its-fruit",
        options=[discord.SelectOption(label=one) for one in FRUIT],
    )
    async def fruit(self, interaction: Press, select: Any) -> None:
        await interaction.response.send_message(f"It eats {select.values[0]}")


class WeighButton(discord.ui.Button[discord.ui.LayoutView]):
    async def callback(self, interaction: Press) -> None:
        await interaction.response.send_message("9 stone")


@app_commands.command(description="A layout of components")
async def card(interaction: Press) -> None:
    ui = discord.ui
    dot = discord.MediaGalleryItem("attachment://dot.png", description="A dot")
    view = ui.LayoutView(timeout=None)
    view.add_item(ui.TextDisplay("A card for everybody"))
    box: Any = ui.Container(
        ui.Section(
            "### Ballast\nA **counting** automaton",
            "-# Version v3",
            accessory=ui.Thumbnail("attachment://dot.png", description="Its face"),
        ),
        ui.Separator(),
        ui.Section("> How heavy?\n- as you wish", accessory=WeighButton(label="Weigh it")),
        ui.Separator(visible=False, spacing=discord.SeparatorSpacing.large),
        ui.MediaGallery(dot, dot),
        ui.MediaGallery(discord.MediaGalleryItem("attachment://dot.png", spoiler=True)),
        ui.File("attachment://dot.png"),
        CardButtons(),
        FruitMenu(),
        accent_colour=discord.Colour(0x2E8B57),
    )
    view.add_item(box)
    await interaction.response.send_message(
        view=view, file=discord.File(io.BytesIO(PICTURE), "dot.png")
    )


@app_commands.command(description="How large a file is")
async def weigh(interaction: Press, file: discord.Attachment, scale: str = "bytes") -> None:
    await interaction.response.send_message(f"{file.filename}: {len(await file.read())} {scale}")


async def count(interaction: Press, message: discord.Message) -> None:
    await interaction.response.send_message(f"{len(message.content.split())} words", ephemeral=True)


async def greet(interaction: Press, user: discord.Member) -> None:
    await interaction.response.send_message(f"Hello {user.mention}")
