"""Turns row schemas into formats, recognises tables of chats, and reads unknown tables by mapped
columns.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    ColumnUse,
    Row,
    RowSchema,
    find_column,
    message_keys,
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
    script_columns,
)
from trainer.sources.formats.chat_table import EXPECTED as CHAT_EXPECTED
from trainer.sources.formats.chat_table import ChatColumns, read_chat, recognise_chat
from trainer.sources.formats.kto_rows import KTO_SCHEMAS, are_verdicts, unclear_verdicts
from trainer.sources.formats.message_rows import (
    FALLBACK_SCHEMAS,
    MESSAGE_SCHEMAS,
    READ_KEYS,
    dialogue_from_messages,
    dialogue_from_texts,
    dialogue_from_transcript,
    is_excluded,
)
from trainer.sources.formats.participants import PARTICIPANT_SCHEMAS
from trainer.sources.formats.personachat import PERSONA_SCHEMAS
from trainer.sources.formats.preference_rows import PREFERENCE_SCHEMAS
from trainer.sources.formats.qa_rows import QA_SCHEMAS, dialogue_from_answer
from trainer.sources.header_names import chat_roles, normalise_column
from trainer.sources.message_order import order_key
from trainer.sources.record_fields import UnusableRecordError, cell_list
from trainer.sources.source_file import Peek, Record, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

ROW_SCHEMAS = (
    *PREFERENCE_SCHEMAS,
    *KTO_SCHEMAS,
    *PERSONA_SCHEMAS,
    *CHARACTER_SCHEMAS,
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
SCRIPT_FORMAT = "script"
LIST_SCHEMAS = ("turns", "ultrachat")
MAX_LIST_ITEMS = 8
"""Longer lists hold a talk rather than the parts of one message."""
ALSO_USED = {
    "personality": ("utterances", "history", "candidates"),
    "sides": tuple(
        "users participants participant1_id participant2_id bot_profile bot_persona "
        "agent_profile".split()
    ),
    "scenes": ("plot", "scenario", "background", "setting", "summary"),
    "preference": ("conversations", "messages"),
}
"""Columns that schemas read without giving them a role."""
OPTIONAL_ROLES = ("input", "system", "history", "lang")
SAMPLED_ROWS = 16  # first rows that decide a table's format
RowParser = tuple[Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]], ColumnRoles]


def first_rows(peek: Peek, mapping: Mapping[str, str] | None = None) -> list[Row]:
    """Return the first rows of a table or of the arrays in a JSON object; the object itself if it
    is a row.
    """
    rows = [row for _, rows in _arrays(peek, mapping or {}) for row in rows] or list(peek.records)
    return rows or [
        dict.fromkeys(peek.columns, "") if peek.columns else peek.head
    ]  # of a table without rows its names


def _arrays(peek: Peek, mapping: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
    """Return the members of a JSON object that hold rows; none if the object itself is a row."""
    mapped = set(parse_mapping(mapping).by_role.values()) if mapping else set()
    if mapping and peek.head.keys() >= mapped:
        return []
    lists = [(name, rows) for name, rows in peek.head.items() if isinstance(rows, list)]
    arrays = [
        (name, rows) for name, rows in lists if rows and all(isinstance(row, dict) for row in rows)
    ]
    if has_mapped := [
        (name, rows) for name, rows in arrays if mapped & set(list_columns(rows[:SAMPLED_ROWS]))
    ]:
        return has_mapped
    certain = [
        (name, rows) for name, rows in arrays if normalise_column(name) not in MESSAGE_LIST_KEYS
    ]
    certain = [(name, rows) for name, rows in certain if _are_rows(rows)]
    return certain if certain or _first_schema(peek.head) else arrays


def _are_rows(rows: list[Row]) -> bool:
    return 2 * sum(_first_schema(row) is not None for row in rows[:SAMPLED_ROWS]) > len(
        rows[:SAMPLED_ROWS]
    )


def mapped_roles(peek: Peek, options: ReadOptions) -> ColumnRoles:
    """Return the roles that the operator assigns to columns.

    Raises `MaterialError` for an unknown role or column, and `UnclearColumnsError` without a
    mapping.
    """
    rows = first_rows(peek, options.mapping)
    if not options.mapping:
        if unclear := unclear_verdicts(rows):
            raise _unclear_verdict_error(peek, *unclear)
        raise UnclearColumnsError(ask_columns(peek), options.mapped_by)
    columns = parse_mapping(options.mapping)
    present = {column for row in rows for column in row} | {
        *list_columns(rows),
        *(it.name for it in _list_items(rows)),
    }
    if missing := [column for column in columns.by_role.values() if column not in present]:
        require_roles(options.mapping, present)
        shown = ", ".join(map(str, sorted(present)[:MAX_SHOWN_COLUMNS]))
        raise MaterialError(f"{peek.name} has no column {missing[0]!r}.", f"It has {shown}.")
    return columns


def _unclear_verdict_error(peek: Peek, column: str, values: list[str]) -> MaterialError:
    return MaterialError(
        f"{peek.name}: the column {column!r} has two values, {values[0]!r} and {values[1]!r}, and "
        "it is not guessed "
        "which of the answers are good.",
        "Write 1 for answers to learn and 0 for the others; to learn all of them, rename the "
        "column, or name the "
        "columns: user=COLUMN assistant=COLUMN.",
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
        inner = [
            m for row in rows for m in cell_list(row.get(column.name)) or () if isinstance(m, dict)
        ]
        if column.kind == "lists" and inner:
            profiles = profile_columns(inner)
            columns += [replace(one, name=f"{column.name}[].{one.name}") for one in profiles]
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


def _chat(peek: Peek) -> tuple[str, ChatColumns] | None:
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
    if (found := _chat(file.peek())) is None:
        raise UnclearColumnsError(ask_columns(file.peek()), options.mapped_by)
    name, columns = found
    wanted = {name} if name else set()
    return read_chat(lambda: _records_of(file, wanted), file.name, columns, options)


def _main_schema(peek: Peek) -> RowSchema | None:
    """Return the schema of most of the first rows, if at least half of them have a known one."""
    rows = first_rows(peek)[:SAMPLED_ROWS]
    candidates = ROW_SCHEMAS
    if not are_verdicts(first_rows(peek)):
        candidates = tuple(schema for schema in ROW_SCHEMAS if schema not in KTO_SCHEMAS)
    schemas = [schema for row in rows if (schema := _first_schema(row, candidates))]
    return (
        max(ROW_SCHEMAS, key=schemas.count) if schemas and 2 * len(schemas) >= len(rows) else None
    )


def _first_schema(row: Row, candidates: Sequence[RowSchema] = ROW_SCHEMAS) -> RowSchema | None:
    return next((schema for schema in candidates if _plan(schema, row)), None)


def _plan(schema: RowSchema, row: Row) -> ColumnRoles | None:
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
        lists = [cells for row in rows if (cells := cell_list(row.get(name)))]
        is_alike = (
            len(lists) > 1 and len({*map(len, lists)}) == 1 and 1 < len(lists[0]) <= MAX_LIST_ITEMS
        )
        if is_alike and not any(isinstance(cell, dict | list) for cells in lists for cell in cells):
            columns = enumerate(zip(*lists, strict=True), start=1)
            profiles += [profile_column(f"{name}.{number}", column) for number, column in columns]
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
    columns = next((columns for row in rows if (columns := _plan(schema, row))), None)
    if columns is None:
        return False
    asked, answer = (columns.by_role[role] for role in ("user", "assistant"))
    looks = {
        name: profile_column(name, [row.get(name) for row in rows]).kind for name in (asked, answer)
    }
    is_speaker = looks[asked] == "names" and normalise_column(asked) in SPEAKER_LIKE_COLUMNS
    is_class = (
        looks[answer] in ("flags", "numbers", "dates", "ids")
        and normalise_column(answer) not in ANSWER_COLUMNS
    )
    return is_speaker or is_class or looks[asked] == "dates"


def _recognises_columns(peek: Peek) -> bool:
    """Report whether a file is a table with texts, or with lists of objects, that somebody could
    map.
    """
    if peek.kind == "JSON object" and not _arrays(peek, {}):
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
        lambda peek: _main_schema(peek) is schema and not _doubts(peek, schema),
        lambda file, options: read_rows(file, options, schema, None),
        note=QUOTES_NOTE if schema.name == "quotes" else "",
        meanings=MEANINGS.get(schema.name, ()),
    )


def _read_columns(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    peek = file.peek()
    if not options.mapping and peek.columns and not peek.records:
        return read_rows(
            file, options, None, None
        )  # a table without rows, or whose first ones are all broken
    columns = mapped_roles(peek, options)
    if {"speaker", "text"} <= columns.by_role.keys():
        return read_chat(lambda: _records(file, options), file.name, columns.by_role, options)
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
    if keys := message_keys(cell_list(columns.get(row, "messages")) or []):
        return dialogue_from_messages(row, ColumnRoles(columns.by_role, *keys))
    return dialogue_from_texts(row, columns)


def read_rows(
    file: SourceFile, options: ReadOptions, main: RowSchema | None, unknown: RowParser | None
) -> Iterator[Conversation | RejectedRecord]:
    """Yield one conversation per row. Rows of other known schemas than `main` are read by their
    own.

    Columns are resolved once for all rows with the same columns; `unknown` is the operator's plan
    for those that have its columns.
    """
    forced = unknown if options.mapping else None
    needed = (
        [it for role, it in unknown[1].by_role.items() if role not in OPTIONAL_ROLES]
        if unknown
        else []
    )
    plans = _first_plans(file, main) if main else {}
    for record in _records(file, options):
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        key = tuple(row)
        plan = (
            forced
            if all(column.split(".")[0] in row or column in row for column in needed)
            else None
        )
        plan = plan or plans.get(key)
        if plan is None:
            plan = _plan_for(row, main)
            if plan is None:
                columns = ", ".join(map(str, list(row)[:MAX_SHOWN_COLUMNS])) or "nothing"
                yield RejectedRecord(
                    place, f"not {main.expected if main else 'of a known schema'}: it has {columns}"
                )
                continue
            plans[key] = plan
        try:
            parsed = plan[0](row, plan[1])
        except UnusableRecordError as error:
            yield RejectedRecord(place, str(error))
            continue
        _exclude_row(row, parsed)
        if isinstance(parsed, list):
            items = _build_scenes(parsed, place, options)
        else:
            items = [build_conversation(parsed, place, options)]
        for item in items:
            if row.get("right") == DISCORD_API and isinstance(
                item, Conversation
            ):  # as data sets of ours state it
                item = replace(item, right=DISCORD_API)
            yield (
                _assign_persona(item, row, options)
                if options.persona and "persona" in row
                else item
            )


def _exclude_row(row: Row, parsed: RawDialogue | list[RawDialogue]) -> None:
    """Exclude all turns of a row from training if one of its columns says so."""
    if is_excluded(row, ROW_LOSS_KEYS):
        for dialogue in parsed if isinstance(parsed, list) else [parsed]:
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
    planned = (
        (tuple(row), _plan(main, row)) for row in reversed(first_rows(file.peek())[:SAMPLED_ROWS])
    )
    return {key: (main.parse, columns) for key, columns in planned if columns}


def _plan_for(row: Row, main: RowSchema | None) -> RowParser | None:
    for schema in (*([main] if main else []), *ROW_SCHEMAS):
        if columns := _plan(schema, row):
            return schema.parse, columns
    return None


def _records(file: SourceFile, options: ReadOptions) -> Iterator[Record | RejectedRecord]:
    is_object = file.kind == "JSON object"
    return _records_of(
        file, {name for name, _ in _arrays(file.peek(), options.mapping)} if is_object else set()
    )


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
        elif name not in known and not isinstance(
            first := next(records, None), RejectedRecord | None
        ):
            yield first
            yield from records


def describe_columns(file: SourceFile, format: str, options: ReadOptions) -> ColumnUse:
    """Return what becomes of the columns of a table in one of these formats.

    Raises `MaterialError` for a wrong mapping, and `UnclearColumnsError` without one where it takes
    one.
    """
    peek = file.peek()
    if format == COLUMNS_FORMAT and (options.mapping or peek.records or not peek.columns):
        columns = mapped_roles(peek, options)
        keys = {"from": columns.from_key, "value": columns.value_key}
        used = {**columns.by_role, **{role: key for role, key in keys.items() if key}}
        time, inner = _message_fields(first_rows(peek, options.mapping), [columns])
        unused = (*_unused(peek, columns.by_role.values(), options), *inner)
        return ColumnUse({**used, **time}, unused, is_mapped=True)
    if format == CHAT_FORMAT and (chat := _chat(peek)):
        rows = list(peek.records) or peek.head[chat[0]]
        return ColumnUse(chat[1], _without(list_columns(rows), chat[1].values()))
    if format == SCRIPT_FORMAT and (script := script_columns(peek)):
        return ColumnUse(script, _without(list_columns(list(peek.records)), script.values()))
    schema = next((schema for schema in ROW_SCHEMAS if schema.name == format), None)
    planned = [roles for row in first_rows(peek) if (roles := _plan(schema, row))] if schema else []
    if not planned:
        return ColumnUse()
    used = {role: column for roles in planned for role, column in roles.by_role.items()}
    taken = {
        *used.values(),
        *(key for roles in planned for key in (roles.from_key, roles.value_key)),
    }
    taken |= {*ALSO_USED.get(format, ()), *ROW_LOSS_KEYS, "persona", "right"}
    time, inner = _message_fields(first_rows(peek), planned)
    return ColumnUse({**used, **time}, (*_unused(peek, taken, options), *inner))


def _message_fields(
    rows: list[Row], planned: Sequence[ColumnRoles]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the field that orders the messages inside lists, by role, and the fields that are not
    used.
    """
    orders: dict[str, str] = {}
    fields: dict[str, None] = {}
    read: set[str] = set()
    for roles in planned:
        name = roles.by_role.get("messages")
        if name is None or "scenes" in roles.by_role:
            continue
        for row in rows:
            cells = cell_list(roles.get(row, "messages")) or []
            messages = [message for message in cells if isinstance(message, dict)]
            if (
                keys := (roles.from_key, roles.value_key)
                if roles.from_key
                else message_keys(messages)
            ):
                read |= {f"{name}[].{key}" for key in (*keys, *READ_KEYS)}
                fields |= dict.fromkeys(
                    f"{name}[].{key}" for message in messages for key in message
                )
            if key := order_key(messages):
                orders["order"] = f"{name}[].{key}"
    return orders, tuple(
        field for field in fields if field not in read and field not in orders.values()
    )


def _unused(peek: Peek, used: Collection[str], options: ReadOptions) -> tuple[str, ...]:
    rows = first_rows(peek, options.mapping)
    return _without(list(dict.fromkeys(str(name) for row in rows for name in row)), used)


def _without(columns: Sequence[str], used: Collection[str]) -> tuple[str, ...]:
    """Return the columns of which no part is used."""
    parts = {part for name in used for part in (name, name.split(".")[0])}
    return tuple(name for name in columns if name not in parts and name.split(".")[0] not in used)


def _recognises_prompts(peek: Peek) -> bool:
    """Report whether a file holds prompts alone: a column of that name without one of answers, or
    only questions.
    """
    rows = first_rows(peek)
    talk = cell_list(rows[0].get(find_column(rows[0], "messages") or "")) or []
    is_talk = all(isinstance(text, str) for text in talk) and (
        len(talk) == 1 or "question_id" in rows[0]
    )
    has_prompts = _has_prompts_alone(rows) or (bool(talk) and is_talk)
    return (has_prompts and bool(peek.records or _arrays(peek, {}))) or are_questions(
        peek_texts(peek)
    )


def _has_prompts_alone(rows: list[Row]) -> bool:
    """Report whether a column is named like a prompt, and no other one can be an answer."""
    asked = find_column(rows[0], "user")
    given = find_column(rows[0], "input")
    if asked is None or find_column(rows[0], "assistant"):
        return False
    columns = profile_columns(rows)
    others = [
        c
        for c in columns
        if c.name not in (asked, given) and normalise_column(c.name) not in METADATA_COLUMNS
    ]
    if normalise_column(asked) in SPEAKER_LIKE_COLUMNS and any(
        chat_roles(column.name) for column in others
    ):
        return False  # rather a chat
    return not any(column.kind in ("texts", "lists") for column in others)


def _read_prompts(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Reject every prompt, with the reason."""
    records = read_texts(file) if peek_texts(file.peek()) else _records(file, options)
    for item in records:
        yield (
            item
            if isinstance(item, RejectedRecord)
            else RejectedRecord(item[0], "a prompt without an answer")
        )


EXPECTED = "any other table with texts, or with lists of messages: --map says which column is what"
PROMPTS = "a column such as prompt or question and none of answers, or a list of questions"
PROMPTS_NOTE = (
    "Prompts without answers: nothing to train on. Use them as questions to a persona, with "
    "model_inference or in the "
    "playground, or add a column with its answers."
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
        lambda peek: _chat(peek) is not None,
        _read_chat_table,
    ),
    *map(_schema_format, ROW_SCHEMAS),
    *TEXT_FORMATS,
    SourceFormat(
        PROMPTS_FORMAT,
        "Prompts without answers",
        PROMPTS,
        _recognises_prompts,
        _read_prompts,
        note=PROMPTS_NOTE,
    ),
    SourceFormat(COLUMNS_FORMAT, "Mapped columns", EXPECTED, _recognises_columns, _read_columns),
)
GUESSED_FORMATS = (COLUMNS_FORMAT, PROMPTS_FORMAT, *(format.name for format in TEXT_FORMATS))
