"""Prompts without answers: recognised so that nobody trains on them, and rejected one by one."""

from collections.abc import Iterator

from trainer.sources.column_profile import profile_columns
from trainer.sources.columns import METADATA_COLUMNS, Row, find_column
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.formats.known_schemas import first_rows, row_arrays
from trainer.sources.formats.row_reader import read_records
from trainer.sources.formats.text_lists import are_questions, peek_texts, read_texts
from trainer.sources.header_names import chat_roles, normalise_column
from trainer.sources.record_fields import cell_list
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

SPEAKER_LIKE_COLUMNS = ("user", "human")
"""Names of questions that name a speaker just as often: their content decides."""


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
    # LIMA's test rows hold one text each; rows with a `question_id` hold the prompts of a talk.
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


PROMPTS_FORMAT = SourceFormat(
    "prompts",
    "Prompts without answers",
    "a column such as prompt or question and none of answers, or a list of questions",
    matches=_recognises_prompts,
    read=_read_prompts,
    note=(
        "Prompts without answers: nothing to train on. Use them as questions to a persona, with "
        "model_inference or in the playground, or add a column with its answers."
    ),
)
