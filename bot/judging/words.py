"""Comparisons and judgements in words."""

from __future__ import annotations

import textwrap

from bot.judging.judgement import Judgement
from bot.judging.odd import OddMember
from bot.judging.pairs import Contest, versions_shown
from bot.judging.rule import ALIKE, BRIGADE, LEAST_MEMBERS, LEVEL, votes_needed
from bot.judging.strength import LEAST_MEMBERS as LEAST_FOR_INTERVAL
from bot.judging.strength import Strength, chance
from bot.replies import clean
from bot.store import BASE, Comparison, JudgementCounts
from personas.contracts import Persona

LONGEST = 700
"""Characters of a reply that are shown: with its prompt and another one it fits one message of 2,000."""
SHOWN_ODD = 6
DETECTABLE = (0.55, 0.6, 0.65, 0.7)
CHOICES = {"a": "A", "b": "B", "tie": "a tie", "bad": "both bad"}


def invitation(contest: Contest) -> str:
    """What members read above the button."""
    name = contest.persona.name
    return (
        f"**Which {name} is better?** Read two replies to one prompt and say which is more like {name}. Which version "
        "wrote which you learn after your vote.\n-# Each member gets replies of their own. AI-written."
    )


def question(one: Comparison, persona: Persona) -> str:
    """The prompt and the two replies, with nothing that tells who wrote which."""
    return "\n".join(
        [
            f"Somebody says to **{persona.name}**: {clean(one.prompt)}",
            "",
            "**A**",
            _quoted(one.text_a),
            "**B**",
            _quoted(one.text_b),
            f"-# Both AI-written, in an order drawn by chance. Which is the better {persona.name}?",
        ]
    )


def revealed(one: Comparison, persona: Persona) -> str:
    """The same after the vote, with who wrote which."""
    a, b = versions_shown(one)
    vote = f"Your vote: **{CHOICES[one.choice or 'tie']}**. A was **{a}**, B was **{b}**."
    return "\n".join([*question(one, persona).splitlines()[:-1], vote])


def expired(one: Comparison, persona: Persona) -> str:
    """The prompt and the two replies when it is too late for a vote; who wrote which stays untold."""
    shown = question(one, persona).splitlines()[:-1]
    return "\n".join([*shown, "**Expired**: nobody voted in a day. It does not count."])


def judgement_words(persona: Persona, found: Judgement, counts: JudgementCounts) -> str:
    """What moderators read. `counts` has the judged version first."""
    one, other = (shown_name(name) for name in (found.version, found.against))
    lines = [
        f"**{persona.name}: {one} against {other}**",
        f"{_many(found.votes, 'vote')} by {_many(found.members, 'member')}: {counts.for_a} for {one}, "
        f"{counts.for_b} for {other}, {_many(counts.ties, 'tie')}, {_many(counts.both_bad, 'time')} both bad.",
    ]
    if found.strength:
        lines.append(f"Strength: {strength_words(found.strength)}.")
    lines += [ruling_words(found), missing_words(found)]
    if found.others:
        listed = "; ".join(f"{shown_name(each.version)} {strength_words(each)}" for each in found.others[:4])
        lines.append(f"Others against {other}: {listed}.")
    lines += _odd(found.odd)
    lines.append(
        "-# Ties and both bad are half a vote for each. The ruling counts each member once, is wrong at most "
        f"{LEVEL:.0%} of the time whenever you look, and holds with {BRIGADE:.0%} of members voting as they please."
    )
    return "\n".join(line for line in lines if line)[:2000]


def ruling_words(found: Judgement) -> str:
    """What is certain, what of it stands out in asterisks."""
    one, other = (shown_name(name) for name in (found.version, found.against))
    low, high = found.range.low, found.range.high
    sure = f"Preferred in {low:.0%} to {high:.0%} of comparisons, by {found.counted} members counted."
    return {
        "better": f"**Ruling: members like {one} better.** {sure}",
        "worse": f"**Ruling: members like {other} better.** {one}: {sure.lower()}",
        "alike": f"**Ruling: no difference that matters** (at most {0.5 - ALIKE:.0%} to {0.5 + ALIKE:.0%}). {sure}",
        "open": f"**Ruling: open.** {sure if found.counted >= LEAST_MEMBERS else _waiting(found)}",
    }[found.ruling]


def _waiting(found: Judgement) -> str:
    return (
        f"{found.counted} members are counted, {LEAST_MEMBERS} are the least. One is counted with ten votes, or a day "
        "after their first."
    )


def missing_words(found: Judgement) -> str:
    """What it takes to be certain; nothing where it is."""
    if found.ruling != "open":
        return ""
    if found.counted >= LEAST_MEMBERS and found.members_needed is not None:
        each = found.votes / found.members
        votes = round(found.members_needed * each)
        return f"Needed at this rate: about {_many(found.members_needed, 'more member')}, {_many(votes, 'more vote')}."
    powers = ", ".join(f"{share * 100:.0f}:{100 - share * 100:.0f} takes {votes_needed(share)}" for share in DETECTABLE)
    return f"Needed: to see {powers} votes that are no tie (80 % power); there are {found.decisive}."


def _odd(odd: tuple[OddMember, ...]) -> list[str]:
    if not odd:
        return []
    lines = [f"- <@{one.user_id}>: {'; '.join(one.why)}" for one in odd[:SHOWN_ODD]]
    more = [f"- and {len(odd) - SHOWN_ODD} more"] if len(odd) > SHOWN_ODD else []
    return ["Odd voters (their votes count all the same):", *lines, *more]


def strength_words(one: Strength) -> str:
    """How much better a version is, with its interval; without one a figure would look like a finding."""
    if one.low is None or one.high is None:
        return f"not told from the votes of fewer than {LEAST_FOR_INTERVAL} members"
    between = f"95 %: {one.low:+.2f} to {one.high:+.2f}, {chance(one.low):.0%} to {chance(one.high):.0%}"
    return f"{one.log_odds:+.2f}, preferred in {chance(one.log_odds):.0%} of comparisons ({between})"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def shown_name(name: str) -> str:
    """A version's name for people."""
    return "the base model" if name == BASE else name


def _quoted(text: str) -> str:
    shown = textwrap.indent(clean(text) or "(nothing came out)", "> ", lambda line: True)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
