"""The discord.py client: intents, cogs, buttons and forms, and the events of its connection."""

import asyncio
import logging
from typing import Literal

import aiohttp
import discord
from discord.backoff import ExponentialBackoff
from discord.ext import commands

import bot.chat.discord_why
import bot.guild_settings.discord
import bot.guilds.discord
import bot.moderation.discord
import bot.personas.discord
import bot.personas.discord_show
import bot.safety.discord
import bot.schedules.discord_lines  # noqa: F401  registers its commands
from bot.audit.discord import AuditCog
from bot.chat.discord import ChatCog
from bot.chat.discord_answers import PersonaSelect
from bot.chat.discord_buttons import ANSWER_FORM_PREFIX, REPLY_BUTTONS, answer_form
from bot.dialogue.discord import DialogueStopButton
from bot.faces.discord import FaceCog
from bot.lessons.discord import TEACH_FORM_PREFIX, UnteachButton, store_lesson
from bot.memory.discord import MEMORY_BUTTONS, MEMORY_FORM_PREFIX, MemoryCog, edit_memory
from bot.operations.doctor.connection_checks import missing_permissions
from bot.personas.discord_cards import CARD_BUTTONS, IMPORT_FORM_PREFIX, import_from_form
from bot.personas.discord_create import (
    CREATE_FORM_PREFIX,
    CREATION_BUTTONS,
    EDIT_FORM_PREFIX,
    TALK_FORM_PREFIX,
    create_from_form,
    edit_from_form,
    talk_from_form,
)
from bot.personas.discord_lore import LORE_FORM_PREFIX, add_lore_from_form
from bot.personas.discord_picture import PICTURE_FORM_PREFIX, picture_from_form
from bot.personas.discord_removal import REMOVAL_BUTTONS
from bot.platform import permissions
from bot.platform.discord_kit.command_installs import offer_commands
from bot.platform.discord_kit.command_order import (
    FINETUNE_ORDER,
    PERSONA_ORDER,
    order_subcommands,
)
from bot.platform.discord_kit.command_sync import sync_commands
from bot.platform.discord_kit.command_translator import CommandTranslator
from bot.platform.discord_kit.request_locks import release_locks
from bot.platform.discord_kit.transformers import FINETUNE, MODERATION, PERSONA
from bot.platform.discord_kit.ui import BotCommandTree, FormCog
from bot.platform.errors import connection_error
from bot.privacy.discord import PRIVACY_BUTTONS, PrivacyCog
from bot.reports.discord import (
    REPORT_FORM_PREFIX,
    ReasonSelect,
    ReportAgainButton,
    ReportCog,
    report_from_form,
)
from bot.schedules.discord import ScheduleCog
from bot.schedules.discord_greetings import GreetingCog
from bot.services import Bot
from bot.training.discord import FinetuneCog
from bot.training.discord_progress import JOB_BUTTONS
from bot.training.discord_repeat import REPEAT_FORM_PREFIX, repeat_from_form
from bot.versions.blind_test.discord import COMPARE_BUTTONS
from bot.versions.discord import VERSION_BUTTONS
from bot.versions.discord_feedback import MemberFeedbackCog
from bot.versions.discord_history import HistoryPageButton

log = logging.getLogger(__name__)
RESPONSE_TIMEOUT_S = 10.0
"""Timeout for Discord's response to a request that was sent."""
PERSISTENT_ITEMS = (
    *REPLY_BUTTONS, *PRIVACY_BUTTONS, *JOB_BUTTONS, *VERSION_BUTTONS, HistoryPageButton,
    *COMPARE_BUTTONS, *MEMORY_BUTTONS, *CREATION_BUTTONS, PersonaSelect, UnteachButton, DialogueStopButton,
    ReasonSelect, ReportAgainButton, *CARD_BUTTONS, *REMOVAL_BUTTONS,
)  # fmt: skip
FORM_HANDLERS = {
    ANSWER_FORM_PREFIX: answer_form,
    CREATE_FORM_PREFIX: create_from_form,
    EDIT_FORM_PREFIX: edit_from_form,
    TALK_FORM_PREFIX: talk_from_form,
    PICTURE_FORM_PREFIX: picture_from_form,
    IMPORT_FORM_PREFIX: import_from_form,
    LORE_FORM_PREFIX: add_lore_from_form,
    MEMORY_FORM_PREFIX: edit_memory,
    TEACH_FORM_PREFIX: store_lesson,
    REPORT_FORM_PREFIX: report_from_form,
    REPEAT_FORM_PREFIX: repeat_from_form,
}


class BotClient(Bot):
    """The bot. Answers slash commands, mentions and, with the message content intent, plain
    messages.
    """

    def __init__(
        self,
        *,
        message_content: bool,
        guilds_settle_s: float,
        members: bool = False,
    ) -> None:
        """`message_content` and `members` ask for these privileged intents. `guilds_settle_s` is the
        time to wait for further guilds before the client is ready.
        """
        # discord.py warns that libraries for voice are missing; there are no voice features here.
        discord.VoiceClient.warn_nacl = False
        discord.VoiceClient.warn_dave = False
        super().__init__(
            commands.when_mentioned,
            intents=discord.Intents(
                guilds=True,
                guild_messages=True,
                dm_messages=True,
                message_content=message_content,
                members=members,
            ),
            # With the members intent, discord.py would keep all members that it hears of.
            member_cache_flags=discord.MemberCacheFlags.none(),
            tree_cls=BotCommandTree,
            help_command=None,
            allowed_mentions=discord.AllowedMentions.none(),
            chunk_guilds_at_startup=False,
            guild_ready_timeout=guilds_settle_s,
        )

    async def connect(self, *, reconnect: bool = True) -> None:
        """Connect, and stay connected until closed. A first connection that fails is tried again
        like any later one.
        """
        backoff: ExponentialBackoff[Literal[False]] = ExponentialBackoff()
        while True:
            try:
                return await super().connect(reconnect=reconnect)
            except AttributeError as error:
                # discord.py resumes a session that it never had: `None.sequence`.
                if error.name != "sequence" or error.obj is not None or self.is_closed():
                    raise
                why = str(error)
                if error.__context__:
                    why = connection_error(error.__context__).message
                delay_s = backoff.delay()
                log.warning(
                    "The first connection failed, the next attempt is in %.2f s: %s", delay_s, why
                )
                await asyncio.sleep(delay_s)

    def _limit_waits(self) -> None:
        """Give up requests that Discord does not answer: others of the same channel wait for them.

        discord.py has no setting for that, and waits five minutes. Pauses for rate limits do not
        count.
        """
        session: aiohttp.ClientSession = vars(self.http)["_HTTPClient__session"]
        session._timeout = aiohttp.ClientTimeout(
            session.timeout.total, sock_connect=RESPONSE_TIMEOUT_S, sock_read=RESPONSE_TIMEOUT_S
        )

    async def setup_hook(self) -> None:
        self._limit_waits()
        release_locks(self.http)
        for cog in (
            ChatCog, FinetuneCog, MemberFeedbackCog, PrivacyCog, MemoryCog, ScheduleCog, GreetingCog,
            AuditCog, ReportCog, FaceCog,
        ):  # fmt: skip
            await self.add_cog(cog(self))
        await self.add_cog(FormCog(FORM_HANDLERS))
        for group, order in ((FINETUNE, FINETUNE_ORDER), (PERSONA, PERSONA_ORDER)):
            order_subcommands(group, order)
            self.tree.add_command(group)
        self.tree.add_command(MODERATION)
        offer_commands(self.tree, user_install=self.services.allows_user_install)
        await self.tree.set_translator(CommandTranslator())
        self.add_dynamic_items(*PERSISTENT_ITEMS)
        await sync_commands(self.tree, self.services.home)

    async def close(self) -> None:
        await self.services.dialogue_runner.close()
        await self.services.audit.close()
        await super().close()

    async def on_ready(self) -> None:
        await self.services.reply_service.recovery.resume_interrupted(self)
        for lack in await missing_permissions(self, self.services.store):
            log.warning("%s", lack.description)
        if not self.guilds and self.application_id:
            log.warning(
                "The bot is in no server yet. Invite it: %s",
                permissions.invite_url(self.application_id),
            )

    async def on_connect(self) -> None:
        self.connection_restored()

    async def on_disconnect(self) -> None:
        self.connection_lost()

    async def on_resumed(self) -> None:
        self.connection_restored()
        await self.services.reply_service.recovery.resume_interrupted(self)

    async def on_message(self, message: discord.Message) -> None:
        """Ignore prefix commands: there are none, and the chat cog has its own listener."""

    async def on_guild_join(self, guild: discord.Guild) -> None:
        for line in permissions.permission_report(guild, ()):
            log.warning(line)

    async def on_error(self, event_method: str, /, *args: object, **kwargs: object) -> None:
        log.exception("the event %s failed", event_method)


class ShardedBotClient(BotClient, commands.AutoShardedBot):
    """The bot with several connections, as many as Discord recommends, each for a part of its
    guilds. A single one is better off without: discord.py resumes its session after more faults.
    """

    async def on_connect(self) -> None:
        """Do nothing: other shards may be without a connection."""

    async def on_disconnect(self) -> None:
        """Do nothing, likewise."""

    async def on_shard_connect(self, shard_id: int) -> None:
        self.connection_restored(shard_id)

    async def on_shard_resumed(self, shard_id: int) -> None:
        self.connection_restored(shard_id)

    async def on_shard_disconnect(self, shard_id: int) -> None:
        self.connection_lost(shard_id)

    async def on_shard_ready(self, shard_id: int) -> None:
        """Let a shard's new session be followed as that of a bot without shards: discord.py calls
        only the first ones of all shards `ready`.
        """
        if self.is_ready():
            self.dispatch("ready")
