"""Files of adapters from outside: of a peft folder or a zip, within limits of size."""

import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from personas.errors import AdapterError
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    NO_LINKS_ADVICE,
    README_FILE,
    WEIGHTS_FILE,
)
from personas.schemas.training import AdapterSource
from personas.zip_directory import require_few_entries

REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE)
IMPORTED_FILES = (*REQUIRED_FILES, MANIFEST_FILE, README_FILE)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_WEIGHTS_BYTES = 2**30
MAX_TEXT_BYTES = 2**22
"""Limit of each file but the weights."""
MAX_ZIP_ENTRIES = 2000
MAX_SHOWN_CHARS = 200
"""Characters of a text of the adapter that messages and manifests repeat."""
UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""Errors of `zipfile` for a damaged, an encrypted or an unusual archive."""


def require_adapter_files(names: Collection[str], where: str) -> None:
    missing = [name for name in REQUIRED_FILES if name not in names]
    if WEIGHTS_FILE in missing and any(name.endswith(PICKLE_SUFFIXES) for name in names):
        raise AdapterError(
            f"{where} has its weights as a pickle, which can run code when it is opened.",
            "Ask its author for safetensors, or save it again with peft.",
        )
    if missing:
        what = f"{where} is no peft adapter: it has no {' and no '.join(missing)}."
        raise AdapterError(
            what, f"Name the folder or zip that holds {' and '.join(REQUIRED_FILES)} itself."
        )


def require_size(name: str, size: int, where: str) -> None:
    limit = MAX_WEIGHTS_BYTES if name == WEIGHTS_FILE else MAX_TEXT_BYTES
    if size > limit:
        raise AdapterError(
            f"{name} of {where} has {size / 2**20:,.0f} MiB.", f"At most {limit // 2**20} are read."
        )


def copy_folder(source: Path, folder: Path) -> AdapterSource:
    require_adapter_files([path.name for path in source.iterdir()], str(source))
    for name in IMPORTED_FILES:
        if (source / name).is_symlink():
            raise AdapterError(f"{name} in {source} is a link.", NO_LINKS_ADVICE)
        if (source / name).is_file():
            require_size(name, (source / name).stat().st_size, str(source))
            shutil.copyfile(source / name, folder / name)
    return AdapterSource(name=source.resolve().name)


def unpack_zip(file: Path, folder: Path) -> AdapterSource:
    """Unpack the files of an adapter from the archive's root or from its only folder with one."""
    try:
        with file.open("rb") as stream:
            require_few_entries(stream, MAX_ZIP_ENTRIES)
        with zipfile.ZipFile(file) as archive:
            paths = {PurePosixPath(name): name for name in archive.namelist()}
            parents = {path.parent for path in paths if path.name in REQUIRED_FILES}
            if len(parents) > 1:
                raise AdapterError(f"{file.name} holds several adapters.", "Zip one of them.")
            parent = parents.pop() if parents else PurePosixPath(".")
            require_adapter_files([path.name for path in paths if path.parent == parent], file.name)
            for name in IMPORTED_FILES:
                if parent / name in paths:
                    _unpack_entry(archive, paths[parent / name], folder / name, file.name)
    except UNPACKING_ERRORS as error:
        what = f"{file.name} is no zip file that can be read: {error}."
        raise AdapterError(
            what, "Name an adapter's folder or a zip of it, or make the zip again."
        ) from None
    return AdapterSource(name=file.name)


def _unpack_entry(archive: zipfile.ZipFile, entry: str, path: Path, where: str) -> None:
    size = archive.getinfo(entry).file_size
    require_size(path.name, size, where)
    # The archive's directory may state another size than the entry unpacks to: no more than that
    # is unpacked, and what was written is measured again.
    with path.open("wb") as out:
        out.writelines(_entry_pieces(archive, entry, size + 1))
    require_size(path.name, path.stat().st_size, where)


def _entry_pieces(archive: zipfile.ZipFile, entry: str, limit: int) -> Iterator[bytes]:
    try:
        with archive.open(entry) as packed:
            while limit and (piece := packed.read(min(limit, 2**20))):
                limit -= len(piece)
                yield piece
    except OSError as error:  # of bz2, or of an entry that lies before the file's beginning
        raise zipfile.BadZipFile(str(error)) from None
