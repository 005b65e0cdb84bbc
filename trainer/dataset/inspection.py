"""Summarises a source before a build: formats, counts, languages, rejected records."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.schemas.formatting import count_of
from personas.schemas.import_report import ImportItem, ImportReport, as_is, not_taken, other_meaning
from trainer.languages import detect_language
from trainer.sources.column_question import MAX_ASKED_COLUMNS, ColumnQuestion
from trainer.sources.columns import ColumnUse
from trainer.sources.conversation import Conversation, RejectedRecord, is_chat_log
from trainer.sources.reader import format_roles, read_source
from trainer.sources.registry import describe_content
from trainer.sources.source_format import ReadOptions, SourceFormat

MAX_SHOWN_REJECTED = 100
MAX_SHOWN_EXAMPLES = 3
MAX_SHOWN_SPEAKERS = 50
MAX_LANGUAGE_CONVERSATIONS = 20_000
"""Number of conversations whose language is detected, unless the source states it: half a
millisecond each.
"""
SHOWN_REASONS = 8
SHOWN_TURNS = 6
SHOWN_CHARACTERS = 240


ROLE_TITLES = {
    "speaker": "who speaks",
    "text": "what is said",
    "time": "when",
    "date": "the day",
    "conversation": "which conversation",
    "user": "questions",
    "input": "input of the questions",
    "assistant": "answers",
    "messages": "messages",
    "from": "who speaks, inside the messages",
    "value": "what is said, inside the messages",
    "system": "system text",
    "lang": "language",
    "order": "the order of the messages",
    "verdict": "whether an answer is learned",
}
"""What the roles of columns mean, for people; other roles are named as they are."""


@dataclass
class SourceSummary:
    """Counts over a whole source: files by format, records, conversations by language, or of
    `unjudged` language.

    `accounts` counts the turns of people in chat logs by id and name. `is_decided`: it is said who the persona is,
    or there is no choice.
    """

    formats: Mapping[str, tuple[SourceFormat, int]]
    columns: ColumnUse = field(default_factory=ColumnUse)
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
    accounts: Counter[tuple[str, str]] = field(default_factory=Counter)
    has_persona: bool = False
    is_named: bool = False

    @property
    def speakers(self) -> Counter[str]:
        """The turns of people in chat logs, by name; by name and id where a name is shared."""
        shared = self.shared_names
        turns: Counter[str] = Counter()
        for (id, name), count in self.accounts.items():
            turns[f"{name} ({id})" if name in shared else name] += count
        return turns

    @property
    def shared_names(self) -> dict[str, list[str]]:
        """The ids of the accounts that have one display name, by that name."""
        ids: dict[str, list[str]] = {}
        for id, name in self.accounts:
            ids.setdefault(name, []).append(id)
        return {name: sorted(same) for name, same in ids.items() if len(same) > 1}

    @property
    def is_decided(self) -> bool:
        """True unless one of several characters has to be named."""
        return self.is_named or len(self.roles) < 2

    @property
    def report(self) -> ImportReport:
        """What was taken as is, what with another meaning, and what was not, and why."""
        return ImportReport.of(self._report_items())

    def _report_items(self) -> Iterator[ImportItem]:
        by_form = list(form_items(self.formats, self.columns))
        yield from (item for item in by_form if item.outcome == "as_is")
        if self.conversations:
            plural = "s" if self.conversations > 1 else ""
            yield as_is(f"{self.conversations:,} conversation{plural} with {self.turns:,} turns")
        yield from (item for item in by_form if item.outcome != "as_is")
        for item in self.common_reasons:
            yield not_taken(f"{item.rows:,} records" if item.rows else item.row, item.reason)

    @property
    def common_reasons(self) -> list[RejectedRecord]:
        """The reasons for rejection, the most common first, as records with the number of
        `rows`.
        """
        return sorted(self.reasons.values(), key=lambda record: -record.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the published object of `--json`; `languages_of` is the sample size if languages
        were sampled.
        """
        summary: dict[str, Any] = {
            "format": ", ".join(self.formats),
            "rows": self.rows,
            "conversations": self.conversations,
            "turns": self.turns,
            "languages": dict(self.languages.most_common()),
        }
        if self.unjudged:
            summary["languages_of"] = self.conversations - self.unjudged
        summary |= {
            "rejected_count": self.rejected_count,
            "rejected": [{"row": item.row, "reason": item.reason} for item in self.rejected],
            "reasons": {item.reason: item.rows for item in self.common_reasons},
            "examples": [_example(conversation, self.is_decided) for conversation in self.examples],
            "report": self.report.as_json(),
        }
        if self.roles:
            summary["roles"] = dict(self.roles.most_common())
        if self.speakers:
            summary["speakers"] = dict(self.speakers.most_common(MAX_SHOWN_SPEAKERS))
        if self.shared_names:
            summary["shared_names"] = self.shared_names
        return summary


def form_items(
    formats: Mapping[str, tuple[SourceFormat, int]], columns: ColumnUse
) -> Iterator[ImportItem]:
    """Yield what becomes of a source by its form alone: its columns, and what its format takes with
    another meaning.
    """
    for role, column in columns.used.items():
        yield as_is(f"column {column} ({ROLE_TITLES.get(role, role)})")
    for format, _ in formats.values():
        yield from (other_meaning(format.title, meaning) for meaning in format.meanings)
    for column in columns.unused:
        yield not_taken(f"column {column}", "it has no role")


def inspect_source(
    path: Path,
    options: ReadOptions,
    format: str | None = None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> SourceSummary:
    """Read the whole source; `on_progress` is called for each record.

    Raises `MaterialError` for an unknown format or a damaged file.
    """
    content = describe_content(path, options, format)
    summary = SourceSummary(
        content.formats, content.columns, is_named=bool(options.all_persona_names)
    )
    judged = 0
    for item in read_source(path, options, format):
        summary.rows += item.rows
        summary.roles.update(item.roles)
        on_progress(item.rows)
        if isinstance(item, RejectedRecord):
            _count_rejected(summary, item)
            continue
        summary.conversations += 1
        summary.turns += len(item.messages)
        if any(message.speaker.is_persona for message in item.messages):
            summary.has_persona = True
        if is_chat_log(item):
            speakers = [message.speaker for message in item.messages]
            summary.accounts.update((speaker.id, speaker.name) for speaker in speakers)
        if len(summary.examples) < MAX_SHOWN_EXAMPLES:
            summary.examples.append(item)
        language = item.lang
        if not language and judged < MAX_LANGUAGE_CONVERSATIONS:
            judged += 1
            language = detect_language("\n".join(message.text for message in item.messages))
        elif not language:
            summary.unjudged += 1
            continue
        summary.languages[language] += 1
    return summary


def _count_rejected(summary: SourceSummary, item: RejectedRecord) -> None:
    summary.rejected_count += item.rows
    if len(summary.rejected) < MAX_SHOWN_REJECTED:
        summary.rejected.append(item)
    first = summary.reasons.get(item.reason)
    if first:
        rows = first.rows + item.rows
        summary.reasons[item.reason] = RejectedRecord(first.row, item.reason, rows)
    elif len(summary.reasons) < MAX_SHOWN_REJECTED:
        summary.reasons[item.reason] = RejectedRecord(item.row, item.reason, item.rows)


def _example(conversation: Conversation, is_decided: bool) -> dict[str, Any]:
    messages = []
    for message in conversation.messages:
        is_persona = message.speaker.is_persona and is_decided
        name = message.speaker.name
        messages.append({"speaker": name, "persona": is_persona, "text": message.text})
    later_systems = []
    for start, text in conversation.later_systems:
        later_systems.append({"from_message": start, "text": text})
    return {
        "row": conversation.messages[0].row,
        "system": conversation.system,
        "messages": messages,
        "later_systems": later_systems,
        "rejected": conversation.rejected,
    }


def format_summary(summary: SourceSummary, name: str) -> Iterator[str]:
    """Format the summary line by line."""
    yield f"{name}: {_formats(summary)}"
    if summary.columns.is_mapped:
        pairs = ", ".join(f"{role}={column}" for role, column in summary.columns.used.items())
        yield f"Columns are read as {pairs}; --map changes that."
    yield ""
    yield from _format_counts(summary)
    yield from _format_people(summary)
    yield from _format_reasons(summary)
    for number, conversation in enumerate(summary.examples, start=1):
        yield f"\n  Example {number}, {conversation.messages[0].row}"
        yield from _format_conversation(conversation, summary.is_decided)
    yield from _format_report(summary)
    notes = [format.note for format, _ in summary.formats.values() if format.note]
    yield from (f"\n{note}" for note in notes)
    if not notes and not summary.conversations and not summary.roles:
        expected = "; or ".join(format.expected for format, _ in summary.formats.values())
        yield f"\nNothing in it can be used. Expected: {expected}."


def _format_counts(summary: SourceSummary) -> Iterator[str]:
    counts = {
        "rows": summary.rows,
        "conversations": summary.conversations,
        "turns": summary.turns,
        "not used": summary.rejected_count,
    }
    common = summary.languages.most_common(SHOWN_REASONS)
    languages = ", ".join(f"{language} {count:,}" for language, count in common)
    for title, count in counts.items():
        yield f"  {title:<14}{count:>12,}"
    line = f"  {'languages':<14}{languages or '–':>12}"
    if summary.unjudged:
        line += f" (of {summary.conversations - summary.unjudged:,} conversations)"
    yield line


def _format_people(summary: SourceSummary) -> Iterator[str]:
    """Format characters and speakers, and whether one of them has to be named."""
    if summary.roles:
        yield f"  {'characters':<14}{format_roles(summary.roles)}"
    if summary.speakers:
        yield f"  {'speakers':<14}{format_roles(summary.speakers)}"
    if not summary.is_named:
        for name, ids in summary.shared_names.items():
            accounts = f"{len(ids)} accounts have the name {name}: {', '.join(ids)}"
            yield f"\n  {accounts}. Name one by its id, as --as {ids[0]} does."
    if len(summary.roles) > 1 or (summary.roles and not summary.conversations):
        yield "\n  A persona learns the lines of one character: name one of them with --as."
    elif summary.speakers and not summary.has_persona:
        yield (
            "\n  A persona learns the lines of one speaker: name one of them with --as, unless it "
            "has that name."
        )


def _format_reasons(summary: SourceSummary) -> Iterator[str]:
    reasons = summary.common_reasons
    if reasons:
        yield "\n  Not used because"
    for reason in reasons[:SHOWN_REASONS]:
        yield f"  {reason.rows:>12,}  {_shorten(reason.reason)} (first: {reason.row})"
    if len(reasons) > SHOWN_REASONS:
        yield f"  and {len(reasons) - SHOWN_REASONS} more reasons"


def format_question(question: ColumnQuestion, command: str) -> Iterator[str]:
    """Format the columns of an unknown table line by line, and the command that says which is
    which.
    """
    yield (
        f"{question.file} is a table in no known form, and it is not guessed which column speaks. "
        "Nothing was read."
    )
    if not question.has_header:
        yield "Its first row is content, so the columns are numbered."
    yield ""
    shown = question.columns[:MAX_ASKED_COLUMNS]
    name_width = max(len(column.name) for column in shown)
    title_width = max(len(column.title) for column in shown)
    for column in shown:
        examples = " | ".join(column.examples)
        yield f"  {column.name:<{name_width}}  {column.title:<{title_width}}  {examples}".rstrip()
    more = len(question.columns) - len(shown)
    if more:
        yield f"  and {more} more columns"
    yield ""
    if question.proposal:
        yield "If this is right, type it; else name the right columns:"
    else:
        yield "Name the columns:"
    yield f"  {command}"
    yield (
        "A chat has speaker, text and, if there are times, time; questions and answers have user "
        "and assistant."
    )


def _formats(summary: SourceSummary) -> str:
    (first, _), *more = summary.formats.values()
    if not more:
        return f"{first.title} (--format {first.name})"
    formats = []
    for name, (format, count) in summary.formats.items():
        formats.append(f"{format.title} ({name}, {count_of(count, 'file')})")
    return "; ".join(formats)


def _format_report(summary: SourceSummary) -> Iterator[str]:
    """Format the report without the reasons of records, which stand above."""
    reasons = {item.reason for item in summary.common_reasons}
    items = [item for item in summary.report.items if item.why not in reasons or not item.why]
    lines = ImportReport(tuple(items)).lines()
    if lines:
        yield ""
        yield from lines


def _format_conversation(conversation: Conversation, is_decided: bool) -> Iterator[str]:
    if conversation.system:
        yield f"    [{_shorten(conversation.system)}]"
    turns = conversation.messages[:SHOWN_TURNS]
    width = max(len(message.speaker.name) for message in turns)
    later = dict(conversation.later_systems)
    for place, message in enumerate(turns):
        if place in later:
            yield f"    [{_shorten(later[place])}]"
        is_learned = message.speaker.is_persona and is_decided
        mark = " "
        if is_learned:
            mark = "*" if message.is_trained else "-"
        yield f"  {mark} {message.speaker.name:<{width}}  {_shorten(message.text)}"
    more = len(conversation.messages) - len(turns)
    if more:
        yield f"    and {more} more turns"
    if conversation.rejected:
        yield f"    rejected: {_shorten(conversation.rejected)}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= SHOWN_CHARACTERS:
        return line
    return f"{line[: SHOWN_CHARACTERS - 2]} …"
