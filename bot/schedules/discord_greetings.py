"""`/persona line greeting`, and the listener that has new members greeted."""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from contextlib import suppress

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.places import GuildChannel, fetch_channel
from bot.platform.discord_kit.transformers import (
    Interaction,
    guild_moderators_only,
    require_guild_channel,
)
from bot.platform.discord_kit.ui import defer, respond
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.schedules.discord_lines import DM_TEXT, LINE
from bot.schedules.greetings import MAX_TEXT_CHARS, USER_MACRO
from bot.schedules.lines import MAX_PROMPT_CHARS
from bot.schedules.store import MemberGreeting
from bot.services import Bot
from bot.store import StoreError

log = logging.getLogger(__name__)
BURST_WAIT_S = 15.0
"""Time for which a greeting waits for further new members."""
MIN_INTERVAL_S = 60.0
"""Time between two greetings of a server: a crowd gets few."""
MAX_JOINED = 500
"""New members of a server who wait for one greeting; in a raid, further ones are left out."""
MAX_SCREENED = 1000
"""New members whose acceptance of their server's rules is waited for; earlier ones are left out."""
MAX_QUERIED = 100
"""Members that Discord is asked for at once."""
NO_INTENT_TEXT = gettext_lazy("Discord does not tell this bot who joins.")
INTENT_ADVICE = gettext_lazy(
    "The operator switches *Server Members Intent* on in the Developer Portal → Bot → Privileged "
    "Gateway Intents, sets `MEMBERS_INTENT=true`, and starts the bot again."
)


@guild_moderators_only(DM_TEXT)
@LINE.command(
    name="greeting",
    description=gettext_noop("Have the persona here greet new members (moderators)."),
)
@app_commands.describe(
    prompt=gettext_noop("What it is to say, such as: welcome them and ask what brings them here"),
    text=gettext_noop("Or a fixed text, such as: Ahoy, {{user}}! ({{user}} mentions them)"),
    remove=gettext_noop("Greet nobody any more"),
)
async def line_greeting(
    interaction: Interaction,
    prompt: app_commands.Range[str, 1, MAX_PROMPT_CHARS] | None = None,
    text: app_commands.Range[str, 1, MAX_TEXT_CHARS] | None = None,
    remove: bool = False,
) -> None:
    services = interaction.client.services
    greetings = services.member_greetings
    channel = require_guild_channel(interaction)
    if sum(bool(given) for given in (prompt, text, remove)) > 1:
        raise RefusedError(
            gettext_lazy("These exclude each other."),
            gettext_lazy("Give `prompt`, `text` or `remove`."),
        )
    if remove:
        greetings.remove(channel.guild.id, by=interaction.user.id)
        await respond(interaction, gettext_lazy("New members are no longer greeted."))
        return
    has_intent = interaction.client.intents.members
    said = prompt or text
    if said:
        if not has_intent:
            raise RefusedError(NO_INTENT_TEXT, INTENT_ADVICE)
        if prompt:  # a model reads names in place of ids
            await defer(interaction, ephemeral=True)
            said = (await services.message_reader.read_interaction(interaction, prompt)).text
        greeting: MemberGreeting | None = greetings.set(
            channel, said, is_prompt=bool(prompt), user_id=interaction.user.id
        )
    else:
        greeting = services.store.member_greetings.get(channel.guild.id)
    if greeting is None:
        raise RefusedError(
            gettext_lazy("New members are not greeted here."),
            gettext_lazy(
                "Give a `prompt`, or a `text` in which {mention} mentions them.",
                mention=USER_MACRO,
            ),
        )
    answer = [
        greeting_text(greeting),
        gettext_lazy(
            "-# One greeting for all who join within a short time, but none in quiet hours."
        ),
    ]
    if not has_intent:
        answer.append(join_texts(NO_INTENT_TEXT, INTENT_ADVICE))
    await respond(interaction, join_texts(*answer, separator="\n"))


def greeting_text(greeting: MemberGreeting) -> str:
    """Say where and how new members are greeted."""
    channel = f"<#{greeting.channel_id}>"
    if greeting.is_prompt:
        return gettext_lazy(
            "New members are greeted in {channel}, the persona there is told to: {prompt}",
            channel=channel,
            prompt=greeting.text,
        )
    return gettext_lazy(
        "New members are greeted in {channel}, with the words: {text}",
        channel=channel,
        text=greeting.text,
    )


class GreetingCog(commands.Cog):
    """Has new members greeted, those of a short time together, once they may speak."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._screened: OrderedDict[tuple[int, int], discord.Member] = OrderedDict()
        """New members who have yet to accept the rules of their server, by it and their id."""
        self._joined: dict[int, dict[int, discord.Member]] = {}
        """New members who wait for their greeting, by server; a task ends the wait of each."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeted_at: dict[int, float] = {}
        """Time of a server's latest greeting, by the event loop's clock."""

    async def cog_unload(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Look for those who had yet to accept the rules when the bot stopped or lost its connection,
        with which Discord's library forgets them.
        """
        if not self.bot.intents.members:
            return
        for guild in self.bot.guilds:
            try:
                await self._look_for_awaited(guild)
            except Exception as error:  # the others are greeted all the same
                log.warning(
                    "who accepts the rules of the server %d is not greeted: %s",
                    guild.id,
                    error_text(error),
                )

    async def _look_for_awaited(self, guild: discord.Guild) -> None:
        store = self.bot.services.store
        awaited = store.greeted_members.awaited(guild.id, MAX_SCREENED)
        if not awaited or store.member_greetings.get(guild.id) is None:
            return
        for start in range(0, len(awaited), MAX_QUERIED):
            asked = awaited[start : start + MAX_QUERIED]
            members = await guild.query_members(user_ids=asked, limit=MAX_QUERIED, cache=False)
            found = {member.id: member for member in members}
            for user_id in asked:
                member = found.get(user_id)
                if member and member.pending:
                    self._await_acceptance(member)
                    continue
                store.greeted_members.forget_awaited(guild.id, user_id)
                self._screened.pop((guild.id, user_id), None)  # of before a lost connection
                if member:
                    self._note(member)

    @commands.Cog.listener()
    async def on_member_join(self, member: discord.Member) -> None:
        """Note a new member, who is greeted a little later."""
        if member.bot:
            return
        with suppress(StoreError):  # nobody is greeted while the database is away
            if self.bot.services.store.member_greetings.get(member.guild.id) is None:
                return
            if member.pending:
                greeted = self.bot.services.store.greeted_members
                greeted.await_acceptance(member.guild.id, member.id, time.time())
                self._await_acceptance(member)
            else:
                self._note(member)

    @commands.Cog.listener()
    async def on_member_update(self, before: discord.Member, after: discord.Member) -> None:
        """Note a new member who has accepted the rules of their server, and may speak now."""
        key = (after.guild.id, after.id)
        if before.pending and not after.pending and key in self._screened:
            del self._screened[key]
            after.guild._remove_member(after)
            self._note(after)
            with suppress(StoreError):  # looked at again after the next start
                self.bot.services.store.greeted_members.forget_awaited(*key)

    @commands.Cog.listener()
    async def on_raw_member_remove(self, payload: discord.RawMemberRemoveEvent) -> None:
        """Forget a new member who has left before the greeting."""
        self._screened.pop((payload.guild_id, payload.user.id), None)
        self._joined.get(payload.guild_id, {}).pop(payload.user.id, None)
        with suppress(StoreError):
            self.bot.services.store.greeted_members.forget_awaited(
                payload.guild_id, payload.user.id
            )

    def _await_acceptance(self, member: discord.Member) -> None:
        # discord.py tells changes of cached members alone; this client caches no others.
        member.guild._add_member(member)
        self._screened[member.guild.id, member.id] = member
        if len(self._screened) > MAX_SCREENED:
            _, oldest = self._screened.popitem(last=False)
            oldest.guild._remove_member(oldest)

    def _note(self, member: discord.Member) -> None:
        guild_id = member.guild.id
        if guild_id not in self._joined:
            self._joined[guild_id] = {}
            task = asyncio.create_task(self._greet_soon(guild_id), name=f"greeting {guild_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(self._joined[guild_id]) < MAX_JOINED:
            self._joined[guild_id][member.id] = member

    async def _greet_soon(self, guild_id: int) -> None:
        now = asyncio.get_running_loop().time
        try:
            earliest = self._greeted_at.get(guild_id, -math.inf) + MIN_INTERVAL_S
            await asyncio.sleep(max(BURST_WAIT_S, earliest - now()))
            # Who joins from now on gets the next greeting.
            members = list(self._joined.pop(guild_id).values())
            if members:
                self._greeted_at[guild_id] = now()
                await self._greet(guild_id, members)
        except Exception as error:  # nobody has asked, so it is logged alone
            log.warning(
                "new members of the server %d are not greeted: %s", guild_id, error_text(error)
            )

    async def _greet(self, guild_id: int, members: list[discord.Member]) -> None:
        services = self.bot.services
        greeting = services.store.member_greetings.get(guild_id)
        if greeting is None:  # removed since they joined
            return
        # A thread may be archived, which discord.py forgets; the greeting opens it again.
        channel = await fetch_channel(self.bot, greeting.channel_id)
        if not isinstance(channel, GuildChannel):
            log.warning(
                "new members of the server %d are not greeted: the channel %d is out of reach",
                guild_id,
                greeting.channel_id,
            )
            return
        await services.member_greetings.greet(greeting, channel, members)
