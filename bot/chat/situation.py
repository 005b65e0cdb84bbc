"""What a prompt tells of the moment and the place of a reply: the time, where the persona's card or
lore asks for it, and the channel's topic, where moderators want that.

It stands beside the last message, like lore. So the beginning of the prompt stays the same from one
reply to the next, and training samples, which have none of it, begin alike.
"""

from dataclasses import dataclass, replace

import discord

from bot.chat.message_text import readable_text, server_names
from bot.chat.places import OutsideChannel, ReplyChannel, SpeakChannel, channel_ref
from bot.guild_settings.definitions import IS_TOPIC_TOLD
from bot.store import Store
from personas.prompt.time_macros import Moment, fill_time_macros, time_phrase
from personas.schemas.chat import (
    EARLIER_SOURCE,
    MEMORY_SOURCE,
    SITUATION_SOURCE,
    LoreHit,
    Persona,
)

MAX_TOPIC_CHARS = 300
TOPIC_HEADING = "the topic of this channel, as its moderators wrote it"
SITUATION_SCORE = 1000.0
"""Above every score of lore: where a prompt is too long, all lore is left out before this."""


@dataclass(frozen=True)
class Situation:
    """The moment of a reply, and its channel's topic; empty where it is not told."""

    moment: Moment
    topic: str = ""

    def told_beside(self, lore: tuple[LoreHit, ...], persona: Persona) -> tuple[LoreHit, ...]:
        """Return the passages of a reply's prompt: what the persona is told of the situation, then
        the lore, with the times that it asks for.
        """
        values: dict[str, str] = {}
        for macro in persona.times:
            values.setdefault(time_phrase(macro), self.moment.value(macro))
        told = [_hit(phrase, value) for phrase, value in values.items()]
        if self.topic:
            told.append(_hit(TOPIC_HEADING, f"“{self.topic}”"))
        return (*told, *map(self._with_times, lore))

    def _with_times(self, hit: LoreHit) -> LoreHit:
        if hit.source in (MEMORY_SOURCE, EARLIER_SOURCE) or "{{" not in hit.heading + hit.text:
            return hit  # what people have said stays as it is
        return replace(
            hit,
            heading=fill_time_macros(hit.heading, self.moment.value),
            text=fill_time_macros(hit.text, self.moment.value),
        )


def told_topic(store: Store, channel: ReplyChannel) -> str:
    """Return the topic that a reply in a channel is told; empty where it is told none."""
    if isinstance(channel, OutsideChannel):
        return ""
    place = channel_ref(channel)
    if IS_TOPIC_TOLD.held(store, place.guild_id, channel_id=place.home_id):
        return channel_topic(channel)
    return ""


def channel_topic(channel: SpeakChannel) -> str:
    """Return the topic of a channel, or of a thread's channel, as one line of text that members
    see, cut where it is long; empty where there is none.
    """
    place = channel.parent if isinstance(channel, discord.Thread) else channel
    topic = getattr(place, "topic", None)
    if not topic or isinstance(place, discord.DMChannel) or place is None:
        return ""
    names = server_names(place.guild, place.guild.me, users={})
    words = " ".join(readable_text(topic, names).split()).replace("”", '"')
    if len(words) > MAX_TOPIC_CHARS:
        words = f"{words[: MAX_TOPIC_CHARS - 1]}…"
    return words


def _hit(heading: str, text: str) -> LoreHit:
    return LoreHit(SITUATION_SOURCE, heading, text, SITUATION_SCORE)
