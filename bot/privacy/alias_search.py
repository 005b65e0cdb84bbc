"""Searches the home's logs for a person's aliases and texts."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from bot.privacy.redaction import (
    ARCHIVE_SUFFIXES,
    DATA_PACKAGE_OWNER_FILE,
    JSON_LINES_SUFFIXES,
    SPEAKER_KEYS,
    TABLE_DELIMITERS,
    archive_members,
)
from personas.home.pseudonyms import keyed_person

NAME_KEYS = ("name", "nickname", "username", "global_name", "display_name", "author")
TEXT_KEYS = ("content", "contents", "text", "message", "value", "body")
CHANNEL_FILE = re.compile(r"(?:^|/)c?\d{15,20}/messages\.(?:csv|json)$")
SNOWFLAKE = re.compile(r"(?<!\d)\d{15,20}(?!\d)")
WORD = re.compile(r"[^\W_]+(?:['’._-][^\W_]+)*")
MAX_NAME_WORDS = 4
NAME_KEY_PREFIX = "name:"


@dataclass
class FoundAliases:
    """The names, texts and ids that logs have of a person."""

    names: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)


def collect_aliases(files: Iterator[Path], user_id: str) -> FoundAliases:
    """Search logs for records with a person's id, and collect the names and texts in them."""
    found = FoundAliases()
    for path in files:
        if path.suffix.casefold() in JSON_LINES_SUFFIXES:
            with path.open("rb") as lines:
                _gather_lines(lines, user_id, found)
            continue
        data = path.read_bytes()
        if user_id.encode() in data or path.suffix.casefold() in (*ARCHIVE_SUFFIXES, ".gz"):
            _gather(path.name, data, user_id, found)
        elif CHANNEL_FILE.search(path.as_posix()) and _is_package_of(path, user_id):
            _package_texts(path.name, data, found)
    return found


def _gather(name: str, data: bytes, user_id: str, found: FoundAliases) -> None:
    suffix = PurePath(name).suffix.casefold()
    try:
        if suffix == ".gz":
            _gather(name[:-3], gzip.decompress(data), user_id, found)
        elif suffix in ARCHIVE_SUFFIXES:
            _gather_archive(data, user_id, found)
        elif suffix == ".json":
            _record(json.loads(data), user_id, found)
        elif suffix in JSON_LINES_SUFFIXES:
            _gather_lines(data.splitlines(), user_id, found)
        elif suffix in TABLE_DELIMITERS:
            for row in csv.DictReader(
                io.StringIO(data.decode("utf-8-sig")), delimiter=TABLE_DELIMITERS[suffix]
            ):
                _record(dict(row), user_id, found)
    except (ValueError, OSError, EOFError, csv.Error, RecursionError):
        return  # unknown formats are searched as bytes later


def _gather_lines(lines: Iterable[bytes], user_id: str, found: FoundAliases) -> None:
    for line in lines:
        if user_id.encode() in line:
            with suppress(
                ValueError, RecursionError
            ):  # unknown formats are searched as bytes later
                _record(json.loads(line), user_id, found)


def _gather_archive(data: bytes, user_id: str, found: FoundAliases) -> None:
    inside = [(name, inner) for name, inner in archive_members(data) if inner is not None]
    owned = any(
        PurePath(name).name == DATA_PACKAGE_OWNER_FILE and user_id.encode() in inner
        for name, inner in inside
    )
    for name, inner in inside:
        _gather(name, inner, user_id, found)
        if owned and CHANNEL_FILE.search(name):
            _package_texts(name, inner, found)


def _record(node: Any, user_id: str, found: FoundAliases) -> None:
    if isinstance(node, list):
        for item in node:
            _record(item, user_id, found)
    elif isinstance(node, dict):
        fields = {str(key).strip().casefold(): value for key, value in node.items()}
        speaker = [value for key, value in fields.items() if key in SPEAKER_KEYS]
        if any(_names_them(value, user_id) for value in speaker):
            found.names |= {
                str(fields[key]) for key in NAME_KEYS if isinstance(fields.get(key), str)
            }
            found.texts |= {
                str(fields[key]) for key in TEXT_KEYS if isinstance(fields.get(key), str)
            }
        for value in node.values():
            _record(value, user_id, found)


def _names_them(value: Any, user_id: str) -> bool:
    if isinstance(value, dict):
        return str(value.get("id")) == user_id
    return isinstance(value, str | int) and str(value) == user_id


def _is_package_of(path: Path, user_id: str) -> bool:
    root = path.parent.parent.parent
    owners = [
        root / "account" / DATA_PACKAGE_OWNER_FILE,
        *root.glob(f"*/{DATA_PACKAGE_OWNER_FILE}"),
    ]
    return any(user_id.encode() in owner.read_bytes() for owner in owners if owner.is_file())


def _package_texts(name: str, data: bytes, found: FoundAliases) -> None:
    """Return all texts of a person's own data package."""
    try:
        if name.endswith(".json"):
            rows = json.loads(data)
        else:
            rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
        found.texts |= {str(row.get("Contents") or "") for row in rows if isinstance(row, dict)}
    except (ValueError, csv.Error):
        return


def identify_in_files(
    files: Iterator[Path], people_key: bytes, keys: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Find those of `keys` in files; returns ids, and casefolded names, by key."""
    texts = (text for path in files for text in chain([path.name], _texts_of(path)))
    return identify_in_texts(texts, people_key, keys)


def identify_in_texts(
    texts: Iterable[str], people_key: bytes, keys: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Find those of `keys` in texts; returns ids, and casefolded names, by key."""
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    seen: set[str] = set()
    for text in texts:
        for person in _candidates(text):
            if person not in seen:
                seen.add(person)
                key = keyed_person(people_key, person)
                if key in keys:
                    name = person.removeprefix(NAME_KEY_PREFIX)
                    (ids if name == person else names)[key] = name
    return ids, names


def _candidates(text: str) -> Iterator[str]:
    """Yield everything that may be an id or (with `NAME_KEY_PREFIX`) a name, in the form in which
    people are keyed.
    """
    yield from SNOWFLAKE.findall(text)
    words = [(match.start(), match.end()) for match in WORD.finditer(text)]
    for at, (start, _) in enumerate(words):
        yield from (
            f"{NAME_KEY_PREFIX}{text[start:end].casefold()}"
            for _, end in words[at : at + MAX_NAME_WORDS]
        )


def _texts_of(path: Path) -> Iterator[str]:
    if path.suffix.casefold() not in JSON_LINES_SUFFIXES:
        yield from _texts_in(path.name, path.read_bytes())
        return
    with path.open(encoding="utf-8") as lines, suppress(UnicodeDecodeError):
        yield from lines


def _texts_in(name: str, data: bytes) -> Iterator[str]:
    suffix = PurePath(name).suffix.casefold()
    try:
        if suffix == ".gz":
            yield from _texts_in(name[:-3], gzip.decompress(data))
        elif suffix in ARCHIVE_SUFFIXES:
            for member, inner in archive_members(data):
                if inner is not None:
                    yield from _texts_in(member, inner)
        else:
            yield data.decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return
