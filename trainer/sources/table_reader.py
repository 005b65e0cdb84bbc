"""Streams the rows of CSV, TSV, Parquet and Arrow files."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from personas.errors import MaterialError
from trainer.sources.conversation import RejectedRecord
from trainer.sources.dates import parse_clock, parse_moment
from trainer.sources.header_names import chat_roles

BATCH_ROWS = 1024
PAGE_BYTES = 1 << 20
MAX_CELL_CHARACTERS = 1 << 24
DELIMITERS = ",\t;|"
MAX_HEADER_CHARACTERS = 64
MAX_COLUMNS = 1_000
SAMPLED_TABLE_LINES = 64
MIN_HEADERLESS_ROWS = 3
MAX_NAME_CHARACTERS = 64
SENTENCE_MARKS = ".!?…。！？:："
FOREIGN = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8 come as lone surrogates (see `SourceFile.lines`)."""


def detect_delimiter(lines: list[str], *, is_named_so: bool) -> str:
    """Return the cell delimiter of a table with a header; empty if the text is not a table.

    `is_named_so`: the file name says it is a table. Then one column is enough, and rows may be
    broken or missing.
    """
    # A quote that is still open at the last line may be closed after it, so the lines are first
    # taken as complete.
    for parse in (_parse_rows, _repair_rows):
        for delimiter in DELIMITERS:
            header, *rows = parse(lines, delimiter) or [[]]
            if not rows or len(header) < 2 or not _is_header(header):
                continue
            whole = rows[:-1] or rows  # the last may have been cut
            if 2 * sum(len(row) == len(header) for row in whole) > len(whole):
                return delimiter
    delimiter = _headerless_delimiter(lines, is_named_so=is_named_so)
    if delimiter or not is_named_so:
        return delimiter
    # A table by its name, of one column or with broken rows: the longest header decides.
    widths: dict[str, int] = {}
    for delimiter in DELIMITERS:
        header = _first_row(lines, delimiter)
        if _is_header(header, may_repeat=True):
            widths[delimiter] = len(header)
    return max(widths, key=widths.__getitem__, default="")


def _headerless_delimiter(lines: list[str], *, is_named_so: bool) -> str:
    """Return the delimiter of a table without a header; empty if there is none.

    Its rows have equally many cells, and one column holds times, or names that recur, unless its
    file's name says that it is a table.
    """
    for delimiter in DELIMITERS:
        rows = _repair_rows(lines[:SAMPLED_TABLE_LINES], delimiter)
        if len(rows) < MIN_HEADERLESS_ROWS or len(rows[0]) < 2 or _is_header(rows[0]):
            continue
        alike = [row for row in rows if len(row) == len(rows[0])]
        if 10 * len(alike) < 9 * len(rows):
            continue
        columns = list(zip(*alike, strict=True))
        if is_named_so or any(map(_are_times, columns)) or sum(map(_are_names, columns)) == 1:
            return delimiter
    return ""


def _are_times(cells: Sequence[str]) -> bool:
    return all(parse_moment(cell) or parse_clock(cell) is not None for cell in cells)


def _are_names(cells: Sequence[str]) -> bool:
    """Report whether cells hold short texts that recur and are no sentences."""
    names = [cell.strip() for cell in cells]
    for name in names:
        is_short = 0 < len(name) <= MAX_NAME_CHARACTERS
        if not is_short or not any(map(str.isalpha, name)):
            return False
        if not set(name).isdisjoint(SENTENCE_MARKS):
            return False
    return 1 < len(set(names)) <= (len(names) + 1) / 2


def has_header(start: str, delimiter: str) -> bool:
    """Report whether the first row of a table that begins with this text names the columns.

    It does not if it cannot be one, if one of its cells is a time, or recurs in its own column
    without being a common name of a column.
    """
    lines = start.splitlines(keepends=True)[:SAMPLED_TABLE_LINES]
    first, *rows = _repair_rows(lines, delimiter) or [[]]
    if not _is_header(first, may_repeat=True):
        return False
    for place, cell in enumerate(first):
        below = [row[place] for row in rows if place < len(row)]
        if _is_data(cell.strip(), below):
            return False
    return True


def _is_data(cell: str, below: Sequence[str]) -> bool:
    """Report whether a cell of the first row is content rather than the name of the column
    `below`.
    """
    if not cell or chat_roles(cell):
        return False
    if parse_moment(cell) or parse_clock(cell) is not None:
        return True
    recurs = cell in {other.strip() for other in below}
    return recurs and (len(set(below)) < len(below) or any(map(str.isdigit, cell)))


def position_names(count: int) -> list[str]:
    """Return the names of columns without a header: their positions, counted from 1."""
    return [str(number) for number in range(1, count + 1)]


def column_names(start: str, delimiter: str, *, is_named: bool = True) -> tuple[str, ...]:
    """Return the column names of a table that begins with this text; positions if no header names
    them.
    """
    first = _first_row(start.splitlines(keepends=True), delimiter)
    return tuple(_names(first) if is_named else position_names(len(first)))


def _first_row(lines: list[str], delimiter: str) -> list[str]:
    rows = _repair_rows(lines[:SAMPLED_TABLE_LINES], delimiter)
    return rows[0] if rows else []


def _parse_rows(lines: list[str], delimiter: str) -> list[list[str]]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []


def _repair_rows(lines: list[str], delimiter: str) -> list[list[str]]:
    return [cells for _, cells in _records(iter(lines), delimiter) if isinstance(cells, list)]


def _is_header(cells: list[str], *, may_repeat: bool = False) -> bool:
    names = [cell.strip() for cell in cells]
    if len(names) > 1 and not names[0]:
        names = names[1:]  # pandas writes its index in a column without a name
    if not 0 < len(names) <= MAX_COLUMNS or not all(map(_is_name, names)):
        return False
    if not may_repeat and len(set(names)) < len(names):
        return False
    # Prose with commas looks like a header, but for the full stop at its end.
    return " " not in names[-1] or not names[-1].endswith((".", "!", "…", "。", "！"))


def _is_name(cell: str) -> bool:
    if not 0 < len(cell) <= MAX_HEADER_CHARACTERS or ":" in cell:
        return False
    return cell[0].isalpha() or cell[0] == "_"


def _names(header: list[str]) -> list[str]:
    """Return column names; duplicates get a number, as in pandas."""
    names: dict[str, None] = {}
    counts = Counter[str]()
    for cell in header:
        name = numbered = cell.strip()
        while numbered in names:
            counts[name] += 1
            numbered = f"{name}.{counts[name]}"
        names[numbered] = None
    return list(names)


class _Lines:
    """A line iterator for table readers; lines since `begin` can be taken back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: list[str] = []  # the next line is the last of these
        self.record: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.pop() if self._back else next(self._lines)
        self.record.append(line)
        self.number += 1
        return line

    def begin(self) -> int:
        """Mark the start of a record; return the number of its first line."""
        self.record.clear()
        return self.number + 1

    def take_back(self) -> None:
        """Return all lines of the record but the first to the iterator."""
        rest = self.record[1:]
        self._back.extend(reversed(rest))
        self.number -= len(rest)


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each record's first line number, and its cells or its fault; skips empty records.

    An unclosed quote swallows everything up to the next quote, which opens another cell. That is
    how it is detected; the swallowed lines are then read as records of their own.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    source = _Lines(lines)
    reader = csv.reader(source, delimiter=delimiter)
    while True:
        number = source.begin()
        try:
            cells = next(reader)
            fault = ""
        except StopIteration:
            return
        except csv.Error as error:
            cells = []
            fault = f"not a row of a table: {error}"
        if len(source.record) > 1 and not _is_valid(source.record, delimiter):
            source.take_back()
            yield number, f"a quote is opened in line {number} and not closed"
        elif fault:
            yield number, fault
        elif cells:
            yield number, cells


def _is_valid(record: list[str], delimiter: str) -> bool:
    """Report whether every quote of a multi-line record is closed right before a delimiter."""
    try:
        return len(list(csv.reader(record, delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


def csv_rows(
    lines: Iterable[str], delimiter: str, *, is_named: bool = True
) -> Iterator[tuple[str, dict[str, Any]] | RejectedRecord]:
    """Yield rows by header names, counted from 1. `lines` keep their line ends: cells may span
    lines.

    Without a header (`is_named` false), the first row is a row, and positions name the columns.
    """
    records = _records(iter(lines), delimiter)
    whole = next(records, (1, []))
    first = whole[1] if isinstance(whole[1], list) else []
    header = _names(first) if is_named else position_names(len(first))
    if not is_named:
        records = itertools.chain([whole], records)
    for number, (_, cells) in enumerate(records, start=1):
        row = f"row {number}"
        if len(header) == 1 and isinstance(cells, list):
            # A list of texts without quotes, which may contain delimiters.
            cells = [delimiter.join(cells)]
        if isinstance(cells, str):
            yield RejectedRecord(row, cells)
        elif len(cells) != len(header):
            yield RejectedRecord(
                row, f"{len(cells)} cells where the header names {len(header)} columns"
            )
        elif FOREIGN.search("\n".join(cells)):
            yield RejectedRecord(row, "not UTF-8")
        else:
            yield row, dict(zip(header, cells, strict=True))


def parquet_rows(stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file, counted from 1. Raises `MaterialError` if it is damaged."""
    import pyarrow as pa  # takes 0.15 s
    import pyarrow.parquet as pq

    try:
        # Column chunks are read page by page: a row group may have a million rows.
        table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=PAGE_BYTES)
        yield from _numbered(table.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged_table_error(name, "Parquet", error) from None


def arrow_rows(stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of an Arrow file or stream, counted from 1. Raises `MaterialError` if it is
    damaged.
    """
    import pyarrow as pa  # takes 0.14 s

    try:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = pa.ipc.open_file(stream)
            yield from _numbered(file.get_batch(index) for index in range(file.num_record_batches))
        else:
            yield from _numbered(pa.ipc.open_stream(stream))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged_table_error(name, "Arrow", error) from None


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for row in batch.slice(start, BATCH_ROWS).to_pylist():
                number += 1
                yield f"row {number}", row


def _damaged_table_error(name: str, container: str, error: Exception) -> MaterialError:
    return MaterialError(
        f"{name} is a damaged {container} file: {first_line(error)}.", "Download or write it again."
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
