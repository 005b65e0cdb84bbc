"""Fields of a form for settings: what they show, and what was typed in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.guild_settings.registry import Bounds, Setting
from bot.guild_settings.store import SettingValue
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import with_decimal_point

BOOLEAN_CHOICES = {"yes": True, "no": False}


@dataclass(frozen=True, kw_only=True)
class SettingField:
    """A field of a form. `given` is what it shows, `seen` what is stored; `hint` stands below it.
    `kind` is "number", "text" or "choice"; a number has `low`, `high` and whether it `is_whole`.
    """

    key: str
    label: str
    hint: str
    kind: str
    given: str
    seen: str
    placeholder: str = ""
    low: object = ""
    high: object = ""
    is_whole: bool = False


def setting_field(
    setting: Setting[Any],
    *,
    given: str,
    seen: str,
    hint: str,
    bounds: Bounds | None = None,
    placeholder: str = "",
) -> SettingField:
    """Describe the field of a setting."""
    kind = "text"
    if setting.type is bool:
        kind = "choice"
    elif bounds:
        kind = "number"
    return SettingField(
        key=setting.key,
        label=setting.title,
        hint=hint,
        kind=kind,
        given=given,
        seen=seen,
        placeholder=placeholder,
        low=bounds.low if bounds else "",
        high=bounds.high if bounds else "",
        is_whole=setting.type is int,
    )


def stored_texts(stored: Mapping[str, SettingValue | None]) -> dict[str, str]:
    """Return values as a form shows them, an unset one empty."""
    return {key: _text(value) for key, value in stored.items()}


def _text(value: SettingValue | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_values(
    settings: Sequence[Setting[Any]], texts: Mapping[str, str]
) -> dict[str, SettingValue | None]:
    """Read the fields of some settings, an empty one as None. Raises `Problem`."""
    values: dict[str, SettingValue | None] = {}
    errors = []
    for setting in settings:
        text = texts.get(setting.key, "").strip()
        try:
            values[setting.key] = _value(setting, text) if text else None
        except ValueError:
            errors.append(field_error(setting.key, _advice(setting)))
    if errors:
        message = "A field has a value that it cannot have."
        raise Problem("invalid-request", message, errors=errors)
    return values


def _value(setting: Setting[Any], text: str) -> SettingValue:
    if setting.type is bool:
        if text not in BOOLEAN_CHOICES:
            raise ValueError(text)
        return BOOLEAN_CHOICES[text]
    if setting.type is str:
        return text
    if not text.isascii():
        raise ValueError(text)
    number = float(with_decimal_point(text))
    if setting.type is int and not number.is_integer():
        raise ValueError(text)
    value = int(number) if setting.type is int else number
    bounds = setting.bounds
    # The engine's bounds, which are narrower, are those of the change.
    if bounds and not bounds.low <= value <= bounds.high:
        raise ValueError(text)
    return value


def _advice(setting: Setting[Any]) -> str:
    if setting.type is bool:
        return "Choose yes or no."
    bounds = setting.bounds
    kind = "whole number" if setting.type is int else "number"
    return f"Write a {kind} from {bounds.low:g} to {bounds.high:g}." if bounds else "Write a text."
