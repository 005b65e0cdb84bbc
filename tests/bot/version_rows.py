"""Versions, replies and votes, written where the bot would have written them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from bot.store import JobResult, Store
from bot.training.store import NewTrainingJob
from personas.home.adapters import adapter_ref
from personas.schemas.training import TrainingRequest
from tests.samples import SCORECARD

events = itertools.count(10_000)


def install(
    store: Store, persona: str = "ballast", *, guild=0, by=7, at=1.0, card=SCORECARD
) -> str:
    """A version that could be promoted; gives its name."""
    version = store.versions.reserve(persona)
    new = NewTrainingJob(
        f"{persona}-{version}", guild, 2, by, TrainingRequest(job_name="j", persona=persona)
    )
    store.jobs.add_imported(
        new, version, JobResult(adapter="a", seconds=1, scorecard=card, imported=True), at
    )
    return version


def install_learned(store: Store, home: Path, *, short_card: bool) -> str:
    """A version of Ballast whose manifest says whether it was trained under the short card, too."""
    version = install(store)
    folder = adapter_ref(home, "ballast", version).folder
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"samples_train": 6}
    if short_card:
        counts["samples_with_short_card"] = 3
    manifest = {"prompt_version": "4", "dataset": counts}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return version


def reply(
    store: Store,
    *,
    at: float,
    version=None,
    asked_by=1,
    guild=9,
    persona="ballast",
    event=None,
):
    """A reply that is done; gives its event."""
    event = event or next(events)
    store.replies.begin(
        event,
        guild_id=guild,
        channel_id=2,
        persona_id=persona,
        at=at,
        asked_by=asked_by,
    )
    store.replies.finish(event, "done", version)
    return event


def rate(store: Store, members: int, *, first="v1", ratings=3, start=0, other=1, guild=9) -> None:
    """So many members each dislike replies of v2, and rate as many of v1."""
    second = {"v1": "v2", "v2": "v1"}[first]
    for member in range(start + 1, start + members + 1):
        for at, version in ((10.0, first), (20.0, second)):
            for _ in range(ratings):
                event = reply(store, at=at, version=version, guild=guild, asked_by=member)
                store.replies.vote(event, member, -1 if version == "v2" else other, at)
