"""Members' feedback on a version: summarised, and written for the gate.

The gate reads it with the versions that a new one is compared with: the live one, and the guild's
other personas'.
"""

import asyncio
import logging
import time
from pathlib import Path

from bot.chat.model_names import version_label
from bot.personas.registry import PersonaRegistry
from bot.platform.localisation import gettext_lazy
from bot.store import (
    ALL_GUILDS,
    BASE_MODEL_NAME,
    BlindComparison,
    MemberRating,
    ReplySelection,
    Store,
    TrainingJob,
)
from bot.versions.statistics.judgement import completed_scores
from bot.versions.statistics.sign_test import run_sign_test
from personas.home.adapters import adapter_ref
from personas.home.comparison_targets import (
    NO_COMPARISON,
    ComparisonTargets,
    NeighbourPaths,
    write_comparison_targets,
)
from personas.schemas.scorecard import MemberFeedback

log = logging.getLogger(__name__)
EVEN_SHARE = 0.5
RATINGS_PER_MEMBER = 3
"""First votes of a member on the replies of each of two versions that count, so that members weigh
alike.
"""
ScoresByTime = tuple[tuple[float, float], ...]
"""When each member is complete, and their score from 0 to 1, in this order."""


def _rater_scores(
    own: dict[int, list[MemberRating]], other: dict[int, list[MemberRating]]
) -> ScoresByTime:
    """Score the members by their first ratings of both versions' replies: above 0.5 for fewer 👎 on
    the own ones.
    """
    scores = []
    for member, ratings in own.items():
        first = ratings[:RATINGS_PER_MEMBER]
        others = other.get(member, [])[:RATINGS_PER_MEMBER]
        if len(first) == len(others) == RATINGS_PER_MEMBER:
            fewer = sum(rating.is_down for rating in others)
            fewer -= sum(rating.is_down for rating in first)
            score = EVEN_SHARE + fewer / RATINGS_PER_MEMBER / 2
            scores.append((max(first[-1].at, others[-1].at), score))
    return tuple(sorted(scores, key=lambda score: score[0]))


def summarise_votes(
    store: Store,
    persona_id: str,
    version: str,
    now: float,
    guild_id: int | None = None,
    *,
    live_in: int = ALL_GUILDS,
) -> MemberFeedback | None:
    """Summarise votes in a guild, or (None) in all.

    They are about the version beside the one that is live in the guild, or in `live_in`. None for
    the live version, and without any feedback.
    """
    live = store.versions.live(persona_id, guild_id or live_in)
    if live == version:
        return None
    against = live or BASE_MODEL_NAME
    votes = [
        vote
        for vote in store.comparisons.voted(persona_id, guild_id)
        if set(vote.versions) == {version, against}
    ]
    own_replies = ReplySelection(persona_id, version, guild_id=guild_id)
    other_replies = ReplySelection(persona_id, live, guild_id=guild_id)
    stats = store.reply_stats
    own = stats.of(own_replies)
    other = stats.of(other_replies)
    if not (votes or own.up or own.down):
        return None
    scores = [score for at, score in completed_scores(votes, version) if at <= now]
    raters = _rater_scores(
        stats.ratings_by_member(own_replies), stats.ratings_by_member(other_replies)
    )
    return MemberFeedback(
        against=against,
        votes=len(votes),
        members=len(scores),
        preferred=run_sign_test(scores).share,
        up=(own.up, other.up),
        down=(own.down, other.down),
        liked=run_sign_test([score for _, score in raters]).share,
    )


def vote_objections(feedback: MemberFeedback | None) -> tuple[str, ...]:
    """List the members' significant objections to a version, a sentence each."""
    if feedback is None:
        return ()
    other = version_label(feedback.against)
    objections: list[str] = []
    if feedback.preferred is not None and feedback.preferred < EVEN_SHARE:
        objections.append(
            gettext_lazy(
                "Members prefer {version} in blind comparisons: {share:.0%} of them.",
                version=other,
                share=1 - feedback.preferred,
            )
        )
    if feedback.liked is not None and feedback.liked < EVEN_SHARE:
        objections.append(
            gettext_lazy(
                "Its replies are disliked more than those of {version}: {down} 👎 and {up} 👍.",
                version=other,
                down=feedback.down[0],
                up=feedback.up[0],
            )
        )
    return tuple(objections)


async def record_vote(
    home: Path, store: Store, personas: PersonaRegistry, vote: BlindComparison
) -> None:
    """After a blind vote, store the members' feedback on both versions for the gate."""
    for version in vote.versions:
        await record_member_feedback(
            home, store, personas=personas, persona_id=vote.persona_id, version=version
        )


async def record_member_feedback(
    home: Path, store: Store, personas: PersonaRegistry, persona_id: str, version: str
) -> None:
    """Write the members' feedback on a version into its job folder, if that exists, for `trainer
    evaluate`.
    """
    job_id = store.versions.job_of(persona_id, version)
    job = store.jobs.get(job_id) if job_id else None
    if job is None:
        return
    feedback = summarise_votes(store, persona_id, version, time.time(), live_in=job.guild_id)
    if feedback is None:
        return
    folder = home / "jobs" / job.job_id
    targets = comparison_targets(home, store, personas, job)
    targets = targets.model_copy(update={"heard": feedback})

    def write_if_folder_exists() -> None:
        if folder.is_dir():
            write_comparison_targets(folder, targets)

    try:
        await asyncio.to_thread(write_if_folder_exists)
    except OSError as error:
        # The votes are in the store, and are written with the next one.
        log.warning(
            "the member feedback on a version could not be written to %s: %s", folder, error
        )


async def record_all_feedback(
    home: Path, store: Store, personas: PersonaRegistry, persona_id: str, guild_id: int
) -> None:
    """After another version went live, write the feedback on the versions that a guild trained:
    they are compared with the live one.
    """
    for installed in store.versions.installed(persona_id):
        job = store.jobs.get(installed.job_id)
        if job and job.guild_id == guild_id:
            await record_member_feedback(
                home, store, personas=personas, persona_id=persona_id, version=installed.version
            )


def comparison_targets(
    home: Path, store: Store, personas: PersonaRegistry, job: TrainingJob
) -> ComparisonTargets:
    """Live versions, in the job's server, of its persona and of the other personas; none for
    dialogue jobs.
    """
    if job.persona is None:
        return NO_COMPARISON
    live = store.versions.live(job.persona, job.guild_id)
    folder = None
    if live:
        folder = str(adapter_ref(home, job.persona, live).folder)
    neighbours = []
    for persona_id in personas.of(job.guild_id):
        if persona_id == job.persona:
            continue
        if neighbour := _neighbour(home, store, persona_id, job.guild_id):
            neighbours.append(neighbour)
    return ComparisonTargets(live=folder, neighbours=tuple(neighbours))


def _neighbour(home: Path, store: Store, persona_id: str, guild_id: int) -> NeighbourPaths | None:
    """A persona's live version in a guild and its job; None for the base model."""
    live = store.versions.live(persona_id, guild_id)
    job_id = None
    if live:
        job_id = store.versions.job_of(persona_id, live)
    if not (live and job_id):
        return None
    adapter = adapter_ref(home, persona_id, live).folder
    return NeighbourPaths(persona=persona_id, adapter=str(adapter), job=str(home / "jobs" / job_id))
