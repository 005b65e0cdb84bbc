"""Summarises a source before a build: formats, counts, languages, rejected records."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.quality_filters import detect_language
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.reader import format_roles, read_source
from trainer.sources.registry import count_formats
from trainer.sources.source_format import ReadOptions, SourceFormat

MAX_SHOWN_REJECTED = 100
MAX_SHOWN_EXAMPLES = 3
MAX_LANGUAGE_CONVERSATIONS = 20_000
"""Number of conversations whose language is detected, unless the source states it: half a millisecond each."""
SHOWN_REASONS, SHOWN_TURNS, SHOWN_CHARACTERS = 8, 6, 240


@dataclass
class SourceSummary:
    """Counts over a whole source: files by format, records, conversations by language, or of `unjudged` language."""

    formats: dict[str, tuple[SourceFormat, int]]
    columns: str = ""
    rows: int = 0
    conversations: int = 0
    turns: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    unjudged: int = 0
    rejected_count: int = 0
    rejected: list[RejectedRecord] = field(default_factory=list)
    reasons: dict[str, RejectedRecord] = field(default_factory=dict)
    examples: list[Conversation] = field(default_factory=list)
    roles: Counter[str] = field(default_factory=Counter)

    @property
    def common_reasons(self) -> list[RejectedRecord]:
        """The reasons for rejection, the most common first, as records with the number of `rows`."""
        return sorted(self.reasons.values(), key=lambda record: -record.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the published object of `--json`; `languages_of` is the sample size if languages were sampled."""
        sample = {"languages_of": self.conversations - self.unjudged} if self.unjudged else {}
        return {
            "format": ", ".join(self.formats),
            "rows": self.rows,
            "conversations": self.conversations,
            "turns": self.turns,
            "languages": dict(self.languages.most_common()),
            **sample,
            "rejected_count": self.rejected_count,
            "rejected": [{"row": item.row, "reason": item.reason} for item in self.rejected],
            "reasons": {item.reason: item.rows for item in self.common_reasons},
            "examples": [_example(conversation) for conversation in self.examples],
            **({"roles": dict(self.roles.most_common())} if self.roles else {}),
        }


def inspect_source(
    path: Path, options: ReadOptions, format: str | None = None, on_progress: Callable[[int], None] = lambda rows: None
) -> SourceSummary:
    """Read the whole source; `on_progress` is called for each record.

    Raises `MaterialError` for an unknown format or a damaged file.
    """
    found = SourceSummary(*count_formats(path, options, format))
    judged = 0
    for item in read_source(path, options, format):
        found.rows += item.rows
        found.roles.update(item.roles)
        on_progress(item.rows)
        if isinstance(item, RejectedRecord):
            _count_rejected(found, item)
            continue
        found.conversations += 1
        found.turns += len(item.messages)
        if len(found.examples) < MAX_SHOWN_EXAMPLES:
            found.examples.append(item)
        if item.lang:
            found.languages[item.lang] += 1
        elif judged < MAX_LANGUAGE_CONVERSATIONS:
            judged += 1
            found.languages[detect_language("\n".join(message.text for message in item.messages))] += 1
        else:
            found.unjudged += 1
    return found


def _count_rejected(found: SourceSummary, item: RejectedRecord) -> None:
    found.rejected_count += item.rows
    if len(found.rejected) < MAX_SHOWN_REJECTED:
        found.rejected.append(item)
    before = found.reasons.get(item.reason)
    if before or len(found.reasons) < MAX_SHOWN_REJECTED:
        rows = item.rows + (before.rows if before else 0)
        found.reasons[item.reason] = RejectedRecord(before.row if before else item.row, item.reason, rows)


def _example(conversation: Conversation) -> dict[str, Any]:
    return {
        "row": conversation.messages[0].row,
        "system": conversation.system,
        "messages": [
            {"speaker": m.speaker.name, "persona": m.speaker.is_persona, "text": m.text} for m in conversation.messages
        ],
        "rejected": conversation.rejected,
    }


def format_summary(found: SourceSummary, name: str) -> Iterator[str]:
    """Format the summary line by line."""
    yield f"{name}: {_formats(found)}"
    if found.columns:
        yield f"Columns are read as {found.columns}; --map changes that."
    yield ""
    languages = ", ".join(f"{language} {count:,}" for language, count in found.languages.most_common(SHOWN_REASONS))
    counts = {"rows": found.rows, "conversations": found.conversations, "turns": found.turns}
    for title, count in {**counts, "not used": found.rejected_count}.items():
        yield f"  {title:<14}{count:>12,}"
    sample = f" (of {found.conversations - found.unjudged:,} conversations)" if found.unjudged else ""
    yield f"  {'languages':<14}{languages or '–':>12}{sample}"
    if found.roles:
        yield f"  {'characters':<14}{format_roles(found.roles)}"
    if len(found.roles) > 1 or (found.roles and not found.conversations):
        yield "\n  A persona learns the lines of one character: name one of them with --as."
    if reasons := found.common_reasons:
        yield "\n  Not used because"
    for reason in reasons[:SHOWN_REASONS]:
        yield f"  {reason.rows:>12,}  {_shorten(reason.reason)} (first: {reason.row})"
    if len(reasons) > SHOWN_REASONS:
        yield f"  and {len(reasons) - SHOWN_REASONS} more reasons"
    for number, conversation in enumerate(found.examples, start=1):
        yield f"\n  Example {number}, {conversation.messages[0].row}"
        yield from _format_conversation(conversation)
    notes = [format.note for format, _ in found.formats.values() if format.note]
    yield from (f"\n{note}" for note in notes)
    if not notes and not found.conversations and not found.roles:
        expected = "; or ".join(format.expected for format, _ in found.formats.values())
        yield f"\nNothing in it can be used. Expected: {expected}."


def _formats(found: SourceSummary) -> str:
    (first, _), *more = found.formats.values()
    if not more:
        return f"{first.title} (--format {first.name})"
    counts = ((format.title, name, count) for name, (format, count) in found.formats.items())
    return "; ".join(f"{title} ({name}, {count:,} file{'s' * (count != 1)})" for title, name, count in counts)


def _format_conversation(conversation: Conversation) -> Iterator[str]:
    if conversation.system:
        yield f"    [{_shorten(conversation.system)}]"
    turns = conversation.messages[:SHOWN_TURNS]
    width = max(len(message.speaker.name) for message in turns)
    for message in turns:
        mark = "*" if message.speaker.is_persona else " "
        yield f"  {mark} {message.speaker.name:<{width}}  {_shorten(message.text)}"
    if more := len(conversation.messages) - len(turns):
        yield f"    and {more} more turns"
    if conversation.rejected:
        yield f"    rejected: {_shorten(conversation.rejected)}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 2]} …"
