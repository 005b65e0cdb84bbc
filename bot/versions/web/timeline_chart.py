"""Draws the versions of a persona in time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from bot.platform.localisation import Language, gettext_lazy, localisable_number, localise
from bot.platform.web_kit.page_texts import LocalisableMarkup, PageTexts
from bot.platform.web_kit.templating import format_time
from bot.versions.web.timeline import VersionTimeline

# Of the drawing, in units of the viewBox
WIDTH = 520
LEFT = 108
RIGHT = 12
TOP = 8
ROW_HEIGHT = 26
FOOT_HEIGHT = 30
HALF_BAR = 6
MIN_BAR_WIDTH = 2.0
TICK_COUNT = 2
MAX_DRAWN_VERSIONS = 20
"""Rows of versions in the drawing; the table has all of them."""


def timeline_chart(name: str, timelines: Sequence[VersionTimeline], now: float) -> Markup:
    """A row per version with its score: a dot where it was made, a bar while it was live."""
    return LocalisableMarkup.drawn_by(lambda language: _draw(name, timelines, now, language))


def _draw(
    name: str, timelines: Sequence[VersionTimeline], now: float, language: Language
) -> Markup:
    times = []
    for timeline in timelines:
        if timeline.installed:
            times.append(timeline.installed.installed_at)
        for period in timeline.live_periods:
            if period.begin:
                times.append(period.begin)
    if not times:
        return Markup("")
    begin = min(times)
    pad = max((now - begin) * 0.03, 60.0)
    axis = _TimeAxis(begin - pad, now + pad)
    shown = list(timelines)
    if len(timelines) > MAX_DRAWN_VERSIONS:
        shown = [*timelines[: MAX_DRAWN_VERSIONS - 1], timelines[-1]]
    height = TOP + ROW_HEIGHT * len(shown) + FOOT_HEIGHT
    drawn = list(_time_ticks(axis, height))
    for row, timeline in enumerate(shown):
        drawn += _timeline_row(timeline, row, axis, now)
    descriptions = Markup(" ").join(_row_description(timeline, language) for timeline in shown)
    label = localise(gettext_lazy("The versions of {name} in time.", name=name), language)
    label = Markup("{} {}").format(label, descriptions)
    title = localise(gettext_lazy("Live versions of {name}", name=name), language)
    return Markup(
        '<figure class="chart lives"><figcaption>{title}</figcaption>'
        '<svg role="img" aria-labelledby="lives" viewBox="0 0 {width} {height}">{drawn}</svg>'
        '<p id="lives" hidden>{label}</p></figure>'
    ).format(title=title, width=WIDTH, height=height, drawn=Markup("").join(drawn), label=label)


@dataclass(frozen=True)
class _TimeAxis:
    begin: float
    end: float

    def at(self, time: float) -> float:
        share = (max(time, self.begin) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


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
    for period in timeline.live_periods:
        left = axis.at(period.begin)
        width = max(axis.at(now if period.end is None else period.end) - left, MIN_BAR_WIDTH)
        yield Markup(
            '<rect class="{style}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="1"/>'
        ).format(
            style=f"dot s{colour}", x=left, y=middle - HALF_BAR, width=width, height=2 * HALF_BAR
        )
    if timeline.installed:
        yield Markup('<circle class="dot s3" cx="{:.1f}" cy="{}" r="4"/>').format(
            axis.at(timeline.installed.installed_at), middle
        )


def _row_description(timeline: VersionTimeline, language: Language) -> Markup:
    """A sentence for those who do not see the drawing."""
    texts = PageTexts(language)
    facts = list[str]()
    if timeline.installed:
        made = format_time(timeline.installed.installed_at, language)
        facts.append(texts.gettext("made %(at)s", at=made))
    if timeline.better is not None:
        better = localisable_number(f"{timeline.better:+.0%}")
        facts.append(texts.gettext("held-out loss %(change)s", change=better))
    for period in timeline.live_periods:
        if period.begin:
            begin = format_time(period.begin, language)
            facts.append(texts.gettext("live from %(begin)s", begin=begin))
        else:
            facts.append(texts.gettext("live at first"))
    if timeline.answers:
        facts.append(texts.gettext("answers now"))
    name = localise(timeline.name, language)
    return Markup("{}: {}.").format(name, Markup(", ").join(facts))
