"""The history of a persona's versions: when each was live or on trial, as a table and a drawing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from markupsafe import Markup

from bot.chat.model_names import version_label
from bot.personas.web.lookup import guild_name, live_in_servers
from bot.platform.web_kit.charts import format_figure
from bot.platform.web_kit.templating import format_time
from bot.services import Services
from bot.store import ALL_GUILDS, InstalledVersion, Promotion, Rollout
from bot.versions.rollout.history import ENDING_LABELS

WIDTH, LEFT, RIGHT, TOP, ROW_HEIGHT, FOOT_HEIGHT = 520, 108, 12, 8, 26, 30
"""Of the drawing, in units of the viewBox."""
HALF_BAR = 6
MIN_BAR_WIDTH = 2.0
TICK_COUNT = 2
MAX_DRAWN_VERSIONS = 20
"""Rows of versions in the drawing; the table has all of them."""
CHANGE_TEXTS = {
    "promotion": "promoted",
    "automatic promotion": "promoted automatically, as its score card was good",
    "rollback": "rolled back to",
    "automatic rollback": "rolled back to automatically",
    "withdrawal": "the other was withdrawn",
}


@dataclass(frozen=True)
class VersionPeriod:
    """A period (seconds since 1970; `end` None: still) in which a version gave a share of the
    replies.

    `share` is in percent; `how` says how it began, `ended` how it ended.
    """

    begin: float
    end: float | None
    share: int
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
    trials: list[VersionPeriod] = field(default_factory=list)

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
        server = f" in {guild_name(services, guild_id)}" if guild_id else ""
        for change, next_change in zip(own, [*own[1:], None], strict=True):
            # In a guild, a change to no version gives the word to the version of all guilds.
            if change.version or not guild_id:
                timeline = timelines.get(change.version or "", base)
                timeline.live_periods.append(_live_period(change, next_change, server))
    for timeline in (*timelines.values(), base):
        timeline.live_periods.sort(key=lambda period: period.begin)

    for rollout in services.store.rollouts.of_persona(persona_id):
        if not rollout.is_promoted and rollout.version in timelines:
            timelines[rollout.version].trials.append(_rollout_period(rollout))

    _add_beginning(base, by_guild.get(ALL_GUILDS, []))
    return [*timelines.values(), base]


def _add_beginning(base: VersionTimeline, changes: Sequence[Promotion]) -> None:
    """Add the time before the first change, which no row tells of: the base model answered."""
    if changes and changes[0].version is None:
        return
    end = changes[0].at if changes else None
    base.live_periods.insert(0, VersionPeriod(0.0, end, 100, "from the beginning"))


def timeline_chart(name: str, timelines: Sequence[VersionTimeline], now: float) -> Markup:
    """A row per version with its score: a dot where it was made, a bar while it was live, a thin
    bar while on trial.
    """
    times = []
    for timeline in timelines:
        if timeline.installed:
            times.append(timeline.installed.installed_at)
        for period in (*timeline.live_periods, *timeline.trials):
            if period.begin:
                times.append(period.begin)
    if not times:
        return Markup("")
    begin = min(times)
    pad = max((now - begin) * 0.03, 60.0)
    axis = _TimeAxis(begin - pad, now + pad)
    is_long = len(timelines) > MAX_DRAWN_VERSIONS
    shown = [*timelines[: MAX_DRAWN_VERSIONS - 1], timelines[-1]] if is_long else list(timelines)
    height = TOP + ROW_HEIGHT * len(shown) + FOOT_HEIGHT
    drawn = list(_time_ticks(axis, height))
    for row, timeline in enumerate(shown):
        drawn += _timeline_row(timeline, row, axis, now)
    descriptions = Markup(" ").join(_row_description(timeline) for timeline in shown)
    label = Markup("The versions of {} in time. {}").format(name, descriptions)
    return Markup(
        '<figure class="chart lives"><figcaption>Live versions of {name}</figcaption>'
        '<svg role="img" aria-labelledby="lives" viewBox="0 0 {width} {height}">{drawn}</svg>'
        '<p id="lives" hidden>{label}</p></figure>'
    ).format(name=name, width=WIDTH, height=height, drawn=Markup("").join(drawn), label=label)


def score_text(installed: InstalledVersion) -> str:
    """Held-out loss of the base model and of the version."""
    card = installed.scorecard
    if not card.is_measured:
        return "not measured"
    return f"{format_figure(card.loss_base)} → {format_figure(card.loss_tuned)}"


@dataclass(frozen=True)
class _TimeAxis:
    begin: float
    end: float

    def at(self, time: float) -> float:
        share = (max(time, self.begin) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _live_period(change: Promotion, next_change: Promotion | None, server: str) -> VersionPeriod:
    how = f"{CHANGE_TEXTS[change.kind]}{server}"
    if next_change is None:
        return VersionPeriod(change.at, None, 100, how)
    if next_change.kind == "withdrawal":
        ended = "withdrawn"
    elif "rollback" in next_change.kind:
        ended = "rolled back"
    else:
        ended = f"{version_label(next_change.version)} followed"
    return VersionPeriod(change.at, next_change.at, share=100, how=how, ended=ended)


def _rollout_period(rollout: Rollout) -> VersionPeriod:
    ended = ""
    if rollout.ending:
        ended = ENDING_LABELS.get(rollout.ending, f"rolled back automatically, {rollout.why}")
    return VersionPeriod(
        begin=rollout.started_at,
        end=rollout.ended_at,
        share=rollout.share,
        how="on trial in one channel" if rollout.only_channel else "on trial",
        ended=ended,
    )


def _time_ticks(axis: _TimeAxis, height: int) -> Iterator[Markup]:
    bottom = height - FOOT_HEIGHT
    for n in range(TICK_COUNT):
        time = axis.begin + (axis.end - axis.begin) * (n + 0.5) / TICK_COUNT
        x = f"{axis.at(time):.1f}"
        moment = datetime.fromtimestamp(time, UTC)
        label = f"{moment.day} {moment:%b %H:%M} UTC"  # scripts turn it into the reader's own time
        yield Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            x, x, TOP, bottom
        )
        yield Markup('<text x="{}" y="{}" text-anchor="middle" data-at="{}">{}</text>').format(
            x, height - 10, moment.isoformat(timespec="seconds"), label
        )


def _timeline_row(
    timeline: VersionTimeline, row: int, axis: _TimeAxis, now: float
) -> Iterator[Markup]:
    middle = TOP + ROW_HEIGHT * row + ROW_HEIGHT // 2
    colour = 0 if timeline.answers else 5
    label = timeline.version or "base"
    if timeline.better is not None:
        label += f"  {timeline.better:+.0%}"
    yield Markup('<text class="{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
        "value" if timeline.answers else "", LEFT - 8, middle + 4, label
    )
    bars = [(period, HALF_BAR // 3, "dot s1") for period in timeline.trials]
    bars += [(period, HALF_BAR, f"dot s{colour}") for period in timeline.live_periods]
    for period, half, style in bars:
        left = axis.at(period.begin)
        width = max(axis.at(now if period.end is None else period.end) - left, MIN_BAR_WIDTH)
        yield Markup(
            '<rect class="{style}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="1"/>'
        ).format(style=style, x=left, y=middle - half, width=width, height=2 * half)
    if timeline.installed:
        yield Markup('<circle class="dot s3" cx="{:.1f}" cy="{}" r="4"/>').format(
            axis.at(timeline.installed.installed_at), middle
        )


def _row_description(timeline: VersionTimeline) -> Markup:
    """A sentence for those who do not see the drawing."""
    facts = list[str]()
    if timeline.installed:
        facts.append(Markup("made {}").format(format_time(timeline.installed.installed_at)))
    if timeline.better is not None:
        facts.append(f"held-out loss {timeline.better:+.0%}")
    for period in timeline.live_periods:
        if period.begin:
            facts.append(Markup("live from {}").format(format_time(period.begin)))
        else:
            facts.append("live at first")
    if timeline.answers:
        facts.append("answers now")
    return Markup("{}: {}.").format(timeline.name, Markup(", ").join(facts))
