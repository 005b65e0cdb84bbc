"""A person taken out of all that lies under UNDERSTUDY_HOME beside the store.

What was made from people's words (data sets, job folders, adapters, caches) is deleted as a whole where the person is
in it: it can be made again. What it was made from is cut (`bot.privacy.cutting`). Each step can be repeated.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bot.privacy import cutting
from bot.privacy.cutting import PACKAGE_OWNER, is_their_package
from bot.privacy.traces import Finder
from personas.errors import MaterialError
from personas.people import PEOPLE_FILE, holds_any, read_people
from personas.reviews import listed_reviews

STORE, SANDBOX = "understudy.sqlite", "sandbox.sqlite"
OWN_RULES = ("keys", "consent.json", "exports.jsonl", "heldout")
"""Not looked through here: written anew from the store, or holding people under keys only."""
MADE = ("jobs/*", "runs/*", "models/persona_adapters/*/*", "models/dialogue/*", "cache/*", "history/*", "previews/*")
"""What is made from people's words, each of these as a whole."""
ASIDE = ".forgotten-"


@dataclass
class FilesDone:
    """What was done, by path from the home; without the person's name where one stood in it."""

    deleted: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Primary material that could not be cut, and was deleted."""


@dataclass(frozen=True)
class HomeFiles:
    """The files of a home, and who of them is in which. `busy` are files that the running bot has open."""

    home: Path
    finder: Finder
    people: Collection[str]
    busy: Collection[Path] = ()

    def made(self) -> list[Path]:
        """All that is made from people's words: files and folders, none within another."""
        found = {path for pattern in MADE for path in self.home.glob(pattern)}
        found |= {path.parent for path in self.home.rglob(PEOPLE_FILE) if path.parent != self.home}
        return sorted(path for path in found if not any(parent in found for parent in path.parents))

    def holds(self, path: Path) -> bool:
        """Whether the person is in a file or folder: by its list of people, its names or its bytes."""
        if path.is_dir() and holds_any(path, self.people):
            return True
        inside = path.rglob("*") if path.is_dir() else [path]
        return any(self._in_file(file) for file in inside if file.is_file() and not file.is_symlink())

    def forget(
        self, surely: Collection[Path] = (), given: Collection[Path] = (), *, made_only: bool = False
    ) -> FilesDone:
        """Delete what was made and what the person gave, cut the rest. `surely` goes too. Raises `OSError`.

        `surely` are made things, deleted whatever is in them; `given` are files.
        """
        done = FilesDone()
        for left_over in list(self.home.rglob(f"{ASIDE}*")):
            _remove(left_over)
        for path in self.made():
            if path not in self.busy and (path in surely or self.holds(path)):
                done.deleted.append(self._shown(path))
                delete(path)
        if not made_only:
            for file in filter(Path.is_file, given):
                done.deleted.append(self._shown(file))
                delete(file)
            self._forget_primary(done)
        return done

    def _forget_primary(self, done: FilesDone) -> None:
        for package in self._packages():
            done.deleted.append(self._shown(package))
            delete(package)
        for review in listed_reviews(self.home):  # they may lie anywhere, and name everybody
            if review.is_file() and not review.is_relative_to(self.home) and self._in(review.name, review):
                done.deleted.append(self.finder.redacted(str(review)))
                delete(review)
        made = set(self.made())
        for file in list(self.primary()):
            if any(parent in made for parent in [file, *file.parents]):
                continue
            if self._in_file(file):
                self._cut(file, done)
            elif cutting.file_mentions(file, self.finder):
                self._cut(file, done, whole=False)
        self._rename_folders()

    def primary(self) -> Iterator[Path]:
        """The files that are looked through one by one."""
        for path in sorted(self.home.rglob("*")):
            top = path.relative_to(self.home).parts[0]
            ours = top.startswith((STORE, SANDBOX)) or top in OWN_RULES or path.suffix in (".lock", ".part")
            if path.is_file() and not path.is_symlink() and not ours and path not in self.busy:
                yield path

    def _in_file(self, file: Path) -> bool:
        return self._in(file.relative_to(self.home).as_posix(), file)

    def _in(self, name: str, file: Path) -> bool:
        return self.finder.in_text(name) or cutting.file_holds(file, self.finder)

    def _packages(self) -> list[Path]:
        """The person's own data packages, packed or not."""
        roots = {file for file in self.primary() if cutting.is_their_archive(file, self.finder)}
        for file in self.home.rglob(PACKAGE_OWNER):
            if is_their_package([(file.name, file.read_bytes())], self.finder):
                root = file.parent.parent if len(list(file.parent.parent.glob("*/*/messages.*"))) else file.parent
                roots.add(file.parent if root == self.home else root)
        return sorted(root for root in roots if root != self.home)

    def _cut(self, file: Path, done: FilesDone, *, whole: bool = True) -> None:
        """Take the person out of a file; one that only names them (not `whole`) is not deleted if that cannot be."""
        aside = file.with_name(f"{ASIDE}{secrets.token_hex(4)}")
        with aside.open("wb") as out:
            can_be = cutting.cut_file(file, out, self.finder)
            out.flush()
            os.fsync(out.fileno())
        if not can_be:
            aside.unlink()
            if whole:
                done.lost.append(self._shown(file))
                delete(file)
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
            if path.is_dir() and path.relative_to(self.home).parts[0] not in OWN_RULES:
                self._rename(path)

    def _shown(self, path: Path) -> str:
        return self.finder.redacted(path.relative_to(self.home).as_posix())


def delete(path: Path) -> None:
    """Delete a file or folder; one that is half deleted after a kill is found by its name and deleted then."""
    aside = path.with_name(f"{ASIDE}{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def where_they_are(home: Path, people: Collection[str]) -> list[str]:
    """The data sets, job folders and adapters whose list of people names somebody, by path from the home."""
    found = []
    for path in sorted(home.rglob(PEOPLE_FILE)):
        with suppress(MaterialError):  # a list that cannot be read tells nobody anything
            if not read_people(path.parent).keys().isdisjoint(people):
                found.append(path.parent.relative_to(home).as_posix())
    return found
