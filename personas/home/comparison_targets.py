"""Adapters that a new version is compared with (`compare.json` in the job folder)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel
from personas.schemas.scorecard import MemberFeedback

COMPARE_FILE = "compare.json"


class NeighbourPaths(FrozenModel):
    """Another persona of the bot: the folders of its live adapter and of that adapter's job."""

    persona: str
    adapter: str
    job: str


class ComparisonTargets(FrozenModel):
    """Adapters to compare a new version with: folder of the live one, neighbours, and the version's
    own feedback.
    """

    format: Literal[1] = 1
    live: str | None = None
    neighbours: tuple[NeighbourPaths, ...] = ()
    heard: MemberFeedback | None = None


NO_COMPARISON = ComparisonTargets()


def write_comparison_targets(folder: Path, compare: ComparisonTargets) -> None:
    """Write the file, with paths relative to the folder. Raises `OSError`."""

    def relative(path: str) -> str:
        return Path(os.path.relpath(Path(path).absolute(), folder.absolute())).as_posix()

    write_model(folder / COMPARE_FILE, _with_paths(compare, relative))


def read_comparison_targets(folder: Path) -> ComparisonTargets:
    """Read the targets with absolute paths; none without a file. Raises `MaterialError`."""
    advice = "Remove it: then the adapter is compared with the base model only."
    stored = read_model(folder / COMPARE_FILE, ComparisonTargets, advice) or NO_COMPARISON
    return _with_paths(stored, lambda path: os.path.normpath(folder.absolute() / path))


def _with_paths(targets: ComparisonTargets, convert: Callable[[str], str]) -> ComparisonTargets:
    neighbours = []
    for one in targets.neighbours:
        paths = {"adapter": convert(one.adapter), "job": convert(one.job)}
        neighbours.append(one.model_copy(update=paths))
    live = targets.live and convert(targets.live)
    return targets.model_copy(update={"live": live, "neighbours": tuple(neighbours)})
