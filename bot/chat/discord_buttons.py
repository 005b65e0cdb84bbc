"""The buttons under a persona's reply: stop, reply, regenerate and vote."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar, Literal

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.chat.discord_addressing import addressees
from bot.chat.message_reader import IncomingMessage
from bot.chat.message_text import has_words
from bot.chat.places import SpeakChannel, channel_ref
from bot.chat.reply_round import ReplyRound
from bot.chat.reply_text import MAX_PART_CHARS, discord_text, reply_footer
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    form,
    respond,
    respond_first,
    respond_privately,
    send_form,
    text_field,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.messages import MAX_MESSAGE_CHARS
from bot.store import StoredReply, VoteCounts
from personas.schemas.chat import Persona

MAX_QUESTION_CHARS = 1500
"""Characters of a question: it is quoted in one message of 2,000."""
ANSWER_FORM_PREFIX = "answer:"
"""Prefix of the form's custom id; the event's id follows."""


def quote_member(name: str, text: str) -> str:
    """Quote a member's text from a command or form: no line of it can pass for somebody else's."""
    author = f"**{discord.utils.escape_markdown(name)}:**"
    lines = text.strip().splitlines()
    if len(lines) < 2:
        return f"{author} {text.strip()}"
    quote = author + "".join(f"\n> {line}" for line in lines)
    if len(quote) > MAX_MESSAGE_CHARS:  # the marks of many short lines take more room
        return f"{author} {' / '.join(lines)}"[:MAX_MESSAGE_CHARS]
    return quote


class _ReplyButton(PersistentButton, template=r"never:"):
    """A button for the reply to one event."""

    event: str

    @property
    def event_id(self) -> int:
        """Discord's id of the message or interaction that was replied to."""
        return int(self.event)


class StopReplyButton(_ReplyButton, template=r"stop:(?P<event>[0-9]+)"):
    """Stops the reply above it."""

    label = "Stop"

    async def pressed(self, interaction: Interaction) -> None:
        reply_service = interaction.client.services.reply_service
        if reply_service.is_running(self.event_id):
            reply_service.stop(self.event_id, interaction.user)
            await defer(interaction)
            interaction.client.dispatch("reply_judged", self.event_id)
        else:
            await update_message(interaction, view=None)


class AnswerButton(_ReplyButton, template=r"reply:(?P<event>[0-9]+)"):
    """Opens a form to answer the persona, whose text arrives without the message content intent."""

    label = "Reply"
    emoji = "↩️"

    async def pressed(self, interaction: Interaction) -> None:
        _, persona, channel = _require_reply(interaction, self.event_id)
        interaction.client.services.reply_service.rules.require_can_ask(
            interaction, persona, channel_ref(channel)
        )
        text = text_field("What you want to say", "text", MAX_QUESTION_CHARS)
        custom_id = f"{ANSWER_FORM_PREFIX}{self.event_id}"
        await send_form(interaction, form(f"Reply to {persona.name}", custom_id, text))


class RegenerateButton(_ReplyButton, template=r"again:(?P<event>[0-9]+)"):
    """Regenerates the reply, in its place."""

    label = "Regenerate"
    emoji = "🔄"

    async def pressed(self, interaction: Interaction) -> None:
        _, _, channel = _require_reply(interaction, self.event_id)
        await defer(interaction)
        await interaction.client.services.reply_service.regenerate(
            self.event_id, interaction.user, channel
        )
        interaction.client.dispatch("reply_judged", self.event_id)


class _VoteButton(_ReplyButton, template=r"never vote:"):
    """Counts a vote; pressed again it takes the vote back."""

    vote: ClassVar[Literal[-1, 1]]

    async def pressed(self, interaction: Interaction) -> None:
        reply, _, _ = _require_reply(interaction, self.event_id)
        services = interaction.client.services
        if services.reply_service.is_running(reply.event_id):
            raise RefusedError("This reply is being written.", "Vote once it is there.")
        votes = services.store.replies.vote(
            reply.event_id, interaction.user.id, self.vote, time.time()
        )
        is_tuned = reply.adapter_version is not None
        view = ReplyButtonViews().ended(reply.event_id, votes, offers_untrained=is_tuned)
        await update_message(interaction, view=view)
        interaction.client.dispatch("reply_judged", reply.event_id)


class UpvoteButton(_VoteButton, template=r"vote\+1:(?P<event>[0-9]+)"):
    """👍."""

    vote = 1
    emoji = "👍"


class DownvoteButton(_VoteButton, template=r"vote-1:(?P<event>[0-9]+)"):
    """👎."""

    vote = -1
    emoji = "👎"


class UntrainedButton(_ReplyButton, template=r"untrained:(?P<event>[0-9]+)"):
    """Shows what the base model would have replied, to the one who asks for it."""

    label = "Without training"

    async def pressed(self, interaction: Interaction) -> None:
        await show_untrained(interaction, self.event_id)


REPLY_BUTTONS = (
    StopReplyButton,
    AnswerButton,
    RegenerateButton,
    UpvoteButton,
    DownvoteButton,
    UntrainedButton,
)


class ReplyButtonViews:
    """The views under a reply (`bot.chat.streaming_reply.ReplyViews`)."""

    def growing(self, event_id: int) -> discord.ui.View:
        """Stop."""
        return button_view(StopReplyButton(event_id))

    def ended(self, event_id: int, votes: VoteCounts, *, offers_untrained: bool) -> discord.ui.View:
        """Reply, Regenerate and the votes with their counts; under the reply of a version, also
        the base model's.
        """
        up = UpvoteButton(event_id, label=str(votes.up or ""))
        down = DownvoteButton(event_id, label=str(votes.down or ""))
        buttons = [AnswerButton(event_id), RegenerateButton(event_id), up, down]
        if offers_untrained:
            buttons.append(UntrainedButton(event_id))
        return button_view(*buttons)


async def answer_form(interaction: Interaction, event_id: str, values: dict[str, str]) -> None:
    """Have the text of a submitted form answered."""
    # First, because the answer with help lines comes also where the persona would not answer.
    interaction.client.services.safety.require_safe(values["text"])
    _, persona, channel = _require_reply(interaction, int(event_id))
    services = interaction.client.services
    asked = addressees(services, values["text"], channel_ref(channel), replied_to=persona)
    await ask_publicly(interaction, asked, channel, values["text"])


async def ask_publicly(
    interaction: Interaction, asked: Sequence[Persona], channel: SpeakChannel, text: str
) -> None:
    """Post a question from a command or form in the channel, and have it answered by the personas
    that it asks, of whom those that may not answer are left out. Raises `RefusedError` where none
    may.

    The question is the response, which Discord wants within three seconds: it comes before anything
    that takes time. If it is refused afterwards, it is deleted again, from the channel and from the
    history.
    """
    reply_service = interaction.client.services.reply_service
    author = interaction.user
    place = channel_ref(channel)
    personas, limit = reply_service.rules.who_can_be_asked(interaction, asked, place)
    reply_service.unfinished.require_place(author.id, place.home_id, len(personas))
    quoted = quote_member(author.display_name, text)
    message_id = await respond_first(interaction, quoted, suppress_embeds=True)

    def accept(message: IncomingMessage) -> ReplyRound | None:
        if not has_words(message.text):
            raise RefusedError(
                "Your message has no words.",
                f"Write something that {personas[0].name} can answer.",
            )
        with reply_service.store.atomic():
            replies = reply_service.accept(message, personas, channel)
            if replies and message_id:
                reply_service.store.messages.record_response(interaction.id, message_id)
        return replies

    async def retract() -> None:
        with suppress(discord.HTTPException, *UNCERTAIN_ERRORS):
            await persist(interaction.delete_original_response)

    try:
        message = await interaction.client.services.message_reader.read_interaction(
            interaction, text
        )
        replies = await reply_service.events.store(lambda: accept(message))
    except Exception:
        await retract()
        raise
    if replies and limit:
        await respond_privately(interaction, str(limit))
    if replies:
        await replies.answer(retract)


async def show_untrained(interaction: Interaction, event_id: int) -> None:
    """Show a member what the base model replies to an event that was replied to, with the same card
    and lore.

    Raises `RefusedError` where they may not ask, it is being written for them already, or the
    message is gone, and `EngineBusyError`.
    """
    reply, persona, channel = _require_reply(interaction, event_id)
    reply_service = interaction.client.services.reply_service
    reply_service.require_no_untrained(event_id, interaction.user.id)
    reply_service.rules.require_can_ask(interaction, persona, channel_ref(channel))
    await defer(interaction, ephemeral=True, thinking=True)
    generated = await reply_service.reply_untrained(
        reply, persona, channel, user_id=interaction.user.id
    )
    text = discord_text(generated.text)[:MAX_PART_CHARS]
    await respond(
        interaction,
        f"**{persona.name} without training**, with the same card and lore:\n{text}\n"
        f"{reply_footer(generated)}",
        suppress_embeds=True,
    )


def _require_reply(
    interaction: Interaction, event_id: int
) -> tuple[StoredReply, Persona, SpeakChannel]:
    """Find the reply of a button or form. Raises `RefusedError` when it is no longer known."""
    services = interaction.client.services
    channel = interaction.channel
    reply = services.reply_service.rules.require_reply(services.store.replies.get(event_id))
    persona = services.personas.get(reply.persona_id, reply.guild_id)
    if persona is None or not isinstance(channel, SpeakChannel):
        raise RefusedError("The persona that said this is no longer here.", "Talk to another one.")
    return reply, persona, channel
