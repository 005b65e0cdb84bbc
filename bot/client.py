"""The discord.py client: what it listens for, what it loads, and what it says when it may not do its work."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable

import discord
from discord.ext import commands

from bot import permissions
from bot.cogs.chat import Chat
from bot.cogs.choosing import PersonaMenu
from bot.cogs.compare import COMPARE_BUTTONS
from bot.cogs.duet import DuetEnd, DuetStopButton
from bot.cogs.errors import Tree
from bot.cogs.finetune import Finetune
from bot.cogs.finetune_actions import JOB_BUTTONS
from bot.cogs.persona import PersonaCommands
from bot.cogs.privacy import BUTTONS as PRIVACY_BUTTONS
from bot.cogs.privacy import Privacy
from bot.cogs.reply_buttons import BUTTONS, ReplyForms
from bot.cogs.rollout_actions import ROLLOUT_BUTTONS
from bot.cogs.teach import TEACH_BUTTONS
from bot.doctor.on_discord import channels_in_use
from bot.house import House, HouseBot
from bot.privacy.words import DESCRIPTIONS, Translator

log = logging.getLogger(__name__)


class Understudy(HouseBot):
    """The bot. Speaks slash commands, mentions and, with the message content intent, plain messages."""

    def __init__(
        self, make_house: Callable[[discord.Client], House], *, message_content: bool, guilds_settle_s: float
    ) -> None:
        """`guilds_settle_s`: how long after the latest guild to wait for another before being ready."""
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # it never speaks aloud
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=message_content)
        super().__init__(
            commands.when_mentioned,
            intents=intents,
            tree_cls=Tree,
            help_command=None,
            allowed_mentions=discord.AllowedMentions.none(),
            chunk_guilds_at_startup=False,
            guild_ready_timeout=guilds_settle_s,
        )
        self.house = make_house(self)
        self._resumed = False

    async def setup_hook(self) -> None:
        for cog in (Chat(self), ReplyForms(), PersonaCommands(self), Finetune(self), Privacy(self), DuetEnd(self)):
            await self.add_cog(cog)
        await self.tree.set_translator(Translator())
        self.add_dynamic_items(
            *BUTTONS,
            *PRIVACY_BUTTONS,
            PersonaMenu,
            *JOB_BUTTONS,
            *ROLLOUT_BUTTONS,
            *TEACH_BUTTONS,
            *COMPARE_BUTTONS,
            DuetStopButton,
        )
        await self._sync_commands()

    async def on_ready(self) -> None:
        for guild in self.guilds:
            for line in permissions.report(guild, channels_in_use(guild, self.house.store)):
                log.warning(line)
        if not self.guilds and self.application_id:
            log.warning("The bot is in no server yet. Invite it: %s", permissions.invite_url(self.application_id))
        if not self._resumed:
            self._resumed = True
            await self.house.answerer.take_up(self)

    async def on_message(self, message: discord.Message) -> None:
        """Nothing is a prefix command here; the chat cog listens by itself."""

    async def on_guild_join(self, guild: discord.Guild) -> None:
        for line in permissions.report(guild, ()):
            log.warning(line)

    async def on_error(self, event_method: str, /, *args: object, **kwargs: object) -> None:
        log.exception("the event %s failed", event_method)

    async def _sync_commands(self) -> None:
        """Register the commands when they have changed: Discord limits how often that may be done."""
        wanted = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        told = [self.application_id, wanted, DESCRIPTIONS]
        stamp = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        file = self.house.home / "commands.sha256"
        registered = {command.name for command in await self.tree.fetch_commands()}
        known = file.read_text() if file.exists() else ""
        if known != stamp or registered != {str(command["name"]) for command in wanted}:
            await self.tree.sync()
            file.write_text(stamp)
