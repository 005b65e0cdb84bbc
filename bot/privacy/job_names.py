"""The names that a person gave to trainings: what they typed, so it goes; the job and what it made stay.

One name stands in several places that have to go on agreeing: the job's row and its request, the numbering of versions,
`request.json` in the job's folder, the folder of a dialogue adapter, and the log's line that says what begins.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from bot.job_folder import REQUEST, dialogue_place

GIVEN_BY_THE_BOT = re.compile(r".+-\d{4}-\d{6}|job-[0-9a-f]{10}", re.DOTALL)
"""What `/finetune start` calls a job for whom names none, and what one is called here."""


def renamed_jobs(chosen: Iterable[str], keyed: Callable[[str], str]) -> tuple[str, ...]:
    """`old=new` for each name that somebody chose; the same new one however often this is asked."""
    return tuple(f"{name}=job-{keyed(f'job:{name}')[:10]}" for name in chosen if not GIVEN_BY_THE_BOT.fullmatch(name))


class JobNames:
    """Finds and replaces a person's job names, where they stand as such."""

    FIELD = "job_name"

    def __init__(self, renamed: Iterable[str]) -> None:
        self._new = dict(pair.split("=", 1) for pair in renamed)
        either = "|".join(map(re.escape, self._new))
        self._where = (
            re.compile(rf'("{self.FIELD}"\s*:\s*"|\bdialogue/)({either})(?![A-Za-z0-9_-])') if either else None
        )

    def __bool__(self) -> bool:
        return bool(self._new)

    def in_text(self, text: str) -> bool:
        """Whether one stands in a text."""
        return bool(self._where and self._where.search(text))

    def replaced(self, text: str) -> str:
        """The text with others instead."""
        return self._where.sub(lambda found: found[1] + self._new[found[2]], text) if self._where else text

    def new(self, name: str) -> str:
        """What a job is called now."""
        return self._new.get(name, name)

    def rename_files(self, home: Path) -> None:
        """Rename dialogue adapters, and what job folders say of themselves. May be repeated. Raises `OSError`."""
        for old, new in self._new.items():
            place = dialogue_place(home, old)
            if place.exists():
                place.rename(dialogue_place(home, new))
        for request in (home / "jobs").glob(f"*/{REQUEST}") if self else ():
            text = request.read_text(encoding="utf-8", errors="surrogateescape")
            if self.in_text(text):
                aside = request.with_name(f".{REQUEST}.{secrets.token_hex(4)}")
                aside.write_text(self.replaced(text), encoding="utf-8", errors="surrogateescape")
                aside.replace(request)
