"""Registry of input formats, and detection of the format of a file, folder or archive."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from personas.errors import MaterialError
from trainer.sources.conversation import RejectedRecord
from trainer.sources.formats import (
    character_card,
    discord_export,
    discord_package,
    instagram,
    markdown_lore,
    openassistant,
    personachat,
    slack,
    tabular,
    telegram,
    understudy_log,
    whatsapp,
)
from trainer.sources.source_file import (
    Peek,
    SourceFile,
    data_files,
    has_data_suffix,
    is_media_file,
    open_source,
    reject_media,
    resolve_path,
)
from trainer.sources.source_format import ReadOptions, SourceFormat

FORMATS: tuple[SourceFormat, ...] = (
    *character_card.FORMATS,
    *discord_export.FORMATS,
    *discord_package.FORMATS,
    *understudy_log.FORMATS,
    *telegram.FORMATS,
    *slack.FORMATS,
    *instagram.FORMATS,
    *whatsapp.FORMATS,
    *openassistant.TREE_FORMATS,
    *openassistant.MESSAGE_FORMATS,
    *personachat.FORMATS,
    *markdown_lore.FORMATS,
    *tabular.FORMATS,
)
MAX_ARCHIVE_DEPTH = 3
FormatParts = list[tuple[SourceFormat, SourceFile]]


def detect_format(path: Path, forced: str | None = None, options: ReadOptions | None = None) -> SourceFormat:
    """Return the format of a file or folder (of its first recognised file), or the forced one.

    Raises `MaterialError` with what was found and the known formats.
    """
    return find_parts(open_source(resolve_path(path)), requested_format(forced, options))[0][0][0]


def count_formats(
    path: Path, options: ReadOptions, format: str | None = None
) -> tuple[dict[str, tuple[SourceFormat, int]], str]:
    """Count the files of each format by name, with the column roles of unknown tables (empty for known formats)."""
    parts, _ = find_parts(open_source(resolve_path(path)), requested_format(format, options))
    counts: dict[str, tuple[SourceFormat, int]] = {}
    for found, _ in parts:
        counts[found.name] = (found, counts.get(found.name, (found, 0))[1] + 1)
    return counts, _describe_columns(*parts[0], options)


def describe_columns(path: Path, options: ReadOptions, format: str | None = None) -> str:
    """Return the roles assigned to the columns of an unknown table; empty if a format defines them."""
    return count_formats(path, options, format)[1]


def _describe_columns(found: SourceFormat, file: SourceFile, options: ReadOptions) -> str:
    return str(tabular.guess_roles(file.peek(), options) or "") if found.name == tabular.COLUMNS_FORMAT else ""


def requested_format(forced: str | None, options: ReadOptions | None) -> str | None:
    """Return the forced format; a column mapping implies tables."""
    return forced or (tabular.COLUMNS_FORMAT if options and options.mapping else None)


def find_parts(file: SourceFile, forced: str | None) -> tuple[FormatParts, list[RejectedRecord]]:
    """List the files to read with their formats: the file itself, or the contents of a folder or archive.

    A format may claim several files of a folder at once (a workspace export); the rest are detected one by one. Files
    in unknown formats are returned as rejected, as their number of records is unknown.
    """
    known = [_format_by_name(forced)] if forced else list(FORMATS)
    if file.names:
        parts, left = _find_in_container(file, known, forced)
        if parts:
            return parts, left
    elif found := _detect(file, known):
        return [(found, file)], []
    elif forced and file.kind not in ("folder", "zip"):
        return [(known[0], file)], []
    raise _unknown_format_error(file.peek())


def _detect(file: SourceFile, known: Sequence[SourceFormat]) -> SourceFormat | None:
    peek = file.peek()
    return next((format for format in known if format.matches(peek)), None)


def _find_in_container(
    file: SourceFile, known: list[SourceFormat], forced: str | None, depth: int = 1
) -> tuple[FormatParts, list[RejectedRecord]]:
    names = data_files(file.names)
    parts: FormatParts = []
    for format in known:
        while format.claims and (theirs := format.claims(names)):
            part = replace(file, names=tuple(theirs))
            if not format.matches(part.peek()):
                break
            parts.append((format, part))
            claimed = set(theirs)
            names = [name for name in names if name not in claimed]
    left = list(
        reject_media(file.name, [name for name in names if is_media_file(name) and not name.lower().endswith(".png")])
    )
    # What lies beside an export belongs to it more likely than not, so nothing there is read by guess.
    certain = [format for format in known if format.name != tabular.COLUMNS_FORMAT or forced]
    for name in names:
        if is_media_file(name) and not name.lower().endswith(".png"):
            continue
        may_guess = has_data_suffix(name) and not any(part.names for _, part in parts)
        more, without = _find_in_member(file, name, known if may_guess else certain, forced, depth)
        parts += more
        left += without
    return parts, left


def _find_in_member(
    file: SourceFile, name: str, known: list[SourceFormat], forced: str | None, depth: int
) -> tuple[FormatParts, list[RejectedRecord]]:
    try:
        member = file.member(name)
        if member.names and depth < MAX_ARCHIVE_DEPTH:
            parts, left = _find_in_container(member, known, forced, depth + 1)
        else:
            found = _detect(member, known) or (known[0] if forced else None)
            parts, left = [(found, member)] if found else [], []
        unknown = f"in no known format: {_describe_peek(member.peek())}" if not parts else ""
    except MaterialError as error:
        return [], [RejectedRecord(f"{file.name}/{name}", error.message, rows=0)]
    if unknown and not left:
        left = [RejectedRecord(f"{file.name}/{name}", unknown, rows=0)]
    return parts, left


def _format_by_name(name: str) -> SourceFormat:
    found = next((format for format in FORMATS if format.name == name), None)
    if found is None:
        names = [format.name for format in FORMATS]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MaterialError(f"There is no format {name!r}.{hint}", f"Known: {', '.join(names)}.")
    return found


def _unknown_format_error(peek: Peek) -> MaterialError:
    found = f"{peek.name}, {peek.problem}" if peek.problem else f"{peek.name} is in no known format"
    known = "".join(f"\n  {format.name}: {format.expected}" for format in FORMATS)
    return MaterialError(f"{found}. Found: {_describe_peek(peek)}.", f"Known formats:{known}")


def _describe_peek(peek: Peek) -> str:
    if peek.names:
        return f"{peek.kind} of {', '.join(peek.names[:5])}{' …' if len(peek.names) > 5 else ''}"
    row = peek.head or (peek.records[0] if peek.records else {})
    return f"{peek.kind} with {', '.join(list(row)[:12])}" if row else peek.kind
