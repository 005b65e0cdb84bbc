"""`/persona …`: chooses, mutes and clears the persona of a channel; imports, exports and removes
character cards.
"""

import asyncio
import io
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import discord
from discord import app_commands

from bot.chat.places import SpeakChannel, channel_ref
from bot.data.jobs import import_adapter_version
from bot.personas.base_model_compat import NO_ADAPTERS
from bot.personas.card_import import (
    FILE_SUFFIXES,
    MAX_CARD_BYTES,
    CardImport,
    contribute_card,
    export_card,
    import_character_book,
    log_card_export,
    remove_persona,
)
from bot.personas.discord_import_list import with_import_list
from bot.personas.discord_lore import guild_lore
from bot.personas.registry import short_id
from bot.platform import permissions
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    PersonaOption,
    guild_moderators_only,
    request_origin,
    require_moderator,
)
from bot.platform.discord_kit.ui import button_view, defer, edit_response, respond
from bot.platform.errors import RefusedError
from bot.platform.messages import NO_MENTIONS
from bot.services import Services
from bot.store import ALL_CHANNELS, ALL_PERSONAS, Channel, Mute, StoredReply, TrainingJob
from bot.training.discord_progress import job_buttons
from bot.versions.installation import VersionInstaller
from personas.card.card_report import report_fields
from personas.card.formats import CardForm
from personas.errors import UnderstudyError
from personas.home.external_adapter import HUB_PREFIX
from personas.home.hub_download import HUB_ID_PATTERN
from personas.outside_names import last_part
from personas.prompt.renderer import MAX_CARD_TOKENS
from personas.schemas.chat import MAX_CANDIDATES, Persona
from personas.schemas.import_report import ImportReport

cards_are_for_moderators = guild_moderators_only("Cards belong to a server.")
MuteScope = Literal["channel", "server"]
SCOPE_CHOICES = [
    app_commands.Choice(name="this channel", value="channel"),
    app_commands.Choice(name="the whole server", value="server"),
]
DeletePeriod = Literal["nothing", "hour", "day", "everything"]
DELETE_PERIODS_S: dict[DeletePeriod, float] = {"hour": 3600.0, "day": 86400.0, "everything": 1e11}
OPERATORS_NUMBER = 0
PROGRESS_INTERVAL_S = 2.0
"""Time between two looks at an import's progress."""
PROGRESS_INTERVAL_MESSAGES = 10
"""Number of deleted replies after which a moderator sees the progress."""


# ------------------------------------------------------------------------------------------ cards


@cards_are_for_moderators
@PERSONA.command(name="import", description="Import a character card or an adapter (moderators).")
@app_commands.describe(
    card="The card: a PNG picture with a card inside, JSON, CHARX or TOML; at most 25 MB",
    persona_id="A short name for the card's persona, or the persona that an adapter without a card is for",
    adapter="A LoRA adapter for the persona: a zip of a peft folder; at most 25 MB",
    hub="A LoRA adapter for the persona: owner/name or owner/name@revision on the model hub",
)
@app_commands.rename(persona_id="id")
async def import_(
    interaction: Interaction,
    card: discord.Attachment | None = None,
    persona_id: app_commands.Range[str, 1, 32] | None = None,
    adapter: discord.Attachment | None = None,
    hub: app_commands.Range[str, 3, 200] | None = None,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    _require_importable(services, card, adapter, hub)
    persona = services.personas.find(persona_id, guild_id) if persona_id else None
    if card is None and persona is None:
        raise RefusedError(
            "An adapter needs a persona.", "Give a card too, or name the persona in id."
        )
    await defer(interaction, ephemeral=True)
    lines = list[str]()
    view = None
    report = ImportReport()
    if card:
        persona, lines, view, report = await _import_card(interaction, card, persona_id or "")
    if persona and (adapter or hub):
        notes, view = await _import_adapter(interaction, persona, adapter or f"{HUB_PREFIX}{hub}")
        lines += notes
    text, files = with_import_list(lines, report)
    await edit_response(interaction, content=text, view=view, allowed_mentions=NO_MENTIONS)
    if files:
        await respond(interaction, "What became of each part:", files=files)


def _require_importable(
    services: Services,
    card: discord.Attachment | None,
    adapter: discord.Attachment | None,
    hub: str | None,
) -> None:
    """Raise `RefusedError` unless one thing or two fitting ones are given, small enough and
    allowed.
    """
    if not (card or adapter or hub):
        raise RefusedError(
            "There is nothing to import.",
            "Give a card, an adapter as a zip, or a hub's owner/name.",
        )
    if adapter and hub:
        raise RefusedError("There are two adapters.", "Give a zip or a hub's owner/name.")
    if card and card.size > MAX_CARD_BYTES:
        raise RefusedError(
            f"{card.filename} has more than 25 MB.", "Leave its largest pictures out."
        )
    if adapter and adapter.size > MAX_CARD_BYTES:
        raise RefusedError(
            f"{adapter.filename} has more than 25 MB.", "Put it on a hub, or ask the operator."
        )
    if hub and services.fetch_adapters != "moderators":
        advice = "They can set FETCH_ADAPTERS to moderators. A zip of the adapter needs no hub."
        raise RefusedError(
            "The operator does not let this bot fetch adapters from a hub here.", advice
        )
    if hub and not HUB_ID_PATTERN.fullmatch(hub.partition("@")[0]):
        raise RefusedError(
            "That is no repository's name.", "Write it as owner/name, or owner/name@revision."
        )


async def _import_card(
    interaction: Interaction, card: discord.Attachment, persona_id: str
) -> tuple[Persona, list[str], discord.ui.View | None, ImportReport]:
    services = interaction.client.services
    origin = request_origin(interaction)
    guild_id = origin.guild_id
    imported = await contribute_card(
        services.personas, services.store.people, services.base_model, origin, await card.read(), card.filename,
        persona_id,
    )  # fmt: skip
    persona = imported.brought.persona
    lines = _import_lines(imported, guild_id)
    book_notes, book = await import_character_book(
        guild_lore(services), guild_id, persona, imported.card
    )
    lines += (f"{line} See `/persona lore ask`." for line in book_notes)
    notes, job = await VersionInstaller(services.home, services.store).install_bundled(
        origin, persona.id, imported.card, card.filename, base_model=services.base_model
    )
    view = job_buttons(job, services.store.versions.live(persona.id, guild_id)) if job else None
    return persona, [*lines, *notes], view, report_fields(imported.card, card.filename) + book


async def _import_adapter(
    interaction: Interaction, persona: Persona, source: discord.Attachment | str
) -> tuple[list[str], discord.ui.View | None]:
    """Import an adapter for a persona, a zip or from a hub, with its progress. Returns notes and
    buttons.
    """
    services = interaction.client.services
    said = [f"Importing an adapter for **{persona.name}** …"]
    origin = request_origin(interaction)
    with tempfile.TemporaryDirectory(prefix="understudy-import-") as scratch:
        if isinstance(source, discord.Attachment):
            path = Path(scratch) / last_part(source.filename, "adapter.zip")
            path.write_bytes(await source.read())
            source = str(path)
        inputs = (
            services.home,
            services.store,
            services.base_model,
            origin,
            persona.id,
            source,
            said.append,
        )

        async def import_in_turn() -> tuple[str, list[str], TrainingJob | None]:
            async with services.data_jobs.guild_imports.of(origin.guild_id):
                return await import_adapter_version(*inputs)

        task = asyncio.create_task(import_in_turn())
        try:
            await _show_progress(interaction, task, said)
            _, notes, job = await task
        except UnderstudyError as error:
            return [f"No adapter was installed: {error}"], None
        except asyncio.CancelledError:
            if not task.cancelled():  # the bot is stopping
                raise
            return ["The import was cancelled. A download continues there the next time."], None
        finally:
            task.cancel()
    return notes, job_buttons(
        job, services.store.versions.live(persona.id, origin.guild_id)
    ) if job else None


async def _show_progress(
    interaction: Interaction, task: asyncio.Task[Any], said: list[str]
) -> None:
    """Show the last line of progress in the response until the task is done."""
    cancel: discord.ui.Button[discord.ui.View] = discord.ui.Button(label="Cancel")

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
@PERSONA.command(description="Get a persona's character card as a file (moderators).")
@app_commands.describe(persona="Which persona", form="The format of the file")
@app_commands.rename(form="format")
@app_commands.choices(
    form=[
        app_commands.Choice(name="PNG: its picture, which carries the card", value="png"),
        app_commands.Choice(name="JSON, version 2", value="v2"),
        app_commands.Choice(name="JSON, version 3", value="v3"),
        app_commands.Choice(name="CHARX: the card and its pictures", value="charx"),
        app_commands.Choice(name="TOML, as this bot keeps it", value="toml"),
    ]
)
async def export(interaction: Interaction, persona: PersonaOption, form: CardForm = "png") -> None:
    guild_id = interaction.guild_id or 0
    services = interaction.client.services
    await defer(interaction, ephemeral=True)
    name = short_id(persona, guild_id)
    file_name = f"{name}.{FILE_SUFFIXES[form]}"
    card = await asyncio.to_thread(
        lambda: export_card(services.personas.card(persona, guild_id), form, persona, name)
    )
    files = {file_name: card.content, **card.beside}
    if sum(map(len, files.values())) > interaction.filesize_limit:
        raise RefusedError(
            f"The card of {persona.name} is too large for a message here.", "Choose another format."
        )
    recipient = f"to a moderator of the server {guild_id}"
    log_card_export(
        services.home, services.store, guild_id, persona, file_name, card.content, recipient
    )
    await respond(
        interaction,
        "\n".join([f"The card of **{persona.name}**.", *card.notes]),
        files=[discord.File(io.BytesIO(content), filename=file) for file, content in files.items()],
    )


@cards_are_for_moderators
@PERSONA.command(description="Remove a persona that this server has imported (moderators).")
@app_commands.describe(persona="Which persona")
async def remove(interaction: Interaction, persona: PersonaOption) -> None:
    services = interaction.client.services
    await defer(interaction, ephemeral=True)
    await remove_persona(
        services.personas, services.store, guild_lore(services), interaction.guild_id or 0, persona
    )
    await respond(
        interaction,
        f"**{persona.name}** is removed, and lives nowhere here any more. Importing the card again "
        "brings them back.",
    )


def _import_lines(imported: CardImport, guild_id: int) -> list[str]:
    persona = imported.brought.persona
    tokens = imported.room.prose + imported.room.examples
    state = "is a persona of this server now." if imported.brought.is_new else "has a new card."
    lines = [
        f"**{persona.name}** (`{short_id(persona, guild_id)}`) {state}",
        f"It takes about {min(tokens, MAX_CARD_TOKENS)} tokens of every prompt. `/persona set` "
        "gives it a channel.",
    ]
    if tokens > MAX_CARD_TOKENS:
        lines.append(
            f"Its examples are long: only the first of them fit, of about {tokens} tokens in all."
        )
    if persona.speech:
        lines.append(
            "Its examples have no lines of `{{user}}:` and `{{char}}:`, so they count as a "
            "description."
        )
    if not persona.avatar:
        lines.append("The card came without a picture.")
    return lines


# ------------------------------------------------------------------------------------------ the
# channel's persona


@PERSONA.command(name="set", description="Set this channel's persona (moderators).")
@app_commands.describe(
    persona="Which persona",
    answers="Which messages it answers (every one that the bot may read, if left out)",
)
@app_commands.choices(
    answers=[
        app_commands.Choice(name="messages that mention me", value="mentions"),
        app_commands.Choice(name="every message", value="everything"),
    ]
)
async def set_(
    interaction: Interaction,
    persona: PersonaOption,
    answers: Literal["mentions", "everything"] | None = None,
) -> None:
    channel = _changeable_channel(interaction)
    services = interaction.client.services
    can_read = interaction.client.intents.message_content
    answers = answers or ("everything" if can_read else "mentions")
    place = channel_ref(channel)
    await defer(interaction, ephemeral=True)
    setting = Channel(
        place.guild_id, place.channel_id, persona.id, answers, interaction.user.id, time.time()
    )
    services.store.channels.assign(setting)
    await respond(interaction, _set_text(persona, answers, channel, can_read))
    await services.reply_service.greet(persona, channel, interaction.user.display_name)


@PERSONA.command(description="Show the persona of this channel.")
async def show(interaction: Interaction) -> None:
    services = interaction.client.services
    place = channel_ref(_channel(interaction))
    setting = services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
    persona = services.persona_in(place)
    if setting is None or persona is None:
        raise RefusedError(
            "No persona lives here.", "A moderator can change that with `/persona set`."
        )
    live = _live_text(services, persona, place.guild_id) or "base model (not trained yet)"
    answered = (
        "every message"
        if setting.answers == "everything" or not place.guild_id
        else "messages that mention me"
    )
    tagline = f": {persona.tagline}" if persona.tagline else ""
    is_muted = services.reply_service.rules.muted(persona, place)
    answers = (
        "Muted by a moderator (`/persona unmute`)" if is_muted else f"Answers {answered}, and /chat"
    )
    head = f"**{persona.name}** (`{short_id(persona, place.guild_id)}`){tagline}"
    await respond(interaction, f"{head}\n{answers}. Live: {live}.")


@PERSONA.command(name="list", description="List the personas and their channels.")
async def list_(interaction: Interaction) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    channels = services.store.channels.of_guild(guild_id) if guild_id else []
    lines = []
    for persona in services.personas.of(guild_id).values():
        homes = " ".join(
            f"<#{channel.channel_id}>" for channel in channels if channel.persona_id == persona.id
        )
        live = _live_text(services, persona, guild_id) or "base model"
        head = f"**{persona.name}** (`{short_id(persona, guild_id)}`, {live}) {homes}"
        lines.append(f"{head}\n{persona.tagline}".strip())
    lines += [
        f"Muted: {_mute_text(services, it)}" for it in services.store.mutes.of_guild(guild_id)
    ]
    await respond(interaction, "\n".join(lines) or "No personas.")


@PERSONA.command(description="Remove this channel's persona (moderators).")
async def clear(interaction: Interaction) -> None:
    place = channel_ref(_changeable_channel(interaction))
    if not interaction.client.services.store.channels.clear(place.guild_id, place.channel_id):
        raise RefusedError("No persona lives here.")
    await respond(interaction, "Nobody lives here now. `/persona set` undoes this.")


@PERSONA.command(
    description="Start a new conversation here: the persona no longer sees the earlier messages."
)
async def fresh(interaction: Interaction) -> None:
    place = channel_ref(_channel(interaction))
    services = interaction.client.services
    services.reply_service.rules.require_can_write(interaction)
    services.store.messages.start_new_conversation(place.channel_id)
    await respond(
        interaction, "A new conversation starts here. Nothing was deleted.", ephemeral=False
    )


async def _possible_candidates(
    interaction: Interaction, typed: str
) -> list[app_commands.Choice[int]]:
    most = interaction.client.services.reply_candidates.maximum
    names = {OPERATORS_NUMBER: "the operator's number"} | {
        count: str(count) for count in range(1, most + 1)
    }
    return [
        app_commands.Choice(name=name, value=count)
        for count, name in names.items()
        if typed in name
    ]


@guild_moderators_only("Candidates are chosen for a server.")
@PERSONA.command(
    description="Choose among how many beginnings a reply in this server is selected (moderators)."
)
@app_commands.describe(
    count=(
        "1 is the fastest; more fit the talk better and begin later. Left out, the current number "
        "is shown"
    )
)
@app_commands.autocomplete(count=_possible_candidates)
async def candidates(
    interaction: Interaction,
    count: app_commands.Range[int, OPERATORS_NUMBER, MAX_CANDIDATES] | None = None,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    possible = services.reply_candidates
    guilds = services.store.guilds
    if count == OPERATORS_NUMBER:
        guilds.clear_reply_candidates(guild_id)
    elif count is not None:
        possible.choose(guild_id, count)
    current = possible.in_guild(guild_id)
    choice = (
        f"chosen among {current} while the engine is not busy"
        if current > 1
        else "not chosen among several"
    )
    chosen = guilds.reply_candidates(guild_id)
    whose = f"This server has chosen {chosen}" if chosen else "That is the operator's number"
    await respond(
        interaction,
        f"The beginning of a reply here is {choice}. {whose}; the most is {possible.maximum}.",
    )


def _live_text(services: Services, persona: Persona, guild_id: int) -> str:
    """The live version of a server, and whether it cannot be served. Empty for the base model."""
    live = services.store.versions.live(persona.id, guild_id) or ""
    model = services.served_versions.incompatible.model_of(persona.id, live)
    if model == NO_ADAPTERS:
        return f"base model, because this engine serves no adapters; {live} is kept"
    return (
        f"{live}, made for another base model; ours answers until it is trained again"
        if model
        else live
    )


def _channel(interaction: Interaction) -> SpeakChannel:
    if not isinstance(interaction.channel, SpeakChannel):
        raise RefusedError(
            "Personas live in text channels, threads and direct messages.", "Try it there."
        )
    return interaction.channel


def _changeable_channel(interaction: Interaction) -> SpeakChannel:
    """The channel, if personas can live there and this member may decide which."""
    channel = _channel(interaction)
    if not isinstance(channel, discord.DMChannel):
        require_moderator(interaction)
    return channel


def _set_text(persona: Persona, answers: str, channel: SpeakChannel, can_read: bool) -> str:
    if isinstance(channel, discord.DMChannel):
        return f"**{persona.name}** lives here now."
    answered = "every message here" if answers == "everything" else "messages that mention me"
    lines = [
        f"**{persona.name}** lives here now, and answers {answered}, replies to it, and `/chat`."
    ]
    if answers == "everything" and not can_read:
        need = permissions.MESSAGE_CONTENT
        lines.append(
            f"The bot may not {need.why}: {need.cost}. The operator can set MESSAGE_CONTENT_INTENT."
        )
    for missing in permissions.missing_permissions(channel.permissions_for(channel.guild.me)):
        lines.append(
            f"I lack the permission {permissions.permission_title(missing)} here: {missing.cost}."
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ mutes


@PERSONA.command(description="Mute personas at once, even in the middle of a reply (moderators).")
@app_commands.describe(
    where="In this channel and its threads, or in the whole server (this channel if left out)",
    persona="Which persona (all if left out)",
    delete="Which of their replies there are deleted (none if left out)",
)
@app_commands.choices(
    where=SCOPE_CHOICES,
    delete=[
        app_commands.Choice(name="nothing", value="nothing"),
        app_commands.Choice(name="what was said in the last hour", value="hour"),
        app_commands.Choice(name="what was said in the last day", value="day"),
        app_commands.Choice(name="everything they ever said", value="everything"),
    ],
)
async def mute(
    interaction: Interaction,
    where: MuteScope = "channel",
    persona: PersonaOption | None = None,
    delete: DeletePeriod = "nothing",
) -> None:
    services = interaction.client.services
    new = _requested_mute(interaction, where, persona)
    services.store.mutes.add(new)
    services.reply_service.stop_guild_replies(new.guild_id)
    text = f"Muted: {_mute_text(services, new)}. `/persona unmute` ends it."
    await respond(interaction, text)
    if delete != "nothing":
        await _delete_replies(
            interaction,
            _muted_replies(interaction, new, time.time() - DELETE_PERIODS_S[delete]),
            text,
        )


@PERSONA.command(description="Let muted personas answer again (moderators).")
@app_commands.describe(
    where="Where they are muted (this channel if left out)",
    persona="Which persona (all if left out)",
)
@app_commands.choices(where=SCOPE_CHOICES)
async def unmute(
    interaction: Interaction, where: MuteScope = "channel", persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    old = _requested_mute(interaction, where, persona)
    mutes = services.store.mutes
    if not mutes.remove(old.guild_id, old.channel_id, old.persona_id):
        others = (
            "; ".join(_mute_text(services, other) for other in mutes.of_guild(old.guild_id))
            or "nothing"
        )
        raise RefusedError(
            f"There is no such mute: {_mute_text(services, old)}.", f"Muted: {others}."
        )
    await respond(interaction, f"Unmuted: {_mute_text(services, old)}.")


def _requested_mute(interaction: Interaction, where: MuteScope, persona: Persona | None) -> Mute:
    place = channel_ref(_changeable_channel(interaction))
    if not place.guild_id:
        raise RefusedError(
            "In direct messages nobody needs silencing.", "`/persona clear` sends them away."
        )
    channel_id = place.channel_id if where == "channel" else ALL_CHANNELS
    persona_id = persona.id if persona else ALL_PERSONAS
    return Mute(place.guild_id, channel_id, persona_id, interaction.user.id, time.time())


def _mute_text(services: Services, entry: Mute) -> str:
    persona = services.personas.get(entry.persona_id, entry.guild_id)
    name = persona.name if persona else entry.persona_id or "all personas"
    return f"{name} in {f'<#{entry.channel_id}>' if entry.channel_id else 'the whole server'}"


def _muted_replies(interaction: Interaction, entry: Mute, since: float) -> list[StoredReply]:
    threads = interaction.guild.threads if interaction.guild else []
    within = [
        entry.channel_id,
        *(thread.id for thread in threads if thread.parent_id == entry.channel_id),
    ]
    channel_ids = within if entry.channel_id else None
    replies = interaction.client.services.store.replies
    return replies.of_guild(
        entry.guild_id, channel_ids=channel_ids, persona_id=entry.persona_id or None, since=since
    )


async def _delete_replies(interaction: Interaction, replies: list[StoredReply], text: str) -> None:
    """Delete replies, and show the progress below the response's text."""
    deleted = 0
    failed = 0
    async for is_deleted in interaction.client.services.reply_service.delete(
        replies, interaction.client
    ):
        deleted = deleted + is_deleted
        failed = failed + (not is_deleted)
        if (deleted + failed) % PROGRESS_INTERVAL_MESSAGES == 0 or deleted + failed == len(replies):
            note = (
                f" {failed} could not be deleted: I lack Manage Messages there." if failed else ""
            )
            progress = f"Deleted {deleted} of {len(replies)} replies.{note}"
            await edit_response(interaction, content=f"{text}\n{progress}")
    if not replies:
        await edit_response(interaction, content=f"{text}\nThere was nothing to delete.")
