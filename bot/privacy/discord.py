"""`/privacy show|opt-in|opt-out|export|forget`: answers to a member about their own data."""

import io
import time
from typing import Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    respond,
    update_message,
)
from bot.platform.localisation import (
    LANGUAGES,
    Language,
    activate,
    get_language,
    gettext_noop,
    interaction_language,
    override,
)
from bot.privacy.erasure_receipt import ErasureReceipt, ErasureScope
from bot.privacy.erasure_service import ErasureService
from bot.privacy.member_report import MemberReport, format_receipt
from bot.privacy.texts import translate
from bot.services import Bot
from bot.store import ConsentDecision

LANGUAGE_PATTERN = "|".join(LANGUAGES)


@app_commands.allowed_contexts(guilds=True, dms=True)
class PrivacyCog(
    commands.GroupCog,
    group_name="privacy",
    group_description=gettext_noop(
        "See what is kept about you, allow or forbid training on it, or delete it."
    ),
):
    """The commands, for everybody about themselves, and the background work of erasures."""

    def __init__(self, bot: Bot) -> None:
        super().__init__()
        self.erasures = ErasureService(bot)

    async def cog_load(self) -> None:
        self.erasures.start()

    async def cog_unload(self) -> None:
        await self.erasures.stop()

    @app_commands.command(
        description=gettext_noop("See what I keep about you, for how long, and who runs me.")
    )
    async def show(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True)
        report = _privacy_report(interaction)
        words = report.words(operator_name(interaction))
        if hosts := interaction.client.services.privacy.engine_hosts:
            words += "\n" + translate("show_engine", hosts=", ".join(hosts))
        await respond(interaction, words)

    @app_commands.command(
        name="opt-in",
        description=gettext_noop("Consent to training on what you write; I explain it first."),
    )
    async def opt_in(self, interaction: Interaction) -> None:
        services = interaction.client.services
        decision = services.store.people.decision(interaction.user.id)
        if decision and decision.opted_in:
            await respond(interaction, translate("opt_in_already"))
            return
        stated = services.privacy.permission
        key = "permission_stated" if stated else "permission_missing"
        permission = translate(key, statement=stated)
        text = translate("opt_in_ask", permission=permission)
        await respond(interaction, text, button_view(OptInButton(get_language())))

    @app_commands.command(
        name="opt-out",
        description=gettext_noop(
            "Withdraw your consent: nothing you wrote is used for training from then on."
        ),
    )
    async def opt_out(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True)
        await _store_decision(interaction, opted_in=False)
        trained = _privacy_report(interaction).trained_words()
        done = translate("opt_out_done")
        if trained:
            text = f"{done}\n{translate('opt_out_trained', what=trained)}"
            await respond(interaction, text, button_view(WithdrawButton(get_language())))
        else:
            await respond(interaction, f"{done} {translate('opt_out_nothing')}")

    @app_commands.command(description=gettext_noop("Get everything I keep about you as a file."))
    async def export(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True)
        content = _privacy_report(interaction).export()
        if len(content) > interaction.filesize_limit:
            size = len(content) / 2**20
            operator = operator_name(interaction)
            await respond(interaction, translate("export_large", megabytes=size, operator=operator))
            return
        file = discord.File(io.BytesIO(content), filename="understudy-about-me.json")
        await respond(interaction, translate("export_done"), files=[file])

    @app_commands.command(
        description=gettext_noop("Delete your messages, your votes, and what was trained on them.")
    )
    async def forget(self, interaction: Interaction) -> None:
        await respond(
            interaction, translate("forget_ask"), button_view(ForgetButton(get_language()))
        )


class _PrivacyButton(PersistentButton, template=r"never:"):
    """A button of a response that only the member sees, in the language of its custom id."""

    label_key: ClassVar[str]
    style = discord.ButtonStyle.danger
    language: Language

    def __init__(self, language: Language) -> None:
        with override(language):
            super().__init__(language, label=translate(self.label_key))

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        is_first = await super().interaction_check(interaction)
        activate(self.language)
        return is_first


class OptInButton(_PrivacyButton, template=rf"opt-in:(?P<language>{LANGUAGE_PATTERN})"):
    """Opts the member in."""

    label_key = "opt_in_button"
    style = discord.ButtonStyle.primary

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction)
        await _store_decision(interaction, opted_in=True)
        await update_message(interaction, content=translate("opt_in_done"), view=None)


class WithdrawButton(_PrivacyButton, template=rf"withdraw:(?P<language>{LANGUAGE_PATTERN})"):
    """Withdraws the versions that were trained on the member's messages."""

    label_key = "withdraw_button"

    async def pressed(self, interaction: Interaction) -> None:
        _request_deletion(interaction, "trainings")
        await update_message(interaction, content=translate("withdraw_begun"), view=None)


class ForgetButton(_PrivacyButton, template=rf"forget-me:(?P<language>{LANGUAGE_PATTERN})"):
    """Erases the member."""

    label_key = "forget_button"

    async def pressed(self, interaction: Interaction) -> None:
        key = "forget_already"
        if not _deletion_service(interaction).is_underway(interaction.user.id):
            _request_deletion(interaction, "everything")
            key = "forget_begun"
        await update_message(interaction, content=translate(key), view=None)


PRIVACY_BUTTONS = (OptInButton, WithdrawButton, ForgetButton)


def operator_name(interaction: Interaction) -> str:
    """Return the bot's operator as Discord names them."""
    application = interaction.client.application
    if interaction.client.services.privacy.in_sandbox:
        return translate("operator_sandbox")
    if application is None:
        return translate("operator_unknown")
    if application.team is None:
        return f"<@{application.owner.id}>"
    return application.team.name


def _privacy_report(interaction: Interaction) -> MemberReport:
    names = tuple(member_names(interaction.user))
    history_days = interaction.client.services.privacy.history_days
    return MemberReport(
        _deletion_service(interaction).runner, interaction.user.id, names, history_days
    )


def member_names(user: discord.abc.User) -> list[str]:
    """All names that Discord has of a member here."""
    names = [user.name, user.global_name, user.display_name, getattr(user, "nick", None)]
    return list(dict.fromkeys(name for name in names if name))


def _deletion_service(interaction: Interaction) -> ErasureService:
    cog = interaction.client.get_cog(PrivacyCog.__cog_name__)
    assert isinstance(cog, PrivacyCog)  # its own commands and buttons ask
    return cog.erasures


def _request_deletion(interaction: Interaction, scope: ErasureScope) -> None:
    """Start an erasure; the member gets the receipt at its end, if this interaction is still valid
    then.
    """
    operator = operator_name(interaction)
    language = get_language()

    async def on_end(receipt: ErasureReceipt) -> None:
        # The interaction is valid for 15 minutes: a later receipt is not sent.
        with override(language):
            await respond(interaction, format_receipt(receipt, operator))

    names = member_names(interaction.user)
    _deletion_service(interaction).ask(
        interaction.user.id, names, scope=scope, event_id=interaction.id, tell=on_end
    )


async def _store_decision(interaction: Interaction, *, opted_in: bool) -> None:
    decision = ConsentDecision(
        interaction.user.id, opted_in, time.time(), interaction_language(interaction)
    )
    await _deletion_service(interaction).runner.consents.decide(decision)
