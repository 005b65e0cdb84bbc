"""Blocks, limits, mutes, roles and age restrictions in words, for Discord and the dashboard."""

from collections.abc import Callable

from bot.moderation.limits import ReplyLimits
from bot.moderation.store import Block
from bot.personas.registry import PersonaRegistry
from bot.platform.localisation import gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import member_mention
from bot.store import Mute

AGE_HELP = gettext_lazy(
    "Such a persona speaks only in channels that Discord marks as age-restricted, and not in direct "
    "messages. The tag NSFW of a card marks its persona."
)
FINETUNE_HELP = gettext_lazy(
    "Discord shows `/finetune` to those with Manage Server, until an administrator adds the role "
    "there: Server Settings → Integrations → this bot → `/finetune`. Buttons need no more than this."
)


def block_text(personas: PersonaRegistry, entry: Block, member: str = "") -> str:
    """Say who is blocked, by a mention unless told otherwise, and for which persona."""
    return gettext_lazy(
        "{member} for {persona}",
        member=member or member_mention(entry.user_id),
        persona=persona_text(personas, entry.persona_id, entry.guild_id, is_markdown=not member),
    )


def persona_text(
    personas: PersonaRegistry, persona_id: str, guild_id: int, *, is_markdown: bool = False
) -> str:
    """Name a persona; an empty id stands for all of the guild."""
    name_of = personas.markdown_name_of if is_markdown else personas.name_of
    return name_of(persona_id, guild_id) or gettext_lazy("all personas")


def mute_text(
    personas: PersonaRegistry, entry: Mute, channel_name: Callable[[int], str] | None = None
) -> str:
    """Say which persona is muted where: by a mention of the channel, unless told otherwise."""
    is_markdown = channel_name is None
    persona = persona_text(personas, entry.persona_id, entry.guild_id, is_markdown=is_markdown)
    if not entry.channel_id:
        return gettext_lazy("{persona} in the whole server", persona=persona)
    channel = channel_name(entry.channel_id) if channel_name else f"<#{entry.channel_id}>"
    return gettext_lazy("{persona} in {channel}", persona=persona, channel=channel)


def limits_text(limits: ReplyLimits, guild_id: int) -> str:
    """Say how often a member is answered in a guild; 0 stands for direct messages and places where
    the bot is not, which have no moderators.
    """
    parts: list[str] = []
    if limits.per_day is not None:
        text = gettext_lazy(
            "{count} a day, from midnight in the server's time zone", count=limits.per_day
        )
        if not guild_id:
            text = gettext_lazy(
                "{count} a day, from midnight in the operator's time zone", count=limits.per_day
            )
        parts.append(text)
    if limits.cooldown_s is not None:
        parts.append(
            ngettext_lazy(
                "one every {count} second", "one every {count} seconds", limits.cooldown_s
            )
        )
    if not parts:
        return gettext_lazy("Replies to a member have no limit here.")
    listed = join_texts(*parts, separator="; ")
    if not guild_id:
        return gettext_lazy("Replies to a member here: {limits}.", limits=listed)
    exempt = gettext_lazy("Moderators, too.")
    if limits.exempts_moderators:
        exempt = gettext_lazy("Moderators have no limit.")
    return gettext_lazy(
        "Replies to a member here: {limits}. {moderators}",
        limits=listed,
        moderators=exempt,
    )
