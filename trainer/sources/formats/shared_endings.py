"""Endings that all prompts or all completions of a file have: OpenAI's old completions API asked
for a separator after each prompt, and for a stop sequence after each completion. Nobody says them.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.sources.columns import ColumnRoles, Row
from trainer.sources.conversation_builder import parse_labelled_turns
from trainer.sources.header_names import normalise_column

COLUMNS = {"user": "prompt", "assistant": "completion"}
"""The columns of that API."""
MIN_ROWS = 3
SIGN = r"[^\w\s.!?…。！？,;'\"“”‘’)\]}」』`]"
STOP_WORD = r"END|STOP|EOS|EOT|DONE"
WORD = (
    rf"(?:<\|\w+\|>|</s>|(?:{STOP_WORD})\b|[<\[](?:{STOP_WORD}|end|stop|eos|eot)[>\]]"
    r"|<end_of_\w+>|END_\w+)"
)
SEPARATOR = re.compile(
    rf"(?:\s+(?:{SIGN}+|{WORD})|(?![*~|]){SIGN}{{2,}}|<\|\w+\|>|</s>)(?:\s|{SIGN}|{WORD})*\Z"
)
"""Signs, or a word that models end with; the end of a sentence, a bracket or markup is none."""
LABEL = re.compile(r"\n\s*[\w ]{1,24}[:：]\s*\Z")
"""The name before the answer, on a line of its own."""
ARROW = re.compile("[-=]+>")
SMILEY = re.compile(
    r"[:;=8xX]['’-]?[()\[\]DPpOo3|/\\*]+|[<>]3|\^_*\^|[\u2190-\u2bff\U0001f000-\U0001faff]"
)


def shared_endings(rows: Sequence[Row], columns: ColumnRoles) -> dict[str, str]:
    """Return the ending that all of the first rows have in a column of prompts or completions, by
    the column.
    """
    endings = {}
    for role, name in COLUMNS.items():
        column = columns.by_role.get(role, "")
        if normalise_column(column) != name:
            continue
        cells = [row.get(column) for row in rows]
        texts = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str)))
        ending = _ending(texts) if len(texts) >= MIN_ROWS and len(rows) == len(cells) else ""
        if ending:
            endings[column] = ending
    return endings


def _ending(texts: Sequence[str]) -> str:
    columns = zip(*map(reversed, texts), strict=False)
    alike = itertools.takewhile(lambda signs: len(set(signs)) == 1, columns)
    shared = "".join(signs[0] for signs in alike)[::-1]
    label = LABEL.search(shared)
    if label and any(map(parse_labelled_turns, texts)):
        return ""  # a transcript, of which the last label is read
    end = label.start() if label else len(shared)
    separator = SEPARATOR.search(shared[:end])
    if separator and not SMILEY.search(ARROW.sub("", separator[0])):
        return shared[separator.start() :]
    return shared[end:]


def strip_endings(row: Row, endings: Mapping[str, str]) -> Row:
    """Return a row without these endings."""
    if not endings:
        return row
    changed: dict[str, Any] = {}
    for column, ending in endings.items():
        cell = row.get(column)
        if isinstance(cell, str):
            changed[column] = cell.removesuffix(ending)
    return {**row, **changed}
