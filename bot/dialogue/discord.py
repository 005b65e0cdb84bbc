"""`/persona duet`: a moderator lets two personas talk with each other."""

from contextlib import suppress

import discord
from discord import app_commands
from discord.app_commands import Range

from bot.chat.discord_questions import quote_member
from bot.chat.message_text import has_words
from bot.chat.places import SPEAK_PLACES, GuildChannel, channel_ref
from bot.dialogue.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS, ChannelDialogue, Dialogue
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    PersonaOption,
    channel_persona,
    require_moderator,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    fill_response,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    gettext_lazy,
    gettext_noop,
    interaction_language,
    localise,
    ngettext_lazy,
    override,
)
from bot.platform.messages import markdown_name
from personas.schemas.chat import Turn

MAX_OPENING_CHARS = 1000


@PERSONA.command(
    description=gettext_noop(
        "Let this channel's persona and another one talk with each other (moderators)."
    )
)
@app_commands.describe(
    other=gettext_noop("The other persona"),
    opening=gettext_noop("What you say to both: a question, or a topic"),
    turns=gettext_noop("Maximum number of lines (6 if left out)"),
)
async def duet(
    interaction: Interaction,
    other: PersonaOption,
    opening: Range[str, 1, MAX_OPENING_CHARS],
    turns: Range[int, MIN_TURNS, MAX_TURNS] = DEFAULT_TURNS,
) -> None:
    services = interaction.client.services
    # First, because the answer with helplines comes also where no personas would talk.
    services.safety.require_safe(opening)
    channel = interaction.channel
    if not isinstance(channel, GuildChannel):
        raise RefusedError(
            gettext_lazy(
                "In a server, personas talk with each other in {places}.",
                places=SPEAK_PLACES,
            )
        )
    require_moderator(interaction)
    pair = (channel_persona(interaction), other)
    if pair[0].id == other.id:
        raise RefusedError(
            gettext_lazy("{persona} cannot talk with itself.", persona=markdown_name(other)),
            gettext_lazy("Name another persona."),
        )
    for persona in pair:
        services.reply_service.rules.require_unmuted(persona, channel_ref(channel))
        services.reply_service.rules.age.require(persona, channel)
    services.dialogue_runner.require_none(channel.guild.id)
    await defer(interaction)
    message = await services.message_reader.read_interaction(interaction, opening.strip())
    if not has_words(message.text):
        raise RefusedError(
            gettext_lazy("The opening has no words."), gettext_lazy("Write a question, or a topic.")
        )
    services.dialogue_runner.require_none(channel.guild.id)  # one may have begun meanwhile
    opening_seq = services.reply_service.store_message(message, channel_ref(channel))
    head = quote_member(message.author_name, opening.strip())
    both = gettext_lazy(
        "{names} and {name}", names=markdown_name(pair[0]), name=markdown_name(other)
    )

    def buttons() -> discord.ui.View:
        return button_view(DialogueStopButton(opening_seq))

    async def on_end(why: str) -> None:
        note = ngettext_lazy(
            "{personas} have talked, {count} line: {why}",
            "{personas} have talked, {count} lines: {why}",
            len(talk.duet.lines),
            personas=both,
            why=why,
        )
        text = f"{head}\n-# {localise(note)}"
        with suppress(discord.HTTPException):  # it may have been deleted
            await channel.get_partial_message(first_id).edit(content=text, view=None)

    talk = ChannelDialogue(
        channel=channel,
        personas=pair,
        duet=Dialogue(
            (pair[0].name, other.name), Turn(message.author_name, message.text), limit=turns
        ),
        requested_by=interaction.user.id,
        opening_seq=opening_seq,
        conversation=services.store.messages.conversation_of(opening_seq),
        buttons=buttons,
        on_end=on_end,
    )
    note = gettext_lazy(
        "{personas} talk with each other, up to {count} lines. Stop ends it, and so does anyone who "
        "talks to them.",
        personas=both,
        count=turns,
    )
    with (
        services.dialogue_runner.running(talk),
        # The task of the duet inherits it.
        override(interaction_language(interaction, is_private=False)),
    ):
        try:
            first_id = await fill_response(
                interaction,
                f"{head}\n-# {localise(note)}",
                buttons(),
                suppress_embeds=True,
            )
        except Exception:  # nobody saw the opening
            services.store.messages.take_back(opening_seq)
            raise
        await services.dialogue_runner.perform(talk, services.reply_service)


class DialogueStopButton(PersistentButton, template=r"duet-stop:(?P<begun_at>[0-9]+)"):
    """Stops the duet that began with this stored message; the button of one that is over goes."""

    label = gettext_lazy("Stop")
    begun_at: str

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        talk = services.dialogue_runner.of_guild(interaction.guild_id or 0)
        if talk is None or talk.opening_seq != int(self.begun_at):
            await update_message(interaction, view=None)
            return
        services.reply_service.rules.require_owner(
            talk.requested_by,
            interaction.user,
            gettext_lazy("Only the one who asked, or a moderator, can stop this duet."),
        )
        talk.stop()
        await defer(interaction)
