"""Files that a person is to check and that are deleted after a stated time: `<home>/reviews.json` lists them.

Whoever writes such a file notes it (`note_review`), and the bot deletes what is due (`delete_expired`). They may lie
anywhere, so this list is all that knows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from personas.durable import put_private
from personas.errors import MaterialError

REVIEWS_FILE = "reviews.json"


class Review(BaseModel):
    """A file to be checked, and when it is deleted (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    delete_at: float


class Reviews(BaseModel):
    """`reviews.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    reviews: tuple[Review, ...] = ()


def note_review(home: Path, path: Path, delete_at: float) -> None:
    """List a file; one that is listed already gets the new time. Raises `MaterialError` and `OSError`."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = Review(path=str(path.absolute()), delete_at=delete_at)
    with _locked(home):
        _write(home, [review for review in _read(home) if review.path != new.path] + [new])


def listed_reviews(home: Path) -> list[Path]:
    """The files that are listed. Raises `MaterialError`."""
    return [Path(review.path) for review in _read(home)]


def delete_expired(home: Path, now: float) -> list[str]:
    """Delete the files whose time is over; gives their paths.

    Raises `MaterialError` for a list that cannot be read, and `OSError`, after all others, for a file that stays.
    """
    if not (home / REVIEWS_FILE).exists():
        return []
    deleted, kept, failure = [], [], None
    with _locked(home):
        for review in _read(home):
            try:
                if review.delete_at <= now:
                    Path(review.path).unlink(missing_ok=True)
                    deleted.append(review.path)
                else:
                    kept.append(review)
            except OSError as error:
                failure = error
                kept.append(review)
        if deleted:
            _write(home, kept)
    if failure:
        raise failure
    return deleted


def _locked(home: Path) -> FileLock:
    return FileLock(home / f".{REVIEWS_FILE}.lock")


def _read(home: Path) -> tuple[Review, ...]:
    try:
        return Reviews.model_validate_json((home / REVIEWS_FILE).read_bytes()).reviews
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise MaterialError(
            f"{home / REVIEWS_FILE} cannot be read, so nobody knows which review files are to be deleted.",
            "Delete those that you know of by hand, then this file.",
        ) from error


def _write(home: Path, reviews: list[Review]) -> None:
    text = Reviews(reviews=tuple(reviews)).model_dump_json(indent=1)
    put_private(home / REVIEWS_FILE, text.encode() + b"\n")
