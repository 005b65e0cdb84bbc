"""Rules: the members who may ask, stop and delete replies, the places of muted personas, blocked
members and limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import discord

from bot.answering.actions import AnsweringActions
from bot.chat.places import ChannelRef, ReplyChannel, channel_ref, is_outside
from bot.guild_settings.actions import SettingsActions
from bot.guilds.time_zones import GuildTimeZones
from bot.moderation.age import AgeRestriction
from bot.moderation.limits import Allowance, LimitCheck, LimitReachedError
from bot.moderation.roles import RolePermissions
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.permissions import is_moderator
from bot.store import Store, StoredReply
from personas.schemas.chat import Persona


@dataclass(frozen=True)
class ReplyPolicy:
    """The rules, checked at each action; default permissions and hidden buttons alone would not
    enforce them.
    """

    store: Store
    time_zones: GuildTimeZones

    @property
    def age(self) -> AgeRestriction:
        """Where age-restricted personas may speak."""
        return AgeRestriction(self.store)

    @property
    def roles(self) -> RolePermissions:
        """What members may do by their roles."""
        return RolePermissions(self.store)

    def require_owner(self, author_id: int, user: discord.abc.User, refusal: str) -> None:
        """Refuse all but the author and moderators, with this text."""
        if user.id != author_id and not is_moderator(user):
            raise RefusedError(refusal)

    def require_can_ask(
        self, interaction: discord.Interaction[Any], persona: Persona, at: ChannelRef
    ) -> None:
        """Refuse members who may not write in the channel, who are blocked, or have to wait, muted
        personas, and age-restricted ones in other channels.
        """
        if not is_outside(interaction):  # there, who may not write is answered in private
            self.require_can_write(interaction)
        self.require_unmuted(persona, at)
        self.age.require(persona, None if is_outside(interaction) else interaction.channel)
        self.require_answered(persona, at, interaction.user)

    def who_can_be_asked(
        self, interaction: discord.Interaction[Any], personas: Sequence[Persona], at: ChannelRef
    ) -> list[Persona]:
        """Return the personas that a member may ask, of whom the limit of replies may leave out some
        (`within_limits`). Raises the first one's refusal where there are none.
        """
        able = []
        refusals = []
        for persona in personas:
            try:
                self.require_can_ask(interaction, persona, at)
            except RefusedError as refusal:
                refusals.append(refusal)
            else:
                able.append(persona)
        if not able:
            raise refusals[0]
        return able

    def require_can_write(self, interaction: discord.Interaction[Any]) -> None:
        """Refuse members who may not write here: the text of a form or a command is posted in the
        channel, too.
        """
        allowed = interaction.permissions
        in_thread = isinstance(interaction.channel, discord.Thread)
        can_write = allowed.send_messages_in_threads if in_thread else allowed.send_messages
        if interaction.guild_id and not can_write:
            raise RefusedError(
                gettext_lazy("You may not send messages in this channel."),
                gettext_lazy("A moderator can change that."),
            )

    def require_reply(self, reply: StoredReply | None) -> StoredReply:
        """Refuse an unknown reply."""
        if reply is None:
            raise RefusedError(
                gettext_lazy("This is no reply of a persona, or it is no longer kept."),
                gettext_lazy("Choose another message."),
            )
        return reply

    def require_unmuted(self, persona: Persona, at: ChannelRef) -> None:
        """Refuse a muted persona."""
        if self.muted(persona, at):
            raise RefusedError(
                gettext_lazy(
                    "A moderator has silenced {persona} here.", persona=markdown_name(persona)
                ),
                gettext_lazy("`/persona unmute` lifts that."),
            )

    def require_answered(self, persona: Persona, at: ChannelRef, user: discord.abc.User) -> None:
        """Refuse blocked members, those without a role that may talk, and (`LimitReachedError`) those
        who have to wait.
        """
        self.require_may_talk([persona], at, user)
        self.require_within_limits(at, user)

    def require_may_talk(
        self, personas: Iterable[Persona], at: ChannelRef, user: discord.abc.User
    ) -> None:
        """Refuse members whom one of some personas does not answer, and those without a role that
        may talk.
        """
        for persona in personas:
            self.require_unblocked(persona, at, user)
        self.roles.require(user, at.guild_id, "talk")

    def require_unblocked(self, persona: Persona, at: ChannelRef, user: discord.abc.User) -> None:
        """Refuse members whom a persona does not answer."""
        if self.blocked(persona, at, user.id):
            raise _blocked_error(persona, at)

    def require_within_limits(self, at: ChannelRef, user: discord.abc.User) -> None:
        """Raise `LimitReachedError` for a member who has to wait."""
        self._allowance(at, user)

    def within_limits(
        self, personas: Sequence[Persona], at: ChannelRef, user: discord.abc.User
    ) -> tuple[list[Persona], LimitReachedError | None]:
        """Return the first personas, as many as may answer the member today, and the notice that the
        others do not (None where all may). Raises `LimitReachedError` where none may.
        """
        allowance = self._allowance(at, user)
        left_out = [markdown_name(persona) for persona in personas[allowance.replies :]]
        notice = allowance.left_out(left_out) if left_out else None
        return list(personas[: allowance.replies]), notice

    def _allowance(self, at: ChannelRef, user: discord.abc.User) -> Allowance:
        check = LimitCheck(self.store, self.time_zones)
        return check.require(at.guild_id, user.id, is_moderator=is_moderator(user))

    def blocked(self, persona: Persona, at: ChannelRef, user_id: int) -> bool:
        """Report whether a moderator, or in guild 0 the operator, has decided that a persona does not
        answer a member.
        """
        return self.store.blocks.applies(at.guild_id, user_id, persona.id)

    def silence_reason(self, persona: Persona, at: ChannelRef, user_id: int) -> str:
        """Say why a persona does not answer a member, as a moderator has decided; empty if it may."""
        name = markdown_name(persona)
        if self.muted(persona, at):
            return gettext_lazy("a moderator has silenced {persona} here", persona=name)
        if self.blocked(persona, at, user_id):
            return gettext_lazy("a moderator has blocked the member for {persona}", persona=name)
        return ""

    def speech_refusal(self, persona: Persona, channel: ReplyChannel, user_id: int) -> str:
        """Say why a persona does not answer a member, or may not speak in a channel; empty if it
        may.
        """
        reason = self.silence_reason(persona, channel_ref(channel), user_id)
        if not reason and self.age.refuses(persona, channel):
            reason = gettext_lazy(
                "{persona} is age-restricted, and this channel is not",
                persona=markdown_name(persona),
            )
        return reason

    def has_left(self, reply: StoredReply, at: ChannelRef) -> bool:
        """Report whether the persona of a reply to a member no longer answers in a place: in a
        server's channel, it does not live there, nor has it said unasked what the reply answers.
        """
        if not at.guild_id or not reply.asked_by:
            return False
        setting = self.store.channels.get(*astuple(at))
        if setting:
            living = self.store.channels.personas(setting.guild_id, setting.channel_id)
            if reply.persona_id in living:
                return False
        return not self.store.replies.answers_unasked(reply.event_id)

    def is_quiet(self, at: ChannelRef) -> bool:
        """Report whether the quiet hours of a channel hold now."""
        answering = AnsweringActions(SettingsActions(store=self.store), self.time_zones)
        return answering.is_quiet(*astuple(at), at=self.time_zones.clock.now())

    def muted(self, persona: Persona, at: ChannelRef) -> bool:
        """Report whether a moderator has muted the persona in this channel."""
        mute = self.store.mutes.find_applying(at.guild_id, at.channel_id, at.parent_id, persona.id)
        return mute is not None


def _blocked_error(persona: Persona, at: ChannelRef) -> RefusedError:
    """Return the refusal of a persona that does not answer a member in a place."""
    name = markdown_name(persona)
    if at.guild_id:
        return RefusedError(
            gettext_lazy(
                "A moderator has decided that {persona} does not answer you here.", persona=name
            ),
            gettext_lazy("Ask one if that is a mistake."),
        )
    return RefusedError(
        gettext_lazy(
            "The operator has decided that {persona} does not answer you in direct messages, nor "
            "wherever I am no member.",
            persona=name,
        ),
        gettext_lazy("Ask them if that is a mistake."),
    )
