"""The buttons under a persona's reply: stop, reply, regenerate and vote."""

from __future__ import annotations

import time
from typing import Any, Literal, Self

import discord
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS, SpeakChannel, channel_ref
from bot.chat.reply_service import IncomingMessage
from bot.chat.streaming_reply import MAX_MESSAGE_CHARS
from bot.cogs.transformers import Interaction, submitted_form
from bot.cogs.ui import PersistentButton, respond_privately
from bot.errors import RefusedError, error_text
from bot.store import StoredReply, VoteCounts
from personas.schemas.chat import Persona

MAX_QUESTION_CHARS = 1500  # characters of a question: it is quoted in one message of 2,000
ANSWER_FORM_PREFIX = "answer:"  # prefix of the form's custom id; the event's id follows


def quote_member(name: str, text: str) -> str:
    """Quote a member's text from a command or form: no line of it can pass for somebody else's."""
    who, lines = f"**{discord.utils.escape_markdown(name)}:**", text.strip().splitlines()
    if len(lines) < 2:
        return f"{who} {text.strip()}"
    quote = "\n".join([who, *(f"> {line}" for line in lines)])
    return quote if len(quote) <= MAX_MESSAGE_CHARS else f"{who} {' / '.join(lines)}"[:MAX_MESSAGE_CHARS]


class _ReplyButton(PersistentButton, template=r"never:"):
    """A button for one reply."""

    def __init__(self, event_id: int, custom_id: str, **look: Any) -> None:
        self.event_id = event_id
        super().__init__(discord.ui.Button(custom_id=f"{custom_id}:{event_id}", **look))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(int(match["event"]))  # type: ignore[call-arg]  # each kind knows its own looks


class StopReplyButton(_ReplyButton, template=r"stop:(?P<event>[0-9]+)"):
    """Stops the reply that it hangs under."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id, "stop", label="Stop")

    async def pressed(self, interaction: Interaction) -> None:
        answerer = interaction.client.services.reply_service
        if answerer.is_running(self.event_id):
            answerer.stop(self.event_id, interaction.user)
            await interaction.response.defer()
            interaction.client.dispatch("reply_judged", self.event_id)
        else:
            await interaction.response.edit_message(view=None)


class AnswerButton(_ReplyButton, template=r"reply:(?P<event>[0-9]+)"):
    """Opens a form to answer the persona: what is written there arrives without the message content intent."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id, "reply", label="Reply", emoji="↩️")

    async def pressed(self, interaction: Interaction) -> None:
        reply, persona, channel = _require_reply(interaction, self.event_id)
        rules = interaction.client.services.reply_service.rules
        rules.require_can_write(interaction)
        rules.require_unmuted(persona, channel_ref(channel))
        await interaction.response.send_modal(AnswerForm(persona, reply.event_id))


class RegenerateButton(_ReplyButton, template=r"again:(?P<event>[0-9]+)"):
    """Has the reply made anew, in its place."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id, "again", label="Regenerate", emoji="🔄")

    async def pressed(self, interaction: Interaction) -> None:
        _, _, channel = _require_reply(interaction, self.event_id)
        await interaction.response.defer()
        await interaction.client.services.reply_service.regenerate(self.event_id, interaction.user, channel)
        interaction.client.dispatch("reply_judged", self.event_id)


class _VoteButton(_ReplyButton, template=r"never vote:"):
    """Counts a vote; pressed again it takes the vote back."""

    vote: Literal[-1, 1]
    face: str

    def __init__(self, event_id: int, count: int = 0) -> None:
        super().__init__(event_id, f"vote{self.vote:+d}", emoji=self.face, label=str(count) if count else None)

    async def pressed(self, interaction: Interaction) -> None:
        reply, _, _ = _require_reply(interaction, self.event_id)
        services = interaction.client.services
        if services.reply_service.is_running(reply.event_id):
            raise RefusedError("This reply is being written.", "Vote once it is there.")
        votes = services.store.replies.vote(reply.event_id, interaction.user.id, self.vote, time.time())
        await interaction.response.edit_message(view=ReplyButtonViews().ended(reply.event_id, votes))
        interaction.client.dispatch("reply_judged", reply.event_id)


class UpvoteButton(_VoteButton, template=r"vote\+1:(?P<event>[0-9]+)"):
    """👍."""

    vote, face = 1, "👍"


class DownvoteButton(_VoteButton, template=r"vote-1:(?P<event>[0-9]+)"):
    """👎."""

    vote, face = -1, "👎"


REPLY_BUTTONS = (StopReplyButton, AnswerButton, RegenerateButton, UpvoteButton, DownvoteButton)


class ReplyButtonViews:
    """The views under a reply, as `bot.chat.reply_service` asks for them."""

    def growing(self, event_id: int) -> discord.ui.View:
        """Stop."""
        return _view(StopReplyButton(event_id))

    def ended(self, event_id: int, votes: VoteCounts) -> discord.ui.View:
        """Reply, Regenerate and the votes with their counts."""
        up, down = UpvoteButton(event_id, votes.up), DownvoteButton(event_id, votes.down)
        return _view(AnswerButton(event_id), RegenerateButton(event_id), up, down)


class AnswerForm(discord.ui.Modal):
    """The form behind Reply. It is read by `ReplyForms`, so that one that was open during a restart still counts."""

    def __init__(self, persona: Persona, event_id: int) -> None:
        super().__init__(title=f"Reply to {persona.name}"[:45], custom_id=f"{ANSWER_FORM_PREFIX}{event_id}")
        self.add_item(
            discord.ui.TextInput(
                label="What you want to say",
                style=discord.TextStyle.paragraph,
                custom_id="text",
                max_length=MAX_QUESTION_CHARS,
            )
        )


class ReplyForms(commands.Cog):
    """Hears what is written in the form behind Reply."""

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """A form was sent."""
        if sent := submitted_form(interaction, ANSWER_FORM_PREFIX):
            try:
                event_id, values = sent
                _, persona, channel = _require_reply(interaction, int(event_id))
                await ask_publicly(interaction, persona, channel, values["text"])
            except Exception as error:
                await respond_privately(interaction, error_text(error))


async def ask_publicly(interaction: Interaction, persona: Persona, channel: SpeakChannel, text: str) -> None:
    """Show a question that came by command or form to all, and have it answered. Raises `RefusedError`."""
    answerer, author = interaction.client.services.reply_service, interaction.user
    answerer.rules.require_can_write(interaction)
    answerer.rules.require_unmuted(persona, channel_ref(channel))
    await interaction.response.send_message(
        quote_member(author.display_name, text), allowed_mentions=NO_MENTIONS, suppress_embeds=True
    )
    await answerer.answer(IncomingMessage(interaction.id, author.id, author.display_name, text), persona, channel)


def _require_reply(interaction: Interaction, event_id: int) -> tuple[StoredReply, Persona, SpeakChannel]:
    """The reply that a button or a form belongs to. Raises `RefusedError` when it is not known any more."""
    services, channel = interaction.client.services, interaction.channel
    reply = services.reply_service.rules.require_reply(services.store.replies.get(event_id))
    persona = services.personas.get(reply.persona_id, reply.guild_id)
    if persona is None or not isinstance(channel, SpeakChannel):
        raise RefusedError("The persona that said this is no longer here.", "Talk to another one.")
    return reply, persona, channel


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view
