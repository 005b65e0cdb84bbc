"""`/persona generation show|set|reset`: length, sampling and context of replies."""

from typing import Literal

from discord import app_commands

from bot.chat.places import ChannelRef, channel_ref
from bot.generation.actions import MAX_TEMPERATURE, MIN_TOP_P
from bot.generation.store import ALL_PERSONAS, FIELDS, GenerationScope
from bot.generation.texts import NAMES, effective_lines, settings_text
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    PERSONA,
    Interaction,
    PersonaOption,
    channel_persona,
    find_channel_persona,
    guild_moderators_only,
    require_speak_channel,
)
from bot.platform.discord_kit.ui import respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.platform.messages import markdown_name
from bot.services import Services
from bot.setting_values import MAX_NEW_TOKENS_LIMIT
from personas.engine.context_window import MAX_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS
from personas.schemas.chat import Persona

DM_TEXT = gettext_lazy("This is set for a server.")
ScopeName = Literal["channel", "persona"]
PERSONA_SCOPE = gettext_noop("the persona, in all channels of this server")
SCOPE_CHOICES = [
    app_commands.Choice(
        name=app_commands.locale_str(gettext_noop("this channel, whoever lives here")),
        value="channel",
    ),
    app_commands.Choice(name=app_commands.locale_str(PERSONA_SCOPE), value="persona"),
]
SCOPE_HELP = gettext_noop(
    "Where it holds (this channel if left out); a channel's settings precede a persona's"
)
GENERATION = app_commands.Group(
    name="generation",
    description=gettext_noop(
        "How long and how varied replies are, and how much of the talk they see."
    ),
    parent=PERSONA,
)


@GENERATION.command(
    name="show", description=gettext_noop("Show what holds for replies in this channel, and why.")
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def generation_show(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or find_channel_persona(interaction)
    lines = generation_lines(
        interaction.client.services, persona, channel_ref(require_speak_channel(interaction))
    )
    title = gettext_lazy("No persona lives in this channel. Replies of one would have:")
    if persona:
        title = gettext_lazy("Replies of **{persona}** here:", persona=markdown_name(persona))
    await respond(interaction, join_texts(title, *lines, separator="\n"))


@guild_moderators_only(DM_TEXT)
@GENERATION.command(
    name="set",
    description=gettext_noop("Set the length, sampling and context of replies (moderators)."),
)
@app_commands.describe(
    where=SCOPE_HELP,
    persona=CHANNEL_PERSONA_HELP,
    max_new_tokens=gettext_noop("The longest reply in tokens; 120 are about 450 letters"),
    temperature=gettext_noop("0 always takes the likeliest word; above 1 words get random"),
    top_p=gettext_noop("Share of the likeliest words that are drawn from: 1 is all"),
    context_tokens=gettext_noop(
        "The most tokens of card, lore, talk and reply; more of the talk is slower"
    ),
)
@app_commands.choices(where=SCOPE_CHOICES)
async def generation_set(
    interaction: Interaction,
    max_new_tokens: app_commands.Range[int, 1, MAX_NEW_TOKENS_LIMIT] | None = None,
    temperature: app_commands.Range[float, 0.0, MAX_TEMPERATURE] | None = None,
    top_p: app_commands.Range[float, MIN_TOP_P, 1.0] | None = None,
    context_tokens: app_commands.Range[int, MIN_CONTEXT_TOKENS, MAX_CONTEXT_TOKENS] | None = None,
    where: ScopeName = "channel",
    persona: PersonaOption | None = None,
) -> None:
    services = interaction.client.services
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "context_tokens": context_tokens,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    scope = _scope(interaction, where, persona)
    settings = services.generation.change(scope, changes, by=interaction.user.id)
    await respond(
        interaction,
        gettext_lazy(
            "Set for {scope}: {settings}. It holds from the next reply on.",
            scope=_scope_text(services, scope),
            settings=settings_text(settings),
        ),
    )


@guild_moderators_only(DM_TEXT)
@GENERATION.command(
    name="reset",
    description=gettext_noop("Remove what was set for replies, or one setting of it (moderators)."),
)
@app_commands.describe(
    where=SCOPE_HELP,
    persona=CHANNEL_PERSONA_HELP,
    setting=gettext_noop("Which setting (all if left out)"),
)
@app_commands.choices(
    where=SCOPE_CHOICES,
    setting=[
        app_commands.Choice(name=app_commands.locale_str(NAMES[name]), value=name)
        for name in FIELDS
    ],
)
async def generation_reset(
    interaction: Interaction,
    setting: str | None = None,
    where: ScopeName = "channel",
    persona: PersonaOption | None = None,
) -> None:
    services = interaction.client.services
    scope = _scope(interaction, where, persona)
    if setting:
        services.generation.change(scope, {setting: None}, by=interaction.user.id)
    else:
        services.generation.reset(scope, by=interaction.user.id)
    left = settings_text(services.store.generation.get(scope))
    await respond(
        interaction,
        gettext_lazy(
            "Reset. Set for {scope}: {settings}.",
            scope=_scope_text(services, scope),
            settings=left,
        ),
    )


def _scope(interaction: Interaction, where: ScopeName, persona: Persona | None) -> GenerationScope:
    place = channel_ref(require_speak_channel(interaction))
    if where == "channel":
        if persona:
            raise RefusedError(
                gettext_lazy("A channel's settings hold for whoever lives there."),
                gettext_lazy(
                    "Leave `persona` out, or choose for `where`: {choice}.",
                    choice=gettext_lazy(PERSONA_SCOPE),
                ),
            )
        return GenerationScope(place.guild_id, channel_id=place.channel_id)
    persona = persona or channel_persona(interaction)
    return GenerationScope(place.guild_id, persona_id=persona.id)


def _scope_text(services: Services, scope: GenerationScope) -> str:
    if scope.channel_id:
        return f"<#{scope.channel_id}>"
    persona = services.personas.get(scope.persona_id, scope.guild_id)
    return gettext_lazy(
        "**{persona}** in this server",
        persona=markdown_name(persona) if persona else scope.persona_id,
    )


def generation_lines(services: Services, persona: Persona | None, place: ChannelRef) -> list[str]:
    """Return what holds for the replies of a persona (None: of any) in a channel, and why, a line a
    setting.
    """
    generation = services.generation
    persona_id = persona.id if persona else ALL_PERSONAS
    effective = generation.in_channel(persona_id, place.guild_id, place.channel_id, place.parent_id)
    reason = services.engine.state().context_reason
    lines = effective_lines(effective, generation.bounds(), reason)
    return [gettext_lazy("• {line}", line=line) for line in lines]
