"""Registry of input formats, and detection of the format of a file, folder or archive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from personas.errors import MaterialError
from trainer.sources.column_usage import describe_columns
from trainer.sources.columns import ColumnUse, did_you_mean
from trainer.sources.conversation import RejectedRecord
from trainer.sources.file_names import data_files, has_data_suffix, is_media_file, reject_media
from trainer.sources.formats import (
    character_card,
    chatgpt,
    discord_export,
    discord_package,
    instagram,
    kakaotalk,
    line_chat,
    markdown_lore,
    openassistant,
    personachat,
    sillytavern,
    slack,
    tabular,
    telegram,
    whatsapp,
)
from trainer.sources.formats.mapped_columns import COLUMNS_FORMAT
from trainer.sources.hub_source import resolve_path
from trainer.sources.refusals import TEXT_REFUSALS, looks_like_chat, refuse
from trainer.sources.source_file import Peek, SourceFile, open_source
from trainer.sources.source_format import ReadOptions, SourceFormat

FORMATS: tuple[SourceFormat, ...] = (
    character_card.FORMAT,
    *discord_export.FORMATS,
    discord_package.FORMAT,
    telegram.FORMAT,
    slack.FORMAT,
    instagram.FORMAT,
    sillytavern.FORMAT,
    chatgpt.FORMAT,
    line_chat.FORMAT,
    *kakaotalk.FORMATS,
    whatsapp.FORMAT,
    *openassistant.FORMATS,
    *personachat.FORMATS,
    markdown_lore.FORMAT,
    *tabular.FORMATS,
)
MAX_ARCHIVE_DEPTH = 3
MAX_SINGLE_FILES = 10_000
"""Files of a folder or archive that are looked into one by one, beside those of known exports."""
PAGES_ADVICE = (
    "Export the chat as JSON instead: in Telegram Desktop, Export chat history with the format "
    "Machine-readable JSON; at Facebook, Instagram and Discord exporters, the format JSON. Of "
    "ChatGPT's archive, conversations.json is read."
)
FormatParts = list[tuple[SourceFormat, SourceFile]]


def detect_format(
    path: Path, forced: str | None = None, options: ReadOptions | None = None
) -> SourceFormat:
    """Return the format of a file or folder (of its first recognised file), or the forced one.

    Raises `MaterialError` with what was found and the known formats.
    """
    return find_parts(open_source(resolve_path(path)), requested_format(forced, options))[0][0][0]


@dataclass(frozen=True)
class SourceContent:
    """What a source consists of: the number of files of each format by name, and what becomes of a
    table's columns.
    """

    formats: Mapping[str, tuple[SourceFormat, int]]
    columns: ColumnUse


def describe_content(path: Path, options: ReadOptions, format: str | None = None) -> SourceContent:
    """Describe a source without reading all of it. Raises `MaterialError`; `UnclearColumnsError` if
    it has to ask.
    """
    parts, _ = find_parts(open_source(resolve_path(path)), requested_format(format, options))
    counts: dict[str, tuple[SourceFormat, int]] = {}
    for part_format, _ in parts:
        _, count = counts.get(part_format.name, (part_format, 0))
        counts[part_format.name] = (part_format, count + 1)
    columns = ColumnUse()
    # Of several files, an unclear table is listed as unreadable, with a reason.
    if len(parts) == 1:
        part_format, file = parts[0]
        columns = describe_columns(file, part_format.name, options)
    return SourceContent(counts, columns)


def requested_format(forced: str | None, options: ReadOptions | None) -> str | None:
    """Return the forced format; a column mapping implies tables."""
    if forced:
        return forced
    return COLUMNS_FORMAT.name if options and options.mapping else None


def find_parts(file: SourceFile, forced: str | None) -> tuple[FormatParts, list[RejectedRecord]]:
    """List the files to read with their formats: the file itself, or the contents of a folder or
    archive.

    A format may claim several files of a folder at once (a workspace export); the rest are detected
    one by one. Files in unknown formats are returned as rejected, as their number of records is
    unknown.
    """
    formats = [_format_by_name(forced)] if forced else list(FORMATS)
    if file.names:
        parts, rejected = _find_in_container(file, formats, forced)
        if parts:
            return parts, rejected
        raise _unknown_format_error(file.peek())
    refusal = None if forced else refuse(file.peek())
    if refusal:
        raise refusal
    format = _detect(file, formats)
    if format:
        return [(format, file)], []
    if forced and file.kind not in ("folder", "zip"):
        return [(formats[0], file)], []
    raise _unknown_format_error(file.peek())


def _detect(file: SourceFile, formats: Sequence[SourceFormat]) -> SourceFormat | None:
    peek = file.peek()
    if len(formats) > 1 and looks_like_chat(peek):
        formats = [format for format in formats if format.name not in tabular.GUESSED_FORMATS]
    return next((format for format in formats if format.matches(peek)), None)


def _find_in_container(
    file: SourceFile, formats: list[SourceFormat], forced: str | None, depth: int = 1
) -> tuple[FormatParts, list[RejectedRecord]]:
    names = data_files(file.names)
    parts: FormatParts = []
    for format in formats:
        claimed = format.claims(names) if format.claims else ()
        while format.claims and claimed:
            part = replace(file, names=tuple(claimed))
            if not format.matches(part.peek()):
                break
            parts.append((format, part))
            taken = set(claimed)
            names = [name for name in names if name not in taken]
            claimed = format.claims(names)
    media = [name for name in names if is_media_file(name) and not name.lower().endswith(".png")]
    rejected = list(reject_media(file.name, media))
    # Files beside an export probably belong to it, so none of them is read by guess.
    certain = [format for format in formats if format.name not in tabular.GUESSED_FORMATS or forced]
    skipped = set(media)
    single = [name for name in names if name not in skipped]
    rejected += _reject_rest(file.name, single[MAX_SINGLE_FILES:])
    for name in single[:MAX_SINGLE_FILES]:
        may_guess = has_data_suffix(name) and not any(part.names for _, part in parts)
        more, unread = _find_in_member(
            file, name, formats if may_guess else certain, forced=forced, depth=depth
        )
        parts += more
        rejected += unread
    return parts, rejected


def _reject_rest(folder: str, names: Sequence[str]) -> list[RejectedRecord]:
    """Name the files that are not looked into: each is opened to see what it holds."""
    if not names:
        return []
    fault = (
        f"not looked into: {MAX_SINGLE_FILES:,} files of a folder or archive are; put them into "
        "fewer, larger ones"
    )
    return [RejectedRecord(f"{folder}/{names[0]} and {len(names) - 1:,} more", fault, rows=0)]


def _find_in_member(
    file: SourceFile, name: str, formats: list[SourceFormat], forced: str | None, depth: int
) -> tuple[FormatParts, list[RejectedRecord]]:
    try:
        member = file.member(name)
        if member.names and depth < MAX_ARCHIVE_DEPTH:
            parts, rejected = _find_in_container(member, formats, forced, depth + 1)
            if parts or rejected:
                return parts, rejected
        else:
            refusal = None if forced else refuse(member.peek())
            if refusal:
                raise refusal
            format = _detect(member, formats) or (formats[0] if forced else None)
            if format:
                return [(format, member)], []
        fault = f"in no known format: {_describe_peek(member.peek())}"
    except MaterialError as error:
        fault = error.message
    return [], [RejectedRecord(f"{file.name}/{name}", fault, rows=0)]


def _format_by_name(name: str) -> SourceFormat:
    formats = {format.name: format for format in FORMATS}
    if name not in formats:
        raise MaterialError(
            f"There is no format {name!r}.{did_you_mean(name, list(formats))}",
            f"Known: {', '.join(formats)}.",
        )
    return formats[name]


def _unknown_format_error(peek: Peek) -> MaterialError:
    if peek.kind == "folder" and not peek.names:
        return MaterialError(
            f"{peek.name} contains no files.", "Name a file, or a folder with chats or data sets."
        )
    refusal = refuse(peek, TEXT_REFUSALS)
    if refusal:
        return refusal
    if "[Content_Types].xml" in peek.names or "content.xml" in peek.names:
        return MaterialError(
            f"{peek.name} is a document of an office program.", "Save it as CSV (UTF-8)."
        )
    if any(name.lower().endswith((".html", ".htm")) for name in peek.names):
        return MaterialError(f"{peek.name} holds web pages, which are not read.", PAGES_ADVICE)
    problem = f"{peek.name} is in no known format"
    if peek.problem:
        problem = f"{peek.name}, {peek.problem}"
    formats = "".join(f"\n  {format.name}: {format.expected}" for format in FORMATS)
    return MaterialError(f"{problem}. Found: {_describe_peek(peek)}.", f"Known formats:{formats}")


def _describe_peek(peek: Peek) -> str:
    if peek.names:
        more = " …" if len(peek.names) > 5 else ""
        return f"{peek.kind} of {', '.join(peek.names[:5])}{more}"
    row = peek.head or next(iter(peek.records), {})
    return f"{peek.kind} with {', '.join(list(row)[:12])}" if row else peek.kind
