"""Preferences made up for tests, and jobs that learn from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from personas.home.preferences import (
    COMPARISON,
    TAUGHT,
    PreferenceRecord,
    PromptTurn,
    preferences_to_jsonl,
)
from tests.trainer.job_folders import described, persona_job

GOOD = "I wound it at noon, and it kept time."
BAD = "Clocks are no business of mine, go away."


def member(number: int) -> str:
    """What stands for a member."""
    return f"{number:032x}"


def voted(
    number: int, by: str, chosen: str | None = GOOD, rejected: str | None = BAD, **more: str
) -> PreferenceRecord:
    """A vote on the reply to the question with this number."""
    prompt = (PromptTurn(name="Guest", text=f"did you look after clock {number}?"),)
    return PreferenceRecord(
        prompt=prompt, chosen=chosen, rejected=rejected, by=by,
        **{"kind": COMPARISON, "right": "form", "at": "2026-11-20", **more},
    )  # fmt: skip


def taught(number: int, by: str, reply: str, instead_of: str | None = None) -> PreferenceRecord:
    """A reply that somebody wrote."""
    return voted(number, by, reply, instead_of, kind=TAUGHT)


def votes(count: int, members: int = 12) -> list[PreferenceRecord]:
    """So many votes for the same kind of reply, as many by each member; every sixth is a "both bad"
    of one reply.
    """
    return [
        voted(number, member(number % members), None, f"{BAD} {number}")
        if number % 6 == 5
        else voted(number, member(number % members), f"{GOOD} {number}", f"{BAD} {number}")
        for number in range(count)
    ]


def preference_job(
    folder: Path,
    base_model: Path | str,
    adapter: Path,
    preferences: Sequence[PreferenceRecord],
    log: str | None = None,
    **changes: object,
) -> Path:
    """Ada's job that goes on from an adapter by what was preferred; `changes` are settings."""
    persona_job(folder, base_model, log, task_type="preference", recipe="preference")
    material = folder / "material"
    shutil.copytree(adapter, material / "adapter" / "before")
    (material / "preferences.jsonl").write_text(preferences_to_jsonl(preferences), encoding="utf-8")
    spec = json.loads((folder / "request.json").read_text())
    spec["materials"].append(described(material, "adapter", "adapter/before"))
    spec["materials"].append(described(material, "preferences", "preferences.jsonl", right="form"))
    spec["request"] |= {"start_from": "before", "hyperparameters": dict(changes)}
    (folder / "request.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder
