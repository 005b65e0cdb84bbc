"""`/dashboard/servers/ID/personas/ID/compare`: blind tests of two versions, by the rules of
`/finetune compare` and `/finetune judgement`.
"""

from typing import get_args
from urllib.parse import urlencode

import aiohttp
import discord
from aiohttp import web

from bot.chat.model_names import version_label
from bot.chat.places import ChannelRef, channel_ref
from bot.chat.reply_text import remove_links
from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import (
    CHOICE_ADVICE,
    LIST_ADVICE,
    PERSONA,
    channel_choices,
    chosen_channel,
    persona_in_path,
    persona_path,
)
from bot.moderation.web.score_card_pages import AGE_TEXT
from bot.platform.localisation import gettext_lazy, language_of
from bot.platform.messages import without_escapes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems, read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.schedules.web.ids import read_id
from bot.store import BlindComparison, VoteChoice
from bot.versions.blind_test.actions import Contest
from bot.versions.blind_test.discord import invite_members
from bot.versions.blind_test.judgement_text import CHOICE_LABELS
from bot.versions.web.blind_test_pages import vote_summary
from personas.errors import UnderstudyError
from personas.schemas.chat import Persona

COMPARE = f"{PERSONA}/compare"
VOTES: tuple[VoteChoice, ...] = get_args(VoteChoice)
routes = MemberRoutes()


@routes.add(f"GET {COMPARE}")
async def get_blind_test(access: GuildAccess, request: web.Request) -> web.Response:
    """Page with the versions to compare, the server's votes so far, and two replies to judge."""
    persona = _persona(access, request)
    wanted = request.query.get("version", ""), request.query.get("against", "")
    try:
        with errors_as_problems("conflict"):
            contest = _contest(access, persona, *wanted)
    except Problem as problem:
        return await _render(access, request, persona, why_not=problem.text)
    return await _render(access, request, persona, contest=contest)


@routes.add(f"POST {COMPARE}")
async def post_comparison(access: GuildAccess, request: web.Request) -> web.Response:
    """Generate two replies, which takes some seconds, and show them."""
    persona = _persona(access, request)
    contest = await _contest_in_form(access, request, persona)
    try:
        _require_may_talk(access, persona)
        await access.services.blind_tests.assign(contest, access.member.id, access.guild_id)
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return await _render(access, request, persona, contest=contest, problem=problem)
    return redirect_to(request, f"{_contest_path(access, contest)}#replies")


@routes.add(f"POST {COMPARE}/invite")
async def post_invitation(access: GuildAccess, request: web.Request) -> web.Response:
    """Invite the members of a channel to compare the two versions."""
    persona = _persona(access, request)
    contest = await _contest_in_form(access, request, persona)
    try:
        channel = chosen_channel(access, (await read_form(request)).get("channel", ""))
        if channel is None:
            raise Problem("invalid-request", gettext_lazy("No channel is chosen."), CHOICE_ADVICE)
        rules = access.services.reply_service.rules
        rules.require_unmuted(persona, channel_ref(channel))
        await invite_members(channel, contest, language_of(access.guild.preferred_locale))
    except UnderstudyError as error:
        problem = Problem("conflict", without_escapes(error.message), error.advice)
        return await _render(access, request, persona, contest=contest, problem=problem)
    except (discord.HTTPException, aiohttp.ClientError, OSError):
        problem = Problem(
            "conflict",
            gettext_lazy("Discord does not let the bot write there."),
            gettext_lazy("Choose another channel."),
        )
        return await _render(access, request, persona, contest=contest, problem=problem)
    message = gettext_lazy("The members of #{channel} are invited.", channel=channel.name)
    return redirect_to(request, _contest_path(access, contest), message)


@routes.add(f"POST {COMPARE}/vote")
async def post_vote(access: GuildAccess, request: web.Request) -> web.Response:
    """Store the member's vote, which is final, and reveal the versions."""
    persona = _persona(access, request)
    form = await read_form(request)
    comparison = _comparison(access, persona, form.get("comparison", ""))
    choice = form.get("choice", "")
    if choice not in VOTES:
        raise Problem(
            "invalid-request",
            gettext_lazy("No choice was made."),
            gettext_lazy("Choose A, B, tie or both bad."),
        )
    with errors_as_problems("not-allowed"):
        _require_may_talk(access, persona)
    blind_tests = access.services.blind_tests
    result = blind_tests.vote(comparison.seq, access.member.id, choice)
    await blind_tests.record_feedback(result)
    page = f"{persona_path(access, persona)}/compare"
    message: str = ""
    if result.outcome == "late":
        message = gettext_lazy(
            "These two had waited for a day: the vote does not count. Ask for another."
        )
        return redirect_to(request, page, message)
    if result.outcome == "repeated":
        message = gettext_lazy("You had voted on these two; that vote stays.")
    return redirect_to(request, f"{page}/{comparison.seq}", message)


@routes.add(f"GET {COMPARE}/{{comparison:[0-9]+}}")
async def get_revealed(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of a comparison after the member's vote, with the versions revealed."""
    persona = _persona(access, request)
    comparison = _comparison(access, persona, request.match_info["comparison"])
    if comparison.choice is None:
        raise Problem(
            "conflict",
            gettext_lazy("You have not voted on these two yet."),
            gettext_lazy("Vote first."),
        )
    return await _render(
        access,
        request,
        persona,
        contest=Contest.of(persona, comparison),
        revealed=comparison,
    )


def _persona(access: GuildAccess, request: web.Request) -> Persona:
    """Return the persona of the address for a member who may promote. Raises `Problem`; the replies
    of an age-restricted one are shown in channels alone that Discord marks.
    """
    access.require("promote")
    persona = persona_in_path(access, request)
    if access.services.reply_service.rules.age.applies(persona, access.guild_id):
        raise Problem("not-allowed", AGE_TEXT, gettext_lazy("`/finetune compare` works there."))
    return persona


def _require_may_talk(access: GuildAccess, persona: Persona) -> None:
    """Raise `RefusedError` for a member whom the persona does not answer, as on Discord."""
    place = ChannelRef(access.guild_id, channel_id=0)
    access.services.reply_service.rules.require_may_talk([persona], place, access.member)


def _contest(access: GuildAccess, persona: Persona, version: str, against: str) -> Contest:
    return access.services.blind_tests.contest(
        persona, version or None, against or None, guild_id=access.guild_id
    )


async def _contest_in_form(access: GuildAccess, request: web.Request, persona: Persona) -> Contest:
    form = await read_form(request)
    with errors_as_problems("conflict"):
        return _contest(access, persona, form.get("version", ""), form.get("against", ""))


def _comparison(access: GuildAccess, persona: Persona, number: str) -> BlindComparison:
    """Return the member's comparison of a persona in the server. Raises `Problem`."""
    seq = read_id(number, LIST_ADVICE)
    with errors_as_problems("not-found"):
        comparison = access.services.blind_tests.get(seq, access.member.id)
    if comparison.guild_id != access.guild_id or comparison.persona_id != persona.id:
        raise Problem(
            "not-found",
            gettext_lazy("There is no such comparison here."),
            gettext_lazy("Ask for one."),
        )
    return comparison


def _contest_path(access: GuildAccess, contest: Contest) -> str:
    version, against = contest.names
    query = urlencode({"version": version, "against": against})
    return f"{persona_path(access, contest.persona)}/compare?{query}"


async def _render(
    access: GuildAccess,
    request: web.Request,
    persona: Persona,
    *,
    contest: Contest | None = None,
    revealed: BlindComparison | None = None,
    why_not: str = "",
    problem: Problem | None = None,
) -> web.Response:
    services = access.services
    shown = revealed
    standing = None
    if contest:
        standing = await vote_summary(services, contest, access.guild_id)
    if contest and revealed is None:
        shown = services.blind_tests.find_open(contest, access.member.id, access.guild_id)
    texts = (remove_links(shown.text_a), remove_links(shown.text_b)) if shown else ()
    return render_page(
        request,
        "servers/compare.html",
        title=gettext_lazy("{name}: blind test", name=persona.name),
        problem=problem,
        access=access,
        persona=persona,
        path=persona_path(access, persona),
        may_edit=access.is_moderator and access.owns(persona),
        names=services.blind_tests.version_names(persona, access.guild_id),
        contest=contest,
        why_not=why_not,
        shown=shown,
        texts=texts,
        revealed=revealed,
        makers=tuple(version_label(name) for name in revealed.versions) if revealed else (),
        vote=CHOICE_LABELS[revealed.choice] if revealed and revealed.choice else "",
        standing=standing,
        channels=channel_choices(access),
    )
