"""Generation settings in words, for Discord and the dashboard."""

from bot.generation.actions import (
    Bounds,
    EffectiveGeneration,
    EffectiveValue,
    Source,
    number_text,
)
from bot.generation.store import GenerationSettings, SettingValue
from bot.platform.localisation import gettext_lazy, join_texts

NAMES = {
    "max_new_tokens": gettext_lazy("Longest reply"),
    "temperature": gettext_lazy("Temperature"),
    "top_p": gettext_lazy("Top-p"),
    "context_tokens": gettext_lazy("Context"),
}
NAMES_IN_LIST = {
    "max_new_tokens": gettext_lazy("longest reply"),
    "temperature": gettext_lazy("temperature"),
    "top_p": gettext_lazy("top-p"),
    "context_tokens": gettext_lazy("context"),
}
TOKEN_FIELDS = frozenset({"max_new_tokens", "context_tokens"})
SOURCES: dict[Source, str] = {
    "channel": gettext_lazy("set for this channel"),
    "persona": gettext_lazy("set for this persona in this server"),
    "everywhere": gettext_lazy("set for this persona by the operator"),
    "operator": gettext_lazy("the operator's"),
    "base model": gettext_lazy("the base model's"),
    "default": gettext_lazy("the default"),
    "engine": gettext_lazy("the engine's"),
}


def value_text(name: str, value: SettingValue) -> str:
    """Write a field's value with its unit."""
    number = number_text(value)
    return gettext_lazy("{number} tokens", number=number) if name in TOKEN_FIELDS else number


def effective_lines(
    effective: EffectiveGeneration, bounds: dict[str, Bounds], context_reason: str
) -> list[str]:
    """Return a line for each field: its value and why it holds."""
    lines: list[str] = []
    for name, held in effective.values.items():
        lines.append(
            gettext_lazy(
                "{setting}: {value} ({why})",
                setting=NAMES[name],
                value=value_text(name, held.value),
                why=source_text(name, held, bounds, context_reason=context_reason),
            )
        )
    return lines


def source_text(
    name: str, held: EffectiveValue, bounds: dict[str, Bounds], context_reason: str
) -> str:
    """Say where a value is from, and why it is not the one that was asked for."""
    text = SOURCES[held.source]
    if held.source == "engine" and context_reason:
        text = gettext_lazy("{source}: {reason}", source=text, reason=context_reason)
    if held.asked is None:
        return text
    reason = bounds[name].reason
    if held.value < bounds[name].high:
        reason = gettext_lazy("half of the context")
    return gettext_lazy(
        "{source} as {asked}; the most is {reason}",
        source=text,
        asked=value_text(name, held.asked),
        reason=reason,
    )


def settings_text(settings: GenerationSettings) -> str:
    """List the fields that are set."""
    parts: list[str] = []
    for name, value in vars(settings).items():
        if value is not None:
            parts.append(
                gettext_lazy(
                    "{setting} {value}",
                    setting=NAMES_IN_LIST[name],
                    value=value_text(name, value),
                )
            )
    return join_texts(*parts, separator=", ") if parts else gettext_lazy("nothing")
