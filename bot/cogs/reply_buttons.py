"""The buttons under a persona's reply: Stop while it is written; Reply, Regenerate, 👍 and 👎 once it is there.

Each carries the id of the event that the reply answers, so it works after a restart too.
"""

from __future__ import annotations

import time
from typing import Any, Literal, Self

import discord
from discord.ext import commands

from bot.asked import Asked
from bot.cogs.asking import Interaction, form_sent
from bot.cogs.errors import tell
from bot.cogs.lasting import LastingButton
from bot.errors import RefusedError, words_for
from bot.place import SpeakChannel, place_of
from bot.replies import LIMIT
from bot.store import StoredReply, Votes
from bot.voices import NO_MENTIONS
from personas.contracts import Persona

MAX_QUESTION = 1500
"""Characters of a question: it is quoted in one message of 2,000."""
FORM = "answer:"
"""How the custom id of the form begins; the event's id follows."""


def quoted(name: str, text: str) -> str:
    """What a member said through a command or a form, as all see it: no line of it can pass for somebody else's."""
    who, lines = f"**{discord.utils.escape_markdown(name)}:**", text.strip().splitlines()
    if len(lines) < 2:
        return f"{who} {text.strip()}"
    quote = "\n".join([who, *(f"> {line}" for line in lines)])
    return quote if len(quote) <= LIMIT else f"{who} {' / '.join(lines)}"[:LIMIT]


class _ReplyButton(LastingButton, template=r"never:"):
    """A button for one reply."""

    def __init__(self, event_id: int, custom_id: str, **look: Any) -> None:
        self.event_id = event_id
        super().__init__(discord.ui.Button(custom_id=f"{custom_id}:{event_id}", **look))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(int(match["event"]))  # type: ignore[call-arg]  # each kind knows its own looks


class StopButton(_ReplyButton, template=r"stop:(?P<event>[0-9]+)"):
    """Stops the reply that it hangs under."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id, "stop", label="Stop")

    async def pressed(self, interaction: Interaction) -> None:
        answerer = interaction.client.house.answerer
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
        reply, persona, channel = _reply_here(interaction, self.event_id)
        rules = interaction.client.house.answerer.rules
        rules.require_voice(interaction)
        rules.require_unmuted(persona, place_of(channel))
        await interaction.response.send_modal(AnswerForm(persona, reply.event_id))


class RegenerateButton(_ReplyButton, template=r"again:(?P<event>[0-9]+)"):
    """Has the reply made anew, in its place."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id, "again", label="Regenerate", emoji="🔄")

    async def pressed(self, interaction: Interaction) -> None:
        _, _, channel = _reply_here(interaction, self.event_id)
        await interaction.response.defer()
        await interaction.client.house.answerer.regenerate(self.event_id, interaction.user, channel)
        interaction.client.dispatch("reply_judged", self.event_id)


class _VoteButton(_ReplyButton, template=r"never vote:"):
    """Counts a vote; pressed again it takes the vote back."""

    vote: Literal[-1, 1]
    face: str

    def __init__(self, event_id: int, count: int = 0) -> None:
        super().__init__(event_id, f"vote{self.vote:+d}", emoji=self.face, label=str(count) if count else None)

    async def pressed(self, interaction: Interaction) -> None:
        reply, _, _ = _reply_here(interaction, self.event_id)
        house = interaction.client.house
        if house.answerer.is_running(reply.event_id):
            raise RefusedError("This reply is being written.", "Vote once it is there.")
        votes = house.store.replies.vote(reply.event_id, interaction.user.id, self.vote, time.time())
        await interaction.response.edit_message(view=ReplyButtons().ended(reply.event_id, votes))
        interaction.client.dispatch("reply_judged", reply.event_id)


class UpButton(_VoteButton, template=r"vote\+1:(?P<event>[0-9]+)"):
    """👍."""

    vote, face = 1, "👍"


class DownButton(_VoteButton, template=r"vote-1:(?P<event>[0-9]+)"):
    """👎."""

    vote, face = -1, "👎"


BUTTONS = (StopButton, AnswerButton, RegenerateButton, UpButton, DownButton)


class ReplyButtons:
    """The views under a reply, as `bot.answering` asks for them."""

    def growing(self, event_id: int) -> discord.ui.View:
        """Stop."""
        return _view(StopButton(event_id))

    def ended(self, event_id: int, votes: Votes) -> discord.ui.View:
        """Reply, Regenerate and the votes with their counts."""
        up, down = UpButton(event_id, votes.up), DownButton(event_id, votes.down)
        return _view(AnswerButton(event_id), RegenerateButton(event_id), up, down)


class AnswerForm(discord.ui.Modal):
    """The form behind Reply. It is read by `ReplyForms`, so that one that was open during a restart still counts."""

    def __init__(self, persona: Persona, event_id: int) -> None:
        super().__init__(title=f"Reply to {persona.name}"[:45], custom_id=f"{FORM}{event_id}")
        self.add_item(
            discord.ui.TextInput(
                label="What you want to say",
                style=discord.TextStyle.paragraph,
                custom_id="text",
                max_length=MAX_QUESTION,
            )
        )


class ReplyForms(commands.Cog):
    """Hears what is written in the form behind Reply."""

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """A form was sent."""
        if sent := form_sent(interaction, FORM):
            try:
                event_id, values = sent
                _, persona, channel = _reply_here(interaction, int(event_id))
                await ask_aloud(interaction, persona, channel, values["text"])
            except Exception as error:
                await tell(interaction, words_for(error))


async def ask_aloud(interaction: Interaction, persona: Persona, channel: SpeakChannel, text: str) -> None:
    """Show a question that came by command or form to all, and have it answered. Raises `RefusedError`."""
    answerer, author = interaction.client.house.answerer, interaction.user
    answerer.rules.require_voice(interaction)
    answerer.rules.require_unmuted(persona, place_of(channel))
    await interaction.response.send_message(
        quoted(author.display_name, text), allowed_mentions=NO_MENTIONS, suppress_embeds=True
    )
    await answerer.answer(Asked(interaction.id, author.id, author.display_name, text), persona, channel)


def _reply_here(interaction: Interaction, event_id: int) -> tuple[StoredReply, Persona, SpeakChannel]:
    """The reply that a button or a form belongs to. Raises `RefusedError` when it is not known any more."""
    house, channel = interaction.client.house, interaction.channel
    reply = house.answerer.rules.require_reply(house.store.replies.get(event_id))
    persona = house.conversations.personas.get(reply.persona_id, reply.guild_id)
    if persona is None or not isinstance(channel, SpeakChannel):
        raise RefusedError("The persona that said this is no longer here.", "Talk to another one.")
    return reply, persona, channel


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view
