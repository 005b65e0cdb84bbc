"""What is taken of each source: a number of samples, or a ratio between sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from personas.errors import RequestError
from personas.rights import Statement

Item = TypeVar("Item")
SOURCE = re.compile(r"(?P<path>.+?)(?:=(?P<format>[a-z0-9][a-z0-9-]*))?(?::(?P<limit>\d+))?", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A source as named on the command line. `limit`: at most so many of its samples, None for all.

    `statement` is what the catalogue states of it, where it is named there, `persona_names` who in it is the persona.
    """

    path: Path
    format: str | None = None
    limit: int | None = None
    statement: Statement | None = None
    persona_names: tuple[str, ...] = ()


def parse_source(text: str) -> Source:
    """`PATH[=FORMAT][:COUNT]`; what exists as a path under the whole text is one. Raises `RequestError`."""
    whole = Path(text).expanduser()
    if text and whole.exists():
        return Source(whole)
    found = SOURCE.fullmatch(text)
    if not found:
        raise RequestError(f"{text!r} names no source.", "Write PATH, PATH=FORMAT, PATH:COUNT or PATH=FORMAT:COUNT.")
    limit = int(found["limit"]) if found["limit"] else None
    if limit == 0:
        raise RequestError(f"{text!r} takes none of its samples.", "Leave the source out, or give a count from 1.")
    return Source(Path(found["path"]).expanduser(), found["format"], limit)


def parse_mix(text: str) -> tuple[float, ...]:
    """`80:20` and the like: two or more numbers above zero. Raises `RequestError`."""
    parts = text.split(":")
    try:
        weights = tuple(float(part) for part in parts)
    except ValueError:
        weights = ()
    if len(weights) < 2 or not all(0 < weight < float("inf") for weight in weights):
        raise RequestError(f"{text!r} is no ratio.", "Write numbers above zero with : between them, such as 80:20.")
    return weights


def names_of(sources: Sequence[Source]) -> list[str]:
    """What the sources are called: their files' names, with as much of the path as tells them apart."""
    paths = [source.path.absolute() for source in sources]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise RequestError(f"{twice.name} is named twice as a source.", "Name each source once.")
    names = [path.name for path in paths]
    depth = 1
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in paths]
    return names


def interleaved(streams: Sequence[Iterator[Item]], weights: Sequence[float]) -> Iterator[Item]:
    """Items in the ratio of the weights, until the stream whose turn it is has ended: more would break the ratio."""
    taken = [0] * len(streams)
    while True:
        turn = min(range(len(streams)), key=lambda number: (taken[number] + 1) / weights[number])
        try:
            item = next(streams[turn])
        except StopIteration:
            return
        taken[turn] += 1
        yield item


def quotas(limit: int | None, train: int, heldout: int) -> tuple[int, int]:
    """How many samples a source gives to (train, held out), from how many conversations it has for each."""
    unbounded = 2**62
    if limit is None:
        return unbounded, unbounded
    if not train or not heldout:
        return limit, limit
    of_heldout = min(max(round(limit * heldout / (train + heldout)), 1), max(limit - 1, 0))
    return limit - of_heldout, of_heldout
