"""Redacts a person from one file: removes their records, and replaces their name where others
mention it.
"""

import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from bot.privacy.identifier_matcher import IdentifierMatcher

SPEAKER_KEYS = frozenset(
    """author author_id authorid from from_id fromid user user_id userid username sender sender_id sender_name senderid
    speaker speaker_id name nickname global_name display_name displayname actor actor_id member member_id id owner
    real_name screen_name handle participant who by""".split()
)
"""Keys, in any spelling, whose value is a record's author or subject."""

REMOVED_RECORD = object()
LOG_LINE = re.compile(r"^[\[(\d]|^[^\s:>|][^:>|]{0,60}[:>|] ")
"""The start of a message in a plain-text log: a time, or a name and a colon."""
DATED_LINE = re.compile(
    r"^[\[(]?\d[\d/.\-: ,+年月日\u202f]{3,40}(?:T[\d:.+]+Z?)?(?:[apAP]\.?[mM]\.?)?[\])]?\s*(?:- )?"
)
ARCHIVE_SUFFIXES = (".zip", ".charx")
TABLE_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
PROSE_SUFFIXES = (".md", ".markdown", ".toml")
MENTION_SUFFIXES = frozenset(
    (".json", ".txt", ".log", *JSON_LINES_SUFFIXES, *TABLE_DELIMITERS, *PROSE_SUFFIXES)
)
DATA_PACKAGE_OWNER_FILE = "user.json"
"""The file of a Discord data package that identifies its owner."""
MAX_UNPACKED_BYTES = 2**30  # of one archive; what is beyond counts as unreadable
BLOCK_CHARACTERS = 2**20


def file_contains_person(file: Path, finder: IdentifierMatcher) -> bool:
    """Apply `contains_person` to a file on the disk, without loading JSON Lines into memory."""
    with suppress(UnicodeDecodeError):
        if _suffix(file) in JSON_LINES_SUFFIXES:
            return any(finder.in_text(block) for block in _blocks(file))
    return contains_person(file.name, file.read_bytes(), finder)


def file_mentions_person(file: Path, finder: IdentifierMatcher) -> bool:
    """Apply `mentions_person` to a file on the disk, without loading JSON Lines into memory."""
    with suppress(UnicodeDecodeError):
        if _suffix(file) in JSON_LINES_SUFFIXES:
            return any(finder.touches(block) for block in _blocks(file))
    return mentions_person(file.name, file.read_bytes(), finder)


def redact_file(file: Path, out: BinaryIO, finder: IdentifierMatcher) -> bool:
    """Redact a file; False where nothing of it can, or should, be kept. Raises `OSError`."""
    if _suffix(file) in JSON_LINES_SUFFIXES:
        try:
            for block in _blocks(file):
                out.write(_lines(block, finder).encode())
        except (ValueError, RecursionError):
            return False
        return True
    new = redact(file.name, file.read_bytes(), finder)
    if new is not None:
        out.write(new)
    return new is not None


def _blocks(file: Path) -> Iterator[str]:
    """Yield whole lines in blocks of about `BLOCK_CHARACTERS`. Raises `UnicodeDecodeError`."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        while block := lines.readlines(BLOCK_CHARACTERS):
            yield "".join(block)


def _suffix(file: PurePath) -> str:
    return file.suffix.casefold()


def redact(name: str, data: bytes, finder: IdentifierMatcher) -> bytes | None:
    """Return a file's redacted contents; None where nothing can, or should, be kept. `name` gives
    the format.
    """
    suffix = _suffix(PurePath(name))
    try:
        if suffix == ".gz":
            inner = redact(name[:-3], gzip.decompress(data), finder)
            return None if inner is None else gzip.compress(inner)
        if suffix in ARCHIVE_SUFFIXES:
            return _archive(data, finder)
        return _text(suffix, data.decode("utf-8"), finder)
    except (OSError, EOFError, ValueError, RecursionError, zipfile.BadZipFile, csv.Error):
        return None  # an unknown format, or a damaged file


def mentions_person(name: str, data: bytes, finder: IdentifierMatcher) -> bool:
    """Return whether a text file contains a part of the person's name; archives are not unpacked
    for that.
    """
    if _suffix(PurePath(name)) not in MENTION_SUFFIXES:
        return False
    try:
        return finder.touches(data.decode())
    except UnicodeDecodeError:
        return False


def contains_person(name: str, data: bytes, finder: IdentifierMatcher) -> bool:
    """Return whether a file contains the person, also within an archive; an unreadable one is
    searched as bytes.
    """
    suffix = _suffix(PurePath(name))
    if suffix == ".gz":
        try:
            return contains_person(name[:-3], gzip.decompress(data), finder)
        except (OSError, EOFError):
            return finder.in_bytes(data)
    if finder.in_bytes(data):
        return True
    if suffix in ARCHIVE_SUFFIXES:
        for member, inner in archive_members(data):
            if finder.in_text(member):
                return True
            if inner is not None and contains_person(member, inner, finder):
                return True
    return False


def is_own_data_package_archive(file: Path, finder: IdentifierMatcher) -> bool:
    """Return whether a file is the person's own Discord data package, zipped."""
    if _suffix(file) not in ARCHIVE_SUFFIXES:
        return False
    return is_own_data_package(archive_members(file.read_bytes()), finder)


def is_own_data_package(
    members: Iterable[tuple[str, bytes | None]], finder: IdentifierMatcher
) -> bool:
    for name, data in members:
        if PurePath(name).name == DATA_PACKAGE_OWNER_FILE and data is not None:
            with suppress(ValueError):
                user = json.loads(data)
                if isinstance(user, dict) and finder.is_theirs(user.get("id")):
                    return True
    return False


def _text(suffix: str, text: str, finder: IdentifierMatcher) -> bytes | None:
    if suffix == ".json":
        new: str | None = _json(text, finder)
    elif suffix in JSON_LINES_SUFFIXES:
        new = _lines(text, finder)
    elif suffix in TABLE_DELIMITERS:
        new = _table(text, TABLE_DELIMITERS[suffix], finder)
    elif suffix in PROSE_SUFFIXES:
        new = finder.redacted(text)
    else:
        new = _plain_text(text, finder)
    return None if new is None else new.encode()


def _json(text: str, finder: IdentifierMatcher) -> str | None:
    redacted = redact_json(json.loads(text), finder)
    if redacted is REMOVED_RECORD:
        return None
    # Only what is redacted changes, so the layout stays.
    indent = 2 if re.match(r"[\[{]\s*\n", text) else None
    new = json.dumps(redacted, ensure_ascii=False, indent=indent)
    if text.endswith("\n"):
        new += "\n"
    return new


def _lines(text: str, finder: IdentifierMatcher) -> str:
    lines = []
    for line in text.split("\n"):
        if not finder.touches(line):
            lines.append(line)
        elif (record := _record(line, finder)) is not REMOVED_RECORD:
            lines.append(record)
    return "\n".join(lines)


def _record(line: str, finder: IdentifierMatcher) -> Any:
    try:
        redacted = redact_json(json.loads(line), finder)
    except ValueError:
        if finder.in_text(line):
            return REMOVED_RECORD
        return finder.redacted(line)
    if redacted is REMOVED_RECORD:
        return redacted
    return json.dumps(redacted, ensure_ascii=False)


def redact_json(node: Any, finder: IdentifierMatcher) -> Any:
    """Return a JSON value without the person; `REMOVED_RECORD` for a record of theirs."""
    if isinstance(node, dict):
        if _is_theirs(node, finder):
            return REMOVED_RECORD
        cleaned = {finder.redacted(key): _field(key, value, finder) for key, value in node.items()}
        return {key: value for key, value in cleaned.items() if value is not REMOVED_RECORD}
    if isinstance(node, list):
        items = (redact_json(item, finder) for item in node)
        return [item for item in items if item is not REMOVED_RECORD]
    if isinstance(node, str):
        return finder.redacted(node)
    # A bool is an int, too, and its text may be a name.
    if isinstance(node, int) and not isinstance(node, bool) and finder.is_theirs(node):
        return 0
    return node


def _field(key: str, value: Any, finder: IdentifierMatcher) -> Any:
    if key in finder.jobs.FIELDS and isinstance(value, str):
        value = finder.jobs.new(value)
    return redact_json(value, finder)


def _is_theirs(record: dict[str, Any], finder: IdentifierMatcher) -> bool:
    """Return whether the person is the author of this record, by id or by name."""
    for key, value in record.items():
        if key.casefold().replace("-", "_") not in SPEAKER_KEYS:
            continue
        if finder.is_theirs(value) or (isinstance(value, dict) and _is_theirs(value, finder)):
            return True
    return False


def _table(text: str, delimiter: str, finder: IdentifierMatcher) -> str:
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    if not rows:
        return text
    author_columns = []
    for at, title in enumerate(rows[0]):
        # Excel begins a file with a byte order mark, which stands before the first title.
        name = title.strip().lstrip("\ufeff").casefold().replace(" ", "_").replace("-", "_")
        if name in SPEAKER_KEYS:
            author_columns.append(at)
    out = io.StringIO()
    line_end = "\r\n" if "\r\n" in text else "\n"
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    for row in rows:
        authors = (row[at] for at in author_columns if at < len(row))
        if not any(finder.is_theirs(author) for author in authors):
            writer.writerow([finder.redacted(cell) for cell in row])
    return out.getvalue()


def _plain_text(text: str, finder: IdentifierMatcher) -> str | None:
    """Redact text line by line; in a chat log, the person's messages go with all their lines."""
    if "\0" in text:
        return None
    lines = []
    is_theirs = False
    for line in text.split("\n"):
        if LOG_LINE.match(line) or not line.strip():
            is_theirs = _is_speaker(line, finder)
        if not is_theirs:
            lines.append(finder.redacted(line))
    return "\n".join(lines)


def _is_speaker(line: str, finder: IdentifierMatcher) -> bool:
    rest = DATED_LINE.sub("", line, count=1)
    speaker, mark, _ = rest.partition(":")
    candidates = [speaker.strip(" <>*~-")] if mark else []
    candidates += re.findall(r"^<([^>]{1,60})>", rest)
    return any(finder.is_theirs(candidate) for candidate in candidates)


def _archive(data: bytes, finder: IdentifierMatcher) -> bytes | None:
    out = io.BytesIO()
    count = 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inner in archive_members(data):
            if inner is None:
                continue  # its contents are unknown
            new: bytes | None = inner
            if contains_person(name, inner, finder):
                new = redact(name, inner, finder)
            if new is not None:
                archive.writestr(finder.redacted(name), new)
                count += 1
    return out.getvalue() if count else None


def archive_members(data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Return the files of an archive; None for one that cannot be read. Damage anywhere makes all
    of it unreadable.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            remaining_bytes = MAX_UNPACKED_BYTES
            for entry in archive.infolist():
                if entry.filename.endswith("/"):
                    continue
                # The archive states the sizes: nothing is unpacked only to measure it.
                remaining_bytes -= entry.file_size
                content = None
                if remaining_bytes >= 0:
                    content = _member(archive, entry)
                yield entry.filename, content
    except (zipfile.BadZipFile, OSError, ValueError):
        yield "damaged", None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError, EOFError):
        return None
