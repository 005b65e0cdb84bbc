"""What was liked better than what in a server, as material: votes in comparisons, and replies that were taught.

Nothing of it was a message. The prompts of comparisons are the operator's, and the replies to them the persona's; what
is taught was typed into a form for this. Whoever gave it stands there under the home's key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bot.store import Lesson, Store
from bot.store.comparisons import Preference as Vote
from personas.errors import RequestError
from personas.job_material import SourceMaterial
from personas.keys import HomeKey, keyed
from personas.preferences import COMPARISON, PREFERENCES_FILE, TAUGHT, Preference, Said, as_lines
from personas.prompt import EXAMPLE_USER
from personas.rights import Statement

BY_FORM = "form"
VOTES_AND_LESSONS = (
    BY_FORM,
    "those who gave them",
    "Given on purpose: typed into a form to be learned from, or voted on the operator's prompts.",
)


def preferences_material(home: Path, store: Store, guild_id: int, persona_id: str) -> SourceMaterial:
    """All that a persona's training may take of a server, or of all for guild 0. Raises `RequestError` for nothing."""
    found = sorted(_all(home, store, guild_id, persona_id), key=lambda pair: pair[0])
    if not found:
        raise RequestError(
            "Nobody has taught this persona a reply or compared two of its versions here.",
            "`/persona teach` and `/finetune compare` do.",
        )
    right, stated_by, why = VOTES_AND_LESSONS
    stated = Statement(right, stated_by, _day(time.time()), why)
    text = as_lines(one for _, one in found)
    return SourceMaterial(
        "preferences", PREFERENCES_FILE, "what was preferred here", stated, _day(time.time()), text=text
    )


def _all(home: Path, store: Store, guild_id: int, persona_id: str) -> Iterator[tuple[float, Preference]]:
    """With when each was given."""
    key, opted_in = HomeKey.of(home).people(), store.people.opted_in()
    for lesson in store.taught.of_persona(persona_id, guild_id):
        if lesson.as_moderator or lesson.user_id in opted_in:  # who has opted out since is left out
            yield lesson.at, _of_lesson(lesson, key)
    for vote in store.comparisons.preferences(persona_id):
        if guild_id in (0, vote.guild_id) and vote.chosen != vote.rejected:  # both versions may say the same
            yield vote.at, _of_vote(vote, key)


def _of_vote(vote: Vote, key: bytes) -> Preference:
    return Preference(
        prompt=(Said(name=EXAMPLE_USER, text=vote.prompt),),
        chosen=vote.chosen or None,
        rejected=vote.rejected or None,
        kind=COMPARISON,
        by=keyed(key, str(vote.user_id)),
        right=BY_FORM,
        at=_day(vote.at),
    )


def _of_lesson(lesson: Lesson, key: bytes) -> Preference:
    return Preference(
        prompt=(Said(name=EXAMPLE_USER, text=lesson.prompt),),
        chosen=lesson.reply,
        rejected=lesson.instead_of or None,
        kind=TAUGHT,
        by=keyed(key, str(lesson.user_id)),
        right=lesson.right,
        at=_day(lesson.at),
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
