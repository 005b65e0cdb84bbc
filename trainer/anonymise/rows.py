"""Tables of texts: rows with a `text`, which come back with it replaced and with `entities`."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, TextIO

from personas.errors import MaterialError
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.entity import replaced
from trainer.sources import recognise
from trainer.sources.files import Peek, SourceFile
from trainer.sources.rows import COLUMNS

LEAST_ID = 10**14
"""Whole numbers from here on may be somebody's id or number."""
ID = "[id]"


def is_rows(file: SourceFile, format: str | None) -> bool:
    """Whether a file holds rows of texts and no talk in a known format."""
    peek = file.peek()
    rows = peek.records or (peek.head,)
    if format or 2 * sum("text" in row for row in rows) <= len(rows):
        return False
    if not any(isinstance(row.get("text"), str) for row in rows):
        return False
    return _is_no_talk(peek, file)


def _is_no_talk(peek: Peek, file: SourceFile) -> bool:
    try:
        return any(set(row) == {"text"} for row in peek.records or (peek.head,)) or recognise(file.path).name == COLUMNS
    except MaterialError:
        return True


def anonymised_row(row: dict[str, Any], anonymiser: Anonymiser) -> dict[str, Any]:
    """The row with its text replaced and `entities` beside it; other texts in it are replaced too."""
    text = row["text"]
    entities = anonymiser.found(text)
    others = {key: _anonymised(value, anonymiser) for key, value in row.items() if key not in ("text", "entities")}
    return {"text": replaced(text, entities), **others, "entities": [asdict(entity) for entity in entities]}


def _anonymised(value: Any, anonymiser: Anonymiser) -> Any:
    if isinstance(value, str):
        return anonymiser.masked_text(value)
    if isinstance(value, list):
        return [_anonymised(one, anonymiser) for one in value]
    if isinstance(value, dict):
        return {key: _anonymised(one, anonymiser) for key, one in value.items()}
    return ID if isinstance(value, int) and abs(value) >= LEAST_ID else value


def write_rows(rows: Iterable[dict[str, Any]], out: TextIO, suffix: str) -> None:
    """Write rows as the file's suffix says: a JSON array, CSV (`entities` as JSON), or JSON Lines."""
    if suffix == ".csv":
        _write_csv(iter(rows), out)
    elif suffix == ".json":
        lead = "["
        for row in rows:
            out.write(f"{lead}\n{_json(row)}")
            lead = ","
        out.write("[]\n" if lead == "[" else "\n]\n")
    else:
        out.writelines(f"{_json(row)}\n" for row in rows)


def _write_csv(rows: Iterator[dict[str, Any]], out: TextIO) -> None:
    first = next(rows, None)
    if first is None:
        return
    columns = list(first)
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in itertools.chain([first], rows):
        writer.writerow({key: value if isinstance(value, str) else _json(value) for key, value in row.items()})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
