"""One module per family of formats; all yield the same `Conversation`.

A format is recognised by what a file holds. Each module lists its formats in `FORMATS`; of two that recognise a file,
the one that comes first here reads it, so shapes that are easily told come before those that accept much.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from personas.errors import MaterialError
from personas.rights import DISCORD_API, decide, nobody_opted_in
from trainer.conversation import Conversation, Rejected, people_of
from trainer.sources import (
    cards,
    discord_export,
    discord_package,
    instagram,
    lore,
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
from trainer.sources.folders import is_called_data, is_medium, media_left, opened
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.hub import located

__all__ = ["FORMATS", "Format", "ReadOptions", "columns_read", "read", "recognise", "rights_in", "survey", "usable"]

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
    *lore.FORMATS,
    *rows.FORMATS,
)
MOST_NESTED = 3
"""So many archives within archives are opened."""


def recognise(path: Path, forced: str | None = None, options: ReadOptions | None = None) -> Format:
    """The format of a file or folder (of a folder's first file that has one), or the one that is forced.

    Raises `MaterialError` that says what was found and what is known.
    """
    return _parts(open_source(located(path)), _wanted(forced, options))[0][0][0]


def survey(path: Path, options: ReadOptions, format: str | None = None) -> tuple[dict[str, tuple[Format, int]], str]:
    """The formats of a file or folder by name, each with how many files have it, and as what the columns of an unknown
    table are read (empty where a format says it)."""
    parts, _ = _parts(open_source(located(path)), _wanted(format, options))
    counts: dict[str, tuple[Format, int]] = {}
    for found, _ in parts:
        counts[found.name] = (found, counts.get(found.name, (found, 0))[1] + 1)
    return counts, _columns_read(*parts[0], options)


def columns_read(path: Path, options: ReadOptions, format: str | None = None) -> str:
    """As what the columns of an unknown table are read; empty where a format says it."""
    return survey(path, options, format)[1]


def _columns_read(found: Format, file: SourceFile, options: ReadOptions) -> str:
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


def rights_in(path: Path, options: ReadOptions, format: str | None = None) -> list[str]:
    """The right of each part of a file or folder. Raises `MaterialError` as `read` does at once."""
    whole = open_source(located(path))
    parts, _ = _parts(whole, _wanted(format, options))
    return [_right_of(found, file, whole.name, options) for found, file in parts]


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
            for item in _of_part(found, file, replace(options, right=right)):
                if len(parts) > 1:
                    item = _placed(item, file.name)
                yield _admitted(item, options) if isinstance(item, Conversation) else item
        except MaterialError as error:  # the other files may well be whole
            problems.append(error)
            if len(parts) > 1:
                yield Rejected(file.name, error.message, rows=0)
    if len(problems) == len(parts):
        raise problems[0]


def _of_part(found: Format, file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """What one file holds. Raises `MaterialError` where it holds nothing of the format that is forced on it."""
    items = iter(found.read(file, options))
    first = next(items, None)
    if first is not None:
        return itertools.chain([first], items)
    if not found.recognises(file.peek()):
        raise MaterialError(f"{file.name} holds nothing that is read as {found.name}.", f"Expected: {found.expected}.")
    return iter(())


def _placed(item: Conversation | Rejected, name: str) -> Conversation | Rejected:
    """The same, its rows with the file in which they stand."""
    if isinstance(item, Rejected):
        return replace(item, row=_row_in(name, item.row))
    messages = tuple([replace(one, row=_row_in(name, one.row)) for one in item.messages])
    return replace(item, messages=messages)


def _row_in(name: str, row: str) -> str:
    return row if not row or row.startswith(f"{name}/") else f"{name} {row}"


def _right_of(found: Format, file: SourceFile, name: str, options: ReadOptions) -> str:
    """Under which right a file is read. Raises `MaterialError` when it may not be trained on, if that is asked.

    What the file is decides, also when it is to be read as something else.
    """
    peek = file.peek()
    by_form = found.right or next((it.right for it in FORMATS if it.right and it.recognises(peek)), "")
    if options.consent is None:
        return options.right or by_form or options.claimed
    verdict = decide(name, by_form=by_form, signed=options.right, claimed=options.claimed, consent=options.consent)
    if verdict.refused and file.name != name:  # of many files, this one
        raise MaterialError(f"{file.name}: {verdict.refused}", verdict.advice)
    return verdict.require()


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
    """What is to be read and as what: the file itself, or what a folder or archive holds.

    There a format may claim several files at once (the export of a workspace); the others are looked at one by one.
    Files in no known format are returned as rejected: how many records they hold nobody knows.
    """
    known = [_named(forced)] if forced else list(FORMATS)
    if file.names:
        parts, left = _within(file, known, forced)
        if parts:
            return parts, left
    elif found := _recognised(file, known):
        return [(found, file)], []
    elif forced and file.kind not in ("folder", "zip"):
        return [(known[0], file)], []
    raise _unknown(file.peek())


def _recognised(file: SourceFile, known: Sequence[Format]) -> Format | None:
    peek = file.peek()
    return next((format for format in known if format.recognises(peek)), None)


def _within(file: SourceFile, known: list[Format], forced: str | None, depth: int = 1) -> tuple[Parts, list[Rejected]]:
    names = opened(file.names)
    parts: Parts = []
    for format in known:
        while format.claims and (theirs := format.claims(names)):
            part = replace(file, names=tuple(theirs))
            if not format.recognises(part.peek()):
                break
            parts.append((format, part))
            claimed = set(theirs)
            names = [name for name in names if name not in claimed]
    left = list(
        media_left(file.name, [name for name in names if is_medium(name) and not name.lower().endswith(".png")])
    )
    # What lies beside an export belongs to it more likely than not, so nothing there is read by guess.
    certain = [format for format in known if format.name != rows.COLUMNS or forced]
    for name in names:
        if is_medium(name) and not name.lower().endswith(".png"):
            continue
        may_guess = is_called_data(name) and not any(part.names for _, part in parts)
        more, without = _member(file, name, known if may_guess else certain, forced, depth)
        parts += more
        left += without
    return parts, left


def _member(
    file: SourceFile, name: str, known: list[Format], forced: str | None, depth: int
) -> tuple[Parts, list[Rejected]]:
    try:
        member = file.member(name)
        if member.names and depth < MOST_NESTED:
            parts, left = _within(member, known, forced, depth + 1)
        else:
            found = _recognised(member, known) or (known[0] if forced else None)
            parts, left = [(found, member)] if found else [], []
        unknown = f"in no known format: {_shape(member.peek())}" if not parts else ""
    except MaterialError as error:
        return [], [Rejected(f"{file.name}/{name}", error.message, rows=0)]
    if unknown and not left:
        left = [Rejected(f"{file.name}/{name}", unknown, rows=0)]
    return parts, left


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
