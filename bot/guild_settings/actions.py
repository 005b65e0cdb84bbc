"""What is set on Discord: what holds where, and changes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from bot.guild_settings.registry import Bounds, Setting, SettingGroup, check_value
from bot.guild_settings.store import SettingScope, SettingValue, StoredSetting
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    join_texts,
)
from bot.store import Store

Source = Literal[
    "channel", "persona", "guild", "everywhere", "operator", "base model", "default", "engine"
]
CHANGED_TEXTS = {
    "channel": gettext_noop("changed the replies ({changes}) in {channel}"),
    "persona": gettext_noop("changed the replies ({changes}) of {persona}"),
    "guild": gettext_noop("changed the replies ({changes}) of this server"),
}
RESET_TEXTS = {
    "channel": gettext_noop("reset what was set for the replies in {channel}"),
    "persona": gettext_noop("reset what was set for the replies of {persona}"),
    "guild": gettext_noop("reset what was set for the replies of this server"),
}
"""What the audit channel says."""


@dataclass(frozen=True)
class HeldValue:
    """A value that holds, and where it is from. `asked` is the stored value if the bounds of today
    allow no such one. `ignored_by` names an engine on which it has no effect.
    """

    value: Any
    source: Source
    asked: SettingValue | None = None
    ignored_by: str = ""


class SettingRules(Protocol):
    """What the engine or the operator decides about the settings of a group."""

    def bounds(self) -> Mapping[str, Bounds]:
        """Return the bounds of today, by key."""
        ...

    def default(self, key: str) -> HeldValue:
        """Return what holds where nothing is set."""
        ...

    def ignored_by(self, key: str) -> str:
        """Return the name of the engine if a setting has no effect on it, else an empty text."""
        ...

    def adjusted(self, held: dict[str, HeldValue]) -> dict[str, HeldValue]:
        """Return the values that hold, in which one depends on another."""
        ...


def _id_alone(persona_id: str, guild_id: int) -> str:
    return persona_id


@dataclass(frozen=True, kw_only=True)
class SettingsActions:
    """Reads and changes settings, for commands and pages alike. `rules` are those of a group, by its
    name. `name_of` returns the name of a persona in a guild.
    """

    store: Store
    rules: Mapping[str, SettingRules] = field(default_factory=dict)
    name_of: Callable[[str, int], str] = _id_alone
    record_change: ChangeRecord = no_record

    def bounds(self, group: SettingGroup) -> dict[str, Bounds]:
        """Return the bounds of a group's numbers now: the engine's window may change."""
        bounds = {each.key: each.bounds for each in group.settings if each.bounds}
        if rules := self.rules.get(group.name):
            bounds |= rules.bounds()
        return bounds

    def in_channel(
        self,
        group: SettingGroup,
        guild_id: int,
        channel_id: int,
        parent_id: int | None = None,
        *,
        persona_id: str = "",
    ) -> dict[str, HeldValue]:
        """Return what holds for a persona in a channel, or in a thread of the channel
        `parent_id`, by key.
        """
        stored = self.store.settings.applying(guild_id, channel_id, parent_id, persona_id)
        bounds = self.bounds(group)
        rules = self.rules.get(group.name)
        held = {}
        for setting in group.settings:
            own = [each for each in stored if each.key == setting.key]
            if not guild_id and not setting.in_direct_messages:
                # What is set for a persona in all servers holds in its direct messages, too.
                own = [each for each in own if not each.scope.channel_id]
            usual = HeldValue(setting.default, "default")
            ignored_by = ""
            if rules:
                usual = rules.default(setting.key)
                ignored_by = rules.ignored_by(setting.key)
            value = _first_usable(setting, own, bounds.get(setting.key)) or usual
            held[setting.key] = replace(value, ignored_by=ignored_by)
        return rules.adjusted(held) if rules else held

    def change(
        self,
        group: SettingGroup,
        scope: SettingScope,
        changes: Mapping[str, SettingValue | None],
        seen: Mapping[str, SettingValue | None] | None = None,
        *,
        by: int = 0,
    ) -> None:
        """Set values of a scope (None leaves one to the next scope), as a member or (0) the operator
        decided.

        `seen` are the values that a form showed: one that was changed since is refused, not
        overwritten. Raises `RefusedError`, also for values out of bounds; nothing is changed then.
        """
        if not changes:
            titles = [setting.title for setting in group.settings]
            raise RefusedError(
                gettext_lazy("Nothing was given to change."),
                gettext_lazy(
                    "Choose among {settings}.", settings=join_texts(*titles, separator=", ")
                ),
            )
        bounds = self.bounds(group)
        checked = {}
        for key, value in changes.items():
            _require_place(group, group[key], scope)
            checked[key] = check_value(group[key], value, bounds.get(key))
            if checked[key] is not None:
                self._require_effect(group, group[key])
        with self.store.atomic():
            stored = self.store.settings.get(scope)
            for key in checked:
                if seen is not None and seen.get(key) != stored.get(key):
                    raise RefusedError(
                        f"Somebody else has changed “{group[key].title}” meanwhile: it is "
                        f"{value_text(group[key], stored.get(key))} now.",
                        "Look at it again.",
                    )
            self.store.settings.change(scope, checked)
        changed = [
            gettext_lazy(
                "{setting}: {value}",
                setting=group[key].title,
                value=value_text(group[key], value),
            )
            for key, value in checked.items()
            if value != stored.get(key)
        ]
        if changed:
            self._record(scope, by, CHANGED_TEXTS, changes=join_texts(*changed, separator=", "))

    def reset(self, groups: tuple[SettingGroup, ...], scope: SettingScope, *, by: int = 0) -> None:
        """Remove all values of some groups in a scope, as a member or (0) the operator decided. Raises
        `RefusedError` where there is none.
        """
        keys = [key for group in groups for key in group.keys]
        with self.store.atomic():
            if not self.store.settings.get(scope).keys() & set(keys):
                raise RefusedError(
                    gettext_lazy("Nothing is set here."),
                    gettext_lazy("So there is nothing to reset."),
                )
            self.store.settings.change(scope, dict.fromkeys(keys))
        self._record(scope, by, RESET_TEXTS)

    def stored(self, group: SettingGroup, scope: SettingScope) -> dict[str, SettingValue | None]:
        """Return what is set in exactly this scope, None where nothing is."""
        stored = self.store.settings.get(scope)
        return {key: stored.get(key) for key in group.keys}

    def _require_effect(self, group: SettingGroup, setting: Setting[Any]) -> None:
        """Raise `RefusedError` for a setting that the engine ignores."""
        rules = self.rules.get(group.name)
        if rules and (engine := rules.ignored_by(setting.key)):
            raise RefusedError(
                gettext_lazy(
                    "“{setting}” has no effect with ENGINE={engine}.",
                    setting=setting.title,
                    engine=engine,
                ),
                gettext_lazy("Leave it out: replies would be the same."),
            )

    def _record(
        self, scope: SettingScope, by: int, texts: Mapping[str, str], **values: object
    ) -> None:
        # For a change record, 0 is all guilds, whose moderators direct messages do not concern.
        if not scope.guild_id and not scope.persona_id:
            return
        text = texts["guild"]
        if scope.channel_id:
            text = texts["channel"]
            values["channel"] = f"<#{scope.channel_id}>"
        elif scope.persona_id:
            text = texts["persona"]
            values["persona"] = f"**{self.name_of(scope.persona_id, scope.guild_id)}**"
        self.record_change(scope.guild_id, by, LocalisableText(text, values=values))


def _require_place(group: SettingGroup, setting: Setting[Any], scope: SettingScope) -> None:
    """Raise `RefusedError` for a setting that has no meaning in direct messages."""
    if scope.guild_id or not scope.channel_id or setting.in_direct_messages:
        return
    options = [f"`{each.option}`" for each in group.settings if each.in_direct_messages]
    advice = ""
    if options:
        advice = gettext_lazy("Here, set {options} alone.", options=", ".join(options))
    raise RefusedError(gettext_lazy("This is set for channels of a server."), advice)


def _first_usable(
    setting: Setting[Any], stored: list[StoredSetting], bounds: Bounds | None
) -> HeldValue | None:
    for each in stored:
        value = setting.usable(each.value)
        if value is None:
            continue
        source = _source(each.scope)
        if bounds is None:
            return HeldValue(value, source)
        held = min(max(value, bounds.low), bounds.high)
        return HeldValue(held, source, asked=None if held == value else value)
    return None


def _source(scope: SettingScope) -> Source:
    if scope.channel_id:
        return "channel"
    if scope.persona_id:
        return "persona" if scope.guild_id else "everywhere"
    return "guild"


def value_text(setting: Setting[Any], value: SettingValue | None) -> str:
    """Write a stored value."""
    return gettext_lazy("not set") if value is None else setting.say(value)
