"""Blind comparisons: two complete replies, their makers hidden until the vote, by the rules of `/finetune compare`.

The operator is one voter among the members (user 0). A guild's own persona is compared for that guild, any other for
guild 0.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from aiohttp import web

from bot.comparing import note_vote
from bot.house import House
from bot.judging.judgement import Judgement, judge
from bot.judging.pairs import Contest, contest_of, version_names, versions_shown
from bot.judging.showing import shown_comparison
from bot.judging.words import CHOICES, missing_words, ruling_words, shown_name, strength_words
from bot.replies import clean
from bot.store import BASE, Choice, Comparison, JudgementCounts
from bot.web.bodies import form_of
from bot.web.cards.reading import CARDS
from bot.web.frame import back_to, page
from bot.web.here import Route, house_of
from bot.web.problems import Problem
from personas.contracts import Persona
from personas.errors import RequestError

COMPARE = f"{CARDS}/compare"
OPERATOR = 0
VOTES: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True)
class Standing:
    """What members' votes say of two versions, for a page."""

    judgement: Judgement
    counts: JudgementCounts
    one: str
    other: str
    strength: str
    ruling: str
    missing: str
    others: list[tuple[str, str]]


async def choose(request: web.Request) -> web.Response:
    """Whom to compare, what the votes say, and a comparison that waits for the operator's vote."""
    house = house_of(request)
    persona = _persona(house, request.query.get("persona"))
    if persona is None:
        return page(
            request, "cards/compare.html", title="Blind comparison", section="cards", personas=_everybody(house),
            persona=None, names=[], contest=None, why_not="", shown=None, texts=(), standing=None,
        )  # fmt: skip
    contest, why_not = _contest(house, persona, request)
    shown = _waiting(house, contest) if contest else None
    if shown:
        house.store.comparisons.shown_again(shown.seq, time.time())
    return page(
        request,
        "cards/compare.html",
        title=f"Blind comparison: {persona.name}",
        section="cards",
        personas=_everybody(house),
        persona=persona,
        names=version_names(house, persona),
        contest=contest,
        why_not=why_not,
        shown=shown,
        texts=(clean(shown.text_a), clean(shown.text_b)) if shown else (),
        standing=await _standing(house, contest) if contest else None,
    )


async def make(request: web.Request) -> web.Response:
    """Have two replies written, which takes some seconds, and show them."""
    house, sent = house_of(request), await form_of(request)
    persona = _persona(house, sent.get("persona"))
    if persona is None:
        raise Problem("invalid-request", "A persona has to be chosen.")
    contest = contest_of(house, persona, sent.get("version") or None, sent.get("against") or None)
    await shown_comparison(house, contest, OPERATOR, _guild(house, persona))
    return back_to(request, _path(contest))


async def vote(request: web.Request) -> web.Response:
    """Take the operator's vote, which stays as it is, and tell who wrote which."""
    house, sent = house_of(request), await form_of(request)
    one, choice = _comparison(house, sent.get("comparison", "")), sent.get("choice", "")
    if choice not in VOTES:
        raise Problem("invalid-request", "No choice was made.", "Choose A, B, tie or both bad.")
    now = time.time()
    taken = house.store.comparisons.vote(one.seq, OPERATOR, choice, now)
    if taken:
        await note_vote(house, one)
    elif one.has_expired(now):
        said = "These two had waited for a day: the vote does not count. Ask for another."
        return back_to(request, f"{COMPARE}?{urlencode({'persona': one.persona_id})}", said)
    return back_to(request, f"{COMPARE}/{one.seq}", "" if taken else "You had voted on these two; that vote stays.")


async def revealed(request: web.Request) -> web.Response:
    """A comparison that was voted on, with who wrote which."""
    house = house_of(request)
    one = _comparison(house, request.match_info["comparison"])
    if one.choice is None:
        raise Problem("conflict", "This comparison has not been voted on yet.", "Vote first, then it is told.")
    persona = _persona(house, one.persona_id)
    if persona is None:
        raise Problem("not-found", "The persona of this comparison is gone.")
    contest = _named_contest(persona, *sorted(one.versions, key=_number, reverse=True))
    return page(
        request,
        "cards/revealed.html",
        title=f"Blind comparison {one.seq}: {persona.name}",
        section="cards",
        persona=persona,
        one=one,
        texts=(clean(one.text_a), clean(one.text_b)),
        makers=versions_shown(one),
        vote=CHOICES[one.choice],
        contest=contest,
        again=_path(contest),
        standing=await _standing(house, contest),
    )


async def _standing(house: House, contest: Contest) -> Standing:
    """All votes for the persona, wherever they were given."""
    votes = house.store.comparisons.voted(contest.persona.id)
    found = await asyncio.to_thread(judge, votes, *contest.names, time.time())
    counts = house.store.comparisons.judgement_counts(contest.persona.id, contest.version, contest.against)
    one, other = (shown_name(name) for name in contest.names)
    return Standing(
        judgement=found,
        counts=counts,
        one=one,
        other=other,
        strength=strength_words(found.strength) if found.strength else "",
        ruling=ruling_words(found).replace("**", ""),
        missing=missing_words(found),
        others=[(shown_name(it.version), strength_words(it)) for it in found.others],
    )


def _contest(house: House, persona: Persona, request: web.Request) -> tuple[Contest | None, str]:
    """What is asked for, or why it cannot be compared."""
    try:
        return contest_of(
            house, persona, request.query.get("version") or None, request.query.get("against") or None
        ), ""
    except RequestError as error:
        return None, str(error)


def _waiting(house: House, contest: Contest) -> Comparison | None:
    versions = (contest.version, contest.against)
    guild_id = _guild(house, contest.persona)
    return house.store.comparisons.open_of(OPERATOR, guild_id, contest.persona.id, versions, time.time())


def _comparison(house: House, number: str) -> Comparison:
    one = house.store.comparisons.get(int(number)) if number.isascii() and number.isdecimal() else None
    if one is None or one.user_id != OPERATOR:
        raise Problem("not-found", "This comparison is not yours, or it is no longer kept.", "Ask for another.")
    return one


def _named_contest(persona: Persona, version: str, against: str) -> Contest:
    named = (None if name == BASE else name for name in (version, against))
    return Contest(persona, *named)


def _number(name: str) -> int:
    return 0 if name == BASE else int(name.removeprefix("v"))


def _everybody(house: House) -> list[Persona]:
    return [persona for _, persona in house.conversations.personas.everybody()]


def _persona(house: House, persona_id: str | None) -> Persona | None:
    found = house.conversations.personas.whose(persona_id) if persona_id else None
    if persona_id and found is None:
        raise Problem("not-found", f"There is no persona {persona_id!r}.")
    return found[1] if found else None


def _guild(house: House, persona: Persona) -> int:
    found = house.conversations.personas.whose(persona.id)
    return found[0] if found else 0


def _path(contest: Contest) -> str:
    version, against = contest.names
    asked = {"persona": contest.persona.id, "version": version, "against": against}
    return f"{COMPARE}?{urlencode(asked)}#replies"


ROUTES: tuple[Route, ...] = (
    ("GET", COMPARE, choose),
    ("POST", COMPARE, make),
    ("POST", f"{COMPARE}/vote", vote),
    ("GET", f"{COMPARE}/{{comparison:[0-9]+}}", revealed),
)
