"""Length, sampling and context of replies: what holds for a persona in a channel, and who may change
it how far.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Literal

from bot.generation.store import (
    FIELDS,
    NO_CHANNEL,
    GenerationScope,
    GenerationSettings,
    ScopedSettings,
    SettingValue,
)
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    join_texts,
    localisable_number,
)
from bot.store import Store
from personas.engine import Engine
from personas.engine.context_window import MIN_CONTEXT_TOKENS
from personas.schemas.chat import SamplingParams

Source = Literal["channel", "persona", "everywhere", "operator", "base model", "default", "engine"]
MAX_TEMPERATURE = 2.0
MIN_TOP_P = 0.01
LABELS = {
    "max_new_tokens": gettext_lazy("the longest reply"),
    "temperature": gettext_lazy("the temperature"),
    "top_p": gettext_lazy("top-p"),
    "context_tokens": gettext_lazy("the context"),
}
"""The fields' names for people, within a sentence."""
CHANGED_TEXTS = (
    gettext_noop("changed the replies ({changes}) in {channel}"),
    gettext_noop("changed the replies ({changes}) of {persona}"),
)
RESET_TEXTS = (
    gettext_noop("reset the length, sampling and context of the replies in {channel}"),
    gettext_noop("reset the length, sampling and context of the replies of {persona}"),
)
"""What the audit channel says of a channel's settings, and of a persona's."""


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value of a field, and what sets the latter."""

    low: SettingValue
    high: SettingValue
    reason: str


@dataclass(frozen=True)
class EffectiveValue:
    """A value that holds, and where it is from. `asked` is the stored value if the bounds of today
    allow no such one.
    """

    value: SettingValue
    source: Source
    asked: SettingValue | None = None


@dataclass(frozen=True)
class EffectiveGeneration:
    """The settings that hold for a persona in a place, by field."""

    values: Mapping[str, EffectiveValue]

    @property
    def context_tokens(self) -> int:
        return int(self.values["context_tokens"].value)

    @property
    def max_new_tokens(self) -> int:
        return int(self.values["max_new_tokens"].value)

    def sampling(self, usual: SamplingParams) -> SamplingParams:
        """Return the sampling of a reply, with all other parameters as usual."""
        return replace(
            usual,
            max_new_tokens=self.max_new_tokens,
            temperature=float(self.values["temperature"].value),
            top_p=float(self.values["top_p"].value),
        )


def _id_alone(persona_id: str, guild_id: int) -> str:
    return persona_id


@dataclass(frozen=True, kw_only=True)
class GenerationActions:
    """Reads and changes the generation settings.

    `usual` is the sampling where nothing is set, `set_by_operator` names its fields that settings
    of the bot set, `recommended` those that the base model's files do. A reply may be set to at
    most `most_new_tokens`. `name_of` returns the name of a persona in a guild.
    """

    store: Store
    engine: Engine
    usual: SamplingParams
    most_new_tokens: int
    set_by_operator: Set[str] = frozenset()
    recommended: Set[str] = frozenset()
    name_of: Callable[[str, int], str] = _id_alone
    record_change: ChangeRecord = no_record

    def in_channel(
        self, persona_id: str, guild_id: int, channel_id: int, parent_id: int | None = None
    ) -> EffectiveGeneration:
        """Return what holds for a persona in a channel, or in a thread of the channel
        `parent_id`.
        """
        stored = self.store.generation.applying(guild_id, channel_id, parent_id, persona_id)
        return self._effective(stored)

    def of_persona(self, persona_id: str, guild_id: int) -> EffectiveGeneration:
        """Return what holds for a persona in a guild, without regard to channels; guild 0: in
        all.
        """
        return self.in_channel(persona_id, guild_id, NO_CHANNEL)

    def bounds(self) -> dict[str, Bounds]:
        """Return the bounds of each field now: the engine's window may change."""
        context = self.engine.context_tokens
        longest = min(self.most_new_tokens, context // 2)
        length_reason = gettext_lazy("the operator's NEW_TOKENS_LIMIT")
        if longest < self.most_new_tokens:
            length_reason = gettext_lazy("half of the engine's context")
        return {
            "max_new_tokens": Bounds(1, longest, length_reason),
            "temperature": Bounds(0.0, MAX_TEMPERATURE, gettext_lazy("the most that can be set")),
            "top_p": Bounds(MIN_TOP_P, 1.0, gettext_lazy("all tokens")),
            "context_tokens": Bounds(
                min(MIN_CONTEXT_TOKENS, context), context, gettext_lazy("the engine's context")
            ),
        }

    def change(
        self,
        scope: GenerationScope,
        changes: Mapping[str, SettingValue | None],
        seen: Mapping[str, SettingValue | None] | None = None,
        *,
        by: int = 0,
    ) -> GenerationSettings:
        """Set fields of a scope (None leaves one to the next scope), as a member or (0) the operator
        decided, and return all of the scope's.

        `seen` are the values that a form showed: a field that was changed since is refused, not
        overwritten. Raises `RefusedError`, also for values out of bounds; nothing is changed then.
        """
        if not changes:
            raise RefusedError(
                gettext_lazy("Nothing was given to change."),
                gettext_lazy("Name one of {names}.", names=", ".join(FIELDS)),
            )
        bounds = self.bounds()
        for name, value in changes.items():
            if value is not None:
                _require_within(name, value, bounds[name])
        with self.store.atomic():
            stored = vars(self.store.generation.get(scope))
            for name in changes:
                if seen is not None and seen.get(name) != stored[name]:
                    raise RefusedError(
                        f"Somebody else has changed {LABELS[name]} meanwhile: it is "
                        f"{_value_text(stored[name])} now.",
                        "Look at it again.",
                    )
            settings = self.store.generation.change(scope, changes)
        changed = [
            gettext_lazy("{setting}: {value}", setting=LABELS[name], value=_value_text(value))
            for name, value in changes.items()
        ]
        self._record(scope, by, CHANGED_TEXTS, changes=join_texts(*changed, separator=", "))
        return settings

    def reset(self, scope: GenerationScope, *, by: int = 0) -> None:
        """Remove all settings of a scope, as a member or (0) the operator decided. Raises
        `RefusedError` where it has none.
        """
        if not self.store.generation.reset(scope):
            raise RefusedError(
                gettext_lazy("Nothing is set here."), gettext_lazy("So there is nothing to reset.")
            )
        self._record(scope, by, RESET_TEXTS)

    def _record(
        self, scope: GenerationScope, by: int, texts: tuple[str, str], **values: object
    ) -> None:
        in_channel, of_persona = texts
        text = in_channel if scope.channel_id else of_persona
        values["channel"] = f"<#{scope.channel_id}>"
        values["persona"] = f"**{self.name_of(scope.persona_id, scope.guild_id)}**"
        self.record_change(scope.guild_id, by, LocalisableText(text, values=values))

    def _effective(self, stored: list[ScopedSettings]) -> EffectiveGeneration:
        values = {}
        bounds = self.bounds()
        for name in FIELDS:
            value = self._default(name)
            for scoped in stored:
                if (asked := getattr(scoped.settings, name)) is not None:
                    value = _clamped(asked, _source(scoped.scope), bounds[name])
                    break
            values[name] = value
        # A smaller context has room for a shorter reply alone.
        length = values["max_new_tokens"]
        room = int(values["context_tokens"].value) // 2
        if length.value > room:
            asked = length.asked or length.value
            values["max_new_tokens"] = replace(length, value=room, asked=asked)
        return EffectiveGeneration(values)

    def _default(self, name: str) -> EffectiveValue:
        if name == "context_tokens":
            return EffectiveValue(self.engine.context_tokens, "engine")
        source: Source = "default"
        if name in self.set_by_operator:
            source = "operator"
        elif name in self.recommended:
            source = "base model"
        return EffectiveValue(getattr(self.usual, name), source)


def _source(scope: GenerationScope) -> Source:
    if scope.channel_id:
        return "channel"
    return "persona" if scope.guild_id else "everywhere"


def _clamped(asked: SettingValue, source: Source, bounds: Bounds) -> EffectiveValue:
    value = min(max(asked, bounds.low), bounds.high)
    return EffectiveValue(value, source, asked=None if value == asked else asked)


def _require_within(name: str, value: SettingValue, bounds: Bounds) -> None:
    if bounds.low <= value <= bounds.high:
        return
    low = number_text(bounds.low)
    high = number_text(bounds.high)
    advice = gettext_lazy("Choose from {low} to {high}.", low=low, high=high)
    if value > bounds.high:
        advice = gettext_lazy(
            "Choose from {low} to {high} ({reason}).", low=low, high=high, reason=bounds.reason
        )
    raise RefusedError(
        gettext_lazy(
            "{value} is out of range for {setting}.",
            setting=LABELS[name],
            value=number_text(value),
        ),
        advice,
    )


def _value_text(value: SettingValue | None) -> str:
    if value is None:
        return gettext_lazy("not set")
    return number_text(value)


def number_text(value: SettingValue) -> LocalisableText:
    """Write a field's value, without its unit."""
    return localisable_number(f"{value:,}" if isinstance(value, int) else f"{value:g}")
