"""Deletes or redacts a person's data in all files under UNDERSTUDY_HOME beside the database."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bot.privacy import redaction
from bot.privacy.identifiers import IdentifierMatcher
from bot.privacy.redaction import DATA_PACKAGE_OWNER_FILE, is_own_data_package
from bot.store import Store, TrainingJob
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import MaterialError
from personas.home.data_subjects import PEOPLE_FILE, contains_any_person, read_people
from personas.home.review_files import list_review_files

DATABASE_FILE, SANDBOX_FILE = "understudy.sqlite", "sandbox.sqlite"

EXCLUDED_PATHS = ("keys", "consent.json", "exports.jsonl", "heldout")
"""Not looked through here: written anew from the store, or holding people under keys only."""


DERIVED_PATHS = (
    "jobs/*",
    "runs/*",
    "models/persona_adapters/*/*",
    "models/dialogue/*",
    "cache/*",
    "history/*",
    "previews/*",
)
"""What is made from people's words, each of these as a whole."""


PENDING_DELETION_PREFIX = ".forgotten-"


@dataclass
class FileErasureResult:
    """What was done, by path from the home; without the person's name where one stood in it."""

    deleted: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Primary material that could not be cut, and was deleted."""


@dataclass(frozen=True)
class HomeFiles:
    """The files of a home, and who of them is in which. `busy` are files that the running bot has open."""

    home: Path
    finder: IdentifierMatcher
    people: Collection[str]
    busy: Collection[Path] = ()

    def made(self) -> list[Path]:
        """All that is made from people's words: files and folders, none within another."""
        found = {path for pattern in DERIVED_PATHS for path in self.home.glob(pattern)}
        found |= {path.parent for path in self.home.rglob(PEOPLE_FILE) if path.parent != self.home}
        return sorted(path for path in found if not any(parent in found for parent in path.parents))

    def holds(self, path: Path) -> bool:
        """Whether the person is in a file or folder: by its list of people, its names or its bytes."""
        if path.is_dir() and contains_any_person(path, self.people):
            return True
        inside = path.rglob("*") if path.is_dir() else [path]
        return any(self._in_file(file) for file in inside if file.is_file() and not file.is_symlink())

    def forget(
        self, surely: Collection[Path] = (), given: Collection[Path] = (), *, made_only: bool = False
    ) -> FileErasureResult:
        """Delete what was made and what the person gave, cut the rest. `surely` goes too. Raises `OSError`.

        `surely` are made things, deleted whatever is in them; `given` are files.
        """
        done = FileErasureResult()
        for left_over in list(self.home.rglob(f"{PENDING_DELETION_PREFIX}*")):
            _remove(left_over)
        for path in self.made():
            if path not in self.busy and (path in surely or self.holds(path)):
                done.deleted.append(self._shown(path))
                delete_path(path)
        if not made_only:
            for file in filter(Path.is_file, given):
                done.deleted.append(self._shown(file))
                delete_path(file)
            self._forget_primary(done)
        return done

    def _forget_primary(self, done: FileErasureResult) -> None:
        for package in self._packages():
            done.deleted.append(self._shown(package))
            delete_path(package)
        for review in list_review_files(self.home):  # they may lie anywhere, and name everybody
            if review.is_file() and not review.is_relative_to(self.home) and self._in(review.name, review):
                done.deleted.append(self.finder.redacted(str(review)))
                delete_path(review)
        made = set(self.made())
        for file in list(self.primary()):
            if any(parent in made for parent in [file, *file.parents]):
                continue
            if self._in_file(file):
                self._cut(file, done)
            elif redaction.file_mentions_person(file, self.finder):
                self._cut(file, done, whole=False)
        self._rename_folders()

    def primary(self) -> Iterator[Path]:
        """The files that are looked through one by one."""
        for path in sorted(self.home.rglob("*")):
            top = path.relative_to(self.home).parts[0]
            ours = (
                top.startswith((DATABASE_FILE, SANDBOX_FILE))
                or top in EXCLUDED_PATHS
                or path.suffix in (".lock", ".part")
            )
            if path.is_file() and not path.is_symlink() and not ours and path not in self.busy:
                yield path

    def _in_file(self, file: Path) -> bool:
        return self._in(file.relative_to(self.home).as_posix(), file)

    def _in(self, name: str, file: Path) -> bool:
        return self.finder.in_text(name) or redaction.file_contains_person(file, self.finder)

    def _packages(self) -> list[Path]:
        """The person's own data packages, packed or not."""
        roots = {file for file in self.primary() if redaction.is_own_data_package_archive(file, self.finder)}
        for file in self.home.rglob(DATA_PACKAGE_OWNER_FILE):
            if is_own_data_package([(file.name, file.read_bytes())], self.finder):
                root = file.parent.parent if len(list(file.parent.parent.glob("*/*/messages.*"))) else file.parent
                roots.add(file.parent if root == self.home else root)
        return sorted(root for root in roots if root != self.home)

    def _cut(self, file: Path, done: FileErasureResult, *, whole: bool = True) -> None:
        """Take the person out of a file; one that only names them (not `whole`) is not deleted if that cannot be."""
        aside = file.with_name(f"{PENDING_DELETION_PREFIX}{secrets.token_hex(4)}")
        with aside.open("wb") as out:
            can_be = redaction.redact_file(file, out, self.finder)
            out.flush()
            os.fsync(out.fileno())
        if not can_be:
            aside.unlink()
            if whole:
                done.lost.append(self._shown(file))
                delete_path(file)
            return
        done.cut.append(self._shown(file))
        shutil.copymode(file, aside)
        aside.replace(file)
        self._rename(file)

    def _rename(self, path: Path) -> None:
        """Take the person's name out of a path's last part."""
        name = self.finder.redacted_whole(path.name)
        if name == path.name:
            return
        target = path.with_name(name)
        if target.exists():
            target = path.with_name(f"{secrets.token_hex(4)}-{name}")
        path.rename(target)

    def _rename_folders(self) -> None:
        for path in sorted(self.home.rglob("*"), reverse=True):  # what is inside first
            if path.is_dir() and path.relative_to(self.home).parts[0] not in EXCLUDED_PATHS:
                self._rename(path)

    def _shown(self, path: Path) -> str:
        return self.finder.redacted(path.relative_to(self.home).as_posix())


def delete_path(path: Path) -> None:
    """Delete a file or folder; one that is half deleted after a kill is found by its name and deleted then."""
    aside = path.with_name(f"{PENDING_DELETION_PREFIX}{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def paths_listing_person(home: Path, people: Collection[str]) -> list[str]:
    """The data sets, job folders and adapters whose list of people names somebody, by path from the home."""
    found = []
    for path in sorted(home.rglob(PEOPLE_FILE)):
        with suppress(MaterialError):  # a list that cannot be read tells nobody anything
            if not read_people(path.parent).keys().isdisjoint(people):
                found.append(path.parent.relative_to(home).as_posix())
    return found


def discard_pending_job_folders(home: Path, store: Store) -> None:
    """Delete the folders of all these jobs; each is written again, from what may be taken then. Raises `OSError`."""
    for job in _pending_jobs(store):
        delete_path(home / "jobs" / job.job_id)


def discard_pending_history_folders(home: Path, store: Store) -> None:
    """The same for those jobs only that hold what was said: a message was edited or deleted. Raises `OSError`."""
    for job in _pending_jobs(store):
        if _uses_history(job):
            delete_path(home / "jobs" / job.job_id)


def _pending_jobs(store: Store) -> list[TrainingJob]:
    return [*store.jobs.in_state("queued"), *store.jobs.resumable()]


def _uses_history(job: TrainingJob) -> bool:
    return f'"dataset":"{HISTORY_DATASET}"' in job.request_json.replace(" ", "")
