"""A version as one file: the persona's card with the adapter inside (CHARX)."""

import hashlib
from pathlib import Path

from personas.card.spec_card import Card
from personas.errors import MaterialError
from personas.home.adapters import is_private_file, verify_adapter
from personas.home.card_adapter import embed_adapter
from personas.home.data_subjects import read_people
from personas.home.external_files import EVERYBODY, record_export


def exported_bytes(folder: Path) -> int:
    """Return the size of the files of an adapter's folder that an export contains; 0 for none."""
    size_bytes = 0
    for path in folder.rglob("*"):
        if path.is_file() and not is_private_file(path.relative_to(folder).as_posix()):
            size_bytes += path.stat().st_size
    return size_bytes


def export_version(home: Path, card: Card, folder: Path, name: str, *, recipient: str) -> bytes:
    """Build the file `name`, and record its export to a recipient with the people in the adapter.

    Raises `AdapterError` for a damaged adapter, `ExportError` for one that is too large, `OSError`.
    """
    verify_adapter(folder)
    content = embed_adapter(card, folder, where=name)
    try:
        people = list(read_people(folder))
    except MaterialError:  # the people in it are unknown
        people = [EVERYBODY]
    if people:
        digest = hashlib.sha256(content).hexdigest()
        path = f"{name}, {recipient}"
        record_export(home, "adapter", path=path, people=people, sha256=digest)
    return content
