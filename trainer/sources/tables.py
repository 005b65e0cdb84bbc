"""Tables as rows of name and value: CSV and TSV, Parquet, Arrow."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from personas.errors import MaterialError
from trainer.conversation import Rejected

BATCH_ROWS = 1024
PAGE_BYTES = 1 << 20
LONGEST_CELL = 1 << 24
DELIMITERS = ",\t;|"
LONGEST_HEADER = 64
FOREIGN = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8 come as lone surrogates (see `SourceFile.lines`)."""


def delimiter_of(lines: list[str], *, is_named_so: bool) -> str:
    """What separates the cells of a table with a header; empty when the text is none.

    `is_named_so` tells that the file's name calls it a table; then one column suffices.
    """
    for delimiter in DELIMITERS:
        rows = _parsed(lines, delimiter)
        if len(rows) < 2 or not _is_header(rows[0]) or len(rows[0]) < 2:
            continue
        whole = rows[1:-1] or rows[1:]  # the last may have been cut
        if 2 * sum(len(row) == len(rows[0]) for row in whole) > len(whole):
            return delimiter
    rows = _parsed(lines, ",")
    return "," if is_named_so and len(rows) > 1 and len(rows[0]) == 1 and _is_header(rows[0]) else ""


def _parsed(lines: list[str], delimiter: str) -> list[list[str]]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []


def _is_header(cells: list[str]) -> bool:
    names = [cell.strip() for cell in cells]
    if len(names) > 1 and not names[0]:  # pandas writes its index so
        names = names[1:]
    return len(set(names)) == len(names) and all(_is_name(name) for name in names)


def _is_name(cell: str) -> bool:
    return 0 < len(cell) <= LONGEST_HEADER and (cell[0].isalpha() or cell[0] == "_") and ":" not in cell


def csv_rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[str, dict[str, Any]] | Rejected]:
    """Rows by the names of the header, counted from 1. `lines` keep their line ends: cells may span them."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter)
    header = [cell.strip() for cell in next(reader, [])]
    for number in itertools.count(1):
        row = f"row {number}"
        try:
            cells = next(reader)
            while not cells:
                cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Rejected(row, f"not a row of a table: {error}")
            continue
        if len(cells) != len(header):
            yield Rejected(row, f"{len(cells)} cells where the header names {len(header)} columns")
        elif FOREIGN.search("\n".join(cells)):
            yield Rejected(row, "not UTF-8")
        else:
            yield row, dict(zip(header, cells, strict=True))


def parquet_rows(stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a Parquet file, counted from 1. Raises `MaterialError` when it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Column chunks are read page by page: a row group may hold a million rows.
        table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=PAGE_BYTES)
        yield from _numbered(table.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, "Parquet", error) from None


def arrow_rows(stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of an Arrow file or stream, counted from 1. Raises `MaterialError` when it is damaged."""
    import pyarrow as pa

    try:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = pa.ipc.open_file(stream)
            yield from _numbered(file.get_batch(index) for index in range(file.num_record_batches))
        else:
            yield from _numbered(pa.ipc.open_stream(stream))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, "Arrow", error) from None


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for row in batch.slice(start, BATCH_ROWS).to_pylist():
                number += 1
                yield f"row {number}", row


def _damaged(name: str, container: str, error: Exception) -> MaterialError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MaterialError(f"{name} is a damaged {container} file: {said}.", "Download or write it again.")
