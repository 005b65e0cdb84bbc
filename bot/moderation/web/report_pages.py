"""`/dashboard/servers/ID/reports`: the replies that members have reported, as `/moderation reports`."""

from dataclasses import dataclass

from aiohttp import web

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import LIST_ADVICE, SERVER, channel_name, server_path
from bot.platform.localisation import gettext_lazy, ngettext_lazy
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems, read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.reports.actions import REASONS, REPORT_DAYS, reply_link
from bot.reports.store import Report
from bot.schedules.web.ids import read_id

REPORTS = f"{SERVER}/reports"
MAX_LISTED = 50
"""Reported replies on the page."""
routes = MemberRoutes()


@dataclass(frozen=True)
class ReportedReply:
    """A reported reply: its first report, who wrote it, and why it was reported how often, with the
    notes of those who did, which may quote it. `text` is what it says; where that is not shown,
    `why_not` says why.
    """

    first: Report
    persona: str
    version: str
    channel: str
    link: str
    reasons: list[tuple[str, int]]
    notes: list[str]
    text: str = ""
    why_not: str = ""


@routes.add(f"GET {REPORTS}")
async def get_reports(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of the replies that members have reported."""
    access.require()
    return _render(access, request)


@routes.add(f"POST {REPORTS}/done")
async def post_done(access: GuildAccess, request: web.Request) -> web.Response:
    """Delete the reports of a reply that a moderator has dealt with."""
    access.require()
    seq = read_id((await read_form(request)).get("number", ""), LIST_ADVICE)
    try:
        with errors_as_problems("not-found"):
            count = access.services.reports.close(access.guild_id, seq, access.member.id)
    except Problem as problem:
        return _render(access, request, problem=problem)
    message = ngettext_lazy(
        "Dealt with: {count} report of that reply.",
        "Dealt with: {count} reports of that reply.",
        count,
    )
    return redirect_to(request, f"{server_path(access)}/reports", message)


def _render(
    access: GuildAccess, request: web.Request, *, problem: Problem | None = None
) -> web.Response:
    reports = access.services.store.reports
    latest = reports.latest(access.guild_id, MAX_LISTED)
    return render_page(
        request,
        "servers/reports.html",
        title=gettext_lazy("Reported replies in {server}", server=access.guild.name),
        problem=problem,
        access=access,
        replies=[_describe(access, first) for first in reversed(latest)],
        earlier=reports.count_replies(access.guild_id) - len(latest),
        days=REPORT_DAYS,
    )


def _describe(access: GuildAccess, first: Report) -> ReportedReply:
    services = access.services
    text = services.reports.stored_text(first)
    why_not = _why_not_shown(access, first)
    notes = [] if why_not else services.store.reports.notes(first.event_id)
    if not why_not and text is None:
        why_not = gettext_lazy("Nothing of it is stored any more.")
    reasons = services.store.reports.reasons(first.event_id)
    return ReportedReply(
        first=first,
        persona=services.personas.name_of(first.persona_id, access.guild_id),
        version=first.version or gettext_lazy("base model"),
        channel=channel_name(access, first.channel_id),
        link=reply_link(first),
        reasons=[(REASONS.get(reason, reason), count) for reason, count in reasons.items()],
        notes=notes,
        text="" if why_not else text or "",
        why_not=why_not,
    )


def _why_not_shown(access: GuildAccess, first: Report) -> str:
    """Say why the member is not to read a reply here; empty where they may."""
    channel = access.guild.get_channel_or_thread(first.channel_id)
    if channel is None:
        return gettext_lazy(
            "Its channel is archived or deleted: a message in a thread opens it again."
        )
    if not access.sees(channel):
        return gettext_lazy("You do not see its channel on Discord.")
    persona = access.services.personas.get(first.persona_id, access.guild_id)
    age = access.services.reply_service.rules.age
    if age.restricts_reply(persona, channel, guild_id=access.guild_id):
        return gettext_lazy("It is for age-restricted channels, and is shown on Discord alone.")
    return ""
