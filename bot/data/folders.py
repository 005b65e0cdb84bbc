"""Folders of uploads, data sets and builds in UNDERSTUDY_HOME, and the names allowed there."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from bot.data.errors import InvalidNameError, UnsupportedFileError
from personas.home.dataset_catalogue import read_catalogue
from personas.outside_names import UnsafeNameError, path_inside, require_safe_name

FILE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".zip", ".txt", ".md")
"""Suffixes of supported files, which may also be compressed with gzip."""
GZIP_SUFFIX = ".gz"
FILE_NAME_PATTERN = re.compile(r"\w[\w .()+-]{0,119}")
MAX_NAME_BYTES = 200
"""File systems allow 255, and partial files have longer names."""
DATASET_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class DataFolders:
    """The folders of a home."""

    home: Path

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

    @property
    def sets(self) -> Path:
        return self.home / "datasets"

    def upload(self, name: str) -> Path:
        """The path of an upload, which need not exist. Raises `InvalidNameError`."""
        return _path_of(self.uploads, parse_file_name(name))

    def set(self, name: str) -> Path:
        """The path of a data set, which need not exist. Raises `InvalidNameError`."""
        return _path_of(self.sets, parse_dataset_name(name))

    def build(self, name: str) -> Path:
        """The folder of a data set's build request, review and corrections."""
        return _path_of(self.home / "builds", parse_dataset_name(name))


def _path_of(folder: Path, name: str) -> Path:
    """Return the path of a file or folder. Raises `InvalidNameError` for a name of a device, or
    behind a link.
    """
    try:
        return path_inside(folder, name)
    except UnsafeNameError as error:
        raise InvalidNameError(
            f"The name {error}.", "Choose another name, or put the file itself there."
        ) from None


def parse_file_name(text: str) -> str:
    """The name of an upload. Raises `InvalidNameError` for a path, and `UnsupportedFileError`."""
    name = unicodedata.normalize("NFC", text.strip())
    if not FILE_NAME_PATTERN.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidNameError(
            f"A file cannot be called {name[:80]!r}.",
            (
                "Use letters, digits, spaces and . ( ) + - _, at most 120, the first a letter or "
                "digit."
            ),
        )
    try:
        require_safe_name(name)
    except UnsafeNameError as error:
        raise InvalidNameError(f"A file's name {error}.", "Choose another name.") from None
    if not is_supported_file(Path(name)):
        raise UnsupportedFileError(
            f"{name} is of an unsupported type.",
            f"Supported are {', '.join(FILE_SUFFIXES)}, each also compressed as {GZIP_SUFFIX}.",
        )
    return name


def is_supported_file(path: Path) -> bool:
    """Tell by its suffix whether a file, or the file packed in it, is of a type that is read."""
    inner = path.with_suffix("") if path.suffix.lower() == GZIP_SUFFIX else path
    return inner.suffix.lower() in FILE_SUFFIXES


def parse_dataset_name(text: str) -> str:
    """The name of a data set. Raises `InvalidNameError`."""
    if not DATASET_NAME_PATTERN.fullmatch(text.strip()):
        raise InvalidNameError(
            f"A data set cannot be called {text.strip()[:80]!r}.",
            "Use letters, digits, - and _, at most 64, the first a letter or digit.",
        )
    return text.strip()


def catalogue_names(home: Path) -> dict[Path, str]:
    """Map paths to the names by which moderators take the data there."""
    entries = read_catalogue(home).entries.values()
    return {entry.path: entry.name for entry in entries if entry.path}
