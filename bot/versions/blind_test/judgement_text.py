"""Texts of blind comparisons and judgements."""

import textwrap

from bot.chat.model_names import version_label
from bot.chat.reply_text import discord_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import markdown_name
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
        persona=markdown_name(contest.persona),
    )


def question_text(comparison: BlindComparison, persona: Persona) -> LocalisableText:
    """The prompt and the two replies, without their versions."""
    question = gettext_lazy(
        "-# Both AI-written, in random order. Which is the better {persona}?",
        persona=markdown_name(persona),
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
            persona=markdown_name(persona),
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
    lines: list[str] = [
        gettext_lazy(
            "**{persona}: {tested} against {other}**",
            persona=markdown_name(persona),
            tested=tested,
            other=other,
        ),
        gettext_lazy(
            "{votes} by {members}: {for_tested} for {tested}, {for_other} for {other}, {ties}, "
            "{times} both bad.",
            votes=ngettext_lazy("{count} vote", "{count} votes", result.votes),
            members=_members_text(result.members),
            for_tested=counts.for_a,
            tested=tested,
            for_other=counts.for_b,
            other=other,
            ties=ngettext_lazy("{count} tie", "{count} ties", counts.ties),
            times=ngettext_lazy("{count} time", "{count} times", counts.both_bad),
        ),
    ]
    if result.strength:
        lines.append(gettext_lazy("Strength: {strength}.", strength=strength_text(result.strength)))
    lines += [ruling_text(result), required_votes_text(result)]
    if result.others:
        strengths = []
        for strength in result.others[:MAX_SHOWN_STRENGTHS]:
            strengths.append(join_texts(version_label(strength.version), strength_text(strength)))
        lines.append(
            gettext_lazy(
                "Others against {other}: {strengths}.",
                other=other,
                strengths=join_texts(*strengths, separator="; "),
            )
        )
    lines += _outlier_lines(result.outliers)
    lines.append(
        gettext_lazy(
            "-# Ties and both bad are half a vote for each. The ruling counts each member once, is "
            "wrong at most {error_rate:.0%} of the time whenever you look, and holds with "
            "{share:.0%} of members voting as they please.",
            error_rate=ALPHA,
            share=MAX_CONTAMINATED_SHARE,
        )
    )
    return join_texts(*filter(None, lines), separator="\n")


def _members_text(count: int) -> LocalisableText:
    return ngettext_lazy("{count} member", "{count} members", count)


def ruling_text(result: BlindTestJudgement) -> str:
    """Describe the ruling, its key words in asterisks."""
    tested, other = (version_label(name) for name in (result.version, result.against))
    values: dict[str, object] = {
        "low": result.range.low,
        "high": result.range.high,
        "counted": result.counted,
    }
    shares = gettext_lazy(
        "Preferred in {low:.0%} to {high:.0%} of comparisons, by {counted} members counted.",
        **values,
    )
    match result.ruling:
        case "better":
            return gettext_lazy(
                "**Ruling: members like {version} better.** {shares}", version=tested, shares=shares
            )
        case "worse":
            return gettext_lazy(
                "**Ruling: members like {other} better.** {tested}: preferred in {low:.0%} to "
                "{high:.0%} of comparisons, by {counted} members counted.",
                other=other,
                tested=tested,
                **values,
            )
        case "alike":
            return gettext_lazy(
                "**Ruling: no difference that matters** (at most {least:.0%} to {most:.0%}). "
                "{shares}",
                least=0.5 - EQUIVALENCE_MARGIN,
                most=0.5 + EQUIVALENCE_MARGIN,
                shares=shares,
            )
    if result.counted >= MIN_RULING_MEMBERS:
        return gettext_lazy("**Ruling: open.** {shares}", shares=shares)
    return gettext_lazy(
        "**Ruling: open.** {counted} members are counted; {needed} are needed. A member counts with "
        "ten votes, or a day after the first.",
        counted=result.counted,
        needed=MIN_RULING_MEMBERS,
    )


def required_votes_text(result: BlindTestJudgement) -> str:
    """Describe how many members a ruling still takes; empty where there is one."""
    if result.ruling != "open":
        return ""
    if result.counted >= MIN_RULING_MEMBERS and result.members_needed is not None:
        members = result.members_needed
        votes = round(result.members_needed * result.votes / result.members)
        return gettext_lazy(
            "Needed at this rate: about {members}, {votes}.",
            members=ngettext_lazy("{count} more member", "{count} more members", members),
            votes=ngettext_lazy("{count} more vote", "{count} more votes", votes),
        )
    powers = []
    for share in DETECTABLE_SHARES:
        percent = share * 100
        powers.append(
            gettext_lazy(
                "{ratio} takes {count}",
                ratio=f"{percent:.0f}:{100 - percent:.0f}",
                count=votes_needed(share),
            )
        )
    return gettext_lazy(
        "Needed: to detect {powers} votes that are no tie (80 % power); there are {count}.",
        powers=join_texts(*powers, separator=", "),
        count=result.decisive,
    )


def _outlier_lines(outliers: tuple[OutlierMember, ...]) -> list[str]:
    if not outliers:
        return []
    lines: list[str] = [gettext_lazy("Odd voters (their votes count all the same):")]
    for outlier in outliers[:MAX_SHOWN_OUTLIERS]:
        lines.append(
            gettext_lazy(
                "- {member}: {reasons}",
                member=f"<@{outlier.user_id}>",
                reasons=join_texts(*outlier.why, separator="; "),
            )
        )
    if len(outliers) > MAX_SHOWN_OUTLIERS:
        lines.append(gettext_lazy("- and {count} more", count=len(outliers) - MAX_SHOWN_OUTLIERS))
    return lines


def strength_text(strength: VersionStrength) -> str:
    """Describe a version's strength with its interval; without an interval a figure would look like
    a result.
    """
    low = strength.low
    high = strength.high
    if low is None or high is None:
        return gettext_lazy("unknown with fewer than {count} members", count=MIN_INTERVAL_MEMBERS)
    return gettext_lazy(
        "{strength:+.2f}, preferred in {share:.0%} of comparisons (95 %: {low:+.2f} to {high:+.2f}, "
        "{low_share:.0%} to {high_share:.0%})",
        strength=strength.log_odds,
        share=win_probability(strength.log_odds),
        low=low,
        high=high,
        low_share=win_probability(low),
        high_share=win_probability(high),
    )


def _quoted(text: str) -> str:
    reply = discord_text(text).strip()
    if not reply:
        return gettext_lazy("> (nothing came out)")
    quoted = textwrap.indent(reply, "> ", lambda line: True)
    if len(quoted) > MAX_SHOWN_REPLY_CHARACTERS:
        return f"{quoted[: MAX_SHOWN_REPLY_CHARACTERS - 1]}…"
    return quoted
