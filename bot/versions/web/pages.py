"""`/dashboard/personas/ID/versions`: a timeline of the versions; promotion and rollback with
confirmation.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from aiohttp import BodyPartReader, web
from markupsafe import Markup

from bot.chat.model_names import servable_dialogue_adapters, version_label
from bot.data.jobs import DataJob
from bot.data.web.upload_stream import receive_file
from bot.personas.web.lookup import (
    OwnedPersona,
    guild_name,
    live_in_servers,
    persona_status,
    require_hub_name,
    require_persona_in_path,
    require_version_in_path,
)
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.charts import format_figure
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    FORM_CHUNK_BYTES,
    errors_as_problems,
    read_form,
    read_form_part,
    read_multipart,
)
from bot.platform.web_kit.templating import format_time, redirect_to, render_page
from bot.services import Services
from bot.store import ALL_GUILDS, InstalledVersion, Promotion, Rollout
from bot.versions.rollout.history import ENDING_LABELS
from bot.versions.rollout.report import compare_rollout, tally_text
from personas.errors import RequestError
from personas.outside_names import last_part

WIDTH, LEFT, RIGHT, TOP, ROW_HEIGHT, FOOT_HEIGHT = 520, 108, 12, 8, 26, 30
"""Of the drawing, in units of the viewBox."""
HALF_BAR = 6
MIN_BAR_WIDTH = 2.0
TICK_COUNT = 2
MAX_SOURCE_BYTES = 512
MAX_DRAWN_VERSIONS = 20
"""Rows of versions in the drawing; the table has all of them."""
CHANGE_TEXTS = {
    "promotion": "promoted",
    "automatic promotion": "promoted automatically, as its score card was good",
    "rollback": "rolled back to",
    "automatic rollback": "rolled back to automatically",
    "withdrawal": "the other was withdrawn",
}
PROMOTE_PATH = "/dashboard/personas/{persona_id}/versions/{version}/promote"
REMOVE_PATH = "/dashboard/personas/{persona_id}/versions/{version}/remove"
routes = Routes()


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
    """History of a version; `made` is None for the base model.

    `is_live`: in all servers without a live version of their own; `live_in` are servers of which it
    is the own one.
    """

    made: InstalledVersion | None
    is_live: bool = False
    is_withdrawn: bool = False
    live_in: list[str] = field(default_factory=list)
    live_periods: list[VersionPeriod] = field(default_factory=list)
    trials: list[VersionPeriod] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        return self.made.version if self.made else None

    @property
    def name(self) -> str:
        """Its name for people."""
        return version_label(self.version)

    @property
    def better(self) -> float | None:
        """Relative difference of its held-out loss to the base model's; below 0 is better."""
        if self.made is None or not self.made.scorecard.is_measured:
            return None
        return self.made.scorecard.loss_tuned / self.made.scorecard.loss_base - 1


def version_timelines(services: Services, persona_id: str) -> list[VersionTimeline]:
    """Every version of a persona, even withdrawn ones, newest first, and the base model last."""
    versions = services.store.versions
    live = versions.live(persona_id, ALL_GUILDS)
    changes = versions.history(persona_id)
    found = {
        made.version: VersionTimeline(
            made, made.version == live, versions.is_withdrawn(persona_id, made.version)
        )
        for made in reversed(versions.ever_installed(persona_id))
    }
    base = VersionTimeline(None, live is None)
    for server, version in live_in_servers(services, persona_id):
        found[version].live_in.append(server)
    for guild_id in {change.for_guild: None for change in changes}:
        server = f" in {guild_name(services, guild_id)}" if guild_id else ""
        for began, after in pairwise([*(it for it in changes if it.for_guild == guild_id), None]):
            if began is not None and (began.version or not guild_id):
                found.get(began.version or "", base).live_periods.append(
                    _live_period(began, after, server)
                )
    for one in (*found.values(), base):
        one.live_periods.sort(key=lambda period: period.begin)
    for tried in services.store.rollouts.of_persona(persona_id):
        if not tried.is_promoted and tried.version in found:
            found[tried.version].trials.append(_rollout_period(tried))
    first = next((change for change in changes if change.for_guild == ALL_GUILDS), None)
    if first is None or first.version is not None:
        base.live_periods.insert(
            0, VersionPeriod(0.0, first.at if first else None, 100, "from the beginning")
        )
    return [*found.values(), base]


def timeline_chart(name: str, timelines: Sequence[VersionTimeline], now: float) -> Markup:
    """A row per version with its score: a dot where it was made, a bar while it was live, a thin
    bar while on trial.
    """
    times = [
        period.begin
        for one in timelines
        for period in (*one.live_periods, *one.trials)
        if period.begin
    ]
    times += [one.made.installed_at for one in timelines if one.made]
    if not times:
        return Markup("")
    begin = min(times)
    pad = max((now - begin) * 0.03, 60.0)
    axis = _TimeAxis(begin - pad, now + pad)
    is_long = len(timelines) > MAX_DRAWN_VERSIONS
    shown = [*timelines[: MAX_DRAWN_VERSIONS - 1], timelines[-1]] if is_long else list(timelines)
    height = TOP + ROW_HEIGHT * len(shown) + FOOT_HEIGHT
    rows = [part for row, one in enumerate(shown) for part in _timeline_row(one, row, axis, now)]
    drawn = [*_time_ticks(axis, height), *rows]
    label = Markup("The versions of {} in time. {}").format(
        name, Markup(" ").join(_row_description(one) for one in shown)
    )
    return Markup(
        '<figure class="chart lives"><figcaption>{}</figcaption><svg role="img" aria-labelledby="lives" '
        'viewBox="0 0 {} {}">{}</svg><p id="lives" hidden>{}</p></figure>'
    ).format(f"Who spoke for {name}", WIDTH, height, Markup("").join(drawn), label)


def score_text(made: InstalledVersion) -> str:
    card = made.scorecard
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


def _live_period(began: Promotion, after: Promotion | None, server: str) -> VersionPeriod:
    ended = ""
    if after is not None:
        ended = (
            "rolled back"
            if "rollback" in after.kind
            else f"{version_label(after.version)} followed"
        )
        ended = "withdrawn" if after.kind == "withdrawal" else ended
    return VersionPeriod(
        began.at, after.at if after else None, 100, f"{CHANGE_TEXTS[began.kind]}{server}", ended
    )


def _rollout_period(one: Rollout) -> VersionPeriod:
    where = " in one channel" if one.only_channel else ""
    ended = (
        ENDING_LABELS.get(one.ending, f"rolled back automatically, {one.why}") if one.ending else ""
    )
    return VersionPeriod(one.started_at, one.ended_at, one.share, f"on trial{where}", ended)


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


def _timeline_row(one: VersionTimeline, row: int, axis: _TimeAxis, now: float) -> Iterator[Markup]:
    middle = TOP + ROW_HEIGHT * row + ROW_HEIGHT // 2
    colour = 0 if one.is_live or one.live_in else 5
    yield Markup('<text class="{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
        "" if colour else "value", LEFT - 8, middle + 4, _row_label(one)
    )
    for period in one.trials:
        yield _period_bar(period, middle, HALF_BAR // 3, "dot s1", axis, now)
    for period in one.live_periods:
        yield _period_bar(period, middle, HALF_BAR, f"dot s{colour}", axis, now)
    if one.made:
        yield Markup('<circle class="dot s3" cx="{:.1f}" cy="{}" r="4"/>').format(
            axis.at(one.made.installed_at), middle
        )


def _row_label(one: VersionTimeline) -> str:
    """The version and its score, the relative difference of its held-out loss to the base
    model's.
    """
    return f"{one.version or 'base'}" + (f"  {one.better:+.0%}" if one.better is not None else "")


def _period_bar(
    period: VersionPeriod, middle: int, half: int, style: str, axis: _TimeAxis, now: float
) -> Markup:
    left = axis.at(period.begin)
    right = axis.at(now if period.end is None else period.end)
    return Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="1"/>').format(
        style, left, middle - half, max(right - left, MIN_BAR_WIDTH), 2 * half
    )


def _row_description(one: VersionTimeline) -> Markup:
    made = Markup("made {}").format(format_time(one.made.installed_at)) if one.made else ""
    score = f"held-out loss {one.better:+.0%}" if one.better is not None else ""
    begins = [period.begin for period in one.live_periods]
    live = [
        Markup("live from {}").format(format_time(begin)) if begin else "live at first"
        for begin in begins
    ]
    facts = filter(None, [made, score, *live, "answers now" if one.is_live or one.live_in else ""])
    return Markup("{}: {}.").format(one.name, Markup(", ").join(facts))


@routes.add("GET /dashboard/personas/{persona_id}/versions")
async def get_versions_page(request: web.Request) -> web.Response:
    """Page of every version and the current rollouts."""
    found = require_persona_in_path(request)
    now = time.time()
    timelines = version_timelines(found.services, found.id)
    jobs = [
        (one.version, found.services.store.jobs.get(one.made.job_id))
        for one in timelines
        if one.made
    ]
    return render_page(
        request,
        "personas/versions.html",
        title=f"{found.persona.name}: versions",
        tab="versions",
        found=found,
        standing=persona_status(found.services, found.id),
        own=live_in_servers(found.services, found.id),
        timelines=timelines,
        drawing=timeline_chart(found.persona.name, timelines, now),
        score_text=score_text,
        before=_previous_version(found),
        rollouts=_rollout_rows(found, now),
        behind=found.services.request_builder.incompatible_versions,
        copies={version: job.dialogue for version, job in jobs if job and job.dialogue},
        dialogues=servable_dialogue_adapters(found.services.request_builder),
        importing=found.services.data_jobs.latest("import", found.id),
        may_fetch=found.services.fetch_adapters != "off",
    )


@routes.add("POST /dashboard/personas/{persona_id}/versions")
async def post_dialogue_version(request: web.Request) -> web.Response:
    """Install a dialogue adapter as a version, then ask whether to promote it."""
    found = require_persona_in_path(request)
    name = (await read_form(request)).get("dialogue", "")
    with errors_as_problems("conflict"):
        version = await found.install_dialogue(name)
    return redirect_to(
        request, f"{found.page}/versions/{version}/promote", f"dialogue/{name} is {version} now."
    )


@routes.add("POST /dashboard/personas/{persona_id}/versions/import")
async def post_import(request: web.Request) -> web.Response:
    """Start to import an adapter from a hub or a zip; the page of the versions shows how far it
    is.
    """
    found = require_persona_in_path(request)
    scratch = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="understudy-import-")
    try:
        source = await _read_import_form(request, found.services, Path(scratch.name))

        async def work(job: DataJob) -> dict[str, object]:
            version, notes = await found.import_adapter(source, job.say)
            return {"version": version, "notes": [note.replace("**", "") for note in notes]}

        with errors_as_problems("conflict"):
            jobs = found.services.data_jobs
            jobs.start_work(found.services.home, "import", found.id, work, on_end=scratch.cleanup)
    except BaseException:
        scratch.cleanup()
        raise
    return redirect_to(request, f"{found.page}/versions")


async def _read_import_form(request: web.Request, services: Services, folder: Path) -> str:
    """Read the name of a hub's repository, or stream a zip into the folder; returns it, or the
    zip's path.
    """
    name = ""
    files = list[Path]()

    async def read_part(part: BodyPartReader) -> None:
        nonlocal name
        if part.name != "file":
            name = (
                (await read_form_part(part, MAX_SOURCE_BYTES))
                .decode("utf-8", errors="replace")
                .strip()
            )
        elif part.filename:
            place = folder / last_part(part.filename, "adapter.zip")
            if place.suffix.lower() != ".zip":
                raise Problem(
                    "wrong-kind", f"{place.name} is no zip.", "Pack the adapter's folder as a zip."
                )
            read = partial(part.read_chunk, FORM_CHUNK_BYTES)
            most = services.max_upload_bytes
            files.append(
                (await receive_file(read, place, None, replace=False, most_bytes=most)).path
            )

    await read_multipart(request, read_part)
    if bool(name) == bool(files):
        what = "There are two adapters." if name else "There is nothing to import."
        raise Problem("invalid-request", what, "Give a zip, or a hub's owner/name.")
    if name:
        require_hub_name(services, name)
    return name or str(files[0])


@routes.add(f"GET {PROMOTE_PATH}")
async def confirm_promote(request: web.Request) -> web.Response:
    """Page to confirm a promotion, with the gate's verdict."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    objections = await found.services.versions.objections(found.id, made.version, ALL_GUILDS)
    live = found.services.store.versions.live(found.id, ALL_GUILDS)
    return render_page(
        request,
        "personas/promote.html",
        title=f"Promote {made.version} of {found.persona.name}",
        found=found,
        made=made,
        live=version_label(live),
        is_live=live == made.version,
        own=live_in_servers(found.services, found.id),
        verdict=made.scorecard.verdict,
        objections=objections,
        reasons=objections.reasons if objections else made.scorecard.reasons,
        advice=made.scorecard.advice,
        score=score_text(made),
        action=f"{found.page}/versions/{made.version}/promote",
        back=f"{found.page}/versions",
    )


@routes.add(f"POST {PROMOTE_PATH}")
async def post_promote_page(request: web.Request) -> web.Response:
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    anyway = (await read_form(request)).get("anyway", "") == "yes"
    with errors_as_problems("conflict"):
        result = await found.services.versions.promote(
            found.id, made.version, OPERATOR_ORIGIN, anyway=anyway
        )
    outcome = "is live from the next reply on." if result.is_new else "is live already."
    return redirect_to(
        request, f"{found.page}/versions", f"{made.version} of {found.persona.name} {outcome}"
    )


@routes.add(f"GET {REMOVE_PATH}")
async def confirm_remove_version(request: web.Request) -> web.Response:
    """Page to confirm that a version is deleted. Raises `Problem` if it is in use."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    found.require_removable(made)
    return render_page(
        request,
        "personas/remove_version.html",
        title=f"Delete {made.version} of {found.persona.name}",
        made=made,
        score=score_text(made),
        back=f"{found.page}/versions",
    )


@routes.add(f"POST {REMOVE_PATH}")
async def post_remove_version(request: web.Request) -> web.Response:
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    await found.remove_version(made)
    return redirect_to(
        request, f"{found.page}/versions", f"{made.version} of {found.persona.name} is deleted."
    )


@routes.add("GET /dashboard/personas/{persona_id}/rollback")
async def confirm_rollback(request: web.Request) -> web.Response:
    """Page to confirm a rollback. Raises `Problem` if there is no earlier version."""
    found = require_persona_in_path(request)
    before = _previous_version(found)
    if before is None:
        raise Problem(
            "conflict",
            f"{found.persona.name} has no earlier version to roll back to.",
            "Promote one instead.",
        )
    return render_page(
        request,
        "personas/rollback.html",
        title=f"Roll {found.persona.name} back",
        live=version_label(found.services.store.versions.live(found.id, ALL_GUILDS)),
        before=before,
        own=live_in_servers(found.services, found.id),
        back=f"{found.page}/versions",
    )


@routes.add("POST /dashboard/personas/{persona_id}/rollback")
async def post_rollback_page(request: web.Request) -> web.Response:
    found = require_persona_in_path(request)
    with errors_as_problems("conflict"):
        result = found.services.versions.roll_back(found.persona, OPERATOR_ORIGIN)
    label = version_label(result.live)
    message = (
        f"{label[0].upper()}{label[1:]} answers for {found.persona.name} from the next reply on."
    )
    return redirect_to(request, f"{found.page}/versions", message)


def _previous_version(found: OwnedPersona) -> str | None:
    """Label of the version that a rollback would restore; None if there is none."""
    try:
        return version_label(found.services.store.versions.before(found.id))
    except RequestError:
        return None


def _rollout_rows(found: OwnedPersona, now: float) -> list[dict[str, object]]:
    """The current rollouts, and the promoted version while it is monitored, with members'
    reactions.
    """
    rows = []
    for rollout in found.services.store.rollouts.running(found.id, now):
        comparison = compare_rollout(found.services.store, rollout)
        server = guild_name(found.services, rollout.guild_id) if rollout.guild_id else "all servers"
        tallies = {
            "new_tally": tally_text(comparison.new),
            "old_tally": tally_text(comparison.before),
        }
        rows.append(
            {
                "rollout": rollout,
                "server": server,
                "before": version_label(rollout.before),
                **tallies,
            }
        )
    return rows
