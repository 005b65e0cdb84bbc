"""What a person who checked the anonymiser has found wrong: names that stay, and names that were missed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from personas.errors import RequestError


@dataclass(frozen=True)
class Corrections:
    """`keep` are names that stay, `also` names that are replaced wherever they stand."""

    keep: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def read_corrections(file: Path) -> Corrections:
    """A file with one correction a line, `keep NAME` or `also NAME`; a list's dash may stand before it.

    Raises `RequestError` naming the line that is neither, and `OSError`.
    """
    said: dict[str, list[str]] = {"keep": [], "also": []}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        what, _, name = line.strip().lstrip("-").strip().partition(" ")
        if not line.strip():
            continue
        if what not in said or not name.strip():
            raise RequestError(
                f"{file}, line {number}: {line.strip()[:60]!r} is no correction.", "Write `keep NAME` or `also NAME`."
            )
        said[what].append(name.strip())
    return Corrections(tuple(said["keep"]), tuple(said["also"]))
