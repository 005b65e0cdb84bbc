"""A character card with the adapter inside: CHARX, which may carry files of any kind as assets.

How it lies in the card, `personas.carried` says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from personas.card import Card, read_any, write
from personas.card.charx import MAX_UNPACKED_BYTES
from personas.card.convert import as_version
from personas.carried import ASSET, INSIDE, unpack_carried
from trainer.exports.errors import ExportError


def with_adapter(card: Card, folder: Path, where: str) -> bytes:
    """The CHARX file of a card and the adapter in a folder; one that was in the card already gives way.

    Raises `ExportError` when it would be larger than anybody reads a card.
    """
    card = without_adapter(as_version(card, 3))
    files, assets = dict(card.files), list(card.data.get("assets") or [])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        files[INSIDE + name] = path.read_bytes()
        assets.append(
            {"type": ASSET, "uri": INSIDE + name, "name": name, "ext": path.suffix.removeprefix(".") or "unknown"}
        )
    if sum(map(len, files.values())) > MAX_UNPACKED_BYTES:
        raise ExportError(
            f"With this adapter the card would hold more than {MAX_UNPACKED_BYTES // 2**20} MiB.",
            "Export --to adapter, and hand out card and adapter beside each other.",
        )
    document = {**card.document, "data": {**card.data, "assets": assets}}
    return write(replace(card, document=document, files=files), "charx", where).content


def without_adapter(card: Card) -> Card:
    """The card without the adapter that it carries."""
    assets = [asset for asset in card.data.get("assets") or [] if not _is_adapter(asset)]
    document = {**card.document, "data": {**card.data, **({"assets": assets} if assets else {})}}
    if not assets:
        document["data"].pop("assets", None)
    files = {uri: content for uri, content in card.files.items() if not uri.startswith(INSIDE)}
    return replace(card, document=document, files=files)


def unpack_adapter(file: Path, folder: Path) -> Path:
    """Write the adapter that a card file carries into a folder, byte by byte as it was, and verify it.

    Raises `CardError`, or `AdapterError` when there is none, or not all of it.
    """
    unpack_carried(read_any(file), folder, str(file))
    return folder


def _is_adapter(asset: object) -> bool:
    return isinstance(asset, dict) and asset.get("type") == ASSET
