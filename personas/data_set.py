"""A data set that `python -m trainer dataset build` has made, as far as more than the trainer has to know of it.

Its folder holds `train.jsonl` and `eval.jsonl`, one sample a line, each with its right, and `stats.json`, which counts
them by right. So it needs no statement beside it: it says itself under which rights its samples are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import MaterialError
from personas.people import PEOPLE_FILE
from personas.rights import DISCORD_API, Right, Statement, wrong_right

TRAIN_FILE, EVAL_FILE, STATS_FILE = "train.jsonl", "eval.jsonl", "stats.json"
REBUILD = "Build the data set anew."
MIXED = "licensed:mixed"
"""The right to what holds samples under several, none of them Discord's."""


def is_data_set(folder: Path) -> bool:
    """Whether a folder is one that `dataset build` has made, whole or damaged since."""
    samples, about = (TRAIN_FILE, EVAL_FILE), (STATS_FILE, PEOPLE_FILE)
    return all(any((folder / name).is_file() for name in names) for names in (samples, about))


def joint_right(rights: Mapping[str, int]) -> Right:
    """The right that stands for all of several, which are counted: `discord-api` where any of them is that."""
    if DISCORD_API in rights:
        return DISCORD_API
    return next(iter(rights)) if len(rights) == 1 else MIXED


def counted_rights(rights: Mapping[str, int]) -> str:
    """Rights and how many samples are under each, in words."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rights.items()))


def statement_of_set(folder: Path) -> Statement:
    """Under which right a data set is used, by its own word. Raises `MaterialError` when it does not say so."""
    file = folder / STATS_FILE
    try:
        rights = json.loads(file.read_text(encoding="utf-8"))["by_right"]
        counts = {str(right): int(count) for right, count in rights.items()}
        day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
    except FileNotFoundError:
        raise MaterialError(f"The data set {folder.name} is damaged: it has no {STATS_FILE}.", REBUILD) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MaterialError(f"{folder.name} does not say under which rights it is.", REBUILD) from error
    if not counts or any(wrong_right(right) for right in counts):
        raise MaterialError(f"{folder.name} holds samples without a right.", REBUILD)
    why = f"Samples by right: {counted_rights(counts)}. Its data sheet says who states them."
    return Statement(joint_right(counts), f"the data set {folder.name}", day, why)
