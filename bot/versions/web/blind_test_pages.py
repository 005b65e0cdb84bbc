"""`/dashboard/cards/compare`: blind comparisons of two replies, by the rules of `/finetune
compare`.
"""

from typing import Any, get_args
from urllib.parse import urlencode

from aiohttp import web

from bot.chat.model_names import version_label
from bot.chat.reply_text import remove_links
from bot.personas.web.lookup import persona_choices
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems, read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import BlindComparison, VoteChoice
from bot.versions.blind_test.actions import Contest
from bot.versions.blind_test.judgement_text import CHOICE_LABELS, ruling_text
from bot.versions.web.scorecard_pages import SCORECARDS_PATH
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
    find = request.query.get("find", "")
    persona = _find_persona(services, request.query.get("persona"))
    page: dict[str, Any] = {
        "title": "Blind comparison",
        "persona": persona,
        "names": [],
        "contest": None,
        "why_not": "",
        "shown": None,
        "texts": (),
        "standing": None,
        **persona_choices(services, find, persona.id if persona else ""),
    }
    if persona:
        page["title"] = f"Blind comparison: {persona.name}"
        page["names"] = services.blind_tests.version_names(persona)
        contest, page["why_not"] = _requested_contest(services, persona, request)
        if contest:
            page["contest"] = contest
            page["standing"] = await _vote_summary(services, contest)
            guild_id = _guild_id(services, persona)
            shown = services.blind_tests.find_open(contest, OPERATOR_ORIGIN.user_id, guild_id)
            page["shown"] = shown
            if shown:
                page["texts"] = (remove_links(shown.text_a), remove_links(shown.text_b))
    return render_page(request, "cards/compare.html", **page)


@routes.add(f"POST {COMPARE_PATH}")
async def post_comparison(request: web.Request) -> web.Response:
    """Generate two replies, which takes some seconds, and show them."""
    services = get_services(request)
    form = await read_form(request)
    persona = _find_persona(services, form.get("persona"))
    if persona is None:
        raise Problem("invalid-request", "A persona has to be chosen.")
    with errors_as_problems("refused"):
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
    comparison = _require_comparison(services, form.get("comparison", ""))
    choice = form.get("choice", "")
    if choice not in VOTES:
        raise Problem(
            "invalid-request",
            "No choice was made.",
            "Choose A, B, tie or both bad.",
        )
    result = services.blind_tests.vote(comparison.seq, OPERATOR_ORIGIN.user_id, choice)
    await services.blind_tests.record_feedback(result)
    if result.outcome == "late":
        message = "These two had waited for a day: the vote does not count. Ask for another."
        query = urlencode({"persona": comparison.persona_id})
        return redirect_to(request, f"{COMPARE_PATH}?{query}", message)
    message = ""
    if result.outcome == "repeated":
        message = "You had voted on these two; that vote stays."
    return redirect_to(request, f"{COMPARE_PATH}/{comparison.seq}", message)


@routes.add(f"GET {COMPARE_PATH}/{{comparison:[0-9]+}}")
async def get_revealed(request: web.Request) -> web.Response:
    """Page of a comparison after the vote, with the versions revealed."""
    services = get_services(request)
    comparison = _require_comparison(services, request.match_info["comparison"])
    if comparison.choice is None:
        raise Problem(
            "conflict",
            "This comparison has not been voted on yet.",
            "Vote first.",
        )
    persona = _find_persona(services, comparison.persona_id)
    if persona is None:
        raise Problem("not-found", "The persona of this comparison is gone.")
    contest = Contest.of(persona, comparison)
    return render_page(
        request,
        "cards/revealed.html",
        title=f"Blind comparison {comparison.seq}: {persona.name}",
        persona=persona,
        comparison=comparison,
        texts=(remove_links(comparison.text_a), remove_links(comparison.text_b)),
        makers=tuple(version_label(name) for name in comparison.versions),
        vote=CHOICE_LABELS[comparison.choice],
        contest=contest,
        again=_contest_path(contest),
        standing=await _vote_summary(services, contest),
    )


async def _vote_summary(services: Services, contest: Contest) -> dict[str, Any]:
    """Members' votes in all servers as template variables."""
    judgement, counts = await services.blind_tests.judge(contest)
    one, other = map(version_label, contest.names)
    return {
        "judgement": judgement,
        "counts": counts,
        "one": one,
        "other": other,
        "ruling": ruling_text(judgement).replace("**", ""),
    }


def _requested_contest(
    services: Services, persona: Persona, request: web.Request
) -> tuple[Contest | None, str]:
    """Parse the requested comparison, or say why it is not possible."""
    version, against = (request.query.get(name) or None for name in ("version", "against"))
    try:
        with errors_as_problems("conflict"):
            return services.blind_tests.contest(persona, version, against), ""
    except Problem as problem:
        return None, problem.text


def _require_comparison(services: Services, number: str) -> BlindComparison:
    seq = 0
    if number.isascii() and number.isdecimal():
        seq = int(number)
    with errors_as_problems("not-found"):
        return services.blind_tests.get(seq, OPERATOR_ORIGIN.user_id)


def _find_persona(services: Services, persona_id: str | None) -> Persona | None:
    owned = None
    if persona_id:
        owned = services.personas.find_owner(persona_id)
    if persona_id and owned is None:
        raise Problem("not-found", f"There is no persona {persona_id!r}.")
    return owned[1] if owned else None


def _guild_id(services: Services, persona: Persona) -> int:
    owned = services.personas.find_owner(persona.id)
    return owned[0] if owned else 0


def _contest_path(contest: Contest) -> str:
    version, against = contest.names
    query = urlencode({"persona": contest.persona.id, "version": version, "against": against})
    return f"{COMPARE_PATH}?{query}#replies"
