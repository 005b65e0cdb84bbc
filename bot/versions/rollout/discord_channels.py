"""Channels in which a version can be rolled out."""

import discord

from bot.chat.places import SpeakChannel, channel_ref
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.permissions import VoiceChannel
from bot.services import Services
from personas.errors import RequestError
from personas.schemas.chat import Persona

RolloutChannel = discord.TextChannel | VoiceChannel
"""Channels of which a rollout can be; their threads belong to them."""


def require_speaks_in(services: Services, persona: Persona, channel: RolloutChannel) -> None:
    """Raise `RequestError` where a persona answers neither in a channel nor in a thread of it."""
    places: list[SpeakChannel] = [channel]
    places += [thread for thread in channel.guild.threads if thread.parent_id == channel.id]
    for place in places:
        residents = services.personas_in(channel_ref(place))
        if any(resident.id == persona.id for resident in residents):
            return
    raise RequestError(
        gettext_lazy(
            "{persona} does not live in #{channel}, so none of its versions would answer there.",
            persona=markdown_name(persona),
            channel=channel.name,
        ),
        gettext_lazy(
            "Name the channel in which it lives, or give it that one with `/persona set`."
        ),
    )
