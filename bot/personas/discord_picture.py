"""**Picture or card** below a persona of a server: a form that takes a file."""

from typing import Any

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS
from bot.personas.card_import import BOOK_LORE_NAME, import_character_book
from bot.personas.creation import FIELD_LABELS, MAX_PICTURE_BYTES, CardFile
from bot.personas.discord_lore import guild_lore
from bot.platform.discord_kit.transformers import (
    Interaction,
    request_origin,
    require_guild_moderator,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    MAX_TITLE_CHARS,
    PersistentButton,
    button_view,
    defer,
    fitting_text,
    form,
    respond,
    send_form,
    submitted_files,
)
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localise, translate
from bot.platform.messages import markdown_name
from personas.errors import UnderstudyError

PICTURE_FORM_PREFIX = "persona-picture:"
"""Prefix of the form's custom id; the persona's id follows."""
DM_TEXT = gettext_lazy("A persona is changed in its server.")
AGAIN_TEXT = gettext_lazy("Try again")


def upload_field(label: str, hint: str) -> discord.ui.Label[Any]:
    """A field of a form for one file."""
    upload: discord.ui.FileUpload[Any] = discord.ui.FileUpload(
        custom_id="file", min_values=1, max_values=1, required=True
    )
    return discord.ui.Label(text=label, description=hint, component=upload)


def require_one_file(interaction: Interaction) -> discord.Attachment:
    """The file of a submitted form that takes one. Raises `RefusedError`."""
    files = submitted_files(interaction)
    if len(files) != 1:
        raise RefusedError(
            gettext_lazy("The form has no file, or several."), gettext_lazy("Choose one file.")
        )
    return files[0]


def require_small(attachment: discord.Attachment) -> None:
    """Raise `RefusedError` for a file that is larger than a picture may be."""
    if attachment.size > MAX_PICTURE_BYTES:
        raise RefusedError(
            gettext_lazy(
                "{file} has more than {size} MB.",
                file=attachment.filename,
                size=MAX_PICTURE_BYTES // 2**20,
            ),
            gettext_lazy("Choose a smaller picture. `/persona import` takes cards of up to 25 MB."),
        )


async def read_card_file(attachment: discord.Attachment) -> CardFile:
    """Read a picture or card. Raises `RefusedError`."""
    try:
        return CardFile(attachment.filename, await attachment.read())
    except (discord.HTTPException, *UNCERTAIN_ERRORS):
        raise RefusedError(
            gettext_lazy("Discord does not deliver the file."), gettext_lazy("Try again.")
        ) from None


class PictureButton(PersistentButton, template=r"persona-picture:(?P<persona>[a-z0-9][a-z0-9_-]*)"):
    """Opens a form for a picture or card of a persona."""

    label = FIELD_LABELS["file"]
    moderators_only = True
    persona: str

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona)
        hint = gettext_noop(
            "At most 8 MB. A character card fills in what the persona's card leaves empty."
        )
        field = upload_field(localise(FIELD_LABELS["file"]), translate(hint))
        title = fitting_text(
            gettext_noop("Picture of {persona}"),
            max_chars=MAX_TITLE_CHARS,
            persona=persona.name,
        )
        await send_form(interaction, form(title, f"{PICTURE_FORM_PREFIX}{persona.id}", field))


async def picture_from_form(
    interaction: Interaction, persona_id: str, values: dict[str, str]
) -> None:
    """Give a persona the file of a submitted form, or say what is wrong and offer the form again."""
    require_guild_moderator(interaction, DM_TEXT)
    persona = require_persona(interaction, persona_id)
    await defer(interaction, ephemeral=True, thinking=True)
    services = interaction.client.services
    origin = request_origin(interaction)
    try:
        attachment = require_one_file(interaction)
        require_small(attachment)
        file = await read_card_file(attachment)
        added = await services.creation.add_file(origin, persona, file)
    except UnderstudyError as error:
        again = PictureButton(persona_id, label=AGAIN_TEXT)
        await respond(interaction, error_text(error), button_view(again))
        return
    name = markdown_name(added.persona)
    done = gettext_lazy("changed the picture of {persona}", persona=f"**{name}**")
    lines: list[str] = []
    if added.has_new_picture:
        lines.append(
            gettext_lazy("**{persona}** has this picture from the next reply on.", persona=name)
        )
    if added.has_new_fields:
        done = gettext_lazy("edited the card of {persona}", persona=f"**{name}**")
        lines.append(
            gettext_lazy(
                "What was empty in the card of **{persona}** comes from {file} now.",
                persona=name,
                file=discord.utils.escape_markdown(file.name),
            )
        )
    lore = guild_lore(services)
    files = lore.files(origin.guild_id, added.persona.id)
    if added.card and not any(file.startswith(BOOK_LORE_NAME) for file in files):
        notes, _ = await import_character_book(lore, origin.guild_id, added.persona, added.card)
        lines += notes
    if not lines:
        nothing = gettext_lazy("**{persona}** has this picture already.", persona=name)
        if added.card:
            nothing = gettext_lazy("**{persona}** has all that this card has.", persona=name)
        await respond(interaction, nothing)
        return
    services.audit.record(origin.guild_id, origin.user_id, done)
    await respond(interaction, join_texts(*lines, separator="\n"))
