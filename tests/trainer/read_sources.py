"""Reading sources in tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.reader import read_source
from trainer.sources.registry import detect_format
from trainer.sources.source_format import ReadOptions


def jsonl(rows: list[Any]) -> bytes:
    """One value a line."""
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def everything(
    path: Path, format: str | None = None, **options: Any
) -> tuple[list[Conversation], list[RejectedRecord]]:
    """All that a source yields, used and not."""
    items = list(read_source(path, ReadOptions(**options), format))
    used = [item for item in items if isinstance(item, Conversation)]
    return used, [item for item in items if isinstance(item, RejectedRecord)]


def spoken(conversation: Conversation) -> list[tuple[str, str]]:
    """Who says what; a star marks the persona."""
    return [(m.speaker.name + "*" * m.speaker.is_persona, m.text) for m in conversation.messages]


def only(path: Path, content: bytes, **options: Any) -> tuple[str, Conversation]:
    """The name of the format and the one conversation of a file in which nothing is rejected."""
    path.write_bytes(content)
    used, rejected = everything(path, **options)
    assert not rejected and len(used) == 1 and used[0].rows == 1
    return detect_format(path).name, used[0]
