"""Whether a file is what its name says, by its first bytes: what is none of it is refused before more comes in."""

from __future__ import annotations

from pathlib import PurePath

from bot.web.problems import Problem

MARKS = {".zip": (b"PK\x03\x04", b"PK\x05\x06"), ".parquet": (b"PAR1",), ".gz": (b"\x1f\x8b",)}
"""How files of the kinds that are no text begin."""
WIDE = (b"\xff\xfe", b"\xfe\xff")
"""How text begins that has two bytes a character, of which one may be 0."""
OTHERS = {
    b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "packed with gzip", b"PAR1": "Parquet", b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database", b"%PDF-": "a PDF", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture",
}  # fmt: skip
LOOKED_AT_BYTES = 4096


def require_kind(name: str, first: bytes | bytearray) -> None:
    """Raise `Problem` where a file that begins so cannot be of the kind that its name says."""
    kind, start = PurePath(name).suffix.lower(), bytes(first[:LOOKED_AT_BYTES])
    if kind in MARKS:
        if not start.startswith(MARKS[kind]):
            raise _other(name, f"does not begin as {kind} files do")
        return
    for mark, what in OTHERS.items():
        if start.startswith(mark):
            raise _other(name, f"is {what}, and no text")
    if b"\0" in start and not start.startswith(WIDE):
        raise _other(name, "holds zero bytes, and is no text")


def _other(name: str, what: str) -> Problem:
    return Problem("wrong-kind", f"{name} {what}.", "Send it under the name of what it is, or another file.")
