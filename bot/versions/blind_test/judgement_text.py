"""Texts of blind comparisons and judgements."""

from __future__ import annotations

import textwrap

from bot.chat.streaming_reply import remove_links
from bot.store import BASE_MODEL_NAME, BlindComparison, JudgementCounts
from bot.versions.blind_test.assignment import Contest, version_labels
from bot.versions.blind_test.bradley_terry import MIN_INTERVAL_MEMBERS as LEAST_FOR_INTERVAL
from bot.versions.blind_test.bradley_terry import VersionStrength, win_probability
from bot.versions.blind_test.judgement import BlindTestJudgement, OutlierMember
from bot.versions.sequential_test import (
    ALPHA,
    EQUIVALENCE_MARGIN,
    MAX_CONTAMINATED_SHARE,
    MIN_RULING_MEMBERS,
    votes_needed,
)
from personas.schemas.chat import Persona

MAX_SHOWN_REPLY_CHARACTERS = 700
"""Characters of a reply that are shown: with its prompt and another one it fits one message of 2,000."""
MAX_SHOWN_OUTLIERS = 6
DETECTABLE_SHARES = (0.55, 0.6, 0.65, 0.7)
CHOICE_LABELS = {"a": "A", "b": "B", "tie": "a tie", "bad": "both bad"}


def invitation_text(contest: Contest) -> str:
    """Text that members read above the button."""
    name = contest.persona.name
    return (
        f"**Which {name} is better?** Read two replies to one prompt and say which is more like {name}. Which version "
        "wrote which you learn after your vote.\n-# Each member gets replies of their own. AI-written."
    )


def question_text(one: BlindComparison, persona: Persona) -> str:
    """The prompt and the two replies, with nothing that tells who wrote which."""
    return "\n".join(
        [
            f"Somebody says to **{persona.name}**: {remove_links(one.prompt)}",
            "",
            "**A**",
            _quoted(one.text_a),
            "**B**",
            _quoted(one.text_b),
            f"-# Both AI-written, in an order drawn by chance. Which is the better {persona.name}?",
        ]
    )


def revealed_text(one: BlindComparison, persona: Persona) -> str:
    """The same after the vote, with who wrote which."""
    a, b = version_labels(one)
    vote = f"Your vote: **{CHOICE_LABELS[one.choice or 'tie']}**. A was **{a}**, B was **{b}**."
    return "\n".join([*question_text(one, persona).splitlines()[:-1], vote])


def expired_text(one: BlindComparison, persona: Persona) -> str:
    """The prompt and the two replies when it is too late for a vote; who wrote which stays untold."""
    shown = question_text(one, persona).splitlines()[:-1]
    return "\n".join([*shown, "**Expired**: nobody voted in a day. It does not count."])


def judgement_text(persona: Persona, found: BlindTestJudgement, counts: JudgementCounts) -> str:
    """Text of a judgement for moderators. `counts` has the judged version first."""
    one, other = (display_name(name) for name in (found.version, found.against))
    lines = [
        f"**{persona.name}: {one} against {other}**",
        f"{_plural(found.votes, 'vote')} by {_plural(found.members, 'member')}: {counts.for_a} for {one}, "
        f"{counts.for_b} for {other}, {_plural(counts.ties, 'tie')}, {_plural(counts.both_bad, 'time')} both bad.",
    ]
    if found.strength:
        lines.append(f"Strength: {strength_text(found.strength)}.")
    lines += [ruling_text(found), required_votes_text(found)]
    if found.others:
        listed = "; ".join(f"{display_name(each.version)} {strength_text(each)}" for each in found.others[:4])
        lines.append(f"Others against {other}: {listed}.")
    lines += _odd(found.odd)
    lines.append(
        "-# Ties and both bad are half a vote for each. The ruling counts each member once, is wrong at most "
        f"{ALPHA:.0%} of the time whenever you look, and holds with {MAX_CONTAMINATED_SHARE:.0%} of members "
        "voting as they please."
    )
    return "\n".join(line for line in lines if line)[:2000]


def ruling_text(found: BlindTestJudgement) -> str:
    """Describe the ruling, its key words in asterisks."""
    one, other = (display_name(name) for name in (found.version, found.against))
    low, high = found.range.low, found.range.high
    sure = f"Preferred in {low:.0%} to {high:.0%} of comparisons, by {found.counted} members counted."
    return {
        "better": f"**Ruling: members like {one} better.** {sure}",
        "worse": f"**Ruling: members like {other} better.** {one}: {sure.lower()}",
        "alike": (
            "**Ruling: no difference that matters** "
            f"(at most {0.5 - EQUIVALENCE_MARGIN:.0%} to {0.5 + EQUIVALENCE_MARGIN:.0%}). {sure}"
        ),
        "open": f"**Ruling: open.** {sure if found.counted >= MIN_RULING_MEMBERS else _waiting(found)}",
    }[found.ruling]


def _waiting(found: BlindTestJudgement) -> str:
    return (
        f"{found.counted} members are counted, {MIN_RULING_MEMBERS} are the least. "
        "One is counted with ten votes, or a day "
        "after their first."
    )


def required_votes_text(found: BlindTestJudgement) -> str:
    """Describe how many members a ruling still takes; empty where there is one."""
    if found.ruling != "open":
        return ""
    if found.counted >= MIN_RULING_MEMBERS and found.members_needed is not None:
        each = found.votes / found.members
        votes = round(found.members_needed * each)
        return (
            f"Needed at this rate: about {_plural(found.members_needed, 'more member')}, {_plural(votes, 'more vote')}."
        )
    powers = ", ".join(
        f"{share * 100:.0f}:{100 - share * 100:.0f} takes {votes_needed(share)}" for share in DETECTABLE_SHARES
    )
    return f"Needed: to see {powers} votes that are no tie (80 % power); there are {found.decisive}."


def _odd(odd: tuple[OutlierMember, ...]) -> list[str]:
    if not odd:
        return []
    lines = [f"- <@{one.user_id}>: {'; '.join(one.why)}" for one in odd[:MAX_SHOWN_OUTLIERS]]
    more = [f"- and {len(odd) - MAX_SHOWN_OUTLIERS} more"] if len(odd) > MAX_SHOWN_OUTLIERS else []
    return ["Odd voters (their votes count all the same):", *lines, *more]


def strength_text(one: VersionStrength) -> str:
    """Describe a version's strength with its interval; without one a figure would look like a finding."""
    if one.low is None or one.high is None:
        return f"not told from the votes of fewer than {LEAST_FOR_INTERVAL} members"
    between = (
        f"95 %: {one.low:+.2f} to {one.high:+.2f}, {win_probability(one.low):.0%} to {win_probability(one.high):.0%}"
    )
    return f"{one.log_odds:+.2f}, preferred in {win_probability(one.log_odds):.0%} of comparisons ({between})"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def display_name(name: str) -> str:
    """A version's name for people."""
    return "the base model" if name == BASE_MODEL_NAME else name


def _quoted(text: str) -> str:
    shown = textwrap.indent(remove_links(text) or "(nothing came out)", "> ", lambda line: True)
    return shown if len(shown) <= MAX_SHOWN_REPLY_CHARACTERS else f"{shown[: MAX_SHOWN_REPLY_CHARACTERS - 1]}…"
