"""`/persona lore add|remove|ask|sets`: a guild's lore for its personas, and shared sets."""

import asyncio

import discord
from discord import app_commands

from bot.personas.discord_import_list import with_import_list
from bot.personas.guild_lore import GuildLore, contribute_lore
from bot.personas.lore_upload import add_lore, max_upload_bytes, titled_text
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    PERSONA,
    Interaction,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    guild_moderators_only,
    require_guild_moderator,
    require_persona,
)
from bot.platform.discord_kit.ui import defer, form, respond, send_form, text_field
from bot.platform.errors import RefusedError
from bot.services import Services
from personas.home.lore_sets import LoreSet
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.index import guild_owner
from personas.lore.index_terms import has_words
from personas.lore.ranking import MIN_SCORE, LoreRanking, PassageMatch
from personas.schemas.chat import Persona
from personas.schemas.formatting import count_of

LORE_FORM_PREFIX = "lore:"
"""Prefix of the form's custom id; the persona's id follows."""
DM_TEXT = "Lore is added to a server."
MAX_SHOWN_MATCHES = 4
MAX_SHOWN_KEYS = 6
MAX_EXCERPT_CHARS = 160
LORE = app_commands.Group(
    name="lore",
    description="The lore of personas: facts about themselves and their world.",
    parent=PERSONA,
)


def _lore_files(interaction: Interaction) -> list[str]:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    persona = services.personas.find(str(interaction.namespace.persona or ""), guild_id)
    if persona and guild_id:
        return guild_lore(services).files(guild_id, persona.id)
    return []


FileOption = app_commands.Transform[str, SuggestionTransformer(_lore_files)]


@guild_moderators_only(DM_TEXT)
@LORE.command(
    name="add",
    description="Give a persona lore in this server (moderators): a file, or text in a form.",
)
@app_commands.describe(
    persona="Which persona",
    file=(
        "Markdown (at most 100 KB) or a lorebook; replaces a file of its name (a form opens if "
        "left out)"
    ),
)
async def lore_add(
    interaction: Interaction, persona: PersonaOption, file: discord.Attachment | None = None
) -> None:
    if file is None:
        await send_form(interaction, lore_form(persona))
        return
    most = max_upload_bytes(file.filename)
    if file.size > most:
        raise RefusedError(
            f"{file.filename} has more than {most // 1000:,} KB.", "Split it into several files."
        )
    await defer(interaction, ephemeral=True)
    await _add_lore(
        interaction,
        interaction.guild_id or 0,
        persona=persona,
        name=file.filename,
        content=await file.read(),
    )


@guild_moderators_only(DM_TEXT)
@LORE.command(
    name="remove", description="Remove a lore file that this server has added (moderators)."
)
@app_commands.describe(persona="Which persona", file="Which file")
async def lore_remove(interaction: Interaction, persona: PersonaOption, file: FileOption) -> None:
    guild_id = interaction.guild_id or 0
    services = interaction.client.services
    await defer(interaction, ephemeral=True)
    await guild_lore(services).remove(guild_id, persona.id, file)
    services.store.people.remove_contribution(guild_id, persona.id, file)
    services.audit.record(
        guild_id, interaction.user.id, f"removed `{file}` from the lore of **{persona.name}**"
    )
    await respond(interaction, f"{persona.name} has forgotten `{file}`.")


@LORE.command(name="ask", description="Show which lore a question finds, and why.")
@app_commands.describe(question="A question, as you would ask it", persona=CHANNEL_PERSONA_HELP)
async def lore_ask(
    interaction: Interaction,
    question: app_commands.Range[str, 1, 500],
    persona: PersonaOption | None = None,
) -> None:
    if not has_words(question):
        raise RefusedError("The question has no words.", "Write what a member might ask.")
    persona = persona or channel_persona(interaction)
    lore = interaction.client.services.lore
    guild_id = interaction.guild_id or 0
    await defer(interaction, ephemeral=True)
    ranking = await asyncio.to_thread(lore.rank, persona.id, question, guild_id)
    sets = interaction.client.services.lore_sets
    names = [sets.sets[set_id].name for set_id in sets.taken(persona.id, guild_id)]
    text = _matches_text(persona, ranking)
    text += f"\n-# Shared sets: {', '.join(names) or 'none'} (`/persona lore sets`)."
    await respond(interaction, text, suppress_embeds=True)


def _set_names(interaction: Interaction) -> list[str]:
    return [lore_set.name for lore_set in interaction.client.services.lore_sets.sets.values()]


SetOption = app_commands.Transform[str, SuggestionTransformer(_set_names)]


@guild_moderators_only(DM_TEXT)
@LORE.command(
    name="sets",
    description="Show shared sets of lore, such as a world's; let personas use one, or not (moderators).",
)
@app_commands.rename(name="set")
@app_commands.describe(
    name="Which set (all are shown if left out)",
    use="Whether it is used here (only shown if left out)",
    persona="By which persona (all of this server if left out)",
)
async def lore_sets(
    interaction: Interaction,
    name: SetOption | None = None,
    use: bool | None = None,
    persona: PersonaOption | None = None,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    await defer(interaction, ephemeral=True)
    if use is None:
        chosen = [services.lore_sets.find(name)] if name else services.lore_sets.sets.values()
        lines = [_set_text(services, guild_id, lore_set) for lore_set in chosen]
        await respond(interaction, "\n".join(lines) or "There are no sets of lore.")
        return
    if not name:
        raise RefusedError("Which set?", "Name it in the option `set`.")
    lore_set = services.lore_sets.find(name)
    if persona:
        services.lore_sets.choose(lore_set.id, use, guild_id=guild_id, persona_id=persona.id)
    else:
        services.lore_sets.choose_for_all(lore_set.id, use, guild_id)
    whose = f"**{persona.name}**" if persona else "all personas of this server"
    verb = "use" if use else "no longer use"
    services.audit.record(
        guild_id, interaction.user.id, f"let {whose} {verb} the lore **{lore_set.name}**"
    )
    await respond(interaction, f"Done.\n{_set_text(services, guild_id, lore_set)}")


def _set_text(services: Services, guild_id: int, lore_set: LoreSet) -> str:
    """Describe a set, and who of a server uses it."""
    owners = (lore_set.id, guild_owner(OPERATOR_GUILD_ID, lore_set.id))
    passages = count_of(len(services.lore.passages_of(*owners)), "passage")
    users = []
    for persona in services.personas.of(guild_id).values():
        if lore_set.id in services.lore_sets.taken(persona.id, guild_id):
            users.append(persona.name)
    about = f": {lore_set.about}" if lore_set.about else ""
    return f"**{lore_set.name}** ({passages}){about}\n-# Used by {', '.join(users) or 'nobody'}."


def lore_form(persona: Persona) -> discord.ui.Modal:
    """The form behind `/persona lore add` without a file."""
    title = discord.ui.TextInput[discord.ui.Modal](label="Title", custom_id="title", max_length=60)
    text = text_field("Text (markdown)", "text", 4000)
    return form(f"Lore for {persona.name}", f"{LORE_FORM_PREFIX}{persona.id}", title, text)


async def add_lore_from_form(
    interaction: Interaction, persona_id: str, values: dict[str, str]
) -> None:
    """Add the text of a submitted form, with its title as a heading unless it has one."""
    guild_id = require_guild_moderator(interaction, DM_TEXT)
    persona = require_persona(interaction, persona_id)
    await defer(interaction, ephemeral=True, thinking=True)
    typed = await interaction.client.services.message_reader.read_interaction(
        interaction, values["text"]
    )
    text = titled_text(values["title"], typed.text)
    await _add_lore(
        interaction, guild_id, persona=persona, name=values["title"], content=text.encode()
    )


async def _add_lore(
    interaction: Interaction, guild_id: int, persona: Persona, name: str, content: bytes
) -> None:
    services = interaction.client.services
    lore = guild_lore(services)

    async def store(wanted: str, text: bytes) -> tuple[str, int]:
        return await contribute_lore(
            services.store.people,
            lore,
            guild_id=guild_id,
            persona_id=persona.id,
            name=wanted,
            content=text,
            user_id=interaction.user.id,
        )

    added = await add_lore(lore, guild_id, persona, name, content=content, store=store)
    count = count_of(added.passages, "passage")
    files = ", ".join(f"`{file}`" for file in added.files)
    services.audit.record(
        guild_id, interaction.user.id, f"changed the lore of **{persona.name}** ({files})"
    )
    lines = [
        f"{persona.name} knows {files} now ({count}), in this server only. "
        "`/persona lore ask` shows what a question finds, `/persona lore remove` removes it."
    ]
    if added.report is None:
        await respond(interaction, lines[0])
        return
    lines[0] = f"This is {added.kind}. {lines[0]}"
    text, attached = with_import_list(lines, added.report)
    await respond(interaction, text, files=attached, suppress_embeds=True)


def guild_lore(services: Services) -> GuildLore:
    """The lore of all guilds."""
    return GuildLore(services.home, services.lore)


def _matches_text(persona: Persona, ranking: LoreRanking) -> str:
    """Describe the matches, the near misses, and why. The sources read as under a reply."""
    if not ranking.matches:
        return f"There is no lore for {persona.name} yet. `/persona lore add` gives them some."
    selected = {id(match) for match in ranking.selected()}
    count = "1 passage" if len(selected) == 1 else f"{len(selected) or 'no'} passages"
    threshold = f"A passage matches with a score of {MIN_SCORE:g} or more"
    lines = [
        f"**{persona.name}** would be given {count}. "
        f"{threshold}{ranking.note and f'; {ranking.note}'}:"
    ]
    for match in ranking.matches[:MAX_SHOWN_MATCHES]:
        mark = "❌"
        if id(match) in selected:
            mark = "✅"
        elif match.is_match:
            mark = "➖"
        score = "by keys" if match.by_keys else f"{match.score:.2f}"
        lines.append(f"{mark} **{score}** `{match.passage.source}` {match.passage.heading}")
        lines += [f"-# {_match_reason(match)}", f"> {_excerpt(match.passage.text)}"]
    return "\n".join(lines)


def _match_reason(match: PassageMatch) -> str:
    if match.is_always:
        return "given with every message"
    if match.keys:
        return f"its keys: {discord.utils.escape_markdown(', '.join(match.keys[:MAX_SHOWN_KEYS]))}"
    if match.is_ruled_out:
        return "given by its keys only, and they do not match"
    words = ", ".join(sorted(match.words, key=lambda word: -match.words[word])) or "none"
    meaning = f"{match.by_meaning:+.2f}"
    if match.cosine is None:
        meaning = "not compared (another language)"
    return f"meaning {meaning} · shared words {match.by_words:+.2f} ({words})"


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > MAX_EXCERPT_CHARS:
        line = line[:MAX_EXCERPT_CHARS].rsplit(" ", 1)[0] + " …"
    return discord.utils.escape_markdown(line)
