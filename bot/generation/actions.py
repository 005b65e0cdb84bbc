"""Length, sampling and context of replies: what holds for a persona in a channel."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, fields, replace

from bot.guild_settings.actions import HeldValue, SettingsActions
from bot.guild_settings.definitions import GENERATION
from bot.guild_settings.registry import Bounds
from bot.guild_settings.store import NO_CHANNEL
from bot.platform.localisation import gettext_lazy
from personas.engine import Engine
from personas.engine.context_window import MIN_CONTEXT_TOKENS
from personas.schemas.chat import SamplingParams

SAMPLING_KEYS = {each.name for each in fields(SamplingParams)} & {*GENERATION.keys}


@dataclass(frozen=True)
class EffectiveGeneration:
    """The settings that hold for a persona in a place, by key."""

    values: Mapping[str, HeldValue]

    @property
    def context_tokens(self) -> int:
        return int(self.values["context_tokens"].value)

    @property
    def max_new_tokens(self) -> int:
        return int(self.values["max_new_tokens"].value)

    def sampling(self, usual: SamplingParams) -> SamplingParams:
        """Return the sampling of a reply, with all other parameters as usual."""
        return replace(usual, **{key: self.values[key].value for key in SAMPLING_KEYS})


@dataclass(frozen=True, kw_only=True)
class EngineRules:
    """What the engine and the operator decide about length, sampling and context.

    `engine_name` is ENGINE. `usual` is the sampling where nothing is set, `set_by_operator` names
    its fields that settings of the bot set, `recommended` those that the base model's files do. A
    reply may be set to at most `most_new_tokens`.
    """

    engine: Engine
    engine_name: str
    usual: SamplingParams
    most_new_tokens: int
    set_by_operator: Set[str] = frozenset()
    recommended: Set[str] = frozenset()

    def bounds(self) -> dict[str, Bounds]:
        """Return the bounds that the engine has now: its window may change."""
        context = self.engine.context_tokens
        longest = min(self.most_new_tokens, context // 2)
        length_reason = gettext_lazy("the operator's NEW_TOKENS_LIMIT")
        if longest < self.most_new_tokens:
            length_reason = gettext_lazy("half of the engine's context")
        return {
            "max_new_tokens": Bounds(1, longest, length_reason),
            "context_tokens": Bounds(
                min(MIN_CONTEXT_TOKENS, context), context, gettext_lazy("the engine's context")
            ),
        }

    def default(self, key: str) -> HeldValue:
        """Return what holds where nothing is set."""
        if key == "context_tokens":
            return HeldValue(self.engine.context_tokens, "engine")
        value = getattr(self.usual, key)
        if key in self.set_by_operator:
            return HeldValue(value, "operator")
        if key in self.recommended:
            return HeldValue(value, "base model")
        return HeldValue(value, "default")

    def ignored_by(self, key: str) -> str:
        """Return the engine's name if its replies do not follow a setting, else an empty text."""
        if key in SAMPLING_KEYS - self.engine.sampling_fields:
            return self.engine_name
        return ""

    def adjusted(self, held: dict[str, HeldValue]) -> dict[str, HeldValue]:
        """Return the values with a reply of at most half the context: a smaller one has room for a
        shorter reply alone.
        """
        length = held["max_new_tokens"]
        room = int(held["context_tokens"].value) // 2
        if length.value <= room:
            return held
        asked = length.asked or length.value
        return {**held, "max_new_tokens": replace(length, value=room, asked=asked)}


@dataclass(frozen=True)
class GenerationActions:
    """Reads the generation settings."""

    settings: SettingsActions

    def in_channel(
        self, persona_id: str, guild_id: int, channel_id: int, parent_id: int | None = None
    ) -> EffectiveGeneration:
        """Return what holds for a persona in a channel, or in a thread of the channel
        `parent_id`.
        """
        held = self.settings.in_channel(
            GENERATION, guild_id, channel_id, parent_id, persona_id=persona_id
        )
        return EffectiveGeneration(held)

    def of_persona(self, persona_id: str, guild_id: int) -> EffectiveGeneration:
        """Return what holds for a persona in a guild, without regard to channels; guild 0: in
        all.
        """
        return self.in_channel(persona_id, guild_id, NO_CHANNEL)
