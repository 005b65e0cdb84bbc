"""`/persona set|alias|list|clear|fresh|candidates|mute|unmute`: the personas of channels."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import discord
from discord import app_commands

from bot.chat.chat_words import is_common, names_of
from bot.chat.message_text import has_words
from bot.chat.places import ChannelRef, SpeakChannel, channel_ref, usual_answers
from bot.chat.reply_text import discord_text
from bot.faces.texts import face_text
from bot.guild_settings.definitions import ALIASES, ANSWERING, CANDIDATES
from bot.guild_settings.store import SettingScope
from bot.guild_settings.texts import stored_text
from bot.moderation.texts import mute_text
from bot.personas.base_model_compat import NO_ADAPTERS
from bot.personas.served_versions import SHIPPED_ORIGIN
from bot.platform import permissions
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    PersonaOption,
    guild_moderators_only,
    require_changeable_channel,
    require_speak_channel,
)
from bot.platform.discord_kit.ui import defer, edit_response, respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localise, translate
from bot.platform.messages import markdown_name, message_texts
from bot.services import Services
from bot.store import ALL_CHANNELS, ALL_PERSONAS, Mute, StoredReply
from personas.card.toml_card import visible_name
from personas.home.persona_ids import short_id
from personas.schemas.chat import MAX_CANDIDATES, Persona

MuteScope = Literal["channel", "server"]
SCOPE_CHOICES = [
    app_commands.Choice(
        name=app_commands.locale_str(gettext_noop("this channel")), value="channel"
    ),
    app_commands.Choice(
        name=app_commands.locale_str(gettext_noop("the whole server")), value="server"
    ),
]
DeletePeriod = Literal["nothing", "hour", "day", "everything"]
DELETE_PERIODS_S: dict[DeletePeriod, float] = {"hour": 3600.0, "day": 86400.0, "everything": 1e11}
OPERATORS_NUMBER = 0
NO_NAMES = "none"
MAX_ALIASES = 10
PROGRESS_INTERVAL_MESSAGES = 10
"""Number of deleted replies after which a moderator sees the progress."""


# ---------------------------------------------------------------------------- the channel's persona


@PERSONA.command(name="set", description=gettext_noop("Set this channel's persona (moderators)."))
@app_commands.describe(
    persona=gettext_noop("Which persona"),
    answers=gettext_noop(
        "Which messages it answers (every one that the bot may read, if left out)"
    ),
    second=gettext_noop("A further persona, which answers where it is named or replied to"),
    third=gettext_noop("A further persona"),
    fourth=gettext_noop("A further persona"),
    fifth=gettext_noop("A further persona"),
)
@app_commands.choices(
    answers=[
        app_commands.Choice(
            name=app_commands.locale_str(gettext_noop("messages that mention me")),
            value="mentions",
        ),
        app_commands.Choice(
            name=app_commands.locale_str(gettext_noop("every message")), value="everything"
        ),
    ]
)
async def set_(
    interaction: Interaction,
    persona: PersonaOption,
    answers: Literal["mentions", "everything"] | None = None,
    second: PersonaOption | None = None,
    third: PersonaOption | None = None,
    fourth: PersonaOption | None = None,
    fifth: PersonaOption | None = None,
) -> None:
    channel = require_changeable_channel(interaction)
    further = _further_personas(persona, (second, third, fourth, fifth), channel)
    services = interaction.client.services
    can_read = interaction.client.intents.message_content
    answers = answers or usual_answers(interaction.client)
    await defer(interaction, ephemeral=True)
    reply_service = services.reply_service
    is_new = reply_service.assign(
        persona, channel, answers=answers, user_id=interaction.user.id, further=further
    )
    lines = [assigned_text(persona, channel, answers=answers, can_read=can_read)]
    if further:
        lines.append(further_text(further))
    if kept := _kept_answering(services, channel_ref(channel)):
        lines.append(gettext_lazy("-# Set for answers in this channel: {settings}.", settings=kept))
    await respond(interaction, join_texts(*lines, separator="\n"))
    if is_new:
        await reply_service.greet(persona, channel, interaction.user.display_name)


def _kept_answering(services: Services, place: ChannelRef) -> str:
    """Return what is set for answers in a channel, whoever lives there, and how to remove it; empty
    where nothing is.
    """
    scope = SettingScope(place.guild_id, channel_id=place.channel_id)
    stored = services.guild_settings.stored(ANSWERING, scope)
    if all(value is None for value in stored.values()):
        return ""
    return gettext_lazy(
        "{settings} (`/persona answering reset` removes that)",
        settings=stored_text(ANSWERING, stored),
    )


def _further_personas(
    first: Persona, others: Sequence[Persona | None], channel: SpeakChannel
) -> list[Persona]:
    """Return the further personas in their order. Raises `RefusedError`."""
    further = [persona for persona in others if persona]
    if further and isinstance(channel, discord.DMChannel):
        raise RefusedError(
            gettext_lazy("In direct messages one persona answers."),
            gettext_lazy("Choose it alone."),
        )
    named = [persona.id for persona in (first, *further)]
    if len({*named}) < len(named):
        raise RefusedError(
            gettext_lazy("A persona is named twice."), gettext_lazy("Name each once.")
        )
    return further


def further_text(further: Sequence[Persona]) -> str:
    names = ", ".join(f"**{markdown_name(persona)}**" for persona in further)
    return gettext_lazy(
        "Called by their names, or by a reply, these answer: {personas}. It answers the rest.",
        personas=names,
    )


@guild_moderators_only(gettext_lazy("Names are set for a server."))
@PERSONA.command(
    description=gettext_noop("Set further names by which members call a persona (moderators).")
)
@app_commands.describe(
    persona=gettext_noop("Which persona"),
    names=gettext_noop(
        "Separated by commas; `none` removes them. Left out, the present ones are shown"
    ),
)
async def alias(
    interaction: Interaction,
    persona: PersonaOption,
    names: app_commands.Range[str, 1, 200] | None = None,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    if names is not None:
        aliases = _alias_list(names)
        present = set(ALIASES.held(services.store, guild_id, persona_id=persona.id))
        for name in aliases:
            if name in present:
                continue
            if problem := services.personas.calling_name_problem(guild_id, name):
                raise RefusedError(problem)
        ALIASES.write(services.store, aliases or None, guild_id, persona_id=persona.id)
        services.audit.record(
            guild_id,
            interaction.user.id,
            gettext_lazy(
                "changed the further names of {persona}", persona=f"**{markdown_name(persona)}**"
            ),
        )
    called = names_of(persona, ALIASES.held(services.store, guild_id, persona_id=persona.id))
    listed = ", ".join(f"`{name}`" for name in called)
    head = gettext_lazy(
        "**{persona}** is called by these names: {names}.",
        persona=markdown_name(persona),
        names=listed,
    )
    lines = [head, *_shared_names(services, persona, called, guild_id)]
    await respond(interaction, join_texts(*lines, separator="\n"))


def _shared_names(
    services: Services, persona: Persona, names: Sequence[str], guild_id: int
) -> list[str]:
    """Return a line for each other persona of a guild that has one of some names, too."""
    lines: list[str] = []
    for other in services.personas.of(guild_id).values():
        others = names_of(other, ALIASES.held(services.store, guild_id, persona_id=other.id))
        shared = [f"`{name}`" for name in names if name in others]
        if shared and other.id != persona.id:
            lines.append(
                gettext_lazy(
                    "**{persona}** is called {names}, too. In a channel of both, the one that was "
                    "set first answers to that.",
                    persona=markdown_name(other),
                    names=", ".join(shared),
                )
            )
    return lines


def _alias_list(text: str) -> list[str]:
    """Read names separated by commas. Raises `RefusedError`."""
    if text.strip().casefold() == NO_NAMES:
        return []
    aliases = list(dict.fromkeys(visible_name(name) for name in text.split(",")))
    if not all(has_words(name) for name in aliases) or "`" in text:
        raise RefusedError(
            gettext_lazy("A name has no letters."),
            gettext_lazy("Separate names by commas: Oda, Mother Oda."),
        )
    if common := [name for name in aliases if is_common(name)]:
        raise RefusedError(
            gettext_lazy(
                "Many messages have {names}, whoever they are for.",
                names=", ".join(f"`{name}`" for name in common),
            ),
            gettext_lazy("Choose names that call nobody else."),
        )
    if len(aliases) > MAX_ALIASES:
        raise RefusedError(
            gettext_lazy("A persona has at most {count} further names.", count=MAX_ALIASES),
            gettext_lazy("Name fewer."),
        )
    return aliases


@PERSONA.command(name="list", description=gettext_noop("List the personas and their channels."))
async def list_(interaction: Interaction) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    channels = services.store.channels.of_guild(guild_id) if guild_id else []
    residents = services.store.channels.residents(channels)
    lines = []
    for persona in services.personas.of(guild_id).values():
        live = localise(live_text(services, persona, guild_id) or gettext_lazy("base model"))
        words = [f"**{markdown_name(persona)}** (`{short_id(persona, guild_id)}`, {live})"]
        for channel in channels:
            living = residents[channel.channel_id]
            if persona.id in living:
                part = localise(_part_text(persona, living))
                words.append(f"<#{channel.channel_id}>{part and f' ({part})'}")
        tagline = " ".join(discord_text(persona.tagline).split())
        lines.append(f"{' '.join(words)}\n{tagline}".strip())
    for entry in services.store.mutes.of_guild(guild_id):
        muted = gettext_lazy("Muted: {names}", names=mute_text(services.personas, entry))
        lines.append(localise(muted))
    if guild_id and (face := services.faces.chosen(guild_id)):
        lines.append(localise(face_text(services.faces, face, guild_id)))
    for text in message_texts(lines or [gettext_lazy("No personas.")]):
        await respond(interaction, text, suppress_embeds=True)


def _part_text(persona: Persona, living: Sequence[str]) -> str:
    """Say which part a persona has in a channel of several."""
    if len(living) == 1:
        return ""
    if persona.id == living[0]:
        return gettext_lazy("the default")
    return gettext_lazy("when called")


@PERSONA.command(description=gettext_noop("Remove this channel's persona (moderators)."))
async def clear(interaction: Interaction) -> None:
    place = channel_ref(require_changeable_channel(interaction))
    if not interaction.client.services.store.channels.clear(place.guild_id, place.channel_id):
        raise RefusedError(gettext_lazy("No persona lives here."))
    if place.guild_id:
        interaction.client.services.audit.record(
            place.guild_id,
            interaction.user.id,
            gettext_lazy("removed the persona of {channel}", channel=f"<#{place.channel_id}>"),
        )
    lines: list[str] = [gettext_lazy("Nobody lives here now. `/persona set` undoes this.")]
    if kept := _kept_answering(interaction.client.services, place):
        lines.append(
            gettext_lazy(
                "-# What is set for answers in this channel holds for the next persona, too: "
                "{settings}.",
                settings=kept,
            )
        )
    await respond(interaction, join_texts(*lines, separator="\n"))


@PERSONA.command(
    description=gettext_noop(
        "Start a new conversation here: the persona no longer sees the earlier messages."
    )
)
async def fresh(interaction: Interaction) -> None:
    place = channel_ref(require_speak_channel(interaction))
    services = interaction.client.services
    rules = services.reply_service.rules
    rules.require_can_write(interaction)
    # The conversation is everybody's here: only those whom its personas answer may end it.
    rules.require_may_talk(services.personas_in(place), place, interaction.user)
    services.reply_service.start_new_conversation(place, interaction.id)
    await respond(
        interaction,
        gettext_lazy("A new conversation starts here. Nothing was deleted."),
        ephemeral=False,
    )


async def _possible_candidates(
    interaction: Interaction, typed: str
) -> list[app_commands.Choice[int]]:
    operators = translate(gettext_noop("the operator's number"))
    names = {OPERATORS_NUMBER: operators}
    for count in range(1, interaction.client.services.reply_candidates.maximum + 1):
        names[count] = str(count)
    choices = []
    for count, name in names.items():
        if typed in name:
            choices.append(app_commands.Choice(name=name, value=count))
    return choices


@guild_moderators_only(gettext_lazy("Candidates are chosen for a server."))
@PERSONA.command(
    description=gettext_noop(
        "Choose among how many beginnings a reply in this server is selected (moderators)."
    )
)
@app_commands.describe(
    count=gettext_noop(
        "1 is the fastest; more fit the talk better and begin later. Left out, the current "
        "number is shown"
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
    if count == OPERATORS_NUMBER:
        CANDIDATES.write(services.store, None, guild_id)
    elif count is not None:
        possible.choose(guild_id, count)
    if count is not None:
        services.audit.record(
            guild_id,
            interaction.user.id,
            gettext_lazy(
                "set the candidates for the beginning of a reply: {count}",
                count=CANDIDATES.read(services.store, guild_id)
                or gettext_lazy("the operator's number"),
            ),
        )
    current = possible.in_guild(guild_id)
    choice = gettext_lazy("The beginning of a reply here is not chosen among several.")
    if current > 1:
        choice = gettext_lazy(
            "The beginning of a reply here is chosen among {count} while the engine is not busy.",
            count=current,
        )
    chosen = CANDIDATES.read(services.store, guild_id)
    whose = gettext_lazy(
        "That is the operator's number; the most is {maximum}.", maximum=possible.maximum
    )
    if chosen:
        whose = gettext_lazy(
            "This server has chosen {count}; the most is {maximum}.",
            count=chosen,
            maximum=possible.maximum,
        )
    await respond(interaction, join_texts(choice, whose))


def live_text(services: Services, persona: Persona, guild_id: int) -> str:
    """The live version of a server, and whether it cannot be served. Empty for the base model."""
    live = services.store.versions.live(persona.id, guild_id) or ""
    model = services.served_versions.incompatible.model_of(persona.id, live)
    if model == NO_ADAPTERS:
        return gettext_lazy(
            "base model, because this engine serves no adapters; {version} is kept", version=live
        )
    if model:
        return gettext_lazy(
            "{version}, made for another base model; ours answers until it is trained again",
            version=live,
        )
    if services.served_versions.is_shipped(persona.id, live):
        return gettext_lazy("{version}, {origin}", version=live, origin=SHIPPED_ORIGIN)
    return live


def assigned_text(persona: Persona, channel: SpeakChannel, *, answers: str, can_read: bool) -> str:
    """Say that a persona lives in a channel, and what the bot may not do there."""
    if isinstance(channel, discord.DMChannel):
        return gettext_lazy("**{persona}** lives here now.", persona=markdown_name(persona))
    text = gettext_lazy(
        "**{persona}** lives here now, and answers messages that mention me, replies to it, and "
        "`/chat`.",
        persona=markdown_name(persona),
    )
    if answers == "everything":
        text = gettext_lazy(
            "**{persona}** lives here now, and answers every message here, replies to it, and "
            "`/chat`.",
            persona=markdown_name(persona),
        )
    lines: list[str] = [text]
    if answers == "everything" and not can_read:
        need = permissions.MESSAGE_CONTENT
        lines.append(
            gettext_lazy(
                "The bot may not {action}: {cost}. The operator can set MESSAGE_CONTENT_INTENT.",
                action=need.why,
                cost=need.cost,
            )
        )
    for missing in permissions.missing_in_channel(channel, channel.guild.me):
        lines.append(
            gettext_lazy(
                "I lack the permission {permission} here: {cost}.",
                permission=permissions.permission_title(missing),
                cost=missing.cost,
            )
        )
    return join_texts(*lines, separator="\n")


# ------------------------------------------------------------------------------------------ mutes


@PERSONA.command(
    description=gettext_noop("Mute personas at once, even in the middle of a reply (moderators).")
)
@app_commands.describe(
    where=gettext_noop(
        "In this channel and its threads, or in the whole server (this channel if left out)"
    ),
    persona=gettext_noop("Which persona (all if left out)"),
    delete=gettext_noop("Which of their replies there are deleted (none if left out)"),
)
@app_commands.choices(
    where=SCOPE_CHOICES,
    delete=[
        app_commands.Choice(name=app_commands.locale_str(gettext_noop("nothing")), value="nothing"),
        app_commands.Choice(
            name=app_commands.locale_str(gettext_noop("what was said in the last hour")),
            value="hour",
        ),
        app_commands.Choice(
            name=app_commands.locale_str(gettext_noop("what was said in the last day")),
            value="day",
        ),
        app_commands.Choice(
            name=app_commands.locale_str(gettext_noop("everything they ever said")),
            value="everything",
        ),
    ],
)
async def mute(
    interaction: Interaction,
    where: MuteScope = "channel",
    persona: PersonaOption | None = None,
    delete: DeletePeriod = "nothing",
) -> None:
    services = interaction.client.services
    guild_id, channel_id = _mute_place(interaction, where)
    persona_id = persona.id if persona else ALL_PERSONAS
    new = services.moderation.mute(guild_id, channel_id, persona_id, by=interaction.user.id)
    text = gettext_lazy(
        "Muted: {names}. `/persona unmute` ends it.", names=mute_text(services.personas, new)
    )
    await respond(interaction, text)
    if delete != "nothing":
        since = time.time() - DELETE_PERIODS_S[delete]
        await _delete_replies(interaction, _muted_replies(interaction, new, since), text)


@PERSONA.command(description=gettext_noop("Let muted personas answer again (moderators)."))
@app_commands.describe(
    where=gettext_noop("Where they are muted (this channel if left out)"),
    persona=gettext_noop("Which persona (all if left out)"),
)
@app_commands.choices(where=SCOPE_CHOICES)
async def unmute(
    interaction: Interaction, where: MuteScope = "channel", persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    guild_id, channel_id = _mute_place(interaction, where)
    persona_id = persona.id if persona else ALL_PERSONAS
    old = services.moderation.unmute(guild_id, channel_id, persona_id, by=interaction.user.id)
    text = gettext_lazy("Unmuted: {mute}.", mute=mute_text(services.personas, old))
    await respond(interaction, text)


def _mute_place(interaction: Interaction, where: MuteScope) -> tuple[int, int]:
    """Return the ids of the guild and the channel that the command names. Raises `RefusedError`."""
    place = channel_ref(require_changeable_channel(interaction))
    if not place.guild_id:
        raise RefusedError(
            gettext_lazy("In direct messages nobody needs silencing."),
            gettext_lazy("`/persona clear` sends them away."),
        )
    return place.guild_id, place.channel_id if where == "channel" else ALL_CHANNELS


def _muted_replies(interaction: Interaction, entry: Mute, since: float) -> list[StoredReply]:
    channel_ids = None
    if entry.channel_id:
        threads = interaction.client.services.store.places.threads_of(entry.channel_id)
        channel_ids = [entry.channel_id, *threads]
        for thread in interaction.guild.threads if interaction.guild else []:
            if thread.parent_id == entry.channel_id:
                channel_ids.append(thread.id)
    replies = interaction.client.services.store.replies
    return replies.of_guild(
        entry.guild_id, channel_ids=channel_ids, persona_id=entry.persona_id or None, since=since
    )


async def _delete_replies(interaction: Interaction, replies: list[StoredReply], text: str) -> None:
    """Delete replies, and show the progress below the response's text."""
    if not replies:
        nothing = gettext_lazy("There was nothing to delete.")
        await edit_response(interaction, content=join_texts(text, nothing, separator="\n"))
        return
    count = 0
    problems = Counter[str]()
    service = interaction.client.services.reply_service
    async for problem in service.delete(replies, interaction.client):
        count += 1
        if problem:
            problems[problem] += 1
        if count % PROGRESS_INTERVAL_MESSAGES == 0 or count == len(replies):
            progress = gettext_lazy(
                "Deleted {deleted} of {count} replies.",
                deleted=count - problems.total(),
                count=len(replies),
            )
            for each, failed in problems.items():
                undeleted = gettext_lazy(
                    "{count} could not be deleted: {problem}.", count=failed, problem=each
                )
                progress = join_texts(progress, undeleted)
            await edit_response(interaction, content=join_texts(text, progress, separator="\n"))
