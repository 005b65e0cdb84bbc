"""`/dashboard/cards/compare`: blind comparisons of two replies, by the rules of `/finetune
compare`.
"""

import asyncio
import time
from typing import Any, get_args
from urllib.parse import urlencode

from aiohttp import web

from bot.chat.model_names import version_label
from bot.chat.reply_text import remove_links
from bot.personas.web.lookup import persona_choices
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import BASE_MODEL_NAME, BlindComparison, VoteChoice
from bot.versions.blind_test.assignment import Contest
from bot.versions.blind_test.judgement import judge_votes
from bot.versions.blind_test.judgement_text import (
    CHOICE_LABELS,
    required_votes_text,
    ruling_text,
    strength_text,
)
from bot.versions.member_feedback import record_vote
from bot.versions.web.scorecard_pages import SCORECARDS_PATH
from personas.errors import RequestError
from personas.schemas.chat import Persona

COMPARE_PATH = f"{SCORECARDS_PATH}/compare"
VOTES: tuple[VoteChoice, ...] = get_args(VoteChoice)
routes = Routes()


@routes.add(f"GET {COMPARE_PATH}")
async def get_comparison_form(request: web.Request) -> web.Response:
    """Page with the versions to compare, the votes so far, and a comparison for the operator to
    judge.
    """
    services = get_services(request)
    persona = _find_persona(services, request.query.get("persona"))
    contest, why_not = _requested_contest(services, persona, request) if persona else (None, "")
    shown = _open_comparison(services, contest) if contest else None
    if shown:
        services.store.comparisons.mark_shown_again(shown.seq, time.time())
    return render_page(
        request,
        "cards/compare.html",
        title=f"Blind comparison: {persona.name}" if persona else "Blind comparison",
        **persona_choices(services, request.query.get("find", ""), persona.id if persona else ""),
        persona=persona,
        names=services.blind_tests.version_names(persona) if persona else [],
        contest=contest,
        why_not=why_not,
        shown=shown,
        texts=(remove_links(shown.text_a), remove_links(shown.text_b)) if shown else (),
        standing=await _vote_summary(services, contest) if contest else None,
    )


@routes.add(f"POST {COMPARE_PATH}")
async def post_comparison(request: web.Request) -> web.Response:
    """Generate two replies, which takes some seconds, and show them."""
    services = get_services(request)
    form = await read_form(request)
    persona = _find_persona(services, form.get("persona"))
    if persona is None:
        raise Problem("invalid-request", "A persona has to be chosen.")
    contest = services.blind_tests.contest(
        persona, form.get("version") or None, form.get("against") or None
    )
    await services.blind_tests.assign(
        contest, OPERATOR_ORIGIN.user_id, _guild_id(services, persona)
    )
    return redirect_to(request, _contest_path(contest))


@routes.add(f"POST {COMPARE_PATH}/vote")
async def post_vote(request: web.Request) -> web.Response:
    """Store the operator's vote, which is final, and reveal the versions."""
    services = get_services(request)
    form = await read_form(request)
    one = _require_comparison(services, form.get("comparison", ""))
    choice = form.get("choice", "")
    if choice not in VOTES:
        raise Problem("invalid-request", "No choice was made.", "Choose A, B, tie or both bad.")
    now = time.time()
    is_new = services.store.comparisons.vote(one.seq, OPERATOR_ORIGIN.user_id, choice, now)
    if is_new:
        await record_vote(services.home, services.store, services.personas, one)
    elif one.has_expired(now):
        message = "These two had waited for a day: the vote does not count. Ask for another."
        return redirect_to(
            request, f"{COMPARE_PATH}?{urlencode({'persona': one.persona_id})}", message
        )
    message = "" if is_new else "You had voted on these two; that vote stays."
    return redirect_to(request, f"{COMPARE_PATH}/{one.seq}", message)


@routes.add(f"GET {COMPARE_PATH}/{{comparison:[0-9]+}}")
async def get_revealed(request: web.Request) -> web.Response:
    """Page of a comparison after the vote, with the versions revealed."""
    services = get_services(request)
    one = _require_comparison(services, request.match_info["comparison"])
    if one.choice is None:
        raise Problem("conflict", "This comparison has not been voted on yet.", "Vote first.")
    persona = _find_persona(services, one.persona_id)
    if persona is None:
        raise Problem("not-found", "The persona of this comparison is gone.")
    names = sorted(one.versions, key=_version_number, reverse=True)
    contest = Contest(persona, *(None if name == BASE_MODEL_NAME else name for name in names))
    return render_page(
        request,
        "cards/revealed.html",
        title=f"Blind comparison {one.seq}: {persona.name}",
        persona=persona,
        one=one,
        texts=(remove_links(one.text_a), remove_links(one.text_b)),
        makers=tuple(map(version_label, one.versions)),
        vote=CHOICE_LABELS[one.choice],
        contest=contest,
        again=_contest_path(contest),
        standing=await _vote_summary(services, contest),
    )


async def _vote_summary(services: Services, contest: Contest) -> dict[str, Any]:
    """Members' votes from every server, as template variables."""
    comparisons = services.store.comparisons
    votes = comparisons.voted(contest.persona.id)
    judgement = await asyncio.to_thread(judge_votes, votes, *contest.names, time.time())
    one, other = (version_label(name) for name in contest.names)
    return {
        "judgement": judgement,
        "counts": comparisons.judgement_counts(
            contest.persona.id, contest.version, contest.against
        ),
        "one": one,
        "other": other,
        "strength": strength_text(judgement.strength) if judgement.strength else "",
        "ruling": ruling_text(judgement).replace("**", ""),
        "missing": required_votes_text(judgement),
        "others": [(version_label(it.version), strength_text(it)) for it in judgement.others],
    }


def _requested_contest(
    services: Services, persona: Persona, request: web.Request
) -> tuple[Contest | None, str]:
    """Parse the requested comparison, or say why it is not possible."""
    version, against = (request.query.get(name) or None for name in ("version", "against"))
    try:
        return services.blind_tests.contest(persona, version, against), ""
    except RequestError as error:
        return None, str(error)


def _open_comparison(services: Services, contest: Contest) -> BlindComparison | None:
    versions = (contest.version, contest.against)
    guild_id = _guild_id(services, contest.persona)
    return services.store.comparisons.find_open(
        OPERATOR_ORIGIN.user_id, guild_id, contest.persona.id, versions, time.time()
    )


def _require_comparison(services: Services, number: str) -> BlindComparison:
    one = (
        services.store.comparisons.get(int(number))
        if number.isascii() and number.isdecimal()
        else None
    )
    if one is None or one.user_id != OPERATOR_ORIGIN.user_id:
        raise Problem(
            "not-found",
            "This comparison is not yours, or it is no longer kept.",
            "Ask for another.",
        )
    return one


def _version_number(name: str) -> int:
    return 0 if name == BASE_MODEL_NAME else int(name.removeprefix("v"))


def _find_persona(services: Services, persona_id: str | None) -> Persona | None:
    found = services.personas.find_owner(persona_id) if persona_id else None
    if persona_id and found is None:
        raise Problem("not-found", f"There is no persona {persona_id!r}.")
    return found[1] if found else None


def _guild_id(services: Services, persona: Persona) -> int:
    found = services.personas.find_owner(persona.id)
    return found[0] if found else 0


def _contest_path(contest: Contest) -> str:
    version, against = contest.names
    query = urlencode({"persona": contest.persona.id, "version": version, "against": against})
    return f"{COMPARE_PATH}?{query}#replies"
