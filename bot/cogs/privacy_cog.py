"""`/privacy show|opt-in|opt-out|export|forget`: answers to a member about their own data."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from typing import Any

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS
from bot.cogs.transformers import Interaction
from bot.cogs.ui import PersistentButton
from bot.privacy.erasure_runner import ErasureReceipt, ErasureScope
from bot.privacy.erasure_service import ErasureService
from bot.privacy.member_report import MemberReport, format_receipt
from bot.privacy.translations import Language, language_of, translate
from bot.services import Bot
from bot.store import ConsentDecision

MAX_MESSAGE_CHARS = 2000


@app_commands.allowed_contexts(guilds=True, dms=True)
class PrivacyCog(
    commands.GroupCog,
    group_name="privacy",
    group_description="See what is kept about you, allow or forbid training on it, or delete it.",
):
    """The commands, for everybody about themselves; and what forgets people in the background."""

    def __init__(self, bot: Bot) -> None:
        self.forgettings = ErasureService(bot)
        super().__init__()

    async def cog_load(self) -> None:
        self.forgettings.start()

    async def cog_unload(self) -> None:
        await self.forgettings.stop()

    @app_commands.command(description="See what I keep about you, for how long, and who runs me.")
    async def show(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        words = _privacy_report(interaction).words(language_of(interaction.locale), operator_name(interaction))
        await _send(interaction, words[:MAX_MESSAGE_CHARS])

    @app_commands.command(name="opt-in", description="Consent to training on what you write; I explain it first.")
    async def opt_in(self, interaction: Interaction) -> None:
        services, language = interaction.client.services, language_of(interaction.locale)
        decision = services.store.people.decision(interaction.user.id)
        if decision and decision.opted_in:
            await _send(interaction, translate(language, "opt_in_already"))
            return
        stated = services.privacy.permission
        permission = translate(language, "permission_stated" if stated else "permission_missing", statement=stated)
        view = _view(OptInButton(language))
        await _send(interaction, translate(language, "opt_in_ask", permission=permission), view=view)

    @app_commands.command(
        name="opt-out", description="Withdraw your consent: nothing you wrote is used for training from then on."
    )
    async def opt_out(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        language = language_of(interaction.locale)
        _store_decision(interaction, opted_in=False)
        trained = _privacy_report(interaction).trained_words(language)
        if not trained:
            await _send(interaction, f"{translate(language, 'opt_out_done')} {translate(language, 'opt_out_nothing')}")
            return
        words = f"{translate(language, 'opt_out_done')}\n{translate(language, 'opt_out_trained', what=trained)}"
        await _send(interaction, words[:MAX_MESSAGE_CHARS], view=_view(WithdrawButton(language)))

    @app_commands.command(description="Get everything I keep about you as a file.")
    async def export(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        language, content = language_of(interaction.locale), _privacy_report(interaction).export()
        if len(content) > interaction.filesize_limit:
            size = len(content) / 2**20
            operator = operator_name(interaction)
            await _send(interaction, translate(language, "export_large", megabytes=size, operator=operator))
            return
        file = discord.File(io.BytesIO(content), filename="understudy-about-me.json")
        await interaction.followup.send(translate(language, "export_done"), file=file, ephemeral=True)

    @app_commands.command(description="Delete your messages, your votes, and what was trained on them.")
    async def forget(self, interaction: Interaction) -> None:
        language = language_of(interaction.locale)
        await _send(interaction, translate(language, "forget_ask"), view=_view(ForgetButton(language)))


class _PrivacyButton(PersistentButton, template=r"never:"):
    """A button of an answer that only the member sees, in the language that it carries."""

    label_key = custom = ""
    style = discord.ButtonStyle.primary

    def __init__(self, language: Language) -> None:
        self.language = language
        label = translate(language, self.label_key)
        super().__init__(discord.ui.Button(label=label, style=self.style, custom_id=f"{self.custom}:{language}"))


class OptInButton(_PrivacyButton, template=r"opt-in:(?P<language>en|vi)"):
    """Agrees."""

    label_key, custom = "opt_in_button", "opt-in"

    async def pressed(self, interaction: Interaction) -> None:
        _store_decision(interaction, opted_in=True)
        await interaction.response.edit_message(content=translate(self.language, "opt_in_done"), view=None)


class WithdrawButton(_PrivacyButton, template=r"withdraw:(?P<language>en|vi)"):
    """Has withdrawn what was trained on the member."""

    label_key, custom = "withdraw_button", "withdraw"
    style = discord.ButtonStyle.danger

    async def pressed(self, interaction: Interaction) -> None:
        _request_deletion(interaction, self.language, "trainings")
        await interaction.response.edit_message(content=translate(self.language, "withdraw_begun"), view=None)


class ForgetButton(_PrivacyButton, template=r"forget-me:(?P<language>en|vi)"):
    """Has the member forgotten."""

    label_key, custom = "forget_button", "forget-me"
    style = discord.ButtonStyle.danger

    async def pressed(self, interaction: Interaction) -> None:
        underway = _deletion_service(interaction).is_underway(interaction.user.id)
        if not underway:
            _request_deletion(interaction, self.language, "everything")
        words = translate(self.language, "forget_already" if underway else "forget_begun")
        await interaction.response.edit_message(content=words, view=None)


PRIVACY_BUTTONS = (OptInButton, WithdrawButton, ForgetButton)


def operator_name(interaction: Interaction) -> str:
    """Find the bot's operator, as Discord names them."""
    language, application = language_of(interaction.locale), interaction.client.application
    if interaction.client.services.privacy.in_sandbox:
        return translate(language, "operator_sandbox")
    if application is None:
        return translate(language, "operator_unknown")
    return f"<@{application.owner.id}>" if application.team is None else application.team.name


def _privacy_report(interaction: Interaction) -> MemberReport:
    services = interaction.client.services
    names = tuple(member_names(interaction.user))
    return MemberReport(
        _deletion_service(interaction).runner, interaction.user.id, names, services.privacy.history_days
    )


def member_names(user: discord.abc.User) -> list[str]:
    """All names that Discord has of a member here."""
    names = [user.name, user.global_name, user.display_name, getattr(user, "nick", None)]
    return list(dict.fromkeys(name for name in names if name))


def _deletion_service(interaction: Interaction) -> ErasureService:
    cog = interaction.client.get_cog(PrivacyCog.__cog_name__)
    assert isinstance(cog, PrivacyCog)  # its own commands and buttons ask
    return cog.forgettings


def _request_deletion(interaction: Interaction, language: Language, scope: ErasureScope) -> None:
    """Begin, and have the member told at the end if this interaction lives so long."""
    operator = operator_name(interaction)

    async def say(receipt: ErasureReceipt) -> None:
        words = format_receipt(receipt, language, operator)[:MAX_MESSAGE_CHARS]
        with suppress(discord.HTTPException, aiohttp.ClientError):  # after a quarter of an hour nobody can be told here
            await interaction.followup.send(words, ephemeral=True, allowed_mentions=NO_MENTIONS)

    _deletion_service(interaction).ask(interaction.user.id, member_names(interaction.user), scope, say)


def _store_decision(interaction: Interaction, *, opted_in: bool) -> None:
    decision = ConsentDecision(interaction.user.id, opted_in, time.time(), language_of(interaction.locale))
    _deletion_service(interaction).runner.consents.decide(decision)


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
