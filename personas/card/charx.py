"""CHARX files: a zip with `card.json` (V3) at its root, and the card's assets as `embeded://path`.

Nothing is written to disk here. Format: CHARX in the card specification V3, which spells "embeded".
"""

import io
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping

from personas.card.spec_card import MAX_JSON_BYTES
from personas.errors import CardError
from personas.outside_names import UnsafeNameError, require_safe_name
from personas.zip_directory import require_few_entries

CARD_ENTRY = "card.json"
ASSET_SCHEME = "embeded://"
MAX_ENTRIES = 2000
MAX_UNPACKED_BYTES = 256 * 2**20
UNPACKING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""Errors of `zipfile` for a damaged, an encrypted or an unusual archive."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ASSET_FOLDERS = {
    "images": "png jpg jpeg gif webp avif apng svg bmp",
    "audio": "mp3 ogg wav flac m4a",
    "video": "mp4 webm mov",
    "3d": "mmd obj",
    "fonts": "otf ttf woff woff2",
    "code": "lua js",
}


def read(
    data: bytes, where: str, max_bytes: int = MAX_UNPACKED_BYTES
) -> tuple[bytes, dict[str, bytes]]:
    """Return the card's JSON and the other files by URI, at most `max_bytes` unpacked. Raises
    `CardError`.
    """
    try:
        require_few_entries(io.BytesIO(data), MAX_ENTRIES)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename[-1:] != "/"]
            if (count := len(entries)) > MAX_ENTRIES:
                what = f"{where} holds {count:,} files; {MAX_ENTRIES:,} is the most."
                raise CardError(what, "Export it with fewer assets.")
            _validate_entries(entries, where, max_bytes)
            return _contents(archive, entries, where, max_bytes)
    except UNPACKING_ERRORS as error:
        raise CardError(
            f"{where} is a damaged zip file: {error}.", "Download or export it again."
        ) from None


def write(card: bytes, files: Mapping[str, bytes]) -> bytes:
    """Build the zip of a card and its files. Equal contents give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        contents = {CARD_ENTRY: card}
        for uri in sorted(files):
            contents[uri.removeprefix(ASSET_SCHEME)] = files[uri]
        for path, content in contents.items():
            # An info of its own: by name, the entry would get the time of now.
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def uri_for(kind: str, name: str, extension: str) -> str:
    """Return the URI of an asset in the zip, from its type, name and file extension."""
    folder = "other"
    for asset_folder, suffixes in ASSET_FOLDERS.items():
        if extension in suffixes.split():
            folder = asset_folder
            break
    return f"{ASSET_SCHEME}assets/{_safe(kind)}/{folder}/{_safe(name)}.{_safe(extension)}"


def _safe(part: str) -> str:
    safe = ""
    for letter in part[:60]:
        safe += letter if letter.isalnum() or letter in "-_" else "_"
    safe = safe or "unnamed"
    try:
        require_safe_name(safe)
    except UnsafeNameError:  # a device's name
        return f"_{safe}"
    return safe


def _validate_entries(entries: list[zipfile.ZipInfo], where: str, max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    try:
        for name in names:
            require_safe_name(name)
    except UnsafeNameError as error:
        raise CardError(
            f"{where} holds a file whose name {error}.", "Do not trust this file."
        ) from None
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise CardError(
            f"{where} unpacks to too much.", f"At most {max_bytes // 2**20} MiB are read."
        )
    for entry in entries:
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise CardError(
                f"{where} holds {entry.filename!r}, which is a link or device.",
                "Do not trust this file.",
            )
        if entry.flag_bits & 1:
            raise CardError(f"{where} is encrypted.", "Export the card without a password.")
        if entry.compress_type not in ZIP_METHODS:
            what = f"{where}: {entry.filename!r} uses an unsupported compression method."
            raise CardError(what, "Zip it with deflate.")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CardError(f"{where} holds {twice!r} twice.", "Export the card again.")
    if CARD_ENTRY not in names:
        what = f"{where} is a zip file without {CARD_ENTRY} at its root."
        raise CardError(what, "A CHARX file holds the card there.")


def _contents(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], where: str, budget: int
) -> tuple[bytes, dict[str, bytes]]:
    card = b""
    files = {}
    for entry in entries:
        limit = min(budget, MAX_JSON_BYTES) if entry.filename == CARD_ENTRY else budget
        with archive.open(entry) as packed:
            content = packed.read(limit + 1)  # the sizes in the directory may be wrong
        if len(content) > limit:
            raise CardError(
                f"{where}: {entry.filename!r} is too large.", "Cards are never that large."
            )
        budget -= len(content)
        if entry.filename == CARD_ENTRY:
            card = content
        else:
            files[ASSET_SCHEME + entry.filename] = content
    return card, files
