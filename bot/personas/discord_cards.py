"""`/persona import|export`: character cards, and adapters from outside."""

import asyncio
import io
import tempfile
import zlib
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

from bot.personas.card_import import (
    FILE_SUFFIXES,
    MAX_CARD_BYTES,
    CardImport,
    export_card,
    import_card,
    import_character_book,
    log_card_export,
    undo_replacement,
)
from bot.personas.creation import CardFile
from bot.personas.discord_create import UseHereButton
from bot.personas.discord_import_list import with_import_list
from bot.personas.discord_lore import guild_lore
from bot.personas.discord_picture import (
    PictureButton,
    read_card_file,
    require_one_file,
    upload_field,
)
from bot.personas.discord_undo import ENTRY, PERSONA_ID, UndoButton, Undone
from bot.personas.registry import PersonaExistsError
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    PersonaOption,
    guild_moderators_only,
    request_origin,
    require_guild_moderator,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    edit_response,
    respond,
    send_form,
)
from bot.platform.discord_kit.ui import form as make_form
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localise, translate
from bot.platform.messages import NO_MENTIONS, markdown_name
from bot.platform.request_origin import RequestOrigin
from bot.services import Services
from bot.store import TrainingJob
from bot.training.discord_progress import job_buttons
from bot.versions.adapter_import import import_adapter_version
from bot.versions.installation import VersionInstaller
from personas.card.card_report import report_fields
from personas.card.card_writer import CardForm
from personas.errors import UnderstudyError
from personas.home.external_adapter import HUB_PREFIX
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.persona_ids import short_id
from personas.outside_names import last_part
from personas.prompt.renderer import MAX_CARD_TOKENS
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportReport

DM_TEXT = gettext_lazy("Cards belong to a server.")
IMPORT_FORM_PREFIX = "import-card:"
"""Prefix of the form's custom id; a short name for the persona follows, if one was given."""
CARD_TEXT = gettext_lazy("Card")
CARD_HINT = gettext_noop(
    "The card: a PNG picture with a card inside, JSON, YAML, CHARX or TOML; at most 25 MB"
)
cards_are_for_moderators = guild_moderators_only(DM_TEXT)
FORM_LABELS: dict[CardForm, str] = {
    "png": gettext_noop("PNG: its picture, which carries the card"),
    "v2": gettext_noop("JSON, version 2"),
    "v3": gettext_noop("JSON, version 3"),
    "charx": gettext_noop("CHARX: the card and its pictures"),
    "toml": gettext_noop("TOML, as this bot keeps it"),
}
PROGRESS_INTERVAL_S = 2.0
"""Time between two looks at an import's progress."""


@cards_are_for_moderators
@PERSONA.command(
    name="import", description=gettext_noop("Import a character card or an adapter (moderators).")
)
@app_commands.describe(
    card=CARD_HINT,
    persona_id=gettext_noop(
        "A short name for the card's persona, or the persona that an adapter without a card is for"
    ),
    adapter=gettext_noop("A LoRA adapter for the persona: a zip of a peft folder; at most 25 MB"),
    hub=gettext_noop(
        "A LoRA adapter for the persona: owner/name or owner/name@revision on the model hub"
    ),
)
@app_commands.rename(persona_id="id")
async def import_(
    interaction: Interaction,
    card: discord.Attachment | None = None,
    persona_id: app_commands.Range[str, 1, 32] | None = None,
    adapter: discord.Attachment | None = None,
    hub: app_commands.Range[str, 3, 200] | None = None,
) -> None:
    if not (card or adapter or hub):
        await send_form(interaction, import_form(persona_id or ""))
        return
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    _require_importable(services, card, adapter, hub)
    persona = None
    if persona_id:
        persona = services.personas.find(persona_id, guild_id)
    if card is None and persona is None:
        raise RefusedError(
            gettext_lazy("An adapter needs a persona."),
            gettext_lazy("Give a card too, or name the persona in id."),
        )
    await defer(interaction, ephemeral=True)
    lines = list[str]()
    view = None
    report = ImportReport()
    if card:
        file = await read_card_file(card)
        try:
            persona, lines, view, report = await _import_card(interaction, file, persona_id or "")
        except PersonaExistsError as error:
            await _ask_to_replace(interaction, error, file, has_adapter=bool(adapter or hub))
            return
    if persona and (adapter or hub):
        notes, view = await _import_adapter(interaction, persona, adapter or f"{HUB_PREFIX}{hub}")
        lines += notes
    await _show_import(interaction, lines, view, report)


async def _show_import(
    interaction: Interaction, lines: list[str], view: discord.ui.View | None, report: ImportReport
) -> None:
    text, files = with_import_list([localise(line) for line in lines], report)
    await edit_response(
        interaction, content=text, view=view, attachments=[], allowed_mentions=NO_MENTIONS
    )
    if files:
        await respond(interaction, gettext_lazy("The result for each part:"), files=files)


def import_form(persona_id: str) -> discord.ui.Modal:
    """The form for a card, of a persona with this short name (empty: that of the card)."""
    field = upload_field(localise(CARD_TEXT), translate(CARD_HINT))
    title = translate(gettext_noop("Import a character card"))
    return make_form(title, f"{IMPORT_FORM_PREFIX}{persona_id}", field)


async def import_from_form(
    interaction: Interaction, persona_id: str, values: dict[str, str]
) -> None:
    """Import the card of a submitted form, or say what is wrong and offer the form again."""
    require_guild_moderator(interaction, DM_TEXT)
    await defer(interaction, ephemeral=True, thinking=True)
    try:
        card = require_one_file(interaction)
        _require_card_size(card)
        file = await read_card_file(card)
        _, lines, view, report = await _import_card(interaction, file, persona_id)
    except PersonaExistsError as error:
        await _ask_to_replace(interaction, error, file)
        return
    except UnderstudyError as error:
        again = ImportAgainButton(persona_id)
        await respond(interaction, error_text(error), button_view(again))
        return
    await _show_import(interaction, lines, view, report)


class ImportAgainButton(PersistentButton, template=r"import-card:(?P<persona_id>.*)"):
    """Opens the form for a card again."""

    label = gettext_lazy("Try again")
    style = discord.ButtonStyle.primary
    moderators_only = True
    persona_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await send_form(interaction, import_form(self.persona_id))


def _require_card_size(card: discord.Attachment) -> None:
    """Raise `RefusedError` for a card that is too large."""
    if card.size > MAX_CARD_BYTES:
        raise RefusedError(
            gettext_lazy("{filename} has more than 25 MB.", filename=card.filename),
            gettext_lazy("Leave its largest pictures out."),
        )


def _require_importable(
    services: Services,
    card: discord.Attachment | None,
    adapter: discord.Attachment | None,
    hub: str | None,
) -> None:
    """Raise `RefusedError` unless what is given fits together, is small enough and allowed."""
    if adapter and hub:
        raise RefusedError(
            gettext_lazy("There are two adapters."),
            gettext_lazy("Give a zip or a hub's owner/name."),
        )
    if card:
        _require_card_size(card)
    if adapter and adapter.size > MAX_CARD_BYTES:
        raise RefusedError(
            gettext_lazy("{filename} has more than 25 MB.", filename=adapter.filename),
            gettext_lazy("Put it on a hub, or ask the operator."),
        )
    if hub and services.fetch_adapters != "moderators":
        advice = gettext_lazy(
            "They can set FETCH_ADAPTERS to moderators. A zip of the adapter needs no hub."
        )
        raise RefusedError(
            gettext_lazy("The operator does not let this bot fetch adapters from a hub here."),
            advice,
        )
    if hub and not HUB_ID_PATTERN.fullmatch(hub.partition("@")[0]):
        raise RefusedError(
            gettext_lazy("That is no repository's name."),
            gettext_lazy("Write it as owner/name, or owner/name@revision."),
        )


async def _ask_to_replace(
    interaction: Interaction,
    error: PersonaExistsError,
    file: CardFile,
    *,
    has_adapter: bool = False,
) -> None:
    """Ask whether a card replaces that of the server's persona with its name or id; the message
    holds the card until then, but no adapter that was given with it. Raises the error for a persona
    that is not the server's own.
    """
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    persona = error.persona
    if persona not in services.personas.own(guild_id):
        raise error
    if len(file.content) > interaction.filesize_limit:
        raise RefusedError(
            gettext_lazy(
                "{persona} is a persona of this server already, and {filename} is too large to ask "
                "whether it replaces the card.",
                persona=markdown_name(persona),
                filename=file.name,
            ),
            gettext_lazy("Leave its largest pictures out, or give it another name."),
        )
    question, view = _replace_question(interaction, persona)
    if has_adapter:
        question = join_texts(
            question,
            gettext_lazy(
                "The adapter is not imported with it: give it to `/persona import` again, without a "
                "card and with `id:{id}`.",
                id=short_id(persona, guild_id),
            ),
            separator="\n",
        )
    card = discord.File(io.BytesIO(file.content), filename=file.name)
    await respond(interaction, question, view, files=[card])


def _replace_question(interaction: Interaction, persona: Persona) -> tuple[str, discord.ui.View]:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    trainings = len(services.trainings.open_of_persona(persona.id))
    question = gettext_lazy(
        "**{persona}** (`{id}`) is a persona of this server already, with {belongings}. Replace its "
        "card by this file? All of that stays, and belongs to the new card. It can be undone for a "
        "day. For a persona of its own, give the card another name.",
        persona=markdown_name(persona),
        id=short_id(persona, guild_id),
        belongings=services.removal.belongings(guild_id, persona, trainings).text(),
    )
    button = ReplaceCardButton(persona.id, _name_stamp(persona))
    return question, button_view(button)


def _name_stamp(persona: Persona) -> str:
    """Return a short number of a persona's name, by which a question tells that it has changed."""
    return f"{zlib.crc32(persona.name.encode()):08x}"


class ReplaceCardButton(
    PersistentButton, template=rf"replace-card:{PERSONA_ID}:(?P<stamp>[0-9a-f]{{8}})"
):
    """Replaces a persona's card by the file of the message that asks for it; asks again where the
    persona has another name by now.
    """

    label = gettext_lazy("Replace")
    style = discord.ButtonStyle.danger
    moderators_only = True
    persona: str
    stamp: str

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona)
        (attachment,) = interaction.message.attachments if interaction.message else []
        await defer(interaction)
        if self.stamp != _name_stamp(persona):
            question, buttons = _replace_question(interaction, persona)
            await edit_response(interaction, content=question, view=buttons)
            return
        file = await read_card_file(attachment)
        _, lines, view, report = await _import_card(interaction, file, replacing=persona)
        await _show_import(interaction, lines, view, report)


class UndoReplacementButton(UndoButton, template=rf"undo-card:{ENTRY}"):
    """Brings back the card that was replaced; the present one can be brought back in turn."""

    async def undo(self, interaction: Interaction, guild_id: int) -> Undone:
        services = interaction.client.services
        undone = await undo_replacement(
            services.personas,
            services.store,
            guild_lore(services),
            origin=request_origin(interaction),
            persona=require_persona(interaction, self.persona),
            stamp=self.stamp,
        )
        name = f"**{markdown_name(undone.persona)}**"
        return Undone(
            gettext_lazy("brought back the replaced card of {persona}", persona=name),
            gettext_lazy(
                "**{persona}** speaks by the card from before again. A version that came with the "
                "other card stays: `/finetune remove`.",
                persona=markdown_name(undone.persona),
            ),
            again=UndoReplacementButton(self.persona, undone.replaced.stamp),
        )


CARD_BUTTONS = (ImportAgainButton, ReplaceCardButton, UndoReplacementButton)


async def _import_card(
    interaction: Interaction,
    file: CardFile,
    wanted_id: str = "",
    *,
    replacing: Persona | None = None,
) -> tuple[Persona, list[str], discord.ui.View | None, ImportReport]:
    """Import a card, new or in place of a persona's. Returns the persona, notes, buttons, and what
    became of the card's fields. Raises `PersonaExistsError` where it would replace another.
    """
    services = interaction.client.services
    origin = request_origin(interaction)
    guild_id = origin.guild_id
    imported = await import_card(
        services.personas,
        services.store,
        base_model=services.base_model,
        origin=origin,
        data=file.content,
        file=file.name,
        context_tokens=services.engine.context_tokens,
        wanted_id=wanted_id,
        replacing=replacing,
    )
    persona = imported.brought.persona
    lines = _import_lines(imported, guild_id, replacing)
    if services.reply_service.rules.age.applies(persona, guild_id):
        lines.append(
            gettext_lazy(
                "It is age-restricted: it speaks only in channels that Discord marks so "
                "(`/moderation age`)."
            )
        )
    services.audit.record(guild_id, origin.user_id, imported.change)
    book_notes, book = await import_character_book(
        guild_lore(services), guild_id, persona, imported.card
    )
    lines += (gettext_lazy("{note} See `/persona lore ask`.", note=line) for line in book_notes)
    notes, job = await VersionInstaller(services.home, services.store).install_bundled(
        origin, persona.id, imported.card, file.name, base_model=services.base_model
    )
    buttons: list[discord.ui.Item[Any]] = []
    if replaced := imported.brought.replaced:
        buttons.append(UndoReplacementButton(persona.id, replaced.stamp))
    else:
        buttons.append(UseHereButton.of(interaction, persona))
    if job:
        services.versions.record_import(job)
        live = services.store.versions.live(persona.id, guild_id)
        buttons += job_buttons(job, live)
    elif not persona.avatar:
        buttons.append(PictureButton(persona.id))
    report = report_fields(imported.card) + book
    return persona, [*lines, *notes], button_view(*buttons), report


async def _import_adapter(
    interaction: Interaction, persona: Persona, source: discord.Attachment | str
) -> tuple[list[str], discord.ui.View | None]:
    """Import an adapter for a persona, a zip or from a hub, with its progress. Returns notes and
    buttons.
    """
    services = interaction.client.services
    head = gettext_lazy("Importing an adapter for **{persona}** …", persona=markdown_name(persona))
    said = [localise(head)]
    origin = request_origin(interaction)
    with tempfile.TemporaryDirectory(prefix="understudy-import-") as scratch:
        if isinstance(source, discord.Attachment):
            path = Path(scratch) / last_part(source.filename, "adapter.zip")
            path.write_bytes(await source.read())
            source = str(path)
        task = asyncio.create_task(_import_in_turn(services, origin, persona.id, source, said=said))
        try:
            await _show_progress(interaction, task, said)
            _, notes, job = await task
        except UnderstudyError as error:
            return [
                gettext_lazy("No adapter was installed: {error}", error=error_text(error))
            ], None
        except asyncio.CancelledError:
            if not task.cancelled():  # the bot is stopping
                raise
            return [
                gettext_lazy("The import was cancelled. A download continues there the next time.")
            ], None
        finally:
            task.cancel()
    if job is None:
        return notes, None
    services.versions.record_import(job)
    live = services.store.versions.live(persona.id, origin.guild_id)
    return notes, button_view(*job_buttons(job, live))


async def _import_in_turn(
    services: Services, origin: RequestOrigin, persona_id: str, source: str, *, said: list[str]
) -> tuple[str, list[str], TrainingJob | None]:
    """Import an adapter, unless another import of the guild is not done yet."""
    async with services.data_jobs.guild_imports.of(origin.guild_id):
        return await import_adapter_version(
            services.home,
            services.store,
            services.base_model,
            origin=origin,
            persona_id=persona_id,
            source=source,
            say=said.append,
        )


async def _show_progress(
    interaction: Interaction, task: asyncio.Task[Any], said: list[str]
) -> None:
    """Show the last line of progress in the response until the task is done."""
    label = translate(gettext_noop("Cancel"))
    cancel: discord.ui.Button[discord.ui.View] = discord.ui.Button(label=label)

    async def pressed(press: discord.Interaction[Any]) -> None:
        task.cancel()
        await defer(press)

    cancel.callback = pressed  # type: ignore[method-assign, assignment]
    shown = ""
    view = button_view(cancel)
    while not task.done():
        if said[-1] != shown:
            shown = said[-1]
            await edit_response(interaction, content=f"{said[0]}\n-# {shown}", view=view)
        await asyncio.wait([task], timeout=PROGRESS_INTERVAL_S)
    view.stop()


@cards_are_for_moderators
@PERSONA.command(description=gettext_noop("Get a persona's character card as a file (moderators)."))
@app_commands.describe(
    persona=gettext_noop("Which persona"), form=gettext_noop("The format of the file")
)
@app_commands.rename(form="format")
@app_commands.choices(
    form=[
        app_commands.Choice(name=app_commands.locale_str(label), value=form)
        for form, label in FORM_LABELS.items()
    ]
)
async def export(interaction: Interaction, persona: PersonaOption, form: CardForm = "png") -> None:
    await defer(interaction, ephemeral=True)
    notes, files = await card_files(interaction, persona, form)
    await respond(
        interaction,
        join_texts(
            gettext_lazy("The card of **{persona}**.", persona=markdown_name(persona)),
            *notes,
            separator="\n",
        ),
        files=files,
    )


async def card_files(
    interaction: Interaction, persona: Persona, form: CardForm
) -> tuple[list[str], list[discord.File]]:
    """Return a persona's card as files for a message, with notes on what the format lacks; the
    export is logged. Raises `RefusedError` for a card that is too large here.
    """
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    name = short_id(persona, guild_id)
    file_name = f"{name}.{FILE_SUFFIXES[form]}"
    card = await asyncio.to_thread(
        lambda: export_card(services.personas.card(persona, guild_id), form, persona, name)
    )
    files = {file_name: card.content, **card.beside}
    if sum(map(len, files.values())) > interaction.filesize_limit:
        raise RefusedError(
            gettext_lazy(
                "The card of {persona} is too large for a message here.",
                persona=markdown_name(persona),
            ),
            gettext_lazy("Choose another format."),
        )
    log_card_export(
        services.home,
        services.store,
        guild_id=guild_id,
        persona=persona,
        file=file_name,
        content=card.content,
        recipient=f"to a moderator of the server {guild_id}",
    )
    shown = [discord.File(io.BytesIO(content), filename=file) for file, content in files.items()]
    return list(card.notes), shown


def _import_lines(imported: CardImport, guild_id: int, replaced: Persona | None) -> list[str]:
    persona = imported.brought.persona
    tokens = imported.room.prose + imported.room.examples
    name = short_id(persona, guild_id)
    state = gettext_lazy(
        "**{persona}** (`{id}`) has a new card.", persona=markdown_name(persona), id=name
    )
    if imported.brought.is_new:
        state = gettext_lazy(
            "**{persona}** (`{id}`) is a persona of this server now.",
            persona=markdown_name(persona),
            id=name,
        )
    lines: list[str] = [state]
    if replaced and replaced.name != persona.name:
        lines.append(gettext_lazy("It was called {name}.", name=markdown_name(replaced)))
    lines.append(
        gettext_lazy(
            "It takes about {tokens} tokens of every prompt. `/persona set` gives it a channel.",
            tokens=min(tokens, MAX_CARD_TOKENS),
        )
    )
    if tokens > MAX_CARD_TOKENS:
        lines.append(
            gettext_lazy(
                "Its examples are long: only the first of them fit, of about {tokens} tokens in "
                "all.",
                tokens=tokens,
            )
        )
    if persona.speech:
        lines.append(
            gettext_lazy(
                "Its examples have no lines of `{{user}}:` and `{{char}}:`, so they count as a "
                "description."
            )
        )
    if not persona.avatar:
        lines.append(gettext_lazy("The card came without a picture."))
    return lines
