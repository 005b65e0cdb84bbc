"""Anonymises a file of chat logs or of rows with a text column, in bounded memory."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from personas.home.data_subjects import Storing
from personas.schemas.base import DISCORD_API
from personas.schemas.import_report import ImportItem, ImportReport, not_taken
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.output_files import ReviewLog, open_atomic, write_rows
from trainer.anonymise.spans import replace_entities
from trainer.sources.conversation import Conversation, RejectedRecord, SourceMessage
from trainer.sources.conversation_builder import USER
from trainer.sources.formats.mapped_columns import COLUMNS_FORMAT
from trainer.sources.hub_source import resolve_path
from trainer.sources.reader import read_source
from trainer.sources.registry import describe_content, detect_format
from trainer.sources.source_file import SourceFile, open_source
from trainer.sources.source_format import ReadOptions

MIN_ID_VALUE = 10**14
"""Integers from here on may be somebody's id or number."""
ID_PLACEHOLDER = "[id]"
ROWS_ADVICE = '\n  or rows with a "text": {"text": "…"} as JSON, JSON Lines or CSV'
NO_TEXT_REASON = "no text"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Time of the first message of every conversation in the output: real times could identify
speakers.
"""
ProgressCallback = Callable[[str, int], None]


def is_text_table(file: SourceFile, format: str | None) -> bool:
    """Return True for rows of texts that are not in a known conversation format."""
    peek = file.peek()
    rows = peek.records or (peek.head,)
    texts = [row["text"] for row in rows if "text" in row]
    if format or 2 * len(texts) <= len(rows):
        return False
    if not any(isinstance(text, str) for text in texts):
        return False
    if any(set(row) == {"text"} for row in rows):
        return True
    # Beside other columns, a text may be a message of a chat, whose speakers are to be replaced.
    try:
        return detect_format(file.path).name == COLUMNS_FORMAT.name
    except MaterialError:
        return True


def anonymise_row(row: dict[str, Any], anonymiser: Anonymiser) -> dict[str, Any]:
    """Replace the text of a row, add `entities` and how names were looked for (`name_search`), and
    replace personal data in its other strings.
    """
    text = row["text"]
    entities = anonymiser.find_entities(text)
    anonymised: dict[str, Any] = {"text": replace_entities(text, entities)}
    for key, value in row.items():
        if key not in ("text", "entities", "name_search"):
            anonymised[key] = _anonymise_value(value, anonymiser)
    anonymised["entities"] = [asdict(entity) for entity in entities]
    anonymised["name_search"] = anonymiser.search_methods(text)
    return anonymised


def _anonymise_value(value: Any, anonymiser: Anonymiser) -> Any:
    if isinstance(value, str):
        return anonymiser.anonymise_text(value)
    if isinstance(value, list):
        return [_anonymise_value(item, anonymiser) for item in value]
    if isinstance(value, dict):
        return {key: _anonymise_value(item, anonymiser) for key, item in value.items()}
    if isinstance(value, int) and abs(value) >= MIN_ID_VALUE:
        return ID_PLACEHOLDER
    return value


@dataclass(frozen=True)
class AnonymiseRequest:
    """Input and output of an anonymisation. `anonymiser` has no names yet; `review` logs its
    replacements.
    """

    source: Path
    out: Path
    options: ReadOptions
    anonymiser: Anonymiser
    format: str | None = None
    review: ReviewLog | None = None
    storing: Storing = nullcontext


@dataclass
class AnonymiseStats:
    """Counts of the file's records.

    `is_written_as_rows`: some conversation says what a log has no place for. `alternatives` are
    rejected answers.
    """

    texts: int = 0
    is_written_as_rows: bool = False
    alternatives: int = 0
    unused_columns: tuple[str, ...] = ()
    rejected: Counter[str] = field(default_factory=Counter)

    def reject(self, item: RejectedRecord) -> None:
        """Count records that are not written."""
        self.rejected[item.reason] += item.rows

    def not_kept(self) -> ImportReport:
        """Return what the rows say beside their texts and the output does not hold."""
        items = [not_taken(f"column {column}", "it has no role") for column in self.unused_columns]
        if self.alternatives:
            plural = "s" if self.alternatives > 1 else ""
            why = "the output has no place for the worse of two answers"
            items.append(
                ImportItem("not_taken", f"{self.alternatives:,} rejected answer{plural}", why)
            )
        return ImportReport.of(items)


def anonymise_file(request: AnonymiseRequest, on_progress: ProgressCallback) -> dict[str, Any]:
    """Write `out` atomically and return the figures. Raises `UnderstudyError` and `OSError`."""
    stats = AnonymiseStats()
    _ = request.anonymiser.names  # loads the tagger, which is not measured
    started = time.monotonic()
    file = open_source(resolve_path(request.source))
    with request.review or nullcontext(), open_atomic(request.out, request.storing) as out:
        if is_text_table(file, request.format):
            rows = _anonymise_rows(file, request, stats, on_progress)
            write_rows(rows, out, request.out.suffix.lower())
        else:
            # Twice through the file: a name may stand in a text before its speaker speaks.
            _read_speakers(request, stats, on_progress)
            rows = _anonymise_conversations(request, stats, on_progress)
            write_rows(rows, out, ".jsonl")
        if not stats.texts:
            # Raised within, so that no empty file gets its name.
            reason = "".join(f": {reason}" for reason in [*stats.rejected][:1])
            raise MaterialError(
                f"Nothing in {request.source.name} can be used{reason}.",
                "Use rows with a text column, or a conversation.",
            )
    return _figures(request, stats, time.monotonic() - started)


def _anonymise_rows(
    file: SourceFile,
    request: AnonymiseRequest,
    stats: AnonymiseStats,
    on_progress: ProgressCallback,
) -> Iterator[dict[str, Any]]:
    for record in file.records():
        on_progress("anonymising", 1)
        if isinstance(record, RejectedRecord):
            stats.reject(record)
        elif not isinstance(record[1].get("text"), str):
            stats.reject(RejectedRecord(record[0], NO_TEXT_REASON))
        else:
            stats.texts += 1
            if request.review:
                request.review.row = record[0]
            yield anonymise_row(record[1], request.anonymiser)


def _read_speakers(
    request: AnonymiseRequest, stats: AnonymiseStats, on_progress: ProgressCallback
) -> None:
    try:
        detect_format(request.source, request.format, request.options)
    except MaterialError as error:
        advice = error.advice
        if advice.startswith("Known formats"):
            advice += ROWS_ADVICE
        raise MaterialError(error.message, advice) from None
    for item in read_source(request.source, request.options, request.format):
        on_progress("reading speakers", item.rows)
        if isinstance(item, Conversation):
            request.anonymiser.register(item)
            stats.is_written_as_rows = stats.is_written_as_rows or _needs_rows(item)
            stats.alternatives += bool(item.rejected)
    content = describe_content(request.source, request.options, request.format)
    stats.unused_columns = content.columns.unused


def _needs_rows(conversation: Conversation) -> bool:
    """Report whether a conversation has system texts, excluded answers or a language, which no log
    holds.
    """
    stated = (conversation.system, conversation.later_systems, conversation.lang)
    return any(stated) or not all(message.is_trained for message in conversation.messages)


def _anonymise_conversations(
    request: AnonymiseRequest, stats: AnonymiseStats, on_progress: ProgressCallback
) -> Iterator[dict[str, Any]]:
    number = 0
    for item in read_source(request.source, request.options, request.format):
        on_progress("anonymising", item.rows)
        if isinstance(item, RejectedRecord):
            stats.reject(item)
            continue
        number += 1
        if request.review:
            request.review.row = item.messages[0].row
        stats.texts += len(item.messages)
        anonymised = request.anonymiser.anonymise(item)
        if stats.is_written_as_rows:
            yield _messages_row(anonymised)
        else:
            yield from _log_lines(anonymised, number)


def _messages_row(conversation: Conversation) -> dict[str, Any]:
    """Return a ShareGPT row, which holds names as well as roles; `weight` is OpenAI's flag of an
    excluded answer.
    """
    turns = [{"from": "system", "value": conversation.system}] if conversation.system else []
    later = list(conversation.later_systems)
    for place, message in enumerate(conversation.messages):
        while later and later[0][0] <= place:
            turns.append({"from": "system", "value": later.pop(0)[1]})
        turns.append(_turn(message))
    turns += [{"from": "system", "value": text} for _, text in later]
    row: dict[str, Any] = {"conversations": turns}
    if conversation.lang:
        row["lang"] = conversation.lang
    if conversation.right == DISCORD_API:  # a log implies it
        row["right"] = DISCORD_API
    return row


def _turn(message: SourceMessage) -> dict[str, Any]:
    name = USER.id if message.speaker.id == USER.id else message.speaker.name
    turn: dict[str, Any] = {"from": name, "value": message.text}
    return turn if message.is_trained else turn | {"weight": 0}


def _log_lines(conversation: Conversation, number: int) -> Iterator[dict[str, Any]]:
    """Yield the messages that `discord_export.read_log` reads; a persona's id is its name."""
    for position, message in enumerate(conversation.messages):
        name = message.speaker.name
        author_id = message.speaker.id
        if not message.speaker.is_persona:
            author_id = sha256(name.encode()).hexdigest()[:16]  # of the pseudonym
        yield {
            "channel": str(number),
            "id": str(position + 1),
            "at": (EPOCH + timedelta(seconds=position)).isoformat(),
            "author": name,
            "author_id": author_id,
            "text": message.text,
            "is_bot": False,
        }


def _figures(request: AnonymiseRequest, stats: AnonymiseStats, seconds: float) -> dict[str, Any]:
    anonymiser = request.anonymiser
    return {
        "texts": stats.texts,
        "replaced": dict(anonymiser.counts.most_common()),
        "people": anonymiser.people_count,
        "strangers": len(anonymiser.non_speakers),
        "rejected": dict(stats.rejected),
        "not_kept": stats.not_kept().as_json()["not_taken"],
        "review_deleted_on": request.review.delete_on if request.review else None,
        "seconds": round(seconds, 2),
        "texts_per_s": round(stats.texts / max(seconds, 1e-6), 1),
        "names_found_by": anonymiser.names.description,
        "name_search": anonymiser.searched_scripts,
    }
