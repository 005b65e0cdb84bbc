"""The history of a persona's versions: when each was live."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.chat.model_names import version_label
from bot.personas.web.lookup import guild_name, live_in_servers
from bot.platform.localisation import gettext_lazy, localisable_number
from bot.platform.web_kit.charts import format_figure
from bot.services import Services
from bot.store import ALL_GUILDS, InstalledVersion, Promotion

CHANGE_TEXTS = {
    "promotion": gettext_lazy("promoted"),
    "automatic promotion": gettext_lazy("promoted automatically, as its score card was good"),
    "rollback": gettext_lazy("rolled back to"),
    "withdrawal": gettext_lazy("the other was withdrawn"),
}


@dataclass(frozen=True)
class VersionPeriod:
    """A period (seconds since 1970; `end` None: still) in which a version was live.

    `how` says how it began, `ended` how it ended.
    """

    begin: float
    end: float | None
    how: str
    ended: str = ""


@dataclass
class VersionTimeline:
    """History of a version; `installed` is None for the base model.

    `is_live`: in all servers without a live version of their own; `live_in` are servers of which it
    is the own one.
    """

    installed: InstalledVersion | None
    is_live: bool = False
    is_withdrawn: bool = False
    live_in: list[str] = field(default_factory=list)
    live_periods: list[VersionPeriod] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        return self.installed.version if self.installed else None

    @property
    def answers(self) -> bool:
        """True if it is live anywhere."""
        return self.is_live or bool(self.live_in)

    @property
    def name(self) -> str:
        """Its name for people."""
        return version_label(self.version)

    @property
    def better(self) -> float | None:
        """Relative difference of its held-out loss to the base model's; below 0 is better."""
        if self.installed is None or not self.installed.scorecard.is_measured:
            return None
        card = self.installed.scorecard
        return card.loss_tuned / card.loss_base - 1


def version_timelines(services: Services, persona_id: str) -> list[VersionTimeline]:
    """Every version of a persona, even withdrawn ones, newest first, and the base model last."""
    versions = services.store.versions
    live = versions.live(persona_id, ALL_GUILDS)
    changes = versions.history(persona_id)
    timelines = {}
    for installed in reversed(versions.ever_installed(persona_id)):
        version = installed.version
        timelines[version] = VersionTimeline(
            installed,
            is_live=version == live,
            is_withdrawn=versions.is_withdrawn(persona_id, version),
        )
    base = VersionTimeline(None, is_live=live is None)
    for server, version in live_in_servers(services, persona_id):
        timelines[version].live_in.append(server)

    by_guild: dict[int, list[Promotion]] = {}
    for change in changes:
        by_guild.setdefault(change.for_guild, []).append(change)
    for guild_id, own in by_guild.items():
        server = guild_name(services, guild_id) if guild_id else ""
        for change, next_change in zip(own, [*own[1:], None], strict=True):
            # In a guild, a change to no version gives the word to the version of all guilds.
            if change.version or not guild_id:
                timeline = timelines.get(change.version or "", base)
                timeline.live_periods.append(_live_period(change, next_change, server))
    for timeline in (*timelines.values(), base):
        timeline.live_periods.sort(key=lambda period: period.begin)

    _add_beginning(base, by_guild.get(ALL_GUILDS, []))
    return [*timelines.values(), base]


def _add_beginning(base: VersionTimeline, changes: Sequence[Promotion]) -> None:
    """Add the time before the first change, which no row tells of: the base model answered."""
    if changes and changes[0].version is None:
        return
    end = changes[0].at if changes else None
    base.live_periods.insert(0, VersionPeriod(0.0, end, gettext_lazy("from the beginning")))


def score_text(installed: InstalledVersion) -> str:
    """Held-out loss of the base model and of the version."""
    card = installed.scorecard
    if not card.is_measured:
        return gettext_lazy("not measured")
    return gettext_lazy(
        "{base} → {tuned}",
        base=localisable_number(format_figure(card.loss_base)),
        tuned=localisable_number(format_figure(card.loss_tuned)),
    )


def _live_period(change: Promotion, next_change: Promotion | None, server: str) -> VersionPeriod:
    how = CHANGE_TEXTS[change.kind]
    if server:
        how = gettext_lazy("{change} in {server}", change=how, server=server)
    if next_change is None:
        return VersionPeriod(change.at, None, how)
    if next_change.kind == "withdrawal":
        ended = gettext_lazy("withdrawn")
    elif next_change.kind == "rollback":
        ended = gettext_lazy("rolled back")
    elif next_change.version is None:
        ended = gettext_lazy("the base model followed")
    else:
        ended = gettext_lazy("{version} followed", version=next_change.version)
    return VersionPeriod(change.at, next_change.at, how=how, ended=ended)
