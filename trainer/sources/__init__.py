"""One module per family of formats; all yield the same `Conversation`.

A format is recognised by what a file holds. Each module lists its formats in `FORMATS`; of two that recognise a file,
the one that comes first here reads it, so shapes that are easily told come before those that accept much.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from personas.errors import MaterialError
from trainer.conversation import Conversation, Rejected
from trainer.sources import (
    cards,
    discord_export,
    discord_package,
    instagram,
    oasst,
    oasst_rows,
    own_log,
    personachat,
    rows,
    slack,
    telegram,
    whatsapp,
)
from trainer.sources.files import Peek, SourceFile, open_source
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.hub import located

__all__ = ["FORMATS", "Format", "ReadOptions", "columns_read", "read", "recognise"]

FORMATS: tuple[Format, ...] = (
    *cards.FORMATS,
    *discord_export.FORMATS,
    *discord_package.FORMATS,
    *own_log.FORMATS,
    *telegram.FORMATS,
    *slack.FORMATS,
    *instagram.FORMATS,
    *whatsapp.FORMATS,
    *oasst.FORMATS,
    *oasst_rows.FORMATS,
    *personachat.FORMATS,
    *rows.FORMATS,
)
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".yml", ".yaml", ".txt", ".zip",
                 ".png", ".charx", ".toml")  # fmt: skip
NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "requirements.txt")
"""Files that stand beside the data in folders of `datasets` and of the hub."""


def recognise(path: Path, forced: str | None = None, options: ReadOptions | None = None) -> Format:
    """The format of a file or folder (of a folder's first file that has one), or the one that is forced.

    Raises `MaterialError` that says what was found and what is known.
    """
    return _parts(open_source(located(path)), _wanted(forced, options))[0][0][0]


def columns_read(path: Path, options: ReadOptions, format: str | None = None) -> str:
    """As what the columns of an unknown table are read; empty where a format says it."""
    found, file = _parts(open_source(located(path)), _wanted(format, options))[0][0]
    return str(rows.columns_of(file.peek(), options) or "") if found.name == rows.COLUMNS else ""


def _wanted(forced: str | None, options: ReadOptions | None) -> str | None:
    """Whoever names columns wants them read as named."""
    return forced or (rows.COLUMNS if options and options.mapping else None)


def read(path: Path, options: ReadOptions, format: str | None = None) -> Iterator[Conversation | Rejected]:
    """All that a file or folder holds, used or not; `format` is a format's name, recognised unless given.

    Raises `MaterialError` when the format is not known or nothing can be read.
    """
    whole = open_source(located(path))
    parts, left = _parts(whole, _wanted(format, options))
    yield from left
    options = replace(options, source=options.source or whole.name)
    problems: list[MaterialError] = []
    for found, file in parts:
        try:
            for item in found.read(file, options):
                if len(parts) > 1 and isinstance(item, Rejected):
                    item = replace(item, row=f"{file.name} {item.row}")
                yield item
        except MaterialError as error:  # the other files may well be whole
            problems.append(error)
            if len(parts) > 1:
                yield Rejected(file.name, error.message, rows=0)
    if len(problems) == len(parts):
        raise problems[0]


Parts = list[tuple[Format, SourceFile]]


def _parts(file: SourceFile, forced: str | None) -> tuple[Parts, list[Rejected]]:
    """What is to be read and as what: the file itself, or the files of a folder or archive that no format claims.

    Files of a folder that are in no known format are returned as rejected: how many records they hold nobody knows.
    """
    known = [_named(forced)] if forced else list(FORMATS)
    peek = file.peek()
    if claimed := next((format for format in known if format.recognises(peek)), None):
        return [(claimed, file)], []
    if file.names:
        parts, left = _members(file, known, forced)
        if parts:
            return parts, left
    elif forced:
        return [(known[0], file)], []
    raise _unknown(peek)


def _members(file: SourceFile, known: list[Format], forced: str | None) -> tuple[Parts, list[Rejected]]:
    parts: Parts = []
    left: list[Rejected] = []
    for name in filter(_is_data, file.names):
        try:
            member = file.member(name)
            peek = member.peek()
        except MaterialError as error:
            left.append(Rejected(f"{file.name}/{name}", error.message, rows=0))
            continue
        found = next((format for format in known if format.recognises(peek)), known[0] if forced else None)
        if found:
            parts.append((found, member))
        else:
            left.append(Rejected(f"{file.name}/{name}", f"in no known format: {_shape(peek)}", rows=0))
    return parts, left


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    # Arrow files that begin so are kept by `datasets` for steps along the way.
    aside = path.name in NO_DATA or path.name.startswith(("cache-", "tmp")) or "blobs" in path.parts
    return not hidden and not aside and path.name.removesuffix(".gz").lower().endswith(DATA_SUFFIXES)


def _named(name: str) -> Format:
    found = next((format for format in FORMATS if format.name == name), None)
    if found is None:
        names = [format.name for format in FORMATS]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MaterialError(f"There is no format {name!r}.{hint}", f"Known: {', '.join(names)}.")
    return found


def _unknown(peek: Peek) -> MaterialError:
    found = f"{peek.name}, {peek.problem}" if peek.problem else f"{peek.name} is in no known format"
    known = "".join(f"\n  {format.name}: {format.expected}" for format in FORMATS)
    return MaterialError(f"{found}. Found: {_shape(peek)}.", f"Known formats:{known}")


def _shape(peek: Peek) -> str:
    if peek.names:
        return f"{peek.kind} of {', '.join(peek.names[:5])}{' …' if len(peek.names) > 5 else ''}"
    row = peek.head or (peek.records[0] if peek.records else {})
    return f"{peek.kind} with {', '.join(list(row)[:12])}" if row else peek.kind
