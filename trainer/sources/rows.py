"""Tables of talk: rows of any shape that is known, or whose columns can be guessed or are named with `--map`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from personas.card import ID_PATTERN
from personas.errors import MaterialError
from personas.letters import folded
from personas.rights import DISCORD_API
from trainer.conversation import Conversation, Rejected, spoken_by
from trainer.sources.answers import ANSWERS, talk_of_answer
from trainer.sources.columns import NAMES, SHOWN, Columns, Row, guess, mapped, message_keys, plain, require_roles
from trainer.sources.files import Peek, Record, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.persona_rows import PERSONA_ROWS
from trainer.sources.preferences import PREFERENCES
from trainer.sources.shapes import LOOSE, MESSAGES, Shape, talk_of_messages, talk_of_texts, talk_of_transcript
from trainer.sources.talk import Talk, Unusable, conversation, list_of

ALL_SHAPES = (*PREFERENCES, *PERSONA_ROWS, *MESSAGES, *ANSWERS, *LOOSE)
COLUMNS = "columns"
"""The format of tables that are no known set."""
ONE_TALK = tuple(name for name in NAMES["messages"] if name not in ("data", "items"))
"""A member of these names holds the messages of one talk, not the rows of a table."""
JUDGED_ROWS = 16
"""So many of the first rows decide what a table is."""
Plan = tuple[Callable[[Row, Columns], Talk], Columns]


def rows_of(peek: Peek, mapping: Mapping[str, str] | None = None) -> list[Row]:
    """The first rows of a table, or of the arrays in a JSON object; the object itself when it is a row."""
    rows = [row for _, rows in _arrays(peek, mapping or {}) for row in rows] or list(peek.records)
    return rows or [dict.fromkeys(peek.columns, "") if peek.columns else peek.head]  # of a table without rows its names


def _arrays(peek: Peek, mapping: Mapping[str, str]) -> list[tuple[str, list[Row]]]:
    """Members of a JSON object that hold rows. An object that is itself a row has none."""
    if mapping and peek.head.keys() >= set(mapped(mapping).by_role.values()):
        return []
    lists = [(name, rows) for name, rows in peek.head.items() if isinstance(rows, list)]
    arrays = [(name, rows) for name, rows in lists if rows and all(isinstance(row, dict) for row in rows)]
    certain = [(name, rows) for name, rows in arrays if plain(name) not in ONE_TALK and _are_rows(rows)]
    if certain or any(_plan(shape, peek.head) for shape in ALL_SHAPES):
        return certain
    return arrays


def _are_rows(rows: list[Row]) -> bool:
    return 2 * sum(_first_shape(row) is not None for row in rows[:JUDGED_ROWS]) > len(rows[:JUDGED_ROWS])


def columns_of(peek: Peek, options: ReadOptions) -> Columns | None:
    """How unknown columns would be read. Raises `MaterialError` for a mapping that names no role or no column."""
    rows = rows_of(peek, options.mapping)
    if not options.mapping:
        return guess([row for row in rows if row.keys() == rows[0].keys()]) if rows[0] else None
    columns = mapped(options.mapping)
    held = {column for row in rows for column in row}
    if missing := [column for column in columns.by_role.values() if column not in held]:
        require_roles(options.mapping, held)
        raise MaterialError(
            f"{peek.name} has no column {missing[0]!r}.", f"It has {', '.join(map(str, sorted(held)[:SHOWN]))}."
        )
    return columns


def _recognises(shape: Shape) -> Callable[[Peek], bool]:
    return lambda peek: _main_shape(peek) is shape


def _main_shape(peek: Peek) -> Shape | None:
    """The shape that most of the first rows have, if half of them have a known one."""
    rows = rows_of(peek)[:JUDGED_ROWS]
    found = [shape for row in rows if (shape := _first_shape(row))]
    return max(ALL_SHAPES, key=found.count) if found and 2 * len(found) >= len(rows) else None


def _first_shape(row: Row) -> Shape | None:
    return next((shape for shape in ALL_SHAPES if _plan(shape, row)), None)


def _plan(shape: Shape, row: Row) -> Columns | None:
    try:
        return shape.plan(row)
    except Unusable:
        return None


def _recognises_columns(peek: Peek) -> bool:
    if peek.kind == "JSON object" and not _arrays(peek, {}):
        return False
    return columns_of(peek, ReadOptions()) is not None or (bool(peek.columns) and not peek.records)


def _read_as(shape: Shape) -> Callable[[SourceFile, ReadOptions], Iterator[Conversation | Rejected]]:
    def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
        return read_rows(file, options, shape, None)

    return read


def _read_columns(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    columns = columns_of(file.peek(), options)
    if columns:
        return read_rows(file, options, None, (_talk_by(columns), columns))
    if file.peek().records:
        raise MaterialError(f"The columns of {file.name} cannot be told apart.", "Name them: --map user=COLUMN …")
    return read_rows(file, options, None, None)  # a table without rows, or whose first ones are all broken


def _talk_by(columns: Columns) -> Callable[[Row, Columns], Talk]:
    roles = columns.by_role
    if "messages" in roles:
        return talk_of_messages if columns.from_key else _talk_of_list
    if "transcript" in roles:
        return talk_of_transcript
    if "assistant" in roles and ("user" in roles or "history" in roles):
        return talk_of_answer
    raise MaterialError(
        "Nothing says which column holds the answers.", "Name user and assistant, messages, or transcript."
    )


def _talk_of_list(row: Row, columns: Columns) -> Talk:
    """A list that the operator names: of messages under any known keys, or of texts in turn."""
    keys = message_keys(list_of(columns.get(row, "messages")) or [])
    return talk_of_messages(row, Columns(columns.by_role, *keys)) if keys else talk_of_texts(row, columns)


def read_rows(
    file: SourceFile, options: ReadOptions, main: Shape | None, unknown: Plan | None
) -> Iterator[Conversation | Rejected]:
    """One conversation a row. Rows of other known shapes than `main` are read as what they are.

    What a row's columns are for is found out once for all rows with the same columns; `unknown` is the plan for those
    of no known shape and, where the operator made it, for all.
    """
    forced = unknown if options.mapping else None
    plans: dict[tuple[str, ...], Plan] = {}
    for record in _records(file, options):
        if isinstance(record, Rejected):
            yield record
            continue
        place, row = record
        key = tuple(row)
        plan = forced or plans.get(key)
        if plan is None:
            plan = _plan_for(row, main) or (unknown if unknown and _fits(row, unknown[1]) else None)
            if plan is None:
                yield Rejected(place, _foreign(row, main))
                continue
            plans[key] = plan
        try:
            talk = plan[0](row, plan[1])
        except Unusable as error:
            yield Rejected(place, str(error))
        else:
            found = conversation(talk, place, options)
            if row.get("right") == DISCORD_API and isinstance(found, Conversation):  # as our own data sets say
                found = replace(found, right=DISCORD_API)
            yield _of_persona(found, row, options) if options.persona and "persona" in row else found


def _of_persona(found: Conversation | Rejected, row: Row, options: ReadOptions) -> Conversation | Rejected:
    """Messages that name whose they are (as `lore synthesise` writes them): the assistant is that persona."""
    whose, persona = row["persona"], options.persona
    if not (persona and isinstance(whose, str) and "messages" in row and isinstance(found, Conversation)):
        return found
    if folded(whose) in (folded(persona.id), folded(persona.name)):
        return spoken_by(persona, found)
    another = Rejected(found.messages[0].row, f"speaks as {whose}", found.rows)
    return another if ID_PATTERN.fullmatch(whose) else found  # else it is prose about somebody


def _plan_for(row: Row, main: Shape | None) -> Plan | None:
    for shape in (*([main] if main else []), *ALL_SHAPES):
        if columns := _plan(shape, row):
            return shape.talk, columns
    return None


def _fits(row: Row, columns: Columns) -> bool:
    return row.keys() >= set(columns.by_role.values())


def _foreign(row: Row, main: Shape | None) -> str:
    held = ", ".join(map(str, list(row)[:SHOWN])) or "nothing"
    return f"not {main.expected if main else 'of a known shape'}: it has {held}"


def _records(file: SourceFile, options: ReadOptions) -> Iterator[Record | Rejected]:
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
        elif name not in known and not isinstance(first := next(records, None), Rejected | None):
            yield first
            yield from records


FORMATS = (
    *(Format(shape.name, shape.title, shape.expected, _recognises(shape), _read_as(shape)) for shape in ALL_SHAPES),
    Format(
        COLUMNS,
        "Unknown columns",
        "a table with texts in two columns, or a list of messages in one; --map says which",
        _recognises_columns,
        _read_columns,
    ),
)
