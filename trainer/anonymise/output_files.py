"""Output files: atomic writes, rows in several formats, and the review log of replacements, deleted
after some days.
"""

import csv
import glob
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from personas.home.atomic_files import replace_durably
from personas.home.data_subjects import Storing
from personas.home.external_files import record_review_file
from trainer.anonymise.spans import Entity

CONTEXT_CHARS = 40
"""Characters of context on either side."""
NOT_SEARCHED = "NOT_SEARCHED"
"""Kind of a line about a text in whose scripts no names were looked for."""
DAY_S = 86_400.0


@contextmanager
def open_atomic(path: Path, storing: Storing = nullcontext) -> Iterator[TextIO]:
    """Open a temporary file that gets its final name on success, within `storing`, and is deleted
    on errors.

    Leftovers of a killed process for the same file are deleted first. Errors of writing name the
    file.
    """
    _remove_stale(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with name_file_in_errors(path):
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(
                handle, "w", encoding="utf-8", errors="surrogatepass", newline=""
            ) as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
                os.fchmod(out.fileno(), _default_mode())
            with storing():
                replace_durably(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Add this path to system errors without a file name, such as those of writing."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _remove_stale(path: Path) -> None:
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*"):
        process = stale.suffix[1:]
        if (
            process.isdecimal()
            and stale.name == f".{path.name}.{process}"
            and not _is_running(int(process))
        ):
            stale.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _default_mode() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def write_rows(rows: Iterable[dict[str, Any]], out: TextIO, suffix: str) -> None:
    """Write rows in the format of the suffix: a JSON array, CSV (`entities` as JSON), or JSON
    Lines.
    """
    if suffix == ".csv":
        _write_csv(iter(rows), out)
    elif suffix == ".json":
        separator = "["
        for row in rows:
            out.write(f"{separator}\n{_json(row)}")
            separator = ","
        has_rows = separator == ","
        out.write("\n]\n" if has_rows else "[]\n")
    else:
        out.writelines(f"{_json(row)}\n" for row in rows)


def _write_csv(rows: Iterator[dict[str, Any]], out: TextIO) -> None:
    first = next(rows, None)
    if first is None:
        return
    columns = list(first)
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in itertools.chain([first], rows):
        writer.writerow(
            {key: value if isinstance(value, str) else _json(value) for key, value in row.items()}
        )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


class ReviewLog(ExitStack):
    """Log of replacements: a header with the date of deletion, then one line per replacement."""

    def __init__(self, path: Path, home: Path, now: float, days: int) -> None:
        """Open the log; `now` is in seconds since 1970. Raises `MaterialError` and `OSError`."""
        super().__init__()
        record_review_file(home, path, now + days * DAY_S)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._path = path
        self._out = os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass")
        self.callback(name_file_in_errors(path)(self._out.close))
        self.delete_on = datetime.fromtimestamp(now + days * DAY_S, UTC).isoformat(
            timespec="seconds"
        )
        self.source = self.row = ""
        self._write(
            {"delete_on": self.delete_on, "why": "It names the people whom the result hides."}
        )

    def note(self, text: str, entities: Sequence[Entity], methods: Mapping[str, str]) -> None:
        """Log the replacements in a text, and its scripts in which no names were looked for
        (`methods`, see `NameDetector.search_methods`); `row` is its position, `source` the file, if
        there are several.
        """
        of = {"source": self.source} if self.source else {}
        scripts = [script for script, method in methods.items() if method == "none"]
        if scripts:
            self._write(
                {
                    **of,
                    "row": self.row,
                    "kind": NOT_SEARCHED,
                    "original": ", ".join(scripts),
                    "replacement": "",
                    "context": " ".join(text[: 2 * CONTEXT_CHARS].split()),
                }
            )
        for entity in entities:
            around = text[max(0, entity.start - CONTEXT_CHARS) : entity.end + CONTEXT_CHARS]
            self._write(
                {
                    **of,
                    "row": self.row,
                    "kind": entity.kind,
                    "original": text[entity.start : entity.end],
                    "replacement": entity.replacement,
                    "context": " ".join(around.split()),
                }
            )

    def _write(self, line: dict[str, str]) -> None:
        with name_file_in_errors(self._path):
            self._out.write(f"{_json(line)}\n")
