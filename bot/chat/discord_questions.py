"""Has a question from a command or a form answered in its channel."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.chat.message_reader import IncomingMessage
from bot.chat.message_text import has_words
from bot.chat.places import OutsideChannel, ReplyChannel, channel_ref
from bot.chat.reply_round import ReplyRound
from bot.chat.reply_text import remove_links
from bot.moderation.limits import LimitReachedError
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import respond_first, respond_privately
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, gettext_noop
from bot.platform.messages import MAX_MESSAGE_CHARS, markdown_name
from bot.services import Services
from bot.store import InteractionToken
from personas.schemas.chat import Persona

MAX_QUESTION_CHARS = 1500
"""Characters of a question: it is quoted in one message of 2,000."""
ASK_HELP = gettext_noop("What you want to say")
OUTSIDE_REPLY_S = 14 * 60.0
"""Longest time for a reply where the bot is not: Discord takes its messages for 15 minutes."""


def quote_member(name: str, text: str) -> str:
    """Quote a member's text from a command or form: no line of it can pass for somebody else's, and
    the bot, whom AutoMod does not watch, posts no links for members.
    """
    author = f"**{discord.utils.escape_markdown(name)}:**"
    text = remove_links(text)
    lines = text.splitlines()
    if len(lines) < 2:
        quote = f"{author} {text}"
    else:
        quote = author + "".join(f"\n> {line}" for line in lines)
    if len(quote) > MAX_MESSAGE_CHARS:  # marks of many short lines
        quote = f"{author} {' / '.join(lines)}"[:MAX_MESSAGE_CHARS]
    return quote


def require_outside(services: Services) -> None:
    """Raise `RefusedError` unless the operator lets people use personas where the bot is not. Buttons
    of earlier replies stay there when that is switched off.
    """
    if not services.allows_user_install:
        raise RefusedError(
            gettext_lazy("I answer in servers that I am in, and in direct messages."),
            gettext_lazy("The operator can change that with USER_INSTALL."),
        )


def _as_outside(interaction: Interaction, channel: ReplyChannel) -> OutsideChannel | None:
    if not isinstance(channel, OutsideChannel):
        return None
    require_outside(interaction.client.services)
    return channel


async def ask_publicly(
    interaction: Interaction, asked: Sequence[Persona], channel: ReplyChannel, text: str
) -> None:
    """Post a question from a command or form in the channel, and have it answered by the personas
    that it asks, of whom those that may not answer are left out. Raises `RefusedError` where none
    may, and before all else `SelfHarmError`. In a place where the bot is not, its member alone may
    see both.

    The question is the response, which Discord wants within three seconds: it comes before anything
    that takes time. If it is refused afterwards, it is deleted again, from the channel and from the
    history.
    """
    # First, because the answer with helplines comes also where no persona would answer.
    interaction.client.services.safety.require_safe(text)
    reply_service = interaction.client.services.reply_service
    author = interaction.user
    place = channel_ref(channel)
    rules = reply_service.rules
    able = rules.who_can_be_asked(interaction, asked, place)
    personas, _ = rules.within_limits(able, place, author)
    reply_service.unfinished.require_place(author.id, place.home_id, len(personas))
    quoted = quote_member(author.display_name, text)
    outside = _as_outside(interaction, channel)
    message_id = await respond_first(
        interaction, quoted, suppress_embeds=True, ephemeral=bool(outside and outside.is_private)
    )

    def accept(message: IncomingMessage) -> tuple[ReplyRound | None, LimitReachedError | None]:
        if not has_words(message.text):
            raise RefusedError(
                gettext_lazy("Your message has no words."),
                gettext_lazy(
                    "Write something that {persona} can answer.", persona=markdown_name(able[0])
                ),
            )
        # Once more: other replies to the member may have been stored since.
        personas, limit = rules.within_limits(able, place, author)
        with reply_service.store.atomic():
            replies = reply_service.accept(message, personas, channel)
            if replies and message_id:
                reply_service.store.messages.record_response(interaction.id, message_id)
            if replies and outside:
                token = InteractionToken(
                    interaction.token, outside.is_private, interaction.created_at.timestamp()
                )
                reply_service.store.interaction_tokens.add(replies.first.event_id, token)
        return replies, limit

    async def retract() -> None:
        with suppress(discord.HTTPException, *UNCERTAIN_ERRORS):
            await persist(interaction.delete_original_response)

    try:
        message = await interaction.client.services.message_reader.read_interaction(
            interaction, text
        )
        replies, limit = await reply_service.events.store(lambda: accept(message))
    except Exception:
        await retract()
        raise
    if replies and limit:
        await respond_privately(interaction, error_text(limit))
    if replies and outside:
        # While Discord still takes its end.
        asyncio.get_running_loop().call_later(
            OUTSIDE_REPLY_S, reply_service.stop_late, replies.first.event_id
        )
    if replies:
        await replies.answer(retract)
