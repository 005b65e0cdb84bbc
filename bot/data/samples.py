"""The samples of a data set, in the order of its files."""

from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from bot.data.built_datasets import SPLIT_FILES
from personas.errors import MaterialError
from personas.home.built_dataset import REBUILD_ADVICE

SAMPLE_FILES = dict((*SPLIT_FILES, ("dropped", "dropped.jsonl")))
"""The file of each split, dropped records included."""
SampleJson = dict[str, Any]


def read_samples(folder: Path, split: str, first: int, limit: int) -> list[SampleJson]:
    """Read so many samples of a split from a number on, the first being 0. Raises `MaterialError`."""
    file = folder / SAMPLE_FILES[split]
    if not file.exists():
        return []
    try:
        with file.open("rb") as stream:
            return [_parse_line(raw) for raw in islice(stream, first, first + limit)]
    except OSError as error:
        raise MaterialError(
            f"The samples of {folder.name} cannot be read: {error.strerror}.",
            REBUILD_ADVICE,
        ) from error


def _parse_line(raw: bytes) -> SampleJson:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        line = None
    return line if isinstance(line, dict) else {}
