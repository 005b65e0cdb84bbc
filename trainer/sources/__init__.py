"""One module per family of formats; all yield the same `Conversation`.

A format is recognised by what a file holds. Each module lists its formats in `FORMATS`; of two that recognise a file,
the one that comes first here reads it, so shapes that are easily told come before those that accept much.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from personas.errors import MaterialError
from personas.rights import DISCORD_API, decide, nobody_opted_in
from trainer.conversation import Conversation, Rejected, people_of
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
from trainer.sources.consented import NOT_OPTED_IN, REASONS
from trainer.sources.files import Peek, SourceFile, open_source
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.hub import located

__all__ = ["FORMATS", "Format", "ReadOptions", "columns_read", "read", "recognise", "usable"]

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


Parts = list[tuple[Format, SourceFile]]


def read(path: Path, options: ReadOptions, format: str | None = None) -> Iterator[Conversation | Rejected]:
    """All that a file or folder holds, used or not; `format` is a format's name, recognised unless given.

    Raises `MaterialError` at once when the format is not known or it may not be trained on (if `options` ask), and
    when it turns out that nothing can be read.
    """
    whole = open_source(located(path))
    parts, left = _parts(whole, _wanted(format, options))
    options = replace(options, source=options.source or whole.name)
    rights = [_right_of(found, file, whole.name, options) for found, file in parts]
    return itertools.chain(left, _items(parts, rights, options))


def usable(path: Path, options: ReadOptions, format: str | None = None) -> Iterator[Conversation | Rejected]:
    """As `read`, but raises `MaterialError` at the end too, when none of it can be used, and says why."""
    return _found_usable(path, read(path, options, format), format)


def _found_usable(
    path: Path, items: Iterator[Conversation | Rejected], format: str | None
) -> Iterator[Conversation | Rejected]:
    first: Rejected | None = None
    is_usable = is_anybodys = False
    for item in items:
        if isinstance(item, Conversation):
            is_usable = True
        else:
            first = first or item
            is_anybodys = is_anybodys or item.reason in REASONS
        yield item
    if is_usable:
        return
    if is_anybodys:
        raise nobody_opted_in(path.name)
    why = f": {first.row}: {first.reason}" if first else ""
    raise MaterialError(f"Nothing in {path.name} can be used{why}.", f"Expected: {recognise(path, format).expected}.")


def _items(parts: Parts, rights: Sequence[str], options: ReadOptions) -> Iterator[Conversation | Rejected]:
    problems: list[MaterialError] = []
    for (found, file), right in zip(parts, rights, strict=True):
        try:
            for item in found.read(file, replace(options, right=right)):
                if isinstance(item, Conversation):
                    yield _admitted(item, options)
                elif len(parts) > 1:
                    yield replace(item, row=f"{file.name} {item.row}")
                else:
                    yield item
        except MaterialError as error:  # the other files may well be whole
            problems.append(error)
            if len(parts) > 1:
                yield Rejected(file.name, error.message, rows=0)
    if len(problems) == len(parts):
        raise problems[0]


def _right_of(found: Format, file: SourceFile, name: str, options: ReadOptions) -> str:
    """Under which right a file is read. Raises `MaterialError` when it may not be trained on, if that is asked.

    What the file is decides, also when it is to be read as something else.
    """
    peek = file.peek()
    by_form = found.right or next((it.right for it in FORMATS if it.right and it.recognises(peek)), "")
    if options.consent is None:
        return options.right or by_form or options.claimed
    return decide(
        name, by_form=by_form, signed=options.right, claimed=options.claimed, consent=options.consent
    ).require()


def _admitted(talk: Conversation, options: ReadOptions) -> Conversation | Rejected:
    """Once more, for what does not say whose words are whose, and records that bring their right along (`rows`).

    `options.right` is the one that is signed for the whole.
    """
    if talk.right != DISCORD_API:
        return talk
    if options.right not in ("", DISCORD_API):
        return replace(talk, right=options.right)
    people = {id for message in talk.messages if message.row for id in people_of(message)}
    if options.consent is None or people <= options.consent.opted_in:
        return talk
    return Rejected(talk.messages[0].row, NOT_OPTED_IN, talk.rows)


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
