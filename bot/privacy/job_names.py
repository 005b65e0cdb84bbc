"""Replaces the names that a member gave to training jobs."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from personas.home.adapters import dialogue_adapter_folder
from personas.home.atomic_files import replace_durably, write_file
from personas.home.job_folder import REQUEST_FILE

GENERATED_JOB_NAME = re.compile(r".+-\d{4}-\d{6}|job-[0-9a-f]{10}", re.DOTALL)
"""The name that `/finetune start` generates for a job without one, and that jobs are given here."""


def job_name_replacements(names: Iterable[str], keyed: Callable[[str], str]) -> tuple[str, ...]:
    """Return `old=new` for each name that a member chose; deterministic."""
    replacements = []
    for name in names:
        if not GENERATED_JOB_NAME.fullmatch(name):
            key = keyed(f"job:{name}")
            replacements.append(f"{name}=job-{key[:10]}")
    return tuple(replacements)


class JobNameReplacer:
    """Finds and replaces a person's job names."""

    FIELDS = "job_name", "start_from"

    def __init__(self, renamed: Iterable[str]) -> None:
        self._new = dict(pair.split("=", 1) for pair in renamed)
        alternatives = "|".join(map(re.escape, self._new))
        pattern = (
            rf'("(?:{"|".join(self.FIELDS)})"\s*:\s*"|\bdialogue/)({alternatives})(?![A-Za-z0-9_-])'
        )
        self._pattern = re.compile(pattern) if alternatives else None

    def __bool__(self) -> bool:
        return bool(self._new)

    def in_text(self, text: str) -> bool:
        return bool(self._pattern and self._pattern.search(text))

    def replaced(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: match[1] + self._new[match[2]], text)

    def new(self, name: str) -> str:
        return self._new.get(name, name)

    def rename_files(self, home: Path) -> None:
        """Rename dialogue adapters, and the job in job folders. May be repeated. Raises
        `OSError`.
        """
        for old, new in self._new.items():
            folder = dialogue_adapter_folder(home, old)
            if folder.exists():
                replace_durably(folder, dialogue_adapter_folder(home, new))
        if not self:
            return
        for request in (home / "jobs").glob(f"*/{REQUEST_FILE}"):
            text = request.read_text(encoding="utf-8", errors="surrogateescape")
            if self.in_text(text):
                write_file(request, self.replaced(text).encode("utf-8", errors="surrogateescape"))
