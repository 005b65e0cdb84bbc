"""Searches the home's logs for a person's aliases and texts."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
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


class AliasSearch:
    """Collects the names and texts of a person from the records of logs that have the person's
    id.
    """

    def __init__(self, user_id: str) -> None:
        self.names: set[str] = set()
        self.texts: set[str] = set()
        self._user_id = user_id
        self._id_bytes = user_id.encode()

    def search(self, files: Iterable[Path]) -> None:
        """Search logs; unknown formats are left out, since they are searched as bytes later."""
        for path in files:
            suffix = path.suffix.casefold()
            if suffix in JSON_LINES_SUFFIXES:
                with path.open("rb") as lines:
                    self._search_lines(lines)
                continue
            data = path.read_bytes()
            if self._id_bytes in data or suffix in (*ARCHIVE_SUFFIXES, ".gz"):
                self._search_bytes(path.name, data)
            elif CHANNEL_FILE.search(path.as_posix()) and self._is_in_own_package(path):
                self._add_package_texts(path.name, data)

    def _search_bytes(self, name: str, data: bytes) -> None:
        suffix = PurePath(name).suffix.casefold()
        with suppress(ValueError, OSError, EOFError, csv.Error, RecursionError):
            if suffix == ".gz":
                self._search_bytes(name[:-3], gzip.decompress(data))
            elif suffix in ARCHIVE_SUFFIXES:
                self._search_archive(data)
            elif suffix == ".json":
                self._search_record(json.loads(data))
            elif suffix in JSON_LINES_SUFFIXES:
                self._search_lines(data.splitlines())
            elif suffix in TABLE_DELIMITERS:
                text = io.StringIO(data.decode("utf-8-sig"))
                for row in csv.DictReader(text, delimiter=TABLE_DELIMITERS[suffix]):
                    self._search_record(dict(row))

    def _search_lines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if self._id_bytes in line:
                with suppress(ValueError, RecursionError):
                    self._search_record(json.loads(line))

    def _search_archive(self, data: bytes) -> None:
        members = [(name, inner) for name, inner in archive_members(data) if inner is not None]
        is_own_package = any(
            PurePath(name).name == DATA_PACKAGE_OWNER_FILE and self._id_bytes in inner
            for name, inner in members
        )
        for name, inner in members:
            self._search_bytes(name, inner)
            if is_own_package and CHANNEL_FILE.search(name):
                self._add_package_texts(name, inner)

    def _search_record(self, node: Any) -> None:
        """Search a record, and those within it, for a speaker with the person's id."""
        if isinstance(node, list):
            for item in node:
                self._search_record(item)
        elif isinstance(node, dict):
            fields = {str(key).strip().casefold(): value for key, value in node.items()}
            if any(self._is_person(fields[key]) for key in SPEAKER_KEYS if key in fields):
                self.names |= _text_values(fields, NAME_KEYS)
                self.texts |= _text_values(fields, TEXT_KEYS)
            for value in node.values():
                self._search_record(value)

    def _is_person(self, value: Any) -> bool:
        if isinstance(value, dict):
            return str(value.get("id")) == self._user_id
        return isinstance(value, str | int) and str(value) == self._user_id

    def _is_in_own_package(self, path: Path) -> bool:
        root = path.parent.parent.parent
        owners = [root / "account" / DATA_PACKAGE_OWNER_FILE]
        owners += root.glob(f"*/{DATA_PACKAGE_OWNER_FILE}")
        return any(owner.is_file() and self._id_bytes in owner.read_bytes() for owner in owners)

    def _add_package_texts(self, name: str, data: bytes) -> None:
        """Add all texts of a channel's file in the person's own data package."""
        with suppress(ValueError, csv.Error):
            if name.endswith(".json"):
                rows = json.loads(data)
            else:
                rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
            for row in rows:
                if isinstance(row, dict):
                    self.texts.add(str(row.get("Contents") or ""))


def _text_values(fields: Mapping[str, Any], keys: Iterable[str]) -> set[str]:
    return {fields[key] for key in keys if isinstance(fields.get(key), str)}


def identify_in_files(
    files: Iterable[Path], people_key: bytes, keys: set[str]
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
            if person in seen:
                continue
            seen.add(person)
            key = keyed_person(people_key, person)
            if key not in keys:
                continue
            if person.startswith(NAME_KEY_PREFIX):
                names[key] = person.removeprefix(NAME_KEY_PREFIX)
            else:
                ids[key] = person
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
