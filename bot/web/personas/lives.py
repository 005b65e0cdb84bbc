"""The lives of a persona's versions: made, tried on a part of the replies, live, taken back; and a drawing of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from markupsafe import Markup

from bot.house import House
from bot.rollout.history import ENDINGS
from bot.rollout.words import named
from bot.store import InstalledVersion, Promotion, Rollout
from bot.web.charts import told
from bot.web.formats import when

WIDTH, LEFT, RIGHT, TOP, ROW, FOOT = 520, 108, 12, 8, 26, 30
"""Of the drawing, in the units of its viewBox."""
HALF_BAR, LEAST_WIDTH, TICKS = 6, 2.0, 2
MOST_DRAWN = 20
"""Rows of versions that are drawn; the table has all of them."""
HOW = {
    "promotion": "promoted",
    "automatic promotion": "promoted by itself, as its score card was good",
    "rollback": "rolled back to",
    "automatic rollback": "rolled back to by itself",
    "withdrawal": "the other was withdrawn",
}


@dataclass(frozen=True)
class Span:
    """From when to when (seconds since 1970; None: still) a version spoke, or a part of the replies was its.

    `share` is in percent; `how` says how it began, `ended` how it ended.
    """

    begin: float
    end: float | None
    share: int
    how: str
    ended: str = ""


@dataclass
class Life:
    """What became of a version; `made` None is the base model."""

    made: InstalledVersion | None
    is_live: bool = False
    is_withdrawn: bool = False
    spans: list[Span] = field(default_factory=list)
    trials: list[Span] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        """Its name."""
        return self.made.version if self.made else None

    @property
    def name(self) -> str:
        """Its name for people."""
        return named(self.version)

    @property
    def better(self) -> float | None:
        """By what share its held-out loss is other than the base model's; below 0 is better."""
        if self.made is None or not self.made.scorecard.loss_base:
            return None
        return self.made.scorecard.loss_tuned / self.made.scorecard.loss_base - 1


def lives_of(house: House, persona_id: str) -> list[Life]:
    """Every version of a persona, withdrawn ones too, the newest first, and the base model at the end."""
    versions = house.store.versions
    live, changes = versions.live(persona_id), versions.history(persona_id)
    found = {
        made.version: Life(made, made.version == live, versions.is_withdrawn(persona_id, made.version))
        for made in reversed(versions.ever_installed(persona_id))
    }
    base = Life(None, live is None)
    for began, after in pairwise([*changes, None]):
        if began is not None:
            found.get(began.version or "", base).spans.append(_live(began, after))
    for tried in house.store.rollouts.everywhere(persona_id):
        if not tried.is_promoted and tried.version in found:
            found[tried.version].trials.append(_tried(tried))
    if not changes or changes[0].version is not None:
        base.spans.insert(0, Span(0.0, changes[0].at if changes else None, 100, "from the beginning"))
    return [*found.values(), base]


def drawing(name: str, lives: Sequence[Life], now: float) -> Markup:
    """Lines of time, a row a version with its score: a dot where it was made, a bar while it was live, a thin one while
    on trial."""
    times = [span.begin for one in lives for span in (*one.spans, *one.trials) if span.begin]
    times += [one.made.installed_at for one in lives if one.made]
    if not times:
        return Markup("")
    begin = min(times)
    pad = max((now - begin) * 0.03, 60.0)
    axis = _Axis(begin - pad, now + pad)
    shown = [*lives[: MOST_DRAWN - 1], lives[-1]] if len(lives) > MOST_DRAWN else list(lives)
    height = TOP + ROW * len(shown) + FOOT
    drawn = [*_ticks(axis, height), *(part for row, one in enumerate(shown) for part in _row(one, row, axis, now))]
    label = Markup("The versions of {} in time. {}").format(name, Markup(" ").join(_spoken(one) for one in shown))
    return Markup(
        '<figure class="chart lives"><figcaption>{}</figcaption><svg role="img" aria-labelledby="lives" '
        'viewBox="0 0 {} {}">{}</svg><p id="lives" hidden>{}</p></figure>'
    ).format(f"Who spoke for {name}", WIDTH, height, Markup("").join(drawn), label)


def score_words(made: InstalledVersion) -> str:
    """Its held-out loss beside the base model's."""
    card = made.scorecard
    return f"{told(card.loss_base)} → {told(card.loss_tuned)}"


# ------------------------------------------------------------------------------------------------ parts of it


@dataclass(frozen=True)
class _Axis:
    begin: float
    end: float

    def at(self, time: float) -> float:
        share = (max(time, self.begin) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _live(began: Promotion, after: Promotion | None) -> Span:
    ended = ""
    if after is not None:
        ended = "rolled back" if "rollback" in after.kind else f"{named(after.version)} followed"
        ended = "withdrawn" if after.kind == "withdrawal" else ended
    return Span(began.at, after.at if after else None, 100, HOW[began.kind], ended)


def _tried(one: Rollout) -> Span:
    where = " in one channel" if one.only_channel else ""
    ended = ENDINGS.get(one.ending, f"taken back by itself, {one.why}") if one.ending else ""
    return Span(one.started_at, one.ended_at, one.share, f"on trial{where}", ended)


def _ticks(axis: _Axis, height: int) -> Iterator[Markup]:
    bottom = height - FOOT
    for n in range(TICKS):
        time = axis.begin + (axis.end - axis.begin) * (n + 0.5) / TICKS
        x = f"{axis.at(time):.1f}"
        yield Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, TOP, bottom)
        yield Markup('<text x="{}" y="{}" text-anchor="middle" data-at="{}">{}</text>').format(
            x, height - 10, *_day_and_hour(time)
        )


def _day_and_hour(time: float) -> tuple[str, str]:
    """Seconds since 1970 as ISO 8601 and as "20 Nov 14:02 UTC": scripts turn it into the reader's own time."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.isoformat(timespec="seconds"), f"{moment.day} {moment:%b %H:%M} UTC"


def _row(one: Life, row: int, axis: _Axis, now: float) -> Iterator[Markup]:
    middle = TOP + ROW * row + ROW // 2
    colour = 0 if one.is_live else 5
    yield Markup('<text class="{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
        "value" if one.is_live else "", LEFT - 8, middle + 4, _label(one)
    )
    for span in one.trials:
        yield _bar(span, middle, HALF_BAR // 3, "dot s1", axis, now)
    for span in one.spans:
        yield _bar(span, middle, HALF_BAR, f"dot s{colour}", axis, now)
    if one.made:
        x = f"{axis.at(one.made.installed_at):.1f}"
        yield Markup('<circle class="dot s3" cx="{}" cy="{}" r="4"/>').format(x, middle)


def _label(one: Life) -> str:
    """The version and its score: by how much its held-out loss is other than the base model's."""
    return f"{one.version or 'base'}" + (f"  {one.better:+.0%}" if one.better is not None else "")


def _bar(span: Span, middle: int, half: int, look: str, axis: _Axis, now: float) -> Markup:
    left, right = axis.at(span.begin), axis.at(now if span.end is None else span.end)
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>').format(
        look, f"{left:.1f}", middle - half, f"{max(right - left, LEAST_WIDTH):.1f}", 2 * half
    )


def _spoken(one: Life) -> Markup:
    made = Markup("made {}").format(when(one.made.installed_at)) if one.made else ""
    score = f"held-out loss {one.better:+.0%}" if one.better is not None else ""
    live = [Markup("live from {}").format(when(span.begin)) if span.begin else "live at first" for span in one.spans]
    said = filter(None, [made, score, *live, "speaks now" if one.is_live else ""])
    return Markup("{}: {}.").format(one.name, Markup(", ").join(said))
