"""`/persona lore add|remove|ask|sets`: a guild's lore for its personas, and shared sets."""

import asyncio

import discord
from discord import app_commands

from bot.personas.discord_import_list import with_import_list
from bot.personas.discord_undo import ENTRY, PERSONA_ID, UndoButton, Undone
from bot.personas.guild_lore import GuildLore, contribute_lore, set_choice_text
from bot.personas.lore_upload import add_lore, beside_text, max_upload_bytes, titled_text
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
from bot.platform.discord_kit.ui import (
    MAX_TITLE_CHARS,
    PersistentButton,
    button_view,
    defer,
    fitting_text,
    form,
    respond,
    send_form,
    text_field,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    join_texts,
    localisable_number,
    localise,
    ngettext_lazy,
    translate,
)
from bot.platform.messages import markdown_name
from bot.platform.trash import require_entry
from bot.services import Services
from personas.home.lore_sets import LoreSet
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.home.trash import KEPT_S
from personas.lore.index import guild_owner
from personas.lore.index_terms import has_words
from personas.lore.ranking import MIN_SCORE, LoreRanking, PassageMatch
from personas.schemas.chat import Persona

TITLE_LABEL = gettext_noop("Title")
TEXT_LABEL = gettext_noop("Text (markdown)")
LORE_FORM_PREFIX = "lore:"
"""Prefix of the form's custom id; the persona's id follows."""
DM_TEXT = gettext_lazy("Lore is added to a server.")
MAX_SHOWN_MATCHES = 4
MAX_SHOWN_KEYS = 6
MAX_EXCERPT_CHARS = 160
LORE = app_commands.Group(
    name="lore",
    description=gettext_noop("The lore of personas: facts about themselves and their world."),
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
    description=gettext_noop(
        "Give a persona lore in this server (moderators): a file, or text in a form."
    ),
)
@app_commands.describe(
    persona=gettext_noop("Which persona"),
    file=gettext_noop("Markdown (at most 100 KB) or a lorebook (a form opens if left out)"),
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
            gettext_lazy(
                "{file} has more than {size:,} KB.", file=file.filename, size=most // 1000
            ),
            gettext_lazy("Split it into several files."),
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
    name="remove",
    description=gettext_noop("Remove a lore file that this server has added (moderators)."),
)
@app_commands.describe(persona=gettext_noop("Which persona"), file=gettext_noop("Which file"))
async def lore_remove(interaction: Interaction, persona: PersonaOption, file: FileOption) -> None:
    guild_id = interaction.guild_id or 0
    services = interaction.client.services
    await defer(interaction, ephemeral=True)
    entry = await guild_lore(services).throw_away(guild_id, persona.id, file)
    services.audit.record(
        guild_id,
        interaction.user.id,
        gettext_lazy(
            "removed {file} from the lore of {persona}",
            file=f"`{file}`",
            persona=f"**{markdown_name(persona)}**",
        ),
    )
    text = gettext_lazy(
        "{persona} has forgotten `{file}`. **Undo** brings it back until <t:{until}:f>.",
        persona=markdown_name(persona),
        file=file,
        until=int(entry.at + KEPT_S),
    )
    undo = UndoLoreRemovalButton(persona.id, entry.stamp)
    await respond(interaction, text, button_view(undo))


class UndoLoreRemovalButton(UndoButton, template=rf"undo-lore:{ENTRY}"):
    """Brings a removed lore file back."""

    async def undo(self, interaction: Interaction, guild_id: int) -> Undone:
        services = interaction.client.services
        persona = require_persona(interaction, self.persona)
        entry = require_entry(
            services.home, guild_id, kind="lore-file", id=persona.id, stamp=self.stamp
        )
        await guild_lore(services).bring_back(entry)
        name = markdown_name(persona)
        return Undone(
            gettext_lazy(
                "brought {file} back to the lore of {persona}",
                file=f"`{entry.name}`",
                persona=f"**{name}**",
            ),
            gettext_lazy("{persona} knows `{file}` again.", persona=name, file=entry.name),
        )


@LORE.command(name="ask", description=gettext_noop("Show which lore a question finds, and why."))
@app_commands.describe(
    question=gettext_noop("A question, as you would ask it"), persona=CHANNEL_PERSONA_HELP
)
async def lore_ask(
    interaction: Interaction,
    question: app_commands.Range[str, 1, 500],
    persona: PersonaOption | None = None,
) -> None:
    if not has_words(question):
        raise RefusedError(
            gettext_lazy("The question has no words."),
            gettext_lazy("Write what a member might ask."),
        )
    persona = persona or channel_persona(interaction)
    interaction.client.services.reply_service.rules.age.require(persona, interaction.channel)
    lore = interaction.client.services.lore
    guild_id = interaction.guild_id or 0
    await defer(interaction, ephemeral=True)
    ranking = await asyncio.to_thread(lore.rank, persona.id, question, guild_id)
    sets = interaction.client.services.lore_sets
    names = [sets.sets[set_id].name for set_id in sets.taken(persona.id, guild_id)]
    shared = gettext_lazy(
        "-# Shared sets: {names} (`/persona lore sets`).",
        names=", ".join(names) or gettext_lazy("none"),
    )
    text = join_texts(*_match_lines(persona, ranking), shared, separator="\n")
    await respond(interaction, text, suppress_embeds=True)


def _set_names(interaction: Interaction) -> list[str]:
    return [lore_set.name for lore_set in interaction.client.services.lore_sets.sets.values()]


SetOption = app_commands.Transform[str, SuggestionTransformer(_set_names)]


@guild_moderators_only(DM_TEXT)
@LORE.command(
    name="sets",
    description=gettext_noop(
        "Show shared sets of lore, such as a world's; let personas use one, or not (moderators)."
    ),
)
@app_commands.rename(name="set")
@app_commands.describe(
    name=gettext_noop("Which set (all are shown if left out)"),
    use=gettext_noop("Whether it is used here (only shown if left out)"),
    persona=gettext_noop("By which persona (all of this server if left out)"),
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
        text = (
            join_texts(*lines, separator="\n")
            if lines
            else gettext_lazy("There are no sets of lore.")
        )
        await respond(interaction, text)
        return
    if not name:
        raise RefusedError(gettext_lazy("Which set?"), gettext_lazy("Name it in the option `set`."))
    lore_set = services.lore_sets.find(name)
    if persona:
        services.lore_sets.choose(lore_set.id, use, guild_id=guild_id, persona_id=persona.id)
    else:
        services.lore_sets.choose_for_all(lore_set.id, use, guild_id)
    whose = (
        f"**{markdown_name(persona)}**" if persona else gettext_lazy("all personas of this server")
    )
    services.audit.record(guild_id, interaction.user.id, set_choice_text(whose, use, lore_set))
    await respond(
        interaction, gettext_lazy("Done.\n{set}", set=_set_text(services, guild_id, lore_set))
    )


def _set_text(services: Services, guild_id: int, lore_set: LoreSet) -> str:
    """Describe a set, and who of a server uses it."""
    owners = (lore_set.id, guild_owner(OPERATOR_GUILD_ID, lore_set.id))
    passages = _passages_text(len(services.lore.passages_of(*owners)))
    users = []
    for persona in services.personas.of(guild_id).values():
        if lore_set.id in services.lore_sets.taken(persona.id, guild_id):
            users.append(persona.name)
    head = gettext_lazy("**{name}** ({passages})", name=lore_set.name, passages=passages)
    if lore_set.about:
        head = gettext_lazy("{head}: {about}", head=head, about=lore_set.about)
    used = gettext_lazy(
        "-# Used by {personas}.", personas=", ".join(users) or gettext_lazy("nobody")
    )
    return join_texts(head, used, separator="\n")


def _passages_text(count: int) -> LocalisableText:
    return ngettext_lazy("{count} passage", "{count} passages", count)


def lore_form(persona: Persona) -> discord.ui.Modal:
    """The form behind `/persona lore add` without a file."""
    title = discord.ui.TextInput[discord.ui.Modal](
        label=translate(TITLE_LABEL), custom_id="title", max_length=60
    )
    text = text_field(translate(TEXT_LABEL), "text", 4000)
    heading = fitting_text(
        gettext_noop("Lore for {persona}"),
        max_chars=MAX_TITLE_CHARS,
        persona=persona.name,
    )
    return form(heading, f"{LORE_FORM_PREFIX}{persona.id}", title, text)


class AddLoreButton(PersistentButton, template=rf"add-lore:{PERSONA_ID}"):
    """Opens the form of `/persona lore add`."""

    persona: str
    label = gettext_lazy("Add lore")
    moderators_only = True

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona)
        await send_form(interaction, lore_form(persona))


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

    added = await add_lore(
        lore, guild_id, persona=persona, name=name, content=content, store=store, replace=False
    )
    files = ", ".join(f"`{file}`" for file in added.files)
    services.audit.record(
        guild_id,
        interaction.user.id,
        gettext_lazy(
            "changed the lore of {persona} ({files})",
            persona=f"**{markdown_name(persona)}**",
            files=files,
        ),
    )
    line = gettext_lazy(
        "{persona} knows {files} now ({passages}), in this server only. `/persona lore ask` shows "
        "what a question finds, `/persona lore remove` removes it.",
        persona=markdown_name(persona),
        files=files,
        passages=_passages_text(added.passages),
    )
    if beside := beside_text(added):
        line = join_texts(line, beside)
    if added.report is None:
        await respond(interaction, line)
        return
    kind = gettext_lazy("This is {kind}.", kind=gettext_lazy(added.kind))
    whole = localise(join_texts(kind, line))
    text, attached = with_import_list([whole], added.report)
    await respond(interaction, text, files=attached, suppress_embeds=True)


def guild_lore(services: Services) -> GuildLore:
    """The lore of all guilds."""
    return GuildLore(services.home, services.lore)


def _match_lines(persona: Persona, ranking: LoreRanking) -> list[str]:
    """Describe the matches, the near misses, and why. The sources read as under a reply."""
    if not ranking.matches:
        return [
            gettext_lazy(
                "There is no lore for {persona} yet. `/persona lore add` gives them some.",
                persona=markdown_name(persona),
            )
        ]
    selected = {id(match) for match in ranking.selected()}
    given = gettext_lazy(
        "**{persona}** would be given no passages.", persona=markdown_name(persona)
    )
    if selected:
        given = gettext_lazy(
            "**{persona}** would be given {passages}.",
            persona=markdown_name(persona),
            passages=_passages_text(len(selected)),
        )
    threshold = gettext_lazy(
        "A passage matches with a score of {score:g} or more:", score=MIN_SCORE
    )
    if ranking.note:
        threshold = gettext_lazy(
            "A passage matches with a score of {score:g} or more; {note}:",
            score=MIN_SCORE,
            note=ranking.note,
        )
    lines: list[str] = [join_texts(given, threshold)]
    for match in ranking.matches[:MAX_SHOWN_MATCHES]:
        mark = "❌"
        if id(match) in selected:
            mark = "✅"
        elif match.is_match:
            mark = "➖"
        score = (
            gettext_lazy("by keys") if match.by_keys else localisable_number(f"{match.score:.2f}")
        )
        lines.append(
            gettext_lazy(
                "{mark} **{score}** `{source}` {heading}",
                mark=mark,
                score=score,
                source=match.passage.source,
                heading=match.passage.heading,
            )
        )
        reason = gettext_lazy("-# {line}", line=_match_reason(match))
        lines += [reason, f"> {_excerpt(match.passage.text)}"]
    return lines


def _match_reason(match: PassageMatch) -> str:
    if match.is_always:
        return gettext_lazy("given with every message")
    if match.keys:
        keys = discord.utils.escape_markdown(", ".join(match.keys[:MAX_SHOWN_KEYS]))
        return gettext_lazy("its keys: {keys}", keys=keys)
    if match.is_ruled_out:
        return gettext_lazy("given by its keys only, and they do not match")
    words = ", ".join(sorted(match.words, key=lambda word: -match.words[word]))
    meaning = localisable_number(f"{match.by_meaning:+.2f}")
    if match.cosine is None:
        meaning = gettext_lazy("not compared (another language)")
    return gettext_lazy(
        "meaning {meaning} · shared words {score:+.2f} ({words})",
        meaning=meaning,
        score=match.by_words,
        words=words or gettext_lazy("none"),
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > MAX_EXCERPT_CHARS:
        line = line[:MAX_EXCERPT_CHARS].rsplit(" ", 1)[0] + " …"
    return discord.utils.escape_markdown(line)
