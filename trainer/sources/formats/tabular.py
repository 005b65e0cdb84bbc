"""Turns row schemas into formats, recognises tables of chats, and reads unknown tables by mapped
columns.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from personas.card.toml_card import ID_PATTERN
from personas.errors import MaterialError
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import fold_name
from trainer.sources.column_profile import (
    ColumnProfile,
    ColumnQuestion,
    UnclearColumnsError,
    list_columns,
    profile_column,
    profile_columns,
    propose_mapping,
)
from trainer.sources.columns import (
    MAX_SHOWN_COLUMNS,
    METADATA_COLUMNS,
    ROLE_COLUMNS,
    ColumnRoles,
    Row,
    RowSchema,
    find_column,
    message_keys,
    parse_mapping,
    require_roles,
)
from trainer.sources.conversation import Conversation, RejectedRecord, replace_assistant
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.formats.chat_table import EXPECTED as CHAT_EXPECTED
from trainer.sources.formats.chat_table import ChatColumns, read_chat, recognise_chat
from trainer.sources.formats.kto_rows import KTO_SCHEMAS, are_verdicts, unclear_verdicts
from trainer.sources.formats.message_rows import (
    FALLBACK_SCHEMAS,
    MESSAGE_SCHEMAS,
    dialogue_from_messages,
    dialogue_from_texts,
    dialogue_from_transcript,
    is_excluded,
)
from trainer.sources.formats.participants import PARTICIPANT_SCHEMAS
from trainer.sources.formats.personachat import PERSONA_SCHEMAS
from trainer.sources.formats.preference_rows import PREFERENCE_SCHEMAS
from trainer.sources.formats.qa_rows import QA_SCHEMAS, dialogue_from_answer
from trainer.sources.formats.quotes import QUOTE_LIST_FORMAT, QUOTE_SCHEMA, QUOTES_NOTE
from trainer.sources.formats.role_play import ROLE_PLAY_SCHEMAS
from trainer.sources.formats.scripts import SCRIPT_FORMAT
from trainer.sources.formats.text_lists import are_questions, peek_texts, read_texts
from trainer.sources.header_names import chat_roles, normalise_column
from trainer.sources.record_fields import UnusableRecordError, cell_list
from trainer.sources.source_file import Peek, Record, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

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
COLUMNS_FORMAT = "columns"  # the format of tables that are no known set
PROMPTS_FORMAT = "prompts"
MESSAGE_LIST_KEYS = (
    "content",
    *(name for name in ROLE_COLUMNS["messages"] if name not in ("data", "items")),
)
"""A member of these names contains the messages of one dialogue, not the rows of a table."""
ROW_LOSS_KEYS = ("weight", "loss_weight", "train", "trainable")
"""Columns that exclude a whole row from training by 0 or false."""
SPEAKER_LIKE_COLUMNS = ("user", "human")
"""Names of questions that name a speaker just as often: their content decides."""
ANSWER_COLUMNS = tuple(
    "answer output response completion solution std_answer responses answers outputs".split()
)
"""Names of columns that hold answers even if all of them are numbers, or yes and no."""
CHAT_FORMAT = "chat-table"
LIST_SCHEMAS = ("turns", "ultrachat")
MAX_LIST_ITEMS = 8
"""Longer lists hold a talk rather than the parts of one message."""
OPTIONAL_ROLES = ("input", "system", "history", "lang")
SAMPLED_ROWS = 16  # first rows that decide a table's format
RowParser = tuple[Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]], ColumnRoles]


def first_rows(peek: Peek, mapping: Mapping[str, str] | None = None) -> list[Row]:
    """Return the first rows of a table or of the arrays in a JSON object; the object itself if it
    is a row.
    """
    rows = [row for _, rows in row_arrays(peek, mapping or {}) for row in rows]
    rows = rows or list(peek.records)
    if rows:
        return rows
    # A table without rows is judged by the names of its columns.
    return [dict.fromkeys(peek.columns, "") if peek.columns else peek.head]


def row_arrays(peek: Peek, mapping: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
    """Return the members of a JSON object that hold rows; none if the object itself is a row."""
    mapped = set(parse_mapping(mapping).by_role.values()) if mapping else set()
    if mapping and peek.head.keys() >= mapped:
        return []
    arrays: list[tuple[str, list[Row]]] = []
    for name, rows in peek.head.items():
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            arrays.append((name, rows))
    with_mapped = []
    certain = []
    for name, rows in arrays:
        if mapped & set(list_columns(rows[:SAMPLED_ROWS])):
            with_mapped.append((name, rows))
        if normalise_column(name) not in MESSAGE_LIST_KEYS and _are_rows(rows[:SAMPLED_ROWS]):
            certain.append((name, rows))
    if with_mapped:
        return with_mapped
    # An object in a known form is one row, and its arrays are its cells.
    return certain if certain or _first_schema(peek.head) else arrays


def _are_rows(rows: list[Row]) -> bool:
    """Report whether most of these objects have a known schema."""
    return 2 * sum(_first_schema(row) is not None for row in rows) > len(rows)


def mapped_roles(peek: Peek, options: ReadOptions) -> ColumnRoles:
    """Return the roles that the operator assigns to columns.

    Raises `MaterialError` for an unknown role or column, and `UnclearColumnsError` without a
    mapping.
    """
    rows = first_rows(peek, options.mapping)
    if not options.mapping:
        unclear = unclear_verdicts(rows)
        if unclear:
            column, values = unclear
            raise _unclear_verdict_error(peek, column, values)
        raise UnclearColumnsError(ask_columns(peek), options.mapped_by)
    columns = parse_mapping(options.mapping)
    present = {*list_columns(rows), *(place.name for place in _list_items(rows))}
    present = present.union(*rows)
    missing = [column for column in columns.by_role.values() if column not in present]
    if missing:
        require_roles(options.mapping, present)
        shown = ", ".join(map(str, sorted(present)[:MAX_SHOWN_COLUMNS]))
        raise MaterialError(f"{peek.name} has no column {missing[0]!r}.", f"It has {shown}.")
    return columns


def _unclear_verdict_error(peek: Peek, column: str, values: list[str]) -> MaterialError:
    return MaterialError(
        f"{peek.name}: the column {column!r} has two values, {values[0]!r} and {values[1]!r}, and "
        "it is not guessed which of the answers are good.",
        "Write 1 for answers to learn and 0 for the others; to learn all of them, rename the "
        "column, or name the columns: user=COLUMN assistant=COLUMN.",
    )


def ask_columns(peek: Peek) -> ColumnQuestion:
    """Describe the columns of an unknown table, those of messages in lists too, and propose their
    roles.
    """
    rows = first_rows(peek)
    columns: list[ColumnProfile] = []
    proposal: dict[str, str] = {}
    for column in profile_columns(rows):
        columns.append(column)
        messages = _messages_in(rows, column.name) if column.kind == "lists" else []
        if not messages:
            continue
        profiles = profile_columns(messages)
        columns += [replace(key, name=f"{column.name}[].{key.name}") for key in profiles]
        keys = propose_mapping(profiles)
        if not proposal and {"speaker", "text"} <= keys.keys():
            proposal = {"messages": column.name, "from": keys["speaker"], "value": keys["text"]}
    is_numbered = peek.columns == tuple(map(str, range(1, len(peek.columns) + 1)))
    columns += _list_items(rows)
    flat = [column for column in columns if "[]." not in column.name]
    proposal = propose_mapping(flat) or proposal
    return ColumnQuestion(
        peek.name, tuple(columns), proposal, has_header=not (peek.columns and is_numbered)
    )


def _messages_in(rows: Sequence[Row], column: str) -> list[Row]:
    """Return the objects in the lists of a column."""
    messages: list[Row] = []
    for row in rows:
        messages += [item for item in cell_list(row.get(column)) or () if isinstance(item, dict)]
    return messages


def find_chat(peek: Peek) -> tuple[str, ChatColumns] | None:
    """Return the columns of a chat, and the array of a JSON object that holds it (empty for a
    table).
    """
    if peek.records:
        columns = recognise_chat(profile_columns(peek.records))
        return ("", columns) if columns else None
    for name, rows in peek.head.items():
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            columns = recognise_chat(profile_columns(rows[:-1] or rows))  # the last may be cut
            if columns and not _is_dialogue(peek.head, columns, rows):
                return name, columns
    return None


def _is_dialogue(head: Row, columns: ChatColumns, rows: list[Row]) -> bool:
    """Report whether an object is a dialogue in a known form, whose messages are a user's and an
    assistant's.
    """
    speakers = profile_column("", [row.get(columns["speaker"]) for row in rows])
    return speakers.kind in ("roles", "flags") and _first_schema(head) is not None


def _read_chat_table(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    chat = find_chat(file.peek())
    if chat is None:
        raise UnclearColumnsError(ask_columns(file.peek()), options.mapped_by)
    name, columns = chat
    wanted = {name} if name else set()
    return read_chat(lambda: _records_of(file, wanted), file.name, columns, options)


def _main_schema(peek: Peek) -> RowSchema | None:
    """Return the schema of most of the first rows, if at least half of them have a known one."""
    rows = first_rows(peek)[:SAMPLED_ROWS]
    candidates = ROW_SCHEMAS
    if not are_verdicts(first_rows(peek)):
        candidates = tuple(schema for schema in ROW_SCHEMAS if schema not in KTO_SCHEMAS)
    schemas = [_first_schema(row, candidates) for row in rows]
    known = [schema for schema in schemas if schema]
    if not known or 2 * len(known) < len(rows):
        return None
    return max(ROW_SCHEMAS, key=known.count)


def _first_schema(row: Row, candidates: Sequence[RowSchema] = ROW_SCHEMAS) -> RowSchema | None:
    return next((schema for schema in candidates if plan_row(schema, row)), None)


def plan_row(schema: RowSchema, row: Row) -> ColumnRoles | None:
    """Find the columns of a row by a schema; None for another shape."""
    try:
        return schema.plan(row)
    except UnusableRecordError:
        return None


def _list_items(rows: list[Row]) -> list[ColumnProfile]:
    """Describe the places in lists of texts of one length, as `["Mira", "Is there soup?"]` in each
    row.
    """
    profiles: list[ColumnProfile] = []
    for name in rows[0]:
        lists = list(filter(None, (cell_list(row.get(name)) for row in rows)))
        lengths = {len(cells) for cells in lists}
        if len(lists) < 2 or len(lengths) > 1 or not 1 < len(lists[0]) <= MAX_LIST_ITEMS:
            continue
        if any(isinstance(cell, dict | list) for cell in itertools.chain(*lists)):
            continue
        for number, column in enumerate(zip(*lists, strict=True), start=1):
            profiles.append(profile_column(f"{name}.{number}", column))
    return profiles


def _doubts(peek: Peek, schema: RowSchema) -> bool:
    """Report whether content contradicts a name: of questions or answers, or of texts that are said
    to alternate.
    """
    rows = first_rows(peek)
    if schema.name in LIST_SCHEMAS:
        return any(column.kind in ("names", "dates") for column in _list_items(rows))
    if schema not in QA_SCHEMAS:
        return False
    if unclear_verdicts(rows):
        return True
    columns = next(filter(None, (plan_row(schema, row) for row in rows)), None)
    if columns is None:
        return False
    asked = columns.by_role["user"]
    answer = columns.by_role["assistant"]
    asked_kind = profile_column(asked, [row.get(asked) for row in rows]).kind
    answer_kind = profile_column(answer, [row.get(answer) for row in rows]).kind
    if asked_kind == "dates":
        return True
    if asked_kind == "names" and normalise_column(asked) in SPEAKER_LIKE_COLUMNS:
        return True
    is_class = answer_kind in ("flags", "numbers", "dates", "ids")
    return is_class and normalise_column(answer) not in ANSWER_COLUMNS


def _recognises_columns(peek: Peek) -> bool:
    """Report whether a file is a table with texts, or with lists of objects, that somebody could
    map.
    """
    if peek.kind == "JSON object" and not row_arrays(peek, {}):
        return False
    if peek.columns and not peek.records:
        return True
    columns = profile_columns(first_rows(peek))
    has_texts = len(columns) > 1 and any(column.kind in ("texts", "names") for column in columns)
    return has_texts or any(column.kind == "lists" for column in columns)


def _schema_format(schema: RowSchema) -> SourceFormat:
    return SourceFormat(
        schema.name,
        schema.title,
        schema.expected,
        matches=lambda peek: _main_schema(peek) is schema and not _doubts(peek, schema),
        read=lambda file, options: read_rows(file, options, schema, None),
        note=QUOTES_NOTE if schema.name == "quotes" else "",
        meanings=MEANINGS.get(schema.name, ()),
    )


def _read_columns(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    peek = file.peek()
    if not options.mapping and peek.columns and not peek.records:
        # A table without rows, or whose first rows are all broken.
        return read_rows(file, options, None, None)
    columns = mapped_roles(peek, options)
    if {"speaker", "text"} <= columns.by_role.keys():
        return read_chat(lambda: read_records(file, options), file.name, columns.by_role, options)
    return read_rows(file, options, None, (_dialogue_parser(columns), columns))


def _dialogue_parser(columns: ColumnRoles) -> Callable[[Row, ColumnRoles], RawDialogue]:
    roles = columns.by_role
    if "messages" in roles:
        return dialogue_from_messages if columns.from_key else _dialogue_from_list
    if "transcript" in roles:
        return dialogue_from_transcript
    if "assistant" in roles and ("user" in roles or "history" in roles):
        return dialogue_from_answer
    raise MaterialError(
        "No column has the role of the answers.",
        "Name speaker and text, user and assistant, messages, or transcript.",
    )


def _dialogue_from_list(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list named by the operator: messages under any known keys, or
    alternating texts.
    """
    keys = message_keys(cell_list(columns.get(row, "messages")) or [])
    if keys is None:
        return dialogue_from_texts(row, columns)
    roles = ColumnRoles(columns.by_role, from_key=keys[0], value_key=keys[1])
    return dialogue_from_messages(row, roles)


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
    plans = _first_plans(file, main) if main else {}
    for record in read_records(file, options):
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        key = tuple(row)
        has_mapped = all(column in row or column.split(".")[0] in row for column in needed)
        plan = (forced if has_mapped else None) or plans.get(key)
        if plan is None:
            plan = _plan_for(row, main)
            if plan is None:
                columns = ", ".join(map(str, list(row)[:MAX_SHOWN_COLUMNS])) or "nothing"
                expected = main.expected if main else "of a known schema"
                yield RejectedRecord(place, f"not {expected}: it has {columns}")
                continue
            plans[key] = plan
        parse, columns_of_row = plan
        try:
            parsed = parse(row, columns_of_row)
        except UnusableRecordError as error:
            yield RejectedRecord(place, str(error))
            continue
        _exclude_row(row, parsed)
        yield from _build_items(row, parsed, place, options)


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
        if options.persona and "persona" in row:
            item = _assign_persona(item, row, options)
        yield item


def _exclude_row(row: Row, parsed: RawDialogue | list[RawDialogue]) -> None:
    """Exclude all turns of a row from training if one of its columns says so."""
    if not is_excluded(row, ROW_LOSS_KEYS):
        return
    dialogues = parsed if isinstance(parsed, list) else [parsed]
    for dialogue in dialogues:
        dialogue.untrained = frozenset(range(len(dialogue.texts)))


def _build_scenes(
    dialogues: list[RawDialogue], place: str, options: ReadOptions
) -> list[Conversation | RejectedRecord]:
    """Build the conversations of a row's scenes; the first one that can be used counts as the
    row.
    """
    items = [build_conversation(dialogue, place, options, rows=0) for dialogue in dialogues]
    first = next((at for at, item in enumerate(items) if isinstance(item, Conversation)), 0)
    items[first] = replace(items[first], rows=1)
    return items


def _assign_persona(
    item: Conversation | RejectedRecord, row: Row, options: ReadOptions
) -> Conversation | RejectedRecord:
    """Make the named persona the assistant of messages that name one (as `lore synthesise` writes
    them).
    """
    name = row["persona"]
    persona = options.persona
    if not (
        persona and isinstance(name, str) and "messages" in row and isinstance(item, Conversation)
    ):
        return item
    if fold_name(name) in (fold_name(persona.id), fold_name(persona.name)):
        return replace_assistant(persona, item)
    another = RejectedRecord(item.messages[0].row, f"speaks as {name}", item.rows)
    return another if ID_PATTERN.fullmatch(name) else item  # else it is a description


def _first_plans(file: SourceFile, main: RowSchema) -> dict[tuple[str, ...], RowParser]:
    """Plan the columns of the first rows by the main schema: a single row may look like one of
    another schema.
    """
    plans: dict[tuple[str, ...], RowParser] = {}
    for row in reversed(first_rows(file.peek())[:SAMPLED_ROWS]):
        columns = plan_row(main, row)
        if columns:
            plans[tuple(row)] = (main.parse, columns)
    return plans


def _plan_for(row: Row, main: RowSchema | None) -> RowParser | None:
    for schema in (main, *ROW_SCHEMAS):
        columns = plan_row(schema, row) if schema else None
        if schema and columns:
            return schema.parse, columns
    return None


def read_records(file: SourceFile, options: ReadOptions) -> Iterator[Record | RejectedRecord]:
    """Yield the rows of a table, or those of the arrays of a JSON object that hold rows."""
    wanted: set[str] = set()
    if file.kind == "JSON object":
        wanted = {name for name, _ in row_arrays(file.peek(), options.mapping)}
    return _records_of(file, wanted)


def _records_of(file: SourceFile, wanted: set[str]) -> Iterator[Record | RejectedRecord]:
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


def _recognises_prompts(peek: Peek) -> bool:
    """Report whether a file holds prompts alone: a column of that name without one of answers, or
    only questions.
    """
    rows = first_rows(peek)
    if are_questions(peek_texts(peek)):
        return True
    if not peek.records and not row_arrays(peek, {}):
        return False
    texts = cell_list(rows[0].get(find_column(rows[0], "messages") or "")) or []
    are_texts = bool(texts) and all(isinstance(text, str) for text in texts)
    if are_texts and (len(texts) == 1 or "question_id" in rows[0]):
        return True
    return _has_prompts_alone(rows)


def _has_prompts_alone(rows: list[Row]) -> bool:
    """Report whether a column is named like a prompt, and no other one can be an answer."""
    asked = find_column(rows[0], "user")
    given = find_column(rows[0], "input")
    if asked is None or find_column(rows[0], "assistant"):
        return False
    columns = profile_columns(rows)
    is_speaker_like = normalise_column(asked) in SPEAKER_LIKE_COLUMNS
    for column in columns:
        if column.name in (asked, given) or normalise_column(column.name) in METADATA_COLUMNS:
            continue
        if is_speaker_like and chat_roles(column.name):
            return False  # rather a chat
        if column.kind in ("texts", "lists"):
            return False
    return True


def _read_prompts(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Reject every prompt, with the reason."""
    records = read_texts(file) if peek_texts(file.peek()) else read_records(file, options)
    for item in records:
        if isinstance(item, RejectedRecord):
            yield item
        else:
            yield RejectedRecord(item[0], "a prompt without an answer")


EXPECTED = "any other table with texts, or with lists of messages: --map says which column is what"
PROMPTS = "a column such as prompt or question and none of answers, or a list of questions"
PROMPTS_NOTE = (
    "Prompts without answers: nothing to train on. Use them as questions to a persona, with "
    "model_inference or in the playground, or add a column with its answers."
)
WORSE_KEPT = "worse answers are kept as rejected alternatives, which only preference training uses"
BY_TURNS = (
    "texts name no speakers: the first, third … are taken as the user's, the others as the answers"
)
MEANINGS = {
    **dict.fromkeys(("preference", "scored", "verdict"), (WORSE_KEPT,)),
    **dict.fromkeys(("ultrachat", "turns"), (BY_TURNS,)),
    "kto": ("only answers that are marked as desirable are learned",),
    "personality": ("of the candidates, the last one is the answer",),
    "quotes": ("each quote is taken as a reply to a neutral prompt",),
    "scenes": ("thoughts in [brackets] are left out of the lines",),
}
"""What schemas take with another meaning than it has in the file."""
FORMATS = (
    SourceFormat(
        CHAT_FORMAT,
        "Chat in a table",
        CHAT_EXPECTED,
        matches=lambda peek: find_chat(peek) is not None,
        read=_read_chat_table,
    ),
    *map(_schema_format, ROW_SCHEMAS),
    SCRIPT_FORMAT,
    QUOTE_LIST_FORMAT,
    SourceFormat(
        PROMPTS_FORMAT,
        "Prompts without answers",
        PROMPTS,
        matches=_recognises_prompts,
        read=_read_prompts,
        note=PROMPTS_NOTE,
    ),
    SourceFormat(
        COLUMNS_FORMAT,
        "Mapped columns",
        EXPECTED,
        matches=_recognises_columns,
        read=_read_columns,
    ),
)
GUESSED_FORMATS = (COLUMNS_FORMAT, PROMPTS_FORMAT, SCRIPT_FORMAT.name, QUOTE_LIST_FORMAT.name)
"""Formats that a file may have by chance: beside known exports, none of them is read."""
