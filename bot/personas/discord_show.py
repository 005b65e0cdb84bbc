"""`/persona show`: the card of a channel's persona, with its picture and buttons."""

import asyncio
import io

import discord
from discord import ui

from bot.chat.picture_content import shrink_picture
from bot.chat.places import ChannelRef, GuildChannel, channel_ref
from bot.chat.reply_text import discord_text
from bot.faces.texts import face_text
from bot.guild_settings.definitions import GENERATION
from bot.guild_settings.discord_groups import setting_lines
from bot.moderation.roles import RolePermissions
from bot.personas.discord import further_text, live_text
from bot.personas.discord_create import EditPersonaButton, TalkButton, TrainButton
from bot.personas.discord_picture import PictureButton
from bot.platform import permissions
from bot.platform.discord_kit.layouts import Item, button_row, card_layout, fit_texts
from bot.platform.discord_kit.transformers import PERSONA, Interaction, require_speak_channel
from bot.platform.discord_kit.ui import defer, respond_with_layout
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localise
from bot.platform.messages import markdown_name
from bot.services import Services
from bot.store import Channel
from personas.home.persona_ids import short_id
from personas.schemas.chat import Persona

PICTURE_FILE = "picture.jpg"
REST_TEXT = gettext_lazy("-# The rest is on the persona's page.")


@PERSONA.command(description=gettext_noop("Show the persona of this channel."))
async def show(interaction: Interaction) -> None:
    services = interaction.client.services
    place = channel_ref(require_speak_channel(interaction))
    setting = services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
    persona = services.persona_in(place)
    if setting is None or persona is None:
        raise RefusedError(
            gettext_lazy("No persona lives here."),
            gettext_lazy("A moderator can change that with `/persona set`."),
        )
    await defer(interaction, ephemeral=True)
    picture = await asyncio.to_thread(_picture, persona)
    texts = [
        _who_text(interaction, persona, setting=setting, place=place),
        _replies_text(services, persona, place),
    ]
    who, *more = fit_texts([localise(text) for text in texts], localise(REST_TEXT))
    items: list[Item] = [ui.TextDisplay(who)]
    if picture:
        items = [ui.Section(who, accessory=ui.Thumbnail(picture))]
    for text in more:
        items += [ui.Separator(), ui.TextDisplay(text)]
    items += button_row(_buttons(interaction, persona, place))
    files = (picture,) if picture else ()
    await respond_with_layout(interaction, card_layout(*items), files=files)


def _who_text(
    interaction: Interaction, persona: Persona, *, setting: Channel, place: ChannelRef
) -> str:
    """Say who the persona is, which messages it answers, and which version of it is live."""
    services = interaction.client.services
    live = live_text(services, persona, place.guild_id) or gettext_lazy(
        "base model (not trained yet)"
    )
    lines: list[str] = [
        f"### **{markdown_name(persona)}** (`{short_id(persona, place.guild_id)}`)",
        discord_text(persona.tagline),
        gettext_lazy(
            "{answers}. Live: {version}.",
            answers=_answers_text(interaction, persona, setting=setting, place=place),
            version=live,
        ),
    ]
    return join_texts(*filter(None, lines), separator="\n")


def _answers_text(
    interaction: Interaction, persona: Persona, *, setting: Channel, place: ChannelRef
) -> str:
    """Say which messages the persona answers in a channel."""
    rules = interaction.client.services.reply_service.rules
    if rules.muted(persona, place):
        return gettext_lazy("Muted by a moderator (`/persona unmute`)")
    if rules.age.refuses(persona, interaction.channel):
        return gettext_lazy("Silent here: it is age-restricted, and this channel is not")
    if setting.answers == "everything" or not place.guild_id:
        return gettext_lazy("Answers every message, and /chat")
    return gettext_lazy("Answers messages that mention me, and /chat")


def _replies_text(services: Services, persona: Persona, place: ChannelRef) -> str:
    """Say what holds for its replies, and who else answers in the channel."""
    lines = setting_lines(services, GENERATION, persona, place)
    if further := services.personas_in(place)[1:]:
        lines.append(further_text(further))
    if place.guild_id and (face := services.faces.chosen(place.guild_id)):
        lines.append(face_text(services.faces, face, place.guild_id))
    return join_texts(*lines, separator="\n")


def _picture(persona: Persona) -> discord.File | None:
    """Return a persona's picture, made small; None for one that has none or a damaged one."""
    if persona.avatar is None or not persona.avatar.is_file():
        return None
    small = shrink_picture(PICTURE_FILE, persona.avatar.read_bytes())
    if small is None:
        return None
    return discord.File(io.BytesIO(small.data), PICTURE_FILE, description=persona.name)


def _buttons(interaction: Interaction, persona: Persona, place: ChannelRef) -> list[Item]:
    """Return the buttons that the member may press here."""
    if not isinstance(interaction.channel, GuildChannel):
        return []
    services = interaction.client.services
    roles = RolePermissions(services.store)
    buttons: list[Item] = []
    if roles.allows(interaction.user, place.guild_id, "talk"):
        buttons.append(TalkButton(persona.id))
    if permissions.is_moderator(interaction.user) and persona in services.personas.own(
        place.guild_id
    ):
        buttons.append(EditPersonaButton(persona.id))
        buttons.append(PictureButton(persona.id))
    if roles.allows(interaction.user, place.guild_id, "train"):
        buttons.append(TrainButton(persona.id))
    return buttons
