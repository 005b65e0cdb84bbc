"""What a setting is: its key, type, default and bounds, where it can be set, and its words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from bot.guild_settings.store import (
    ALL_PERSONAS,
    NO_CHANNEL,
    SettingScope,
    SettingValue,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import LocalisableText, gettext_lazy, localisable_number
from bot.store import Store

T = TypeVar("T", bound=SettingValue)
Number = int | float
ScopeKind = Literal["guild", "channel", "persona"]
"""`persona` is one in a guild or, for the operator, in all."""


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value of a number, and what sets the latter, if there is more to
    say of it.
    """

    low: Number
    high: Number
    reason: str = ""


def number_text(value: Number) -> LocalisableText:
    """Write a number, without its unit."""
    return localisable_number(f"{value:,}" if isinstance(value, int) else f"{value:g}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """Something that moderators set on Discord, and the operator on the dashboard.

    `closed` is what a stored value that cannot be used counts as: the safer one. Only settings that
    a group has need what follows: `title` names it in lists, `option` is its name in commands, `help`
    the option's description there and `hint` that of the dashboard's field. `say` writes a value for
    people. `parse` returns a text as it is stored, or raises `RefusedError`. `unset` is a value that
    removes it. One that is not `in_direct_messages` can be set in servers alone.
    """

    key: str
    type: type[T]
    default: T
    scope: ScopeKind
    closed: T | None = None
    title: str = ""
    option: str = ""
    help: str = ""
    hint: str = ""
    say: Callable[[Any], str] = number_text
    bounds: Bounds | None = None
    parse: Callable[[str], str] | None = None
    unset: SettingValue | None = None
    in_direct_messages: bool = True

    def read(
        self,
        store: Store,
        guild_id: int,
        *,
        channel_id: int = NO_CHANNEL,
        persona_id: str = ALL_PERSONAS,
    ) -> T | None:
        """Return what is set in exactly this scope; None where nothing is."""
        value = store.settings.value(SettingScope(guild_id, channel_id, persona_id), self.key)
        return None if value is None else self.usable(value)

    def held(
        self,
        store: Store,
        guild_id: int,
        *,
        channel_id: int = NO_CHANNEL,
        persona_id: str = ALL_PERSONAS,
    ) -> T:
        """Return what is set in exactly this scope, or the default."""
        value = self.read(store, guild_id, channel_id=channel_id, persona_id=persona_id)
        return self.default if value is None else value

    def write(
        self,
        store: Store,
        value: T | None,
        guild_id: int,
        *,
        channel_id: int = NO_CHANNEL,
        persona_id: str = ALL_PERSONAS,
    ) -> None:
        """Set the value of exactly this scope; None removes it."""
        scope = SettingScope(guild_id, channel_id, persona_id)
        store.settings.change(scope, {self.key: value})

    def by_persona(self, store: Store, guild_id: int) -> dict[str, T]:
        """Return what is set for each persona of a guild that has any."""
        values = {}
        for stored in store.settings.in_guild(guild_id, self.key):
            if (value := self.usable(stored.value)) is not None:
                values[stored.scope.persona_id] = value
        return values

    def usable(self, value: SettingValue) -> T | None:
        """Return a stored value; for one of another type, `closed`."""
        if self.type is float and type(value) is int:
            value = float(value)
        return value if type(value) is self.type else self.closed


@dataclass(frozen=True)
class SettingGroup:
    """Settings that one command and one form set together."""

    name: str
    settings: tuple[Setting[Any], ...]

    def __getitem__(self, key: str) -> Setting[Any]:
        return next(setting for setting in self.settings if setting.key == key)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(setting.key for setting in self.settings)


def check_value(
    setting: Setting[Any], value: SettingValue | None, bounds: Bounds | None
) -> SettingValue | None:
    """Return a value as it is stored. Raises `RefusedError` for one that cannot be set."""
    if value is None or value == setting.unset:
        return None
    if setting.parse:
        return setting.parse(str(value))
    if bounds is None or isinstance(value, str | list):
        return value
    if bounds.low <= value <= bounds.high:
        return value
    low = number_text(bounds.low)
    high = number_text(bounds.high)
    advice = gettext_lazy("Choose from {low} to {high}.", low=low, high=high)
    if value > bounds.high and bounds.reason:
        advice = gettext_lazy(
            "Choose from {low} to {high} ({reason}).", low=low, high=high, reason=bounds.reason
        )
    raise RefusedError(
        gettext_lazy(
            "{value} is out of range for “{setting}”.",
            setting=setting.title,
            value=number_text(value),
        ),
        advice,
    )
