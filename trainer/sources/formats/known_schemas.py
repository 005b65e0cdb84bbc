"""The row schemas of known data sets in their order, and the rows of a file by which one of them is
recognised.
"""

from collections.abc import Mapping, Sequence

from trainer.sources.column_profile import list_columns
from trainer.sources.columns import ROLE_COLUMNS, ColumnRoles, Row, RowSchema, parse_mapping
from trainer.sources.formats.kto_rows import KTO_SCHEMAS, are_verdicts
from trainer.sources.formats.message_rows import FALLBACK_SCHEMAS, MESSAGE_SCHEMAS
from trainer.sources.formats.participants import PARTICIPANT_SCHEMAS
from trainer.sources.formats.persona_rows import PERSONA_SCHEMAS
from trainer.sources.formats.preference_rows import PREFERENCE_SCHEMAS
from trainer.sources.formats.qa_rows import QA_SCHEMAS
from trainer.sources.formats.quotes import QUOTE_SCHEMA
from trainer.sources.formats.role_play import ROLE_PLAY_SCHEMAS
from trainer.sources.header_names import normalise_column
from trainer.sources.record_fields import UnusableRecordError
from trainer.sources.source_file import Peek

# The first schema that fits a row decides, so the order matters: answers with a verdict, for
# example, have all columns of plain answers.
ROW_SCHEMAS = (
    *PREFERENCE_SCHEMAS,
    *KTO_SCHEMAS,
    *PERSONA_SCHEMAS,
    *ROLE_PLAY_SCHEMAS,
    QUOTE_SCHEMA,
    *PARTICIPANT_SCHEMAS,
    *MESSAGE_SCHEMAS,
    *QA_SCHEMAS,
    *FALLBACK_SCHEMAS,
)
MESSAGE_LIST_KEYS = (
    "content",
    *(name for name in ROLE_COLUMNS["messages"] if name not in ("data", "items")),
)
"""A member of these names contains the messages of one dialogue, not the rows of a table."""
SAMPLED_ROWS = 16  # first rows that decide a table's format


def plan_row(schema: RowSchema, row: Row) -> ColumnRoles | None:
    """Find the columns of a row by a schema; None for another shape."""
    try:
        return schema.plan(row)
    except UnusableRecordError:
        return None


def first_schema(row: Row, candidates: Sequence[RowSchema] = ROW_SCHEMAS) -> RowSchema | None:
    """Return the first schema that fits a row; None if none does."""
    for schema in candidates:
        if plan_row(schema, row):
            return schema
    return None


def main_schema(peek: Peek) -> RowSchema | None:
    """Return the schema of most of the first rows, if at least half of them have a known one."""
    rows = first_rows(peek)[:SAMPLED_ROWS]
    candidates: Sequence[RowSchema] = ROW_SCHEMAS
    if not are_verdicts(first_rows(peek)):
        candidates = [schema for schema in ROW_SCHEMAS if schema not in KTO_SCHEMAS]
    schemas = [first_schema(row, candidates) for row in rows]
    known = [schema for schema in schemas if schema]
    if not known or 2 * len(known) < len(rows):
        return None
    return max(ROW_SCHEMAS, key=known.count)


def first_rows(peek: Peek, mapping: Mapping[str, str] | None = None) -> list[Row]:
    """Return the first rows of a table or of the arrays in a JSON object; the object itself if it
    is a row.
    """
    rows: list[Row] = []
    for _, array in row_arrays(peek, mapping or {}):
        rows += array
    rows = rows or list(peek.records)
    if rows:
        return rows
    if peek.columns:
        # A table without rows is judged by the names of its columns.
        return [dict.fromkeys(peek.columns, "")]
    return [peek.head]


def row_arrays(peek: Peek, mapping: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
    """Return the members of a JSON object that hold rows; none if the object itself is a row."""
    mapped = set(parse_mapping(mapping).by_role.values()) if mapping else set()
    if mapping and peek.head.keys() >= mapped:
        return []
    arrays = object_arrays(peek)
    with_mapped = []
    certain = []
    for name, rows in arrays:
        sampled = rows[:SAMPLED_ROWS]
        if mapped & set(list_columns(sampled)):
            with_mapped.append((name, rows))
        if normalise_column(name) not in MESSAGE_LIST_KEYS and _have_schemas(sampled):
            certain.append((name, rows))
    if with_mapped:
        return with_mapped
    # An object in a known form is one row, and its arrays are its cells.
    if certain or first_schema(peek.head):
        return certain
    return arrays


def object_arrays(peek: Peek) -> list[tuple[str, list[Row]]]:
    """Return the members of a JSON object that are arrays of objects."""
    arrays: list[tuple[str, list[Row]]] = []
    for name, rows in peek.head.items():
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            arrays.append((name, rows))
    return arrays


def _have_schemas(rows: list[Row]) -> bool:
    """Report whether most of these objects have a known schema."""
    known = sum(first_schema(row) is not None for row in rows)
    return 2 * known > len(rows)
