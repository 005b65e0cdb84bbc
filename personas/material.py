"""Digests of training material, so that a job folder can prove that its copies are what was meant."""

from __future__ import annotations

import hashlib
from pathlib import Path


def material_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of a folder's relative file names and contents in sorted order.

    Raises `OSError` when something cannot be read.
    """
    if not path.is_dir():
        return _file_digest(path).hex()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix().encode()
        # The length keeps apart what belongs to a name and what to a content.
        digest.update(len(name).to_bytes(8, "big") + name + _file_digest(file))
    return digest.hexdigest()


def _file_digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
