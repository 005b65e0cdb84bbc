"""Reports which columns of a table are read, by role, and which are left out."""

from collections.abc import Collection, Sequence

from trainer.sources.column_profile import list_columns
from trainer.sources.columns import ColumnRoles, ColumnUse, Row, message_keys
from trainer.sources.formats.known_schemas import ROW_SCHEMAS, first_rows, plan_row
from trainer.sources.formats.mapped_columns import COLUMNS_FORMAT, mapped_roles
from trainer.sources.formats.message_rows import READ_KEYS
from trainer.sources.formats.row_reader import ROW_LOSS_KEYS
from trainer.sources.formats.scripts import SCRIPT_FORMAT, script_columns
from trainer.sources.formats.tabular import CHAT_FORMAT, find_chat
from trainer.sources.message_order import order_key
from trainer.sources.record_fields import cell_list
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions


def describe_columns(file: SourceFile, format: str, options: ReadOptions) -> ColumnUse:
    """Return the use of the columns of a table in one of the formats of tables.

    Raises `MaterialError` for a wrong mapping, and `UnclearColumnsError` without a mapping where
    the format needs one.
    """
    peek = file.peek()
    has_rows = peek.records or not peek.columns
    if format == COLUMNS_FORMAT.name and (options.mapping or has_rows):
        return _mapped_use(peek, options)
    if format == CHAT_FORMAT.name:
        chat = find_chat(peek)
        if chat:
            array, columns = chat
            rows = list(peek.records) or peek.head[array]
            return ColumnUse(columns, _without(list_columns(rows), columns.values()))
    if format == SCRIPT_FORMAT.name:
        script = script_columns(peek)
        if script:
            rows = list(peek.records)
            return ColumnUse(script, _without(list_columns(rows), script.values()))
    return _schema_use(peek, format, options)


def _mapped_use(peek: Peek, options: ReadOptions) -> ColumnUse:
    columns = mapped_roles(peek, options)
    used = dict(columns.by_role)
    if columns.from_key:
        used["from"] = columns.from_key
    if columns.value_key:
        used["value"] = columns.value_key
    orders, unused_fields = _message_fields(first_rows(peek, options.mapping), [columns])
    unused = _unused(peek, columns.by_role.values(), options)
    return ColumnUse({**used, **orders}, (*unused, *unused_fields), is_mapped=True)


def _schema_use(peek: Peek, format: str, options: ReadOptions) -> ColumnUse:
    schema = next((schema for schema in ROW_SCHEMAS if schema.name == format), None)
    if schema is None:
        return ColumnUse()
    plans = [plan_row(schema, row) for row in first_rows(peek)]
    planned = [roles for roles in plans if roles]
    if not planned:
        return ColumnUse()
    used: dict[str, str] = {}
    taken = {*schema.also_read, *ROW_LOSS_KEYS, "persona", "right"}
    for roles in planned:
        used |= roles.by_role
        taken |= {roles.from_key, roles.value_key}
    taken |= set(used.values())
    orders, unused_fields = _message_fields(first_rows(peek), planned)
    unused = _unused(peek, taken, options)
    return ColumnUse({**used, **orders}, (*unused, *unused_fields))


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
            if roles.from_key:
                keys: tuple[str, str] | None = (roles.from_key, roles.value_key)
            else:
                keys = message_keys(messages)
            if keys:
                read |= {f"{name}[].{key}" for key in (*keys, *READ_KEYS)}
                for message in messages:
                    fields |= dict.fromkeys(f"{name}[].{key}" for key in message)
            order = order_key(messages)
            if order:
                orders["order"] = f"{name}[].{order}"
    read |= set(orders.values())
    return orders, tuple(field for field in fields if field not in read)


def _unused(peek: Peek, used: Collection[str], options: ReadOptions) -> tuple[str, ...]:
    columns: dict[str, None] = {}
    for row in first_rows(peek, options.mapping):
        columns |= dict.fromkeys(map(str, row))
    return _without(list(columns), used)


def _without(columns: Sequence[str], used: Collection[str]) -> tuple[str, ...]:
    """Return the columns of which no part is used."""
    parts = {*used, *(name.split(".")[0] for name in used)}
    return tuple(name for name in columns if name not in parts and name.split(".")[0] not in used)
