"""Data sets that `dataset build` has written, and the rights to their samples."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import MaterialError
from personas.home.data_subjects import PEOPLE_FILE
from personas.home.rights import RightsStatement
from personas.schemas.base import DISCORD_API, Right, right_error

TRAIN_FILE = "train.jsonl"
EVAL_FILE = "eval.jsonl"
STATS_FILE = "stats.json"
REBUILD_ADVICE = "Build the data set again."
# Right of a data set with samples under several rights, none of them Discord's.
MIXED_RIGHT = "licensed:mixed"


def is_built_dataset(folder: Path) -> bool:
    """Return True if a folder was built by `dataset build`, complete or damaged."""
    has_samples = (folder / TRAIN_FILE).is_file() or (folder / EVAL_FILE).is_file()
    return has_samples and ((folder / STATS_FILE).is_file() or (folder / PEOPLE_FILE).is_file())


def combine_rights(rights: Mapping[str, int]) -> Right:
    """Return the right that covers all of several, given with counts: `discord-api` if it is among
    them.
    """
    if DISCORD_API in rights:
        return DISCORD_API
    return next(iter(rights)) if len(rights) == 1 else MIXED_RIGHT


def format_right_counts(rights: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rights.items()))


def dataset_statement(folder: Path) -> RightsStatement:
    """Read the right stated in a built data set. Raises `MaterialError` if there is none."""
    file = folder / STATS_FILE
    try:
        rights = json.loads(file.read_text(encoding="utf-8"))["by_right"]
        counts = {str(right): int(count) for right, count in rights.items()}
        day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
    except FileNotFoundError:
        raise MaterialError(
            f"The data set {folder.name} is damaged: it has no {STATS_FILE}.", REBUILD_ADVICE
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MaterialError(
            f"{folder.name} does not state the rights to its samples.", REBUILD_ADVICE
        ) from error
    if not counts or any(right_error(right) for right in counts):
        raise MaterialError(f"{folder.name} has samples without a right.", REBUILD_ADVICE)
    why = f"Samples by right: {format_right_counts(counts)}. Its data sheet says who states them."
    return RightsStatement(combine_rights(counts), f"the data set {folder.name}", day, why)
