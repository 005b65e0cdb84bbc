"""Names that come from outside: the one way from such a name to a path.

Archives, manifests, hubs, uploads and job folders name files. `folder / name` is not safe for such
a name: it is `name` alone where that is absolute, and a link inside the folder leads out of it. So
these names become paths here only; `tests/test_outside_names.py` finds any other way.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
"""The longest name of a file on the common file systems."""
JOINERS = str.maketrans("", "", "\u200c\u200d")
"""Not shown, but needed in emoji and in several scripts."""
DRIVE_PATTERN = re.compile(r"[A-Za-z]:")
DEVICE_PATTERN = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.IGNORECASE
)
"""Names that Windows opens as devices, with any suffix (Microsoft, "Naming Files, Paths, and
Namespaces").
"""


class UnsafeNameError(ValueError):
    """A name from outside that is no plain relative path. The message says why, and quotes the
    name.
    """

    def __init__(self, name: str, why: str) -> None:
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        super().__init__(f"{shown!r} {why}")


def require_safe_name(name: str, *, portable: bool = True) -> PurePosixPath:
    """Return a name as a relative path with `/` between its parts. Raises `UnsafeNameError`.

    Refused is what leads elsewhere on any system where the file may be opened: absolute names,
    empty parts, `.` and `..`, backslashes, drive letters, and characters that are not shown (among
    them NUL and those that turn the direction of text); if `portable`, also names of devices, and
    parts that end with a dot or space. Those are other files on Windows only: a home may contain
    them already, so its backups allow them.
    """
    if not name:
        raise UnsafeNameError(name, "is empty")
    if not name.translate(JOINERS).isprintable():
        raise UnsafeNameError(name, "has characters that are not shown")
    if "\\" in name:
        raise UnsafeNameError(name, "has a backslash")
    if DRIVE_PATTERN.match(name):
        raise UnsafeNameError(name, "begins with a drive letter")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UnsafeNameError(name, "is too long")
    for part in name.split("/"):
        why = _fault_of_part(part)
        if not why and portable:
            why = _portability_fault(part)
        if why:
            raise UnsafeNameError(name, why)
    return PurePosixPath(name)


def _fault_of_part(part: str) -> str:
    """Return why a part of a path is refused; empty if it is not."""
    if part in ("", ".", ".."):
        return "is absolute or leads out of its folder"
    if len(part.encode()) > MAX_PART_BYTES:
        return "has a part that is too long"
    return ""


def _portability_fault(part: str) -> str:
    if part[-1] in ". ":
        return "has a part that ends with a dot or space"
    if DEVICE_PATTERN.fullmatch(part):
        return "has the name of a device"
    return ""


def require_distinct_names(names: Iterable[str]) -> None:
    """Refuse names that are one file where letter case or the Unicode form makes no difference.

    Raises `UnsafeNameError` with the second of two such names.
    """
    seen: dict[str, str] = {}
    for name in names:
        # Twice: folding case may leave letters and their marks apart.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in seen:
            raise UnsafeNameError(name, f"is the same file as {seen[folded]!r} on some systems")
        seen[folded] = name


def path_inside(folder: Path, name: str, *, portable: bool = True) -> Path:
    """Return the path of a name from outside below a folder, with no link in between.

    Nothing is created. Raises `UnsafeNameError` as `require_safe_name` does, `OSError`.
    """
    path = folder.joinpath(require_safe_name(name, portable=portable))
    for above in (path, *path.parents):
        if above == folder:
            break
        if above.is_symlink():
            raise UnsafeNameError(name, "is behind a link")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafeNameError(name, "leads out of its folder")
    return path


def last_part(name: str, default: str) -> str:
    """Return the file name at the end of a name or path of another system; the default where that
    is not safe.
    """
    last = re.split(r"[/\\]", name)[-1]
    try:
        return require_safe_name(last).name
    except UnsafeNameError:
        return default
