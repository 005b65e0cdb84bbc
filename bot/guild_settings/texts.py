"""Settings in words, for Discord and the dashboard."""

from collections.abc import Mapping
from typing import Any

from bot.guild_settings.actions import HeldValue, Source
from bot.guild_settings.registry import Bounds, Setting, SettingGroup
from bot.guild_settings.store import SettingValue
from bot.platform.localisation import gettext_lazy, join_texts

SOURCES: dict[Source, str] = {
    "channel": gettext_lazy("set for this channel"),
    "persona": gettext_lazy("set for this persona in this server"),
    "guild": gettext_lazy("set for this server"),
    "everywhere": gettext_lazy("set for this persona by the operator"),
    "operator": gettext_lazy("the operator's"),
    "base model": gettext_lazy("the base model's"),
    "default": gettext_lazy("the default"),
    "engine": gettext_lazy("the engine's"),
}


def held_lines(
    group: SettingGroup,
    held: Mapping[str, HeldValue],
    bounds: Mapping[str, Bounds],
    *,
    engine_reason: str,
    is_server: bool = True,
) -> list[str]:
    """Return a line for each setting: its value and why it holds."""
    lines: list[str] = []
    for setting in group.settings:
        if not is_server and not setting.in_direct_messages:
            continue
        value = held[setting.key]
        why = source_text(setting, value, bounds.get(setting.key), engine_reason=engine_reason)
        lines.append(
            gettext_lazy(
                "{setting}: {value} ({why})",
                setting=setting.title,
                value=setting.say(value.value),
                why=why,
            )
        )
    return lines


def source_text(
    setting: Setting[Any], held: HeldValue, bounds: Bounds | None, *, engine_reason: str
) -> str:
    """Say where a value is from, and why it does not hold or is not the one that was asked for."""
    text = SOURCES[held.source]
    if held.ignored_by:
        return gettext_lazy(
            "{source}; no effect with ENGINE={engine}", source=text, engine=held.ignored_by
        )
    if held.source == "engine" and engine_reason:
        text = gettext_lazy("{source}: {reason}", source=text, reason=engine_reason)
    if held.asked is None or bounds is None:
        return text
    reason = bounds.reason
    if held.value < bounds.high:
        reason = gettext_lazy("half of the context")
    return gettext_lazy(
        "{source} as {asked}; the most is {reason}",
        source=text,
        asked=setting.say(held.asked),
        reason=reason,
    )


def stored_text(group: SettingGroup, stored: Mapping[str, SettingValue | None]) -> str:
    """List what is set."""
    parts: list[str] = []
    for setting in group.settings:
        value = stored.get(setting.key)
        if value is not None:
            parts.append(
                gettext_lazy("{setting}: {value}", setting=setting.title, value=setting.say(value))
            )
    return join_texts(*parts, separator="; ") if parts else gettext_lazy("nothing")
