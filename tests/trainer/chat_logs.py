"""Reading chat logs in tests: what came of a file, and whether every record of it is accounted
for.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.reader import read_source
from trainer.sources.source_format import ReadOptions

BEGIN_S = 1_772_355_600.0
"""1 March 2026, 09:00 UTC."""


@dataclass(frozen=True)
class Outcome:
    """What a source yielded: `dropped` counts records by reason, `rows` are all, used or not."""

    talks: list[Conversation]
    dropped: Counter[str]
    rows: int
    rejected: list[RejectedRecord]

    @property
    def said(self) -> list[list[tuple[str, str]]]:
        """Name and text of each message, by conversation."""
        return [
            [(message.speaker.name, message.text) for message in talk.messages]
            for talk in self.talks
        ]


def outcome(path: Path, format: str | None = None, **options: Any) -> Outcome:
    """All of a file, recognised unless the format is given."""
    talks: list[Conversation] = []
    rejected: list[RejectedRecord] = []
    for item in read_source(path, ReadOptions(**options), format):
        if isinstance(item, RejectedRecord):
            rejected.append(item)
        else:
            talks.append(item)
    dropped: Counter[str] = Counter()
    for item in rejected:
        dropped[item.reason] += item.rows
    return Outcome(talks, dropped, sum(item.rows for item in [*talks, *rejected]), rejected)


def write(path: Path, content: object) -> Path:
    """A file of text, of bytes, or of a value as JSON; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(
            content if isinstance(content, str) else json.dumps(content),
            encoding="utf-8",
            newline="",
        )
    return path


def write_all(folder: Path, files: dict[str, object], *, zipped: bool) -> Path:
    """Files in a folder, or in an archive beside it."""
    for name, content in files.items():
        write(folder / name, content)
    if not zipped:
        return folder
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.write(folder / name, name)
    return path


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Anything that JSON can hold."""


def damaged(record: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A record of which some fields are missing or hold anything; or something else altogether."""
    fields = {name: st.just(value) | VALUES for name, value in record.items()}
    return st.fixed_dictionaries({}, optional=fields) | VALUES
