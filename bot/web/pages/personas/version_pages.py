"""`/dashboard/personas/ID/versions`: a timeline of the versions; promotion and rollback with confirmation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from aiohttp import web
from markupsafe import Markup

from bot.services import Services
from bot.store import InstalledVersion, Promotion, Rollout
from bot.versions.live_versions import OPERATOR_USER_ID
from bot.versions.rollout.rollout_metrics import compare_rollout
from bot.versions.rollout.rollout_text import tally_text, version_label
from bot.versions.rollout.version_history import ENDING_LABELS
from bot.web.api.personas.persona_lookup import (
    OwnedPersona,
    guild_name,
    persona_status,
    require_persona_in_path,
    require_version_in_path,
)
from bot.web.app_context import Route
from bot.web.pages.charts import format_figure
from bot.web.problems import Problem
from bot.web.request_body import errors_as_problems, form_text, read_form_data
from bot.web.template_filters import format_time
from bot.web.templating import redirect_to, render_page
from personas.errors import RequestError
from personas.home.shared_personas import OPERATOR_GUILD_ID

WIDTH, LEFT, RIGHT, TOP, ROW_HEIGHT, FOOT_HEIGHT = 520, 108, 12, 8, 26, 30
"""Of the drawing, in the units of its viewBox."""
HALF_BAR, MIN_BAR_WIDTH, TICK_COUNT = 6, 2.0, 2
MAX_DRAWN_VERSIONS = 20
"""Rows of versions that are drawn; the table has all of them."""
CHANGE_TEXTS = {
    "promotion": "promoted",
    "automatic promotion": "promoted by itself, as its score card was good",
    "rollback": "rolled back to",
    "automatic rollback": "rolled back to by itself",
    "withdrawal": "the other was withdrawn",
}
PROMOTE_PATH = "/dashboard/personas/{persona_id}/versions/{version}/promote"


@dataclass(frozen=True)
class VersionPeriod:
    """From when to when (seconds since 1970; None: still) a version spoke, or a part of the replies was its.

    `share` is in percent; `how` says how it began, `ended` how it ended.
    """

    begin: float
    end: float | None
    share: int
    how: str
    ended: str = ""


@dataclass
class VersionTimeline:
    """History of a version; `made` is None for the base model."""

    made: InstalledVersion | None
    is_live: bool = False
    is_withdrawn: bool = False
    spans: list[VersionPeriod] = field(default_factory=list)
    trials: list[VersionPeriod] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        """Its name."""
        return self.made.version if self.made else None

    @property
    def name(self) -> str:
        """Its name for people."""
        return version_label(self.version)

    @property
    def better(self) -> float | None:
        """By what share its held-out loss is other than the base model's; below 0 is better."""
        if self.made is None or not self.made.scorecard.loss_base:
            return None
        return self.made.scorecard.loss_tuned / self.made.scorecard.loss_base - 1


def version_timelines(services: Services, persona_id: str) -> list[VersionTimeline]:
    """Every version of a persona, withdrawn ones too, the newest first, and the base model at the end."""
    versions = services.store.versions
    live, changes = versions.live(persona_id), versions.history(persona_id)
    found = {
        made.version: VersionTimeline(made, made.version == live, versions.is_withdrawn(persona_id, made.version))
        for made in reversed(versions.ever_installed(persona_id))
    }
    base = VersionTimeline(None, live is None)
    for began, after in pairwise([*changes, None]):
        if began is not None:
            found.get(began.version or "", base).spans.append(_live_period(began, after))
    for tried in services.store.rollouts.of_all_guilds(persona_id):
        if not tried.is_promoted and tried.version in found:
            found[tried.version].trials.append(_rollout_period(tried))
    if not changes or changes[0].version is not None:
        base.spans.insert(0, VersionPeriod(0.0, changes[0].at if changes else None, 100, "from the beginning"))
    return [*found.values(), base]


def timeline_chart(name: str, lives: Sequence[VersionTimeline], now: float) -> Markup:
    """Lines of time, a row a version with its score: a dot where it was made, a bar while it was live, a thin one while
    on trial."""
    times = [span.begin for one in lives for span in (*one.spans, *one.trials) if span.begin]
    times += [one.made.installed_at for one in lives if one.made]
    if not times:
        return Markup("")
    begin = min(times)
    pad = max((now - begin) * 0.03, 60.0)
    axis = _TimeAxis(begin - pad, now + pad)
    shown = [*lives[: MAX_DRAWN_VERSIONS - 1], lives[-1]] if len(lives) > MAX_DRAWN_VERSIONS else list(lives)
    height = TOP + ROW_HEIGHT * len(shown) + FOOT_HEIGHT
    drawn = [
        *_time_ticks(axis, height),
        *(part for row, one in enumerate(shown) for part in _timeline_row(one, row, axis, now)),
    ]
    label = Markup("The versions of {} in time. {}").format(
        name, Markup(" ").join(_row_description(one) for one in shown)
    )
    return Markup(
        '<figure class="chart lives"><figcaption>{}</figcaption><svg role="img" aria-labelledby="lives" '
        'viewBox="0 0 {} {}">{}</svg><p id="lives" hidden>{}</p></figure>'
    ).format(f"Who spoke for {name}", WIDTH, height, Markup("").join(drawn), label)


def score_text(made: InstalledVersion) -> str:
    """Its held-out loss beside the base model's."""
    card = made.scorecard
    return f"{format_figure(card.loss_base)} → {format_figure(card.loss_tuned)}"


# ------------------------------------------------------------------------------------------------ parts of it


@dataclass(frozen=True)
class _TimeAxis:
    begin: float
    end: float

    def at(self, time: float) -> float:
        share = (max(time, self.begin) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _live_period(began: Promotion, after: Promotion | None) -> VersionPeriod:
    ended = ""
    if after is not None:
        ended = "rolled back" if "rollback" in after.kind else f"{version_label(after.version)} followed"
        ended = "withdrawn" if after.kind == "withdrawal" else ended
    return VersionPeriod(began.at, after.at if after else None, 100, CHANGE_TEXTS[began.kind], ended)


def _rollout_period(one: Rollout) -> VersionPeriod:
    where = " in one channel" if one.only_channel else ""
    ended = ENDING_LABELS.get(one.ending, f"taken back by itself, {one.why}") if one.ending else ""
    return VersionPeriod(one.started_at, one.ended_at, one.share, f"on trial{where}", ended)


def _time_ticks(axis: _TimeAxis, height: int) -> Iterator[Markup]:
    bottom = height - FOOT_HEIGHT
    for n in range(TICK_COUNT):
        time = axis.begin + (axis.end - axis.begin) * (n + 0.5) / TICK_COUNT
        x = f"{axis.at(time):.1f}"
        yield Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, TOP, bottom)
        yield Markup('<text x="{}" y="{}" text-anchor="middle" data-at="{}">{}</text>').format(
            x, height - 10, *_day_and_hour(time)
        )


def _day_and_hour(time: float) -> tuple[str, str]:
    """Seconds since 1970 as ISO 8601 and as "20 Nov 14:02 UTC": scripts turn it into the reader's own time."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.isoformat(timespec="seconds"), f"{moment.day} {moment:%b %H:%M} UTC"


def _timeline_row(one: VersionTimeline, row: int, axis: _TimeAxis, now: float) -> Iterator[Markup]:
    middle = TOP + ROW_HEIGHT * row + ROW_HEIGHT // 2
    colour = 0 if one.is_live else 5
    yield Markup('<text class="{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
        "value" if one.is_live else "", LEFT - 8, middle + 4, _row_label(one)
    )
    for span in one.trials:
        yield _period_bar(span, middle, HALF_BAR // 3, "dot s1", axis, now)
    for span in one.spans:
        yield _period_bar(span, middle, HALF_BAR, f"dot s{colour}", axis, now)
    if one.made:
        x = f"{axis.at(one.made.installed_at):.1f}"
        yield Markup('<circle class="dot s3" cx="{}" cy="{}" r="4"/>').format(x, middle)


def _row_label(one: VersionTimeline) -> str:
    """The version and its score: by how much its held-out loss is other than the base model's."""
    return f"{one.version or 'base'}" + (f"  {one.better:+.0%}" if one.better is not None else "")


def _period_bar(span: VersionPeriod, middle: int, half: int, look: str, axis: _TimeAxis, now: float) -> Markup:
    left, right = axis.at(span.begin), axis.at(now if span.end is None else span.end)
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>').format(
        look, f"{left:.1f}", middle - half, f"{max(right - left, MIN_BAR_WIDTH):.1f}", 2 * half
    )


def _row_description(one: VersionTimeline) -> Markup:
    made = Markup("made {}").format(format_time(one.made.installed_at)) if one.made else ""
    score = f"held-out loss {one.better:+.0%}" if one.better is not None else ""
    live = [
        Markup("live from {}").format(format_time(span.begin)) if span.begin else "live at first" for span in one.spans
    ]
    said = filter(None, [made, score, *live, "answers now" if one.is_live else ""])
    return Markup("{}: {}.").format(one.name, Markup(", ").join(said))


async def get_versions_page(request: web.Request) -> web.Response:
    """Every version there ever was, and what is rolled out now."""
    found, now = require_persona_in_path(request), time.time()
    lives = version_timelines(found.services, found.id)
    return render_page(
        request,
        "personas/versions.html",
        title=f"{found.persona.name}: versions",
        section="personas",
        tab="versions",
        found=found,
        standing=persona_status(found.services, found.id),
        lives=lives,
        drawing=timeline_chart(found.persona.name, lives, now),
        score_words=score_text,
        before=_previous_version(found),
        rollouts=_rollout_rows(found, now),
        behind=found.services.request_builder.incompatible_versions,
    )


async def confirm_promote(request: web.Request) -> web.Response:
    """Page to confirm a promotion, with the gate's verdict."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    objections = await found.services.versions.objections(found.id, made.version, OPERATOR_GUILD_ID)
    return render_page(
        request,
        "personas/promote.html",
        title=f"Promote {made.version} of {found.persona.name}",
        section="personas",
        found=found,
        made=made,
        live=version_label(found.services.store.versions.live(found.id)),
        is_live=found.services.store.versions.live(found.id) == made.version,
        verdict=made.scorecard.verdict,
        objections=objections,
        reasons=objections.reasons if objections else made.scorecard.reasons,
        advice=made.scorecard.advice,
        score=score_text(made),
        action=f"{found.page}/versions/{made.version}/promote",
        back=f"{found.page}/versions",
    )


async def post_promote_page(request: web.Request) -> web.Response:
    """Make it live."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    anyway = form_text(await read_form_data(request), "anyway") == "yes"
    with errors_as_problems("conflict"):
        changed = await found.services.versions.promote(
            found.id, made.version, OPERATOR_GUILD_ID, 0, OPERATOR_USER_ID, anyway=anyway
        )
    said = "speaks from the next reply on." if changed else "speaks already."
    return redirect_to(request, f"{found.page}/versions", f"{made.version} of {found.persona.name} {said}")


async def confirm_rollback(request: web.Request) -> web.Response:
    """Page to confirm a rollback. Raises `Problem` if there is no earlier version."""
    found = require_persona_in_path(request)
    before = _previous_version(found)
    if before is None:
        raise Problem(
            "conflict", f"{found.persona.name} has no earlier version to roll back to.", "Promote one instead."
        )
    return render_page(
        request,
        "personas/rollback.html",
        title=f"Roll {found.persona.name} back",
        section="personas",
        found=found,
        live=version_label(found.services.store.versions.live(found.id)),
        before=before,
        back=f"{found.page}/versions",
    )


async def post_rollback_page(request: web.Request) -> web.Response:
    """Make the version live that was so before."""
    found = require_persona_in_path(request)
    with errors_as_problems("conflict"):
        row = found.services.versions.roll_back(found.persona, OPERATOR_GUILD_ID, OPERATOR_USER_ID)
    said = f"{version_label(row.version)} speaks for {found.persona.name} from the next reply on."
    return redirect_to(request, f"{found.page}/versions", f"{said[0].upper()}{said[1:]}")


def _previous_version(found: OwnedPersona) -> str | None:
    """Label of the version that a rollback would restore; None if there is none."""
    try:
        return version_label(found.services.store.versions.before(found.id))
    except RequestError:
        return None


def _rollout_rows(found: OwnedPersona, now: float) -> list[dict[str, object]]:
    """The rollouts that are on, and the promoted version while it is watched, with what members made of them."""
    told = []
    for rollout in found.services.store.rollouts.running(found.id, now):
        comparison = compare_rollout(found.services.store, rollout)
        told.append(
            {
                "rollout": rollout,
                "server": guild_name(found.services, rollout.guild_id) if rollout.guild_id else "all servers",
                "before": version_label(rollout.before),
                "new_tally": tally_text(comparison.new),
                "old_tally": tally_text(comparison.before),
            }
        )
    return told


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas/{persona_id}/versions", get_versions_page),
    ("GET", PROMOTE_PATH, confirm_promote),
    ("POST", PROMOTE_PATH, post_promote_page),
    ("GET", "/dashboard/personas/{persona_id}/rollback", confirm_rollback),
    ("POST", "/dashboard/personas/{persona_id}/rollback", post_rollback_page),
)
