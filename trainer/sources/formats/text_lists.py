"""Lists of texts: the lines of a text, or the strings of a JSON list; the names before them."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from personas.schemas.chat import fold_name
from trainer.sources.conversation import RejectedRecord
from trainer.sources.conversation_builder import NAME_LINE
from trainer.sources.header_names import normalise_column
from trainer.sources.json_recovery import decode_json
from trainer.sources.source_file import Peek, SourceFile

QUOTE_COLUMNS = tuple(
    "quote quotes quotation saying one_liner catchphrase 名言 台词 语录 trích_dẫn câu_nói".split()
)
LINE_COLUMNS = tuple("line text utterance dialogue dialog message content".split())
LOG_LEVELS = frozenset("debug info notice warn warning error critical fatal trace".split())
SAMPLED_TEXTS = 64
MIN_TEXTS = 3
QUESTION_END = re.compile(r"[?？؟][\"'”’」』)]*$")
LIST_MARK = re.compile(r"^(?:[-*•·]\s+|\(?\d{1,4}[.)、]\s*)")
QUOTE_MARKS = {"“": "”", "「": "」", "『": "』", '"': '"', "«": "»", "„": "“", "‘": "’"}
SCENE_BREAK = re.compile(r"^\s*(?:[#=*~_-]\s*){3,}$")


def clean_line(text: str, name: str = "") -> str:
    """Return a line without surrounding spaces, quotation marks and its speaker's name; resolves
    HTML entities.
    """
    if "&" in text:
        text = html.unescape(text)
    text = text.strip()
    if name:
        match = NAME_LINE.match(text.split("\n", 1)[0])
        if match and fold_name(match[1]) == fold_name(name):
            text = text[match.start(2) :]
    closing = QUOTE_MARKS.get(text[:1])
    if closing is None or len(text) <= 2 or not text.endswith(closing):
        return text
    inner = text[1:-1]
    # Marks inside, as in “Yes,” she said, “no”, do not enclose the whole line.
    return text if text[0] in inner or closing in inner else inner.strip()


def read_texts(file: SourceFile) -> Iterator[tuple[str, str, str] | RejectedRecord]:
    """Yield place, name and text of each line of a text, or of each text in a JSON list or in lists
    by name.
    """
    if file.kind not in ("JSON array", "JSON object"):
        for number, line in enumerate(file.lines(), start=1):
            text = line.strip()
            if not text:
                continue
            if text[0] == text[-1] == '"':
                # A JSON string on each line; others in quotation marks stay as they are.
                value = decode_json(text.encode(errors="replace"))
                text = value if type(value) is str else text
            yield f"line {number}", "", text
        return
    for number, (key, value) in enumerate(file.values(), start=1):
        if type(value) is not str or not value.strip():
            yield RejectedRecord(f"row {number}", "a text was expected")
            continue
        # A list of such a name holds quotes or lines; of any other, those of the person it names.
        is_kind = normalise_column(key) in (*QUOTE_COLUMNS, *LINE_COLUMNS)
        yield f"row {number}", "" if is_kind else key, value


def peek_texts(peek: Peek) -> list[str]:
    """Return the first texts of a list of texts; empty for anything else."""
    if peek.kind == "text":
        return [line.strip() for line in peek.text.splitlines() if line.strip()][:SAMPLED_TEXTS]
    lists: list[object] = [list(peek.texts)]
    if peek.kind == "JSON object":
        lists = list(peek.head.values())
    texts: list[str] = []
    for values in lists:
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return []
        texts += values
    return texts[:SAMPLED_TEXTS]


def are_questions(texts: Sequence[str]) -> bool:
    """Report whether most texts are questions."""
    questions = sum(bool(QUESTION_END.search(text)) for text in texts)
    return len(texts) >= MIN_TEXTS and 5 * questions >= 4 * len(texts)


def line_names(peek: Peek) -> set[str]:
    """Return the names before the colons of a list of texts, if most have one and names recur."""
    lines = [text for text in peek_texts(peek) if not SCENE_BREAK.match(text)]
    matches = [NAME_LINE.match(LIST_MARK.sub("", line)) for line in lines]
    names = Counter(match[1].strip() for match in matches if match)
    have_most_names = 10 * names.total() >= 7 * len(lines)
    do_names_recur = 2 * len(names) <= names.total() + 1
    if len(lines) < MIN_TEXTS or not have_most_names or not do_names_recur:
        return set()
    if {fold_name(name) for name in names} <= LOG_LEVELS:
        return set()  # `WARNING: …` is a log of a program
    return {*names}
