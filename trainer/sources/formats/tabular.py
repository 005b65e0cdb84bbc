"""Turns row schemas into formats, and reads unknown tables by guessed or mapped columns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from personas.card.toml_card import ID_PATTERN
from personas.errors import MaterialError
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import fold_name
from trainer.sources.columns import (
    MAX_SHOWN_COLUMNS,
    ROLE_COLUMNS,
    ColumnRoles,
    Row,
    RowSchema,
    find_column,
    guess_columns,
    message_keys,
    normalise_column,
    parse_mapping,
    require_roles,
)
from trainer.sources.conversation import Conversation, RejectedRecord, replace_assistant
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.formats.character_lines import (
    CHARACTER_SCHEMAS,
    QUOTES_NOTE,
    TEXT_FORMATS,
    are_questions,
    peek_texts,
    read_texts,
)
from trainer.sources.formats.message_rows import (
    FALLBACK_SCHEMAS,
    MESSAGE_SCHEMAS,
    dialogue_from_messages,
    dialogue_from_texts,
    dialogue_from_transcript,
)
from trainer.sources.formats.personachat import PERSONA_SCHEMAS
from trainer.sources.formats.preference_rows import PREFERENCE_SCHEMAS
from trainer.sources.formats.qa_rows import QA_SCHEMAS, dialogue_from_answer
from trainer.sources.record_fields import UnusableRecordError, cell_list
from trainer.sources.source_file import Peek, Record, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

ROW_SCHEMAS = (
    *PREFERENCE_SCHEMAS,
    *PERSONA_SCHEMAS,
    *CHARACTER_SCHEMAS,
    *MESSAGE_SCHEMAS,
    *QA_SCHEMAS,
    *FALLBACK_SCHEMAS,
)
COLUMNS_FORMAT = "columns"  # the format of tables that are no known set
PROMPTS_FORMAT = "prompts"
MESSAGE_LIST_KEYS = ("content", *(name for name in ROLE_COLUMNS["messages"] if name not in ("data", "items")))
"""A member of these names contains the messages of one dialogue, not the rows of a table."""
SAMPLED_ROWS = 16  # first rows that decide a table's format
RowParser = tuple[Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]], ColumnRoles]


def first_rows(peek: Peek, mapping: Mapping[str, str] | None = None) -> list[Row]:
    """Return the first rows of a table or of the arrays in a JSON object; the object itself if it is a row."""
    rows = [row for _, rows in _arrays(peek, mapping or {}) for row in rows] or list(peek.records)
    return rows or [dict.fromkeys(peek.columns, "") if peek.columns else peek.head]  # of a table without rows its names


def _arrays(peek: Peek, mapping: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
    """Return the members of a JSON object that hold rows; none if the object itself is a row."""
    if mapping and peek.head.keys() >= set(parse_mapping(mapping).by_role.values()):
        return []
    lists = [(name, rows) for name, rows in peek.head.items() if isinstance(rows, list)]
    arrays = [(name, rows) for name, rows in lists if rows and all(isinstance(row, dict) for row in rows)]
    certain = [(name, rows) for name, rows in arrays if normalise_column(name) not in MESSAGE_LIST_KEYS]
    certain = [(name, rows) for name, rows in certain if _are_rows(rows)]
    return certain if certain or _first_schema(peek.head) else arrays


def _are_rows(rows: list[Row]) -> bool:
    return 2 * sum(_first_schema(row) is not None for row in rows[:SAMPLED_ROWS]) > len(rows[:SAMPLED_ROWS])


def guess_roles(peek: Peek, options: ReadOptions) -> ColumnRoles | None:
    """Return the roles assigned to unknown columns. Raises `MaterialError` for an unknown role or column."""
    rows = first_rows(peek, options.mapping)
    if not options.mapping:
        return guess_columns([row for row in rows if row.keys() == rows[0].keys()]) if rows[0] else None
    columns = parse_mapping(options.mapping)
    present = {column for row in rows for column in row}
    if missing := [column for column in columns.by_role.values() if column not in present]:
        require_roles(options.mapping, present)
        shown = ", ".join(map(str, sorted(present)[:MAX_SHOWN_COLUMNS]))
        raise MaterialError(f"{peek.name} has no column {missing[0]!r}.", f"It has {shown}.")
    return columns


def _main_schema(peek: Peek) -> RowSchema | None:
    """Return the schema of most of the first rows, if at least half of them have a known one."""
    rows = first_rows(peek)[:SAMPLED_ROWS]
    schemas = [schema for row in rows if (schema := _first_schema(row))]
    return max(ROW_SCHEMAS, key=schemas.count) if schemas and 2 * len(schemas) >= len(rows) else None


def _first_schema(row: Row) -> RowSchema | None:
    return next((schema for schema in ROW_SCHEMAS if _plan(schema, row)), None)


def _plan(schema: RowSchema, row: Row) -> ColumnRoles | None:
    try:
        return schema.plan(row)
    except UnusableRecordError:
        return None


def _recognises_columns(peek: Peek) -> bool:
    if peek.kind == "JSON object" and not _arrays(peek, {}):
        return False
    return guess_roles(peek, ReadOptions()) is not None or (bool(peek.columns) and not peek.records)


def _schema_format(schema: RowSchema) -> SourceFormat:
    return SourceFormat(
        schema.name,
        schema.title,
        schema.expected,
        lambda peek: _main_schema(peek) is schema,
        lambda file, options: read_rows(file, options, schema, None),
        note=QUOTES_NOTE if schema.name == "quotes" else "",
    )


def _read_columns(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    columns = guess_roles(file.peek(), options)
    if columns:
        return read_rows(file, options, None, (_dialogue_parser(columns), columns))
    if file.peek().records:
        raise MaterialError(f"The roles of {file.name}'s columns are unclear.", "Name them: --map user=COLUMN …")
    return read_rows(file, options, None, None)  # a table without rows, or whose first ones are all broken


def _dialogue_parser(columns: ColumnRoles) -> Callable[[Row, ColumnRoles], RawDialogue]:
    roles = columns.by_role
    if "messages" in roles:
        return dialogue_from_messages if columns.from_key else _dialogue_from_list
    if "transcript" in roles:
        return dialogue_from_transcript
    if "assistant" in roles and ("user" in roles or "history" in roles):
        return dialogue_from_answer
    raise MaterialError("No column has the role of the answers.", "Name user and assistant, messages, or transcript.")


def _dialogue_from_list(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list named by the operator: messages under any known keys, or alternating texts."""
    if keys := message_keys(cell_list(columns.get(row, "messages")) or []):
        return dialogue_from_messages(row, ColumnRoles(columns.by_role, *keys))
    return dialogue_from_texts(row, columns)


def read_rows(
    file: SourceFile, options: ReadOptions, main: RowSchema | None, unknown: RowParser | None
) -> Iterator[Conversation | RejectedRecord]:
    """Yield one conversation per row. Rows of other known schemas than `main` are read by their own.

    Columns are resolved once for all rows with the same columns; `unknown` is the plan for those of no known schema
    and, if the operator gave it, for all.
    """
    forced = unknown if options.mapping else None
    plans = _first_plans(file, main) if main else {}
    for record in _records(file, options):
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        key = tuple(row)
        plan = forced or plans.get(key)
        if plan is None:
            plan = _plan_for(row, main)
            if plan is None and unknown and row.keys() >= set(unknown[1].by_role.values()):
                plan = unknown
            if plan is None:
                columns = ", ".join(map(str, list(row)[:MAX_SHOWN_COLUMNS])) or "nothing"
                yield RejectedRecord(place, f"not {main.expected if main else 'of a known schema'}: it has {columns}")
                continue
            plans[key] = plan
        try:
            parsed = plan[0](row, plan[1])
        except UnusableRecordError as error:
            yield RejectedRecord(place, str(error))
            continue
        if isinstance(parsed, list):
            items = _build_scenes(parsed, place, options)
        else:
            items = [build_conversation(parsed, place, options)]
        for item in items:
            if row.get("right") == DISCORD_API and isinstance(item, Conversation):  # as data sets of ours state it
                item = replace(item, right=DISCORD_API)
            yield _assign_persona(item, row, options) if options.persona and "persona" in row else item


def _build_scenes(
    dialogues: list[RawDialogue], place: str, options: ReadOptions
) -> list[Conversation | RejectedRecord]:
    """Build the conversations of a row's scenes; the first one that can be used counts as the row."""
    items = [build_conversation(dialogue, place, options, rows=0) for dialogue in dialogues]
    first = next((at for at, item in enumerate(items) if isinstance(item, Conversation)), 0)
    items[first] = replace(items[first], rows=1)
    return items


def _assign_persona(
    item: Conversation | RejectedRecord, row: Row, options: ReadOptions
) -> Conversation | RejectedRecord:
    """Make the named persona the assistant of messages that name one (as `lore synthesise` writes them)."""
    name, persona = row["persona"], options.persona
    if not (persona and isinstance(name, str) and "messages" in row and isinstance(item, Conversation)):
        return item
    if fold_name(name) in (fold_name(persona.id), fold_name(persona.name)):
        return replace_assistant(persona, item)
    another = RejectedRecord(item.messages[0].row, f"speaks as {name}", item.rows)
    return another if ID_PATTERN.fullmatch(name) else item  # else it is a description


def _first_plans(file: SourceFile, main: RowSchema) -> dict[tuple[str, ...], RowParser]:
    """Plan the columns of the first rows by the main schema: a single row may look like one of another schema."""
    planned = ((tuple(row), _plan(main, row)) for row in reversed(first_rows(file.peek())[:SAMPLED_ROWS]))
    return {key: (main.parse, columns) for key, columns in planned if columns}


def _plan_for(row: Row, main: RowSchema | None) -> RowParser | None:
    for schema in (*([main] if main else []), *ROW_SCHEMAS):
        if columns := _plan(schema, row):
            return schema.parse, columns
    return None


def _records(file: SourceFile, options: ReadOptions) -> Iterator[Record | RejectedRecord]:
    peek = file.peek()
    wanted = {name for name, _ in _arrays(peek, options.mapping)} if file.kind == "JSON object" else set()
    if not wanted:
        yield from file.records()
        return
    # What a peek shows in full is known; arrays that come later are judged by how they begin.
    known = list(peek.head)[: -1 if file.is_cut else None]
    for name, records in file.arrays():
        if name in wanted:
            yield from records
        elif name not in known and not isinstance(first := next(records, None), RejectedRecord | None):
            yield first
            yield from records


def _recognises_prompts(peek: Peek) -> bool:
    """Report whether a file holds prompts alone: a column of that name without one of answers, or only questions."""
    rows = first_rows(peek)
    talk = cell_list(rows[0].get(find_column(rows[0], "messages") or "")) or []
    is_talk = all(isinstance(text, str) for text in talk) and (len(talk) == 1 or "question_id" in rows[0])
    has_prompts = find_column(rows[0], "user") is not None or (bool(talk) and is_talk)
    return (has_prompts and bool(peek.records or _arrays(peek, {}))) or are_questions(peek_texts(peek))


def _read_prompts(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Reject every prompt, with the reason."""
    records = read_texts(file) if peek_texts(file.peek()) else _records(file, options)
    for item in records:
        yield item if isinstance(item, RejectedRecord) else RejectedRecord(item[0], "a prompt without an answer")


EXPECTED = "a table with texts in two columns, or a list of messages in one; --map says which"
PROMPTS = "a column such as prompt or question and none of answers, or a list of questions"
PROMPTS_NOTE = (
    "Prompts without answers: nothing to train on. Use them as questions to a persona, with model_inference or in the "
    "playground, or add a column with its answers."
)
FORMATS = (
    *map(_schema_format, ROW_SCHEMAS),
    *TEXT_FORMATS,
    SourceFormat(COLUMNS_FORMAT, "Unknown columns", EXPECTED, _recognises_columns, _read_columns),
    SourceFormat(
        PROMPTS_FORMAT, "Prompts without answers", PROMPTS, _recognises_prompts, _read_prompts, note=PROMPTS_NOTE
    ),
)
GUESSED_FORMATS = (COLUMNS_FORMAT, PROMPTS_FORMAT, *(format.name for format in TEXT_FORMATS))
