"""Quotes: rows with a quote and perhaps its author, and lists of short texts."""

import re
from collections.abc import Iterator, Sequence

from trainer.sources.columns import (
    CHARACTER_COLUMNS,
    ColumnRoles,
    Row,
    RowSchema,
    column_roles,
    find_column,
    find_filled_column,
)
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    NAME_LINE,
    RawDialogue,
    build_conversation,
    is_character,
)
from trainer.sources.formats.text_lists import (
    LIST_MARK,
    MIN_TEXTS,
    QUOTE_COLUMNS,
    are_questions,
    clean_line,
    line_names,
    peek_texts,
    read_texts,
)
from trainer.sources.header_names import normalise_column
from trainer.sources.record_fields import cell_text
from trainer.sources.source_file import SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

AUTHOR_COLUMNS = ("author", "speaker", "by", "said_by", "who", "name", *CHARACTER_COLUMNS)
MAX_MEAN_QUOTE_CHARACTERS = 160
SENTENCE_END = re.compile(r"[.!?…。！？؟～~♪*][\"'”’」』)）*]*$")
ATTRIBUTION = re.compile(
    r"^(.*[.!?…。！？\"'”’」』])\s*(?:[-–—―~]{1,2}|――|——)\s*([^\W\d_][^.!?:：\"“”「」]{0,40})$",
    re.DOTALL,
)
ENGLISH_WORDS = (
    "the and you your not that what with this have has never always who whose but they will would "
    "from when where "
    "there nothing every don't can't won't i'm it's i've"
)
PROMPTS = (
    (re.compile("[\u3040-\u30ff]"), "何か言って。"),
    (re.compile("[\u3400-\u9fff]"), "说句话吧。"),
    (
        re.compile("[ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE),
        "Nói gì đi.",
    ),
    (re.compile(rf"\b(?:{'|'.join(ENGLISH_WORDS.split())})\b", re.IGNORECASE), "Say something."),
)
"""Neutral prompts that quotes answer, by language; short ones, which do not decide on the side of a
split.
"""
OTHER_PROMPT = "…"


def _are_quotes(texts: Sequence[str]) -> bool:
    """Report whether most texts are short and end as sentences do."""
    if len(texts) < MIN_TEXTS or are_questions(texts):
        return False
    ends = sum(bool(SENTENCE_END.search(text) or ATTRIBUTION.match(text)) for text in texts)
    is_short = sum(map(len, texts)) <= MAX_MEAN_QUOTE_CHARACTERS * len(texts)
    return is_short and 5 * ends >= 4 * len(texts)


def _read_quotes(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    is_named = len(line_names(file.peek())) == 1
    for item in read_texts(file):
        if isinstance(item, RejectedRecord):
            yield item
            continue
        place, name, text = item
        match = NAME_LINE.match(LIST_MARK.sub("", text)) if is_named else None
        if match:
            name = match[1].strip()
            text = match[2]
        if place == "line 1" and normalise_column(text) in QUOTE_COLUMNS:
            yield RejectedRecord(place, "the name of the column", rows=0)
        else:
            yield build_conversation(_dialogue_from_quote(text, name), place, options)


def _dialogue_from_quote(text: str, name: str = "") -> RawDialogue:
    """Build a dialogue from a quote: the reply of its author, or of the persona itself, to a
    neutral prompt.
    """
    text = LIST_MARK.sub("", clean_line(text))
    match = ATTRIBUTION.match(text)
    if match:
        text = match[1]
        name = name or match[2].strip()
    text = clean_line(text)
    prompt = next((prompt for pattern, prompt in PROMPTS if pattern.search(text)), OTHER_PROMPT)
    return RawDialogue(
        ["user", name or "assistant"],
        [prompt, text],
        roles=(name,) if name else (),
        is_own=not name,
    )


def _plan_quote(row: Row) -> ColumnRoles | None:
    quote = find_filled_column(row, QUOTE_COLUMNS)
    if not quote or not isinstance(row[quote], str):
        return None
    if find_column(row, "user") and find_column(row, "assistant"):
        return None
    author = find_filled_column(row, AUTHOR_COLUMNS)
    is_named = author and is_character(row[author])
    return column_roles(quote=quote, character=author if is_named else None)


def _dialogue_from_quote_row(row: Row, columns: ColumnRoles) -> RawDialogue:
    name = columns.get(row, "character")
    author = name.strip() if is_character(name) else ""
    return _dialogue_from_quote(cell_text(columns.get(row, "quote")), author)


QUOTES_NOTE = "Each quote is learned as a reply to a neutral prompt, such as “Say something.”"
QUOTE_SCHEMA = RowSchema(
    "quotes",
    "Quotes",
    '{"quote": "…", "author": "…"}',
    plan=_plan_quote,
    parse=_dialogue_from_quote_row,
)
QUOTE_LIST_FORMAT = SourceFormat(
    "quote-list",
    "List of quotes",
    "short texts, one a line or in a JSON list, with or without NAME: before or — NAME after them",
    matches=lambda peek: len(line_names(peek)) == 1 or _are_quotes(peek_texts(peek)),
    read=_read_quotes,
    note=QUOTES_NOTE,
    meanings=("each line is taken as the persona's reply to a neutral prompt",),
)
