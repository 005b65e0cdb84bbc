"""Reads the rows of a table, one conversation each, by their schemas or by the operator's mapping."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from personas.card.toml_card import ID_PATTERN
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import Persona, fold_name
from trainer.sources.columns import MAX_SHOWN_COLUMNS, ColumnRoles, Row, RowSchema
from trainer.sources.conversation import Conversation, RejectedRecord, replace_assistant
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.formats.known_schemas import (
    ROW_SCHEMAS,
    SAMPLED_ROWS,
    first_rows,
    plan_row,
    row_arrays,
)
from trainer.sources.formats.message_rows import is_excluded
from trainer.sources.formats.shared_endings import shared_endings, strip_endings
from trainer.sources.record_fields import UnusableRecordError
from trainer.sources.source_file import Record, SourceFile
from trainer.sources.source_format import ReadOptions
from trainer.sources.unread_columns import (
    UnreadColumn,
    require_no_media,
    require_read,
    unread_columns,
)

ROW_LOSS_KEYS = ("weight", "loss_weight", "train", "trainable")
"""Columns that exclude a whole row from training by 0 or false."""
OPTIONAL_ROLES = ("input", "system", "history", "lang")
RowParser = tuple[Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]], ColumnRoles]


Parsed = RawDialogue | list[RawDialogue]


@dataclass(frozen=True)
class _Sample:
    """The first rows of a file, by which its columns are judged, and columns to leave out."""

    rows: Sequence[Row]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _RowPlan:
    """How rows with the same columns are read, and those that are not. `is_mapped`: the operator has
    left the latter out.
    """

    parse: Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]]
    columns: ColumnRoles
    unread: tuple[UnreadColumn, ...]
    is_mapped: bool = False

    @classmethod
    def of(cls, row: Row, schema: RowSchema, columns: ColumnRoles, sample: _Sample) -> Self:
        """Plan the rows of a known schema."""
        read = (*columns.by_role.values(), *schema.also_read, *ROW_LOSS_KEYS, *sample.unused)
        if "messages" not in columns.by_role:
            read = (*read, columns.from_key, columns.value_key)
        return cls(schema.parse, columns, unread_columns(row, read, sample.rows or (row,)))

    @classmethod
    def mapped(cls, row: Row, parser: RowParser, sample: _Sample) -> Self:
        """Plan rows whose columns the operator names."""
        read = (*parser[1].by_role.values(), *sample.unused)
        return cls(*parser, unread_columns(row, read, sample.rows), is_mapped=True)

    def dialogues(self, row: Row, endings: Mapping[str, str]) -> Parsed:
        """Parse a row. Raises `UnusableRecordError`, also for what would be lost of it."""
        parsed = self.parse(strip_endings(row, endings), self.columns)
        if self.is_mapped:
            require_no_media(row, self.unread)
        else:
            require_read(row, self.unread, parsed if isinstance(parsed, list) else [parsed])
        return parsed


def read_records(file: SourceFile, options: ReadOptions) -> Iterator[Record | RejectedRecord]:
    """Yield the rows of a table, or those of the arrays of a JSON object that hold rows."""
    wanted: set[str] = set()
    if file.kind == "JSON object":
        wanted = {name for name, _ in row_arrays(file.peek(), options.mapping)}
    return records_of(file, wanted)


def records_of(file: SourceFile, wanted: set[str]) -> Iterator[Record | RejectedRecord]:
    """Yield the rows of a table, or those of the `wanted` arrays of a JSON object."""
    peek = file.peek()
    if not wanted:
        yield from file.records()
        return
    # What a peek shows in full is known; arrays that come later are judged by how they begin.
    known = list(peek.head)[: -1 if file.is_cut else None]
    for name, records in file.arrays():
        if name in wanted:
            yield from records
        elif name not in known:
            first = next(records, None)
            if first is not None and not isinstance(first, RejectedRecord):
                yield first
                yield from records


def read_rows(
    file: SourceFile, options: ReadOptions, main: RowSchema | None, unknown: RowParser | None
) -> Iterator[Conversation | RejectedRecord]:
    """Yield one conversation per row. Rows of other known schemas than `main` are read by their
    own.

    Columns are resolved once for all rows with the same columns; `unknown` is the operator's plan
    for those that have its columns.
    """
    forced = unknown if options.mapping else None
    needed: list[str] = []
    if unknown:
        roles = unknown[1].by_role
        needed = [column for role, column in roles.items() if role not in OPTIONAL_ROLES]
    sample = _Sample(first_rows(file.peek(), options.mapping), options.unused)
    plans = _first_plans(sample, main) if main else {}
    mapped: dict[tuple[str, ...], _RowPlan] = {}
    endings = _endings(sample, [*plans.values()], forced)
    for record in read_records(file, options):
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        key = tuple(row)
        has_mapped = all(column in row or column.split(".")[0] in row for column in needed)
        if has_mapped and forced:
            plan = mapped.get(key) or mapped.setdefault(key, _RowPlan.mapped(row, forced, sample))
        else:
            found = plans.get(key) or _plan_for(row, main, sample)
            if found is None:
                columns = ", ".join(map(str, list(row)[:MAX_SHOWN_COLUMNS])) or "nothing"
                expected = main.expected if main else "of a known schema"
                yield RejectedRecord(place, f"not {expected}: it has {columns}")
                continue
            plan = plans.setdefault(key, found)
        try:
            parsed = plan.dialogues(row, endings)
        except UnusableRecordError as error:
            yield RejectedRecord(place, str(error))
            continue
        _exclude_row(row, parsed if isinstance(parsed, list) else [parsed])
        yield from _build_items(row, parsed, place, options)


def _endings(
    sample: _Sample, plans: Sequence[_RowPlan], forced: RowParser | None
) -> dict[str, str]:
    """Return the endings that the texts of all first rows have, by column."""
    columns = [forced[1]] if forced else [plan.columns for plan in plans]
    endings: dict[str, str] = {}
    for roles in columns:
        endings |= shared_endings(sample.rows, roles)
    return endings


def _first_plans(sample: _Sample, main: RowSchema) -> dict[tuple[str, ...], _RowPlan]:
    """Plan the columns of the first rows by the main schema: a single row may look like one of
    another schema.
    """
    plans: dict[tuple[str, ...], _RowPlan] = {}
    # Backwards, so that of several rows with the same columns the first one decides.
    for row in reversed(sample.rows[:SAMPLED_ROWS]):
        columns = plan_row(main, row)
        if columns:
            plans[tuple(row)] = _RowPlan.of(row, main, columns, sample)
    return plans


def _plan_for(row: Row, main: RowSchema | None, sample: _Sample) -> _RowPlan | None:
    for schema in (main, *ROW_SCHEMAS):
        columns = plan_row(schema, row) if schema else None
        if schema and columns:
            return _RowPlan.of(row, schema, columns, sample)
    return None


def _exclude_row(row: Row, dialogues: list[RawDialogue]) -> None:
    """Exclude all turns of a row from training if one of its columns says so."""
    if not is_excluded(row, ROW_LOSS_KEYS):
        return
    for dialogue in dialogues:
        dialogue.untrained = frozenset(range(len(dialogue.texts)))


def _build_items(
    row: Row, parsed: RawDialogue | list[RawDialogue], place: str, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the conversations of a row, with the right and the persona that our own data sets
    state.
    """
    if isinstance(parsed, list):
        items = _build_scenes(parsed, place, options)
    else:
        items = [build_conversation(parsed, place, options)]
    for item in items:
        if row.get("right") == DISCORD_API and isinstance(item, Conversation):
            item = replace(item, right=DISCORD_API)
        if options.persona and "persona" in row and isinstance(item, Conversation):
            yield _assign_persona(item, row, options.persona)
        else:
            yield item


def _build_scenes(
    dialogues: list[RawDialogue], place: str, options: ReadOptions
) -> list[Conversation | RejectedRecord]:
    """Build the conversations of a row's scenes; the first one that can be used counts as the
    row.
    """
    items = [build_conversation(dialogue, place, options, rows=0) for dialogue in dialogues]
    counted = 0
    for index, item in enumerate(items):
        if isinstance(item, Conversation):
            counted = index
            break
    items[counted] = replace(items[counted], rows=1)
    return items


def _assign_persona(
    conversation: Conversation, row: Row, persona: Persona
) -> Conversation | RejectedRecord:
    """Make the named persona the assistant of messages that name one (as `lore synthesise` writes
    them).
    """
    name = row["persona"]
    if not isinstance(name, str) or "messages" not in row:
        return conversation
    if fold_name(name) in (fold_name(persona.id), fold_name(persona.name)):
        return replace_assistant(persona, conversation)
    if not ID_PATTERN.fullmatch(name):
        # No persona has such an id: the column holds descriptions.
        return conversation
    place = conversation.messages[0].row
    return RejectedRecord(place, f"speaks as {name}", conversation.rows)
