"""The buttons under a persona's reply: stop, reply, regenerate and vote."""

import time
from typing import ClassVar, Literal

import discord

from bot.chat.discord_addressing import addressees, persona_of
from bot.chat.discord_outside import OUTSIDE_ITEMS, OtherPersonaButton
from bot.chat.discord_questions import ASK_HELP, MAX_QUESTION_CHARS, ask_publicly
from bot.chat.places import (
    OutsideChannel,
    ReplyChannel,
    channel_ref,
    is_outside,
    reply_channel,
)
from bot.chat.reply_text import MAX_PART_CHARS, discord_text, reply_footer
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    MAX_TITLE_CHARS,
    PersistentButton,
    button_view,
    defer,
    fitting_text,
    form,
    respond,
    send_form,
    text_field,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, override, translate
from bot.platform.messages import markdown_name
from bot.store import StoredReply, VoteCounts
from personas.schemas.chat import Persona

PERSONA_GONE_TEXT = gettext_lazy("The persona that said this is no longer here.")
TALK_TO_OTHER_TEXT = gettext_lazy("Talk to another one.")
ANSWER_FORM_PREFIX = "answer:"
"""Prefix of the form's custom id; the event's id follows."""


class _ReplyButton(PersistentButton, template=r"never:"):
    """A button for the reply to one event."""

    event: str

    @property
    def event_id(self) -> int:
        """Discord's id of the message or interaction that was replied to."""
        return int(self.event)


class StopReplyButton(_ReplyButton, template=r"stop:(?P<event>[0-9]+)"):
    """Stops the reply above it."""

    label = gettext_lazy("Stop")

    async def pressed(self, interaction: Interaction) -> None:
        reply_service = interaction.client.services.reply_service
        if reply_service.is_running(self.event_id):
            reply_service.stop(self.event_id, interaction.user)
            await defer(interaction)
        else:
            await update_message(interaction, view=None)


class AnswerButton(_ReplyButton, template=r"reply:(?P<event>[0-9]+)"):
    """Opens a form to answer the persona, whose text arrives without the message content intent."""

    label = gettext_lazy("Reply")
    emoji = "↩️"
    actions = ("talk",)

    async def pressed(self, interaction: Interaction) -> None:
        persona, channel = _require_answerer(interaction, self.event_id)
        interaction.client.services.reply_service.rules.require_can_ask(
            interaction, persona, channel_ref(channel)
        )
        label = translate(ASK_HELP)
        text = text_field(label, "text", MAX_QUESTION_CHARS)
        custom_id = f"{ANSWER_FORM_PREFIX}{self.event_id}"
        title = fitting_text(
            gettext_noop("Reply to {persona}"),
            max_chars=MAX_TITLE_CHARS,
            persona=persona.name,
        )
        await send_form(interaction, form(title, custom_id, text))


class RegenerateButton(_ReplyButton, template=r"again:(?P<event>[0-9]+)"):
    """Regenerates the reply, in its place."""

    label = gettext_lazy("Regenerate")
    emoji = "🔄"
    actions = ("talk",)

    async def pressed(self, interaction: Interaction) -> None:
        _, channel = _require_answerer(interaction, self.event_id)
        await defer(interaction)
        if isinstance(channel, OutsideChannel):
            raise RefusedError(
                gettext_lazy("This reply can no longer be changed."),
                gettext_lazy("Ask again with `/chat`."),
            )
        await interaction.client.services.reply_service.regenerate(
            self.event_id, interaction.user, channel
        )


class _VoteButton(_ReplyButton, template=r"never vote:"):
    """Counts a vote; pressed again it takes the vote back."""

    vote: ClassVar[Literal[-1, 1]]

    async def pressed(self, interaction: Interaction) -> None:
        reply, persona, channel = _require_reply(interaction, self.event_id)
        services = interaction.client.services
        if services.reply_service.is_running(reply.event_id):
            raise RefusedError(
                gettext_lazy("This reply is being written."), gettext_lazy("Vote once it is there.")
            )
        replies = services.store.replies
        member = interaction.user
        # Taking one back is open to all.
        if replies.vote_of(reply.event_id, member.id) != self.vote:
            rules = services.reply_service.rules
            rules.require_unblocked(persona, channel_ref(channel), member)
        votes = replies.vote(reply.event_id, member.id, self.vote, time.time())
        is_tuned = reply.adapter_version is not None
        languages = services.reply_service.member_languages
        with override(languages.of_channel(interaction.channel, reply.asked_by)):
            if is_outside(interaction):
                view = ReplyButtonViews().ended_outside(reply.event_id, votes)
            else:
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

    label = gettext_lazy("Without training")
    actions = ("talk",)

    async def pressed(self, interaction: Interaction) -> None:
        await show_untrained(interaction, self.event_id)


REPLY_BUTTONS = (
    StopReplyButton,
    AnswerButton,
    RegenerateButton,
    UpvoteButton,
    DownvoteButton,
    UntrainedButton,
    *OUTSIDE_ITEMS,
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
        buttons = [
            AnswerButton(event_id),
            RegenerateButton(event_id),
            *_votes(event_id, votes),
        ]
        if offers_untrained:
            buttons.append(UntrainedButton(event_id))
        return button_view(*buttons)

    def ended_outside(self, event_id: int, votes: VoteCounts) -> discord.ui.View:
        """Reply, the votes, and another persona: where the bot is not, it can edit no message of an
        earlier interaction.
        """
        answer = AnswerButton(event_id)
        other = OtherPersonaButton()
        return button_view(answer, *_votes(event_id, votes), other)


def _votes(event_id: int, votes: VoteCounts) -> list[_VoteButton]:
    up = UpvoteButton(event_id, label=str(votes.up or ""))
    return [up, DownvoteButton(event_id, label=str(votes.down or ""))]


async def answer_form(interaction: Interaction, event_id: str, values: dict[str, str]) -> None:
    """Have the text of a submitted form answered."""
    # First, as in `ask_publicly`: also where the persona is gone.
    interaction.client.services.safety.require_safe(values["text"])
    persona, channel = _require_answerer(interaction, int(event_id))
    services = interaction.client.services
    asked = addressees(services, values["text"], channel_ref(channel), replied_to=persona)
    await ask_publicly(interaction, asked, channel, values["text"])


async def show_untrained(interaction: Interaction, event_id: int) -> None:
    """Show a member what the base model replies to an event that was replied to, with the same card
    and lore.

    Raises `RefusedError` where they may not ask, it is being written for them already, or the
    message is gone, and `EngineBusyError`.
    """
    reply, persona, channel = _require_reply(interaction, event_id)
    if isinstance(channel, OutsideChannel):
        raise RefusedError(
            gettext_lazy("That is shown in servers that I am in, and in direct messages.")
        )
    reply_service = interaction.client.services.reply_service
    reply_service.require_no_untrained(event_id, interaction.user.id)
    reply_service.rules.require_can_ask(interaction, persona, channel_ref(channel))
    await defer(interaction, ephemeral=True, thinking=True)
    generated = await reply_service.reply_untrained(reply, persona, channel, user=interaction.user)
    text = discord_text(generated.text)[:MAX_PART_CHARS]
    title = translate(
        gettext_noop("**{persona} without training**, with the same card and lore:"),
        persona=markdown_name(persona),
    )
    footer = reply_footer(generated)
    await respond(interaction, f"{title}\n{text}\n{footer}", suppress_embeds=True)


def _require_answerer(interaction: Interaction, event_id: int) -> tuple[Persona, ReplyChannel]:
    """Find the persona that answers what is said to a reply, and the place. Raises `RefusedError`
    where it no longer lives there.
    """
    reply, _, channel = _require_reply(interaction, event_id)
    persona = persona_of(interaction.client.services, reply, channel_ref(channel))
    if persona is None:
        raise RefusedError(PERSONA_GONE_TEXT, TALK_TO_OTHER_TEXT)
    return persona, channel


def _require_reply(
    interaction: Interaction, event_id: int
) -> tuple[StoredReply, Persona, ReplyChannel]:
    """Find the reply of a button or form. Raises `RefusedError` when it is no longer known."""
    services = interaction.client.services
    channel = reply_channel(interaction)
    reply = services.reply_service.rules.require_reply(services.store.replies.get(event_id))
    persona = services.personas.get(reply.persona_id, reply.guild_id)
    # A server's persona does not speak where the rules of its server do not hold.
    is_elsewhere = reply.guild_id != 0 and is_outside(interaction)
    if persona is None or channel is None or is_elsewhere:
        raise RefusedError(PERSONA_GONE_TEXT, TALK_TO_OTHER_TEXT)
    return reply, persona, channel
