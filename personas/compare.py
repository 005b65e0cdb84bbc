"""`compare.json` in a job's folder: what its new version is compared with when it has been trained.

Whoever makes the folder writes it. Paths are as seen from the folder, so that a home can be moved. What lay there may
be gone when it is read: then it is not compared.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from personas.contract import Contract
from personas.durable import put_private
from personas.errors import MaterialError

COMPARE_FILE = "compare.json"


class Neighbour(Contract):
    """Another persona that speaks in the same house: its live adapter's folder, and the folder of the job behind it."""

    persona: str
    adapter: str
    job: str


class Heard(Contract):
    """What members have made of a version, beside `against`: the name of another one, or `base`.

    `votes` are blind ones, by `members` who could be counted. The version is preferred in `least` to `most` of
    comparisons, as far as they make that certain; both None where too few were counted. `up` and `down` are the 👍 and
    👎 on its replies, then on the other's. `evidence` is what one coin has become that was bet on the version being
    disliked more, of which 40 is reached by accident in one of 40 cases at most; None where the two were not tried side
    by side.
    """

    against: str
    votes: int
    members: int
    least: float | None = None
    most: float | None = None
    up: tuple[int, int] = (0, 0)
    down: tuple[int, int] = (0, 0)
    evidence: float | None = None


class Compare(Contract):
    """`live` is the folder of the adapter that the persona speaks with now, None where it speaks without one.

    `heard` is what members have made of the version itself, where it has spoken before them already.
    """

    format: Literal[1] = 1
    live: str | None = None
    neighbours: tuple[Neighbour, ...] = ()
    heard: Heard | None = None


NOTHING = Compare()


def write_compare(folder: Path, compare: Compare) -> None:
    """Put the file in place; `compare` has paths that are absolute. Raises `OSError`."""
    near = Compare(
        live=_seen_from(folder, compare.live) if compare.live else None,
        neighbours=tuple(
            Neighbour(persona=it.persona, adapter=_seen_from(folder, it.adapter), job=_seen_from(folder, it.job))
            for it in compare.neighbours
        ),
        heard=compare.heard,
    )
    put_private(folder / COMPARE_FILE, near.model_dump_json(indent=1).encode() + b"\n")


def read_compare(folder: Path) -> Compare:
    """What is to be compared, with absolute paths; nothing where there is no file.

    Raises `MaterialError` when it cannot be read.
    """
    try:
        near = Compare.model_validate_json((folder / COMPARE_FILE).read_bytes())
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValidationError) as error:
        raise MaterialError(
            f"{folder / COMPARE_FILE} cannot be read.", "Remove it: then nothing is compared but the base model."
        ) from error
    return Compare(
        live=_from(folder, near.live) if near.live else None,
        neighbours=tuple(
            Neighbour(persona=it.persona, adapter=_from(folder, it.adapter), job=_from(folder, it.job))
            for it in near.neighbours
        ),
        heard=near.heard,
    )


def _seen_from(folder: Path, path: str) -> str:
    return Path(os.path.relpath(Path(path).absolute(), folder.absolute())).as_posix()


def _from(folder: Path, path: str) -> str:
    return os.path.normpath(folder.absolute() / path)
