"""The discord.py client: intents, cogs, command registration, and warm-up of the channels' prompt prefixes."""

import hashlib
import json
import logging
from collections.abc import Callable

import discord
from discord.ext import commands

import bot.cogs.persona_cog  # noqa: F401  registers its commands
from bot import permissions
from bot.cogs.chat_cog import ChatCog, PersonaSelect
from bot.cogs.compare_cog import COMPARE_BUTTONS
from bot.cogs.dialogue_cog import DialogueStopButton
from bot.cogs.finetune_cog import FinetuneCog
from bot.cogs.lore_cog import LORE_FORM_PREFIX, add_lore_from_form
from bot.cogs.privacy_cog import PRIVACY_BUTTONS, PrivacyCog
from bot.cogs.progress_messages import JOB_BUTTONS
from bot.cogs.reply_buttons import ANSWER_FORM_PREFIX, REPLY_BUTTONS, answer_form
from bot.cogs.rollout_cog import ROLLOUT_BUTTONS, RolloutCog
from bot.cogs.teach_cog import TEACH_FORM_PREFIX, UnteachButton, store_lesson
from bot.cogs.transformers import FINETUNE, PERSONA
from bot.cogs.ui import BotCommandTree, FormCog
from bot.doctor.discord_checks import channels_in_use
from bot.privacy.translations import COMMAND_DESCRIPTIONS, CommandTranslator
from bot.services import Bot, Services

log = logging.getLogger(__name__)
PERSISTENT_ITEMS = (
    *REPLY_BUTTONS, *PRIVACY_BUTTONS, *JOB_BUTTONS, *ROLLOUT_BUTTONS, *COMPARE_BUTTONS, PersonaSelect, UnteachButton,
    DialogueStopButton,
)  # fmt: skip
FORM_HANDLERS = {ANSWER_FORM_PREFIX: answer_form, LORE_FORM_PREFIX: add_lore_from_form, TEACH_FORM_PREFIX: store_lesson}


class BotClient(Bot):
    """The bot. Answers slash commands, mentions and, with the message content intent, plain messages."""

    def __init__(
        self, create_services: Callable[..., Services], *, message_content: bool, guilds_settle_s: float
    ) -> None:
        """`create_services` is called with this `client`; `guilds_settle_s` is the time to wait for further guilds."""
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # it has no voice features
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=message_content)
        super().__init__(
            commands.when_mentioned,
            intents=intents,
            tree_cls=BotCommandTree,
            help_command=None,
            allowed_mentions=discord.AllowedMentions.none(),
            chunk_guilds_at_startup=False,
            guild_ready_timeout=guilds_settle_s,
        )
        self.services = create_services(client=self)
        self._resumed = False

    async def setup_hook(self) -> None:
        for cog in (ChatCog, FinetuneCog, RolloutCog, PrivacyCog):
            await self.add_cog(cog(self))
        await self.add_cog(FormCog(FORM_HANDLERS))
        for group in (FINETUNE, PERSONA):
            self.tree.add_command(group)
        await self.tree.set_translator(CommandTranslator())
        self.add_dynamic_items(*PERSISTENT_ITEMS)
        await self._sync_commands()

    async def close(self) -> None:
        await self.services.dialogue_runner.close()
        await super().close()

    async def on_ready(self) -> None:
        for guild in self.guilds:
            for line in permissions.permission_report(guild, channels_in_use(guild, self.services.store)):
                log.warning(line)
        if not self.guilds and self.application_id:
            log.warning("The bot is in no server yet. Invite it: %s", permissions.invite_url(self.application_id))
        if not self._resumed:
            self._resumed = True
            await self.services.reply_service.resume_interrupted(self)

    async def on_message(self, message: discord.Message) -> None:
        """Ignore prefix commands: there are none, and the chat cog has its own listener."""

    async def on_guild_join(self, guild: discord.Guild) -> None:
        for line in permissions.permission_report(guild, ()):
            log.warning(line)

    async def on_error(self, event_method: str, /, *args: object, **kwargs: object) -> None:
        log.exception("the event %s failed", event_method)

    async def _sync_commands(self) -> None:
        """Register the commands when they have changed: Discord limits the rate."""
        wanted = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        stamped = [self.application_id, wanted, COMMAND_DESCRIPTIONS]
        stamp = hashlib.sha256(json.dumps(stamped, sort_keys=True).encode()).hexdigest()
        file = self.services.home / "commands.sha256"
        registered = {command.name for command in await self.tree.fetch_commands()}
        earlier = file.read_text() if file.exists() else ""
        if earlier != stamp or registered != {str(command["name"]) for command in wanted}:
            await self.tree.sync()
            file.write_text(stamp)


class ChannelPrefixWarmup:
    """Has the engine compute the prompt prefixes of the personas in use while it is idle."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self, client: Bot) -> None:
        """Prepare the channels of all servers now, and each persona again when its live version changes."""
        for guild in client.guilds:
            for persona_id in dict.fromkeys(at.persona_id for at in self._services.store.channels.of_guild(guild.id)):
                self._prepare(guild.id, persona_id)
        client.add_listener(self._changed, "on_version_changed")

    async def _changed(self, guild_id: int | None, persona_id: str) -> None:
        self._prepare(guild_id or 0, persona_id)

    def _prepare(self, guild_id: int, persona_id: str) -> None:
        request_builder = self._services.request_builder
        if persona := self._services.personas.get(persona_id, guild_id):
            version = request_builder.speaking(persona_id)
            adapter = request_builder.adapter(persona_id, version) if version else None
            self._services.engine.prepare(persona, adapter)
