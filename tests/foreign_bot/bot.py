"""A bot that knows nothing of this project: discord.py and three addresses from the environment."""

import io
import os

import discord
import yarl
from discord import app_commands
from discord.ext import commands

discord.http.Route.BASE = os.environ["DISCORD_API"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY"])
discord.Asset.BASE = os.environ["DISCORD_CDN"]

BREWS = ("black", "green", "oolong", "white")


class Order(discord.ui.Modal, title="Your order"):
    guest = discord.ui.TextInput(label="Name", max_length=20)
    wishes = discord.ui.TextInput(label="Wishes", style=discord.TextStyle.paragraph, required=False)

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(
            f"For {self.guest}: {self.wishes or 'nothing special'}", ephemeral=True
        )


class Counter(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)

    @discord.ui.button(label="Order", style=discord.ButtonStyle.primary, custom_id="order")
    async def order(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        await interaction.response.send_modal(Order())

    @discord.ui.button(
        label="Close", style=discord.ButtonStyle.danger, custom_id="close", emoji="🔒"
    )
    async def close(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        button.disabled = True
        await interaction.response.edit_message(content="Closed.", view=self)

    @discord.ui.select(
        custom_id="brew",
        placeholder="Brew",
        max_values=2,
        options=[
            discord.SelectOption(label=one.title(), value=one, description=f"{one} tea")
            for one in BREWS
        ],
    )
    async def brew(self, interaction: discord.Interaction, select: discord.ui.Select) -> None:
        await interaction.response.defer()
        await interaction.followup.send("Brewing " + " and ".join(select.values))

    @discord.ui.select(cls=discord.ui.UserSelect, custom_id="guest", placeholder="Guest")
    async def guest(self, interaction: discord.Interaction, select: discord.ui.UserSelect) -> None:
        await interaction.response.send_message(f"A cup for {select.values[0].display_name}")


class TeaBot(commands.Bot):
    def __init__(self) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__("!", intents=intents, help_command=None, guild_ready_timeout=0.1)

    async def setup_hook(self) -> None:
        self.add_view(Counter())
        await self.tree.sync()

    async def on_ready(self) -> None:
        await self.guilds[0].text_channels[0].send("We are open.")

    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot:
            return
        if isinstance(message.channel, discord.DMChannel):
            await message.reply(f"Between us: {message.content}")
        elif isinstance(message.channel, discord.Thread) and not message.content.startswith("!"):
            await message.channel.send(f"In {message.channel.name}: {message.content}")
        else:
            await self.process_commands(message)


bot = TeaBot()


@bot.command()
async def read(ctx: commands.Context) -> None:
    """What is in the file that came along, as a file."""
    text = (await ctx.message.attachments[0].read()).decode()
    file = discord.File(
        io.BytesIO(text.upper().encode()), "loud.txt", description="the same, louder"
    )
    await ctx.reply("Read.", file=file)


@bot.command()
async def table(ctx: commands.Context) -> None:
    """A thread at the message, and something said in it."""
    thread = await ctx.message.create_thread(name="A table for two")
    await thread.send("Please sit down.")


@bot.command()
async def whisper(ctx: commands.Context) -> None:
    """A direct message to whoever asked."""
    await ctx.author.send("Psst.")


@bot.command()
async def guest(ctx: commands.Context) -> None:
    """Somebody else speaks, thinks better of it, and leaves."""
    webhook = await ctx.channel.create_webhook(name="Guest")
    said = await webhook.send(
        "Good day!", username="A guest", wait=True, embed=discord.Embed(description="bows")
    )
    await said.edit(content="Good night!")
    assert (await webhook.fetch_message(said.id)).content == "Good night!"
    await said.delete()
    await webhook.delete()
    await ctx.send("The guest has left.")


@bot.hybrid_command(description="Make tea")
@app_commands.describe(kind="Which tea", cups="How many")
async def tea(ctx: commands.Context, kind: str, cups: commands.Range[int, 1, 6] = 1) -> None:
    embed = discord.Embed(title=kind.title(), colour=0x88AA44, timestamp=discord.utils.utcnow())
    embed.add_field(name="Cups", value=str(cups)).set_footer(text="served hot")
    async with ctx.typing():
        await ctx.send(f"{cups} × {kind}", embed=embed)


@tea.autocomplete("kind")
async def kinds(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
    return [
        app_commands.Choice(name=one.title(), value=one) for one in BREWS if current.lower() in one
    ]


@bot.tree.command(description="Open the counter")
async def counter(interaction: discord.Interaction) -> None:
    await interaction.response.send_message("What will it be?", view=Counter())


@bot.tree.command(description="Count the history of this channel")
@app_commands.checks.has_permissions(manage_messages=True)
async def count(interaction: discord.Interaction) -> None:
    await interaction.response.defer(thinking=True, ephemeral=True)
    found = [message async for message in interaction.channel.history(limit=10)]
    await interaction.edit_original_response(content=f"At least {len(found)}")


@bot.tree.error
async def refused(interaction: discord.Interaction, error: app_commands.AppCommandError) -> None:
    await interaction.response.send_message(f"No: {error}", ephemeral=True)


@bot.tree.context_menu(name="Serve")
async def serve(interaction: discord.Interaction, member: discord.Member) -> None:
    await interaction.response.send_message(f"Tea for {member.mention}")


@bot.tree.context_menu(name="Quote")
async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
    await interaction.response.send_message(f"> {message.content}", ephemeral=True)


bot.run(os.environ["DISCORD_TOKEN"])
