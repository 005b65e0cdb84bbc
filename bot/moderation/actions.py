"""Blocks members, mutes personas, and sets limits of replies, age restrictions and roles, for commands
and pages alike.
"""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import discord

from bot.moderation.age import AgeRestriction
from bot.moderation.roles import Action, RolePermissions
from bot.moderation.store import Block
from bot.moderation.texts import block_text, mute_text, persona_text
from bot.personas.registry import PersonaRegistry
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.messages import markdown_name, member_mention
from bot.store import ALL_PERSONAS, Mute, Store
from personas.schemas.chat import Persona


@dataclass(frozen=True)
class ModerationActions:
    """Decides for a guild whom personas do not answer, how often they answer others, where they are
    silent, and what roles may do. For guild 0, direct messages and places where the bot is not, the
    operator decides the first two.

    `stop_replies` stops the running replies of a guild to a member who is blocked,
    `stop_guild_replies` those of personas that may no longer speak.
    """

    store: Store
    personas: PersonaRegistry
    stop_replies: Callable[[int, int], object]
    stop_guild_replies: Callable[[int], object]
    record_change: ChangeRecord = no_record

    def block(
        self, guild_id: int, member: discord.abc.User, persona: Persona | None, *, by: int
    ) -> Block:
        """Let a persona, or (None) all of a guild, no longer answer a member, as a moderator or (0)
        the operator decided. Raises `RefusedError`.
        """
        if member.bot:
            raise RefusedError(
                gettext_lazy("Personas answer no bots anyway."),
                gettext_lazy("Name a member."),
                field="member",
            )
        if member.id == by:
            raise RefusedError(
                gettext_lazy("You cannot block yourself."),
                gettext_lazy("Name another member."),
                field="member",
            )
        new = Block(
            guild_id=guild_id,
            user_id=member.id,
            persona_id=persona.id if persona else ALL_PERSONAS,
            blocked_by=by,
            at=time.time(),
        )
        self.store.blocks.add(new)
        self.stop_replies(guild_id, member.id)
        blocked = gettext_lazy("blocked {block}", block=block_text(self.personas, new))
        self._record(guild_id, by, blocked)
        return new

    def unblock(
        self, guild_id: int, user_id: int, persona_id: str | None, *, by: int, name: str = ""
    ) -> None:
        """Lift exactly this block of a member, whose id may be keyed, or (None) all of theirs. Raises
        `RefusedError` where there is none, which calls the member by `name`, or mentions them.
        """
        called = name or member_mention(user_id)
        if not self.store.blocks.remove(guild_id, user_id, persona_id):
            entries = self.store.blocks.of_member(guild_id, user_id)
            held = [block_text(self.personas, entry, called) for entry in entries]
            if not held:
                advice = gettext_lazy("`/moderation blocks` lists who is.") if guild_id else ""
                raise RefusedError(gettext_lazy("{member} is not blocked.", member=called), advice)
            raise RefusedError(
                gettext_lazy("There is no such block of {member}.", member=called),
                gettext_lazy("Blocked: {names}.", names=join_texts(*held, separator="; ")),
            )
        lifted = gettext_lazy(
            "lifted the block of {member} for {persona}",
            member=member_mention(user_id),
            persona=persona_text(
                self.personas, persona_id or ALL_PERSONAS, guild_id, is_markdown=True
            ),
        )
        self._record(guild_id, by, lifted)

    def _record(self, guild_id: int, by: int, what: str) -> None:
        # For a change record, 0 is all guilds, whose moderators direct messages do not concern.
        if guild_id:
            self.record_change(guild_id, by, what)

    def mute(self, guild_id: int, channel_id: int, persona_id: str, *, by: int) -> Mute:
        """Silence a persona or all (`ALL_PERSONAS`) in a channel and its threads or in all
        (`ALL_CHANNELS`) of a guild, at once.
        """
        new = Mute(
            guild_id=guild_id,
            channel_id=channel_id,
            persona_id=persona_id,
            muted_by=by,
            at=time.time(),
        )
        self.store.mutes.add(new)
        self.stop_guild_replies(guild_id)
        muted = gettext_lazy("muted {mute}", mute=mute_text(self.personas, new))
        self.record_change(guild_id, by, muted)
        return new

    def unmute(
        self,
        guild_id: int,
        channel_id: int,
        persona_id: str,
        *,
        by: int,
        channel_name: Callable[[int], str] | None = None,
    ) -> Mute:
        """Lift exactly this mute, and return it. Raises `RefusedError` where there is none, which
        calls channels by their names, or mentions them.
        """
        old = Mute(
            guild_id=guild_id, channel_id=channel_id, persona_id=persona_id, muted_by=by, at=0.0
        )
        if not self.store.mutes.remove(guild_id, channel_id, persona_id):
            texts = [
                mute_text(self.personas, other, channel_name)
                for other in self.store.mutes.of_guild(guild_id)
            ]
            others = join_texts(*texts, separator="; ") if texts else gettext_lazy("nothing")
            raise RefusedError(
                gettext_lazy(
                    "There is no such mute: {mute}.",
                    mute=mute_text(self.personas, old, channel_name),
                ),
                gettext_lazy("Muted: {others}.", others=others),
            )
        unmuted = gettext_lazy("unmuted {mute}", mute=mute_text(self.personas, old))
        self.record_change(guild_id, by, unmuted)
        return old

    def mark_age(self, guild_id: int, persona: Persona, *, is_restricted: bool, by: int) -> None:
        """Mark a persona as age-restricted in a guild, or take its mark. Raises `RefusedError`."""
        AgeRestriction(self.store).set(persona, guild_id, is_restricted=is_restricted)
        self.stop_guild_replies(guild_id)
        name = f"**{markdown_name(persona)}**"
        marked = gettext_lazy("marked {persona} as not age-restricted", persona=name)
        if is_restricted:
            marked = gettext_lazy("marked {persona} as age-restricted", persona=name)
        self.record_change(guild_id, by, marked)

    def change_roles(
        self,
        guild_id: int,
        action: Action,
        *,
        by: int,
        add: discord.Role | None = None,
        remove: discord.abc.Snowflake | None = None,
        reset: bool = False,
        seen: AbstractSet[int] | None = None,
        name: str = "",
    ) -> None:
        """Change which roles may do something, as `RolePermissions.change` does."""
        changes = RolePermissions(self.store).change(
            guild_id, action, add=add, remove=remove, reset=reset, seen=seen, name=name
        )
        for change in changes:
            self.record_change(guild_id, by, change)
