"""`/chat` where the bot is not: a person has installed it for themself, and uses it in other servers,
in groups and in messages between people.

Nothing of the place is read, and it is not stored. The persona is the one that the member chooses
there, of those that all servers share.
"""

from datetime import timedelta

import discord

from bot.chat.discord_questions import ask_publicly, require_outside
from bot.chat.message_reader import IncomingMessage
from bot.chat.places import channel_ref, is_outside, outside_channel
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    MENU_NUMBER,
    PersistentButton,
    PersistentPersonaSelect,
    button_view,
    respond,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.services import Services
from personas.schemas.chat import Persona

MAX_QUESTION_AGE = timedelta(minutes=15)
"""A question that has waited longer for the choice of a persona is not asked any more."""
CHOOSE_TEXT = gettext_lazy("Whom do you want to talk to?")


async def ask_outside(interaction: Interaction, text: str) -> None:
    """Have a question answered where the bot is not, by the persona that the member has chosen
    there, or chooses now. Raises `RefusedError` where the operator does not allow that.
    """
    services = interaction.client.services
    require_outside(services)
    channel = outside_channel(interaction)
    if persona := services.persona_in(channel_ref(channel)):
        await ask_publicly(interaction, [persona], channel, text)
        return
    view = outside_select_view(services)
    user = interaction.user
    services.unanswered[channel.id] = IncomingMessage(
        event_id=interaction.id, author_id=user.id, author_name=user.display_name, text=text
    )
    await respond(interaction, CHOOSE_TEXT, view)


class OtherPersonaButton(PersistentButton, template=r"other-persona"):
    """Offers the menu of personas, where the bot is not."""

    label = gettext_lazy("Somebody else")

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        require_outside(services)
        view = outside_select_view(services)
        await respond(interaction, CHOOSE_TEXT, view)


class OutsidePersonaSelect(
    PersistentPersonaSelect, template=f"choose-persona-outside{MENU_NUMBER}"
):
    """The persona menu of a member where the bot is not."""

    async def chosen(self, interaction: Interaction, persona_id: str) -> None:
        services = interaction.client.services
        require_outside(services)
        persona = services.personas.get(persona_id, 0)
        if persona is None or not is_outside(interaction):
            raise RefusedError(
                gettext_lazy("This persona is no longer here."),
                gettext_lazy("Use `/chat` for a new menu."),
            )
        channel = outside_channel(interaction)
        services.reply_service.assign(
            persona, channel, answers="mentions", user_id=interaction.user.id
        )
        message = services.unanswered.pop(channel.id, None)
        if message and _is_recent(message):
            await ask_publicly(interaction, [persona], channel, message.text)
        else:
            chosen = gettext_lazy(
                "**{persona}** answers your `/chat` here now.", persona=markdown_name(persona)
            )
            await respond(interaction, chosen)


def _is_recent(message: IncomingMessage) -> bool:
    """Report whether the talk in which a question was asked has hardly gone on since."""
    asked_at = discord.utils.snowflake_time(message.event_id)
    return discord.utils.utcnow() - asked_at < MAX_QUESTION_AGE


def outside_select_view(services: Services) -> discord.ui.View:
    """Return the menus of the shared personas that are not age-restricted. Raises `RefusedError`
    when there are none.
    """
    return button_view(*OutsidePersonaSelect.menus(direct_personas(services)))


def direct_personas(services: Services) -> list[Persona]:
    """List the shared personas that speak in direct messages, and where the bot is not. Raises
    `RefusedError` when there are none.
    """
    age = services.reply_service.rules.age
    personas = [each for each in services.personas.of(0).values() if not age.applies(each, 0)]
    if not personas:
        raise RefusedError(
            gettext_lazy("There are no personas here."),
            gettext_lazy("The operator can add cards to personas/cards."),
        )
    return personas


OUTSIDE_ITEMS = (OtherPersonaButton, OutsidePersonaSelect)
