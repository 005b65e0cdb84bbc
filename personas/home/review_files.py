"""Review files and their deletion dates (`reviews.json`)."""

from pathlib import Path
from typing import Literal

from filelock import FileLock

from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel

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
        _write_reviews(home, [review for review in _read_reviews(home) if review.path != new.path] + [new])


def list_review_files(home: Path) -> list[Path]:
    """Return the listed files. Raises `MaterialError`."""
    return [Path(review.path) for review in _read_reviews(home)]


def delete_expired_reviews(home: Path, now: float) -> list[str]:
    """Delete expired files and return their paths. Raises `MaterialError`, or `OSError` after the others."""
    if not (home / REVIEWS_FILE).exists():
        return []
    deleted, remaining, failure = [], [], None
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
