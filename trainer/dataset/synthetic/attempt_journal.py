"""The journal of a generation that goes on after a kill: a file of JSON lines, the first of which says
what it is a journal of.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personas.errors import MaterialError


def read_journal(path: Path, advice: str) -> list[dict[str, Any]]:
    """Read the whole lines of a journal, and remove a partial last one, which a kill leaves; nothing
    without a file.

    Raises `MaterialError` with this advice where a line is damaged.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise MaterialError(f"{path} is damaged.", advice) from None


def append_to_journal(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line, which is on disk afterwards. Raises `OSError`."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
