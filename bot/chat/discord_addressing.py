"""Reads what the rules of `bot.chat.addressing` look at from Discord's messages and the store."""

from collections.abc import Sequence
from datetime import UTC, datetime

import discord

from bot.chat.addressing import Decision, ListeningChannel, RepliesTo, SaidMessage, decide
from bot.chat.chat_words import names_of, order_named
from bot.chat.message_reader import mentions_bot
from bot.chat.message_text import raw_text, said_text
from bot.chat.places import ChannelRef, SpeakChannel, channel_ref
from bot.guild_settings.definitions import ALIASES
from bot.services import Bot, Services
from bot.store import MAX_CHANNEL_PERSONAS, StoredReply
from personas.schemas.chat import Persona


def decide_on(
    bot: Bot,
    message: discord.Message,
    channel: SpeakChannel,
    *,
    at: datetime | None = None,
    spoken: str = "",
) -> Decision:
    """Decide whether a message is answered at a time, by default now. `spoken` are the words of a
    voice message, as far as they are known. Raises `StoreError`.
    """
    services = bot.services
    place = channel_ref(channel)
    listening = listening_channel(services, place)
    text = raw_text(message)
    shown = said_text(message)
    wait = services.reply_service.line_waits.get(channel.id, message.author.id)
    said = SaidMessage(
        event_id=message.id,
        text=f"{spoken}\n{text}" if spoken else text,
        at=at or datetime.fromtimestamp(services.time_zones.clock.now(), UTC),
        is_direct_message=isinstance(channel, discord.DMChannel),
        mentions_bot=mentions_bot(message, bot.user),
        replies_to=_replies_to(bot, message, place),
        is_hidden=not shown,
        has_more=shown.strip() != text.strip(),
        joins_reply=wait is not None,
    )
    return decide(said, listening)


def listening_channel(services: Services, place: ChannelRef) -> ListeningChannel:
    """Return what the rules look at of a channel."""
    setting = services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
    names = list[str]()
    if setting and setting.answers == "everything":  # elsewhere, no rule looks at them
        for called in _names(services, services.personas_of(setting), place):
            names += called
    return ListeningChannel(
        answers=setting.answers if setting else None,
        names=tuple(names),
        answering=services.answering.in_channel(place.guild_id, place.channel_id, place.parent_id),
    )


def called_personas(services: Services, text: str, place: ChannelRef) -> list[Persona]:
    """List the channel's personas that a text names, in the order in which it first names them; none
    where the channel has one persona alone.
    """
    personas = services.personas_in(place)
    if len(personas) < 2:
        return []
    named = order_named(text, _names(services, personas, place))
    return [personas[bearer] for bearer in named]


def addressees(
    services: Services, text: str, place: ChannelRef, replied_to: Persona | None = None
) -> list[Persona]:
    """List the personas that a text asks, in their order: the one to whose message it replies, then
    those that it names.
    """
    called = called_personas(services, text, place)
    if replied_to is None:
        return called
    others = [persona for persona in called if persona.id != replied_to.id]
    return [replied_to, *others][:MAX_CHANNEL_PERSONAS]


def _names(
    services: Services, personas: Sequence[Persona], place: ChannelRef
) -> list[tuple[str, ...]]:
    """Return the names by which each persona is called in a place."""
    aliases = ALIASES.by_persona(services.store, place.guild_id)
    return [names_of(persona, aliases.get(persona.id, ())) for persona in personas]


def persona_replied_to(services: Services, message: discord.Message) -> Persona | None:
    """Return the persona to whose message a message replies, if it still answers there."""
    reference = message.reference
    if reference is None or reference.message_id is None:
        return None
    if reference.type is discord.MessageReferenceType.forward:
        return None
    reply = services.store.replies.of_message(reference.message_id)
    if reply and isinstance(message.channel, SpeakChannel):
        return persona_of(services, reply, channel_ref(message.channel))
    return None


def persona_of(services: Services, reply: StoredReply, place: ChannelRef) -> Persona | None:
    """Return the persona of a reply if it answers what is said to that in a place: in a server's
    channel, one that lives there, or that has spoken unasked, as in a greeting or a duet.
    """
    persona = services.personas.get(reply.persona_id, reply.guild_id)
    is_unasked = not reply.asked_by
    if not place.guild_id or is_unasked or persona in services.personas_in(place):
        return persona
    return None


def _replies_to(bot: Bot, message: discord.Message, place: ChannelRef) -> RepliesTo:
    if message.type is not discord.MessageType.reply or message.reference is None:
        return "nobody"
    if persona_replied_to(bot.services, message):
        return "persona"
    original = message.reference.resolved or message.reference.cached_message
    if isinstance(original, discord.DeletedReferencedMessage):
        return "nobody"
    if original and original.author.id in (message.author.id, bot.user.id if bot.user else 0):
        return "nobody"
    if original and original.webhook_id:
        webhook = bot.services.store.places.webhook(place.home_id)
        if webhook and webhook[0] == original.webhook_id:  # a reply that is no longer stored
            return "nobody"
    return "other"
