"""Data set folder layout: file names, validation, reading, and atomic replacement."""

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
from personas.home.atomic_files import lock_folder, replace_durably
from personas.home.built_dataset import (
    EVAL_FILE,
    REBUILD_ADVICE,
    STATS_FILE,
    TRAIN_FILE,
    is_built_dataset,
)
from personas.home.data_subjects import PEOPLE_FILE, read_people
from personas.home.holdout_index import HOLDOUT_FILE

DROPPED_FILE = "dropped.jsonl"
CHARTS = ("composition.png", "composition.svg", "lengths.png", "lengths.svg")
DATASET_FILES = {
    TRAIN_FILE,
    EVAL_FILE,
    DROPPED_FILE,
    STATS_FILE,
    PEOPLE_FILE,
    HOLDOUT_FILE,
    "README.md",
    *CHARTS,
}
REQUIRED_STATS = set(
    "samples tokens rows rows_used dropped sources hash persona base_model recipe".split()
)
"""Keys of a data set's `stats.json`; without them it is another program's."""
MAX_SHOWN_FILES = 5
ROLES = ("system", "user", "assistant")


def require_free(out: Path) -> None:
    """Raise `RequestError` if the folder holds anything but an earlier data set, which may be
    replaced.
    """
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not out.is_dir() or (names and not _is_valid_dataset(out)):
        raise RequestError(f"{out} exists and is not a data set.", "Name another folder.")
    foreign = sorted(names - DATASET_FILES)
    if foreign:
        shown = ", ".join(foreign[:MAX_SHOWN_FILES])
        if len(foreign) > MAX_SHOWN_FILES:
            shown += f" and {len(foreign) - MAX_SHOWN_FILES} more"
        message = f"{out} is a data set to be replaced, but contains other files: {shown}."
        raise RequestError(message, "Move them away, or name another folder.")


def require_outside(out: Path) -> None:
    """Raise `RequestError` for a file inside a data set's folder, where it would replace a part of
    it.
    """
    if is_built_dataset(out.absolute().parent):
        raise RequestError(
            f"{out} is inside a data set, which it would damage.", "Name another place."
        )


def read_stats(folder: Path) -> dict[str, Any]:
    """Read `stats.json`. Raises `MaterialError` naming the fault."""
    path = folder / STATS_FILE
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _damaged_error(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged_error(f"{path} is not JSON ({error})") from error
    missing = REQUIRED_STATS
    if isinstance(stats, dict):
        missing = REQUIRED_STATS - stats.keys()
    if missing:
        raise _damaged_error(
            f"{folder} is not a complete data set: {STATS_FILE} lacks {', '.join(sorted(missing))}"
        )
    return dict(stats)


def read_participants(folder: Path) -> Mapping[str, int]:
    """Read the people in a data set (`personas.home.data_subjects`). Raises `MaterialError` if
    unknown.
    """
    if not (folder / PEOPLE_FILE).is_file():
        raise _damaged_error(
            f"{folder} is not a complete data set: it has no {PEOPLE_FILE}, which lists its people"
        )
    return read_people(folder)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a file. Raises `MaterialError` naming an invalid line, and for an empty
    file.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _sample(line, f"{path}, line {number}")
    except OSError as error:
        raise _damaged_error(f"{path} cannot be read: {error.strerror}") from error
    if not number:
        raise _damaged_error(f"{path} contains no samples")


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder for a build and remove leftovers of killed builds.

    Raises `RequestError` if another build of the same data set is running.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.building-"
    with ExitStack() as stack:
        # One process at a time checks for others and registers.
        with _lock_folder(out.parent):
            for stale in out.parent.glob(f"{prefix}*"):
                with lock_folder(stale) as is_free:
                    if not is_free:
                        raise RequestError(
                            f"Another build is making {out}.",
                            "Wait for it, or name another folder.",
                        )
                    shutil.rmtree(stale, ignore_errors=True)
            # Beside the result, so that it gets its name by a rename.
            temporary = tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent)
            folder = Path(stack.enter_context(temporary))
            stack.enter_context(lock_folder(folder))
        yield folder


def install_dataset(finished: Path, out: Path, previous: Path) -> None:
    """Move a finished data set to `out`, and the old one there to `previous`. Raises `OSError`,
    `RequestError`.
    """
    if out.exists():
        # Two renames: after a crash between them there is none.
        require_free(out)
        out.rename(previous)
    finished.chmod(0o755)
    replace_durably(finished, out)


def _is_valid_dataset(folder: Path) -> bool:
    try:
        return is_built_dataset(folder) and bool(read_stats(folder))
    except MaterialError:
        return False


def _sample(line: bytes, where: str) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise _damaged_error(f"{where} is not a sample: it is not JSON ({error})") from error
    messages = sample.get("messages") if isinstance(sample, dict) else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        fault = "it has no messages of role and content"
    elif messages[-1]["role"] != "assistant":
        fault = "its last message is not the assistant's"
    elif not isinstance(sample.get("tokens"), int):
        fault = "it does not state its number of tokens"
    else:
        return dict(sample)
    raise _damaged_error(f"{where} is not a sample: {fault}")


def _is_message(message: object) -> bool:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        return False
    return isinstance(message.get("content"), str)


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
