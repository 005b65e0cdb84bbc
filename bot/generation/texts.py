"""Generation settings in words, for Discord and the dashboard."""

from bot.generation.actions import Bounds, EffectiveGeneration, EffectiveValue, Source
from bot.generation.store import GenerationSettings, SettingValue

NAMES = {
    "max_new_tokens": "Longest reply",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "context_tokens": "Context",
}
UNITS = {"max_new_tokens": " tokens", "context_tokens": " tokens"}
SOURCES: dict[Source, str] = {
    "channel": "set for this channel",
    "persona": "set for this persona in this server",
    "everywhere": "set for this persona by the operator",
    "operator": "the operator's",
    "base model": "the base model's",
    "default": "the default",
    "engine": "the engine's",
}


def value_text(name: str, value: SettingValue) -> str:
    """Write a field's value with its unit."""
    number = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{number}{UNITS.get(name, '')}"


def effective_lines(
    effective: EffectiveGeneration, bounds: dict[str, Bounds], context_reason: str
) -> list[str]:
    """Return a line for each field: its value and why it holds."""
    lines = []
    for name, held in effective.values.items():
        why = source_text(name, held, bounds, context_reason)
        lines.append(f"{NAMES[name]}: {value_text(name, held.value)} ({why})")
    return lines


def source_text(
    name: str, held: EffectiveValue, bounds: dict[str, Bounds], context_reason: str
) -> str:
    """Say where a value is from, and why it is not the one that was asked for."""
    text = SOURCES[held.source]
    if held.source == "engine" and context_reason:
        text += f": {context_reason}"
    if held.asked is None:
        return text
    reason = bounds[name].reason
    if held.value < bounds[name].high:
        reason = "half of the context"
    return f"{text} as {value_text(name, held.asked)}; the most is {reason}"


def settings_text(settings: GenerationSettings) -> str:
    """List the fields that are set."""
    parts = []
    for name, value in vars(settings).items():
        if value is not None:
            parts.append(f"{NAMES[name].lower()} {value_text(name, value)}")
    return ", ".join(parts) or "nothing"
