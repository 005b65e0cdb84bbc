"""`/dashboard/cards/compare`: blind comparisons of two replies, by the rules of `/finetune compare`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from aiohttp import web

from bot.chat.streaming_reply import remove_links
from bot.services import Services
from bot.store import BASE_MODEL_NAME, BlindComparison, JudgementCounts, VoteChoice
from bot.versions.blind_test import judgement_text
from bot.versions.blind_test.assignment import Contest, version_labels
from bot.versions.blind_test.judgement import BlindTestJudgement, judge_votes
from bot.versions.comparison_context import record_vote
from bot.web.app_context import Routes, get_services
from bot.web.pages.scorecards.scorecard_pages import SCORECARDS_PATH
from bot.web.problems import Problem
from bot.web.request_body import read_form
from bot.web.templating import redirect_to, render_page
from personas.errors import RequestError
from personas.schemas.chat import Persona

COMPARE_PATH = f"{SCORECARDS_PATH}/compare"
OPERATOR_USER_ID = 0
VOTES: tuple[VoteChoice, ...] = get_args(VoteChoice)
routes = Routes()


@dataclass(frozen=True)
class VoteSummary:
    """Members' votes on two versions, for a page."""

    judgement: BlindTestJudgement
    counts: JudgementCounts
    one: str
    other: str
    strength: str
    ruling: str
    missing: str
    others: list[tuple[str, str]]


@routes.add(f"GET {COMPARE_PATH}")
async def get_comparison_form(request: web.Request) -> web.Response:
    """Page with the versions to compare, the votes so far, and a comparison for the operator to judge."""
    services = get_services(request)
    persona = _find_persona(services, request.query.get("persona"))
    if persona is None:
        return render_page(
            request, "cards/compare.html", title="Blind comparison", personas=_all_personas(services),
            persona=None, names=[], contest=None, why_not="", shown=None, texts=(), standing=None,
        )  # fmt: skip
    contest, why_not = _requested_contest(services, persona, request)
    shown = _open_comparison(services, contest) if contest else None
    if shown:
        services.store.comparisons.mark_shown_again(shown.seq, time.time())
    return render_page(
        request,
        "cards/compare.html",
        title=f"Blind comparison: {persona.name}",
        personas=_all_personas(services),
        persona=persona,
        names=services.blind_tests.version_names(persona),
        contest=contest,
        why_not=why_not,
        shown=shown,
        texts=(remove_links(shown.text_a), remove_links(shown.text_b)) if shown else (),
        standing=await _vote_summary(services, contest) if contest else None,
    )


@routes.add(f"POST {COMPARE_PATH}")
async def post_comparison(request: web.Request) -> web.Response:
    """Generate two replies, which takes some seconds, and show them."""
    services, sent = get_services(request), await read_form(request)
    persona = _find_persona(services, sent.get("persona"))
    if persona is None:
        raise Problem("invalid-request", "A persona has to be chosen.")
    contest = services.blind_tests.contest(persona, sent.get("version") or None, sent.get("against") or None)
    await services.blind_tests.assign(contest, OPERATOR_USER_ID, _guild_id(services, persona))
    return redirect_to(request, _contest_path(contest))


@routes.add(f"POST {COMPARE_PATH}/vote")
async def post_vote(request: web.Request) -> web.Response:
    """Store the operator's vote, which is final, and reveal the versions."""
    services, sent = get_services(request), await read_form(request)
    one, choice = _require_comparison(services, sent.get("comparison", "")), sent.get("choice", "")
    if choice not in VOTES:
        raise Problem("invalid-request", "No choice was made.", "Choose A, B, tie or both bad.")
    now = time.time()
    taken = services.store.comparisons.vote(one.seq, OPERATOR_USER_ID, choice, now)
    if taken:
        await record_vote(services.home, services.store, services.personas, one)
    elif one.has_expired(now):
        said = "These two had waited for a day: the vote does not count. Ask for another."
        return redirect_to(request, f"{COMPARE_PATH}?{urlencode({'persona': one.persona_id})}", said)
    return redirect_to(
        request, f"{COMPARE_PATH}/{one.seq}", "" if taken else "You had voted on these two; that vote stays."
    )


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
    contest = _named_contest(persona, *sorted(one.versions, key=_version_number, reverse=True))
    return render_page(
        request,
        "cards/revealed.html",
        title=f"Blind comparison {one.seq}: {persona.name}",
        persona=persona,
        one=one,
        texts=(remove_links(one.text_a), remove_links(one.text_b)),
        makers=version_labels(one),
        vote=judgement_text.CHOICE_LABELS[one.choice],
        contest=contest,
        again=_contest_path(contest),
        standing=await _vote_summary(services, contest),
    )


async def _vote_summary(services: Services, contest: Contest) -> VoteSummary:
    """All votes for the persona, from every server."""
    votes = services.store.comparisons.voted(contest.persona.id)
    found = await asyncio.to_thread(judge_votes, votes, *contest.names, time.time())
    counts = services.store.comparisons.judgement_counts(contest.persona.id, contest.version, contest.against)
    one, other = (judgement_text.display_name(name) for name in contest.names)
    return VoteSummary(
        judgement=found,
        counts=counts,
        one=one,
        other=other,
        strength=judgement_text.strength_text(found.strength) if found.strength else "",
        ruling=judgement_text.ruling_text(found).replace("**", ""),
        missing=judgement_text.required_votes_text(found),
        others=[(judgement_text.display_name(it.version), judgement_text.strength_text(it)) for it in found.others],
    )


def _requested_contest(services: Services, persona: Persona, request: web.Request) -> tuple[Contest | None, str]:
    """Parse the requested comparison, or say why it is not possible."""
    try:
        return services.blind_tests.contest(
            persona, request.query.get("version") or None, request.query.get("against") or None
        ), ""
    except RequestError as error:
        return None, str(error)


def _open_comparison(services: Services, contest: Contest) -> BlindComparison | None:
    versions = (contest.version, contest.against)
    guild_id = _guild_id(services, contest.persona)
    return services.store.comparisons.find_open(OPERATOR_USER_ID, guild_id, contest.persona.id, versions, time.time())


def _require_comparison(services: Services, number: str) -> BlindComparison:
    one = services.store.comparisons.get(int(number)) if number.isascii() and number.isdecimal() else None
    if one is None or one.user_id != OPERATOR_USER_ID:
        raise Problem("not-found", "This comparison is not yours, or it is no longer kept.", "Ask for another.")
    return one


def _named_contest(persona: Persona, version: str, against: str) -> Contest:
    named = (None if name == BASE_MODEL_NAME else name for name in (version, against))
    return Contest(persona, *named)


def _version_number(name: str) -> int:
    return 0 if name == BASE_MODEL_NAME else int(name.removeprefix("v"))


def _all_personas(services: Services) -> list[Persona]:
    return [persona for _, persona in services.personas.everybody()]


def _find_persona(services: Services, persona_id: str | None) -> Persona | None:
    found = services.personas.whose(persona_id) if persona_id else None
    if persona_id and found is None:
        raise Problem("not-found", f"There is no persona {persona_id!r}.")
    return found[1] if found else None


def _guild_id(services: Services, persona: Persona) -> int:
    found = services.personas.whose(persona.id)
    return found[0] if found else 0


def _contest_path(contest: Contest) -> str:
    version, against = contest.names
    asked = {"persona": contest.persona.id, "version": version, "against": against}
    return f"{COMPARE_PATH}?{urlencode(asked)}#replies"
