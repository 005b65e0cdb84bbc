"""Reads a source of any format into conversations and rejected records, and resolves the right to
use it.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, cast

from personas.errors import MaterialError
from personas.home.rights import decide_right, no_consent_error
from personas.schemas.base import DISCORD_API
from trainer.sources.conversation import Conversation, RejectedRecord, author_ids
from trainer.sources.hub_source import resolve_path
from trainer.sources.log_pool import LogPool
from trainer.sources.registry import (
    FORMATS,
    detect_format,
    find_parts,
    requested_format,
)
from trainer.sources.sessionise import EDITED, REPEATED, ChatLog
from trainer.sources.source_file import SourceFile, open_source
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import CONSENT_REASONS, NOT_OPTED_IN

MAX_SHOWN_ROLES = 12


def read_source(
    path: Path, options: ReadOptions, format: str | None = None, logs: LogPool | None = None
) -> Iterator[Conversation | RejectedRecord]:
    """Yield everything in a file or folder, usable or not; `format` names a format, detected by
    default. `logs` are shared by the sources that are read together: ask for all of them before the
    first is read.

    Raises `MaterialError` immediately if the format is unknown or training is not permitted (if
    `options` ask), and at the end if nothing could be read.
    """
    whole = open_source(resolve_path(path))
    parts, rejected = find_parts(whole, requested_format(format, options))
    options = replace(options, source=options.source or whole.name)
    rights = [_resolve_right(found, file, whole.name, options) for found, file in parts]
    pool = logs or LogPool()
    opened = []
    for (found, file), right in zip(parts, rights, strict=True):
        opened.append(_OpenPart.of(found, file, replace(options, right=right), pool))
    return itertools.chain(rejected, _read_parts(opened, options))


def list_rights(path: Path, options: ReadOptions, format: str | None = None) -> list[str]:
    """Return the right of each part of a file or folder. Raises `MaterialError` as `read_source`
    does immediately.
    """
    whole = open_source(resolve_path(path))
    parts, _ = find_parts(whole, requested_format(format, options))
    return [_resolve_right(found, file, whole.name, options) for found, file in parts]


def read_usable(
    path: Path, options: ReadOptions, format: str | None = None, logs: LogPool | None = None
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the same as `read_source`, but also raise `MaterialError` at the end if nothing is
    usable, unless all of it has been read with another source.
    """
    return _require_usable(path, read_source(path, options, format, logs), options, format)


def _require_usable(
    path: Path,
    items: Iterator[Conversation | RejectedRecord],
    options: ReadOptions,
    format: str | None,
) -> Iterator[Conversation | RejectedRecord]:
    first: RejectedRecord | None = None
    is_usable = lacks_consent = is_repeated = False
    roles = Counter[str]()
    for item in items:
        roles.update(item.roles)
        if isinstance(item, Conversation):
            is_usable = True
        else:
            first = first or item
            lacks_consent = lacks_consent or item.reason in CONSENT_REASONS
            is_repeated = is_repeated or item.reason in (REPEATED, EDITED)
        yield item
    names = options.all_persona_names
    if len(roles) > bool(is_usable) and not (names and is_usable):
        raise _role_error(path.name, options, roles)
    if is_usable or is_repeated:
        return
    if lacks_consent:
        raise no_consent_error(path.name)
    reason = f": {first.row}: {first.reason}" if first else ""
    found = detect_format(path, format)
    raise MaterialError(
        f"Nothing in {path.name} can be used{reason}.", found.note or f"Expected: {found.expected}."
    )


def _role_error(name: str, options: ReadOptions, roles: Counter[str]) -> MaterialError:
    """Build the error for lines of characters of whom none, or more than one, would be learned."""
    found = format_roles(roles)
    message = f"{name} has lines of {found}; it has to be said whose are learned."
    if options.all_persona_names:
        message = (
            f"{options.all_persona_names[0]} never speaks in {name}. Characters found: {found}."
        )
    advice = f"Name the character with {options.names_by}"
    if len(roles) > MAX_SHOWN_ROLES:
        advice += (
            " (@first or @second stands for who begins, or who answers, if names differ from talk "
            "to talk)"
        )
    return MaterialError(message, f"{advice}.")


def format_roles(roles: Counter[str]) -> str:
    """Format the most frequent characters with their numbers of records."""
    shown = ", ".join(f"{role} {count:,}" for role, count in roles.most_common(MAX_SHOWN_ROLES))
    more = len(roles) - MAX_SHOWN_ROLES
    return f"{shown} and {more:,} more" if more > 0 else shown


@dataclass(frozen=True)
class _OpenPart:
    """A file that is read: its content, or the error that tells why there is none."""

    format: SourceFormat
    file: SourceFile
    items: Iterator[Conversation | RejectedRecord]
    error: MaterialError | None = None

    @classmethod
    def of(cls, found: SourceFormat, file: SourceFile, options: ReadOptions, logs: LogPool) -> Self:
        try:
            items = found.read(file, options)
        except MaterialError as error:
            return cls(found, file, iter(()), error)
        if isinstance(items, ChatLog):
            reopen = cast(Callable[[], ChatLog], partial(found.read, file, options))
            logs.add(items, reopen, has_many_files=len(file.names) > 1)
            return cls(found, file, _pooled(items, logs))
        return cls(found, file, iter(items))


def _pooled(log: ChatLog, logs: LogPool) -> Iterator[Conversation | RejectedRecord]:
    """Yield a log's items once all logs of the pool are known."""
    yield from logs.items(log)


def _read_parts(
    parts: Sequence[_OpenPart], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    problems: list[MaterialError] = []
    for part in parts:
        try:
            for item in _read_part(part):
                if len(parts) > 1:
                    item = _with_file_name(item, part.file.name)
                yield _filter_by_consent(item, options) if isinstance(item, Conversation) else item
        except MaterialError as error:
            # The other files may be intact.
            problems.append(error)
            if len(parts) > 1:
                yield RejectedRecord(part.file.name, error.message, rows=0)
    if len(problems) == len(parts):
        raise problems[0]


def _read_part(part: _OpenPart) -> Iterator[Conversation | RejectedRecord]:
    """Yield the contents of one file. Raises `MaterialError` if it cannot be read, or a forced
    format does not match.
    """
    if part.error:
        raise part.error
    first = next(part.items, None)
    if first is not None:
        return itertools.chain([first], part.items)
    if not part.format.matches(part.file.peek()):
        raise MaterialError(
            f"{part.file.name} cannot be read as {part.format.name}.",
            f"Expected: {part.format.expected}.",
        )
    return iter(())


def _with_file_name(
    item: Conversation | RejectedRecord, name: str
) -> Conversation | RejectedRecord:
    if isinstance(item, RejectedRecord):
        return replace(item, row=_row_with_file(name, item.row))
    messages = []
    for message in item.messages:
        messages.append(replace(message, row=_row_with_file(name, message.row)))
    return replace(item, messages=tuple(messages))


def _row_with_file(name: str, row: str) -> str:
    return row if not row or row.startswith((f"{name}/", f"{name} ")) else f"{name} {row}"


def _resolve_right(found: SourceFormat, file: SourceFile, name: str, options: ReadOptions) -> str:
    """Resolve the right to read a file. Raises `MaterialError` if training on it is not permitted
    and `options` ask.

    The detected format decides, even if the file is read as another one.
    """
    peek = file.peek()
    by_form = found.right
    if not by_form:
        # Reading Discord's export as a table must not make its messages anybody's own.
        rights = (format.right for format in FORMATS if format.right and format.matches(peek))
        by_form = next(rights, "")
    if options.consent is None:
        return options.right or by_form or options.claimed
    decision = decide_right(
        name,
        format_right=by_form,
        stated=options.right,
        claimed=options.claimed,
        consent=options.consent,
    )
    if decision.refused and file.name != name:
        # One of several files: its own name says which.
        raise MaterialError(f"{file.name}: {decision.refused}", decision.advice)
    return decision.require()


def _filter_by_consent(
    conversation: Conversation, options: ReadOptions
) -> Conversation | RejectedRecord:
    """Check consent again for formats without speakers and records that state their own right
    (`row_reader`).

    `options.right` is the right signed for the whole source.
    """
    if conversation.right != DISCORD_API:
        return conversation
    if options.right not in ("", DISCORD_API):
        return replace(conversation, right=options.right)
    people: set[str] = set()
    for message in conversation.messages:
        if message.row:
            people.update(author_ids(message))
    if options.consent is None or people <= options.consent.opted_in:
        return conversation
    return RejectedRecord(conversation.messages[0].row, NOT_OPTED_IN, conversation.rows)
