"""Finds columns that hold an answer, a choice or a picture, and that the reader of a row has left
out: such a row is refused, because a part of it would be lost. The content of a column decides.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.sources.column_profile import SENTENCE_ENDS, Row, profile_column
from trainer.sources.columns import METADATA_COLUMNS, ROLE_COLUMNS
from trainer.sources.conversation_builder import ROLES, RawDialogue
from trainer.sources.header_names import name_words, normalise_column
from trainer.sources.record_fields import UnusableRecordError, cell_list
from trainer.sources.verdicts import BOOLEANS, JUDGEMENTS, VERDICTS, is_judging_name, verdict_word

MIN_PROSE_WORDS = 3
MIN_PROSE_LETTERS = 10
"""For scripts without spaces."""
MIN_COUNTED_ROWS = 3
MIN_SIGNAL_NUMBERS = 64
MIN_BLOB_CHARACTERS = 256
MEDIUM = re.compile(
    r"data:(?:image|audio|video)/.*|[^\n]{1,1000}\."
    r"(?:jpe?g|png|gif|webp|bmp|tiff?|heic|avif|svg|mp[34]|m4[av]|mov|mkv|webm|avi|wav|flac|ogg|oga|"
    r"opus|aac|wma|npy|npz)(?:[?#]\S*)?",
    re.I | re.S,
)
"""A path, an address or a data URI of a picture, a sound or a video."""
BLOB = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_BLOB_CHARACTERS},}}={{0,2}}")
MEDIUM_TOKEN = re.compile(r"<\|?(?:image|video|audio)(?:[_ ]?\d+|_pad)?\|?>", re.I)
OPTION_MARK = re.compile(r"\(?([A-Za-z]|\d{1,2})[.:)]*")
SPACELESS_STOPS = tuple("，。！？；")
Content = Literal["answer", "choice", "media"]
REASONS: dict[Content, str] = {
    "answer": "answers or other texts that would be lost",
    "choice": "a choice or a verdict that would be lost",
    "media": "pictures or sound, which are not trained on",
}


@dataclass(frozen=True)
class UnreadColumn:
    """A column that is not read. `judges`: its values say whether an answer is good; `may_choose`:
    they may be places in a list; `is_prose`: most are texts rather than labels.
    """

    name: str
    judges: bool
    may_choose: bool
    is_prose: bool


def unread_columns(
    columns: Iterable[Any], read: Collection[str], rows: Sequence[Row]
) -> tuple[UnreadColumn, ...]:
    """Describe the columns that are not read by the first rows of the file. `read` are columns, or
    paths inside them.
    """
    taken = {*read, *(name.split(".")[0] for name in read)}
    names = [name for name in columns if isinstance(name, str) and name not in taken]
    return tuple(_describe(name, rows) for name in names)


def _describe(name: str, rows: Sequence[Row]) -> UnreadColumn:
    cells = [row[name] for row in rows if row.get(name) not in (None, "")]
    texts = [text for cell in cells for text in _texts(cell)]
    is_prose = 2 * sum(map(_is_prose, texts)) > len(texts) or not texts
    if profile_column(name, texts).kind in ("names", "roles", "dates", "ids", "numbers"):
        is_prose = False  # a label that recurs may have several words
    judges = bool(cells) and _are_verdicts(name, cells)
    return UnreadColumn(name, judges=judges, may_choose=_may_choose(name, cells), is_prose=is_prose)


def require_read(
    row: Row, unread: Sequence[UnreadColumn], dialogues: Sequence[RawDialogue]
) -> None:
    """Raise `UnusableRecordError` if a column holds what none of the dialogues has."""
    for column in unread:
        content = _lost_content(row, column, dialogues)
        if content:
            raise UnusableRecordError(
                f"the column {column.name!r} holds {REASONS[content]}: say what it is with --map, "
                f"or leave it out with --map {column.name}=unused"
            )
    require_no_media_tokens(dialogues)


def require_no_media(row: Row, unread: Sequence[UnreadColumn]) -> None:
    """Raise `UnusableRecordError` if a column holds pictures or sound."""
    require_read(row, [column for column in unread if _is_medium(row[column.name])], ())


def require_no_media_tokens(dialogues: Sequence[RawDialogue]) -> None:
    """Raise `UnusableRecordError` if a text begins or ends with the place of a picture."""
    for text in _read_texts(dialogues):
        if "<" in text and (MEDIUM_TOKEN.match(text) or MEDIUM_TOKEN.fullmatch(_last_word(text))):
            raise UnusableRecordError("stands beside pictures or sound, which are not trained on")


def holds_media(message: Row, read: Collection[str] = ()) -> bool:
    """Report whether a message has a picture, a video or a sound under a key of its own."""
    return any(_is_medium(value) for key, value in message.items() if key not in read)


def _lost_content(
    row: Row, column: UnreadColumn, dialogues: Sequence[RawDialogue]
) -> Content | None:
    cell = row[column.name]
    if cell is None or cell == "":
        return None
    if _is_medium(cell):
        return "media"
    if column.judges or _are_options(column.name, cell, dialogues):
        return "choice"
    if column.may_choose and _chooses(row, column.name, dialogues):
        return "choice"
    name = normalise_column(column.name)
    is_reply = name in ROLE_COLUMNS["chosen"] or name in ROLE_COLUMNS["rejected"]
    if not is_reply and _are_unanswered(dialogues):
        is_reply = name in ROLE_COLUMNS["assistant"]
    texts: list[str] = []
    if is_reply or column.is_prose:
        texts = [text for text in _texts(cell) if is_reply or _is_prose(text)]
    return "answer" if texts and _are_lost(texts, dialogues) else None


def _are_lost(texts: Sequence[str], dialogues: Sequence[RawDialogue]) -> bool:
    """Report whether one of the texts is neither in what was read nor all of it again."""
    read = [_line(text) for text in _read_texts(dialogues)]
    talks = [[_line(text) for text in dialogue.texts if text] for dialogue in dialogues]
    for line in map(_line, texts):
        if not line or _is_number(line) or any(line in other for other in read):
            continue
        if not any(talk and all(text in line for text in talk) for talk in talks):
            return True
    return False


def _read_texts(dialogues: Sequence[RawDialogue]) -> Iterator[str]:
    for dialogue in dialogues:
        yield from (*dialogue.texts, dialogue.rejected, dialogue.system)


def _are_verdicts(name: str, cells: Sequence[Any]) -> bool:
    """Report whether values say if an answer is good, or are a yes and no that differs from row to
    row.
    """
    if not all(isinstance(cell, bool | int | float | str) for cell in cells):
        return False
    words = set(map(verdict_word, cells))
    if not words <= VERDICTS.keys():
        return False
    if is_judging_name(name) or not words.isdisjoint(JUDGEMENTS):
        return True
    return words <= BOOLEANS.keys() and len(words) > 1


def _may_choose(name: str, cells: Sequence[Any]) -> bool:
    """Report whether values may be places in a list; a running number is none."""
    if normalise_column(name) in METADATA_COLUMNS:
        return False
    places = list(map(_place, cells))
    start = places[0] if len(places) >= MIN_COUNTED_ROWS else None
    return start is None or places != list(range(start, start + len(places)))


def _chooses(row: Row, name: str, dialogues: Sequence[RawDialogue]) -> bool:
    """Report whether a cell is the place of one of the answers in a list, or has a number for each
    of these.
    """
    sizes = {_candidates(cell, dialogues) for other, cell in row.items() if other != name} - {0}
    numbers = row[name]
    if isinstance(numbers, list):
        are_numbers = all(isinstance(number, int | float) for number in numbers)
        return are_numbers and len(numbers) in sizes
    place = _place(numbers)
    return place is not None and any(0 <= place <= size for size in sizes)


def _candidates(cell: Any, dialogues: Sequence[RawDialogue]) -> int:
    """Return the number of answers in a list of which not all are read; 0 for anything else."""
    texts = (cell_list(cell) or []) if isinstance(cell, str | list) else []
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        return 0
    lost = [text for text in texts if _are_lost([text], dialogues)]
    is_prose = 2 * sum(map(_is_prose, texts)) > len(texts)
    return len(texts) if lost and (is_prose or len(lost) < len(texts)) else 0


def _place(value: Any) -> int | None:
    """Return the number of an option that is called by its number or its letter."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    mark = OPTION_MARK.fullmatch(str(value).strip())
    if mark is None:
        return None
    return int(mark[1]) if mark[1].isdigit() else ord(mark[1].upper()) - ord("A")


def _are_options(name: str, cell: Any, dialogues: Sequence[RawDialogue]) -> bool:
    """Report whether the answer is no more than the mark of one of these options."""
    for dialogue in dialogues:
        answer = dialogue.texts[-1].strip() if dialogue.texts else ""
        place = _place(answer) if len(answer) < 5 else None
        if place is None:
            continue
        # A list of options, or a column for each: `option_b`.
        options = cell_list(cell) or []
        if place <= len(options) > 1 or name_words(name)[-1:] == (answer.strip("().:").lower(),):
            return True
    return False


def _texts(cell: Any) -> list[str]:
    """Return the texts in a cell, at any depth."""
    cells = cell_list(cell) if isinstance(cell, str) and cell.lstrip()[:1] == "[" else None
    cell = cells or cell
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, dict):
        cell = list(cell.values())
    if isinstance(cell, list):
        return [text for item in cell for text in _texts(item)]
    return []


def _is_prose(text: str) -> bool:
    """Report whether a text is something said rather than a label, a number or an address."""
    words = text.split()
    if len(words) >= MIN_PROSE_WORDS:
        return True
    if not any(map(str.isalpha, text)):
        return False
    if len(words) == 1 and ("://" in text or "/" in text):
        return False
    if words and words[-1].endswith(SENTENCE_ENDS):
        return True
    if text.isascii():
        return False
    spaceless = [sign for sign in text if sign.isalpha() and ord(sign) >= 0x0E00]
    return len(spaceless) >= MIN_PROSE_LETTERS or any(stop in text for stop in SPACELESS_STOPS)


def _is_medium(cell: Any) -> bool:
    if isinstance(cell, str):
        written = cell.strip()
        if written[:1] == "[":
            return any(map(_is_medium, cell_list(written) or ()))
        return bool(MEDIUM.fullmatch(written) or BLOB.fullmatch(written))
    if isinstance(cell, list):
        return _is_signal(cell) or any(map(_is_medium, cell))
    if isinstance(cell, dict):
        return any(map(_is_medium, cell.values()))
    return isinstance(cell, bytes) and bool(cell)


def _is_signal(cells: Sequence[Any]) -> bool:
    """Report whether a list holds rows of numbers, as pictures do, or a long row of fractions."""
    nested = [cell for cell in cells if isinstance(cell, list) and cell]
    if nested and len(nested) == len(cells):
        return all(isinstance(number, int | float) for cell in nested for number in cell) or all(
            map(_is_signal, nested)
        )
    if len(cells) < MIN_SIGNAL_NUMBERS:
        return False
    return all(isinstance(cell, int | float) for cell in cells) and any(
        isinstance(cell, float) and not cell.is_integer() for cell in cells
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def _last_word(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].rpartition(" ")[2]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _are_unanswered(dialogues: Sequence[RawDialogue]) -> bool:
    """Report whether the last message of a dialogue is the user's."""
    last = [dialogue.labels[-1].casefold() for dialogue in dialogues if dialogue.labels]
    return any(ROLES.get(label) is ROLES["user"] for label in last)
