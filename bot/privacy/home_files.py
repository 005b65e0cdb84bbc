"""Deletes or redacts a person's data in all files under UNDERSTUDY_HOME beside the database."""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bot.privacy import redaction
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.redaction import DATA_PACKAGE_OWNER_FILE, is_own_data_package
from bot.store import HOME_DATABASE
from personas.errors import MaterialError
from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.data_subjects import (
    CONSENT_FILE,
    PEOPLE_FILE,
    contains_any_person,
    read_consent,
    read_people,
    write_consent,
)
from personas.home.dataset_catalogue import FETCHED_FOLDER
from personas.home.external_files import list_review_files
from personas.home.gguf_cache import gguf_adapter_files
from personas.home.job_folder import SHARED_FOLDERS

DATABASES = (HOME_DATABASE, "sandbox.sqlite")
"""Beginnings of the names of databases in the home, which are erased row by row."""
EXCLUDED_PATHS = ("keys", "consent.json", "exports.jsonl", "heldout", FETCHED_FOLDER)
"""Paths that are not searched: they are rewritten from the store, list people by key only, or are a
hub's.
"""
DERIVED_PATHS = (
    "jobs/*",
    "runs/*",
    "models/persona_adapters/*/*",
    "models/dialogue/*",
    "cache/*",
    "history/*",
    "previews/*",
)
"""Paths of data derived from people's texts, each deleted as a whole."""
PENDING_DELETION_PREFIX = ".forgotten."
"""Such a name is that of an abandoned folder, too, which a later check of the retention deletes."""


def walk_home(home: Path, pattern: str) -> Iterator[Path]:
    """Find paths below a home, also in its folders on a shared file system (setting SHARED), which
    are links.
    """
    yield from home.rglob(pattern)
    for folder in (home / name for name in SHARED_FOLDERS):
        if folder.is_symlink():
            yield from folder.rglob(pattern)


@dataclass
class FileErasureResult:
    """Paths in the home that an erasure deleted or redacted (`cut`), with the person's name
    replaced in them.

    `lost` are primary files that could not be redacted, and were deleted.
    """

    deleted: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class HomeFiles:
    """The files of a home, searched for one person. `busy` are files that the running bot has
    open.
    """

    home: Path
    finder: IdentifierMatcher
    people: Collection[str]
    busy: Collection[Path] = ()

    def derived_paths(self) -> list[Path]:
        """List all derived files and folders, none within another."""
        paths = {path for pattern in DERIVED_PATHS for path in self.home.glob(pattern)}
        paths |= {
            path.parent for path in walk_home(self.home, PEOPLE_FILE) if path.parent != self.home
        }
        return sorted(path for path in paths if not any(parent in paths for parent in path.parents))

    def contains_person(self, path: Path) -> bool:
        """Return whether a file or folder contains the person, by its list of people, its names or
        its bytes.

        A job's `consent.json` does not count: it lists all who had opted in, not whom the job read.
        """
        if path.is_dir() and contains_any_person(path, self.people):
            return True
        inside = path.rglob("*") if path.is_dir() else [path]
        for file in inside:
            if file.is_symlink() or not file.is_file() or file == path / CONSENT_FILE:
                continue
            if self._in_file(file):
                return True
        return False

    def erase(
        self,
        withdrawn: Collection[Path] = (),
        contributed: Collection[Path] = (),
        exported: Collection[Path] = (),
        *,
        derived_only: bool = False,
    ) -> FileErasureResult:
        """Delete `withdrawn`, `contributed`, `exported` and derived data, and redact everything else.
        Raises `OSError`.
        """
        done = FileErasureResult()
        # An earlier attempt was killed between the renaming and the end of a deletion.
        for leftover in list(walk_home(self.home, f"{PENDING_DELETION_PREFIX}*")):
            remove_path(leftover)
        for path in self.derived_paths():
            if path not in self.busy and (path in withdrawn or self.contains_person(path)):
                done.deleted.append(self._shown(path))
                delete_path(path)
                self._delete_lora_files(path, done)
            elif (path / CONSENT_FILE).is_file():
                self._erase_consent(path, done)
        for path in exported:
            done.deleted.append(self._shown(path))
            delete_path(path)
        if not derived_only:
            for file in filter(Path.is_file, contributed):
                done.deleted.append(self._shown(file))
                delete_path(file)
            self._erase_primary(done)
            if any(path.startswith("lore/") for path in (*done.deleted, *done.cut, *done.lost)):
                self._delete_lore_vectors(done)
        return done

    def _erase_consent(self, job: Path, done: FileErasureResult) -> None:
        """Remove the person from the list of those who had opted in when a job was created."""
        try:
            consent = read_consent(job)
        except MaterialError:  # without the file, nobody has consented
            delete_path(job / CONSENT_FILE)
            return
        opted_in = frozenset(who for who in consent.opted_in if not self.finder.is_theirs(who))
        if opted_in != consent.opted_in:
            write_consent(job, consent.model_copy(update={"opted_in": opted_in}))
            done.cut.append(self._shown(job / CONSENT_FILE))

    def _delete_lora_files(self, adapter: Path, done: FileErasureResult) -> None:
        """Delete the LoRA files that llama.cpp has of a deleted version."""
        if adapter.parent.parent == self.home / "models" / "persona_adapters":
            for file in gguf_adapter_files(self.home, f"{adapter.parent.name}-{adapter.name}"):
                done.deleted.append(self._shown(file))
                delete_path(file)

    def _delete_lore_vectors(self, done: FileErasureResult) -> None:
        """Delete the vectors of lore, which name nobody and are made again; the running bot updates
        its own.
        """
        for path in sorted((self.home / "cache").glob("lore.sqlite*")):
            if path not in self.busy:
                done.deleted.append(self._shown(path))
                delete_path(path)

    def _erase_primary(self, done: FileErasureResult) -> None:
        for package in self._packages():
            done.deleted.append(self._shown(package))
            delete_path(package)
        # Reviews may be outside the home, and mention everybody.
        for review in list_review_files(self.home):
            if not review.is_file() or review.is_relative_to(self.home):
                continue
            if self._in(review.name, review):
                done.deleted.append(self.finder.redacted(str(review)))
                delete_path(review)
        derived = set(self.derived_paths())
        for file in list(self.primary_files()):
            if any(parent in derived for parent in [file, *file.parents]):
                continue
            if self._in_file(file):
                self._cut(file, done)
            elif redaction.file_mentions_person(file, self.finder):
                self._cut(file, done, whole=False)
        self._rename_folders()

    def primary_files(self) -> Iterator[Path]:
        """List the files that are searched one by one."""
        for path in sorted(walk_home(self.home, "*")):
            top = path.relative_to(self.home).parts[0]
            if top.startswith(DATABASES) or top in EXCLUDED_PATHS:
                continue
            if path.suffix in (".lock", ".part") or path in self.busy:
                continue
            if path.is_file() and not path.is_symlink():
                yield path

    def _in_file(self, file: Path) -> bool:
        return self._in(file.relative_to(self.home).as_posix(), file)

    def _in(self, name: str, file: Path) -> bool:
        return self.finder.in_text(name) or redaction.file_contains_person(file, self.finder)

    def _packages(self) -> list[Path]:
        """Find the person's own Discord data packages, zipped or unpacked."""
        roots = set()
        for file in self.primary_files():
            if redaction.is_own_data_package_archive(file, self.finder):
                roots.add(file)
        for file in walk_home(self.home, DATA_PACKAGE_OWNER_FILE):
            if is_own_data_package([(file.name, file.read_bytes())], self.finder):
                # Discord has the owner's file in `account`, beside the folder of the messages.
                package = file.parent.parent
                has_messages = any(package.glob("*/*/messages.*"))
                roots.add(package if has_messages and package != self.home else file.parent)
        return sorted(root for root in roots if root != self.home)

    def _cut(self, file: Path, done: FileErasureResult, *, whole: bool = True) -> None:
        """Redact a file; one that only mentions the person (not `whole`) is kept where that
        fails.
        """
        temporary = name_for_deletion(file)
        with temporary.open("wb") as out:
            is_redacted = redaction.redact_file(file, out, self.finder)
            out.flush()
            os.fsync(out.fileno())
        if not is_redacted:
            temporary.unlink()
            if whole:
                done.lost.append(self._shown(file))
                delete_path(file)
            return
        done.cut.append(self._shown(file))
        shutil.copymode(file, temporary)
        replace_durably(temporary, file)
        self._rename(file)

    def _rename(self, path: Path) -> None:
        name = self.finder.redacted_whole(path.name)
        if name == path.name:
            return
        target = path.with_name(name)
        if target.exists():
            target = path.with_name(f"{secrets.token_hex(4)}-{name}")
        replace_durably(path, target)

    def _rename_folders(self) -> None:
        for path in sorted(walk_home(self.home, "*"), reverse=True):  # children first
            if path.is_dir() and path.relative_to(self.home).parts[0] not in EXCLUDED_PATHS:
                self._rename(path)

    def _shown(self, path: Path) -> str:
        return self.finder.redacted(path.relative_to(self.home).as_posix())


def delete_path(path: Path) -> None:
    """Delete a file or folder; renames it first, so that an interrupted deletion is found and
    completed.
    """
    temporary = name_for_deletion(path)
    with suppress(FileNotFoundError):
        path.rename(temporary)
        remove_path(temporary)
        fsync_path(path.parent)


def name_for_deletion(path: Path) -> Path:
    """Return a new name beside a path, by which what is to be deleted is found."""
    return path.with_name(f"{PENDING_DELETION_PREFIX}{secrets.token_hex(4)}")


def remove_path(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there. An interruption leaves a part of a
    folder.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
    while path.is_dir():
        with suppress(FileNotFoundError):  # another thread or process deletes it, too
            shutil.rmtree(path)


def paths_listing_person(home: Path, people: Collection[str]) -> list[str]:
    """List the data sets, job folders and adapters whose list of people contains somebody, by path
    from the home.
    """
    paths = []
    for path in sorted(walk_home(home, PEOPLE_FILE)):
        with suppress(MaterialError):  # a list that cannot be read identifies nobody
            if not read_people(path.parent).keys().isdisjoint(people):
                paths.append(path.parent.relative_to(home).as_posix())
    return paths
