"""Texts of blind comparisons and judgements."""

import textwrap

from bot.chat.model_names import version_label
from bot.chat.reply_text import discord_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import markdown_name
from bot.store import BlindComparison, JudgementCounts
from bot.versions.blind_test.actions import Contest
from bot.versions.statistics.judgement import BlindTestJudgement, OutlierMember
from bot.versions.statistics.sign_test import ALPHA, MAX_CONTAMINATED_SHARE
from personas.schemas.chat import Persona

MAX_SHOWN_REPLY_CHARACTERS = 700
"""Characters of a reply: two replies and their prompt fit into one message of 2,000."""
MAX_SHOWN_OUTLIERS = 6
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
    lines.append(ruling_text(result))
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
    return join_texts(*lines, separator="\n")


def _members_text(count: int) -> LocalisableText:
    return ngettext_lazy("{count} member", "{count} members", count)


def ruling_text(result: BlindTestJudgement) -> str:
    """Describe the ruling, its key words in asterisks."""
    tested, other = (version_label(name) for name in (result.version, result.against))
    test = result.test
    if test.next_look:
        return gettext_lazy(
            "**Ruling: open.** {counted} members are counted; {needed} are needed. A member with a "
            "preference counts with ten votes, or a day after the first.",
            counted=test.members,
            needed=test.next_look,
        )
    counts = gettext_lazy(
        "{count} of {members} members prefer {version}.",
        count=test.preferring,
        members=test.members,
        version=tested,
    )
    if test.ruling == "undecided":
        return gettext_lazy("**Ruling: no preference was found.** {counts}", counts=counts)
    return gettext_lazy(
        "**Ruling: members like {version} better.** {counts}",
        version=tested if test.ruling == "better" else other,
        counts=counts,
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


def _quoted(text: str) -> str:
    reply = discord_text(text).strip()
    if not reply:
        return gettext_lazy("> (nothing came out)")
    quoted = textwrap.indent(reply, "> ", lambda line: True)
    if len(quoted) > MAX_SHOWN_REPLY_CHARACTERS:
        return f"{quoted[: MAX_SHOWN_REPLY_CHARACTERS - 1]}…"
    return quoted
