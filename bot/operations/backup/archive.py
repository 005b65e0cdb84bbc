"""The backup's zip archive, with a manifest of checksums; reading one trusts nothing in it."""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal

from pydantic import AfterValidator, Field, ValidationError

from bot.platform.db.database import EARLIER_ADVICE
from bot.platform.db.schema import FIRST_VERSION, schema_version
from bot.store import HOME_DATABASE
from personas.errors import UnderstudyError
from personas.outside_names import UnsafeNameError, path_inside, require_safe_name
from personas.schemas.base import FrozenModel

FORMAT_VERSION = 1
ARCHIVE_KIND = "understudy-backup"  # identifies a manifest, also one in a newer format
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
UNCOMPRESSED_SUFFIXES = (".safetensors", ".png", ".webp", ".jpg", ".gif", ".charx")
"""Suffixes of files that do not compress."""

HOME_FOLDERS = ("personas", "lore", "earlier", "models", "heldout", "keys")
HOME_FILES = ("consent.json", "catalogue.toml", "exports.jsonl")
HOME_CONTENT = frozenset({HOME_DATABASE, *HOME_FOLDERS, *HOME_FILES})
"""Names that the paths of a backup's members may start with."""

# between 1970 and 2096, in seconds since 1970
MIN_TIME_S = 0.0
MAX_TIME_S = 4e9
ProgressCallback = Callable[[int], None]  # receives the number of further bytes processed


class BackupError(UnderstudyError):
    """A backup that cannot be created, read or restored. What existed before is untouched."""


class ArchiveMember(FrozenModel):
    """A file's entry in the manifest."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


def _valid_time(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not MIN_TIME_S <= moment.timestamp() <= MAX_TIME_S:
        raise ValueError("not a plausible time with a time zone")
    return text


class BackupManifest(FrozenModel):
    """The manifest: when the backup was created (ISO 8601), by which version, and the schema of its
    database.
    """

    kind: Literal["understudy-backup"] = "understudy-backup"
    format: Annotated[int, Field(ge=1)] = FORMAT_VERSION
    made_at: Annotated[str, AfterValidator(_valid_time)]
    program: str
    schema_version: Annotated[int, Field(ge=1)]
    members: dict[str, ArchiveMember]


class ArchiveWriter:
    """Writes an archive."""

    def __init__(self, archive: zipfile.ZipFile, progress: ProgressCallback) -> None:
        self._archive = archive
        self._progress = progress
        self.members: dict[str, ArchiveMember] = {}

    def add(self, name: str, source: BinaryIO) -> None:
        """Add a file under a name, with its current contents. Raises `BackupError`, `OSError`."""
        try:
            require_safe_name(name, portable=False)
        except UnsafeNameError as error:  # a backup that contains it would be refused
            raise BackupError(
                f"A file in the home cannot be backed up: {error}.", "Rename it."
            ) from None
        is_compressed = PurePosixPath(name).suffix in UNCOMPRESSED_SUFFIXES
        info = zipfile.ZipInfo(name)  # without the file's own time, which nothing needs
        info.external_attr = (stat.S_IFREG | 0o600) << 16
        info.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
        digest = hashlib.sha256()
        size = 0
        with self._archive.open(info, "w", force_zip64=True) as out:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
                size += len(chunk)
                self._progress(len(chunk))
        self.members[name] = ArchiveMember(sha256=digest.hexdigest(), bytes=size)

    def seal(self, made_at: str, program: str, schema_version: int) -> BackupManifest:
        """Add the manifest, as the last member."""
        manifest = BackupManifest(
            made_at=made_at,
            program=program,
            schema_version=schema_version,
            members=dict(sorted(self.members.items())),
        )
        self._archive.writestr(
            zipfile.ZipInfo(MANIFEST_NAME), manifest.model_dump_json(indent=1) + "\n"
        )
        return manifest


class ArchiveReader:
    """Reads a backup; `manifest` has been validated, the members have not."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.manifest = self._read_manifest()
        self._check_names()

    @property
    def unpacked_bytes(self) -> int:
        return sum(member.bytes for member in self.manifest.members.values())

    def verify(self, progress: ProgressCallback) -> None:
        """Compare every member with its checksum. Raises `BackupError` naming the first
        mismatch.
        """
        for name in self.manifest.members:
            for chunk in self._chunks(name):
                progress(len(chunk))

    def extract(self, folder: Path, progress: ProgressCallback) -> None:
        """Write every member into an empty folder, readable by its owner only. Raises
        `BackupError`, `OSError`.
        """
        for name in self.manifest.members:
            target = path_inside(folder, name, portable=False)
            for above in reversed(target.relative_to(folder).parents):
                (folder / above).mkdir(mode=0o700, exist_ok=True)
            with target.open("xb") as out:
                target.chmod(0o600)
                for chunk in self._chunks(name):
                    out.write(chunk)
                    progress(len(chunk))

    def _chunks(self, name: str) -> Iterator[bytes]:
        expected = self.manifest.members[name]
        digest = hashlib.sha256()
        size = 0
        with _translate_zip_errors(self._path), self._archive.open(name) as source:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                # Before it is written anywhere: a zip bomb declares a small size.
                if size > expected.bytes:
                    break
                yield chunk
        if size != expected.bytes or digest.hexdigest() != expected.sha256:
            raise damaged_error(self._path, f"{name} has changed since it was written")

    def _read_manifest(self) -> BackupManifest:
        with _translate_zip_errors(self._path):
            try:
                info = self._archive.getinfo(MANIFEST_NAME)
            except KeyError:
                raise _foreign_error(self._path) from None
            if info.file_size > MAX_MANIFEST_BYTES:
                raise _foreign_error(self._path)
            try:
                manifest = BackupManifest.model_validate_json(self._archive.read(info))
            except ValidationError as error:
                raise self._wrong_manifest(info, error) from None
        if manifest.format > FORMAT_VERSION or manifest.schema_version > schema_version():
            raise _newer_error(self._path, manifest.program)
        if manifest.schema_version < FIRST_VERSION:
            raise BackupError(
                f"The backup {self._path} was made by an Understudy from before the first release "
                f"(schema {manifest.schema_version}, read here from {FIRST_VERSION} on).",
                f"{EARLIER_ADVICE} Nothing was changed.",
            )
        return manifest

    def _wrong_manifest(self, info: zipfile.ZipInfo, error: ValidationError) -> BackupError:
        text = self._archive.read(info)
        if ARCHIVE_KIND.encode() not in text:
            return _foreign_error(self._path)
        # A later format may have fields that this program does not know.
        extra = any(detail["type"] == "extra_forbidden" for detail in error.errors())
        if extra:
            return _newer_error(self._path, "a newer program")
        return damaged_error(self._path, "its manifest cannot be read")

    def _check_names(self) -> None:
        infos = self._archive.infolist()
        names = [info.filename for info in infos if info.filename != MANIFEST_NAME]
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or (
                info.filename != MANIFEST_NAME and not _is_home_path(info.filename)
            ):
                raise BackupError(
                    f"{self._path} contains a file that no backup contains: {info.filename!r}.",
                    "Nothing of it was extracted.",
                )
        if len(names) != len(set(names)) or set(names) != self.manifest.members.keys():
            raise damaged_error(self._path, "it contains other files than its manifest lists")


@contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """Open a backup. Raises `BackupError` for one that is foreign, damaged, newer than this
    program, or from before the first release.
    """
    with _translate_zip_errors(path):
        file = zipfile.ZipFile(path)
    with file:
        yield ArchiveReader(path, file)


def _is_home_path(name: str) -> bool:
    """Return whether a member's name is a path of a home's content."""
    try:
        parts = require_safe_name(name, portable=False).parts
    except UnsafeNameError:
        return False
    return (
        parts[0] in HOME_FOLDERS if len(parts) > 1 else parts[0] in HOME_CONTENT - {*HOME_FOLDERS}
    )


@contextmanager
def _translate_zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeDecodeError,
    ) as error:
        if zipfile.is_zipfile(path):
            raise damaged_error(path, str(error) or "it is truncated") from error
        raise _foreign_error(path) from error
    except OSError as error:
        raise BackupError(
            f"{path} cannot be read: {error.strerror or error}.", "Check its path and rights."
        ) from error


def damaged_error(path: Path, how: str) -> BackupError:
    """Return the error for a backup in which something has changed since it was written."""
    return BackupError(
        f"The backup {path} is damaged: {how}.", "Nothing was changed. Take another backup."
    )


def _foreign_error(path: Path) -> BackupError:
    return BackupError(
        f"{path} is not a backup of Understudy, or truncated.",
        "Nothing was changed. Name another file.",
    )


def _newer_error(path: Path, program: str) -> BackupError:
    return BackupError(
        f"The backup {path} was made by a newer Understudy ({program}).",
        "Update the project, then restore it.",
    )
