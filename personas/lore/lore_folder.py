"""Lore folders: markdown files, and the personas that own them by front matter, folder or name."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from personas.errors import LoreError
from personas.lore.entry_rules import require_plain_yaml
from personas.lore.index_terms import fold_text
from personas.lore.passages import WORLD, Passage, is_lore_set, split_passages
from personas.schemas.chat import Persona, to_nfc

log = logging.getLogger(__name__)
LORE_SUFFIXES = (".md", ".markdown")
LOREBOOK_PATTERN = re.compile(
    rb'"(?:lorebookVersion|keysecondary|secondary_keys|keywords|keys|key)"\s*:'
)
LOREBOOK_REASON = (
    "it is a lorebook of another program: `python -m personas lore convert` makes markdown of it"
)
SNIFFED_BYTES = 65536
CONTAINER_KEYS = frozenset(
    "character characters chars cast npc npcs persona personas profiles people lore".split()
)
"""Folders of several owners' files, which name nobody themselves."""
WORLD_KEYS = frozenset(
    "world shared common everyone everybody all setting settings worldbuilding".split()
)
LABEL_PATTERN = re.compile(
    r"(?:characters?|char|personas?|npc|profile|lore|about|bio)[\s_.-]+(?=\w)", re.IGNORECASE
)
"""Prefix of a file or folder name that says that a name follows: `character_oda.md`."""
OWNER_KEYS = ("persona", "personas", "character", "owner")
FRONT_MATTER_PATTERN = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class LoreDocument:
    """A markdown file of a lore folder: its `owners` and the text below its front matter, or why it
    is `skipped`.

    `source` is its path in the folder.
    """

    path: Path
    source: PurePosixPath
    owners: tuple[str, ...] = ()
    text: str = ""
    skipped: str = ""


class OwnerNames:
    """Resolves names in front matter and paths to persona ids, whatever their case, separators and
    diacritics.
    """

    def __init__(self, personas: Iterable[str | Persona]) -> None:
        """A string is an id. A persona's name precedes that of a set of lore, which differs from it
        by its underscore alone.
        """
        self.ids: dict[str, str] = {}
        owners = []
        for persona in personas:
            if isinstance(persona, str):
                owners.append([persona])
            else:
                owners.append([persona.id, persona.name, persona.nickname])
        for names in sorted(owners, key=lambda owner: is_lore_set(owner[0])):
            for key in filter(None, map(fold_key, names)):
                self.ids.setdefault(key, names[0])

    def find(self, name: str) -> str:
        """Return the owner of this name; empty if there is none. Names of personas precede names of
        the world.
        """
        key = fold_key(name)
        if owner := self.ids.get(key):
            return owner
        if key in WORLD_KEYS or name.strip() == "*":
            return WORLD
        return ""

    def find_in_path(self, source: PurePosixPath) -> tuple[str, str]:
        """Return the owner that a path names, or the reason why there is none."""
        folders = []
        for name in source.parts[:-1]:
            if fold_key(name) not in CONTAINER_KEYS or self.find(name):
                folders.append(name)
        for folder in folders:
            if owner := self.find(folder) or self.find(_without_label(folder)):
                return owner, ""
        stem = source.stem
        name = _without_label(source.stem)
        is_named = name != stem or (len(source.parts) > 1 and source.parts[-2] not in folders)
        if folders and not is_named:
            return "", f"its folder {folders[-1]!r} is no persona's"
        beginning = self._known_beginning(fold_key(stem), fold_key(name)) or stem
        if owner := self.find(beginning):
            return owner, ""
        return "", f"no persona is called {name!r}" if is_named else "it has no owner"

    def _known_beginning(self, *keys: str) -> str:
        """Return the longest known name that a key begins with: `oda-kitchen.md` is Oda's."""
        matches = []
        for known in (*self.ids, "world"):
            if any(f"{key}-".startswith(f"{known}-") for key in keys):
                matches.append(known)
        return max(matches, key=len, default="")

    def resolve(self, stated: Iterable[str], source: PurePosixPath) -> tuple[tuple[str, ...], str]:
        """Return the owners of a file by its front matter, else by its path, or the reason why
        there are none.
        """
        if names := tuple(stated):
            owners = tuple(dict.fromkeys(filter(None, map(self.find, names))))
            if owners:
                return owners, ""
            return (), f"its front matter names {', '.join(names)}, who is no persona here"
        owner, reason = self.find_in_path(source)
        owners = (owner,) if owner else ()
        return owners, reason


def job_owners(folder: Path, persona: str | Persona) -> tuple[str | Persona, ...]:
    """Return the owners of lore in a folder that was made for one persona: itself, and every set of
    lore that is there.
    """
    sets = [path.name for path in sorted(folder.glob("_*/"))]
    return (persona, *dict.fromkeys((WORLD, *sets)))


def scan_lore(folder: Path, personas: Iterable[str | Persona]) -> Iterator[LoreDocument]:
    """Yield all markdown files of a lore folder, in any of the usual layouts, with their owners.

    The owner is named in the front matter (`persona: oda`), else by a folder (`oda/…`,
    `characters/Oda Marrow/…`), else by the file (`oda.md`, `oda-kitchen.md`, `character_oda.md`,
    `personas/oda.md`). Hidden files are ignored.
    """
    names = OwnerNames(personas)
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        source = PurePosixPath(path.relative_to(folder).as_posix())
        if any(part.startswith(".") for part in source.parts):
            continue
        if source.suffix.lower() not in LORE_SUFFIXES:
            if _looks_like_lorebook(path):
                owners, _ = names.resolve((), source)
                yield LoreDocument(path, source, owners, skipped=LOREBOOK_REASON)
            continue
        if not path.resolve().is_relative_to(root):
            yield LoreDocument(path, source, skipped="it is a link that points outside the folder")
        elif path.is_file():
            yield _read_document(path, source, names)


def _looks_like_lorebook(path: Path) -> bool:
    """Report whether a file is a lorebook of another program, by its name and beginning."""
    if path.suffix.lower() not in (".json", ".lorebook") or not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return LOREBOOK_PATTERN.search(file.read(SNIFFED_BYTES)) is not None
    return False


def _read_document(path: Path, source: PurePosixPath, names: OwnerNames) -> LoreDocument:
    try:
        stated, text = read_lore_file(path)
    except LoreError as error:
        reason = error.message.replace(f"The lore file {path}", "it")
        reason = reason.replace(f"The front matter of {path}", "its front matter")
        owners, _ = names.resolve((), source)
        return LoreDocument(path, source, owners, skipped=reason.rstrip("."))
    owners, reason = names.resolve(stated, source)
    try:
        split_passages("", "", text)
    except LoreError as error:
        return LoreDocument(path, source, owners, skipped=str(error).rstrip("."))
    if reason:
        reason += (
            "; name its persona in front matter, as in `persona: NAME`, or in its folder or file "
            "name"
        )
    elif not text.strip():
        reason = "it holds no text"
    return LoreDocument(path, source, owners, text=text, skipped=reason)


def read_lore(
    folder: Path, owners: Iterable[str | Persona], others: Iterable[str | Persona] = ()
) -> list[Passage]:
    """Read all passages of the named owners below a lore folder (see `scan_lore`), in the order of
    the owners.

    Files of `others` are left out. A warning is logged for files that are skipped, unless they are
    somebody else's.
    """
    wanted = tuple(owners)
    passages: dict[str, list[Passage]] = {}
    for owner in wanted:
        passages[owner if isinstance(owner, str) else owner.id] = []
    skipped: dict[str, list[Path]] = {}
    for document in scan_lore(folder, (*wanted, *others)):
        if not document.skipped:
            for owner_id in passages.keys() & {*document.owners}:
                source = source_name(owner_id, document.source)
                passages[owner_id] += split_passages(owner_id, source, document.text)
        elif not document.owners or passages.keys() & {*document.owners}:
            skipped.setdefault(document.skipped, []).append(document.path)
    for reason, (path, *more) in skipped.items():
        count = f" (and {len(more)} more)" if more else ""
        log.warning("the lore file %s%s is left out: %s", path, count, reason)
    return list(chain.from_iterable(passages.values()))


def read_lore_file(path: Path) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a file (empty if none) and the text below. Raises
    `LoreError`.
    """
    return _front_matter(_read_text(path), path)


def parse_lore(text: str, name: str) -> tuple[tuple[str, ...], str]:
    """Return the owners in the front matter of a text (empty if none) and the text below. Raises
    `LoreError`.
    """
    return _front_matter(text.replace("\r\n", "\n"), Path(name))


def fold_key(name: str) -> str:
    """Return the form in which names of owners are compared: without case, diacritics and
    separators but "-".
    """
    return "-".join(re.findall(r"[^\W_]+", fold_text(name)))


def _without_label(name: str) -> str:
    """Return a file or folder name without a prefix such as `character_`."""
    return LABEL_PATTERN.sub("", name)


def source_name(owner: str, path: PurePosixPath) -> str:
    """Return the source of a file's passages: its path in the lore folder, or its name under its
    owner.
    """
    if path.parts[0] == owner:
        return str(path)
    return f"{owner}/{path.name}"


def _front_matter(text: str, path: Path) -> tuple[tuple[str, ...], str]:
    stated, text = _parse_front_matter(text, path)
    owners: Any = []
    for key in OWNER_KEYS:
        owners = owners or stated.get(key) or []
    if not isinstance(owners, list):
        owners = [owners]
    # YAML may hold half of a surrogate pair, which no file name and no database takes.
    names = [str(owner).encode("utf-8", "replace").decode() for owner in owners]
    return tuple(name.strip() for name in names), text


def read_front_matter(path: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter of a file (empty if none) and the text below. Raises `LoreError`."""
    return _parse_front_matter(_read_text(path), path)


def _parse_front_matter(text: str, path: Path) -> tuple[dict[str, Any], str]:
    match = FRONT_MATTER_PATTERN.match(text)
    if not match:
        return {}, text
    try:
        require_plain_yaml(match[1])
        stated = yaml.safe_load(match[1])
    # ValueError: 30 February, or a number of 5,000 digits
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        advice = "Correct it, or remove both lines of ---."
        raise LoreError(f"The front matter of {path} is not YAML: {why}.", advice) from None
    if not isinstance(stated, dict):
        return {}, text  # prose between two rules
    return stated, text[match.end() :]


def _read_text(path: Path) -> str:
    try:
        return to_nfc(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise LoreError(
            f"The lore file {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    except OSError as error:
        raise LoreError(
            f"The lore file {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None
