"""Texts of blind comparisons and judgements."""

import textwrap

from bot.chat.model_names import version_label
from bot.chat.reply_text import discord_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts
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
MAX_SHOWN_STRENGTHS = 4
DETECTABLE_SHARES = (0.55, 0.6, 0.65, 0.7)
CHOICE_LABELS = {
    "a": "A",
    "b": "B",
    "tie": gettext_lazy("a tie"),
    "bad": gettext_lazy("both bad"),
}


def invitation_text(contest: Contest) -> LocalisableText:
    """Text above the button that invites members."""
    return gettext_lazy(
        "**Which {persona} is better?** Read two replies to one prompt and choose the one more like "
        "{persona}. After your vote you see which version wrote which.\n"
        "-# Each member gets replies of their own. AI-written.",
        persona=contest.persona.name,
    )


def question_text(comparison: BlindComparison, persona: Persona) -> LocalisableText:
    """The prompt and the two replies, without their versions."""
    question = gettext_lazy(
        "-# Both AI-written, in random order. Which is the better {persona}?", persona=persona.name
    )
    return join_texts(_replies_text(comparison, persona), question, separator="\n")


def revealed_text(comparison: BlindComparison, persona: Persona) -> LocalisableText:
    """The same after the vote, with the versions."""
    return join_texts(_replies_text(comparison, persona), vote_text(comparison), separator="\n")


def vote_text(comparison: BlindComparison) -> LocalisableText:
    """The vote, and the versions."""
    a, b = map(version_label, comparison.versions)
    choice = CHOICE_LABELS[comparison.choice or "tie"]
    return gettext_lazy(
        "Your vote: **{choice}**. A was **{a}**, B was **{b}**.", choice=choice, a=a, b=b
    )


def expired_text(comparison: BlindComparison, persona: Persona) -> LocalisableText:
    """The prompt and the two replies, still without their versions, when it is too late for a
    vote.
    """
    expired = gettext_lazy("**Expired**: nobody voted in a day. It does not count.")
    return join_texts(_replies_text(comparison, persona), expired, separator="\n")


def _replies_text(comparison: BlindComparison, persona: Persona) -> LocalisableText:
    lines = [
        gettext_lazy(
            "Somebody says to **{persona}**: {prompt}",
            persona=persona.name,
            prompt=discord_text(comparison.prompt).strip(),
        ),
        "",
        "**A**",
        _quoted(comparison.text_a),
        "**B**",
        _quoted(comparison.text_b),
    ]
    return join_texts(*lines, separator="\n")


def judgement_text(persona: Persona, result: BlindTestJudgement, counts: JudgementCounts) -> str:
    """Text of a judgement for moderators. `counts` has the judged version first."""
    tested, other = (version_label(name) for name in (result.version, result.against))
    lines = [
        f"**{persona.name}: {tested} against {other}**",
        f"{_plural(result.votes, 'vote')} by {_plural(result.members, 'member')}: {counts.for_a} "
        f"for {tested}, "
        f"{counts.for_b} for {other}, {_plural(counts.ties, 'tie')}, "
        f"{_plural(counts.both_bad, 'time')} both bad.",
    ]
    if result.strength:
        lines.append(f"Strength: {strength_text(result.strength)}.")
    lines += [ruling_text(result), required_votes_text(result)]
    if result.others:
        strengths = []
        for strength in result.others[:MAX_SHOWN_STRENGTHS]:
            strengths.append(f"{version_label(strength.version)} {strength_text(strength)}")
        lines.append(f"Others against {other}: {'; '.join(strengths)}.")
    lines += _outlier_lines(result.outliers)
    lines.append(
        "-# Ties and both bad are half a vote for each. The ruling counts each member once, is "
        f"wrong at most {ALPHA:.0%} of the time whenever you look, and holds with "
        f"{MAX_CONTAMINATED_SHARE:.0%} of members voting as they please."
    )
    return "\n".join(line for line in lines if line)[:2000]


def ruling_text(result: BlindTestJudgement) -> str:
    """Describe the ruling, its key words in asterisks."""
    tested, other = (version_label(name) for name in (result.version, result.against))
    low = result.range.low
    high = result.range.high
    shares = (
        f"Preferred in {low:.0%} to {high:.0%} of comparisons, by {result.counted} members counted."
    )
    match result.ruling:
        case "better":
            return f"**Ruling: members like {tested} better.** {shares}"
        case "worse":
            return f"**Ruling: members like {other} better.** {tested}: {shares.lower()}"
        case "alike":
            least = 0.5 - EQUIVALENCE_MARGIN
            most = 0.5 + EQUIVALENCE_MARGIN
            margin = f"at most {least:.0%} to {most:.0%}"
            return f"**Ruling: no difference that matters** ({margin}). {shares}"
    if result.counted >= MIN_RULING_MEMBERS:
        return f"**Ruling: open.** {shares}"
    return (
        f"**Ruling: open.** {result.counted} members are counted; {MIN_RULING_MEMBERS} are needed. "
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
    powers = []
    for share in DETECTABLE_SHARES:
        percent = share * 100
        powers.append(f"{percent:.0f}:{100 - percent:.0f} takes {votes_needed(share)}")
    return (
        f"Needed: to detect {', '.join(powers)} votes that are no tie (80 % power); there are "
        f"{result.decisive}."
    )


def _outlier_lines(outliers: tuple[OutlierMember, ...]) -> list[str]:
    if not outliers:
        return []
    lines = ["Odd voters (their votes count all the same):"]
    for outlier in outliers[:MAX_SHOWN_OUTLIERS]:
        lines.append(f"- <@{outlier.user_id}>: {'; '.join(outlier.why)}")
    if len(outliers) > MAX_SHOWN_OUTLIERS:
        lines.append(f"- and {len(outliers) - MAX_SHOWN_OUTLIERS} more")
    return lines


def strength_text(strength: VersionStrength) -> str:
    """Describe a version's strength with its interval; without an interval a figure would look like
    a result.
    """
    low = strength.low
    high = strength.high
    if low is None or high is None:
        return f"unknown with fewer than {MIN_INTERVAL_MEMBERS} members"
    interval = f"95 %: {low:+.2f} to {high:+.2f}, {win_probability(low):.0%} to {win_probability(high):.0%}"
    return (
        f"{strength.log_odds:+.2f}, preferred in {win_probability(strength.log_odds):.0%} of "
        f"comparisons ({interval})"
    )


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _quoted(text: str) -> str:
    reply = discord_text(text).strip() or "(nothing came out)"
    quoted = textwrap.indent(reply, "> ", lambda line: True)
    if len(quoted) > MAX_SHOWN_REPLY_CHARACTERS:
        return f"{quoted[: MAX_SHOWN_REPLY_CHARACTERS - 1]}…"
    return quoted
