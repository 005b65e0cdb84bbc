"""Who states which right to a file of training material: `rights.toml` in the same folder.

It has a table per file name with `right`, `stated_by`, `stated_on` and `why`. Nothing is trained on without.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from personas.errors import MaterialError

Right = Literal["own-writing", "data-package", "form", "licensed", "discord-api"]
RIGHTS_FILE = "rights.toml"
RIGHTS: tuple[str, ...] = get_args(Right)
NEEDED = ("stated_by", "stated_on", "why")


@dataclass(frozen=True)
class Statement:
    """A stated right, and by whom."""

    right: Right
    stated_by: str


def statement_beside(file: Path) -> Statement | None:
    """What `rights.toml` beside a file or folder states of it, None without a word.

    Raises `MaterialError` when it cannot be read or leaves something out.
    """
    rights = file.parent / RIGHTS_FILE
    short = f"{rights.parent.name}/{rights.name}"  # as members may see it: without the folders of this machine
    try:
        stated = tomllib.loads(rights.read_text(encoding="utf-8-sig")).get(file.name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        raise MaterialError(
            f"{short} cannot be read: {reason}.", "Correct it; nothing is trained until then."
        ) from error
    if not isinstance(stated, dict) or not stated.get("right"):
        return None
    if wrong := wrong_statement(stated):
        raise MaterialError(f"{short} {wrong} for {file.name}.", f"Known rights: {', '.join(RIGHTS)}.")
    return statement_of(stated)


def wrong_statement(stated: Mapping[str, object]) -> str:
    """What a table that states a right lacks, as the end of a sentence; empty when it is complete."""
    if missing := [key for key in NEEDED if not stated.get(key)]:
        return f"leaves out {', '.join(missing)}"
    return "" if stated.get("right") in RIGHTS else f"names an unknown right, {stated.get('right')!r}"


def statement_of(stated: Mapping[str, object]) -> Statement:
    """The statement of a complete table."""
    return Statement(cast(Right, stated["right"]), str(stated["stated_by"]))
