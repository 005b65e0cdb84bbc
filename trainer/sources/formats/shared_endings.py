"""Endings that nearly all prompts or all completions of a file have: OpenAI's old completions API
asked for a separator after each prompt, and for a stop sequence after each completion. Nobody says
them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.sources.columns import ColumnRoles, Row
from trainer.sources.conversation_builder import parse_labelled_turns
from trainer.sources.header_names import normalise_column

COLUMNS = {"user": "prompt", "assistant": "completion"}
"""The columns of that API."""
MIN_ROWS = 3
MIN_SHARE = 0.95
STOP_WORD = r"(?:END|STOP|EOS|EOT|DONE)"
TOKEN = (
    r"(?:<\|[^|<>\n]+\|>|</?s>|\[/?[A-Z][A-Z_]+\]|</?(?i:end|stop|eos|bos|eot|pad|sep|end_of_\w+)>"
    rf"|(?<![^\W_]){STOP_WORD}(?:_\w+)?|[-=]+>|[→⇒]|#{{2,}}|={{2,}}|-{{3,}}|\n[ \t]*([*~_%])\1{{2,}})"
)
LABEL = r"\n\s*[*_\[]{0,3}[\w ]{1,24}[*_\]]{0,3}[:：][*_\]]{0,3}"
"""The name before the answer, on a line of its own."""
MARKER = re.compile(rf"(?:\s*{TOKEN})*(?P<label>{LABEL})?\s*\Z")
"""Words in brackets or capitals that models end with, arrows, rules, and a speaker's name. The end
of a sentence, a smiley or another sign may be somebody's way of talking, and stays.
"""
SENTENCE_ENDS = tuple(".!?…*")


def shared_endings(rows: Sequence[Row], columns: ColumnRoles) -> dict[str, str]:
    """Return the marker that nearly all of the first rows end with in a column of prompts or
    completions, by the column.
    """
    endings = {}
    for role, name in COLUMNS.items():
        column = columns.by_role.get(role, "")
        if normalise_column(column) != name:
            continue
        cells = [row.get(column) for row in rows]
        texts = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str)))
        ending = _ending(texts) if len(texts) >= MIN_ROWS else ""
        if ending:
            endings[column] = ending
    return endings


def _ending(texts: Sequence[str]) -> str:
    matches = [MARKER.search(text) for text in texts]
    counts = Counter(match[0] for match in matches if match)
    ending, count = counts.most_common(1)[0]
    if not ending or count < MIN_SHARE * len(texts):
        return ""
    has_label = any(match and match["label"] for match in matches)
    if has_label and any(map(parse_labelled_turns, texts)):
        return ""  # a transcript, of which the last label is read
    rest = [text.removesuffix(ending) for text in texts if text.endswith(ending)]
    # A full stop behind the end of a sentence belongs to the marker.
    is_behind_end = any(text[:-1].endswith(SENTENCE_ENDS) for text in rest)
    return f".{ending}" if is_behind_end and all(text[-1:] == "." for text in rest) else ending


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
