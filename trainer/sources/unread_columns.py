"""Finds columns that hold an answer, a choice or a picture, and that the reader of a row has left
out: such a row is refused, because a part of it would be lost.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from trainer.sources.column_profile import Row
from trainer.sources.conversation_builder import ROLES, RawDialogue
from trainer.sources.record_fields import UnusableRecordError, cell_list

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
BETTER_WORDS = frozenset(
    "chosen accepted preferred winner winning win positive better good best w".split()
)
WORSE_WORDS = frozenset(
    "rejected dispreferred nonpreferred unpreferred loser losing lose negative worse bad worst "
    "l".split()
)
ANSWER_WORDS = frozenset(
    "answer answers response responses reply replies completion completions output outputs "
    "generation generations candidate candidates".split()
)
CHOICE_WORDS = frozenset("winner preference preferences choice choices options verdict".split())
MEDIA_WORDS = frozenset(
    "image images img imgs picture pictures photo photos video videos audio audios sound sounds "
    "speech pixel".split()
)
LONG_SIDE_WORDS = frozenset(word for word in BETTER_WORDS | WORSE_WORDS if len(word) > 5)
ABOUT_WORDS = frozenset(
    "id ids uid type kind source sources model models score scores rating ratings rank ranks length "
    "len tokens token lang language time date count num number index idx start end url link author "
    "format category quality status name hash by at key logprob logprobs reason rationale "
    "explanation critique confidence temperature prompt prompts instruction correct incorrect "
    "expected reference final original raw ground truth safe is has with sum total mean".split()
)
"""Words of columns that describe an answer, or what it is compared with."""
ABOUT_MEDIA_WORDS = frozenset(
    "title description caption alt prompt query count num width height size profile avatar cover "
    "thumbnail logo has is type".split()
)
REPLY_WORDS = ANSWER_WORDS | frozenset("reference target gold label solution truth".split())
"""Words of columns that hold the reply if the messages that were read end with a question."""
ABOUT_KEYS = ABOUT_WORDS | frozenset(("role", "from", "speaker"))
NO_MEDIUM = frozenset(("", "[]", "{}", "none", "null", "nan", "false", "true", "no", "yes"))
WHAT_TO_DO = (
    "give each row one question and one answer (or chosen and rejected), delete the column, or name "
    "those to read with --map"
)
Content = Literal["answer", "choice", "media"]
REASONS: dict[Content, str] = {
    "answer": f"answers that would be lost: {WHAT_TO_DO}",
    "choice": f"a choice that would be lost: {WHAT_TO_DO}",
    "media": "pictures or sound, which are not trained on: delete such rows",
}


@lru_cache(maxsize=4096)
def name_words(name: str) -> tuple[str, ...]:
    """Return the words of a column's name, in lower case: `chosenMessages` has two."""
    words = [word.lower() for word in WORD.findall(name)]
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("non", "not", "un") and word == "preferred":
            joined[-1] = "nonpreferred"
        else:
            joined.append(word)
    return tuple(joined)


@lru_cache(maxsize=4096)
def named_content(name: str) -> Content | None:
    """Return what a column holds, by its name alone."""
    words = frozenset(name_words(name))
    if words & MEDIA_WORDS and not words & ABOUT_MEDIA_WORDS:
        return "media"
    if words & ABOUT_WORDS:
        return None
    if words & CHOICE_WORDS and not words & ANSWER_WORDS:
        return "choice"
    if words & ANSWER_WORDS or words & LONG_SIDE_WORDS:
        return "answer"
    return None


def doubtful_columns(columns: Iterable[Any], read: Collection[str]) -> tuple[str, ...]:
    """Return the columns that are not read, and whose names say that they may hold a part of the
    talk. `read` are columns, or paths inside them.
    """
    taken = {*read, *(name.split(".")[0] for name in read)}
    names = [name for name in columns if isinstance(name, str) and name not in taken]
    return tuple(name for name in names if named_content(name) or REPLY_WORDS & {*name_words(name)})


def require_read(row: Row, doubtful: Sequence[str], dialogues: Sequence[RawDialogue]) -> None:
    """Raise `UnusableRecordError` if one of these columns holds what none of the dialogues has."""
    for name in doubtful:
        content = named_content(name)
        if content is None and not _are_unanswered(dialogues):
            continue
        if _is_lost(row[name], content or "answer", dialogues):
            raise UnusableRecordError(f"the column {name!r} holds {REASONS[content or 'answer']}")


def holds_media(message: Row) -> bool:
    """Report whether a message has a picture, a video or a sound under a key of its own."""
    return any(
        named_content(key) == "media" and _is_medium(value)
        for key, value in message.items()
        if isinstance(key, str)
    )


def _is_lost(cell: Any, content: Content, dialogues: Sequence[RawDialogue]) -> bool:
    if content == "media":
        return _is_medium(cell)
    if content == "choice" and isinstance(cell, int | float):
        return True
    read = {" ".join(text.split()) for dialogue in dialogues for text in _texts_of(dialogue)}
    for text in _texts(cell):
        line = " ".join(text.split())
        # Some sets repeat the answer, or have its result in a column of its own.
        if line and not _is_number(line) and not any(line in other for other in read):
            return True
    return False


def _texts_of(dialogue: RawDialogue) -> tuple[str, ...]:
    return (*dialogue.texts, dialogue.rejected, dialogue.system)


def _texts(cell: Any) -> list[str]:
    """Return the texts in a cell, at any depth, without what describes them."""
    cells = cell_list(cell) if isinstance(cell, str) and cell.lstrip()[:1] == "[" else None
    cell = cells or cell
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, dict):
        cell = [value for key, value in cell.items() if not {*name_words(str(key))} & ABOUT_KEYS]
    if isinstance(cell, list):
        return [text for item in cell for text in _texts(item)]
    return []


def _is_medium(cell: Any) -> bool:
    if isinstance(cell, list):
        return any(map(_is_medium, cell))
    if isinstance(cell, dict):
        return any(map(_is_medium, cell.values()))
    if isinstance(cell, str):
        written = cell.strip().casefold()
        return written not in NO_MEDIUM and not _is_number(written)
    return isinstance(cell, bytes) and bool(cell)


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
