"""Commands of a group of settings: `show`, `set` and `reset`."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import discord
from discord import app_commands

from bot.chat.places import ChannelRef, channel_ref
from bot.guild_settings.registry import Bounds, Setting, SettingGroup
from bot.guild_settings.store import SettingScope
from bot.guild_settings.texts import held_lines, stored_text
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    Interaction,
    PersonaOption,
    channel_persona,
    find_channel_persona,
    require_changeable_channel,
    require_speak_channel,
)
from bot.platform.discord_kit.ui import respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.platform.messages import markdown_name
from bot.services import Services
from personas.schemas.chat import Persona

MAX_TEXT_CHARS = 40
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
SETTING_HELP = gettext_noop("Which setting (all if left out)")


@dataclass(frozen=True)
class GroupDescriptions:
    """Descriptions of a group's commands, marked for translation."""

    group: str
    show: str
    set: str
    reset: str


class SettingCommands(app_commands.Group):
    """`show`, `set` and `reset` of a group of settings, for a channel and, where a group has such
    settings, for a persona.
    """

    def __init__(
        self, settings: SettingGroup, parent: app_commands.Group, texts: GroupDescriptions
    ) -> None:
        super().__init__(name=settings.name, description=texts.group, parent=parent)
        self.settings = settings
        self.has_personas = any(each.scope == "persona" for each in settings.settings)
        persona_option = _option("persona", PersonaOption | None) if self.has_personas else None
        scope_options = [_option("where", str | None), persona_option] if persona_option else []
        values = [_option(each.option, _annotation(each)) for each in settings.settings]
        self._add("show", texts.show, self._show, [persona_option] if persona_option else [])
        self._add("set", texts.set, self._set, [*values, *scope_options])
        self._add(
            "reset", texts.reset, self._reset, [_option("setting", str | None), *scope_options]
        )

    def _add(
        self, name: str, description: str, work: Any, options: Sequence[inspect.Parameter | None]
    ) -> None:
        async def callback(interaction: Interaction, **given: Any) -> None:
            await work(interaction, given)

        # discord.py reads a command's options from its signature.
        first = _option("interaction", Interaction, has_default=False)
        known = [option for option in options if option]
        callback.__signature__ = inspect.Signature([first, *known])  # type: ignore[attr-defined]
        helps = {each.option: each.help for each in self.settings.settings}
        helps |= {"where": SCOPE_HELP, "persona": CHANNEL_PERSONA_HELP, "setting": SETTING_HELP}
        names = {option.name for option in known}
        app_commands.describe(**{key: helps[key] for key in names})(callback)
        choices: dict[str, list[app_commands.Choice[str]]] = {
            "where": SCOPE_CHOICES,
            "setting": [
                app_commands.Choice(name=app_commands.locale_str(each.title), value=each.key)
                for each in self.settings.settings
            ],
        }
        app_commands.choices(**{key: choices[key] for key in choices if key in names})(callback)
        self.add_command(
            app_commands.Command(name=name, description=description, callback=callback)
        )

    async def _show(self, interaction: Interaction, given: dict[str, Any]) -> None:
        persona = given.get("persona") or find_channel_persona(interaction)
        place = channel_ref(require_speak_channel(interaction))
        lines = setting_lines(interaction.client.services, self.settings, persona, place)
        title = gettext_lazy("No persona lives in this channel. Replies of one would have:")
        if persona:
            title = gettext_lazy("Replies of **{persona}** here:", persona=markdown_name(persona))
        await respond(interaction, join_texts(title, *lines, separator="\n"))

    async def _set(self, interaction: Interaction, given: dict[str, Any]) -> None:
        scope = _scope(interaction, given)
        changes = {}
        for setting in self.settings.settings:
            value = given.get(setting.option)
            if value is not None:
                changes[setting.key] = value.strip() if isinstance(value, str) else value
        services = interaction.client.services
        services.guild_settings.change(self.settings, scope, changes, by=interaction.user.id)
        await respond(
            interaction,
            gettext_lazy(
                "Set for {scope}: {settings}. It holds from the next reply on.",
                scope=_scope_text(services, scope),
                settings=self._stored(services, scope),
            ),
        )

    async def _reset(self, interaction: Interaction, given: dict[str, Any]) -> None:
        scope = _scope(interaction, given)
        services = interaction.client.services
        by = interaction.user.id
        if key := given.get("setting"):
            services.guild_settings.change(self.settings, scope, {key: None}, by=by)
        else:
            services.guild_settings.reset((self.settings,), scope, by=by)
        await respond(
            interaction,
            gettext_lazy(
                "Reset. Set for {scope}: {settings}.",
                scope=_scope_text(services, scope),
                settings=self._stored(services, scope),
            ),
        )

    def _stored(self, services: Services, scope: SettingScope) -> str:
        return stored_text(self.settings, services.guild_settings.stored(self.settings, scope))


def setting_lines(
    services: Services, group: SettingGroup, persona: Persona | None, place: ChannelRef
) -> list[str]:
    """Return what holds for the replies of a persona (None: of any) in a channel, and why, a line a
    setting.
    """
    held = services.guild_settings.in_channel(
        group,
        place.guild_id,
        place.channel_id,
        place.parent_id,
        persona_id=persona.id if persona else "",
    )
    lines = held_lines(
        group,
        held,
        services.guild_settings.bounds(group),
        engine_reason=services.engine.state().context_reason,
        is_server=bool(place.guild_id),
    )
    return [gettext_lazy("• {line}", line=line) for line in lines]


def _scope(interaction: Interaction, given: dict[str, Any]) -> SettingScope:
    """Return the scope of a command for those who may set it. Raises `RefusedError`."""
    channel = require_changeable_channel(interaction)
    place = channel_ref(channel)
    if given.get("where") != "persona":
        if given.get("persona"):
            raise RefusedError(
                gettext_lazy("A channel's settings hold for whoever lives there."),
                gettext_lazy(
                    "Leave `persona` out, or choose for `where`: {choice}.",
                    choice=gettext_lazy(PERSONA_SCOPE),
                ),
            )
        return SettingScope(place.guild_id, channel_id=place.channel_id)
    # Guild 0 is all guilds, about which the operator decides.
    if isinstance(channel, discord.DMChannel):
        raise RefusedError(
            gettext_lazy("This is set for a server."),
            gettext_lazy("Try it in one of its channels."),
        )
    persona = given.get("persona") or channel_persona(interaction)
    return SettingScope(place.guild_id, persona_id=persona.id)


def _scope_text(services: Services, scope: SettingScope) -> str:
    if scope.channel_id:
        return f"<#{scope.channel_id}>" if scope.guild_id else gettext_lazy("this channel")
    persona = services.personas.get(scope.persona_id, scope.guild_id)
    return gettext_lazy(
        "**{persona}** in this server",
        persona=markdown_name(persona) if persona else scope.persona_id,
    )


def _option(name: str, annotation: Any, *, has_default: bool = True) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None if has_default else inspect.Parameter.empty,
        annotation=annotation,
    )


def _annotation(setting: Setting[Any]) -> Any:
    """Return the type of a setting's option: a range of numbers, a short text, or yes and no."""
    if setting.type is bool:
        return bool | None
    bounds = setting.bounds or Bounds(1, MAX_TEXT_CHARS)
    return app_commands.Range[setting.type, bounds.low, bounds.high] | None
