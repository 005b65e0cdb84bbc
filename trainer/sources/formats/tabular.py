"""The formats of tables: chats, rows of known data sets, scripts, quotes, prompts, mapped columns."""

from collections.abc import Iterator

from trainer.sources.column_profile import profile_column, profile_columns
from trainer.sources.column_question import UnclearColumnsError
from trainer.sources.columns import Row, RowSchema
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.formats.chat_table import EXPECTED as CHAT_EXPECTED
from trainer.sources.formats.chat_table import ChatColumns, read_chat, recognise_chat
from trainer.sources.formats.known_schemas import (
    ROW_SCHEMAS,
    first_rows,
    first_schema,
    main_schema,
    object_arrays,
    plan_row,
)
from trainer.sources.formats.kto_rows import unclear_verdicts
from trainer.sources.formats.mapped_columns import COLUMNS_FORMAT, ask_columns, list_items
from trainer.sources.formats.prompts import PROMPTS_FORMAT, SPEAKER_LIKE_COLUMNS
from trainer.sources.formats.qa_rows import QA_SCHEMAS
from trainer.sources.formats.quotes import QUOTE_LIST_FORMAT, QUOTES_NOTE
from trainer.sources.formats.row_reader import read_rows, records_of
from trainer.sources.formats.scripts import SCRIPT_FORMAT
from trainer.sources.header_names import normalise_column
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

ANSWER_COLUMNS = tuple(
    "answer output response completion solution std_answer responses answers outputs".split()
)
"""Names of columns that hold answers even if all of them are numbers, or yes and no."""
LIST_SCHEMAS = ("turns", "ultrachat")
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


def find_chat(peek: Peek) -> tuple[str, ChatColumns] | None:
    """Return the columns of a chat, and the array of a JSON object that holds it (empty for a
    table).
    """
    if peek.records:
        columns = recognise_chat(profile_columns(peek.records))
        return ("", columns) if columns else None
    for name, rows in object_arrays(peek):
        columns = recognise_chat(profile_columns(rows[:-1] or rows))  # the last may be cut
        if columns and not _is_dialogue(peek.head, columns, rows):
            return name, columns
    return None


def _is_dialogue(head: Row, columns: ChatColumns, rows: list[Row]) -> bool:
    """Report whether an object is a dialogue in a known form, whose messages are a user's and an
    assistant's.
    """
    speakers = profile_column("", [row.get(columns["speaker"]) for row in rows])
    return speakers.kind in ("roles", "flags") and first_schema(head) is not None


def _read_chat_table(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    chat = find_chat(file.peek())
    if chat is None:
        raise UnclearColumnsError(ask_columns(file.peek()), options.mapped_by)
    name, columns = chat
    wanted = {name} if name else set()
    return read_chat(lambda: records_of(file, wanted), file.name, columns, options)


def _doubts(peek: Peek, schema: RowSchema) -> bool:
    """Report whether content contradicts a name: of questions or answers, or of texts that are said
    to alternate.
    """
    rows = first_rows(peek)
    if schema.name in LIST_SCHEMAS:
        # A list of a name and a text is not a question with its answer.
        return any(column.kind in ("names", "dates") for column in list_items(rows))
    if schema not in QA_SCHEMAS:
        return False
    if unclear_verdicts(rows):
        return True
    columns = next(filter(None, (plan_row(schema, row) for row in rows)), None)
    if columns is None:
        return False
    # Tables whose names alone were believed had dates learned as answers, and names as questions.
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


def _schema_format(schema: RowSchema) -> SourceFormat:
    return SourceFormat(
        schema.name,
        schema.title,
        schema.expected,
        matches=lambda peek: main_schema(peek) is schema and not _doubts(peek, schema),
        read=lambda file, options: read_rows(file, options, schema, None),
        note=QUOTES_NOTE if schema.name == "quotes" else "",
        meanings=MEANINGS.get(schema.name, ()),
    )


CHAT_FORMAT = SourceFormat(
    "chat-table",
    "Chat in a table",
    CHAT_EXPECTED,
    matches=lambda peek: find_chat(peek) is not None,
    read=_read_chat_table,
)
# The first format that matches is taken. Chats stand before rows of questions and answers, whose
# names of columns they may have too; mapped columns, which match any table, stand last.
FORMATS = (
    CHAT_FORMAT,
    *map(_schema_format, ROW_SCHEMAS),
    SCRIPT_FORMAT,
    QUOTE_LIST_FORMAT,
    PROMPTS_FORMAT,
    COLUMNS_FORMAT,
)
GUESSED_FORMATS = (
    COLUMNS_FORMAT.name,
    PROMPTS_FORMAT.name,
    SCRIPT_FORMAT.name,
    QUOTE_LIST_FORMAT.name,
)
"""Formats that a file may have by chance: beside known exports, none of them is read."""
