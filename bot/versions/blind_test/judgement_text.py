"""Texts of blind comparisons and judgements."""

import textwrap

from bot.chat.model_names import version_label
from bot.chat.reply_text import discord_text
from bot.store import BlindComparison, JudgementCounts
from bot.versions.blind_test.actions import Contest
from bot.versions.statistics.bradley_terry import (
    MIN_INTERVAL_MEMBERS,
    VersionStrength,
    win_probability,
)
from bot.versions.statistics.judgement import BlindTestJudgement, OutlierMember
from bot.versions.statistics.sequential_test import (
    ALPHA,
    EQUIVALENCE_MARGIN,
    MAX_CONTAMINATED_SHARE,
    MIN_RULING_MEMBERS,
    votes_needed,
)
from personas.schemas.chat import Persona

MAX_SHOWN_REPLY_CHARACTERS = 700
"""Characters of a reply: two replies and their prompt fit into one message of 2,000."""
MAX_SHOWN_OUTLIERS = 6
DETECTABLE_SHARES = (0.55, 0.6, 0.65, 0.7)
CHOICE_LABELS = {"a": "A", "b": "B", "tie": "a tie", "bad": "both bad"}


def invitation_text(contest: Contest) -> str:
    """Text above the button that invites members."""
    name = contest.persona.name
    return (
        f"**Which {name} is better?** Read two replies to one prompt and choose the one more like "
        f"{name}. After "
        "your vote you see which version wrote which.\n-# Each member gets replies of their own. "
        "AI-written."
    )


def question_text(one: BlindComparison, persona: Persona) -> str:
    """The prompt and the two replies, without their versions."""
    return "\n".join(
        [
            f"Somebody says to **{persona.name}**: {discord_text(one.prompt).strip()}",
            "",
            "**A**",
            _quoted(one.text_a),
            "**B**",
            _quoted(one.text_b),
            f"-# Both AI-written, in random order. Which is the better {persona.name}?",
        ]
    )


def revealed_text(one: BlindComparison, persona: Persona) -> str:
    """The same after the vote, with the versions."""
    a, b = map(version_label, one.versions)
    vote = f"Your vote: **{CHOICE_LABELS[one.choice or 'tie']}**. A was **{a}**, B was **{b}**."
    return "\n".join([*question_text(one, persona).splitlines()[:-1], vote])


def expired_text(one: BlindComparison, persona: Persona) -> str:
    """The prompt and the two replies, still without their versions, when it is too late for a
    vote.
    """
    shown = question_text(one, persona).splitlines()[:-1]
    return "\n".join([*shown, "**Expired**: nobody voted in a day. It does not count."])


def judgement_text(persona: Persona, result: BlindTestJudgement, counts: JudgementCounts) -> str:
    """Text of a judgement for moderators. `counts` has the judged version first."""
    one, other = (version_label(name) for name in (result.version, result.against))
    lines = [
        f"**{persona.name}: {one} against {other}**",
        f"{_plural(result.votes, 'vote')} by {_plural(result.members, 'member')}: {counts.for_a} "
        f"for {one}, "
        f"{counts.for_b} for {other}, {_plural(counts.ties, 'tie')}, "
        f"{_plural(counts.both_bad, 'time')} both bad.",
    ]
    if result.strength:
        lines.append(f"Strength: {strength_text(result.strength)}.")
    lines += [ruling_text(result), required_votes_text(result)]
    if result.others:
        listed = "; ".join(
            f"{version_label(each.version)} {strength_text(each)}" for each in result.others[:4]
        )
        lines.append(f"Others against {other}: {listed}.")
    lines += _outlier_lines(result.outliers)
    lines.append(
        "-# Ties and both bad are half a vote for each. The ruling counts each member once, is "
        "wrong at most "
        f"{ALPHA:.0%} of the time whenever you look, and holds with {MAX_CONTAMINATED_SHARE:.0%} "
        "of members "
        "voting as they please."
    )
    return "\n".join(line for line in lines if line)[:2000]


def ruling_text(result: BlindTestJudgement) -> str:
    """Describe the ruling, its key words in asterisks."""
    one, other = (version_label(name) for name in (result.version, result.against))
    low = result.range.low
    high = result.range.high
    sure = (
        f"Preferred in {low:.0%} to {high:.0%} of comparisons, by {result.counted} members counted."
    )
    return {
        "better": f"**Ruling: members like {one} better.** {sure}",
        "worse": f"**Ruling: members like {other} better.** {one}: {sure.lower()}",
        "alike": (
            "**Ruling: no difference that matters** "
            f"(at most {0.5 - EQUIVALENCE_MARGIN:.0%} to {0.5 + EQUIVALENCE_MARGIN:.0%}). {sure}"
        ),
        "open": (
            "**Ruling: open.** "
            f"{sure if result.counted >= MIN_RULING_MEMBERS else _waiting_text(result)}"
        ),
    }[result.ruling]


def _waiting_text(result: BlindTestJudgement) -> str:
    return (
        f"{result.counted} members are counted; {MIN_RULING_MEMBERS} are needed. "
        "A member counts with ten votes, or a day after the first."
    )


def required_votes_text(result: BlindTestJudgement) -> str:
    """Describe how many members a ruling still takes; empty where there is one."""
    if result.ruling != "open":
        return ""
    if result.counted >= MIN_RULING_MEMBERS and result.members_needed is not None:
        members = result.members_needed
        votes = round(result.members_needed * result.votes / result.members)
        return (
            f"Needed at this rate: about {_plural(members, 'more member')}, "
            f"{_plural(votes, 'more vote')}."
        )
    powers = ", ".join(
        f"{it * 100:.0f}:{100 - it * 100:.0f} takes {votes_needed(it)}" for it in DETECTABLE_SHARES
    )
    return (
        f"Needed: to detect {powers} votes that are no tie (80 % power); there are "
        f"{result.decisive}."
    )


def _outlier_lines(outliers: tuple[OutlierMember, ...]) -> list[str]:
    if not outliers:
        return []
    lines = [f"- <@{one.user_id}>: {'; '.join(one.why)}" for one in outliers[:MAX_SHOWN_OUTLIERS]]
    more = (
        [f"- and {len(outliers) - MAX_SHOWN_OUTLIERS} more"]
        if len(outliers) > MAX_SHOWN_OUTLIERS
        else []
    )
    return ["Odd voters (their votes count all the same):", *lines, *more]


def strength_text(one: VersionStrength) -> str:
    """Describe a version's strength with its interval; without one a figure would look like a
    finding.
    """
    if one.low is None or one.high is None:
        return f"unknown with fewer than {MIN_INTERVAL_MEMBERS} members"
    shares = f"{win_probability(one.low):.0%} to {win_probability(one.high):.0%}"
    interval = f"95 %: {one.low:+.2f} to {one.high:+.2f}, {shares}"
    return (
        f"{one.log_odds:+.2f}, preferred in {win_probability(one.log_odds):.0%} of comparisons "
        f"({interval})"
    )


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _quoted(text: str) -> str:
    shown = textwrap.indent(
        discord_text(text).strip() or "(nothing came out)", "> ", lambda line: True
    )
    return (
        shown
        if len(shown) <= MAX_SHOWN_REPLY_CHARACTERS
        else f"{shown[: MAX_SHOWN_REPLY_CHARACTERS - 1]}…"
    )
