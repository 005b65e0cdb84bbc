"""Writes to the audit channel of a server what was changed, and by whom.

A line names the one who changed something, what, and where; never what somebody wrote. It is posted
beside the change and never hinders it: one that cannot be posted is left out, and whoever made the
change is told why.
"""

import asyncio
import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field

import discord

from bot.chat.delivery import DELIVERY_ERRORS
from bot.guild_settings.definitions import AUDIT_CHANNEL
from bot.platform.localisation import gettext_lazy, language_of, localise, override
from bot.platform.messages import MAX_MESSAGE_CHARS, NO_MENTIONS
from bot.platform.permissions import channel_remedy, missing_permissions, permission_title
from bot.store import Store, StoreError

log = logging.getLogger(__name__)
MAX_PENDING = 100
"""Lines of a guild that wait for Discord; further ones are left out."""
CLOSE_TIMEOUT_S = 5.0
"""How long a shutdown waits for lines that are being posted."""
CHANNEL_NEEDS = ("view_channel", "send_messages")
REMOVED_TEXT = gettext_lazy("The audit channel is gone. `/moderation audit` sets another one.")


@dataclass
class AuditTrail:
    """Posts lines in the audit channels. `client` is None for a dashboard without Discord."""

    store: Store
    client: discord.Client | None
    _pending: Counter[int] = field(default_factory=Counter)
    _turns: dict[int, asyncio.Lock] = field(default_factory=dict)
    """By guild: the lines are posted one after another, in order."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _problems: dict[tuple[int, int], str] = field(default_factory=dict)
    """By guild and member: why a change of theirs could not be posted, until they are told."""

    def record(self, guild_id: int, by: int | None, what: str) -> None:
        """Post that somebody changed something in a guild, or (0) in all guilds: `what` follows the
        name of `by`, which is a member, 0 for the operator or None for the bot (`ChangeRecord`).
        """
        try:
            guild_ids = [guild_id] if guild_id else self.store.settings.guilds([AUDIT_CHANNEL.key])
        except StoreError as error:
            log.warning("the audit channels lack a line: %s", error)
            return
        for each in guild_ids:
            problem = self.post(each, gettext_lazy("{who} {what}.", who=_name(by), what=what))
            if by and problem:
                self._problems[each, by] = problem
            elif by:
                self._problems.pop((each, by), None)

    def post(self, guild_id: int, text: str) -> str:
        """Post a line, where the guild has an audit channel. Returns, and logs, why that is not
        possible; empty where it is, or nobody has asked for it.
        """
        if problem := self._begin(guild_id, text):
            log.warning("the audit channel of the guild %d lacks a line: %s", guild_id, problem)
        return problem

    def _begin(self, guild_id: int, text: str) -> str:
        if self.client is None or not guild_id:
            return ""
        try:
            channel_id = AUDIT_CHANNEL.read(self.store, guild_id)
        except StoreError as error:
            return error.message
        guild = self.client.get_guild(guild_id)
        if channel_id is None or guild is None:
            return ""
        channel = self.client.get_channel(channel_id)
        if not isinstance(channel, discord.TextChannel):
            return REMOVED_TEXT
        if problem := missing_permission(channel):
            return problem
        if self._pending[guild_id] >= MAX_PENDING:
            return gettext_lazy("Discord takes the lines more slowly than they come.")
        self._pending[guild_id] += 1
        with override(language_of(guild.preferred_locale)):
            text = localise(text)[:MAX_MESSAGE_CHARS]
        task = asyncio.create_task(self._send(guild_id, channel, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ""

    async def _send(self, guild_id: int, channel: discord.TextChannel, text: str) -> None:
        try:
            async with self._turns.setdefault(guild_id, asyncio.Lock()):
                # discord.py repeats a request that failed; Discord ignores a repeated nonce.
                await channel.send(
                    text,
                    allowed_mentions=NO_MENTIONS,
                    suppress_embeds=True,
                    nonce=secrets.token_hex(8),
                )
        except DELIVERY_ERRORS as error:
            log.warning("the audit channel of the guild %d lacks a line: %s", guild_id, error)
        finally:
            self._pending[guild_id] -= 1

    def take_problem(self, guild_id: int, user_id: int) -> str:
        """Return why the latest change of a member could not be posted, once; else empty."""
        return self._problems.pop((guild_id, user_id), "")

    async def close(self) -> None:
        """Wait for the lines that are being posted, for a while."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()


def missing_permission(channel: discord.TextChannel) -> str:
    """Say what the bot may not do in a channel that is to be the audit channel; empty if nothing."""
    for need in missing_permissions(channel.permissions_for(channel.guild.me)):
        if need.permission in CHANNEL_NEEDS:
            return gettext_lazy(
                "I lack the permission {permission} in the audit channel. {remedy}",
                permission=permission_title(need),
                remedy=channel_remedy(channel.name, need),
            )
    return ""


def _name(by: int | None) -> str:
    if by is None:
        return gettext_lazy("The bot")
    return f"<@{by}>" if by else gettext_lazy("The operator")
