"""Translates the descriptions of commands and options, and the names of menu commands, for Discord."""

import discord
from discord import app_commands

from bot.platform.localisation import find_translation, language_of


class CommandTranslator(app_commands.Translator):
    """Translates from the catalogues. Names of slash commands stay as the documents call them."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        """Return the translation; None where there is none, or the text is a name that stays."""
        is_name = context.location in (
            app_commands.TranslationContextLocation.command_name,
            app_commands.TranslationContextLocation.group_name,
            app_commands.TranslationContextLocation.parameter_name,
        )
        if is_name and not isinstance(context.data, app_commands.ContextMenu):
            return None
        return find_translation(string.message, language_of(locale))
