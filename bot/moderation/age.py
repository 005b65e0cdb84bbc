"""Age-restricted personas, which speak only in channels that Discord marks as age-restricted.

A card marks its persona by a tag, as the sites for cards do; moderators can mark any persona for
their server, and take the mark from one of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import discord

from bot.guild_settings.definitions import IS_AGE_RESTRICTED
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.permissions import VoiceChannel
from bot.store import Store, guild_suffix
from personas.schemas.chat import Persona, fold_name

AGE_TAGS = frozenset({"nsfw", "nsfl", "18+", "r18", "r-18", "adults only", "age-restricted"})
"""Tags of a card that mark its persona, without regard to case."""
MARK_ADVICE = gettext_lazy(
    "Discord marks a channel under Edit Channel → Overview → Age-Restricted Channel; its threads "
    "have its mark."
)


class AgeRestrictedError(RefusedError):
    """An age-restricted persona may not speak in this channel."""


@dataclass(frozen=True)
class AgeRestriction:
    """Decides whether a persona may speak in a channel."""

    store: Store

    def applies(self, persona: Persona, guild_id: int) -> bool:
        """Report whether a persona is age-restricted in a guild; 0 stands for direct messages."""
        chosen = None
        if guild_id:
            chosen = IS_AGE_RESTRICTED.read(self.store, guild_id, persona_id=persona.id)
        return has_age_tag(persona) if chosen is None else chosen

    def refuses(self, persona: Persona, channel: object) -> bool:
        """Report whether a persona is age-restricted, and the channel is not. None stands for one
        where the bot is not.
        """
        if is_age_restricted(channel):
            return False
        guild = getattr(channel, "guild", None)
        return self.applies(persona, guild.id if guild else 0)

    def restricts_reply(self, persona: Persona | None, channel: object, *, guild_id: int) -> bool:
        """Report whether a reply is for age-restricted channels alone: it stands in one, or its
        persona is age-restricted. None stands for a persona that is gone.
        """
        return is_age_restricted(channel) or bool(persona and self.applies(persona, guild_id))

    def require(self, persona: Persona, channel: object) -> None:
        """Raise `AgeRestrictedError` where a persona may not speak."""
        if not self.refuses(persona, channel):
            return
        if channel is None or isinstance(channel, discord.DMChannel):
            raise AgeRestrictedError(
                gettext_lazy(
                    "{persona} is age-restricted, and does not speak in direct messages, nor where "
                    "I am no member.",
                    persona=markdown_name(persona),
                ),
                gettext_lazy(
                    "Talk to it in an age-restricted channel of a server, or choose another "
                    "persona."
                ),
            )
        raise AgeRestrictedError(
            gettext_lazy(
                "{persona} is age-restricted, and this channel is not.",
                persona=markdown_name(persona),
            ),
            gettext_lazy("{marking} Or choose another persona or channel.", marking=MARK_ADVICE),
        )

    def set(self, persona: Persona, guild_id: int, *, is_restricted: bool) -> None:
        """Mark a persona for a guild, or take its mark. Raises `RefusedError` where a card of all
        servers has the mark, which is the operator's.
        """
        has_tag = has_age_tag(persona)
        if not is_restricted and not self.can_unmark(persona, guild_id):
            raise RefusedError(
                gettext_lazy(
                    "{persona} is a persona of all servers, and its card says that it is "
                    "age-restricted.",
                    persona=markdown_name(persona),
                ),
                gettext_lazy("The operator can remove the tag from the card."),
            )
        # A mark stays when the tag goes; a persona without both gets the mark with a later tag.
        chosen = is_restricted if is_restricted or has_tag else None
        with self.store.atomic():
            IS_AGE_RESTRICTED.write(self.store, chosen, guild_id, persona_id=persona.id)
            self.store.places.forget_age_notices(guild_id)

    def can_unmark(self, persona: Persona, guild_id: int) -> bool:
        """Report whether a guild can take a persona's mark: that of a card of all servers stays."""
        return not has_age_tag(persona) or persona.id.endswith(guild_suffix(guild_id))

    def of(self, personas: Iterable[Persona], guild_id: int) -> list[Persona]:
        """Return those of some personas that are age-restricted in a guild."""
        chosen = IS_AGE_RESTRICTED.by_persona(self.store, guild_id)
        return [each for each in personas if chosen.get(each.id, has_age_tag(each))]


def has_age_tag(persona: Persona) -> bool:
    """Report whether a card marks its persona as age-restricted."""
    return bool(age_tag(persona))


def age_tag(persona: Persona) -> str:
    """Return the tag by which a card marks its persona as age-restricted; empty where none does."""
    return next((tag for tag in persona.tags if fold_name(tag) in AGE_TAGS), "")


def is_age_restricted(channel: object) -> bool:
    """Report whether Discord marks a channel, or the channel of a thread, as age-restricted."""
    marked = discord.TextChannel | VoiceChannel | discord.Thread
    return isinstance(channel, marked) and channel.is_nsfw()
