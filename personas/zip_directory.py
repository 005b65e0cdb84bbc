"""Looks at the size of a zip's directory before it is read: 100,000 entries take seconds, whatever
they contain.
"""

import os
import struct
import zipfile
from typing import BinaryIO

MAX_ENTRY_BYTES = 512
"""Size of an entry of the directory, with a name of usual length, for limits on the number of
entries.
"""
END_BYTES = 22
END64_LOCATOR_BYTES = 20
END64_BYTES = 56
MAX_COMMENT_BYTES = 2**16
END_SIGN = b"PK\x05\x06"
END64_SIGN = b"PK\x06\x06"


def require_few_entries(file: BinaryIO, most: int) -> None:
    """Raise `zipfile.BadZipFile` if the directory is too large for so many entries; the file's
    position is kept.

    The number of entries that the end of the file states may be wrong, and nobody relies on it; the
    size of the directory is what is read (PKWARE's APPNOTE.TXT, 4.3.14 and 4.3.16).
    """
    if (size := _directory_bytes(file)) > most * MAX_ENTRY_BYTES:
        raise zipfile.BadZipFile(
            f"its list of files has {size / 1e6:,.1f} MB, more than {most:,} files have"
        )


def _directory_bytes(file: BinaryIO) -> int:
    """Return the largest size that a reader may find; 0 for no zip."""
    place = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - END_BYTES - MAX_COMMENT_BYTES - END64_LOCATOR_BYTES - END64_BYTES))
    tail = file.read()
    file.seek(place)
    sizes = [0]
    for at in {tail.rfind(END_SIGN), len(tail) - END_BYTES}:
        if at >= 0 and tail[at : at + 4] == END_SIGN and len(tail) >= at + END_BYTES:
            sizes.append(struct.unpack_from("<L", tail, at + 12)[0])
            before = at - END64_LOCATOR_BYTES - END64_BYTES
            if before >= 0 and tail[before : before + 4] == END64_SIGN:
                sizes[-1] = struct.unpack_from("<Q", tail, before + 40)[0]
    return max(sizes)
