"""Data set folder layout: file names, validation, reading, and atomic replacement."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from personas.errors import MaterialError, RequestError
from personas.home.atomic_files import lock_folder
from personas.home.data_subjects import PEOPLE_FILE, read_people
from personas.home.datasets import EVAL_FILE, REBUILD_ADVICE, STATS_FILE, TRAIN_FILE, is_built_dataset
from personas.home.holdout_index import HOLDOUT_FILE

DROPPED_FILE = "dropped.jsonl"
CHARTS = ("composition.png", "composition.svg", "lengths.png", "lengths.svg")
DATASET_FILES = {TRAIN_FILE, EVAL_FILE, DROPPED_FILE, STATS_FILE, PEOPLE_FILE, HOLDOUT_FILE, "README.md", *CHARTS}
REQUIRED_STATS = {
    "samples",
    "tokens",
    "rows",
    "rows_used",
    "dropped",
    "sources",
    "hash",
    "persona",
    "base_model",
    "recipe",
}
"""What a data set's `stats.json` holds at least: another program's is told by it."""
MAX_SHOWN_FILES = 5
ROLES = ("system", "user", "assistant")


def require_free(out: Path) -> None:
    """Raise `RequestError` if the folder holds anything but an earlier data set, which may be replaced."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not out.is_dir() or (names and not _is_valid_dataset(out)):
        raise RequestError(f"{out} is there already and holds no data set.", "Name another folder.")
    if foreign := sorted(names - DATASET_FILES):
        shown = ", ".join(foreign[:MAX_SHOWN_FILES]) + (
            f" and {len(foreign) - MAX_SHOWN_FILES} more" if len(foreign) > MAX_SHOWN_FILES else ""
        )
        raise RequestError(
            f"{out} is a data set and would be replaced, but holds what is not of it: {shown}.",
            "Move that away, or name another folder.",
        )


def require_outside(out: Path) -> None:
    """Raise `RequestError` for a file inside a data set's folder, where it would replace a part of it."""
    if is_built_dataset(out.absolute().parent):
        raise RequestError(f"{out} lies in a data set, which would not be whole any more.", "Name another place.")


def read_stats(folder: Path) -> dict[str, Any]:
    """Read `stats.json`. Raises `MaterialError` naming the fault."""
    path = folder / STATS_FILE
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _damaged_error(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged_error(f"{path} is no JSON ({error})") from error
    missing = sorted(REQUIRED_STATS - stats.keys()) if isinstance(stats, dict) else sorted(REQUIRED_STATS)
    if missing:
        raise _damaged_error(f"{folder} holds no whole data set: {STATS_FILE} lacks {', '.join(missing)}")
    return dict(stats)


def read_participants(folder: Path) -> Mapping[str, int]:
    """Read the people in a data set (`personas.home.data_subjects`). Raises `MaterialError` if unknown."""
    if not (folder / PEOPLE_FILE).is_file():
        raise _damaged_error(f"{folder} holds no whole data set: it has no {PEOPLE_FILE}, which lists who is in it")
    return read_people(folder)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a file. Raises `MaterialError` naming an invalid line, and for an empty file."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _sample(line, f"{path}, line {number}")
    except OSError as error:
        raise _damaged_error(f"{path} cannot be read: {error.strerror}") from error
    if not number:
        raise _damaged_error(f"{path} holds no samples")


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder for a build and remove leftovers of killed builds.

    Raises `RequestError` if another build of the same data set is running.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.building-"
    with ExitStack() as stack:
        with _lock_folder(out.parent):  # one at a time looks who else is there, and comes in
            for left_over in out.parent.glob(f"{prefix}*"):
                with lock_folder(left_over) as is_free:
                    if not is_free:
                        raise RequestError(f"Another build is making {out}.", "Wait for it, or name another folder.")
                    shutil.rmtree(left_over, ignore_errors=True)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent)))
            stack.enter_context(lock_folder(folder))
        yield folder


def install_dataset(made: Path, out: Path, aside: Path) -> None:
    """Move a finished data set to `out`, and the previous one to `aside`. Raises `OSError`, `RequestError`."""
    if out.exists():  # two renames: for a moment, and after a crash in it, there is none
        require_free(out)
        out.rename(aside)
    made.chmod(0o755)
    made.rename(out)


def _is_valid_dataset(folder: Path) -> bool:
    try:
        return is_built_dataset(folder) and bool(read_stats(folder))
    except MaterialError:
        return False


def _sample(line: bytes, where: str) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise _damaged_error(f"{where} is no sample: it is no JSON ({error})") from error
    messages = sample.get("messages") if isinstance(sample, dict) else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise _damaged_error(f"{where} is no sample: it has no messages of role and content")
    if messages[-1]["role"] != "assistant":
        raise _damaged_error(f"{where} is no sample: its last message is not the assistant's")
    if not isinstance(sample.get("tokens"), int):
        raise _damaged_error(f"{where} is no sample: it does not say how many tokens it has")
    return dict(sample)


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)


def _damaged_error(what: str) -> MaterialError:
    return MaterialError(f"{what}.", REBUILD_ADVICE)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
