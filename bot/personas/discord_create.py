"""`/persona create`: a new persona from a form, its first channel, and the next steps."""

import asyncio
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import discord
from discord import app_commands

from bot.chat.delivery import UNCERTAIN_ERRORS
from bot.chat.discord_questions import MAX_QUESTION_CHARS, ask_publicly
from bot.chat.places import SPEAK_PLACES, GuildChannel, channel_ref, usual_answers
from bot.moderation.age import AgeRestrictedError
from bot.personas.card_import import import_character_book
from bot.personas.creation import (
    FIELD_HINTS,
    FIELD_LABELS,
    MAX_FIELD_CHARS,
    CardFile,
    InvalidFormError,
    PersonaForm,
)
from bot.personas.discord import assigned_text
from bot.personas.discord_lore import AddLoreButton, guild_lore
from bot.personas.discord_picture import PictureButton, read_card_file, require_small
from bot.personas.discord_undo import PERSONA_ID
from bot.platform.discord_kit.refused_forms import (
    NOTHING_LOST_TEXT,
    READ_TIMEOUT_S,
    TYPED_FILE,
    TryAgainButton,
)
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    guild_moderators_only,
    request_origin,
    require_guild_moderator,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    MAX_BUTTON_CHARS,
    MAX_TITLE_CHARS,
    PersistentButton,
    button_view,
    defer,
    edit_response,
    fitting_text,
    form,
    respond,
    send_form,
    text_field,
)
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import (
    gettext_lazy,
    gettext_noop,
    join_texts,
    localise,
    ngettext_lazy,
    translate,
)
from bot.platform.messages import MAX_MESSAGE_CHARS, NO_MENTIONS, markdown_name
from bot.training.discord_ways import show_training_ways
from personas.card.example_lines import count_examples, first_unlabelled_answer
from personas.card.spec_card import JsonObject
from personas.errors import CardError, UnderstudyError
from personas.home.persona_ids import short_id
from personas.schemas.chat import Persona

CREATE_FORM_PREFIX = "create:"
"""Prefix of the form's custom id; `here` or `later` follows, and the command's interaction id."""
EDIT_FORM_PREFIX = "edit:"
"""Prefix of the form's custom id; the persona's id follows, and the stamp of the fields that it was
opened with.
"""
TALK_FORM_PREFIX = "talk:"
"""Prefix of the form's custom id; the persona's id follows."""
DM_TEXT = gettext_lazy("A persona is created in a server.")
MAX_MODAL_VALUE_CHARS = 4000
PLACEHOLDERS = {
    "name": "Marlow Finch",
    "description": gettext_lazy(
        "A retired lighthouse keeper who now repairs clocks and misses the fog."
    ),
    "speech": gettext_lazy(
        "Slowly, in short sentences, and never without a remark about the weather."
    ),
    # The card is read by these marks in any language.
    "mes_example": "You: How was your day?\nMarlow: Long. The tide was late again.",
    "first_mes": gettext_lazy("Mind the step. It was a ladder once."),
}
KEPT_TEXT = gettext_lazy("Too long for this form. Left empty, it stays as the card has it.")
"""A placeholder, for which Discord has 100 characters."""
NEW_PERSONA_TITLE = gettext_noop("New persona")
EDIT_TITLE = gettext_noop("Edit {persona}")
REQUIRED_FIELDS = ("name", "description")


@guild_moderators_only(DM_TEXT)
@PERSONA.command(
    description=gettext_noop("Create a persona in a form, without a file (moderators).")
)
@app_commands.describe(
    picture=gettext_noop(
        "Its picture, or a character card that fills in what you leave empty; at most 8 MB"
    ),
    use_here=gettext_noop("Give it this channel at once (a button offers it if left out)"),
)
async def create(
    interaction: Interaction,
    picture: discord.Attachment | None = None,
    use_here: bool = False,
) -> None:
    # Refused now, and not once the persona is stored or the form is filled in.
    _channel(interaction)
    interaction.client.services.personas.require_room(interaction.guild_id or 0)
    typed = PersonaForm()
    where = "here" if use_here else "later"
    custom_id = f"{CREATE_FORM_PREFIX}{where}"
    if picture:
        require_small(picture)
        typed = await _fields_of_card(picture)
        interaction.client.services.form_files[interaction.id] = picture
        custom_id += f":{interaction.id}"
    title = translate(NEW_PERSONA_TITLE)
    await send_form(interaction, persona_form(title, custom_id, typed))


async def _fields_of_card(attachment: discord.Attachment) -> PersonaForm:
    """The fields of a card to open the form with; none of a picture, or of a file that comes too
    late. The form's submission reads it again, and says what is wrong with it.
    """
    with suppress(discord.HTTPException, CardError, *UNCERTAIN_ERRORS):
        async with asyncio.timeout(READ_TIMEOUT_S):
            file = CardFile(attachment.filename, await attachment.read())
            card = await asyncio.to_thread(file.card)
        if card:
            return PersonaForm().filled_from(card)
    return PersonaForm()


def persona_form(title: str, custom_id: str, typed: PersonaForm) -> discord.ui.Modal:
    """The form of a persona, with what was typed. Fields that are too long for Discord come from a
    card, and are left empty: it keeps them.
    """
    labels = []
    for key, label in FIELD_LABELS.items():
        if key not in MAX_FIELD_CHARS:
            continue
        value = getattr(typed, key)
        placeholder = PLACEHOLDERS[key]
        is_kept = len(value) > MAX_MODAL_VALUE_CHARS
        if is_kept:
            value = ""
            placeholder = KEPT_TEXT
        style = discord.TextStyle.short if key == "name" else discord.TextStyle.paragraph
        box = discord.ui.TextInput[discord.ui.Modal](
            custom_id=key,
            style=style,
            default=value or None,
            placeholder=localise(placeholder),
            required=key in REQUIRED_FIELDS and not is_kept,
            max_length=max(MAX_FIELD_CHARS[key], len(value)),
        )
        hint = localise(FIELD_HINTS[key])
        text = localise(label)
        labels.append(discord.ui.Label(text=text, description=hint, component=box))
    return form(title, custom_id, *labels)


async def create_from_form(interaction: Interaction, rest: str, values: dict[str, str]) -> None:
    """Create the persona of a submitted form, or show what is wrong and offer the form again."""
    require_guild_moderator(interaction, DM_TEXT)
    where, _, interaction_id = rest.partition(":")
    typed = PersonaForm.of_fields(values)
    await _acknowledge(interaction)
    file = None
    try:
        file = await _attached_file(interaction, interaction_id)
        services = interaction.client.services
        imported = await services.creation.create(request_origin(interaction), typed, file)
    except UnderstudyError as error:
        await _offer_again(interaction, f"{CREATE_FORM_PREFIX}{where}", typed, file, error=error)
        return
    services.form_files.pop(int(interaction_id or 0), None)
    persona = imported.brought.persona
    services.audit.record(
        interaction.guild_id or 0,
        interaction.user.id,
        gettext_lazy("created the persona {persona}", persona=f"**{markdown_name(persona)}**"),
    )
    notes, _ = await import_character_book(
        guild_lore(services), interaction.guild_id or 0, persona, imported.card
    )
    notes = [*_example_notes(persona, typed), *notes]
    if interaction_id and file is None:
        notes.append(
            gettext_lazy(
                "Its picture or card was lost when the bot restarted: what was left empty is missing."
            )
        )
    try:
        services.reply_service.rules.age.require(persona, interaction.channel)
    except AgeRestrictedError as error:
        notes.append(error_text(error))
        where = ""
    if where == "here":
        await _use_here(interaction, persona, notes)
        return
    name = short_id(persona, interaction.guild_id or 0)
    use_here = UseHereButton.of(interaction, persona)
    label = discord.utils.escape_markdown(use_here.item.label or "")
    press = gettext_lazy("Press **{button}**: they answer there from then on.", button=label)
    if persona.first_mes:
        press = gettext_lazy("Press **{button}**: they say their first line there.", button=label)
    steps: list[str] = [press]
    if use_here.replaces_others:
        steps.append(
            gettext_lazy(
                "Or give them another channel: type `{command}` there.",
                command=f"/persona set persona:{name}",
            )
        )
    head = gettext_lazy(
        "**{persona}** (`{id}`) is a persona of this server now.",
        persona=markdown_name(persona),
        id=name,
    )
    edit = EditPersonaButton(persona.id)
    text = join_texts(head, *notes, *steps, separator="\n")
    buttons: list[PersistentButton] = [use_here, edit]
    if not persona.avatar:
        buttons.append(PictureButton(persona.id))
    await _show(interaction, text, button_view(*buttons))


async def edit_from_form(interaction: Interaction, rest: str, values: dict[str, str]) -> None:
    """Save the form of a persona that was created here before, unless somebody else has changed its
    card since the form was opened.
    """
    require_guild_moderator(interaction, DM_TEXT)
    persona_id, _, stamp = rest.partition(":")
    persona = require_persona(interaction, persona_id)
    typed = PersonaForm.of_fields(values)
    await _acknowledge(interaction)
    services = interaction.client.services
    table = services.personas.table(persona.id)
    try:
        typed = _with_long_fields(typed, table)
        persona = await services.creation.edit(
            request_origin(interaction), persona, typed, stamp=stamp
        )
    except UnderstudyError as error:
        form_id = _edit_form_id(persona, table)
        await _offer_again(interaction, form_id, typed, None, error=error)
        return
    services.audit.record(
        interaction.guild_id or 0,
        interaction.user.id,
        gettext_lazy("edited the card of {persona}", persona=f"**{markdown_name(persona)}**"),
    )
    head = gettext_lazy(
        "**{persona}** speaks by this card from the next reply on.", persona=markdown_name(persona)
    )
    text = join_texts(head, *_example_notes(persona, typed), separator="\n")
    await _show(interaction, text, _next_steps(persona))


def _edit_form_id(persona: Persona, table: JsonObject) -> str:
    return f"{EDIT_FORM_PREFIX}{persona.id}:{PersonaForm.of_table(table).stamp}"


def _with_long_fields(typed: PersonaForm, table: JsonObject) -> PersonaForm:
    """Fill the fields that a form left empty because those of the card are too long for it."""
    own = asdict(PersonaForm.of_table(table, typed.name))
    long = {key: text for key, text in own.items() if len(text) > MAX_MODAL_VALUE_CHARS}
    return replace(typed, **{key: text for key, text in long.items() if not getattr(typed, key)})


def _example_notes(persona: Persona, typed: PersonaForm) -> list[str]:
    """Say how many examples a form's card has, if any, and which line may be none."""
    count = count_examples(persona.mes_example, persona.name)
    if not count:
        return []
    notes: list[str] = [
        ngettext_lazy(
            "They have {count} example of how they talk.",
            "They have {count} examples of how they talk.",
            count,
        )
    ]
    if line := first_unlabelled_answer(typed.mes_example, persona.name):
        notes.append(
            gettext_lazy(
                "“{line}” names nobody, and counts as an answer of {persona}. An example is "
                "“You: …” and, on the next line, “{persona}: …”.",
                line=discord.utils.escape_markdown(line),
                persona=markdown_name(persona),
            )
        )
    return notes


async def talk_from_form(interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
    """Have the text of a submitted form answered by the persona in this channel, where it lives."""
    # First, as in `ask_publicly`: also where the persona is gone.
    interaction.client.services.safety.require_safe(values["text"])
    persona = require_persona(interaction, persona_id)
    channel = _channel_of(interaction, persona)
    await ask_publicly(interaction, [persona], channel, values["text"])


# ---------------------------------------------------------------------------------------- responses


async def _acknowledge(interaction: Interaction) -> None:
    """Acknowledge a form: the message that opened it is edited, or there will be a new one."""
    if _opened_by_text(interaction):
        await defer(interaction)
    else:
        await defer(interaction, ephemeral=True, thinking=True)


def _opened_by_text(interaction: Interaction) -> bool:
    """Report whether the form was opened by a button that stands below a text; a layout takes none."""
    message = interaction.message
    return message is not None and not message.flags.components_v2


async def _show(
    interaction: Interaction,
    text: str,
    view: discord.ui.View | None = None,
    *,
    files: Mapping[str, bytes] | None = None,
) -> None:
    attached = [discord.File(io.BytesIO(content), name) for name, content in (files or {}).items()]
    if _opened_by_text(interaction):
        await edit_response(
            interaction,
            content=localise(text)[:MAX_MESSAGE_CHARS],
            view=view,
            attachments=attached,
            allowed_mentions=NO_MENTIONS,
        )
    else:
        await respond(interaction, text, view, files=attached)


async def _offer_again(
    interaction: Interaction,
    form_id: str,
    typed: PersonaForm,
    file: CardFile | None,
    *,
    error: UnderstudyError,
) -> None:
    """Show what is wrong, with a button that opens the form with what was typed."""
    lines: list[str] = []
    if isinstance(error, InvalidFormError):
        for key, problem in error.wrong.items():
            field = gettext_lazy("**{field}:**", field=FIELD_LABELS[key]) if key else ""
            lines.append(join_texts(field, problem) if field else problem)
    else:
        lines.append(error_text(error))
    is_good_file = file is not None and "file" not in getattr(error, "wrong", {})
    if file and is_good_file and (card := await asyncio.to_thread(file.card)):
        typed = typed.filled_from(card)  # as the persona would be
    files = {TYPED_FILE: typed.dump()}
    if file and is_good_file:
        files[file.name] = file.content
    lines.append(NOTHING_LOST_TEXT)
    button = PersonaFormAgainButton(form_id)
    text = join_texts(*lines, separator="\n")
    await _show(interaction, text, button_view(button), files=files)


async def _attached_file(interaction: Interaction, interaction_id: str) -> CardFile | None:
    """The picture or card that came with a form: with its command, or with its refusal. None where
    there is none, and for a command from before a restart. Raises `RefusedError`.
    """
    attachment = None
    if interaction.message:
        for candidate in interaction.message.attachments:
            if candidate.filename != TYPED_FILE:
                attachment = candidate
    elif interaction_id.isdecimal():
        attachment = interaction.client.services.form_files.get(int(interaction_id))
    return await read_card_file(attachment) if attachment else None


async def _use_here(interaction: Interaction, persona: Persona, notes: list[str]) -> None:
    """Give the persona this channel, where it says its first line once."""
    channel = _channel(interaction)
    bot = interaction.client
    answers = usual_answers(bot)
    service = bot.services.reply_service
    is_new = service.assign(persona, channel, answers=answers, user_id=interaction.user.id)
    text = join_texts(
        assigned_text(persona, channel, answers=answers, can_read=bot.intents.message_content),
        *notes,
        gettext_lazy("**What next?**"),
        gettext_lazy("1. **Talk to them:** write in {channel}.", channel=channel.mention),
        gettext_lazy("2. **Teach them:** lore is what they look up, examples are how they talk."),
        gettext_lazy(
            "3. **Train them** on replies that a model writes from their card, on lore, or on a "
            "chat log."
        ),
        separator="\n",
    )
    await _show(interaction, text, _next_steps(persona))
    if is_new:  # last, as Discord may refuse it
        await service.greet(persona, channel, interaction.user.display_name)


def _next_steps(persona: Persona) -> discord.ui.View:
    edit = gettext_lazy("Edit, add examples")
    buttons: list[PersistentButton] = [
        TalkButton(persona.id),
        AddLoreButton(persona.id),
        EditPersonaButton(persona.id, label=edit),
        TrainButton(persona.id),
    ]
    if not persona.avatar:
        buttons.append(PictureButton(persona.id))
    return button_view(*buttons)


def _channel(interaction: Interaction) -> GuildChannel:
    if not isinstance(interaction.channel, GuildChannel):
        raise RefusedError(
            gettext_lazy("Personas live in {places}.", places=SPEAK_PLACES),
            gettext_lazy("Try it in one of them."),
        )
    return interaction.channel


def _channel_of(interaction: Interaction, persona: Persona) -> GuildChannel:
    """Return the channel, in which the persona lives. Raises `RefusedError` where it does not, as
    after `/persona clear`.
    """
    channel = _channel(interaction)
    if persona not in interaction.client.services.personas_in(channel_ref(channel)):
        raise RefusedError(
            gettext_lazy("{persona} does not live here.", persona=markdown_name(persona)),
            gettext_lazy("`/persona set` gives it a channel."),
        )
    return channel


# ------------------------------------------------------------------------------------------ buttons


class PersonaFormAgainButton(TryAgainButton, template=r"retry-form:(?P<form>.+)"):
    """Opens a refused form of a persona with what was typed."""

    form: str
    moderators_only = True

    def form_with(self, interaction: Interaction, typed: Mapping[str, str]) -> discord.ui.Modal:
        fields = PersonaForm.of_fields(typed)
        title = translate(NEW_PERSONA_TITLE)
        if self.form.startswith(EDIT_FORM_PREFIX):
            title = fitting_text(EDIT_TITLE, max_chars=MAX_TITLE_CHARS, persona=fields.name)
        return persona_form(title, self.form, fields)


class _PersonaButton(PersistentButton, template=r"never persona:"):
    """A button about one persona."""

    persona: str

    def require(self, interaction: Interaction) -> Persona:
        """Find the persona. Raises `RequestError` if it is gone."""
        return require_persona(interaction, self.persona)


class UseHereButton(_PersonaButton, template=rf"use-here:{PERSONA_ID}"):
    """Gives the persona this channel; where another one has it, no primary button."""

    moderators_only = True
    replaces_others = False

    @classmethod
    def of(cls, interaction: Interaction, persona: Persona) -> "UseHereButton":
        """The button for a channel, whose label names it, and the persona that moves out."""
        channel = _channel(interaction)
        source = gettext_noop("Use it in #{channel}")
        names = {"channel": str(channel)}
        others = interaction.client.services.personas_in(channel_ref(channel))
        if others:
            source = gettext_noop("Use it in #{channel}, in place of {personas}")
            names["personas"] = ", ".join(other.name for other in others)
        label = fitting_text(source, max_chars=MAX_BUTTON_CHARS, **names)
        button = cls(persona.id, label=label)
        button.replaces_others = bool(others)
        if not others:
            button.item.style = discord.ButtonStyle.primary
        return button

    async def pressed(self, interaction: Interaction) -> None:
        persona = self.require(interaction)
        await defer(interaction)
        await _use_here(interaction, persona, [])


class EditPersonaButton(_PersonaButton, template=rf"edit-persona:{PERSONA_ID}"):
    """Opens the form of a persona with its card's fields."""

    label = gettext_lazy("Edit")
    moderators_only = True

    async def pressed(self, interaction: Interaction) -> None:
        persona = self.require(interaction)
        table = interaction.client.services.personas.table(persona.id)
        typed = PersonaForm.of_table(table)
        form_id = _edit_form_id(persona, table)
        title = fitting_text(EDIT_TITLE, max_chars=MAX_TITLE_CHARS, persona=persona.name)
        await send_form(interaction, persona_form(title, form_id, typed))


class TalkButton(_PersonaButton, template=rf"talk:{PERSONA_ID}"):
    """Opens a form for a message to the persona."""

    label = gettext_lazy("Talk to them")
    style = discord.ButtonStyle.primary
    actions = ("talk",)

    async def pressed(self, interaction: Interaction) -> None:
        persona = self.require(interaction)
        _channel_of(interaction, persona)
        label = translate(gettext_noop("What you want to say"))
        text = text_field(label, "text", MAX_QUESTION_CHARS)
        form_id = f"{TALK_FORM_PREFIX}{persona.id}"
        title = fitting_text(
            gettext_noop("Talk to {persona}"),
            max_chars=MAX_TITLE_CHARS,
            persona=persona.name,
        )
        await send_form(interaction, form(title, form_id, text))


class TrainButton(_PersonaButton, template=rf"how-to-train:{PERSONA_ID}"):
    """Says how to train the persona, and offers the way that needs nothing but its card."""

    label = gettext_lazy("Train them")
    moderators_only = True
    actions = ("train",)

    async def pressed(self, interaction: Interaction) -> None:
        await show_training_ways(interaction, self.require(interaction))


CREATION_BUTTONS: tuple[Any, ...] = (
    PersonaFormAgainButton,
    PictureButton,
    UseHereButton,
    EditPersonaButton,
    TalkButton,
    AddLoreButton,
    TrainButton,
)
