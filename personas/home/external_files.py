"""Files with personal data outside the home: exports (`exports.jsonl`) and review files
(`reviews.json`).
"""

import hashlib
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import Field, ValidationError

from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel

EXPORTS_FILE = "exports.jsonl"
ExportState = Literal["begun", "done", "refused"]
ExportKind = Literal["data set", "adapter", "history", "card", "backup"]
EVERYBODY = "*"  # in place of a list of people: everyone in the home at that time, as in a backup


class ExportRecord(FrozenModel):
    """An exported file: `at` in seconds since 1970, `people` keyed, or `EVERYBODY` alone.

    What leaves the machine has a line before it is sent (`begun`) and one with its outcome, both
    with the same `transfer`. A transfer without an outcome may have arrived.
    """

    at: float
    what: ExportKind
    path: str
    sha256: str = ""
    people: tuple[Annotated[str, Field(pattern=r"^(\*|[0-9a-f]{32})$")], ...]
    transfer: str = ""
    state: ExportState = "done"


def record_export(
    home: Path,
    what: ExportKind,
    path: Path | str,
    people: Collection[str],
    sha256: str = "",
    *,
    transfer: str = "",
    state: ExportState = "done",
) -> None:
    """Append a record; a file on this machine is hashed here. Raises `OSError`."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        path = str(path.absolute())
    line = ExportRecord(
        at=time.time(),
        what=what,
        path=path,
        sha256=sha256,
        people=tuple(sorted(people)),
        transfer=transfer,
        state=state,
    )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(home / EXPORTS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as out:
        out.write(line.model_dump_json() + "\n")
        out.flush()
        os.fsync(out.fileno())


def read_exports(home: Path) -> list[ExportRecord]:
    """Read all records, oldest first; unreadable lines are skipped."""
    try:
        lines = (home / EXPORTS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(ExportRecord.model_validate_json(line))
        except ValidationError:  # cut off by a crash, or written by a later version
            continue
    return records


def find_exports_containing(home: Path, people: Collection[str]) -> list[ExportRecord]:
    """Find the exports that contain one of these keyed people, or everybody: what may be somewhere,
    once each.
    """
    wanted = {*people, EVERYBODY}
    exports = read_exports(home)
    ended = {export.transfer for export in exports if export.state != "begun"}
    containing = []
    for export in exports:
        # A transfer without an outcome may have arrived.
        is_somewhere = export.state == "done"
        if export.state == "begun" and export.transfer not in ended:
            is_somewhere = True
        if is_somewhere and not wanted.isdisjoint(export.people):
            containing.append(export)
    return containing


REVIEWS_FILE = "reviews.json"


class ReviewFile(FrozenModel):
    """A file to review and the time of its deletion (seconds since 1970)."""

    path: str
    delete_at: float


class ReviewFileList(FrozenModel):
    """Content of `reviews.json`."""

    format: Literal[1] = 1
    reviews: tuple[ReviewFile, ...] = ()


def record_review_file(home: Path, path: Path, delete_at: float) -> None:
    """Add a file to the list, or change its time. Raises `MaterialError` and `OSError`."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = ReviewFile(path=str(path.absolute()), delete_at=delete_at)
    with _review_lock(home):
        others = [review for review in _read_reviews(home) if review.path != new.path]
        _write_reviews(home, [*others, new])


def list_review_files(home: Path) -> list[Path]:
    """Return the listed files. Raises `MaterialError`."""
    return [Path(review.path) for review in _read_reviews(home)]


def delete_expired_reviews(home: Path, now: float) -> list[str]:
    """Delete expired files and return their paths. Raises `MaterialError`, or `OSError` after the
    others.
    """
    if not (home / REVIEWS_FILE).exists():
        return []
    deleted = []
    remaining = []
    failure = None
    with _review_lock(home):
        for review in _read_reviews(home):
            try:
                if review.delete_at <= now:
                    Path(review.path).unlink(missing_ok=True)
                    deleted.append(review.path)
                else:
                    remaining.append(review)
            except OSError as error:
                failure = error
                remaining.append(review)
        if deleted:
            _write_reviews(home, remaining)
    if failure:
        raise failure
    return deleted


def _review_lock(home: Path) -> FileLock:
    return FileLock(home / f".{REVIEWS_FILE}.lock")


def _read_reviews(home: Path) -> tuple[ReviewFile, ...]:
    advice = "Expired review files cannot be deleted: delete them by hand, then this file."
    stored = read_model(home / REVIEWS_FILE, ReviewFileList, advice)
    return stored.reviews if stored else ()


def _write_reviews(home: Path, reviews: list[ReviewFile]) -> None:
    write_model(home / REVIEWS_FILE, ReviewFileList(reviews=tuple(reviews)))
