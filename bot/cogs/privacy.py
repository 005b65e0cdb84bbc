"""`/privacy show|opt-in|opt-out|export|forget`: what is kept about a member, told to that member alone."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from typing import Any

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands

from bot.cogs.asking import Interaction
from bot.cogs.lasting import LastingButton
from bot.house import HouseBot
from bot.privacy.about import About, receipt_words
from bot.privacy.receipt import Receipt, Scope
from bot.privacy.service import Forgettings
from bot.privacy.texts import Language
from bot.privacy.words import language_of, said
from bot.store import Decision
from bot.voices import NO_MENTIONS

MAX_MESSAGE = 2000


@app_commands.allowed_contexts(guilds=True, dms=True)
class Privacy(
    commands.GroupCog,
    group_name="privacy",
    group_description="What is kept about you, whether it may train, and how to have it deleted.",
):
    """The commands, for everybody about themselves; and what forgets people in the background."""

    def __init__(self, bot: HouseBot) -> None:
        self.forgettings = Forgettings(bot)
        super().__init__()

    async def cog_load(self) -> None:
        self.forgettings.start()

    async def cog_unload(self) -> None:
        await self.forgettings.stop()

    @app_commands.command(description="See what I keep about you, for how long, and who runs me.")
    async def show(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        words = _about(interaction).words(language_of(interaction.locale), operator_of(interaction))
        await _send(interaction, words[:MAX_MESSAGE])

    @app_commands.command(
        name="opt-in", description="Agree that personas learn from what you write; first I explain it."
    )
    async def opt_in(self, interaction: Interaction) -> None:
        house, language = interaction.client.house, language_of(interaction.locale)
        decision = house.store.people.decision(interaction.user.id)
        if decision and decision.opted_in:
            await _send(interaction, said(language, "opt_in_already"))
            return
        stated = house.keeping.permission
        permission = said(language, "permission_stated" if stated else "permission_missing", statement=stated)
        view = _view(OptInButton(language))
        await _send(interaction, said(language, "opt_in_ask", permission=permission), view=view)

    @app_commands.command(
        name="opt-out", description="Take your agreement back; from then on nothing you wrote is trained on."
    )
    async def opt_out(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        language = language_of(interaction.locale)
        _decide(interaction, opted_in=False)
        trained = _about(interaction).trained_words(language)
        if not trained:
            await _send(interaction, f"{said(language, 'opt_out_done')} {said(language, 'opt_out_nothing')}")
            return
        words = f"{said(language, 'opt_out_done')}\n{said(language, 'opt_out_trained', what=trained)}"
        await _send(interaction, words[:MAX_MESSAGE], view=_view(WithdrawButton(language)))

    @app_commands.command(description="Get all that I keep about you as a file.")
    async def export(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        language, content = language_of(interaction.locale), _about(interaction).export()
        if len(content) > interaction.filesize_limit:
            size = len(content) / 2**20
            operator = operator_of(interaction)
            await _send(interaction, said(language, "export_large", megabytes=size, operator=operator))
            return
        file = discord.File(io.BytesIO(content), filename="understudy-about-me.json")
        await interaction.followup.send(said(language, "export_done"), file=file, ephemeral=True)

    @app_commands.command(description="Have me forget you: messages, votes, and what was trained on them.")
    async def forget(self, interaction: Interaction) -> None:
        language = language_of(interaction.locale)
        await _send(interaction, said(language, "forget_ask"), view=_view(ForgetButton(language)))


class _PrivacyButton(LastingButton, template=r"never:"):
    """A button of an answer that only the member sees, in the language that it carries."""

    label_key = custom = ""
    style = discord.ButtonStyle.primary

    def __init__(self, language: Language) -> None:
        self.language = language
        label = said(language, self.label_key)
        super().__init__(discord.ui.Button(label=label, style=self.style, custom_id=f"{self.custom}:{language}"))


class OptInButton(_PrivacyButton, template=r"opt-in:(?P<language>en|vi)"):
    """Agrees."""

    label_key, custom = "opt_in_button", "opt-in"

    async def pressed(self, interaction: Interaction) -> None:
        _decide(interaction, opted_in=True)
        await interaction.response.edit_message(content=said(self.language, "opt_in_done"), view=None)


class WithdrawButton(_PrivacyButton, template=r"withdraw:(?P<language>en|vi)"):
    """Has withdrawn what was trained on the member."""

    label_key, custom = "withdraw_button", "withdraw"
    style = discord.ButtonStyle.danger

    async def pressed(self, interaction: Interaction) -> None:
        _ask(interaction, self.language, "trainings")
        await interaction.response.edit_message(content=said(self.language, "withdraw_begun"), view=None)


class ForgetButton(_PrivacyButton, template=r"forget-me:(?P<language>en|vi)"):
    """Has the member forgotten."""

    label_key, custom = "forget_button", "forget-me"
    style = discord.ButtonStyle.danger

    async def pressed(self, interaction: Interaction) -> None:
        underway = _forgettings(interaction).is_underway(interaction.user.id)
        if not underway:
            _ask(interaction, self.language, "everything")
        words = said(self.language, "forget_already" if underway else "forget_begun")
        await interaction.response.edit_message(content=words, view=None)


BUTTONS = (OptInButton, WithdrawButton, ForgetButton)


def operator_of(interaction: Interaction) -> str:
    """Who runs the bot, as Discord names them; nobody else can answer for it."""
    language, application = language_of(interaction.locale), interaction.client.application
    if interaction.client.house.keeping.in_sandbox:
        return said(language, "operator_sandbox")
    if application is None:
        return said(language, "operator_unknown")
    return f"<@{application.owner.id}>" if application.team is None else application.team.name


def _about(interaction: Interaction) -> About:
    house = interaction.client.house
    names = tuple(names_of(interaction.user))
    return About(_forgettings(interaction).forgetter, interaction.user.id, names, house.keeping.history_days)


def names_of(user: discord.abc.User) -> list[str]:
    """All names that Discord has of a member here."""
    names = [user.name, user.global_name, user.display_name, getattr(user, "nick", None)]
    return list(dict.fromkeys(name for name in names if name))


def _forgettings(interaction: Interaction) -> Forgettings:
    cog = interaction.client.get_cog(Privacy.__cog_name__)
    assert isinstance(cog, Privacy)  # its own commands and buttons ask
    return cog.forgettings


def _ask(interaction: Interaction, language: Language, scope: Scope) -> None:
    """Begin, and have the member told at the end if this interaction lives so long."""
    operator = operator_of(interaction)

    async def say(receipt: Receipt) -> None:
        words = receipt_words(receipt, language, operator)[:MAX_MESSAGE]
        with suppress(discord.HTTPException, aiohttp.ClientError):  # after a quarter of an hour nobody can be told here
            await interaction.followup.send(words, ephemeral=True, allowed_mentions=NO_MENTIONS)

    _forgettings(interaction).ask(interaction.user.id, names_of(interaction.user), scope, say)


def _decide(interaction: Interaction, *, opted_in: bool) -> None:
    decision = Decision(interaction.user.id, opted_in, time.time(), language_of(interaction.locale))
    _forgettings(interaction).forgetter.consents.decide(decision)


def _view(button: discord.ui.Item[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    view.add_item(button)
    return view


async def _send(interaction: Interaction, words: str, view: discord.ui.View = discord.utils.MISSING) -> None:
    """Answer for the member's eyes only."""
    if interaction.response.is_done():
        await interaction.followup.send(words, ephemeral=True, view=view, allowed_mentions=NO_MENTIONS)
    else:
        await interaction.response.send_message(words, ephemeral=True, view=view, allowed_mentions=NO_MENTIONS)
