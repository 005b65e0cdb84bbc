"""Greetings of new members: one for all who join within a short time, by the persona of a channel.

A line that the persona writes is a reply without a message that it answers, as a line at a set time
(`bot.schedules.lines`): its row is stored first, so a kill before it is posted costs nothing. A
fixed line is posted at once. Joins are kept in memory until the greeting; who was greeted is stored,
so that nobody is greeted twice.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import discord

from bot.chat.places import ChannelRef, GuildChannel, channel_ref
from bot.chat.reply import Reply
from bot.chat.reply_service import ReplyService
from bot.chat.reply_text import discord_text, remove_links
from bot.guilds.time_zones import GuildTimeZones
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    gettext_lazy,
    join_names,
    language_of,
    localise,
    ngettext_lazy,
    override,
)
from bot.schedules.lines import ScheduledLines, line_event_id
from bot.schedules.store import MemberGreeting
from bot.store import Store
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
USER_MACRO = "{{user}}"
MAX_TEXT_CHARS = 500
MAX_MACROS = 3
"""So many lists of mentions have room in a message."""
MAX_NAMED = 5
"""New members whom one greeting names and mentions; it counts the others."""
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
FOOTER = gettext_lazy("-# a greeting that a moderator of this server has written")


@dataclass(frozen=True, kw_only=True)
class MemberGreetings:
    """Sets, removes and says greetings of new members."""

    store: Store
    reply_service: ReplyService
    time_zones: GuildTimeZones
    lines: ScheduledLines
    record_change: ChangeRecord = no_record

    def set(
        self, channel: GuildChannel, text: str, *, is_prompt: bool, user_id: int
    ) -> MemberGreeting:
        """Have new members of a guild greeted in a channel, in place of an earlier greeting: with a
        text, or as a prompt describes. Raises `RefusedError`.
        """
        said = " ".join(text.split()) if is_prompt else remove_links(text)
        if not said:
            raise RefusedError(
                gettext_lazy("The greeting is empty."),
                gettext_lazy(
                    "Give a `prompt`, such as: welcome them warmly; or a `text`, such as: Ahoy, "
                    "{mention}!",
                    mention=USER_MACRO,
                ),
            )
        if said.count(USER_MACRO) > MAX_MACROS:
            raise RefusedError(
                gettext_lazy(
                    "{mention} stands {count} times in the greeting.",
                    mention=USER_MACRO,
                    count=said.count(USER_MACRO),
                ),
                gettext_lazy("Write it at most {count} times.", count=MAX_MACROS),
            )
        place = channel_ref(channel)
        if self.lines.speaker(place) is None:
            raise RefusedError(
                gettext_lazy("No persona lives here that could greet."),
                gettext_lazy("`/persona set` gives the channel one."),
            )
        greeting = MemberGreeting(
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            is_prompt=is_prompt,
            text=said,
            set_by=user_id,
            set_at=self.time_zones.clock.now(),
        )
        self.store.member_greetings.set(greeting)
        channel_link = f"<#{place.channel_id}>"
        what = gettext_lazy("had new members greeted in {channel}", channel=channel_link)
        self.record_change(place.guild_id, user_id, what)
        return greeting

    def remove(self, guild_id: int, *, by: int = 0) -> None:
        """Let new members of a guild be greeted no more, as a member or (0) the operator decided.
        Raises `RefusedError` where none are.
        """
        if not self.store.member_greetings.remove(guild_id):
            raise RefusedError(
                gettext_lazy("New members are not greeted here."),
                gettext_lazy("`/persona line greeting` sets a greeting."),
            )
        self.record_change(guild_id, by, gettext_lazy("ended the greeting of new members"))

    async def greet(
        self, greeting: MemberGreeting, channel: GuildChannel, members: Sequence[discord.Member]
    ) -> None:
        """Greet new members, except those whom the persona does not answer or has greeted before,
        where it may speak by itself now.
        """
        place = channel_ref(channel)
        persona = self.lines.speaker(place)
        hindrance = self.lines.hindrance(channel)
        if persona is None or hindrance:
            log.info("new members are not greeted in #%s: %s", channel, hindrance)
            return
        rules = self.reply_service.rules
        greeted = self.store.greeted_members.among(place.guild_id, _ids(members))
        welcome = []
        for member in members:
            if member.id not in greeted and not rules.blocked(persona, place, member.id):
                welcome.append(member)
        if not welcome:
            return
        if greeting.is_prompt:
            await self._line(greeting, channel, persona, welcome).answer()
        else:
            await self._post(greeting, channel, persona, welcome)

    def _line(
        self,
        greeting: MemberGreeting,
        channel: GuildChannel,
        persona: Persona,
        members: Sequence[discord.Member],
    ) -> Reply:
        """Store the row of a greeting that the persona writes, and return it, to be made."""
        place = channel_ref(channel)
        event_id = line_event_id(self.time_zones.clock.now(), members[0].id)
        with self.store.atomic():
            self.store.replies.begin_line(
                event_id,
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                at=time.time(),
                prompt=prompt_text(greeting.text, members),
            )
            self._record(event_id, place, members)
        mentioned = _ids(members[:MAX_NAMED])
        return Reply(self.reply_service, persona, channel, event_id=event_id, mentioned=mentioned)

    async def _post(
        self,
        greeting: MemberGreeting,
        channel: GuildChannel,
        persona: Persona,
        members: Sequence[discord.Member],
    ) -> None:
        """Post a fixed line, which mentions the new members and nobody else."""
        place = channel_ref(channel)
        mentioned = _ids(members[:MAX_NAMED])
        text = discord_text(greeting.text)
        if USER_MACRO not in text:
            text = f"{USER_MACRO} {text}"
        mentions = [f"<@{user_id}>" for user_id in mentioned]
        with override(language_of(channel.guild.preferred_locale)):
            text = text.replace(USER_MACRO, localise(_joined(mentions, len(members))))
            footer = localise(FOOTER)
        (message_id,) = await self.reply_service.senders.post(
            persona, channel, [f"{text}\n{footer}"], mentioned=mentioned
        )
        replies = self.store.replies
        with self.store.atomic():  # a reply to the greeting is one to the persona
            replies.begin(
                message_id,
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                at=time.time(),
            )
            replies.record_parts(message_id, [message_id])
            replies.finish(message_id, "done")
            self._record(message_id, place, members)

    def _record(self, event_id: int, place: ChannelRef, members: Sequence[discord.Member]) -> None:
        """Store who is greeted by the reply to an event."""
        self.store.greeted_members.add(
            place.guild_id,
            _ids(members),
            event_id=event_id,
            at=time.time(),
            mentioned=MAX_NAMED,
        )


def prompt_text(prompt: str, members: Sequence[discord.Member]) -> str:
    """Return what a persona is to say to new members, who are named: in English, as a prompt is."""
    names = [" ".join(member.display_name.split()) for member in members[:MAX_NAMED]]
    named = _joined(names, len(members))
    what = prompt.replace(USER_MACRO, named).rstrip()
    if not what.endswith(SENTENCE_ENDS):
        what += "."
    return f"{what} {named} {'has' if len(members) == 1 else 'have'} just joined the server."


def _joined(names: Sequence[str], count: int) -> str:
    """Return names as "A", "A and B", or "A, B and 3 others"."""
    if others := count - len(names):
        return ngettext_lazy(
            "{names} and {count} other",
            "{names} and {count} others",
            others,
            names=join_names(names),
        )
    if len(names) == 1:
        return names[0]
    return gettext_lazy("{names} and {name}", names=join_names(names[:-1]), name=names[-1])


def _ids(members: Sequence[discord.Member]) -> list[int]:
    return [member.id for member in members]
