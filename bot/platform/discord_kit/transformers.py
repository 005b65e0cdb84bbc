"""Command groups, option transformers and checks of the slash commands."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import discord
from discord import app_commands

from bot.chat.places import (
    SPEAK_PLACES,
    GuildChannel,
    SpeakChannel,
    channel_ref,
    guild_id_of,
    reply_channel,
)
from bot.moderation.roles import Action, RolePermissions, command_actions
from bot.platform import permissions
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, localise
from bot.platform.request_origin import RequestOrigin
from bot.services import Bot
from personas.errors import RequestError
from personas.home.persona_ids import short_id
from personas.schemas.chat import Persona

T = TypeVar("T")
Interaction = discord.Interaction[Bot]
Choices = list[app_commands.Choice[str]]
MAX_CHOICES = 25
MAX_LABEL_CHARS = 100
CHANNEL_PERSONA_HELP = gettext_noop("Which persona (this channel's if left out)")
NAME_ONE_ADVICE = gettext_lazy("Name one with the option `persona`.")


def request_origin(interaction: Interaction) -> RequestOrigin:
    """Return the origin of a command, a press or a form."""
    return RequestOrigin(
        guild_id=interaction.guild_id or 0,
        channel_id=interaction.channel_id or 0,
        user_id=interaction.user.id,
    )


def require_moderator(interaction: Interaction) -> None:
    """Raise `RefusedError` for members who may not manage the server."""
    if not permissions.is_moderator(interaction.user):
        raise RefusedError(
            gettext_lazy("Only moderators may do this."),
            gettext_lazy("It takes the permission Manage Server."),
        )


def require_action(interaction: Interaction, *actions: Action) -> None:
    """Raise `RefusedError` for members who may do none of some actions, by their roles; without
    actions, for all but moderators.
    """
    if not actions or not interaction.guild_id:
        return require_moderator(interaction)
    roles = RolePermissions(interaction.client.services.store)
    roles.require(interaction.user, interaction.guild_id, *actions)


def require_guild_moderator(interaction: Interaction, dm_text: str) -> int:
    """Return the guild for its moderators. Raises `RefusedError`, in direct messages with
    `dm_text`.
    """
    if interaction.guild_id is None:
        raise RefusedError(dm_text, gettext_lazy("Try it in one of its channels."))
    require_moderator(interaction)
    return interaction.guild_id


def require_speak_channel(interaction: Interaction) -> SpeakChannel:
    """Return the command's channel. Raises `RefusedError` where no persona can live."""
    if not isinstance(interaction.channel, SpeakChannel):
        raise RefusedError(
            gettext_lazy("Personas live in {places}, and in direct messages.", places=SPEAK_PLACES),
            gettext_lazy("Try it there."),
        )
    return interaction.channel


def require_guild_channel(interaction: Interaction) -> GuildChannel:
    """Return the command's channel or thread of a server. Raises `RefusedError` elsewhere."""
    if not isinstance(interaction.channel, GuildChannel):
        raise RefusedError(
            gettext_lazy("Personas live in {places}.", places=SPEAK_PLACES),
            gettext_lazy("Try it there."),
        )
    return interaction.channel


def require_changeable_channel(interaction: Interaction) -> SpeakChannel:
    """Return the command's channel if personas can live there and this member may decide which:
    moderators, and everybody in their direct messages. Raises `RefusedError`.
    """
    channel = require_speak_channel(interaction)
    if not isinstance(channel, discord.DMChannel):
        require_moderator(interaction)
    return channel


def guild_moderators_only(dm_text: str) -> Callable[[T], T]:
    """Decorate a command of a guild's moderators; `dm_text` is the reply in direct messages."""

    def predicate(interaction: Interaction) -> bool:
        return _as_check(lambda: require_guild_moderator(interaction, dm_text))

    return app_commands.check(predicate)


class ModeratorGroup(app_commands.Group):
    """A group for moderators, and those whose roles may do what a command does. Also checked in
    code: a server's settings can open its commands to everyone.
    """

    async def interaction_check(self, interaction: Interaction, /) -> bool:  # type: ignore[override]
        command = interaction.command
        actions = command_actions(command.qualified_name) if command else ()
        return _as_check(lambda: require_action(interaction, *actions))


def _as_check(require: Callable[[], object]) -> bool:
    """Convert errors for discord.py, whose checks may raise nothing but `CheckFailure`."""
    try:
        require()
    except RefusedError as error:
        raise app_commands.CheckFailure(error.message) from error
    return True


def require_persona(interaction: Interaction, wanted: str) -> Persona:
    """Find the guild's persona with this id or name. Raises `RequestError`, which lists the known
    ones.
    """
    personas = interaction.client.services.personas
    guild_id = guild_id_of(interaction)
    persona = personas.find(wanted, guild_id)
    if persona is None:
        known = []
        for other in personas.of(guild_id).values():
            known.append(f"{other.name} (`{short_id(other, guild_id)}`)")
        raise RequestError(
            gettext_lazy("There is no persona {name}.", name=repr(wanted)),
            gettext_lazy("Known: {names}.", names=", ".join(known)),
        )
    return persona


def find_channel_persona(interaction: Interaction) -> Persona | None:
    """Find the persona of the command's channel; None where there is none."""
    channel = reply_channel(interaction)
    if channel is None:
        return None
    return interaction.client.services.persona_in(channel_ref(channel))


def channel_persona(interaction: Interaction, advice: str = NAME_ONE_ADVICE) -> Persona:
    """Find the persona of the command's channel. Raises `RequestError` where there is none."""
    persona = find_channel_persona(interaction)
    if persona is None:
        raise RequestError(gettext_lazy("No persona lives in this channel."), advice)
    return persona


def persona_option(interaction: Interaction) -> Persona:
    """Find the persona typed so far, else the channel's, for autocompletion of other options.
    Raises `RequestError`.
    """
    typed = getattr(interaction.namespace, "persona", None)
    if typed:
        return require_persona(interaction, typed)
    return channel_persona(interaction)


class PersonaTransformer(app_commands.Transformer):
    """Option that takes a persona's id or name, with autocompletion; ids are shown where names are
    equal.
    """

    async def transform(self, interaction: Interaction, value: str, /) -> Persona:  # type: ignore[override]
        return require_persona(interaction, value)

    async def autocomplete(self, interaction: Interaction, value: str, /) -> Choices:  # type: ignore[override]
        guild_id = guild_id_of(interaction)
        here = [persona.id for persona in _personas_here(interaction)]
        places = {persona_id: place for place, persona_id in enumerate(here)}
        personas = self.suggested(interaction, guild_id)
        personas.sort(key=lambda persona: places.get(persona.id, len(here)))
        names = Counter(persona.name.casefold() for persona in personas)
        typed = value.casefold()
        choices = []
        for persona in personas:
            label = persona.name
            if names[label.casefold()] > 1:
                label = f"{label[: MAX_LABEL_CHARS // 3]} ({persona.id})"
            if typed in label.casefold() or typed in persona.id:
                part = localise(_part_here(persona, here))
                part = f" · {part}" if part else ""
                name = f"{label[: MAX_LABEL_CHARS - len(part)]}{part}"
                choices.append(app_commands.Choice(name=name, value=persona.id))
        return choices[:MAX_CHOICES]

    def suggested(self, interaction: Interaction, guild_id: int) -> list[Persona]:
        """The personas to choose from."""
        return list(interaction.client.services.personas.of(guild_id).values())


def _personas_here(interaction: Interaction) -> list[Persona]:
    """List the personas of the command's channel, its default first."""
    channel = reply_channel(interaction)
    if channel is None:
        return []
    return interaction.client.services.personas_in(channel_ref(channel))


def _part_here(persona: Persona, here: Sequence[str]) -> str:
    """Say which part a persona has where several live, behind its name."""
    if len(here) < 2 or persona.id not in here:
        return ""
    if persona.id == here[0]:
        return gettext_lazy("the default here")
    return gettext_lazy("lives here")


class OwnPersonaTransformer(PersonaTransformer):
    """Option that suggests the guild's own personas; it takes any, which is refused in words."""

    def suggested(self, interaction: Interaction, guild_id: int) -> list[Persona]:
        return interaction.client.services.personas.own(guild_id)


class SuggestionTransformer(app_commands.Transformer):
    """Text option with suggestions: texts, or labels with the texts that they stand for."""

    def __init__(self, suggest: Callable[[Interaction], Iterable[str] | Mapping[str, str]]) -> None:
        self._suggest = suggest

    async def transform(self, interaction: Interaction, value: Any, /) -> str:  # type: ignore[override]
        return str(value)

    async def autocomplete(self, interaction: Interaction, value: str, /) -> Choices:  # type: ignore[override]
        try:
            suggested = self._suggest(interaction)
        except RequestError:  # the persona is not known yet
            return []
        if not isinstance(suggested, Mapping):
            suggested = {text: text for text in suggested}
        matches = [label for label in suggested if value.casefold() in label.casefold()]
        choices = []
        for label in matches[:MAX_CHOICES]:
            name = label[:MAX_LABEL_CHARS]
            choices.append(app_commands.Choice(name=name, value=suggested[label]))
        return choices


PersonaOption = app_commands.Transform[Persona, PersonaTransformer]
OwnPersonaOption = app_commands.Transform[Persona, OwnPersonaTransformer]
FINETUNE = ModeratorGroup(
    name="finetune",
    description=gettext_noop("Train a persona (moderators)."),
    guild_only=True,
    allowed_contexts=app_commands.AppCommandContext(guild=True),
    default_permissions=permissions.MODERATOR_PERMISSIONS,
)
MODERATION = ModeratorGroup(
    name="moderation",
    description=gettext_noop("Who talks with personas here, and how often (moderators)."),
    guild_only=True,
    allowed_contexts=app_commands.AppCommandContext(guild=True),
    default_permissions=permissions.MODERATOR_PERMISSIONS,
)
PERSONA = app_commands.Group(
    name="persona",
    description=gettext_noop("The personas of this channel and server."),
    allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True),
)
