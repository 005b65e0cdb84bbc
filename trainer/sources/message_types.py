"""Rows of chat tables that say of what kind a message is: pictures, calls and notices have a text
of the program's there, which nobody has said.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainer.sources.conversation import RejectedRecord
from trainer.sources.header_names import normalise_column
from trainer.sources.source_file import Record

TYPE_HEADERS = frozenset(
    "type msgtype messagetype typename contenttype kind typ nachrichtentyp tipo 类型 消息类型 類型 "
    "訊息類型 种类 タイプ 종류".split()
)
"""Names of columns, without underscores."""
TEXT_TYPES = frozenset(
    "text txt richtext message chat default reply m.text 文本 文字 文本消息 文字消息 文字訊息 "
    "テキスト 텍스트".split()
)
WECHAT_HEADERS = frozenset("strcontent talkerid issender msgsvrid localid".split())
WECHAT_TEXT = "1"
"""WeChat's own database has numbers for types."""
MAX_TYPE_ROWS = 1_000
MAX_SHOWN_CHARACTERS = 20
Records = Callable[[], Iterator[Record | RejectedRecord]]


def texts_only(records: Records) -> Records:
    """Return the records of a table with those rejected that their column of types says are no
    texts; all of them if no column says so of any.
    """
    column = _type_column(records)
    return (lambda: _filter(records(), column)) if column else records


def _type_column(records: Records) -> str:
    """Return the column that says of one of the first rows that it is a text; empty without
    one.
    """
    for number, record in enumerate(records()):
        if number >= MAX_TYPE_ROWS:
            break
        if isinstance(record, RejectedRecord):
            continue
        for name in filter(_is_type_header, record[1]):
            if _is_text(record[1], name):
                return name
    return ""


def _filter(
    records: Iterator[Record | RejectedRecord], column: str
) -> Iterator[Record | RejectedRecord]:
    for record in records:
        if isinstance(record, RejectedRecord) or _is_text(record[1], column):
            yield record
            continue
        written = str(record[1].get(column) or "").strip()
        if not written:
            yield record
        else:
            yield RejectedRecord(
                record[0], f"no text: {column} is {written[:MAX_SHOWN_CHARACTERS]!r}"
            )


def _is_type_header(name: str) -> bool:
    return _joined(name) in TYPE_HEADERS


def _is_text(row: Mapping[str, Any], column: str) -> bool:
    value = str(row.get(column)).strip().casefold()
    if value == WECHAT_TEXT:
        return not WECHAT_HEADERS.isdisjoint(map(_joined, row))
    return value in TEXT_TYPES


def _joined(name: object) -> str:
    return normalise_column(str(name)).replace("_", "")
